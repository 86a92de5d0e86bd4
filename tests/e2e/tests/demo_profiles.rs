//! What must be in the profiles of `demo/web`, whatever the numbers: the kernel work of a request is
//! in the kernel that does it, and how complete a profile is does not hang on the window length.
//!
//! `ALTAZ_DEMO_DIR` names a directory with the profiles of an earlier `make demo`: then every guest
//! there must hold what `qemu-microvm` must. Without it, two recordings are made.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::LazyLock;

use altaz_e2e::repository;
use altaz_profile::completeness::{layer_incidences, merge_tolerance};
use altaz_profile::{Layer, Owner, Phase, Profile};

/// Requests of the two recordings, ten a second. The first is long enough to judge its completeness.
const REQUESTS: [(&str, u32); 2] = [("process", 420), ("qemu-microvm", 60)];
/// Windows that a recording must have for that. In fewer, merged by four, a single piece of rare
/// work decides: of nine recordings with 80 windows or more all passed, of pieces of 20 windows some
/// failed.
const ENOUGH: u32 = 80;

/// Profiles of a plain process and of a virtual machine.
static PROFILES: LazyLock<[Profile; 2]> = LazyLock::new(|| {
    let read = |dir: PathBuf| REQUESTS.map(|(name, _)| common::profile(&dir, name));
    if let Some(dir) = std::env::var_os("ALTAZ_DEMO_DIR") {
        return read(dir.into());
    }
    let dir = tempfile::tempdir().unwrap();
    let spec = repository().join("demo/web.toml");
    for (name, requests) in REQUESTS {
        common::record(&spec, name, requests, dir.path());
    }
    read(dir.path().to_owned())
});

/// Guests with a virtual machine monitor, and one without.
const MACHINES: [&str; 3] = ["qemu-microvm", "qemu", "runc-in-qemu"];
const USER_MODE: &str = "uml";

/// The virtual machines at hand: the one of [`PROFILES`], and what the directory of an earlier demo has.
fn machines() -> Vec<Profile> {
    let mut all = vec![PROFILES[1].clone()];
    all.extend(MACHINES.iter().skip(1).filter_map(|name| in_demo(name)));
    all
}

/// A profile of the directory of an earlier demo, if it has one of this deployment.
fn in_demo(name: &str) -> Option<Profile> {
    let dir = PathBuf::from(std::env::var_os("ALTAZ_DEMO_DIR")?);
    dir.join(format!("{name}.altaz")).exists().then(|| common::profile(&dir, name))
}

/// What a request of the demo has its kernel do, by functions that do nothing else.
const WORK: &[(&str, &[&str])] = &[
    ("TCP receive", &["tcp_v4_rcv", "tcp_rcv_established", "tcp_recvmsg", "inet_recvmsg"]),
    ("TCP send", &["tcp_sendmsg", "tcp_write_xmit", "__tcp_transmit_skb", "inet_sendmsg"]),
    ("epoll", &["do_epoll_wait", "ep_poll_callback", "ep_start_scan"]),
    ("futex", &["do_futex", "futex_wait", "futex_wake"]),
    (
        "file-system write",
        &["ext4_file_write_iter", "ext4_buffered_write_iter", "ext4_da_write_begin"],
    ),
    ("fsync of a commit", &["ext4_sync_file", "jbd2_log_wait_commit"]),
];

/// Windows of a serve phase in which work that only some of a minute's requests cause must be seen.
/// Processes of PostgreSQL that compete wait with futexes: in one to six of 120 windows.
const A_MINUTE: usize = 100;

/// The work that must be in a recording of this length.
fn work_of(
    profile: &Profile,
) -> impl Iterator<Item = &'static (&'static str, &'static [&'static str])> {
    let windows = profile.manifest.windows.iter().filter(|w| w.phase == Phase::Serve).count();
    WORK.iter().filter(move |(what, _)| *what != "futex" || windows >= A_MINUTE)
}

fn missing<'a>(served: &BTreeSet<&str>, functions: &[&'a str]) -> Vec<&'a str> {
    functions.iter().copied().filter(|f| !served.contains(f)).collect()
}

/// Files of the kernel's code that the load executed: `kernel`, `[kvm]`.
fn binaries(profile: &Profile, layer: Layer) -> BTreeSet<&str> {
    common::own(profile, layer, Phase::Serve).map(|u| &*u.binary).collect()
}

#[test]
#[ignore = "needs the lab"]
fn a_requests_kernel_work_is_in_the_host_kernel_of_a_process() {
    let [process, _] = &*PROFILES;
    let host = common::served(process, Layer::HostKernel);
    for (what, functions) in work_of(process) {
        assert_eq!(missing(&host, functions), [""; 0], "{what}");
    }
    // No machine runs. (The module kvm is loaded in the lab and follows the clock.)
    let binaries = binaries(process, Layer::HostKernel);
    for module in ["[kvm_amd]", "[tun]", "[vhost]", "[vhost_net]"] {
        assert!(!binaries.contains(module), "{module} in {binaries:?}");
    }
    let of_kvm = common::own(process, Layer::HostKernel, Phase::Serve);
    let of_kvm: Vec<&str> = of_kvm.filter(|u| &*u.binary == "[kvm]").map(|u| &*u.symbol).collect();
    assert!(of_kvm.iter().all(|f| f.contains("clock") || f.contains("gtod")), "{of_kvm:?}");
    assert_eq!(common::served(process, Layer::GuestKernel).len(), 0);
}

