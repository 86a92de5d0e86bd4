//! What-ifs and decisions, for a terminal.

use altaz_profile::Owner;
use altaz_profile::results::risk::{AdviceResult, ModelResult, Rewrite};

use crate::TextOptions;
use crate::risk::{assess_text, interval, short};
use crate::style::{Span, Style};
use crate::table::{Table, across, cell, numbers, plain, words};

/// The text of `altaz model`.
pub fn model_text(result: &ModelResult, explain: bool, options: TextOptions) -> String {
    let mut out = String::new();
    let (columns, color) = (options.columns(), options.color);
    let title = Span::new(format!("What if: {}  ", result.scenario), Style::Title);
    across(&mut out, &[title, Span::new(&result.title, Style::Dim)], 2, columns, color);
    for change in &result.changes {
        across(&mut out, &[Span::new(format!("  {change}"), Style::Plain)], 4, columns, color);
    }
    out.push('\n');
    out.push_str(&assess_text(&result.risk, explain, options));
    for r in &result.rewrites {
        out.push('\n');
        rewrite(&mut out, r, options);
    }
    out
}

fn rewrite(out: &mut String, r: &Rewrite, options: TextOptions) {
    let (columns, color) = (options.columns(), options.color);
    let when = match &r.overtakes_years {
        _ if r.overtakes == 0.0 => "never".to_owned(),
        Some(i) => format!(
            "after {} years, within {} years with probability {:.2}",
            interval(i),
            short(r.horizon_years),
            r.overtakes
        ),
        None => "unknown".to_owned(),
    };
    let head =
        Span::new(format!("Rewritten: {}, from {} to {}  ", r.what, r.from, r.to), Style::Title);
    let text = Span::new(format!("the new code has fewer expected defects {when}"), Style::Plain);
    across(out, &[head, text], 2, columns, color);
    let mut table = Table::new(vec![
        numbers("year"),
        numbers("old λ"),
        numbers("new λ"),
        numbers("new is smaller"),
    ]);
    for p in &r.curve {
        table.row(vec![
            plain(short(p.year)),
            plain(interval(&p.old)),
            plain(interval(&p.new)),
            plain(format!("{:.2}", p.probability)),
        ]);
    }
    table.render(out, columns, color);
}

/// The text of `altaz model advise`.
pub fn advice_text(result: &AdviceResult, options: TextOptions) -> String {
    let mut out = String::new();
    let (columns, color) = (options.columns(), options.color);
    for (role, title) in [(Owner::Tenant, "For a tenant"), (Owner::Provider, "For a provider")] {
        let rows: Vec<_> = result.rows.iter().filter(|r| r.role == role).collect();
        if rows.is_empty() {
            continue;
        }
        across(&mut out, &[Span::new(title, Style::Title)], 2, columns, color);
        let mut table = Table::new(vec![
            words("question", 18),
            words("answer", 14),
            words("figure", 20),
            words("what decides", 20),
        ]);
        for r in rows {
            let style = if r.decided { Style::Strong } else { Style::Warn };
            table.row(vec![
                plain(&r.question),
                cell(&r.answer, style),
                plain(&r.figure),
                plain(&r.deciding),
            ]);
            table.rows.push(crate::table::Row::Blank);
        }
        table.render(&mut out, columns, color);
    }
    for warning in &result.warnings {
        let span = Span::new(format!("Left out: {warning}"), Style::Warn);
        across(&mut out, &[span], 2, columns, color);
    }
    out
}
