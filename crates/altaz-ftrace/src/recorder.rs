//! A recording: calibrate, arm slice by slice, disarm what was seen in three windows, then wait for news.

use std::collections::{HashSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::error::FtraceError;
use crate::filter::{self, Change, Filter};
use crate::functions::{FunctionIndex, FunctionTable};
use crate::instance::{self, Instance};
use crate::layout::Layout;
use crate::pace::{self, Disarming, Pace};
use crate::ring::{Drained, Rings};
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

/// Known calls against counted ones: whether this kernel's tracer counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calibration {
    /// The function that was called.
    pub what: String,
    /// Calls made.
    pub made: u64,
    /// Calls counted, from the thread that made them.
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
    /// Functions disarmed after this window.
    pub disarmed: u32,
    /// Functions armed after this window.
    pub armed: u32,
    /// Functions that wait to be armed; 0 once everything was.
    pub waiting: u32,
    /// Modules were loaded or unloaded: the table has grown.
    pub modules_changed: bool,
    /// How long the kernel's text was patched for this window (arming before it, disarming after it).
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
    waiting: VecDeque<FunctionIndex>,
    armed: usize,
    modules: Modules,
    disarming: Disarming,
    window: Duration,
    /// No slice before this moment.
    arm_after: Instant,
    begin_ns: u64,
    buffer_kb: u32,
    cpus: usize,
}

/// Now, by the clock that events are stamped with.
fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
}

/// A CPU's buffer is drained in pieces of at most this many bytes, then the next CPU's turn comes.
const PIECE: u64 = 64 << 20;
/// Memory for all buffers together, when the caller does not say.
const BUFFERS_KB: u32 = 256 << 10;
/// Calls of the calibration.
const CALLS: u64 = 1000;
/// How often a stop is looked for.
const STOP: Duration = Duration::from_millis(100);

