//! What a recognised deployment is made of: layers, owners, boundaries, rules. Taken from the
//! deployments that altaz starts itself, so that a live profile and one of the lab say the same, and
//! then adjusted to what can be seen from the host. Pure.

use std::collections::{BTreeMap, BTreeSet};

use altaz_deploy::layers::{self, Sharing};
use altaz_deploy::{
    Description, Image, Load, LoadKind, Ready, ReadyCheck, Service, ServiceSpec, by_name,
};
use altaz_profile::model::{BlindSpot, Layer, Owner};

use crate::target::Role;

/// Deployments that altaz starts, and the names of those whose layers are the same.
fn kin(deployment: &str) -> &'static str {
    match deployment {
        "process" => "process",
        "runc" | "crun" | "container" => "runc",
        name if name.starts_with("runsc") => "runsc-systrap",
        _ => "qemu-microvm",
    }
}

/// What is known of the running deployment besides its name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// Roles of its processes.
    pub(crate) roles: BTreeSet<Role>,
    /// The guest's CPUs are emulated rather than run by KVM.
    pub(crate) emulated: bool,
}

/// The deployment as it is seen live.
pub(crate) fn describe(deployment: &str, facts: &Facts) -> Description {
    let known = by_name(deployment).or_else(|| by_name(kin(deployment)));
    let mut d = known.map_or_else(empty, |k| k.describe(&nameless()));
    d.name = deployment.to_owned();
    d.split_binaries.clear();
    // Measured from the real filters, not taken from a default profile.
    for b in d.boundaries.iter_mut().filter(|b| b.name == "syscall" && b.to == Layer::HostKernel) {
        b.permitted = None;
    }
    let helper = |role: Role, layer| layers::host_role("*", role.as_str(), layer);
    for (role, layer) in [(Role::VmmHelper, Layer::VmmHelper), (Role::Shim, Layer::HostService)] {
        if facts.roles.contains(&role) {
            d.rules.insert(0, helper(role, layer));
            if !d.layers.iter().any(|l| l.name == layer) {
                d.layers.push(layers::layer(layer, Owner::Provider, Sharing::PerTenant));
            }
        }
    }
    d.layers.sort_by_key(|l| l.name);
    if facts.roles.contains(&Role::Vmm) {
        guest(&mut d, facts);
    }
    if facts.roles.contains(&Role::Sentry) {
        // Only one of gVisor's platforms rewrites the application.
        if deployment != "runsc-systrap" {
            d.blind_spots.retain(|b| b.kind != "patched-code");
        }
        d.blind_spots.push(spot(
            Layer::App,
            "memory-files",
            "code that gVisor keeps in memory of its own rather than mapping the image's file \
             belongs to no file, and its functions are not seen",
        ));
    }
    d
}

/// A guest seen from outside.
fn guest(d: &mut Description, facts: &Facts) {
    for (layer, what) in [
        (
            Layer::App,
            "the guest's user code cannot be seen from the host: record in the guest as well",
        ),
        (
            Layer::GuestKernel,
            "the guest's kernel cannot be seen from the host: record in the guest as well",
        ),
    ] {
        d.blind_spots.push(spot(layer, "guest-code", what));
    }
    if facts.emulated {
        let by_host = |name: &str| ["vm-exit", "msr", "hypercall"].contains(&name);
        d.boundaries.retain(|b| !by_host(&b.name));
        d.notes.push(
            "the guest's CPUs are emulated by the monitor, not run by KVM: there are no VM exits to count".into(),
        );
        d.blind_spots.push(spot(
            Layer::Vmm,
            "jit",
            "the code that the monitor translates the guest's code to is in no file",
        ));
    }
}

fn spot(layer: Layer, kind: &str, what: &str) -> BlindSpot {
    BlindSpot {
        layer: Some(layer),
        kind: kind.into(),
        what: what.into(),
        bytes: None,
        functions: None,
    }
}

fn empty() -> Description {
    Description {
        name: String::new(),
        layers: Vec::new(),
        boundaries: Vec::new(),
        rules: Vec::new(),
        split_binaries: Vec::new(),
        blind_spots: Vec::new(),
        notes: Vec::new(),
    }
}

/// Deployments describe themselves for a service; a live one has no spec, hence no layers of its own.
fn nameless() -> ServiceSpec {
    ServiceSpec {
        name: String::new(),
        image: Image::Oci { path: Default::default(), size: None },
        service: Service {
            command: Vec::new(),
            workdir: "/".into(),
            user: String::new(),
            port: 0,
            stop_timeout_s: 0,
            env: BTreeMap::new(),
        },
        ready: Ready { check: ReadyCheck::Tcp, port: 0, timeout_s: 0 },
        load: Load { name: String::new(), requests: 0, kind: LoadKind::Command(Vec::new()) },
        more_loads: Vec::new(),
        processes: Vec::new(),
        layers: Vec::new(),
    }
}
