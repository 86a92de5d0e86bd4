//! `altaz compare`: measures a service in several deployments, one after the other, and puts their
//! profiles side by side.
//!
//! Each recording has a fresh lab ([`session`]); [`measure`] leads it through its phases. A profile
//! is written as soon as it is complete, so that whatever happens later does not lose it.

pub mod images;
mod kept;
mod measure;
pub mod session;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use altaz_assess::{Model, Options};
use altaz_deploy::{Deployment, Load, LoadKind, Service, ServiceSpec};
use altaz_lab::{NetNs, ServiceImage, become_unprivileged_root};
use altaz_profile::results::functions::FunctionTable;
use altaz_profile::results::{CompareResult, DeploymentResult};
use altaz_profile::{Host, Profile, file};
use altaz_report::{TextOptions, compare_html, compare_json, compare_text};
use anyhow::{Context as _, Result, bail};

use self::images::ImageCode;
use self::kept::Earlier;
use self::measure::Measurement;
use self::session::Parts;
use crate::assess;
use crate::cli::{CompareArgs, Context};
use crate::exit::{Exit, UsageError};
use crate::lab;
use crate::output::{Format, write_all, write_file};
use crate::ui::in_words;

/// A guess for everything of a recording besides the load, for the time left.
const OVERHEAD: Duration = Duration::from_secs(75);

pub(crate) fn run(args: &CompareArgs, cx: &Context) -> Result<ExitCode> {
    let mut spec = read_spec(&args.spec)?;
    let deployments = with_measured(chosen(&args.deployment), cx);
    make_dir(&args.dir)?;
    let plugin = &cx.settings.plugin;
    if !plugin.is_file() {
        bail!(
            "the exact instrument's plugin {} is not there; build it with `cargo build --release \
             -p altaz-plugin`, or name it with --plugin",
            plugin.display()
        );
    }
    altaz_lab::qemu::Qemu::find()?;

    let lab = lab::image(cx)?;
    let mut services = Vec::new();
    for image in spec.images() {
        services.push(lab::building(cx, |options| ServiceImage::ensure(image, options))?);
    }
    for (service, image) in spec.services_mut().zip(&services) {
        if let Some(config) = image.oci_config() {
            take_image_settings(service, config);
        }
    }
    let step = cx.ui.step("reading the images' code", None);
    let lab_code = ImageCode::open(lab.dir(), &lab.root_tar())?;
    let service_code = services
        .iter()
        .map(|service| ImageCode::open(service.dir(), &service.root_tar()))
        .collect::<Result<Vec<_>>>()?;
    step.done(&format!(
        "{} executable pages",
        lab_code.index.page_count()
            + service_code.iter().map(|code| code.index.page_count()).sum::<usize>()
    ));
    become_unprivileged_root()?;
    let parts = Parts {
        netns: &NetNs::new()?,
        lab: &lab,
        lab_code: &lab_code,
        services: &services,
        service_code: &service_code,
        plugin,
        interrupt: &cx.lab_interrupt(),
    };
    let runs = deployments.iter().filter(|d| d.model_of().is_none()).count() as u32 * args.repeat;
    let mut clock = Clock::new(runs, &spec, args.requests, args.rate);
    let mut results: Vec<Option<DeploymentResult>> = vec![None; deployments.len()];
    let mut measured = Vec::new();
    let mut host = None;
    // Cannot run here, and nobody asked for them by name: listed, and no gap of the measurement.
    let mut not_here = Vec::new();
    for (place, deployment) in deployments.iter().copied().enumerate() {
        if deployment.model_of().is_some() {
            continue;
        }
        let mut profiles = Vec::new();
        let mut failure = None;
        for run in 1..=args.repeat {
            let measurement = Measurement {
                parts: &parts,
                spec: &spec,
                deployment,
                requests: args.requests,
                rate: args.rate,
                ui: &cx.ui,
            };
            let path = profile_path(&args.dir, deployment.name(), run);
            let outcome = if let Some(profile) = earlier(args, cx, &path, &measurement) {
                clock.one_less();
                Ok(profile)
            } else {
                cx.ui.note(&clock.heading(deployment.name(), run, args.repeat));
                let outcome = measurement.run();
                clock.one_done();
                if let Ok(profile) = &outcome {
                    file::write(profile, &path)?;
                }
                outcome
            };
            match outcome {
                Ok(profile) => {
                    host.get_or_insert_with(|| profile.manifest.host.clone());
                    profiles.push(profile);
                }
                Err(_) if cx.interrupted() => return Err(stopped(&results, &args.dir)),
                Err(error) => {
                    let message = crate::exit::message(&error);
                    cx.ui.warn(&format!("{}: {message}", deployment.name()));
                    if args.deployment.is_empty() && error.is::<altaz_deploy::Unavailable>() {
                        not_here.push(deployment.name());
                    }
                    failure = Some(message);
                    break;
                }
            }
        }
        for (model, result) in deployments.iter().zip(&mut results) {
            if model.model_of() == Some(deployment.name()) {
                *result = Some(modelled(*model, &spec, &profiles)?);
            }
        }
        let result = assessed(deployment, &profiles, failure)?;
        if let Some(first) = profiles.into_iter().next() {
            measured.push((first, result.clone()));
        }
        results[place] = Some(result);
    }
    let results = results.into_iter().flatten().collect();
    let Some(host) = host else {
        bail!("no deployment could be measured; each one's reason is above");
    };
    let told = Told { measured: &measured, not_here: &not_here };
    finish(args, cx, &spec.name, host, results, &told)
}

