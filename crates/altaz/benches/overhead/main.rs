//! What watching a service costs it, in the lab: altaz from its first second and after it has
//! converged, with userland functions, and the methods that others use.
//!
//! One lab. redis answers its own benchmark at full speed, server and client on a processor each;
//! after it the web demo answers requests from outside, two at a time. The methods follow each other,
//! each between two slices without any, every other round in the opposite order (A B B A), and a
//! ratio is taken to the slices beside it: see [`figures`].
//!
//! Before a speed counts, its answer is checked: redis refused no command, no web request failed, a
//! method recorded something, and the kernel said how much it lost.
//!
//! Needs the lab. `ALTAZ_BENCH_OVERHEAD_ROUNDS` (2), of which `ALTAZ_BENCH_OTHERS_ROUNDS` (1) measure
//! others than altaz, `ALTAZ_BENCH_WEB_ROUNDS` (1), `ALTAZ_BENCH_SLICE` (5 s), `ALTAZ_BENCH_CONVERGED` (10 s),
//! `ALTAZ_BENCH_PAUSES` (4: slices under converged altaz in each round, each between two of its pauses);
//! `ALTAZ_BENCH_METHODS` names the methods by their keys (all). Writes `target/bench/overhead.json`,
//! in which a service that is not measured this time (no rounds) keeps its figures, and `docs/overhead.md` from it once
//! redis was measured under every method.

mod figures;
mod lab;
mod methods;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use altaz_deploy::ServiceSpec;
use altaz_lab::{BuildOptions, Interrupt, LabImage, Recipe, ServiceImage, cache_dir};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use figures::{Bracketed, ByService, Figures, Ratio};
use lab::{Lab, Service};
use methods::{Method, Times};

/// The services, as their results are called.
const REDIS: &str = "redis";
const WEB: &str = "web";
/// altaz's cost from its first second is averaged over this time: part of the promise.
const AVERAGE: Duration = Duration::from_secs(30);

/// A method is gone, and code that it had patched is translated anew, after this long.
const TAKEN_DOWN: Duration = Duration::from_secs(5);

/// How long to measure, and with what.
struct Plan {
    rounds: u32,
    others_rounds: u32,
    web_rounds: u32,
    times: Times,
    methods: Vec<Method>,
}

impl Plan {
    fn from_environment() -> Result<Self> {
        let number = |name: &str, usual| {
            std::env::var(name).ok().map_or(Ok(usual), |v| v.parse().context(name.to_owned()))
        };
        let seconds = |name, usual| number(name, usual).map(|s: u32| Duration::from_secs(s.into()));
        let methods = match std::env::var("ALTAZ_BENCH_METHODS") {
            Err(_) => Method::ALL.to_vec(),
            Ok(names) => names.split(',').map(method).collect::<Result<_>>()?,
        };
        Ok(Self {
            rounds: number("ALTAZ_BENCH_OVERHEAD_ROUNDS", 2)?,
            others_rounds: number("ALTAZ_BENCH_OTHERS_ROUNDS", 1)?,
            web_rounds: number("ALTAZ_BENCH_WEB_ROUNDS", 1)?,
            times: Times {
                pairs: number("ALTAZ_BENCH_PAUSES", 4)?,
                slice: seconds("ALTAZ_BENCH_SLICE", 5)?,
                average: AVERAGE,
                converged: seconds("ALTAZ_BENCH_CONVERGED", 10)?,
            },
            methods,
        })
    }

    /// The methods of a round, in its order.
    fn methods(&self, round: u32, others_rounds: u32) -> Vec<Method> {
        let chosen = self.methods.iter().copied();
        let mut methods: Vec<Method> =
            chosen.filter(|m| m.converges() || round < others_rounds).collect();
        if !round.is_multiple_of(2) {
            methods.reverse();
        }
        methods
    }
}

