//! Triage as a reader meets it: a deployment with a kernel and packages, a planted vulnerability for
//! each state.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;

use altaz_assess::{Known, triage};
use altaz_profile::inventory::{KernelInventory, KernelModule, Package, Place};
use altaz_profile::results::triage::{
    Finding, Justification, Level, ProfileTriage, State, VexStatus,
};
use altaz_profile::version::Scheme;
use altaz_profile::vulnerability::{
    Affected, Ecosystem, Exploitation, VersionEnd, VersionRule, Versions, Vulnerability,
};
use altaz_profile::{Boundary, Layer, PermittedEntry, Profile};
use common::{Rows, profile};
use proptest::prelude::*;

/// A kernel of trixie with a module that is loaded and one that is not, and nginx.
fn places() -> Vec<Place> {
    let package = |name: &str, version: &str, source: &str| Package {
        name: name.into(),
        version: version.into(),
        arch: "amd64".into(),
        source: source.into(),
        source_version: version.into(),
    };
    let module = |name: &str, directory: &str, loaded, functions: &[&str]| KernelModule {
        name: name.into(),
        directory: directory.into(),
        loaded: Some(loaded),
        functions: functions.iter().map(|f| (*f).to_owned()).collect(),
    };
    vec![Place {
        name: "host".into(),
        layers: vec![Layer::HostKernel, Layer::App],
        distribution: Some("debian".into()),
        codename: Some("trixie".into()),
        version: Some("13".into()),
        packages: vec![
            package("linux-image-6.12.117+deb13-cloud-amd64", "6.12.117-1", "linux-signed-amd64"),
            package("nginx", "1.26.3-3", "nginx"),
        ],
        files: BTreeMap::from([("/usr/sbin/nginx".into(), "nginx".into())]),
        kernel: Some(KernelInventory {
            release: "6.12.117+deb13-cloud-amd64".into(),
            package: Some("linux-image-6.12.117+deb13-cloud-amd64".into()),
            modules: vec![
                module("tun", "drivers/net", true, &["tun_get_user"]),
                module("tap", "drivers/net", false, &["tap_get_user"]),
            ],
            builtin: vec!["net/ipv6/ipv6".into(), "fs/ext4/ext4".into()],
            functions: ["__do_sys_userfaultfd", "add_grec", "do_thaw_all", "tcp_check_req"]
                .map(str::to_owned)
                .to_vec(),
            lists_all_functions: true,
            config_sha256: None,
        }),
    }]
}

/// `tcp_check_req` and `init_once` of sockets were traversed, and nginx.
fn recorded() -> Profile {
    let mut p = profile("runc");
    p.manifest.host.arch = "x86_64".into();
    let kernel = Rows::new().seen_always(Layer::HostKernel, "kernel", 3).take();
    let names = [
        ("tcp_check_req", "net/ipv4/tcp_minisocks.c"),
        ("init_once", "net/socket.c"),
        ("other", "mm/"),
    ];
    for (mut unit, (symbol, file)) in kernel.into_iter().zip(names) {
        (unit.symbol, unit.file) = (symbol.into(), Some(file.into()));
        p.units.push(unit);
    }
    let app = Rows::from(100).seen_always(Layer::App, "/usr/sbin/nginx", 5).take();
    p.units.extend(app);
    p.manifest.boundaries = vec![Boundary {
        permitted_entries: ["read", "write"]
            .map(|name| PermittedEntry { name: name.into(), conditional: false })
            .to_vec(),
        ..Boundary::new("syscall", Layer::App, Layer::HostKernel, Some(2))
    }];
    p
}

/// A kernel vulnerability that upstream fixed in these versions of branches, the last the main line's.
fn kernel(id: &str, fixed: Option<&str>, file: &str, functions: &[&str]) -> Vulnerability {
    let mut a = Affected::new("kernel-cna", Ecosystem::Linux, "linux");
    a.files = vec![file.into()];
    a.functions = functions.iter().map(|f| (*f).to_owned()).collect();
    let mut rules = vec![VersionRule {
        from: Some("0".into()),
        to: VersionEnd::Below("5.13".into()),
        affected: false,
    }];
    if let Some(fixed) = fixed {
        let to = VersionEnd::Upto("6.12.*".into());
        rules.push(VersionRule { from: Some(fixed.into()), to, affected: false });
    }
    rules.push(VersionRule { from: Some("7.2".into()), to: VersionEnd::Open, affected: false });
    a.versions = Some(Versions { scheme: Scheme::Linux, default_affected: true, rules });
    Vulnerability { id: id.into(), affected: vec![a], ..Vulnerability::default() }
}

fn debian(package: &str, fixed: Option<&str>) -> Affected {
    let mut a = Affected::new("debian", Ecosystem::Debian, package);
    a.release = Some("trixie".into());
    a.versions = Some(Versions::until(Scheme::Dpkg, None, fixed));
    a
}

