//! Owners, risk and ranking, for a terminal. Every figure with its interval, every comparison with its
//! probability.

use altaz_profile::Owner;
use altaz_profile::results::risk::{
    DeploymentRisk, Figure, Interval, Pair, Risk, RiskResult, Sensitivity, Verdict,
};

use crate::TextOptions;
use crate::number::{UNDEFINED, count};
use crate::style::{Span, Style};
use crate::table::{Cell, Table, across, cell, labels, numbers, plain, words};

/// Inputs shown of each comparison.
const INPUTS: usize = 3;

/// The text of `altaz assess`; with `explain`, every assumption with its source and every statement.
pub fn assess_text(result: &RiskResult, explain: bool, options: TextOptions) -> String {
    let mut out = String::new();
    let title = format!("Risk of {} ", result.service);
    line(&mut out, vec![strong_title(&title), Span::new(basis(result), Style::Dim)], 2, options);
    out.push('\n');
    for d in &result.deployments {
        deployment(&mut out, d, options);
    }
    ranking(&mut out, result, options);
    if explain {
        self::explain(&mut out, result, options);
    } else {
        let more =
            "Each assumption with its source, and what contradicts the literature: --explain";
        line(&mut out, vec![Span::new(more, Style::Dim)], 2, options);
    }
    for note in &result.notes {
        line(&mut out, vec![Span::new(note, Style::Dim)], 2, options);
    }
    for warning in &result.warnings {
        line(&mut out, vec![Span::new(format!("Left out: {warning}"), Style::Warn)], 2, options);
    }
    out.truncate(out.trim_end_matches('\n').len() + 1);
    out
}

/// What `altaz compare` prints of it: by owner, and how sure the ranking is.
pub fn risk_section(out: &mut String, result: &RiskResult, options: TextOptions) {
    line(out, vec![strong_title("Risk  "), Span::new(basis(result), Style::Dim)], 2, options);
    owners_table(&result.deployments).render(out, options.columns(), options.color);
    out.push('\n');
    pairs(out, &result.pairs, options);
    let more = "Exposure: expected exploitable defects open at a random moment under stated \
                assumptions, known ones weighing more; for ordering, not a forecast. More: altaz \
                assess --explain";
    line(out, vec![Span::new(format!("  {more}"), Style::Dim)], 4, options);
    out.push('\n');
}

fn strong_title(text: &str) -> Span {
    Span::new(text, Style::Title)
}

fn basis(result: &RiskResult) -> String {
    format!(
        "{:.0} % intervals, {} draws, seed {}, {}",
        result.level * 100.0,
        count(result.draws.into()),
        result.seed,
        result.priors
    )
}

fn line(out: &mut String, spans: Vec<Span>, hang: usize, options: TextOptions) {
    across(out, &spans, hang, options.columns(), options.color);
}

/// `0.52 (0.1–2.3)`.
pub fn interval(i: &Interval) -> String {
    format!("{} ({}–{})", short(i.median), short(i.low), short(i.high))
}

/// Two digits that count, or two decimals.
pub fn short(n: f64) -> String {
    match n.abs() {
        _ if !n.is_finite() => UNDEFINED.into(),
        0.0 => "0".into(),
        a if !(1e-4..1e6).contains(&a) => format!("{n:.1e}"),
        a if a >= 10.0 => count(n.round() as u64),
        a if a >= 0.1 => format!("{n:.2}"),
        a => {
            let decimals = (1.0 - a.log10().floor()) as usize;
            format!("{n:.decimals$}")
        }
    }
}

/// A deployment's figures by owner.
fn owners_table(deployments: &[DeploymentRisk]) -> Table {
    let mut table = Table::new(vec![
        words("exposure", 12),
        numbers("VAP"),
        numbers("tenant's"),
        numbers("provider's"),
        numbers("HAP"),
    ]);
    for d in deployments {
        table.row(vec![
            cell(&d.name, Style::Strong),
            plain(interval(&d.vap.exposure)),
            cell(interval(&d.tenant.exposure), Style::Tenant),
            cell(interval(&d.provider.exposure), Style::Provider),
            plain(interval(&d.hap.exposure)),
        ]);
    }
    table
}

