//! Virtual machine monitors: which processes are one, which threads run a guest's CPUs, which threads
//! of the kernel work for it, and which helper processes belong to it.

use std::collections::BTreeSet;

use crate::cgroup;
use crate::gvisor;
use crate::process::{self, RawThread, Snapshot, Task};
use crate::roots::Roots;

/// A kind of virtual machine monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum VmmKind {
    /// QEMU with a full machine.
    Qemu,
    /// QEMU with its minimal machine.
    QemuMicrovm,
    /// Firecracker.
    Firecracker,
    /// Cloud Hypervisor.
    CloudHypervisor,
    /// crosvm.
    Crosvm,
    /// Another program that has a virtual machine of `/dev/kvm` open.
    Other,
}

impl VmmKind {
    /// Name of the deployment.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::QemuMicrovm => "qemu-microvm",
            Self::Firecracker => "firecracker",
            Self::CloudHypervisor => "cloud-hypervisor",
            Self::Crosvm => "crosvm",
            Self::Other => "vmm",
        }
    }
}

/// Link of a descriptor that is a virtual machine of KVM.
const KVM_VM: &str = "anon_inode:kvm-vm";
/// The same for one of its CPUs; a number may follow.
const KVM_VCPU: &str = "anon_inode:kvm-vcpu";

/// Kind of the monitor that a process is; `None` for everything else. Descriptors are looked at
/// unless the program's name says enough.
pub(crate) fn kind(roots: &Roots, task: &Task) -> Option<VmmKind> {
    // With its KVM platform the sentry has a virtual machine open, too, and it has no guest kernel.
    if task.kernel || gvisor::part(task).is_some() {
        return None;
    }
    if let Some(kind) = by_name(task) {
        return Some(kind);
    }
    // Stubs and other nameless children inherit their parent's descriptors.
    let opens_vm = !task.argv.is_empty()
        && process::open_files(roots, task.pid).iter().any(|(_, link)| link.starts_with(KVM_VM));
    opens_vm.then_some(VmmKind::Other)
}

/// Kind by the program's name alone.
pub(crate) fn by_name(task: &Task) -> Option<VmmKind> {
    let program = task.program();
    if program.starts_with("qemu-system-") || program == "qemu-kvm" {
        let machine = ["M", "machine"].iter().find_map(|f| task.flag(f)).unwrap_or_default();
        let machine = machine.strip_prefix("type=").unwrap_or(machine);
        let name = machine.split(',').next();
        return Some(if name == Some("microvm") { VmmKind::QemuMicrovm } else { VmmKind::Qemu });
    }
    Some(match program {
        "firecracker" => VmmKind::Firecracker,
        "cloud-hypervisor" | "cloud-hypervisor-static" | "ch-remote-vmm" => {
            VmmKind::CloudHypervisor
        }
        "crosvm" => VmmKind::Crosvm,
        _ => return None,
    })
}

/// Whether the guest's CPUs are emulated instead of the host's own: no virtual machine of KVM is open. One
/// that was told to use KVM, and nothing else, opens it a moment after its start, or ends.
pub(crate) fn emulates(roots: &Roots, task: &Task) -> bool {
    let files = process::open_files(roots, task.pid);
    !files.is_empty()
        && !files.iter().any(|(_, link)| link.starts_with(KVM_VM))
        && !told_to_use_kvm(task)
}

/// Whether QEMU's command line allows KVM only.
fn told_to_use_kvm(task: &Task) -> bool {
    let mut accelerators = Vec::new();
    let words = || task.argv.iter().map(String::as_str);
    for (option, value) in words().zip(words().skip(1).chain([""])) {
        match option.trim_start_matches('-') {
            "enable-kvm" => accelerators.push("kvm"),
            "accel" => accelerators.extend(value.split(',').next()),
            "M" | "machine" => {
                let parts = value.split(',').filter_map(|part| part.strip_prefix("accel="));
                accelerators.extend(parts.flat_map(|list| list.split(':')));
            }
            _ => {}
        }
    }
    !accelerators.is_empty() && accelerators.iter().all(|a| *a == "kvm")
}

/// What a thread of a followed process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ThreadKind {
    /// The process's first thread.
    Main,
    /// Runs a CPU of a guest.
    Vcpu,
    /// Serves virtio queues in the kernel (vhost).
    Vhost,
    /// Works for KVM (recovery of huge pages, the interval timer).
    Kvm,
    /// Works for `io_uring`.
    IoUring,
    /// Any other.
    Other,
}

/// Prefixes of the names that monitors give to the threads of their guest's CPUs.
const VCPU_NAMES: [&str; 4] = ["fc_vcpu", "vcpu", "crosvm_vcpu", "CPU "];
/// System call number of `ioctl` and the request `KVM_RUN`, as `/proc/PID/task/TID/syscall` shows them.
const IN_KVM_RUN: (&str, &str) = ("16", "0xae80");

