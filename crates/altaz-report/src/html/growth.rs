//! How the number of functions grew with the windows of a recording, a curve for each layer: flat
//! at the end is what a complete recording of a load looks like.

use altaz_profile::Owner;
use altaz_profile::results::DeploymentResult;
use altaz_profile::results::functions::{FunctionTable, LayerFunctions};
use maud::{Markup, html};

use super::text::{f1, t};
use crate::number::count;

const WIDTH: f64 = 424.0;
const HEIGHT: f64 = 232.0;
/// The plot inside the drawing.
const LEFT: f64 = 52.0;
const RIGHT: f64 = 290.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 200.0;
/// Layers of fewer functions have no curve: a step of one function would be the whole of it.
const FEWEST: usize = 20;
/// Least distance of two labels.
const LABEL: f64 = 16.0;

/// A curve: what was seen after each window, as a share of what was seen and estimated unseen.
struct Curve<'a> {
    name: &'a str,
    owner: Option<Owner>,
    shares: Vec<f64>,
    total: u64,
}

/// The curves of a deployment, or `None` where there are no windows to tell apart.
pub fn growth(d: &DeploymentResult, table: &FunctionTable, id: &str) -> Option<Markup> {
    let windows = table.layers.iter().map(|l| l.growth.len()).max().filter(|&n| n > 1)?;
    let curves: Vec<Curve<'_>> =
        table.layers.iter().filter(|l| l.functions.len() >= FEWEST).map(|l| curve(d, l)).collect();
    if curves.is_empty() {
        return None;
    }
    let (title, desc) = (format!("{id}-title"), format!("{id}-desc"));
    let ends = label_places(&curves);
    Some(html! {
        svg class="growth" viewBox={ "0 0 " (f1(WIDTH)) " " (f1(HEIGHT)) } role="img"
            aria-labelledby={ (title) " " (desc) } {
            title id=(title) { "Growth of " (t(&d.name)) }
            desc id=(desc) { (t(words(&curves, windows))) }
            @for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
                line class="grid" x1=(f1(LEFT)) x2=(f1(RIGHT)) y1=(f1(y(share))) y2=(f1(y(share))) {}
                text class="small dim end" x=(f1(LEFT - 6.0)) y=(f1(y(share) + 4.0)) {
                    (format!("{:.0} %", share * 100.0))
                }
            }
            @for mark in marks(windows) {
                line class="grid" x1=(f1(x(mark, windows))) x2=(f1(x(mark, windows)))
                    y1=(f1(BOTTOM)) y2=(f1(BOTTOM + 4.0)) {}
                text class="small dim middle" x=(f1(x(mark, windows))) y=(f1(BOTTOM + 17.0)) { (mark) }
            }
            text class="small dim middle" x=(f1((LEFT + RIGHT) / 2.0)) y=(f1(HEIGHT - 1.0)) { "windows" }
            @for (i, (c, end)) in curves.iter().zip(&ends).enumerate() {
                g class={ "curve c" (i % 6) " " (class(c)) } {
                    path d=(path(c, windows)) {}
                    path class="leader" d={
                        "M" (f1(RIGHT + 2.0)) " " (f1(y(c.shares.last().copied().unwrap_or(0.0))))
                        "L" (f1(RIGHT + 12.0)) " " (f1(*end)) } {}
                    text class="small" x=(f1(RIGHT + 16.0)) y=(f1(*end + 4.0)) { (c.name) }
                }
            }
        }
    })
}

const fn class(c: &Curve<'_>) -> &'static str {
    match c.owner {
        Some(Owner::Tenant) => "tenant",
        Some(Owner::Provider) => "provider",
        None => "",
    }
}

fn curve<'a>(d: &DeploymentResult, l: &'a LayerFunctions) -> Curve<'a> {
    let figures = d.layer(l.layer);
    let total = l.growth.last().copied().unwrap_or(0);
    let missing = figures.and_then(|f| f.unseen).filter(|u| u.is_finite() && *u > 0.0);
    let whole = total as f64 + missing.unwrap_or(0.0);
    let share = |n: &u64| if whole > 0.0 { *n as f64 / whole } else { 0.0 };
    Curve {
        name: l.layer.as_str(),
        owner: figures.map(|f| f.owner),
        shares: l.growth.iter().map(share).collect(),
        total,
    }
}

fn y(share: f64) -> f64 {
    BOTTOM - (BOTTOM - TOP) * share.clamp(0.0, 1.0)
}

/// Where window `n` (from 1) stands: logarithmic, as most is seen in the first few.
fn x(n: usize, windows: usize) -> f64 {
    let whole = (windows as f64).ln();
    LEFT + (RIGHT - LEFT) * if whole > 0.0 { (n as f64).ln() / whole } else { 0.0 }
}

fn marks(windows: usize) -> Vec<usize> {
    let mut marks = Vec::new();
    let mut power = 1_usize;
    while power <= windows {
        marks.extend([1, 2, 5].map(|f| f * power).into_iter().filter(|&m| m <= windows));
        power = power.saturating_mul(10);
    }
    // Many windows: powers of ten alone.
    if marks.len() > 9 {
        marks.retain(|m| m.to_string().trim_end_matches('0') == "1");
    }
    marks
}

/// A step at each window that brought something new.
fn path(c: &Curve<'_>, windows: usize) -> String {
    let mut out = String::new();
    let mut last = f64::NAN;
    for (i, share) in c.shares.iter().enumerate() {
        let at = x(i + 1, windows);
        if i == 0 {
            out.push_str(&format!("M{} {}", f1(at), f1(y(*share))));
        } else if *share != last {
            out.push_str(&format!("H{}V{}", f1(at), f1(y(*share))));
        }
        last = *share;
    }
    out.push_str(&format!("H{}", f1(RIGHT)));
    out
}

/// Heights of the labels, in the order of the curves, none over another.
fn label_places(curves: &[Curve<'_>]) -> Vec<f64> {
    let end = |c: &Curve<'_>| y(c.shares.last().copied().unwrap_or(0.0));
    let mut order: Vec<usize> = (0..curves.len()).collect();
    order.sort_by(|&a, &b| end(&curves[a]).total_cmp(&end(&curves[b])));
    let mut places = vec![0.0; curves.len()];
    let mut at = f64::NEG_INFINITY;
    for i in order {
        at = end(&curves[i]).max(at + LABEL);
        places[i] = at;
    }
    places
}

fn words(curves: &[Curve<'_>], windows: usize) -> String {
    let half = |c: &Curve<'_>| {
        let last = c.shares.last().copied().unwrap_or(0.0);
        c.shares.iter().position(|s| *s >= last * 0.99).map_or(windows, |i| i + 1)
    };
    let of = |c: &Curve<'_>| {
        format!(
            "{}: {} functions, 99 % of them after {} of {windows} windows",
            c.name,
            count(c.total),
            half(c)
        )
    };
    curves.iter().map(of).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_any_number_of_windows_are_few_and_inside() {
        for windows in [2, 7, 121, 3_600, 100_000] {
            let marks = marks(windows);
            assert!(marks.len() <= 9 && marks.len() >= 2, "{windows}: {marks:?}");
            assert!(marks.iter().all(|m| (1..=windows).contains(m)));
        }
    }
}
