//! Writes function filters of an instance by line number.
//!
//! The kernel consumes **one token per `write()`** of a filter file and returns how far it got: a buffer written
//! at once arms or disarms one function and drops the rest without an error. So each token is a write of its own.
//! All tokens between an open and its close take effect together, at the close, which is where kernel text is
//! patched.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::error::FtraceError;
use crate::instance::Instance;
use crate::quiet::quietly;

/// Which of an instance's filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// `set_ftrace_filter`: what is traced; empty means everything.
    Only,
    /// `set_ftrace_notrace`: what is not.
    Not,
}

impl Filter {
    fn file(self) -> &'static str {
        match self {
            Self::Only => "set_ftrace_filter",
            Self::Not => "set_ftrace_notrace",
        }
    }
}

/// Whether lines replace what a filter holds, join it, or leave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Replace all.
    Set,
    /// Add.
    Add,
    /// Take away.
    Remove,
}

/// Changes a filter by the 1-based line numbers of `available_filter_functions`. Returns the CPU
/// time that it took, which is what others went without.
///
/// # Errors
/// In words, with the file.
pub fn change(
    instance: &Instance,
    filter: Filter,
    change: Change,
    lines: impl IntoIterator<Item = u32>,
) -> Result<Duration, FtraceError> {
    let lines: Vec<u32> = lines.into_iter().collect();
    quietly(|| change_now(instance, filter, change, lines))
}

/// The same, not behind everybody else: as long as it takes, a service runs into what is to be disarmed.
///
/// # Errors
/// In words, with the file.
pub fn change_now(
    instance: &Instance,
    filter: Filter,
    change: Change,
    lines: impl IntoIterator<Item = u32>,
) -> Result<Duration, FtraceError> {
    let path = instance.file(filter.file());
    let started = cpu_time();
    let result = write_tokens(&path, change, lines);
    let took = cpu_time().saturating_sub(started);
    result.map_err(|e| FtraceError::from_io(&path, "filtering", e))?;
    Ok(took)
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn write_tokens(
    path: &Path,
    change: Change,
    lines: impl IntoIterator<Item = u32>,
) -> io::Result<()> {
    let replace = change == Change::Set;
    let mut file = OpenOptions::new().write(true).truncate(replace).append(!replace).open(path)?;
    let mut token = Vec::with_capacity(16);
    for line in lines {
        token.clear();
        let sign = if change == Change::Remove { "!" } else { "" };
        writeln!(token, "{sign}{line}")?;
        write_token(&mut file, &token)?;
    }
    Ok(())
}

/// One token, going on from what the kernel took.
fn write_token(file: &mut impl Write, token: &[u8]) -> io::Result<()> {
    let mut rest = token;
    while !rest.is_empty() {
        match file.write(rest) {
            // A token that names nothing (its module is gone) is refused with EINVAL; the others count.
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => rest = rest.get(n..).unwrap_or_default(),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes one token a call, as the kernel does, and forgets what else was in the call.
    #[derive(Default)]
    struct Kernel {
        tokens: Vec<String>,
    }

    impl Write for Kernel {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            let text = String::from_utf8_lossy(buf);
            let token = text.split_whitespace().next().unwrap_or_default().to_owned();
            if token == "!7" {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let taken = text.find(&token).unwrap_or(0) + token.len();
            self.tokens.extend((!token.is_empty()).then_some(token));
            Ok(taken.max(1))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_kernel_that_takes_one_token_a_write_gets_them_all() {
        let mut kernel = Kernel::default();
        for token in ["12\n", "!7\n", "13\n"] {
            write_token(&mut kernel, token.as_bytes()).unwrap();
        }
        assert_eq!(kernel.tokens, ["12", "13"]);
    }

    #[test]
    fn tokens_are_appended_or_replace() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("set_ftrace_notrace");
        assert!(write_tokens(&path, Change::Add, [1]).is_err(), "never creates a file");
        std::fs::write(&path, "").unwrap();
        write_tokens(&path, Change::Add, [5, 6]).unwrap();
        write_tokens(&path, Change::Remove, [5]).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "5\n6\n!5\n");
        write_tokens(&path, Change::Set, [9]).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "9\n");
    }
}
