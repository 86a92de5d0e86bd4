//! Both sides of a guest's boundary as one profile: a recording made on the host, and one made inside
//! the guest at the same time.
//!
//! The two have clocks of their own. What a clock showed when each recording began is in the
//! manifests; with the guest's distance from the host's clock (measured in the guest where it has a
//! clock of the host's, else taken for zero, and said) every window of the guest is put into the
//! window of the host that it lies in or next to. The joined profile has the host's windows only, so
//! that completeness means the same for every layer.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    Boundary, Calibration, Evidence, InstrumentKind, Layer, LayerInfo, Owner, Phase, Profile, Unit,
    Window,
};

/// Why two recordings are not the two sides of a guest.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The host's recording knows no guest.
    #[error(
        "the recording of `{0}` is not one of a virtual machine seen from its host: it has no layer \
         guest-kernel"
    )]
    NoGuest(String),
    /// Made from outside: nothing to join.
    #[error(
        "the {0} recording is of the exact instrument, which sees both sides of the boundary already"
    )]
    Exact(&'static str),
    /// Recorded before clocks were kept.
    #[error(
        "the {0} recording does not say what its clock showed; record it again with this altaz"
    )]
    NoClock(&'static str),
    /// Nothing in common.
    #[error(
        "the two recordings were not made at the same time: the guest's runs from {from_s:.1} s to \
         {to_s:.1} s of the host's, which is {host_s:.1} s long"
    )]
    Apart {
        /// Begin of the guest's recording in the host's, seconds.
        from_s: f64,
        /// Its end.
        to_s: f64,
        /// Length of the host's recording, seconds.
        host_s: f64,
    },
}

/// Joins the recordings of the two sides.
///
/// # Errors
/// When they are not two live recordings of one guest made at the same time.
pub fn join(host: &Profile, guest: &Profile) -> Result<Profile, JoinError> {
    sides(host, guest)?;
    let shift = shift(host, guest)?;
    let places = places(&host.manifest.windows, &guest.manifest.windows, shift);
    if places.is_empty() {
        return Err(apart(host, guest, shift));
    }
    let mut joined = host.clone();
    let dropped = units(&mut joined, guest, &places);
    let manifest = &mut joined.manifest;
    let lost = guest.manifest.windows.iter().enumerate();
    for (i, w) in lost {
        if let Some(to) =
            places.get(&(i as u32)).and_then(|w| manifest.windows.get_mut(*w as usize))
        {
            to.lost_events = to.lost_events.saturating_add(w.lost_events);
        }
    }
    layers(&mut manifest.layers, guest);
    boundaries(&mut manifest.boundaries, &guest.manifest.boundaries);
    manifest.blind_spots.retain(|b| b.kind != "guest-code");
    manifest.blind_spots.extend(guest.manifest.blind_spots.iter().map(|b| {
        let mut b = b.clone();
        b.layer = b.layer.map(inside);
        b
    }));
    manifest.posture.extend(guest.manifest.posture.iter().cloned());
    manifest.calibration = calibration(&manifest.calibration, &guest.manifest.calibration);
    if guest.manifest.deployment != "process" {
        manifest.deployment = format!("{}-in-{}", guest.manifest.deployment, manifest.deployment);
    }
    manifest.service.clone_from(&guest.manifest.service);
    manifest.image_id.clone_from(&guest.manifest.image_id);
    manifest.load = guest.manifest.load.clone().or_else(|| manifest.load.take());
    let own = guest.manifest.notes.iter().map(|n| format!("in the guest: {n}"));
    let own: Vec<String> = own.collect();
    manifest.notes.extend(own);
    manifest.notes.push(about_clocks(guest, shift, places.len(), dropped));
    Ok(joined)
}

