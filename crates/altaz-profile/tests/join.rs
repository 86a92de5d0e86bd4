//! The two sides of a guest as one profile.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use altaz_profile::ops::{JoinError, join, without_guest};
use altaz_profile::{
    BlindSpot, Context, InstrumentKind, Layer, LayerInfo, MachineClock, Owner, Phase, Profile,
    Window,
};

const SECOND: u64 = 1_000_000_000;

fn info(name: Layer, owner: Owner, shared: bool) -> LayerInfo {
    LayerInfo { name, owner, shared, ownership_moved: false, code: None }
}

/// A recording of ten windows of a second, whose kernel functions were seen in these windows.
fn recording(deployment: &str, realtime_s: u64, layers: Vec<LayerInfo>, seen: &[u32]) -> Profile {
    let mut p = common::profile(6);
    p.manifest.instrument.kind = InstrumentKind::Live;
    p.manifest.deployment = deployment.into();
    p.manifest.layers = layers;
    p.manifest.boundaries.truncate(1);
    p.manifest.boundaries[0].from = Layer::App;
    p.manifest.boundaries[0].to = Layer::HostKernel;
    p.manifest.boundaries[0].name = "syscall".into();
    p.manifest.windows = (0..10)
        .map(|i| Window {
            phase: Phase::Serve,
            start_ns: i * SECOND,
            end_ns: (i + 1) * SECOND,
            lost_events: 1,
        })
        .collect();
    p.manifest.clock = Some(MachineClock {
        realtime_ns: realtime_s * SECOND,
        monotonic_ns: 5,
        ahead_of_host_ns: None,
        uncertain_ns: None,
    });
    for (i, u) in p.units.iter_mut().enumerate() {
        u.layer = Layer::HostKernel;
        u.binary = "kernel".into();
        u.offset = 100 * i as u64;
        u.phase = Phase::Serve;
        u.context = Context::Task;
        u.covered = None;
        u.windows = seen.to_vec();
        u.first_window = seen[0];
    }
    p
}

fn host() -> Profile {
    let layers = vec![
        info(Layer::App, Owner::Tenant, false),
        info(Layer::GuestKernel, Owner::Tenant, false),
        info(Layer::Vmm, Owner::Provider, false),
        info(Layer::HostKernel, Owner::Provider, true),
    ];
    let mut p = recording("qemu-microvm", 1_000, layers, &[0, 1, 9]);
    p.manifest.boundaries[0].from = Layer::Vmm;
    p.manifest.blind_spots = vec![BlindSpot {
        layer: Some(Layer::GuestKernel),
        kind: "guest-code".into(),
        what: "cannot be seen".into(),
        bytes: None,
        functions: None,
    }];
    p
}

fn guest(deployment: &str, realtime_s: u64) -> Profile {
    let layers =
        vec![info(Layer::App, Owner::Tenant, false), info(Layer::HostKernel, Owner::Tenant, false)];
    recording(deployment, realtime_s, layers, &[0, 2])
}

#[test]
fn the_guest_s_kernel_is_the_guest_kernel_and_its_windows_are_the_host_s() {
    // The guest's recording began four seconds later.
    let joined = join(&host(), &guest("process", 1_004)).unwrap();
    let of = |layer| joined.units.iter().filter(move |u| u.layer == layer);
    assert_eq!((of(Layer::HostKernel).count(), of(Layer::GuestKernel).count()), (6, 6));
    assert!(of(Layer::GuestKernel).all(|u| u.windows == [4, 6]));
    assert_eq!(joined.manifest.windows.len(), 10);
    assert_eq!(joined.manifest.windows[4].lost_events, 2, "both sides' losses");
    assert_eq!(joined.manifest.windows[3].lost_events, 1);
    assert!(joined.manifest.blind_spots.iter().all(|b| b.kind != "guest-code"));
    let sides: Vec<_> = joined.manifest.boundaries.iter().map(|b| (b.from, b.to)).collect();
    assert_eq!(sides, [(Layer::Vmm, Layer::HostKernel), (Layer::App, Layer::GuestKernel)]);
    // It is a file like any other.
    let bytes = altaz_profile::file::to_bytes(&joined).unwrap();
    assert_eq!(altaz_profile::file::from_bytes(&bytes).unwrap(), joined);
}

#[test]
fn a_guest_clock_that_is_ahead_is_put_right_where_the_guest_could_measure_it() {
    let mut ahead = guest("process", 1_304);
    ahead.manifest.clock.as_mut().unwrap().ahead_of_host_ns = Some(300 * SECOND as i64);
    let joined = join(&host(), &ahead).unwrap();
    let unit = joined.units.iter().find(|u| u.layer == Layer::GuestKernel).unwrap();
    assert_eq!(unit.windows, [4, 6]);
    ahead.manifest.clock.as_mut().unwrap().ahead_of_host_ns = None;
    let error = join(&host(), &ahead).unwrap_err();
    assert!(error.to_string().contains("from 304.0 s to 314.0 s"), "{error}");
}

#[test]
fn what_the_guest_saw_outside_the_host_s_recording_is_left_out_and_said() {
    let joined = join(&host(), &guest("process", 1_008)).unwrap();
    // Its window 0 is the host's 8, its window 2 lies behind the end.
    assert!(
        joined.units.iter().filter(|u| u.layer == Layer::GuestKernel).all(|u| u.windows == [8])
    );
    assert!(joined.manifest.notes.last().unwrap().contains("2 of its 10 windows"));
}

#[test]
fn containers_in_a_guest_hand_its_kernel_back_to_the_tenant() {
    let joined = join(&host(), &guest("runc", 1_000)).unwrap();
    assert_eq!(joined.manifest.deployment, "runc-in-qemu-microvm");
    let kernel = joined.manifest.layers.iter().find(|l| l.name == Layer::GuestKernel).unwrap();
    assert_eq!((kernel.owner, kernel.ownership_moved), (Owner::Tenant, true));
}

#[test]
fn a_lost_guest_keeps_the_host_s_side_and_marks_it() {
    let alone = without_guest(&host(), "the file is damaged").unwrap();
    assert_eq!(alone.units, host().units);
    assert!(alone.manifest.notes.last().unwrap().contains("the file is damaged"));
    assert_eq!(alone.manifest.blind_spots[0].kind, "guest-lost");
}

#[test]
fn what_are_no_two_sides_of_a_guest_is_refused_with_the_reason() {
    let no_guest = guest("process", 1_000);
    assert_eq!(join(&no_guest, &no_guest), Err(JoinError::NoGuest("process".into())));
    let mut exact = host();
    exact.manifest.instrument.kind = InstrumentKind::Exact;
    assert_eq!(join(&exact, &no_guest), Err(JoinError::Exact("host's")));
    let mut old = guest("process", 1_000);
    old.manifest.clock = None;
    assert_eq!(join(&host(), &old), Err(JoinError::NoClock("guest's")));
}
