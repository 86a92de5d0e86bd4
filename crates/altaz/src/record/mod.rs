//! `altaz record` and `altaz watch`: wiring of the live instrument.

mod clock;
mod command;
mod keeping;
mod metrics;
mod observe;
mod posture;
mod profile;
mod rights;
mod tracefs;
mod usage;
mod watch;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use altaz_collect::live::session::Step;
use altaz_ftrace::Ration;
use altaz_profile::completeness::layer_estimates;
use altaz_profile::{BlindSpot, Profile, file};
use anyhow::Context as _;

use self::observe::{Ask, Observation};
use self::usage::Usage;
use crate::cli::{Context, RecordArgs};
use crate::exit::{Exit, Interrupted};
use crate::inventory;
use crate::ui;

pub(crate) use self::tracefs::{Tracefs, remove_orphans};
pub(crate) use self::watch::run as watch;

/// Windows before completeness may end a recording: fewer say little.
const ENOUGH_WINDOWS: usize = 40;

/// Kind of the blind spots that `--partial` makes.
const NOT_OBSERVED: &str = "not-observed";

/// Completeness is computed while recording as often as takes no more than one part in so many of a
/// CPU, at intervals between these two.
const COVERAGE: (u32, Duration, Duration) = (2000, Duration::from_secs(2), Duration::from_secs(30));

/// Why a recording ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Interrupted,
    Duration,
    Complete,
    Gone,
}

pub(crate) fn run(args: &RecordArgs, cx: &Context) -> anyhow::Result<ExitCode> {
    let recorded_at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let begin = Instant::now();
    let directory = keeping::directory(args.output.as_deref())?;
    let ask = Ask {
        target: &args.target,
        how: &args.observe,
        phase: args.phase,
        duration: args.duration,
        known: BTreeSet::new(),
        directory: Some(&directory),
    };
    let mut seen = observe::begin(ask, cx)?;
    let service = args.service.clone().unwrap_or_else(|| seen.name.clone());
    let output = args.output.clone().unwrap_or_else(|| default_output(&service));
    let (end, failure) = observe(args, &mut seen, cx);
    let Observation { session, command, posture, image_id, detail, .. } = seen;
    if let (Some(mut command), End::Interrupted) = (command, end) {
        command.terminate();
    }
    let recorded = session.finish();
    if recorded.units.is_empty() && recorded.target.boundaries.iter().all(|b| b.entries.is_empty())
    {
        return Err(match end {
            End::Interrupted => Interrupted.into(),
            _ => failure.unwrap_or_else(|| {
                anyhow::anyhow!(
                    "the recording is empty: {} did nothing that could be seen while it was \
                     observed; is it under load?",
                    recorded.target.what
                )
            }),
        });
    }
    // What is installed is a help for triage, and no reason to lose a recording.
    let mut packages =
        inventory::of_this_machine(&recorded.target.deployment).unwrap_or_else(|e| {
            cx.ui.warn(&format!("what is installed is not noted: {e:#}"));
            Vec::new()
        });
    inventory::keep_files(&mut packages, &recorded.units);
    let load = args.load.clone();
    let facts = profile::Facts { recorded_at, service, image_id, detail, load, posture, packages };
    let lost = recorded.lost;
    let profile = profile::assemble(recorded, facts);
    rights::write_with_rights(|| file::write(&profile, &output))
        .with_context(|| format!("the recording cannot be kept as {}", output.display()))?;
    let code = say(&profile, lost, end, args, begin.elapsed(), cx);
    cx.ui.note(&format!("wrote {}", output.display()));
    match failure {
        Some(error) => Err(error.context(format!(
            "the recording ended early; what was seen until then is in {}",
            output.display()
        ))),
        None => Ok(code.into()),
    }
}

