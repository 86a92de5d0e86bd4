//! The QEMU process: started in the private network, killed with altaz, reaped when dropped.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::libc;

use crate::child::die_with_parent;
use crate::console::Console;
use crate::error::{LabError, Result};
use crate::image::LabImage;
use crate::netns::NetNs;
use crate::places;
use crate::qemu::{Accel, Disk, Machine, Qemu};

/// The exact instrument, to be loaded into QEMU.
pub struct PluginAttach {
    /// The plugin's shared object.
    pub so_path: PathBuf,
    /// Further arguments for it (`key=value`); `fd=N` is added.
    pub args: Vec<String>,
    /// The plugin's end of the socket to the caller.
    pub socket: OwnedFd,
}

impl PluginAttach {
    /// A plugin and the caller's end of the socket to it. What is written into that before the
    /// boot waits there for the plugin.
    ///
    /// # Errors
    /// When no socket can be made.
    pub fn new(so_path: impl Into<PathBuf>) -> Result<(Self, UnixStream)> {
        let (here, there) =
            UnixStream::pair().map_err(LabError::system("make a socket for the plugin"))?;
        let attach = Self { so_path: so_path.into(), args: Vec::new(), socket: there.into() };
        Ok((attach, here))
    }
}

/// What QEMU is started with.
pub(super) struct Start<'a> {
    pub(super) qemu: &'a Qemu,
    pub(super) image: &'a LabImage,
    pub(super) services: Vec<PathBuf>,
    pub(super) initrd: File,
    pub(super) input: File,
    pub(super) tap: File,
    pub(super) plugin: Option<PluginAttach>,
    pub(super) memory_mib: u64,
    pub(super) cpus: u32,
    pub(super) accel: Accel,
    pub(super) kernel_arguments: &'a [String],
}

impl Start<'_> {
    /// Starts QEMU; returns it and the host's end of the control channel.
    pub(super) fn spawn(
        self,
        netns: &NetNs,
        console: &Console,
    ) -> Result<(QemuProcess, UnixStream)> {
        let pair = || UnixStream::pair().map_err(LabError::system("make a socket for the lab"));
        let (control, control_there) = pair()?;
        let (serial, serial_there) = pair()?;
        let (messages, messages_there) = io::pipe().map_err(LabError::system("make a pipe"))?;

        let kernel = self.image.kernel();
        let mut disks = vec![Disk { serial: "root", path: self.image.disk(), snapshot: true }];
        let serials: Vec<String> = (0..self.services.len()).map(places::service_serial).collect();
        for (serial, path) in serials.iter().zip(self.services) {
            disks.push(Disk { serial, path, snapshot: true });
        }
        let input = PathBuf::from(format!("/proc/self/fd/{}", self.input.as_raw_fd()));
        disks.push(Disk { serial: "input", path: input, snapshot: false });
        let plugin = self.plugin.as_ref().map(|p| {
            let mut args = vec![format!("fd={}", p.socket.as_raw_fd())];
            args.extend(p.args.iter().cloned());
            (p.so_path.as_path(), args)
        });
        let mut append = String::from("console=ttyS0 quiet panic=-1 rdinit=/init");
        for word in self.kernel_arguments {
            append.push(' ');
            append.push_str(word);
        }
        let mut inherited: Vec<RawFd> = vec![
            self.initrd.as_raw_fd(),
            self.input.as_raw_fd(),
            self.tap.as_raw_fd(),
            control_there.as_raw_fd(),
            serial_there.as_raw_fd(),
        ];
        inherited.extend(self.plugin.as_ref().map(|p| p.socket.as_raw_fd()));
        let arguments = Machine {
            accel: self.accel,
            cpus: self.cpus,
            memory_mib: self.memory_mib,
            kernel: &kernel,
            initrd: self.initrd.as_raw_fd(),
            append,
            disks,
            tap: self.tap.as_raw_fd(),
            control: control_there.as_raw_fd(),
            console: serial_there.as_raw_fd(),
            plugin,
        }
        .arguments();

        console
            .follow("altaz-console", serial)
            .and_then(|_| console.follow("altaz-qemu-messages", messages))
            .map_err(LabError::system("start a thread"))?;
        let mut command = command(&self.qemu.program);
        command.args(arguments).stdin(Stdio::null()).process_group(0);
        // What it says goes to the console's tail, standard output too.
        let second = messages_there.try_clone().map_err(LabError::system("make a pipe"))?;
        command.stdout(second).stderr(messages_there);
        // SAFETY: the closure calls prctl and fcntl only, which are async-signal-safe; its vector
        // was allocated before the fork.
        unsafe {
            command.pre_exec(move || {
                die_with_parent()?;
                inherited.iter().try_for_each(|&fd| inherit(fd))
            });
        }
        // On the namespace's thread: QEMU must live in that network and die with that thread.
        let child = netns.run(move || command.spawn()).map_err(LabError::system("start QEMU"))?;
        Ok((QemuProcess::new(child, netns.clone()), control))
    }
}

#[allow(clippy::disallowed_methods, reason = "the one VM process; child.rs is for tools that end")]
fn command(program: &Path) -> Command {
    Command::new(program)
}

/// Lets the next program have this descriptor.
fn inherit(fd: RawFd) -> io::Result<()> {
    // SAFETY: fcntl with F_SETFD takes no memory.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A QEMU; dropping it kills and reaps it.
pub(super) struct QemuProcess {
    pid: u32,
    state: Mutex<State>,
    /// QEMU dies with the namespace's thread, so that one must live as long.
    _netns: NetNs,
}

struct State {
    child: Child,
    ended: Option<ExitStatus>,
}

impl QemuProcess {
    fn new(child: Child, netns: NetNs) -> Self {
        let state = Mutex::new(State { ended: None, child });
        let pid = state.lock().unwrap_or_else(PoisonError::into_inner).child.id();
        Self { pid, state, _netns: netns }
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its end, if it has come.
    pub(super) fn ended(&self) -> Option<ExitStatus> {
        let mut state = self.state();
        if state.ended.is_none() {
            state.ended = state.child.try_wait().ok().flatten();
        }
        state.ended
    }

    /// Waits for its end.
    pub(super) fn wait(&self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            let ended = self.ended();
            if ended.is_some() || Instant::now() >= deadline {
                return ended;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// In words, after its control channel broke.
    pub(super) fn how_it_ended(&self) -> String {
        match self.wait(Duration::from_secs(2)) {
            None => "its control channel broke while QEMU still runs".into(),
            Some(status) => match (status.code(), status.signal()) {
                (Some(0), _) => "it powered off or its kernel panicked".into(),
                (Some(code), _) => format!("QEMU ended with code {code}"),
                (None, Some(libc::SIGKILL)) => {
                    "QEMU was killed (by the user, or because memory ran out)".into()
                }
                (None, signal) => format!("QEMU was ended by signal {}", signal.unwrap_or(0)),
            },
        }
    }

    pub(super) fn kill(&self) {
        if self.ended().is_none() {
            let mut state = self.state();
            // A process that just ended cannot be killed and need not be.
            let _ = state.child.kill();
            state.ended = state.child.wait().ok();
        }
    }
}

impl Drop for QemuProcess {
    fn drop(&mut self) {
        self.kill();
    }
}
