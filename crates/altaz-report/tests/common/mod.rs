//! Results as a real comparison gives them: figures of the size that a web service (nginx, Python,
//! PostgreSQL) shows.

#![allow(dead_code)]

use altaz_profile::results::functions::*;
use altaz_profile::results::*;
use altaz_profile::*;

/// A layer with figures.
pub fn layer(
    name: Layer,
    owner: Owner,
    shared: bool,
    (functions, bytes, covered): (u64, u64, u64),
    (coverage, unseen): (f64, f64),
) -> LayerResult {
    LayerResult {
        name,
        owner,
        shared,
        ownership_moved: false,
        functions,
        bytes,
        covered_bytes: Some(covered),
        coverage: Some(coverage),
        unseen: Some(unseen),
        windows: 118,
        lost_events: 0,
        rare_functions: functions / 20,
        start_only_functions: functions / 3,
        background_functions: if shared { 412 } else { 0 },
        interrupts: Sums::default(),
        contexts: vec![],
        code: Some(CodeBytes { named: covered, jit: 0, unnamed: 0 }),
        executed_bytes_per_request: None,
        held_out: Some(HeldOut {
            train_windows: 88,
            held_windows: 30,
            predicted: 4.2,
            low: 1.0,
            high: 9.0,
            found: 5,
        }),
        components: vec![],
        components_total: 0,
        start_only: vec![],
        start_only_total: 0,
    }
}

fn component(name: &str, functions: u64, share: f64) -> Component {
    Component {
        name: name.into(),
        functions,
        bytes: functions * 310,
        covered_bytes: Some(functions * 120),
        share,
    }
}

fn boundary(name: &str, from: Layer, to: Layer, widths: (Option<u32>, Option<u32>)) -> Boundary {
    Boundary {
        name: name.into(),
        from,
        to,
        permitted: widths.0,
        exercised: widths.1,
        entries: vec![
            BoundaryEntry::new("write", 812),
            BoundaryEntry::new("read", 1_204),
            BoundaryEntry::new("fdatasync", 300),
        ],
        requests: None,
        permitted_entries: vec![],
        guard: None,
    }
}

/// A deployment made of these layers; VAP and HAP are their sums.
pub fn deployment(name: &str, layers: Vec<LayerResult>) -> DeploymentResult {
    let sum = |of: &dyn Fn(&LayerResult) -> u64, want: &dyn Fn(&LayerResult) -> bool| {
        layers.iter().filter(|l| want(l)).map(of).sum::<u64>()
    };
    let functions = |l: &LayerResult| l.functions;
    let bytes = |l: &LayerResult| l.bytes;
    let covered = |l: &LayerResult| l.covered_bytes.unwrap_or(0);
    let tenant = |l: &LayerResult| l.owner == Owner::Tenant;
    let provider = |l: &LayerResult| l.owner == Owner::Provider;
    let all = |_: &LayerResult| true;
    let shared = |l: &LayerResult| l.shared;
    let share =
        |of: &dyn Fn(&LayerResult) -> u64| Some(sum(of, &tenant) as f64 / sum(of, &all) as f64);
    DeploymentResult {
        available: true,
        reason: None,
        basis: Some(basis()),
        load: Some(LoadSummary {
            description: "POST /visit, 10/s, 1 connection".into(),
            requests: 600,
            errors: 0,
            p50_ms: Some(30.84),
            p99_ms: Some(42.31),
            rate: Some(10.0),
            ready_s: Some(5.21),
        }),
        vap: Some(Vap {
            functions: sum(&functions, &all),
            bytes: sum(&bytes, &all),
            covered_bytes: Some(sum(&covered, &all)),
            tenant_functions: sum(&functions, &tenant),
            provider_functions: sum(&functions, &provider),
            tenant_bytes: sum(&bytes, &tenant),
            provider_bytes: sum(&bytes, &provider),
            tenant_covered_bytes: Some(sum(&covered, &tenant)),
            provider_covered_bytes: Some(sum(&covered, &provider)),
            tenant_share: share(&functions),
            tenant_share_covered: share(&covered),
            coverage: Some(0.9962),
            unseen: Some(21.3),
        }),
        hap: Some(Hap {
            exercised_functions: sum(&functions, &shared),
            exercised_bytes: sum(&bytes, &shared),
            exercised_covered_bytes: Some(sum(&covered, &shared)),
            probed_functions: None,
            reachable_functions: None,
            coverage: Some(0.9971),
            unseen: Some(3.1),
        }),
        calibration: Some(Calibration { what: "getppid".into(), made: 1000, counted: 1000 }),
        layers,
        ..DeploymentResult::unavailable(name, "")
    }
}

