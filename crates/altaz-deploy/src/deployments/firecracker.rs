//! `firecracker`: a KVM guest on Firecracker: a monitor with a handful of devices, virtio over MMIO
//! only, in a process that is little else.
//!
//! No distribution packages Firecracker or a kernel for it, so that it runs where a lab of one's own
//! recipe brings both; everywhere else it is listed with what is missing. Its network is served by the
//! monitor itself, not by the host kernel.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::guest::{self, Files, MEMORY, Plan};
use super::need_brought;
use super::qemu;
use crate::guest_disk::{DISK_WORD, GUEST_MODE};
use crate::net::Tap;
use crate::{DeployError, Deployment, Description, LabEnv, Running, ServiceSpec, Unavailable};

/// The deployment.
pub(super) struct Firecracker;

const PROGRAM: &str = "/usr/local/bin/firecracker";
/// An uncompressed kernel with ext4, virtio over MMIO, its disks and its network card built in.
const KERNEL: &str = "/usr/local/share/firecracker/vmlinux";

impl Deployment for Firecracker {
    fn name(&self) -> &'static str {
        "firecracker"
    }

    fn summary(&self) -> &'static str {
        "KVM guest on Firecracker, where a recipe of one's own brings it"
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
            (PROGRAM, "the program of a Firecracker release"),
            (KERNEL, "a guest kernel with ext4 and virtio over MMIO built in, uncompressed"),
        ])
    }

    fn start(&self, lab: &LabEnv, spec: &ServiceSpec) -> Result<Box<dyn Running>, DeployError> {
        let file = lab.run.join("firecracker.json");
        let plan = Plan {
            monitor: "Firecracker",
            interface: "eth0",
            inside: None,
            command: &|files| {
                let text = config(lab, files).to_string();
                // A file that is missing is what Firecracker then says.
                let _ = fs::write(&file, text);
                let file = file.display().to_string();
                vec![PROGRAM.into(), "--no-api".into(), "--config-file".into(), file]
            },
        };
        guest::boot(lab, spec, &plan)
    }
}

/// What Firecracker is told. Disks appear in this order as `vda`, `vdb`. Pure.
fn config(lab: &LabEnv, files: &Files) -> Value {
    let drive = |id: &str, path: &Path, cache: &str| {
        json!({
            "drive_id": id, "path_on_host": path, "is_root_device": false, "is_read_only": false,
            "cache_type": cache,
        })
    };
    json!({
        "boot-source": {
            "kernel_image_path": KERNEL,
            "initrd_path": lab.guest_initrd,
            "boot_args": format!(
                "console=ttyS0 quiet reboot=k panic=-1 pci=off {GUEST_MODE} \
                 {DISK_WORD}root=/dev/vda {DISK_WORD}job=/dev/vdb"
            ),
        },
        "drives": [
            drive("root", &lab.image_disk, "Writeback"),
            drive("job", &files.job, "Writeback"),
        ],
        "machine-config": { "vcpu_count": 1, "mem_size_mib": MEMORY },
        "network-interfaces": [{
            "iface_id": "net", "host_dev_name": Tap::NAME, "guest_mac": lab.service_mac,
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firecracker_is_told_of_both_disks_in_the_order_in_which_the_guest_is() {
        let files = Files { job: "/run/altaz/job".into() };
        let config = config(&LabEnv::default(), &files);
        let args = config["boot-source"]["boot_args"].as_str().unwrap();
        assert!(args.contains("altaz.disk.root=/dev/vda altaz.disk.job=/dev/vdb"), "{args}");
        assert_eq!(config["drives"][0]["path_on_host"], "/dev/altaz/service");
        assert_eq!(config["drives"][1]["path_on_host"], "/run/altaz/job");
        assert_eq!(config["network-interfaces"][0]["guest_mac"], "02:00:00:77:00:10");
    }
}
