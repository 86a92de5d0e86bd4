//! Userland functions of the target's executables and libraries, under probes.
//!
//! A file is attached after the other, and the next one only when the hot functions of the last are
//! disarmed: a service is slow while they are hit, and what several files' functions cost together
//! would add up. While a file is hot its windows are short, so that its hot functions have been seen
//! in three of them, and are gone, within some tenths of a second.
//!
//! One binary that runs in several layers (gVisor's sentry and gofer) is attached once for each,
//! with a filter of its own.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use altaz_bpf::{ActiveFilter, TaskFilter};
use altaz_profile::rules::{CodePlace, LayerRules, Machine, Privilege};
use altaz_profile::{BlindSpot, Context, Layer};
use altaz_symbols::Binary;
use altaz_target::{Role, Roots, Target};
use altaz_uprobe::{
    Armed, LeftOut, Options, ProbedFile, SelfTest, probe_points, uses_shadow_stack,
};

use super::error::LiveError;
use super::files::{FileKey, MappedFile, mapped_files};
use super::rows::{ENOUGH, Rows, UnitId};
use crate::exact::naming::{BinaryFile, part_sizes, user_target};

/// Length of a file's first windows.
const BURST: Duration = Duration::from_millis(10);
/// Longest window of a file that is hot.
const LONGEST: Duration = Duration::from_millis(320);
/// Probes that were seen often enough are taken off when they are hit more often than this together,
/// hits/s: at 1 µs a hit, 0.05 % of a CPU.
const HOT: f64 = 500.0;
/// A sandbox has booted after this long.
const BOOT: Duration = Duration::from_secs(20);
/// Cooler ones are taken off after this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// A function was hit for the first time: unit, time (`CLOCK_MONOTONIC` ns), thread.
pub type FirstHit<'a> = dyn FnMut(UnitId, u64, u32) + 'a;

/// All files.
pub struct Userland {
    proof: SelfTest,
    rules: LayerRules,
    tracefs: PathBuf,
    sys: PathBuf,
    known: BTreeSet<FileKey>,
    waiting: VecDeque<(MappedFile, Layer, Vec<u32>)>,
    files: Vec<File>,
    left_out: Vec<BlindSpot>,
    notes: BTreeSet<String>,
    shadow_stack: bool,
    /// The file that altaz itself runs.
    own: Option<FileKey>,
}

/// One file in one layer.
struct File {
    path: Arc<str>,
    build_id: Option<Arc<str>>,
    layer: Layer,
    binary: Binary,
    parts: HashMap<u64, u64>,
    armed: Armed,
    /// Keeps following what the filter follows; the file's own, where it has one.
    _filter: Option<ActiveFilter>,
    units: HashMap<u32, UnitId>,
    /// Windows in which each function was hit, and hits in the last one.
    seen: HashMap<u32, (usize, u64)>,
    window: Duration,
    looked: Instant,
    disarmed: Instant,
    hot: bool,
}

impl Userland {
    /// Tests the kernel, and finds the files; nothing is attached yet.
    ///
    /// # Errors
    /// When the kernel has no usable probes.
    pub fn open(roots: &Roots, tracefs: &Path, target: &Target) -> Result<Self, LiveError> {
        let proof = SelfTest::run(&roots.sys)?;
        let rules =
            LayerRules::compile(&target.rules).map_err(|e| LiveError::Rules(e.to_string()))?;
        let mut this = Self {
            proof,
            rules,
            tracefs: tracefs.to_owned(),
            sys: roots.sys.clone(),
            known: BTreeSet::new(),
            waiting: VecDeque::new(),
            files: Vec::new(),
            left_out: Vec::new(),
            notes: BTreeSet::new(),
            shadow_stack: false,
            own: file_of(&roots.proc, std::process::id()),
        };
        for tried in this.proof.disagreed() {
            this.notes.insert(format!(
                "this kernel does not probe `{}` faithfully ({}): functions that would need it are \
                 left out",
                tried.text, tried.outcome
            ));
        }
        this.look(roots, target);
        Ok(this)
    }

