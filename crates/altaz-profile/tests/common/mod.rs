//! A synthetic profile for tests, benches and the fixture: the same for the same size, and of the
//! shape of a real one (few binaries, many functions, most seen always, some once).

use altaz_profile::*;

/// Windows of a synthetic recording by phase, in this order.
pub const PHASES: [(Phase, u32); 4] =
    [(Phase::Idle, 4), (Phase::Start, 3), (Phase::Serve, 60), (Phase::Stop, 1)];

/// First serve window.
pub const SERVE: u32 = 7;

const PLACES: [(Layer, &str, bool); 6] = [
    (Layer::HostKernel, "kernel", true),
    (Layer::HostKernel, "[tun]", true),
    (Layer::App, "/usr/sbin/nginx", true),
    (Layer::LanguageRuntime, "/usr/bin/python3.13", true),
    (Layer::Library, "/usr/lib/x86_64-linux-gnu/libc.so.6", true),
    (Layer::SandboxKernel, "/usr/bin/runsc", false),
];

/// A profile of `count` units.
pub fn profile(count: u64) -> Profile {
    Profile { manifest: manifest(), units: (0..count).map(unit).collect() }
}

/// The same as a live recording of format 1.1 holds it: contexts apart, posture, permitted entry
/// points by name, and calls by thread group.
#[allow(dead_code, reason = "for those tests that are about it")]
pub fn live(count: u64) -> Profile {
    let mut profile = profile(count);
    profile.manifest.instrument.kind = InstrumentKind::Live;
    profile.manifest.instrument.detail = "function tracer, three windows a function".to_owned();
    for (number, unit) in profile.units.iter_mut().enumerate() {
        let contexts = [Context::Task, Context::Softirq, Context::Hardirq, Context::KernelWorker];
        unit.context = contexts[number % 4];
        unit.covered = None;
        unit.windows.truncate(3);
    }
    let boundary = &mut profile.manifest.boundaries[0];
    boundary.permitted = Some(3);
    boundary.permitted_entries = [("futex", false), ("pwrite64", false), ("socket", true)]
        .map(|(name, conditional)| PermittedEntry { name: name.to_owned(), conditional })
        .to_vec();
    boundary.entries[0].by_process = vec![
        ProcessCount { tgid: 4_711, comm: "nginx".to_owned(), count: 41_000 },
        ProcessCount { tgid: 4_712, comm: String::new(), count: 234 },
    ];
    profile.manifest.posture = vec![Posture {
        role: "app".to_owned(),
        comm: "nginx".to_owned(),
        tgid: 4_711,
        uid: 33,
        capabilities: vec!["cap_net_bind_service".to_owned()],
        bounding: vec!["cap_chown".to_owned(), "cap_net_bind_service".to_owned()],
        namespaces: vec!["mnt".to_owned(), "net".to_owned()],
        uid_map: vec!["0 100000 65536".to_owned()],
        no_new_privs: true,
        seccomp: "filter".to_owned(),
        lsm: vec!["apparmor:docker-default (enforce)".to_owned()],
        devices: vec!["/dev/net/tun 10:200".to_owned()],
    }];
    profile
}

