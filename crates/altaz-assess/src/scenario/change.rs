//! Changes to a deployment.

use altaz_profile::{Boundary, Layer, LayerInfo, Owner};

use crate::contract::Terms;
use crate::risk::Language;
use crate::risk::code::{Item, matches};
use crate::risk::rewrite::Rewritten;
use crate::risk::subject::{Subject, SubjectLayer};
use crate::sums::Sums;

/// Interfaces of a guest that nesting puts under a service, where the scenario does not say otherwise.
const VM_EXITS: u32 = 30;

/// One thing that is different.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Somebody else must remediate a layer; `None` is nobody.
    Owner {
        /// The layer.
        layer: Layer,
        /// Who.
        to: Option<Owner>,
    },
    /// Another patch window, for a layer or all layers of an owner.
    Window {
        /// The layer; `None` with an owner.
        layer: Option<Layer>,
        /// Whose layers; `None` with a layer.
        owner: Option<Owner>,
        /// Days.
        days: f64,
    },
    /// Other diligence in looking for defects.
    Search {
        /// The layer.
        layer: Layer,
        /// Times ordinary.
        times: f64,
    },
    /// Fewer or more defects in the same code.
    Density {
        /// The layer.
        layer: Layer,
        /// Components of it, `*` at the ends for any; `None` is all.
        component: Option<String>,
        /// Times what it was.
        factor: f64,
    },
    /// The same function in another language.
    Rewrite(Rewritten),
    /// Code that is no longer there.
    Remove {
        /// The layer.
        layer: Layer,
        /// Its components, `*` at the ends for any.
        component: String,
    },
    /// Fewer entry points.
    Narrow {
        /// Name of the boundary.
        boundary: String,
        /// Entry points that remain.
        permitted: u32,
    },
    /// A filter before a boundary: fewer entry points, and code of its own.
    Guard {
        /// Name of the boundary.
        boundary: String,
        /// Entry points that remain.
        permitted: u32,
        /// Its own code, kB.
        code_kb: f64,
        /// Language of that.
        language: Language,
    },
    /// A guest kernel and a machine monitor between the service and the host.
    Nest {
        /// Code of the machine monitor that is traversed, kB.
        vmm_kb: f64,
        /// Language of that.
        language: Language,
        /// Share of the host kernel's code that is still traversed.
        host_share: f64,
        /// Interfaces of the guest: exits, port and memory-mapped registers.
        exits: u32,
    },
}

impl Change {
    /// The rewrite, if it is one.
    pub(crate) fn rewrite(&self) -> Option<Rewritten> {
        match self {
            Self::Rewrite(rewritten) => Some(rewritten.clone()),
            _ => None,
        }
    }
}

/// Changes a deployment, and says how.
///
/// # Errors
/// Why the change does not fit; the deployment is as it was.
pub fn apply(subject: &mut Subject, change: &Change) -> Result<String, String> {
    let name = subject.name.clone();
    let missing = |layer: Layer| format!("{name} has no layer {layer}: the change is left out");
    match change {
        Change::Owner { layer, to } => {
            let l = subject.layer_mut(*layer).ok_or_else(|| missing(*layer))?;
            l.terms.owner = *to;
            let to = to.map_or("nobody".into(), |o| format!("the {o}"));
            Ok(format!("{layer}: {to} must remediate it"))
        }
        Change::Window { layer, owner, days } => window(subject, *layer, *owner, *days),
        Change::Search { layer, times } => {
            subject.layer_mut(*layer).ok_or_else(|| missing(*layer))?.terms.search = *times;
            Ok(format!("{layer}: defects are looked for {times} times as actively as ordinary"))
        }
        Change::Density { layer, component, factor } => {
            let pattern = component.as_deref().unwrap_or("*");
            let n = each(subject, *layer, pattern, |i| i.factor *= factor)?;
            Ok(format!("{layer}: {factor} times the defects in {n} components"))
        }
        Change::Rewrite(r) => {
            let pattern = r.component.as_deref().unwrap_or("*");
            let n = each(subject, r.layer, pattern, |i| {
                i.rewritten = Some((r.to, r.years));
                i.frozen = r.frozen;
            })?;
            Ok(format!(
                "{}: {n} components rewritten in {}, {} years ago",
                r.layer,
                r.to.as_str(),
                r.years
            ))
        }
        Change::Remove { layer, component } => {
            let l = subject.layer_mut(*layer).ok_or_else(|| missing(*layer))?;
            let before = l.items.len();
            l.items.retain(|i| !matches(component, &i.name));
            let gone = before - l.items.len();
            if gone == 0 {
                return Err(no_component(&name, *layer, component));
            }
            Ok(format!("{layer}: {gone} components removed ({component})"))
        }
        Change::Narrow { boundary, permitted } => narrow(subject, boundary, *permitted),
        Change::Guard { boundary, permitted, code_kb, language } => {
            let narrowed = narrow(subject, boundary, *permitted)?;
            let to = subject.boundaries.iter().find(|b| &b.name == boundary).map(|b| b.to);
            let bytes = (code_kb * 1000.0) as u64;
            if let Some(layer) = to.and_then(|to| subject.layer_mut(to)).filter(|_| bytes > 0) {
                let sums = Sums { functions: 1, bytes, covered: Some(bytes) };
                layer.items.push(Item::new(&format!("guard of {boundary}"), None, *language, sums));
            }
            Ok(format!("{narrowed}, by a guard of {code_kb} kB in {}", language.as_str()))
        }
        Change::Nest { vmm_kb, language, host_share, exits } => {
            nest(subject, *vmm_kb, *language, *host_share, *exits)
        }
    }
}