/// One window after the other, until there is a reason to end.
fn observe(
    args: &RecordArgs,
    seen: &mut Observation,
    cx: &Context,
) -> (End, Option<anyhow::Error>) {
    let begin = Instant::now();
    let until = args.duration.map(|d| begin + d);
    let total = args.duration.map(|d| d.as_secs());
    let progress = cx.ui.step("recording", total);
    let mut cost = Average::default();
    let mut announced = false;
    let mut coverage = None;
    let mut covers = Ration::new(COVERAGE.0, COVERAGE.1, COVERAGE.2);
    loop {
        let stop = || cx.interrupted() || until.is_some_and(|u| Instant::now() >= u);
        let step = match seen.session.step(&stop) {
            Ok(step) => step,
            Err(error) => return (End::Gone, Some(error.into())),
        };
        // News are for `watch`.
        seen.session.take_news();
        cost.add(&step);
        if covers.is_due() {
            coverage = covers.spend(|| seen.session.coverage());
        }
        progress.set(begin.elapsed().as_secs());
        progress.detail(&live_line(&step, coverage, &cost));
        if cx.interrupted() {
            return (End::Interrupted, None);
        }
        if until.is_some_and(|u| Instant::now() >= u) {
            return (End::Duration, None);
        }
        let armed = seen.session.armed() && step.waiting == 0;
        if armed && !announced {
            announced = true;
            let took = ui::in_words(begin.elapsed().as_secs_f64());
            cx.ui.note(&format!(
                "everything is armed after {took}; what is known is no longer watched"
            ));
        }
        let settled = armed && seen.session.windows() >= ENOUGH_WINDOWS;
        if let (Some(wanted), Some(coverage), true) = (args.until_complete, coverage, settled)
            && coverage >= wanted
        {
            return (End::Complete, None);
        }
        let ended = seen.command.as_mut().is_some_and(|c| c.ended().is_some());
        if ended || step.ended {
            // What was still on its way.
            let _ = seen.session.step(&|| true);
            return (End::Gone, None);
        }
    }
}

/// What the service pays, over about the last ten seconds.
#[derive(Debug, Default)]
struct Average {
    windows: std::collections::VecDeque<(Duration, f64, usize)>,
}

impl Average {
    fn add(&mut self, step: &Step) {
        self.windows.push_back((step.window, step.cost, step.new));
        let mut length: Duration = self.windows.iter().map(|w| w.0).sum();
        while length > Duration::from_secs(10) && self.windows.len() > 1 {
            let Some((oldest, ..)) = self.windows.pop_front() else { break };
            length = length.saturating_sub(oldest);
        }
    }

    /// Share of one CPU, and new units a second.
    fn now(&self) -> (f64, f64) {
        let seconds: f64 = self.windows.iter().map(|w| w.0.as_secs_f64()).sum();
        let seconds = seconds.max(1e-3);
        let cost: f64 = self.windows.iter().map(|(d, c, _)| d.as_secs_f64() * c).sum();
        let new: usize = self.windows.iter().map(|w| w.2).sum();
        (cost / seconds, new as f64 / seconds)
    }
}

fn live_line(step: &Step, coverage: Option<f64>, cost: &Average) -> String {
    let (cost, rate) = cost.now();
    let coverage = match coverage {
        Some(c) => format!("coverage {c:.3}"),
        None => "coverage not known yet".into(),
    };
    let waiting = match step.waiting {
        0 => String::new(),
        n => format!(", {n} kernel functions to arm"),
    };
    format!(
        "{} functions, {rate:.1} new/s, {coverage}, costs {:.2} % of a CPU{waiting}",
        step.units,
        cost * 100.0
    )
}

