//! Which system calls a task may make: its real filters, read from the kernel ([`read`]) and evaluated
//! for every system call of the architecture ([`evaluate`]).

pub mod evaluate;
pub mod read;

use std::collections::BTreeMap;
use std::time::Duration;

use altaz_profile::model::{Layer, PermittedEntry};
use syscalls::x86_64::Sysno;

use crate::process::{self, text};
use crate::roots::Roots;
use crate::target::{Role, Target};
use evaluate::{I386, Program, Verdict, X32_BIT, X86_64, evaluate};
use read::{Filters, ReadError};

/// Calls of the mode that has no filter (`mode1_syscalls` of `kernel/seccomp.c`).
const STRICT: [Sysno; 4] = [Sysno::read, Sysno::write, Sysno::exit, Sysno::rt_sigreturn];
/// Numbers of the 32-bit and x32 tables are below this (the highest was 467 in 6.17, 547 in x32).
const OTHER_TABLES: u32 = 548;

/// How a task's system calls are filtered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// Not at all.
    None,
    /// Four calls only.
    Strict,
    /// By programs.
    Filter,
}

impl Mode {
    /// Name, as in [`altaz_profile::model::Posture::seccomp`].
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Strict => "strict",
            Self::Filter => "filter",
        }
    }

    /// From the value of `Seccomp:` in `/proc/PID/status`; a kernel without filters has no such line.
    pub(crate) fn of_status(status: &str) -> Self {
        match field(status, "Seccomp") {
            Some("1") => Self::Strict,
            Some("2") => Self::Filter,
            _ => Self::None,
        }
    }
}

/// A line of `/proc/PID/status`.
pub(crate) fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let line = status.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim())
}

/// System calls that a task may make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Width {
    /// How its calls are filtered.
    pub mode: Mode,
    /// Number of filters.
    pub filters: usize,
    /// Calls of x86-64 that are let through for all or some arguments, by number.
    pub calls: BTreeMap<u32, Verdict>,
    /// Calls of the 32-bit table that are let through, by number: reachable from 64-bit code with
    /// `int 0x80`, where the kernel has it.
    pub ia32: u32,
    /// The same of the x32 table.
    pub x32: u32,
    /// How long the thread was stopped at most to read its filters; zero when that was not needed.
    pub stopped: Duration,
}

impl Width {
    /// Evaluates filters; pure.
    pub fn of_filters(mode: Mode, programs: &[Program]) -> Self {
        let open = |number: &u32| evaluate(programs, X86_64, *number) != Verdict::Denied;
        let all = Sysno::iter().map(|s| s.id() as u32);
        let judge = |n: u32| match mode {
            Mode::None => Verdict::Allowed,
            Mode::Strict if STRICT.iter().any(|s| s.id() as u32 == n) => Verdict::Allowed,
            Mode::Strict => Verdict::Denied,
            Mode::Filter => evaluate(programs, X86_64, n),
        };
        let filtered = mode == Mode::Filter;
        let ia32 = |n: &u32| evaluate(programs, I386, *n) != Verdict::Denied;
        let x32 = |n: &u32| open(&(n | X32_BIT));
        Self {
            mode,
            filters: programs.len(),
            calls: all.map(|n| (n, judge(n))).filter(|(_, v)| *v != Verdict::Denied).collect(),
            ia32: if filtered { (0..OTHER_TABLES).filter(ia32).count() as u32 } else { 0 },
            x32: if filtered { (0..OTHER_TABLES).filter(x32).count() as u32 } else { 0 },
            stopped: Duration::ZERO,
        }
    }

    /// Number of calls that are let through, for at least some arguments.
    pub fn permitted(&self) -> u32 {
        self.calls.len() as u32
    }

