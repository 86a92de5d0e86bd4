//! What `/proc` says of a process: read once into values, so that recognition is pure.
//!
//! Processes end while they are read. That is never an error: what is gone is left out. A process id
//! that was given to another process in the middle of reading is told by its start time.
//!
//! Own readers rather than a library's: tests lay out `/proc` as a tree of plain files, where the
//! kernel has magic links that do not resolve.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::TargetError;
use crate::cgroup::{self, Membership};
use crate::roots::Roots;

/// `PF_KTHREAD` of `include/linux/sched.h`: the task is a thread of the kernel.
const PF_KTHREAD: u64 = 0x0020_0000;
/// Kinds of namespaces that `/proc/PID/ns` names.
pub(crate) const NAMESPACES: [&str; 8] =
    ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
/// More is not read of any one file of a process.
const LIMIT: u64 = 4 << 20;

/// A task's line in `/proc/PID/stat`, as far as it is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) comm: String,
    pub(crate) ppid: u32,
    pub(crate) flags: u64,
    /// Start, clock ticks since boot.
    pub(crate) start: u64,
    /// Time that it ran a guest's CPU, clock ticks; zero where the kernel does not say.
    pub(crate) guest: u64,
    /// It has ended, and only waits for its parent to ask how. A leader that has ended while threads
    /// of its go on is no such process.
    pub(crate) ended: bool,
}

impl Stat {
    /// Parses the line. The name may hold spaces and parentheses: it ends at the last one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (head, rest) = text.rsplit_once(')')?;
        let (_, comm) = head.split_once('(')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // Field 3 of proc(5) is the first one here.
        let field = |n: usize| fields.get(n - 3)?.parse::<u64>().ok();
        Some(Self {
            comm: comm.to_owned(),
            ppid: u32::try_from(field(4)?).ok()?,
            flags: field(9)?,
            start: field(22)?,
            guest: field(43).unwrap_or(0),
            ended: matches!(fields.first(), Some(&("Z" | "X"))) && field(20).is_none_or(|n| n <= 1),
        })
    }

    fn read(roots: &Roots, pid: u32) -> Option<Self> {
        Self::parse(&text(&roots.of(pid, "stat"))?)
    }
}

/// A process as it was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Task {
    pub(crate) pid: u32,
    pub(crate) ppid: u32,
    pub(crate) start: u64,
    pub(crate) comm: String,
    pub(crate) kernel: bool,
    pub(crate) argv: Vec<String>,
    /// Empty when it may not be read.
    pub(crate) exe: PathBuf,
    pub(crate) cgroups: Vec<Membership>,
    /// Inode numbers of its namespaces by kind; empty when they may not be read.
    pub(crate) ns: BTreeMap<&'static str, u64>,
}

impl Task {
    fn read(roots: &Roots, pid: u32) -> Option<Self> {
        let stat = Stat::read(roots, pid).filter(|s| !s.ended)?;
        let kernel = stat.flags & PF_KTHREAD != 0;
        let argv = if kernel { Vec::new() } else { command_line(roots, pid) };
        let exe = fs::read_link(roots.of(pid, "exe")).map(undeleted).unwrap_or_default();
        let cgroups = cgroup::memberships(&text(&roots.of(pid, "cgroup")).unwrap_or_default());
        let ns = if kernel { BTreeMap::new() } else { namespaces(roots, pid) };
        // Between the first line and here the number may have been given to another process.
        (Stat::read(roots, pid)?.start == stat.start).then_some(Self {
            pid,
            ppid: stat.ppid,
            start: stat.start,
            comm: stat.comm,
            kernel,
            argv,
            exe,
            cgroups,
            ns,
        })
    }

    /// Last part of the executable's path, or of `argv[0]` where that may not be read.
    pub(crate) fn program(&self) -> &str {
        let name = |p: &Path| p.file_name().and_then(|n| n.to_str()).map(str::len);
        if let Some(n) = name(&self.exe) {
            let exe = self.exe.to_str().unwrap_or_default();
            return exe.get(exe.len() - n..).unwrap_or_default();
        }
        let first = self.argv.first().map_or(self.comm.as_str(), String::as_str);
        first.rsplit('/').next().unwrap_or(first)
    }

