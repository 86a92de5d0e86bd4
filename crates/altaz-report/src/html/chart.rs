//! The comparison of deployments: VAP by owner and HAP, with the range in which the figure lies.
//!
//! Bars with lengths in percent of the drawing, so that text keeps its size at every width of the
//! page; the widely used chart libraries draw pixels or fixed view boxes, know nothing of dark
//! pages and give no text alternative.

use altaz_profile::results::DeploymentResult;
use maud::{Markup, html};

use super::text::{pc, t};
use crate::number::{count, percent, unseen};

/// Room right of the longest bar, as a share of the drawing.
const ROOM: f64 = 0.03;
/// Height of a deployment's drawing, and of its bars, in pixels.
const HEIGHT: u32 = 48;
const VAP: (u32, u32) = (3, 22);
const HAP: (u32, u32) = (30, 14);

/// Where a figure lies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The range of a figure: of the repeats where there are any, else from what was seen to what the
/// completeness estimate adds.
fn range(d: &DeploymentResult, seen: u64, missing: Option<f64>, of: Figure) -> Option<Range> {
    if let Some(repeats) = d.repeats.as_ref().filter(|r| r.runs.len() > 1) {
        let runs = || repeats.runs.iter().map(|r| of.of_run(r) as f64);
        let low = runs().fold(f64::INFINITY, f64::min);
        return Some(Range { low, high: runs().fold(0.0, f64::max) });
    }
    let missing = missing.filter(|m| m.is_finite() && *m >= 0.0)?;
    Some(Range { low: seen as f64, high: seen as f64 + missing })
}

/// Which of the two figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Figure {
    Vap,
    Hap,
}

impl Figure {
    const fn of_run(self, run: &altaz_profile::results::RunResult) -> u64 {
        match self {
            Self::Vap => run.functions,
            Self::Hap => run.hap_functions,
        }
    }
}

/// A deployment's two bars.
struct Line<'a> {
    d: &'a DeploymentResult,
    tenant: u64,
    provider: u64,
    vap: Option<Range>,
    hap: u64,
    hap_range: Option<Range>,
}

impl<'a> Line<'a> {
    fn new(d: &'a DeploymentResult) -> Option<Self> {
        let (vap, hap) = (d.vap?, d.hap);
        let shared = hap.map_or(0, |h| h.exercised_functions);
        Some(Self {
            d,
            tenant: vap.tenant_functions,
            provider: vap.provider_functions,
            vap: range(d, vap.functions, vap.unseen, Figure::Vap),
            hap: shared,
            hap_range: hap.and_then(|h| range(d, shared, h.unseen, Figure::Hap)),
        })
    }

    fn whole(&self) -> f64 {
        self.tenant as f64 + self.provider as f64
    }

    fn end(&self) -> f64 {
        let ends = [self.vap, self.hap_range].into_iter().flatten().map(|r| r.high);
        ends.fold(self.whole().max(self.hap as f64), f64::max)
    }
}

/// The chart; nothing where no deployment has figures.
pub fn chart(deployments: &[&DeploymentResult]) -> Markup {
    let lines: Vec<Line<'_>> = deployments.iter().filter_map(|d| Line::new(d)).collect();
    let longest = lines.iter().map(Line::end).fold(0.0, f64::max);
    if longest <= 0.0 {
        return html! {};
    }
    let scale = Scale { longest };
    html! {
        div class="chart" {
            @for line in &lines { (line.draw(&scale)) }
            (scale.axis())
        }
    }
}

struct Scale {
    longest: f64,
}

impl Scale {
    /// Where a number of functions stands, as a share of the drawing.
    fn at(&self, functions: f64) -> f64 {
        functions / self.longest * (1.0 - ROOM)
    }

    /// Distance of the axis's marks: 1, 2 or 5 times a power of ten, four or five of them.
    fn step(&self) -> f64 {
        let power = 10_f64.powf((self.longest / 5.0).log10().floor());
        let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|f| f * power * 5.0 >= self.longest);
        (factor.unwrap_or(10.0) * power).max(1.0)
    }

    fn marks(&self) -> impl Iterator<Item = f64> {
        let (step, longest) = (self.step(), self.longest);
        (0..6).map(move |i| f64::from(i) * step).take_while(move |v| *v <= longest)
    }

    fn axis(&self) -> Markup {
        html! {
            div class="axis" {
                svg width="100%" height="20" aria-hidden="true" {
                    @for v in self.marks() {
                        text x=(pc(self.at(v))) y="14" class=(if v == 0.0 { "start" } else { "middle" }) {
                            (count(v as u64))
                        }
                    }
                }
            }
        }
    }
}

