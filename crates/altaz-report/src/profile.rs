//! One profile, for a terminal.

use altaz_profile::results::{Component, DeploymentResult, LayerResult, ProfileReport};
use altaz_profile::{BlindSpot, Posture, Reachable};

use crate::TextOptions;
use crate::number::{UNDEFINED, count, decimal, kb, kb_opt, percent};
use crate::parts;
use crate::style::{NO_BREAK, Span, Style};
use crate::table::{Row, Table, across, cell, numbers, plain, words};

/// Entry points of a boundary that are named in a report.
const ENTRIES: usize = 12;

/// The text of `altaz report`.
pub fn profile_text(report: &ProfileReport, options: TextOptions) -> String {
    let d = &report.deployment;
    let (columns, color) = (options.columns(), options.color);
    let mut out = String::new();
    for (i, line) in header(report).iter().enumerate() {
        across(&mut out, line, if i == 0 { 2 } else { FIELD }, columns, color);
    }
    out.push('\n');
    layer_table(d, columns).render(&mut out, columns, color);
    out.push('\n');
    checks_table(d).render(&mut out, columns, color);
    across(&mut out, &[Span::new(format!("  {CHECKS}"), Style::Dim)], 2, columns, color);
    out.push('\n');
    for table in context_table(d).into_iter().chain(component_tables(d)) {
        table.render(&mut out, columns, color);
        out.push('\n');
    }
    let notes: Vec<_> = note_lines(d).into_iter().map(|line| vec![line]).collect();
    let sections = [
        ("Boundaries", boundary_lines(d)),
        ("Escape paths", escape_lines(d)),
        ("Posture", posture_lines(d)),
        ("Blind spots", blind_lines(d)),
        ("Notes", notes),
    ];
    for (i, (title, lines)) in sections.iter().filter(|(_, l)| !l.is_empty()).enumerate() {
        if i > 0 {
            out.push('\n');
        }
        across(&mut out, &[Span::new(title, Style::Title)], 0, columns, color);
        for line in lines {
            let mut line = line.clone();
            line.insert(0, Span::new("  ", Style::Plain));
            across(&mut out, &line, 4, columns, color);
        }
    }
    out
}

/// Columns of the names of the header's fields.
const FIELD: usize = 13;

/// What identifies the recording: a title, then a line for each field.
pub fn header(report: &ProfileReport) -> Vec<Vec<Span>> {
    let d = &report.deployment;
    let recorded = format!("  recorded {} by altaz {}", report.recorded_at, report.tool_version);
    let mut lines = vec![vec![
        Span::new(format!("{} in {}", report.service, d.name), Style::Title),
        Span::new(recorded, Style::Dim),
    ]];
    let mut field = |name: &str, value: String, fine: bool| {
        let style = if fine { Style::Plain } else { Style::Warn };
        let name = format!("{name:<FIELD$}");
        lines.push(vec![Span::new(name, Style::Dim), Span::new(value, style)]);
    };
    let instrument = format!("{}: {}", report.instrument.kind, report.instrument.detail);
    field("instrument", instrument, true);
    field("host", parts::host(&report.host), true);
    if let Some(load) = &d.load {
        let text = format!("{}: {}", load.description, parts::load(load));
        field("load", text, load.errors == 0);
    }
    match &d.calibration {
        Some(c) => {
            let (counted, made) = (count(c.counted), count(c.made));
            let text = format!("{counted} of {made} calls of {} counted", c.what);
            field("calibration", text, c.reconciles());
        }
        None => field("calibration", "none".into(), false),
    }
    let lost = parts::lost_events(d);
    let windows = count(parts::serve_windows(d));
    let text = format!("{windows} of the serve phase, {} events lost", count(lost));
    field("windows", text, lost == 0);
    if let Some(repeats) = &d.repeats {
        field("repeats", parts::repeats(repeats), true);
    }
    lines
}

/// Layers, VAP and HAP.
pub fn layer_table(d: &DeploymentResult, columns: usize) -> Table {
    let covered = parts::covered_known([d]);
    Table { columns: parts::layer_columns(columns, covered), rows: parts::layer_rows(d, covered) }
}

