//! Sentences and cells that several reports have in common.

use std::collections::BTreeMap;

use altaz_profile::results::{Barrier, DeploymentResult, KindResult, LayerResult, Repeats};
use altaz_profile::{
    BlindSpot, Boundary, Context, Host, Layer, LoadSummary, Owner, Posture, Reachable,
};

use crate::number::{UNDEFINED, count, count_opt, coverage, decimal, kb, kb_opt, percent, unseen};
use crate::style::{NO_BREAK, Span, Style};
use crate::table::{Cell, Column, Row, cell, labels, numbers, plain, words};

/// What every reader of the figures has to know.
const HONESTY: [&str; 2] = [
    "Serve phase of this load only: lower bounds, never \"all code\". Seen, unseen: the share of this \
     load's code that was seen, and the estimated number of its functions that was not (Good–Turing, \
     Chao2).",
    "Unseen is not unreachable, and nothing is safe because it was not traversed. That size stands \
     for risk is an assumption.",
];

/// Explains sizes.
const SIZES: [&str; 2] = [
    "kB: 1,000 bytes of machine code of the traversed functions; covered kB: the bytes of them that \
     were executed.",
    "kB: 1,000 bytes of machine code of the traversed functions, whole: how much of each was executed \
     is not known.",
];

/// Explains [`moved_mark`].
const MOVED: &str =
    "* Ownership moved: the owner is not the one on whose side of the boundary the code runs.";

/// Capabilities, or devices of a kind, that are named one by one; more are counted.
const MANY: usize = 16;

/// Marks a layer whose ownership moved.
fn moved_mark(layer: &LayerResult) -> &'static str {
    if layer.ownership_moved { "*" } else { "" }
}

/// Which of the columns are covered bytes.
const COVERED_AT: usize = 5;

/// Whether executed bytes are known of anything in these deployments. Where they are of nothing,
/// tables have no column for them.
pub fn covered_known<'a>(deployments: impl IntoIterator<Item = &'a DeploymentResult>) -> bool {
    let mut seen = deployments.into_iter().flat_map(|d| &d.layers).filter(|l| l.functions > 0);
    seen.next().is_none_or(|first| {
        first.covered_bytes.is_some() || seen.any(|l| l.covered_bytes.is_some())
    })
}

/// Takes the cell or column of covered bytes out where they are not known.
fn without<T>(mut cells: Vec<T>, covered: bool) -> Vec<T> {
    if !covered && cells.len() > COVERED_AT {
        cells.remove(COVERED_AT);
    }
    cells
}

/// Columns of a table of layers, in so wide a text.
pub fn layer_columns(columns: usize, covered: bool) -> Vec<Column> {
    let all = vec![
        words("layer", if columns < 100 { 11 } else { 18 }),
        labels("owner"),
        labels("shared"),
        numbers("functions"),
        numbers("kB"),
        numbers("covered kB"),
        numbers("seen"),
        numbers("unseen"),
        words("blind spots", 8),
    ];
    without(all, covered)
}

/// Style of an owner.
const fn owner_style(owner: Owner) -> Style {
    match owner {
        Owner::Tenant => Style::Tenant,
        Owner::Provider => Style::Provider,
    }
}

/// Cells of a layer, as [`layer_columns`] wants them.
fn layer_cells(deployment: &DeploymentResult, layer: &LayerResult) -> Vec<Cell> {
    vec![
        plain(format!("  {}", layer.name)),
        cell(format!("{}{}", layer.owner, moved_mark(layer)), owner_style(layer.owner)),
        if layer.shared { plain("shared") } else { cell(UNDEFINED, Style::Dim) },
        plain(count(layer.functions)),
        plain(kb(layer.bytes)),
        plain(kb_opt(layer.covered_bytes)),
        plain(coverage(layer.coverage)),
        plain(unseen(layer.unseen)),
        cell(layer_blind(deployment, layer), Style::Dim),
    ]
}

/// The lines of a deployment's layers, VAP and HAP.
pub fn layer_rows(deployment: &DeploymentResult, covered: bool) -> Vec<Row> {
    let cells = |cells| Row::Cells(without(cells, covered));
    let layers = deployment.layers.iter().map(|l| cells(layer_cells(deployment, l)));
    let totals = profile_rows(deployment).into_iter().map(cells);
    layers.chain([Row::Rule]).chain(totals).collect()
}

