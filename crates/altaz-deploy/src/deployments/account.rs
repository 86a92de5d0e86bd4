//! A machine with accounts: one kernel and one userland for all, several Unix users. What `login` and
//! `login-hardened` share.
//!
//! The machine's userland is the service's image: the packages that the service needs are installed
//! by the provider, for everybody. The tenant has an account; a neighbour has another and a process
//! that only waits. What the image keeps for users of the service other than root (a database's
//! directory, a log) is handed over to the tenant's account, as an administrator would; the whole
//! service then runs as that one user, without any capability.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, lchown};
use std::path::{Path, PathBuf};

use altaz_profile::model::{Layer, Owner};

use super::started::Neighbour;
use super::{need_path, need_program};
use crate::cgroup::{self, Cgroup};
use crate::exec::{self, Spot, Stdio3};
use crate::layers::{self, Sharing};
use crate::net::Namespace;
use crate::rootfs::{self, Access, Mounts};
use crate::{DeployError, Description, LabEnv, ServiceSpec, Unavailable};

/// The tenant's account.
pub(super) const TENANT: &str = "tenant";
const NEIGHBOUR: &str = "neighbour";
/// User and group id of the tenant; the neighbour's are one more.
pub(super) const TENANT_ID: u32 = 20_001;
const NEIGHBOUR_ID: u32 = TENANT_ID + 1;

/// Layers, owners and rules of a service under an account.
pub(super) fn describe(name: &str, spec: &ServiceSpec) -> Description {
    let mut layers = vec![layers::layer(Layer::App, Owner::Tenant, Sharing::PerTenant)];
    for userland in [Layer::LanguageRuntime, Layer::Library] {
        layers.push(layers::layer(userland, Owner::Provider, Sharing::Shared));
    }
    layers.push(layers::layer(Layer::HostKernel, Owner::Provider, Sharing::Shared));
    Description {
        name: name.into(),
        layers,
        boundaries: vec![layers::unfiltered_syscalls(Layer::App, Layer::HostKernel)],
        rules: layers::bare_rules(spec),
        split_binaries: Vec::new(),
        blind_spots: layers::common_blind_spots(),
        notes: vec![
            "libraries and interpreters are one installation for every user of the machine and the \
             provider's to mend, so they count as shared beside the kernel; the machine's daemons and \
             programs with other users' rights are not traversed and are listed as reachable"
                .into(),
        ],
    }
}

/// Whether the lab has what accounts need.
pub(super) fn available(lab: &LabEnv) -> Result<(), Unavailable> {
    need_program("ip", "iproute2")?;
    need_program("sleep", "coreutils")?;
    need_path(&lab.image_disk, "the service's disk", "attach a service image to the lab")
}

/// A machine made ready for its tenant.
pub(super) struct Machine {
    /// Its root.
    pub(super) root: PathBuf,
    /// Paths in it that belong to the tenant, the topmost ones.
    pub(super) given: Vec<PathBuf>,
    /// The service as the tenant runs it.
    pub(super) spec: ServiceSpec,
    /// The neighbour's process.
    pub(super) neighbour: Neighbour,
    /// The cgroup that the service is to enter.
    pub(super) cgroup: Cgroup,
    pub(super) mounts: Mounts,
    pub(super) namespace: Namespace,
}

