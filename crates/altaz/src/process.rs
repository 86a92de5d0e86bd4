//! The one place of this crate that starts programs: output kept, time limited, killed with
//! everything it started, and killed by the kernel if altaz dies.

use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::load::Abort;

/// How much of each output stream is kept, from its end, in bytes.
pub const TAIL: usize = 16 << 10;

/// A program to run.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// Name or path.
    pub program: &'a str,
    /// Arguments.
    pub args: &'a [String],
    /// Working directory; `None` keeps altaz's own.
    pub dir: Option<&'a Path>,
    /// When it is killed.
    pub timeout: Duration,
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// By itself.
    Exit(ExitStatus),
    /// It took too long and was killed.
    TimedOut,
    /// The abort callback gave this reason, and it was killed.
    Aborted(String),
}

impl Ended {
    /// What happened, to be put after the program's name; `None` when it succeeded.
    pub fn failure(&self) -> Option<String> {
        match self {
            Self::Exit(status) if status.success() => None,
            Self::Exit(status) => Some(match (status.code(), status.signal()) {
                (Some(code), _) => format!("ended with status {code}"),
                (None, Some(signal)) => format!("was killed by signal {signal}"),
                (None, None) => "ended without a status".to_owned(),
            }),
            Self::TimedOut => Some("took too long and was killed".to_owned()),
            Self::Aborted(reason) => Some(format!("was stopped: {reason}")),
        }
    }
}

/// A program that has ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// How.
    pub ended: Ended,
    /// The last [`TAIL`] bytes of its standard output, as text.
    pub stdout: String,
    /// The same of its standard error.
    pub stderr: String,
}

/// Runs a program to its end, in the calling thread's namespaces, without standard input.
///
/// # Errors
/// When it cannot be started or waited for.
pub fn run(job: &Job<'_>, abort: &Abort<'_>) -> std::io::Result<Finished> {
    let deadline = Instant::now() + job.timeout;
    let mut child = spawn(job)?;
    let (out, err) = (read_tail(child.stdout.take()), read_tail(child.stderr.take()));
    let ended = wait(&mut child, deadline, abort)?;
    // What a killed program's descendants still hold open must not make us wait.
    let text = |stream: mpsc::Receiver<Vec<u8>>| {
        let bytes = stream.recv_timeout(Duration::from_secs(2)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Ok(Finished { ended, stdout: text(out), stderr: text(err) })
}

fn spawn(job: &Job<'_>) -> std::io::Result<Child> {
    #[allow(clippy::disallowed_methods, reason = "this is the place where programs are started")]
    let mut command = Command::new(job.program);
    command.args(job.args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0);
    if let Some(dir) = job.dir {
        command.current_dir(dir);
    }
    // SAFETY: the closure runs in the forked child before exec and makes one prctl call, which is
    // async-signal-safe and allocates nothing.
    unsafe {
        command.pre_exec(|| {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            Ok(())
        });
    }
    command.spawn()
}

/// Reads a stream to its end on a thread of its own, so that no pipe ever blocks the program.
fn read_tail(stream: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut tail, mut chunk) = (Vec::new(), [0_u8; 8192]);
        if let Some(mut stream) = stream {
            while let Ok(n @ 1..) = stream.read(&mut chunk) {
                tail.extend_from_slice(chunk.get(..n).unwrap_or_default());
                if tail.len() > 2 * TAIL {
                    tail.drain(..tail.len() - TAIL);
                }
            }
        }
        let excess = tail.len().saturating_sub(TAIL);
        tail.drain(..excess);
        let _ = send.send(tail);
    });
    receive
}

fn wait(child: &mut Child, deadline: Instant, abort: &Abort<'_>) -> std::io::Result<Ended> {
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Ended::Exit(status));
        }
        if let Some(reason) = abort() {
            kill_group(child);
            return Ok(Ended::Aborted(reason));
        }
        if Instant::now() >= deadline {
            kill_group(child);
            return Ok(Ended::TimedOut);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Kills the child with everything it started (it leads a process group of its own) and reaps it.
fn kill_group(child: &mut Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
    let _ = child.wait();
}
