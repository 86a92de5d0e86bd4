//! The stack diagram of a deployment: its layers as a request passes them, from the application
//! down to the hardware, as high as the code that the load executed in them.
//!
//! Two tenants stand side by side on the machine: the measured one, and a second one that is drawn
//! as its copy. What is shared spans both, and that is what the horizontal profile is about. A
//! barrier is a line on top of the side that it protects, with its width: entry points called of
//! those permitted. Nothing is told by colour alone: the provider's code is hatched, the second
//! tenant's dotted, and every layer has its owner written beside it.

use altaz_profile::results::{DeploymentResult, LayerResult};
use altaz_profile::{Boundary, Owner};
use maud::{Markup, html};

use super::text::{f1, t};
use crate::number::{UNDEFINED, count, count_opt, kb};
use crate::parts;

/// Width of the drawing, in units of its view box.
const WIDTH: f64 = 412.0;
/// Left edge of the first tenant's column; left of it the bracket of the HAP.
const LEFT: f64 = 22.0;
/// Width of a tenant's column.
const COLUMN: f64 = 60.0;
/// Space between the two columns.
const GAP: f64 = 4.0;
/// Where the labels begin.
const LABELS: f64 = 172.0;
/// Height of the highest stack's code.
const CODE_HEIGHT: f64 = 280.0;
/// Least height of a layer that has any code.
const LEAST: f64 = 2.0;
/// Height of a barrier's line, and the space that it takes.
const TRACK: f64 = 4.0;
const TRACK_ROOM: f64 = 7.0;
/// Height of a layer's label, and of a barrier's.
const LABEL: f64 = 35.0;
const SMALL_LABEL: f64 = 17.0;
/// Height of the hardware below.
const HARDWARE: f64 = 16.0;

/// Legend of all stacks of a page.
pub fn legend() -> Markup {
    let key = |class: &str, text: &str| {
        html! {
            li {
                svg class="key" width="26" height="14" aria-hidden="true" {
                    rect class=(class) x="0.5" y="0.5" width="25" height="13" {}
                }
                (text)
            }
        }
    };
    html! {
        ul class="legend" {
            (key("tenant", "tenant"))
            (key("tenant second", "a second tenant, drawn as a copy"))
            (key("provider", "provider"))
            li {
                svg class="key" width="26" height="14" aria-hidden="true" {
                    (track(0.0, 5.0, 26.0, Some(0.4)))
                }
                "barrier: called / permitted entry points"
            }
        }
    }
}

/// Size of a layer in the stack: executed bytes, or whole sizes where these are not known.
fn size(layer: &LayerResult, covered: bool) -> u64 {
    if covered { layer.covered_bytes.unwrap_or(0) } else { layer.bytes }
}

/// Whether the stacks of these deployments show executed bytes.
pub fn shows_covered(deployments: &[&DeploymentResult]) -> bool {
    parts::covered_known(deployments.iter().copied())
}

/// Stacks that share a scale, one for each deployment.
pub struct Stacks<'a> {
    drawn: Vec<Stack<'a>>,
    covered: bool,
    height: f64,
}

impl<'a> Stacks<'a> {
    /// Lays out the stacks of these deployments.
    pub fn new(deployments: &[&'a DeploymentResult]) -> Self {
        let covered = shows_covered(deployments);
        let whole =
            |d: &DeploymentResult| d.layers.iter().map(|l| size(l, covered) as f64).sum::<f64>();
        let highest = deployments.iter().map(|d| whole(d)).fold(0.0, f64::max);
        let scale = if highest > 0.0 { CODE_HEIGHT / highest } else { 0.0 };
        let drawn: Vec<Stack<'_>> =
            deployments.iter().map(|d| Stack::new(d, covered, scale)).collect();
        let height = drawn.iter().map(Stack::needs).fold(60.0, f64::max);
        Self { drawn, covered, height }
    }

    /// The drawing of one of them, by index.
    pub fn draw(&self, index: usize) -> Markup {
        match self.drawn.get(index) {
            Some(stack) => stack.draw(&format!("stack-{index}"), self.covered, self.height),
            None => html! {},
        }
    }
}

/// A part of a stack, from the top of the stack.
enum Part<'a> {
    Layer(&'a LayerResult),
    /// The barriers on top of a layer.
    Barriers(Vec<&'a Boundary>),
}

struct Placed<'a> {
    part: Part<'a>,
    y: f64,
    height: f64,
}

struct Stack<'a> {
    deployment: &'a DeploymentResult,
    parts: Vec<Placed<'a>>,
    height: f64,
}

