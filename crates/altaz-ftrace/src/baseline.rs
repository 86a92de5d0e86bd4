//! Which interrupt work happens whoever runs: a second look at functions that a recording saw in interrupts, at
//! moments when *other* tasks than the followed ones are current.
//!
//! An own instance for some milliseconds at a time, with the followed threads **excluded**
//! (`set_ftrace_notrace_pid`) and only the candidates armed, so that it costs little. What is found here is not the
//! service's alone; what is found only on the service's threads may be.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::FtraceError;
use crate::filter::{self, Change, Filter};
use crate::functions::{FunctionIndex, FunctionTable};
use crate::instance::Instance;
use crate::page::Context;
use crate::ring::Rings;
use crate::sources;

/// A burst of recording.
const BURST: Duration = Duration::from_millis(5);
/// The pause between bursts, a prime number of milliseconds so that no timer's rhythm is met.
const PAUSE: Duration = Duration::from_millis(47);
/// Ring buffer for each CPU, in kB: bursts are short.
const BUFFER_KB: u32 = 512;

/// A function that ran in an interrupt while none of the followed threads was current.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Background {
    /// Which function.
    pub function: FunctionIndex,
    /// Softirq or hardirq.
    pub context: Context,
    /// How often.
    pub events: u64,
}

/// What a baseline found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Baseline {
    /// Functions of the candidates, by index and context.
    pub background: Vec<Background>,
    /// Time in which it was recorded.
    pub recorded: Duration,
    /// Events lost.
    pub lost: u64,
}

/// Looks at the candidates for so long (pauses included), excluding these threads.
pub(crate) fn baseline(
    tracefs: &Path,
    proc: &Path,
    table: &FunctionTable,
    followed: &str,
    candidates: &[FunctionIndex],
    duration: Duration,
    stop: &dyn Fn() -> bool,
) -> Result<Baseline, FtraceError> {
    let lines: Vec<u32> = candidates.iter().filter_map(|&f| table.get(f)?.line).collect();
    let mut found = Baseline::default();
    // An empty filter would arm everything.
    if lines.is_empty() {
        return Ok(found);
    }
    let started = Instant::now();
    let instance = Instance::create(tracefs, proc)?;
    let layout = sources::layout(tracefs)?;
    instance.write("trace_clock", "mono")?;
    instance.set_buffer(BUFFER_KB)?;
    instance.write("options/function-fork", "1")?;
    instance.write("set_ftrace_notrace_pid", followed)?;
    filter::change(&instance, Filter::Only, Change::Set, lines)?;
    instance.write("current_tracer", "function")?;
    let mut rings = Rings::open(instance.path(), layout)?;
    let mut counts: BTreeMap<(FunctionIndex, Context), u64> = BTreeMap::new();
    while started.elapsed() < duration && !stop() {
        let burst = Instant::now();
        instance.set_recording(true)?;
        rings.wait(BURST);
        instance.set_recording(false)?;
        found.recorded += burst.elapsed();
        rings.drain(u64::MAX, |event| {
            let context = event.context();
            if context == Context::Task {
                return;
            }
            if let Some(function) = table.find(event.ip) {
                *counts.entry((function, context)).or_default() += 1;
            }
        });
        std::thread::sleep(PAUSE);
    }
    found.lost = rings.lost().iter().map(|l| l.1).sum();
    found.background = counts
        .into_iter()
        .map(|((function, context), events)| Background { function, context, events })
        .collect();
    drop(rings);
    instance.remove()?;
    Ok(found)
}
