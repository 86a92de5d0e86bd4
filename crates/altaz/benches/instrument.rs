//! What the exact instrument costs, in the lab: its time to boot, the throughput of redis SET, and
//! the processor time that QEMU needs for a request, each without and with the plugin.
//!
//! The machine may be busy with other things, so that nothing is compared that was not measured
//! side by side: each round boots one lab without and one with the plugin, and the same load runs
//! in both, in turn. A ratio is taken within such a pair; the median over all pairs counts. The
//! promise is about processor time, which a busy neighbour disturbs least.
//!
//! Before a measurement counts, its answer is checked: redis executed exactly the commands that it
//! was asked for, and the instrument counted exactly the system calls that were made.
//!
//! Needs the lab. `ALTAZ_BENCH_ROUNDS` (3), `ALTAZ_BENCH_PAIRS` (4) and `ALTAZ_BENCH_REQUESTS`
//! (50,000) change its length, `ALTAZ_BENCH_CLIENTS` (50) its load. Writes `target/bench/first.json`,
//! into which it also takes the times of the pure parts that `cargo bench` left in
//! `target/criterion`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use altaz_collect::exact::build::entries_in_calibration;
use altaz_collect::exact::channel::Channel;
use altaz_collect::exact::recording::{Purpose, Recording};
use altaz_lab::{
    BootOptions, BuildOptions, Interrupt, LabImage, LabVm, NetNs, PluginAttach, Recipe, cache_dir,
};
use altaz_symbols::Kallsyms;
use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::unistd::{SysconfVar, sysconf};
use serde_json::{Value, json};

/// Processor time with the instrument over that without: what is promised at most.
const PROMISE: f64 = 1.3;
/// Length of a window, as `altaz compare` takes them.
const WINDOW: Duration = Duration::from_millis(500);
/// Calls of the calibration.
const CALLS: u64 = 1000;
/// The bench that names a recording and makes units of it, and its blocks.
const NAMING: &str = "recording/name and build, 100,000 blocks";
const NAMING_BLOCKS: f64 = 100_000.0;
/// The bench that assesses a profile.
const ASSESS: &str = "assess/100,000 functions";
const TIMEOUT: Option<Duration> = Some(Duration::from_secs(120));

fn main() -> Result<()> {
    // What `cargo bench` passes on is for the other benches.
    let number = |name: &str, usual| {
        std::env::var(name).ok().map_or(Ok(usual), |v| v.parse().context(name.to_owned()))
    };
    let rounds: u32 = number("ALTAZ_BENCH_ROUNDS", 3)?;
    let pairs: u32 = number("ALTAZ_BENCH_PAIRS", 4)?;
    let requests = u64::from(number("ALTAZ_BENCH_REQUESTS", 50_000)?);
    ensure!(rounds > 0 && pairs > 0 && requests > 0, "nothing to measure");

    let target = target_dir()?;
    let plugin = target.join("release/libaltaz_plugin.so");
    ensure!(plugin.exists(), "{} is missing: `make build` makes it", plugin.display());
    let mut progress = |step: &str| eprintln!("{step}");
    let mut options =
        BuildOptions { cache: cache_dir(), progress: &mut progress, interrupt: Interrupt::new() };
    let image = LabImage::ensure(&Recipe::builtin()?, &mut options)?;
    altaz_lab::become_unprivileged_root()?;

    let clients = number("ALTAZ_BENCH_CLIENTS", 50)?;
    let mut results = Results { clients, ..Results::default() };
    for round in 0..rounds {
        measure(&image, &plugin, round, pairs, requests, &mut results)?;
    }
    let report = results.report(&criterion_times(&target.join("criterion")));
    print!("{}", table(&report));
    let path = target.join("bench/first.json");
    std::fs::create_dir_all(target.join("bench"))?;
    std::fs::write(&path, serde_json::to_string_pretty(&report)? + "\n")?;
    println!("written to {}", path.display());

    let ratio = report["instrument"]["cpu_ratio"]["median"].as_f64().context("no ratio")?;
    ensure!(ratio <= PROMISE, "the instrument costs {ratio:.2}× CPU, promised is {PROMISE}×");
    Ok(())
}

/// The build's directory, two levels above this program (`target/release/deps`).
fn target_dir() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(3).context("this program lies in no target directory")?;
    Ok(target.to_owned())
}