    /// Value of `--name=VALUE`, `-name=VALUE`, `--name VALUE` or `-name VALUE`.
    pub(crate) fn flag(&self, name: &str) -> Option<&str> {
        let mut args = self.argv.iter().skip(1);
        while let Some(arg) = args.next() {
            let Some(bare) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else {
                continue;
            };
            match bare.strip_prefix(name) {
                Some("") => return args.next().map(String::as_str),
                Some(rest) if rest.starts_with('=') => return rest.get(1..),
                _ => {}
            }
        }
        None
    }

    /// Name and number, for messages.
    pub(crate) fn label(&self) -> String {
        format!("{} ({})", self.pid, self.comm)
    }
}

/// Every process at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    pub(crate) tasks: BTreeMap<u32, Task>,
    /// The namespaces that count as the host's.
    pub(crate) host: BTreeMap<&'static str, u64>,
}

impl Snapshot {
    pub(crate) fn take(roots: &Roots) -> Result<Self, TargetError> {
        let dir = fs::read_dir(&roots.proc)
            .map_err(|source| TargetError::Unreadable { path: roots.proc.clone(), source })?;
        let own = roots.is_here().then(std::process::id);
        let pids = dir.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
        let tasks = pids
            .filter(|pid| Some(*pid) != own)
            .filter_map(|pid| Some((pid, Task::read(roots, pid)?)))
            .collect();
        Ok(Self { tasks, host: host_namespaces(roots) })
    }

    pub(crate) fn get(&self, pid: u32) -> Option<&Task> {
        self.tasks.get(&pid)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Task> {
        self.tasks.values()
    }

    /// Everything that descends from these processes, without themselves.
    pub(crate) fn descendants(&self, of: &BTreeSet<u32>) -> BTreeSet<u32> {
        let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for t in self.iter() {
            children.entry(t.ppid).or_default().push(t.pid);
        }
        let mut found = BTreeSet::new();
        let mut todo: Vec<u32> = of.iter().copied().collect();
        while let Some(pid) = todo.pop() {
            for &child in children.get(&pid).into_iter().flatten() {
                if !of.contains(&child) && found.insert(child) {
                    todo.push(child);
                }
            }
        }
        found
    }

    /// The process, its parent, its parent's parent … up to process 1.
    pub(crate) fn ancestry(&self, pid: u32) -> Vec<u32> {
        let mut line = vec![pid];
        let mut at = pid;
        while let Some(parent) = self.get(at).map(|t| t.ppid) {
            if parent == 0 || line.contains(&parent) {
                break;
            }
            line.push(parent);
            at = parent;
        }
        line
    }

    /// Kinds of the process's namespaces that are not the host's; `None` when either may not be read.
    pub(crate) fn foreign_namespaces(&self, task: &Task) -> Option<Vec<&'static str>> {
        let host = &self.host;
        if host.is_empty() || task.ns.is_empty() {
            return None;
        }
        let differs = |kind: &&&str| matches!((task.ns.get(**kind), host.get(**kind)), (Some(a), Some(b)) if a != b);
        Some(NAMESPACES.iter().filter(differs).copied().collect())
    }
}

/// Reads a small file; `None` when it is gone or not to be read. Bytes that are no text are replaced.
pub(crate) fn text(path: &Path) -> Option<String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(LIMIT).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn command_line(roots: &Roots, pid: u32) -> Vec<String> {
    let all = text(&roots.of(pid, "cmdline")).unwrap_or_default();
    let all = all.strip_suffix('\0').unwrap_or(&all);
    if all.is_empty() { Vec::new() } else { all.split('\0').map(str::to_owned).collect() }
}

/// The path without the mark that the kernel adds when the file was replaced on disk.
fn undeleted(path: PathBuf) -> PathBuf {
    match path.to_str().and_then(|p| p.strip_suffix(" (deleted)")) {
        Some(p) => p.into(),
        None => path,
    }
}