pub fn basis() -> Basis {
    Basis {
        service: "web".into(),
        load: "POST /visit, 10/s, 1 connection".into(),
        image_id: "sha256:4f1c".into(),
        instrument: "exact".into(),
        phase: Phase::Serve,
        unit: "function".into(),
    }
}

pub fn host() -> Host {
    Host {
        kernel: "6.12.57+deb13-cloud-amd64".into(),
        arch: "x86_64".into(),
        cpu: "QEMU TCG CPU version 2.5+".into(),
        cpus: 2,
    }
}

pub fn runc() -> DeploymentResult {
    use Layer::*;
    let mut runtime =
        layer(LanguageRuntime, Owner::Tenant, false, (1_412, 512_880, 201_377), (0.9984, 2.4));
    runtime.components = vec![component("/usr/bin/python3.13", 1_398, 0.99)];
    runtime.components.push(component(
        "/usr/lib/python3.13/lib-dynload/_asyncio.cpython-313-x86_64-linux-gnu.so",
        14,
        0.01,
    ));
    runtime.components_total = 2;
    let mut app = layer(App, Owner::Tenant, false, (2_310, 1_310_249, 402_100), (0.9951, 12.7));
    app.components = vec![
        component("/usr/lib/postgresql/17/bin/postgres", 1_902, 0.823),
        component("/usr/sbin/nginx", 408, 0.177),
    ];
    app.components_total = 2;
    app.start_only = vec![component("/usr/lib/postgresql/17/bin/postgres", 700, 0.909)];
    app.start_only_total = 3;
    let mut kernel =
        layer(HostKernel, Owner::Provider, true, (1_253, 402_010, 161_204), (0.9971, 3.1));
    kernel.components = vec![
        component("tcp_*", 112, 0.0894),
        component("ext4_*", 88, 0.0702),
        component("[veth]", 14, 0.0112),
    ];
    kernel.components_total = 130;
    kernel.start_only = vec![component("sys_*", 40, 0.096)];
    kernel.start_only_total = 61;
    kernel.code = Some(CodeBytes { named: 161_204, jit: 1_890, unnamed: 120 });
    let library = layer(Library, Owner::Tenant, false, (421, 99_120, 40_312), (1.0, 0.0));
    let mut d = deployment("runc", vec![app, runtime, library, kernel]);
    d.boundaries = vec![boundary("syscall", App, HostKernel, (Some(339), Some(62)))];
    d.blind_spots = vec![
        BlindSpot {
            layer: Some(LanguageRuntime),
            kind: "interpreted-code".into(),
            what: "Python functions of the application are seen as the interpreter's native code"
                .into(),
            bytes: None,
            functions: None,
        },
        BlindSpot {
            layer: Some(HostKernel),
            kind: "jit".into(),
            what: "code that the kernel generates at run time (BPF)".into(),
            bytes: Some(1_890),
            functions: None,
        },
    ];
    d
}

pub fn runsc() -> DeploymentResult {
    use Layer::*;
    let mut sentry =
        layer(SandboxKernel, Owner::Provider, false, (2_904, 1_512_010, 388_200), (0.9904, 31.4));
    sentry.ownership_moved = true;
    sentry.lost_events = 12;
    let mut d = deployment(
        "runsc-systrap",
        vec![
            layer(App, Owner::Tenant, false, (2_302, 1_301_101, 400_009), (0.9949, 13.0)),
            layer(Library, Owner::Tenant, false, (420, 99_001, 40_100), (1.0, 0.0)),
            sentry,
            layer(HostKernel, Owner::Provider, true, (708, 251_300, 90_122), (0.9968, 2.2)),
        ],
    );
    d.boundaries = vec![
        boundary("syscall", App, SandboxKernel, (None, Some(62))),
        boundary("syscall", SandboxKernel, HostKernel, (Some(68), Some(31))),
    ];
    d.notes = vec![
        "gVisor 20240729 takes every network namespace of Linux 6.12 for the root one: started with \
         an empty /proc/sys/net/core."
            .into(),
    ];
    if let Some(load) = &mut d.load {
        load.errors = 2;
    }
    d
}

