//! The trace file system, wherever it is; and tracing that a dead altaz left behind.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// Where distributions mount it; the second one comes with debugfs on older systems.
const USUAL: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// The trace file system.
pub(crate) struct Tracefs {
    path: PathBuf,
    /// A mount that only this process can reach.
    _own: Option<OwnedFd>,
}

impl Tracefs {
    /// The mounted one, or a mount of altaz's own that is attached nowhere: nobody sees it, and it
    /// is gone with the process.
    pub(crate) fn find() -> Self {
        let usual = || USUAL.iter().map(PathBuf::from).find(|p| is_tracefs(p));
        match usual() {
            Some(path) => Self { path, _own: None },
            None => match detached() {
                Ok(mount) => Self {
                    path: PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd())),
                    _own: Some(mount),
                },
                // Whoever needs it will say what is missing.
                Err(_) => Self { path: USUAL[0].into(), _own: None },
            },
        }
    }

    /// Its root.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn is_tracefs(path: &Path) -> bool {
    path.join("README").is_file() && path.join("instances").is_dir()
}

fn detached() -> rustix::io::Result<OwnedFd> {
    let context = fsopen("tracefs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Removes the tracing instances of altaz processes that are dead, and says which ones. In a pid
/// namespace other than the machine's nobody can tell who is dead, and nothing is removed.
pub(crate) fn remove_orphans(tracefs: &Path) -> Vec<String> {
    if altaz_bpf::filter::sees_all_processes(Path::new("/proc")) == Some(false) {
        return Vec::new();
    }
    altaz_ftrace::instance::orphans(tracefs, Path::new("/proc"))
        .into_iter()
        .map(|orphan| {
            let name = orphan.path.display().to_string();
            let pid = orphan.pid;
            match orphan.remove() {
                Ok(()) => {
                    format!("removed {name}, which altaz {pid} left behind when it was killed")
                }
                Err(error) => format!("cannot remove {name}, left behind by altaz {pid}: {error}"),
            }
        })
        .collect()
}
