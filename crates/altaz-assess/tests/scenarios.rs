//! The essay's systems under its own assumptions say what the essay says; what-ifs change what they
//! should.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use altaz_assess::contract::Contract;
use altaz_assess::risk::{Priors, Settings, Subject};
use altaz_assess::scenario::{Scenario, model_alone, model_changed};
use altaz_assess::{Options, assess};
use altaz_profile::results::risk::{DeploymentRisk, Figure, ModelResult, Verdict};
use altaz_profile::{Boundary, Layer};
use common::{Rows, profile};

const QUICK: Settings = Settings { seed: 1, draws: 1000, sobol_draws: 0, components: 4 };

macro_rules! shipped {
    ($($name:literal),+) => { [$(($name, include_str!(concat!("../../../demo/scenarios/", $name, ".toml")))),+] };
}

fn essay() -> ModelResult {
    let shipped = shipped![
        "physical",
        "login",
        "container",
        "hypervisor",
        "nested",
        "sandbox",
        "enclave",
        "enclave-part"
    ];
    let scenarios: Vec<Scenario> = shipped
        .iter()
        .map(|(name, text)| {
            let (s, problems) = Scenario::parse(text, name).unwrap();
            assert!(problems.is_empty(), "{problems:?}");
            assert_eq!(s.name, *name);
            s
        })
        .collect();
    model_alone(&scenarios, &Priors::uniform(), &QUICK)
}

fn of<'r>(r: &'r ModelResult, name: &str) -> &'r DeploymentRisk {
    r.risk.deployments.iter().find(|d| d.name == name).unwrap()
}

#[test]
fn the_essays_scenarios_reproduce_its_statements() {
    let r = essay();
    let total = |n: &str| of(&r, n).vap.lambda.median;
    let tenant = |n: &str| of(&r, n).tenant.lambda.median;
    let hap = |n: &str| of(&r, n).hap.lambda.median;
    let near = |a: f64, b: f64| (a / b - 1.0).abs() < 1e-9;
    assert!(
        near(total("container"), total("physical")),
        "the container's total equals the physical one"
    );
    assert!(near(total("login"), total("physical")));
    assert!(near(tenant("container"), 0.5 * tenant("physical")), "the tenant's half");
    assert!(near(tenant("hypervisor"), tenant("physical")), "the guest is all the tenant's");
    assert!(near(tenant("login"), 0.25 * total("physical")), "application only");
    assert!(total("hypervisor") > total("physical"));
    assert!(total("nested") > total("hypervisor"));
    assert_eq!(hap("physical"), 0.0, "an air gap");
    assert!(near(hap("container"), 10.0 * hap("hypervisor")), "300 calls against 30");
    assert!(near(hap("nested"), hap("hypervisor")));
    assert!(hap("login") > hap("container"), "the worst of all");
    assert!(hap("sandbox") < hap("container"));
    assert!(tenant("nested") > tenant("container"), "the kernel is handed back");
    assert!(total("enclave") < total("container"), "the host is outside");
    assert!(total("enclave-part") < total("enclave"));
    assert!(near(hap("enclave"), hap("container")), "an enclave attacks as any process");
}

#[test]
fn whether_a_sandbox_shrinks_the_profile_is_undecided_and_the_rest_of_the_essay_holds() {
    let r = essay();
    let pair = r
        .risk
        .pairs
        .iter()
        .find(|p| p.figure == Figure::TotalVap && p.a == "container" && p.b == "sandbox")
        .unwrap();
    assert!(pair.smaller.is_none() && !pair.equal, "{pair:?}");
    let contradicted: Vec<_> =
        r.risk.statements.iter().filter(|s| s.verdict != Verdict::Holds).collect();
    assert!(contradicted.is_empty(), "{contradicted:#?}");
    assert!(r.risk.statements.len() >= 12, "{}", r.risk.statements.len());
}

fn container() -> Subject {
    let mut p = profile("runc");
    p.manifest.boundaries = vec![Boundary {
        exercised: Some(30),
        ..Boundary::new("syscall", Layer::App, Layer::HostKernel, Some(300))
    }];
    p.units = Rows::new()
        .seen_always(Layer::App, "/usr/bin/app", 300)
        .seen_always(Layer::HostKernel, "kernel", 300)
        .seen_always(Layer::HostKernel, "[bridge]", 20)
        .take();
    let result = assess(&p, &Options::default()).unwrap();
    let contract = Contract::preset("managed-containers").unwrap();
    Subject::measured(&p, &result, &contract, &Priors::built_in().unwrap())
}

fn what_if(changes: &str) -> ModelResult {
    let text = format!("name = \"changed\"\n{changes}");
    let (scenario, problems) = Scenario::parse(&text, "s.toml").unwrap();
    assert!(problems.is_empty(), "{problems:?}");
    let r = model_changed(&container(), &scenario, "web", &Priors::built_in().unwrap(), &QUICK);
    assert!(r.risk.warnings.is_empty(), "{:?}", r.risk.warnings);
    r
}

fn before_after(r: &ModelResult) -> (&DeploymentRisk, &DeploymentRisk) {
    (&r.risk.deployments[0], &r.risk.deployments[1])
}

