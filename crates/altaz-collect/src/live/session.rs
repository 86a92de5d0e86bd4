//! One recording of a running target: opens the collectors, closes one window after the other over
//! all of them, and at the end gives a profile.
//!
//! The kernel collector decides how long a window is: a burst while much is armed, half a second
//! once little is hit. Kernel functions are named at the end, when it costs the service nothing: until
//! then a unit of the kernel is what the tracer's own list says. Whatever cannot be observed is either an error or, where the caller said so,
//! a blind spot of the profile; it is never left out silently.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use altaz_bpf::{ActiveFilter, BpfError, TaskFilter};
use altaz_ftrace::functions::FunctionIndex;
use altaz_ftrace::page::Context as KernelContext;
use altaz_ftrace::recorder::{Options, Recorder, now_ns};
use altaz_profile::{BlindSpot, Calibration, Context, Layer, Phase, Window};
use altaz_target::{Changes, Role, Roots, Target};

use super::error::LiveError;
use super::kernel::{KernelNames, KernelRoots};
use super::look::Looks;
use super::news::{News, NewsOf};
use super::rows::{Rows, UnitId};
use super::syscalls::Syscalls;
use super::userland::{FileNumber, Found, Userland};
use crate::exact::naming::{KERNEL, Target as UnitTarget};

/// Length of a window when no kernel functions are recorded.
const WINDOW: Duration = Duration::from_millis(500);
/// How often it is looked meanwhile whether the recording is to end.
const NAP: Duration = Duration::from_millis(50);
/// Windows without a new system call after which counting them ends.
const QUIET_WINDOWS: u32 = 20;
/// The first windows are short: it must have been quiet for this long, too.
const QUIET_TIME: Duration = Duration::from_secs(5);

/// How long system calls are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountSyscalls {
    /// All the time.
    Always,
    /// Until none was new for a while.
    UntilQuiet,
    /// Not at all.
    Never,
}

/// What is recorded, and how.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where tracefs is mounted.
    pub tracefs: PathBuf,
    /// Kernel release (`uname -r`).
    pub release: String,
    /// Phase that the windows belong to.
    pub phase: Phase,
    /// Also record userland functions.
    pub userland: bool,
    /// System calls.
    pub syscalls: CountSyscalls,
    /// Observe the rest where something cannot be observed.
    pub partial: bool,
    /// Trace buffer of each CPU, kB.
    pub buffer_kb: u32,
    /// Units that are no news: those of an earlier profile.
    pub known: BTreeSet<KnownUnit>,
    /// Kernel functions are all armed after about this time; the longer, the less the service pays.
    pub arm_within: Duration,
    /// Arm them all before the first window: for a command that has not begun yet.
    pub arm_first: bool,
    /// How long to look, at the end, which interrupt work happens for other tasks as well.
    pub baseline: Duration,
}

/// A unit of an earlier profile: binary, build-id, offset.
pub type KnownUnit = (String, Option<String>, u64);

/// What happened in a window.
#[derive(Debug, Clone, Default)]
pub struct Step {
    /// Units seen so far.
    pub units: usize,
    /// New ones in this window.
    pub new: usize,
    /// Length of the window.
    pub window: Duration,
    /// Events in it.
    pub events: u64,
    /// Events lost in it.
    pub lost: u64,
    /// Kernel functions that are not armed yet.
    pub waiting: u32,
    /// Share of one CPU that events and patching took in it, 0 and more.
    pub cost: f64,
    /// All processes of the target have ended.
    pub ended: bool,
}

