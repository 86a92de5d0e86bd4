//! Reads the filters that a thread really has, through ptrace: the one place of this crate that
//! touches a process. The thread is stopped, its filters are copied, and it goes on: less than a
//! millisecond where the machine is not overloaded. It gets no signal, and a system call that it waits
//! in goes on (calls that a stop always interrupts, such as `epoll_wait`, are restarted by the kernel or
//! return `EINTR`, as after a debugger's or `strace`'s attach).
//!
//! Everything happens in a thread of its own: a tracer that ends is detached by the kernel, so that
//! nothing stays stopped or traced whatever goes wrong here.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::evaluate::{Instruction, Program};

/// `PTRACE_SECCOMP_GET_FILTER` of `include/uapi/linux/ptrace.h`.
const GET_FILTER: libc::c_uint = 0x420c;
/// A thread that has not stopped by then is in a wait that nothing interrupts. Until it stops it runs
/// on: on an overloaded machine it only has to get a CPU first.
const PATIENCE: Duration = Duration::from_secs(3);
/// More filters than the kernel lets a task have (their instructions are limited to 32,768 in all).
const MOST: usize = 1024;

/// Why the filters of a thread could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The thread has ended.
    #[error("thread {0} has ended")]
    Gone(u32),
    /// Somebody else traces it.
    #[error("thread {tid} is traced by process {by} already, and a thread has one tracer only")]
    Traced {
        /// The thread.
        tid: u32,
        /// Its tracer.
        by: u32,
    },
    /// Tracing is not permitted.
    #[error(
        "tracing thread {0} is not permitted; run as root, or with CAP_SYS_PTRACE and CAP_SYS_ADMIN, \
         outside of containers, and see /proc/sys/kernel/yama/ptrace_scope"
    )]
    NotPermitted(u32),
    /// Reading filters is not permitted.
    #[error(
        "the kernel shows filters only to a reader with CAP_SYS_ADMIN that has no system call filter \
         of its own; run as root outside of containers"
    )]
    Hidden,
    /// The kernel was built without it.
    #[error(
        "this kernel cannot show system call filters: it was built without \
         CONFIG_CHECKPOINT_RESTORE"
    )]
    Unsupported,
    /// It does not stop.
    #[error(
        "thread {0} did not stop within {PATIENCE:?}: it waits for a device or file system; it was \
         left alone"
    )]
    Stuck(u32),
    /// Anything else.
    #[error("cannot {what} thread {tid}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The thread.
        tid: u32,
        /// The kernel's reason.
        source: Errno,
    },
}

/// Filters of a thread, and how long it was stopped for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filters {
    /// The filters.
    pub programs: Vec<Program>,
    /// At most this long it was stopped: from the last look that found it running until it went on.
    pub stopped: Duration,
}

/// Reads the filters of a thread that is in filter mode. It must not be the caller's own process's.
///
/// # Errors
/// When it cannot be traced or read; the thread goes on in each case.
pub fn filters(tid: u32) -> Result<Filters, ReadError> {
    let reader = std::thread::Builder::new().name("altaz-filters".into()).spawn(move || {
        // The less this thread waits for a CPU, the shorter the other one is stopped. Without the
        // privilege it only takes longer on a busy machine.
        if !sys::first_on_the_cpu() {
            let _ = rustix::process::setpriority_process(None, -20);
        }
        read(tid)
    });
    let reader = reader.map_err(|e| {
        let source = Errno::from_raw(e.raw_os_error().unwrap_or(libc::EAGAIN));
        ReadError::System { what: "start a reader for", tid, source }
    })?;
    reader.join().unwrap_or(Err(ReadError::Gone(tid)))
}

