//! `qemu`: a KVM guest with QEMU's q35 machine and the devices that a cloud's guest usually has; and
//! QEMU's command line for the other deployments on it.
//!
//! The disk is virtio over PCI, the network is served by the host kernel (vhost-net) through a tap on
//! the bridge. The guest's root is the service image's disk itself. Its first process is altaz's
//! agent, which brings up the network, starts the service, and blocks until it is told to stop.

use std::path::{Path, PathBuf};

use altaz_profile::model::Layer;

use super::guest::{self, Files, MEMORY, Plan};
use super::need_program;
use crate::guest_disk::{self, GUEST_MODE};
use crate::layers;
use crate::net::Tap;
use crate::permitted::monitor;
use crate::{DeployError, Deployment, Description, LabEnv, Running, ServiceSpec, Unavailable};

/// The deployment.
pub(super) struct Qemu;

const PROGRAM: &str = "qemu-system-x86_64";

impl Deployment for Qemu {
    fn name(&self) -> &'static str {
        "qemu"
    }

    fn summary(&self) -> &'static str {
        "KVM guest on QEMU's q35 machine with its usual devices, virtio over PCI, vhost-net"
    }

    fn patience(&self) -> u32 {
        2
    }

    fn describe(&self, spec: &ServiceSpec) -> Description {
        describe(self.name(), spec)
    }

    fn available(&self, lab: &LabEnv) -> Result<(), Unavailable> {
        available(lab)
    }

    fn start(&self, lab: &LabEnv, spec: &ServiceSpec) -> Result<Box<dyn Running>, DeployError> {
        start(lab, spec, Machine::Q35, &Inside::default())
    }
}

/// QEMU's machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Machine {
    /// No PCI, no firmware tables, virtio over MMIO.
    Microvm,
    /// A PC of the year 2009 with PCI Express, as clouds and libvirt have it.
    Q35,
}

/// What runs in the guest besides the service.
#[derive(Debug, Default)]
pub(super) struct Inside<'a> {
    /// The deployment that runs the service there; `None`: a plain process.
    pub(super) deployment: Option<&'static str>,
    /// The guest's own root, when that is not the service's disk.
    pub(super) own_disk: Option<&'a Path>,
    /// Disks with the images of the other processes of a pod.
    pub(super) more_images: &'a [PathBuf],
    /// MAC address of the guest's network card, when that is not the service's.
    pub(super) mac: Option<&'a str>,
}

/// A KVM guest whose service is a plain process.
pub(super) fn describe(name: &str, spec: &ServiceSpec) -> Description {
    let mut boundaries = vec![layers::unfiltered_syscalls(Layer::App, Layer::GuestKernel)];
    boundaries.extend(guest::kvm_boundaries());
    Description {
        name: name.into(),
        layers: guest::kvm_layers(),
        boundaries,
        rules: guest::kvm_rules(spec, None),
        split_binaries: Vec::new(),
        blind_spots: layers::common_blind_spots(),
        notes: Vec::new(),
    }
}

/// Refuses when QEMU or what it needs is missing.
pub(super) fn available(lab: &LabEnv) -> Result<(), Unavailable> {
    need_program(PROGRAM, "qemu-system-x86")?;
    guest::vhost_available()?;
    guest::kvm_available(lab)
}

/// Boots a guest on one of the machines.
///
/// # Errors
/// When the lab cannot make what the guest needs.
pub(super) fn start(
    lab: &LabEnv,
    spec: &ServiceSpec,
    machine: Machine,
    inside: &Inside<'_>,
) -> Result<Box<dyn Running>, DeployError> {
    guest::load_vhost()?;
    let plan = Plan {
        monitor: "QEMU",
        interface: "eth0",
        inside: inside.deployment,
        command: &|files| command_line(lab, machine, inside, files),
    };
    guest::boot(lab, spec, &plan)
}