/// The earlier profile that stands for a measurement, if the user wants that.
fn earlier(
    args: &CompareArgs,
    cx: &Context,
    path: &Path,
    measurement: &Measurement<'_>,
) -> Option<Profile> {
    if !args.keep {
        return None;
    }
    match kept::read(path, &measurement.wanted()) {
        Earlier::Kept(profile) => {
            let when = &profile.manifest.recorded_at;
            cx.ui.note(&format!("{} is kept, recorded {when}", path.display()));
            Some(*profile)
        }
        Earlier::Missing => None,
        Earlier::Other(why) => {
            cx.ui.warn(&format!("{} is not kept but measured anew: {why}", path.display()));
            None
        }
    }
}

/// The figures of a deployment's recordings, or why there are none.
fn assessed(
    deployment: &dyn Deployment,
    profiles: &[Profile],
    failure: Option<String>,
) -> Result<DeploymentResult> {
    if profiles.is_empty() {
        let reason = failure.unwrap_or_default();
        return Ok(DeploymentResult::unavailable(deployment.name(), reason));
    }
    let profiles: Vec<&Profile> = profiles.iter().collect();
    let mut result = altaz_assess::assess_repeats(&profiles, &Options::default())
        .with_context(|| format!("assessing {}", deployment.name()))?;
    if let Some(failure) = failure {
        result.notes.push(format!("recording {} failed: {failure}", profiles.len() + 1));
    }
    Ok(result)
}

/// What the results are told with besides themselves.
struct Told<'a> {
    /// First recording of each deployment and its figures, for the risk and the page.
    measured: &'a [(Profile, DeploymentResult)],
    /// Deployments that cannot run here and that nobody asked for by name.
    not_here: &'a [&'a str],
}

/// The figures of a model on the recordings of what it rests on.
fn modelled(
    model: &dyn Deployment,
    spec: &ServiceSpec,
    measured: &[Profile],
) -> Result<DeploymentResult> {
    if measured.is_empty() {
        let reason = format!(
            "it is a model on `{}`, which could not be measured",
            model.model_of().unwrap_or_default()
        );
        return Ok(DeploymentResult::unavailable(model.name(), reason));
    }
    let description = model.describe(spec);
    let model = Model {
        deployment: description.name,
        layers: description.layers,
        blind_spots: description.blind_spots,
        notes: description.notes,
    };
    let measured: Vec<&Profile> = measured.iter().collect();
    altaz_assess::assess_model(&measured, &model, &Options::default())
        .with_context(|| format!("assessing {}", model.deployment))
}