/// Says what was recorded; the exit code follows from it.
fn say(
    profile: &Profile,
    lost: u64,
    end: End,
    args: &RecordArgs,
    elapsed: Duration,
    cx: &Context,
) -> Exit {
    let manifest = &profile.manifest;
    let reconciles = manifest.calibration.as_ref().is_some_and(|c| c.reconciles());
    let mut least: Option<f64> = None;
    for (layer, estimate) in layer_estimates(profile, args.phase) {
        let shown = match (reconciles, estimate.coverage, estimate.unseen) {
            (true, Some(coverage), Some(unseen)) => {
                least = Some(least.map_or(coverage, |l: f64| l.min(coverage)));
                format!("coverage {coverage:.4}, {unseen:.1} unseen at least")
            }
            (true, ..) => "too short for a completeness".into(),
            (false, ..) => "no completeness".into(),
        };
        cx.ui.note(&format!("{layer}: {} functions, {shown}", estimate.units));
    }
    for boundary in manifest.boundaries.iter().filter(|b| b.exercised.is_some_and(|n| n > 0)) {
        let permitted =
            boundary.permitted.map_or_else(String::new, |n| format!(" of {n} permitted"));
        let exercised = boundary.exercised.unwrap_or(0);
        cx.ui.note(&format!(
            "{} from {} to {}: {exercised} entry points{permitted}",
            boundary.name, boundary.from, boundary.to
        ));
    }
    warn_of_unobserved(&manifest.blind_spots, cx);
    let windows = manifest.windows.len();
    let losses = if lost == 0 { "no event lost".into() } else { format!("{lost} events lost") };
    cx.ui.note(&format!("{windows} windows in {}, {losses}", ui::in_words(elapsed.as_secs_f64())));
    if let Some(usage) = Usage::now() {
        cx.ui.note(&format!("altaz used {}", usage.in_words(elapsed)));
    }
    let mut exit = Exit::Fine;
    let mut incomplete = |why: String| {
        cx.ui.warn(&why);
        exit = Exit::Incomplete;
    };
    if lost > 0 {
        incomplete(format!("{lost} events were lost; a larger --buffer loses fewer"));
    }
    if let Some(c) = manifest.calibration.as_ref().filter(|c| !c.reconciles()) {
        incomplete(format!(
            "the calibration does not reconcile: of {} calls of {}, {} were counted; no \
             completeness can be given",
            c.made, c.what, c.counted
        ));
    }
    if let (Some(wanted), true) = (args.until_complete, end != End::Complete) {
        match least {
            Some(coverage) if coverage >= wanted => {}
            Some(coverage) => incomplete(format!(
                "coverage is {coverage:.4}, under the {wanted} that was asked for; record longer"
            )),
            None => incomplete("the recording was too short for a completeness".into()),
        }
    }
    if exit == Exit::Fine && end == End::Interrupted && args.duration.is_some() {
        cx.ui.note("ended before its time, by Ctrl-C; the profile holds what was seen until then");
    }
    exit
}

/// Says what `--partial` left out.
fn warn_of_unobserved(blind_spots: &[BlindSpot], cx: &Context) {
    for spot in blind_spots.iter().filter(|spot| spot.kind == NOT_OBSERVED) {
        cx.ui.warn(&format!("not observed: {}", spot.what));
    }
}

/// A file in the working directory; its name is safe whatever the service's is.
fn default_output(service: &str) -> PathBuf {
    let plain: String = service
        .chars()
        .map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' })
        .collect();
    let plain = plain.trim_start_matches(['.', '-']);
    PathBuf::from(format!("{}.altaz", if plain.is_empty() { "recording" } else { plain }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profiles_default_name_is_a_plain_file_name() {
        let name = |service: &str| default_output(service).display().to_string();
        assert_eq!(name("redis-server"), "redis-server.altaz");
        assert_eq!(name("../etc/x y"), "etc-x-y.altaz");
        assert_eq!(name(""), "recording.altaz");
    }

    #[test]
    fn the_cost_is_that_of_the_last_ten_seconds() {
        let mut average = Average::default();
        let step = |seconds, cost| Step {
            window: Duration::from_secs(seconds),
            cost,
            new: 4,
            ..Step::default()
        };
        average.add(&step(60, 1.0));
        average.add(&step(4, 0.5));
        average.add(&step(4, 0.0));
        let (cost, rate) = average.now();
        assert!((cost - 0.25).abs() < 1e-9 && (rate - 1.0).abs() < 1e-9, "{cost} {rate}");
    }
}