fn run(profile: &Profile, places: &[Place], all: Vec<Vulnerability>) -> ProfileTriage {
    let vulnerabilities = all.into_iter().map(|v| (v.id.clone(), v)).collect();
    let exploitation = [(
        "CVE-2026-1".to_owned(),
        Exploitation { epss: Some(0.3), epss_of: None, kev: Some("2026-01-01".into()) },
    )]
    .into();
    let known = Known { vulnerabilities: &vulnerabilities, exploitation: &exploitation };
    triage("runc.altaz", profile, places, known)
}

fn one(v: Vulnerability) -> Finding {
    let result = run(&recorded(), &places(), vec![v]);
    assert_eq!(result.findings.len(), 1, "{result:#?}");
    result.findings.into_iter().next().unwrap()
}

#[test]
fn traversed_code_of_an_affected_version_is_affected_and_says_what_to_do() {
    let f = one(kernel("CVE-2026-1", None, "net/ipv4/tcp_minisocks.c", &["tcp_check_req", "g"]));
    assert_eq!(
        (f.state, f.level, f.status),
        (State::Traversed, Level::Function, VexStatus::Affected)
    );
    assert_eq!(f.traversed, ["tcp_check_req (net/ipv4/tcp_minisocks.c) in host-kernel"]);
    assert!(f.why.contains("1 of the 2 functions"), "{}", f.why);
    let action = f.action.unwrap();
    assert!(
        action.contains("the provider must upgrade linux-image") && action.contains("7.2"),
        "{action}"
    );
    assert_eq!(
        (f.exploitation.epss, f.exploitation.kev.as_deref()),
        (Some(0.3), Some("2026-01-01"))
    );
}

#[test]
fn a_static_name_of_another_file_is_not_the_vulnerable_function() {
    let f = one(kernel("CVE-2026-2", None, "fs/ext4/super.c", &["init_once"]));
    assert_ne!(f.state, State::Traversed, "{}", f.why);
    let f = one(kernel("CVE-2026-2", None, "net/socket.c", &["init_once"]));
    assert_eq!(f.state, State::Traversed);
}

#[test]
fn what_was_not_traversed_stays_under_investigation_with_the_coverage() {
    let f = one(kernel("CVE-2026-3", None, "fs/super.c", &["do_thaw_all"]));
    assert_eq!((f.state, f.level), (State::NotTraversed, Level::Function));
    assert_eq!((f.status, f.justification), (VexStatus::UnderInvestigation, None));
    assert!(f.coverage.is_some_and(|c| c > 0.9), "{:?}", f.coverage);
    assert!(f.why.contains("% of this load's code in host-kernel"), "{}", f.why);
}

#[test]
fn a_fix_in_upstreams_branch_or_in_the_distributions_version_is_fixed() {
    let f =
        one(kernel("CVE-2026-4", Some("6.12.43"), "net/ipv4/tcp_minisocks.c", &["tcp_check_req"]));
    assert_eq!((f.state, f.status), (State::Fixed, VexStatus::Fixed));
    let mut backported = kernel("CVE-2026-5", None, "net/ipv4/tcp_minisocks.c", &["tcp_check_req"]);
    backported.affected.push(debian("linux", Some("6.12.117-1")));
    let f = one(backported);
    assert_eq!((f.state, f.status), (State::Fixed, VexStatus::Fixed));
    assert!(f.why.contains("trixie"), "{}", f.why);
}

#[test]
fn what_is_not_there_needs_a_proof() {
    let absent = |file: &str, functions: &[&str]| one(kernel("CVE-2026-6", None, file, functions));
    let f = absent("arch/arm64/kernel/fpsimd.c", &["f"]);
    assert_eq!(f.justification, Some(Justification::CodeNotPresent));
    let f = absent("net/bluetooth/iso.c", &["iso_conn_ready"]);
    assert_eq!((f.state, f.status), (State::NotPresent, VexStatus::NotAffected));
    assert!(f.why.contains("not compiled"), "{}", f.why);
    // Without the functions, or without the list of all functions, nothing is proven.
    let f = absent("net/bluetooth/iso.c", &[]);
    assert_eq!(f.status, VexStatus::UnderInvestigation);
    let mut compact = places();
    compact.iter_mut().for_each(|p| *p = p.compact());
    let v = kernel("CVE-2026-6", None, "net/bluetooth/iso.c", &["iso_conn_ready"]);
    let f = run(&recorded(), &compact, vec![v]).findings.remove(0);
    assert_eq!(f.status, VexStatus::UnderInvestigation, "{}", f.why);
}

#[test]
fn a_module_that_was_not_loaded_is_no_proof() {
    let f = one(kernel("CVE-2026-7", None, "drivers/net/tap.c", &["tap_get_user"]));
    assert_eq!((f.state, f.status), (State::NotLoaded, VexStatus::UnderInvestigation));
    assert!(f.why.contains("[tap]"), "{}", f.why);
    let f = one(kernel("CVE-2026-7", None, "drivers/net/tun.c", &["tun_get_user"]));
    assert_eq!(f.state, State::NotTraversed);
    // By the file's name alone, where functions are not known.
    let f = one(kernel("CVE-2026-7", None, "drivers/net/tap.c", &[]));
    assert_eq!(f.state, State::NotLoaded);
}

