//! A cgroup (version 2) of its own for each deployment: everything that it started can be found and
//! ended, and nothing else.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::DeployError;

/// Where the lab mounts the hierarchy.
pub const ROOT: &str = "/sys/fs/cgroup";

/// A cgroup that is emptied and removed when dropped.
#[derive(Debug)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes `name` under `root`.
    ///
    /// # Errors
    /// When the hierarchy is not mounted or cannot be written.
    pub fn create(root: &Path, name: &str) -> Result<Self, DeployError> {
        let path = root.join(name);
        match fs::create_dir(&path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                Err(DeployError::system(format!("make the cgroup {}", path.display()))(e))
            }
            _ => Ok(Self(path)),
        }
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Kills every process in it and waits until it is empty.
    ///
    /// # Errors
    /// When processes are left after 5 s.
    pub fn kill(&self) -> Result<(), DeployError> {
        let what = || format!("empty the cgroup {}", self.0.display());
        let events = fs::File::open(self.0.join("cgroup.events"));
        let events = events.map_err(DeployError::system(what()))?;
        fs::write(self.0.join("cgroup.kill"), "1").map_err(DeployError::system(what()))?;
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let mut text = String::new();
            io::Seek::rewind(&mut &events)
                .and_then(|()| io::Read::read_to_string(&mut &events, &mut text))
                .map_err(DeployError::system(what()))?;
            if text.contains("populated 0") {
                return Ok(());
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(DeployError::Service(format!(
                    "processes in the cgroup {} survived being killed",
                    self.0.display()
                )));
            }
            let spec =
                Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            let _ = poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&spec));
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = self.kill();
        let _ = fs::remove_dir(&self.0);
    }
}
