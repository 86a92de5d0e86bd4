//! `-- COMMAND`: the program is started but held before its first instruction until everything that
//! watches it is in place.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::thread::JoinHandle;

use anyhow::{Context, anyhow};
use rustix::fs::{Access, AtFlags, CWD};
use rustix::pipe::{PipeFlags, pipe_with};

/// A process that waits to become the command.
pub(crate) struct Held {
    /// Its process id.
    pub(crate) pid: u32,
    go: File,
    spawning: JoinHandle<std::io::Result<Child>>,
}

impl Held {
    /// Makes the process. It inherits altaz's rights, directory, environment and standard streams.
    ///
    /// # Errors
    /// When no process can be made.
    pub(crate) fn new(argv: &[String]) -> anyhow::Result<Self> {
        let (program, args) =
            argv.split_first().ok_or_else(|| anyhow!("there is no command to run"))?;
        #[allow(clippy::disallowed_methods, reason = "the user's own command, with no time-out")]
        let mut command = Command::new(found(program));
        command.arg0(program).args(args);
        let pipe = || pipe_with(PipeFlags::CLOEXEC).context("cannot make a pipe");
        let ((pid_read, pid_write), (go_read, go_write)) = (pipe()?, pipe()?);
        let other_end = go_write.as_raw_fd();
        // SAFETY: the closure runs in the forked child before exec and only calls close, getpid,
        // write and read, which are async-signal-safe and allocate nothing. `other_end` is the
        // child's copy of a descriptor that nothing in the child uses.
        unsafe {
            command.pre_exec(move || {
                // Else the pipe would stay open when altaz closes its end.
                rustix::io::close(other_end);
                let pid = rustix::process::getpid().as_raw_nonzero().get();
                rustix::io::write(&pid_write, &pid.to_ne_bytes())?;
                let mut go = [0_u8];
                match rustix::io::retry_on_intr(|| rustix::io::read(&go_read, &mut go))? {
                    1 => Ok(()),
                    // altaz has changed its mind, or is gone.
                    _ => Err(std::io::ErrorKind::Interrupted.into()),
                }
            });
        }
        // `spawn` returns only after exec, which is later.
        let spawning = std::thread::spawn(move || command.spawn());
        let mut pid = [0_u8; 4];
        if File::from(pid_read).read_exact(&mut pid).is_err() {
            let error = spawning.join().ok().and_then(Result::err);
            return Err(match error {
                Some(error) => anyhow!(error).context(format!("cannot start {program}")),
                None => anyhow!("cannot start {program}"),
            });
        }
        Ok(Self { pid: u32::from_ne_bytes(pid), go: File::from(go_write), spawning })
    }

    /// Lets it become the command.
    ///
    /// # Errors
    /// When the program is not there or cannot be executed.
    pub(crate) fn release(mut self, program: &str) -> anyhow::Result<Running> {
        let _ = self.go.write_all(&[1]);
        let child = match self.spawning.join() {
            Ok(child) => child.with_context(|| format!("cannot start {program}"))?,
            Err(_) => return Err(anyhow!("cannot start {program}")),
        };
        Ok(Running { child })
    }
}

/// Where a program is that `PATH` must be searched for. Searched here, and not by trying to execute
/// one path after the other, because these calls would be counted as the command's own. One that is
/// not found stays as it is: starting it says why.
fn found(program: &str) -> PathBuf {
    let here = PathBuf::from(program);
    if program.contains('/') {
        return here;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let executable = |file: &PathBuf| {
        file.is_file() && rustix::fs::accessat(CWD, file, Access::EXEC_OK, AtFlags::EACCESS).is_ok()
    };
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(executable).unwrap_or(here)
}

/// The command.
pub(crate) struct Running {
    child: Child,
}

impl Running {
    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Asks it to end, when altaz is asked to.
    pub(crate) fn terminate(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id() as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argv(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    #[test]
    fn the_command_runs_only_when_it_is_released() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ran").display().to_string();
        let held = Held::new(&argv(&["touch", &file])).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(!std::path::Path::new(&file).exists());
        let pid = held.pid;
        let mut running = held.release("touch").unwrap();
        assert_eq!(running.child.id(), pid, "the process that was announced");
        assert!(running.child.wait().unwrap().success());
        assert!(std::path::Path::new(&file).exists());
        assert!(running.ended().is_some());
    }

    #[test]
    fn a_program_is_searched_for_before_it_is_executed() {
        let touch = found("touch");
        assert!(touch.is_absolute() && touch.ends_with("touch"), "{touch:?}");
        assert_eq!(found("./touch"), PathBuf::from("./touch"));
        assert_eq!(found("no-such-program"), PathBuf::from("no-such-program"));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let held = Held::new(&argv(&["/no/such/program"])).unwrap();
        let error = held.release("/no/such/program").map(|_| ()).unwrap_err();
        assert!(format!("{error:#}").contains("/no/such/program"), "{error:#}");
    }

    #[test]
    fn a_held_command_that_is_given_up_never_runs() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ran").display().to_string();
        let held = Held::new(&argv(&["touch", &file])).unwrap();
        let Held { go, spawning, .. } = held;
        drop(go);
        assert!(spawning.join().unwrap().is_err());
        assert!(!std::path::Path::new(&file).exists());
    }
}
