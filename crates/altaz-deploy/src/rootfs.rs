//! Views of the service's image: the mounted disk itself, and an overlay on it.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::{DeployError, LabEnv};

/// Whether the service writes to the image itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Only read: something is laid over it.
    ReadOnly,
    /// Written. The disk is a throw-away copy of the image in every lab.
    ReadWrite,
}

/// Mounted file systems, unmounted in reverse when dropped.
#[derive(Debug, Default)]
pub struct Mounts(Vec<PathBuf>);

impl Mounts {
    /// Mounts one file system, making the directory where needed.
    ///
    /// # Errors
    /// When the kernel refuses; the error names source and target.
    pub fn add(
        &mut self,
        source: &Path,
        target: &Path,
        kind: &str,
        flags: MsFlags,
        data: Option<&str>,
    ) -> Result<(), DeployError> {
        let what = || format!("mount {kind} {} on {}", source.display(), target.display());
        fs::create_dir_all(target).map_err(DeployError::system(what()))?;
        mount(Some(source), target, Some(kind), flags, data)
            .map_err(DeployError::system(what()))?;
        self.0.push(target.to_owned());
        Ok(())
    }

    /// Unmounts everything.
    ///
    /// # Errors
    /// When a file system could only be detached because something still uses it; all others are
    /// unmounted all the same.
    pub fn remove(&mut self) -> Result<(), DeployError> {
        let mut result = Ok(());
        while let Some(target) = self.0.pop() {
            if let Err(e) = umount2(&target, MntFlags::empty()) {
                let _ = umount2(&target, MntFlags::MNT_DETACH);
                result = Err(DeployError::system(format!("unmount {}", target.display()))(e));
            }
        }
        result
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        let _ = self.remove();
    }
}

/// Mounts the image's disk; returns its directory.
///
/// # Errors
/// When there is no such disk or it is not an ext4 file system.
pub fn image(lab: &LabEnv, mounts: &mut Mounts, access: Access) -> Result<PathBuf, DeployError> {
    let target = lab.run.join("image");
    let flags = match access {
        Access::ReadOnly => MsFlags::MS_RDONLY,
        Access::ReadWrite => MsFlags::empty(),
    };
    mounts.add(&lab.image_disk, &target, "ext4", flags, None)?;
    Ok(target)
}

/// The image below a fresh writable layer on the lab's own disk; returns the merged directory.
///
/// # Errors
/// As [`image`], or when the kernel has no overlay file system.
pub fn overlay(lab: &LabEnv, mounts: &mut Mounts) -> Result<PathBuf, DeployError> {
    let lower = image(lab, mounts, Access::ReadOnly)?;
    let scratch = lab.scratch.join("overlay");
    // A former layer would be a former database.
    match fs::remove_dir_all(&scratch) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(DeployError::system(format!("empty {}", scratch.display()))(e));
        }
        _ => {}
    }
    let (upper, work) = (scratch.join("upper"), scratch.join("work"));
    for dir in [&upper, &work] {
        fs::create_dir_all(dir).map_err(DeployError::system(format!("make {}", dir.display())))?;
    }
    let data = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        upper.display(),
        work.display()
    );
    let target = lab.run.join("rootfs");
    mounts.add(Path::new("overlay"), &target, "overlay", MsFlags::empty(), Some(&data))?;
    Ok(target)
}

/// What a root needs to be lived in: `/proc`, `/sys`, `/dev`. For processes and guests; container
/// runtimes mount their own. `/run` and `/tmp` are the image's, as they are in a container.
///
/// # Errors
/// When the kernel refuses one of them.
pub fn live_in(root: &Path, mounts: &mut Mounts) -> Result<(), DeployError> {
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let safe = quiet | MsFlags::MS_NOEXEC;
    let mut on = |kind: &str, at: &str, flags, data| {
        mounts.add(Path::new(kind), &root.join(at), kind, flags, data)
    };
    on("proc", "proc", safe, None)?;
    on("sysfs", "sys", safe, None)?;
    on("devtmpfs", "dev", MsFlags::MS_NOSUID, None)?;
    on("devpts", "dev/pts", MsFlags::MS_NOSUID, Some("mode=620,ptmxmode=666"))?;
    on("tmpfs", "dev/shm", quiet, Some("mode=1777"))
}
