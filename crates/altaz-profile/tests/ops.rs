//! Profiles as sets: what is the same, new, gone, mergeable and comparable.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use altaz_profile::completeness::{layer_estimates, lost_events};
use altaz_profile::ops::*;
use altaz_profile::*;

/// A profile of only these units, each in these serve windows (numbered from 0).
fn of(units: &[(u64, &[u32])]) -> Profile {
    let units = units.iter().map(|&(number, windows)| {
        let windows: Vec<u32> = windows.iter().map(|w| w + common::SERVE).collect();
        Unit {
            offset: number,
            layer: Layer::HostKernel,
            binary: "kernel".into(),
            build_id: None,
            phase: Phase::Serve,
            context: Context::Any,
            first_window: windows[0],
            windows,
            ..common::unit(0)
        }
    });
    Profile { manifest: common::manifest(), units: units.collect() }
}

#[test]
fn similarity_is_shared_units_over_all_units() {
    let (a, b) = (of(&[(1, &[0]), (2, &[0]), (3, &[0])]), of(&[(2, &[5]), (3, &[1]), (4, &[1])]));
    assert_eq!(jaccard(&a, &b, Phase::Serve), Some(0.5));
    assert_eq!(jaccard(&a, &a, Phase::Serve), Some(1.0));
    assert_eq!(jaccard(&a, &of(&[]), Phase::Serve), Some(0.0));
    assert_eq!(jaccard(&of(&[]), &of(&[]), Phase::Serve), None);
    assert_eq!(jaccard(&a, &b, Phase::Start), None);
}

#[test]
fn names_do_not_make_units_the_same_and_contexts_do_not_make_them_different() {
    let a = of(&[(1, &[0]), (2, &[0])]);
    let mut b = a.clone();
    b.units[0].symbol = "renamed".into();
    b.units[1].context = Context::Softirq;
    assert_eq!(jaccard(&a, &b, Phase::Serve), Some(1.0));
    b.units[1].build_id = Some("beef".into());
    assert_eq!(jaccard(&a, &b, Phase::Serve), Some(1.0 / 3.0));
    let mut background = a.clone();
    background.units[0].context = Context::Background;
    assert_eq!(jaccard(&a, &background, Phase::Serve), Some(0.5));
}

#[test]
fn rare_units_are_left_out_of_the_steady_similarity_and_the_threshold_is_no_cliff() {
    let often: &[u32] = &[0, 10, 20, 30, 40, 50];
    // Six of 120 windows together are 5 %.
    let a = of(&[(1, often), (2, &[0, 1, 2, 3]), (3, &[7]), (4, often)]);
    let b = of(&[(1, often), (2, &[0, 1]), (5, &[9])]);
    // Unit 2 is under 5 % in b alone, over it in a; both have it. Unit 4 only a has.
    assert_eq!(jaccard_frequent(&a, &b, Phase::Serve, 0.05), Some(2.0 / 3.0));
    assert_eq!(jaccard_frequent(&b, &a, Phase::Serve, 0.05), Some(2.0 / 3.0));
    assert_eq!(jaccard_frequent(&a, &b, Phase::Serve, 0.0), jaccard(&a, &b, Phase::Serve));
    assert_eq!(jaccard_frequent(&a, &b, Phase::Serve, 0.9), None);
}

