//! The least rights that observing needs: everything else is dropped before anything is observed.
//!
//! The right to write into other users' directories is put aside where the profile goes into one
//! (root in a home directory): it is used for that one write, and for nothing before it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

/// What is kept, and what for.
const KEPT: &[(CapabilitySet, &str)] = &[
    // Other users' files below /proc/PID/root, and tracefs where altaz is not uid 0.
    (CapabilitySet::DAC_READ_SEARCH, "reading the processes' executables"),
    (CapabilitySet::SYS_PTRACE, "reading other processes' maps and roots"),
    (CapabilitySet::SYS_ADMIN, "system call filters of tasks, tracefs where it is not mounted"),
    (CapabilitySet::SYSLOG, "addresses of kernel functions"),
    (CapabilitySet::BPF, "counting system calls and probing userland functions"),
    (CapabilitySet::PERFMON, "the same"),
];

/// What [`write_with_rights`] uses.
const WRITE: CapabilitySet = CapabilitySet::DAC_OVERRIDE;

/// Drops every capability that observing does not need, also from what programs could regain.
/// Must be called before threads are started, and after a command of the user's was made.
/// Nothing happens where altaz has none of them. If a file is to be written into `directory` later
/// and that needs [`WRITE`], it is put aside.
///
/// # Errors
/// When the system refuses; nothing was dropped then.
pub(crate) fn drop_the_rest(directory: Option<&Path>) -> rustix::io::Result<()> {
    let have = capabilities(None)?;
    let keep = KEPT.iter().fold(CapabilitySet::empty(), |all, (one, _)| all | *one);
    let aside = match directory {
        Some(directory) if !writable_as_its_owner_says(directory) => WRITE,
        _ => CapabilitySet::empty(),
    };
    for capability in CapabilitySet::all().difference(keep).iter() {
        // Without CAP_SETPCAP the bounding set stays; no program that altaz starts is set-uid.
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }
    set_capabilities(
        None,
        CapabilitySets {
            effective: have.effective & keep,
            permitted: have.permitted & (keep | aside),
            inheritable: CapabilitySet::empty(),
        },
    )?;
    rustix::thread::set_no_new_privs(true)
}

/// Writes with the right that was put aside, if one was, and gives it up.
pub(crate) fn write_with_rights<T>(write: impl FnOnce() -> T) -> T {
    let set = |change: &dyn Fn(&mut CapabilitySets)| {
        if let Ok(mut sets) = capabilities(None) {
            change(&mut sets);
            // Where it fails the write says what is missing.
            let _ = set_capabilities(None, sets);
        }
    };
    set(&|sets| sets.effective |= sets.permitted & WRITE);
    let written = write();
    set(&|sets| {
        sets.effective = sets.effective.difference(WRITE);
        sets.permitted = sets.permitted.difference(WRITE);
    });
    written
}

/// Whether this user may make files there without special rights.
fn writable_as_its_owner_says(directory: &Path) -> bool {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    std::fs::metadata(directory).is_ok_and(|found| {
        let needed = match (found.uid() == uid, found.gid() == gid) {
            (true, _) => 0o300,
            (false, true) => 0o030,
            (false, false) => 0o003,
        };
        found.mode() & needed == needed
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_what_is_listed_is_kept() {
        // Capabilities belong to threads: the test's own thread alone loses them.
        std::thread::spawn(|| {
            drop_the_rest(None).unwrap();
            let left = capabilities(None).unwrap();
            let keep = KEPT.iter().fold(CapabilitySet::empty(), |all, (one, _)| all | *one);
            assert!(keep.contains(left.effective) && keep.contains(left.permitted));
            assert!(left.inheritable.is_empty());
            assert!(rustix::thread::no_new_privs().unwrap());
        })
        .join()
        .unwrap();
    }

    #[test]
    fn the_right_to_write_is_put_aside_only_where_it_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        assert!(writable_as_its_owner_says(dir.path()));
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o500)).unwrap();
        assert!(!writable_as_its_owner_says(dir.path()));
        let closed = dir.path().to_owned();
        std::thread::spawn(move || {
            let had = capabilities(None).unwrap().permitted & WRITE;
            drop_the_rest(Some(&closed)).unwrap();
            let write = || std::fs::write(closed.join("x"), "");
            assert!(write().is_err(), "not before it is time");
            assert_eq!(write_with_rights(write).is_ok(), !had.is_empty());
            let left = capabilities(None).unwrap();
            assert!((left.effective | left.permitted).intersection(WRITE).is_empty());
        })
        .join()
        .unwrap();
    }
}
