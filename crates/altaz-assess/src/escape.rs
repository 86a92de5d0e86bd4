//! The ways from a tenant's code to another tenant: which barriers must fall, one after the other.
//!
//! Layers are places, boundaries the steps between them; a path begins at the application and ends at
//! the first layer that several tenants share. Interfaces between the same two layers are one
//! barrier, because the code behind them is the same; another sequence of layers is another path.
//! Nothing is added up over the barriers of a path or over paths: that is the reader's model.

use std::collections::BTreeSet;

use altaz_profile::results::{Barrier, EscapePath, Interface, LayerResult};
use altaz_profile::{Boundary, InstrumentKind, Layer, Manifest, Owner, Posture};

/// Paths that are listed; a manifest that somebody wrote may describe any number.
const PATHS: usize = 64;
/// Steps of the search, for the same reason.
const STEPS: usize = 20_000;
/// Capabilities that make their holder the host's superuser by themselves.
const ALMIGHTY: [&str; 3] = ["CAP_SYS_ADMIN", "CAP_SYS_MODULE", "CAP_SYS_PTRACE"];

/// Every path, the shortest first: that with the fewest barriers in a hostile tenant's way.
pub fn paths(manifest: &Manifest, layers: &[LayerResult]) -> Vec<EscapePath> {
    let of = |name| layers.iter().find(|l| l.name == name);
    let steps: Vec<&Boundary> = manifest
        .boundaries
        .iter()
        .filter(|b| b.from != b.to && of(b.from).is_some() && of(b.to).is_some())
        .collect();
    let shared = |layer| of(layer).is_some_and(|l| l.shared);
    let mut found = Vec::new();
    let mut budget = STEPS;
    walk(&steps, &shared, &mut vec![Layer::App], &mut found, &mut budget);
    let mut paths: Vec<EscapePath> = found
        .iter()
        .map(|route| EscapePath {
            name: route.iter().map(|l| l.as_str()).collect::<Vec<_>>().join(" → "),
            barriers: route
                .windows(2)
                .filter_map(|pair| match pair {
                    [from, to] => Some(barrier(manifest, &steps, *from, of(*to)?)),
                    _ => None,
                })
                .collect(),
        })
        .collect();
    paths.sort_by_key(|p| (p.barring().count(), p.barriers.len()));
    paths
}

/// Follows the boundaries from the end of a route to every shared layer.
fn walk(
    steps: &[&Boundary],
    shared: &dyn Fn(Layer) -> bool,
    route: &mut Vec<Layer>,
    found: &mut Vec<Vec<Layer>>,
    budget: &mut usize,
) {
    let Some(&here) = route.last() else { return };
    if shared(here) {
        found.push(route.clone());
        return;
    }
    let mut tried = BTreeSet::new();
    for next in steps.iter().filter(|b| b.from == here).map(|b| b.to) {
        if *budget == 0 || found.len() >= PATHS {
            return;
        }
        *budget -= 1;
        if !route.contains(&next) && tried.insert(next) {
            route.push(next);
            walk(steps, shared, route, found, budget);
            route.pop();
        }
    }
}

fn barrier(manifest: &Manifest, steps: &[&Boundary], from: Layer, to: &LayerResult) -> Barrier {
    let between: Vec<&&Boundary> =
        steps.iter().filter(|b| b.from == from && b.to == to.name).collect();
    let interfaces: Vec<Interface> = between.iter().map(|b| interface(b)).collect();
    let names: Vec<&str> = interfaces.iter().map(|i| i.name.as_str()).collect();
    let width = |of: fn(&Interface) -> Option<u32>| {
        interfaces.iter().map(of).try_fold(0_u32, |sum, n| Some(sum.saturating_add(n?)))
    };
    // The exact instrument sees every layer; the live one sees what it was asked to, and nothing of
    // a guest.
    let observed = to.functions > 0 || manifest.instrument.kind == InstrumentKind::Exact;
    let holder = holder(manifest, from);
    let guards = between.iter().filter_map(|b| b.guard.clone()).collect::<BTreeSet<_>>();
    let described = guards.into_iter().collect::<Vec<_>>().join("; ");
    Barrier {
        name: names.join(" + "),
        from,
        to: to.name,
        owner: to.owner,
        shared: to.shared,
        functions: observed.then_some(to.functions),
        bytes: observed.then_some(to.bytes),
        covered_bytes: to.covered_bytes.filter(|_| observed),
        permitted: width(|i| i.permitted),
        exercised: width(|i| i.exercised),
        interfaces,
        open: to.name == Layer::HostKernel && holder.is_some_and(almighty),
        guard: holder
            .filter(|_| to.name == Layer::HostKernel)
            .map(confinement)
            .into_iter()
            .chain(Some(described).filter(|d| !d.is_empty()))
            .reduce(|a, b| format!("{a}; {b}")),
        tenant_held: to.owner == Owner::Tenant && !to.shared,
    }
}

