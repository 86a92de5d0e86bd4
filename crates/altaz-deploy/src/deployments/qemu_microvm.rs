//! `qemu-microvm`: a KVM guest with QEMU's minimal machine, virtio disk, and virtio network served by
//! the host kernel (vhost-net) through a tap on the bridge.
//!
//! The guest's root is the service image's disk itself. Its first process is altaz's agent, which
//! brings up the network, starts the service, and blocks until it is told to stop.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use altaz_profile::model::{Layer, Owner};
use altaz_profile::rules::Machine;
use rustix::process::Signal;

use super::{need_path, need_program, program};
use crate::cgroup::{self, Cgroup};
use crate::exec::{self, Child, Spot, Stdio3, Tool};
use crate::guest_disk::{self, DISK_SIZE, GUEST_MODE, GuestJob, SERVICE_ENDED, SYMBOLS_AT};
use crate::layers::{self, Sharing};
use crate::net::Tap;
use crate::{DeployError, Deployment, Description, LabEnv, Running, ServiceSpec, Unavailable};

/// The deployment.
pub(super) struct QemuMicrovm;

const QEMU: &str = "qemu-system-x86_64";
const KVM: &str = "/dev/kvm";
const VHOST: &str = "/dev/vhost-net";
/// Memory of the guest in MiB.
const MEMORY: u32 = 768;
/// Beyond the service's own time to stop: the guest writes its symbols and powers off.
const POWER_OFF: Duration = Duration::from_secs(30);

impl Deployment for QemuMicrovm {
    fn name(&self) -> &'static str {
        "qemu-microvm"
    }

    fn summary(&self) -> &'static str {
        "KVM guest on QEMU's minimal machine, virtio disk, vhost-net"
    }

    fn describe(&self, spec: &ServiceSpec) -> Description {
        let mut layers = layers::tenant_image();
        layers.push(layers::layer(Layer::GuestKernel, Owner::Tenant, Sharing::PerTenant));
        layers.push(layers::layer(Layer::Vmm, Owner::Provider, Sharing::PerTenant));
        layers.push(layers::layer(Layer::HostKernel, Owner::Provider, Sharing::Shared));
        let mut rules = vec![layers::agent_rule()];
        rules.push(layers::kernel_rule(Machine::Guest, Layer::GuestKernel));
        rules.push(layers::kernel_rule(Machine::Host, Layer::HostKernel));
        rules.extend(layers::service_rules(spec));
        rules.push(layers::host_binary("*/ip", Some(Layer::HostService)));
        rules.push(layers::host_binary("*/kmod", Some(Layer::HostService)));
        rules.push(layers::host_binary("*", Some(Layer::Vmm)));
        rules.push(layers::anonymous_rule(Machine::Guest, Layer::App));
        rules.push(layers::anonymous_rule(Machine::Host, Layer::Vmm));
        let (guest, vmm, host) = (Layer::GuestKernel, Layer::Vmm, Layer::HostKernel);
        Description {
            name: self.name().into(),
            layers,
            boundaries: vec![
                layers::unfiltered_syscalls(Layer::App, guest),
                layers::boundary("vm-exit", guest, host, None),
                layers::boundary("msr", guest, host, None),
                layers::boundary("hypercall", guest, host, None),
                layers::boundary("port-io", guest, vmm, None),
                layers::boundary("mmio", guest, vmm, None),
                layers::boundary("syscall", vmm, host, None),
            ],
            rules,
            split_binaries: Vec::new(),
            blind_spots: layers::common_blind_spots(),
            notes: Vec::new(),
        }
    }

    fn available(&self, lab: &LabEnv) -> Result<(), Unavailable> {
        need_program("ip", "iproute2")?;
        need_program(QEMU, "qemu-system-x86")?;
        need_path(
            Path::new(KVM),
            "the device",
            "start the lab with `-cpu max,+svm` and load kvm_amd",
        )?;
        if !Path::new(VHOST).exists() && program("modprobe").is_none() {
            return Err(Unavailable::new(
                format!("the device {VHOST} is not there"),
                "load the module vhost_net in the lab",
            ));
        }
        need_path(&lab.guest_kernel, "the guest's kernel", "rebuild the lab image")?;
        need_path(&lab.guest_initrd, "the guest's initrd", "rebuild the lab image")?;
        need_path(&lab.image_disk, "the service's disk", "attach a service image to the lab")
    }

    fn start(&self, lab: &LabEnv, spec: &ServiceSpec) -> Result<Box<dyn Running>, DeployError> {
        if !Path::new(VHOST).exists() {
            Tool::new(["modprobe", "vhost_net"]).run()?;
        }
        let job_disk = lab.run.join("guest-job.img");
        write_job(lab, spec, &job_disk)?;
        let tap = Tap::create(lab)?;
        let cgroup = Cgroup::create(cgroup::ROOT.as_ref(), "altaz-qemu")?;
        let log = lab.run.join("service.log");
        let mut stdio = Stdio3::logged(&log)
            .map_err(DeployError::system(format!("open the log {}", log.display())))?;
        stdio.stdin = Stdio::piped();
        let spot = Spot { cgroup: Some(cgroup.path().to_owned()), ..Spot::default() };
        let child = exec::spawn(&command_line(lab, &job_disk), &[], &spot, stdio)?;
        Ok(Box::new(Guest { child, log, job_disk, cgroup, _tap: tap }))
    }
}