fn read(tid: u32) -> Result<Filters, ReadError> {
    let pid = Pid::from_raw(i32::try_from(tid).map_err(|_| ReadError::Gone(tid))?);
    let system = |what| move |source| ReadError::System { what, tid, source };
    ptrace::seize(pid, Options::empty()).map_err(|e| match e {
        Errno::ESRCH => ReadError::Gone(tid),
        Errno::EPERM => match tracer_of(tid) {
            Some(by) => ReadError::Traced { tid, by },
            None => ReadError::NotPermitted(tid),
        },
        other => system("trace")(other),
    })?;
    let began = Instant::now();
    ptrace::interrupt(pid).map_err(system("stop"))?;
    let (signal, since) = stopped(pid, tid, began)?;
    let programs = programs(tid);
    // A signal that happened to arrive is handed on.
    let detached = ptrace::detach(pid, signal);
    let stopped = since.elapsed();
    let programs = programs?;
    match detached {
        Ok(()) | Err(Errno::ESRCH) => Ok(Filters { programs, stopped }),
        Err(e) => Err(system("let go")(e)),
    }
}

fn tracer_of(tid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    let by = status.lines().find_map(|l| l.strip_prefix("TracerPid:"))?.trim().parse().ok()?;
    (by != 0).then_some(by)
}

/// Waits until the thread has stopped: the signal that it stopped for, to be handed on, and a moment at
/// which it still ran.
fn stopped(pid: Pid, tid: u32, began: Instant) -> Result<(Option<Signal>, Instant), ReadError> {
    let mut ran = began;
    loop {
        let asked = Instant::now();
        match waitpid(pid, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Stopped(_, signal)) => return Ok((Some(signal), ran)),
            Ok(WaitStatus::PtraceEvent(..) | WaitStatus::PtraceSyscall(_)) => {
                return Ok((None, ran));
            }
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(Errno::ECHILD) => {
                return Err(ReadError::Gone(tid));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(source) => return Err(ReadError::System { what: "wait for", tid, source }),
        }
        if began.elapsed() > PATIENCE {
            return Err(ReadError::Stuck(tid));
        }
        ran = asked;
        std::thread::sleep(Duration::from_micros(20));
    }
}

fn programs(tid: u32) -> Result<Vec<Program>, ReadError> {
    let mut all = Vec::new();
    while all.len() < MOST {
        match sys::filter(tid, all.len()) {
            Ok(program) => all.push(program),
            // There are no more.
            Err(Errno::ENOENT) => break,
            Err(Errno::EACCES) => return Err(ReadError::Hidden),
            // What the kernel answers without the option, for a thread that has filters.
            Err(Errno::EINVAL | Errno::EIO) if all.is_empty() => {
                return Err(ReadError::Unsupported);
            }
            Err(Errno::ESRCH) => return Err(ReadError::Gone(tid)),
            Err(source) => {
                return Err(ReadError::System { what: "read the filters of", tid, source });
            }
        }
    }
    Ok(all)
}

/// Two requests that no library wraps.
mod sys {
    use super::{Errno, GET_FILTER, Instruction, Program};

    /// Lets the calling thread run before all ordinary ones, until it ends. Whether that was granted.
    pub(super) fn first_on_the_cpu() -> bool {
        let lowest = libc::sched_param { sched_priority: 1 };
        // SAFETY: 0 is the calling thread; the kernel only reads the parameters.
        unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const lowest) == 0 }
    }

    /// The filter of this index of a thread that this thread traces and that is stopped.
    pub(super) fn filter(tid: u32, index: usize) -> Result<Program, Errno> {
        let none = std::ptr::null_mut::<libc::sock_filter>();
        // SAFETY: without a buffer the kernel only returns the number of instructions.
        let length = Errno::result(unsafe { libc::ptrace(GET_FILTER, tid, index, none) })?;
        let empty = libc::sock_filter { code: 0, jt: 0, jf: 0, k: 0 };
        let mut buffer = vec![empty; usize::try_from(length).unwrap_or(0)];
        // SAFETY: the kernel writes as many instructions as it announced, and a filter never changes
        // once it is installed; the thread is stopped, so the index still means the same one.
        let written = unsafe { libc::ptrace(GET_FILTER, tid, index, buffer.as_mut_ptr()) };
        let written = Errno::result(written)?;
        buffer.truncate(usize::try_from(written).unwrap_or(0));
        let copy = |i: &libc::sock_filter| Instruction { code: i.code, jt: i.jt, jf: i.jf, k: i.k };
        Ok(buffer.iter().map(copy).collect())
    }
}
