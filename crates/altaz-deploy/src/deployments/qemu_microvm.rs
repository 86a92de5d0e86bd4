//! `qemu-microvm`: a KVM guest with QEMU's minimal machine: no PCI, no firmware tables, virtio over
//! MMIO. Everything else is as in `qemu`.

use super::qemu::{self, Inside, Machine};
use crate::{DeployError, Deployment, Description, LabEnv, Running, ServiceSpec, Unavailable};

/// The deployment.
pub(super) struct QemuMicrovm;

impl Deployment for QemuMicrovm {
    fn name(&self) -> &'static str {
        "qemu-microvm"
    }

    fn summary(&self) -> &'static str {
        "KVM guest on QEMU's minimal machine, virtio disk, vhost-net"
    }

    fn patience(&self) -> u32 {
        2
    }

    fn describe(&self, spec: &ServiceSpec) -> Description {
        qemu::describe(self.name(), spec)
    }

    fn available(&self, lab: &LabEnv) -> Result<(), Unavailable> {
        qemu::available(lab)
    }

    fn start(&self, lab: &LabEnv, spec: &ServiceSpec) -> Result<Box<dyn Running>, DeployError> {
        qemu::start(lab, spec, Machine::Microvm, &Inside::default())
    }
}
