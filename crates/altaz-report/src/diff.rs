//! The difference of two profiles, for a terminal.

use altaz_profile::results::diff::{
    DiffBoundary, DiffEntry, DiffFunction, DiffLimit, DiffPermit, DiffResult, DiffSet, DiffSide,
    DiffSums, Direction, Verdict,
};

use crate::TextOptions;
use crate::number::{
    UNDEFINED, chance, count, count_opt, coverage, decimal, kb, kb_signed, unseen,
};
use crate::style::{NO_BREAK, Span, Style};
use crate::table::{Cell, Row, Table, across, cell, numbers, plain, words};

/// What every reader of a difference has to know.
const HONESTY: [&str; 4] = [
    "Really new (or gone): chance alone is expected to bring less than one function in twenty such \
     comparisons that looks as new. It rests on both recordings being of one steady load, in which \
     work comes at independent times; a job that runs once an hour can be new by chance.",
    "May have been missed: the function may run as rarely in A as in B. Record longer to tell.",
    "By chance: how many functions that were seen as soon and as often chance alone is expected to \
     bring, at most. Missed: at most this is the probability that the other recording misses one \
     function that runs as often.",
    "Gone is not removed: it was not traversed. Nothing is safe because it was not traversed.",
];

/// The text of `altaz diff`, with so many functions and components of each list.
pub fn diff_text(result: &DiffResult, top: usize, options: TextOptions) -> String {
    let (columns, color) = (options.columns(), options.color);
    let mut out = String::new();
    for (i, line) in header(result).iter().enumerate() {
        across(&mut out, line, if i == 0 { 2 } else { FIELD }, columns, color);
    }
    out.push('\n');
    section(&mut out, "Limits", &limit_lines(result), options);
    section(&mut out, "Conclusion", &conclusion_lines(result), options);
    layer_table(result).render(&mut out, columns, color);
    out.push('\n');
    for table in tables(result, top) {
        table.render(&mut out, columns, color);
        out.push('\n');
    }
    section(&mut out, "Boundaries", &boundary_lines(result, top), options);
    section(&mut out, "Posture", &posture_lines(result), options);
    section(&mut out, "Notes", &note_lines(), options);
    out.truncate(out.trim_end_matches('\n').len() + 1);
    out
}

fn section(out: &mut String, title: &str, lines: &[Vec<Span>], options: TextOptions) {
    if lines.is_empty() {
        return;
    }
    let (columns, color) = (options.columns(), options.color);
    across(out, &[Span::new(title, Style::Title)], 0, columns, color);
    for line in lines {
        let mut line = line.clone();
        line.insert(0, Span::new("  ", Style::Plain));
        across(out, &line, 4, columns, color);
    }
    out.push('\n');
}

/// Columns of the names of the header's fields.
const FIELD: usize = 6;

/// Title of the comparison.
pub fn title(result: &DiffResult) -> String {
    format!("{} against {}", result.a.file, result.b.file)
}

/// What is compared: a title, then a line for each of the two.
pub fn header(result: &DiffResult) -> Vec<Vec<Span>> {
    let mut lines = vec![vec![
        Span::new(title(result), Style::Title),
        Span::new(format!("  {} phase", result.phase), Style::Dim),
    ]];
    for (name, side) in [("A", &result.a), ("B", &result.b)] {
        lines.push(vec![
            Span::new(format!("{name:<FIELD$}"), Style::Strong),
            Span::new(
                format!("{} in {}, {}", side.service, side.deployment, side.recorded_at),
                Style::Plain,
            ),
            Span::new(
                format!(", {} instrument, kernel {}", side.instrument, side.host.kernel),
                Style::Dim,
            ),
        ]);
        lines.push(vec![Span::new(" ".repeat(FIELD), Style::Plain), watched(side)]);
    }
    lines
}

fn watched(side: &DiffSide) -> Span {
    let lost = side.lost_events;
    let style = if lost > 0 || side.inconclusive.is_some() { Style::Warn } else { Style::Dim };
    Span::new(
        format!(
            "{} functions in {} windows, {}{NO_BREAK}s watched, {} events lost; seen {}, unseen {}",
            count(side.functions),
            count(side.windows),
            decimal(Some(side.watched_s), 1),
            count(lost),
            coverage(side.coverage),
            unseen(side.unseen),
        ),
        style,
    )
}

