//! `make validate`: what the live instrument records, against what the exact one records of the same
//! service under the same load in the same boot of the lab; and its counts against those of strace and
//! perf.
//!
//! Writes `docs/validation.md` and `target/validate/validation.json`. Ends with 3 when a bound is missed.
//! Needs `make build` and the lab. `ALTAZ_VALIDATE_SERVICES` (`web,redis`) names specs of `demo/`,
//! `ALTAZ_VALIDATE_SECONDS` (75) is the length of a recording, `ALTAZ_VALIDATE_COUNTS=0` leaves the counts
//! out; the page is written only when nothing was left out.

mod counts;
mod kernel;
mod lab;
mod observe;
mod page;
mod userland;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use altaz::compare::images::ImageCode;
use altaz::compare::session::Parts;
use altaz_deploy::{LoadKind, ServiceSpec};
use altaz_e2e::repository;
use altaz_lab::{
    BuildOptions, Interrupt, LabImage, NetNs, Recipe, ServiceImage, TarFiles, cache_dir,
};
use altaz_profile::Phase;

use counts::Counts;
use observe::Observation;
use page::Compared;

/// Anything that goes wrong here is said and ends it.
pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Services compared when none is named.
const SERVICES: &str = "web,redis";
/// Length of a recording: PostgreSQL's background work comes once a minute.
const SECONDS: u64 = 75;
/// Requests to the guest whose exits are counted.
const EXIT_REQUESTS: u64 = 200;

fn main() -> ExitCode {
    match run() {
        Ok(broken) if broken.is_empty() => ExitCode::SUCCESS,
        Ok(broken) => {
            broken.iter().for_each(|b| eprintln!("not as promised: {b}"));
            ExitCode::from(3)
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<Vec<String>> {
    let target = target_dir()?;
    let names = std::env::var("ALTAZ_VALIDATE_SERVICES").unwrap_or_else(|_| SERVICES.into());
    let seconds = match std::env::var("ALTAZ_VALIDATE_SECONDS") {
        Ok(text) => text.parse()?,
        Err(_) => SECONDS,
    };
    let counting = std::env::var("ALTAZ_VALIDATE_COUNTS").as_deref() != Ok("0");
    let binaries = Binaries {
        altaz: present(target.join("release/altaz"))?,
        plugin: present(target.join("release/libaltaz_plugin.so"))?,
    };
    let mut images = Vec::new();
    let mut progress = |step: &str| eprintln!("{step}");
    let mut options =
        BuildOptions { cache: cache_dir(), progress: &mut progress, interrupt: Interrupt::new() };
    let lab = LabImage::ensure(&Recipe::builtin()?, &mut options)?;
    // The exits are those of the web demo.
    for name in names.split(',').filter(|n| !n.is_empty()).chain(counting.then_some("web")) {
        let path = repository().join(format!("demo/{name}.toml"));
        let text =
            std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let spec = ServiceSpec::parse(&text, &path).map_err(|e| e.to_string())?;
        let image = ServiceImage::ensure(&spec.image, &mut options)?;
        images.push((spec, image));
    }
    altaz_lab::become_unprivileged_root()?;

    let counted = match images.pop_if(|_| counting) {
        Some((spec, image)) => {
            Some(counts::run(&lab, &image, &spec, &binaries.altaz, EXIT_REQUESTS)?)
        }
        None => None,
    };
    let mut services = Vec::new();
    for (spec, image) in &images {
        services.push(compare(&lab, spec, image, &binaries, seconds)?);
        // A service takes a quarter of an hour: one that fails loses nothing of those before it.
        let whole =
            services.len() == images.len() && counting && names == SERVICES && seconds >= SECONDS;
        report(&services, counted.as_ref(), &target, whole)?;
    }
    Ok(page::broken(&services, counted.as_ref()))
}

/// What `make build` makes.
struct Binaries {
    altaz: PathBuf,
    plugin: PathBuf,
}

fn present(path: PathBuf) -> Result<PathBuf> {
    match path.is_file() {
        true => Ok(path),
        false => Err(format!("{} is missing: `make build` makes it", path.display()).into()),
    }
}

/// The build's directory, three levels above this program (`target/release/examples/validate`).
fn target_dir() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(3).ok_or("this program lies in no target directory")?;
    Ok(target.to_owned())
}

fn compare(
    lab: &LabImage,
    spec: &ServiceSpec,
    image: &ServiceImage,
    binaries: &Binaries,
    seconds: u64,
) -> Result<Compared> {
    let lab_code = ImageCode::open(lab.dir(), &lab.root_tar())?;
    let service_code = ImageCode::open(image.dir(), &image.root_tar())?;
    let netns = NetNs::new()?;
    let interrupt = Interrupt::new();
    let parts = Parts {
        netns: &netns,
        lab,
        lab_code: &lab_code,
        services: std::slice::from_ref(image),
        service_code: std::slice::from_ref(&service_code),
        plugin: &binaries.plugin,
        interrupt: &interrupt,
    };
    let time = Duration::from_secs(seconds);
    let observation = Observation { parts: &parts, spec, altaz: &binaries.altaz, time };
    let observed = observation.run()?;
    let live = [&observed.live, &observed.userland];
    let windows = live.iter().flat_map(|p| &p.manifest.windows);
    let lost = windows.map(|w| w.lost_events).sum();
    let files = TarFiles::open(&image.root_tar())?;
    Ok(Compared {
        name: spec.name.clone(),
        load: words(spec, seconds),
        windows: observed.exact.windows.iter().filter(|w| w.phase == Phase::Serve).count(),
        lost,
        notes: live.iter().flat_map(|p| p.manifest.notes.clone()).collect(),
        kernel: kernel::compare(&observed),
        userland: userland::compare(&observed, &files)?,
    })
}

fn words(spec: &ServiceSpec, seconds: u64) -> String {
    match &spec.load.kind {
        LoadKind::Http(http) => {
            format!("{seconds} s of {} {}, {}/s", http.method, http.path, http.rate)
        }
        LoadKind::Command(argv) => format!("{seconds} s of `{}`", argv.join(" ")),
    }
}

fn report(
    services: &[Compared],
    counts: Option<&Counts>,
    target: &Path,
    whole: bool,
) -> Result<()> {
    let text = page::markdown(services, counts);
    println!("{text}");
    let broken = page::broken(services, counts);
    let dir = target.join("validate");
    std::fs::create_dir_all(&dir)?;
    let json = serde_json::to_string_pretty(&page::json(services, counts, &broken))?;
    std::fs::write(dir.join("validation.json"), json + "\n")?;
    let path =
        if whole { repository().join("docs/validation.md") } else { dir.join("validation.md") };
    std::fs::write(&path, text)?;
    eprintln!("written to {} and {}", path.display(), dir.join("validation.json").display());
    Ok(())
}