impl Recorder {
    /// Makes the instance, calibrates, and follows the threads; nothing but the calibrated function is armed yet.
    ///
    /// # Errors
    /// When this kernel or this user cannot trace, in words.
    pub fn start(options: Options) -> Result<Self, FtraceError> {
        if options.tids.is_empty() && options.workers.is_empty() {
            return Err(FtraceError::NothingToFollow);
        }
        let instance = Instance::create(&options.tracefs, &options.proc)?;
        let layout = read_layout(&options.tracefs)?;
        let modules = Modules::read(&options);
        let table = read_table(&options)?;
        instance.write("trace_clock", "mono")?;
        // Wakes a reader when a quarter is full, and not before; older kernels wake at once.
        let _ = instance.write("buffer_percent", "25");
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let possible = u32::try_from(count_cpus(&instance)).unwrap_or(1).max(1);
        let kb = options.buffer_kb_per_cpu.unwrap_or((BUFFERS_KB / possible).clamp(512, 8192));
        let buffer_kb = instance.set_buffer(kb)?;
        // What is full keeps its oldest events: a new one is dropped, which is cheaper than overwriting.
        let _ = instance.write("options/overwrite", "0");
        instance.write("options/function-fork", "1")?;
        let mut rings = Rings::open(instance.path(), layout)?;
        let calibration = calibrate(&instance, &mut rings, &table)?;

        let workers: HashSet<u32> = options.workers.iter().copied().collect();
        let mut follow: Vec<u32> = options.tids.iter().chain(&options.workers).copied().collect();
        follow.sort_unstable();
        follow.dedup();
        instance.write("set_ftrace_pid", &pids(&follow))?;

        let armed = table.by_name(calibration.what.as_str());
        let mut this = Self {
            rings,
            instance,
            tally: Tally::new(table.len()),
            workers,
            waiting: order(&table, armed),
            armed: usize::from(armed.is_some()),
            disarming: Disarming::new(Duration::from_nanos(calibration.event_ns)),
            calibration,
            modules,
            table,
            window: options.pace.burst,
            arm_after: Instant::now(),
            begin_ns: now_ns(),
            buffer_kb,
            cpus,
            options,
        };
        this.rings.lost();
        this.instance.set_recording(true)?;
        Ok(this)
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

    /// Records one window: arms the next slice if its time has come, waits, reads, and disarms what was seen often
    /// enough. Returns early when `stop` says so (asked every 100 ms).
    ///
    /// # Errors
    /// When the kernel refuses what it granted before.
    pub fn advance(&mut self, stop: &dyn Fn() -> bool) -> Result<WindowReport, FtraceError> {
        let mut report = WindowReport::default();
        let mut drained = Drained::default();
        if !self.waiting.is_empty() && Instant::now() >= self.arm_after {
            report.patching += self.arm_slice()?;
            self.begin_ns = now_ns();
        }
        let started = Instant::now();
        let mut until = started + self.window;
        if !self.waiting.is_empty() {
            until = until.min(self.arm_after.max(started + self.options.pace.burst));
        }
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || stop() {
                break;
            }
            if self.rings.wait(left.min(STOP)) {
                let some = self.drain(u64::MAX, &mut report.unknown);
                drained.add(some);
                // A buffer that fills early holds what the next windows are for.
                if started.elapsed() >= self.options.pace.burst {
                    break;
                }
            }
        }
        let end_ns = now_ns();
        drained.add(self.drain(end_ns, &mut report.unknown));
        let took = started.elapsed();

        report.begin_ns = std::mem::replace(&mut self.begin_ns, end_ns);
        report.end_ns = end_ns;
        report.events = drained.events;
        report.seen = self.tally.close();
        report.lost_per_cpu = self.rings.lost();
        let lost = self.disarming.cost(drained.events);
        self.window = pace::next_window(&self.options.pace, took, lost);

        let events = self.tally.ready_events();
        if self.disarming.pays(took, self.tally.ready().len(), events) {
            let (functions, took) = self.disarm()?;
            report.disarmed = functions;
            report.patching += took;
        }
        report.modules_changed = self.look_for_modules(report.unknown > 0)?;
        report.armed = u32::try_from(self.armed).unwrap_or(u32::MAX);
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
        let lines: Vec<u32> = lines(&self.table, &slice);
        self.armed += lines.len();
        self.instance.set_recording(false)?;
        let mut took = filter::change(&self.instance, Filter::Only, Change::Add, lines)?;
        if self.waiting.is_empty() && self.options.pace.clear_filter {
            took += filter::change(&self.instance, Filter::Only, Change::Set, [])?;
        }
        self.instance.set_recording(true)?;
        self.window = self.options.pace.burst;
        self.arm_after = Instant::now() + pace::rest_after(&self.options.pace, took, self.cpus);
        Ok(took)
    }

    fn disarm(&mut self) -> Result<(u32, Duration), FtraceError> {
        let ready = self.tally.take_ready();
        let lines = lines(&self.table, &ready);
        let count = lines.len();
        self.instance.set_recording(false)?;
        let took = filter::change(&self.instance, Filter::Not, Change::Add, lines)?;
        self.instance.set_recording(true)?;
        self.begin_ns = now_ns();
        self.armed = self.armed.saturating_sub(count);
        self.disarming.done(took);
        self.arm_after += pace::rest_after(&self.options.pace, took, self.cpus);
        Ok((u32::try_from(count).unwrap_or(u32::MAX), took))
    }