/// Functions by the context that executed them, where the instrument tells contexts apart.
pub fn context_table(d: &DeploymentResult) -> Option<Table> {
    let mut table = Table::new(vec![
        words("contexts", 20),
        numbers("functions"),
        numbers("kB"),
        words("in VAP and HAP", 8),
    ]);
    for layer in d.layers.iter().filter(|l| !l.contexts.is_empty()) {
        let heading = vec![
            Span::new(format!("  {}", layer.name), Style::Strong),
            Span::new("  a function of several contexts counts in each", Style::Dim),
        ];
        table.rows.push(Row::Across(heading, 4));
        for c in &layer.contexts {
            let charged = if c.context.is_interrupt() { "where a task runs it too" } else { "yes" };
            table.row(vec![
                plain(format!("    {}", parts::context_name(c.context))),
                plain(count(c.functions)),
                plain(kb(c.bytes)),
                cell(charged, Style::Dim),
            ]);
        }
        if layer.interrupts.functions > 0 {
            table.row(vec![
                cell("    in interrupts only", Style::Dim),
                cell(count(layer.interrupts.functions), Style::Dim),
                cell(kb(layer.interrupts.bytes), Style::Dim),
                cell("no", Style::Dim),
            ]);
        }
    }
    (!table.rows.is_empty()).then_some(table)
}

/// Explains [`checks_table`].
pub const CHECKS: &str = "predicted new, found: functions that the held-out windows add to the \
    others; rare: seen in less than 5 % of the windows; background: at a rate that the idle machine \
    explains, not counted";

/// What the layers' figures rest on: held-out windows, rare functions, what was left out.
pub fn checks_table(d: &DeploymentResult) -> Table {
    let mut table = Table::new(vec![
        words("estimate, checked", 8),
        numbers("windows"),
        numbers("held out"),
        numbers("predicted new"),
        numbers("interval"),
        numbers("found"),
        numbers("rare"),
        numbers("background"),
    ]);
    for layer in &d.layers {
        let mut cells = vec![plain(format!("  {}", layer.name))];
        match &layer.held_out {
            Some(h) => cells.extend([
                plain(count(h.train_windows)),
                plain(count(h.held_windows)),
                plain(decimal(Some(h.predicted), 1)),
                plain(format!("{} to {}", decimal(Some(h.low), 1), decimal(Some(h.high), 1))),
                found(h.found, h.low, h.high),
            ]),
            None => cells.extend((0..5).map(|_| cell(UNDEFINED, Style::Dim))),
        }
        cells.push(plain(count(layer.rare_functions)));
        cells.push(plain(count(layer.background_functions)));
        table.row(cells);
    }
    table
}

fn found(found: u64, low: f64, high: f64) -> Vec<Span> {
    let inside = (low..=high).contains(&(found as f64));
    cell(count(found), if inside { Style::Plain } else { Style::Warn })
}

/// Which components a table shows.
struct Shown {
    head: &'static str,
    of: fn(&LayerResult) -> (&[Component], u64, u64),
}

const SERVE: Shown =
    Shown { head: "top components", of: |l| (&l.components, l.components_total, l.functions) };
const START: Shown = Shown {
    head: "only the start phase needs",
    of: |l| (&l.start_only, l.start_only_total, l.start_only_functions),
};

/// Top components and what only the start phase needs, those of the two that are not empty.
pub fn component_tables(d: &DeploymentResult) -> Vec<Table> {
    let tables = [&SERVE, &START].map(|shown| component_table(d, shown));
    tables.into_iter().filter(|table| !table.rows.is_empty()).collect()
}

fn component_table(d: &DeploymentResult, shown: &Shown) -> Table {
    let covered = parts::covered_known([d]);
    let mut columns = vec![
        words(shown.head, 20),
        numbers("functions"),
        numbers("of layer"),
        numbers("kB"),
        numbers("covered kB"),
    ];
    columns.truncate(if covered { 5 } else { 4 });
    // A cell without a column is not drawn.
    let mut table = Table::new(columns);
    for layer in &d.layers {
        let (components, total, functions) = (shown.of)(layer);
        if components.is_empty() {
            continue;
        }
        let heading = vec![
            Span::new(format!("  {}", layer.name), Style::Strong),
            Span::new(format!("  {} functions", count(functions)), Style::Dim),
        ];
        table.rows.push(Row::Across(heading, 4));
        for c in components {
            table.row(vec![
                plain(format!("    {}", c.name)),
                plain(count(c.functions)),
                plain(percent(Some(c.share))),
                plain(kb(c.bytes)),
                plain(kb_opt(c.covered_bytes)),
            ]);
        }
        let others = total.saturating_sub(components.len() as u64);
        if others > 0 {
            let listed = components.iter().fold(0_u64, |sum, c| sum.saturating_add(c.functions));
            let rest = functions.saturating_sub(listed);
            let share = (functions > 0).then(|| rest as f64 / functions as f64);
            table.row(vec![
                cell(format!("    {} more", count(others)), Style::Dim),
                cell(count(rest), Style::Dim),
                cell(percent(share), Style::Dim),
                plain(""),
                plain(""),
            ]);
        }
    }
    table
}