fn method(name: &str) -> Result<Method> {
    let found = Method::ALL.into_iter().find(|m| m.key() == name);
    found.with_context(|| format!("there is no method {name:?}"))
}

fn main() -> Result<()> {
    let plan = Plan::from_environment()?;
    let target = target_dir()?;
    let altaz = target.join("release/altaz");
    ensure!(altaz.exists(), "{} is missing: `make build` makes it", altaz.display());
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");

    let spec_path = repository.join("demo/web.toml");
    let spec = ServiceSpec::parse(&std::fs::read_to_string(&spec_path)?, &spec_path)
        .map_err(|e| anyhow::anyhow!("{e}"))?;
    let mut progress = |step: &str| eprintln!("{step}");
    let mut options =
        BuildOptions { cache: cache_dir(), progress: &mut progress, interrupt: Interrupt::new() };
    let image = LabImage::ensure(&Recipe::builtin()?, &mut options)?;
    let service = ServiceImage::ensure(&spec.image, &mut options)?;
    altaz_lab::become_unprivileged_root()?;

    let begin = Instant::now();
    let lab = Lab::boot(&image, &service, &altaz)?;
    let mut all = ByService::new();
    if plan.rounds > 0 {
        let redis = lab.redis()?;
        all.insert(redis.name, measure(&redis, &plan, plan.rounds, plan.others_rounds)?);
        write_json(&all, &target)?;
        redis.stop()?;
    }
    if plan.web_rounds > 0 {
        let web = lab.web(&spec)?;
        all.insert(web.name, measure(&web, &plan, plan.web_rounds, plan.web_rounds)?);
        web.stop()?;
    }
    lab.poweroff()?;
    report(&all, begin.elapsed(), &target, &repository)
}

/// The build's directory, two levels above this program (`target/release/deps`).
fn target_dir() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(3).context("this program lies in no target directory")?;
    Ok(target.to_owned())
}

fn measure(service: &Service<'_>, plan: &Plan, rounds: u32, others: u32) -> Result<Figures> {
    let mut figures = Figures::default();
    // Not counted: code is translated, caches fill.
    methods::warm_up(service)?;
    service.speed(plan.times.slice)?;
    for round in 0..rounds {
        let mut before = service.speed(plan.times.slice)?;
        for method in plan.methods(round, others) {
            let with = methods::watch(service, method, &plan.times)?;
            // What a method leaves to be taken down by the kernel is not what the service does without it.
            std::thread::sleep(TAKEN_DOWN);
            let after = service.speed(plan.times.slice)?;
            let average = with.average.map_or(String::new(), |s| format!("{:.0} then ", s.per_s));
            eprintln!(
                "{} s: {} round {round} {}: {:.0} before, {average}{:.0} with, {:.0} after; {} of {} \
                 events lost; {:.0} % stolen",
                lab::seconds().round(),
                service.name,
                method.key(),
                before.per_s,
                with.armed.per_s,
                after.per_s,
                with.lost,
                with.lost + with.events,
                with.armed.stolen * 100.0,
            );
            figures.all.push(Bracketed { method, without: (before, after), with });
            before = after;
        }
    }
    Ok(figures)
}

/// Puts the figures into `target/bench/overhead.json`. A service that was not measured this time keeps those that it
/// has there: each is a run of its own.
fn write_json(all: &ByService, target: &Path) -> Result<(PathBuf, Value)> {
    let path = target.join("bench/overhead.json");
    let earlier = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let mut earlier: Value = earlier.unwrap_or_else(|| json!({}));
    let measured = |name| all.get(name).map(|figures| Value::Object(figures.json()));
    let web = measured(WEB).unwrap_or_else(|| earlier[WEB].take());
    // redis is the one of the promise: its keys have no prefix.
    let mut json = measured(REDIS).unwrap_or(earlier);
    json["schema"] = "altaz.overhead/1".into();
    json[WEB] = web;
    std::fs::create_dir_all(target.join("bench"))?;
    std::fs::write(&path, serde_json::to_string_pretty(&json)? + "\n")?;
    Ok((path, json))
}