    /// Looks whether modules came or went; if so, reads the table again and sets their functions' filters anew.
    fn look_for_modules(&mut self, must: bool) -> Result<bool, FtraceError> {
        let modules = Modules::read(&self.options);
        if modules == self.modules && !must {
            return Ok(false);
        }
        if modules == self.modules {
            return Ok(false);
        }
        self.modules = modules;
        let before = self.table.len();
        let reload = reload_table(&self.options, &mut self.table)?;
        self.tally.grow(self.table.len());
        let _ = (before, reload);
        Ok(true)
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
    ["__traceiter_", "__probestub_", "trace_event_raw_event_", "perf_trace_", "trace_raw_output_", "__bpf_trace_"]
        .iter()
        .any(|p| name.starts_with(p))
}

fn order(table: &FunctionTable, armed: Option<FunctionIndex>) -> VecDeque<FunctionIndex> {
    let all = || table.iter().filter(|(i, f)| f.line.is_some() && Some(*i) != armed);
    let first = all().filter(|(_, f)| !is_tracing(f.name));
    let last = all().filter(|(_, f)| is_tracing(f.name));
    first.chain(last).map(|(index, _)| index).collect()
}

fn count_cpus(instance: &Instance) -> usize {
    fs::read_dir(instance.file("per_cpu")).map_or(1, |d| d.filter_map(Result::ok).count())
}

fn read_layout(tracefs: &Path) -> Result<Layout, FtraceError> {
    let file = |name: &str| instance::read(&tracefs.join("events").join(name));
    let page = file("header_page")?;
    let event = file("header_event")?;
    let function = file("ftrace/function/format")?;
    Layout::parse(&page, &event, &function).map_err(|e| FtraceError::Format {
        path: tracefs.join("events"),
        reason: e.to_string(),
    })
}

fn read_table(options: &Options) -> Result<FunctionTable, FtraceError> {
    let mut table = FunctionTable::default();
    reload_table(options, &mut table)?;
    if table.is_empty() {
        return Err(FtraceError::Format {
            path: options.tracefs.join("available_filter_functions"),
            reason: "no function in it has an address (kernel.kptr_restrict hides them without CAP_SYSLOG)".to_owned(),
        });
    }
    Ok(table)
}

fn reload_table(
    options: &Options,
    table: &mut FunctionTable,
) -> Result<crate::functions::Reload, FtraceError> {
    let addrs = options.tracefs.join("available_filter_functions_addrs");
    if addrs.exists() {
        return Ok(table.reload_addrs(&instance::read(&addrs)?));
    }
    let names = instance::read(&options.tracefs.join("available_filter_functions"))?;
    Ok(table.reload_names(&names, &instance::read(&options.proc.join("kallsyms"))?))
}

/// What changes when modules come and go.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Modules {
    total: String,
    names: String,
}

impl Modules {
    fn read(options: &Options) -> Self {
        let total = fs::read_to_string(options.tracefs.join("dyn_ftrace_total_info"));
        let modules = fs::read_to_string(options.proc.join("modules")).unwrap_or_default();
        let mut names = String::with_capacity(modules.len() / 2);
        for line in modules.lines() {
            // Name and address; the reference count between them changes all the time.
            let mut parts = line.split(' ');
            names.extend(parts.next());
            names.push(' ');
            names.extend(parts.nth(4));
            names.push('\n');
        }
        Self { total: total.unwrap_or_default(), names }
    }
}

/// The system call that calibrates, by architecture.
/// System calls without arguments have one implementation under all their entries.
const KNOWN: [&str; 5] = [
    "__do_sys_getppid",
    "__x64_sys_getppid",
    "__arm64_sys_getppid",
    "__se_sys_getppid",
    "sys_getppid",
];

/// Only this thread, only one function: makes known calls and counts them.
fn calibrate(
    instance: &Instance,
    rings: &mut Rings,
    table: &FunctionTable,
) -> Result<Calibration, FtraceError> {
    let known = KNOWN.iter().find_map(|name| Some((*name, table.by_name(name)?)));
    let Some((what, line, address)) = known.and_then(|(name, index)| {
        let function = table.get(index)?;
        Some((name, function.line?, function.address))
    }) else {
        return Err(FtraceError::Format {
            path: instance.file("set_ftrace_filter"),
            reason: "getppid is not traceable, so that nothing can be calibrated".to_owned(),
        });
    };
    let own = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
    filter::change(instance, Filter::Only, Change::Set, [line])?;
    instance.write("set_ftrace_pid", &pids(&[own]))?;
    let calls = || {
        let started = Instant::now();
        for _ in 0..CALLS {
            std::hint::black_box(rustix::process::getppid());
        }
        started.elapsed()
    };
    calls();
    let untraced = calls();
    instance.write("current_tracer", "function")?;
    instance.set_recording(true)?;
    let traced = calls();
    instance.set_recording(false)?;
    let mut counted = 0;
    rings.drain(PIECE, |event| {
        let near = event.ip.wrapping_sub(address) <= 16;
        counted += u64::from(near && event.tid == own);
    });
    let event_ns = traced.saturating_sub(untraced).as_nanos() as u64 / CALLS;
    Ok(Calibration { what: what.to_owned(), made: CALLS, counted, event_ns })
}
