//! Where things are in the lab, and profiles out of it.

use std::time::Duration;

use altaz_lab::LabVm;
use altaz_profile::{Profile, file};

use crate::Result;

/// Where altaz is in the lab.
pub const ALTAZ: &str = "/usr/local/bin/altaz";
/// Where control groups are.
pub const CGROUP: &str = "/sys/fs/cgroup";
/// Nothing takes longer.
pub const TIMEOUT: Option<Duration> = Some(Duration::from_secs(600));

/// A profile that was recorded in the lab.
pub fn profile(vm: &LabVm, path: &str) -> Result<Profile> {
    let dir = tempfile::tempdir()?;
    let local = dir.path().join("live.altaz");
    std::fs::write(&local, vm.get_file(path)?)?;
    Ok(file::read(&local)?)
}