/// The command line of the guest's QEMU. Pure.
fn command_line(lab: &LabEnv, machine: Machine, inside: &Inside<'_>, files: &Files) -> Vec<String> {
    let mut line = vec![PROGRAM.to_owned()];
    let mut add = |option: &str, value: &str| {
        line.push(option.to_owned());
        line.extend(Some(value.to_owned()).filter(|v| !v.is_empty()));
    };
    add("-M", if machine == Machine::Q35 { "q35" } else { "microvm,rtc=on,pit=off,pic=off" });
    add("-accel", "kvm");
    add("-cpu", "host");
    add("-smp", "1");
    add("-m", &format!("{MEMORY}M"));
    for switch in ["-nodefaults", "-no-user-config", "-no-reboot"] {
        add(switch, "");
    }
    add("-display", "none");
    add("-serial", "stdio");
    // Asked what it emulates once everything else was recorded.
    let [option, socket] = monitor::options(&lab.run);
    add(&option, &socket);
    add("-kernel", &lab.guest_kernel.display().to_string());
    add("-initrd", &lab.guest_initrd.display().to_string());
    // Without a keyboard controller's reset or ACPI, a triple fault ends the guest.
    let reboot = if machine == Machine::Microvm { " reboot=t" } else { "" };
    add("-append", &format!("console=ttyS0 quiet panic=-1{reboot} {GUEST_MODE}"));
    let (suffix, no_rom) = match machine {
        Machine::Microvm => ("device", ""),
        Machine::Q35 => ("pci", ",romfile="),
    };
    let direct = "cache=none,aio=native";
    let mut disks = vec![("root".to_owned(), lab.image_disk.as_path(), direct)];
    let more = (1..).zip(inside.more_images);
    disks.extend(more.map(|(n, path)| (guest_disk::image_serial(n), path.as_path(), direct)));
    disks.extend(inside.own_disk.map(|path| ("guest".to_owned(), path, direct)));
    disks.push(("job".to_owned(), files.job.as_path(), "cache=writeback"));
    for (id, path, cache) in disks {
        add("-drive", &format!("id={id},file={},format=raw,if=none,{cache}", path.display()));
        add("-device", &format!("virtio-blk-{suffix},drive={id},serial={id}"));
    }
    add("-netdev", &format!("tap,id=net,ifname={},script=no,downscript=no,vhost=on", Tap::NAME));
    let mac = inside.mac.unwrap_or(&lab.service_mac);
    // A boot ROM of the network card would only be run by firmware that boots from it.
    add("-device", &format!("virtio-net-{suffix},netdev=net,mac={mac}{no_rom}"));
    if machine == Machine::Q35 {
        USUAL_DEVICES.iter().for_each(|device| add("-device", device));
    }
    line
}

/// What libvirt and its like add to a guest besides disk and network.
const USUAL_DEVICES: &[&str] = &[
    "VGA",
    "qemu-xhci",
    "usb-tablet",
    "virtio-serial-pci",
    "virtio-balloon-pci",
    "virtio-rng-pci",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn line(machine: Machine, inside: &Inside<'_>) -> String {
        let files = Files { job: "/run/altaz/job".into() };
        command_line(&LabEnv::default(), machine, inside, &files).join(" ")
    }

    #[test]
    fn the_guest_has_the_service_s_mac_and_both_disks() {
        for machine in [Machine::Microvm, Machine::Q35] {
            let line = line(machine, &Inside::default());
            assert!(line.contains("mac=02:00:00:77:00:10"), "{line}");
            assert!(line.contains("file=/dev/altaz/service,"), "{line}");
            assert!(line.contains("file=/run/altaz/job,"), "{line}");
            assert!(line.contains("altaz.guest=1"), "{line}");
            assert!(!line.contains("  "), "{line}");
        }
    }

    #[test]
    fn only_the_full_machine_has_pci_and_its_devices() {
        let full = line(Machine::Q35, &Inside::default());
        assert!(full.contains("-M q35 "), "{full}");
        assert!(full.contains("virtio-blk-pci,drive=root"), "{full}");
        assert!(full.contains("virtio-net-pci,netdev=net") && full.contains("romfile="), "{full}");
        assert!(full.contains("vhost=on") && full.contains("-device VGA"), "{full}");
        assert!(!line(Machine::Microvm, &Inside::default()).contains("pci"));
    }

    #[test]
    fn a_guest_with_a_root_of_its_own_has_a_third_disk_and_its_own_mac() {
        let inside = Inside {
            deployment: Some("runc"),
            own_disk: Some(Path::new("/var/lib/altaz/guest.img")),
            more_images: &[PathBuf::from("/dev/altaz/service-1")],
            mac: Some("02:00:00:77:00:11"),
        };
        let line = line(Machine::Microvm, &inside);
        assert!(line.contains("file=/var/lib/altaz/guest.img,"), "{line}");
        assert!(line.contains("id=root-1,file=/dev/altaz/service-1,"), "{line}");
        assert!(line.contains("drive=root-1,serial=root-1"), "{line}");
        assert!(line.contains("mac=02:00:00:77:00:11"), "{line}");
        assert!(!line.contains("mac=02:00:00:77:00:10"), "{line}");
    }
}
