//! The risk model as a whole: determinism, properties, and what contracts do.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use altaz_assess::risk::known::{Known, Open};
use altaz_assess::risk::subject::{Path, Step};
use altaz_assess::risk::{Priors, Settings, Subject, assess_risk};
use altaz_assess::{Contract, Options, assess};
use altaz_profile::results::risk::{DeploymentRisk, Figure, FindingKind, RiskResult};
use altaz_profile::{Boundary, Layer, Owner, Profile};
use common::{Rows, profile};
use proptest::prelude::*;

const QUICK: Settings = Settings { seed: 1, draws: 400, sobol_draws: 0, components: 4 };

fn syscalls() -> Boundary {
    Boundary {
        exercised: Some(30),
        ..Boundary::new("syscall", Layer::App, Layer::HostKernel, Some(300))
    }
}

fn recording(deployment: &str, app: u64, kernel: u64) -> Profile {
    let mut p = profile(deployment);
    p.manifest.boundaries = vec![syscalls()];
    p.units = Rows::new()
        .seen_always(Layer::App, "/usr/bin/app", app)
        .seen_always(Layer::HostKernel, "kernel", kernel)
        .take();
    p
}

fn subject(p: &Profile, contract: &Contract) -> Subject {
    let result = assess(p, &Options::default()).unwrap();
    Subject::measured(p, &result, contract, &Priors::built_in().unwrap())
}

fn contract(text: &str) -> Contract {
    Contract::parse(&format!("title = \"t\"\n{text}"), "t").unwrap().0
}

fn run(subjects: &[Subject]) -> RiskResult {
    assess_risk("web", subjects, &Priors::built_in().unwrap(), &QUICK)
}