/// A line for each limit.
pub fn limit_lines(result: &DiffResult) -> Vec<Vec<Span>> {
    let line = |limit: &DiffLimit| {
        let mut spans = vec![Span::new(format!("{}: ", limit.about), Style::Strong)];
        if !limit.a.is_empty() || !limit.b.is_empty() {
            spans.push(Span::new(format!("{} against {}. ", limit.a, limit.b), Style::Plain));
        }
        spans.push(Span::new(&limit.means, Style::Dim));
        spans
    };
    result.limits.iter().map(line).collect()
}

/// What follows, in sentences.
pub fn conclusion_lines(result: &DiffResult) -> Vec<Vec<Span>> {
    let sums = &result.functions;
    let mut lines =
        vec![vec![Span::new("in both: ", Style::Strong), Span::new(in_both(sums), Style::Plain)]];
    for (head, set, other, side) in
        [("new in B", &sums.new, "A", &result.a), ("gone from A", &sums.gone, "B", &result.b)]
    {
        let style = if set.really > 0 { Style::Warn } else { Style::Plain };
        lines.push(vec![
            Span::new(format!("{head}: "), Style::Strong),
            Span::new(by_verdict(set, head, other), style),
        ]);
        if set.functions > 0 {
            lines.push(vec![Span::new(missed(other, side, set), Style::Dim)]);
        }
    }
    lines
}

fn in_both(sums: &DiffSums) -> String {
    let mut text = format!("{} ({} kB)", functions_of(sums.both), kb(sums.both_bytes));
    if sums.rebuilt > 0 {
        text.push_str(&format!(
            ", and {} rebuilt: matched by name in another build, {} of them of another size ({} kB)",
            count(sums.rebuilt),
            count(sums.resized),
            kb_signed(sums.grown_bytes)
        ));
    }
    text.replace(" kB", &format!("{NO_BREAK}kB"))
}

/// A number of functions in words.
fn functions_of(n: u64) -> String {
    format!("{} function{}", count(n), if n == 1 { "" } else { "s" })
}

fn by_verdict(set: &DiffSet, head: &str, other: &str) -> String {
    if set.functions == 0 {
        return "no function".into();
    }
    let word = if head.starts_with("new") { "new" } else { "gone" };
    let parts = [
        (set.really, format!("really {word} ({}{NO_BREAK}kB)", kb(set.really_bytes))),
        (set.may_have_been_missed, format!("may have been missed in {other}")),
        (set.background, format!("ran in {other} as background of the idle machine")),
        (set.not_observable, format!("could not be seen by the instrument of {other}")),
        (set.undetermined, "allow no conclusion".into()),
    ];
    let parts = parts.into_iter().enumerate().filter(|(i, (n, _))| *i == 0 || *n > 0);
    let parts: Vec<String> = parts.map(|(_, (n, what))| format!("{} {what}", count(n))).collect();
    let mut text = format!(
        "{} ({}{NO_BREAK}kB): {}",
        functions_of(set.functions),
        kb(set.bytes),
        parts.join(", ")
    );
    if set.only_in_interrupts > 0 {
        let n = count(set.only_in_interrupts);
        text.push_str(&format!("; {n} of them in interrupts only"));
    }
    text
}

/// What chance explains of the functions that only the other profile has.
fn missed(name: &str, side: &DiffSide, set: &DiffSet) -> String {
    match (&side.missed, &side.inconclusive) {
        (_, Some(why)) => format!("{name} says nothing about what it has not: {why}."),
        (Some(m), None) => {
            let explained = (m.at_most as u64).min(set.may_have_been_missed);
            let so = match explained {
                0 => String::new(),
                n => format!(
                    ": up to {} of these {} may just have been missed",
                    count(n),
                    count(set.functions)
                ),
            };
            format!(
                "{name} saw {} of its load's code; {} functions more are estimated to be unseen \
                 (Chao2, a lower bound). For a recording as long as the other one chance is expected \
                 to bring {} that {name} missed, estimated from that, and at most {}{so}.",
                coverage(side.coverage),
                unseen(side.unseen),
                chance(Some(m.estimate)),
                chance(Some(m.at_most)),
            )
        }
        (None, None) => format!("How many {name} missed cannot be estimated."),
    }
}