fn interface(boundary: &Boundary) -> Interface {
    let named = !boundary.permitted_entries.is_empty();
    let conditional = boundary.permitted_entries.iter().filter(|e| e.conditional).count();
    Interface {
        name: boundary.name.clone(),
        permitted: boundary.permitted,
        conditional: named.then_some(conditional as u32),
        exercised: boundary.exercised,
    }
}

/// Posture of the process that stands for a layer: of several the least confined, as an attacker
/// would choose it.
fn holder(manifest: &Manifest, layer: Layer) -> Option<&Posture> {
    let roles: &[&str] = match layer {
        Layer::App | Layer::Library | Layer::LanguageRuntime => &["app"],
        Layer::SandboxKernel => &["sentry"],
        Layer::SandboxHelper => &["gofer"],
        Layer::Vmm => &["vmm"],
        Layer::VmmHelper => &["vmm-helper"],
        Layer::HostService => &["shim"],
        _ => &[],
    };
    let of_layer = manifest.posture.iter().filter(|p| roles.contains(&p.role.as_str()));
    // The first of equals, so that the order of the file decides.
    of_layer.reduce(|a, b| if freedom(b) > freedom(a) { b } else { a })
}

/// How little confines a process; only for putting two of them in order.
fn freedom(p: &Posture) -> (bool, bool, usize, bool) {
    (almighty(p), p.seccomp == "none", p.capabilities.len(), p.uid == 0)
}

/// Whether a process may do on the host whatever the kernel lets anybody do, so that no defect of the
/// kernel is needed to leave it: the superuser's capabilities in the host's own user namespace, and
/// no system call filter.
fn almighty(p: &Posture) -> bool {
    let holds = |name: &&str| p.capabilities.iter().any(|c| c.eq_ignore_ascii_case(name));
    p.uid == 0
        && p.seccomp == "none"
        && !p.namespaces.iter().any(|n| n == "user")
        && ALMIGHTY.iter().all(holds)
}

