//! `altaz watch`: what a service traverses that it has not traversed before, a line of JSON each.
//!
//! What is normal comes from an earlier profile, or is learned first: until nothing new was seen for
//! a while. From then on everything that is known is disarmed, and costs nothing.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use altaz_collect::live::session::KnownUnit;
use altaz_collect::live::{News, NewsOf};
use altaz_ftrace::Ration;
use altaz_ftrace::recorder::now_ns;
use altaz_profile::{Phase, Profile, file};
use anyhow::Context as _;
use serde_json::{Value, json};

use super::metrics::{Metrics, Server};
use super::observe::{self, Ask, Observation};
use super::usage::Usage;
use super::{Average, COVERAGE};
use crate::cli::{Context, WatchArgs};
use crate::exit::Exit;
use crate::output::write_stdout;
use crate::ui;

/// What is normal.
struct Normal {
    /// Name of the profile, or of what was learned.
    name: String,
    units: BTreeSet<KnownUnit>,
    /// Boundary and entry point.
    entries: BTreeSet<(String, String)>,
}

impl Normal {
    fn of(profile: &Profile, path: &Path) -> Self {
        let units = profile.units.iter();
        let entries = profile.manifest.boundaries.iter();
        Self {
            name: path.display().to_string(),
            units: units
                .map(|u| (u.binary.to_string(), u.build_id.as_deref().map(str::to_owned), u.offset))
                .collect(),
            entries: entries
                .flat_map(|b| b.entries.iter().map(|e| (b.name.clone(), e.name.clone())))
                .collect(),
        }
    }
}

pub(crate) fn run(args: &WatchArgs, cx: &Context) -> anyhow::Result<ExitCode> {
    let mut normal = None;
    if let Some(path) = &args.baseline {
        let profile = file::read(path)
            .with_context(|| format!("the baseline {} cannot be used", path.display()))?;
        normal = Some(Normal::of(&profile, path));
    }
    let known = normal.as_ref().map(|n| n.units.clone()).unwrap_or_default();
    let begin = Instant::now();
    let ask = Ask {
        target: &args.target,
        how: &args.observe,
        phase: Phase::Serve,
        duration: None,
        known,
        directory: None,
    };
    let mut seen = observe::begin(ask, cx)?;
    let metrics = Metrics { service: seen.name.clone(), ..Metrics::default() };
    let server = args.metrics.map(|a| Server::start(a, metrics.clone())).transpose()?;
    if let Some(server) = &server {
        cx.ui.note(&format!("metrics at http://{}/metrics", server.address()));
        if !server.address().ip().is_loopback() {
            cx.ui.warn("the metrics can be read from other machines");
        }
    }
    let mut watch = Watch {
        args,
        cx,
        clock: Clock::now(),
        server,
        learned: normal.is_some(),
        normal: normal.unwrap_or_else(|| Normal {
            name: "learned".into(),
            units: BTreeSet::new(),
            entries: BTreeSet::new(),
        }),
        quiet_since: Instant::now(),
        metrics,
        cost: Average::default(),
    };
    let result = watch.follow(&mut seen);
    let Observation { session, command, .. } = seen;
    if let (Some(mut command), true) = (command, cx.interrupted()) {
        command.terminate();
    }
    let lost = session.close()?;
    let m = &watch.metrics;
    cx.ui.note(&format!(
        "{} new functions and {} new entry points in {}, {} events lost",
        m.new_functions,
        m.new_entries,
        ui::in_words(begin.elapsed().as_secs_f64()),
        lost
    ));
    if let Some(usage) = Usage::now() {
        cx.ui.note(&format!("altaz used {}", usage.in_words(begin.elapsed())));
    }
    result?;
    Ok(if lost > 0 { Exit::Incomplete } else { Exit::Fine }.into())
}

struct Watch<'a> {
    args: &'a WatchArgs,
    cx: &'a Context,
    clock: Clock,
    server: Option<Server>,
    normal: Normal,
    learned: bool,
    quiet_since: Instant,
    metrics: Metrics,
    cost: Average,
}

