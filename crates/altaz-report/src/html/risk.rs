//! Expected exploitable defects that are open at a random moment: by owner and for what is shared,
//! each with its interval, and how sure the order of the deployments is.

use altaz_profile::results::risk::{DeploymentRisk, FindingKind, Interval, Pair, RiskResult};
use maud::{Markup, html};

use super::text::{method, pc, t};
use crate::number::{UNDEFINED, count, percent};

/// Decades that the axis spans at most: what is smaller stands at its left end.
const DECADES: f64 = 8.0;
/// Height of a line, pixels.
const HEIGHT: u32 = 24;

/// The figure of a risk assessment.
pub fn figure(risk: &RiskResult) -> Markup {
    let rows: Vec<Row<'_>> = risk.deployments.iter().flat_map(rows).collect();
    let scale = Scale::of(&rows);
    let level = percent(Some(risk.level));
    let shows = format!(
        "Expected exploitable defects that are open at a random moment: the median and the range \
         that holds {level} of {} draws (seed {}). Logarithmic axis.",
        count(risk.draws.into()),
        risk.seed
    );
    let priors = format!(
        "Size stands for risk, with densities from {}. Neither figure is a forecast of incidents: \
         they order deployments under stated assumptions.",
        risk.priors
    );
    html! {
        figure id="risk" class="risk" {
            figcaption { h2 { "Open defects, by who must fix them" } }
            @if let Some(scale) = scale {
                ul class="legend" {
                    @for (kind, name) in [(Kind::Tenant, "tenant"), (Kind::Provider, "provider"),
                        (Kind::Nobody, "nobody"), (Kind::Hap, "HAP: shared layers")] {
                        li {
                            svg class="key" width="14" height="14" aria-hidden="true" { (mark(kind, "50%", 7)) }
                            (name)
                        }
                    }
                }
                div class="chart forest" {
                    @for row in &rows { (row.draw(&scale)) }
                    (scale.axis())
                }
            }
            (method(&[
                ("Shows", &shows),
                ("Blind to", "What the priors do not know of this code; defects that no load of this kind reaches."),
                ("Assumes", &priors),
            ]))
            (pairs(risk))
            (findings(risk))
            @if !risk.warnings.is_empty() {
                ul class="plain" { @for w in &risk.warnings { li class="warn" { (t(w)) } } }
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tenant,
    Provider,
    Nobody,
    Hap,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Provider => "provider",
            Self::Nobody => "nobody",
            Self::Hap => "HAP",
        }
    }
}

struct Row<'a> {
    deployment: &'a DeploymentRisk,
    first: bool,
    kind: Kind,
    value: Interval,
}

fn rows(d: &DeploymentRisk) -> impl Iterator<Item = Row<'_>> {
    let all = [
        (Kind::Tenant, d.tenant),
        (Kind::Provider, d.provider),
        (Kind::Nobody, d.orphaned),
        (Kind::Hap, d.hap),
    ];
    let shown = all.into_iter().filter(|(kind, r)| *kind != Kind::Nobody || r.functions > 0);
    shown.enumerate().map(|(i, (kind, r))| Row {
        deployment: d,
        first: i == 0,
        kind,
        value: r.exposure,
    })
}

/// A logarithmic axis from a power of ten to another.
struct Scale {
    from: f64,
    to: f64,
}

impl Scale {
    fn of(rows: &[Row<'_>]) -> Option<Self> {
        let ends = || rows.iter().flat_map(|r| [r.value.low, r.value.median, r.value.high]);
        let usable = |v: &f64| v.is_finite() && *v > 0.0;
        let high = ends().filter(usable).fold(0.0, f64::max);
        let low = ends().filter(usable).fold(f64::INFINITY, f64::min);
        (high > 0.0).then(|| {
            let to = high.log10().ceil();
            let from = low.log10().floor().max(to - DECADES);
            Self { from, to: if to > from { to } else { from + 1.0 } }
        })
    }

    fn at(&self, value: f64) -> f64 {
        if value > 0.0 {
            ((value.log10() - self.from) / (self.to - self.from)).clamp(0.0, 1.0)
        } else {
            0.0
        }
    }

    fn marks(&self) -> impl Iterator<Item = i32> {
        (self.from as i32)..=(self.to as i32)
    }

    fn axis(&self) -> Markup {
        html! {
            div class="axis" {
                svg width="100%" height="20" aria-hidden="true" {
                    @for power in self.marks() {
                        text class="middle" x=(pc(self.at(10_f64.powi(power)))) y="14" { (figure_of(10_f64.powi(power))) }
                    }
                }
            }
        }
    }
}

/// A figure with two significant digits.
fn figure_of(value: f64) -> String {
    match value {
        v if !v.is_finite() => UNDEFINED.into(),
        0.0 => "0".into(),
        v if !(0.001..100_000.0).contains(&v) => format!("{v:.0e}"),
        v => {
            let decimals = (1.0 - v.log10().floor()).clamp(0.0, 4.0) as usize;
            let text = format!("{v:.decimals$}");
            if text.contains('.') {
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            } else {
                text
            }
        }
    }
}

impl Row<'_> {
    fn draw(&self, scale: &Scale) -> Markup {
        let Interval { low, median, high, .. } = self.value;
        let none = high.is_nan() || high <= 0.0;
        let words = if none {
            "none".to_owned()
        } else {
            format!("{} ({} to {})", figure_of(median), figure_of(low), figure_of(high))
        };
        let label = format!("{}, {}: {words}", self.deployment.name, self.kind.name());
        let (a, b) = (pc(scale.at(low)), pc(scale.at(high)));
        let middle = HEIGHT / 2;
        html! {
            div class=(if self.first { "line first" } else { "line" }) {
                div class="of" {
                    @if self.first {
                        b { (t(&self.deployment.name)) }
                        @if self.deployment.model_only { " " span class="badge" { "model" } }
                    }
                }
                svg width="100%" height=(HEIGHT) role="img" aria-label=(t(label)) {
                    @for power in scale.marks() {
                        @let x = pc(scale.at(10_f64.powi(power)));
                        line class="grid" x1=(x) x2=(x) y1="0" y2=(HEIGHT) {}
                    }
                    @if !none {
                        line class="span" x1=(a) x2=(b) y1=(middle) y2=(middle) {}
                        (mark(self.kind, &pc(scale.at(median)), middle))
                    }
                }
                div class="values" { span class="what" { (self.kind.name()) } " " (words) }
            }
        }
    }
}

