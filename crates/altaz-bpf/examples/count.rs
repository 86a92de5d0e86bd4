//! Counts the system calls and VM exits of a command and all that it forks, to compare them with
//! `strace -c -f` and `perf stat -e 'kvm:*'`:
//!
//!     count COMMAND [ARGUMENT…]
//!
//! Prints lines `syscall ABI NR COUNT` and `exit WHAT COUNT`, summed over processes, and what was
//! lost. Fails when the calibration does not reconcile or anything was lost.

#![allow(clippy::disallowed_methods, reason = "starts the command that it counts")]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use altaz_bpf::{ActiveFilter, BpfError, ExitCounter, SyscallCounter, TaskFilter};

fn main() -> ExitCode {
    match count() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("count: {e}");
            ExitCode::FAILURE
        }
    }
}

fn count() -> Result<bool, Box<dyn std::error::Error>> {
    let tracefs = Path::new("/sys/kernel/tracing");
    // A shell that waits, then becomes the command.
    let mut child = Command::new("sh")
        .args(["-c", "read x; exec \"$0\" \"$@\" </dev/null"])
        .args(std::env::args_os().skip(1))
        .stdin(Stdio::piped())
        .spawn()?;
    let filter = TaskFilter::Tgids(vec![child.id()]);
    let filter = ActiveFilter::start(tracefs, Path::new("/proc"), &filter)?;
    let calls = SyscallCounter::start(&filter)?;
    let exits = match ExitCounter::start(tracefs, &filter) {
        Ok(counter) => Some(counter),
        Err(e @ BpfError::NoEvent { .. }) => {
            eprintln!("count: {e}");
            None
        }
        Err(e) => return Err(e.into()),
    };
    let calibration = calls.calibrate(10_000)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(b"\n")?;
    }
    let status = child.wait()?;

    let mut sums = BTreeMap::new();
    for c in calls.counts()? {
        *sums.entry(c.call).or_insert(0) += c.count;
    }
    for (call, n) in &sums {
        let nr = call.nr.map_or("other".to_owned(), |nr| nr.to_string());
        println!("syscall {:?} {nr} {n}", call.abi);
    }
    let mut lost = calls.lost()? + filter.lost_forks()?;
    if let Some(exits) = exits {
        let mut sums = BTreeMap::new();
        for c in exits.counts()? {
            *sums.entry(c.exit).or_insert(0) += c.count;
        }
        for (exit, n) in &sums {
            println!("exit {exit:?} {n}");
        }
        lost += exits.lost()?;
    }
    println!("lost {lost} calibration {}/{} {status}", calibration.counted, calibration.made);
    Ok(lost == 0 && calibration.reconciles())
}
