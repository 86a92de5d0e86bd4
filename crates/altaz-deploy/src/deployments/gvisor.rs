//! What gVisor's platforms have in common: a container whose system calls are served by a kernel in
//! user space (the sentry), with gVisor's own network stack. The platforms differ in how the
//! application's system calls reach the sentry.
//!
//! The sentry runs on the tenant's side of the boundary, one per container, and is code of the
//! provider: ownership has moved against the side. Only the host kernel is shared.

use std::fs;
use std::path::Path;
use std::time::Duration;

use altaz_profile::model::{Boundary, Layer, Owner};
use altaz_profile::rules::Machine;

use super::container::{self, Runtime};
use super::{need_path, need_program, program};
use crate::cgroup::{self, Cgroup};
use crate::layers::{self, Sharing};
use crate::{
    DeployError, Description, LabEnv, RoleMark, Running, ServiceSpec, SplitBinary, Unavailable,
    seccomp,
};

/// File by whose presence some versions of gVisor take a network namespace for the host's own. Since
/// Linux 6.12 every namespace has it.
const MISTAKEN_SIGN: &str = "/proc/sys/net/core/rmem_default";

/// Layers, boundaries and rules.
pub(super) fn describe(name: &str, spec: &ServiceSpec) -> Description {
    let mut layers = layers::tenant_image();
    let mut sentry = layers::layer(Layer::SandboxKernel, Owner::Provider, Sharing::PerTenant);
    sentry.ownership_moved = true;
    layers.push(sentry);
    for l in [Layer::SandboxHelper, Layer::HostService] {
        layers.push(layers::layer(l, Owner::Provider, Sharing::PerTenant));
    }
    layers.push(layers::layer(Layer::HostKernel, Owner::Provider, Sharing::Shared));
    let mut rules = vec![layers::agent_rule()];
    rules.push(layers::kernel_rule(Machine::Host, Layer::HostKernel));
    rules.extend(layers::service_rules(spec));
    rules.push(layers::host_role("*/runsc", "gofer", Layer::SandboxHelper));
    rules.push(layers::host_role("*/runsc", "command", Layer::HostService));
    rules.push(layers::host_binary("*/runsc", Some(Layer::SandboxKernel)));
    rules.push(layers::host_binary("*", Some(Layer::HostService)));
    rules.push(layers::anonymous_rule(Machine::Host, Layer::App));
    Description {
        name: name.into(),
        layers,
        boundaries: vec![
            Boundary::new(
                "syscall",
                Layer::App,
                Layer::SandboxKernel,
                Some(seccomp::all_syscalls()),
            ),
            Boundary::new("gofer", Layer::SandboxKernel, Layer::SandboxHelper, None),
            Boundary::new("syscall", Layer::SandboxKernel, Layer::HostKernel, None),
        ],
        rules,
        split_binaries: vec![split()],
        blind_spots: layers::common_blind_spots(),
        notes: Vec::new(),
    }
}

/// Whether the lab has gVisor.
pub(super) fn available(lab: &LabEnv) -> Result<(), Unavailable> {
    need_program("ip", "iproute2")?;
    need_program("runsc", "runsc")?;
    need_path(&lab.image_disk, "the service's disk", "attach a service image to the lab")
}

/// Starts the service's container on a platform.
pub(super) fn start(
    lab: &LabEnv,
    spec: &ServiceSpec,
    platform: &str,
) -> Result<Box<dyn Running>, DeployError> {
    container::start(lab, spec, |lab| runtime(lab, platform))
}

fn runtime(lab: &LabEnv, platform: &str) -> Result<Runtime, DeployError> {
    let mut notes = Vec::new();
    let hide = needs_workaround(Path::new("/"));
    if hide {
        notes.push(format!(
            "this gVisor takes any network namespace with {MISTAKEN_SIGN} for the host's own \
             and refuses its network stack there; that directory is hidden from it by an empty \
             tmpfs in a private mount namespace"
        ));
    }
    let state = lab.run.join("runsc");
    Ok(Runtime {
        command: vec![
            "runsc".into(),
            format!("--root={}", state.display()),
            format!("--platform={platform}"),
            "--network=sandbox".into(),
            "--ignore-cgroups".into(),
        ],
        hide_in_netns: hide
            .then(|| Path::new(MISTAKEN_SIGN).parent().unwrap_or(Path::new("/")).to_owned()),
        cgroup: Some(Cgroup::create(cgroup::ROOT.as_ref(), "altaz-runsc")?),
        start_timeout: Duration::from_secs(120),
        notes,
    })
}

/// Sentry, gofer and command line are one binary.
fn split() -> SplitBinary {
    let mark = |role: &str, functions: &[&str]| RoleMark {
        role: role.into(),
        functions: functions.iter().map(|f| (*f).to_owned()).collect(),
    };
    SplitBinary {
        path: "/usr/bin/runsc".into(),
        roles: vec![
            mark(
                "sentry",
                &[
                    "gvisor.dev/gvisor/runsc/cmd.(*Boot).",
                    "gvisor.dev/gvisor/pkg/sentry/kernel.(*Task).",
                ],
            ),
            mark("gofer", &["gvisor.dev/gvisor/runsc/cmd.(*Gofer)."]),
            mark(
                "command",
                &[
                    "gvisor.dev/gvisor/runsc/cmd.(*Run).Execute",
                    "gvisor.dev/gvisor/runsc/cmd.(*Kill).Execute",
                    "gvisor.dev/gvisor/runsc/cmd.(*Delete).Execute",
                ],
            ),
        ],
        default_role: "sentry".into(),
    }
}

/// Whether the kernel shows the sign in every namespace and this gVisor looks at it.
fn needs_workaround(root: &Path) -> bool {
    let at = |p: &Path| root.join(p.strip_prefix("/").unwrap_or(p));
    let sign = Path::new(MISTAKEN_SIGN);
    at(sign).exists()
        && program("runsc")
            .and_then(|p| fs::read(at(&p)).ok())
            .is_some_and(|binary| memchr::memmem::find(&binary, MISTAKEN_SIGN.as_bytes()).is_some())
}