fn finish(
    args: &CompareArgs,
    cx: &Context,
    service: &str,
    host: Host,
    results: Vec<DeploymentResult>,
    told: &Told<'_>,
) -> Result<ExitCode> {
    let mut result = altaz_assess::compare(service, host, results)?;
    result.risk = Some(assess::of_measured(service, told.measured)?);
    let functions: Vec<FunctionTable> =
        told.measured.iter().map(|(profile, _)| altaz_assess::functions(profile)).collect();
    write_file(&args.dir.join("compare.json"), compare_json(&result)?.as_bytes())?;
    write_file(&args.dir.join("report.html"), compare_html(&result, &functions).as_bytes())?;
    write_all(&args.output, cx.color, |format, color| {
        Ok(match format {
            Format::Text => compare_text(&result, TextOptions { width: cx.columns(), color }),
            Format::Json => compare_json(&result)?,
            Format::Html => compare_html(&result, &functions),
        })
    })?;
    let gaps = gaps(&result, told.not_here);
    for gap in &gaps {
        cx.ui.warn(gap);
    }
    if result.deployments.iter().any(|d| is_missing(d, told.not_here)) {
        cx.ui.note("the same command with --keep measures only what is missing");
    }
    Ok(if gaps.is_empty() { Exit::Fine } else { Exit::Incomplete }.into())
}

/// Whether it should have been measured and was not.
fn is_missing(result: &DeploymentResult, not_here: &[&str]) -> bool {
    !result.available && !not_here.contains(&result.name.as_str())
}

/// What makes the measurement incomplete, besides what cannot run here.
fn gaps(result: &CompareResult, not_here: &[&str]) -> Vec<String> {
    let mut gaps = Vec::new();
    for d in &result.deployments {
        if is_missing(d, not_here) {
            let reason = d.reason.as_deref().unwrap_or("no reason known");
            gaps.push(format!("{} was not measured: {reason}", d.name));
        }
        let errors = d.load.as_ref().map_or(0, |l| l.errors);
        if errors > 0 {
            gaps.push(format!(
                "{}: {errors} requests failed; the code of errors is in its profile",
                d.name
            ));
        }
        let lost: u64 = d.layers.iter().map(|l| l.lost_events).max().unwrap_or(0);
        if lost > 0 {
            gaps.push(format!("{}: the instrument lost {lost} events", d.name));
        }
        if d.calibration.as_ref().is_some_and(|c| !c.reconciles()) {
            gaps.push(format!("{}: the calibration does not reconcile", d.name));
        }
    }
    gaps
}

fn read_spec(path: &Path) -> Result<ServiceSpec> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the service spec {}", path.display()))?;
    ServiceSpec::parse(&text, path).map_err(|e| UsageError(e.to_string()).into())
}

fn chosen(names: &[String]) -> Vec<&'static dyn Deployment> {
    if names.is_empty() {
        return altaz_deploy::all().to_vec();
    }
    let mut chosen: Vec<&'static dyn Deployment> = Vec::new();
    for deployment in names.iter().filter_map(|n| altaz_deploy::by_name(n)) {
        if !chosen.iter().any(|d| d.name() == deployment.name()) {
            chosen.push(deployment);
        }
    }
    chosen
}

/// The chosen deployments and, before each model, the one on whose measurement it rests.
fn with_measured(
    chosen: Vec<&'static dyn Deployment>,
    cx: &Context,
) -> Vec<&'static dyn Deployment> {
    let mut all: Vec<&'static dyn Deployment> = Vec::new();
    for deployment in &chosen {
        let missing = deployment
            .model_of()
            .filter(|base| !chosen.iter().chain(&all).any(|d| d.name() == *base))
            .and_then(altaz_deploy::by_name);
        if let Some(base) = missing {
            cx.ui.note(&format!(
                "{} is measured, too: {} is a model on it",
                base.name(),
                deployment.name()
            ));
            all.push(base);
        }
        all.push(*deployment);
    }
    all
}