pub fn microvm() -> DeploymentResult {
    use Layer::*;
    let mut vmm = layer(Vmm, Owner::Provider, false, (402, 120_400, 38_111), (0.9977, 0.6));
    vmm.coverage = None;
    vmm.unseen = None;
    vmm.held_out = None;
    let mut d = deployment(
        "qemu-microvm",
        vec![
            layer(App, Owner::Tenant, false, (2_305, 1_303_300, 401_000), (0.9952, 12.2)),
            layer(GuestKernel, Owner::Tenant, false, (1_190, 388_123, 150_002), (0.9965, 4.0)),
            vmm,
            layer(HostKernel, Owner::Provider, true, (641, 240_019, 88_010), (0.9975, 1.4)),
        ],
    );
    d.boundaries = vec![
        boundary("syscall", App, GuestKernel, (Some(465), Some(62))),
        boundary("vm-exit", GuestKernel, HostKernel, (None, Some(13))),
    ];
    d.repeats = Some(Repeats {
        runs: vec![
            RunResult {
                functions: 4_538,
                rare_functions: 210,
                bytes: 2_051_842,
                covered_bytes: Some(677_123),
                hap_functions: 641,
                requests: Some(600),
                errors: Some(0),
                windows: 118,
                lost_events: 0,
            },
            RunResult {
                functions: 4_601,
                rare_functions: 244,
                bytes: 2_071_842,
                covered_bytes: Some(687_123),
                hap_functions: 650,
                requests: Some(600),
                errors: Some(0),
                windows: 118,
                lost_events: 0,
            },
        ],
        pairs: vec![PairSimilarity { a: 0, b: 1, steady: Some(0.9862), all: Some(0.9311) }],
        min_steady: Some(0.9862),
        min_all: Some(0.9311),
        figures: vec![
            figure("vap.functions", 4_569.5, (4_169.0, 4_970.0)),
            figure("vap.tenant_share", 0.766, (0.751, 0.781)),
            figure("hap.exercised_functions", 645.5, (588.0, 703.0)),
        ],
    });
    d
}

fn figure(name: &str, mean: f64, interval: (f64, f64)) -> RepeatFigure {
    RepeatFigure { name: name.into(), mean, interval: Some(interval), runs: 2 }
}

pub fn compare() -> CompareResult {
    CompareResult {
        schema: COMPARE_SCHEMA.into(),
        service: "web".into(),
        host: host(),
        basis: Some(basis()),
        deployments: vec![
            runc(),
            runsc(),
            microvm(),
            DeploymentResult::unavailable(
                "firecracker",
                "no `firecracker` on this machine; Debian has no package of it, install a release \
                 binary into /usr/local/bin and try again",
            ),
        ],
        risk: None,
    }
}

pub fn profile(deployment: DeploymentResult) -> ProfileReport {
    ProfileReport {
        schema: REPORT_SCHEMA.into(),
        service: "web".into(),
        tool_version: "0.1.0".into(),
        recorded_at: "2026-11-24T08:00:00Z".into(),
        instrument: Instrument {
            kind: InstrumentKind::Exact,
            detail: "QEMU 10.0.2 TCG, plugin API 4, 2 vCPUs".into(),
        },
        host: host(),
        deployment,
    }
}

/// A live recording of the container: contexts apart, no covered bytes, posture read.
pub fn live() -> DeploymentResult {
    use Layer::*;
    let mut kernel = layer(HostKernel, Owner::Provider, true, (1_250, 402_010, 0), (0.9912, 11.2));
    kernel.covered_bytes = None;
    kernel.code = None;
    kernel.background_functions = 0;
    kernel.interrupts = Sums { functions: 311, bytes: 80_120 };
    kernel.contexts = [(Context::Task, 1_201), (Context::Softirq, 402), (Context::Hardirq, 132)]
        .map(|(context, functions)| ContextResult { context, functions, bytes: functions * 300 })
        .to_vec();
    kernel.contexts.push(ContextResult {
        context: Context::KernelWorker,
        functions: 61,
        bytes: 18_300,
    });
    let mut c = component("tcp_*", 112, 0.0894);
    c.covered_bytes = None;
    (kernel.components, kernel.components_total) = (vec![c], 130);
    let mut d = deployment("runc", vec![kernel]);
    if let (Some(vap), Some(hap)) = (&mut d.vap, &mut d.hap) {
        (vap.covered_bytes, vap.tenant_covered_bytes, vap.provider_covered_bytes) =
            (None, None, None);
        hap.exercised_covered_bytes = None;
    }
    let mut syscalls = boundary("syscall", App, HostKernel, (Some(4), Some(3)));
    let permitted = ["clone3", "read", "socket", "write"];
    syscalls.permitted_entries = permitted
        .map(|name| PermittedEntry { name: name.into(), conditional: name == "socket" })
        .to_vec();
    d.boundaries = vec![syscalls];
    d.posture = vec![posture("app", "nginx")];
    d.blind_spots = vec![BlindSpot {
        layer: Some(HostKernel),
        kind: "not-traceable".into(),
        what: "functions that the kernel does not let anybody trace".into(),
        bytes: Some(1_204_000),
        functions: Some(5_120),
    }];
    d
}

