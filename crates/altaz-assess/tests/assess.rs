//! Profiles of whole deployments, from rows to VAP and HAP.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

mod common;

use altaz_assess::{AssessError, Options, assess, report};
use altaz_profile::results::{DeploymentResult, REPORT_SCHEMA};
use altaz_profile::*;
use common::{Rows, profile};

fn figures(profile: &Profile) -> DeploymentResult {
    assess(profile, &Options::default()).unwrap()
}

#[test]
fn a_container_s_vap_is_split_by_owner_and_its_hap_is_the_shared_kernel() {
    let mut p = profile("runc");
    p.units = Rows::new()
        .seen_always(Layer::App, "/srv/app", 30)
        .seen_always(Layer::Library, "/lib/libc.so.6", 20)
        .seen_always(Layer::HostKernel, "kernel", 50)
        .take();
    let d = figures(&p);
    let (vap, hap) = (d.vap.unwrap(), d.hap.unwrap());

    assert_eq!((vap.functions, vap.tenant_functions, vap.provider_functions), (100, 50, 50));
    assert_eq!((vap.bytes, vap.covered_bytes), (10_000, Some(4_000)));
    assert_eq!((vap.tenant_bytes, vap.tenant_covered_bytes), (5_000, Some(2_000)));
    assert_eq!((vap.tenant_share, vap.tenant_share_covered), (Some(0.5), Some(0.5)));
    assert_eq!((hap.exercised_functions, hap.exercised_bytes), (50, 5_000));
    assert_eq!(hap.exercised_covered_bytes, Some(2_000));
    assert_eq!((hap.probed_functions, hap.reachable_functions), (None, None));
    assert_eq!((vap.coverage, vap.unseen), (Some(1.0), Some(0.0)));
    assert_eq!(d.layers.len(), p.manifest.layers.len(), "layers without functions are listed");
}

#[test]
fn what_a_hostile_load_reaches_is_counted_apart_and_only_in_shared_layers() {
    let mut p = profile("runc");
    let mut rows = Rows::new().seen_always(Layer::App, "/srv/app", 3).seen_always(
        Layer::HostKernel,
        "kernel",
        5,
    );
    let probed = Rows::from(1_000)
        .seen_always(Layer::HostKernel, "kernel", 7)
        .seen_always(Layer::App, "/srv/app", 9)
        .take();
    rows = rows.and(probed.into_iter().map(|u| Unit { evidence: Evidence::Probed, ..u }));
    p.units = rows.take();
    let hap = figures(&p).hap.unwrap();
    assert_eq!((hap.exercised_functions, hap.probed_functions), (5, Some(7)));
}

#[test]
fn completeness_is_the_estimators_over_the_serve_windows() {
    let mut p = profile("runc");
    p.units = Rows::new()
        .seen_always(Layer::HostKernel, "kernel", 90)
        .seen_in(Layer::HostKernel, "kernel", 6, &[10])
        .seen_in(Layer::HostKernel, "kernel", 4, &[3, 30])
        .take();
    let d = figures(&p);
    let kernel = d.layer(Layer::HostKernel).unwrap();
    // T = 40, Q1 = 6, Q2 = 4: Q0 = 39/40 · 36/8.
    assert_eq!(kernel.windows, 40);
    assert!((kernel.unseen.unwrap() - 4.3875).abs() < 1e-9);
    assert!(kernel.coverage.unwrap() > 0.99);
    assert_eq!(kernel.rare_functions, 6, "once in 40 windows is less than 5 %, twice is not");
    let held_out = kernel.held_out.unwrap();
    assert_eq!(held_out.train_windows + held_out.held_windows, 40);
    assert_eq!(d.vap.unwrap().unseen, kernel.unseen);
    let hap = d.hap.unwrap();
    assert!((hap.coverage.unwrap() - kernel.coverage.unwrap()).abs() < 1e-12);
}

#[test]
fn without_a_calibration_that_reconciles_no_completeness_is_given_and_a_note_says_why() {
    let mut p = profile("runc");
    p.units = Rows::new().seen_always(Layer::HostKernel, "kernel", 90).take();
    p.manifest.calibration = Some(Calibration { what: "getppid".into(), made: 1000, counted: 998 });
    let d = figures(&p);
    let kernel = d.layer(Layer::HostKernel).unwrap();
    assert_eq!((kernel.coverage, kernel.unseen, kernel.held_out), (None, None, None));
    assert_eq!(d.vap.unwrap().coverage, None);
    assert_eq!(
        d.notes,
        [
            "No completeness is given: the calibration does not reconcile, 1000 calls of getppid were \
          made and 998 were counted."
        ]
    );

    p.manifest.calibration = None;
    assert_eq!(figures(&p).notes, ["No completeness is given: the recording has no calibration."]);
}