#[test]
#[ignore = "needs the lab"]
fn in_a_virtual_machine_the_guest_kernel_does_the_work_and_the_host_kernel_runs_the_machine() {
    for machine in &machines() {
        runs_as_a_machine(machine);
    }
    if let Some(uml) = in_demo(USER_MODE) {
        runs_as_a_program(&uml);
    }
}

fn runs_as_a_machine(machine: &Profile) {
    let name = &machine.manifest.deployment;
    let guest = common::served(machine, Layer::GuestKernel);
    for (what, functions) in work_of(machine) {
        assert_eq!(missing(&guest, functions), [""; 0], "{name}: {what}");
    }

    let host = common::served(machine, Layer::HostKernel);
    // QEMU's own threads wait with futexes and may with epoll: these are the host kernel's too.
    let not_the_hosts = WORK.iter().filter(|(what, _)| !["epoll", "futex"].contains(what));
    for (what, functions) in not_the_hosts {
        let there: Vec<_> = functions.iter().filter(|f| host.contains(*f)).collect();
        assert!(there.is_empty(), "{name}: {what}: {there:?}");
    }
    // The guest's fsync ends in a flush of the block device that is its disk.
    for function in ["blkdev_fsync", "blkdev_issue_flush"] {
        assert!(host.contains(function), "{name}: {function}");
    }

    let binaries = binaries(machine, Layer::HostKernel);
    for module in ["[kvm]", "[kvm_amd]", "[tun]", "[vhost]", "[vhost_net]"] {
        assert!(binaries.contains(module), "{name}: no {module} in {binaries:?}");
    }
    for (what, functions) in [
        ("exits", &["svm_vcpu_run", "svm_handle_exit", "kvm_arch_vcpu_ioctl_run"][..]),
        ("packets to the guest", &["tun_net_xmit", "tun_recvmsg", "handle_rx"]),
        ("packets from the guest", &["tun_sendmsg", "handle_tx", "vhost_get_vq_desc"]),
    ] {
        assert_eq!(missing(&host, functions), [""; 0], "{name}: {what}");
    }
}

/// A guest kernel that is a program does the work too, and needs no virtual processor.
fn runs_as_a_program(uml: &Profile) {
    let guest = common::served(uml, Layer::GuestKernel);
    for (what, functions) in work_of(uml) {
        assert_eq!(missing(&guest, functions), [""; 0], "{what}");
    }
    let kernel: BTreeSet<&str> = binaries(uml, Layer::GuestKernel);
    assert!(kernel.iter().all(|b| !b.starts_with('[') && *b != "kernel"), "{kernel:?}");
    let host = binaries(uml, Layer::HostKernel);
    for module in ["[kvm_amd]", "[vhost]", "[vhost_net]"] {
        assert!(!host.contains(module), "{module} in {host:?}");
    }
    assert!(host.contains("[tun]"), "{host:?}");
    let host = common::served(uml, Layer::HostKernel);
    assert_eq!(missing(&host, &["ptrace_request", "arch_ptrace"]), [""; 0]);
}

#[test]
#[ignore = "needs the lab"]
fn every_layer_of_a_machine_is_nearly_completely_seen() {
    let mut judged = 0;
    for machine in machines() {
        let name = &machine.manifest.deployment;
        let all = layer_incidences(&machine, Phase::Serve);
        for layer in [Layer::GuestKernel, Layer::Vmm, Layer::HostKernel] {
            let incidence = all.get(&layer).unwrap();
            if incidence.windows() < ENOUGH {
                continue;
            }
            judged += 1;
            let coverage = incidence.estimate().coverage.unwrap();
            assert!(coverage >= 0.98, "{name} {layer}: {coverage}");
        }
        let kernel = machine.manifest.layers.iter().find(|l| l.name == Layer::GuestKernel).unwrap();
        assert_eq!(kernel.owner, Owner::Tenant, "{name}");
        assert_eq!(kernel.ownership_moved, name == "runc-in-qemu", "{name}");
    }
    println!("{judged} layers judged");
}

#[test]
#[ignore = "needs the lab"]
fn completeness_does_not_hang_on_the_window_length() {
    let mut judged = 0;
    for profile in &*PROFILES {
        for (layer, incidence) in layer_incidences(profile, Phase::Serve) {
            // Of a handful of functions, chance decides.
            if incidence.units() < 100 || incidence.windows() < ENOUGH {
                continue;
            }
            judged += 1;
            let as_recorded = incidence.estimate().coverage.unwrap();
            for k in [2, 4].map(|k| NonZeroU32::new(k).unwrap()) {
                let longer = incidence.merge_windows(k);
                let coverage = longer.estimate().coverage.unwrap();
                println!(
                    "{} {layer}: coverage {as_recorded:.4} in {} windows, {coverage:.4} in {}",
                    profile.manifest.deployment,
                    incidence.windows(),
                    longer.windows()
                );
                let changed = (coverage - as_recorded).abs();
                assert!(changed <= merge_tolerance(as_recorded, k), "{layer}, {k}: {changed}");
            }
        }
    }
    assert!(judged >= 4, "{judged} layers");
}
