//! Which files of the target are probed, and in which order.
//!
//! A file is attached after the other, and the next one only when the hot functions of the last are
//! disarmed: a service is slow while they are hit, and what several files' functions cost together
//! would add up. What the processes execute comes before what they have loaded: a short recording is
//! about the service, not about its libraries. While a file is hot, short windows are asked for, so that its hot functions have
//! been seen in three of them, and are gone, within some tenths of a second.
//!
//! One binary that runs in several layers (gVisor's sentry and gofer) is attached once for each,
//! with a filter of its own.
//!
//! Where the target is one process that has long been alone, its probes are put into that process alone: no other
//! process of the machine that maps the same libraries pays for them, and taking them off is cheaper. Once the target
//! has a second process all files are probed everywhere, as their filter says who counts; what a child executes before
//! it is found is not seen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use altaz_bpf::link::knows_one_process;
use altaz_bpf::{ActiveFilter, TaskFilter};
use altaz_profile::rules::{CodePlace, LayerRules, Machine, Privilege};
use altaz_profile::{BlindSpot, Layer};
use altaz_symbols::Binary;
use altaz_target::{Process, Role, Roots, Target};
use altaz_uprobe::{
    Armed, LeftOut, Options, ProbedFile, SelfTest, probe_points, uses_shadow_stack,
};

use super::file::File;
use super::handover::{FileNumber, Windows};
use crate::live::error::LiveError;
use crate::live::files::{FileKey, MappedFile, mapped_files};

/// Longest window while files are hot or wait to be attached.
const SHORT: Duration = Duration::from_millis(10);
/// The thread looks whether it is to end this often at least.
const LONGEST_SLEEP: Duration = Duration::from_millis(500);
/// A process that has had no other for this long is taken for one that works alone; a command or a service that begins
/// starts others soon.
const ALONE: Duration = Duration::from_secs(20);
/// A sandbox has booted after this long.
const BOOT: Duration = Duration::from_secs(20);
/// A file that is to be attached.
struct Waiting {
    file: MappedFile,
    layer: Layer,
    /// Processes that it is observed in; empty for all of the target.
    pids: Vec<u32>,
    /// What it is to the process that maps it.
    kind: Kind,
}

/// What a mapped file is, in the order in which files are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// What a process executes.
    Program,
    /// What it has loaded.
    Library,
}

/// All files.
pub(super) struct Collector {
    proof: SelfTest,
    rules: LayerRules,
    tracefs: PathBuf,
    roots: Roots,
    known: BTreeSet<FileKey>,
    waiting: VecDeque<Waiting>,
    files: Vec<File>,
    left_out: Vec<BlindSpot>,
    notes: BTreeSet<String>,
    shadow_stack: bool,
    /// The file that altaz itself runs.
    own: Option<FileKey>,
    /// The kernel can probe one process alone.
    knows_one: bool,
    /// The only process of the target, while it is alone.
    alone: Option<u32>,
}

impl Collector {
    /// Tests the kernel, and finds the files; nothing is attached yet.
    ///
    /// # Errors
    /// When the kernel has no usable probes.
    pub(super) fn new(
        roots: &Roots,
        tracefs: &Path,
        target: &Target,
        release: &str,
    ) -> Result<Self, LiveError> {
        let proof = SelfTest::run(&roots.sys)?;
        let rules =
            LayerRules::compile(&target.rules).map_err(|e| LiveError::Rules(e.to_string()))?;
        let mut this = Self {
            proof,
            rules,
            tracefs: tracefs.to_owned(),
            roots: roots.clone(),
            known: BTreeSet::new(),
            waiting: VecDeque::new(),
            files: Vec::new(),
            left_out: Vec::new(),
            notes: BTreeSet::new(),
            shadow_stack: false,
            own: file_of(&roots.proc, std::process::id()),
            // Links name a process as altaz's own namespace does.
            knows_one: knows_one_process(release) && roots.proc == Path::new("/proc"),
            alone: None,
        };
        this.alone = this.alone(&target.processes);
        for tried in this.proof.disagreed() {
            this.notes.insert(format!(
                "this kernel does not probe `{}` faithfully ({}): functions that would need it are \
                 left out",
                tried.text, tried.outcome
            ));
        }
        this.look(&target.processes);
        Ok(this)
    }

    /// The only one of these processes, when it has been alone for long.
    fn alone(&self, processes: &[Process]) -> Option<u32> {
        match processes {
            [one] if self.knows_one && age(&self.roots.proc, one) >= ALONE => Some(one.pid),
            _ => None,
        }
    }

    /// Probes everywhere what was probed in one process alone, when that is not alone any more.
    pub(super) fn widen(&mut self, processes: &[Process]) {
        if self.alone.is_none() || processes.is_empty() || self.alone(processes) == self.alone {
            return;
        }
        self.alone = None;
        for file in &mut self.files {
            if let Err(error) = file.widen() {
                let note = format!(
                    "{}: only the first process of the target could be probed: {error}",
                    file.path()
                );
                self.notes.insert(note);
            }
        }
    }

