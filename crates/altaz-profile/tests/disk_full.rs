//! A file system that is full. Needs root, for it mounts one; ignored without.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::fs;
use std::path::Path;

use altaz_profile::file::{self, FileError};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// A tmpfs of 64 kB, gone at the end of the test.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        mount("tmpfs", directory.path(), "tmpfs", MountFlags::empty(), Some(c"size=64k")).unwrap();
        SmallDisk(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = unmount(self.path(), UnmountFlags::empty());
    }
}

#[test]
#[ignore = "needs root: mounts a small tmpfs"]
fn a_full_disk_is_a_clear_error_and_the_earlier_profile_stays() {
    let disk = SmallDisk::new();
    let path = disk.path().join("web.altaz");
    let earlier = common::profile(40);
    file::write(&earlier, &path).unwrap();

    let error = file::write(&common::profile(50_000), &path).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, FileError::Write { .. }), "{text}");
    for part in [path.to_str().unwrap(), "No space left", "unchanged", "Free space there"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(file::read(&path).unwrap(), earlier);
    assert_eq!(fs::read_dir(disk.path()).unwrap().count(), 1, "nothing else is left");
}
