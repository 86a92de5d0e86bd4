//! The same tables for a browser: one file that needs nothing else, runs no script, and follows
//! the reader's choice of light or dark.

use std::fmt::Write as _;

use altaz_profile::Owner;
use altaz_profile::results::diff::DiffResult;
use altaz_profile::results::{CompareResult, DeploymentResult, LayerResult, ProfileReport};

use crate::number::{count, percent};
use crate::style::{NO_BREAK, Span, Style};
use crate::table::{Align, Cell, Row, Table};
use crate::{compare, diff, parts, profile};

const CSS: &str = include_str!("report.css");

/// Width of a bar's drawing, in units of its view box.
const BAR_WIDTH: f64 = 900.0;
/// Width that a character of a label takes in it.
const LABEL_CHAR: f64 = 7.6;

/// `report.html` of a comparison.
pub fn compare_html(result: &CompareResult) -> String {
    let mut out = String::new();
    let title = format!("{} {}", result.service, parts::in_deployments(result.deployments.len()));
    head(&mut out, &title);
    if let Some(basis) = &result.basis {
        let text =
            format!("{}, {} instrument, {} phase", basis.load, basis.instrument, basis.phase);
        element(&mut out, "p", "dim", &text);
    }
    element(&mut out, "p", "dim", &format!("host {}", parts::host(&result.host)));

    let available: Vec<&DeploymentResult> =
        result.deployments.iter().filter(|d| d.available).collect();
    if !available.is_empty() {
        element(&mut out, "h2", "", "Side by side");
        bars(&mut out, &available);
        table(&mut out, &compare::summary_table(result, 0));
    }
    for d in &result.deployments {
        element(&mut out, "h2", "", &d.name);
        if !d.available {
            element(&mut out, "p", "warn", &compare::unavailable(d));
            continue;
        }
        // The name is the heading already.
        paragraph(&mut out, &compare::heading(d)[1..]);
        table(&mut out, &profile::layer_table(d, usize::MAX));
        lines(&mut out, &profile::boundary_lines(d));
        if let Some(repeats) = &d.repeats {
            element(&mut out, "p", "", &format!("Repeats: {}", parts::repeats(repeats)));
        }
    }
    section(&mut out, "Blind spots", &compare::blind_lines(result));
    let notes: Vec<Vec<Span>> = compare::note_lines(result).into_iter().map(|l| vec![l]).collect();
    section(&mut out, "Notes", &notes);
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

/// The report of one profile as a page.
pub fn profile_html(report: &ProfileReport) -> String {
    let d = &report.deployment;
    let mut out = String::new();
    head(&mut out, &format!("{} in {}", report.service, d.name));
    for line in &profile::header(report)[1..] {
        out.push_str("<p class=\"field\">");
        spans(&mut out, line);
        out.push_str("</p>\n");
    }
    bars(&mut out, &[d]);
    table(&mut out, &profile::layer_table(d, usize::MAX));
    table(&mut out, &profile::checks_table(d));
    element(&mut out, "p", "dim", profile::CHECKS);
    for t in profile::context_table(d).into_iter().chain(profile::component_tables(d)) {
        table(&mut out, &t);
    }
    section(&mut out, "Boundaries", &profile::boundary_lines(d));
    section(&mut out, "Posture", &profile::posture_lines(d));
    section(&mut out, "Blind spots", &profile::blind_lines(d));
    let notes: Vec<Vec<Span>> = profile::note_lines(d).into_iter().map(|l| vec![l]).collect();
    section(&mut out, "Notes", &notes);
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

/// A difference as a page, with so many functions and components of each list.
pub fn diff_html(result: &DiffResult, top: usize) -> String {
    let mut out = String::new();
    head(&mut out, &diff::title(result));
    for line in &diff::header(result)[1..] {
        out.push_str("<p class=\"field\">");
        spans(&mut out, line);
        out.push_str("</p>\n");
    }
    section(&mut out, "Limits", &diff::limit_lines(result));
    section(&mut out, "Conclusion", &diff::conclusion_lines(result));
    table(&mut out, &diff::layer_table(result));
    for t in diff::tables(result, top) {
        table(&mut out, &t);
    }
    section(&mut out, "Boundaries", &diff::boundary_lines(result, top));
    section(&mut out, "Posture", &diff::posture_lines(result));
    section(&mut out, "Notes", &diff::note_lines());
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

fn head(out: &mut String, title: &str) {
    let title = escape(title);
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title} · altaz</title>\n<style>\n{CSS}</style>\n</head>\n<body>\n<main>\n\
         <h1>{title}</h1>\n"
    );
}

/// A bar for each deployment, as long as its VAP, a segment for each layer in its owner's colour.
fn bars(out: &mut String, deployments: &[&DeploymentResult]) {
    let longest = deployments.iter().filter_map(|d| d.vap.map(|v| v.functions)).max().unwrap_or(0);
    out.push_str(
        "<p class=\"legend\"><span class=\"key tenant\"></span> tenant \
         <span class=\"key provider\"></span> provider \
         <span class=\"key provider shared\"></span> provider, shared: HAP</p>\n",
    );
    for d in deployments {
        bar(out, d, longest);
    }
}

fn bar(out: &mut String, d: &DeploymentResult, longest: u64) {
    let Some(vap) = d.vap.filter(|_| longest > 0) else { return };
    let hap = d.hap.map_or(0, |h| h.exercised_functions);
    let label = format!(
        "{}: {} functions traversed, {} of them the tenant's, {} in shared layers",
        d.name,
        count(vap.functions),
        percent(vap.tenant_share),
        count(hap)
    );
    let _ = write!(
        out,
        "<figure><figcaption><b>{}</b> {} functions, HAP {}</figcaption>\n\
         <svg viewBox=\"0 0 {BAR_WIDTH} 34\" role=\"img\" aria-label=\"{}\">\n",
        escape(&d.name),
        count(vap.functions),
        count(hap),
        escape(&label)
    );
    let mut x = 0.0;
    for layer in d.layers.iter().filter(|l| l.functions > 0) {
        // A damaged file may claim more functions in a layer than in all of them.
        let width =
            (layer.functions as f64 / longest as f64 * BAR_WIDTH).min(BAR_WIDTH - x).max(0.0);
        segment(out, layer, x, width);
        x += width;
    }
    out.push_str("</svg></figure>\n");
}

fn segment(out: &mut String, layer: &LayerResult, x: f64, width: f64) {
    let class = match layer.owner {
        Owner::Tenant => "tenant",
        Owner::Provider => "provider",
    };
    let shared = if layer.shared { " shared" } else { "" };
    let _ = write!(
        out,
        "<g class=\"{class}{shared}\"><title>{}: {} functions, {}{}</title>\
         <rect x=\"{x:.1}\" y=\"1\" width=\"{width:.1}\" height=\"32\"/>",
        layer.name,
        count(layer.functions),
        layer.owner,
        if layer.shared { ", shared" } else { "" }
    );
    if width > layer.name.as_str().len() as f64 * LABEL_CHAR + 10.0 {
        let _ = write!(out, "<text x=\"{:.1}\" y=\"22\">{}</text>", x + 6.0, layer.name);
    }
    out.push_str("</g>\n");
}

fn table(out: &mut String, table: &Table) {
    out.push_str("<div class=\"scroll\"><table>\n<thead><tr>");
    let class = |align: Align| match align {
        Align::Left => "",
        Align::Right => " class=\"n\"",
    };
    for c in &table.columns {
        let _ = write!(out, "<th scope=\"col\"{}>{}</th>", class(c.align), escape(c.head));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    let mut ruled = "";
    for row in &table.rows {
        match row {
            Row::Cells(cells) => {
                let _ = write!(out, "<tr{ruled}>");
                for (column, cell) in table.columns.iter().zip(cells) {
                    let _ = write!(out, "<td{}{}>", class(column.align), indent(cell));
                    spans(out, cell);
                    out.push_str("</td>");
                }
                out.push_str("</tr>\n");
                ruled = "";
            }
            Row::Across(cell, _) => {
                let _ = write!(out, "<tr><td colspan=\"{}\">", table.columns.len());
                spans(out, cell);
                out.push_str("</td></tr>\n");
            }
            Row::Rule => ruled = " class=\"rule\"",
            Row::Blank => {}
        }
    }
    out.push_str("</tbody></table></div>\n");
}

/// The indent of a cell's text as padding.
fn indent(cell: &Cell) -> String {
    let text = cell.first().map_or("", |s| s.text.as_str());
    match text.len() - text.trim_start_matches(' ').len() {
        // Two columns are the indent of every line below a heading.
        0..=2 => String::new(),
        n => format!(" style=\"padding-left:{}em\"", n / 2),
    }
}

fn section(out: &mut String, title: &str, content: &[Vec<Span>]) {
    if !content.is_empty() {
        element(out, "h2", "", title);
        lines(out, content);
    }
}

fn lines(out: &mut String, content: &[Vec<Span>]) {
    for line in content {
        paragraph(out, line);
    }
}

fn paragraph(out: &mut String, line: &[Span]) {
    out.push_str("<p>");
    spans(out, line);
    out.push_str("</p>\n");
}

fn spans(out: &mut String, line: &[Span]) {
    for (i, span) in line.iter().enumerate() {
        let text = if i == 0 { span.text.trim_start() } else { &span.text };
        match class(span.style) {
            Some(class) => {
                let _ = write!(out, "<span class=\"{class}\">{}</span>", escape(text));
            }
            None => out.push_str(&escape(text)),
        }
    }
}

const fn class(style: Style) -> Option<&'static str> {
    match style {
        Style::Plain => None,
        Style::Title | Style::Strong => Some("strong"),
        Style::Dim => Some("dim"),
        Style::Tenant => Some("tenant"),
        Style::Provider => Some("provider"),
        Style::Warn => Some("warn"),
    }
}

fn element(out: &mut String, name: &str, class: &str, text: &str) {
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    let _ = writeln!(out, "<{name}{class}>{}</{name}>", escape(text));
}

/// Text that a browser shows as it is.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in crate::style::clean(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out.replace(NO_BREAK, "&nbsp;")
}
