//! The model itself: from one value for each assumption to the figures of a deployment.
//!
//! λ = Σ lines × density × age factor × share that is exploitable, damped by each boundary between the
//! attacker and the code. Exposure = λ × (1/search + weight × time open / lifetime): with defects found
//! after a mean lifetime L at ordinary search, and open for T after that, the number open at a random
//! moment is λ/search unknown and λ·T/L known ones (Little's law); the known ones weigh more.

use std::collections::BTreeMap;

use altaz_profile::{Layer, Owner};

use super::assumption::{Fixed, Group};
use super::code::Item;
use super::priors::{Language, Priors};
use super::stat::{Gamma, LogNormal};
use super::stream::{Sample, Streams};
use super::subject::Subject;

/// Days in a year.
const YEAR: f64 = 365.25;
/// Median lifetime of kernel defects over all areas, years (own count), to which the classes' medians
/// relate.
const MEDIAN_LIFETIME: f64 = 2.5;

/// One assumption's values are a column; the columns and what draws them.
#[derive(Debug, Clone)]
pub struct Inputs {
    columns: Vec<Input>,
    /// Column of each class with history.
    classes: BTreeMap<usize, usize>,
    /// Column of each component without history.
    components: BTreeMap<String, usize>,
    /// Column of each layer's density range.
    densities: BTreeMap<(String, Layer), usize>,
    /// Column of each recording's layer.
    recordings: BTreeMap<(String, Layer), usize>,
    uniform: bool,
}

/// A column.
#[derive(Debug, Clone)]
pub struct Input {
    /// Name; also that of its random stream.
    pub name: String,
    /// Group for Sobol indices.
    pub group: Group,
    draw: Draw,
}

#[derive(Debug, Clone, Copy)]
enum Draw {
    LogNormal(LogNormal),
    /// Gamma of this shape, rate 1: the rate depends on other assumptions.
    UnitGamma(f64),
}

impl Inputs {
    /// The assumptions that these subjects rest on.
    pub fn of(subjects: &[Subject], priors: &Priors) -> Self {
        let mut inputs = Self {
            columns: Vec::new(),
            classes: BTreeMap::new(),
            components: BTreeMap::new(),
            densities: BTreeMap::new(),
            recordings: BTreeMap::new(),
            uniform: priors.uniform,
        };
        for &fixed in Fixed::ALL {
            let draw = Draw::LogNormal(priors.distribution(fixed));
            inputs.columns.push(Input { name: fixed.name().into(), group: fixed.group(), draw });
        }
        for subject in subjects {
            for layer in &subject.layers {
                if let Some([low, high]) = layer.density {
                    let key = (subject.name.clone(), layer.info.name);
                    let draw = Draw::LogNormal(LogNormal::from_range(low, high));
                    let name = format!("density.{}.{}", subject.name, layer.info.name);
                    let column = inputs.column(name, draw);
                    inputs.densities.insert(key, column);
                }
                if let Some(recording) = &subject.recording {
                    inputs.add_recording(recording, layer.info.name, priors);
                }
                for item in &layer.items {
                    inputs.add_item(item, priors);
                }
            }
        }
        inputs
    }

    fn column(&mut self, name: String, draw: Draw) -> usize {
        self.columns.push(Input { name, group: Group::Components, draw });
        self.columns.len() - 1
    }

    fn add_recording(&mut self, recording: &str, layer: Layer, priors: &Priors) {
        let key = (recording.to_owned(), layer);
        if !self.recordings.contains_key(&key) {
            let draw = Draw::LogNormal(priors.distribution(Fixed::Recording));
            let name = format!("recording of {layer} in {recording}");
            self.columns.push(Input { name, group: Group::Recording, draw });
            self.recordings.insert(key, self.columns.len() - 1);
        }
    }

    fn add_item(&mut self, item: &Item, priors: &Priors) {
        let class = item.class.and_then(|c| Some((c, priors.classes.get(c)?)));
        match class {
            Some((c, class)) if class.history.is_some() => {
                if !self.classes.contains_key(&c) {
                    let cves = class.history.as_ref().map_or(0, |h| h.cves);
                    let shape = prior_gamma(class.language, priors).updated(cves, 0.0).shape;
                    let column =
                        self.column(format!("density of {}", class.name), Draw::UnitGamma(shape));
                    self.classes.insert(c, column);
                }
            }
            _ => {
                if !self.components.contains_key(&item.name) {
                    let draw = Draw::LogNormal(priors.distribution(Fixed::Variation));
                    let column = self.column(format!("density of {}", item.name), draw);
                    self.components.insert(item.name.clone(), column);
                }
            }
        }
    }

    /// The columns.
    pub fn columns(&self) -> &[Input] {
        &self.columns
    }