fn deployment(out: &mut String, d: &DeploymentRisk, options: TextOptions) {
    let model = if d.model_only { "  model" } else { "" };
    let mut table = Table::new(vec![
        words("layer", 16),
        labels("must fix"),
        labels("could"),
        labels("shared"),
        numbers("window"),
        numbers("functions"),
        numbers("defects λ"),
        numbers("exposure"),
    ]);
    for l in &d.layers {
        table.row(vec![
            plain(format!("  {}", l.name)),
            owner(l.owner),
            owner(l.could_fix),
            plain(if l.shared { "shared" } else { UNDEFINED }),
            plain(l.patch_window_days.map_or(UNDEFINED.into(), |w| format!("{} d", short(w)))),
            plain(count(l.risk.functions)),
            plain(interval(&l.risk.lambda)),
            plain(interval(&l.risk.exposure)),
        ]);
    }
    table.rows.push(crate::table::Row::Rule);
    let mut total = |name: &str, owner: Cell, risk: &Risk| {
        table.row(vec![
            cell(format!("  {name}"), Style::Strong),
            owner,
            plain(""),
            plain(""),
            plain(""),
            plain(count(risk.functions)),
            plain(interval(&risk.lambda)),
            plain(interval(&risk.exposure)),
        ]);
    };
    total("VAP", plain(""), &d.vap);
    total("", self::owner(Some(Owner::Tenant)), &d.tenant);
    total("", self::owner(Some(Owner::Provider)), &d.provider);
    if d.orphaned.functions > 0 {
        total("", self::owner(None), &d.orphaned);
    }
    total("HAP exercised", plain(""), &d.hap);
    line(
        out,
        vec![
            Span::new(&d.name, Style::Title),
            Span::new(model, Style::Warn),
            Span::new(format!("  contract: {}", d.contract), Style::Dim),
        ],
        2,
        options,
    );
    table.render(out, options.columns(), options.color);
    for p in &d.paths {
        let text = format!(
            "falls within a year to whoever finds all that is open: {} if independent, {} if fully dependent, {} at dependence {}",
            interval(&p.independent),
            interval(&p.dependent),
            interval(&p.stated),
            short(p.dependence)
        );
        let barriers = match p.barriers.len() {
            1 => "1 barrier".to_owned(),
            n => format!("{n} barriers"),
        };
        let head = format!("  {} ({barriers}): ", p.name);
        line(out, vec![Span::new(head, Style::Strong), Span::new(text, Style::Plain)], 4, options);
    }
    for f in &d.findings {
        line(
            out,
            vec![
                Span::new(format!("  {}: ", kind(f.kind)), Style::Warn),
                Span::new(&f.what, Style::Plain),
                Span::new(format!(" ({})", f.evidence), Style::Dim),
            ],
            4,
            options,
        );
    }
    if let Some(k) = d.known {
        let epss = k.epss.map_or(String::new(), |e| format!(", {} expected exploited", short(e)));
        let rest = [(k.unscored, "without a score"), (k.undecided, "more undecided")];
        let rest: String = rest
            .iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, what)| format!(", {} {what}", count(*n)))
            .collect();
        let text = format!(
            "  known and open in traversed code: {}{epss}, {} in KEV{rest}",
            count(k.traversed),
            count(k.kev)
        );
        line(out, vec![Span::new(text, Style::Plain)], 4, options);
    }
    out.push('\n');
}

fn kind(kind: altaz_profile::results::risk::FindingKind) -> &'static str {
    use altaz_profile::results::risk::FindingKind as K;
    match kind {
        K::Moved => "moved",
        K::Orphaned => "nobody's",
        K::CannotFix => "cannot fix",
        K::NoWindow => "no window",
        K::RemedyFallsShort => "remedy falls short",
    }
}

fn owner(owner: Option<Owner>) -> Cell {
    match owner {
        Some(Owner::Tenant) => cell("tenant", Style::Tenant),
        Some(Owner::Provider) => cell("provider", Style::Provider),
        None => cell("nobody", Style::Warn),
    }
}

fn ranking(out: &mut String, result: &RiskResult, options: TextOptions) {
    pairs(out, &result.pairs, options);
    for s in &result.sensitivity {
        sensitivity(out, s, options);
    }
    if !result.sensitivity.is_empty() {
        out.push('\n');
    }
    if result.deployments.len() > 1 {
        weightings(out, result, options);
    }
}

fn pairs(out: &mut String, pairs: &[Pair], options: TextOptions) {
    if pairs.is_empty() {
        return;
    }
    let mut table = Table::new(vec![
        words("smaller exposure?", 18),
        labels("figure"),
        numbers("probability"),
        words("verdict", 12),
        numbers("ratio"),
    ]);
    for p in pairs {
        let verdict = match &p.smaller {
            Some(name) => cell(name, Style::Strong),
            None if p.equal => cell("equal", Style::Dim),
            None => cell("undecided", Style::Warn),
        };
        table.row(vec![
            plain(format!("{} < {}", p.a, p.b)),
            plain(p.figure.as_str()),
            plain(if p.equal { UNDEFINED.into() } else { format!("{:.2}", p.probability) }),
            verdict,
            plain(p.ratio.as_ref().map_or(UNDEFINED.into(), interval)),
        ]);
    }
    table.render(out, options.columns(), options.color);
    out.push('\n');
}

