//! What goes wrong with the function tracer, in words for the person who runs altaz: what happened, to what, why,
//! and what to do. Nothing here decides anything but which of these words fit an error number.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// Why functions cannot be traced, or not any longer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FtraceError {
    /// There is no tracefs at the path.
    #[error(
        "{path}: no tracefs is mounted there; mount it: mount -t tracefs tracefs /sys/kernel/tracing"
    )]
    NotMounted {
        /// Where tracefs was expected.
        path: PathBuf,
    },
    /// The kernel was built without the function tracer or without dynamic ftrace.
    #[error(
        "{path}: this kernel has no function tracer (CONFIG_FUNCTION_TRACER and CONFIG_DYNAMIC_FTRACE; it offers: \
         {offers}); kernel functions can be recorded in the lab instead"
    )]
    NoFunctionTracer {
        /// The file that says so.
        path: PathBuf,
        /// What it offers instead.
        offers: String,
    },
    /// Function tracing is switched off for the whole kernel.
    #[error(
        "kernel.ftrace_enabled is 0: no function is traced for anybody; sysctl kernel.ftrace_enabled=1"
    )]
    SwitchedOff,
    /// tracefs is mounted read-only.
    #[error("{path}: tracefs is read-only; remount it: mount -o remount,rw TRACEFS")]
    ReadOnly {
        /// What could not be written.
        path: PathBuf,
    },
    /// Not permitted.
    #[error(
        "{path}: permission denied; tracing needs root, or CAP_DAC_OVERRIDE (or tracefs mounted with a gid of yours)"
    )]
    Permission {
        /// What could not be opened.
        path: PathBuf,
    },
    /// The kernel refuses it even to root, and does not say why.
    #[error(
        "{path}: the kernel refuses this even to root: function tracing is closed on this machine by lockdown, a \
         hardened kernel or a container; kernel functions can be recorded in the lab instead"
    )]
    Refused {
        /// What could not be opened.
        path: PathBuf,
    },
    /// The kernel is locked down.
    #[error(
        "{path}: refused because the kernel is locked down ({mode}); tracefs is closed under \"confidentiality\", \
         which only a boot without it changes"
    )]
    Lockdown {
        /// What could not be opened.
        path: PathBuf,
        /// The mode, from `/sys/kernel/security/lockdown`.
        mode: String,
    },
    /// No memory for the ring buffer, even at the smallest size.
    #[error(
        "no memory for a ring buffer of {kb} kB on each CPU; free memory, or ask for a smaller buffer"
    )]
    Memory {
        /// The smallest size that was tried, in kB a CPU.
        kb: u32,
    },
    /// Something else uses what is needed.
    #[error(
        "{path}: busy while {what}: another tracing session holds it (see `lsof {path}`, or trace-cmd, perf, bpftrace \
         that run now); end it, or try again"
    )]
    Busy {
        /// What is held.
        path: PathBuf,
        /// What altaz was doing.
        what: &'static str,
    },
    /// No thread was given.
    #[error("no thread to follow: every thread of the service is gone, or none was given")]
    NothingToFollow,
    /// A kernel file does not read as it should.
    #[error("{path}: {reason}; this kernel's tracing differs from what altaz knows")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Any other failure.
    #[error("{path}: {what}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What altaz was doing.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl FtraceError {
    /// The words for an error of the system, met at `path` while doing `what`.
    pub(crate) fn from_io(path: &Path, what: &'static str, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match Errno::from_io_error(&source) {
            Some(Errno::ROFS) => Self::ReadOnly { path },
            Some(Errno::ACCESS) => Self::Permission { path },
            Some(Errno::PERM) => match lockdown(Path::new("/sys/kernel/security/lockdown")) {
                Some(mode) => Self::Lockdown { path, mode },
                None if rustix::process::geteuid().is_root() => Self::Refused { path },
                None => Self::Permission { path },
            },
            Some(Errno::BUSY) => Self::Busy { path, what },
            _ => Self::Io { path, what, source },
        }
    }
}

/// The mode of lockdown in force, if one is: `none [integrity] confidentiality`.
fn lockdown(file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let mode = text.split_once('[')?.1.split_once(']')?.0;
    (mode != "none").then(|| mode.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(errno: Errno) -> String {
        FtraceError::from_io(Path::new("/t/tracing_on"), "switching on", errno.into()).to_string()
    }

    #[test]
    fn an_error_says_what_to_do() {
        assert!(words(Errno::ROFS).contains("remount"));
        assert!(words(Errno::ACCESS).contains("root"));
        assert!(words(Errno::BUSY).contains("while switching on"));
        assert!(words(Errno::IO).starts_with("/t/tracing_on: switching on: "));
    }

    #[test]
    fn the_mode_of_lockdown_is_the_bracketed_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("lockdown");
        assert_eq!(lockdown(&file), None);
        std::fs::write(&file, "[none] integrity confidentiality\n").unwrap();
        assert_eq!(lockdown(&file), None);
        std::fs::write(&file, "none integrity [confidentiality]\n").unwrap();
        assert_eq!(lockdown(&file).as_deref(), Some("confidentiality"));
    }
}
