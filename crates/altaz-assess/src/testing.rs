//! Small profiles for this crate's tests.

use altaz_profile::{
    Calibration, Context, Evidence, Host, Instrument, InstrumentKind, Layer, LayerInfo,
    LoadSummary, Manifest, Owner, Phase, Profile, SCHEMA, Unit, Window,
};

/// A function seen while serving, 100 bytes of which 40 were executed.
pub fn unit(layer: Layer, binary: &str, offset: u64, windows: &[u32]) -> Unit {
    Unit {
        layer,
        binary: binary.into(),
        build_id: None,
        symbol: format!("function_{offset}").into(),
        offset,
        size: 100,
        covered: Some(40),
        file: None,
        line: None,
        phase: Phase::Serve,
        context: Context::Any,
        first_window: windows[0],
        windows: windows.to_vec(),
        evidence: Evidence::Exercised,
    }
}

/// A profile without functions: window 0 idle, windows 1 to 40 serve; app (tenant), guest kernel
/// (tenant), host kernel (provider, shared).
pub fn profile() -> Profile {
    let layer =
        |name, owner, shared| LayerInfo { name, owner, shared, ownership_moved: false, code: None };
    let window = |phase, i: u64| Window {
        phase,
        start_ns: i * 500_000_000,
        end_ns: (i + 1) * 500_000_000,
        lost_events: 0,
    };
    let mut windows = vec![window(Phase::Idle, 0)];
    windows.extend((1..=40).map(|i| window(Phase::Serve, i)));
    Profile {
        manifest: Manifest {
            schema: SCHEMA.into(),
            tool_version: "0.1.0".into(),
            recorded_at: "2026-01-02T03:04:05Z".into(),
            service: "web".into(),
            deployment: "runc".into(),
            instrument: Instrument { kind: InstrumentKind::Exact, detail: "test".into() },
            host: Host {
                kernel: "6.12.0".into(),
                arch: "x86_64".into(),
                cpu: "test".into(),
                cpus: 2,
            },
            image_id: "image".into(),
            layers: vec![
                layer(Layer::App, Owner::Tenant, false),
                layer(Layer::GuestKernel, Owner::Tenant, false),
                layer(Layer::HostKernel, Owner::Provider, true),
            ],
            boundaries: vec![],
            windows,
            load: Some(LoadSummary {
                description: "POST /visit, 10/s".into(),
                requests: 400,
                errors: 0,
                p50_ms: Some(30.0),
                p99_ms: Some(50.0),
                rate: Some(10.0),
                ready_s: Some(5.0),
            }),
            blind_spots: vec![],
            calibration: Some(Calibration { what: "getppid".into(), made: 1000, counted: 1000 }),
            clock: None,
            posture: vec![],
            packages: vec![],
            reachable: vec![],
            kinds: vec![],
            work: vec![],
            notes: vec![],
        },
        units: vec![],
    }
}
