//! `demo/ground-truth`, whose functions and system calls are known beforehand: the instrument finds
//! exactly these, and in the kernel all that the kernel's own function tracer sees.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
mod function_trace;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use altaz_e2e::{During, command, repository};
use altaz_profile::{Layer, Phase, Profile};
use function_trace::TracedLab;
use serde_json::Value;

/// Requests of the recording; one window of it holds ten.
const REQUESTS: u32 = 200;

/// The ground truth's directory, with its program built.
static SERVICE: LazyLock<PathBuf> = LazyLock::new(|| {
    let dir = repository().join("demo/ground-truth");
    let built = command("sh").arg(dir.join("build.sh")).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    dir
});

/// One recording, for all tests; or an earlier one, in the directory `ALTAZ_GROUND_TRUTH_DIR`.
static PROFILE: LazyLock<Profile> = LazyLock::new(|| {
    if let Some(dir) = std::env::var_os("ALTAZ_GROUND_TRUTH_DIR") {
        return common::profile(dir.as_ref(), "process");
    }
    let dir = tempfile::tempdir().unwrap();
    common::record(&SERVICE.join("ground-truth.toml"), "process", REQUESTS, dir.path());
    common::profile(dir.path(), "process")
});

/// A list of `expected.json`.
fn expected(what: &str, phase: &str) -> BTreeSet<String> {
    let text = std::fs::read(repository().join("demo/ground-truth/expected.json")).unwrap();
    let all: Value = serde_json::from_slice(&text).unwrap();
    let list = all[what][phase].as_array().unwrap();
    list.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

#[test]
#[ignore = "needs the lab"]
fn exactly_the_functions_that_run_are_recorded_in_each_phase() {
    let in_phase = |phase| {
        let units = common::own(&PROFILE, Layer::App, phase);
        named(units.map(|u| &*u.symbol))
    };
    let (start, serve, stop) = (
        expected("functions", "start"),
        expected("functions", "serve"),
        expected("functions", "stop"),
    );
    assert_eq!(in_phase(Phase::Serve), serve);
    // The requests before the serve phase belong to the start.
    assert_eq!(in_phase(Phase::Start), &start | &serve);
    // It waits for the next connection when it is told to stop.
    assert_eq!(&in_phase(Phase::Stop) - &serve, stop);
    let run = &(&start | &serve) | &stop;
    assert_eq!(run.len(), 25);

    let app = PROFILE.units.iter().filter(|u| u.layer == Layer::App);
    let windows = PROFILE.manifest.windows.iter().filter(|w| w.phase == Phase::Serve).count();
    for unit in app {
        assert_eq!(&*unit.binary, "/ground-truth", "{unit:?}");
        assert!(unit.covered.is_some_and(|c| c > 0 && c <= unit.size), "{unit:?}");
        if unit.phase == Phase::Serve {
            // Every request runs all of them: only a last window may be too late for any.
            assert!(unit.windows.len() + 1 >= windows, "{unit:?}");
        }
    }
    for layer in [Layer::Library, Layer::LanguageRuntime] {
        assert_eq!(common::served(&PROFILE, layer), BTreeSet::new(), "{layer}");
    }
    let code = PROFILE.manifest.layers.iter().find(|l| l.name == Layer::App).unwrap().code.unwrap();
    assert_eq!((code.jit, code.unnamed), (0, 0));
}

#[test]
#[ignore = "needs the lab"]
fn exactly_the_system_calls_that_are_made_cross_the_boundary() {
    let serve = expected("syscalls", "serve");
    assert_eq!(serve.len(), 40);
    let boundary = |b: &&altaz_profile::Boundary| {
        b.name == "syscall" && b.from == Layer::App && b.to == Layer::HostKernel
    };
    let boundary = PROFILE.manifest.boundaries.iter().find(boundary).unwrap();
    assert_eq!(named(boundary.entries.iter().map(|e| e.name.as_str())), serve);
    assert_eq!(boundary.exercised, Some(40));

    // Each as often as a request makes it.
    let requests = boundary.entries.iter().find(|e| e.name == "accept4").unwrap().count;
    for entry in &boundary.entries {
        let a_request = match entry.name.as_str() {
            "close" => 6,
            "openat" | "write" => 2,
            _ => 1,
        };
        assert_eq!(entry.count, a_request * requests, "{}", entry.name);
    }

    // The same from the functions of the kernel that serve them, which the instrument saw.
    let calls = || {
        let rows = common::own(&PROFILE, Layer::HostKernel, Phase::Serve);
        named(rows.filter_map(|u| u.symbol.strip_prefix("__x64_sys_")))
    };
    // Calls that have another name in the kernel, since an older form has theirs.
    let kernels = |name: &String| match name.as_str() {
        "uname" | "fstat" => format!("new{name}"),
        _ => name.clone(),
    };
    let serve: BTreeSet<String> = serve.iter().map(kernels).collect();
    assert_eq!(calls(), serve);
}

/// Functions that run because of the tracer: it follows the scheduler to know whom to trace, and an
/// interrupt of its own wakes the reader of its buffer.
const TRACERS_OWN: &[&str] = &[
    "__traceiter_sched_switch",
    "__traceiter_sched_wakeup",
    "__traceiter_sched_waking",
    "arch_irq_work_raise",
    "default_send_IPI_self",
    "apic_mem_wait_icr_idle",
    "__sysvec_irq_work",
];

/// The kind of a function that altaz saw and the tracer of the service did not, by what the
/// processor was doing when the whole machine was traced.
fn kind(during: &BTreeSet<During>) -> &'static str {
    for (one, kind) in [
        (During::Interrupt, "interrupt"),
        (During::Softirq, "softirq"),
        (During::Idle, "scheduler: in and out of idle"),
        (During::KernelThread, "kernel thread"),
        (During::OtherTask, "other task of the lab"),
    ] {
        if during.contains(&one) {
            return kind;
        }
    }
    "of the service, the second time only"
}

