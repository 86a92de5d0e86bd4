//! Whose events count: the tasks of a cgroup, or some processes and all they fork from now on.
//!
//! Every program of altaz begins with the same few instructions that let the target's tasks pass.
//! altaz's own process never passes, except one thread of it while a counter calibrates itself.
//!
//! Processes are followed by a program on `sched:sched_process_fork`, which runs in the parent
//! before the child does: no event of a child is missed. It notes the new task's number whether it
//! is a process or a thread, as the tracepoint does not tell; a thread's number is no process's as
//! long as it lives, so it can match nothing. `sched:sched_process_free` takes the numbers out.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

use crate::asm::Reg::{R0, R1, R2, R3, R4, R6, R7, R10};
use crate::asm::{Alu, Asm, Cond, Helper, Label, Size};
use crate::error::BpfError;
use crate::event::Event;
use crate::link::Link;
use crate::map::{Hash, MmapArray};
use crate::program::{Kind, Program};

/// Tasks that can be followed at once, threads included; more are counted as lost.
const FOLLOWED: u32 = 32_768;
/// `f_type` of a cgroup v2 file system.
const CGROUP2_MAGIC: i64 = 0x6367_7270;
/// Inode of the initial PID namespace (`PROC_PID_INIT_INO`).
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Whether this process is in the machine's own PID namespace, in which it sees all processes, and
/// by the numbers that the kernel's programs see. Nothing where procfs does not say.
pub fn sees_all_processes(proc: &Path) -> Option<bool> {
    let namespace = fs::read_link(proc.join("self/ns/pid")).ok()?;
    Some(namespace.as_os_str() == INITIAL_PID_NAMESPACE)
}

/// Whose events count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskFilter {
    /// Tasks in a cgroup of the v2 hierarchy or below it.
    Cgroup {
        /// Its number: the inode of its directory.
        id: u64,
        /// How deep below the hierarchy's real root it is; the root is 0.
        level: u32,
    },
    /// Processes, by thread group, and what they fork from now on. Children that already live and
    /// are to count are to be named as well.
    Tgids(Vec<u32>),
}

impl TaskFilter {
    /// The tasks in `directory`, a cgroup below the v2 hierarchy mounted at `mount`.
    ///
    /// # Errors
    /// When it is no cgroup v2, is not below `mount`, or its depth cannot be known because altaz
    /// runs in a cgroup namespace.
    pub fn cgroup(mount: &Path, directory: &Path) -> Result<Self, BpfError> {
        use std::os::unix::fs::MetadataExt;
        let fail = |why: String| BpfError::Cgroup { path: directory.to_owned(), why };
        let inode =
            |path: &Path| fs::metadata(path).map(|m| m.ino()).map_err(|e| fail(e.to_string()));
        let id = inode(directory)?;
        let magic = rustix::fs::statfs(directory).map_err(|e| fail(e.to_string()))?.f_type;
        #[allow(clippy::unnecessary_cast, reason = "its type differs between architectures")]
        if magic as i64 != CGROUP2_MAGIC {
            return Err(fail(
                "not in the cgroup v2 hierarchy, the only one that BPF programs can ask for; name \
                 the processes instead"
                    .to_owned(),
            ));
        }
        // The real root's inode is 1; a cgroup namespace shows another cgroup in its place.
        if inode(mount)? != 1 {
            return Err(fail(format!(
                "{} is not the root of the hierarchy: altaz runs in a cgroup namespace; run it in \
                 the host's, or name the processes instead",
                mount.display()
            )));
        }
        let below = directory
            .strip_prefix(mount)
            .map_err(|_| fail(format!("not below {}", mount.display())))?;
        Ok(Self::Cgroup { id, level: below.components().count() as u32 })
    }
}

/// A filter at work; the programs that use it keep what they need of it, but new processes are
/// followed only as long as it lives.
#[derive(Debug)]
pub struct ActiveFilter {
    own: u32,
    tasks: Tasks,
}

#[derive(Debug)]
enum Tasks {
    Cgroup { id: u64, level: u32 },
    Tgids(Followed),
}

#[derive(Debug)]
struct Followed {
    tgids: Hash<1>,
    /// One word: forks that found no room.
    lost: MmapArray,
    programs: [Program; 2],
    _links: [Link; 2],
}

impl ActiveFilter {
    /// Begins to follow. `tracefs` is needed for following processes only; `proc` is usually
    /// `/proc`.
    ///
    /// # Errors
    /// When no process is named, altaz sees other process numbers than the kernel's programs, or
    /// the kernel refuses.
    pub fn start(tracefs: &Path, proc: &Path, filter: &TaskFilter) -> Result<Self, BpfError> {
        if sees_all_processes(proc) == Some(false) {
            return Err(BpfError::PidNamespace);
        }
        let tasks = match filter {
            TaskFilter::Cgroup { id, level } => Tasks::Cgroup { id: *id, level: *level },
            TaskFilter::Tgids(tgids) => {
                if tgids.is_empty() {
                    return Err(BpfError::NothingToFollow);
                }
                let now = ticks_since_boot();
                let followed = Followed::start(tracefs)?;
                // A child that was forked after the caller looked and before its parent stands in
                // the map is found in a second look.
                followed.add(tgids)?;
                followed.add(&descendants(proc, tgids, now))?;
                Tasks::Tgids(followed)
            }
        };
        Ok(Self { own: std::process::id(), tasks })
    }

