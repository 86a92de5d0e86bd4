//! What is assessed: a deployment with its code, owners, interfaces and ways out; measured, or made by
//! a scenario.

use std::collections::BTreeMap;

use altaz_profile::results::DeploymentResult;
use altaz_profile::{Boundary, Layer, LayerInfo, Owner, Profile};

use super::code::{Item, of_profile};
use super::known::Known;
use super::priors::Priors;
use crate::contract::{Contract, Terms};

/// A deployment as the model sees it.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Name.
    pub name: String,
    /// Not measured as it is.
    pub model_only: bool,
    /// Name of the recording that it rests on; a changed deployment rests on the same one.
    pub recording: Option<String>,
    /// The contract.
    pub contract: Contract,
    /// The layers in traversal order.
    pub layers: Vec<SubjectLayer>,
    /// Interfaces between them.
    pub boundaries: Vec<Boundary>,
    /// Ways out.
    pub paths: Vec<Path>,
    /// Known vulnerabilities, where a triage was made.
    pub known: Option<Known>,
}

/// A layer as the model sees it.
#[derive(Debug, Clone)]
pub struct SubjectLayer {
    /// Owner and sharing as recorded.
    pub info: LayerInfo,
    /// What the contract says.
    pub terms: Terms,
    /// The code.
    pub items: Vec<Item>,
    /// Permitted entry points over those at which the code was measured (what-if).
    pub width: f64,
    /// Density against what the priors say, as a range (scenarios).
    pub density: Option<[f64; 2]>,
    /// What happens in it cannot touch what is to be protected (outside of an enclave): it is part of
    /// the HAP and not of the VAP.
    pub outside: bool,
}

/// A way out of the containment: what must fall, in this order.
#[derive(Debug, Clone, PartialEq)]
pub struct Path {
    /// Name.
    pub name: String,
    /// What must fall.
    pub barriers: Vec<Step>,
}

/// A barrier of a path.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Names of its interfaces.
    pub name: String,
    /// Side that an attacker holds.
    pub from: Layer,
    /// Side that must fall.
    pub to: Layer,
    /// Share of that side's code that stands behind it, 0 to 1 (what-if).
    pub share: f64,
}

impl Subject {
    /// A recording under a contract.
    pub fn measured(
        profile: &Profile,
        result: &DeploymentResult,
        contract: &Contract,
        priors: &Priors,
    ) -> Self {
        let mut items = of_profile(profile, priors);
        let layers = profile
            .manifest
            .layers
            .iter()
            .map(|info| SubjectLayer {
                info: info.clone(),
                terms: contract.terms(info),
                items: items.remove(&info.name).unwrap_or_default(),
                width: 1.0,
                density: None,
                outside: false,
            })
            .collect();
        let paths = result
            .escape_paths
            .iter()
            .map(|p| Path {
                name: p.name.clone(),
                barriers: p
                    .barring()
                    .map(|b| Step { name: b.name.clone(), from: b.from, to: b.to, share: 1.0 })
                    .collect(),
            })
            .collect();
        Self {
            name: profile.manifest.deployment.clone(),
            model_only: result.model_only,
            recording: Some(profile.manifest.deployment.clone()),
            contract: contract.clone(),
            layers,
            boundaries: profile.manifest.boundaries.clone(),
            paths,
            known: None,
        }
    }

    /// The layer of this name.
    pub fn layer(&self, name: Layer) -> Option<&SubjectLayer> {
        self.layers.iter().find(|l| l.info.name == name)
    }

    /// The layer of this name, to change it.
    pub fn layer_mut(&mut self, name: Layer) -> Option<&mut SubjectLayer> {
        self.layers.iter_mut().find(|l| l.info.name == name)
    }

    /// Ways out by following the boundaries, for deployments that were not measured.
    pub fn derive_paths(&mut self) {
        let shared = |layer| self.layers.iter().any(|l| l.info.name == layer && l.info.shared);
        let mut found = Vec::new();
        let mut open = vec![vec![Layer::App]];
        while let Some(route) = open.pop() {
            let Some(&here) = route.last() else { continue };
            if shared(here) {
                found.push(route);
                continue;
            }
            let mut next: Vec<Layer> =
                self.boundaries.iter().filter(|b| b.from == here).map(|b| b.to).collect();
            next.sort_unstable();
            next.dedup();
            for to in next.into_iter().filter(|to| !route.contains(to)) {
                open.push(route.iter().copied().chain([to]).collect());
            }
        }
        found.sort_by_key(|r| (r.len(), r.clone()));
        self.paths = found.iter().map(|route| self.path(route)).collect();
    }

    fn path(&self, route: &[Layer]) -> Path {
        let names = route.iter().map(|l| l.as_str()).collect::<Vec<_>>().join(" → ");
        let held = |layer: Layer| {
            self.layer(layer).is_some_and(|l| l.info.owner == Owner::Tenant && !l.info.shared)
        };
        let step = |pair: &[Layer]| match pair {
            [from, to] if !held(*to) => {
                let between = self.boundaries.iter().filter(|b| b.from == *from && b.to == *to);
                let name = between.map(|b| b.name.as_str()).collect::<Vec<_>>().join(" + ");
                Some(Step { name, from: *from, to: *to, share: 1.0 })
            }
            _ => None,
        };
        Path { name: names, barriers: route.windows(2).filter_map(step).collect() }
    }

    /// Boundaries between where requests come in and each layer.
    pub(crate) fn hops_of_a_request(&self) -> BTreeMap<Layer, u32> {
        let entry = [Layer::App, Layer::Library, Layer::LanguageRuntime];
        self.hops(&entry)
    }

    /// Boundaries between code that a hostile tenant holds and each layer.
    pub(crate) fn hops_of_a_tenant(&self) -> BTreeMap<Layer, u32> {
        let held = [
            Layer::App,
            Layer::Library,
            Layer::LanguageRuntime,
            Layer::GuestUserland,
            Layer::GuestKernel,
        ];
        let mut hops = self.hops(&held);
        // The first boundary is at the attacker's hand.
        hops.values_mut().for_each(|h| *h = h.saturating_sub(1));
        hops
    }

    /// Breadth first from the layers that are held; what no boundary leads to is as far as the
    /// farthest.
    fn hops(&self, held: &[Layer]) -> BTreeMap<Layer, u32> {
        let mut hops: BTreeMap<Layer, u32> = held.iter().map(|&l| (l, 0)).collect();
        for distance in 1.. {
            let next: Vec<Layer> = self
                .boundaries
                .iter()
                .filter(|b| hops.get(&b.from) == Some(&(distance - 1)) && !hops.contains_key(&b.to))
                .map(|b| b.to)
                .collect();
            if next.is_empty() {
                break;
            }
            hops.extend(next.into_iter().map(|l| (l, distance)));
        }
        let farthest = hops.values().copied().max().unwrap_or(0).max(1);
        for layer in &self.layers {
            hops.entry(layer.info.name).or_insert(farthest);
        }
        hops
    }
}
