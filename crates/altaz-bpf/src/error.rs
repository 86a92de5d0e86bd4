//! What can go wrong with BPF, in words that say what to do.
//!
//! An errno of bpf(2) alone tells nobody anything: `EPERM` may be a missing capability, a locked
//! down kernel or a container's seccomp filter. [`Surroundings`] reads what tells them apart.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::asm::AsmError;

/// Why something could not be counted.
#[derive(Debug, Error)]
pub enum BpfError {
    /// The kernel does not allow it to this process.
    #[error("the kernel does not let altaz {what}: {why}")]
    NotPermitted {
        /// What was tried.
        what: String,
        /// The reason found, and what to do.
        why: String,
    },
    /// The kernel cannot do it.
    #[error("this kernel cannot {what}: it needs {needs}")]
    Unsupported {
        /// What was tried.
        what: String,
        /// Version or configuration needed.
        needs: &'static str,
    },
    /// No tracefs at the place named.
    #[error(
        "{}: no tracefs is mounted there; mount it (mount -t tracefs tracefs \
         /sys/kernel/tracing) or name its place", .0.display()
    )]
    NoTracefs(PathBuf),
    /// The kernel has no such tracepoint.
    #[error("this kernel has no tracepoint {event}: {needs}")]
    NoEvent {
        /// `group:name`.
        event: String,
        /// Configuration or module needed.
        needs: &'static str,
    },
    /// A tracepoint has not the field that is to be counted by.
    #[error("{}: the tracepoint has no usable field {field}; altaz does not know this kernel's form of it", path.display())]
    NoField {
        /// The format file.
        path: PathBuf,
        /// The field's name.
        field: String,
    },
    /// altaz sees other process numbers than the kernel's programs do.
    #[error(
        "altaz runs in a PID namespace of its own, where processes have other numbers than BPF \
         programs see; run it in the host's (podman and docker: --pid=host)"
    )]
    PidNamespace,
    /// A cgroup cannot be named to the kernel.
    #[error("cgroup {}: {why}", path.display())]
    Cgroup {
        /// The directory.
        path: PathBuf,
        /// Reason, and what to do.
        why: String,
    },
    /// The verifier refused a program: a mistake in altaz.
    #[error(
        "the kernel's verifier refused altaz's program {program} ({source}); its last words:\n{log}"
    )]
    Verifier {
        /// The program's name.
        program: String,
        /// End of the verifier's log.
        log: String,
        /// The error.
        source: io::Error,
    },
    /// A program could not be put together: a mistake in altaz.
    #[error(transparent)]
    Asm(#[from] AsmError),
    /// The kernel does not probe an instruction.
    #[error(
        "could not {what}: the kernel does not probe one of the instructions there; leave that \
         place out"
    )]
    BadInstruction {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: String,
    },
    /// The target holds nothing to follow.
    #[error("no process to follow: name at least one that lives")]
    NothingToFollow,
    /// Anything else that the kernel refused.
    #[error("could not {what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// The error.
        source: io::Error,
    },
}

impl BpfError {
    /// Judges an errno of bpf(2) or perf_event_open(2).
    pub(crate) fn judge(
        what: impl Into<String>,
        needs: &'static str,
    ) -> impl FnOnce(io::Error) -> Self {
        Self::judge_with(what, needs, &[CAP_BPF, CAP_PERFMON])
    }

    /// The same where other capabilities are asked for.
    pub(crate) fn judge_with(
        what: impl Into<String>,
        needs: &'static str,
        wanted: &'static [Capability],
    ) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => {
                Self::NotPermitted { what, why: Surroundings::here().why(wanted) }
            }
            Some(libc::ENOSYS) => {
                Self::Unsupported { what, needs: "CONFIG_BPF_SYSCALL and CONFIG_PERF_EVENTS" }
            }
            Some(libc::EINVAL | libc::EOPNOTSUPP) if !needs.is_empty() => {
                Self::Unsupported { what, needs }
            }
            _ => Self::System { what, source },
        }
    }

    pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }
}

/// A capability's number and name.
pub(crate) type Capability = (u32, &'static str);
pub(crate) const CAP_SYS_ADMIN: Capability = (21, "CAP_SYS_ADMIN");
pub(crate) const CAP_PERFMON: Capability = (38, "CAP_PERFMON");
pub(crate) const CAP_BPF: Capability = (39, "CAP_BPF");

/// What decides whether this process may use BPF for tracing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Surroundings {
    /// Effective capabilities, as in `/proc/thread-self/status`.
    pub(crate) capabilities: Option<u64>,
    /// Contents of `/sys/kernel/security/lockdown`.
    pub(crate) lockdown: Option<String>,
    /// Contents of `/proc/self/uid_map`.
    pub(crate) uid_map: Option<String>,
    /// `/proc/sys/kernel/perf_event_paranoid`.
    pub(crate) paranoid: Option<i32>,
}