impl<'a> Stack<'a> {
    fn new(deployment: &'a DeploymentResult, covered: bool, scale: f64) -> Self {
        let mut parts = Vec::new();
        let mut y = 0.0;
        let mut add = |part, height: f64| {
            parts.push(Placed { part, y, height });
            y += height;
        };
        for layer in &deployment.layers {
            let barriers: Vec<&Boundary> =
                deployment.boundaries.iter().filter(|b| b.to == layer.name).collect();
            if !barriers.is_empty() {
                let room = TRACK_ROOM * barriers.len() as f64 + 3.0;
                add(Part::Barriers(barriers), room);
            }
            let height = match size(layer, covered) {
                0 => 0.0,
                n => (n as f64 * scale).max(LEAST),
            };
            add(Part::Layer(layer), height);
        }
        Self { deployment, parts, height: y }
    }

    /// Height that it needs without the hardware: its own, or that of its labels.
    fn needs(&self) -> f64 {
        self.height.max(self.parts.iter().map(Placed::label_height).sum())
    }

    fn draw(&self, id: &str, covered: bool, room: f64) -> Markup {
        let (title, desc) = (format!("{id}-title"), format!("{id}-desc"));
        let top = room - self.height + 4.0;
        let ground = room + 6.0;
        let all = ground + HARDWARE + 2.0;
        let labels = self.labels(top, room + 4.0);
        let model = if self.deployment.model_only { "stack model" } else { "stack" };
        html! {
            svg class=(model) viewBox={ "0 0 " (f1(WIDTH)) " " (f1(all)) } role="img"
                aria-labelledby={ (title) " " (desc) } {
                title id=(title) { "Stack of " (t(&self.deployment.name)) }
                desc id=(desc) { (t(self.words(covered))) }
                @for (placed, label) in self.parts.iter().zip(&labels) {
                    (placed.draw(top, *label, covered))
                }
                (self.bracket(top))
                (self.hardware(ground))
            }
        }
    }

    /// Centres of the labels, none over another, all between `from` and `to`.
    fn labels(&self, top: f64, to: f64) -> Vec<f64> {
        let mut at = 4.0;
        let mut centres = Vec::new();
        for p in &self.parts {
            let half = p.label_height() / 2.0;
            let centre = (top + p.y + p.height / 2.0).max(at + half);
            centres.push(centre);
            at = centre + half;
        }
        let mut limit = to;
        for (p, centre) in self.parts.iter().zip(&mut centres).rev() {
            let half = p.label_height() / 2.0;
            *centre = centre.min(limit - half);
            limit = *centre - half;
        }
        centres
    }

    /// The bracket of what is shared: the way sideways.
    fn bracket(&self, top: f64) -> Markup {
        let shared = || {
            self.parts.iter().filter_map(move |p| match p.part {
                Part::Layer(l) if l.shared && p.height > 0.0 => {
                    Some((top + p.y, top + p.y + p.height))
                }
                _ => None,
            })
        };
        let from = shared().map(|(a, _)| a).fold(f64::INFINITY, f64::min);
        let to = shared().map(|(_, b)| b).fold(0.0, f64::max);
        html! {
            @if to > from {
                g class="bracket" {
                    path d={ "M16 " (f1(from)) "H11V" (f1(to)) "H16" } {}
                    text transform={ "translate(7 " (f1((from + to) / 2.0)) ") rotate(-90)" } { "HAP" }
                }
            }
        }
    }

    fn hardware(&self, y: f64) -> Markup {
        let shared = self.deployment.layers.iter().any(|l| l.shared);
        let block = |x: f64, w: f64| {
            html! { rect x=(f1(x)) y=(f1(y)) width=(f1(w)) height=(f1(HARDWARE)) {} }
        };
        html! {
            g class="hardware" {
                @if shared {
                    (block(LEFT, 2.0 * COLUMN + GAP))
                } @else {
                    (block(LEFT, COLUMN))
                    (block(LEFT + COLUMN + GAP, COLUMN))
                }
                text x=(f1(LABELS)) y=(f1(y + 12.0)) {
                    @if shared { "one machine, not measured" } @else { "a machine each, not measured" }
                }
            }
        }
    }

    /// The same in words, for those who do not see it.
    fn words(&self, covered: bool) -> String {
        let kind = if covered { "executed" } else { "traversed" };
        let mut sentences = vec![format!("From top to bottom, with kB of {kind} code.")];
        for p in &self.parts {
            match &p.part {
                Part::Layer(l) => sentences.push(format!(
                    "{}, {}: {} kB in {} functions.",
                    l.name,
                    owner_words(l),
                    kb(size(l, covered)),
                    count(l.functions)
                )),
                Part::Barriers(barriers) => {
                    for b in barriers {
                        sentences.push(format!("Barrier {}.", parts::sides(b)));
                        sentences.push(format!("{} entry points.", parts::boundary_width(b)));
                    }
                }
            }
        }
        sentences.join(" ")
    }
}

/// Owner of a layer, whether it is shared and whether its ownership moved.
pub fn owner_words(layer: &LayerResult) -> String {
    let mut text = layer.owner.to_string();
    if layer.shared {
        text.push_str(", shared");
    }
    if layer.ownership_moved {
        text.push_str(", moved*");
    }
    text
}