impl Watch<'_> {
    fn follow(&mut self, seen: &mut Observation) -> anyhow::Result<()> {
        let begin = Instant::now();
        let until = self.args.duration.map(|d| begin + d);
        let mut covers = Ration::new(COVERAGE.0, COVERAGE.1, COVERAGE.2);
        let progress = self.cx.ui.step("learning what is normal", None);
        let mut progress = (!self.learned).then_some(progress);
        loop {
            let over = || until.is_some_and(|u| Instant::now() >= u);
            let stop = || self.cx.interrupted() || over();
            let step = seen.session.step(&stop)?;
            self.cost.add(&step);
            let (news, dropped) = seen.session.take_news();
            if !news.is_empty() {
                self.quiet_since = Instant::now();
            }
            if self.learned {
                self.report(&news)?;
            }
            if dropped > 0 || step.lost > 0 {
                self.line(json!({
                    "kind": "lost", "events": step.lost, "news": dropped,
                    "time": self.clock.wall(None),
                }))?;
            }
            self.metrics.functions = step.units as u64;
            self.metrics.events += step.events;
            self.metrics.lost += step.lost;
            self.metrics.cost = self.cost.now().0;
            self.metrics.learned = self.learned;
            self.metrics.processes = seen.session.target().processes.len() as u64;
            if covers.is_due() {
                self.metrics.coverage = covers.spend(|| seen.session.coverage());
            }
            if let Some(server) = &self.server {
                server.set(self.metrics.clone());
            }
            if let Some(progress) = &progress {
                progress.detail(&super::live_line(&step, self.metrics.coverage, &self.cost));
            }
            let settled = seen.session.armed() && step.waiting == 0;
            if !self.learned && settled && self.quiet_since.elapsed() >= self.args.quiet_time {
                self.learned = true;
                if let Some(progress) = progress.take() {
                    progress.done(&format!("{} functions", step.units));
                }
                self.line(json!({
                    "kind": "learned", "functions": step.units, "coverage": self.metrics.coverage,
                    "time": self.clock.wall(None),
                }))?;
            }
            let ended = seen.command.as_mut().is_some_and(|c| c.ended().is_some());
            if self.cx.interrupted() || over() || ended || step.ended {
                if !self.learned {
                    self.cx.ui.warn(
                        "ended before anything was watched: what is normal was still being learned",
                    );
                }
                return Ok(());
            }
        }
    }

    fn report(&mut self, news: &[News]) -> anyhow::Result<()> {
        for one in news {
            let what = match &one.what {
                NewsOf::Function { layer, binary, symbol, offset, syscall } => {
                    self.metrics.new_functions += 1;
                    json!({
                        "kind": "function", "layer": layer, "binary": binary,
                        "symbol": altaz_symbols::demangle(symbol), "offset": offset,
                        "syscall": syscall,
                    })
                }
                NewsOf::Entry { boundary, name } => {
                    if !self.normal.entries.insert((boundary.clone(), name.clone())) {
                        continue;
                    }
                    self.metrics.new_entries += 1;
                    json!({ "kind": "entry", "boundary": boundary, "entry": name })
                }
            };
            let mut line = json!({
                "time": self.clock.wall(Some(one.at_ns)),
                "service": self.metrics.service,
                "departs_from": self.normal.name,
                "context": one.context,
                "pid": one.pid, "tid": one.tid, "comm": one.comm,
            });
            if let (Value::Object(line), Value::Object(what)) = (&mut line, what) {
                line.extend(what);
            }
            self.line(line)?;
        }
        Ok(())
    }

    fn line(&self, value: Value) -> anyhow::Result<()> {
        write_stdout(&format!("{value}\n"))
    }
}

/// Turns the kernel's clock into times of day.
struct Clock {
    wall: Duration,
    monotonic_ns: u64,
}

impl Clock {
    fn now() -> Self {
        Self {
            wall: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            monotonic_ns: now_ns(),
        }
    }

    /// RFC 3339 with milliseconds, UTC; the present for nothing or 0.
    fn wall(&self, at_ns: Option<u64>) -> String {
        let at = at_ns.filter(|ns| *ns > 0).unwrap_or_else(now_ns);
        let since = i128::from(at) - i128::from(self.monotonic_ns);
        let ns = self.wall.as_nanos() as i128 + since;
        let time = UNIX_EPOCH + Duration::from_nanos(u64::try_from(ns).unwrap_or(0));
        humantime::format_rfc3339_millis(time).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_times_become_times_of_day() {
        let clock = Clock { wall: Duration::from_secs(86_400), monotonic_ns: 5_000_000_000 };
        assert_eq!(clock.wall(Some(6_250_000_000)), "1970-01-02T00:00:01.250Z");
        assert_eq!(clock.wall(Some(4_000_000_000)), "1970-01-01T23:59:59.000Z");
    }
}
