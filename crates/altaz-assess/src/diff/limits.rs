//! What limits a conclusion from two profiles: what they differ in besides the code, and what their
//! instruments cannot see.

use altaz_profile::ops::{Aspect, Inconclusive, differing};
use altaz_profile::results::diff::DiffLimit;
use altaz_profile::{BlindSpot, InstrumentKind, Manifest, Phase};

use super::Side;

/// Every limit, the most important first.
pub(super) fn limits(a: &Side<'_>, b: &Side<'_>) -> Vec<DiffLimit> {
    let mut limits = Vec::new();
    for (name, side, list) in [("A", a, "new"), ("B", b, "gone")] {
        if let Err(why) = &side.watch {
            limits.push(said(
                if matches!(why, Inconclusive::Calibration(_)) { "calibration" } else { "windows" },
                format!(
                    "Nothing can be concluded from a function that is {list}: {name} may have \
                     missed it, for {why}."
                ),
            ));
        }
    }
    for d in differing(a.profile(), b.profile()) {
        limits.push(DiffLimit {
            about: d.aspect.as_str().into(),
            a: d.left,
            b: d.right,
            means: means(d.aspect, a.phase),
        });
    }
    instruments(&mut limits, a, b);
    for (name, side) in [("A", a), ("B", b)] {
        lost(&mut limits, name, side);
    }
    let known = [a, b].map(|side| !side.profile().manifest.posture.is_empty());
    if known[0] != known[1] {
        let which = if known[0] { "A" } else { "B" };
        limits.push(said(
            "posture",
            format!("Only {which} says what the processes may do: that is not compared."),
        ));
    }
    limits
}

fn said(about: &str, means: String) -> DiffLimit {
    DiffLimit { about: about.into(), a: String::new(), b: String::new(), means }
}

fn means(aspect: Aspect, phase: Phase) -> String {
    match aspect {
        Aspect::Service => "Two services: what is new or gone is what one of them does.".into(),
        Aspect::Load => "What is new or gone may be the load's and not the change's.".into(),
        Aspect::Image => "What is new or gone may come from the service's image.".into(),
        Aspect::Instrument => {
            "One instrument sees what the other cannot: only what both can see is judged.".into()
        }
        Aspect::Phase => format!("The {phase} phase is compared, which both have."),
        Aspect::Architecture => {
            "Two architectures: functions are matched by name, and sizes mean little.".into()
        }
        Aspect::Deployment | Aspect::Layers => {
            "What is new or gone may be the deployment's and not the service's.".into()
        }
        Aspect::Kernel => {
            "Two kernels: their functions are matched by name, `rebuilt`; what is new or gone may \
             be the kernel's."
                .into()
        }
        Aspect::Cpu => "Code that is chosen by the CPU's features may differ.".into(),
        Aspect::InstrumentSettings => {
            "The instruments were set differently, which may show in what they saw.".into()
        }
        _ => "The recordings differ in this.".into(),
    }
}

/// What live instruments cannot see.
fn instruments(limits: &mut Vec<DiffLimit>, a: &Side<'_>, b: &Side<'_>) {
    let live = |side: &Side<'_>| side.profile().manifest.instrument.kind == InstrumentKind::Live;
    for (name, side, other) in [("A", a, b), ("B", b, a)] {
        if !live(side) {
            continue;
        }
        let manifest = &side.profile().manifest;
        let (functions, sized) = not_traceable(manifest);
        if !live(other) {
            let size = if sized {
                format!(", {functions} functions of its kernel")
            } else {
                String::new()
            };
            limits.push(said(
                "not-traceable",
                format!(
                    "{name} is a live recording: it cannot see functions that cannot be traced{size}. \
                     What only the exact instrument saw is `not-observable`, never new or gone."
                ),
            ));
        }
        limits.push(said(
            "three windows",
            format!(
                "{name} is a live recording: it watches a function until it was seen in three \
                 windows. A function that it first saw late cannot be told from one that ran by \
                 chance, however often it ran afterwards."
            ),
        ));
    }
}

/// Functions that the blind spots call not traceable, and whether any of them has a number.
fn not_traceable(manifest: &Manifest) -> (u64, bool) {
    let spots = manifest.blind_spots.iter().filter(|s: &&BlindSpot| s.kind == "not-traceable");
    let known: Vec<u64> = spots.filter_map(|s| s.functions).collect();
    (known.iter().fold(0, |sum: u64, n| sum.saturating_add(*n)), !known.is_empty())
}

fn lost(limits: &mut Vec<DiffLimit>, name: &str, side: &Side<'_>) {
    let of_phase = side.profile().manifest.windows.iter().filter(|w| w.phase == side.phase);
    let losing = of_phase.clone().filter(|w| w.lost_events > 0).count();
    let events = of_phase.fold(0_u64, |sum, w| sum.saturating_add(w.lost_events));
    if losing > 0 && side.watch.is_ok() {
        limits.push(said(
            "lost events",
            format!(
                "{name} lost {events} events in {losing} of its windows: these count as not watched."
            ),
        ));
    }
}
