//! `uml`: user-mode Linux, a guest whose kernel is an ordinary program of the host.
//!
//! There is no monitor and no virtual processor. The guest's kernel runs in user mode, makes system
//! calls for everything that a machine would do, and traces the guest's processes (ptrace), so that
//! their system calls come to it and not to the host. Its disk driver reads and writes the service's
//! disk, its network card is a tap on the bridge (vector transport). As in every guest the kernel is
//! the tenant's; what contains it is the system call interface of the host, as for a container, but
//! without a filter.
//!
//! The guest has one virtual processor, and its kernel and the process that it traces take turns, several times for
//! each system call and page fault. They are kept on one processor of the host: between two, every turn would wake
//! the other one up, which made the guest half as fast.

use std::path::Path;

use altaz_profile::model::{BlindSpot, Layer, Owner};
use altaz_profile::rules::Machine;

use super::guest::{self, Files, HOST_TOOLS, MEMORY, Plan};
use super::{need_path, need_program};
use crate::guest_disk::{DISK_WORD, GUEST_MODE};
use crate::layers::{self, Sharing};
use crate::net::Tap;
use crate::{DeployError, Deployment, Description, LabEnv, Running, ServiceSpec, Unavailable};

/// The deployment.
pub(super) struct Uml;

/// The guest's kernel.
const KERNEL: &str = "linux.uml";
/// What keeps all of it on one processor of the host.
const PINNED: [&str; 3] = ["taskset", "--cpu-list", "1"];
/// Name of the network interface that its vector driver makes.
const INTERFACE: &str = "vec0";

impl Deployment for Uml {
    fn name(&self) -> &'static str {
        "uml"
    }

    fn summary(&self) -> &'static str {
        "user-mode Linux: a guest kernel that is a program of the host, traced by ptrace"
    }

    fn patience(&self) -> u32 {
        4
    }

    fn describe(&self, spec: &ServiceSpec) -> Description {
        let mut layers = layers::tenant_image();
        layers.push(layers::layer(Layer::GuestKernel, Owner::Tenant, Sharing::PerTenant));
        layers.push(layers::layer(Layer::HostKernel, Owner::Provider, Sharing::Shared));
        let mut rules = vec![layers::agent_rule()];
        rules.push(layers::kernel_rule(Machine::Host, Layer::HostKernel));
        rules.extend(layers::service_rules(spec));
        rules.extend(HOST_TOOLS.iter().map(|t| layers::host_binary(t, Some(Layer::HostService))));
        rules.push(layers::host_binary("*", Some(Layer::GuestKernel)));
        rules.push(layers::anonymous_rule(Machine::Host, Layer::App));
        let mut blind_spots = layers::common_blind_spots();
        blind_spots.push(BlindSpot {
            layer: Some(Layer::GuestKernel),
            kind: "shared-library".into(),
            what:
                "the C library that the guest's kernel itself uses on the host is counted with the \
                   service's libraries where the service's image holds the same file"
                    .into(),
            bytes: None,
            functions: None,
        });
        Description {
            name: self.name().into(),
            layers,
            boundaries: vec![
                layers::unfiltered_syscalls(Layer::App, Layer::GuestKernel),
                layers::unfiltered_syscalls(Layer::GuestKernel, Layer::HostKernel),
            ],
            rules,
            split_binaries: Vec::new(),
            blind_spots,
            notes: Vec::new(),
        }
    }

    fn available(&self, lab: &LabEnv) -> Result<(), Unavailable> {
        need_program("ip", "iproute2")?;
        need_program(KERNEL, "user-mode-linux")?;
        need_program(PINNED[0], "util-linux")?;
        need_path(&lab.guest_initrd, "the guest's initrd", "rebuild the lab image")?;
        need_path(&lab.image_disk, "the service's disk", "attach a service image to the lab")?;
        // Its memory is a file there that it also executes.
        need_path(Path::new("/dev/shm"), "the directory", "mount a tmpfs there in the lab")
    }

    fn start(&self, lab: &LabEnv, spec: &ServiceSpec) -> Result<Box<dyn Running>, DeployError> {
        let plan = Plan {
            monitor: "kernel",
            interface: INTERFACE,
            inside: None,
            command: &|files| command_line(lab, files),
        };
        guest::boot(lab, spec, &plan)
    }

    fn guest_kernel_program(&self) -> Option<&'static str> {
        Some("/usr/bin/linux.uml")
    }
}

/// The command line of the guest's kernel: half what a monitor is told, half what a kernel is. Pure.
fn command_line(lab: &LabEnv, files: &Files) -> Vec<String> {
    let mut line: Vec<String> = PINNED.iter().map(|word| (*word).to_owned()).collect();
    line.extend([
        KERNEL.into(),
        format!("mem={MEMORY}M"),
        format!("initrd={}", lab.guest_initrd.display()),
        "con=null".into(),
        "ssl=null".into(),
        "ssl0=fd:0,fd:1".into(),
        "console=ttyS0".into(),
        "quiet".into(),
        "panic=-1".into(),
        format!("ubd0={}", lab.image_disk.display()),
        format!("ubd1={}", files.job.display()),
        format!("{DISK_WORD}root=/dev/ubda"),
        format!("{DISK_WORD}job=/dev/ubdb"),
        format!("{INTERFACE}:transport=tap,ifname={},mac={}", Tap::NAME, lab.service_mac),
        GUEST_MODE.into(),
    ]);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_disks_are_named_for_the_guest_as_its_driver_names_them() {
        let files = Files { job: "/run/altaz/job".into() };
        let line = command_line(&LabEnv::default(), &files).join(" ");
        assert!(line.contains("ubd0=/dev/altaz/service"), "{line}");
        assert!(line.contains("altaz.disk.root=/dev/ubda"), "{line}");
        assert!(line.contains("ubd1=/run/altaz/job"), "{line}");
        assert!(line.contains("altaz.disk.job=/dev/ubdb"), "{line}");
        assert!(line.contains("vec0:transport=tap,ifname=tap0,mac=02:00:00:77:00:10"), "{line}");
    }
}