/// What every reader of these layers' figures has to know.
pub fn honesty<'a>(layers: impl IntoIterator<Item = &'a LayerResult>, covered: bool) -> Vec<Span> {
    let moved = layers.into_iter().any(|l| l.ownership_moved).then_some(MOVED);
    let sizes = [SIZES[usize::from(!covered)]];
    moved.into_iter().chain(HONESTY).chain(sizes).map(|t| Span::new(t, Style::Dim)).collect()
}

/// The lines of VAP and HAP below a table of layers.
fn profile_rows(deployment: &DeploymentResult) -> Vec<Vec<Cell>> {
    let mut rows = Vec::new();
    if let Some(vap) = &deployment.vap {
        rows.push(total(
            ("  VAP", ""),
            (vap.functions, vap.bytes, vap.covered_bytes),
            (vap.coverage, vap.unseen),
        ));
        let tenant = (vap.tenant_functions, vap.tenant_bytes, vap.tenant_covered_bytes);
        let provider = (vap.provider_functions, vap.provider_bytes, vap.provider_covered_bytes);
        for (owner, sums) in [(Owner::Tenant, tenant), (Owner::Provider, provider)] {
            let share = (vap.functions > 0).then(|| sums.0 as f64 / vap.functions as f64);
            rows.push(part(owner, sums, share));
        }
    }
    if let Some(hap) = &deployment.hap {
        rows.push(total(
            ("  HAP exercised", "shared"),
            (hap.exercised_functions, hap.exercised_bytes, hap.exercised_covered_bytes),
            (hap.coverage, hap.unseen),
        ));
        let others = [("probed", hap.probed_functions), ("reachable", hap.reachable_functions)];
        for (kind, functions) in others {
            rows.extend(functions.map(|n| only_functions(&format!("  HAP {kind}"), n)));
        }
    }
    let beside = deployment.layers.iter().map(|l| l.interrupts);
    let (functions, bytes) = beside.fold((0_u64, 0_u64), |(functions, bytes), sums| {
        (functions.saturating_add(sums.functions), bytes.saturating_add(sums.bytes))
    });
    if functions > 0 {
        let mut cells = vec![plain(""); 9];
        cells[0] = cell("  interrupts only", Style::Dim);
        cells[3] = cell(count(functions), Style::Dim);
        cells[4] = cell(kb(bytes), Style::Dim);
        rows.push(cells);
    }
    rows
}

/// A line of a figure that is a number of functions and nothing else.
fn only_functions(name: &str, functions: u64) -> Vec<Cell> {
    let mut cells = vec![plain(""); 9];
    cells[0] = cell(name, Style::Strong);
    cells[2] = plain("shared");
    cells[3] = cell(count(functions), Style::Strong);
    cells
}

/// Functions, bytes and covered bytes of a line.
type Sums = (u64, u64, Option<u64>);

fn total(
    (name, shared): (&str, &str),
    (functions, bytes, covered): Sums,
    (seen, missing): (Option<f64>, Option<f64>),
) -> Vec<Cell> {
    let strong = |text: String| cell(text, Style::Strong);
    vec![
        cell(name, Style::Strong),
        plain(""),
        plain(shared),
        strong(count(functions)),
        strong(kb(bytes)),
        strong(kb_opt(covered)),
        strong(coverage(seen)),
        strong(unseen(missing)),
        plain(""),
    ]
}

fn part(owner: Owner, (functions, bytes, covered): Sums, share: Option<f64>) -> Vec<Cell> {
    let style = owner_style(owner);
    vec![
        cell(format!("    {} of it", percent(share)), style),
        cell(owner.as_str(), style),
        plain(""),
        plain(count(functions)),
        plain(kb(bytes)),
        plain(kb_opt(covered)),
        plain(""),
        plain(""),
        plain(""),
    ]
}