/// A lab with redis in it, with or without the instrument.
struct Bench {
    vm: LabVm,
    instrument: Option<(Channel, Recording)>,
    clients: u32,
    /// SETs that redis has executed.
    sets: u64,
}

/// A run of the load.
#[derive(Debug, Clone, Copy)]
struct Run {
    wall_s: f64,
    qemu_s: f64,
    /// Processor time of this program meanwhile: taking and decoding windows.
    host_s: f64,
}

impl Bench {
    fn boot(image: &LabImage, netns: &NetNs, plugin: Option<&Path>) -> Result<Self> {
        let mut options = BootOptions::new(netns);
        let mut greet = None;
        if let Some(plugin) = plugin {
            let (attach, stream) = PluginAttach::new(plugin)?;
            options.plugin = Some(attach);
            // QEMU waits for the configuration before it starts the machine.
            greet = Some(std::thread::spawn(move || Channel::open(stream, Vec::new())));
        }
        let vm = LabVm::boot(image, options).context("booting the lab")?;
        let instrument = match greet {
            None => None,
            Some(thread) => {
                let channel = thread.join().map_err(|_| anyhow!("a thread died"))??;
                Some((channel, Recording::default()))
            }
        };
        let mut bench = Self { vm, instrument, clients: 0, sets: 0 };
        bench.window(Purpose::Aside)?;
        Ok(bench)
    }

    fn sh(&self, script: &str) -> Result<String> {
        let output = self.vm.output(["sh", "-ec", script], TIMEOUT)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.shell_code() != 0 {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("`{script}` failed in the lab ({:?}): {text}{said}", output.status);
        }
        Ok(text)
    }

    fn window(&mut self, purpose: Purpose) -> Result<()> {
        if let Some((channel, recording)) = &mut self.instrument {
            recording.add(channel.window()?, purpose, |_| true)?;
        }
        Ok(())
    }

    fn start_redis(&self) -> Result<()> {
        self.sh(
            "ip link set lo up; redis-server --save '' --appendonly no --daemonize yes >/dev/null; \
             for i in $(seq 100); do redis-cli ping >/dev/null 2>&1 && exit 0; sleep 0.1; done; exit 1",
        )
        .map(drop)
    }

    /// Known calls are counted as many times as they were made.
    fn check_counts(&mut self) -> Result<()> {
        if self.instrument.is_none() {
            return Ok(());
        }
        let text = self.vm.kallsyms()?;
        let symbols = Kallsyms::parse(&String::from_utf8_lossy(&text))?;
        let getppid = symbols
            .iter()
            .find(|f| altaz_symbols::syscall_name(f.name) == Some("getppid"))
            .context("the lab's kernel has no getppid")?
            .start;
        self.window(Purpose::Aside)?;
        self.vm.calibrate(CALLS)?;
        self.window(Purpose::Calibration)?;
        let (_, recording) = self.instrument.as_ref().context("attached")?;
        let counted = entries_in_calibration(recording, getppid);
        ensure!(counted == CALLS, "{CALLS} calls were made, the instrument counted {counted}");
        Ok(())
    }

    /// SETs by some clients at once, while windows are taken.
    fn set(&mut self, requests: u64) -> Result<Run> {
        let load = format!("redis-benchmark -t set -c {} -n {requests} -q --csv", self.clients);
        let (cpu, own, begin) = (cpu_seconds(self.vm.pid())?, own_cpu(), Instant::now());
        let vm = &self.vm;
        let instrument = &mut self.instrument;
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| vm.output(["sh", "-ec", &load], TIMEOUT));
            let mut next = begin + WINDOW;
            while !thread.is_finished() {
                std::thread::sleep(Duration::from_millis(5));
                if let Some((channel, recording)) = instrument.as_mut()
                    && Instant::now() >= next
                {
                    recording.add(channel.window()?, Purpose::Aside, |_| true)?;
                    next += WINDOW;
                }
            }
            let output = thread.join().map_err(|_| anyhow!("a thread died"))??;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            ensure!(output.status.shell_code() == 0 && said.contains("\"SET\""), "{said}");
            Ok(())
        })?;
        let run = Run {
            wall_s: begin.elapsed().as_secs_f64(),
            qemu_s: cpu_seconds(self.vm.pid())? - cpu,
            host_s: own_cpu() - own,
        };
        self.sets += requests;
        let stats = self.sh("redis-cli info commandstats")?;
        let want = format!("cmdstat_set:calls={},", self.sets);
        ensure!(stats.contains(&want), "redis did not execute {} SETs: {stats}", self.sets);
        Ok(run)
    }
}

