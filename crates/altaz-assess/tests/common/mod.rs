//! Profiles made of rows that a test describes.

#![allow(dead_code)]

use altaz_profile::*;

/// Windows of the serve phase; window 0 of a profile is idle.
pub const SERVE_WINDOWS: u32 = 40;

/// Rows with offsets that count up, 100 bytes each, 40 of them executed.
pub struct Rows {
    units: Vec<Unit>,
    offset: u64,
}

impl Rows {
    pub fn new() -> Self {
        Self::from(0)
    }

    /// Rows whose offsets start here.
    pub fn from(offset: u64) -> Self {
        Self { units: vec![], offset }
    }

    /// Functions seen in every serve window.
    pub fn seen_always(self, layer: Layer, binary: &str, count: u64) -> Self {
        let all: Vec<u32> = (1..=SERVE_WINDOWS).collect();
        self.seen_in(layer, binary, count, &all)
    }

    /// Functions seen in these windows.
    pub fn seen_in(mut self, layer: Layer, binary: &str, count: u64, windows: &[u32]) -> Self {
        for _ in 0..count {
            self.offset += 1;
            self.units.push(Unit {
                layer,
                binary: binary.into(),
                build_id: Some("c0ffee".into()),
                symbol: format!("function_{}", self.offset).into(),
                offset: self.offset,
                size: 100,
                covered: Some(40),
                file: None,
                line: None,
                phase: Phase::Serve,
                context: Context::Any,
                first_window: windows[0],
                windows: windows.to_vec(),
                evidence: Evidence::Exercised,
            });
        }
        self
    }

    pub fn and(mut self, units: impl IntoIterator<Item = Unit>) -> Self {
        self.units.extend(units);
        self
    }

    pub fn take(self) -> Vec<Unit> {
        self.units
    }
}

/// A profile without rows: app and library (tenant), host kernel (provider, shared).
pub fn profile(deployment: &str) -> Profile {
    let layer =
        |name, owner, shared| LayerInfo { name, owner, shared, ownership_moved: false, code: None };
    let window = |phase, i: u32| Window {
        phase,
        start_ns: u64::from(i) * 500_000_000,
        end_ns: u64::from(i + 1) * 500_000_000,
        lost_events: 0,
    };
    let serve = (1..=SERVE_WINDOWS).map(|i| window(Phase::Serve, i));
    Profile {
        manifest: Manifest {
            schema: SCHEMA.into(),
            tool_version: "0.1.0".into(),
            recorded_at: "2026-01-02T03:04:05Z".into(),
            service: "web".into(),
            deployment: deployment.into(),
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
                layer(Layer::Library, Owner::Tenant, false),
                layer(Layer::HostKernel, Owner::Provider, true),
            ],
            boundaries: vec![],
            windows: std::iter::once(window(Phase::Idle, 0)).chain(serve).collect(),
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
