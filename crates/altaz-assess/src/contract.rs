//! Who must remediate a layer, who could, within which time, and what is owed when containment fails.
//!
//! A contract is a TOML text. One that names a layer that does not exist, or a window that makes no
//! sense, is used without that entry, and says so: the other layers' owners are still known.

use std::collections::BTreeMap;

use altaz_profile::{Layer, LayerInfo, Owner};
use serde::Deserialize;
use toml::Spanned;

use crate::place::{Place, Problem, Problems};

/// The built-in contracts: name and text.
pub const PRESETS: &[(&str, &str)] = &[
    ("bare-metal", include_str!("../../../demo/contracts/bare-metal.toml")),
    ("iaas-vm", include_str!("../../../demo/contracts/iaas-vm.toml")),
    ("managed-containers", include_str!("../../../demo/contracts/managed-containers.toml")),
    ("serverless-sandbox", include_str!("../../../demo/contracts/serverless-sandbox.toml")),
    ("container-in-vm", include_str!("../../../demo/contracts/container-in-vm.toml")),
];

/// What a breach of containment entitles the tenant to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Remedy {
    /// Nothing.
    #[default]
    None,
    /// A part of the fee.
    Credit,
    /// Damages up to a limit.
    Capped,
    /// All damages.
    Full,
}

impl Remedy {
    /// In words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Credit => "a part of the fee",
            Self::Capped => "damages up to a limit",
            Self::Full => "all damages",
        }
    }
}

/// How sensitive the data is that the service holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Data {
    /// Anybody may see it.
    Public,
    /// The tenant's own.
    #[default]
    Internal,
    /// Of persons.
    Personal,
    /// Under a law or standard of its own (health, payment).
    Regulated,
}

impl Data {
    /// In words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Internal => "internal",
            Self::Personal => "personal",
            Self::Regulated => "regulated",
        }
    }
}

/// What a contract says of one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Terms {
    /// Who must remediate; `None` is nobody.
    pub owner: Option<Owner>,
    /// Who could.
    pub could_fix: Option<Owner>,
    /// Days from a public fix until it must be installed.
    pub window_days: Option<f64>,
    /// How actively defects are looked for, against ordinary upstream development.
    pub search: f64,
}

/// A contract.
#[derive(Debug, Clone, PartialEq)]
pub struct Contract {
    /// Title.
    pub title: String,
    /// What a breach of containment entitles the tenant to.
    pub remedy: Remedy,
    /// Obligations from outside (HIPAA, PCI DSS).
    pub obligations: Vec<String>,
    /// Sensitivity of the data.
    pub data: Data,
    tenant: Side,
    provider: Side,
    layers: BTreeMap<Layer, LayerTerms>,
}