/// Cells of what only one profile has.
fn set_cells(set: &DiffSet) -> [Cell; 3] {
    let number = |n: u64, style| cell(count(n), if n > 0 { style } else { Style::Dim });
    [
        number(set.functions, Style::Plain),
        number(set.really, Style::Warn),
        number(set.may_have_been_missed, Style::Plain),
    ]
}

fn sums_row(name: &str, style: Style, sums: &DiffSums) -> Row {
    let mut cells = vec![cell(name, style), plain(count(sums.both)), plain(count(sums.rebuilt))];
    cells.extend(set_cells(&sums.new));
    cells.extend(set_cells(&sums.gone));
    Row::Cells(cells)
}

fn sums_table(head: &'static str) -> Table {
    Table::new(vec![
        words(head, 16),
        numbers("in both"),
        numbers("rebuilt"),
        numbers("new"),
        numbers("really new"),
        numbers("maybe missed"),
        numbers("gone"),
        numbers("really gone"),
        numbers("maybe missed"),
    ])
}

/// Layer by layer, and all together.
pub fn layer_table(result: &DiffResult) -> Table {
    let mut table = sums_table("layer");
    for layer in &result.layers {
        table.rows.push(sums_row(&format!("  {}", layer.name), Style::Plain, &layer.functions));
    }
    table.rows.push(Row::Rule);
    table.rows.push(sums_row("  all", Style::Strong, &result.functions));
    table
}

/// Components and functions, so many of each list; only lists that are not empty.
pub fn tables(result: &DiffResult, top: usize) -> Vec<Table> {
    let lists = [("really new in B", &result.new), ("really gone from A", &result.gone)];
    let maybe = [
        ("new, may have been missed in A", &result.new),
        ("gone, may have been missed in B", &result.gone),
    ];
    let of = |verdict: Verdict| {
        move |(head, list): (&'static str, &Vec<DiffFunction>)| {
            let list: Vec<&DiffFunction> = list.iter().filter(|f| f.verdict == verdict).collect();
            functions(head, &list, top)
        }
    };
    let tables = [component_table(result, top)].into_iter();
    let tables = tables.chain(lists.into_iter().map(of(Verdict::Really)));
    let tables = tables.chain(maybe.into_iter().map(of(Verdict::MayBeMissed)));
    let without = [("new, no conclusion", &result.new), ("gone, no conclusion", &result.gone)];
    let tables = tables.chain(without.into_iter().map(of(Verdict::Undetermined)));
    tables.filter(|table| !table.rows.is_empty()).collect()
}

fn component_table(result: &DiffResult, top: usize) -> Table {
    let mut table = sums_table("components that differ");
    for layer in result.layers.iter().filter(|l| !l.components.is_empty() && top > 0) {
        table
            .rows
            .push(Row::Across(vec![Span::new(format!("  {}", layer.name), Style::Strong)], 4));
        for c in layer.components.iter().take(top) {
            table.rows.push(sums_row(&format!("    {}", c.name), Style::Plain, &c.functions));
        }
        let more = layer.components.len().saturating_sub(top);
        if more > 0 {
            let text = format!("    {} more", count(more as u64));
            table.rows.push(Row::Across(vec![Span::new(text, Style::Dim)], 4));
        }
    }
    table
}

