//! A recording: calibrate, arm slice by slice, disarm what was seen in three windows, then wait for news.
//!
//! The only room that ties the others together: it owns the instance, its buffers and the state, and does what
//! [`crate::pace`] says. It never decides what is complete, and never prints.

use std::collections::{HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::baseline::{Baseline, baseline};
use crate::calibrate::{Calibration, calibrate};
use crate::error::FtraceError;
use crate::filter::{self, Change, Filter};
use crate::functions::{FunctionIndex, FunctionTable};
use crate::instance::{self, Instance};
use crate::pace::{self, Disarming, Pace};
use crate::quiet::quietly;
use crate::ration::Ration;
use crate::ring::{Drained, Rings};
use crate::sources::{self, Idle, Modules};
use crate::tally::{Seen, Tally};

/// What to record, and where the kernel's file systems are.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where tracefs is mounted.
    pub tracefs: PathBuf,
    /// Where proc is mounted.
    pub proc: PathBuf,
    /// Threads to follow; what they fork is followed too.
    pub tids: Vec<u32>,
    /// Of them or besides, kernel threads that work for the service (vhost, kvm).
    pub workers: Vec<u32>,
    /// Ring buffer for each CPU in kB; `None` chooses.
    pub buffer_kb_per_cpu: Option<u32>,
    /// Slices, windows, budget.
    pub pace: Pace,
}

impl Options {
    /// Follows these threads, with tracefs and proc where they usually are.
    pub fn new(tids: Vec<u32>) -> Self {
        Self {
            tracefs: "/sys/kernel/tracing".into(),
            proc: "/proc".into(),
            tids,
            workers: Vec::new(),
            buffer_kb_per_cpu: None,
            pace: Pace::default(),
        }
    }
}

/// One window.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WindowReport {
    /// Begin, CLOCK_MONOTONIC ns. Between the end of a window and the begin of the next nothing was recorded.
    pub begin_ns: u64,
    /// End, CLOCK_MONOTONIC ns.
    pub end_ns: u64,
    /// Functions traversed, in order of time, each once a context.
    pub seen: Vec<Seen>,
    /// Events read.
    pub events: u64,
    /// Events whose address is no traceable function's.
    pub unknown: u64,
    /// CPUs that lost events, and how many.
    pub lost_per_cpu: Vec<(u32, u64)>,
    /// Functions disarmed before this window, as those before it had shown them often enough.
    pub disarmed: u32,
    /// Functions armed in this window.
    pub armed: u32,
    /// Functions that wait to be armed; 0 once everything was.
    pub waiting: u32,
    /// The entry functions of all system calls are armed, or were disarmed after they were seen.
    pub entries_armed: bool,
    /// Modules were loaded or unloaded before this window: the table has grown.
    pub modules_changed: bool,
    /// CPU time that changing filters took before this window.
    pub patching: Duration,
}

/// A recording in an instance of its own.
#[derive(Debug)]
pub struct Recorder {
    // Closed before the instance is removed: fields are dropped in order.
    rings: Rings,
    instance: Instance,
    options: Options,
    table: FunctionTable,
    tally: Tally,
    workers: HashSet<u32>,
    calibration: Calibration,
    /// Functions of slices to come.
    waiting: VecDeque<FunctionIndex>,
    /// How many functions wait when the entries of system calls are all armed.
    others: usize,
    /// The filter is empty: everything is armed that was not disarmed, new modules too.
    open: bool,
    armed: usize,
    modules: Modules,
    module_looks: Ration,
    lost_read: Instant,
    disarming: Disarming,
    /// What is ready is disarmed before the next window.
    disarm_next: bool,
    /// What the buffers take in within a second is no more than half of one of them.
    calm: bool,
    window: Duration,
    /// End of the last window.
    last: Instant,
    /// Short windows to come, since the last slice.
    bursts: u8,
    started: Instant,
    /// No slice before this moment.
    arm_after: Instant,
    begin_ns: u64,
    buffer_kb: u32,
    cpus: usize,
    idle: Idle,
}

