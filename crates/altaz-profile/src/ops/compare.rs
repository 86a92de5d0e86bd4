//! Whether two profiles may be compared, and what differs if not.

use std::fmt;

use crate::model::{Manifest, Phase, Profile};

/// What two profiles may differ in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Aspect {
    /// Schema of the manifest: major version.
    Schema,
    /// Name of the service.
    Service,
    /// The load in words.
    Load,
    /// Identity of the service image.
    Image,
    /// Kind of the instrument, which decides what a unit's size and coverage mean.
    Instrument,
    /// One of them was not recorded while serving.
    Phase,
    /// Architecture of the host.
    Architecture,
    /// Name of the deployment.
    Deployment,
    /// Layers, owners and sharing.
    Layers,
    /// Kernel release of the host.
    Kernel,
    /// CPU model of the host.
    Cpu,
    /// Version and settings of the instrument.
    InstrumentSettings,
}

impl Aspect {
    /// Whether profiles that differ in this must not be compared. The others are worth a remark: a
    /// comparison of deployments, or of two kernels, is a comparison of just that.
    pub const fn forbids(self) -> bool {
        matches!(
            self,
            Aspect::Schema
                | Aspect::Service
                | Aspect::Load
                | Aspect::Image
                | Aspect::Instrument
                | Aspect::Phase
                | Aspect::Architecture
        )
    }

    /// In words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Aspect::Schema => "schema",
            Aspect::Service => "service",
            Aspect::Load => "load",
            Aspect::Image => "service image",
            Aspect::Instrument => "instrument",
            Aspect::Phase => "recorded phases",
            Aspect::Architecture => "architecture",
            Aspect::Deployment => "deployment",
            Aspect::Layers => "layers",
            Aspect::Kernel => "kernel",
            Aspect::Cpu => "CPU",
            Aspect::InstrumentSettings => "instrument's settings",
        }
    }
}

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What.
    pub aspect: Aspect,
    /// As it is in the first profile.
    pub left: String,
    /// As it is in the second one.
    pub right: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: `{}` against `{}`", self.aspect.as_str(), self.left, self.right)
    }
}

/// What differs between two profiles whose figures are to be compared: the forbidding differences
/// ([`Aspect::forbids`]) first. Empty when they were recorded alike. Deployment and layers are not
/// among them, for they are what is compared.
pub fn comparability(a: &Profile, b: &Profile) -> Vec<Difference> {
    let mut list = differences(&a.manifest, &b.manifest);
    list.retain(|d| !matches!(d.aspect, Aspect::Deployment | Aspect::Layers));
    list
}

/// Everything that differs between two recordings besides what they saw.
pub fn differing(a: &Profile, b: &Profile) -> Vec<Difference> {
    differences(&a.manifest, &b.manifest)
}

/// What keeps two profiles from being repeats of one recording: everything that forbids a
/// comparison, and deployment and layers too.
pub fn differing_for_repeat(a: &Profile, b: &Profile) -> Vec<Difference> {
    let mut list = differences(&a.manifest, &b.manifest);
    list.retain(|d| {
        d.aspect.forbids()
            || matches!(d.aspect, Aspect::Deployment | Aspect::Layers | Aspect::Kernel)
    });
    list
}

fn differences(a: &Manifest, b: &Manifest) -> Vec<Difference> {
    type Text = fn(&Manifest) -> String;
    let aspects: [(Aspect, Text); 12] = [
        (Aspect::Schema, |m| m.schema.split('.').take(2).collect::<Vec<_>>().join(".")),
        (Aspect::Service, |m| m.service.clone()),
        (Aspect::Load, |m| m.load.as_ref().map_or("none", |l| &l.description).to_owned()),
        (Aspect::Image, |m| m.image_id.clone()),
        (Aspect::Instrument, |m| m.instrument.kind.to_string()),
        (Aspect::Phase, phases),
        (Aspect::Architecture, |m| m.host.arch.clone()),
        (Aspect::Deployment, |m| m.deployment.clone()),
        (Aspect::Layers, layers),
        (Aspect::Kernel, |m| m.host.kernel.clone()),
        (Aspect::Cpu, |m| m.host.cpu.clone()),
        (Aspect::InstrumentSettings, |m| m.instrument.detail.clone()),
    ];
    aspects
        .into_iter()
        .map(|(aspect, of)| Difference { aspect, left: of(a), right: of(b) })
        .filter(|difference| difference.left != difference.right)
        .collect()
}

fn phases(manifest: &Manifest) -> String {
    let recorded = |phase: &&Phase| manifest.windows.iter().any(|w| w.phase == **phase);
    // The baseline is not compared.
    let phases = Phase::ALL.iter().filter(|p| **p != Phase::Idle).filter(recorded);
    phases.map(|phase| phase.as_str()).collect::<Vec<_>>().join(", ")
}

fn layers(manifest: &Manifest) -> String {
    let mut layers: Vec<String> = manifest
        .layers
        .iter()
        .map(|l| format!("{} {}{}", l.name, l.owner, if l.shared { " shared" } else { "" }))
        .collect();
    layers.sort();
    layers.join(", ")
}