    /// Draws every column.
    pub fn draw(&self, streams: Streams, sample: Sample, draws: usize) -> Vec<Vec<f64>> {
        let values = |input: &Input| match input.draw {
            Draw::LogNormal(d) => streams
                .normals(sample, &input.name, draws)
                .into_iter()
                .map(|z| d.at(z))
                .collect::<Vec<f64>>(),
            Draw::UnitGamma(shape) => streams.gammas(sample, &input.name, shape, draws),
        };
        self.columns.iter().map(values).collect()
    }
}

/// What is known of a class's density before its history.
pub fn prior_gamma(language: Language, priors: &Priors) -> Gamma {
    // The two densities' medians added, with the spread of the wider part and of components.
    let (memory, other) =
        (priors.distribution(language.memory()), priors.distribution(Fixed::Other));
    let (m, o) = (memory.at(0.0), other.at(0.0));
    let sigma = (memory.sigma * m).hypot(other.sigma * o) / (m + o);
    let sum = LogNormal { mu: (m + o).ln(), sigma };
    Gamma::like(sum.times(priors.distribution(Fixed::Variation)))
}

/// One value for each assumption.
pub trait Row {
    /// The value of a column.
    fn at(&self, column: usize) -> f64;
}

impl<F: Fn(usize) -> f64> Row for F {
    fn at(&self, column: usize) -> f64 {
        self(column)
    }
}

/// A subject with its columns looked up.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// Its layers.
    pub layers: Vec<CompiledLayer>,
    uniform: bool,
}

/// A layer with its columns looked up.
#[derive(Debug, Clone)]
pub struct CompiledLayer {
    /// Which one.
    pub name: Layer,
    /// Who must remediate.
    pub owner: Option<Owner>,
    /// Whether it serves several tenants.
    pub shared: bool,
    /// Its code.
    pub items: Vec<CompiledItem>,
    request_hops: i32,
    tenant_hops: i32,
    window_days: Option<f64>,
    orphaned: bool,
    search: f64,
    width: f64,
    outside: bool,
    recording: Option<usize>,
    density: Option<usize>,
}

/// Code with its columns looked up.
#[derive(Debug, Clone)]
pub struct CompiledItem {
    bytes: f64,
    factor: f64,
    language: Language,
    history: Option<Posterior>,
    variation: Option<usize>,
    rewritten: Option<(Language, f64, bool)>,
}

#[derive(Debug, Clone, Copy)]
struct Posterior {
    column: usize,
    prior_rate: f64,
    /// Million lines times years.
    exposure: f64,
    lifetime_factor: f64,
    selective: bool,
}

/// A layer's figures for one row, without regard to where an attacker stands.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LayerValue {
    /// Expected exploitable defects.
    pub lambda: f64,
    /// Of them open, weighted.
    pub exposure: f64,
    /// Factor of its code as a whole: recording and density range.
    pub scale: f64,
    /// What is left of both on a request's way.
    pub on_request: f64,
    /// What is left of both for a hostile tenant.
    pub by_tenant: f64,
}

impl Compiled {
    /// Looks up the columns of a subject.
    pub fn new(subject: &Subject, inputs: &Inputs, priors: &Priors) -> Self {
        let (request, tenant) = (subject.hops_of_a_request(), subject.hops_of_a_tenant());
        let hops = |of: &BTreeMap<Layer, u32>, layer| of.get(&layer).map_or(0, |&h| h as i32);
        let layers = subject
            .layers
            .iter()
            .map(|layer| CompiledLayer {
                name: layer.info.name,
                owner: layer.terms.owner,
                shared: layer.info.shared,
                items: layer.items.iter().map(|i| compile_item(i, inputs, priors)).collect(),
                request_hops: hops(&request, layer.info.name),
                tenant_hops: hops(&tenant, layer.info.name),
                window_days: layer.terms.window_days,
                orphaned: layer.terms.owner.is_none(),
                search: layer.terms.search,
                width: layer.width,
                outside: layer.outside,
                recording: subject
                    .recording
                    .as_ref()
                    .and_then(|r| inputs.recordings.get(&(r.clone(), layer.info.name)).copied()),
                density: inputs.densities.get(&(subject.name.clone(), layer.info.name)).copied(),
            })
            .collect();
        Self { layers, uniform: inputs.uniform }
    }

    /// The figures of its layers.
    pub fn evaluate(&self, row: &impl Row) -> Vec<LayerValue> {
        self.layers.iter().map(|l| l.evaluate(row, self.uniform)).collect()
    }
}