/// The host's side alone, marked: the guest's recording was lost.
///
/// # Errors
/// When the recording is not one of a guest.
pub fn without_guest(host: &Profile, why: &str) -> Result<Profile, JoinError> {
    has_guest(host)?;
    let mut alone = host.clone();
    alone.manifest.notes.push(format!(
        "the guest's side is missing, and only the host's is shown: {why}; figures of the guest's \
         layers are unknown, not zero"
    ));
    for spot in alone.manifest.blind_spots.iter_mut().filter(|b| b.kind == "guest-code") {
        spot.kind = "guest-lost".into();
    }
    Ok(alone)
}

fn has_guest(host: &Profile) -> Result<(), JoinError> {
    let guest = host.manifest.layers.iter().any(|l| l.name == Layer::GuestKernel);
    guest.then_some(()).ok_or_else(|| JoinError::NoGuest(host.manifest.deployment.clone()))
}

fn sides(host: &Profile, guest: &Profile) -> Result<(), JoinError> {
    has_guest(host)?;
    for (profile, side) in [(host, "host's"), (guest, "guest's")] {
        if profile.manifest.instrument.kind == InstrumentKind::Exact {
            return Err(JoinError::Exact(side));
        }
    }
    Ok(())
}

/// Nanoseconds to add to a time of the guest's recording to get the time of the host's.
fn shift(host: &Profile, guest: &Profile) -> Result<i128, JoinError> {
    let h = host.manifest.clock.as_ref().ok_or(JoinError::NoClock("host's"))?;
    let g = guest.manifest.clock.as_ref().ok_or(JoinError::NoClock("guest's"))?;
    let ahead = g.ahead_of_host_ns.unwrap_or(0);
    Ok(i128::from(g.realtime_ns) - i128::from(ahead) - i128::from(h.realtime_ns))
}

fn at(ns: u64, shift: i128) -> i128 {
    i128::from(ns) + shift
}

/// For each window of the guest the window of the host that it lies in or next to, of the same phase;
/// windows of the guest outside the host's recording have none.
fn places(host: &[Window], guest: &[Window], shift: i128) -> BTreeMap<u32, u32> {
    let (Some(begin), Some(end)) = (
        host.iter().map(|w| i128::from(w.start_ns)).min(),
        host.iter().map(|w| i128::from(w.end_ns)).max(),
    ) else {
        return BTreeMap::new();
    };
    let mut places = BTreeMap::new();
    for (i, w) in guest.iter().enumerate() {
        let middle = (at(w.start_ns, shift) + at(w.end_ns, shift)) / 2;
        if !(begin..=end).contains(&middle) {
            continue;
        }
        let distance = |h: &Window| {
            let (from, to) = (i128::from(h.start_ns), i128::from(h.end_ns));
            if middle < from { from - middle } else { (middle - to).max(0) }
        };
        let same_phase = host.iter().enumerate().filter(|(_, h)| h.phase == w.phase);
        if let Some((to, _)) = same_phase.min_by_key(|(_, h)| distance(h)) {
            places.insert(i as u32, to as u32);
        }
    }
    places
}

fn apart(host: &Profile, guest: &Profile, shift: i128) -> JoinError {
    let seconds = |ns: i128| ns as f64 / 1e9;
    let windows = &guest.manifest.windows;
    let from = windows.iter().map(|w| at(w.start_ns, shift)).min().unwrap_or(shift);
    let to = windows.iter().map(|w| at(w.end_ns, shift)).max().unwrap_or(shift);
    let host_end = host.manifest.windows.iter().map(|w| w.end_ns).max().unwrap_or(0);
    JoinError::Apart {
        from_s: seconds(from),
        to_s: seconds(to),
        host_s: seconds(i128::from(host_end)),
    }
}

/// Layer of the guest's code as the host calls it.
fn inside(layer: Layer) -> Layer {
    match layer {
        Layer::HostKernel => Layer::GuestKernel,
        Layer::HostService => Layer::GuestUserland,
        other => other,
    }
}