/// Kind of a thread by its name, or because it has run a guest's CPU.
pub(crate) fn thread_kind(pid: u32, thread: &RawThread, vmm: bool) -> ThreadKind {
    let name = thread.comm.as_str();
    if let Some(kind) = worker_kind(name).map(|(kind, _)| kind) {
        return kind;
    }
    match name {
        _ if name.starts_with("iou-wrk-") || name.starts_with("iou-sqp-") => ThreadKind::IoUring,
        _ if vmm && (thread.guest > 0 || VCPU_NAMES.iter().any(|p| name.starts_with(p))) => {
            ThreadKind::Vcpu
        }
        _ if thread.tid == pid => ThreadKind::Main,
        _ => ThreadKind::Other,
    }
}

/// Whether a thread waits in `KVM_RUN` right now: for monitors that do not name their threads.
pub(crate) fn in_kvm_run(roots: &Roots, pid: u32, tid: u32) -> bool {
    let file = roots.of(pid, "task").join(tid.to_string()).join("syscall");
    let text = process::text(&file).unwrap_or_default();
    let mut words = text.split_ascii_whitespace();
    (words.next(), words.nth(1)) == (Some(IN_KVM_RUN.0), Some(IN_KVM_RUN.1))
}

/// Number of guest CPUs that a monitor has open.
pub(crate) fn vcpus(roots: &Roots, pid: u32) -> usize {
    process::open_files(roots, pid).iter().filter(|(_, l)| l.starts_with(KVM_VCPU)).count()
}

/// Kind of a kernel thread that works for a monitor, and the id of the task that it works for, where
/// its name holds it: `vhost-123`, `kvm-pit/123`, `kvm-nx-lpage-recovery-123` (of which `comm` may
/// show the first 15 characters only).
pub(crate) fn worker_kind(comm: &str) -> Option<(ThreadKind, Option<u32>)> {
    if let Some(owner) = comm.strip_prefix("vhost-") {
        return Some((ThreadKind::Vhost, Some(owner.parse().ok()?)));
    }
    if let Some(owner) = comm.strip_prefix("kvm-pit/") {
        return Some((ThreadKind::Kvm, owner.parse().ok()));
    }
    if comm.starts_with("kvm-nx-lpage-re") {
        return Some((ThreadKind::Kvm, comm.rsplit('-').next().and_then(|n| n.parse().ok())));
    }
    None
}

/// A monitor with what works for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) vmm: u32,
    pub(crate) kind: VmmKind,
    /// Threads of the kernel that are no threads of the monitor.
    pub(crate) workers: BTreeSet<u32>,
    pub(crate) helpers: BTreeSet<u32>,
}

impl Machine {
    pub(crate) fn all(&self) -> BTreeSet<u32> {
        self.workers.iter().chain(&self.helpers).copied().chain([self.vmm]).collect()
    }
}

/// Programs that serve devices or the network of a monitor.
const HELPERS: [&str; 12] = [
    "virtiofsd",
    "swtpm",
    "passt",
    "passt.avx2",
    "pasta",
    "slirp4netns",
    "vhost-user-",
    "vhost-device-",
    "qemu-pr-helper",
    "qemu-bridge-helper",
    "qemu-storage-daemon",
    "dbus-vmstate",
];

/// Whether the program is one that helps a monitor.
pub(crate) fn is_helper(task: &Task) -> bool {
    let program = task.program();
    HELPERS.iter().any(|h| program == *h || h.ends_with('-') && program.starts_with(h))
}

/// Every monitor that runs.
pub(crate) fn machines(roots: &Roots, snapshot: &Snapshot) -> Vec<Machine> {
    let vmms: Vec<(&Task, VmmKind)> =
        snapshot.iter().filter_map(|t| Some((t, kind(roots, t)?))).collect();
    let pids: BTreeSet<u32> = vmms.iter().map(|(t, _)| t.pid).collect();
    vmms.iter()
        // One that it forked is part of it.
        .filter(|(t, _)| !pids.contains(&t.ppid))
        .map(|(vmm, kind)| {
            let tids: BTreeSet<u32> =
                process::threads(roots, vmm.pid).iter().map(|t| t.tid).chain([vmm.pid]).collect();
            let alone = vmms.len() == 1;
            let works = |t: &&Task| t.kernel && works_for(t, vmm, &tids, alone);
            let below = snapshot.descendants(&[vmm.pid].into());
            let mut helpers: BTreeSet<u32> = snapshot
                .iter()
                .filter(|t| is_helper(t) && belongs(snapshot, t, vmm, &vmms))
                .map(|t| t.pid)
                .collect();
            helpers.extend(below);
            Machine {
                vmm: vmm.pid,
                kind: *kind,
                workers: snapshot.iter().filter(works).map(|t| t.pid).collect(),
                helpers,
            }
        })
        .collect()
}

/// Whether a thread of the kernel works for the monitor. The kernel puts it into its cgroups, which
/// decides where the name is cut off.
fn works_for(worker: &Task, vmm: &Task, tids: &BTreeSet<u32>, alone: bool) -> bool {
    match worker_kind(&worker.comm) {
        Some((_, Some(owner))) => tids.contains(&owner),
        Some((_, None)) => {
            let place = cgroup::telling(&vmm.cgroups);
            alone || place.is_some() && cgroup::telling(&worker.cgroups) == place
        }
        None => false,
    }
}

