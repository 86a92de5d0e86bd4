//! A shell in the lab, on this terminal.

use std::io::Read;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use altaz_lab::LabVm;
use altaz_lab::protocol::{ExitStatus, RunRequest};
use altaz_lab::vm::Output;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use super::pass_on;

/// Runs a login shell until it ends. Without a terminal, commands are read from standard input.
pub(super) fn run(vm: &LabVm) -> anyhow::Result<ExitStatus> {
    let stdin = std::io::stdin();
    let raw = RawTerminal::enter();
    let tty = raw
        .as_ref()
        .map(|_| tcgetwinsize(&stdin).map_or((24, 80), |size| (size.ws_row, size.ws_col)));
    let request = RunRequest {
        argv: vec!["bash".into(), "-l".into()],
        stdin: true,
        tty,
        env: vec![("TERM".into(), std::env::var("TERM").unwrap_or_else(|_| "dumb".into()))],
        ..RunRequest::default()
    };
    let ended = AtomicBool::new(false);
    let status = std::thread::scope(|scope| {
        let ended = &ended;
        let status = vm.run_with(
            request,
            None,
            &mut |out| {
                // A closed output ends with the shell; there is nobody left to tell.
                let _ = match out {
                    Output::Stdout(data) => pass_on(&mut std::io::stdout().lock(), data),
                    Output::Stderr(data) => pass_on(&mut std::io::stderr().lock(), data),
                };
            },
            |handle| {
                scope.spawn(move || {
                    let _ = forward(ended, |data, eof| handle.stdin(data, eof).is_ok());
                });
                Ok(())
            },
        );
        ended.store(true, Ordering::SeqCst);
        status
    })?;
    drop(raw);
    Ok(status)
}

/// Passes standard input on until it, or the shell, ends.
fn forward(ended: &AtomicBool, send: impl Fn(&[u8], bool) -> bool) -> std::io::Result<()> {
    let stdin = std::io::stdin();
    let mut chunk = [0_u8; 4096];
    while !ended.load(Ordering::SeqCst) {
        let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
        let patience = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
        if poll(&mut fds, Some(&patience))? == 0 {
            continue;
        }
        let n = stdin.lock().read(&mut chunk)?;
        if !send(chunk.get(..n).unwrap_or_default(), n == 0) || n == 0 {
            break;
        }
    }
    Ok(())
}

/// The terminal without line editing and signals of its own, until this is dropped.
struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// `None` when standard input is no terminal.
    fn enter() -> Option<Self> {
        let stdin = std::io::stdin();
        let before = tcgetattr(stdin.as_fd()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin.as_fd(), OptionalActions::Flush, &raw).ok()?;
        Some(Self { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin().as_fd(), OptionalActions::Flush, &self.before);
    }
}