/// The mark of a figure, told by its shape as well as its colour.
fn mark(kind: Kind, x: &str, y: u32) -> Markup {
    html! {
        svg class="mark" x=(x) y=(y) width="1" height="1" {
            @match kind {
                Kind::Tenant => circle class="tenant" r="5.5" {},
                Kind::Provider => rect class="provider" x="-5" y="-5" width="10" height="10" {},
                Kind::Nobody => path class="nobody" d="M-5 -5L5 5M-5 5L5 -5" {},
                Kind::Hap => path class="hap" d="M0 -6.5L6.5 0L0 6.5L-6.5 0Z" {},
            }
        }
    }
}

/// How sure the order of each pair is.
fn pairs(risk: &RiskResult) -> Markup {
    if risk.pairs.is_empty() {
        return html! {};
    }
    let decided = |p: &Pair| match (&p.smaller, p.equal) {
        (_, true) => "equal".to_owned(),
        (Some(name), _) => format!("{name} is smaller"),
        (None, _) => "undecided".to_owned(),
    };
    html! {
        div class="scroll" role="region" tabindex="0" aria-label="How sure the order is" {
            table {
                thead { tr {
                    th scope="col" { "figure" } th scope="col" { "A" } th scope="col" { "B" }
                    th scope="col" class="n" { "A smaller, probability" }
                    th scope="col" class="n" { "A / B" }
                    th scope="col" { "so" }
                } }
                tbody {
                    @for p in &risk.pairs {
                        tr {
                            td { (p.figure.as_str()) } td { (t(&p.a)) } td { (t(&p.b)) }
                            td class="n" { (probability(p.probability)) }
                            td class="n" { (p.ratio.map_or_else(|| UNDEFINED.into(), ratio)) }
                            td class=[p.smaller.is_none().then_some("dim")] { (t(decided(p))) }
                        }
                    }
                }
            }
        }
    }
}

/// A probability that is never rounded to certainty.
fn probability(p: f64) -> String {
    match p {
        p if !(0.0..=1.0).contains(&p) => UNDEFINED.into(),
        p if p > 0.0 && p < 0.01 => "<0.01".into(),
        p if p < 1.0 && p > 0.99 => ">0.99".into(),
        p => format!("{p:.2}"),
    }
}

fn ratio(r: Interval) -> String {
    format!("{} ({} to {})", figure_of(r.median), figure_of(r.low), figure_of(r.high))
}

const fn kind_words(kind: FindingKind) -> &'static str {
    match kind {
        FindingKind::Moved => "ownership moved",
        FindingKind::Orphaned => "nobody's",
        FindingKind::CannotFix => "owner cannot fix it",
        FindingKind::NoWindow => "no patch window",
        FindingKind::RemedyFallsShort => "remedy falls short",
    }
}

/// What the contracts leave open.
fn findings(risk: &RiskResult) -> Markup {
    let any = risk.deployments.iter().any(|d| !d.findings.is_empty());
    html! {
        @if any {
            h3 { "What the contracts leave open" }
            ul class="plain" {
                @for d in &risk.deployments {
                    @for f in &d.findings {
                        li {
                            b { (t(&d.name)) ", " (f.layer) ": " (kind_words(f.kind)) } ": "
                            (t(&f.what)) span class="dim" { " (" (t(&f.evidence)) ")" }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_keep_two_digits_and_probabilities_are_never_certain_by_rounding() {
        let shown = [0.0, 0.0123, 1.0, 1.26, 12.4, 123.0, 1e-7, f64::NAN].map(figure_of);
        assert_eq!(shown, ["0", "0.012", "1", "1.3", "12", "123", "1e-7", "–"]);
        let shown = [0.0, 0.004, 0.5, 0.996, 1.0, 1.2].map(probability);
        assert_eq!(shown, ["0.00", "<0.01", "0.50", ">0.99", "1.00", "–"]);
    }
}
