//! What every guest has in common, whatever makes its virtual hardware: a job on a small disk, a tap
//! on the bridge, a console through which it is told to stop, and its kernel's symbols at the end.
//!
//! How the virtual machine monitor is called is the business of each deployment, not of this file.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use altaz_profile::model::{Boundary, Layer, LayerInfo, Owner};
use altaz_profile::rules::{LayerRule, Machine, Origin, Privilege};
use rustix::process::Signal;

use super::{need_path, need_program, program};
use crate::cgroup::{self, Cgroup};
use crate::exec::{self, Child, Spot, Stdio3, Tool};
use crate::guest_disk::{self, DISK_SIZE, GUEST_UP, GuestJob, SERVICE_ENDED, SYMBOLS_AT};
use crate::layers::{self, Sharing};
use crate::net::Tap;
use crate::{DeployError, LabEnv, Running, ServiceSpec, Unavailable};

/// The device through which a process makes virtual processors.
const KVM: &str = "/dev/kvm";
const VHOST: &str = "/dev/vhost-net";
/// Memory of a guest in MiB.
pub(super) const MEMORY: u32 = 768;
/// Beyond the service's own time to stop: the guest writes its symbols and powers off.
const POWER_OFF: Duration = Duration::from_secs(60);

/// Layers of a KVM guest, its kernel the tenant's.
pub(super) fn kvm_layers() -> Vec<LayerInfo> {
    let mut all = layers::tenant_image();
    all.push(layers::layer(Layer::GuestKernel, Owner::Tenant, Sharing::PerTenant));
    all.push(layers::layer(Layer::Vmm, Owner::Provider, Sharing::PerTenant));
    all.push(layers::layer(Layer::HostKernel, Owner::Provider, Sharing::Shared));
    all
}

/// Which code of a KVM guest's host and of the guest belongs to which layer; rules for code of the
/// host's userland inside the guest come in between.
pub(super) fn kvm_rules(spec: &ServiceSpec, of_the_guest: Option<LayerRule>) -> Vec<LayerRule> {
    let mut rules = vec![layers::agent_rule()];
    rules.push(layers::kernel_rule(Machine::Guest, Layer::GuestKernel));
    rules.push(layers::kernel_rule(Machine::Host, Layer::HostKernel));
    rules.extend(layers::service_rules(spec));
    // The guest's vDSO is that of the host's kernel, byte by byte.
    rules.push(LayerRule {
        machine: Some(Machine::Guest),
        privilege: Some(Privilege::User),
        binary: Some("linux-vdso.so*".into()),
        ..LayerRule::any(Layer::Library)
    });
    rules.extend(of_the_guest);
    rules.extend(HOST_TOOLS.iter().map(|t| layers::host_binary(t, Some(Layer::HostService))));
    rules.push(layers::host_binary("*", Some(Layer::Vmm)));
    rules.push(layers::anonymous_rule(Machine::Guest, Layer::App));
    rules.push(layers::anonymous_rule(Machine::Host, Layer::Vmm));
    rules
}

/// Layers of a container inside a KVM guest: what runs the container is the guest's userland. Whose the guest's
/// kernel and userland are is what the nesting moves.
pub(super) fn container_layers(owner: Owner) -> Vec<LayerInfo> {
    let mut all = kvm_layers();
    let userland = layers::layer(Layer::GuestUserland, owner, Sharing::PerTenant);
    let at = all.iter().position(|l| l.name == Layer::GuestKernel).unwrap_or(all.len());
    all.insert(at, userland);
    for of_the_guest in all.iter_mut().skip(at).take(2) {
        (of_the_guest.owner, of_the_guest.ownership_moved) = (owner, true);
    }
    all
}

/// Boundaries of a container inside a KVM guest.
pub(super) fn container_boundaries() -> Vec<Boundary> {
    let mut all = vec![layers::container_syscalls(Layer::App, Layer::GuestKernel)];
    all.extend(kvm_boundaries());
    all
}

/// Which code of a container's guest belongs to which layer: programs of the host's image that run inside are what
/// runs the container.
pub(super) fn container_rules(spec: &ServiceSpec) -> Vec<LayerRule> {
    let runtime = LayerRule {
        machine: Some(Machine::Guest),
        privilege: Some(Privilege::User),
        origin: Some(Origin::Host),
        ..LayerRule::any(Layer::GuestUserland)
    };
    kvm_rules(spec, Some(runtime))
}