/// Now, by the clock that events are stamped with: `CLOCK_MONOTONIC`, ns. Async-signal-safe.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
}

/// A CPU's buffer is drained in pieces of at most this many bytes, then the next CPU's turn comes.
const PIECE: u64 = 64 << 20;
/// Memory for all buffers together, when the caller does not say.
const BUFFERS_KB: u32 = 256 << 10;
/// How often a stop is looked for: not more often than windows end once little is hit, as each time costs.
const STOP: Duration = Duration::from_millis(500);
/// Modules are looked for so often, and take no more of a CPU than one part in so many.
const MODULES: (u32, Duration, Duration) =
    (2000, Duration::from_millis(500), Duration::from_secs(10));
/// The kernel's counts of lost events are read this often although nothing was recorded.
const LOST: Duration = Duration::from_secs(10);

impl Recorder {
    /// Makes the instance, calibrates, and follows the threads; nothing but the calibrated function is armed yet.
    ///
    /// # Errors
    /// When this kernel or this user cannot trace, or no thread is alive, in words.
    pub fn start(options: Options) -> Result<Self, FtraceError> {
        let (tracefs, proc) = (options.tracefs.as_path(), options.proc.as_path());
        let mut follow: Vec<u32> = options.tids.iter().chain(&options.workers).copied().collect();
        follow.sort_unstable();
        follow.dedup();
        // With an empty set the kernel would follow everybody.
        if !follow.iter().any(|tid| proc.join(tid.to_string()).exists()) {
            return Err(FtraceError::NothingToFollow);
        }
        let instance = Instance::create(tracefs, proc)?;
        let layout = sources::layout(tracefs)?;
        let modules = Modules::read(tracefs, proc);
        let table = quietly(|| sources::table(tracefs, proc))?;
        instance.write("trace_clock", "mono")?;
        // Wakes a reader when a quarter is full, and not before; kernels that do not know it wake at once.
        let _ = instance.write("buffer_percent", "25");
        // What is full keeps its oldest events: a new one is dropped, and counted.
        let _ = instance.write("options/overwrite", "0");
        let possible = u32::try_from(instance.cpus()).unwrap_or(u32::MAX).max(1);
        let kb = options.buffer_kb_per_cpu.unwrap_or((BUFFERS_KB / possible).clamp(512, 8192));
        let buffer_kb = instance.set_buffer(kb)?;
        let (mut rings, calibration, known) = calibrate(&instance, layout, &table)?;
        // Before the threads, or what they fork meanwhile is not followed.
        instance.write("options/function-fork", "1")?;
        instance.write("set_ftrace_pid", &pids(&follow))?;
        rings.lost();
        instance.set_recording(true)?;
        let (waiting, entries) = order(&table, known);
        Ok(Self {
            others: waiting.len().saturating_sub(entries),
            rings,
            instance,
            tally: Tally::new(table.len()),
            workers: options.workers.iter().copied().collect(),
            waiting,
            open: false,
            armed: 1,
            disarming: Disarming::new(Duration::from_nanos(calibration.event_ns)),
            disarm_next: false,
            calm: false,
            last: Instant::now(),
            calibration,
            modules,
            module_looks: Ration::new(MODULES.0, MODULES.1, MODULES.2),
            lost_read: Instant::now(),
            table,
            window: options.pace.burst,
            bursts: 0,
            started: Instant::now(),
            arm_after: Instant::now(),
            begin_ns: now_ns(),
            buffer_kb,
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            idle: Idle::default(),
            options,
        })
    }

    /// The calibration that opened the recording.
    pub fn calibration(&self) -> &Calibration {
        &self.calibration
    }

    /// The traceable functions.
    pub fn functions(&self) -> &FunctionTable {
        &self.table
    }

    /// Ring buffer for each CPU, in kB.
    pub fn buffer_kb_per_cpu(&self) -> u32 {
        self.buffer_kb
    }

    /// Functions by the number of windows they were seen in: one, two, three or more.
    pub fn frequencies(&self) -> [usize; 3] {
        self.tally.frequencies()
    }

