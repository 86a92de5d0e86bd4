//! The figures of one profile.

use std::collections::HashMap;

use altaz_profile::results::{
    ContextResult, DeploymentResult, Hap, LayerResult, ProfileReport, REPORT_SCHEMA,
    Sums as Figure, Vap,
};
use altaz_profile::{Context, Layer, LayerInfo, Manifest, Owner, Profile, Unit};

use crate::compare::basis;
use crate::complete::{Completeness, Trust};
use crate::components::components;
use crate::error::AssessError;
use crate::kinds::kinds;
use crate::select::{Seen, Selection, select};
use crate::sums::Sums;
use crate::{Options, complete, escape};

/// The vertical and horizontal attack profile of a recording, for its serve phase.
///
/// # Errors
/// When nothing of the service was seen while serving (an empty recording is no success), or when
/// functions lie in a layer of which the manifest says neither owner nor sharing.
pub fn assess(profile: &Profile, options: &Options) -> Result<DeploymentResult, AssessError> {
    let manifest = &profile.manifest;
    let selection = select(profile);
    // A recording that was content with the boundaries has these to show.
    let only_boundaries = manifest.blind_spots.iter().any(|b| b.kind == "not-observed")
        && manifest.boundaries.iter().any(|b| !b.entries.is_empty());
    if selection.serve.is_empty() && !only_boundaries {
        return Err(AssessError::EmptyServe {
            deployment: manifest.deployment.clone(),
            windows: selection.windows,
            rows: profile.units.len(),
        });
    }
    let trust = complete::trust(manifest.calibration.as_ref());
    let mut layers = layers(profile, &selection, &trust, options)?;
    for layer in &mut layers {
        layer.result.executed_bytes_per_request = per_request(manifest, layer.result.name);
    }
    let mut notes = manifest.notes.clone();
    notes.extend(own_notes(profile, &selection, &trust));
    let (vap, hap) = (vap(&layers), hap(&layers, &selection));
    let layers: Vec<LayerResult> = layers.into_iter().map(|l| l.result).collect();
    let escape_paths = escape::paths(manifest, &layers);

    Ok(DeploymentResult {
        name: manifest.deployment.clone(),
        available: true,
        reason: None,
        model_only: false,
        basis: Some(basis(manifest)),
        load: manifest.load.clone(),
        kinds: kinds(profile)?,
        vap: Some(vap),
        hap: Some(hap),
        layers,
        boundaries: manifest.boundaries.clone(),
        barriers: escape_paths.first().map_or_else(Vec::new, |p| p.barriers.clone()),
        escape_paths,
        posture: manifest.posture.clone(),
        reachable: manifest.reachable.clone(),
        blind_spots: manifest.blind_spots.clone(),
        calibration: manifest.calibration.clone(),
        repeats: None,
        notes,
    })
}

/// The figures of a recording together with what identifies it, for a report of this one profile.
///
/// # Errors
/// As [`assess`].
pub fn report(profile: &Profile, options: &Options) -> Result<ProfileReport, AssessError> {
    let manifest = &profile.manifest;
    Ok(ProfileReport {
        schema: REPORT_SCHEMA.into(),
        service: manifest.service.clone(),
        tool_version: manifest.tool_version.clone(),
        recorded_at: manifest.recorded_at.clone(),
        instrument: manifest.instrument.clone(),
        host: manifest.host.clone(),
        deployment: assess(profile, options)?,
    })
}

/// What a layer executed for a request, on average.
fn per_request(manifest: &Manifest, layer: Layer) -> Option<f64> {
    let requests = manifest.load.as_ref().map(|l| l.requests).filter(|n| *n > 0)?;
    let work = manifest.work.iter().find(|w| w.layer == layer)?;
    Some(work.executed_bytes as f64 / requests as f64)
}

/// A layer's figures and what totals need besides.
struct Assessed {
    result: LayerResult,
    sums: Sums,
    completeness: Completeness,
}

fn layers(
    profile: &Profile,
    selection: &Selection<'_>,
    trust: &Trust,
    options: &Options,
) -> Result<Vec<Assessed>, AssessError> {
    let mut serve = by_layer(&selection.serve, |s| s.unit);
    let mut start = by_layer(&selection.start_only, |s| s.unit);
    let mut background = by_layer(&selection.background, |u| u);
    let mut interrupts = by_layer(&selection.interrupts, |s| s.unit);
    let assessed = profile
        .manifest
        .layers
        .iter()
        .map(|info| {
            let functions = OfLayer {
                serve: serve.remove(&info.name).unwrap_or_default(),
                start: start.remove(&info.name).unwrap_or_default(),
                interrupts: interrupts.remove(&info.name).unwrap_or_default(),
                background: background.remove(&info.name).unwrap_or_default().len() as u64,
            };
            layer(info, &functions, selection, trust, options)
        })
        .collect();
    // Every described layer has taken its functions out.
    serve.extend(interrupts);
    if let Some((&layer, rest)) = serve.iter().min_by_key(|(layer, _)| **layer) {
        return Err(AssessError::UndescribedLayer {
            deployment: profile.manifest.deployment.clone(),
            layer,
            functions: rest.len() as u64,
        });
    }
    Ok(assessed)
}

fn by_layer<'s, T>(items: &'s [T], unit: impl Fn(&'s T) -> &'s Unit) -> HashMap<Layer, Vec<&'s T>> {
    let mut map: HashMap<Layer, Vec<&T>> = HashMap::new();
    for item in items {
        map.entry(unit(item).layer).or_default().push(item);
    }
    map
}