impl Line<'_> {
    fn draw(&self, scale: &Scale) -> Markup {
        let at = |n: f64| pc(scale.at(n));
        let (tenant, whole) = (self.tenant as f64, self.whole());
        html! {
            div class="line" {
                div class="of" {
                    b { (t(&self.d.name)) }
                    @if self.d.model_only { " " span class="badge" { "model" } }
                }
                svg width="100%" height=(HEIGHT) role="img" aria-label=(t(self.words())) {
                    @for v in scale.marks() {
                        line class="grid" x1=(at(v)) x2=(at(v)) y1="0" y2=(HEIGHT) {}
                    }
                    @if self.tenant > 0 {
                        rect class="tenant" x="0" y=(VAP.0) width=(at(tenant)) height=(VAP.1) {}
                    }
                    @if self.provider > 0 {
                        rect class="provider" x=(at(tenant)) y=(VAP.0)
                            width=(pc(scale.at(whole) - scale.at(tenant))) height=(VAP.1) {}
                    }
                    @if self.hap > 0 {
                        rect class="hap" x="0" y=(HAP.0) width=(at(self.hap as f64)) height=(HAP.1) {}
                    }
                    (whisker(self.vap, VAP, scale))
                    (whisker(self.hap_range.filter(|_| self.hap > 0), HAP, scale))
                }
                div class="values" {
                    div {
                        span class="what" { "VAP" } " "
                        b { (count(self.tenant.saturating_add(self.provider))) } " "
                        span class="dim" { (percent(self.share())) " tenant" }
                    }
                    div {
                        span class="what" { "HAP" } " " b { (count(self.hap)) } " "
                        span class="dim" { @if self.hap == 0 { "air gap" } @else { "shared" } }
                    }
                }
            }
        }
    }

    fn share(&self) -> Option<f64> {
        let whole = self.whole();
        (whole > 0.0).then(|| self.tenant as f64 / whole)
    }

    fn words(&self) -> String {
        let range = |r: Option<Range>| match r {
            Some(r) => {
                format!(" (range {} to {})", count(r.low as u64), count(r.high.round() as u64))
            }
            None => String::new(),
        };
        format!(
            "{}: VAP {} functions{}, {} the tenant's and {} the provider's; HAP {}{}",
            self.d.name,
            count(self.tenant.saturating_add(self.provider)),
            range(self.vap),
            count(self.tenant),
            count(self.provider),
            count(self.hap),
            range(self.hap_range)
        )
    }
}

/// The range of a figure as a line with ends.
fn whisker(range: Option<Range>, (y, height): (u32, u32), scale: &Scale) -> Markup {
    let Some(range) = range.filter(|r| r.high > r.low) else { return html! {} };
    let (low, high) = (pc(scale.at(range.low)), pc(scale.at(range.high)));
    let middle = f64::from(y) + f64::from(height) / 2.0;
    let (top, bottom) = (middle - 4.0, middle + 4.0);
    html! {
        g class="whisker" {
            @for class in ["halo", "ink"] {
                g class=(class) {
                    line x1=(low) x2=(high) y1=(middle) y2=(middle) {}
                    line x1=(low) x2=(low) y1=(top) y2=(bottom) {}
                    line x1=(high) x2=(high) y1=(top) y2=(bottom) {}
                }
            }
        }
    }
}

/// What the ranges of these deployments are.
pub fn ranges(deployments: &[&DeploymentResult]) -> String {
    let repeated = |d: &&&DeploymentResult| d.repeats.as_ref().is_some_and(|r| r.runs.len() > 1);
    let with = deployments.iter().filter(repeated).count();
    let estimate =
        "from what was seen to what the completeness estimate adds (Chao2, a lower bound)";
    let repeats = "smallest to largest of the repeated recordings";
    match with {
        0 => format!("Ranges: {estimate}."),
        n if n == deployments.len() => format!("Ranges: {repeats}."),
        _ => format!("Ranges: {repeats} where there are repeats, else {estimate}."),
    }
}

/// Unseen functions of these deployments in words, for those that have an estimate.
pub fn missing(deployments: &[&DeploymentResult]) -> String {
    let of = |d: &&DeploymentResult| {
        d.vap.filter(|v| v.unseen.is_some()).map(|v| format!("{} {}", d.name, unseen(v.unseen)))
    };
    let list: Vec<String> = deployments.iter().filter_map(of).collect();
    if list.is_empty() {
        return "No completeness estimate can be given.".into();
    }
    format!("Functions of this load estimated unseen: {}.", list.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_and_few() {
        for (longest, step) in [(8641.0, 2000.0), (3.0, 1.0), (50.0, 10.0), (1e15, 2e14)] {
            let scale = Scale { longest };
            assert!((scale.step() - step).abs() < 1e-6 * step, "{longest}: {}", scale.step());
            assert!((2..=6).contains(&scale.marks().count()), "{longest}");
        }
    }
}