/// A recording.
pub struct Session {
    pub(super) plan: Plan,
    pub(super) roots: Roots,
    pub(super) kernel_roots: KernelRoots,
    pub(super) target: Target,
    pub(super) kernel: Option<Kernel>,
    pub(super) filter: Option<Arc<ActiveFilter>>,
    pub(super) syscalls: Option<Syscalls>,
    pub(super) exits: Option<super::exits::Exits>,
    pub(super) userland: Option<Userland>,
    pub(super) user_units: HashMap<(FileNumber, u32), UnitId>,
    pub(super) rows: Rows,
    pub(super) origin_ns: u64,
    pub(super) looks: Looks,
    /// What the last look found; collectors do not know of it yet.
    pub(super) changes: Option<Changes>,
    pub(super) news: VecDeque<News>,
    pub(super) news_dropped: u64,
    pub(super) lost: u64,
    pub(super) quiet: u32,
    pub(super) quiet_since: Instant,
    pub(super) comms: HashMap<u32, (u32, String)>,
    pub(super) tgid_roles: HashMap<u32, Role>,
    pub(super) blind_spots: Vec<BlindSpot>,
    pub(super) notes: Vec<String>,
}

pub(super) struct Kernel {
    pub(super) recorder: Recorder,
    /// Only where news must be told from what is known.
    pub(super) names: Option<KernelNames>,
    pub(super) units: HashMap<FunctionIndex, UnitId>,
    pub(super) waiting: u32,
    /// Entry functions of all system calls are armed.
    pub(super) entries_armed: bool,
}

impl Session {
    /// Opens the collectors that the plan asks for.
    ///
    /// # Errors
    /// When one of them cannot be opened, unless the plan is content with the rest; when none can.
    pub fn open(
        plan: Plan,
        roots: Roots,
        target: Target,
        stop: &dyn Fn() -> bool,
    ) -> Result<Self, LiveError> {
        let mut session = Self {
            kernel_roots: KernelRoots::here(),
            kernel: None,
            filter: None,
            syscalls: None,
            exits: None,
            userland: None,
            user_units: HashMap::new(),
            rows: Rows::default(),
            origin_ns: now_ns(),
            looks: Looks::new(plan.arm_first),
            changes: None,
            news: VecDeque::new(),
            news_dropped: 0,
            lost: 0,
            quiet: 0,
            quiet_since: Instant::now(),
            comms: HashMap::new(),
            tgid_roles: target.processes.iter().map(|p| (p.pid, p.role)).collect(),
            blind_spots: Vec::new(),
            notes: Vec::new(),
            plan,
            roots,
            target,
        };
        let kernel = session.open_kernel();
        session.kernel = session.or_blind(kernel, Layer::HostKernel, "kernel functions")?;
        let filter = session.open_filter();
        session.filter = session.or_blind(filter, Layer::HostKernel, "boundaries and userland")?;
        if session.plan.syscalls != CountSyscalls::Never && session.filter.is_some() {
            let syscalls = session.open_syscalls();
            session.syscalls = session.or_blind(syscalls, Layer::HostKernel, "system calls")?;
        }
        session.open_exits()?;
        if session.plan.userland && session.filter.is_some() {
            let userland = session.open_userland();
            session.userland = session.or_blind(userland, Layer::App, "userland functions")?;
        }
        if session.kernel.is_none() && session.syscalls.is_none() && session.userland.is_none() {
            return Err(LiveError::Nothing);
        }
        if let (Some(kernel), true) = (&mut session.kernel, session.plan.arm_first) {
            // Nothing of what the held process does is the command's.
            while !stop() && kernel.recorder.advance(None, stop)?.waiting > 0 {}
        }
        session.origin_ns = now_ns();
        // What was forked while the collectors were opened one after the other.
        session.look()?;
        Ok(session)
    }