    /// Looks for files that were mapped since the last time.
    pub(super) fn look(&mut self, processes: &[Process]) -> bool {
        let mut found: Vec<(MappedFile, BTreeMap<Layer, Vec<u32>>)> = Vec::new();
        let mut programs: BTreeSet<FileKey> = BTreeSet::new();
        let roots = self.roots.clone();
        let booting =
            processes.iter().any(|p| p.role == Role::Sentry && age(&roots.proc, p) < BOOT);
        for process in processes {
            if matches!(process.role, Role::KernelWorker | Role::Stub) {
                continue;
            }
            // A command that has not begun yet is still altaz.
            let program = file_of(&roots.proc, process.pid);
            if self.own.is_some() && program == self.own {
                continue;
            }
            programs.extend(program);
            // A sandbox that is probed while it boots hangs. Its gofer maps the same file: probed first, it would stop
            // the sentry all the same, and get its functions.
            if booting && matches!(process.role, Role::Sentry | Role::Gofer) {
                continue;
            }
            self.shadow_stack |= uses_shadow_stack(&roots.proc, process.pid);
            let (files, errors) = mapped_files(&roots.proc, process.pid, &self.known);
            for (path, error) in errors {
                self.notes.insert(format!("{} cannot be read: {error}", path.display()));
            }
            for file in files {
                let path = file.path.to_string_lossy();
                let place = CodePlace {
                    machine: Machine::Host,
                    privilege: Privilege::User,
                    origin: process.origin(),
                    binary: &path,
                    role: process.role.as_str(),
                };
                let Some(layer) = self.rules.layer_of(place) else { continue };
                match found.iter_mut().find(|(f, _)| f.key == file.key) {
                    Some((_, layers)) => layers.entry(layer).or_default().push(process.pid),
                    None => found.push((file, BTreeMap::from([(layer, vec![process.pid])]))),
                }
            }
        }
        let new = !found.is_empty();
        for (file, layers) in found {
            self.known.insert(file.key);
            let several = layers.len() > 1;
            let kind = match programs.contains(&file.key) {
                true => Kind::Program,
                false => Kind::Library,
            };
            for (layer, pids) in layers {
                let Ok(handle) = file.file.try_clone() else { continue };
                let file = MappedFile { key: file.key, path: file.path.clone(), file: handle };
                let pids = if several { pids } else { Vec::new() };
                self.waiting.push_back(Waiting { file, layer, pids, kind });
            }
        }
        // Stable: otherwise the first one found comes first.
        self.waiting.make_contiguous().sort_by_key(|w| w.kind);
        new
    }

    /// Whether all files are attached and none is hot.
    pub(super) fn is_armed(&self) -> bool {
        self.waiting.is_empty() && self.files.iter().all(|f| !f.is_hot())
    }

    /// How long a window should be at most, while something is hot or about to be.
    pub(super) fn at_most(&self) -> Option<Duration> {
        (!self.is_armed()).then_some(SHORT)
    }

    /// Time until something is due.
    pub(super) fn sleep(&self) -> Duration {
        if !self.waiting.is_empty() && !self.files.iter().any(File::is_hot) {
            return Duration::ZERO;
        }
        let due = self.files.iter().map(File::due).min();
        due.map_or(LONGEST_SLEEP, |d| d.saturating_duration_since(Instant::now()))
    }

    /// Attaches the next file when the last one has cooled down. Returns whether one was attached.
    /// A file that cannot be probed is left out, and listed.
    pub(super) fn attach_next(&mut self, filter: &ActiveFilter) -> bool {
        if self.files.iter().any(File::is_hot) {
            return false;
        }
        let Some(next) = self.waiting.pop_front() else { return false };
        let Waiting { file: mapped, layer, pids, .. } = next;
        let path: Arc<str> = mapped.path.to_string_lossy().into();
        match self.attach(&mapped, &path, layer, pids, filter) {
            Ok(file) => self.files.push(file),
            Err(why) => {
                let bytes = mapped.file.metadata().map(|m| m.len()).ok();
                self.left_out.push(BlindSpot {
                    layer: Some(layer),
                    kind: "not-probed".into(),
                    what: format!("{path}: {why}"),
                    bytes,
                    functions: None,
                });
            }
        }
        true
    }

    fn attach(
        &mut self,
        mapped: &MappedFile,
        path: &Arc<str>,
        layer: Layer,
        pids: Vec<u32>,
        filter: &ActiveFilter,
    ) -> Result<File, String> {
        let words = |e: &dyn std::error::Error| e.to_string();
        // By descriptor: whatever has its name by now is not what the process has mapped.
        let by_descriptor = PathBuf::from(format!("/proc/self/fd/{}", mapped.file.as_raw_fd()));
        let file = ProbedFile::open(&by_descriptor).map_err(|e| words(&e))?;
        let bytes = file.read().map_err(|e| words(&e))?;
        let binary = Binary::parse(&bytes).map_err(|e| words(&e))?;
        let mut options = Options { allowed: self.proof.allowed().clone(), ..Options::default() };
        if self.shadow_stack {
            options.allowed = options.allowed.without_calls();
        }
        if path.ends_with("/runsc") {
            options.exclude_gvisor_platform();
        }
        let points = probe_points(&bytes, &binary, &options);
        drop(bytes);
        let own = match pids.is_empty() {
            true => None,
            false => {
                let tgids = TaskFilter::Tgids(pids);
                let proc = Path::new("/proc");
                Some(ActiveFilter::start(&self.tracefs, proc, &tgids).map_err(|e| words(&e))?)
            }
        };
        let used = own.as_ref().unwrap_or(filter);
        let armed = Armed::attach(file, &points, &self.proof, used, self.alone, &self.roots.sys)
            .map_err(|e| words(&e))?;
        let left_out = points.left_out.iter().chain(armed.left_out());
        self.left_out.extend(summary(path, layer, left_out));
        let number = FileNumber(u32::try_from(self.files.len()).unwrap_or(u32::MAX));
        Ok(File::new(number, Arc::clone(path), layer, binary, armed, own, self.proof.hit))
    }