    /// The calls by name, as a boundary lists them.
    pub fn entries(&self) -> Vec<PermittedEntry> {
        let mut all: Vec<PermittedEntry> = self
            .calls
            .iter()
            .map(|(n, verdict)| PermittedEntry {
                name: altaz_deploy::seccomp::syscall_name(u64::from(*n)),
                conditional: *verdict == Verdict::Conditional,
            })
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// What at least one of two tasks may do.
    fn or(mut self, other: &Width) -> Self {
        for (n, verdict) in &other.calls {
            let mine = self.calls.entry(*n).or_insert(*verdict);
            *mine = (*mine).max(*verdict);
        }
        self.mode = self.mode.min(other.mode);
        self.filters = self.filters.min(other.filters);
        self.ia32 = self.ia32.max(other.ia32);
        self.x32 = self.x32.max(other.x32);
        self.stopped = self.stopped.max(other.stopped);
        self
    }
}

/// System calls that the process may make: those of its thread with the fewest filters. Stops that
/// thread for a moment if it has any, see [`read`].
///
/// # Errors
/// When the filters cannot be read.
pub fn width(roots: &Roots, pid: u32) -> Result<Width, ReadError> {
    let (mode, read) = filters_of(roots, pid)?;
    Ok(Width { stopped: read.stopped, ..Width::of_filters(mode, &read.programs) })
}

/// Mode and filters of the thread of a process that has the fewest.
fn filters_of(roots: &Roots, pid: u32) -> Result<(Mode, Filters), ReadError> {
    let of_thread = |tid: u32| {
        let file = roots.of(pid, "task").join(tid.to_string()).join("status");
        let status = text(&file)?;
        // Kernels before 5.9 do not count filters.
        let count = field(&status, "Seccomp_filters").and_then(|n| n.parse::<u32>().ok());
        Some((Mode::of_status(&status), count.unwrap_or(0), tid))
    };
    let tids = process::threads(roots, pid);
    let weakest = tids.iter().filter_map(|t| of_thread(t.tid)).min();
    let (mode, _, tid) = weakest.ok_or(ReadError::Gone(pid))?;
    if mode != Mode::Filter {
        return Ok((mode, Filters { programs: Vec::new(), stopped: Duration::ZERO }));
    }
    // Ids in a tree of files are not those of this machine's threads.
    if !roots.is_here() {
        return Err(ReadError::Hidden);
    }
    Ok((mode, read::filters(tid)?))
}

/// At most this many processes of a role are stopped and read; the processes of one container have the
/// same filters.
const READ: usize = 16;

impl Target {
    /// Reads the real filters and fills in what may cross the system call boundaries to the host's
    /// kernel: what at least one process of the calling layer may do. Stops one thread of up to 16
    /// processes for less than a millisecond each. What cannot be read stays undetermined, and a note
    /// says why.
    pub fn read_filters(&mut self, roots: &Roots) {
        for i in 0..self.boundaries.len() {
            let Some(b) = self.boundaries.get(i) else { continue };
            if b.name != "syscall" || b.to != Layer::HostKernel {
                continue;
            }
            let role = match b.from {
                Layer::SandboxKernel => Role::Sentry,
                Layer::Vmm => Role::Vmm,
                Layer::SandboxHelper => Role::Gofer,
                _ => Role::App,
            };
            let (width, notes) = self.width_of_role(roots, role);
            let notes: Vec<String> =
                notes.into_iter().filter(|n| !self.notes.contains(n)).collect();
            self.notes.extend(notes);
            let Some(b) = self.boundaries.get_mut(i) else { continue };
            b.permitted = width.as_ref().map(Width::permitted);
            b.permitted_entries = width.as_ref().map(Width::entries).unwrap_or_default();
        }
    }

    /// What at least one process of a role may call; `None` when one of them could not be read, as
    /// the width would then be too small to be true.
    fn width_of_role(&self, roots: &Roots, role: Role) -> (Option<Width>, Vec<String>) {
        let mut notes = Vec::new();
        let mut known: Vec<(Mode, Vec<Program>, Width)> = Vec::new();
        let mut unread = false;
        let of_role: Vec<_> = self.processes.iter().filter(|p| p.role == role).collect();
        for p in of_role.iter().take(READ) {
            match filters_of(roots, p.pid) {
                Ok((mode, read)) => {
                    if !known.iter().any(|(m, f, _)| *m == mode && *f == read.programs) {
                        let width = Width::of_filters(mode, &read.programs);
                        let width = Width { stopped: read.stopped, ..width };
                        known.push((mode, read.programs, width));
                    }
                }
                Err(ReadError::Gone(_)) => {}
                Err(e) => {
                    unread = true;
                    notes.push(format!(
                        "what {} {} ({}) may call is not known: {e}",
                        role.as_str(),
                        p.pid,
                        p.comm
                    ));
                }
            }
        }
        if of_role.len() > READ {
            notes.push(format!(
                "the filters of {READ} of the {} processes in the role {} were read",
                of_role.len(),
                role.as_str()
            ));
        }
        let differ = known.windows(2).any(|w| matches!(w, [a, b] if a.2.calls != b.2.calls));
        if differ {
            notes.push(format!(
                "processes in the role {} have different filters; what at least one may call counts",
                role.as_str()
            ));
        }
        let all = known.into_iter().map(|(_, _, w)| w).reduce(|a, b| a.or(&b));
        let all = all.filter(|_| !unread);
        if let Some(w) = all.as_ref().filter(|w| w.ia32 > 0 || w.x32 > 0) {
            notes.push(format!(
                "the filters in the role {} also let through calls of other tables, which are not \
                 counted: {} of the 32-bit one, {} of x32",
                role.as_str(),
                w.ia32,
                w.x32
            ));
        }
        (all, notes)
    }
}
