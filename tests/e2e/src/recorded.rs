//! Profiles that tests write themselves: what all of them have in common.

use altaz_profile::*;

/// So many windows of half a second while serving, one after the other.
pub fn windows(number: u32) -> Vec<Window> {
    (0..u64::from(number))
        .map(|i| Window {
            phase: Phase::Serve,
            start_ns: i * 500_000_000,
            end_ns: (i + 1) * 500_000_000,
            lost_events: 0,
        })
        .collect()
}

/// A layer whose ownership has not moved.
pub fn layer(name: Layer, owner: Owner, shared: bool) -> LayerInfo {
    LayerInfo { name, owner, shared, ownership_moved: false, code: None }
}

/// The manifest of a calibrated recording of the service `web` by the exact instrument; without boundaries.
pub fn manifest(deployment: &str, layers: Vec<LayerInfo>, windows: Vec<Window>) -> Manifest {
    Manifest {
        schema: SCHEMA.into(),
        tool_version: "0.1.0".into(),
        recorded_at: "2026-11-24T08:00:00Z".into(),
        service: "web".into(),
        deployment: deployment.into(),
        instrument: Instrument { kind: InstrumentKind::Exact, detail: "test".into() },
        host: Host { kernel: "6.12.0".into(), arch: "x86_64".into(), cpu: "test".into(), cpus: 2 },
        image_id: "image".into(),
        layers,
        boundaries: vec![],
        windows,
        load: None,
        blind_spots: vec![],
        calibration: Some(Calibration { what: "getppid".into(), made: 1000, counted: 1000 }),
        clock: None,
        packages: vec![],
        posture: vec![],
        reachable: vec![],
        kinds: vec![],
        work: vec![],
        notes: vec![],
    }
}
