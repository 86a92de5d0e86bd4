//! What every deployment must say about itself, whichever it is.

use std::path::Path;

use altaz_profile::model::{Layer, Owner};
use altaz_profile::rules::{CodePlace, LayerRules, Machine, Origin, Privilege};

use super::{all, by_name};
use crate::{Description, ServiceSpec};

const SPEC: &str = r#"
name = "web"
[image]
suite = "trixie"
[service]
command = ["/srv/web/serve"]
port = 8080
[load]
requests = 10
http = { path = "/", rate = 1.0 }
[layers]
library = ["/srv/web/vendored/*"]
"#;

fn describe(name: &str) -> Description {
    let spec = ServiceSpec::parse(SPEC, Path::new("web.toml")).unwrap();
    by_name(name).unwrap().describe(&spec)
}

fn user<'a>(machine: Machine, origin: Origin, binary: &'a str, role: &'a str) -> CodePlace<'a> {
    CodePlace { machine, privilege: Privilege::User, origin, binary, role }
}

fn layer(d: &Description, place: CodePlace<'_>) -> Option<Layer> {
    LayerRules::compile(&d.rules).unwrap().layer_of(place)
}

#[test]
fn names_are_unique_and_found_again() {
    for d in all() {
        assert_eq!(by_name(d.name()).unwrap().summary(), d.summary());
        assert_eq!(all().iter().filter(|o| o.name() == d.name()).count(), 1, "{}", d.name());
    }
    assert!(by_name("nonesuch").is_none());
}

#[test]
fn boundaries_and_rules_only_speak_of_layers_that_the_deployment_has() {
    for d in all() {
        let d = describe(d.name());
        let has = |l: Layer| d.layers.iter().any(|i| i.name == l);
        for b in &d.boundaries {
            assert!(has(b.from) && has(b.to), "{}: {} {} → {}", d.name, b.name, b.from, b.to);
        }
        for r in d.rules.iter().filter_map(|r| r.layer) {
            // Rules may name a layer for start-up tools that hold no part of a request.
            assert!(has(r) || r == Layer::HostService, "{}: rule for {r}", d.name);
        }
    }
}

#[test]
fn the_same_application_code_has_the_same_layer_everywhere() {
    // A model has no rules of its own: nothing is recorded by it.
    for d in all().iter().filter(|d| d.model_of().is_none()) {
        let d = describe(d.name());
        let machine = if d.in_guest() { Machine::Guest } else { Machine::Host };
        let of = |binary| layer(&d, user(machine, Origin::Service, binary, ""));
        assert_eq!(of("/usr/sbin/nginx"), Some(Layer::App), "{}", d.name);
        assert_eq!(of("/usr/lib/x86_64-linux-gnu/libc.so.6"), Some(Layer::Library));
        assert_eq!(of("/usr/lib64/ld-linux-x86-64.so.2"), Some(Layer::Library));
        assert_eq!(of("/usr/bin/python3.13"), Some(Layer::LanguageRuntime));
        assert_eq!(
            of("/usr/lib/python3/dist-packages/psycopg2/_psycopg.cpython-313-x86_64-linux-gnu.so"),
            Some(Layer::LanguageRuntime)
        );
        assert_eq!(of("/srv/web/vendored/tool"), Some(Layer::Library), "the spec's own rule");
        assert_eq!(layer(&d, user(machine, Origin::Host, "/usr/lib/altaz/altaz-agent", "")), None);
    }
}

#[test]
fn a_guest_whose_kernel_is_a_program_runs_all_of_its_code_on_the_host() {
    for d in all().iter().filter(|d| d.model_of().is_none()) {
        let program = d.guest_kernel_program().is_some();
        let d = describe(d.name());
        let kernel = d.layers.iter().any(|l| l.name == Layer::GuestKernel);
        assert_eq!(d.in_guest(), kernel && !program, "{}", d.name);
    }
}

#[test]
fn only_code_that_several_tenants_pass_is_shared() {
    let shared = |name: &str| -> Vec<Layer> {
        describe(name).layers.into_iter().filter(|l| l.shared).map(|l| l.name).collect()
    };
    for name in ["process", "physical"] {
        assert_eq!(shared(name), [], "{name}");
    }
    let kernel_only = [
        "runc",
        "crun",
        "runsc-systrap",
        "runsc-ptrace",
        "qemu",
        "qemu-microvm",
        "runc-in-qemu",
        "enclave",
    ];
    for name in kernel_only {
        assert_eq!(shared(name), [Layer::HostKernel], "{name}");
    }
    let userland = [Layer::LanguageRuntime, Layer::Library, Layer::HostKernel];
    for name in ["login", "login-hardened"] {
        assert_eq!(shared(name), userland, "{name}: one installation for all");
    }
}

