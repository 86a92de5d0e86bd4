//! `cloud-hypervisor`: a KVM guest on Cloud Hypervisor: virtio over PCI, no emulation of old PCs.
//!
//! No distribution packages Cloud Hypervisor or a kernel that it boots directly, so that it runs where
//! a lab of one's own recipe brings both; everywhere else it is listed with what is missing. Its
//! network is served by the monitor itself, not by the host kernel.

use super::guest::{self, Files, MEMORY, Plan};
use super::need_brought;
use super::qemu;
use crate::guest_disk::{DISK_WORD, GUEST_MODE};
use crate::net::Tap;
use crate::{DeployError, Deployment, Description, LabEnv, Running, ServiceSpec, Unavailable};

/// The deployment.
pub(super) struct CloudHypervisor;

const PROGRAM: &str = "/usr/local/bin/cloud-hypervisor";
/// A kernel with a PVH entry, ext4, virtio over PCI, its disks and its network card built in.
const KERNEL: &str = "/usr/local/share/cloud-hypervisor/vmlinux";

impl Deployment for CloudHypervisor {
    fn name(&self) -> &'static str {
        "cloud-hypervisor"
    }

    fn summary(&self) -> &'static str {
        "KVM guest on Cloud Hypervisor, where a recipe of one's own brings it"
    }

    fn patience(&self) -> u32 {
        2
    }

    fn describe(&self, spec: &ServiceSpec) -> Description {
        qemu::describe(self.name(), spec)
    }

    fn available(&self, lab: &LabEnv) -> Result<(), Unavailable> {
        guest::kvm_available(lab)?;
        need_brought(&[
            (PROGRAM, "the program of a Cloud Hypervisor release"),
            (KERNEL, "a guest kernel with a PVH entry, ext4 and virtio over PCI built in"),
        ])
    }

    fn start(&self, lab: &LabEnv, spec: &ServiceSpec) -> Result<Box<dyn Running>, DeployError> {
        let plan = Plan {
            monitor: "Cloud Hypervisor",
            interface: "eth0",
            inside: None,
            command: &|files| command_line(lab, files),
        };
        guest::boot(lab, spec, &plan)
    }
}

/// The command line of Cloud Hypervisor. Disks appear in this order as `vda`, `vdb`. Pure.
fn command_line(lab: &LabEnv, files: &Files) -> Vec<String> {
    let append = format!(
        "console=ttyS0 quiet panic=-1 {GUEST_MODE} {DISK_WORD}root=/dev/vda {DISK_WORD}job=/dev/vdb"
    );
    let words = [
        PROGRAM,
        "--kernel",
        KERNEL,
        "--initramfs",
        &lab.guest_initrd.display().to_string(),
        "--cmdline",
        &append,
        "--cpus",
        "boot=1",
        "--memory",
        &format!("size={MEMORY}M"),
        "--serial",
        "tty",
        "--console",
        "off",
        "--disk",
        &format!("path={},direct=on", lab.image_disk.display()),
        &format!("path={}", files.job.display()),
        "--net",
        &format!("tap={},mac={}", Tap::NAME, lab.service_mac),
    ];
    words.map(str::to_owned).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_disks_come_in_the_order_in_which_the_guest_is_told_of_them() {
        let files = Files { job: "/run/altaz/job".into() };
        let line = command_line(&LabEnv::default(), &files);
        let disks = line.iter().position(|w| w == "--disk").unwrap();
        assert_eq!(
            line[disks + 1..disks + 3],
            ["path=/dev/altaz/service,direct=on", "path=/run/altaz/job"]
        );
        let append = &line[line.iter().position(|w| w == "--cmdline").unwrap() + 1];
        assert!(append.contains("altaz.disk.root=/dev/vda altaz.disk.job=/dev/vdb"), "{append}");
    }
}