pub fn posture(role: &str, comm: &str) -> Posture {
    Posture {
        role: role.into(),
        comm: comm.into(),
        tgid: 4_711,
        uid: 100_000,
        capabilities: vec!["cap_chown".into(), "cap_net_bind_service".into()],
        bounding: vec!["cap_chown".into(), "cap_net_bind_service".into()],
        namespaces: vec!["mnt".into(), "net".into(), "pid".into()],
        uid_map: vec!["0 100000 65536".into()],
        no_new_privs: true,
        seccomp: "filter".into(),
        lsm: vec!["apparmor:docker-default (enforce)".into()],
        devices: vec![],
    }
}

fn side(file: &str, functions: u64) -> diff::DiffSide {
    diff::DiffSide {
        file: file.into(),
        service: "web".into(),
        deployment: "runc".into(),
        recorded_at: "2026-11-24T08:00:00Z".into(),
        instrument: InstrumentKind::Exact,
        host: host(),
        functions,
        windows: 118,
        watched_s: 59.04,
        lost_events: 0,
        coverage: Some(0.9971),
        unseen: Some(3.1),
        missed: Some(diff::DiffMissed { estimate: 2.7, at_most: 9.2 }),
        inconclusive: None,
    }
}

fn function(symbol: &str, verdict: diff::Verdict, alike: f64) -> diff::DiffFunction {
    diff::DiffFunction {
        layer: Layer::HostKernel,
        binary: "kernel".into(),
        build_id: None,
        symbol: symbol.into(),
        offset: 4_096,
        size: 1_204,
        file: None,
        line: None,
        contexts: vec![Context::Any],
        windows: 118,
        verdict,
        times: 59,
        within_s: 59.0,
        missed_probability: Some(alike / 100.0),
        expected_alike: Some(alike),
    }
}

/// A difference of which every part says something.
pub fn difference() -> diff::DiffResult {
    use diff::*;
    let new = DiffSet {
        functions: 3,
        bytes: 3_612,
        really: 1,
        really_bytes: 1_204,
        may_have_been_missed: 2,
        only_in_interrupts: 1,
        ..DiffSet::default()
    };
    let gone = DiffSet { functions: 1, bytes: 900, background: 1, ..DiffSet::default() };
    let functions = DiffSums {
        both: 1_240,
        both_bytes: 400_120,
        rebuilt: 12,
        resized: 3,
        grown_bytes: -340,
        new,
        gone,
    };
    let mut background = function("kthread_run", Verdict::Background, 0.0);
    (background.missed_probability, background.expected_alike) = (None, None);
    DiffResult {
        schema: DIFF_SCHEMA.into(),
        phase: Phase::Serve,
        a: side("before.altaz", 1_253),
        b: side("after.altaz", 1_255),
        limits: vec![DiffLimit {
            about: "load".into(),
            a: "GET /".into(),
            b: "POST /visit".into(),
            means: "What is new or gone may be the load's and not the change's.".into(),
        }],
        functions,
        layers: vec![DiffLayer {
            name: Layer::HostKernel,
            functions,
            components: vec![DiffComponent { name: "net/ipv4".into(), functions }],
        }],
        new: vec![
            function("tcp_splice_read", Verdict::Really, 3e-6),
            function("tcp_fastopen_active_disable", Verdict::MayBeMissed, 1.24),
            function("", Verdict::MayBeMissed, 39.0),
        ],
        gone: vec![background],
        boundaries: vec![DiffBoundary {
            name: "syscall".into(),
            from: Layer::App,
            to: Layer::HostKernel,
            permitted: (Some(301), Some(302)),
            exercised: (Some(62), Some(63)),
            new: vec![
                DiffEntry { name: "io_uring_setup".into(), count: 2, verdict: Verdict::Really },
                DiffEntry { name: "splice".into(), count: 4_120, verdict: Verdict::Undetermined },
            ],
            gone: vec![],
            permits: vec![DiffPermit {
                name: "io_uring_setup".into(),
                a: Permission::Denied,
                b: Permission::Allowed,
            }],
        }],
        posture: vec![DiffPosture {
            role: "app".into(),
            comm: "nginx".into(),
            what: "capabilities".into(),
            a: String::new(),
            b: "cap_net_raw".into(),
            direction: Direction::Wider,
        }],
        check: DiffCheck { new_functions: 1, new_entries: 1, wider_posture: 1, undetermined: 0 },
    }
}

