//! Runs programs for the host and streams what they write.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nix::libc;

use super::control::Out;
use crate::places;
use crate::protocol::{CHUNK, Event, ExitStatus, RunRequest};

/// Where streamed input of a run goes, and whom signals reach.
struct Running {
    pid: i32,
    stdin: Option<File>,
}

/// The programs that run now, by request id.
#[derive(Default, Clone)]
pub(super) struct Runs {
    table: Arc<Mutex<HashMap<u64, Running>>>,
}

impl Runs {
    fn with<T>(&self, f: impl FnOnce(&mut HashMap<u64, Running>) -> T) -> T {
        f(&mut self.table.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Starts a program; output and end are reported from threads of its own.
    pub(super) fn start(&self, id: u64, request: &RunRequest, out: &Out) -> io::Result<()> {
        let (mut child, streams, stdin) = spawn(request)?;
        self.with(|t| t.insert(id, Running { pid: child.id() as i32, stdin }));
        let (runs, out) = (self.clone(), out.clone());
        thread::spawn(move || {
            let copies: Vec<_> = streams
                .into_iter()
                .map(|(event, stream)| {
                    let out = out.clone();
                    thread::spawn(move || copy(id, &event, stream, &out))
                })
                .collect();
            let status = child.wait();
            for copy in copies {
                let _ = copy.join();
            }
            runs.with(|t| t.remove(&id));
            let event = match status {
                Ok(status) => Event::Exit(match status.code() {
                    Some(code) => ExitStatus::Code(code),
                    None => ExitStatus::Signal(status.signal().unwrap_or(0)),
                }),
                Err(e) => Event::Failed(format!("waiting for the program: {e}")),
            };
            out.send(id, event, &[]);
        });
        Ok(())
    }

    /// Passes input on to a running program.
    pub(super) fn stdin(&self, target: u64, data: &[u8], eof: bool) -> io::Result<()> {
        let copy = self.with(|t| {
            let run = t.get_mut(&target)?;
            let copy = run.stdin.as_ref().map(File::try_clone);
            if eof {
                run.stdin = None;
            }
            copy
        });
        match copy {
            Some(file) => file?.write_all(data),
            None => Err(io::Error::new(io::ErrorKind::NotFound, "that program takes no input now")),
        }
    }

    /// Signals a running program's process group.
    pub(super) fn signal(&self, target: u64, signal: i32) -> io::Result<()> {
        let pid = self.with(|t| t.get(&target).map(|run| run.pid));
        let Some(pid) = pid else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "that program does not run"));
        };
        // SAFETY: kill has no memory arguments.
        if unsafe { libc::kill(-pid, signal) } == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

/// A program of the lab; the one place where the agent names one.
#[allow(clippy::disallowed_methods, reason = "the agent's one place that starts programs")]
pub(super) fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env_clear().env("PATH", places::PATH);
    command
}

type Streams = Vec<(Event, Box<dyn Read + Send>)>;

fn spawn(request: &RunRequest) -> io::Result<(Child, Streams, Option<File>)> {
    let [program, arguments @ ..] = request.argv.as_slice() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no program given"));
    };
    let mut command = self::program(program);
    command.args(arguments).env("HOME", "/root");
    command.env("LANG", "C.UTF-8").env("TERM", "xterm");
    command.envs(request.env.iter().map(|(k, v)| (k, v)));
    command.current_dir(request.cwd.as_deref().unwrap_or("/root"));
    let named = |e: io::Error| io::Error::new(e.kind(), format!("cannot run {program}: {e}"));
    if let Some((rows, columns)) = request.tty {
        let (master, slave) = open_pty(rows, columns)?;
        command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
        // SAFETY: setsid and ioctl are async-signal-safe and touch no memory.
        unsafe {
            command.pre_exec(|| {
                if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn().map_err(named)?;
        drop(command);
        let reader = File::from(master.try_clone()?);
        return Ok((child, vec![(Event::Stdout, Box::new(reader))], Some(File::from(master))));
    }
    command.process_group(0);
    command.stdin(if request.stdin { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(named)?;
    let mut streams: Streams = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        streams.push((Event::Stdout, Box::new(stdout)));
    }
    if let Some(stderr) = child.stderr.take() {
        streams.push((Event::Stderr, Box::new(stderr)));
    }
    let stdin = child.stdin.take().map(|s| File::from(OwnedFd::from(s)));
    Ok((child, streams, stdin))
}

fn copy(id: u64, event: &Event, mut from: Box<dyn Read + Send>, out: &Out) {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer) {
            // A terminal whose last user left reads as an error.
            Ok(0) => return,
            Ok(n) => out.send(id, event.clone(), &buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

fn open_pty(rows: u16, columns: u16) -> io::Result<(OwnedFd, OwnedFd)> {
    let (mut master, mut slave) = (-1, -1);
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the two out-pointers and the size live through the call; name and termios are null.
    let rc = unsafe {
        libc::openpty(&mut master, &mut slave, std::ptr::null_mut(), std::ptr::null(), &size)
    };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both descriptors are fresh and owned by nobody else.
    let (master, slave) = unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
    for fd in [&master, &slave] {
        // SAFETY: fcntl on an open descriptor without memory arguments.
        unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok((master, slave))
}
