//! What the kernel lets altaz do with few capabilities, and what altaz says when it does not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;

use altaz_bpf::link::{Link, ProbeAt, UprobePmu};
use altaz_bpf::program::Kind;
use altaz_bpf::{ActiveFilter, BpfError, ExitCounter, HitCounter, SyscallCounter, TaskFilter};
use common::{alone, tracefs};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

/// Runs something in a thread of its own with these capabilities only (root's files stay its own).
fn with<T: Send>(caps: CapabilitySet, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                let sets = CapabilitySets {
                    effective: caps,
                    permitted: caps,
                    inheritable: CapabilitySet::empty(),
                };
                set_capabilities(None, sets).unwrap();
                work()
            })
            .join()
            .unwrap()
    })
}

fn filter() -> Result<ActiveFilter, BpfError> {
    ActiveFilter::start(&tracefs(), Path::new("/proc"), &TaskFilter::Tgids(vec![1]))
}

#[test]
#[ignore = "needs root"]
fn cap_bpf_and_cap_perfmon_are_enough_but_for_probes_on_perf_events() {
    let _alone = alone();
    let few = CapabilitySet::BPF | CapabilitySet::PERFMON;
    let level = std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap();
    if level.trim().parse::<i32>().unwrap() > 2 {
        let e = with(few, || filter().unwrap_err().to_string());
        assert!(e.contains("paranoid"), "{e}");
        std::fs::write("/proc/sys/kernel/perf_event_paranoid", "2").unwrap();
    }
    with(few, || {
        let filter = filter().unwrap();
        let calls = SyscallCounter::start(&filter).unwrap();
        assert!(calls.calibrate(100).unwrap().reconciles());
        assert!(calls.tells_ia32());
        ExitCounter::start(&tracefs(), &filter).unwrap();
        // Any file will do: nobody runs it, so its bytes are not looked at.
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [0x55; 64]).unwrap();
        let at = ProbeAt { offset: 8, cookie: 0 };
        let many = HitCounter::load(Kind::UprobeMulti, &filter, 1).unwrap();
        Link::uprobe_multi(many.program(), file.path(), &[at], None).unwrap();
    });
    let fallback = || {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [0x55; 64]).unwrap();
        let one = HitCounter::load(Kind::Uprobe, &filter().unwrap(), 1).unwrap();
        let pmu = UprobePmu::find(Path::new("/sys")).unwrap();
        let at = ProbeAt { offset: 8, cookie: 0 };
        Link::uprobe(one.program(), pmu, file.path(), at)
    };
    let e = with(few, fallback).unwrap_err().to_string();
    assert!(e.contains("lacks CAP_SYS_ADMIN"), "{e}");
    with(few | CapabilitySet::SYS_ADMIN, fallback).unwrap();
    std::fs::write("/proc/sys/kernel/perf_event_paranoid", level).unwrap();
}

#[test]
#[ignore = "needs root"]
fn a_missing_capability_is_named() {
    let _alone = alone();
    let error = |caps| with(caps, || filter().unwrap_err().to_string());
    let e = error(CapabilitySet::empty());
    assert!(e.contains("it lacks CAP_BPF and CAP_PERFMON; run it as root"), "{e}");
    let e = error(CapabilitySet::BPF);
    assert!(e.contains("it lacks CAP_PERFMON;"), "{e}");
    let e = error(CapabilitySet::PERFMON);
    assert!(e.contains("it lacks CAP_BPF;"), "{e}");
}
