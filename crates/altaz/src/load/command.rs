//! A load that is a command of the user's, run outside the lab.
//!
//! The one place of this crate that starts processes.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::{Abort, ErrorKind, Latencies, LoadReport};

/// How much of the command's output is kept, in bytes.
const TAIL: usize = 16 << 10;

/// A command that puts load on the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLoad {
    /// Program and arguments; `{host}`, `{port}` and `{requests}` are replaced in each.
    pub argv: Vec<String>,
    /// Where the service listens.
    pub addr: SocketAddr,
    /// How many requests the command is asked to make.
    pub requests: u64,
    /// Directory that it runs in.
    pub workdir: Option<PathBuf>,
    /// When it is killed; an error.
    pub timeout: Duration,
}

impl CommandLoad {
    /// The load in words: the command before the address is put in.
    pub fn description(&self) -> String {
        self.argv.join(" ")
    }

    fn expand(&self, text: &str) -> String {
        text.replace("{host}", &self.addr.ip().to_string())
            .replace("{port}", &self.addr.port().to_string())
            .replace("{requests}", &self.requests.to_string())
    }
}

/// Runs the command to its end. Must be called in the network namespace from which the service is
/// reached.
///
/// # Errors
/// When the command cannot be started. That it failed is no error here: it is counted in the report.
pub fn run_command(load: &CommandLoad, abort: &Abort<'_>) -> Result<LoadReport, String> {
    let mut argv = load.argv.iter().map(|arg| load.expand(arg));
    let program = argv.next().ok_or("the load command is empty")?;
    let begin = Instant::now();
    let mut child = spawn(&program, argv.collect(), load)?;
    let output = collect_tail(&mut child);
    let ended = wait(&mut child, begin + load.timeout, abort);
    // What a killed command's descendants still hold open must not make us wait.
    let output_tail = match output.recv_timeout(Duration::from_secs(2)) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    };
    let elapsed = begin.elapsed();
    let (failure, aborted) = match ended {
        Ended::Exit(status) if status.success() => (None, None),
        Ended::Exit(status) => (Some(format!("{program} {}", in_words(status))), None),
        Ended::TimedOut => {
            let seconds = load.timeout.as_secs();
            (Some(format!("{program} was still running after {seconds} s and was killed")), None)
        }
        Ended::Aborted(reason) => (None, Some(reason)),
        Ended::Lost(why) => (Some(format!("waiting for {program}: {why}")), None),
    };
    let mut errors = BTreeMap::new();
    let first_error = failure.map(|what| {
        errors.insert(ErrorKind::Command, 1);
        match output_tail.trim().lines().next_back() {
            Some(line) => format!("{what}; its last line: {line}"),
            None => what,
        }
    });
    Ok(LoadReport {
        description: load.description(),
        asked: load.requests,
        sent: load.requests,
        errors,
        first_error,
        latencies: Latencies::default(),
        elapsed,
        aborted,
        output_tail,
    })
}

#[allow(clippy::disallowed_methods, reason = "this module times out, kills and reports its child")]
fn spawn(program: &str, args: Vec<String>, load: &CommandLoad) -> Result<Child, String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0);
    if let Some(dir) = &load.workdir {
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
    command.spawn().map_err(|e| {
        format!("the load command {program} cannot be started: {e}; install it, or correct load.command in the spec")
    })
}

/// Reads both streams to their end on threads of their own; the last [`TAIL`] bytes are sent when
/// both have ended.
fn collect_tail(child: &mut Child) -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel();
    let (out, err) = (child.stdout.take(), child.stderr.take());
    std::thread::spawn(move || {
        let errors = std::thread::spawn(move || err.map(read_tail).unwrap_or_default());
        let mut bytes = out.map(read_tail).unwrap_or_default();
        bytes.extend(errors.join().unwrap_or_default());
        let _ = send.send(bytes);
    });
    receive
}

fn read_tail(mut stream: impl Read) -> Vec<u8> {
    let (mut tail, mut chunk) = (Vec::new(), [0_u8; 8192]);
    while let Ok(n @ 1..) = stream.read(&mut chunk) {
        tail.extend_from_slice(chunk.get(..n).unwrap_or_default());
        if tail.len() > 2 * TAIL {
            tail.drain(..tail.len() - TAIL);
        }
    }
    let excess = tail.len().saturating_sub(TAIL);
    tail.drain(..excess);
    tail
}

enum Ended {
    Exit(ExitStatus),
    TimedOut,
    Aborted(String),
    Lost(std::io::Error),
}

fn wait(child: &mut Child, deadline: Instant, abort: &Abort<'_>) -> Ended {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ended::Exit(status),
            Ok(None) => {}
            Err(e) => return Ended::Lost(e),
        }
        if let Some(reason) = abort() {
            kill_group(child);
            return Ended::Aborted(reason);
        }
        if Instant::now() >= deadline {
            kill_group(child);
            return Ended::TimedOut;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Kills the child with everything it started (it leads a process group of its own) and reaps it.
fn kill_group(child: &mut Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
    let _ = child.wait();
}

fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended without a status".to_owned(),
    }
}