fn make_dir(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir)
        .with_context(|| format!("cannot make the output directory {}", dir.display()))?;
    // Noticed now, not after ten minutes of measuring.
    tempfile::tempfile_in(dir)
        .map(drop)
        .with_context(|| format!("cannot write to the output directory {}", dir.display()))
}

/// An OCI image's own environment, where the spec does not say otherwise.
fn take_image_settings(service: &mut Service, config: &altaz_lab::image::OciConfig) {
    for (name, value) in config.env.iter().filter_map(|e| e.split_once('=')) {
        service.env.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    }
}

fn profile_path(dir: &Path, deployment: &str, run: u32) -> PathBuf {
    dir.join(if run == 1 {
        format!("{deployment}.altaz")
    } else {
        format!("{deployment}.{run}.altaz")
    })
}

fn stopped(done: &[Option<DeploymentResult>], dir: &Path) -> anyhow::Error {
    let recorded = |d: &&DeploymentResult| d.available && !d.model_only;
    let measured: Vec<&str> =
        done.iter().flatten().filter(recorded).map(|d| d.name.as_str()).collect();
    let kept = if measured.is_empty() {
        "nothing was measured yet; earlier results are as they were".to_owned()
    } else {
        format!("the profiles of {} are complete in {}", measured.join(", "), dir.display())
    };
    anyhow::Error::new(crate::exit::Interrupted).context(kept)
}

/// Says how far the run is and how long it will still take.
struct Clock {
    total: u32,
    done: u32,
    guess: Option<Duration>,
    begin: Instant,
}

impl Clock {
    fn new(total: u32, spec: &ServiceSpec, requests: Option<u64>, rate: Option<f64>) -> Self {
        let time = |load: &Load| match &load.kind {
            LoadKind::Http(http) => {
                let requests = requests.unwrap_or(load.requests) as f64;
                Duration::try_from_secs_f64(requests / rate.unwrap_or(http.rate)).ok()
            }
            LoadKind::Command(_) => None,
        };
        let guess = spec.loads().map(time).sum::<Option<Duration>>().map(|load| load + OVERHEAD);
        Self { total, done: 0, guess, begin: Instant::now() }
    }

    fn one_done(&mut self) {
        self.done += 1;
        self.guess = Some(self.begin.elapsed() / self.done);
    }

    /// A recording that need not be made.
    fn one_less(&mut self) {
        self.total -= 1;
    }

    fn heading(&self, name: &str, run: u32, runs: u32) -> String {
        let mut text = format!("{name} ({} of {}", self.done + 1, self.total);
        if runs > 1 {
            text.push_str(&format!(", recording {run} of {runs}"));
        }
        if let Some(guess) = self.guess {
            let left = guess * (self.total - self.done);
            text.push_str(&format!(", about {} left", in_words(left.as_secs_f64())));
        }
        text + ")"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_do_not_overwrite_the_first_recording() {
        let dir = Path::new("out");
        assert_eq!(profile_path(dir, "runc", 1), Path::new("out/runc.altaz"));
        assert_eq!(profile_path(dir, "runc", 2), Path::new("out/runc.2.altaz"));
    }

    #[test]
    fn a_deployment_asked_for_twice_is_measured_once() {
        let names = ["runc".to_owned(), "process".to_owned(), "runc".to_owned()];
        let chosen: Vec<_> = chosen(&names).iter().map(|d| d.name()).collect();
        assert_eq!(chosen, ["runc", "process"]);
    }

    #[test]
    fn the_time_left_follows_what_was_measured() {
        let mut clock = Clock {
            total: 4,
            done: 0,
            guess: None,
            begin: Instant::now() - Duration::from_secs(60),
        };
        assert_eq!(clock.heading("runc", 1, 1), "runc (1 of 4)");
        clock.one_done();
        assert!(
            clock.heading("qemu", 1, 1).contains("about 3 min"),
            "{}",
            clock.heading("qemu", 1, 1)
        );
    }
}
