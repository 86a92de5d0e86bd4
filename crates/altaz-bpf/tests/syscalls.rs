//! Counts of system calls against known ones and against `strace -c -f`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

use altaz_bpf::{Abi, ActiveFilter, Call, SyscallCounter, TaskFilter};
use common::{Child, alone, tracefs};

fn follow(pid: u32) -> ActiveFilter {
    ActiveFilter::start(&tracefs(), Path::new("/proc"), &TaskFilter::Tgids(vec![pid])).unwrap()
}

fn native(nr: libc::c_long) -> Call {
    Call { abi: Abi::Native, nr: Some(nr as u32) }
}

fn syscall(nr: libc::c_long) {
    // SAFETY: only numbers of calls without arguments and numbers that are no calls are given.
    unsafe { libc::syscall(nr) };
}

/// `getpid` by the 32-bit entry.
fn getpid_ia32() -> u32 {
    let mut eax = 20_u32;
    // SAFETY: i386's getpid takes no arguments and touches no memory; the entry clears r8 to r11.
    unsafe {
        core::arch::asm!("int 0x80", inout("eax") eax,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    eax
}

#[test]
#[ignore = "needs root"]
fn every_call_of_a_process_its_threads_and_children_is_counted_once() {
    let _alone = alone();
    let child = Child::held(|| {
        (0..1000).for_each(|_| syscall(libc::SYS_getppid));
        let thread = std::thread::spawn(|| {
            (0..2000).for_each(|_| syscall(libc::SYS_getppid));
        });
        Child::now(|| (0..300).for_each(|_| syscall(libc::SYS_getuid))).wait();
        thread.join().unwrap();
        (0..50).for_each(|_| assert_eq!(getpid_ia32(), std::process::id()));
        (0..7).for_each(|_| syscall(0x4000_0000 + libc::SYS_getppid));
        (0..11).for_each(|i| syscall(10_000 + i));
    });
    let stranger = Child::held(|| (0..999).for_each(|_| syscall(libc::SYS_getppid)));
    let pid = child.pid();
    let filter = follow(pid);
    let counter = SyscallCounter::start(&filter).unwrap();
    assert!(counter.tells_ia32());
    stranger.release().wait();
    child.release().wait();
    let counts = counter.counts().unwrap();
    assert_eq!(counter.news(), counts.len() as u64);
    assert_eq!(counter.lost().unwrap(), 0);
    let of = |call: Call| -> Vec<(bool, u64)> {
        counts.iter().filter(|c| c.call == call).map(|c| (c.tgid == pid, c.count)).collect()
    };
    assert_eq!(of(native(libc::SYS_getppid)), [(true, 3000)]);
    assert_eq!(of(native(libc::SYS_getuid)), [(false, 300)]);
    assert_eq!(of(Call { abi: Abi::Ia32, nr: Some(20) }), [(true, 50)]);
    assert_eq!(of(Call { abi: Abi::X32, nr: Some(libc::SYS_getppid as u32) }), [(true, 7)]);
    assert_eq!(of(Call { abi: Abi::Native, nr: None }), [(true, 11)]);
    assert!(counts.iter().all(|c| c.tgid != std::process::id()));
}

#[test]
#[ignore = "needs root"]
fn the_calibration_counts_exactly_what_was_made_and_leaves_nothing() {
    let _alone = alone();
    let filter = follow(1);
    let counter = SyscallCounter::start(&filter).unwrap();
    for made in [1, 1000, 50_000] {
        let calibration = counter.calibrate(made).unwrap();
        assert_eq!(calibration.counted, made);
        assert!(calibration.reconciles());
    }
    (0..100).for_each(|_| syscall(libc::SYS_getppid));
    let own = std::process::id();
    assert!(counter.counts().unwrap().iter().all(|c| c.tgid != own));
}

#[test]
#[ignore = "needs root"]
fn settled_numbers_pass_and_a_new_one_is_news() {
    let _alone = alone();
    let work = |new: libc::c_long| {
        move || {
            (0..10).for_each(|_| syscall(libc::SYS_getppid));
            syscall(new);
        }
    };
    let (first, second) =
        (Child::held(work(libc::SYS_getuid)), Child::held(work(libc::SYS_getgid)));
    let third = Child::held(work(libc::SYS_getgid));
    let filter = follow(first.pid());
    filter.follow(&[second.pid(), third.pid()]).unwrap();
    let counter = SyscallCounter::start(&filter).unwrap();
    first.release().wait();
    let (before, news) = (counter.counts().unwrap(), counter.news());
    // getppid, getuid, exit_group and perhaps the end of the wait.
    assert!((3..=4).contains(&counter.settle().unwrap()), "{before:?}");
    let pid = second.pid();
    second.release().wait();
    let after = counter.counts().unwrap();
    let new: Vec<_> = after.iter().filter(|c| c.tgid == pid).map(|c| (c.call, c.count)).collect();
    assert!(new.contains(&(native(libc::SYS_getgid), 1)), "{new:?}");
    assert!(new.iter().all(|(call, _)| *call != native(libc::SYS_getppid)), "{new:?}");
    assert_eq!(counter.news(), news + new.len() as u64);
    assert!(counter.calibrate(100).unwrap().reconciles());
    counter.unsettle();
    let pid = third.pid();
    third.release().wait();
    let all = counter.counts().unwrap();
    let getppid = all.iter().find(|c| c.tgid == pid && c.call == native(libc::SYS_getppid));
    assert_eq!(getppid.map(|c| c.count), Some(10));
}

#[test]
#[ignore = "needs root"]
fn what_finds_the_map_full_is_known_as_lost() {
    let _alone = alone();
    let child = Child::held(|| {
        for call in [
            libc::SYS_getppid,
            libc::SYS_getuid,
            libc::SYS_geteuid,
            libc::SYS_getgid,
            libc::SYS_getegid,
            libc::SYS_gettid,
        ] {
            (0..100).for_each(|_| syscall(call));
        }
    });
    let filter = follow(child.pid());
    let counter = SyscallCounter::with_entries(&filter, 3).unwrap();
    child.release().wait();
    let counts = counter.counts().unwrap();
    assert_eq!(counts.len(), 3);
    let counted: u64 = counts.iter().map(|c| c.count).sum();
    // Besides the six: one exit, and perhaps the end of the wait for the release.
    let all = counted + counter.lost().unwrap();
    assert!((601..=602).contains(&all), "{counted} {all}");
}

/// `strace -c`'s table: calls by name.
fn table(text: &str) -> BTreeMap<String, u64> {
    let row = |line: &str| {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        words.first()?.parse::<f64>().ok()?;
        let name = (*words.last()?).to_owned();
        (name != "total").then_some((name, words.get(3)?.parse().ok()?))
    };
    text.lines().filter_map(row).collect()
}

/// Many calls of many kinds by many processes.
const SCRIPT: &str = "for i in 1 2 3 4 5 6 7 8; do
    ls -lR /etc /usr/share/doc | sort | wc -c >/dev/null
    dd if=/dev/zero of=/dev/null bs=1 count=2000 2>/dev/null
done";

#[test]
#[ignore = "needs root"]
#[allow(clippy::disallowed_methods, reason = "the program that the counts are checked against")]
fn the_counts_are_those_of_strace() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("calls");
    // Becomes strace once everything that counts is in place.
    let mut strace = std::process::Command::new("sh")
        .args(["-c", "read x; exec strace -qq -c -f -o \"$0\" sh -c \"$1\""])
        .arg(&out)
        .arg(SCRIPT)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let filter = follow(strace.id());
    let counter = SyscallCounter::start(&filter).unwrap();
    strace.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert!(strace.wait().unwrap().success());
    let expected = table(&std::fs::read_to_string(&out).unwrap());
    let mut got = BTreeMap::<String, u64>::new();
    for c in counter.counts().unwrap().iter().filter(|c| c.tgid != strace.id()) {
        let nr = c.call.nr.unwrap() as usize;
        *got.entry(syscalls::Sysno::new(nr).unwrap().name().to_owned()).or_default() += c.count;
    }
    assert_eq!(counter.lost().unwrap(), 0);
    // What strace does not count: calls that never return, and those by which its child becomes a
    // tracee (a dozen). Everything else is equal.
    let total: u64 = expected.values().sum();
    assert!(total > 30_000, "{expected:?}");
    let mut unexplained = 0;
    got.remove("exit_group");
    for name in expected.keys().chain(got.keys()).collect::<BTreeSet<_>>() {
        let of = |table: &BTreeMap<String, u64>| table.get(name).copied().unwrap_or(0);
        let (strace, ours) = (of(&expected), of(&got));
        assert!(ours >= strace, "{name}: strace {strace}, counted {ours}");
        unexplained += ours - strace;
    }
    assert!(unexplained <= 20, "{expected:?}\n{got:?}");
}
