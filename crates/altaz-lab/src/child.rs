//! The one place that runs tools on the host: output to the progress display, the tail kept for
//! the error, killed with altaz or when the user interrupts.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{LabError, Result};
use crate::interrupt::Interrupt;

/// Lines of a tool's output that an error shows.
const TAIL_LINES: usize = 20;

/// A tool to run, and what to say when it is missing or fails.
pub(crate) struct Tool<'a> {
    pub(crate) program: &'a str,
    /// What errors call it: the program, or the one that it starts.
    pub(crate) name: &'a str,
    /// Debian package that has it.
    pub(crate) package: &'static str,
    /// What is being done ("building the lab image").
    pub(crate) what: &'a str,
    /// What it is needed for ("build images").
    pub(crate) needed_to: &'static str,
    /// What to do when it fails.
    pub(crate) hint: &'static str,
}

impl Tool<'_> {
    /// Runs the tool to its end; every line it prints goes to `line`.
    pub(crate) fn run<A: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = A>,
        env: &[(&str, &OsStr)],
        interrupt: &Interrupt,
        line: &mut dyn FnMut(&str),
    ) -> Result<()> {
        let system = || LabError::system(format!("run {}", self.program));
        let (mut reader, writer) = io::pipe().map_err(system())?;
        #[allow(clippy::disallowed_methods, reason = "this is the place where tools are run")]
        let mut command = Command::new(self.program);
        command.args(args).envs(env.iter().copied()).env("LC_ALL", "C.UTF-8");
        command.stdin(Stdio::null()).process_group(0);
        command.stdout(writer.try_clone().map_err(system())?).stderr(writer);
        // SAFETY: prctl is async-signal-safe and takes no memory here.
        unsafe { command.pre_exec(die_with_parent) };
        let mut child = command.spawn().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => LabError::ToolMissing {
                tool: self.program.to_owned(),
                package: self.package,
                needed_to: self.needed_to,
            },
            _ => LabError::system(format!("run {}", self.program))(source),
        })?;
        drop(command); // and with it this side's copies of the pipe's writing end
        let mut tail = Tail::default();
        let outcome = pump(&mut reader, interrupt, &mut |text| {
            tail.push(text);
            line(text);
        });
        if outcome.is_err() {
            // SAFETY: kill has no memory arguments; the group is the child's own.
            unsafe { libc::kill(-(child.id() as i32), libc::SIGKILL) };
        }
        let status = child.wait().map_err(system())?;
        outcome?;
        if status.success() {
            return Ok(());
        }
        Err(LabError::ToolFailed {
            what: self.what.to_owned(),
            tool: self.name.to_owned(),
            status: format!("ended with {status}"),
            tail: tail.text(),
            hint: self.hint,
        })
    }
}

/// For `pre_exec`: the kernel kills the child when the thread that started it dies.
pub(crate) fn die_with_parent() -> io::Result<()> {
    // SAFETY: prctl with PR_SET_PDEATHSIG takes no memory.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[derive(Default)]
struct Tail {
    lines: VecDeque<String>,
}

impl Tail {
    fn push(&mut self, line: &str) {
        if self.lines.len() == TAIL_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line.to_owned());
    }

    fn text(&self) -> String {
        self.lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

/// Reads lines until every writer is gone, or the user interrupts.
fn pump(
    reader: &mut io::PipeReader,
    interrupt: &Interrupt,
    line: &mut dyn FnMut(&str),
) -> Result<()> {
    let mut pending: Vec<u8> = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        interrupt.check()?;
        let mut fds = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(200u16)) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => continue,
            Ok(_) => {}
            Err(e) => return Err(LabError::system("read a tool's output")(e)),
        }
        let n = reader.read(&mut buffer).map_err(LabError::system("read a tool's output"))?;
        pending.extend_from_slice(&buffer[..n]);
        while let Some(end) = pending.iter().position(|&b| b == b'\n' || b == b'\r') {
            let text = String::from_utf8_lossy(&pending[..end]).into_owned();
            pending.drain(..=end);
            if !text.is_empty() {
                line(&text);
            }
        }
        if n == 0 {
            if !pending.is_empty() {
                line(&String::from_utf8_lossy(&pending));
            }
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(program: &str) -> Tool<'_> {
        Tool {
            program,
            name: program,
            package: "p",
            what: "testing",
            needed_to: "test",
            hint: "do this",
        }
    }

    #[test]
    fn a_failing_tool_is_reported_with_what_it_said_last() {
        let script = "for i in $(seq 50); do echo line $i; done; echo no space >&2; exit 3";
        let mut lines = 0;
        let error = tool("sh")
            .run(["-c", script], &[], &Interrupt::new(), &mut |_| lines += 1)
            .unwrap_err()
            .to_string();
        assert_eq!(lines, 51);
        assert!(error.contains("exit status: 3") && error.contains("no space"), "{error}");
        assert!(error.contains("line 50") && !error.contains("line 31"), "{error}");
        assert!(error.ends_with("do this"), "{error}");
    }

    #[test]
    fn a_missing_tool_names_its_package() {
        let run = tool("altaz-no-such-tool").run([""], &[], &Interrupt::new(), &mut |_| {});
        assert!(run.unwrap_err().to_string().contains("apt install p"));
    }

    #[test]
    fn an_interrupted_tool_is_killed() {
        let interrupt = Interrupt::new();
        let begin = std::time::Instant::now();
        let other = interrupt.clone();
        let run =
            tool("sh").run(["-c", "echo up; sleep 60"], &[], &interrupt, &mut |_| other.set());
        assert!(matches!(run, Err(LabError::Interrupted)));
        assert!(begin.elapsed().as_secs() < 10);
    }
}