#[test]
fn lost_events_and_failed_requests_are_said_beside_the_figures() {
    let mut p = profile("runc");
    p.units = Rows::new().seen_always(Layer::HostKernel, "kernel", 9).take();
    p.manifest.windows[5].lost_events = 7;
    if let Some(load) = &mut p.manifest.load {
        load.errors = 3;
    }
    let d = figures(&p);
    assert_eq!(d.layer(Layer::HostKernel).unwrap().lost_events, 7);
    assert_eq!(
        d.notes,
        [
            "The instrument lost 7 events while serving: every figure is a lower bound.",
            "3 of 400 requests failed: the figures include the code of failure."
        ]
    );
}

#[test]
fn an_instrument_that_does_not_know_covered_bytes_leaves_them_undefined() {
    let mut p = profile("runc");
    p.units = Rows::new().seen_always(Layer::App, "/srv/app", 3).take();
    p.units.extend(
        Rows::new()
            .seen_always(Layer::HostKernel, "kernel", 3)
            .take()
            .into_iter()
            .map(|u| Unit { covered: None, ..u }),
    );
    let d = figures(&p);
    assert_eq!(d.layer(Layer::App).unwrap().covered_bytes, Some(120));
    assert_eq!(d.layer(Layer::HostKernel).unwrap().covered_bytes, None);
    let vap = d.vap.unwrap();
    assert_eq!((vap.covered_bytes, vap.tenant_share_covered), (None, None));
    assert_eq!((vap.tenant_covered_bytes, vap.tenant_share), (Some(120), Some(0.5)));
}

#[test]
fn an_empty_recording_is_an_error_and_no_empty_success() {
    let mut p = profile("runc");
    let only_start = Rows::new().seen_always(Layer::App, "/srv/app", 3).take();
    p.units = only_start.into_iter().map(|u| Unit { phase: Phase::Start, ..u }).collect();
    let e = assess(&p, &Options::default()).unwrap_err();
    assert!(matches!(e, AssessError::EmptyServe { windows: 40, rows: 3, .. }), "{e:?}");
    assert!(e.to_string().contains("`runc` holds no function"), "{e}");
}

#[test]
fn functions_of_a_layer_without_an_owner_are_refused() {
    let mut p = profile("runc");
    p.units = Rows::new().seen_always(Layer::Vmm, "/usr/bin/qemu-system-x86_64", 3).take();
    let e = assess(&p, &Options::default()).unwrap_err();
    assert!(e.to_string().contains("3 functions in the layer `vmm`"), "{e}");
}

#[test]
fn what_only_the_start_phase_needs_is_listed_by_component() {
    let mut p = profile("runc");
    let start = Rows::from(500)
        .seen_always(Layer::App, "/srv/app", 5)
        .seen_always(Layer::App, "/srv/setup", 8)
        .take();
    p.units = Rows::new()
        .seen_always(Layer::App, "/srv/app", 3)
        .and(start.into_iter().map(|u| Unit { phase: Phase::Start, ..u }))
        .take();
    let d = figures(&p);
    let app = d.layer(Layer::App).unwrap();
    assert_eq!((app.functions, app.start_only_functions), (3, 13));
    let listed: Vec<_> = app.start_only.iter().map(|c| (c.name.as_str(), c.functions)).collect();
    assert_eq!(listed, [("/srv/setup", 8), ("/srv/app", 5)]);
}

#[test]
fn the_json_of_a_deployment_holds_the_promised_keys_and_reads_back() {
    let mut p = profile("runc");
    p.units = Rows::new().seen_always(Layer::HostKernel, "kernel", 3).take();
    let d = figures(&p);
    let json = serde_json::to_value(&d).unwrap();
    for path in [
        "/name",
        "/available",
        "/reason",
        "/model_only",
        "/load/requests",
        "/load/errors",
        "/layers/0/name",
        "/layers/0/owner",
        "/layers/0/shared",
        "/layers/0/functions",
        "/layers/0/bytes",
        "/layers/0/covered_bytes",
        "/layers/0/coverage",
        "/layers/0/unseen",
        "/layers/0/windows",
        "/layers/0/lost_events",
        "/vap/functions",
        "/vap/bytes",
        "/vap/tenant_functions",
        "/vap/provider_functions",
        "/vap/tenant_share",
        "/hap/exercised_functions",
        "/hap/exercised_bytes",
        "/hap/probed_functions",
        "/hap/reachable_functions",
        "/boundaries",
        "/barriers",
    ] {
        assert!(json.pointer(path).is_some(), "{path} is missing in {json:#}");
    }
    assert_eq!(serde_json::from_value::<DeploymentResult>(json).unwrap(), d);
}