impl Surroundings {
    fn here() -> Self {
        Self::read(Path::new("/proc"), Path::new("/sys"))
    }

    pub(crate) fn read(proc: &Path, sys: &Path) -> Self {
        let text = |path: PathBuf| std::fs::read_to_string(path).ok();
        let capabilities = text(proc.join("thread-self/status")).and_then(|status| {
            let hex = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?.trim().to_owned();
            u64::from_str_radix(&hex, 16).ok()
        });
        Self {
            capabilities,
            lockdown: text(sys.join("kernel/security/lockdown")),
            uid_map: text(proc.join("self/uid_map")),
            paranoid: text(proc.join("sys/kernel/perf_event_paranoid"))
                .and_then(|t| t.trim().parse().ok()),
        }
    }

    /// The most likely reason for a refusal, and what to do.
    pub(crate) fn why(&self, wanted: &[Capability]) -> String {
        if let Some(caps) = self.capabilities {
            let has = |bit: u32| caps & (1 << bit) != 0;
            // The older, wider capability stands for the two that were split from it.
            let missing: Vec<_> = wanted
                .iter()
                .filter(|(bit, _)| !has(*bit) && !has(CAP_SYS_ADMIN.0))
                .map(|(_, name)| *name)
                .collect();
            if !missing.is_empty() {
                return format!(
                    "it lacks {}; run it as root, or with these capabilities",
                    missing.join(" and ")
                );
            }
            // Above 2, a level of Debian's and Ubuntu's, perf events are the administrator's.
            if self.paranoid.is_some_and(|level| level > 2) && !has(CAP_SYS_ADMIN.0) {
                return format!(
                    "kernel.perf_event_paranoid is {}, so perf events take CAP_SYS_ADMIN; run it \
                     as root or with that capability, or set it to 2",
                    self.paranoid.unwrap_or_default()
                );
            }
        }
        if self.lockdown.as_deref().is_some_and(|l| l.contains("[confidentiality]")) {
            return "the kernel is locked down for confidentiality, which forbids tracing; boot \
                    with lockdown=integrity"
                .to_owned();
        }
        if let Some(map) = &self.uid_map
            && map.split_whitespace().collect::<Vec<_>>() != ["0", "0", "4294967295"]
        {
            return "it runs in a user namespace, whose capabilities do not count here; run it as \
                    root of the host"
                .to_owned();
        }
        "its capabilities suffice, so a security module or a container's seccomp filter forbids it; \
         run altaz outside the container, or allow it bpf and perf_event_open"
            .to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_missing_capability_the_lockdown_or_the_namespace() {
        let dir = tempfile::tempdir().unwrap();
        let (proc, sys) = (dir.path().join("proc"), dir.path().join("sys"));
        std::fs::create_dir_all(proc.join("self")).unwrap();
        std::fs::create_dir_all(proc.join("thread-self")).unwrap();
        std::fs::create_dir_all(sys.join("kernel/security")).unwrap();
        let status = |caps: u64| {
            let text = format!("Name:\taltaz\nCapEff:\t{caps:016x}\nSeccomp:\t0\n");
            std::fs::write(proc.join("thread-self/status"), text).unwrap();
        };
        let why = || Surroundings::read(&proc, &sys).why(&[CAP_BPF, CAP_PERFMON]);

        status(0);
        assert!(why().contains("lacks CAP_BPF and CAP_PERFMON"), "{}", why());
        status(1 << 39);
        assert!(why().contains("lacks CAP_PERFMON;"), "{}", why());
        status(1 << 39 | 1 << 38);
        assert!(why().contains("seccomp"), "{}", why());
        std::fs::create_dir_all(proc.join("sys/kernel")).unwrap();
        std::fs::write(proc.join("sys/kernel/perf_event_paranoid"), "3\n").unwrap();
        assert!(why().contains("paranoid is 3"), "{}", why());
        std::fs::write(proc.join("sys/kernel/perf_event_paranoid"), "2\n").unwrap();
        let admin = Surroundings::read(&proc, &sys).why(&[CAP_SYS_ADMIN]);
        assert!(admin.contains("lacks CAP_SYS_ADMIN"), "{admin}");
        std::fs::write(proc.join("self/uid_map"), "  0  100000  65536\n").unwrap();
        assert!(why().contains("user namespace"), "{}", why());
        std::fs::write(sys.join("kernel/security/lockdown"), "none integrity [confidentiality]\n")
            .unwrap();
        assert!(why().contains("locked down"), "{}", why());
    }

    #[test]
    fn an_errno_becomes_words() {
        let e = BpfError::judge("load a program", "Linux 6.6")(io::Error::from_raw_os_error(
            libc::EINVAL,
        ));
        assert_eq!(e.to_string(), "this kernel cannot load a program: it needs Linux 6.6");
        let e = BpfError::judge("load a program", "")(io::Error::from_raw_os_error(libc::ENOMEM));
        assert!(e.to_string().starts_with("could not load a program: "), "{e}");
    }
}