#[test]
fn the_guest_kernel_is_the_tenant_s_and_the_sentry_is_not() {
    let info = |name: &str, layer: Layer| {
        describe(name).layers.into_iter().find(|l| l.name == layer).unwrap()
    };
    let sentry = info("runsc-systrap", Layer::SandboxKernel);
    assert_eq!((sentry.owner, sentry.ownership_moved), (Owner::Provider, true));
    for name in ["qemu", "qemu-microvm"] {
        let kernel = info(name, Layer::GuestKernel);
        assert_eq!((kernel.owner, kernel.ownership_moved), (Owner::Tenant, false), "{name}");
    }
}

#[test]
fn nesting_a_container_in_a_guest_hands_kernel_and_runtime_back_to_the_tenant() {
    let moved: Vec<(Layer, Owner)> = describe("runc-in-qemu")
        .layers
        .into_iter()
        .filter(|l| l.ownership_moved)
        .map(|l| (l.name, l.owner))
        .collect();
    assert_eq!(moved, [(Layer::GuestUserland, Owner::Tenant), (Layer::GuestKernel, Owner::Tenant)]);
    let d = describe("runc-in-qemu");
    let runc = |machine| layer(&d, user(machine, Origin::Host, "/usr/sbin/runc", ""));
    assert_eq!(runc(Machine::Guest), Some(Layer::GuestUserland));
    assert_eq!(runc(Machine::Host), Some(Layer::Vmm), "nothing but the monitor runs on the host");
}

#[test]
fn a_guest_s_vdso_is_a_library_of_its_image() {
    for name in ["qemu", "qemu-microvm", "runc-in-qemu"] {
        let d = describe(name);
        let vdso = user(Machine::Guest, Origin::Host, "linux-vdso.so.1", "");
        assert_eq!(layer(&d, vdso), Some(Layer::Library), "{name}");
    }
}

#[test]
fn a_model_rests_on_a_deployment_that_is_run_and_has_its_layers() {
    for d in all() {
        let Some(measured) = d.model_of() else { continue };
        let run = by_name(measured).unwrap();
        assert_eq!(run.model_of(), None, "{}: a model of a model", d.name());
        let layers = |d: Description| d.layers.iter().map(|l| l.name).collect::<Vec<_>>();
        assert_eq!(layers(describe(d.name())), layers(describe(measured)), "{}", d.name());
    }
}

#[test]
fn both_platforms_of_gvisor_tell_their_processes_apart_in_the_same_way() {
    let (a, b) = (describe("runsc-systrap"), describe("runsc-ptrace"));
    assert_eq!((a.split_binaries, a.rules, a.layers), (b.split_binaries, b.rules, b.layers));
}

#[test]
fn sentry_gofer_and_command_line_are_told_apart_by_role() {
    let d = describe("runsc-systrap");
    let of = |role| layer(&d, user(Machine::Host, Origin::Host, "/usr/bin/runsc", role));
    assert_eq!(of("sentry"), Some(Layer::SandboxKernel));
    assert_eq!(of(""), Some(Layer::SandboxKernel));
    assert_eq!(of("gofer"), Some(Layer::SandboxHelper));
    assert_eq!(of("command"), Some(Layer::HostService));
}

#[test]
fn guest_and_host_kernel_are_different_layers_of_the_guest() {
    let d = describe("qemu-microvm");
    let kernel = |machine| CodePlace {
        machine,
        privilege: Privilege::Kernel,
        origin: Origin::Unknown,
        binary: "kernel",
        role: "",
    };
    assert_eq!(layer(&d, kernel(Machine::Guest)), Some(Layer::GuestKernel));
    assert_eq!(layer(&d, kernel(Machine::Host)), Some(Layer::HostKernel));
    let qemu = user(Machine::Host, Origin::Host, "/usr/bin/qemu-system-x86_64", "");
    assert_eq!(layer(&d, qemu), Some(Layer::Vmm));
}

#[test]
fn a_lab_without_what_a_deployment_needs_says_what_to_do() {
    let lab = crate::LabEnv { image_disk: "/nonexistent/disk".into(), ..Default::default() };
    for d in all() {
        let e = d.available(&lab).unwrap_err();
        assert!(!e.reason.is_empty() && !e.remedy.is_empty(), "{}: {e}", d.name());
    }
}