/// One lab of each kind, both running, the load in turn in the one and the other.
fn measure(
    image: &LabImage,
    plugin: &Path,
    round: u32,
    pairs: u32,
    requests: u64,
    results: &mut Results,
) -> Result<()> {
    let nets = [NetNs::new()?, NetNs::new()?];
    let plugin_of = |with: usize| (with == 1).then_some(plugin);
    let mut labs: [Option<Bench>; 2] = [None, None];
    // Which is first changes from round to round.
    for with in [round as usize % 2, 1 - round as usize % 2] {
        let bench = Bench::boot(image, &nets[with], plugin_of(with))?;
        results.boots[with].push(bench.vm.boot_time().as_secs_f64());
        labs[with] = Some(bench);
    }
    for bench in labs.iter_mut().flatten() {
        bench.clients = results.clients;
        bench.start_redis()?;
        bench.check_counts()?;
        // Not counted: code is translated.
        bench.set(requests)?;
    }
    let mut one = |with: usize| labs[with].as_mut().context("booted")?.set(requests);
    for pair in 0..pairs {
        // A B B A: what changes steadily cancels out.
        let (plain, with) = if pair % 2 == 0 {
            let plain = one(0)?;
            (plain, one(1)?)
        } else {
            let with = one(1)?;
            (one(0)?, with)
        };
        println!(
            "round {round} pair {pair}: {:.0} against {:.0} req/s, QEMU {:.2} against {:.2} s CPU",
            requests as f64 / plain.wall_s,
            requests as f64 / with.wall_s,
            plain.qemu_s,
            with.qemu_s
        );
        results.pairs.push((plain, with));
    }
    (results.requests, results.per_round) = (requests, pairs);
    for bench in labs.into_iter().flatten() {
        if let Some((_, recording)) = &bench.instrument {
            results.blocks = recording.blocks.len();
            let lost: u64 = recording.windows.iter().map(|w| w.lost).sum();
            ensure!(lost == 0, "{lost} translations were not counted");
        }
        bench.vm.poweroff()?;
    }
    Ok(())
}

/// User and system time of a process with all its threads.
fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat has no name")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |at: usize| -> Result<f64> { Ok(fields.get(at).context("short")?.parse()?) };
    let hertz = sysconf(SysconfVar::CLK_TCK)?.context("the system has no clock ticks")? as f64;
    // Fields 14 and 15 of proc(5), counted from the state, which is the third.
    Ok((ticks(11)? + ticks(12)?) / hertz)
}

fn own_cpu() -> f64 {
    cpu_seconds(std::process::id()).unwrap_or(0.0)
}

#[derive(Default)]
struct Results {
    /// Boot times without and with the instrument, seconds.
    boots: [Vec<f64>; 2],
    /// Runs without and with the instrument, side by side.
    pairs: Vec<(Run, Run)>,
    /// Pairs in each round.
    per_round: u32,
    /// Clients of redis-benchmark; 50 is its usual.
    clients: u32,
    requests: u64,
    blocks: usize,
}

impl Results {
    /// The median ratio of processor times in each round.
    fn ratios_of_rounds(&self) -> Value {
        let rounds = self.pairs.chunks(self.per_round.max(1) as usize).map(|pairs| {
            let ratios = pairs.iter().map(|(a, b)| b.qemu_s / a.qemu_s).collect();
            spread(ratios)["median"].as_f64().unwrap_or(f64::NAN)
        });
        spread(rounds.collect())
    }

