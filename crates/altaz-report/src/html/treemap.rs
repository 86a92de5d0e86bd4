//! The treemap of a deployment: layers, and in them their components, as large as their code. What
//! is here is read without scripts; the page's script opens a component down to its functions.

use altaz_profile::Owner;
use altaz_profile::results::functions::FunctionTable;
use altaz_profile::results::{DeploymentResult, LayerResult};
use maud::{Markup, html};

use super::squarify::{Rect, squarify};
use super::text::{pc, t};
use crate::number::{count, kb};

/// The plane on which it is laid out; drawn in percent of whatever width there is.
const PLANE: Rect = Rect { x: 0.0, y: 0.0, w: 1000.0, h: 440.0 };
/// Height of a layer's heading.
const HEAD: f64 = 20.0;
const BORDER: f64 = 2.0;
/// Smaller than this in either direction, nothing is drawn.
const SMALLEST: f64 = 2.0;
/// Width of a character of a label, and the least room for one.
const CHAR: f64 = 7.0;

/// A part of a layer with its size.
struct Item {
    name: String,
    functions: u64,
    size: u64,
}

/// The treemap, or `None` where there is no code to show.
pub fn treemap(
    d: &DeploymentResult,
    table: Option<&FunctionTable>,
    covered: bool,
    id: &str,
) -> Option<Markup> {
    let mut layers: Vec<(&LayerResult, Vec<Item>)> = d
        .layers
        .iter()
        .map(|l| (l, items(l, table, covered)))
        .filter(|(_, i)| !i.is_empty())
        .collect();
    let whole = |items: &[Item]| items.iter().map(|i| i.size as f64).sum::<f64>();
    layers.sort_by(|a, b| whole(&b.1).total_cmp(&whole(&a.1)));
    if layers.is_empty() {
        return None;
    }
    let sizes: Vec<f64> = layers.iter().map(|(_, items)| whole(items)).collect();
    let (title, desc) = (format!("{id}-title"), format!("{id}-desc"));
    Some(html! {
        svg class="treemap" width="100%" height="440" role="img" aria-labelledby={ (title) " " (desc) } {
            title id=(title) { "Treemap of " (t(&d.name)) }
            desc id=(desc) { (t(words(&layers))) }
            @for ((layer, items), rect) in layers.iter().zip(squarify(&sizes, PLANE)) {
                (layer_cell(layer, items, rect))
            }
        }
    })
}

fn class(layer: &LayerResult) -> &'static str {
    match layer.owner {
        Owner::Tenant => "tenant",
        Owner::Provider => "provider",
    }
}

fn layer_cell(layer: &LayerResult, items: &[Item], rect: Rect) -> Markup {
    let inner = rect.inset(BORDER, if rect.h > 2.0 * HEAD { HEAD } else { BORDER }, BORDER, BORDER);
    let sizes: Vec<f64> = items.iter().map(|i| i.size as f64).collect();
    html! {
        g class=(class(layer)) {
            (cell("layer", rect, rect.h > 2.0 * HEAD, layer.name.as_str(), layer.functions, sizes.iter().sum::<f64>() as u64))
            @for (item, at) in items.iter().zip(squarify(&sizes, inner)) {
                @if at.w >= SMALLEST && at.h >= SMALLEST {
                    (cell("part", at, true, &item.name, item.functions, item.size))
                }
            }
        }
    }
}

/// A rectangle with its name where there is room, cut at its edge.
fn cell(class: &str, r: Rect, labelled: bool, name: &str, functions: u64, size: u64) -> Markup {
    let room = r.w > 24.0 + CHAR * 2.0 && r.h > 16.0 && labelled;
    html! {
        svg class=(class) x=(pc(r.x / PLANE.w)) y=(pc(r.y / PLANE.h)) width=(pc(r.w / PLANE.w))
            height=(pc(r.h / PLANE.h)) {
            title { (t(name)) ": " (count(functions)) " functions, " (kb(size)) " kB" }
            rect width="100%" height="100%" {}
            @if room { text x="5" y="14" { (t(short(name))) } }
        }
    }
}

/// The end of a path says more than its beginning: the file of a path, the last two parts of a long
/// package name.
fn short(name: &str) -> &str {
    let keep = if name.starts_with('/') { 1 } else { 2 };
    let cut = name.rmatch_indices('/').nth(keep - 1).map_or(name, |(at, _)| &name[at + 1..]);
    let long = name.starts_with('/') || name.matches('/').count() > 2;
    if long && !cut.is_empty() { cut } else { name }
}

/// The components of a layer: of its functions where they are known, else those that its figures
/// list, and the rest.
fn items(layer: &LayerResult, table: Option<&FunctionTable>, covered: bool) -> Vec<Item> {
    let mut items = Vec::new();
    if let Some(listed) = table.and_then(|t| t.layers.iter().find(|l| l.layer == layer.name)) {
        items.extend(listed.components.iter().map(|name| Item {
            name: name.to_string(),
            functions: 0,
            size: 0,
        }));
        for f in &listed.functions {
            if let Some(item) = items.get_mut(f.component as usize) {
                item.functions += 1;
                let size = if covered { f.covered.unwrap_or(0) } else { f.size };
                item.size = item.size.saturating_add(size);
            }
        }
    } else {
        let size =
            |bytes, executed: Option<u64>| if covered { executed.unwrap_or(0) } else { bytes };
        items.extend(layer.components.iter().map(|c| Item {
            name: c.name.clone(),
            functions: c.functions,
            size: size(c.bytes, c.covered_bytes),
        }));
        let sum =
            |of: fn(&Item) -> u64| items.iter().fold(0_u64, |sum, i| sum.saturating_add(of(i)));
        let rest = Item {
            name: "other components".into(),
            functions: layer.functions.saturating_sub(sum(|i| i.functions)),
            size: size(layer.bytes, layer.covered_bytes).saturating_sub(sum(|i| i.size)),
        };
        items.push(rest);
    }
    items.retain(|i| i.size > 0);
    items.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.name.cmp(&b.name)));
    items
}

fn words(layers: &[(&LayerResult, Vec<Item>)]) -> String {
    let of = |(layer, items): &(&LayerResult, Vec<Item>)| {
        let top: Vec<String> =
            items.iter().take(3).map(|i| format!("{} {} kB", i.name, kb(i.size))).collect();
        format!("{}: largest components {}", layer.name, top.join(", "))
    };
    layers.iter().map(of).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn long_paths_are_shown_by_their_ends() {
        let shown = ["/usr/sbin/nginx", "net/ipv4", "gvisor.dev/gvisor/pkg/sentry/mm", "a/", "/"];
        assert_eq!(shown.map(short), ["nginx", "net/ipv4", "sentry/mm", "a/", "/"]);
    }
}
