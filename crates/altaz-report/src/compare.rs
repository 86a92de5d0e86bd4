//! Deployments of a service side by side, for a terminal.

use altaz_profile::results::{CompareResult, DeploymentResult, Vap};

use crate::TextOptions;
use crate::number::{UNDEFINED, count, kb, kb_opt, percent};
use crate::parts;
use crate::risk::risk_section;
use crate::style::{Span, Style};
use crate::table::{Align, Cell, Column, Row, Table, across, cell, labels, numbers, plain, words};

/// Columns of the bar that shows whose a VAP is.
const BAR: usize = 20;
/// Which column of the summary it is.
const BAR_AT: usize = 3;

/// The table of `altaz compare`.
pub fn compare_text(result: &CompareResult, options: TextOptions) -> String {
    let mut out = String::new();
    header(&mut out, result, options);
    layers(&mut out, result, options);
    summary(&mut out, result, options);
    if let Some(risk) = &result.risk {
        risk_section(&mut out, risk, options);
    }
    blind_spots(&mut out, result, options);
    notes(&mut out, result, options);
    out
}

fn header(out: &mut String, result: &CompareResult, options: TextOptions) {
    let mut line = |spans: &[Span]| across(out, spans, 2, options.columns(), options.color);
    line(&[
        Span::new(&result.service, Style::Title),
        Span::new(format!(" {}", parts::in_deployments(result.deployments.len())), Style::Strong),
    ]);
    if let Some(basis) = &result.basis {
        line(&[Span::new(
            format!("{}, {} instrument, {} phase", basis.load, basis.instrument, basis.phase),
            Style::Dim,
        )]);
    }
    line(&[Span::new(format!("host {}", parts::host(&result.host)), Style::Dim)]);
    out.push('\n');
}

fn layers(out: &mut String, result: &CompareResult, options: TextOptions) {
    let covered = parts::covered_known(&result.deployments);
    let mut table = Table::new(parts::layer_columns(options.columns(), covered));
    for (i, deployment) in result.deployments.iter().enumerate() {
        if i > 0 {
            table.rows.push(Row::Blank);
        }
        table.rows.push(Row::Across(heading(deployment), 2));
        if !deployment.available {
            let reason = Span::new(format!("  {}", unavailable(deployment)), Style::Warn);
            table.rows.push(Row::Across(vec![reason], 4));
            continue;
        }
        table.rows.extend(parts::layer_rows(deployment, covered));
        table.rows.extend(widths(deployment));
    }
    table.render(out, options.columns(), options.color);
    out.push('\n');
}

/// Why there are no figures.
pub fn unavailable(deployment: &DeploymentResult) -> String {
    let reason = deployment.reason.as_deref().unwrap_or("no reason was recorded");
    format!("not available: {reason}")
}

/// Name, load and what went wrong.
pub fn heading(deployment: &DeploymentResult) -> Vec<Span> {
    let mut spans = vec![Span::new(&deployment.name, Style::Title)];
    if deployment.model_only {
        spans.push(Span::new("  model", Style::Warn));
    }
    if let Some(load) = &deployment.load {
        let style = if load.errors > 0 { Style::Warn } else { Style::Dim };
        spans.push(Span::new(format!("  {}", parts::load(load)), style));
    }
    let lost = parts::lost_events(deployment);
    if lost > 0 {
        spans.push(Span::new(format!(", {} events lost", count(lost)), Style::Warn));
    }
    spans
}

/// Widths of the boundaries, and repeats.
pub fn widths(deployment: &DeploymentResult) -> Vec<Row> {
    let name = |i: usize, name: &str| {
        let shown = if i == 0 { name } else { "" };
        Span::new(format!("  {shown:<15}"), Style::Strong)
    };
    let mut lines = Vec::new();
    for (i, b) in deployment.boundaries.iter().enumerate() {
        let width = format!("{}, {}", parts::sides(b), parts::boundary_width(b));
        lines.push(Row::Across(vec![name(i, "widths"), Span::new(width, Style::Plain)], 17));
    }
    for (i, path) in deployment.escape_paths.iter().enumerate() {
        let barriers: Vec<String> = path.barriers.iter().map(parts::short_barrier).collect();
        let text = Span::new(barriers.join(", then "), Style::Plain);
        lines.push(Row::Across(vec![name(i, "escape paths"), text], 17));
    }
    for (i, kind) in deployment.kinds.iter().enumerate() {
        let text = Span::new(parts::kind(kind), Style::Plain);
        lines.push(Row::Across(vec![name(i, "kinds"), text], 17));
    }
    if !deployment.reachable.is_empty() {
        let kinds: Vec<String> =
            deployment.reachable.iter().map(|r| parts::reachable(r, 2)).collect();
        let text = Span::new(kinds.join("; "), Style::Plain);
        lines.push(Row::Across(vec![name(0, "reachable"), text], 17));
    }
    if let Some(repeats) = &deployment.repeats {
        let text = Span::new(parts::repeats(repeats), Style::Plain);
        lines.push(Row::Across(vec![name(0, "repeats"), text], 17));
    }
    lines
}

fn summary(out: &mut String, result: &CompareResult, options: TextOptions) {
    let available = result.deployments.iter().filter(|d| d.available).count();
    if available > 1 {
        let bar_columns = if options.columns() < 100 { BAR / 2 } else { BAR };
        summary_table(result, bar_columns).render(out, options.columns(), options.color);
        out.push('\n');
    }
}

