//! The calibration that opens a recording: known calls, made by altaz itself, must be counted exactly.
//!
//! Only one function is armed and only the calling thread is followed, so that nothing else can be counted. The
//! same calls tell what an event costs on this machine.

use std::time::Instant;

use crate::error::FtraceError;
use crate::filter::{self, Change, Filter};
use crate::functions::{FunctionIndex, FunctionTable};
use crate::instance::Instance;
use crate::layout::Layout;
use crate::page::Context;
use crate::ring::Rings;

/// Known calls against counted ones: whether this kernel's tracer counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calibration {
    /// The function that was called.
    pub what: String,
    /// Calls made.
    pub made: u64,
    /// Calls counted, in task context, from the thread that made them.
    pub counted: u64,
    /// What an event costs the thread that makes it, in ns.
    pub event_ns: u64,
}

impl Calibration {
    /// Whether every call was counted, and none twice. If not, no completeness may be printed.
    pub fn reconciles(&self) -> bool {
        self.made == self.counted
    }
}

/// Calls that are made.
const CALLS: u64 = 1000;
/// In so many batches, each with a time of its own.
const BATCHES: u64 = 20;

/// The system call that is made, by architecture and kernel. System calls without arguments have one
/// implementation under all their entries, which is what is traceable on x86.
const KNOWN: [&str; 5] = [
    "__do_sys_getppid",
    "__x64_sys_getppid",
    "__arm64_sys_getppid",
    "__se_sys_getppid",
    "sys_getppid",
];

/// Sets the tracer with only this thread and one function, and counts known calls. Leaves recording off, the
/// function armed (also returned), and this thread followed until the caller follows others instead.
pub(crate) fn calibrate(
    instance: &Instance,
    layout: Layout,
    table: &FunctionTable,
) -> Result<(Rings, Calibration, FunctionIndex), FtraceError> {
    let known = KNOWN.iter().find_map(|name| {
        let index = table.by_name(name)?;
        let function = table.get(index)?;
        Some((index, function.line?, function))
    });
    let Some((index, line, function)) = known else {
        return Err(FtraceError::Format {
            path: instance.file("set_ftrace_filter"),
            reason: "getppid is not traceable, so that nothing can be calibrated".to_owned(),
        });
    };
    let own = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
    filter::change(instance, Filter::Only, Change::Set, [line])?;
    instance.write("set_ftrace_pid", &format!("{own}\n"))?;
    // The shortest of several batches: a thread that is preempted meanwhile makes the others long.
    let calls = || {
        (0..BATCHES)
            .map(|_| {
                let started = Instant::now();
                for _ in 0..CALLS / BATCHES {
                    std::hint::black_box(rustix::process::getppid());
                }
                started.elapsed()
            })
            .min()
            .unwrap_or_default()
    };
    calls();
    let untraced = calls();
    // The tracer cannot be changed while a raw buffer is open.
    instance.write("current_tracer", "function")?;
    let mut rings = Rings::open(instance.path(), layout)?;
    instance.set_recording(true)?;
    let traced = calls();
    instance.set_recording(false)?;
    let mut counted = 0;
    rings.drain(u64::MAX, |event| {
        let near = event.ip.wrapping_sub(function.address) <= 16;
        counted += u64::from(near && event.tid == own && event.context() == Context::Task);
    });
    let event_ns = traced.saturating_sub(untraced).as_nanos() as u64 / (CALLS / BATCHES);
    let what = function.name.to_owned();
    Ok((rings, Calibration { what, made: CALLS, counted, event_ns }, index))
}