fn report(all: &ByService, took: Duration, target: &Path, repository: &Path) -> Result<()> {
    let (path, json) = write_json(all, target)?;
    println!("\n{}", tables(&json));
    println!("written to {} after {} s", path.display(), took.as_secs());
    // The whole promise, at least.
    if figures::rows(&json).iter().all(|row| row[2] != "0") {
        std::fs::write(repository.join("docs/overhead.md"), page(&json))?;
    }
    let broken = all.get(REDIS).map(figures::broken).unwrap_or_default();
    if !broken.is_empty() {
        bail!("not as promised: {}", broken.join("; "));
    }
    Ok(())
}

/// A table for each service that was measured.
fn tables(json: &Value) -> String {
    let mut out = String::new();
    for (keys, what) in [
        (json, "redis SET, 50 clients, no pipelining"),
        (&json[WEB], "the web demo, two requests at a time"),
    ] {
        let Some(speed) = Ratio::read(keys, "unmeasured_per_s") else {
            out.push_str(&format!("### {what}\n\nNot measured.\n\n"));
            continue;
        };
        out.push_str(&format!("### {what}\n\nUnmeasured: {:.0} requests/s.\n\n", speed.mean));
        let head = [
            "watched by",
            "throughput to unmeasured (95 %)",
            "measurements",
            "CPU of a request",
            "events lost",
        ];
        out.push_str(&figures::table(head, &figures::rows(keys)));
        out.push('\n');
    }
    out
}

/// The page of the documentation.
fn page(json: &Value) -> String {
    let ratio = |key: &str| Ratio::read(json, key).map_or("–".to_owned(), |r| r.text());
    format!(
        "# What watching costs\n\n\
         Written by `make bench`; the figures with their intervals are in `target/bench/overhead.json` after it.\n\n\
         Debian's kernel in the lab on two emulated processors, a lab for each service or one for both. Throughput at \
         full speed, each measurement between two slices without any method and taken as a ratio to their geometric \
         mean; every other round in the opposite order. Intervals are Student's t on the logarithms; a single \
         measurement has none. Converged `altaz record` without userland functions is measured in slices each between two \
         in which it pauses: altaz halted, and every breakpoint of the tracer out of the kernel's text \
         (`kernel.ftrace_enabled=0`), which is taken for unmeasured (on redis, throughput in pauses to that before and \
         after altaz: {pause}). The lab runs on {threads}.\n\n\
         The rows of other methods leave out the seconds in which they start; `altaz record` is also measured \
         from its first instant, its own start and calibration included. Time in which the lab's processors had to \
         wait for one of the host ({stolen:.0} % in the median slice of redis without a method) is left out, as a \
         hypervisor's steal time. CPU of a request is the processor \
         time of the whole machine (service, load and method) for a request, over that without.\n\n\
         Two slices of redis without any method on either side of a measurement had a ratio of {disturbed} (mean and \
         95 % interval): what the machine did by itself.\n\n{tables}\
         function_graph is used as published: default buffer, the service's tasks by `set_ftrace_pid`, the \
         buffer read at the end. Its events, and those of trace-cmd, are counted by the kernel \
         (`per_cpu/*/stats`). strace and bpftrace count system calls alone and see no kernel function; \
         bpftrace counts those of the whole machine, in a map, and loses none.\n",
        pause = ratio("pause_to_unmeasured"),
        disturbed = ratio("unmeasured_after_to_before"),
        stolen = json["stolen_share"].as_f64().unwrap_or(0.0) * 100.0,
        threads = match lab::in_turn() {
            true =>
                "one thread of the host, which executes its two processors in turn, so that the service, its \
                load and altaz share one processor: what altaz uses the service loses",
            false => "a thread of the host for each of its two processors",
        },
        tables = tables(json),
    )
}