/// A line for each available deployment, with a bar of this many columns, or none.
pub fn summary_table(result: &CompareResult, bar_columns: usize) -> Table {
    // Where executed bytes are not known, whole sizes stand in their place.
    let covered = parts::covered_known(&result.deployments);
    let size = if covered { "covered kB" } else { "kB" };
    let mut columns = vec![
        words("side by side", if bar_columns < BAR { 8 } else { 13 }),
        numbers("VAP"),
        numbers(size),
        labels("tenant █ ░ provider"),
        numbers("tenant"),
        numbers("HAP"),
        numbers(size),
        Column { head: "syscalls", align: Align::Right, min: Some(8) },
        Column { head: "VM exits", align: Align::Right, min: Some(8) },
    ];
    if bar_columns == 0 {
        columns.remove(BAR_AT);
    }
    let mut table = Table::new(columns);
    for d in result.deployments.iter().filter(|d| d.available) {
        let (vap, hap) = (d.vap.as_ref(), d.hap.as_ref());
        let of_vap = |text: fn(&Vap) -> String| plain(vap.map_or_else(|| UNDEFINED.into(), text));
        let mut cells = vec![
            cell(&d.name, Style::Strong),
            of_vap(|v| count(v.functions)),
            of_vap(if covered { |v| kb_opt(v.covered_bytes) } else { |v| kb(v.bytes) }),
            bar(vap.and_then(|v| v.tenant_share), bar_columns),
            of_vap(|v| percent(v.tenant_share)),
            plain(hap.map_or_else(|| UNDEFINED.into(), |h| count(h.exercised_functions))),
            plain(kb_opt(hap.and_then(|h| {
                if covered { h.exercised_covered_bytes } else { Some(h.exercised_bytes) }
            }))),
            plain(parts::exercised(d, "syscall")),
            plain(parts::exercised(d, "vm-exit")),
        ];
        if bar_columns == 0 {
            cells.remove(BAR_AT);
        }
        table.row(cells);
    }
    table
}

/// The tenant's share as a bar.
fn bar(share: Option<f64>, width: usize) -> Cell {
    let Some(share) = share.filter(|s| (0.0..=1.0).contains(s)) else {
        return cell(UNDEFINED, Style::Dim);
    };
    let tenant = (share * width as f64).round() as usize;
    vec![
        Span::new("█".repeat(tenant), Style::Tenant),
        Span::new("░".repeat(width - tenant), Style::Provider),
    ]
}

/// Blind spots in full, each once with the deployments that have it.
fn blind_spots(out: &mut String, result: &CompareResult, options: TextOptions) {
    let lines = blind_lines(result);
    if lines.is_empty() {
        return;
    }
    across(out, &[Span::new("Blind spots", Style::Title)], 0, options.columns(), options.color);
    for spans in lines {
        across(out, &spans, 4, options.columns(), options.color);
    }
    out.push('\n');
}

/// A line for each blind spot.
pub fn blind_lines(result: &CompareResult) -> Vec<Vec<Span>> {
    let mut merged: Vec<(String, String, Vec<String>)> = Vec::new();
    for d in &result.deployments {
        for spot in &d.blind_spots {
            let head = format!("{}, {}", parts::layer_name(spot.layer), spot.kind);
            let size = match parts::blind_size(spot) {
                size if size.is_empty() => d.name.clone(),
                size => format!("{} {size}", d.name),
            };
            match merged.iter_mut().find(|(h, what, _)| *h == head && *what == spot.what) {
                Some((.., sizes)) => sizes.push(size),
                None => merged.push((head, spot.what.clone(), vec![size])),
            }
        }
    }
    merged
        .into_iter()
        .map(|(head, what, sizes)| {
            vec![
                Span::new(format!("  {head}: "), Style::Strong),
                Span::new(what, Style::Plain),
                Span::new(format!(" ({})", sizes.join("; ")), Style::Dim),
            ]
        })
        .collect()
}

fn notes(out: &mut String, result: &CompareResult, options: TextOptions) {
    across(out, &[Span::new("Notes", Style::Title)], 0, options.columns(), options.color);
    for line in note_lines(result) {
        let span = Span { text: format!("  {}", line.text), style: line.style };
        across(out, &[span], 4, options.columns(), options.color);
    }
}

/// Notes, each once with the deployments that have it, and what every reader has to know.
pub fn note_lines(result: &CompareResult) -> Vec<Span> {
    let mut merged: Vec<(&str, Vec<&str>)> = Vec::new();
    for d in &result.deployments {
        for note in &d.notes {
            match merged.iter_mut().find(|(n, _)| *n == note.as_str()) {
                Some((_, names)) => names.push(&d.name),
                None => merged.push((note, vec![&d.name])),
            }
        }
    }
    let mut lines: Vec<Span> = merged
        .into_iter()
        .map(|(note, names)| Span::new(format!("{}: {note}", names.join(", ")), Style::Plain))
        .collect();
    lines.extend(parts::honesty(
        result.deployments.iter().flat_map(|d| &d.layers),
        parts::covered_known(&result.deployments),
    ));
    lines
}
