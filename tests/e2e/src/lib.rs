//! Helpers of the whole-program tests: running altaz as a user would.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

pub mod browser;
pub mod lab;
pub mod left;
pub mod live;
pub mod recorded;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// What the processor was doing when a function of the kernel was entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum During {
    /// A system call, page fault or start of the service, outside interrupts.
    Service,
    /// A hardware interrupt.
    Interrupt,
    /// A softirq.
    Softirq,
    /// The idle task.
    Idle,
    /// A kernel thread.
    KernelThread,
    /// Another program of the lab.
    OtherTask,
}

/// Root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The altaz under test: `ALTAZ_BIN`, else the one of the same build as the test.
///
/// # Panics
/// When there is none.
pub fn altaz_program() -> PathBuf {
    if let Some(path) = std::env::var_os("ALTAZ_BIN") {
        return path.into();
    }
    // target/debug/deps/TEST → target/debug/altaz
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("altaz");
    assert!(path.is_file(), "{} is not there: run `cargo build` first", path.display());
    path
}

/// A command with nothing on its standard input and without the settings of whoever runs the test.
pub fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    #[allow(clippy::disallowed_methods, reason = "this is the place where tests start programs")]
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    for name in ["ALTAZ_CONFIG", "ALTAZ_QEMU", "ALTAZ_PLUGIN", "ALTAZ_AGENT", "ALTAZ_RECIPE"] {
        command.env_remove(name);
    }
    command
}

/// What a run of altaz did.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ran {
    /// Checks the exit code and that each text is in the messages.
    ///
    /// # Panics
    /// When it is otherwise.
    #[track_caller]
    pub fn expect(&self, code: i32, messages: &[&str]) -> &Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        for message in messages {
            assert!(self.stderr.contains(message), "no {message:?} in {self:#?}");
        }
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
        self
    }
}

/// Runs altaz in a directory of its own and waits for it.
pub fn altaz(args: &[&str]) -> Ran {
    let dir = tempfile::tempdir().unwrap();
    altaz_in(dir.path(), args)
}

/// Runs altaz in a directory and waits for it.
pub fn altaz_in(dir: &Path, args: &[&str]) -> Ran {
    command(altaz_program()).args(args).current_dir(dir).output().unwrap().into()
}

/// Children of a process, whichever of its threads started them.
pub fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok())
        .flat_map(|list| list.split_whitespace().filter_map(|p| p.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// Waits until none of these processes is there any more.
///
/// # Panics
/// When one still is after ten seconds.
pub fn wait_gone(pids: &[u32]) {
    let begin = std::time::Instant::now();
    let there = |pid: &&u32| Path::new(&format!("/proc/{pid}")).exists();
    while let Some(pid) = pids.iter().find(there) {
        assert!(begin.elapsed().as_secs() < 10, "process {pid} is still there");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