fn sensitivity(out: &mut String, s: &Sensitivity, options: TextOptions) {
    let groups = s.inputs.iter().filter(|i| i.sobol_total.is_some()).take(INPUTS);
    let groups: Vec<String> = groups
        .map(|i| format!("{} {:.0} %", i.input, i.sobol_total.unwrap_or(0.0) * 100.0))
        .collect();
    let flips: Vec<String> = s
        .inputs
        .iter()
        .filter(|i| i.flips)
        .take(INPUTS)
        .filter_map(|i| {
            let [low, high] = i.one_at_a_time?;
            Some(format!("{} (ratio {} to {})", i.input, short(low), short(high)))
        })
        .collect();
    if groups.is_empty() && flips.is_empty() {
        return;
    }
    let mut spans = vec![
        Span::new(format!("  {} < {}, {}: ", s.a, s.b, s.figure.as_str()), Style::Strong),
        Span::new(format!("rests on {}", groups.join(", ")), Style::Plain),
    ];
    if !flips.is_empty() {
        spans.push(Span::new(format!("; turned over by {}", flips.join(", ")), Style::Warn));
    }
    line(out, spans, 4, options);
}

fn weightings(out: &mut String, result: &RiskResult, options: TextOptions) {
    let mut table = Table::new(vec![
        words("weighting", 10),
        words("tenant VAP, smallest first", 18),
        words("total VAP", 18),
        words("HAP", 18),
    ]);
    for w in &result.weightings {
        if let Some(missing) = &w.missing {
            let text = format!("{}: {missing}", w.name);
            table.rows.push(crate::table::Row::Across(vec![Span::new(text, Style::Dim)], 4));
            continue;
        }
        let order = |figure: Figure| {
            let of = |v: &altaz_profile::results::risk::WeightedValue| match figure {
                Figure::TenantVap => v.tenant_vap,
                Figure::TotalVap => v.total_vap,
                Figure::Hap => v.hap,
            };
            let mut values: Vec<_> = w.values.iter().collect();
            values.sort_by(|a, b| of(a).total_cmp(&of(b)));
            let mark = if w.differs_in.contains(&figure) { "≠ " } else { "" };
            let names: Vec<&str> = values.iter().map(|v| v.deployment.as_str()).collect();
            plain(format!("{mark}{}", names.join(" < ")))
        };
        table.row(vec![
            cell(&w.name, Style::Strong),
            order(Figure::TenantVap),
            order(Figure::TotalVap),
            order(Figure::Hap),
        ]);
    }
    table.render(out, options.columns(), options.color);
    out.push('\n');
}

fn explain(out: &mut String, result: &RiskResult, options: TextOptions) {
    line(out, vec![strong_title("Assumptions")], 2, options);
    for a in &result.assumptions {
        let mut text = format!("{}, {} to {}", a.what, short(a.low), short(a.high));
        if let Some(p) = &a.posterior {
            text.push_str(&format!("; with its history {}", interval(p)));
        }
        if let Some(h) = &a.history {
            text.push_str(&format!(" ({h})"));
        }
        let source = format!(" [{}]", a.source);
        let style = if a.published { Style::Dim } else { Style::Warn };
        line(
            out,
            vec![
                Span::new(format!("  {}: ", a.name), Style::Strong),
                Span::new(text, Style::Plain),
                Span::new(source, style),
            ],
            4,
            options,
        );
    }
    out.push('\n');
    line(out, vec![strong_title("Statements of the literature")], 2, options);
    for s in &result.statements {
        let (word, style) = match s.verdict {
            Verdict::Holds => ("holds", Style::Plain),
            Verdict::Contradicted => ("contradicted", Style::Warn),
            Verdict::Undecided => ("undecided", Style::Dim),
        };
        line(
            out,
            vec![
                Span::new(format!("  {word}: "), style),
                Span::new(&s.statement, Style::Plain),
                Span::new(format!(" ({}). {}", s.source, s.figure), Style::Dim),
            ],
            4,
            options,
        );
    }
    if !result.weightings.is_empty() {
        out.push('\n');
        line(out, vec![strong_title("Weightings")], 2, options);
        for w in &result.weightings {
            let text = vec![
                Span::new(format!("  {}: ", w.name), Style::Strong),
                Span::new(&w.what, Style::Plain),
            ];
            line(out, text, 4, options);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_two_digits_and_nothing_is_printed_as_a_number_that_is_none() {
        let shown =
            [0.0, 0.996, 1.04, 12.3, 1234.5, 0.0123, 0.00049, 2e-7, 3.1e7, f64::NAN].map(short);
        let expected =
            ["0", "1.00", "1.04", "12", "1,235", "0.012", "0.00049", "2.0e-7", "3.1e7", UNDEFINED];
        assert_eq!(shown, expected);
    }

    #[test]
    fn an_interval_names_its_median_before_its_ends() {
        let i = Interval { low: 0.1, median: 0.5, high: 2.0, mean: 0.8 };
        assert_eq!(interval(&i), "0.50 (0.10–2.00)");
    }
}