    fn report(&self, pure: &BTreeMap<String, f64>) -> Value {
        let of = |f: &dyn Fn(&(Run, Run)) -> f64| spread(self.pairs.iter().map(f).collect());
        let n = self.requests as f64;
        json!({
            "schema": "altaz.bench/1",
            "boot": { "without_s": spread(self.boots[0].clone()), "with_s": spread(self.boots[1].clone()) },
            "redis_set": {
                "clients": self.clients,
                "requests_per_run": self.requests,
                "without_per_s": of(&|(a, _)| n / a.wall_s),
                "with_per_s": of(&|(_, b)| n / b.wall_s),
                "wall_ratio": of(&|(a, b)| b.wall_s / a.wall_s),
            },
            "instrument": {
                "promised_cpu_ratio": PROMISE,
                "qemu_us_per_request_without": of(&|(a, _)| a.qemu_s / n * 1e6),
                "qemu_us_per_request_with": of(&|(_, b)| b.qemu_s / n * 1e6),
                "cpu_ratio": of(&|(a, b)| b.qemu_s / a.qemu_s),
                // altaz itself, which takes the windows, charged to the instrument.
                "cpu_ratio_with_altaz": of(&|(a, b)| (b.qemu_s + b.host_s) / (a.qemu_s + a.host_s)),
                // Two labs differ by more than two runs in one: the spread that counts.
                "cpu_ratio_of_rounds": self.ratios_of_rounds(),
                "blocks": self.blocks,
            },
            "naming_blocks_per_s": pure.get(NAMING).map(|ms| NAMING_BLOCKS / ms * 1e3),
            "assess_100k_functions_ms": pure.get(ASSESS),
            "pure_ms": pure,
        })
    }
}

/// Median, least, greatest and number of values.
fn spread(mut values: Vec<f64>) -> Value {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let median = if values.len().is_multiple_of(2) {
        (values[middle - 1] + values[middle]) / 2.0
    } else {
        values[middle]
    };
    json!({ "median": median, "min": values[0], "max": values[values.len() - 1], "n": values.len() })
}

/// Milliseconds of each bench of the pure parts, as criterion kept them.
fn criterion_times(dir: &Path) -> BTreeMap<String, f64> {
    let mut times = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let estimates = path.join("new/estimates.json");
            let median = std::fs::read(&estimates).ok().and_then(|bytes| {
                serde_json::from_slice::<Value>(&bytes).ok()?["median"]["point_estimate"].as_f64()
            });
            let about = std::fs::read(path.join("new/benchmark.json")).ok();
            let name = about.and_then(|bytes| {
                let about: Value = serde_json::from_slice(&bytes).ok()?;
                about["full_id"].as_str().map(str::to_owned)
            });
            match (median, name) {
                (Some(ns), Some(name)) => {
                    times.insert(name, ns / 1e6);
                }
                _ if path.is_dir() => open.push(path),
                _ => {}
            }
        }
    }
    times
}

fn table(report: &Value) -> String {
    let rows = [
        ("lab boot, s", "/boot/without_s", 1),
        ("lab boot with the instrument, s", "/boot/with_s", 1),
        ("redis SET, requests/s", "/redis_set/without_per_s", 0),
        ("redis SET with the instrument, requests/s", "/redis_set/with_per_s", 0),
        ("wall time, ratio", "/redis_set/wall_ratio", 2),
        ("QEMU CPU, µs/request", "/instrument/qemu_us_per_request_without", 0),
        ("QEMU CPU with the instrument, µs/request", "/instrument/qemu_us_per_request_with", 0),
        ("QEMU CPU, ratio (promised ≤ 1.3)", "/instrument/cpu_ratio", 2),
        ("QEMU CPU, ratio, by round", "/instrument/cpu_ratio_of_rounds", 2),
        ("QEMU and altaz CPU, ratio", "/instrument/cpu_ratio_with_altaz", 2),
    ];
    let mut out = format!("\n{:<44}{:>10}{:>10}{:>10}{:>5}\n", "", "median", "least", "most", "n");
    for (name, at, digits) in rows {
        let value =
            |key: &str| report.pointer(at).and_then(|v| v[key].as_f64()).unwrap_or(f64::NAN);
        out.push_str(&format!("{name:<44}"));
        for key in ["median", "min", "max"] {
            out.push_str(&format!("{:>10.digits$}", value(key)));
        }
        out.push_str(&format!("{:>5}\n", value("n")));
    }
    if let Some(speed) = report["naming_blocks_per_s"].as_f64() {
        out.push_str(&format!("{:<44}{speed:>10.0}\n", "naming, blocks/s"));
    }
    if let Some(pure) = report["pure_ms"].as_object() {
        for (name, ms) in pure {
            out.push_str(&format!("{name:<44}{:>10.3} ms\n", ms.as_f64().unwrap_or(f64::NAN)));
        }
    }
    out
}