#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Side {
    window_days: Option<f64>,
    search: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct LayerTerms {
    owner: Option<Option<Owner>>,
    could_fix: Option<Option<Owner>>,
    side: Side,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    title: String,
    #[serde(default)]
    about: String,
    #[serde(default)]
    tenant: RawSide,
    #[serde(default)]
    provider: RawSide,
    #[serde(default)]
    layer: BTreeMap<Spanned<String>, RawLayer>,
    #[serde(default)]
    remedies: RawRemedies,
    #[serde(default)]
    obligations: RawObligations,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawSide {
    patch_window_days: Option<Spanned<f64>>,
    search: Option<Spanned<toml::Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLayer {
    owner: Option<Spanned<String>>,
    could_fix: Option<Spanned<String>>,
    patch_window_days: Option<Spanned<f64>>,
    search: Option<Spanned<toml::Value>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawRemedies {
    #[serde(default)]
    breach: Remedy,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawObligations {
    #[serde(default)]
    regimes: Vec<String>,
    #[serde(default)]
    data: Data,
}

impl Contract {
    /// Reads a contract; the problems are those of entries that are left out.
    ///
    /// # Errors
    /// When it is no contract at all, with the place.
    pub fn parse(text: &str, file: &str) -> Result<(Self, Vec<Problem>), Problems> {
        let place = Place::new(file, text);
        let raw: Raw =
            toml::from_str(text).map_err(|e| Problems { what: "contract", ..place.syntax(&e) })?;
        let _ = raw.about;
        let mut problems = Vec::new();
        let mut layers = BTreeMap::new();
        for (name, layer) in &raw.layer {
            let Some(which) = Layer::parse(name.get_ref()) else {
                let message = place.unknown_layer(name.get_ref());
                problems.push(place.at(name.span(), format!("{message}; the entry is left out")));
                continue;
            };
            let mut party = |value: &Option<Spanned<String>>, key| {
                value.as_ref().and_then(|v| match v.get_ref().as_str() {
                    "nobody" => Some(None),
                    name => Owner::parse(name).map(Some).or_else(|| {
                        problems.push(place.at(
                            v.span(),
                            format!(
                                "{key} is tenant, provider or nobody, not `{name}`; it is left out"
                            ),
                        ));
                        None
                    }),
                })
            };
            let (owner, could_fix) =
                (party(&layer.owner, "owner"), party(&layer.could_fix, "could_fix"));
            let side = side(&layer.patch_window_days, &layer.search, &place, &mut problems);
            layers.insert(which, LayerTerms { owner, could_fix, side });
        }
        let mut both =
            |raw: &RawSide| side(&raw.patch_window_days, &raw.search, &place, &mut problems);
        let (tenant, provider) = (both(&raw.tenant), both(&raw.provider));
        let contract = Self {
            title: raw.title,
            remedy: raw.remedies.breach,
            obligations: raw.obligations.regimes,
            data: raw.obligations.data,
            tenant,
            provider,
            layers,
        };
        Ok((contract, problems))
    }

    /// A contract that says nothing: the recorded owners must, nothing was agreed.
    pub fn silent(title: &str) -> Self {
        Self {
            title: title.into(),
            remedy: Remedy::None,
            obligations: Vec::new(),
            data: Data::default(),
            tenant: Side::default(),
            provider: Side::default(),
            layers: BTreeMap::new(),
        }
    }

    /// A built-in contract.
    pub fn preset(name: &str) -> Option<Self> {
        let (_, text) = PRESETS.iter().find(|(n, _)| *n == name)?;
        Self::parse(text, name).ok().map(|(contract, _)| contract)
    }

    /// Name of the built-in contract that fits a deployment's layers.
    pub fn usual_for(deployment: &str, layers: &[LayerInfo]) -> &'static str {
        let has = |layer| layers.iter().any(|l| l.name == layer);
        let shared_kernel = layers.iter().any(|l| l.name == Layer::HostKernel && l.shared);
        if has(Layer::SandboxKernel) {
            "serverless-sandbox"
        } else if has(Layer::GuestKernel) && deployment.contains("-in-") {
            "container-in-vm"
        } else if has(Layer::GuestKernel) {
            "iaas-vm"
        } else if shared_kernel {
            "managed-containers"
        } else {
            "bare-metal"
        }
    }

    /// What it says of a layer; where it says nothing, the recorded owner must and could.
    pub fn terms(&self, layer: &LayerInfo) -> Terms {
        let own = self.layers.get(&layer.name).copied().unwrap_or_default();
        let owner = own.owner.unwrap_or(Some(layer.owner));
        let side = match owner {
            Some(Owner::Tenant) => self.tenant,
            Some(Owner::Provider) => self.provider,
            None => Side::default(),
        };
        Terms {
            owner,
            could_fix: own.could_fix.unwrap_or(Some(layer.owner)),
            window_days: own.side.window_days.or(side.window_days),
            search: own.side.search.or(side.search).unwrap_or(1.0),
        }
    }

    /// Layers that it has something to say about.
    pub fn layers(&self) -> impl Iterator<Item = Layer> + '_ {
        self.layers.keys().copied()
    }

    /// Whether money makes good what a breach of containment costs: no obligation that it cannot
    /// discharge, and damages that are paid.
    pub fn remedies_are_enough(&self) -> bool {
        self.obligations.is_empty()
            && self.data < Data::Regulated
            && match self.remedy {
                Remedy::Full => true,
                Remedy::Capped => self.data <= Data::Internal,
                Remedy::Credit | Remedy::None => self.data == Data::Public,
            }
    }
}

fn side(
    window: &Option<Spanned<f64>>,
    search: &Option<Spanned<toml::Value>>,
    place: &Place<'_>,
    problems: &mut Vec<Problem>,
) -> Side {
    let window_days = window.as_ref().and_then(|w| {
        let days = *w.get_ref();
        if days.is_finite() && days >= 0.0 {
            return Some(days);
        }
        let what = format!("a patch window of {days} days makes no sense; the entry is left out");
        problems.push(place.at(w.span(), what));
        None
    });
    let search = search.as_ref().and_then(|s| {
        let diligence = match s.get_ref() {
            toml::Value::String(word) => match word.as_str() {
                "none" => Some(0.5),
                "ordinary" => Some(1.0),
                "active" => Some(2.0),
                _ => None,
            },
            toml::Value::Integer(n) => Some(*n as f64),
            toml::Value::Float(n) => Some(*n),
            _ => None,
        };
        let diligence = diligence.filter(|d| d.is_finite() && *d > 0.0);
        if diligence.is_none() {
            let what = "search is none, ordinary, active, or how many times ordinary, more than 0; \
                        the entry is left out";
            problems.push(place.at(s.span(), what.into()));
        }
        diligence
    });
    Side { window_days, search }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: Layer, owner: Owner) -> LayerInfo {
        LayerInfo { name, owner, shared: false, ownership_moved: false, code: None }
    }

    #[test]
    fn every_preset_is_sound() {
        for (name, text) in PRESETS {
            let (contract, problems) = Contract::parse(text, name).unwrap();
            assert!(problems.is_empty(), "{problems:?}");
            assert!(!contract.title.is_empty());
            assert!(Contract::preset(name).is_some());
        }
        assert!(Contract::preset("no-such").is_none());
    }

    #[test]
    fn an_unknown_layer_and_a_negative_window_are_named_and_the_rest_is_used() {
        let text = "title = \"t\"\n[layer.host-kernal]\nowner = \"tenant\"\n[layer.vmm]\n\
                    owner = \"nobody\"\npatch_window_days = -3\nsearch = \"lazy\"\n\
                    [provider]\npatch_window_days = 7\n";
        let (contract, problems) = Contract::parse(text, "c.toml").unwrap();
        let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said[0].starts_with("c.toml:2:8: there is no layer `host-kernal`; there are app,"));
        assert!(said[1].starts_with("c.toml:6:21: a patch window of -3 days"), "{}", said[1]);
        assert!(said[2].starts_with("c.toml:7:10: search is"), "{}", said[2]);
        let vmm = contract.terms(&layer(Layer::Vmm, Owner::Provider));
        assert_eq!(
            (vmm.owner, vmm.could_fix, vmm.window_days),
            (None, Some(Owner::Provider), None)
        );
        let kernel = contract.terms(&layer(Layer::HostKernel, Owner::Provider));
        assert_eq!(kernel.window_days, Some(7.0));
    }

    #[test]
    fn what_is_no_contract_is_refused_with_its_line() {
        let e = Contract::parse("title = \"t\"\nowners = 3\n", "c.toml").unwrap_err().to_string();
        assert!(e.starts_with("the contract cannot be used: c.toml:2:1: unknown field"), "{e}");
    }

    #[test]
    fn money_does_not_discharge_an_obligation_from_outside() {
        let with = |extra: &str| {
            let text = format!("title = \"t\"\n[remedies]\nbreach = \"full\"\n{extra}");
            Contract::parse(&text, "c").unwrap().0
        };
        assert!(with("").remedies_are_enough());
        assert!(!with("[obligations]\nregimes = [\"HIPAA\"]\n").remedies_are_enough());
        assert!(!with("[obligations]\ndata = \"regulated\"\n").remedies_are_enough());
        let mut credit = with("");
        credit.remedy = Remedy::Credit;
        assert!(!credit.remedies_are_enough());
        credit.data = Data::Public;
        assert!(credit.remedies_are_enough());
    }
}
