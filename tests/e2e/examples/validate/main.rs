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

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use altaz::compare::images::ImageCode;
use altaz::compare::session::Parts;
use altaz_deploy::{LoadKind, ServiceSpec};
use altaz_e2e::lab::{Result, end, lab_image, present, service, target_dir};
use altaz_e2e::repository;
use altaz_lab::{Interrupt, LabImage, NetNs, ServiceImage, TarFiles};
use altaz_profile::Phase;

use counts::Counts;
use observe::Observation;
use page::Compared;

/// Services compared when none is named.
const SERVICES: &str = "web,redis";
/// Length of a recording: PostgreSQL's background work comes once a minute.
const SECONDS: u64 = 75;
/// Requests to the guest whose exits are counted.
const EXIT_REQUESTS: u64 = 200;

fn main() -> ExitCode {
    end(run())
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
    let say = |step: &str| eprintln!("{step}");
    let lab = lab_image(say)?;
    // The exits are those of the web demo.
    for name in names.split(',').filter(|n| !n.is_empty()).chain(counting.then_some("web")) {
        let path = repository().join(format!("demo/{name}.toml"));
        images.push(service(&path, say)?);
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