    /// Follows more processes; of no effect for a cgroup, which has them already.
    ///
    /// # Errors
    /// When there is no room for more.
    pub fn follow(&self, tgids: &[u32]) -> Result<(), BpfError> {
        match &self.tasks {
            Tasks::Cgroup { .. } => Ok(()),
            Tasks::Tgids(followed) => followed.add(tgids),
        }
    }

    /// Numbers of followed tasks, threads among them; `None` for a cgroup.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn followed(&self) -> Result<Option<Vec<u32>>, BpfError> {
        match &self.tasks {
            Tasks::Cgroup { .. } => Ok(None),
            Tasks::Tgids(f) => Ok(Some(f.tgids.all()?.into_iter().map(|([t], _)| t).collect())),
        }
    }

    /// Forks that were not followed: no room, or the program was skipped. Not zero: the events of
    /// these children are missing.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn lost_forks(&self) -> Result<u64, BpfError> {
        let Tasks::Tgids(f) = &self.tasks else { return Ok(0) };
        let full = f.lost.entry(0).and_then(|w| w.first()).map_or(0, |w| w.load(Ordering::Relaxed));
        Ok(full + f.programs[0].misses()?.unwrap_or(0))
    }

    /// Writes the instructions that go on for the target's tasks and to `skip` for all others.
    /// Afterwards `R7` holds `tgid << 32 | tid`; `R6` is kept; `R0`–`R5` and the 8 bytes at the
    /// frame's end are lost. `calibrating`: an array whose first word is the own thread that passes
    /// as well, or zero.
    pub fn emit(&self, asm: &mut Asm, calibrating: Option<&MmapArray>, skip: Label) {
        let (own, pass) = (asm.label(), asm.label());
        asm.call(Helper::CurrentPidTgid).mov_reg(R7, R0).mov_reg(R1, R0);
        asm.alu(Alu::RightShift, R1, 32);
        asm.jump_if(Cond::Equal, R1, self.own.cast_signed(), own);
        match &self.tasks {
            Tasks::Cgroup { id, level } => {
                asm.mov(R1, level.cast_signed()).call(Helper::CurrentAncestorCgroupId);
                asm.mov64(R1, *id).jump_if_reg(Cond::NotEqual, R0, R1, skip);
            }
            Tasks::Tgids(followed) => {
                asm.store(Size::B4, R10, -4, R1).map(R1, followed.tgids.raw());
                asm.mov_reg(R2, R10).alu(Alu::Add, R2, -4).call(Helper::MapLookup);
                asm.jump_if(Cond::Equal, R0, 0, skip);
            }
        }
        asm.jump(pass).bind(own);
        match calibrating {
            None => {
                asm.jump(skip);
            }
            Some(control) => {
                asm.map_value(R1, control.raw(), 0).load(Size::B8, R1, R1, 0);
                asm.mov_reg(R2, R7).alu(Alu::LeftShift, R2, 32).alu(Alu::RightShift, R2, 32);
                asm.jump_if_reg(Cond::NotEqual, R1, R2, skip);
            }
        }
        asm.bind(pass);
    }
}

impl Followed {
    fn start(tracefs: &Path) -> Result<Self, BpfError> {
        const NEEDS: &str = "CONFIG_TRACEPOINTS and CONFIG_EVENT_TRACING";
        let fork = Event::read(tracefs, "sched", "sched_process_fork", NEEDS)?;
        let free = Event::read(tracefs, "sched", "sched_process_free", NEEDS)?;
        let tgids = Hash::shared("altaz_tgids", FOLLOWED)?;
        let lost = MmapArray::new("altaz_lost", 1, 1)?;
        let programs = [
            Program::load(Kind::Tracepoint, "altaz_fork", fork_program(&fork, &tgids, &lost)?)?,
            Program::load(Kind::Tracepoint, "altaz_free", free_program(&free, &tgids)?)?,
        ];
        let links =
            [Link::tracepoint(&programs[0], &fork)?, Link::tracepoint(&programs[1], &free)?];
        Ok(Self { tgids, lost, programs, _links: links })
    }

    fn add(&self, tgids: &[u32]) -> Result<(), BpfError> {
        tgids.iter().try_for_each(|tgid| self.tgids.set([*tgid], 1))
    }
}

