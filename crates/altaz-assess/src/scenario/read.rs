//! A scenario's text.

use altaz_profile::{Boundary, Layer, LayerInfo, Owner};
use serde::Deserialize;
use toml::Spanned;

use super::{Assumptions, Change, Scenario, contract_or_none};
use crate::contract::PRESETS;
use crate::place::{Place, Problem, Problems};
use crate::risk::Language;
use crate::risk::code::Item;
use crate::risk::rewrite::Rewritten;
use crate::risk::subject::{Subject, SubjectLayer};
use crate::sums::Sums;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: String,
    #[serde(default)]
    title: String,
    assumptions: Option<Spanned<String>>,
    contract: Option<Spanned<String>>,
    deployment: Option<RawDeployment>,
    #[serde(default)]
    change: Vec<Spanned<RawChange>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDeployment {
    /// Entry points to which a width of 1 belongs.
    full_interface: Option<Spanned<f64>>,
    #[serde(default)]
    layer: Vec<RawLayer>,
    #[serde(default)]
    boundary: Vec<RawBoundary>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLayer {
    name: Spanned<String>,
    owner: Spanned<String>,
    #[serde(default)]
    shared: bool,
    /// kB of machine code.
    size: Spanned<f64>,
    #[serde(default)]
    language: Option<Spanned<String>>,
    density: Option<Spanned<[f64; 2]>>,
    #[serde(default)]
    ownership_moved: bool,
    #[serde(default)]
    outside: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBoundary {
    name: String,
    from: Spanned<String>,
    to: Spanned<String>,
    permitted: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawChange {
    kind: String,
    layer: Option<Spanned<String>>,
    owner: Option<String>,
    to: Option<String>,
    days: Option<f64>,
    times: Option<f64>,
    factor: Option<f64>,
    component: Option<String>,
    language: Option<String>,
    years: Option<f64>,
    horizon: Option<f64>,
    maintained: Option<bool>,
    boundary: Option<String>,
    permitted: Option<u32>,
    code_kb: Option<f64>,
    vmm_kb: Option<f64>,
    host_share: Option<f64>,
    exits: Option<u32>,
}

pub(super) fn parse(text: &str, file: &str) -> Result<(Scenario, Vec<Problem>), Problems> {
    let place = Place::new(file, text);
    let raw: Raw =
        toml::from_str(text).map_err(|e| Problems { what: "scenario", ..place.syntax(&e) })?;
    let mut problems = Vec::new();
    let assumptions = match &raw.assumptions {
        None => Assumptions::Priors,
        Some(a) if a.get_ref() == "priors" => Assumptions::Priors,
        Some(a) if a.get_ref() == "essay" => Assumptions::Uniform,
        Some(a) => {
            let what = format!("assumptions are `priors` or `essay`, not `{}`", a.get_ref());
            problems.push(place.at(a.span(), what));
            Assumptions::Priors
        }
    };
    if let Some(c) =
        raw.contract.as_ref().filter(|c| !PRESETS.iter().any(|(n, _)| n == c.get_ref()))
    {
        let names: Vec<&str> = PRESETS.iter().map(|(n, _)| *n).collect();
        let what = format!("there is no preset `{}`; there are {}", c.get_ref(), names.join(", "));
        problems.push(place.at(c.span(), what));
    }
    let contract = raw.contract.as_ref().map(|c| c.get_ref().as_str());
    let deployment =
        raw.deployment.as_ref().map(|d| deployment(&raw.name, d, contract, &place, &mut problems));
    let changes = raw
        .change
        .iter()
        .filter_map(|c| match change(c.get_ref(), &place) {
            Ok(change) => Some(change),
            Err(what) => {
                problems.push(place.at(c.span(), format!("{what}; the change is left out")));
                None
            }
        })
        .collect();
    let scenario = Scenario { name: raw.name, title: raw.title, assumptions, deployment, changes };
    Ok((scenario, problems))
}

fn layer(name: &Spanned<String>, place: &Place<'_>, problems: &mut Vec<Problem>) -> Option<Layer> {
    let found = Layer::parse(name.get_ref());
    if found.is_none() {
        let what = format!("{}; the entry is left out", place.unknown_layer(name.get_ref()));
        problems.push(place.at(name.span(), what));
    }
    found
}

fn deployment(
    name: &str,
    raw: &RawDeployment,
    contract: Option<&str>,
    place: &Place<'_>,
    problems: &mut Vec<Problem>,
) -> Subject {
    let contract = contract_or_none(contract);
    let mut boundaries = Vec::new();
    for b in &raw.boundary {
        let ends = (layer(&b.from, place, problems), layer(&b.to, place, problems));
        if let (Some(from), Some(to)) = ends {
            boundaries.push(Boundary::new(b.name.as_str(), from, to, b.permitted));
        }
    }
    let full = raw.full_interface.as_ref().map(|f| *f.get_ref());
    if let Some(bad) =
        raw.full_interface.as_ref().filter(|f| !(f.get_ref().is_finite() && *f.get_ref() > 0.0))
    {
        problems.push(
            place.at(bad.span(), "full_interface is a number of entry points, more than 0".into()),
        );
    }
    let mut layers = Vec::new();
    for l in &raw.layer {
        let Some(name) = layer(&l.name, place, problems) else { continue };
        let (size, language) = (*l.size.get_ref(), language_of(&l.language, place, problems));
        let owner = Owner::parse(l.owner.get_ref());
        if !(size.is_finite() && (0.0..1e12).contains(&size)) {
            let what = format!("{name}: a size of {size} kB makes no sense; the layer is left out");
            problems.push(place.at(l.size.span(), what));
            continue;
        }
        let Some(owner) = owner else {
            let what = format!(
                "{name}: owner is tenant or provider, not `{}`; the layer is left out",
                l.owner.get_ref()
            );
            problems.push(place.at(l.owner.span(), what));
            continue;
        };
        let density = l.density.as_ref().and_then(|d| {
            let [low, high] = *d.get_ref();
            if low > 0.0 && low <= high && high.is_finite() {
                return Some([low, high]);
            }
            let what =
                format!("{name}: density is a range [low, high] with 0 < low ≤ high; left out");
            problems.push(place.at(d.span(), what));
            None
        });
        let into: u32 =
            boundaries.iter().filter(|b| b.to == name).filter_map(|b| b.permitted).sum();
        let width = full.filter(|f| *f > 0.0 && into > 0).map_or(1.0, |f| f64::from(into) / f);
        let bytes = (size * 1000.0) as u64;
        let sums = Sums { functions: size as u64, bytes, covered: Some(bytes) };
        let info = LayerInfo {
            name,
            owner,
            shared: l.shared,
            ownership_moved: l.ownership_moved,
            code: None,
        };
        layers.push(SubjectLayer {
            terms: contract.terms(&info),
            info,
            items: vec![Item::new(name.as_str(), None, language, sums)],
            width,
            density,
            outside: l.outside,
        });
    }
    let mut subject = Subject {
        name: name.into(),
        model_only: true,
        recording: None,
        contract,
        layers,
        boundaries,
        paths: Vec::new(),
        known: None,
    };
    subject.derive_paths();
    subject
}

fn language_of(
    name: &Option<Spanned<String>>,
    place: &Place<'_>,
    problems: &mut Vec<Problem>,
) -> Language {
    let Some(name) = name else { return Language::C };
    Language::parse(name.get_ref()).unwrap_or_else(|| {
        let what = format!("the language is one of c, cpp, go, rust, not `{}`", name.get_ref());
        problems.push(place.at(name.span(), what));
        Language::C
    })
}

/// A change, or what it lacks.
fn change(raw: &RawChange, place: &Place<'_>) -> Result<Change, String> {
    let kind = raw.kind.as_str();
    let lacks = |what: &str| format!("a change of kind `{kind}` needs `{what}`");
    let layer = || {
        let name = raw.layer.as_ref().ok_or_else(|| lacks("layer"))?.get_ref();
        Layer::parse(name).ok_or_else(|| place.unknown_layer(name))
    };
    let positive = |value: Option<f64>, what: &str| {
        let value = value.ok_or_else(|| lacks(what))?;
        if value.is_finite() && value > 0.0 {
            Ok(value)
        } else {
            Err(format!("{what} must be more than 0, not {value}"))
        }
    };
    let not_negative = |value: f64, what: &str| {
        if value.is_finite() && value >= 0.0 {
            Ok(value)
        } else {
            Err(format!("{what} must not be negative, and is {value}"))
        }
    };
    let language = |default: Option<Language>| match raw.language.as_deref() {
        None => default.ok_or_else(|| lacks("language")),
        Some(name) => Language::parse(name)
            .ok_or_else(|| format!("the language is one of c, cpp, go, rust, not `{name}`")),
    };
    let party = |name: &Option<String>| match name.as_deref() {
        Some("nobody") => Ok(None),
        Some(name) => Owner::parse(name)
            .map(Some)
            .ok_or_else(|| format!("there is tenant, provider and nobody, not `{name}`")),
        None => Err(lacks("to")),
    };
    let boundary = || raw.boundary.clone().ok_or_else(|| lacks("boundary"));
    let permitted = || raw.permitted.ok_or_else(|| lacks("permitted"));
    Ok(match kind {
        "owner" => Change::Owner { layer: layer()?, to: party(&raw.to)? },
        "window" => Change::Window {
            layer: raw.layer.as_ref().map(|_| layer()).transpose()?,
            owner: match &raw.owner {
                None if raw.layer.is_none() => return Err(lacks("layer` or `owner")),
                None => None,
                some => party(some)?,
            },
            days: not_negative(raw.days.ok_or_else(|| lacks("days"))?, "days")?,
        },
        "search" => Change::Search { layer: layer()?, times: positive(raw.times, "times")? },
        "density" => Change::Density {
            layer: layer()?,
            component: raw.component.clone(),
            factor: positive(raw.factor, "factor")?,
        },
        "rewrite" => Change::Rewrite(Rewritten {
            layer: layer()?,
            component: raw.component.clone(),
            to: language(None)?,
            years: not_negative(raw.years.unwrap_or(0.0), "years")?,
            horizon: positive(Some(raw.horizon.unwrap_or(20.0)), "horizon")?.min(100.0),
            frozen: raw.maintained == Some(false),
        }),
        "remove" => Change::Remove {
            layer: layer()?,
            component: raw.component.clone().ok_or_else(|| lacks("component"))?,
        },
        "narrow" => Change::Narrow { boundary: boundary()?, permitted: permitted()? },
        "guard" => Change::Guard {
            boundary: boundary()?,
            permitted: permitted()?,
            code_kb: not_negative(raw.code_kb.unwrap_or(0.0), "code_kb")?,
            language: language(Some(Language::C))?,
        },
        "nest" => {
            let Change::Nest { vmm_kb, host_share, exits, .. } = Change::nest() else {
                return Err("no such change".into());
            };
            Change::Nest {
                vmm_kb: not_negative(raw.vmm_kb.unwrap_or(vmm_kb), "vmm_kb")?,
                language: language(Some(Language::C))?,
                host_share: not_negative(raw.host_share.unwrap_or(host_share), "host_share")?
                    .min(1.0),
                exits: raw.exits.unwrap_or(exits),
            }
        }
        other => {
            return Err(format!(
                "there is no change `{other}`; there are owner, window, search, density, rewrite, \
                 remove, narrow, guard, nest"
            ));
        }
    })
}
