//! Programs: loading them, and what the verifier says when it refuses.
//!
//! A program is only held by its descriptor and by what it is attached to.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::asm::{Asm, Insn};
use crate::error::BpfError;
use crate::sys::{self, ATTACH_UPROBE_MULTI, ProgSpec};

/// What a program is attached to, which decides what it may call and what its `R1` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A tracepoint, with its fields as its `format` file says.
    Tracepoint,
    /// A raw tracepoint: an array of the 64-bit arguments given to it.
    RawTracepoint,
    /// A probe on a perf event of the `uprobe` PMU: `pt_regs`.
    Uprobe,
    /// A probe in an uprobe_multi link: `pt_regs` (Linux 6.6).
    UprobeMulti,
}

impl Kind {
    fn number(self) -> u32 {
        match self {
            Self::Uprobe | Self::UprobeMulti => 2,
            Self::Tracepoint => 5,
            Self::RawTracepoint => 17,
        }
    }
}

/// Most of a verifier's log that is kept, in bytes; the end says what is wrong.
const LOG: usize = 1 << 16;
const LOG_SHOWN: usize = 2000;

/// A loaded program.
#[derive(Debug)]
pub struct Program {
    fd: OwnedFd,
    kind: Kind,
    name: String,
}

impl Program {
    /// Loads a program.
    ///
    /// # Errors
    /// When the program cannot be put together, or the kernel refuses it: for lack of a capability,
    /// for its kind, or with the verifier's words.
    pub fn load(kind: Kind, name: &str, asm: Asm) -> Result<Self, BpfError> {
        let insns = asm.finish()?;
        Self::load_insns(kind, name, &insns)
    }

    /// Loads instructions.
    ///
    /// # Errors
    /// As [`Program::load`].
    pub fn load_insns(kind: Kind, name: &str, insns: &[Insn]) -> Result<Self, BpfError> {
        let expected_attach_type = if kind == Kind::UprobeMulti { ATTACH_UPROBE_MULTI } else { 0 };
        let spec = ProgSpec { kind: kind.number(), name, insns, expected_attach_type };
        // Without a log first: it costs the verifier time.
        let fd = match sys::prog_load(&spec, &mut []) {
            Ok(fd) => fd,
            Err(first) => {
                let mut log = vec![0; LOG];
                match sys::prog_load(&spec, &mut log) {
                    Ok(fd) => fd,
                    Err(_) => return Err(refused(name, kind, first, &log)),
                }
            }
        };
        Ok(Self { fd, kind, name: name.to_owned() })
    }

    /// What it can be attached to.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Runs that the kernel skipped because the CPU was inside a BPF program or in altaz's own
    /// work on a map; `None` where the kernel does not say (before Linux 5.12). Those of
    /// tracepoints are counted here since Linux 6.7.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn misses(&self) -> Result<Option<u64>, BpfError> {
        sys::prog_misses(self.fd())
            .map_err(BpfError::system(format!("ask for skipped runs of {}", self.name)))
    }
}

fn refused(name: &str, kind: Kind, error: std::io::Error, log: &[u8]) -> BpfError {
    let log =
        String::from_utf8_lossy(log.split(|b| *b == 0).next().unwrap_or_default()).into_owned();
    let log = log.trim_end();
    // With words of the verifier it got past the question who may: the program is at fault, or a
    // helper is withheld.
    let spoke = log.lines().any(|l| !l.starts_with("processed ") && !l.trim().is_empty());
    if spoke {
        let start = log.len().saturating_sub(LOG_SHOWN);
        let start = (start..=log.len()).find(|i| log.is_char_boundary(*i)).unwrap_or(0);
        let log = log.get(start..).unwrap_or(log).to_owned();
        return BpfError::Verifier { program: name.to_owned(), log, source: error };
    }
    let needs = match kind {
        Kind::UprobeMulti => "Linux 6.6 with CONFIG_UPROBES and CONFIG_BPF_EVENTS",
        Kind::Tracepoint | Kind::RawTracepoint | Kind::Uprobe => "CONFIG_BPF_EVENTS",
    };
    BpfError::judge(format!("load the BPF program {name}"), needs)(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn the_verifiers_last_words_are_kept_and_an_errno_without_words_is_judged() {
        let mut log = b"0: R1=ctx\n".repeat(400);
        log.extend_from_slice(b"R0 !read_ok\n\0\0\0");
        let error = io::Error::from_raw_os_error(libc::EACCES);
        let e = refused("p", Kind::Tracepoint, error, &log).to_string();
        assert!(e.ends_with("R0 !read_ok"), "{e}");
        assert!(e.len() < LOG_SHOWN + 300);
        let error = io::Error::from_raw_os_error(libc::EINVAL);
        let e = refused("p", Kind::UprobeMulti, error, b"\0").to_string();
        assert!(e.contains("Linux 6.6"), "{e}");
    }
}