#[test]
fn only_a_guard_before_every_entry_is_a_proof() {
    let f = one(kernel("CVE-2026-8", None, "io_uring/net.c", &["add_grec"]));
    assert_eq!((f.state, f.status), (State::Guarded, VexStatus::UnderInvestigation), "{}", f.why);
    let f = one(kernel("CVE-2026-8", None, "fs/userfaultfd.c", &["__do_sys_userfaultfd"]));
    assert_eq!((f.state, f.status), (State::Guarded, VexStatus::NotAffected));
    assert_eq!(f.justification, Some(Justification::CannotBeControlled));
    let mut open = recorded();
    open.manifest.boundaries.clear();
    let v = kernel("CVE-2026-8", None, "fs/userfaultfd.c", &["__do_sys_userfaultfd"]);
    let f = run(&open, &places(), vec![v]).findings.remove(0);
    assert_eq!(f.state, State::NotTraversed);
}

#[test]
fn file_evidence_says_that_it_is_no_more() {
    let f = one(kernel("CVE-2026-9", None, "net/socket.c", &[]));
    assert_eq!((f.state, f.level), (State::Traversed, Level::File));
    assert!(f.why.starts_with("file-level evidence"), "{}", f.why);
    // Something of mm/ was traversed, and which file it is in is not known: visible, and undecided.
    let f = one(kernel("CVE-2026-9", None, "mm/mmap.c", &[]));
    assert_eq!((f.state, f.status), (State::Unmapped, VexStatus::UnderInvestigation));
}

#[test]
fn packages_are_joined_by_their_source_and_what_is_not_installed_is_counted() {
    let of = |id: &str, affected| Vulnerability {
        id: id.into(),
        affected: vec![affected],
        ..Vulnerability::default()
    };
    let mut with_function = debian("nginx", None);
    with_function.functions = vec!["function_101".into()];
    let result = run(
        &recorded(),
        &places(),
        vec![
            of("CVE-2026-11", debian("nginx", None)),
            of("CVE-2026-12", debian("nginx", Some("1.26.3-2"))),
            of("CVE-2026-13", debian("apache2", None)),
            of("CVE-2026-14", with_function),
        ],
    );
    let states: Vec<(&str, State)> =
        result.findings.iter().map(|f| (f.id.as_str(), f.state)).collect();
    assert_eq!(
        states,
        [
            ("CVE-2026-14", State::Traversed),
            ("CVE-2026-11", State::Unmapped),
            ("CVE-2026-12", State::Fixed)
        ]
    );
    assert_eq!(result.not_installed, 1);
    let product = &result.products[result.findings[0].product];
    assert_eq!(product.purl, "pkg:deb/debian/nginx@1.26.3-3?arch=amd64&distro=trixie");
}

#[test]
fn a_profile_without_an_inventory_is_judged_by_its_kernels_release() {
    let mut p = recorded();
    p.manifest.host.kernel = "6.12.117+deb13-cloud-amd64".into();
    let all = vec![
        kernel("CVE-2026-4", Some("6.12.43"), "net/socket.c", &[]),
        kernel("CVE-2026-1", None, "net/ipv4/tcp_minisocks.c", &["tcp_check_req"]),
    ];
    let result = run(&p, &[], all);
    let states: Vec<State> = result.findings.iter().map(|f| f.state).collect();
    assert_eq!(states, [State::Traversed, State::Fixed]);
    assert!(result.notes[0].contains("--inventory"), "{:?}", result.notes);
    assert_eq!(result.products[0].purl, "pkg:generic/linux@6.12.117");
    // A release that names an ABI tells no version: nothing is called fixed or affected.
    p.manifest.host.kernel = "6.1.0-25-amd64".into();
    let all =
        vec![kernel("CVE-2026-4", Some("6.12.43"), "net/ipv4/tcp_minisocks.c", &["tcp_check_req"])];
    let f = run(&p, &[], all).findings.remove(0);
    assert_eq!((f.state, f.status), (State::Traversed, VexStatus::UnderInvestigation));
}

proptest! {
    #[test]
    fn not_affected_always_has_a_proof_and_affected_an_action(
        fixed in prop::option::of("6\\.(1|12)\\.[0-9]{1,3}"),
        file in prop::sample::select(vec!["net/socket.c", "mm/mmap.c", "drivers/net/tap.c", "arch/arm64/a.c", "fs/super.c", "io_uring/net.c"]),
        functions in prop::collection::vec(prop::sample::select(vec!["init_once", "tap_get_user", "do_thaw_all", "nowhere"]), 0..3),
        inventory: bool,
    ) {
        let places = if inventory { places() } else { vec![] };
        let mut p = recorded();
        p.manifest.host.kernel = "6.12.117+deb13-amd64".into();
        let v = kernel("CVE-2026-1", fixed.as_deref(), file, &functions);
        for f in run(&p, &places, vec![v]).findings {
            prop_assert_eq!(f.status == VexStatus::NotAffected, f.justification.is_some());
            prop_assert_eq!(f.status == VexStatus::Affected, f.action.is_some());
            prop_assert!(f.state != State::NotTraversed || f.status == VexStatus::UnderInvestigation);
            prop_assert!(!f.why.is_empty());
        }
    }
}