    /// Where the instance is.
    pub fn instance(&self) -> &Path {
        self.instance.path()
    }

    /// Follows more threads.
    ///
    /// # Errors
    /// In words.
    pub fn follow(&mut self, tids: &[u32]) -> Result<(), FtraceError> {
        match tids {
            [] => Ok(()),
            _ => self.instance.append("set_ftrace_pid", &pids(tids)),
        }
    }

    /// Follows more kernel threads that work for the service.
    ///
    /// # Errors
    /// In words.
    pub fn follow_workers(&mut self, tids: &[u32]) -> Result<(), FtraceError> {
        self.workers.extend(tids);
        self.follow(tids)
    }

    /// Records one window: disarms what was seen often enough before, arms the next slice if its time has come, waits,
    /// and reads. What takes long comes first, so that nothing stands between the end of a window and whoever is told
    /// of it; and the time it takes is taken off the window, so that once everything is armed two windows end no
    /// further apart than the longest one lasts, unless the kernel takes longer than that for a change. A window is no
    /// longer than `at_most`, if that is said, and ends early when `stop` says so (asked twice a second).
    ///
    /// # Errors
    /// When the kernel refuses what it granted before.
    pub fn advance(
        &mut self,
        at_most: Option<Duration>,
        stop: &dyn Fn() -> bool,
    ) -> Result<WindowReport, FtraceError> {
        let mut report = WindowReport::default();
        let mut drained = Drained::default();
        if std::mem::take(&mut self.disarm_next) {
            let (functions, took) = self.disarm()?;
            report.disarmed = functions;
            report.patching += took;
        }
        report.modules_changed = self.look_for_modules()?;
        if !self.waiting.is_empty() && self.bursts == 0 && Instant::now() >= self.arm_after {
            report.patching += self.arm_slice()?;
            self.begin_ns = now_ns();
        }
        let started = Instant::now();
        let mut until = started + self.window;
        if self.bursts > 0 {
            self.bursts -= 1;
            until = started + self.options.pace.burst;
        } else if !self.waiting.is_empty() {
            until = until.min(self.arm_after.max(started + self.options.pace.burst));
        }
        if let Some(at_most) = at_most {
            until = until.min(started + at_most);
        }
        let pace = &self.options.pace;
        until = until.min((self.last + pace.max_window).max(started + pace.burst));
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || stop() {
                break;
            }
            if self.rings.wait(left.min(STOP)) {
                let some = self.drain(u64::MAX, &mut report.unknown);
                drained.add(some);
                if some.fullest < u64::from(self.buffer_kb) * 1024 / 16 {
                    // Kernels that do not know buffer_percent wake for every event.
                    sleep(left.min(Duration::from_millis(10)));
                } else if started.elapsed() >= self.options.pace.burst {
                    // What fills a buffer early is disarmed sooner when the window ends.
                    break;
                }
            }
        }
        let end_ns = now_ns();
        drained.add(self.drain(end_ns, &mut report.unknown));
        self.last = Instant::now();
        let took = self.last.saturating_duration_since(started);

        report.begin_ns = std::mem::replace(&mut self.begin_ns, end_ns);
        report.end_ns = end_ns;
        report.events = drained.events;
        report.seen = self.tally.close();
        // A buffer that holds nothing has lost nothing: events are lost when it is full.
        if drained.bytes > 0 || self.lost_read.elapsed() >= LOST {
            self.lost_read = Instant::now();
            report.lost_per_cpu = self.rings.lost();
        }
        let lost = self.disarming.cost(drained.events);
        self.window = pace::next_window(&self.options.pace, took, lost);