/// Blind spots of a layer in a few words.
fn layer_blind(deployment: &DeploymentResult, layer: &LayerResult) -> String {
    let mut parts = Vec::new();
    let code = layer.code.unwrap_or_default();
    for (kind, bytes) in [("jit", code.jit), ("unnamed", code.unnamed)] {
        if bytes > 0 {
            parts.push(format!("{kind} {}{NO_BREAK}kB", kb(bytes)));
        }
    }
    for spot in deployment.blind_spots.iter().filter(|s| s.layer == Some(layer.name)) {
        if layer.code.is_some() && matches!(spot.kind.as_str(), "jit" | "unnamed") {
            continue;
        }
        let sized = match blind_size(spot) {
            size if size.is_empty() => spot.kind.clone(),
            size => format!("{} {size}", spot.kind),
        };
        if !parts.contains(&sized) {
            parts.push(sized);
        }
    }
    if parts.is_empty() { UNDEFINED.into() } else { parts.join(", ") }
}

/// Size of a blind spot in words, empty when not known.
pub fn blind_size(spot: &BlindSpot) -> String {
    let bytes = spot.bytes.map(|b| format!("{}{NO_BREAK}kB", kb(b)));
    let functions = spot.functions.map(|f| format!("{}{NO_BREAK}functions", count(f)));
    functions.into_iter().chain(bytes).collect::<Vec<_>>().join(", ")
}

/// The load and its answers: `600 requests, 0 errors, p50 27.1 ms …`.
pub fn load(load: &LoadSummary) -> String {
    let mut text = format!("{} requests, {} errors", count(load.requests), count(load.errors));
    let figures = [
        ("p50 ", load.p50_ms, " ms"),
        ("p99 ", load.p99_ms, " ms"),
        ("", load.rate, "/s"),
        ("ready after ", load.ready_s, " s"),
    ];
    for (before, value, after) in figures {
        if value.is_some_and(f64::is_finite) {
            let figure = format!("{before}{}{after}", decimal(value, 1));
            text.push_str(&format!(", {}", figure.replace(' ', NO_BREAK)));
        }
    }
    text
}

/// Events lost while serving: the most that any layer reports.
pub fn lost_events(deployment: &DeploymentResult) -> u64 {
    deployment.layers.iter().map(|l| l.lost_events).max().unwrap_or(0)
}

/// Windows of the serve phase.
pub fn serve_windows(deployment: &DeploymentResult) -> u64 {
    deployment.layers.iter().map(|l| l.windows).max().unwrap_or(0)
}

/// The two sides of a boundary.
pub fn sides(boundary: &Boundary) -> String {
    format!("{} {} → {}", boundary.name, boundary.from, boundary.to)
}

/// Width of a boundary: `62 exercised of 339 permitted`.
pub fn boundary_width(boundary: &Boundary) -> String {
    let width = width(boundary);
    match boundary.per_request() {
        Some(n) => format!("{width}, {} a request", decimal(Some(n), 1)),
        None => width,
    }
}

fn width(boundary: &Boundary) -> String {
    match (boundary.exercised, boundary.permitted) {
        (None, None) => UNDEFINED.into(),
        (exercised, None) => format!("{} exercised", count_opt(exercised.map(u64::from))),
        (exercised, Some(permitted)) => format!(
            "{} exercised of {} permitted",
            count_opt(exercised.map(u64::from)),
            count(permitted.into())
        ),
    }
}

/// A barrier of an escape path in words, without the layer behind it.
pub fn barrier(b: &Barrier) -> String {
    let code = match (b.functions, b.bytes) {
        (Some(functions), Some(bytes)) => {
            format!("{} functions, {}{NO_BREAK}kB traversed", count(functions), kb(bytes))
        }
        _ => "code not seen".to_owned(),
    };
    let width = match (b.exercised, b.permitted) {
        (None, None) => "width not known".to_owned(),
        (exercised, permitted) => format!(
            "{} entry points exercised of {} permitted",
            count_opt(exercised.map(u64::from)),
            count_opt(permitted.map(u64::from))
        ),
    };
    let mut text = format!("by {}: {width}; {code}", b.name);
    if let Some(guard) = &b.guard {
        text.push_str(&format!("; {guard}"));
    }
    if b.open {
        text.push_str("; no barrier: the side before it has these rights already");
    }
    if b.tenant_held {
        text.push_str("; the tenant's own: bars an intruder, not a hostile tenant");
    }
    text
}

