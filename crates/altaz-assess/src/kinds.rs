//! Requests of one kind apart from the others: the figures of the windows in which only they were made.

use std::collections::HashMap;

use altaz_profile::results::{KindLayer, KindResult};
use altaz_profile::{KindOfLoad, Phase, Profile, Unit};

use crate::Options;
use crate::assess::assess;
use crate::error::AssessError;
use crate::select::{Key, key, select};

/// The figures of each kind of request; none where kinds were not made apart.
///
/// # Errors
/// As [`assess`]: a kind of which nothing was seen is no success either.
pub fn kinds(profile: &Profile) -> Result<Vec<KindResult>, AssessError> {
    let kinds = &profile.manifest.kinds;
    let apart: Vec<Profile> = kinds.iter().map(|k| only(profile, k)).collect();
    // In how many kinds each function was seen.
    let mut seen_in: HashMap<Key<'_>, u32> = HashMap::new();
    for profile in &apart {
        for seen in select(profile).serve {
            *seen_in.entry(key(seen.unit)).or_default() += 1;
        }
    }
    let mut results = Vec::new();
    for (kind, profile) in kinds.iter().zip(&apart) {
        let result = assess(profile, &Options { components: 0 })?;
        let own = |unit: &Unit| seen_in.get(&key(unit)) == Some(&1);
        let selection = select(profile);
        results.push(KindResult {
            name: kind.name.clone(),
            load: kind.load.clone(),
            layers: result
                .layers
                .iter()
                .map(|l| KindLayer {
                    name: l.name,
                    functions: l.functions,
                    bytes: l.bytes,
                    coverage: l.coverage,
                    own_functions: selection
                        .serve
                        .iter()
                        .filter(|s| s.unit.layer == l.name && own(s.unit))
                        .count() as u64,
                })
                .collect(),
            vap: result.vap,
            hap: result.hap,
        });
    }
    Ok(results)
}

/// The recording as if only this kind had been asked. Executed bytes are those of the whole serve
/// phase and are left out.
fn only(profile: &Profile, kind: &KindOfLoad) -> Profile {
    let own = kind.first_window..kind.end_window;
    let mut manifest = profile.manifest.clone();
    for (index, window) in (0..).zip(&mut manifest.windows) {
        if window.phase == Phase::Serve && !own.contains(&index) {
            window.phase = Phase::Stop;
        }
    }
    manifest.kinds.clear();
    manifest.work.clear();
    manifest.load = Some(kind.load.clone());
    let units = profile
        .units
        .iter()
        .filter(|u| u.phase == Phase::Serve)
        .filter_map(|u| {
            let windows: Vec<u32> = u.windows.iter().copied().filter(|w| own.contains(w)).collect();
            let first_window = *windows.first()?;
            Some(Unit { windows, first_window, covered: None, ..u.clone() })
        })
        .collect();
    Profile { manifest, units }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{profile, unit};
    use altaz_profile::Layer;

    fn kind(name: &str, first_window: u32, end_window: u32) -> KindOfLoad {
        let load = profile().manifest.load.unwrap();
        KindOfLoad { name: name.into(), load, first_window, end_window }
    }

    #[test]
    fn each_kind_has_the_functions_of_its_own_windows_and_knows_which_are_its_alone() {
        let mut p = profile();
        p.manifest.kinds = vec![kind("read", 1, 21), kind("write", 21, 41)];
        p.units = vec![
            unit(Layer::HostKernel, "kernel", 1, &(1..=40).collect::<Vec<_>>()),
            unit(Layer::HostKernel, "kernel", 2, &[22, 23]),
            unit(Layer::App, "/a", 3, &[20]),
        ];
        let k = kinds(&p).unwrap();
        let of = |k: &KindResult, layer| {
            let l = k.layers.iter().find(|l| l.name == layer).unwrap();
            (l.functions, l.own_functions)
        };
        assert_eq!((of(&k[0], Layer::HostKernel), of(&k[0], Layer::App)), ((1, 0), (1, 1)));
        assert_eq!((of(&k[1], Layer::HostKernel), of(&k[1], Layer::App)), ((2, 1), (0, 0)));
        assert_eq!(k[1].hap.unwrap().exercised_functions, 2);
        assert_eq!(k[0].vap.unwrap().covered_bytes, None, "known of all kinds together only");
    }

    #[test]
    fn a_recording_of_one_kind_has_none_apart() {
        let mut p = profile();
        p.units = vec![unit(Layer::App, "/a", 1, &[1])];
        assert_eq!(kinds(&p).unwrap(), []);
    }
}