/// Functions of the layers of [`runc`] and [`microvm`]: few, with the sizes of real ones.
pub fn functions() -> Vec<FunctionTable> {
    let of = |d: DeploymentResult| FunctionTable {
        layers: d.layers.iter().map(|l| layer_functions(l.name)).collect(),
        deployment: d.name,
    };
    vec![of(runc()), of(microvm())]
}

fn layer_functions(layer: Layer) -> LayerFunctions {
    let row = |i: u32| FunctionRow {
        symbol: format!("{layer}_function_{i}").into(),
        binary: "/usr/sbin/nginx".into(),
        offset: u64::from(i) * 64,
        component: i % 2,
        size: 100 + u64::from(i) * 40,
        covered: Some(60 + u64::from(i) * 10),
        file: None,
        line: None,
        first_window: Some(i / 8),
        windows: 118 - i,
        age_years: None,
        vulnerabilities: None,
    };
    LayerFunctions {
        layer,
        components: vec!["/usr/sbin/nginx".into(), "net/ipv4".into()],
        functions: (0..24).map(row).collect(),
        growth: (0..118).map(|w: u64| 24.min((w + 1) * 8)).collect(),
    }
}

/// A risk assessment of [`runc`] and [`microvm`] of which every part says something.
pub fn risk() -> risk::RiskResult {
    use risk::*;
    let interval = |median: f64| Interval {
        low: median / 8.0,
        median,
        high: median * 9.0,
        mean: median * 2.0,
    };
    let code = |functions: u64, median: f64| Risk {
        functions,
        bytes: functions * 320,
        covered_bytes: Some(functions * 130),
        lambda: interval(median * 3.0),
        exposure: interval(median),
    };
    let of = |name: &str, tenant: Risk, provider: Risk, orphaned: Risk, hap: Risk| DeploymentRisk {
        name: name.into(),
        model_only: false,
        contract: "managed containers".into(),
        vap: code(5_396, 0.4),
        tenant,
        provider,
        orphaned,
        hap,
        layers: vec![],
        paths: vec![],
        findings: vec![OwnershipFinding {
            kind: FindingKind::CannotFix,
            layer: Layer::HostKernel,
            what: "The tenant must remediate it.".into(),
            evidence: "It runs with the provider's credentials.".into(),
        }],
        known: None,
    };
    let pair = |figure, probability: f64, smaller: Option<&str>, equal| Pair {
        a: "runc".into(),
        b: "qemu-microvm".into(),
        figure,
        probability,
        probability_lambda: probability,
        ratio: Some(interval(0.7)),
        smaller: smaller.map(Into::into),
        equal,
    };
    RiskResult {
        schema: ASSESS_SCHEMA.into(),
        service: "web".into(),
        seed: 7,
        draws: 10_000,
        level: 0.9,
        decided_at: 0.9,
        priors: "built-in priors of 2026-08".into(),
        deployments: vec![
            of("runc", code(4_143, 0.11), code(1_253, 0.24), Risk::default(), code(1_253, 0.24)),
            of(
                "qemu-microvm",
                code(3_495, 0.29),
                code(402, 0.002),
                code(641, 0.03),
                code(641, 0.03),
            ),
        ],
        pairs: vec![
            pair(Figure::TenantVap, 0.9966, Some("runc"), false),
            pair(Figure::TotalVap, 0.62, None, false),
            pair(Figure::Hap, 0.5, None, true),
        ],
        sensitivity: vec![],
        weightings: vec![],
        assumptions: vec![],
        statements: vec![],
        notes: vec![],
        warnings: vec!["no history of the language runtime".into()],
    }
}
