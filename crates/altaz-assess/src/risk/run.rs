//! One assessment: draws, intervals, paths, and everything that rests on the draws.

use altaz_profile::Owner;
use altaz_profile::results::risk::{
    ASSESS_SCHEMA, BarrierRisk, ComponentRisk, DeploymentRisk, Figure, Interval, LayerRisk,
    PathRisk, Risk, RiskResult,
};

use super::assumption::Fixed;
use super::evaluate::{Compiled, Inputs, LayerValue};
use super::explain::assumptions;
use super::findings::findings;
use super::known::Known;
use super::priors::Priors;
use super::rank::pairs;
use super::sensitivity::sensitivity;
use super::stat::interval;
use super::statements::statements;
use super::stream::{Sample, Streams};
use super::subject::{Path, Subject, SubjectLayer};
use super::weighting::weightings;
use crate::sums::Sums;

/// From this probability on a comparison counts as decided.
pub const DECIDED_AT: f64 = 0.9;

/// How an assessment draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Seed of every random stream.
    pub seed: u64,
    /// Draws of each assumption.
    pub draws: u32,
    /// Draws for Sobol indices, each for every group of assumptions; none leaves sensitivity out.
    pub sobol_draws: u32,
    /// Components listed per layer.
    pub components: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { seed: 1, draws: 4000, sobol_draws: 1024, components: 8 }
    }
}

/// A subject's values in every draw.
pub(crate) struct Drawn {
    /// The subject with its columns.
    pub(crate) compiled: Compiled,
    /// By layer, by draw.
    layers: Vec<Vec<LayerValue>>,
    draws: usize,
}

/// λ and exposure in every draw.
pub(crate) struct Values {
    pub(crate) lambda: Vec<f64>,
    pub(crate) exposure: Vec<f64>,
}

/// Which layers count, and from where an attacker comes.
#[derive(Clone, Copy)]
pub(crate) enum Part {
    All,
    Of(Option<Owner>),
    Shared,
}

impl From<Figure> for Part {
    fn from(figure: Figure) -> Self {
        match figure {
            Figure::TenantVap => Self::Of(Some(Owner::Tenant)),
            Figure::TotalVap => Self::All,
            Figure::Hap => Self::Shared,
        }
    }
}

impl Part {
    /// What one layer adds: λ and exposure.
    pub(crate) fn of(
        self,
        owner: Option<Owner>,
        shared: bool,
        v: &LayerValue,
    ) -> Option<(f64, f64)> {
        let (wanted, reach) = match self {
            Self::All => (true, v.on_request),
            Self::Of(party) => (owner == party, v.on_request),
            Self::Shared => (shared, v.by_tenant),
        };
        wanted.then_some((v.lambda * reach, v.exposure * reach))
    }
}

/// The values of every column in one draw.
pub(crate) fn row(columns: &[Vec<f64>], draw: usize) -> impl Fn(usize) -> f64 + '_ {
    move |column| columns[column][draw]
}

impl Drawn {
    fn new(compiled: Compiled, columns: &[Vec<f64>], draws: usize) -> Self {
        let mut layers: Vec<Vec<LayerValue>> =
            compiled.layers.iter().map(|_| Vec::with_capacity(draws)).collect();
        for i in 0..draws {
            let row = row(columns, i);
            for (values, value) in layers.iter_mut().zip(compiled.evaluate(&row)) {
                values.push(value);
            }
        }
        Self { compiled, layers, draws }
    }

    /// λ and exposure of a part in every draw.
    pub(crate) fn values(&self, part: Part) -> Values {
        let mut all = Values { lambda: vec![0.0; self.draws], exposure: vec![0.0; self.draws] };
        for (layer, values) in self.compiled.layers.iter().zip(&self.layers) {
            for (i, v) in values.iter().enumerate() {
                if let Some((lambda, exposure)) = part.of(layer.owner, layer.shared, v) {
                    all.lambda[i] += lambda;
                    all.exposure[i] += exposure;
                }
            }
        }
        all
    }
}