impl Placed<'_> {
    fn label_height(&self) -> f64 {
        match &self.part {
            Part::Layer(_) if self.height > 0.0 => LABEL,
            Part::Layer(_) => SMALL_LABEL,
            Part::Barriers(b) => SMALL_LABEL * b.len() as f64,
        }
    }

    fn draw(&self, top: f64, label: f64, covered: bool) -> Markup {
        let y = top + self.y;
        let middle = y + self.height / 2.0;
        match &self.part {
            Part::Layer(l) => html! {
                g class=(class(l)) {
                    @if self.height > 0.0 { (blocks(l, y, self.height)) (leader(middle, label)) }
                    (layer_label(l, label, covered, self.height > 0.0))
                }
            },
            Part::Barriers(barriers) => html! {
                g class="barriers" {
                    @for (i, b) in barriers.iter().enumerate() {
                        @let at = y + 1.0 + TRACK_ROOM * i as f64;
                        (track(LEFT, at, COLUMN, gauge(b)))
                        (track(LEFT + COLUMN + GAP, at, COLUMN, gauge(b)))
                    }
                    (leader(middle, label))
                    @for (i, b) in barriers.iter().enumerate() {
                        @let at = label - self.label_height() / 2.0 + 12.0 + SMALL_LABEL * i as f64;
                        text class="small" x=(f1(LABELS)) y=(f1(at)) {
                            (t(&b.name)) tspan class="dim" { " from " (b.from) }
                        }
                        text class="small end" x=(f1(WIDTH)) y=(f1(at)) { (width(b)) }
                    }
                }
            },
        }
    }
}

const fn class(layer: &LayerResult) -> &'static str {
    match layer.owner {
        Owner::Tenant => "tenant",
        Owner::Provider => "provider",
    }
}

/// The blocks of a layer: one across both tenants, or one for each.
fn blocks(layer: &LayerResult, y: f64, height: f64) -> Markup {
    let block = |x: f64, w: f64, second: bool| {
        html! {
            rect class=[second.then_some("second")] x=(f1(x)) y=(f1(y)) width=(f1(w))
                height=(f1(height)) {}
        }
    };
    html! {
        @if layer.shared {
            (block(LEFT, 2.0 * COLUMN + GAP, false))
        } @else {
            (block(LEFT, COLUMN, false))
            (block(LEFT + COLUMN + GAP, COLUMN, true))
        }
    }
}

/// The line from a part to its label.
fn leader(from: f64, to: f64) -> Markup {
    let start = LEFT + 2.0 * COLUMN + GAP + 2.0;
    html! {
        path class="leader" d={
            "M" (f1(start)) " " (f1(from)) "L" (f1(LABELS - 12.0)) " " (f1(to)) "H" (f1(LABELS - 5.0))
        } {}
    }
}

fn layer_label(layer: &LayerResult, at: f64, covered: bool, drawn: bool) -> Markup {
    html! {
        @if drawn {
            text class="name" x=(f1(LABELS)) y=(f1(at - 2.0)) { (layer.name) }
            text class="end" x=(f1(WIDTH)) y=(f1(at - 2.0)) { (kb(size(layer, covered))) " kB" }
            text class="small owner" x=(f1(LABELS)) y=(f1(at + 13.0)) { (owner_words(layer)) }
            text class="small dim end" x=(f1(WIDTH)) y=(f1(at + 13.0)) {
                (count(layer.functions)) " functions"
            }
        } @else {
            text class="small dim" x=(f1(LABELS)) y=(f1(at + 4.0)) {
                (layer.name) ", " (owner_words(layer))
            }
            text class="small dim end" x=(f1(WIDTH)) y=(f1(at + 4.0)) { "0" }
        }
    }
}

/// A barrier: as full as the share of its permitted entry points that were called; dashed where
/// nobody knows how many are permitted.
fn track(x: f64, y: f64, width: f64, share: Option<f64>) -> Markup {
    let class = if share.is_some() { "track" } else { "track open" };
    html! {
        rect class=(class) x=(f1(x + 0.5)) y=(f1(y)) width=(f1(width - 1.0)) height=(f1(TRACK)) {}
        @if let Some(share) = share {
            rect class="gauge" x=(f1(x + 0.5)) y=(f1(y)) width=(f1((width - 1.0) * share))
                height=(f1(TRACK)) {}
        }
    }
}

fn gauge(b: &Boundary) -> Option<f64> {
    let (called, permitted) = (b.exercised?, b.permitted.filter(|&p| p > 0)?);
    Some((f64::from(called) / f64::from(permitted)).min(1.0))
}

fn width(b: &Boundary) -> String {
    let called = count_opt(b.exercised.map(u64::from));
    match b.permitted {
        Some(p) => format!("{called} / {}", count(p.into())),
        None => format!("{called} / {UNDEFINED}"),
    }
}
