//! What a contract leaves open: moved, orphaned, not fixable by its owner, without a window, and
//! losses that its remedies do not cover.

use altaz_profile::results::risk::{FindingKind, OwnershipFinding};
use altaz_profile::{Layer, Owner};

use super::run::layer_sums;
use super::subject::{Subject, SubjectLayer};

/// Findings in the order of the layers.
pub(crate) fn findings(subject: &Subject) -> Vec<OwnershipFinding> {
    let mut found = Vec::new();
    for layer in &subject.layers {
        let mut add = |kind, what: String, evidence: String| {
            found.push(OwnershipFinding { kind, layer: layer.info.name, what, evidence });
        };
        let name = layer.info.name;
        let functions = layer_sums(layer).functions;
        let traversed = format!("{functions} functions of it were traversed");
        moved(layer, &mut add);
        match (layer.terms.owner, layer.terms.could_fix) {
            (None, could) => add(
                FindingKind::Orphaned,
                format!(
                    "nobody must remediate {name}{}",
                    could.map_or(String::new(), |c| format!(", though the {c} could"))
                ),
                traversed.clone(),
            ),
            (Some(owner), could) if could != Some(owner) => {
                let could = could.map_or("nobody".into(), |c| format!("only the {c}"));
                add(
                    FindingKind::CannotFix,
                    format!("the {owner} must remediate {name}, and {could} can"),
                    format!("contract \"{}\"; {traversed}", subject.contract.title),
                );
            }
            _ => {}
        }
        if layer.terms.owner.is_some() && layer.terms.window_days.is_none() && functions > 0 {
            add(
                FindingKind::NoWindow,
                format!("no patch window was agreed for {name}"),
                format!("contract \"{}\"; {traversed}", subject.contract.title),
            );
        }
        if layer.info.shared && functions > 0 && !subject.contract.remedies_are_enough() {
            let c = &subject.contract;
            let regimes = if c.obligations.is_empty() {
                "no outside obligation".into()
            } else {
                c.obligations.join(", ")
            };
            add(
                FindingKind::RemedyFallsShort,
                format!(
                    "a breach through {name} costs the tenant more than it gets: {}",
                    c.remedy.as_str()
                ),
                format!("{} data, {regimes}", c.data.as_str()),
            );
        }
    }
    found
}

fn moved(layer: &SubjectLayer, add: &mut impl FnMut(FindingKind, String, String)) {
    let name = layer.info.name;
    if let Some(owner) = layer.terms.owner.filter(|&o| o != layer.info.owner) {
        add(
            FindingKind::Moved,
            format!("the contract gives {name} to the {owner}"),
            format!("recorded as the {}'s", layer.info.owner),
        );
    } else if layer.info.ownership_moved {
        let side = side(name);
        add(
            FindingKind::Moved,
            format!("{name} is the {}'s and runs on the {side}'s side", layer.info.owner),
            format!("the recording: one instance for each tenant, {}", place(name)),
        );
    }
}

/// On whose side of the boundary a layer runs when ownership moved.
fn side(layer: Layer) -> Owner {
    match layer {
        Layer::SandboxKernel | Layer::GuestKernel | Layer::GuestUserland => Owner::Tenant,
        _ => Owner::Provider,
    }
}

fn place(layer: Layer) -> &'static str {
    match layer {
        Layer::SandboxKernel => "in the address space of the tenant's sandbox",
        Layer::GuestKernel | Layer::GuestUserland => "inside the tenant's guest",
        _ => "in the provider's address space",
    }
}