        let events = self.tally.ready_events();
        self.disarm_next = self.disarming.pays(took, self.tally.ready().len(), events);
        self.calm = pace::is_calm(took, drained.fullest, u64::from(self.buffer_kb) * 1024);
        if report.unknown > 0 {
            self.module_looks.hurry();
        }
        report.armed = u32::try_from(self.armed).unwrap_or(u32::MAX);
        report.entries_armed = self.waiting.len() <= self.others;
        report.waiting = u32::try_from(self.waiting.len()).unwrap_or(u32::MAX);
        Ok(report)
    }

    fn drain(&mut self, end_ns: u64, unknown: &mut u64) -> Drained {
        let (table, tally, workers) = (&mut self.table, &mut self.tally, &self.workers);
        self.rings.drain(PIECE, |event| {
            let found = match table.find(event.ip) {
                Some(found) => Some(found),
                None => table.find_near(event.ip),
            };
            let Some(function) = found else {
                *unknown += 1;
                return;
            };
            let worker = !workers.is_empty() && workers.contains(&event.tid);
            tally.event(function, &event, worker, end_ns);
        })
    }

    /// Arms the next slice, with recording off: what fills the buffer now would not be read for a while.
    fn arm_slice(&mut self) -> Result<Duration, FtraceError> {
        let n = self.options.pace.slice.max(1).min(self.waiting.len());
        let slice: Vec<FunctionIndex> = self.waiting.drain(..n).collect();
        let lines = lines(&self.table, &slice);
        self.armed += lines.len();
        self.instance.set_recording(false)?;
        let mut took = filter::change(&self.instance, Filter::Only, Change::Add, lines)?;
        if self.waiting.is_empty() {
            // An empty filter means everything. No text is patched by that, disarming gets cheaper (the kernel
            // copies the filter at each change), and a module that is loaded later is armed by the kernel.
            took += filter::change(&self.instance, Filter::Only, Change::Set, [])?;
            self.open = true;
        }
        self.instance.set_recording(true)?;
        self.window = self.options.pace.burst;
        self.bursts = pace::BURSTS;
        self.rest(took);
        Ok(took)
    }

    /// No slice for a while, after the kernel's text was patched for so long.
    fn rest(&mut self, took: Duration) {
        let idle = self.idle.since_last(&self.options.proc).unwrap_or(0.0);
        let rest = pace::rest_after(&self.options.pace, took, self.cpus, idle);
        let left = self.options.pace.arm_within.saturating_sub(self.started.elapsed());
        let slices = self.waiting.len().div_ceil(self.options.pace.slice.max(1));
        let rest = pace::rest_within(rest, took, left, slices);
        self.arm_after = self.arm_after.max(Instant::now()) + rest;
    }

    fn disarm(&mut self) -> Result<(u32, Duration), FtraceError> {
        let ready = self.tally.take_ready();
        let lines = lines(&self.table, &ready);
        let count = lines.len();
        // Once little is hit, what happens meanwhile is the next window's: a call that is made once may come now.
        let pause = !(self.calm && self.open);
        if pause {
            self.instance.set_recording(false)?;
        }
        let took = filter::change_now(&self.instance, Filter::Not, Change::Add, lines)?;
        if pause {
            self.instance.set_recording(true)?;
            self.begin_ns = now_ns();
        }
        self.armed = self.armed.saturating_sub(count);
        self.disarming.done(took, self.waiting.is_empty());
        self.rest(took);
        Ok((u32::try_from(count).unwrap_or(u32::MAX), took))
    }

    /// Looks whether modules came or went. If so, line numbers have moved: reads the table again, and says anew
    /// which of the modules' functions are armed, as tokens that were just written may have meant others.
    fn look_for_modules(&mut self) -> Result<bool, FtraceError> {
        let (tracefs, proc) = (self.options.tracefs.as_path(), self.options.proc.as_path());
        if !self.module_looks.is_due() {
            return Ok(false);
        }
        let modules = self.module_looks.spend(|| Modules::read(tracefs, proc));
        if modules == self.modules {
            return Ok(false);
        }
        self.modules = modules;
        let table = &mut self.table;
        let reload = quietly(|| sources::reload(tracefs, proc, table))?;
        self.tally.grow(self.table.len());
        // The kernel forgets the filters of a module that goes; its functions come back armed or waiting.
        for &function in reload.added.iter().chain(&reload.removed) {
            self.tally.rearm(function);
        }
        let gone: HashSet<FunctionIndex> = reload.removed.iter().copied().collect();
        self.waiting.retain(|f| !gone.contains(f));
        if !self.open {
            self.waiting.extend(&reload.added);
        }
        let waiting: HashSet<FunctionIndex> = self.waiting.iter().copied().collect();
        let (mut armed, mut disarmed) = (Vec::new(), Vec::new());
        for (index, function) in self.table.iter() {
            let (Some(line), Some(_)) = (function.line, function.module) else { continue };
            if self.tally.is_disarmed(index) {
                disarmed.push(line);
            } else if !waiting.contains(&index) {
                armed.push(line);
            }
        }
        filter::change(&self.instance, Filter::Not, Change::Remove, armed.iter().copied())?;
        filter::change(&self.instance, Filter::Not, Change::Add, disarmed)?;
        if !self.open {
            filter::change(&self.instance, Filter::Only, Change::Add, armed)?;
        }
        self.armed = self
            .table
            .iter()
            .filter(|(i, f)| {
                f.line.is_some() && !self.tally.is_disarmed(*i) && !waiting.contains(i)
            })
            .count();
        Ok(true)
    }

    /// Looks which of the functions seen in interrupts so far also run in interrupts while other tasks than the
    /// followed ones are current, for so long. The recording goes on meanwhile; call [`Self::advance`] after.
    ///
    /// # Errors
    /// When a second instance cannot be had.
    pub fn baseline(
        &self,
        duration: Duration,
        stop: &dyn Fn() -> bool,
    ) -> Result<Baseline, FtraceError> {
        let (tracefs, proc) = (self.options.tracefs.as_path(), self.options.proc.as_path());
        let followed = instance::read(&self.instance.file("set_ftrace_pid"))?;
        let candidates = self.tally.in_interrupts();
        baseline(tracefs, proc, &self.table, &followed, &candidates, duration, stop)
    }

    /// Ends the recording and removes the instance.
    ///
    /// # Errors
    /// When the instance cannot be removed.
    pub fn finish(self) -> Result<(), FtraceError> {
        let Self { rings, instance, .. } = self;
        drop(rings);
        instance.remove()
    }
}