/// The command line of the guest's QEMU. Pure.
fn command_line(lab: &LabEnv, job_disk: &Path) -> Vec<String> {
    let disk = |id: &str, path: &Path, cache: &str| {
        format!("id={id},file={},format=raw,if=none,{cache}", path.display())
    };
    let words: &[(&str, String)] = &[
        ("-M", "microvm,rtc=on,pit=off,pic=off".into()),
        ("-accel", "kvm".into()),
        ("-cpu", "host".into()),
        ("-smp", "1".into()),
        ("-m", format!("{MEMORY}M")),
        ("-nodefaults", String::new()),
        ("-no-user-config", String::new()),
        ("-display", "none".into()),
        ("-serial", "stdio".into()),
        ("-no-reboot", String::new()),
        ("-kernel", lab.guest_kernel.display().to_string()),
        ("-initrd", lab.guest_initrd.display().to_string()),
        ("-append", format!("console=ttyS0 quiet panic=-1 reboot=t {GUEST_MODE}")),
        ("-drive", disk("root", &lab.image_disk, "cache=none,aio=native")),
        ("-device", "virtio-blk-device,drive=root,serial=root".into()),
        ("-drive", disk("job", job_disk, "cache=writeback")),
        ("-device", "virtio-blk-device,drive=job,serial=job".into()),
        ("-netdev", format!("tap,id=net,ifname={},script=no,downscript=no,vhost=on", Tap::NAME)),
        ("-device", format!("virtio-net-device,netdev=net,mac={}", lab.service_mac)),
    ];
    let mut line = vec![QEMU.to_owned()];
    for (option, value) in words {
        line.push((*option).to_owned());
        line.extend(Some(value.clone()).filter(|v| !v.is_empty()));
    }
    line
}

fn write_job(lab: &LabEnv, spec: &ServiceSpec, path: &Path) -> Result<(), DeployError> {
    let job = guest_disk::encode_job(&GuestJob {
        spec: spec.clone(),
        ip: lab.service_ip.clone(),
        prefix: lab.prefix,
        gateway: lab.gateway.clone(),
    });
    if job.len() as u64 > SYMBOLS_AT {
        return Err(DeployError::Service("the service spec is too large for a guest's job".into()));
    }
    let write = || {
        let _ = fs::remove_file(path);
        let file = File::create(path)?;
        file.set_len(DISK_SIZE)?;
        file.write_all_at(&job, 0)
    };
    write().map_err(DeployError::system(format!("write {}", path.display())))
}

struct Guest {
    child: Child,
    log: PathBuf,
    job_disk: PathBuf,
    // Dropped in this order.
    cgroup: Cgroup,
    _tap: Tap,
}

impl Running for Guest {
    fn exited(&mut self) -> Option<String> {
        let log = self.log_tail();
        if let Some(status) = self.child.exited() {
            return Some(format!("the guest's QEMU {}\n{log}", exec::describe(status)));
        }
        let said = log.lines().rev().find_map(|l| l.trim_end().strip_prefix(SERVICE_ENDED))?;
        Some(format!("the service {said}\n{log}"))
    }

    fn log_tail(&self) -> String {
        exec::tail(&self.log)
    }

    fn stop(&mut self, timeout: Duration) -> Result<(), DeployError> {
        let asked = self.child.tell(guest_disk::STOP_REQUEST);
        let in_time = asked.is_ok() && self.child.wait(timeout + POWER_OFF).is_some();
        if !in_time {
            self.child.signal(Signal::KILL);
        }
        self.cgroup.kill()?;
        self.child.wait(Duration::from_secs(5));
        if in_time {
            return Ok(());
        }
        Err(DeployError::Service(format!(
            "the guest did not power off within {} s and was killed; its console said:\n{}",
            (timeout + POWER_OFF).as_secs(),
            self.log_tail()
        )))
    }

    fn guest_kallsyms(&mut self) -> Option<Vec<u8>> {
        let mut slot = Vec::new();
        let mut file = File::open(&self.job_disk).ok()?;
        file.seek(SeekFrom::Start(SYMBOLS_AT)).ok()?;
        file.read_to_end(&mut slot).ok()?;
        let gzip = guest_disk::decode_symbols(&slot).ok()?;
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(gzip).read_to_end(&mut text).ok()?;
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_has_the_service_s_mac_and_both_disks() {
        let line = command_line(&LabEnv::default(), Path::new("/run/altaz/job")).join(" ");
        assert!(line.contains("mac=02:00:00:77:00:10"), "{line}");
        assert!(line.contains("file=/dev/altaz/service,"), "{line}");
        assert!(line.contains("file=/run/altaz/job,"), "{line}");
        assert!(line.contains("altaz.guest=1"), "{line}");
        assert!(!line.contains("  "), "{line}");
    }
}