/// Functions of one layer by what they count for.
struct OfLayer<'s, 'a> {
    serve: Vec<&'s Seen<'a>>,
    start: Vec<&'s Seen<'a>>,
    interrupts: Vec<&'s Seen<'a>>,
    background: u64,
}

fn layer(
    info: &LayerInfo,
    of: &OfLayer<'_, '_>,
    selection: &Selection<'_>,
    trust: &Trust,
    options: &Options,
) -> Assessed {
    let serve = &of.serve;
    let sums = Sums::of(serve.iter().copied());
    let completeness = complete::completeness(serve, selection.windows, trust);
    let (top, components_total) = components(serve, options.components);
    let (start_top, start_only_total) = components(&of.start, options.components);
    let rare = serve.iter().filter(|s| selection.is_rare(s)).count();
    let result = LayerResult {
        name: info.name,
        owner: info.owner,
        shared: info.shared,
        ownership_moved: info.ownership_moved,
        functions: sums.functions,
        bytes: sums.bytes,
        covered_bytes: sums.covered,
        coverage: completeness.coverage,
        unseen: completeness.unseen,
        windows: selection.windows as u64,
        lost_events: selection.lost_events,
        rare_functions: rare as u64,
        start_only_functions: of.start.len() as u64,
        background_functions: of.background,
        interrupts: figure(of.interrupts.iter().copied()),
        contexts: contexts(serve, &of.interrupts),
        code: info.code,
        executed_bytes_per_request: None,
        held_out: completeness.held_out,
        components: top,
        components_total,
        start_only: start_top,
        start_only_total,
    };
    Assessed { result, sums, completeness }
}

fn figure<'a>(seen: impl IntoIterator<Item = &'a Seen<'a>>) -> Figure {
    let sums = Sums::of(seen);
    Figure { functions: sums.functions, bytes: sums.bytes }
}

/// Functions by context, unless the instrument tells no contexts apart.
fn contexts(serve: &[&Seen<'_>], interrupts: &[&Seen<'_>]) -> Vec<ContextResult> {
    let all = || serve.iter().chain(interrupts).copied();
    if all().all(|s| s.contexts == [Context::Any]) {
        return Vec::new();
    }
    let of = |&context: &Context| {
        let Figure { functions, bytes } = figure(all().filter(|s| s.contexts.contains(&context)));
        ContextResult { context, functions, bytes }
    };
    Context::ALL.iter().map(of).filter(|c| c.functions > 0).collect()
}

/// Sum, coverage and unseen functions of the layers that are asked for.
fn total(
    layers: &[Assessed],
    wanted: impl Fn(&LayerResult) -> bool,
) -> (Sums, Option<f64>, Option<f64>) {
    let mut sums = Sums::default();
    let mut parts = Vec::new();
    for l in layers.iter().filter(|l| wanted(&l.result)) {
        sums.merge(l.sums);
        if l.sums.functions > 0 {
            parts.push(&l.completeness);
        }
    }
    let (coverage, unseen) = complete::pooled(&parts);
    (sums, coverage, unseen)
}

fn vap(layers: &[Assessed]) -> Vap {
    let (all, coverage, unseen) = total(layers, |_| true);
    let (tenant, ..) = total(layers, |l| l.owner == Owner::Tenant);
    let (provider, ..) = total(layers, |l| l.owner == Owner::Provider);
    Vap {
        functions: all.functions,
        bytes: all.bytes,
        covered_bytes: all.covered,
        tenant_functions: tenant.functions,
        provider_functions: provider.functions,
        tenant_bytes: tenant.bytes,
        provider_bytes: provider.bytes,
        tenant_covered_bytes: tenant.covered,
        provider_covered_bytes: provider.covered,
        tenant_share: share(tenant.functions, all.functions),
        tenant_share_covered: tenant.covered.zip(all.covered).and_then(|(t, a)| share(t, a)),
        coverage,
        unseen,
    }
}

fn hap(layers: &[Assessed], selection: &Selection<'_>) -> Hap {
    let (sums, coverage, unseen) = total(layers, |l| l.shared);
    let shared = |layer| layers.iter().any(|l| l.result.shared && l.result.name == layer);
    Hap {
        exercised_functions: sums.functions,
        exercised_bytes: sums.bytes,
        exercised_covered_bytes: sums.covered,
        probed_functions: selection
            .probed
            .as_ref()
            .map(|probed| probed.iter().filter(|u| shared(u.layer)).count() as u64),
        reachable_functions: None,
        coverage,
        unseen,
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn own_notes(profile: &Profile, selection: &Selection<'_>, trust: &Trust) -> Vec<String> {
    let mut notes = Vec::new();
    if let Trust::Withheld(why) = trust {
        notes.push(format!("No completeness is given: {why}."));
    }
    if selection.cut {
        notes.push(
            "The live instrument watches a function until it was seen in three windows: `seen` rests \
             on these and is a lower bound, contexts are those of these windows, and how many bytes \
             of a function were executed is not known."
                .into(),
        );
    }
    if !selection.interrupts.is_empty() {
        notes.push(format!(
            "{} functions were seen in interrupts only. They stand beside VAP and HAP and are part \
             of neither: an interrupt runs on the service's CPU, for whomever.",
            selection.interrupts.len()
        ));
    }
    if selection.lost_events > 0 {
        notes.push(format!(
            "The instrument lost {} events while serving: every figure is a lower bound.",
            selection.lost_events
        ));
    }
    if let Some(load) = profile.manifest.load.as_ref().filter(|l| l.errors > 0) {
        notes.push(format!(
            "{} of {} requests failed: the figures include the code of failure.",
            load.errors, load.requests
        ));
    }
    notes
}