/// Namespaces of a process by kind.
pub(crate) fn namespaces(roots: &Roots, pid: u32) -> BTreeMap<&'static str, u64> {
    namespaces_in(&roots.of(pid, "ns"))
}

/// Namespaces by kind, from a directory of links.
pub(crate) fn namespaces_in(dir: &Path) -> BTreeMap<&'static str, u64> {
    let inode = |kind: &str| {
        let link = fs::read_link(dir.join(kind)).ok()?;
        let (_, number) = link.to_str()?.split_once(":[")?;
        number.strip_suffix(']')?.parse::<u64>().ok()
    };
    NAMESPACES.iter().filter_map(|kind| Some((*kind, inode(kind)?))).collect()
}

/// The namespaces that count as the host's: those of process 1, or altaz's own where those may not be
/// read.
pub(crate) fn host_namespaces(roots: &Roots) -> BTreeMap<&'static str, u64> {
    let first = namespaces(roots, 1);
    if !first.is_empty() {
        return first;
    }
    namespaces_in(&roots.proc.join("self/ns"))
}

/// What the process's descriptors are: number and the link's text (`/dev/kvm`,
/// `anon_inode:kvm-vm`). Empty when they may not be read.
pub(crate) fn open_files(roots: &Roots, pid: u32) -> Vec<(u32, String)> {
    let entries = fs::read_dir(roots.of(pid, "fd")).into_iter().flatten().flatten();
    let mut all: Vec<_> = entries
        .filter_map(|e| {
            let number = e.file_name().to_str()?.parse().ok()?;
            Some((number, fs::read_link(e.path()).ok()?.to_str()?.to_owned()))
        })
        .collect();
    all.sort();
    all
}

/// A thread as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawThread {
    pub(crate) tid: u32,
    pub(crate) comm: String,
    pub(crate) start: u64,
    pub(crate) guest: u64,
}

/// Threads of a process.
pub(crate) fn threads(roots: &Roots, pid: u32) -> Vec<RawThread> {
    let entries = fs::read_dir(roots.of(pid, "task")).into_iter().flatten().flatten();
    let mut all: Vec<_> = entries
        .filter_map(|e| {
            let tid = e.file_name().to_str()?.parse().ok()?;
            let stat = Stat::parse(&text(&e.path().join("stat"))?)?;
            Some(RawThread { tid, comm: stat.comm, start: stat.start, guest: stat.guest })
        })
        .collect();
    all.sort_by_key(|t| t.tid);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let line = "77 (a) b (c) S 5 77 77 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 99000 1 2 3";
        let got = Stat::parse(line).unwrap();
        assert_eq!(
            got,
            Stat {
                comm: "a) b (c".into(),
                ppid: 5,
                flags: 4_194_560,
                start: 99_000,
                guest: 0,
                ended: false
            }
        );
        assert!(Stat::parse(&line.replace(") S", ") Z")).unwrap().ended);
        let with_threads = line.replace(") S", ") Z").replace("20 0 1 0", "20 0 2 0");
        assert!(!Stat::parse(&with_threads).unwrap().ended, "its threads go on");
    }

    #[test]
    fn a_flag_is_found_in_each_of_its_spellings() {
        let with = |args: &[&str]| Task {
            argv: std::iter::once("x").chain(args.iter().copied()).map(str::to_owned).collect(),
            ..Task::default()
        };
        assert_eq!(with(&["--platform=kvm", "boot"]).flag("platform"), Some("kvm"));
        assert_eq!(with(&["-M", "microvm,rtc=on"]).flag("M"), Some("microvm,rtc=on"));
        assert_eq!(with(&["-platform=ptrace"]).flag("platform"), Some("ptrace"));
        assert_eq!(with(&["--platforms=x"]).flag("platform"), None);
        assert_eq!(with(&["--platform"]).flag("platform"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_stat_line_is_parsed_without_panic(line: String) {
            Stat::parse(&line);
        }
    }
}