fn offsets(only: &[Only<'_>]) -> Vec<u64> {
    only.iter().map(|o| o.seen.unit.offset).collect()
}

#[test]
fn a_difference_lists_what_is_new_and_gone_by_layer_and_binary() {
    let a = of(&[(1, &[0]), (2, &[0]), (3, &[0])]);
    let mut b = of(&[(2, &[5]), (4, &[1]), (5, &[1])]);
    b.units[2].binary = "[tun]".into();
    let mut twice = b.units[1].clone();
    twice.context = Context::Hardirq;
    twice.windows = vec![common::SERVE + 9];
    b.units.push(twice);
    let diff = diff(&a, &b, Phase::Serve);
    assert_eq!(offsets(&diff.new), [4, 5]);
    assert_eq!(offsets(&diff.gone), [1, 3]);
    assert_eq!((diff.common.len(), diff.rebuilt.len()), (1, 0));
    assert_eq!(diff.new[0].seen.windows, [1, 9].map(|w| w + common::SERVE));
    assert!(!diff.new[0].seen.only_in_interrupts());
    let kernel = DiffCount { new: 1, gone: 2, common: 1, rebuilt: 0 };
    assert_eq!(diff.by_binary()[&(Layer::HostKernel, "kernel".into())], kernel);
    let tun = DiffCount { new: 1, gone: 0, common: 0, rebuilt: 0 };
    assert_eq!(diff.by_binary()[&(Layer::HostKernel, "[tun]".into())], tun);
    let layer = DiffCount { new: 2, gone: 2, common: 1, rebuilt: 0 };
    assert_eq!(diff.by_layer()[&Layer::HostKernel], layer);
}

#[test]
fn what_the_other_profile_saw_as_background_is_not_new_without_a_word() {
    let mut a = of(&[(1, &[0]), (2, &[0])]);
    a.units[0].context = Context::Background;
    let b = of(&[(1, &[0]), (2, &[0]), (3, &[0])]);
    let diff = diff(&a, &b, Phase::Serve);
    assert_eq!(offsets(&diff.new), [1, 3]);
    assert_eq!(diff.new.iter().map(|o| o.background_in_other).collect::<Vec<_>>(), [true, false]);
    let back = ops::diff(&b, &a, Phase::Serve);
    assert_eq!((offsets(&back.gone), back.gone[0].background_in_other), (vec![1, 3], true));
}

/// A kernel of this build, with functions of these names at these offsets.
fn build(build_id: Option<&str>, functions: &[(u64, &str)]) -> Profile {
    let offsets: Vec<(u64, &[u32])> = functions.iter().map(|(o, _)| (*o, &[3_u32][..])).collect();
    let mut profile = of(&offsets);
    for (unit, (_, name)) in profile.units.iter_mut().zip(functions) {
        unit.build_id = build_id.map(Into::into);
        unit.symbol = (*name).into();
    }
    profile
}

fn numbers(a: &Profile, b: &Profile) -> DiffCount {
    diff(a, b, Phase::Serve).by_layer()[&Layer::HostKernel]
}

#[test]
fn functions_of_another_build_are_matched_by_name_and_called_rebuilt() {
    let a = build(Some("aa"), &[(16, "read"), (32, "write.isra.0"), (48, "old"), (64, "")]);
    let b = build(Some("bb"), &[(16, "open"), (40, "read"), (80, "write"), (99, "")]);
    let expected = DiffCount { new: 2, gone: 2, common: 0, rebuilt: 2 };
    assert_eq!(numbers(&a, &b), expected);
    assert_eq!(numbers(&b, &a), expected);
    let diff = diff(&a, &b, Phase::Serve);
    let pairs = diff.rebuilt.iter().map(|p| (p.before.unit.offset, p.after.unit.offset));
    assert_eq!(pairs.collect::<Vec<_>>(), [(16, 40), (32, 80)]);
}

#[test]
fn names_that_repeat_are_matched_as_often_as_both_builds_have_them() {
    let a = build(Some("aa"), &[(1, "helper"), (2, "helper"), (3, "helper")]);
    let b = build(Some("bb"), &[(7, "helper"), (9, "helper")]);
    assert_eq!(numbers(&a, &b), DiffCount { new: 0, gone: 1, common: 0, rebuilt: 2 });
}

#[test]
fn names_do_not_match_functions_of_one_build() {
    let a = build(Some("aa"), &[(1, "helper"), (2, "main")]);
    let b = build(Some("aa"), &[(2, "main"), (3, "helper")]);
    let expected = DiffCount { new: 1, gone: 1, common: 1, rebuilt: 0 };
    assert_eq!(numbers(&a, &b), expected);
    // Without build-ids, what stands at the same offset tells that it is one build.
    let without = |p: &Profile| {
        let mut p = p.clone();
        p.units.iter_mut().for_each(|u| u.build_id = None);
        p
    };
    assert_eq!(numbers(&without(&a), &without(&b)), expected);
    let other = build(None, &[(2, "helper"), (4, "main")]);
    let rebuilt = DiffCount { new: 0, gone: 0, common: 0, rebuilt: 2 };
    assert_eq!(numbers(&without(&a), &other), rebuilt, "another function at the same offset");
}

#[test]
fn a_build_id_that_only_one_profile_knows_does_not_make_two_builds_of_one() {
    let a = build(Some("aa"), &[(1, "helper"), (2, "main")]);
    let b = build(None, &[(1, "helper"), (2, "main"), (3, "new")]);
    assert_eq!(numbers(&a, &b), DiffCount { new: 1, gone: 0, common: 2, rebuilt: 0 });
}

#[test]
fn merged_repeats_number_their_windows_through_and_can_be_written() {
    let (a, mut b) = (common::profile(300), common::profile(300));
    b.units.truncate(200);
    b.units[0].covered = Some(b.units[0].size);
    b.units[1].context = Context::Hardirq;
    b.manifest.windows[common::SERVE as usize].lost_events = 7;
    b.manifest.boundaries[0].entries[1].name = "openat".to_owned();
    let merged = merge(&[&a, &b]).unwrap();
    assert_eq!(merged.manifest.windows.len(), 136);
    assert!(merged.manifest.windows.is_sorted_by_key(|w| w.start_ns));
    assert_eq!(merged.units.len(), 301, "one row more, for the unit in another context");
    assert_eq!(merged.units[0].windows.len(), a.units[0].windows.len() * 2);
    assert_eq!(merged.units[0].covered, b.units[0].covered);
    assert_eq!(merged.manifest.load.as_ref().unwrap().requests, 1200);
    assert_eq!(merged.manifest.calibration.as_ref().unwrap().made, 2000);
    assert_eq!(lost_events(&merged, Phase::Serve), 7);
    let syscalls = &merged.manifest.boundaries[0];
    assert_eq!((syscalls.exercised, syscalls.entries.len()), (Some(3), 3));
    assert_eq!(syscalls.entries[0].count, 2 * 41_234);
    let estimate = layer_estimates(&merged, Phase::Serve)[&Layer::HostKernel];
    assert_eq!(estimate.windows, 120);
    file::from_bytes(&file::to_bytes(&merged).unwrap()).unwrap();
}

#[test]
fn merged_live_repeats_keep_what_each_of_them_permits_and_may_do() {
    let (a, mut b) = (common::live(40), common::live(40));
    b.manifest.posture[0].tgid = 99;
    b.manifest.boundaries[0].permitted_entries[2].conditional = false;
    let name = "bpf".to_owned();
    b.manifest.boundaries[0].permitted_entries.push(PermittedEntry { name, conditional: true });
    let merged = merge(&[&a, &b]).unwrap().manifest;
    assert_eq!(merged.posture, a.manifest.posture, "the same process under another id");
    let boundary = &merged.boundaries[0];
    assert_eq!((boundary.permitted, boundary.permitted_entries.len()), (Some(4), 4));
    assert!(!boundary.permitted_entries[2].conditional, "one of them permits it whatever");
    let calls = boundary.entries[0].by_process.iter().map(|p| p.count).sum::<u64>();
    assert_eq!(calls, boundary.entries[0].count);
    b.manifest.posture[0].seccomp = "none".to_owned();
    assert_eq!(merge(&[&a, &b]).unwrap().manifest.posture.len(), 2);
}

#[test]
fn one_profile_merged_is_itself() {
    let profile = common::profile(100);
    assert_eq!(merge(&[&profile]).unwrap(), profile);
}

#[test]
fn a_calibration_that_does_not_reconcile_is_not_hidden_by_merging() {
    let (mut a, mut b) = (common::profile(9), common::profile(9));
    a.manifest.calibration.as_mut().unwrap().counted += 1;
    b.manifest.calibration.as_mut().unwrap().counted -= 1;
    for pair in [[&a, &b], [&b, &a]] {
        assert!(!merge(&pair).unwrap().manifest.calibration.unwrap().reconciles());
    }
    b.manifest.calibration = None;
    assert_eq!(merge(&[&a, &b]).unwrap().manifest.calibration, None);
}

#[test]
fn what_is_no_repeat_is_not_merged_and_the_error_says_why() {
    assert_eq!(merge(&[]).unwrap_err(), MergeError::Nothing);
    let a = common::profile(9);
    let mut b = a.clone();
    b.manifest.deployment = "runc".to_owned();
    b.manifest.load.as_mut().unwrap().description = "GET /".to_owned();
    let error = merge(&[&a, &a, &b]).unwrap_err().to_string();
    assert!(error.contains("profile 3"), "{error}");
    assert!(error.contains("load: `POST /visit, 10/s, 1 connection` against `GET /`"), "{error}");
    assert!(error.contains("deployment: `runsc-systrap` against `runc`"), "{error}");
}

#[test]
fn profiles_of_two_deployments_are_comparable_and_of_two_loads_or_images_are_not() {
    type Change = fn(&mut Manifest);
    let cases: [(Aspect, bool, Change); 9] = [
        (Aspect::Load, true, |m| m.load = None),
        (Aspect::Image, true, |m| m.image_id = "sha256:1".to_owned()),
        (Aspect::Instrument, true, |m| m.instrument.kind = InstrumentKind::Live),
        (Aspect::Schema, true, |m| m.schema = "altaz.profile/2.0".to_owned()),
        (Aspect::Service, true, |m| m.service = "redis".to_owned()),
        (Aspect::Phase, true, |m| m.windows.retain(|w| w.phase != Phase::Serve)),
        (Aspect::Architecture, true, |m| m.host.arch = "aarch64".to_owned()),
        (Aspect::Kernel, false, |m| m.host.kernel = "6.1.0".to_owned()),
        (Aspect::InstrumentSettings, false, |m| m.instrument.detail = "1 vCPU".to_owned()),
    ];
    let a = common::profile(9);
    assert_eq!(comparability(&a, &a), []);
    for (aspect, forbids, change) in cases {
        let mut b = a.clone();
        change(&mut b.manifest);
        let differences = comparability(&a, &b);
        assert_eq!(differences.len(), 1, "{differences:?}");
        assert_eq!((differences[0].aspect, differences[0].aspect.forbids()), (aspect, forbids));
    }
    let mut b = a.clone();
    b.manifest.deployment = "runc".to_owned();
    b.manifest.layers[0].shared = true;
    b.manifest.schema = "altaz.profile/1.7".to_owned();
    assert_eq!(comparability(&a, &b), [], "deployments are what is compared");
    assert_eq!(differing_for_repeat(&a, &b).len(), 2);
}