fn compile_item(item: &Item, inputs: &Inputs, priors: &Priors) -> CompiledItem {
    let class = item.class.and_then(|c| Some((c, priors.classes.get(c)?)));
    let history = class.and_then(|(c, class)| {
        let history = class.history.as_ref()?;
        Some(Posterior {
            column: *inputs.classes.get(&c)?,
            prior_rate: prior_gamma(class.language, priors).rate,
            exposure: history.lines / 1e6 * history.years,
            lifetime_factor: history.lifetime.map_or(1.0, |l| l / MEDIAN_LIFETIME),
            selective: history.selective,
        })
    });
    CompiledItem {
        bytes: item.bytes as f64,
        factor: item.factor,
        language: item.language,
        history,
        variation: inputs.components.get(&item.name).copied().filter(|_| history.is_none()),
        rewritten: item.rewritten.map(|(language, years)| (language, years, item.frozen)),
    }
}

impl CompiledLayer {
    fn evaluate(&self, row: &impl Row, uniform: bool) -> LayerValue {
        let code: f64 = self.items.iter().map(|i| i.lambda(row)).sum();
        let density = self.density.map_or(1.0, |c| row.at(c));
        let recorded = self.recording.map_or(1.0, |c| row.at(c));
        let lambda = code * density * recorded;
        let control = row.at(Fixed::Control as usize).min(1.0);
        let exponent = row.at(Fixed::InterfaceExponent as usize);
        LayerValue {
            lambda,
            scale: density * recorded,
            exposure: lambda * if uniform { 1.0 } else { self.open(row) },
            on_request: if self.outside { 0.0 } else { control.powi(self.request_hops) },
            by_tenant: control.powi(self.tenant_hops) * self.width.powf(exponent),
        }
    }

    /// How many of its defects are open at a random moment, weighted, for each that it has.
    fn open(&self, row: &impl Row) -> f64 {
        let window = match (self.orphaned, self.window_days) {
            (true, _) => row.at(Fixed::WindowOrphaned as usize),
            (false, Some(days)) => days,
            (false, None) => row.at(Fixed::WindowUnagreed as usize),
        };
        let years = (row.at(Fixed::Lag as usize) + window) / YEAR;
        let known = row.at(Fixed::KnownWeight as usize) * years / row.at(Fixed::Lifetime as usize);
        1.0 / self.search + known
    }
}

impl CompiledItem {
    /// Vulnerabilities in a million lines, exploitable or not.
    pub fn density(&self, row: &impl Row) -> f64 {
        let ordinary = match self.history {
            Some(h) => {
                let lifetime = row.at(Fixed::Lifetime as usize) * h.lifetime_factor;
                let share =
                    if h.selective { row.at(Fixed::Selective as usize).min(1.0) } else { 1.0 };
                // Rate of the posterior: prior's rate plus the exposure in lifetimes.
                row.at(h.column) / (h.prior_rate + h.exposure / lifetime * share)
            }
            None => {
                let variation = self.variation.map_or(1.0, |c| row.at(c));
                (row.at(self.language.memory() as usize) + row.at(Fixed::Other as usize))
                    * variation
            }
        };
        let rewrite = self.rewritten.map_or(1.0, |(language, years, frozen)| {
            rewrite_factor(row, self.language, language, years, frozen)
        });
        ordinary * rewrite * self.factor
    }

    /// Expected exploitable defects.
    pub fn lambda(&self, row: &impl Row) -> f64 {
        let lines = self.bytes / row.at(self.language.bytes_per_line() as usize);
        lines / 1e6 * self.density(row) * row.at(Fixed::Exploitable as usize).min(1.0)
    }
}

/// Share of the vulnerabilities that another language still has: all but those of memory safety that it
/// rules out.
pub fn language_share(row: &impl Row, from: Language, to: Language) -> f64 {
    let other = row.at(Fixed::Other as usize);
    (other + row.at(to.memory() as usize)) / (other + row.at(from.memory() as usize))
}

/// Density of new code over that of the old some years ago: it begins at the young end of the age curve
/// and comes down to what maintained code has, or goes on falling when it is left alone.
pub fn rewrite_factor(
    row: &impl Row,
    from: Language,
    to: Language,
    years: f64,
    frozen: bool,
) -> f64 {
    let tau = row.at(Fixed::AgeTau as usize);
    let young = (row.at(Fixed::AgeReference as usize) / tau).exp();
    let decay = (-years / tau).exp();
    let age = if frozen { young * decay } else { 1.0 + (young - 1.0) * decay };
    language_share(row, from, to) * age
}

/// Density of old code over what it was, when it has been maintained or left alone for some years.
pub fn old_factor(row: &impl Row, years: f64, frozen: bool) -> f64 {
    if frozen { (-years / row.at(Fixed::AgeTau as usize)).exp() } else { 1.0 }
}