fn fork_program(fork: &Event, tgids: &Hash<1>, lost: &MmapArray) -> Result<Asm, BpfError> {
    let (offset, size) = fork.number("child_pid")?;
    let mut asm = Asm::new();
    let out = asm.label();
    let a = &mut asm;
    a.mov_reg(R6, R1).call(Helper::CurrentPidTgid).alu(Alu::RightShift, R0, 32);
    a.store(Size::B4, R10, -4, R0);
    a.map(R1, tgids.raw()).mov_reg(R2, R10).alu(Alu::Add, R2, -4).call(Helper::MapLookup);
    a.jump_if(Cond::Equal, R0, 0, out);
    a.load(size, R1, R6, offset).store(Size::B4, R10, -4, R1).store_imm(Size::B8, R10, -16, 1);
    a.map(R1, tgids.raw()).mov_reg(R2, R10).alu(Alu::Add, R2, -4);
    a.mov_reg(R3, R10).alu(Alu::Add, R3, -16).mov(R4, 0).call(Helper::MapUpdate);
    a.jump_if(Cond::Equal, R0, 0, out);
    a.map_value(R2, lost.raw(), 0).mov(R1, 1).atomic_add(R2, 0, R1);
    // Not zero: other users' perf events on this tracepoint go on.
    a.bind(out).mov(R0, 1).exit();
    Ok(asm)
}

fn free_program(free: &Event, tgids: &Hash<1>) -> Result<Asm, BpfError> {
    let (offset, size) = free.number("pid")?;
    let mut asm = Asm::new();
    asm.load(size, R1, R1, offset).store(Size::B4, R10, -4, R1);
    asm.map(R1, tgids.raw()).mov_reg(R2, R10).alu(Alu::Add, R2, -4).call(Helper::MapDelete);
    asm.mov(R0, 1).exit();
    Ok(asm)
}

/// Now, in the clock ticks of `/proc/PID/stat`'s start times, rounded down.
fn ticks_since_boot() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let hz = rustix::param::clock_ticks_per_second();
    let (seconds, ns) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
    seconds * hz + ns * hz / 1_000_000_000
}

/// Processes whose ancestor is among `tgids` and that started at `since` or later.
fn descendants(proc: &Path, tgids: &[u32], since: u64) -> Vec<u32> {
    let young: Vec<(u32, u32)> = fs::read_dir(proc)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?;
            let (parent, started) = parent_and_start(&stat)?;
            (started >= since).then_some((pid, parent))
        })
        .collect();
    let mut known: HashSet<u32> = tgids.iter().copied().collect();
    let mut found = Vec::new();
    loop {
        let before = found.len();
        for (pid, parent) in &young {
            if known.contains(parent) && known.insert(*pid) {
                found.push(*pid);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

/// Fields 4 and 22 of `/proc/PID/stat`. The name in field 2 may hold anything, also brackets.
fn parent_and_start(stat: &str) -> Option<(u32, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    Some((parent, started))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(proc: &Path, pid: u32, parent: u32, started: u64) {
        fs::create_dir_all(proc.join(pid.to_string())).unwrap();
        let stat = format!(
            "{pid} (a) b) c) S {parent} 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 {started} 9 9"
        );
        fs::write(proc.join(pid.to_string()).join("stat"), stat).unwrap();
    }

    #[test]
    fn young_descendants_are_found_and_old_ones_and_strangers_left() {
        let dir = tempfile::tempdir().unwrap();
        let proc = dir.path();
        for (pid, parent, started) in
            [(10, 1, 50), (11, 10, 60), (12, 10, 100), (13, 12, 101), (14, 1, 102), (9, 13, 103)]
        {
            process(proc, pid, parent, started);
        }
        fs::create_dir_all(proc.join("15")).unwrap();
        fs::write(proc.join("15/stat"), "15 (gone").unwrap();
        fs::create_dir_all(proc.join("irq")).unwrap();
        let mut got = descendants(proc, &[10], 100);
        got.sort_unstable();
        assert_eq!(got, [9, 12, 13]);
    }

    #[test]
    fn this_process_started_before_now() {
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let (parent, started) = parent_and_start(&stat).unwrap();
        assert_eq!(parent, std::os::unix::process::parent_id());
        let now = ticks_since_boot();
        assert!(started <= now && now - started < 100 * 3600, "{started} {now}");
    }

    #[test]
    fn a_directory_that_is_no_cgroup_v2_is_said_so() {
        let dir = tempfile::tempdir().unwrap();
        let e = TaskFilter::cgroup(dir.path(), dir.path()).unwrap_err();
        assert!(e.to_string().contains("v2"), "{e}");
        let e = TaskFilter::cgroup(dir.path(), &dir.path().join("gone")).unwrap_err();
        assert!(matches!(e, BpfError::Cgroup { .. }));
    }

    #[test]
    fn another_pid_namespace_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("self/ns")).unwrap();
        std::os::unix::fs::symlink("pid:[4026532000]", dir.path().join("self/ns/pid")).unwrap();
        let e = ActiveFilter::start(dir.path(), dir.path(), &TaskFilter::Tgids(vec![1]));
        assert!(matches!(e, Err(BpfError::PidNamespace)));
    }
}