fn lines(table: &FunctionTable, functions: &[FunctionIndex]) -> Vec<u32> {
    functions.iter().filter_map(|&f| table.get(f)?.line).collect()
}

fn pids(tids: &[u32]) -> String {
    tids.iter().map(|t| format!("{t}\n")).collect()
}

/// Only tracing itself calls these: armed last.
fn is_tracing(name: &str) -> bool {
    [
        "__traceiter_",
        "__probestub_",
        "trace_event_raw_event_",
        "perf_trace_",
        "trace_raw_output_",
        "__bpf_trace_",
    ]
    .iter()
    .any(|p| name.starts_with(p))
}

/// Entry functions of system calls: armed first, so that whoever counts system calls by other, dearer means can stop
/// soon.
fn is_entry(name: &str) -> bool {
    [
        "__x64_sys_",
        "__x64_compat_sys_",
        "__ia32_sys_",
        "__ia32_compat_sys_",
        "__arm64_sys_",
        "__do_sys_",
    ]
    .iter()
    .any(|p| name.starts_with(p))
}

/// All functions but the one that is armed already, in the order in which they are armed; and how many of them are
/// entry functions of system calls, which come first.
fn order(table: &FunctionTable, armed: FunctionIndex) -> (VecDeque<FunctionIndex>, usize) {
    let all = || table.iter().filter(|(i, f)| f.line.is_some() && *i != armed);
    let entries = all().filter(|(_, f)| is_entry(f.name));
    let first = all().filter(|(_, f)| !is_entry(f.name) && !is_tracing(f.name));
    let last = all().filter(|(_, f)| is_tracing(f.name));
    let count = all().filter(|(_, f)| is_entry(f.name)).count();
    (entries.chain(first).chain(last).map(|(index, _)| index).collect(), count)
}