/// One kind of request: its load and its figures.
pub fn kind(kind: &KindResult) -> String {
    let own: u64 = kind.layers.iter().map(|l| l.own_functions).sum();
    let functions = |n: Option<u64>| {
        n.map_or_else(|| UNDEFINED.to_owned(), |n| format!("{} functions", count(n)))
    };
    format!(
        "{}: {}; VAP {}, {} of them this kind's alone; HAP {}",
        kind.name,
        load(&kind.load),
        functions(kind.vap.map(|v| v.functions)),
        count(own),
        functions(kind.hap.map(|h| h.exercised_functions)),
    )
}

/// What can be reached on the host, by kind, with up to `names` names of each.
pub fn reachable(reachable: &Reachable, names: usize) -> String {
    let shown: Vec<&str> = reachable.names.iter().take(names).map(String::as_str).collect();
    let more = reachable.count.saturating_sub(shown.len() as u64);
    let names = match (shown.is_empty(), more) {
        (true, _) => String::new(),
        (false, 0) => format!(": {}", shown.join(", ")),
        (false, more) => format!(": {}, {} more", shown.join(", "), count(more)),
    };
    format!("{} {}{names}", count(reachable.count), reachable.what)
}

/// A barrier in a few words: what must fall, and how much code is behind it.
pub fn short_barrier(b: &Barrier) -> String {
    let code = b.functions.map_or("not seen".to_owned(), |n| format!("{} functions", count(n)));
    let remark = match (b.open, b.tenant_held) {
        (true, _) => ", open",
        (_, true) => ", the tenant's own",
        _ => "",
    };
    format!("{} by {} ({code}{remark})", b.to, b.name)
}

/// The permitted entry points by name, in words; `None` where they are not named.
pub fn permitted_names(boundary: &Boundary) -> Option<String> {
    let list = &boundary.permitted_entries;
    if list.is_empty() {
        return None;
    }
    let conditional = list.iter().filter(|e| e.conditional).count();
    let called = |name: &str| boundary.entries.iter().any(|e| e.name == name);
    let unused = list.iter().filter(|e| !called(&e.name)).count();
    Some(format!(
        "permitted by name: {}, {} of them depending on arguments; {} were not called",
        count(list.len() as u64),
        count(conditional as u64),
        count(unused as u64)
    ))
}

/// Name of a context in a sentence.
pub const fn context_name(context: Context) -> &'static str {
    match context {
        Context::Task => "tasks of the service",
        Context::KernelWorker => "kernel workers of it",
        Context::Softirq => "softirq",
        Context::Hardirq => "hardirq",
        Context::Any => "contexts not told apart",
        Context::Background => "background",
    }
}

/// What a process may do, in words.
pub fn posture(p: &Posture) -> String {
    let list = |what: &str, items: &[String]| match items {
        [] => format!("no {what}"),
        items => format!("{what} {}", items.join(", ")),
    };
    let mut parts = vec![
        format!("user {}", p.uid),
        match p.capabilities.len() {
            0 => "no capabilities".to_owned(),
            n if n > MANY => format!("{n} capabilities"),
            _ => list("capabilities", &p.capabilities),
        },
        list("own namespaces", &p.namespaces),
        format!("seccomp {}", if p.seccomp.is_empty() { UNDEFINED } else { &p.seccomp }),
        format!("no_new_privs {}", if p.no_new_privs { "yes" } else { "no" }),
    ];
    if !p.uid_map.is_empty() {
        parts.push(list("user id map", &p.uid_map));
    }
    if !p.lsm.is_empty() {
        parts.push(p.lsm.join(", "));
    }
    if !p.devices.is_empty() {
        parts.push(list("devices", &devices(&p.devices)));
    }
    parts.join("; ")
}

