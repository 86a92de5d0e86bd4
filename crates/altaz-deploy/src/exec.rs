//! The one place that starts processes in the lab: commands that end, and children that stay.
//!
//! Commands are logged, time out, and keep the tail of their standard error. Waiting blocks on a
//! pidfd; nothing here polls. Output goes to anonymous memory files or to a log file, never to a
//! pipe that somebody would have to drain while the service runs.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::libc;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::DeployError;

/// Search path for the lab's own tools.
pub const LAB_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Bytes of output that errors and log tails show.
const TAIL: u64 = 4096;

/// A command line that runs to its end.
#[derive(Debug, Clone)]
pub struct Tool<'a> {
    argv: Vec<String>,
    timeout: Duration,
    input: &'a [u8],
    output: Option<&'a Path>,
    spot: Spot,
}

/// Where a process runs. The default is where the agent is.
#[derive(Debug, Clone, Default)]
pub struct Spot {
    /// Cgroup directory that the process enters.
    pub cgroup: Option<PathBuf>,
    /// Network namespace that it enters.
    pub netns: Option<PathBuf>,
    /// A private mount namespace in which a tmpfs hides this directory, as seen from a network
    /// namespace: (namespace, directory).
    pub hide: Option<(PathBuf, PathBuf)>,
    /// Root directory, then working directory in it.
    pub root: Option<(PathBuf, PathBuf)>,
    /// User, group and supplementary groups, set last.
    pub ids: Option<(u32, u32, Vec<u32>)>,
    /// Files that it finds open for reading under these descriptor numbers, from [`FIRST_HANDED`].
    pub handed: Vec<(RawFd, PathBuf)>,
}

/// Lowest descriptor number that can be handed over: above those that the agent itself has open.
pub const FIRST_HANDED: RawFd = 200;

impl<'a> Tool<'a> {
    /// A command with the default timeout of 30 s.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            timeout: Duration::from_secs(30),
            input: &[],
            output: None,
            spot: Spot::default(),
        }
    }

    /// Another timeout.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Bytes for its standard input.
    pub fn input(mut self, input: &'a [u8]) -> Self {
        self.input = input;
        self
    }

    /// A file that gets its output and that of what it leaves behind.
    pub fn output(mut self, file: &'a Path) -> Self {
        self.output = Some(file);
        self
    }

    /// Where it runs.
    pub fn spot(mut self, spot: Spot) -> Self {
        self.spot = spot;
        self
    }

    /// Runs it and returns its standard output.
    ///
    /// # Errors
    /// When it cannot start, ends with another code than 0, or does not end in time (then it is
    /// killed). The error has the tail of its standard error.
    pub fn run(self) -> Result<Vec<u8>, DeployError> {
        let line = self.argv.join(" ");
        let fail = |how: String, stderr: String| DeployError::Command {
            command: line.clone(),
            how,
            stderr,
        };
        let io = |e: io::Error| fail(format!("could not be started: {e}"), String::new());
        let mut input = memory_file("input").map_err(io)?;
        input.write_all(self.input).and_then(|()| input.rewind()).map_err(io)?;
        let (mut out, mut err) = match self.output {
            Some(path) => {
                let file = append(path).map_err(io)?;
                (file.try_clone().map_err(io)?, file)
            }
            None => (memory_file("out").map_err(io)?, memory_file("err").map_err(io)?),
        };
        let stdio = Stdio3 {
            stdin: input.into(),
            stdout: out.try_clone().map_err(io)?.into(),
            stderr: err.try_clone().map_err(io)?.into(),
        };
        let began = Instant::now();
        let mut child = spawn(&self.argv, &[], &self.spot, stdio)?;
        let status = child.wait(self.timeout);
        if status.is_none() {
            child.signal(Signal::KILL);
            child.wait(Duration::from_secs(5));
        }
        log(&format!("{} ms  {line}", began.elapsed().as_millis()));
        let how = match status {
            Some(s) if s.success() => {
                let mut bytes = Vec::new();
                if self.output.is_none() {
                    out.rewind().and_then(|()| out.read_to_end(&mut bytes)).map_err(io)?;
                }
                return Ok(bytes);
            }
            Some(s) => describe(s),
            None => format!("did not end within {} s and was killed", self.timeout.as_secs()),
        };
        let stderr = match self.output {
            Some(path) => tail(path),
            None => tail_of_file(&mut err),
        };
        Err(fail(how, stderr))
    }
}

/// Standard streams of a child.
pub struct Stdio3 {
    /// Standard input.
    pub stdin: Stdio,
    /// Standard output.
    pub stdout: Stdio,
    /// Standard error.
    pub stderr: Stdio,
}

