//! A tracing instance of altaz's own, and its end under every circumstance.
//!
//! Everything that is written to tracefs is written here or in [`crate::filter`], below
//! `instances/altaz-PID-STARTTIME`: never the top-level tracer, never somebody else's instance. The name tells
//! the next altaz whose instance it is, so that what a killed altaz left is found and removed ([`orphans`]).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::io::Errno;

use crate::error::FtraceError;

/// Begins the name of every instance that altaz makes with this crate.
const PREFIX: &str = "altaz-";
/// How often and how long removal waits for readers that are just closing.
const REMOVE_TRIES: u32 = 40;
const REMOVE_WAIT: Duration = Duration::from_millis(25);

/// A tracing instance; removed on drop.
#[derive(Debug)]
pub struct Instance {
    path: PathBuf,
    removed: bool,
}

impl Instance {
    /// Makes `instances/altaz-PID-STARTTIME` (with `-2`, `-3` … behind when this process has one already).
    ///
    /// # Errors
    /// When tracefs is not there, not writable, or the kernel has no function tracer.
    pub fn create(tracefs: &Path, proc: &Path) -> Result<Self, FtraceError> {
        let instances = tracefs.join("instances");
        if !tracefs.join("trace_clock").exists() && !instances.is_dir() {
            // A directory that may not be searched looks like one that is not there.
            return Err(match fs::read_dir(tracefs) {
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                    FtraceError::from_io(tracefs, "looking for tracefs", e)
                }
                _ => FtraceError::NotMounted { path: tracefs.to_path_buf() },
            });
        }
        let tracers = read(&tracefs.join("available_tracers"))?;
        if !tracers.split_whitespace().any(|t| t == "function") {
            let path = tracefs.join("available_tracers");
            return Err(FtraceError::NoFunctionTracer { path, offers: tracers.trim().to_owned() });
        }
        let functions = tracefs.join("available_filter_functions");
        if !functions.exists() {
            let offers = "no filter functions".to_owned();
            return Err(FtraceError::NoFunctionTracer { path: functions, offers });
        }
        let enabled = proc.join("sys/kernel/ftrace_enabled");
        if fs::read_to_string(enabled).is_ok_and(|t| t.trim() == "0") {
            return Err(FtraceError::SwitchedOff);
        }
        let pid = std::process::id();
        let start = start_time(proc, pid).unwrap_or(0);
        for number in 1..100 {
            let suffix = if number == 1 { String::new() } else { format!("-{number}") };
            let path = instances.join(format!("{PREFIX}{pid}-{start}{suffix}"));
            match fs::create_dir(&path) {
                Ok(()) => {
                    let instance = Self { path, removed: false };
                    instance.write("tracing_on", "0")?;
                    return Ok(instance);
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => {
                    return Err(match Errno::from_io_error(&e) {
                        Some(Errno::NOMEM) => FtraceError::Memory { kb: 0 },
                        _ => FtraceError::from_io(&path, "making a tracing instance", e),
                    });
                }
            }
        }
        Err(FtraceError::Busy { path: instances, what: "making a tracing instance" })
    }

    /// Where the instance is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file of the instance.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a value to a file of the instance, in one `write()`, replacing what was there.
    ///
    /// # Errors
    /// In words, with the file.
    pub fn write(&self, name: &str, value: &str) -> Result<(), FtraceError> {
        self.put(name, value, true)
    }

    /// Writes a value behind what is there.
    ///
    /// # Errors
    /// In words, with the file.
    pub fn append(&self, name: &str, value: &str) -> Result<(), FtraceError> {
        self.put(name, value, false)
    }

    fn put(&self, name: &str, value: &str, replace: bool) -> Result<(), FtraceError> {
        let path = self.file(name);
        open(&path, replace)
            .and_then(|mut file| file.write_all(value.as_bytes()))
            .map_err(|e| FtraceError::from_io(&path, "writing", e))
    }

    /// Switches recording; no kernel text changes.
    ///
    /// # Errors
    /// In words.
    pub fn set_recording(&self, on: bool) -> Result<(), FtraceError> {
        self.write("tracing_on", if on { "1" } else { "0" })
    }

    /// Sets the size of the ring buffer in kB a CPU, halving it down to 64 while memory is short. Returns the size.
    ///
    /// # Errors
    /// When not even the smallest can be had.
    pub fn set_buffer(&self, kb: u32) -> Result<u32, FtraceError> {
        let mut size = kb.max(SMALLEST_KB);
        loop {
            let path = self.file("buffer_size_kb");
            match open(&path, true).and_then(|mut f| f.write_all(size.to_string().as_bytes())) {
                Ok(()) => return Ok(size),
                Err(e) if Errno::from_io_error(&e) == Some(Errno::NOMEM) => {
                    if size == SMALLEST_KB {
                        return Err(FtraceError::Memory { kb: size });
                    }
                    size = (size / 2).max(SMALLEST_KB);
                }
                Err(e) => return Err(FtraceError::from_io(&path, "sizing the buffer", e)),
            }
        }
    }