/// Devices as they are listed, `/dev/tty7 4:7`; those of which many differ in their number alone are one item,
/// `/dev/tty… 4:… (64 of them)`. The profile has each.
fn devices(all: &[String]) -> Vec<String> {
    let kind = |device: &str| -> Option<(String, String)> {
        let (path, number) = device.rsplit_once(' ')?;
        let stem = path.trim_end_matches(|c: char| c.is_ascii_digit());
        let (major, _) = number.split_once(':')?;
        (stem.len() < path.len()).then(|| (stem.to_owned(), major.to_owned()))
    };
    let mut kinds: BTreeMap<(String, String), usize> = BTreeMap::new();
    for kind in all.iter().filter_map(|d| kind(d)) {
        *kinds.entry(kind).or_default() += 1;
    }
    kinds.retain(|_, n| *n > MANY);
    let mut out = Vec::new();
    for device in all {
        match kind(device).filter(|kind| kinds.contains_key(kind)) {
            None => out.push(device.clone()),
            Some(kind) => {
                let n = kinds.insert(kind.clone(), 0).unwrap_or(0);
                if n > 0 {
                    out.push(format!("{}… {}:… ({n} of them)", kind.0, kind.1));
                }
            }
        }
    }
    out
}

/// Exercised widths of the boundaries of this name, for a column of a summary.
pub fn exercised(deployment: &DeploymentResult, name: &str) -> String {
    let widths: Vec<String> = deployment
        .boundaries
        .iter()
        .filter(|b| b.name == name)
        .filter_map(|b| b.exercised)
        .map(|n| count(n.into()))
        .collect();
    if widths.is_empty() { UNDEFINED.into() } else { widths.join(" + ") }
}

/// Repeats in a sentence.
pub fn repeats(repeats: &Repeats) -> String {
    let mut text = similarity(repeats);
    let known: Vec<String> = [
        ("vap.functions", "VAP"),
        ("hap.exercised_functions", "HAP"),
        ("vap.tenant_share", "tenant's share"),
    ]
    .iter()
    .filter_map(|(name, words)| {
        let figure = repeats.figures.iter().find(|f| f.name == *name)?;
        let shown = |v: f64| match figure.name.ends_with("share") {
            true => percent(Some(v)),
            false => count(v.round() as u64),
        };
        let (low, high) = figure.interval?;
        Some(format!("{words} {} ({} to {})", shown(figure.mean), shown(low), shown(high)))
    })
    .collect();
    if !known.is_empty() {
        text.push_str("; means with 95 % intervals: ");
        text.push_str(&known.join(", "));
    }
    text
}

fn similarity(repeats: &Repeats) -> String {
    let functions = repeats.runs.iter().map(|r| r.functions);
    let (low, high) = (functions.clone().min().unwrap_or(0), functions.max().unwrap_or(0));
    format!(
        "{} runs, {} to {} functions; pairwise Jaccard similarity at least {} over functions seen \
         in 5 % of the windows or more, at least {} over all",
        repeats.runs.len(),
        count(low),
        count(high),
        decimal(repeats.min_steady, 3),
        decimal(repeats.min_all, 3)
    )
}

/// The machine in words.
pub fn host(host: &Host) -> String {
    format!("{} {}, {}, {} CPUs", host.kernel, host.arch, host.cpu, host.cpus)
}

/// `in 4 deployments`.
pub fn in_deployments(count: usize) -> String {
    format!("in {count} deployment{}", if count == 1 { "" } else { "s" })
}

/// Name of a layer, or a word for none.
pub fn layer_name(layer: Option<Layer>) -> &'static str {
    layer.map_or("all layers", Layer::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_of_which_there_are_many_are_one_item() {
        let mut all = vec!["/dev/kvm 10:232".to_owned(), "/dev/null 1:3".to_owned()];
        all.extend((0..64).map(|n| format!("/dev/tty{n} 4:{n}")));
        all.extend((0..3).map(|n| format!("/dev/ttyS{n} 4:{}", 64 + n)));
        all.push("/dev/tty 5:0".into());
        let want = ["/dev/kvm 10:232", "/dev/null 1:3", "/dev/tty… 4:… (64 of them)"];
        let rest = ["/dev/ttyS0 4:64", "/dev/ttyS1 4:65", "/dev/ttyS2 4:66", "/dev/tty 5:0"];
        assert_eq!(devices(&all), [&want[..], &rest[..]].concat());
    }
}