/// What sets up a guest's surroundings on the host.
pub(super) const HOST_TOOLS: &[&str] = &["*/ip", "*/kmod", "*/mke2fs", "*/taskset"];

/// Boundaries of a KVM guest below its kernel.
pub(super) fn kvm_boundaries() -> Vec<Boundary> {
    let (guest, vmm, host) = (Layer::GuestKernel, Layer::Vmm, Layer::HostKernel);
    vec![
        Boundary::new("vm-exit", guest, host, None),
        Boundary::new("msr", guest, host, None),
        Boundary::new("hypercall", guest, host, None),
        Boundary::new("port-io", guest, vmm, None),
        Boundary::new("mmio", guest, vmm, None),
        Boundary::new("syscall", vmm, host, None),
    ]
}

/// Refuses when a KVM guest cannot run here, whatever monitor it has.
pub(super) fn kvm_available(lab: &LabEnv) -> Result<(), Unavailable> {
    need_program("ip", "iproute2")?;
    need_path(
        Path::new(KVM),
        "the device",
        "nested virtualisation is needed: start the lab with `-cpu max,+svm` and load kvm_amd",
    )?;
    need_path(&lab.guest_kernel, "the guest's kernel", "rebuild the lab image")?;
    need_path(&lab.guest_initrd, "the guest's initrd", "rebuild the lab image")?;
    need_path(&lab.image_disk, "the service's disk", "attach a service image to the lab")
}

/// Refuses when the host kernel cannot serve a guest's network itself.
pub(super) fn vhost_available() -> Result<(), Unavailable> {
    if Path::new(VHOST).exists() || program("modprobe").is_some() {
        return Ok(());
    }
    Err(Unavailable::new(
        format!("the device {VHOST} is not there"),
        "load the module vhost_net in the lab",
    ))
}

/// Loads vhost-net where it is not there yet.
///
/// # Errors
/// When it cannot be loaded.
pub(super) fn load_vhost() -> Result<(), DeployError> {
    if Path::new(VHOST).exists() {
        return Ok(());
    }
    Tool::new(["modprobe", "vhost_net"]).run().map(drop)
}

/// What a guest is booted with; paths are the lab's.
#[derive(Debug)]
pub(super) struct Files {
    /// The job's disk.
    pub(super) job: PathBuf,
}

/// A guest to boot.
pub(super) struct Plan<'a> {
    /// What the monitor is, in words: `QEMU`.
    pub(super) monitor: &'static str,
    /// Name of the guest's network interface.
    pub(super) interface: &'static str,
    /// The deployment that runs the service inside; `None`: a plain process.
    pub(super) inside: Option<&'static str>,
    /// The monitor's command line.
    pub(super) command: &'a dyn Fn(&Files) -> Vec<String>,
}

/// Boots a guest that runs the service.
///
/// # Errors
/// When the lab cannot make what the guest needs; what had been set up is removed again.
pub(super) fn boot(
    lab: &LabEnv,
    spec: &ServiceSpec,
    plan: &Plan<'_>,
) -> Result<Box<dyn Running>, DeployError> {
    let files = Files { job: lab.run.join("guest-job.img") };
    let job = GuestJob {
        spec: spec.clone(),
        interface: plan.interface.into(),
        inside: plan.inside.map(Into::into),
        ip: lab.service_ip.clone(),
        prefix: lab.prefix,
        gateway: lab.gateway.clone(),
        mac: lab.service_mac.clone(),
    };
    write_job(&job, &files.job)?;
    let tap = Tap::create(lab)?;
    let cgroup = Cgroup::create(cgroup::ROOT.as_ref(), "altaz-guest")?;
    let log = lab.run.join("service.log");
    let mut stdio = Stdio3::logged(&log)
        .map_err(DeployError::system(format!("open the log {}", log.display())))?;
    stdio.stdin = Stdio::piped();
    let spot = Spot { cgroup: Some(cgroup.path().to_owned()), ..Spot::default() };
    let child = exec::spawn(&(plan.command)(&files), &[], &spot, stdio)?;
    let asks = plan.inside.is_some();
    let boot =
        Boot { begun: Instant::now(), limit: Duration::from_secs(spec.ready.timeout_s.into()) };
    Ok(Box::new(Guest { monitor: plan.monitor, asks, child, log, boot, files, cgroup, _tap: tap }))
}