/// Makes the machine: accounts, the tenant's own files, network, neighbour.
pub(super) fn prepare(lab: &LabEnv, spec: &ServiceSpec) -> Result<Machine, DeployError> {
    let mut mounts = Mounts::default();
    let root = rootfs::image(lab, &mut mounts, Access::ReadWrite)?;
    let mut given = hand_over(&root, TENANT_ID)
        .map_err(DeployError::system("hand the service's files over to the tenant's account"))?;
    given.push(
        add_accounts(&root).map_err(DeployError::system("add accounts to the service's image"))?,
    );
    rootfs::live_in(&root, &mut mounts)?;
    let namespace = Namespace::create(lab)?;
    let cgroup = Cgroup::create(cgroup::ROOT.as_ref(), "altaz-login")?;
    let spot = Spot {
        netns: Some(namespace.path()),
        ids: Some((NEIGHBOUR_ID, NEIGHBOUR_ID, vec![NEIGHBOUR_ID])),
        ..Spot::default()
    };
    let log = lab.run.join("neighbour.log");
    let stdio = Stdio3::logged(&log)
        .map_err(DeployError::system(format!("open the log {}", log.display())))?;
    let waits = ["sleep".to_owned(), "infinity".to_owned()];
    let neighbour = Neighbour { child: exec::spawn(&waits, &[], &spot, stdio)? };
    let mut spec = spec.clone();
    spec.service.user = TENANT.into();
    Ok(Machine { root, given, spec, neighbour, cgroup, mounts, namespace })
}

/// Gives what does not belong to root to the account; returns the topmost of these paths, as seen in
/// the root. Other file systems mounted below are left alone.
fn hand_over(root: &Path, id: u32) -> io::Result<Vec<PathBuf>> {
    let device = fs::symlink_metadata(root)?.dev();
    let mut given = Vec::new();
    // Directories with whether a parent is given already.
    let mut todo = vec![(root.to_owned(), false)];
    while let Some((dir, mine)) = todo.pop() {
        for entry in fs::read_dir(&dir)? {
            let (path, meta) = (entry.as_ref().map_err(again)?.path(), entry?.metadata()?);
            let mut inside = mine;
            if meta.uid() != 0 && meta.dev() == device {
                lchown(&path, Some(id), Some(id))?;
                if !mine && !meta.is_symlink() {
                    let seen = path.strip_prefix(root).unwrap_or(&path);
                    given.push(Path::new("/").join(seen));
                    inside = true;
                }
            }
            if meta.is_dir() && meta.dev() == device {
                todo.push((path, inside));
            }
        }
    }
    given.sort();
    Ok(given)
}

/// An error of a directory entry as a new one.
fn again(e: &io::Error) -> io::Error {
    io::Error::new(e.kind(), e.to_string())
}

/// Adds both accounts and the tenant's home, which it returns.
fn add_accounts(root: &Path) -> io::Result<PathBuf> {
    let append = |file: &str, text: String| {
        File::options().create(true).append(true).open(root.join(file))?.write_all(text.as_bytes())
    };
    let home = Path::new("/home").join(TENANT);
    for (name, id) in [(TENANT, TENANT_ID), (NEIGHBOUR, NEIGHBOUR_ID)] {
        append("etc/passwd", format!("{name}:x:{id}:{id}::/home/{name}:/bin/sh\n"))?;
        append("etc/group", format!("{name}:x:{id}:\n"))?;
        let home = root.join("home").join(name);
        fs::DirBuilder::new().recursive(true).mode(0o755).create(root.join("home"))?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&home)?;
        lchown(&home, Some(id), Some(id))?;
    }
    Ok(home)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_added_behind_those_that_are_there() {
        // Ownership can only be changed by root; that part is seen in the lab.
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
        let added = add_accounts(dir.path());
        let passwd = fs::read_to_string(dir.path().join("etc/passwd")).unwrap();
        let user = crate::launch::resolve(TENANT, &passwd, "").unwrap();
        assert_eq!((user.uid, user.home.as_str()), (TENANT_ID, "/home/tenant"));
        if nix::unistd::geteuid().is_root() {
            assert_eq!(added.unwrap(), Path::new("/home/tenant"));
        } else {
            assert_eq!(added.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        }
    }

    #[test]
    fn a_root_without_other_users_files_gives_nothing_away_to_root() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("var/lib/db/base")).unwrap();
        let id = nix::unistd::geteuid().as_raw();
        let given = hand_over(dir.path(), id).unwrap();
        // As another user than root everything here is that user's: only the topmost is told.
        let want: &[&Path] = if id == 0 { &[] } else { &[Path::new("/var")] };
        assert_eq!(given, want);
    }
}