/// Assesses deployments of one service under their contracts.
pub fn assess_risk(
    service: &str,
    subjects: &[Subject],
    priors: &Priors,
    settings: &Settings,
) -> RiskResult {
    let inputs = Inputs::of(subjects, priors);
    let streams = Streams::new(settings.seed);
    let draws = settings.draws.max(1) as usize;
    let columns = inputs.draw(streams, Sample::A, draws);
    let drawn: Vec<Drawn> = subjects
        .iter()
        .map(|s| Drawn::new(Compiled::new(s, &inputs, priors), &columns, draws))
        .collect();
    let deployments: Vec<DeploymentRisk> = subjects
        .iter()
        .zip(&drawn)
        .map(|(s, d)| deployment(s, d, &columns, priors, settings))
        .collect();
    let pairs = pairs(subjects, &drawn);
    let sensitivity = if settings.sobol_draws > 1 {
        sensitivity(subjects, &drawn, &pairs, &inputs, &columns, streams, settings)
    } else {
        Vec::new()
    };
    RiskResult {
        schema: ASSESS_SCHEMA.into(),
        service: service.into(),
        seed: settings.seed,
        draws: settings.draws.max(1),
        level: 0.9,
        decided_at: DECIDED_AT,
        priors: priors.name.clone(),
        weightings: weightings(subjects, priors),
        assumptions: assumptions(&inputs, &columns, priors),
        statements: statements(subjects, &deployments, &pairs, priors),
        deployments,
        pairs,
        sensitivity,
        notes: Vec::new(),
        warnings: Vec::new(),
    }
}

fn deployment(
    subject: &Subject,
    drawn: &Drawn,
    columns: &[Vec<f64>],
    priors: &Priors,
    settings: &Settings,
) -> DeploymentRisk {
    let part = |part: Part| {
        let of = |l: &&SubjectLayer| match part {
            Part::All => !l.outside,
            Part::Of(party) => !l.outside && l.terms.owner == party,
            Part::Shared => l.info.shared,
        };
        risk(subject.layers.iter().filter(of), &drawn.values(part))
    };
    let layers: Vec<LayerRisk> = (0..subject.layers.len())
        .map(|i| layer(subject, i, drawn, columns, priors, settings))
        .collect();
    DeploymentRisk {
        name: subject.name.clone(),
        model_only: subject.model_only,
        contract: subject.contract.title.clone(),
        vap: part(Part::All),
        tenant: part(Part::Of(Some(Owner::Tenant))),
        provider: part(Part::Of(Some(Owner::Provider))),
        orphaned: part(Part::Of(None)),
        hap: part(Part::Shared),
        layers,
        paths: subject.paths.iter().map(|p| path(p, subject, drawn, columns)).collect(),
        findings: findings(subject),
        known: subject.known.as_ref().map(Known::sums),
    }
}

/// Sizes of layers with λ and exposure that were drawn for them.
fn risk<'s>(layers: impl Iterator<Item = &'s SubjectLayer>, values: &Values) -> Risk {
    let mut sums = Sums::default();
    layers.for_each(|l| sums.merge(layer_sums(l)));
    Risk {
        functions: sums.functions,
        bytes: sums.bytes,
        covered_bytes: sums.covered,
        lambda: interval(&values.lambda),
        exposure: interval(&values.exposure),
    }
}

/// Size of a layer's code.
pub(crate) fn layer_sums(layer: &SubjectLayer) -> Sums {
    let mut sums = Sums::default();
    for i in &layer.items {
        sums.merge(Sums { functions: i.functions, bytes: i.bytes, covered: i.covered });
    }
    sums
}

fn layer(
    subject: &Subject,
    at: usize,
    drawn: &Drawn,
    columns: &[Vec<f64>],
    priors: &Priors,
    settings: &Settings,
) -> LayerRisk {
    let layer = &subject.layers[at];
    let values = &drawn.layers[at];
    let reached = Values {
        lambda: values.iter().map(|v| v.lambda * v.on_request).collect(),
        exposure: values.iter().map(|v| v.exposure * v.on_request).collect(),
    };
    LayerRisk {
        name: layer.info.name,
        owner: layer.terms.owner,
        recorded_owner: layer.info.owner,
        could_fix: layer.terms.could_fix,
        shared: layer.info.shared,
        patch_window_days: layer.terms.window_days,
        search: layer.terms.search,
        risk: risk(std::iter::once(layer), &reached),
        components: components(subject, at, drawn, columns, priors, settings),
        components_total: layer.items.len() as u64,
    }
}