impl Stdio3 {
    /// No input, and both outputs appended to a file.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn logged(log: &Path) -> io::Result<Self> {
        let file = append(log)?;
        Ok(Self { stdin: Stdio::null(), stdout: file.try_clone()?.into(), stderr: file.into() })
    }
}

/// A child that stays.
#[derive(Debug)]
pub struct Child {
    child: std::process::Child,
    pidfd: OwnedFd,
    ended: Option<ExitStatus>,
}

impl Child {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended; `None` while it runs. Does not block.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// Blocks until it ended or the time is over.
    pub fn wait(&mut self, timeout: Duration) -> Option<ExitStatus> {
        if self.ended.is_none() && wait_pidfd(&self.pidfd, timeout) {
            self.ended = self.child.wait().ok();
        }
        self.ended
    }

    /// Sends a signal; nothing happens if it has ended.
    pub fn signal(&self, signal: Signal) {
        if self.ended.is_none() {
            let _ = rustix::process::pidfd_send_signal(&self.pidfd, signal);
        }
    }

    /// Writes to its standard input, if that is a pipe.
    ///
    /// # Errors
    /// When it does not read any more.
    pub fn tell(&mut self, words: &str) -> io::Result<()> {
        match &mut self.child.stdin {
            Some(pipe) => pipe.write_all(words.as_bytes()).and_then(|()| pipe.flush()),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

/// Blocks until the process of a pidfd has ended or the time is over; true if it has ended.
pub fn wait_pidfd(pidfd: impl AsFd, timeout: Duration) -> bool {
    let end = Instant::now() + timeout;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let spec = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&spec)) {
            Ok(n) => return n > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// A descriptor of a process that is not necessarily a child.
///
/// # Errors
/// When there is no such process.
pub fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// Starts a child that stays.
///
/// # Errors
/// When a place that it should run in is not there or the program cannot be executed.
pub fn spawn(
    argv: &[String],
    env: &[(String, String)],
    spot: &Spot,
    stdio: Stdio3,
) -> Result<Child, DeployError> {
    let line = argv.join(" ");
    let fail =
        |how: String| DeployError::Command { command: line.clone(), how, stderr: String::new() };
    let [program, arguments @ ..] = argv else { return Err(fail("is empty".into())) };
    #[expect(clippy::disallowed_methods, reason = "this is the module that starts programs")]
    let mut command = Command::new(program);
    command.args(arguments).env_clear();
    if env.is_empty() {
        command.env("PATH", LAB_PATH).env("HOME", "/root").env("LANG", "C.UTF-8");
    } else {
        command.envs(env.iter().map(|(k, v)| (k, v)));
    }
    command.stdin(stdio.stdin).stdout(stdio.stdout).stderr(stdio.stderr);
    let entry = Entry::prepare(spot).map_err(|e| fail(format!("could not be started: {e}")))?;
    // SAFETY: `Entry::enter` makes system calls on values prepared before the fork, without
    // allocating or locking.
    unsafe { command.pre_exec(move || entry.enter()) };
    let child = command.spawn().map_err(|e| fail(format!("could not be started: {e}")))?;
    let pidfd = pidfd(child.id()).map_err(|e| fail(format!("cannot be watched: {e}")))?;
    Ok(Child { child, pidfd, ended: None })
}

/// A [`Spot`] with everything opened, to be entered between fork and exec.
struct Entry {
    cgroup: Option<File>,
    netns: Option<File>,
    hide: Option<(File, File, CString)>,
    root: Option<(CString, CString)>,
    ids: Option<(u32, u32, Vec<u32>)>,
    handed: Vec<(RawFd, File)>,
}

impl Entry {
    fn prepare(spot: &Spot) -> io::Result<Self> {
        let named =
            |p: &Path, e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", p.display()));
        let open = |p: &PathBuf| File::open(p).map_err(|e| named(p, e));
        let c = |p: &Path| CString::new(p.as_os_str().as_bytes()).map_err(io::Error::from);
        let procs = |dir: &PathBuf| {
            let file = dir.join("cgroup.procs");
            File::options().write(true).open(&file).map_err(|e| named(&file, e))
        };
        Ok(Self {
            cgroup: spot.cgroup.as_ref().map(procs).transpose()?,
            netns: spot.netns.as_ref().map(open).transpose()?,
            hide: match &spot.hide {
                Some((ns, dir)) => Some((File::open("/proc/self/ns/net")?, open(ns)?, c(dir)?)),
                None => None,
            },
            root: match &spot.root {
                Some((root, dir)) => Some((c(root)?, c(dir)?)),
                None => None,
            },
            ids: spot.ids.clone(),
            handed: spot
                .handed
                .iter()
                .map(|(number, path)| Ok((*number, open(path)?)))
                .collect::<io::Result<_>>()?,
        })
    }

    /// Runs in the child: only system calls, no allocation.
    fn enter(&self) -> io::Result<()> {
        fn ok(rc: libc::c_int) -> io::Result<()> {
            if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
        }
        let setns = |f: &File| {
            let fd: RawFd = f.as_raw_fd();
            // SAFETY: no memory arguments.
            ok(unsafe { libc::setns(fd, libc::CLONE_NEWNET) })
        };
        // SAFETY: no memory arguments. A session of its own: signals to the agent's terminal or
        // group do not reach it.
        ok(unsafe { libc::setsid() })?;
        for (number, file) in &self.handed {
            // SAFETY: no memory arguments. A duplicate stays open in the program.
            ok(unsafe { libc::dup2(file.as_raw_fd(), *number) })?;
        }
        if let Some(file) = &self.cgroup {
            (&*file).write_all(b"0")?;
        }
        if let Some((home, other, dir)) = &self.hide {
            let none = std::ptr::null();
            // SAFETY: no memory arguments.
            ok(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
            let private = libc::MS_REC | libc::MS_PRIVATE;
            // SAFETY: NUL-terminated strings that outlive the call; source and data may be null.
            ok(unsafe { libc::mount(none, c"/".as_ptr(), none, private, none.cast()) })?;
            setns(other)?;
            let (kind, flags) = (c"tmpfs".as_ptr(), libc::MS_NOSUID | libc::MS_NODEV);
            // SAFETY: as above.
            ok(unsafe { libc::mount(c"none".as_ptr(), dir.as_ptr(), kind, flags, none.cast()) })?;
            setns(home)?;
        }
        if let Some(file) = &self.netns {
            setns(file)?;
        }
        if let Some((root, dir)) = &self.root {
            // SAFETY: NUL-terminated strings that outlive the calls.
            ok(unsafe { libc::chroot(root.as_ptr()) })?;
            // SAFETY: as above.
            ok(unsafe { libc::chdir(dir.as_ptr()) })?;
        }
        if let Some((uid, gid, groups)) = &self.ids {
            // SAFETY: the list outlives the call and has the given length.
            ok(unsafe { libc::setgroups(groups.len(), groups.as_ptr()) })?;
            // SAFETY: no memory arguments.
            ok(unsafe { libc::setgid(*gid) })?;
            // SAFETY: no memory arguments.
            ok(unsafe { libc::setuid(*uid) })?;
        }
        Ok(())
    }
}

/// `exited with code 1`, `was killed by signal 9`.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".into(),
    }
}

/// The end of a log file, empty when there is none.
pub fn tail(path: &Path) -> String {
    File::open(path).map(|mut f| tail_of_file(&mut f)).unwrap_or_default()
}

fn tail_of_file(file: &mut File) -> String {
    let mut bytes = Vec::new();
    let read = file.seek(SeekFrom::End(0)).and_then(|len| {
        file.seek(SeekFrom::Start(len.saturating_sub(TAIL)))?;
        file.read_to_end(&mut bytes)
    });
    if read.is_err() {
        return String::new();
    }
    // A guest's console ends its lines as a terminal does.
    let text = String::from_utf8_lossy(&bytes).replace('\r', "");
    // A tail that was cut begins in the middle of a line.
    match text.split_once('\n') {
        Some((_, rest)) if bytes.len() as u64 == TAIL => rest.to_owned(),
        _ => text,
    }
}

fn append(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).read(true).open(path)
}

fn memory_file(name: &str) -> io::Result<File> {
    Ok(File::from(rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC)?))
}