fn no_component(subject: &str, layer: Layer, pattern: &str) -> String {
    format!(
        "{subject}, {layer}: no traversed component is named `{pattern}`: the change is left out"
    )
}

fn window(
    subject: &mut Subject,
    layer: Option<Layer>,
    owner: Option<Owner>,
    days: f64,
) -> Result<String, String> {
    let mut changed = Vec::new();
    for l in &mut subject.layers {
        let wanted =
            layer.is_some_and(|x| x == l.info.name) || (owner.is_some() && l.terms.owner == owner);
        if wanted {
            l.terms.window_days = Some(days);
            changed.push(l.info.name.as_str());
        }
    }
    if changed.is_empty() {
        return Err(format!("{} has no such layer: the change is left out", subject.name));
    }
    Ok(format!("{}: patched within {days} days", changed.join(", ")))
}

/// Changes components; how many.
fn each(
    subject: &mut Subject,
    layer: Layer,
    pattern: &str,
    change: impl Fn(&mut Item),
) -> Result<usize, String> {
    let name = subject.name.clone();
    let Some(l) = subject.layer_mut(layer) else {
        return Err(format!("{name} has no layer {layer}: the change is left out"));
    };
    let mut n = 0;
    for item in l.items.iter_mut().filter(|i| matches(pattern, &i.name)) {
        change(item);
        n += 1;
    }
    if n == 0 { Err(no_component(&name, layer, pattern)) } else { Ok(n) }
}

fn narrow(subject: &mut Subject, name: &str, permitted: u32) -> Result<String, String> {
    let whose = subject.name.clone();
    let mut into: Vec<(Layer, f64)> = Vec::new();
    for b in subject.boundaries.iter_mut().filter(|b| b.name == name) {
        let Some(before) = b.permitted.filter(|&p| p > 0) else {
            return Err(format!(
                "{whose}: how many entry points {name} permits was not determined, so that it cannot \
                 be narrowed"
            ));
        };
        into.push((b.to, f64::from(permitted) / f64::from(before)));
        b.permitted = Some(permitted);
        b.exercised = b.exercised.map(|e| e.min(permitted));
    }
    if into.is_empty() {
        return Err(format!("{whose} has no boundary {name}: the change is left out"));
    }
    for (to, ratio) in into {
        if let Some(layer) = subject.layer_mut(to) {
            layer.width *= ratio;
        }
    }
    Ok(format!("{name}: {permitted} entry points"))
}

/// Puts a guest kernel, which is what the host kernel was, and a machine monitor under the service.
fn nest(
    subject: &mut Subject,
    vmm_kb: f64,
    language: Language,
    host_share: f64,
    exits: u32,
) -> Result<String, String> {
    if subject.layer(Layer::GuestKernel).is_some() {
        return Err(format!("{} is in a virtual machine already", subject.name));
    }
    let Some(at) = subject.layers.iter().position(|l| l.info.name == Layer::HostKernel) else {
        return Err(format!("{} has no host kernel to nest it on", subject.name));
    };
    let host = &subject.layers[at];
    let info =
        |name, owner| LayerInfo { name, owner, shared: false, ownership_moved: false, code: None };
    let tenant = Terms {
        owner: Some(Owner::Tenant),
        could_fix: Some(Owner::Tenant),
        window_days: subject.layers.first().and_then(|l| l.terms.window_days),
        search: 1.0,
    };
    let guest = SubjectLayer {
        info: info(Layer::GuestKernel, Owner::Tenant),
        terms: tenant,
        items: host.items.clone(),
        width: 1.0,
        density: None,
        outside: false,
    };
    let bytes = (vmm_kb * 1000.0) as u64;
    let sums = Sums { functions: bytes / 380, bytes, covered: Some(bytes) };
    let provider = Terms {
        owner: Some(Owner::Provider),
        could_fix: Some(Owner::Provider),
        window_days: host.terms.window_days,
        search: host.terms.search,
    };
    let vmm = SubjectLayer {
        info: info(Layer::Vmm, Owner::Provider),
        terms: provider.clone(),
        items: vec![Item::new("machine monitor", None, language, sums)],
        width: 1.0,
        density: None,
        outside: false,
    };
    let host = &mut subject.layers[at];
    host.info.shared = true;
    host.info.owner = Owner::Provider;
    host.terms = Terms { ..provider };
    for item in &mut host.items {
        item.functions = (item.functions as f64 * host_share) as u64;
        item.bytes = (item.bytes as f64 * host_share) as u64;
        item.covered = item.covered.map(|c| (c as f64 * host_share) as u64);
    }
    subject.layers.splice(at..at, [guest, vmm]);
    for b in &mut subject.boundaries {
        if b.to == Layer::HostKernel {
            b.to = Layer::GuestKernel;
        }
    }
    subject.boundaries.extend([
        Boundary::new("vm-exit", Layer::GuestKernel, Layer::HostKernel, Some(exits)),
        Boundary::new("mmio", Layer::GuestKernel, Layer::Vmm, Some(exits)),
        Boundary::new("syscall of the vmm", Layer::Vmm, Layer::HostKernel, None),
    ]);
    subject.derive_paths();
    Ok(format!(
        "nested in a virtual machine: the kernel once more as the guest's, the tenant's; a machine \
         monitor of {vmm_kb} kB in {}; {:.0} % of the host kernel's code is left",
        language.as_str(),
        host_share * 100.0
    ))
}

impl Change {
    /// Nesting with what was measured in the demo: QEMU's microvm, half of the host kernel.
    pub fn nest() -> Self {
        Self::Nest { vmm_kb: 135.0, language: Language::C, host_share: 0.47, exits: VM_EXITS }
    }
}