fn one(p: &Profile, contract: &Contract) -> DeploymentRisk {
    run(&[subject(p, contract)]).deployments.remove(0)
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
    let managed = Contract::preset("managed-containers").unwrap();
    let subjects =
        [subject(&recording("a", 50, 40), &managed), subject(&recording("b", 60, 30), &managed)];
    let settings = Settings { sobol_draws: 64, ..QUICK };
    let priors = Priors::built_in().unwrap();
    let text = |seed| {
        let result = assess_risk("web", &subjects, &priors, &Settings { seed, ..settings });
        serde_json::to_string(&result).unwrap()
    };
    assert_eq!(text(7), text(7));
    assert_ne!(text(7), text(8));
    let threads: Vec<String> = std::thread::scope(|s| {
        let all: Vec<_> = (0..3).map(|_| s.spawn(|| text(7))).collect();
        all.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(threads.iter().all(|t| *t == text(7)), "whatever the thread");
}

#[test]
fn another_deployment_beside_it_does_not_change_a_deployments_figures() {
    let managed = Contract::preset("managed-containers").unwrap();
    let a = subject(&recording("a", 50, 40), &managed);
    let b = subject(&recording("b", 60, 30), &managed);
    assert_eq!(run(std::slice::from_ref(&a)).deployments[0], run(&[b, a]).deployments[1]);
}

#[test]
fn what_two_deployments_share_cancels_so_that_twice_the_kernel_is_surely_more() {
    let managed = Contract::preset("managed-containers").unwrap();
    let subjects =
        [subject(&recording("a", 50, 40), &managed), subject(&recording("b", 50, 80), &managed)];
    let r = run(&subjects);
    let hap = r.pairs.iter().find(|p| p.figure == Figure::Hap).unwrap();
    assert_eq!((hap.probability, hap.smaller.as_deref()), (1.0, Some("a")));
    let i = r.deployments[0].hap.exposure;
    assert!(i.high / i.low > 5.0, "while each figure by itself is much in doubt: {i:?}");
    let tenant = r.pairs.iter().find(|p| p.figure == Figure::TenantVap).unwrap();
    assert!(tenant.smaller.is_none(), "two recordings of the same code are undecided: {tenant:?}");
}

#[test]
fn a_contract_moves_orphans_and_asks_for_what_an_owner_cannot_do() {
    let c = contract(
        "[layer.host-kernel]\nowner = \"tenant\"\ncould_fix = \"provider\"\n\
         [layer.library]\nowner = \"nobody\"\n",
    );
    let mut p = recording("a", 50, 40);
    p.units.extend(Rows::from(900).seen_always(Layer::Library, "/lib/libc.so", 5).take());
    let d = one(&p, &c);
    let kinds: Vec<_> = d.findings.iter().map(|f| (f.layer, f.kind)).collect();
    for expected in [
        (Layer::HostKernel, FindingKind::Moved),
        (Layer::HostKernel, FindingKind::CannotFix),
        (Layer::Library, FindingKind::Orphaned),
        (Layer::App, FindingKind::NoWindow),
        (Layer::HostKernel, FindingKind::RemedyFallsShort),
    ] {
        assert!(kinds.contains(&expected), "{expected:?} in {kinds:?}");
    }
    assert_eq!(d.orphaned.functions, 5);
    assert_eq!((d.tenant.functions, d.provider.functions), (90, 0));
}

#[test]
fn intervals_hold_and_shares_add_up() {
    let d = one(&recording("a", 50, 40), &Contract::preset("managed-containers").unwrap());
    for i in [d.vap.lambda, d.vap.exposure, d.hap.lambda, d.tenant.exposure] {
        assert!(0.0 < i.low && i.low < i.median && i.median < i.high, "{i:?}");
    }
    let sum = d.tenant.lambda.mean + d.provider.lambda.mean;
    assert!((sum / d.vap.lambda.mean - 1.0).abs() < 1e-9);
    assert_eq!(d.layer(Layer::HostKernel).unwrap().owner, Some(Owner::Provider));
}

#[test]
fn sensitivity_names_what_decides_and_every_weighting_is_there() {
    let managed = Contract::preset("managed-containers").unwrap();
    let mut b = recording("b", 30, 70);
    b.units.iter_mut().filter(|u| u.layer == Layer::HostKernel).for_each(|u| {
        u.file = Some("net/ipv4/tcp.c".into());
    });
    let subjects = [subject(&recording("a", 90, 40), &managed), subject(&b, &managed)];
    let settings = Settings { sobol_draws: 256, ..QUICK };
    let r = assess_risk("web", &subjects, &Priors::built_in().unwrap(), &settings);
    let total = r.sensitivity.iter().find(|s| s.figure == Figure::TotalVap).unwrap();
    let groups: Vec<_> = total.inputs.iter().filter(|i| i.sobol_total.is_some()).collect();
    assert!(groups.len() > 1, "{total:?}");
    assert!(groups.windows(2).all(|w| w[0].sobol_total >= w[1].sobol_total), "weightiest first");
    assert!(total.inputs.iter().any(|i| i.spearman.is_some() && i.one_at_a_time.is_some()));
    let names: Vec<&str> = r.weightings.iter().map(|w| w.name.as_str()).collect();
    assert_eq!(names, ["functions", "bytes", "covered bytes", "lines", "complexity", "epss"]);
    assert!(r.weightings[5].missing.is_some(), "without a triage there is no EPSS");
    assert!(r.assumptions.iter().all(|a| !a.source.is_empty()));
    let ipv4 = r.assumptions.iter().find(|a| a.name == "density of linux net/ipv4").unwrap();
    let post = ipv4.posterior.unwrap();
    assert!(post.high / post.low < ipv4.high / ipv4.low, "history narrows the prior: {ipv4:?}");
}

fn exposure(p: &Profile, window: f64) -> DeploymentRisk {
    one(p, &contract(&format!("[layer.host-kernel]\npatch_window_days = {window:?}\n")))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn more_code_never_lowers_lambda(app in 1_u64..200, kernel in 1_u64..200, more in 0_u64..50) {
        let c = Contract::preset("managed-containers").unwrap();
        let before = one(&recording("a", app, kernel), &c);
        let after = one(&recording("a", app, kernel + more), &c);
        for (b, a) in [(before.vap, after.vap), (before.hap, after.hap), (before.tenant, after.tenant)] {
            prop_assert!(a.lambda.low >= b.lambda.low && a.lambda.high >= b.lambda.high);
            prop_assert!(a.exposure.median >= b.exposure.median);
        }
    }

    #[test]
    fn a_longer_patch_window_never_lowers_exposure(window in 0.0_f64..400.0, more in 0.0_f64..400.0) {
        let p = recording("a", 20, 30);
        let (short, long) = (exposure(&p, window), exposure(&p, window + more));
        prop_assert!(long.vap.exposure.low >= short.vap.exposure.low);
        prop_assert!(long.hap.exposure.high >= short.hap.exposure.high);
        prop_assert_eq!(long.hap.lambda, short.hap.lambda, "time does not change what is in the code");
    }

    #[test]
    fn another_barrier_never_raises_a_path(kernel in 1_u64..300, app in 1_u64..300) {
        let c = Contract::preset("managed-containers").unwrap();
        let mut s = subject(&recording("a", app, kernel), &c);
        let step = |to| Step { name: "b".into(), from: Layer::App, to, share: 1.0 };
        let path = |barriers| Path { name: "p".into(), barriers };
        s.paths = vec![
            path(vec![step(Layer::HostKernel)]),
            path(vec![step(Layer::HostKernel), step(Layer::App)]),
        ];
        let d = run(&[s]).deployments.remove(0);
        let (one, two) = (&d.paths[0], &d.paths[1]);
        for (one, two) in [
            (one.independent, two.independent),
            (one.dependent, two.dependent),
            (one.stated, two.stated),
        ] {
            prop_assert!(two.low <= one.low && two.median <= one.median && two.high <= one.high);
        }
        prop_assert!(two.independent.median <= two.stated.median + 1e-15);
        prop_assert!(two.stated.median <= two.dependent.median + 1e-15, "the dependent case is the bound");
    }
}

/// Known vulnerabilities of the kernel and of the application, by layer, EPSS and KEV.
fn known(open: &[(Layer, Option<f64>, bool)]) -> Option<Known> {
    let open =
        open.iter().map(|&(layer, epss, kev)| Open { layers: vec![layer], epss, kev }).collect();
    Some(Known { open, undecided: 1, scored: true })
}

#[test]
fn known_open_ones_are_counted_apart_and_rank_by_their_scores() {
    let usual = Contract::preset("managed-containers").unwrap();
    let mut a = subject(&recording("runc", 100, 400), &usual);
    let mut b = subject(&recording("crun", 200, 500), &usual);
    let plain = run(&[a.clone(), b.clone()]);
    let weighting =
        |r: &RiskResult| r.weightings.iter().find(|w| w.name == "epss").unwrap().clone();
    assert!(weighting(&plain).missing.unwrap().contains("--feeds"));

    // By functions a is the smaller one in everything; by known and exploited ones b is in the HAP.
    a.known = known(&[(Layer::HostKernel, Some(0.5), false), (Layer::HostKernel, None, true)]);
    b.known = known(&[(Layer::HostKernel, Some(0.25), false), (Layer::App, Some(0.125), true)]);
    let both = run(&[a.clone(), b.clone()]);
    let w = weighting(&both);
    assert_eq!(w.missing, None);
    let values: Vec<_> = w.values.iter().map(|v| (v.tenant_vap, v.total_vap, v.hap)).collect();
    assert_eq!(values, [(0.0, 1.5, 1.5), (1.0, 1.25, 0.25)]);
    assert_eq!(w.differs_in, [Figure::TotalVap, Figure::Hap]);
    let sums = both.deployments[1].known.unwrap();
    assert_eq!((sums.traversed, sums.kev, sums.epss, sums.undecided), (2, 1, Some(1.25), 1));
    // Beside the expected ones, not in them.
    assert_eq!(both.deployments[0].vap, plain.deployments[0].vap);
    assert_eq!(both.pairs, plain.pairs);

    b.known = known(&[(Layer::HostKernel, None, false)]);
    a.known = known(&[]);
    let missing = weighting(&run(&[a, b])).missing.unwrap();
    assert!(missing.contains("none of the 1 known"), "{missing}");
}