/// Appends a line to the lab's own log of what deployments did, if the lab is there.
fn log(line: &str) {
    if let Ok(mut file) = File::options().append(true).open("/run/altaz/deploy.log") {
        let _ = writeln!(file, "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_is_reported_with_its_code_and_last_words() {
        let e =
            Tool::new(["sh", "-c", "echo first; echo last words >&2; exit 3"]).run().unwrap_err();
        let text = e.to_string();
        assert!(text.contains("exited with code 3"), "{text}");
        assert!(text.contains("last words"), "{text}");
    }

    #[test]
    fn a_command_that_hangs_is_killed() {
        let tool = Tool::new(["sleep", "60"]).timeout(Duration::from_millis(100));
        let text = tool.run().unwrap_err().to_string();
        assert!(text.contains("did not end"), "{text}");
    }

    #[test]
    fn output_comes_back_although_an_orphan_keeps_it_open() {
        let out = Tool::new(["sh", "-c", "sleep 2 & cat"]).input(b"through").run().unwrap();
        assert_eq!(out, b"through");
    }

    #[test]
    fn a_missing_program_is_named() {
        let text = Tool::new(["/does/not/exist"]).run().unwrap_err().to_string();
        assert!(
            text.contains("/does/not/exist") && text.contains("could not be started"),
            "{text}"
        );
    }
}