#[test]
fn each_kind_of_change_changes_what_it_should() {
    let r = what_if("[[change]]\nkind = \"owner\"\nlayer = \"host-kernel\"\nto = \"tenant\"\n");
    let (b, a) = before_after(&r);
    assert_eq!((b.provider.functions, a.provider.functions), (320, 0));

    let r = what_if("[[change]]\nkind = \"window\"\nowner = \"provider\"\ndays = 300\n");
    let (b, a) = before_after(&r);
    assert!(a.hap.exposure.median > b.hap.exposure.median && a.hap.lambda == b.hap.lambda);

    let r = what_if("[[change]]\nkind = \"density\"\nlayer = \"app\"\nfactor = 0.5\n");
    let (b, a) = before_after(&r);
    assert!((a.tenant.lambda.median / b.tenant.lambda.median - 0.5).abs() < 1e-9);

    let r = what_if(
        "[[change]]\nkind = \"remove\"\nlayer = \"host-kernel\"\ncomponent = \"[bridge]\"\n",
    );
    let (b, a) = before_after(&r);
    assert_eq!(b.hap.functions - a.hap.functions, 20);
    assert!(a.hap.lambda.median < b.hap.lambda.median);

    let r = what_if("[[change]]\nkind = \"narrow\"\nboundary = \"syscall\"\npermitted = 30\n");
    let (b, a) = before_after(&r);
    let ratio = b.hap.lambda.median / a.hap.lambda.median;
    assert!((1.2..10.0).contains(&ratio), "ten times fewer calls, at most ten times less: {ratio}");
    assert_eq!(a.vap.lambda, b.vap.lambda, "what is traversed stays");

    let r = what_if(
        "[[change]]\nkind = \"guard\"\nboundary = \"syscall\"\npermitted = 30\ncode_kb = 5\n",
    );
    let (b, a) = before_after(&r);
    assert!(a.hap.lambda.median < b.hap.lambda.median && a.vap.bytes == b.vap.bytes + 5000);

    let r = what_if("[[change]]\nkind = \"nest\"\n");
    let (b, a) = before_after(&r);
    assert!(a.vap.functions > b.vap.functions, "a larger total");
    assert!(a.tenant.functions > b.tenant.functions, "the kernel handed back");
    assert_eq!(a.layer(Layer::GuestKernel).unwrap().risk.functions, 320);
    assert!(a.paths.iter().any(|p| p.barriers.len() == 2), "{:?}", a.paths);
}

#[test]
fn a_rewrite_in_a_safer_language_is_worse_at_first_and_overtakes() {
    let r = what_if("[[change]]\nkind = \"rewrite\"\nlayer = \"app\"\nlanguage = \"rust\"\n");
    let (b, a) = before_after(&r);
    assert!(
        a.tenant.lambda.median > 0.5 * b.tenant.lambda.median,
        "young code, for all its language"
    );
    let rewrite = &r.rewrites[0];
    assert!(rewrite.overtakes > 0.9, "{rewrite:?}");
    let years = rewrite.overtakes_years.unwrap();
    assert!((0.0..6.0).contains(&years.median), "{years:?}");
    assert!(rewrite.curve.windows(2).all(|w| w[1].probability >= w[0].probability - 1e-12));
    let never = "[[change]]\nkind = \"rewrite\"\nlayer = \"app\"\nlanguage = \"c\"\n";
    assert_eq!(what_if(never).rewrites[0].overtakes, 0.0);
}

#[test]
fn mistakes_of_a_scenario_are_named_with_their_places_and_the_rest_is_used() {
    let text = "name = \"x\"\n[[change]]\nkind = \"window\"\nlayer = \"host-kernel\"\ndays = -1\n\
                [[change]]\nkind = \"owner\"\nlayer = \"kernel\"\nto = \"tenant\"\n\
                [[change]]\nkind = \"shrink\"\n[[change]]\nkind = \"owner\"\nlayer = \"app\"\n\
                to = \"provider\"\n";
    let (s, problems) = Scenario::parse(text, "s.toml").unwrap();
    let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!((s.changes.len(), said.len()), (1, 3), "{said:?}");
    assert!(said[0].starts_with("s.toml:2:") && said[0].contains("-1"), "{}", said[0]);
    assert!(said[1].contains("there is no layer `kernel`"), "{}", said[1]);
    assert!(said[2].contains("there is no change `shrink`"), "{}", said[2]);
}

#[test]
fn a_change_that_does_not_fit_is_left_out_and_said_so() {
    let text = "name = \"x\"\n[[change]]\nkind = \"rewrite\"\nlayer = \"vmm\"\nlanguage = \"rust\"\n\
                [[change]]\nkind = \"density\"\nlayer = \"app\"\nfactor = 2\n";
    let (s, _) = Scenario::parse(text, "s.toml").unwrap();
    let r = model_changed(&container(), &s, "web", &Priors::built_in().unwrap(), &QUICK);
    assert_eq!((r.risk.warnings.len(), r.changes.len()), (1, 1));
    assert!(r.risk.warnings[0].contains("no layer vmm"), "{:?}", r.risk.warnings);
}