    /// CPUs that may ever be there.
    pub fn cpus(&self) -> usize {
        fs::read_dir(self.file("per_cpu")).map_or(1, |d| d.filter_map(Result::ok).count())
    }

    /// Switches off and removes the instance. Raw files must be closed before, or the tracer stays busy.
    ///
    /// # Errors
    /// When it is still there after a second of trying.
    pub fn remove(mut self) -> Result<(), FtraceError> {
        self.removed = true;
        remove(&self.path)
    }
}

/// The smallest buffer that is tried, in kB a CPU.
const SMALLEST_KB: u32 = 64;

impl Drop for Instance {
    fn drop(&mut self) {
        if !self.removed {
            // The next altaz finds what could not be removed here.
            let _ = remove(&self.path);
        }
    }
}

/// Opens for writing without creating: a file that is not there must not be made in a fake tree or elsewhere.
fn open(path: &Path, replace: bool) -> io::Result<File> {
    OpenOptions::new().write(true).truncate(replace).append(!replace).open(path)
}

/// Reads a file of tracefs. Some of its files answer a second read with nothing (`events/header_event` does), so
/// that a reader which begins with a small piece gets no more than that piece: begin with a large one.
pub(crate) fn read(path: &Path) -> Result<String, FtraceError> {
    let read = || {
        let mut file = File::open(path)?;
        let mut text = Vec::new();
        let mut piece = vec![0; 64 << 10];
        loop {
            match file.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => text.extend_from_slice(piece.get(..n).unwrap_or_default()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        String::from_utf8(text).map_err(|_| io::ErrorKind::InvalidData.into())
    };
    read().map_err(|e| FtraceError::from_io(path, "reading", e))
}

/// Tracing off, tracer off (which restores the kernel's text), directory away.
fn remove(path: &Path) -> Result<(), FtraceError> {
    for (name, value) in [("tracing_on", "0"), ("current_tracer", "nop")] {
        // A tracer that is busy goes away with the directory; that is what is reported.
        for _ in 0..REMOVE_TRIES {
            let file = path.join(name);
            match open(&file, true).and_then(|mut f| f.write_all(value.as_bytes())) {
                Err(e) if Errno::from_io_error(&e) == Some(Errno::BUSY) => sleep(REMOVE_WAIT),
                _ => break,
            }
        }
    }
    let mut tries = 0;
    loop {
        match fs::remove_dir(path) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) if tries < REMOVE_TRIES && Errno::from_io_error(&e) == Some(Errno::BUSY) => {
                tries += 1;
                sleep(REMOVE_WAIT);
            }
            Err(e) => {
                return Err(FtraceError::from_io(path, "removing the tracing instance", e));
            }
        }
    }
}

/// An instance of an altaz that is dead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// The instance's directory.
    pub path: PathBuf,
    /// The process that made it.
    pub pid: u32,
}

impl Orphan {
    /// Removes it.
    ///
    /// # Errors
    /// When it is still there after a second of trying: somebody has a file of it open.
    pub fn remove(self) -> Result<(), FtraceError> {
        remove(&self.path)
    }
}

/// Instances whose altaz is dead: the process is gone, or another one has its number. `proc` must show the
/// processes of the whole machine: an altaz in another pid namespace would look dead.
pub fn orphans(tracefs: &Path, proc: &Path) -> Vec<Orphan> {
    let Ok(entries) = fs::read_dir(tracefs.join("instances")) else { return Vec::new() };
    let mut found: Vec<Orphan> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            let (pid, start) = owner(&name)?;
            let dead = start_time(proc, pid) != Some(start);
            dead.then(|| Orphan { path: entry.path(), pid })
        })
        .collect();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// `altaz-PID-STARTTIME` or `altaz-PID-STARTTIME-NUMBER`.
fn owner(name: &str) -> Option<(u32, u64)> {
    let mut parts = name.strip_prefix(PREFIX)?.split('-');
    let pid = parts.next()?.parse().ok()?;
    let start = parts.next()?.parse().ok()?;
    match (parts.next(), parts.next()) {
        (None, _) => Some((pid, start)),
        (Some(number), None) if number.parse::<u32>().is_ok() => Some((pid, start)),
        _ => None,
    }
}

/// When the process started, in clock ticks since boot: field 22 of `/proc/PID/stat`, behind the last `)`. `None` when
/// it is gone, or dead and not yet collected by its parent (state `Z` or `X`).
pub(crate) fn start_time(proc: &Path, pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}