    /// What opening gave; where it failed, a blind spot if the plan allows one.
    fn or_blind<T>(
        &mut self,
        opened: Result<T, LiveError>,
        layer: Layer,
        what: &str,
    ) -> Result<Option<T>, LiveError> {
        match opened {
            Ok(opened) => Ok(Some(opened)),
            Err(error) if self.plan.partial => {
                self.blind_spots.push(BlindSpot {
                    layer: Some(layer),
                    kind: "not-observed".into(),
                    what: format!("{what}: {error}"),
                    bytes: None,
                    functions: None,
                });
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn open_kernel(&mut self) -> Result<Kernel, LiveError> {
        let (workers, tids): (Vec<_>, Vec<_>) = self
            .target
            .processes
            .iter()
            .flat_map(|p| p.tids.iter().map(move |t| (p.role == Role::KernelWorker, t.tid)))
            .partition(|(worker, _)| *worker);
        let only_tids = |all: Vec<(bool, u32)>| all.into_iter().map(|(_, tid)| tid).collect();
        let mut options = Options::new(only_tids(tids));
        options.workers = only_tids(workers);
        options.tracefs = self.plan.tracefs.clone();
        options.proc = self.roots.proc.clone();
        options.buffer_kb_per_cpu = Some(self.plan.buffer_kb);
        options.pace.arm_within = self.plan.arm_within;
        // Without the tracer it is the tracer that must be talked about, not the symbols.
        let recorder = Recorder::start(options)?;
        let names = match self.plan.known.is_empty() {
            true => None,
            false => Some(KernelNames::read(&self.kernel_roots, &self.plan.release)?),
        };
        Ok(Kernel { recorder, names, units: HashMap::new(), waiting: 0, entries_armed: false })
    }

    fn open_filter(&self) -> Result<Arc<ActiveFilter>, LiveError> {
        let filter = match &self.target.cgroup {
            Some(cgroup) if self.target.outside_cgroup().is_empty() => {
                TaskFilter::Cgroup { id: cgroup.id, level: cgroup.level }
            }
            _ => TaskFilter::Tgids(self.target.pids()),
        };
        Ok(Arc::new(ActiveFilter::start(&self.plan.tracefs, &self.roots.proc, &filter)?))
    }

    /// The filter; boundaries and userland are opened only where there is one.
    fn active_filter(&self) -> Result<&Arc<ActiveFilter>, LiveError> {
        self.filter.as_ref().ok_or(LiveError::Bpf(BpfError::NothingToFollow))
    }

    fn open_syscalls(&self) -> Result<Syscalls, LiveError> {
        Ok(Syscalls::start(self.active_filter()?, altaz_target::syscall_name)?)
    }

    fn open_exits(&mut self) -> Result<(), LiveError> {
        let has_guest = self.target.boundaries.iter().any(|b| b.name == "vm-exit");
        if has_guest && let Some(filter) = &self.filter {
            let exits = super::exits::Exits::start(&self.plan.tracefs, filter);
            self.exits = self.or_blind(exits.map_err(Into::into), Layer::HostKernel, "VM exits")?;
        }
        Ok(())
    }

    fn open_userland(&mut self) -> Result<Userland, LiveError> {
        let filter = Arc::clone(self.active_filter()?);
        Userland::start(&self.roots, &self.plan.tracefs, &self.target, &self.plan.release, filter)
    }

    /// What is recorded.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The same, for what is found out about it while it runs.
    pub fn target_mut(&mut self) -> &mut Target {
        self.looks.forget();
        &mut self.target
    }

    /// Records one window. Ends early when `stop` says so, which is asked twice a second. Everything that may take
    /// long is done before the window: its news wait for nothing.
    ///
    /// # Errors
    /// When a collector fails for good. Earlier windows stay; [`Session::finish`] gives them.
    pub fn step(&mut self, stop: &dyn Fn() -> bool) -> Result<Step, LiveError> {
        self.follow()?;
        self.end_counting()?;
        self.looks.begin(&self.target, &self.roots)?;
        let before = self.rows.units();
        let mut step = self.kernel_window(stop)?;
        self.userland_window();
        self.boundary_window()?;
        if let Some((target, changes)) = self.looks.end()? {
            self.target = target;
            self.changed(changes);
        }
        step.units = self.rows.units();
        step.new = step.units - before;
        step.ended = self.target.processes.is_empty();
        Ok(step)
    }

    fn kernel_window(&mut self, stop: &dyn Fn() -> bool) -> Result<Step, LiveError> {
        // What is hot in userland is to be seen in three windows soon.
        let userland = self.userland.as_ref();
        let young = userland.and_then(|_| self.looks.at_most());
        let at_most = userland.and_then(Userland::at_most).into_iter().chain(young).min();
        let Some(kernel) = &mut self.kernel else {
            let begin_ns = now_ns();
            let length = at_most.unwrap_or(WINDOW);
            let until = Instant::now() + length;
            while Instant::now() < until && !stop() {
                std::thread::sleep(length.min(NAP));
            }
            let window = self.window(begin_ns, now_ns(), 0);
            self.rows.open_window(window);
            return Ok(Step { window: length, ..Step::default() });
        };
        let report = kernel.recorder.advance(at_most, stop)?;
        kernel.waiting = report.waiting;
        kernel.entries_armed = report.entries_armed;
        if let (true, Some(names)) = (report.modules_changed, &mut kernel.names) {
            names.refresh(&self.kernel_roots)?;
        }
        let lost: u64 = report.lost_per_cpu.iter().map(|(_, n)| n).sum();
        self.lost += lost;
        let length = Duration::from_nanos(report.end_ns.saturating_sub(report.begin_ns));
        let event_ns = kernel.recorder.calibration().event_ns;
        let cost = Duration::from_nanos(report.events.saturating_mul(event_ns)) + report.patching;
        let window = self.window(report.begin_ns, report.end_ns, lost);
        self.rows.open_window(window);
        for seen in &report.seen {
            self.kernel_seen(seen);
        }
        Ok(Step {
            window: length,
            events: report.events,
            lost,
            waiting: report.waiting,
            cost: cost.as_secs_f64() / (length + report.patching).as_secs_f64().max(1e-6),
            ..Step::default()
        })
    }

    fn kernel_seen(&mut self, seen: &altaz_ftrace::tally::Seen) {
        let Some(kernel) = &mut self.kernel else { return };
        let Kernel { recorder, units, .. } = kernel;
        let unit = match units.get(&seen.function) {
            Some(unit) => *unit,
            None => {
                let Some(function) = recorder.functions().get(seen.function) else { return };
                let unit = self.rows.unit(unnamed(&function));
                units.insert(seen.function, unit);
                unit
            }
        };
        let context = context(seen.context);
        if self.rows.note(unit, context) {
            if context == Context::Task
                && let (Some(syscalls), Some(target)) = (&mut self.syscalls, self.rows.target(unit))
            {
                syscalls.entered(&target.symbol, seen.tid);
            }
            self.function_news(unit, seen.at_ns, seen.tid, context);
        }
    }

    fn userland_window(&mut self) {
        let found = self.userland.as_ref().map(Userland::end_window).unwrap_or_default();
        self.userland_seen(found);
    }

    pub(super) fn userland_seen(&mut self, found: Vec<Found>) {
        for Found { file, function, target, at_ns, tid } in found {
            let rows = &mut self.rows;
            let unit =
                *self.user_units.entry((file, function)).or_insert_with(|| rows.unit(target));
            if self.rows.note(unit, Context::Task) {
                self.function_news(unit, at_ns, tid, Context::Task);
            }
        }
    }

    fn boundary_window(&mut self) -> Result<(), LiveError> {
        let mut entries = Vec::new();
        if let Some(syscalls) = &mut self.syscalls {
            let new = syscalls.window()?;
            self.quiet = self.quiet.saturating_add(1);
            if !new.is_empty() {
                self.quiet = 0;
                self.quiet_since = Instant::now();
            }
            entries.extend(new.into_iter().map(|(tgid, name)| (tgid, "syscall".to_owned(), name)));
        }
        if let Some(exits) = &mut self.exits {
            entries.extend(exits.window()?);
        }
        for (tgid, boundary, name) in entries {
            let (pid, comm) = self.process_of(tgid);
            self.push_news(News {
                at_ns: now_ns(),
                what: NewsOf::Entry { boundary, name },
                tid: tgid,
                pid,
                comm,
                context: Context::Task,
            });
        }
        Ok(())
    }

    /// Ends the counting of system calls once it has been quiet for long enough. From then on the armed entry function
    /// of a new call gives it away; without kernel functions nothing would.
    fn end_counting(&mut self) -> Result<(), LiveError> {
        let armed = self.kernel.as_ref().is_some_and(|k| k.entries_armed);
        if let Some(syscalls) = &mut self.syscalls
            && self.plan.syscalls == CountSyscalls::UntilQuiet
            && self.quiet >= QUIET_WINDOWS
            && self.quiet_since.elapsed() >= QUIET_TIME
            && armed
        {
            syscalls.stop()?;
        }
        Ok(())
    }

    /// Looks for new and ended processes and threads, and for newly mapped files. Done by itself
    /// while recording, beside it.
    ///
    /// # Errors
    /// When `/proc` cannot be read, or a collector cannot follow more.
    pub fn look(&mut self) -> Result<(), LiveError> {
        self.follow()?;
        let changes = self.looks.now(&mut self.target, &self.roots)?;
        self.changed(changes);
        self.follow()
    }

    fn changed(&mut self, changes: Changes) {
        // Processes end, and change their names when they execute another program.
        self.comms.clear();
        self.tgid_roles.extend(changes.new.iter().map(|p| (p.pid, p.role)));
        self.changes = Some(changes);
    }

    /// Has the collectors follow what the last look found.
    fn follow(&mut self) -> Result<(), LiveError> {
        let Some(changes) = self.changes.take() else { return Ok(()) };
        if let Some(kernel) = &mut self.kernel {
            kernel.recorder.follow(&changes.new_tids)?;
        }
        let pids: Vec<u32> = changes.new.iter().map(|p| p.pid).collect();
        if let Some(filter) = &self.filter
            && !pids.is_empty()
        {
            filter.follow(&pids)?;
        }
        if let Some(userland) = &self.userland {
            userland.look(&self.target.processes);
        }
        Ok(())
    }

    /// A window that does not overlap the one before.
    fn window(&self, begin_ns: u64, end_ns: u64, lost_events: u64) -> Window {
        let before = self.rows.windows().last().map_or(0, |w| w.end_ns);
        let start_ns = begin_ns.saturating_sub(self.origin_ns).max(before);
        Window {
            phase: self.plan.phase,
            start_ns,
            end_ns: end_ns.saturating_sub(self.origin_ns).max(start_ns),
            lost_events,
        }
    }

    /// Coverage of the layer that is covered least, of those with units; `None` while it cannot be
    /// said, or must not be because the calibration failed.
    pub fn coverage(&self) -> Option<f64> {
        if self.calibration().is_none_or(|c| !c.reconciles()) {
            return None;
        }
        let estimates = self.rows.estimates();
        let mut least: Option<f64> = None;
        for estimate in estimates.values() {
            let coverage = estimate.coverage?;
            least = Some(least.map_or(coverage, |l| l.min(coverage)));
        }
        least
    }

    /// Whether everything that is to be armed is armed.
    pub fn armed(&self) -> bool {
        self.userland.as_ref().is_none_or(Userland::is_armed)
    }

    /// Windows so far.
    pub fn windows(&self) -> usize {
        self.rows.windows().len()
    }

    /// The calibration of the kernel collector, or of the system calls' where there is none.
    pub fn calibration(&self) -> Option<Calibration> {
        match &self.kernel {
            Some(kernel) => {
                let c = kernel.recorder.calibration();
                Some(Calibration { what: c.what.clone(), made: c.made, counted: c.counted })
            }
            None => self.syscalls.as_ref().map(|s| s.calibration().clone()),
        }
    }
}

/// A kernel function until it is named: its address stands for its offset.
fn unnamed(function: &altaz_ftrace::functions::Function<'_>) -> UnitTarget {
    UnitTarget {
        layer: Layer::HostKernel,
        binary: function.module.map_or_else(|| KERNEL.into(), |m| format!("[{m}]").into()),
        build_id: None,
        symbol: function.name.into(),
        offset: function.address,
        size: 0,
        file: None,
        line: None,
    }
}

pub(super) fn context(context: KernelContext) -> Context {
    match context {
        KernelContext::Task => Context::Task,
        KernelContext::Softirq => Context::Softirq,
        KernelContext::Hardirq => Context::Hardirq,
        KernelContext::KernelWorker => Context::KernelWorker,
    }
}