    /// Looks for files that were mapped since the last time.
    pub fn look(&mut self, roots: &Roots, target: &Target) {
        let mut found: Vec<(MappedFile, BTreeMap<Layer, Vec<u32>>)> = Vec::new();
        for process in &target.processes {
            if matches!(process.role, Role::KernelWorker | Role::Stub) {
                continue;
            }
            // A command that has not begun yet is still altaz.
            if self.own.is_some() && file_of(&roots.proc, process.pid) == self.own {
                continue;
            }
            // A sandbox that is probed while it boots hangs.
            if process.role == Role::Sentry && age(&roots.proc, process) < BOOT {
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
        for (file, layers) in found {
            self.known.insert(file.key);
            let several = layers.len() > 1;
            for (layer, pids) in layers {
                let Ok(handle) = file.file.try_clone() else { continue };
                let file = MappedFile { key: file.key, path: file.path.clone(), file: handle };
                self.waiting.push_back((file, layer, if several { pids } else { Vec::new() }));
            }
        }
    }

    /// Whether all files are attached and none is hot.
    pub fn is_armed(&self) -> bool {
        self.waiting.is_empty() && self.files.iter().all(|f| !f.hot)
    }

    /// How long the next window should be at most, while something is hot.
    pub fn hurry(&self) -> Option<Duration> {
        if !self.waiting.is_empty() {
            return Some(BURST);
        }
        self.files.iter().filter(|f| f.hot).map(|f| f.window).min()
    }

    /// Attaches the next file when the last one has cooled down. Returns whether one was attached.
    ///
    /// # Errors
    /// When the kernel takes no probes at all. A file that cannot be probed is left out, and listed.
    pub fn attach_next(&mut self, filter: &ActiveFilter) -> Result<bool, LiveError> {
        if self.files.iter().any(|f| f.hot) {
            return Ok(false);
        }
        let Some((mapped, layer, pids)) = self.waiting.pop_front() else { return Ok(false) };
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
        Ok(true)
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
        let armed =
            Armed::attach(file, &points, &self.proof, used, &self.sys).map_err(|e| words(&e))?;
        let left_out = points.left_out.iter().chain(armed.left_out());
        self.left_out.extend(summary(path, layer, left_out));
        let now = Instant::now();
        Ok(File {
            path: Arc::clone(path),
            build_id: binary.build_id.as_deref().map(Arc::from),
            layer,
            parts: part_sizes(&binary),
            binary,
            armed,
            _filter: own,
            units: HashMap::new(),
            seen: HashMap::new(),
            window: BURST,
            looked: now,
            disarmed: now,
            hot: true,
        })
    }

    /// Notes what was hit since the last window, and disarms what was hit in three. Where that fails
    /// the probes stay, and it is tried again later.
    pub fn window(&mut self, rows: &mut Rows, first: &mut FirstHit<'_>) {
        for file in &mut self.files {
            file.note(rows, first);
            if let Err(error) = file.disarm_what_pays() {
                self.notes.insert(format!("{}: probes could not be taken off: {error}", file.path));
            }
        }
    }

    /// Takes everything off; what was left out, and what a reader must know.
    pub fn finish(mut self) -> (Vec<BlindSpot>, Vec<String>) {
        for (mapped, layer, _) in self.waiting.drain(..) {
            self.left_out.push(BlindSpot {
                layer: Some(layer),
                kind: "not-probed".into(),
                what: format!("{}: the recording ended before its turn", mapped.path.display()),
                bytes: mapped.file.metadata().map(|m| m.len()).ok(),
                functions: None,
            });
        }
        let mut missed = 0;
        for file in &self.files {
            missed += file.armed.misses().ok().flatten().unwrap_or(0);
        }
        if missed > 0 {
            let note = format!("{missed} hits of userland probes were skipped by the kernel");
            self.notes.insert(note);
        }
        (self.left_out, self.notes.into_iter().collect())
    }
}

impl File {
    fn note(&mut self, rows: &mut Rows, first: &mut FirstHit<'_>) {
        self.seen.values_mut().for_each(|(_, hits)| *hits = 0);
        for hit in self.armed.news() {
            let Some(function) = self.binary.functions.get(hit.function as usize) else { continue };
            let unit = *self.units.entry(hit.function).or_insert_with(|| {
                let file = BinaryFile {
                    path: &self.path,
                    build_id: self.build_id.as_ref(),
                    parts: &self.parts,
                };
                rows.unit(user_target(self.layer, file, function))
            });
            if rows.note(unit, Context::Task) {
                let (at_ns, tid) = hit.first.map_or((0, 0), |f| (f.at_ns, f.tid));
                first(unit, at_ns, tid);
            }
            let seen = self.seen.entry(hit.function).or_default();
            seen.0 += 1;
            seen.1 = hit.count;
        }
    }

    fn disarm_what_pays(&mut self) -> Result<(), altaz_uprobe::UprobeError> {
        let took = self.looked.elapsed().as_secs_f64().max(1e-3);
        self.looked = Instant::now();
        let ready: Vec<u32> =
            self.seen.iter().filter(|(_, (n, _))| *n >= ENOUGH).map(|(f, _)| *f).collect();
        let all: u64 = self.seen.values().map(|(_, hits)| hits).sum();
        let rate = |hits: u64| hits as f64 / took;
        let of_ready: u64 =
            ready.iter().filter_map(|f| self.seen.get(f)).map(|(_, hits)| hits).sum();
        self.hot = rate(all) > HOT;
        if rate(of_ready) > HOT || (!ready.is_empty() && self.disarmed.elapsed() > PATIENCE) {
            let done = self.armed.disarm(&ready);
            self.disarmed = Instant::now();
            self.looked = self.disarmed;
            done?;
            for function in ready {
                self.seen.remove(&function);
            }
            self.window = BURST;
        } else {
            self.window = (self.window * 2).min(LONGEST);
        }
        Ok(())
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