    /// Hands over what was hit in the files that are due, and takes off what needs no probe any
    /// more. Where that fails the probes stay, and it is tried again later.
    pub(super) fn look_at_hits(&mut self, windows: &Windows) {
        // Files that are due soon are looked at as well, so that they have one rhythm.
        let soon = Instant::now() + LONGEST_SLEEP / 4;
        let hot = self.files.iter().any(File::is_hot);
        let due = |f: &File| f.due() <= if hot { Instant::now() } else { soon };
        for file in self.files.iter_mut().filter(|f| due(f)) {
            file.hand_over(windows);
            if let Err(error) = file.disarm_what_pays() {
                let note = format!("{}: probes could not be taken off: {error}", file.path());
                self.notes.insert(note);
            }
        }
    }

    /// Hands over what was hit in all files.
    pub(super) fn hand_over(&mut self, windows: &Windows) {
        self.files.iter_mut().for_each(|f| f.hand_over(windows));
    }

    /// Takes everything off; what was left out, and what a reader must know.
    pub(super) fn finish(mut self) -> (Vec<BlindSpot>, Vec<String>) {
        for Waiting { file: mapped, layer, .. } in self.waiting.drain(..) {
            self.left_out.push(BlindSpot {
                layer: Some(layer),
                kind: "not-probed".into(),
                what: format!("{}: the recording ended before its turn", mapped.path.display()),
                bytes: mapped.file.metadata().map(|m| m.len()).ok(),
                functions: None,
            });
        }
        let missed: u64 = self.files.iter().map(File::missed).sum();
        if missed > 0 {
            let note = format!("{missed} hits of userland probes were skipped by the kernel");
            self.notes.insert(note);
        }
        (self.left_out, self.notes.into_iter().collect())
    }
}

/// How long ago a process started; nothing where procfs does not say.
fn age(proc: &Path, process: &altaz_target::Process) -> Duration {
    let uptime = std::fs::read_to_string(proc.join("uptime")).unwrap_or_default();
    let uptime: f64 = uptime.split(' ').next().and_then(|s| s.parse().ok()).unwrap_or(0.0);
    let started = process.start as f64 / rustix::param::clock_ticks_per_second() as f64;
    Duration::try_from_secs_f64(uptime - started).unwrap_or_default()
}

/// The file that a process runs.
fn file_of(proc: &Path, pid: u32) -> Option<FileKey> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(proc.join(pid.to_string()).join("exe")).ok()?;
    Some(FileKey { device: meta.dev(), inode: meta.ino() })
}

/// What of a file is not probed: one line a file, with the reasons.
fn summary<'a>(
    path: &str,
    layer: Layer,
    left_out: impl Iterator<Item = &'a LeftOut>,
) -> Option<BlindSpot> {
    let mut reasons: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for one in left_out {
        let reason = reasons.entry(one.reason.to_string()).or_default();
        reason.0 += 1;
        reason.1 += one.size;
    }
    let functions: u64 = reasons.values().map(|(n, _)| n).sum();
    if functions == 0 {
        return None;
    }
    let mut list: Vec<_> = reasons.iter().collect();
    list.sort_by_key(|(_, (n, _))| std::cmp::Reverse(*n));
    let words: Vec<String> = list.iter().map(|(why, (n, _))| format!("{n} {why}")).collect();
    Some(BlindSpot {
        layer: Some(layer),
        kind: "not-probed".into(),
        what: format!("{path}: {}", words.join(", ")),
        bytes: Some(reasons.values().map(|(_, bytes)| bytes).sum()),
        functions: Some(functions),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use altaz_uprobe::Reason;

    #[test]
    fn what_is_left_out_is_listed_by_reason_with_its_size() {
        let out = |reason, size| LeftOut { function: 0, size, reason };
        let list = [out(Reason::Stubs, 64), out(Reason::Part, 10), out(Reason::Part, 20)];
        let spot = summary("/bin/x", Layer::App, list.iter()).unwrap();
        assert_eq!(spot.what, "/bin/x: 2 part of another function, 1 linkage stubs");
        assert_eq!((spot.functions, spot.bytes), (Some(3), Some(94)));
        assert!(summary("/bin/x", Layer::App, [].iter()).is_none());
    }
}
