//! What was recorded becomes a profile.

use super::clock;
use altaz_collect::live::Recorded;
use altaz_profile::{
    Host, Instrument, InstrumentKind, LoadSummary, Manifest, Posture, Profile, SCHEMA,
};

/// What the recording itself does not know.
pub(crate) struct Facts {
    /// When it began, RFC 3339.
    pub(crate) recorded_at: String,
    /// Name of the service.
    pub(crate) service: String,
    /// Identity of what runs.
    pub(crate) image_id: String,
    /// How it was observed, in words.
    pub(crate) detail: String,
    /// The load in words, if the user said it.
    pub(crate) load: Option<String>,
    /// What the processes may do.
    pub(crate) posture: Vec<Posture>,
    /// What is installed.
    pub(crate) packages: Vec<altaz_profile::inventory::Place>,
}

/// Puts both together.
pub(crate) fn assemble(recorded: Recorded, facts: Facts) -> Profile {
    let Recorded { origin_ns, windows, units, target, calibration, blind_spots, notes, .. } =
        recorded;
    Profile {
        manifest: Manifest {
            schema: SCHEMA.into(),
            tool_version: env!("CARGO_PKG_VERSION").into(),
            recorded_at: facts.recorded_at,
            service: facts.service,
            deployment: target.deployment,
            instrument: Instrument { kind: InstrumentKind::Live, detail: facts.detail },
            host: host(),
            image_id: facts.image_id,
            layers: target.layers,
            boundaries: target.boundaries,
            windows,
            load: facts.load.map(|description| LoadSummary {
                description,
                requests: 0,
                errors: 0,
                p50_ms: None,
                p99_ms: None,
                rate: None,
                ready_s: None,
            }),
            blind_spots,
            calibration,
            posture: facts.posture,
            clock: Some(clock::at(origin_ns)),
            packages: facts.packages,
            reachable: Vec::new(),
            kinds: Vec::new(),
            work: Vec::new(),
            notes,
        },
        units,
    }
}

fn host() -> Host {
    let uname = rustix::system::uname();
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpuinfo
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .and_then(|l| l.split_once(':'))
        .map_or_else(String::new, |(_, name)| name.trim().to_owned());
    Host {
        kernel: uname.release().to_string_lossy().into_owned(),
        arch: uname.machine().to_string_lossy().into_owned(),
        cpu,
        cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
    }
}