fn functions(head: &'static str, list: &[&DiffFunction], top: usize) -> Table {
    let mut table = Table::new(vec![
        words(head, 20),
        words("in", 8),
        words("context", 7),
        numbers("bytes"),
        numbers("windows"),
        numbers("within s"),
        numbers("missed"),
        numbers("by chance"),
    ]);
    for f in list.iter().take(top) {
        let contexts: Vec<&str> = f.contexts.iter().map(|c| c.as_str()).collect();
        let said = f.expected_alike.is_some();
        table.row(vec![
            plain(format!("  {}", name(f))),
            plain(format!("{} {}", f.layer, f.binary)),
            cell(contexts.join(", "), Style::Dim),
            plain(count(f.size)),
            plain(count(f.windows)),
            plain(if said { decimal(Some(f.within_s), 1) } else { UNDEFINED.into() }),
            plain(chance(f.missed_probability)),
            plain(chance(f.expected_alike)),
        ]);
    }
    let more = list.len().saturating_sub(top);
    if more > 0 && top > 0 {
        let text = format!("  {} more (-o json lists all)", count(more as u64));
        table.rows.push(Row::Across(vec![Span::new(text, Style::Dim)], 4));
    }
    table
}

fn name(f: &DiffFunction) -> String {
    if f.symbol.is_empty() { format!("{:#x}", f.offset) } else { f.symbol.clone() }
}

/// Widths of each boundary that differs, and the entry points.
pub fn boundary_lines(result: &DiffResult, top: usize) -> Vec<Vec<Span>> {
    result.boundaries.iter().flat_map(|b| boundary(b, top)).collect()
}

fn boundary(b: &DiffBoundary, top: usize) -> Vec<Vec<Span>> {
    let width = |(a, b): (Option<u32>, Option<u32>)| {
        format!("{} → {}", count_opt(a.map(u64::from)), count_opt(b.map(u64::from)))
    };
    let mut lines = vec![vec![
        Span::new(format!("{} {} → {}: ", b.name, b.from, b.to), Style::Strong),
        Span::new(
            format!("exercised {}, permitted {}", width(b.exercised), width(b.permitted)),
            Style::Plain,
        ),
    ]];
    let mut list = |head: &str, names: Vec<String>, style| {
        if names.is_empty() {
            return;
        }
        let more = names.len().saturating_sub(top);
        let tail = if more > 0 { format!(", {} more", count(more as u64)) } else { String::new() };
        let shown: Vec<String> = names.into_iter().take(top).collect();
        lines.push(vec![Span::new(format!("  {head}: {}{tail}", shown.join(", ")), style)]);
    };
    let permits = |wider: bool| -> Vec<String> {
        let all = b.permits.iter().filter(|p| p.wider() == wider);
        all.map(|p: &DiffPermit| format!("{} ({} → {})", p.name, p.a, p.b)).collect()
    };
    list("permitted more", permits(true), Style::Warn);
    list("permitted less", permits(false), Style::Plain);
    let entries = |list: &[DiffEntry], really: bool| -> Vec<String> {
        let all = list.iter().filter(|e| (e.verdict == Verdict::Really) == really);
        all.map(|e| format!("{} {}×", e.name, count(e.count)).replace(' ', NO_BREAK)).collect()
    };
    list("new, and not permitted in A", entries(&b.new, true), Style::Warn);
    list("new in B (times are not recorded: may be chance)", entries(&b.new, false), Style::Plain);
    list("gone, and not permitted in B", entries(&b.gone, true), Style::Plain);
    list("gone from A (may be chance)", entries(&b.gone, false), Style::Dim);
    lines
}

/// A line for each change of posture.
pub fn posture_lines(result: &DiffResult) -> Vec<Vec<Span>> {
    let lines = result.posture.iter().map(|p| {
        let style = if p.direction == Direction::Wider { Style::Warn } else { Style::Plain };
        let or = |text: &str| if text.is_empty() { UNDEFINED.to_owned() } else { text.to_owned() };
        vec![
            Span::new(format!("{} {}, {}: ", p.role, p.comm, p.what), Style::Strong),
            Span::new(format!("{} → {} ({})", or(&p.a), or(&p.b), p.direction), style),
        ]
    });
    lines.collect()
}

/// What every reader has to know.
pub fn note_lines() -> Vec<Vec<Span>> {
    HONESTY.into_iter().map(|text| vec![Span::new(text, Style::Dim)]).collect()
}