/// What confines a process, in words.
fn confinement(p: &Posture) -> String {
    let capabilities = match p.capabilities.len() {
        0 => "no capabilities".to_owned(),
        1 => "1 capability".to_owned(),
        n => format!("{n} capabilities"),
    };
    let mut parts = vec![format!("{} runs as user {}", p.comm, p.uid), capabilities];
    parts.push(match p.seccomp.as_str() {
        "none" => "no system call filter".to_owned(),
        mode => format!("seccomp {mode}"),
    });
    if !p.namespaces.is_empty() {
        parts.push(format!("own namespaces {}", p.namespaces.join(", ")));
    }
    if p.no_new_privs {
        parts.push("no_new_privs".to_owned());
    }
    parts.extend(p.lsm.iter().filter(|l| !l.contains("unconfined")).cloned());
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{profile, unit};
    use crate::{Options, assess};
    use altaz_profile::{LayerInfo, Profile};

    fn boundary(name: &str, from: Layer, to: Layer, permitted: Option<u32>) -> Boundary {
        Boundary { exercised: Some(2), ..Boundary::new(name, from, to, permitted) }
    }

    fn posture(role: &str, uid: u32, capabilities: &[&str], seccomp: &str) -> Posture {
        Posture {
            role: role.into(),
            comm: "qemu".into(),
            tgid: 7,
            uid,
            capabilities: capabilities.iter().map(|c| (*c).to_owned()).collect(),
            bounding: vec![],
            namespaces: vec![],
            uid_map: vec![],
            no_new_privs: false,
            seccomp: seccomp.into(),
            lsm: vec![],
            devices: vec![],
        }
    }

    /// A guest: 3 functions of its kernel, 2 of the monitor, 5 of the host's kernel.
    fn guest() -> Profile {
        let mut p = profile();
        let vmm = LayerInfo {
            name: Layer::Vmm,
            owner: Owner::Provider,
            shared: false,
            ownership_moved: false,
            code: None,
        };
        p.manifest.layers.insert(2, vmm);
        p.manifest.boundaries = vec![
            boundary("syscall", Layer::App, Layer::GuestKernel, Some(373)),
            boundary("vm-exit", Layer::GuestKernel, Layer::HostKernel, Some(80)),
            boundary("hypercall", Layer::GuestKernel, Layer::HostKernel, None),
            boundary("port-io", Layer::GuestKernel, Layer::Vmm, Some(30)),
            boundary("mmio", Layer::GuestKernel, Layer::Vmm, Some(12)),
            boundary("syscall", Layer::Vmm, Layer::HostKernel, Some(373)),
        ];
        let layers = [(Layer::GuestKernel, 3), (Layer::Vmm, 2), (Layer::HostKernel, 5)];
        for (layer, count) in layers {
            p.units.extend((0..count).map(|i| unit(layer, "/b", i, &[1, 2, 3])));
        }
        p
    }

    fn of(p: &Profile) -> Vec<EscapePath> {
        assess(p, &Options::default()).unwrap().escape_paths
    }

    #[test]
    fn a_guest_is_left_through_its_exits_or_through_the_monitor_and_then_the_kernel() {
        let paths = of(&guest());
        let names: Vec<_> = paths.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(
            names,
            ["app → guest-kernel → host-kernel", "app → guest-kernel → vmm → host-kernel"]
        );
        let second = &paths[1].barriers;
        let functions: Vec<_> = second.iter().map(|b| b.functions).collect();
        assert_eq!(functions, [Some(3), Some(2), Some(5)], "in sequence, none summed");
        assert_eq!(second[1].name, "port-io + mmio");
        assert_eq!((second[1].permitted, second[1].exercised), (Some(42), Some(4)));
        assert!(second[0].tenant_held && !second[1].tenant_held);
        assert_eq!(paths[1].barring().count(), 2);
    }

    #[test]
    fn a_width_that_is_not_known_makes_the_barriers_unknown_and_not_zero() {
        let exits = &of(&guest())[0].barriers[1];
        assert_eq!((exits.name.as_str(), exits.permitted), ("vm-exit + hypercall", None));
        assert_eq!(exits.interfaces[0].permitted, Some(80));
    }

    #[test]
    fn a_monitor_that_is_the_superuser_is_no_further_barrier_and_the_path_says_so() {
        let mut p = guest();
        p.manifest.posture = vec![posture("vmm", 0, &ALMIGHTY, "none")];
        let d = assess(&p, &Options::default()).unwrap();
        let through = d.escape_paths.iter().find(|p| p.name.contains("vmm")).unwrap();
        assert!(through.barriers[2].open, "{through:#?}");
        assert_eq!(through.barring().count(), 1);
        assert_eq!(d.barriers, d.escape_paths[0].barriers);

        p.manifest.posture = vec![posture("vmm", 107, &[], "filter")];
        let confined = of(&p);
        let last = &confined[1].barriers[2];
        assert!(!last.open);
        let guard = last.guard.as_deref().unwrap();
        assert!(guard.contains("user 107") && guard.contains("seccomp filter"), "{guard}");
    }

    #[test]
    fn where_nothing_is_shared_there_is_no_path() {
        let mut p = guest();
        for l in &mut p.manifest.layers {
            l.shared = false;
        }
        assert_eq!(of(&p), []);
    }

    #[test]
    fn a_layer_that_the_live_instrument_did_not_see_has_no_size_rather_than_none() {
        let mut p = guest();
        p.manifest.instrument.kind = InstrumentKind::Live;
        p.units.retain(|u| u.layer == Layer::HostKernel);
        let paths = of(&p);
        assert_eq!(paths[1].barriers[1].functions, None);
        assert_eq!(paths[1].barriers[2].functions, Some(5));
    }

    #[test]
    fn a_manifest_with_every_boundary_there_can_be_is_searched_in_no_time() {
        let mut p = guest();
        p.manifest.layers = Layer::ALL
            .iter()
            .map(|&name| LayerInfo { name, ..p.manifest.layers[0].clone() })
            .collect();
        for &a in Layer::ALL {
            for &b in Layer::ALL {
                p.manifest.boundaries.push(boundary("x", a, b, None));
            }
        }
        assert_eq!(of(&p), [], "nothing is shared");
        p.manifest.layers.iter_mut().for_each(|l| l.shared = l.name == Layer::Firmware);
        assert!(!of(&p).is_empty() && of(&p).len() <= PATHS);
    }
}