/// Whether a helper process serves this monitor: by descent, by a cgroup that only this monitor is
/// in, or by a socket that both name.
fn belongs(snapshot: &Snapshot, helper: &Task, vmm: &Task, all: &[(&Task, VmmKind)]) -> bool {
    if snapshot.ancestry(helper.pid).contains(&vmm.pid)
        || vmm.pid != helper.pid && snapshot.ancestry(vmm.pid).contains(&helper.pid)
    {
        return true;
    }
    let place = cgroup::telling(&vmm.cgroups);
    let in_place = |t: &Task| place.is_some() && cgroup::telling(&t.cgroups) == place;
    let only_one = all.iter().filter(|(t, _)| in_place(t)).count() == 1;
    if only_one && in_place(helper) {
        return true;
    }
    let sockets: Vec<&str> = paths(helper).filter(|p| p.len() > 1).collect();
    paths(vmm).any(|p| sockets.contains(&p))
}

/// Paths that a command line names, whole arguments or values in them.
fn paths(task: &Task) -> impl Iterator<Item = &str> {
    let split = |c: char| c == ',' || c == '=';
    let parts = task.argv.iter().skip(1).flat_map(move |a| a.split(split));
    parts.filter(|p| p.starts_with('/') && !p.starts_with("/dev/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(pid: u32, ppid: u32, exe: &str, argv: &str, cgroup: &str) -> (u32, Task) {
        let argv: Vec<String> = argv.split_whitespace().map(str::to_owned).collect();
        let comm = exe.rsplit('/').next().unwrap().chars().take(15).collect();
        let cgroups = cgroup::memberships(&format!("0::{cgroup}"));
        (pid, Task { pid, ppid, exe: exe.into(), argv, comm, cgroups, ..Task::default() })
    }

    fn worker(pid: u32, comm: &str, cgroup: &str) -> (u32, Task) {
        let cgroups = cgroup::memberships(&format!("0::{cgroup}"));
        (pid, Task { pid, ppid: 2, kernel: true, comm: comm.into(), cgroups, ..Task::default() })
    }

    #[test]
    fn workers_and_helpers_go_to_the_monitor_that_they_serve() {
        let qemu = "/usr/bin/qemu-system-x86_64";
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::under(dir.path());
        let snapshot = Snapshot {
            tasks: [
                task(
                    100,
                    1,
                    qemu,
                    "qemu -M microvm,rtc=on -chardev socket,id=c,path=/run/fs1.sock",
                    "/vm/a",
                ),
                task(200, 1, qemu, "qemu -machine type=q35,accel=kvm -m 1G", "/vm/b"),
                worker(301, "vhost-100", "/vm/a"),
                worker(302, "vhost-200", "/vm/b"),
                worker(303, "kvm-nx-lpage-re", "/vm/b"),
                worker(304, "kvm-pit/100", "/"),
                worker(305, "vhost-999", "/"),
                task(
                    401,
                    1,
                    "/usr/libexec/virtiofsd",
                    "virtiofsd --socket-path=/run/fs1.sock",
                    "/system",
                ),
                task(402, 200, "/usr/bin/passt", "passt -s /run/p", "/x"),
                task(403, 1, "/usr/bin/swtpm", "swtpm socket", "/vm/b"),
            ]
            .into(),
            ..Snapshot::default()
        };
        let found = machines(&roots, &snapshot);
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[0].kind, found[0].all()),
            (VmmKind::QemuMicrovm, [100, 301, 304, 401].into())
        );
        assert_eq!(
            (found[1].kind, found[1].all()),
            (VmmKind::Qemu, [200, 302, 303, 402, 403].into())
        );
    }

    #[test]
    fn a_monitor_that_was_told_to_use_kvm_is_no_emulator_before_it_has_opened_it() {
        let told = |line: &str| {
            let argv = line.split(' ').map(str::to_owned).collect();
            told_to_use_kvm(&Task { argv, ..Task::default() })
        };
        assert!(told("qemu -M microvm,rtc=on -accel kvm -smp 1"));
        assert!(told("qemu -enable-kvm"));
        assert!(told("qemu -machine type=q35,accel=kvm"));
        assert!(!told("qemu -machine q35,accel=kvm:tcg"));
        assert!(!told("qemu -accel kvm -accel tcg"));
        assert!(!told("qemu -accel tcg,thread=multi"));
        assert!(!told("qemu -M q35"));
    }

    #[test]
    fn threads_are_told_by_name() {
        let kind = |comm: &str| {
            thread_kind(5, &RawThread { tid: 6, comm: comm.into(), start: 0, guest: 0 }, true)
        };
        assert_eq!(kind("CPU 0/KVM"), ThreadKind::Vcpu);
        assert_eq!(kind("fc_vcpu 1"), ThreadKind::Vcpu);
        assert_eq!(kind("vhost-5"), ThreadKind::Vhost);
        assert_eq!(kind("kvm-nx-lpage-recovery-5"), ThreadKind::Kvm);
        assert_eq!(kind("iou-wrk-5"), ThreadKind::IoUring);
        assert_eq!(kind("worker"), ThreadKind::Other);
    }
}
