//! Programs attached to a function of this very test, whose children call it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use altaz_bpf::hits::HitCounter;
use altaz_bpf::link::{Link, ProbeAt, UprobePmu, knows_one_process, knows_uprobe_multi};
use altaz_bpf::program::Kind;
use altaz_bpf::{ActiveFilter, BpfError, TaskFilter};
use common::{Child, alone, monotonic_ns, tracefs};
use std::path::Path;

/// Begins with an instruction that the kernel emulates under a probe.
#[unsafe(naked)]
extern "C" fn probed() {
    core::arch::naked_asm!("push rbp", "pop rbp", "ret")
}

/// The second place, never called.
#[unsafe(naked)]
extern "C" fn unused() {
    core::arch::naked_asm!("push rbp", "nop", "pop rbp", "ret")
}

/// An instruction that the kernel does not probe.
#[unsafe(naked)]
extern "C" fn forbidden() {
    core::arch::naked_asm!("lock inc dword ptr [rsp - 8]", "ret")
}

/// Offset of a function in this test's file.
fn offset(function: extern "C" fn()) -> u64 {
    let address = function as usize as u64;
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    for line in maps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next().unwrap().split_once('-').unwrap();
        let (start, end) =
            (u64::from_str_radix(start, 16).unwrap(), u64::from_str_radix(end, 16).unwrap());
        if (start..end).contains(&address) {
            return address - start + u64::from_str_radix(words.nth(1).unwrap(), 16).unwrap();
        }
    }
    panic!("{address:#x} is not mapped");
}

fn exe() -> std::path::PathBuf {
    std::env::current_exe().unwrap()
}

fn places() -> [ProbeAt; 2] {
    [ProbeAt { offset: offset(probed), cookie: 5 }, ProbeAt { offset: offset(unused), cookie: 6 }]
}

fn calls(n: u32) -> impl Fn() {
    move || (0..n).for_each(|_| probed())
}

/// Children that call, one of them through a child of its own; a stranger; and this process.
fn children_are_counted_and_others_not(attach: impl Fn(&ActiveFilter) -> (HitCounter, Vec<Link>)) {
    let _alone = alone();
    let followed = Child::held(|| {
        calls(100)();
        Child::now(calls(20)).wait();
    });
    let stranger = Child::held(calls(7));
    let filter = ActiveFilter::start(
        &tracefs(),
        Path::new("/proc"),
        &TaskFilter::Tgids(vec![followed.pid()]),
    )
    .unwrap();
    let (counter, links) = attach(&filter);
    let before = monotonic_ns();
    calls(3)();
    let pid = followed.pid();
    stranger.release().wait();
    followed.release().wait();
    let hits: Vec<_> = counter.hits().collect();
    assert_eq!(hits.len(), 1, "{hits:?}");
    let (cookie, hit) = hits[0];
    assert_eq!((cookie, hit.count), (5, 120));
    let first = hit.first.unwrap();
    assert_eq!((first.tgid, first.tid), (pid, pid));
    assert!((before..monotonic_ns()).contains(&first.at_ns));
    assert_eq!(counter.hit(5), Some(hit));
    assert_eq!(counter.hit(6), Some(altaz_bpf::hits::Hit::default()));
    assert_eq!(counter.hit(64), None);
    // Nothing is counted once the links are gone.
    drop(links);
    let late = Child::held(calls(9));
    filter.follow(&[late.pid()]).unwrap();
    late.release().wait();
    assert_eq!(counter.hit(5).unwrap().count, 120);
    assert_eq!(counter.program().misses().unwrap(), Some(0));
    assert_eq!(filter.lost_forks().unwrap(), 0);
}

#[test]
#[ignore = "needs root"]
fn a_link_of_many_probes_counts_the_followed_processes_hits() {
    children_are_counted_and_others_not(|filter| {
        let counter = HitCounter::load(Kind::UprobeMulti, filter, 64).unwrap();
        assert!(knows_uprobe_multi(counter.program()));
        let link = Link::uprobe_multi(counter.program(), &exe(), &places(), None).unwrap();
        (counter, vec![link])
    });
}

#[test]
#[ignore = "needs root"]
fn probes_on_perf_events_count_the_same() {
    children_are_counted_and_others_not(|filter| {
        let counter = HitCounter::load(Kind::Uprobe, filter, 64).unwrap();
        assert!(!knows_uprobe_multi(counter.program()));
        let pmu = UprobePmu::find(Path::new("/sys")).unwrap();
        let links = places()
            .iter()
            .map(|p| Link::uprobe(counter.program(), pmu, &exe(), *p).unwrap())
            .collect();
        (counter, links)
    });
}

#[test]
#[ignore = "needs root"]
fn a_link_to_one_process_counts_all_of_its_threads() {
    let _alone = alone();
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert!(knows_one_process(&release), "{release} is older than what the tests need");
    let threads = || {
        let second = std::thread::spawn(calls(40));
        calls(2)();
        second.join().unwrap();
    };
    let (followed, stranger) = (Child::held(threads), Child::held(threads));
    let both = TaskFilter::Tgids(vec![followed.pid(), stranger.pid()]);
    let filter = ActiveFilter::start(&tracefs(), Path::new("/proc"), &both).unwrap();
    let counter = HitCounter::load(Kind::UprobeMulti, &filter, 64).unwrap();
    let one = Some(followed.pid());
    let _link = Link::uprobe_multi(counter.program(), &exe(), &places(), one).unwrap();
    stranger.release().wait();
    followed.release().wait();
    assert_eq!(counter.hit(5).unwrap().count, 42);
}

#[test]
#[ignore = "needs root"]
fn the_cgroup_filter_lets_its_own_tasks_pass_only() {
    let _alone = alone();
    let mount = common::cgroup2();
    let cgroup = common::Cgroup::make(&mount, "altaz-bpf-probes");
    let inner = common::Cgroup::make(&cgroup.path, "inner");
    let filter = TaskFilter::cgroup(&mount, &cgroup.path).unwrap();
    let filter = ActiveFilter::start(&tracefs(), Path::new("/proc"), &filter).unwrap();
    let counter = HitCounter::load(Kind::UprobeMulti, &filter, 64).unwrap();
    let _link = Link::uprobe_multi(counter.program(), &exe(), &places(), None).unwrap();
    let (inside, below, outside) =
        (Child::held(calls(11)), Child::held(calls(200)), Child::held(calls(5000)));
    cgroup.add(inside.pid());
    inner.add(below.pid());
    for child in [inside, below, outside] {
        child.release().wait();
    }
    assert_eq!(counter.hit(5).unwrap().count, 211);
}

#[test]
#[ignore = "needs root"]
fn one_bad_instruction_fails_the_whole_link_and_is_said() {
    let _alone = alone();
    let filter = TaskFilter::Tgids(vec![1]);
    let filter = ActiveFilter::start(&tracefs(), Path::new("/proc"), &filter).unwrap();
    let counter = HitCounter::load(Kind::UprobeMulti, &filter, 8).unwrap();
    let probes = [
        ProbeAt { offset: offset(probed), cookie: 0 },
        ProbeAt { offset: offset(forbidden), cookie: 1 },
    ];
    // The kernel looks at instructions only where the file is mapped, as it is here.
    let e = Link::uprobe_multi(counter.program(), &exe(), &probes, None).unwrap_err();
    assert!(matches!(e, BpfError::BadInstruction { .. }), "{e}");
    let e =
        Link::uprobe_multi(counter.program(), Path::new("/no/file"), &probes, None).unwrap_err();
    assert!(e.to_string().contains("/no/file"), "{e}");
}