fn write_job(job: &GuestJob, path: &Path) -> Result<(), DeployError> {
    let job = guest_disk::encode_job(job);
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

/// When the guest was started, and within what time its first process must have begun: that of the spec
/// for the whole service on bare metal, so that a guest that hangs is not waited for with the
/// deployment's own patience.
struct Boot {
    begun: Instant,
    limit: Duration,
}

struct Guest {
    monitor: &'static str,
    /// Whether the guest says only when asked that the service has ended.
    asks: bool,
    child: Child,
    log: PathBuf,
    boot: Boot,
    files: Files,
    // Dropped in this order.
    cgroup: Cgroup,
    _tap: Tap,
}

impl Guest {
    /// Whether its first process has begun.
    fn is_up(&self) -> bool {
        let console = fs::read(&self.log).unwrap_or_default();
        memchr::memmem::find(&console, GUEST_UP.trim().as_bytes()).is_some()
    }
}

impl Running for Guest {
    fn exited(&mut self) -> Option<String> {
        let log = self.log_tail();
        if let Some(status) = self.child.exited() {
            return Some(format!("the guest's {} {}\n{log}", self.monitor, exec::describe(status)));
        }
        if let Some(said) = ended(&log) {
            return Some(format!("the service {said}\n{log}"));
        }
        if !self.is_up() && self.boot.begun.elapsed() >= self.boot.limit {
            return Some(format!("after {} s {log}", self.boot.limit.as_secs()));
        }
        if self.asks {
            // The answer is seen at the next look.
            let _ = self.child.tell(guest_disk::STATUS_REQUEST);
        }
        None
    }

    fn log_tail(&self) -> String {
        words(&exec::tail(&self.log), self.is_up())
    }

    fn stop(&mut self, timeout: Duration) -> Result<(), DeployError> {
        // Nobody listens yet in a guest that has not booted.
        let up = self.is_up();
        let asked = self.child.tell(guest_disk::STOP_REQUEST);
        let in_time = up && asked.is_ok() && self.child.wait(timeout + POWER_OFF).is_some();
        if !in_time {
            self.child.signal(Signal::KILL);
        }
        self.cgroup.kill()?;
        self.child.wait(Duration::from_secs(5));
        if in_time || !up {
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
        let mut file = File::open(&self.files.job).ok()?;
        file.seek(SeekFrom::Start(SYMBOLS_AT)).ok()?;
        file.read_to_end(&mut slot).ok()?;
        let gzip = guest_disk::decode_symbols(&slot).ok()?;
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(gzip).read_to_end(&mut text).ok()?;
        Some(text)
    }
}

/// What a guest's console says about the service's end.
fn ended(console: &str) -> Option<&str> {
    console.lines().rev().find_map(|l| l.trim_end().strip_prefix(SERVICE_ENDED))
}

/// The end of the console, and whether the guest got anywhere: one that hangs says nothing itself.
fn words(console: &str, up: bool) -> String {
    let kept = console.replace(GUEST_UP, "");
    let kept = kept.trim();
    match (up, kept.is_empty()) {
        (true, _) => kept.to_owned(),
        (false, true) => "the guest has not booted: its console is empty".into(),
        (false, false) => format!("the guest has not booted; its console:\n{kept}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_hangs_at_boot_is_said_to_have_not_booted() {
        assert_eq!(words("", false), "the guest has not booted: its console is empty");
        let panic = words("[    0.9] Kernel panic - not syncing: VFS\n", false);
        assert!(panic.starts_with("the guest has not booted"), "{panic}");
        assert!(panic.contains("Kernel panic"), "{panic}");
        let up = words(&format!("SeaBIOS\n{GUEST_UP}ready to accept connections\n"), true);
        assert_eq!(up, "SeaBIOS\nready to accept connections");
    }

    #[test]
    fn the_last_word_on_the_service_s_end_counts() {
        let console = format!("x\n{SERVICE_ENDED}exited with code 3\r\n");
        assert_eq!(ended(&console), Some("exited with code 3"));
        assert_eq!(ended("nothing of the kind\n"), None);
    }
}
