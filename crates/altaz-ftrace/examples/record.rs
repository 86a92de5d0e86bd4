//! Records the kernel functions of a process for some seconds and prints a line a window.
//!
//!     record PID SECONDS [SLICE [SHARE [BURST_MS]]]
//!
//!     record --orphans
//!
//! removes what a killed recording left, and prints what it was.
//!
//! Checks itself: fails unless the calibration reconciles, something was seen, and nothing is left behind.

use std::path::Path;
use std::time::{Duration, Instant};

use altaz_ftrace::{Options, Pace, Recorder, orphans};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|a| a == "--orphans") {
        for orphan in orphans(Path::new("/sys/kernel/tracing"), Path::new("/proc")) {
            println!("removing {}", orphan.path.display());
            orphan.remove()?;
        }
        return Ok(());
    }
    let number = |n: usize| args.get(n).and_then(|a| a.parse::<f64>().ok());
    let pid = number(1).ok_or("usage: record PID SECONDS")? as u32;
    let seconds = number(2).ok_or("usage: record PID SECONDS")?;
    let mut tids = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        tids.extend(entry?.file_name().to_str().and_then(|t| t.parse::<u32>().ok()));
    }
    let mut options = Options::new(tids);
    let usual = Pace::default();
    options.pace = Pace {
        slice: number(3).map_or(usual.slice, |n| n as usize),
        share: number(4).unwrap_or(usual.share),
        burst: number(5).map_or(usual.burst, |ms| Duration::from_secs_f64(ms / 1e3)),
        ..usual
    };
    let started = Instant::now();
    let mut recorder = Recorder::start(options)?;
    println!("started in {:?}: {:?}", started.elapsed(), recorder.calibration());
    let (mut lost, mut events, mut first) = (0, 0, 0usize);
    let stop = || started.elapsed().as_secs_f64() >= seconds;
    let mut patching = Duration::ZERO;
    while !stop() {
        let w = recorder.advance(None, &stop)?;
        let window_lost: u64 = w.lost_per_cpu.iter().map(|l| l.1).sum();
        let new = w.seen.iter().filter(|s| s.first).count();
        lost += window_lost;
        events += w.events;
        first += new;
        patching += w.patching;
        println!(
            "{:8.3} s {:7.1} ms  seen {:4} new {:3}  events {:6} unknown {} lost {}  armed {:5} waiting {:5} -{} patching {:.1?}{}",
            started.elapsed().as_secs_f64(),
            (w.end_ns - w.begin_ns) as f64 / 1e6,
            w.seen.len(),
            new,
            w.events,
            w.unknown,
            window_lost,
            w.armed,
            w.waiting,
            w.disarmed,
            w.patching,
            if w.modules_changed { " modules" } else { "" },
        );
    }
    let looked = recorder.baseline(Duration::from_secs(1), &|| false)?;
    println!(
        "baseline: {} functions and contexts in {:.1?} of recording, lost {}",
        looked.background.len(),
        looked.recorded,
        looked.lost
    );
    let frequencies = recorder.frequencies();
    let calibration = recorder.calibration().clone();
    let path = recorder.instance().to_path_buf();
    let ending = Instant::now();
    recorder.finish()?;
    println!(
        "functions {first} by windows {frequencies:?}, events {events}, lost {lost}, patching {patching:.1?}, ended in {:.1?}",
        ending.elapsed()
    );
    if !calibration.reconciles() || first == 0 || path.exists() {
        return Err("the recording does not hold".into());
    }
    Ok(())
}
