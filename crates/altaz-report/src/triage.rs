//! A triage of vulnerabilities, for a terminal.

use altaz_profile::Owner;
use altaz_profile::results::triage::{Finding, ProfileTriage, State, TriageResult, VexStatus};

use crate::TextOptions;
use crate::number::{UNDEFINED, count, coverage, decimal};
use crate::style::{Span, Style};
use crate::table::{Row, Table, across, cell, labels, numbers, plain, words};

/// What every reader has to know.
const HONESTY: [&str; 2] = [
    "not-traversed is no proof: another load, or an attacker's, may reach the code; it stays under \
     investigation. Not affected is said only where the code is not there, the version has the fix, \
     or a guard blocks every entry.",
    "Functions of a kernel are joined by function and source file; file-level evidence says that \
     other functions of the same file were traversed.",
];

/// Lists at most `top` findings of each profile, those of states that need nobody only when `all`.
pub fn triage_text(result: &TriageResult, top: usize, all: bool, options: TextOptions) -> String {
    let mut out = String::new();
    let (columns, color) = (options.columns(), options.color);
    for profile in &result.profiles {
        one(profile, top, all, columns, color, &mut out);
        out.push('\n');
    }
    let feeds = result.feeds.iter().map(|f| {
        let problems = if f.problems > 0 {
            format!(", {} with problems", count(f.problems))
        } else {
            String::new()
        };
        let text = format!(
            "feed  {} from {}: {} records{problems}, imported {}",
            f.feed,
            f.from,
            count(f.records),
            f.imported_at
        );
        vec![Span::new(text, Style::Dim)]
    });
    let notes = HONESTY.iter().map(|n| vec![Span::new(format!("note  {n}"), Style::Dim)]);
    for line in feeds.chain(notes) {
        across(&mut out, &line, 6, columns, color);
    }
    out
}

fn one(
    profile: &ProfileTriage,
    top: usize,
    all: bool,
    columns: usize,
    color: bool,
    out: &mut String,
) {
    let head = [
        Span::new(format!("{} in {}", profile.service, profile.deployment), Style::Title),
        Span::new(format!(" ({}, recorded {})", profile.file, profile.recorded_at), Style::Dim),
    ];
    across(out, &head, 2, columns, color);
    for note in &profile.notes {
        across(out, &[Span::new(format!("  note  {note}"), Style::Warn)], 8, columns, color);
    }
    out.push('\n');

    let mut counts = Table::new(vec![words("state", 12), numbers("findings"), words("means", 30)]);
    for c in &profile.counts {
        let style = if c.findings > 0 { style(c.state) } else { Style::Dim };
        let cells = vec![
            cell(format!("  {}", c.state), style),
            plain(count(c.findings)),
            cell(meaning(c.state), Style::Dim),
        ];
        counts.row(cells);
    }
    counts.row(vec![
        cell("  (not installed)", Style::Dim),
        plain(count(profile.not_installed)),
        cell("of the feeds, in components that are not installed here", Style::Dim),
    ]);
    counts.render(out, columns, color);

    let settled = |f: &&Finding| matches!(f.state, State::Fixed | State::NotPresent);
    let shown: Vec<&Finding> = profile.findings.iter().filter(|f| all || !settled(f)).collect();
    if shown.is_empty() || top == 0 {
        return;
    }
    out.push('\n');
    let mut table = Table::new(vec![
        labels("vulnerability"),
        words("state", 10),
        words("status", 10),
        words("in", 12),
        labels("owner"),
        numbers("EPSS"),
        labels("KEV"),
        numbers("coverage"),
    ]);
    for f in shown.iter().take(top) {
        let product = profile.products.get(f.product);
        let layers: Vec<&str> =
            product.map(|p| p.layers.iter().map(|l| l.as_str()).collect()).unwrap_or_default();
        let place = match (product, &layers[..]) {
            (Some(p), []) => p.name.clone(),
            (Some(p), _) if p.cpe.is_none() => format!("{} ({})", p.name, layers.join(", ")),
            _ => layers.join(", "),
        };
        let owner = product.and_then(|p| p.owner);
        table.row(vec![
            plain(format!("  {}", f.id)),
            cell(f.state.as_str(), style(f.state)),
            plain(f.status.as_str().replace('_', " ")),
            plain(place),
            match owner {
                Some(Owner::Tenant) => cell("tenant", Style::Tenant),
                Some(Owner::Provider) => cell("provider", Style::Provider),
                None => plain(UNDEFINED),
            },
            plain(decimal(f.exploitation.epss, 3)),
            if f.exploitation.kev.is_some() { cell("yes", Style::Warn) } else { plain("") },
            plain(coverage(f.coverage)),
        ]);
        let title = f.title.as_deref().unwrap_or_default();
        let mut lines = vec![(title.to_owned(), Style::Plain), (f.why.clone(), Style::Dim)];
        lines.extend(f.traversed.iter().map(|t| (t.clone(), Style::Dim)));
        if let (VexStatus::Affected, Some(action)) = (f.status, &f.action) {
            lines.push((action.clone(), Style::Strong));
        }
        for (text, style) in lines.into_iter().filter(|(text, _)| !text.is_empty()) {
            table.rows.push(Row::Across(vec![Span::new(format!("      {text}"), style)], 6));
        }
    }
    let more = shown.len().saturating_sub(top);
    if more > 0 {
        let text = format!("  {} more (--top lists more, -o json all)", count(more as u64));
        table.rows.push(Row::Across(vec![Span::new(text, Style::Dim)], 4));
    }
    table.render(out, columns, color);
}

fn style(state: State) -> Style {
    match state {
        State::Traversed => Style::Warn,
        State::Guarded | State::NotTraversed | State::NotLoaded | State::Unmapped => Style::Strong,
        State::Fixed | State::NotPresent => Style::Plain,
    }
}

fn meaning(state: State) -> &'static str {
    match state {
        State::Traversed => "present, and this load traversed its function or file",
        State::Guarded => "present behind a guard that the recording shows",
        State::NotTraversed => "present, not traversed under this load",
        State::NotLoaded => "in a module that is installed and was not loaded",
        State::Unmapped => "installed; its code could not be joined with the recording",
        State::Fixed => "the version has the fix",
        State::NotPresent => "not compiled, not installed, or older than the defect",
    }
}