/// Its `number`-th unit. Of three in a row one is seen in every window, one in some, one in one or
/// two. Every seventh is seen while starting, every eleventh is background.
pub fn unit(number: u64) -> Unit {
    let place = PLACES[(number % PLACES.len() as u64) as usize];
    let (phase, first, windows) =
        if number % 7 == 3 { (Phase::Start, 4, 3) } else { (Phase::Serve, SERVE, 60) };
    let in_phase: Vec<u32> = match number % 3 {
        0 => (0..windows).collect(),
        1 => (0..windows).filter(|w| !w.is_multiple_of(2 + (number % 5) as u32)).collect(),
        _ => {
            let once = (number * 7919 % u64::from(windows)) as u32;
            let more = number.is_multiple_of(2) && once + 1 < windows;
            if more { vec![once, once + 1] } else { vec![once] }
        }
    };
    let windows: Vec<u32> = in_phase.into_iter().map(|w| w + first).collect();
    let size = 16 + number % 977;
    Unit {
        layer: place.0,
        binary: place.1.into(),
        build_id: place.2.then(|| format!("{:040x}", 0xabcd_u64 + number % 6).into()),
        symbol: if number % 13 == 5 { "".into() } else { format!("function_{number}").into() },
        offset: number * 1024,
        size,
        covered: (number % 17 != 1).then_some(size / 2),
        file: (place.1 == "kernel").then(|| format!("net/ipv4/file{}.c", number % 97).into()),
        line: (place.1 == "kernel").then_some((number % 4000) as u32),
        phase,
        context: if number % 11 == 6 { Context::Background } else { Context::Any },
        first_window: windows[0],
        windows,
        evidence: Evidence::Exercised,
    }
}

/// The manifest of the synthetic profile, with every part filled.
pub fn manifest() -> Manifest {
    let mut windows = Vec::new();
    for (phase, count) in PHASES {
        for _ in 0..count {
            let start_ns = windows.len() as u64 * 500_000_000;
            let end_ns = start_ns + 500_000_000;
            windows.push(Window { phase, start_ns, end_ns, lost_events: 0 });
        }
    }
    let layer = |name, owner, shared| LayerInfo {
        name,
        owner,
        shared,
        ownership_moved: name == Layer::SandboxKernel,
        code: Some(CodeBytes { named: 150_000, jit: 0, unnamed: 120 }),
    };
    Manifest {
        schema: SCHEMA.to_owned(),
        tool_version: "0.1.0".to_owned(),
        recorded_at: "2026-11-24T08:00:00Z".to_owned(),
        service: "web".to_owned(),
        deployment: "runsc-systrap".to_owned(),
        instrument: Instrument {
            kind: InstrumentKind::Exact,
            detail: "QEMU 10.0.2 TCG, plugin API 4, 2 vCPUs".to_owned(),
        },
        host: Host {
            kernel: "6.12.48+deb13-cloud-amd64".to_owned(),
            arch: "x86_64".to_owned(),
            cpu: "QEMU TCG max".to_owned(),
            cpus: 2,
        },
        image_id: "sha256:0f0f0f".to_owned(),
        layers: vec![
            layer(Layer::App, Owner::Tenant, false),
            layer(Layer::Library, Owner::Tenant, false),
            layer(Layer::LanguageRuntime, Owner::Tenant, false),
            layer(Layer::SandboxKernel, Owner::Provider, false),
            layer(Layer::HostKernel, Owner::Provider, true),
        ],
        boundaries: vec![Boundary {
            name: "syscall".to_owned(),
            from: Layer::SandboxKernel,
            to: Layer::HostKernel,
            permitted: Some(72),
            exercised: Some(2),
            entries: vec![BoundaryEntry::new("futex", 41_234), BoundaryEntry::new("pwrite64", 600)],
            requests: None,
            permitted_entries: vec![],
            guard: None,
        }],
        windows,
        load: Some(LoadSummary {
            description: "POST /visit, 10/s, 1 connection".to_owned(),
            requests: 600,
            errors: 0,
            p50_ms: Some(31.5),
            p99_ms: Some(58.25),
            rate: Some(10.0),
            ready_s: Some(17.5),
        }),
        blind_spots: vec![BlindSpot {
            layer: Some(Layer::LanguageRuntime),
            kind: "interpreted-code".to_owned(),
            what: "Functions of the application that are written in Python.".to_owned(),
            bytes: None,
            functions: None,
        }],
        calibration: Some(Calibration { what: "getppid".to_owned(), made: 1000, counted: 1000 }),
        clock: None,
        posture: vec![],
        packages: vec![],
        reachable: vec![],
        kinds: vec![],
        work: vec![],
        notes: vec!["A synthetic profile.".to_owned()],
    }
}
