//! The ways from a tenant's code to another tenant: barriers in the order in which they must fall,
//! with their widths and the code behind each. Depth is part of the horizontal profile.

use altaz_profile::Owner;
use altaz_profile::results::{Barrier, DeploymentResult, EscapePath};
use maud::{Markup, html};

use super::text::{method, pc, t};
use crate::number::{UNDEFINED, count, count_opt, kb};

/// The figure; nothing where no deployment has a path.
pub fn figure(deployments: &[&DeploymentResult]) -> Markup {
    if deployments.iter().all(|d| d.escape_paths.is_empty()) {
        return html! {};
    }
    html! {
        figure id="paths" {
            figcaption { h2 { "What must fall before containment breaks" } }
            div class="stacks" {
                @for d in deployments {
                    div class="card paths" {
                        h3 { (t(&d.name)) }
                        @if d.escape_paths.is_empty() {
                            p class="dim" {
                                @if d.layers.iter().any(|l| l.shared) { "No path is known." }
                                @else { "Nothing is shared: no way sideways through software." }
                            }
                        }
                        @for path in &d.escape_paths { (way(path)) }
                    }
                }
            }
            (method(&[
                (
                    "Shows",
                    "Each way as its barriers from the tenant's code on. The line is as full as the \
                     share of the permitted entry points that this load called, dashed where nobody \
                     knows how many are permitted; below it the code behind the barrier that this \
                     load traversed. Ways are alternatives, barriers a sequence: nothing is added.",
                ),
                (
                    "Blind to",
                    "Hardware (side channels, devices) and code behind a barrier that this load left alone.",
                ),
                (
                    "Assumes",
                    "A barrier falls by a defect in the code behind it. Whether barriers fall \
                     independently of each other is not measured.",
                ),
            ]))
        }
    }
}

fn way(path: &EscapePath) -> Markup {
    html! {
        p class="dim way" { (t(&path.name)) }
        ol class="barriers" { @for b in &path.barriers { (barrier(b)) } }
    }
}

fn barrier(b: &Barrier) -> Markup {
    let owner = match b.owner {
        Owner::Tenant => "tenant",
        Owner::Provider => "provider",
    };
    let share = match (b.exercised, b.permitted) {
        (Some(called), Some(permitted)) if permitted > 0 => {
            Some(f64::from(called) / f64::from(permitted))
        }
        _ => None,
    };
    let permitted = b.permitted.map_or_else(|| UNDEFINED.into(), |p| count(p.into()));
    html! {
        li class=[(!b.bars_tenant()).then_some("no-bar")] {
            div class="head" {
                b { (b.to) } " " span class={ "owner " (owner) } { (b.owner) @if b.shared { ", shared" } }
                @if b.open { " " span class="badge" { "open" } }
                @if b.tenant_held { " " span class="badge" { "the tenant's own" } }
            }
            svg class="width" width="100%" height="8" aria-hidden="true" {
                rect class=(if share.is_some() { "track" } else { "track open" })
                    x="0" y="1" width="100%" height="6" {}
                @if let Some(share) = share {
                    rect class="gauge" x="0" y="1" width=(pc(share)) height="6" {}
                }
            }
            div class="detail" {
                "by " (t(&b.name)) ": " (count_opt(b.exercised.map(u64::from))) " / " (permitted)
                " entry points; "
                @match (b.functions, b.bytes) {
                    (Some(functions), Some(bytes)) => {
                        (count(functions)) " functions, " (kb(bytes)) " kB behind it"
                    }
                    _ => "code behind it not seen",
                }
            }
            @if let Some(guard) = &b.guard { div class="detail dim" { (t(guard)) } }
        }
    }
}
