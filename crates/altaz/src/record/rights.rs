//! The least rights that observing needs: everything else is dropped before anything is observed.

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

/// Drops every capability that observing does not need, also from what programs could regain.
/// Must be called before threads are started, and after a command of the user's was made.
/// Nothing happens where altaz has none of them.
///
/// # Errors
/// When the system refuses; nothing was dropped then.
pub(crate) fn drop_the_rest() -> rustix::io::Result<()> {
    let have = capabilities(None)?;
    let keep = KEPT.iter().fold(CapabilitySet::empty(), |all, (one, _)| all | *one);
    for capability in CapabilitySet::all().difference(keep).iter() {
        // Without CAP_SETPCAP the bounding set stays; no program that altaz starts is set-uid.
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }
    set_capabilities(
        None,
        CapabilitySets {
            effective: have.effective & keep,
            permitted: have.permitted & keep,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    rustix::thread::set_no_new_privs(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_listed_is_kept() {
        // Capabilities belong to threads: the test's own thread alone loses them.
        std::thread::spawn(|| {
            drop_the_rest().unwrap();
            let left = capabilities(None).unwrap();
            let keep = KEPT.iter().fold(CapabilitySet::empty(), |all, (one, _)| all | *one);
            assert!(keep.contains(left.effective) && keep.contains(left.permitted));
            assert!(left.inheritable.is_empty());
            assert!(rustix::thread::no_new_privs().unwrap());
        })
        .join()
        .unwrap();
    }
}