/// Adds the guest's rows; returns how many were seen only outside the host's recording.
fn units(joined: &mut Profile, guest: &Profile, places: &BTreeMap<u32, u32>) -> usize {
    // Both kernels' functions have the same names and offsets, and are told apart by their layer.
    let mut rows: Vec<Unit> = Vec::with_capacity(guest.units.len());
    let mut dropped = 0;
    for unit in &guest.units {
        let windows: BTreeSet<u32> =
            unit.windows.iter().filter_map(|w| places.get(w)).copied().collect();
        let Some(&first) = windows.first() else {
            dropped += 1;
            continue;
        };
        rows.push(Unit {
            layer: inside(unit.layer),
            first_window: first,
            windows: windows.into_iter().collect(),
            ..unit.clone()
        });
    }
    let key = |u: &Unit| {
        (u.layer, u.binary.clone(), u.build_id.clone(), u.offset, u.phase, u.context, u.evidence)
    };
    let have: BTreeSet<(Layer, _, _, u64, Phase, _, Evidence)> =
        joined.units.iter().map(key).collect();
    joined.units.extend(rows.into_iter().filter(|u| !have.contains(&key(u))));
    dropped
}

/// The guest's layers become the host's view of them: what the guest has and the host did not know
/// of is added; a guest that runs somebody's containers has its kernel handed back to the tenant.
fn layers(layers: &mut Vec<LayerInfo>, guest: &Profile) {
    for info in &guest.manifest.layers {
        let name = inside(info.name);
        match layers.iter_mut().find(|l| l.name == name) {
            Some(known) => known.code = info.code,
            None => layers.push(LayerInfo {
                name,
                owner: Owner::Tenant,
                shared: false,
                ownership_moved: false,
                code: info.code,
            }),
        }
    }
    let nested = guest.manifest.deployment != "process";
    for l in layers.iter_mut().filter(|l| l.name == Layer::GuestKernel) {
        l.ownership_moved |= nested && l.owner == Owner::Tenant;
    }
    layers.sort_by_key(|l| l.name);
}

fn boundaries(host: &mut Vec<Boundary>, guest: &[Boundary]) {
    for b in guest {
        let b = Boundary { from: inside(b.from), to: inside(b.to), ..b.clone() };
        let same = |h: &Boundary| h.name == b.name && h.from == b.from && h.to == b.to;
        match host.iter_mut().find(|h| same(h)) {
            Some(known) => *known = b,
            None => host.push(b),
        }
    }
}

/// Known calls of both sides; one side that does not reconcile is not outweighed by the other.
fn calibration(a: &Option<Calibration>, b: &Option<Calibration>) -> Option<Calibration> {
    let (a, b) = (a.as_ref()?, b.as_ref()?);
    let wrong = [a, b].into_iter().find(|c| !c.reconciles());
    Some(wrong.cloned().unwrap_or_else(|| Calibration {
        what: a.what.clone(),
        made: a.made.saturating_add(b.made),
        counted: a.counted.saturating_add(b.counted),
    }))
}

fn about_clocks(guest: &Profile, shift: i128, placed: usize, dropped: usize) -> String {
    let clock = guest.manifest.clock.as_ref();
    let distance = match clock.and_then(|c| c.ahead_of_host_ns) {
        Some(ns) => format!(
            "the guest's clock is {:.3} ms ahead of the host's, as the guest measured it",
            ns as f64 / 1e6
        ),
        None => {
            "the guest's clock is taken for the host's: the guest had no way to measure how far \
                 they are apart"
                .to_owned()
        }
    };
    format!(
        "joined from two recordings; {distance}; the guest's began {:.3} s after the host's; {placed} \
         of its {} windows lie in the host's recording; {dropped} of its rows were seen outside of it \
         only and are left out; the guest's kernel is {}",
        shift as f64 / 1e9,
        guest.manifest.windows.len(),
        guest.manifest.host.kernel
    )
}