/// The components with most expected defects.
fn components(
    subject: &Subject,
    at: usize,
    drawn: &Drawn,
    columns: &[Vec<f64>],
    priors: &Priors,
    settings: &Settings,
) -> Vec<ComponentRisk> {
    let layer = &subject.layers[at];
    let compiled = &drawn.compiled.layers[at];
    let values = &drawn.layers[at];
    // Ranked by the first draws: all of them for every component would cost most of the time.
    let some = drawn.draws.min(200);
    let rough =
        |i: usize| -> f64 { (0..some).map(|n| compiled.items[i].lambda(&row(columns, n))).sum() };
    let mut order: Vec<(f64, usize)> = (0..layer.items.len()).map(|i| (rough(i), i)).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let hops = subject.hops_of_a_request().get(&layer.info.name).copied().unwrap_or(0);
    let control = match hops {
        0 => "directly".to_owned(),
        1 => "through one boundary".to_owned(),
        n => format!("through {n} boundaries"),
    };
    let one = |&(_, i): &(f64, usize)| {
        let (item, code) = (&layer.items[i], &compiled.items[i]);
        let class = item.class.and_then(|c| priors.classes.get(c));
        let mut of = Values { lambda: Vec::new(), exposure: Vec::new() };
        for (n, v) in values.iter().enumerate() {
            let share = if v.lambda > 0.0 { v.exposure / v.lambda } else { 0.0 };
            // Of the layer's code: what its recording and density range say counts here too.
            let lambda = code.lambda(&row(columns, n)) * v.scale * v.on_request;
            of.lambda.push(lambda);
            of.exposure.push(lambda * share);
        }
        ComponentRisk {
            name: item.name.clone(),
            class: class.map_or_else(|| "none".into(), |c| c.name.clone()),
            language: item.rewritten.map_or(item.language, |(l, ..)| l).as_str().into(),
            control: control.clone(),
            risk: Risk {
                functions: item.functions,
                bytes: item.bytes,
                covered_bytes: item.covered,
                lambda: interval(&of.lambda),
                exposure: interval(&of.exposure),
            },
            history_count: class.and_then(|c| c.history.as_ref()).map(|h| h.cves),
        }
    };
    order.iter().take(settings.components).map(one).collect()
}

/// Barriers in sequence: what falls within a year with probability 1 − e^(−exposure) each.
fn path(path: &Path, subject: &Subject, drawn: &Drawn, columns: &[Vec<f64>]) -> PathRisk {
    let n = drawn.draws;
    let (mut independent, mut dependent) = (vec![1.0; n], vec![1.0; n]);
    let mut barriers = Vec::new();
    for step in &path.barriers {
        let at = subject.layers.iter().position(|l| l.info.name == step.to);
        let (Some(at), Some(layer)) = (at, subject.layer(step.to)) else { continue };
        let exposure: Vec<f64> = drawn.layers[at].iter().map(|v| v.exposure * step.share).collect();
        let falls: Vec<f64> = exposure.iter().map(|e| -(-e).exp_m1()).collect();
        for (i, p) in falls.iter().enumerate() {
            independent[i] *= p;
            dependent[i] = f64::min(dependent[i], *p);
        }
        barriers.push(BarrierRisk {
            name: step.name.clone(),
            from: step.from,
            to: step.to,
            owner: layer.terms.owner,
            functions: layer_sums(layer).functions,
            exposure: interval(&exposure),
            falls: interval(&falls),
        });
    }
    let rho = &columns[Fixed::Dependence as usize];
    let stated: Vec<f64> =
        (0..n).map(|i| at_dependence(independent[i], dependent[i], rho[i])).collect();
    let middle: Interval = interval(rho);
    PathRisk {
        name: path.name.clone(),
        barriers,
        independent: interval(&independent),
        dependent: interval(&dependent),
        stated: interval(&stated),
        dependence: middle.median.clamp(0.0, 1.0),
    }
}

/// Between independent and fully dependent, on a logarithmic scale: 0 is the one end, 1 the other.
pub(crate) fn at_dependence(independent: f64, dependent: f64, dependence: f64) -> f64 {
    if independent <= 0.0 {
        return 0.0;
    }
    let rho = dependence.clamp(0.0, 1.0);
    (independent.ln() * (1.0 - rho) + dependent.ln() * rho).exp()
}
