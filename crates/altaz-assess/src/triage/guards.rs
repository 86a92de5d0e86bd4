//! Guards that the recording shows between the application and a kernel's code.
//!
//! A system call filter is a proof only when *every* way in is known and blocked. Which calls reach a
//! directory of the kernel is a table here, and a table is no proof; a feed that lists all entries
//! is, and so is a defect that lies in nothing but the bodies of system calls.

use std::collections::BTreeSet;

use altaz_profile::{Boundary, Layer};

/// Kernel code, and the system calls without which a process has no object of it.
const WAYS_IN: [(&str, &[&str]); 12] = [
    ("io_uring/", &["io_uring_setup"]),
    ("kernel/bpf/", &["bpf"]),
    ("kernel/events/", &["perf_event_open"]),
    ("security/keys/", &["add_key", "request_key", "keyctl"]),
    ("fs/userfaultfd.c", &["userfaultfd"]),
    ("fs/aio.c", &["io_setup"]),
    ("fs/notify/fanotify/", &["fanotify_init"]),
    ("fs/notify/inotify/", &["inotify_init", "inotify_init1"]),
    ("kernel/kexec", &["kexec_load", "kexec_file_load"]),
    ("ipc/mqueue.c", &["mq_open"]),
    ("mm/memfd.c", &["memfd_create"]),
    ("fs/signalfd.c", &["signalfd", "signalfd4"]),
];

/// A guard before vulnerable code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// In words: what blocks what.
    pub what: String,
    /// Whether every entry is known and blocked.
    pub proven: bool,
}

/// The guard before this code of a layer, if the recording shows one.
pub fn guard(
    boundaries: &[Boundary],
    layer: Layer,
    files: &[&str],
    functions: &BTreeSet<&str>,
    entries: &[&str],
) -> Option<Guard> {
    let (calls, complete): (Vec<&str>, bool) = if !entries.is_empty() {
        (entries.to_vec(), true)
    } else if let Some(bodies) = bodies(functions) {
        (bodies, true)
    } else {
        let way = |file: &&str| WAYS_IN.iter().find(|(prefix, _)| file.starts_with(prefix));
        // All of its code must lie behind guards.
        let ways = files.iter().map(way).collect::<Option<Vec<_>>>()?;
        (ways.into_iter().flat_map(|(_, calls)| calls.iter().copied()).collect(), false)
    };
    if calls.is_empty() {
        return None;
    }
    let into: Vec<&Boundary> = boundaries.iter().filter(|b| b.to == layer).collect();
    let filters: Vec<&&Boundary> = into
        .iter()
        .filter(|b| b.name.contains("syscall") && !b.permitted_entries.is_empty())
        .collect();
    let permits =
        |call: &&str| filters.iter().any(|b| b.permitted_entries.iter().any(|p| p.name == **call));
    if filters.is_empty() || calls.iter().any(permits) {
        return None;
    }
    let from: Vec<String> = filters.iter().map(|b| b.from.to_string()).collect();
    Some(Guard {
        what: format!(
            "the system call filter of {} permits none of {}",
            from.join(", "),
            calls.join(", ")
        ),
        // Another way into the layer that nobody filters proves nothing.
        proven: complete && filters.len() == into.len(),
    })
}

/// The system calls, when the defect lies in nothing but their bodies.
fn bodies<'a>(functions: &BTreeSet<&'a str>) -> Option<Vec<&'a str>> {
    let call = |name: &&'a str| {
        ["__do_sys_", "__se_sys_", "__x64_sys_", "__arm64_sys_"]
            .iter()
            .find_map(|prefix| name.strip_prefix(prefix))
    };
    if functions.is_empty() { None } else { functions.iter().map(call).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use altaz_profile::PermittedEntry;

    fn boundary(name: &str, permitted: &[&str]) -> Boundary {
        Boundary {
            permitted_entries: permitted
                .iter()
                .map(|p| PermittedEntry { name: (*p).into(), conditional: false })
                .collect(),
            ..Boundary::new(name, Layer::App, Layer::HostKernel, None)
        }
    }

    fn of(
        boundaries: &[Boundary],
        files: &[&str],
        functions: &[&str],
        entries: &[&str],
    ) -> Option<bool> {
        let functions = functions.iter().copied().collect();
        guard(boundaries, Layer::HostKernel, files, &functions, entries).map(|g| g.proven)
    }

    #[test]
    fn a_filter_is_a_proof_only_when_all_entries_are_known_and_blocked() {
        let filter = [boundary("syscall", &["read", "write"])];
        assert_eq!(of(&filter, &["io_uring/net.c"], &["io_send"], &[]), Some(false));
        assert_eq!(of(&filter, &["fs/x.c"], &["__do_sys_userfaultfd"], &[]), Some(true));
        assert_eq!(of(&filter, &["fs/x.c"], &["f"], &["bpf", "keyctl"]), Some(true));
        assert_eq!(of(&filter, &["fs/x.c"], &["f"], &["bpf", "read"]), None);
        assert_eq!(of(&filter, &["io_uring/net.c", "net/socket.c"], &["f"], &[]), None);
        assert_eq!(of(&[boundary("syscall", &[])], &["io_uring/net.c"], &[], &[]), None);
        let two = [boundary("syscall", &["read"]), boundary("vm-exit", &[])];
        assert_eq!(of(&two, &[], &["f"], &["bpf"]), Some(false));
    }
}