#[test]
#[ignore = "needs the lab"]
fn the_kernels_own_function_tracer_sees_nothing_that_is_not_recorded() {
    let profile = &*PROFILE;
    let lab = TracedLab::start(&SERVICE.join("ground-truth.toml"), "ground-truth");
    // What the service does once, altaz's recording has in its start.
    lab.requests(40, Duration::from_millis(20));
    let mut traced = lab.record_service(25);
    assert_eq!(traced.lost, 0, "the tracer's buffer is too small");
    assert!(traced.events > 10_000, "{}", traced.events);
    traced.functions.retain(|name, _| !TRACERS_OWN.contains(&name.as_str()));

    // One function may have several names: __do_sys_getpid is __x64_sys_getpid.
    let aliases = lab.aliases();
    let names = |name: &str| {
        let others = aliases.get(name).into_iter().flatten().cloned();
        others.chain([name.to_owned()]).collect::<Vec<_>>()
    };

    let rows = profile.units.iter();
    let rows = rows.filter(|u| u.layer == Layer::HostKernel && u.phase == Phase::Serve);
    let seen: BTreeSet<&str> = rows.map(|u| &*u.symbol).collect();
    let own = common::served(profile, Layer::HostKernel);
    let lacks = |set: &BTreeSet<&str>| -> Vec<String> {
        let lacking = traced.functions.keys();
        lacking.filter(|n| !names(n).iter().any(|n| set.contains(n.as_str()))).cloned().collect()
    };
    let (missed, not_own) = (lacks(&seen), lacks(&own));
    let all = traced.functions.len();
    let recall = (all - missed.len()) as f64 / all as f64;
    println!(
        "trace-cmd sees {all} functions of the service in {} events, none lost; altaz has {} of \
         them ({recall:.4}), {} of these as background: no more often than in the idle machine",
        traced.events,
        all - missed.len(),
        not_own.len() - missed.len(),
    );
    println!("altaz does not have {missed:?}");

    let mut index: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (i, name) in lab.traceable().into_iter().enumerate() {
        index.entry(name).or_default().push(i + 1);
    }
    let traced_too = |name: &&str| names(name).iter().any(|n| traced.functions.contains_key(n));
    let beyond: BTreeSet<&str> = own.iter().copied().filter(|n| !traced_too(n)).collect();
    let indexes: BTreeSet<usize> = beyond
        .iter()
        .flat_map(|n| names(n))
        .filter_map(|n| index.get(&n))
        .flatten()
        .copied()
        .collect();
    let whole = lab.watch_functions(&indexes.into_iter().collect::<Vec<_>>(), 40);
    assert_eq!(whole.lost, 0, "the tracer's buffer is too small");
    let often: BTreeSet<&str> = common::own(profile, Layer::HostKernel, Phase::Serve)
        .filter(|u| u.windows.len() > 2)
        .map(|u| &*u.symbol)
        .collect();
    let mut kinds: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in &beyond {
        let names = names(name);
        let kind = if !names.iter().any(|n| index.contains_key(n)) {
            "not traceable"
        } else if let Some(during) = names.iter().find_map(|n| whole.functions.get(n)) {
            kind(during)
        } else if often.contains(name) {
            UNEXPLAINED
        } else {
            "rare: in one or two windows of altaz's recording"
        };
        kinds.entry(kind).or_default().push(name);
    }
    println!(
        "altaz has {} functions of the service; beyond trace-cmd's {}:",
        own.len(),
        beyond.len()
    );
    for (kind, names) in &kinds {
        let shown = if *kind == UNEXPLAINED { names.len() } else { 12 };
        let some = names.iter().take(shown).copied().collect::<Vec<_>>().join(" ");
        let more = if names.len() > shown { " …" } else { "" };
        println!("{:5} {kind}: {some}{more}", names.len());
    }
    assert!(recall >= 0.99, "{recall}: {missed:?}");
    let unexplained = kinds.get(UNEXPLAINED).map_or(0, Vec::len);
    assert!(unexplained * 50 <= own.len(), "{unexplained} functions are not explained");
}

/// Kind of what is left.
const UNEXPLAINED: &str = "not seen a second time";
