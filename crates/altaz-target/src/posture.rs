//! What a process may do besides making system calls, from `/proc`: capabilities, namespaces, user id
//! map, no_new_privs, security modules, devices.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use altaz_profile::model::Posture;
use rustix::thread::CapabilitySet;

use crate::process::{self, NAMESPACES, text};
use crate::roots::Roots;
use crate::seccomp::{Mode, field};
use crate::target::{Process, Role};

/// Device nodes of a root's `/dev` and its directories are listed up to this number; the host's own
/// `/dev` is not listed.
const DEVICES: usize = 64;

/// The posture of a process; `None` when it has ended, for threads of the kernel, and where its
/// namespaces may not be read: half a posture would look like a harmless one.
pub fn posture(roots: &Roots, process: &Process) -> Option<Posture> {
    if process.role == Role::KernelWorker {
        return None;
    }
    let pid = process.pid;
    let status = text(&roots.of(pid, "status"))?;
    let number = |name: &str| field(&status, name)?.split_ascii_whitespace().next()?.parse().ok();
    Some(Posture {
        role: process.role.as_str().into(),
        comm: process.comm.clone(),
        tgid: pid,
        // Real, effective, saved, file system.
        uid: number("Uid")?,
        capabilities: capabilities(field(&status, "CapEff")),
        bounding: capabilities(field(&status, "CapBnd")),
        namespaces: foreign(roots, pid)?,
        uid_map: uid_map(&text(&roots.of(pid, "uid_map")).unwrap_or_default()),
        no_new_privs: field(&status, "NoNewPrivs") == Some("1"),
        seccomp: Mode::of_status(&status).as_str().into(),
        lsm: labels(roots, pid),
        devices: devices(roots, pid),
    })
}

/// Names of a capability mask as `status` prints it. Bits that the table does not know keep their
/// number.
fn capabilities(mask: Option<&str>) -> Vec<String> {
    let Some(mask) = mask.and_then(|m| u64::from_str_radix(m, 16).ok()) else { return Vec::new() };
    let set = CapabilitySet::from_bits_retain(mask);
    let known = set.iter_names().map(|(name, _)| format!("CAP_{name}"));
    let unknown = mask & !CapabilitySet::all_named().bits();
    let bits = (0..64).filter(move |bit| unknown >> bit & 1 == 1).map(|bit| format!("CAP_{bit}"));
    known.chain(bits).collect()
}

/// The capabilities that have a name.
trait Named {
    fn all_named() -> Self;
}

impl Named for CapabilitySet {
    fn all_named() -> Self {
        Self::from_bits_retain(u64::MAX).iter_names().map(|(_, flag)| flag).collect()
    }
}

/// Kinds of namespaces that are not the host's; `None` where they may not be read.
fn foreign(roots: &Roots, pid: u32) -> Option<Vec<String>> {
    let (host, own) = (process::host_namespaces(roots), process::namespaces(roots, pid));
    let differs =
        |kind: &&&str| matches!((host.get(**kind), own.get(**kind)), (Some(a), Some(b)) if a != b);
    Some(NAMESPACES.iter().filter(differs).map(|k| (*k).to_owned()).collect())
}

/// Lines of a map of user ids, with single spaces.
fn uid_map(text: &str) -> Vec<String> {
    text.lines().map(|l| l.split_ascii_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// Labels of the security modules. `attr/current` belongs to the first module that uses it; others
/// have directories of their own.
fn labels(roots: &Roots, pid: u32) -> Vec<String> {
    let read = |file: &str| {
        let label = text(&roots.of(pid, "attr").join(file))?;
        let label = label.trim_end_matches(['\0', '\n']).to_owned();
        (!label.is_empty()).then_some(label)
    };
    let own: Vec<String> = ["apparmor", "smack"]
        .iter()
        .filter_map(|lsm| Some(format!("{lsm}:{}", read(&format!("{lsm}/current"))?)))
        .collect();
    let current = read("current").filter(|c| !own.iter().any(|o| o.ends_with(&format!(":{c}"))));
    // A label of SELinux is `user:role:type:level`; AppArmor's is a profile with its mode, or
    // `unconfined`.
    let named = current.map(|c| {
        let selinux = c.matches(':').count() >= 3;
        let module = if selinux { "selinux" } else { "apparmor" };
        format!("{module}:{c}")
    });
    own.into_iter().chain(named).collect()
}

/// Device nodes: those that it has open, and those in its root where that is not the host's. With
/// their numbers. Terminals and `/dev/null` are devices, too.
fn devices(roots: &Roots, pid: u32) -> Vec<String> {
    let mut found = BTreeSet::new();
    for (fd, link) in process::open_files(roots, pid) {
        if link.starts_with("/dev/") {
            let node = roots.of(pid, "fd").join(fd.to_string());
            found.extend(fs::metadata(node).ok().and_then(|m| device(&link, &m)));
        }
    }
    let same = |a: &Path, b: &Path| match (fs::metadata(a), fs::metadata(b)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    };
    let dev = roots.of(pid, "root").join("dev");
    if !same(&dev, &roots.of(1, "root").join("dev")) {
        for (at, shown) in
            [("", "/dev"), ("net", "/dev/net"), ("dri", "/dev/dri"), ("vfio", "/dev/vfio")]
        {
            for entry in fs::read_dir(dev.join(at)).into_iter().flatten().flatten().take(256) {
                let name = format!("{shown}/{}", entry.file_name().to_string_lossy());
                // Links are not followed: they would lead into the host's root.
                let node = fs::symlink_metadata(entry.path()).ok();
                found.extend(node.and_then(|m| device(&name, &m)));
            }
        }
    }
    found.into_iter().take(DEVICES).collect()
}

/// Name and numbers of a device node.
fn device(name: &str, node: &fs::Metadata) -> Option<String> {
    let kind = node.file_type();
    if !kind.is_char_device() && !kind.is_block_device() {
        return None;
    }
    let (major, minor) = (rustix::fs::major(node.rdev()), rustix::fs::minor(node.rdev()));
    Some(format!("{name} {major}:{minor}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_have_the_names_of_the_kernel_and_new_ones_keep_their_number() {
        assert_eq!(capabilities(Some("0000000000000001")), ["CAP_CHOWN"]);
        assert_eq!(capabilities(Some("0000000000000000")), Vec::<String>::new());
        assert_eq!(capabilities(Some("000001ffffffffff")).len(), 41);
        assert_eq!(capabilities(Some("0000020000200000")), ["CAP_SYS_ADMIN", "CAP_41"]);
        // The default of container engines.
        let docker = capabilities(Some("00000000a80425fb"));
        let mut want: Vec<&str> = altaz_deploy::seccomp::CAPABILITIES.to_vec();
        let mut have: Vec<&str> = docker.iter().map(String::as_str).collect();
        want.sort_unstable();
        have.sort_unstable();
        assert_eq!(have, want);
    }

    #[test]
    fn a_map_of_users_is_kept_line_by_line() {
        let text = "         0     100000      65536\n     65536          1          1\n";
        assert_eq!(uid_map(text), ["0 100000 65536", "65536 1 1"]);
    }
}