#[test]
fn a_report_names_the_recording() {
    let mut p = profile("runc");
    p.units = Rows::new().seen_always(Layer::HostKernel, "kernel", 3).take();
    let r = report(&p, &Options::default()).unwrap();
    assert_eq!((r.schema.as_str(), r.service.as_str()), (REPORT_SCHEMA, "web"));
    assert_eq!(r.recorded_at, p.manifest.recorded_at);
    assert_eq!(r.deployment, figures(&p));
}

/// A live recording: 10 functions of tasks, 4 of kernel workers, 3 of tasks and softirqs, 5 of
/// softirqs only, 2 of hard interrupts only.
fn live() -> Profile {
    let mut p = profile("runc");
    p.manifest.instrument.kind = InstrumentKind::Live;
    let in_context = |from, count, context| {
        let rows = Rows::from(from).seen_in(Layer::HostKernel, "kernel", count, &[1, 2, 3]).take();
        rows.into_iter().map(move |u| Unit { context, covered: None, ..u })
    };
    p.units = Rows::new()
        .and(in_context(0, 13, Context::Task))
        .and(in_context(100, 4, Context::KernelWorker))
        .and(in_context(10, 3, Context::Softirq))
        .and(in_context(200, 5, Context::Softirq))
        .and(in_context(300, 2, Context::Hardirq))
        .take();
    p
}

#[test]
fn interrupts_of_a_live_recording_stand_beside_vap_and_hap() {
    let d = figures(&live());
    let kernel = d.layer(Layer::HostKernel).unwrap();
    assert_eq!((kernel.functions, kernel.bytes, kernel.covered_bytes), (17, 1_700, None));
    assert_eq!((kernel.interrupts.functions, kernel.interrupts.bytes), (7, 700));
    let contexts: Vec<_> = kernel.contexts.iter().map(|c| (c.context, c.functions)).collect();
    assert_eq!(
        contexts,
        [
            (Context::Task, 13),
            (Context::Softirq, 8),
            (Context::Hardirq, 2),
            (Context::KernelWorker, 4)
        ]
    );
    assert_eq!((d.vap.unwrap().functions, d.hap.unwrap().exercised_functions), (17, 17));
    assert!(d.notes.iter().any(|n| n.starts_with("7 functions were seen in interrupts only")));
    assert!(d.notes.iter().any(|n| n.contains("three windows")), "{:?}", d.notes);
}

#[test]
fn an_exact_recording_tells_no_contexts_apart_and_its_json_has_no_word_of_them() {
    let mut p = profile("runc");
    p.units = Rows::new().seen_always(Layer::HostKernel, "kernel", 3).take();
    let d = figures(&p);
    let json = serde_json::to_value(&d).unwrap();
    for layer in json["layers"].as_array().unwrap() {
        assert!(layer.get("contexts").is_none() && layer.get("interrupts").is_none(), "{layer}");
    }
    assert!(json.get("posture").is_none());
    assert_eq!(serde_json::from_value::<DeploymentResult>(json).unwrap(), d);
}

#[test]
fn a_recording_of_interrupts_only_is_empty() {
    let mut p = live();
    p.units.retain(|u| u.context.is_interrupt() && u.offset > 100);
    assert!(matches!(assess(&p, &Options::default()), Err(AssessError::EmptyServe { .. })));
}

#[test]
fn a_live_recording_whose_calibration_does_not_reconcile_has_no_completeness() {
    let mut p = live();
    assert!(figures(&p).layer(Layer::HostKernel).unwrap().coverage.is_some());
    p.manifest.calibration = Some(Calibration { what: "getppid".into(), made: 9, counted: 8 });
    let d = figures(&p);
    let kernel = d.layer(Layer::HostKernel).unwrap();
    assert_eq!((kernel.coverage, kernel.unseen, kernel.held_out), (None, None, None));
    assert!(d.notes.iter().any(|n| n.starts_with("No completeness is given")));
}