/// A line for the width of each boundary and one for its entry points.
pub fn boundary_lines(d: &DeploymentResult) -> Vec<Vec<Span>> {
    let mut lines = Vec::new();
    for b in &d.boundaries {
        lines.push(vec![
            Span::new(format!("{}: ", parts::sides(b)), Style::Strong),
            Span::new(parts::boundary_width(b), Style::Plain),
        ]);
        if let Some(names) = parts::permitted_names(b) {
            lines.push(vec![Span::new(format!("  {names}"), Style::Plain)]);
        }
        if b.entries.is_empty() {
            continue;
        }
        let mut entries: Vec<_> = b.entries.iter().collect();
        entries.sort_by(|x, y| y.count.cmp(&x.count).then_with(|| x.name.cmp(&y.name)));
        let named: Vec<String> = entries
            .iter()
            .take(ENTRIES)
            .map(|e| format!("{} {}×", e.name, count(e.count)).replace(' ', NO_BREAK))
            .collect();
        let more = entries.len().saturating_sub(ENTRIES);
        let tail = if more > 0 { format!(", {more} more") } else { String::new() };
        lines.push(vec![Span::new(format!("  {}{tail}", named.join(", ")), Style::Dim)]);
    }
    lines
}

/// For each way out a line, and one for each barrier that must fall on it, in their order.
pub fn escape_lines(d: &DeploymentResult) -> Vec<Vec<Span>> {
    let mut lines = Vec::new();
    for path in &d.escape_paths {
        let barring = path.barring().count() as u64;
        let what = match (path.barriers.len() as u64, barring) {
            (1, 1) => "one barrier".to_owned(),
            (all, bars) if all == bars => format!("{} barriers, one after the other", count(all)),
            (all, bars) => format!(
                "{} barriers, one after the other; {} in a hostile tenant's way",
                count(all),
                count(bars)
            ),
        };
        lines.push(vec![
            Span::new(format!("{}: ", path.name), Style::Strong),
            Span::new(what, Style::Plain),
        ]);
        for (i, b) in path.barriers.iter().enumerate() {
            let head = format!("  {}. {} ", i + 1, b.to);
            let style = if b.bars_tenant() { Style::Plain } else { Style::Dim };
            lines.push(vec![Span::new(head, style), Span::new(parts::barrier(b), style)]);
        }
    }
    lines
}

/// A line for each process whose posture was read.
pub fn posture_lines(d: &DeploymentResult) -> Vec<Vec<Span>> {
    let line = |p: &Posture| {
        vec![
            Span::new(format!("{} {} ({}): ", p.role, p.comm, p.tgid), Style::Strong),
            Span::new(parts::posture(p), Style::Plain),
        ]
    };
    let reach = |r: &Reachable| {
        vec![
            Span::new(format!("reachable, {}: ", r.kind), Style::Strong),
            Span::new(parts::reachable(r, usize::MAX), Style::Plain),
        ]
    };
    d.posture.iter().map(line).chain(d.reachable.iter().map(reach)).collect()
}

/// A line for each blind spot.
pub fn blind_lines(d: &DeploymentResult) -> Vec<Vec<Span>> {
    let line = |spot: &BlindSpot| {
        let head = format!("{}, {}: ", parts::layer_name(spot.layer), spot.kind);
        let mut spans = vec![Span::new(head, Style::Strong), Span::new(&spot.what, Style::Plain)];
        let size = parts::blind_size(spot);
        if !size.is_empty() {
            spans.push(Span::new(format!(" ({size})"), Style::Dim));
        }
        spans
    };
    d.blind_spots.iter().map(line).collect()
}

/// Notes of the recording, and what every reader has to know.
pub fn note_lines(d: &DeploymentResult) -> Vec<Span> {
    let notes = d.notes.iter().map(|note| Span::new(note, Style::Plain));
    notes.chain(parts::honesty(&d.layers, parts::covered_known([d]))).collect()
}
