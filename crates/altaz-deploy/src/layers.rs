//! Pieces of which deployments describe themselves: layers, boundaries, layer rules. Pure.

use altaz_profile::model::{BlindSpot, Boundary, Layer, LayerInfo, Owner};
use altaz_profile::rules::{LayerRule, Machine, Origin, Privilege};

use crate::model::ServiceSpec;
use crate::seccomp;

/// Whether one instance of a layer serves several tenants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// One instance per tenant: its compromise does not reach another tenant.
    PerTenant,
    /// One instance for all: its compromise breaks containment.
    Shared,
}

/// A layer whose code runs on its owner's side of the boundary.
pub fn layer(name: Layer, owner: Owner, sharing: Sharing) -> LayerInfo {
    LayerInfo {
        name,
        owner,
        shared: sharing == Sharing::Shared,
        ownership_moved: false,
        code: None,
    }
}

/// The layers that the tenant brings in its image, in every deployment.
pub fn tenant_image() -> Vec<LayerInfo> {
    [Layer::App, Layer::LanguageRuntime, Layer::Library]
        .map(|l| layer(l, Owner::Tenant, Sharing::PerTenant))
        .into()
}

/// The system call boundary without any filter: every call of the architecture is permitted.
pub fn unfiltered_syscalls(from: Layer, to: Layer) -> Boundary {
    Boundary::new("syscall", from, to, Some(seccomp::all_syscalls()))
}

/// The system call boundary under the default container profile.
pub fn container_syscalls(from: Layer, to: Layer) -> Boundary {
    Boundary::new("syscall", from, to, Some(seccomp::permitted_syscalls()))
}

/// Which code belongs to which layer when the service runs on the machine itself, beside nothing else.
pub fn bare_rules(spec: &ServiceSpec) -> Vec<LayerRule> {
    let mut rules = vec![agent_rule(), kernel_rule(Machine::Host, Layer::HostKernel)];
    rules.extend(service_rules(spec));
    // The tools that set up the lab's network are not part of such a deployment.
    rules.push(host_binary("*", None));
    rules.push(anonymous_rule(Machine::Host, Layer::App));
    rules
}

/// Globs over paths of an image that hold interpreters and their native extensions.
const RUNTIMES: &[&str] = &[
    "/usr/bin/python3*",
    "*/libpython3*",
    "*/python3*/*.so",
    "/usr/bin/ruby*",
    "*/libruby*",
    "*/ruby/*.so",
    "/usr/bin/node*",
    "*/bin/node",
    "*/libnode.so*",
    "*.node",
    "/usr/bin/perl*",
    "*/libperl.so*",
    "*/perl*/*.so",
    "*/bin/java",
    "*/jvm/*",
    "/usr/bin/php*",
    "*/libphp*",
    "*/php/*.so",
    "*/bin/beam.smp",
    "/usr/bin/lua*",
    "*/liblua*",
];

const LIBRARIES: &[&str] = &["*.so", "*.so.*", "*/ld-linux*"];

/// Rules for the service's image, wherever it runs: the spec's own first, then interpreters,
/// libraries, and everything else as the application.
pub fn service_rules(spec: &ServiceSpec) -> Vec<LayerRule> {
    let of_image = |layer, glob: Option<&str>| LayerRule {
        privilege: Some(Privilege::User),
        origin: Some(Origin::Service),
        binary: glob.map(str::to_owned),
        ..LayerRule::any(layer)
    };
    let own = spec.layers.iter().flat_map(|l| l.globs.iter().map(move |g| (l.layer, g.as_str())));
    own.chain(RUNTIMES.iter().map(|g| (Layer::LanguageRuntime, *g)))
        .chain(LIBRARIES.iter().map(|g| (Layer::Library, *g)))
        .map(|(layer, glob)| of_image(layer, Some(glob)))
        .chain([of_image(Layer::App, None)])
        .collect()
}

/// altaz's own agent, in the lab and in a nested guest, belongs to no layer.
pub fn agent_rule() -> LayerRule {
    LayerRule {
        privilege: Some(Privilege::User),
        binary: Some("*altaz-agent".into()),
        layer: None,
        ..LayerRule::any(Layer::App)
    }
}

/// Everything privileged on one of the machines.
pub fn kernel_rule(machine: Machine, layer: Layer) -> LayerRule {
    LayerRule {
        machine: Some(machine),
        privilege: Some(Privilege::Kernel),
        ..LayerRule::any(layer)
    }
}

/// A binary of the machine's own root; `None` excludes it.
pub fn host_binary(glob: &str, layer: Option<Layer>) -> LayerRule {
    LayerRule {
        machine: Some(Machine::Host),
        privilege: Some(Privilege::User),
        origin: Some(Origin::Host),
        binary: Some(glob.into()),
        layer,
        ..LayerRule::any(Layer::App)
    }
}

/// The same for one role of a binary that several processes share.
pub fn host_role(glob: &str, role: &str, layer: Layer) -> LayerRule {
    LayerRule { role: Some(role.into()), ..host_binary(glob, Some(layer)) }
}

/// User code of a machine that belongs to no file: the vDSO, code generated at run time.
pub fn anonymous_rule(machine: Machine, layer: Layer) -> LayerRule {
    LayerRule {
        machine: Some(machine),
        privilege: Some(Privilege::User),
        origin: Some(Origin::Unknown),
        ..LayerRule::any(layer)
    }
}

/// Blind spots that every deployment has.
pub fn common_blind_spots() -> Vec<BlindSpot> {
    vec![BlindSpot {
        layer: Some(Layer::LanguageRuntime),
        kind: "interpreted-code".into(),
        what: "functions written in an interpreted language are not counted as such: their \
               execution shows as the interpreter's native code"
            .into(),
        bytes: None,
        functions: None,
    }]
}
