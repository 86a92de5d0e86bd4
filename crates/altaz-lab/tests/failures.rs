//! What goes wrong when a deployment is started, in one lab: the reason is told, soon, nothing is left behind, and
//! the next deployment runs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::time::{Duration, Instant};

use altaz_deploy::ServiceSpec;
use altaz_deploy::traces::left_behind;
use altaz_lab::protocol::RequestBody;
use altaz_lab::{
    BootOptions, BuildOptions, Interrupt, LabImage, LabVm, NetNs, Recipe, ServiceImage, cache_dir,
};
use serde_json::Value;

const MINUTE: Option<Duration> = Some(Duration::from_secs(60));
/// The lab's own programs are found behind these.
const RUNC: &str = "/usr/local/bin/runc";
const QEMU: &str = "/usr/local/bin/qemu-system-x86_64";
/// Has the guest's kernel wait for a disk that never comes, on its command line.
const WAITS_FOR_A_DISK: &str = r#"#!/bin/sh
n=$#
while [ "$n" -gt 0 ]; do
    word=$1
    shift
    n=$((n - 1))
    case $word in
    *altaz.guest=1*) word="$word rdinit=/nonesuch root=/dev/nowhere rootwait" ;;
    esac
    set -- "$@" "$word"
done
exec /usr/bin/qemu-system-x86_64 "$@"
"#;

/// The tiny service; a guest of it must boot within 25 s.
fn spec() -> ServiceSpec {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tiny/tiny.toml");
    let text = std::fs::read_to_string(&fixture).unwrap();
    let text = text.replace("timeout_s = 30", "timeout_s = 25");
    ServiceSpec::parse(&text, &fixture).unwrap()
}

struct Lab {
    vm: LabVm,
    spec: ServiceSpec,
    before: Vec<String>,
}

impl Lab {
    fn call(&self, body: RequestBody) -> Result<Value, String> {
        let answer = self.vm.call("try", body, &[], MINUTE);
        answer.map(|(value, _)| value).map_err(|e| e.to_string())
    }

    fn start(&self, deployment: &str) -> Result<Value, String> {
        let spec = serde_json::to_value(&self.spec).unwrap();
        self.call(RequestBody::DeployStart { deployment: deployment.into(), spec })
    }

    fn traces(&self) -> Vec<String> {
        serde_json::from_value(self.call(RequestBody::DeployTraces).unwrap()).unwrap()
    }

    /// Nothing is there that was not there before the first deployment.
    fn clean(&self, after: &str) {
        let left = left_behind(&self.before, &self.traces());
        assert!(left.is_empty(), "after {after}: {left:?}");
    }

    fn script(&self, script: &str) -> String {
        self.vm.script(script, MINUTE).unwrap()
    }
}

fn lab(netns: &NetNs) -> Lab {
    let mut options = BuildOptions {
        cache: cache_dir(),
        progress: &mut |step: &str| eprintln!("{step}"),
        interrupt: Interrupt::new(),
    };
    let spec = spec();
    let image = LabImage::ensure(&Recipe::builtin().unwrap(), &mut options).unwrap();
    let service = ServiceImage::ensure(&spec.image, &mut options).unwrap();
    let mut options = BootOptions::new(netns);
    options.service_image = Some(&service);
    let vm = LabVm::boot(&image, options).unwrap();
    let mut lab = Lab { vm, spec, before: Vec::new() };
    lab.before = lab.traces();
    assert!(lab.before.iter().any(|line| line.starts_with("network interface br0")));
    lab
}

#[test]
#[ignore = "needs the lab"]
fn each_failure_has_its_reason_and_nothing_is_left_and_the_next_deployment_runs() {
    let netns = NetNs::new().unwrap();
    let lab = lab(&netns);

    // No virtualisation in the lab.
    lab.script("mv /dev/kvm /dev/kvm.away");
    for guest in ["qemu", "qemu-microvm", "runc-in-qemu"] {
        let answer = lab.start(guest).unwrap();
        let why = answer["unavailable"].to_string();
        assert!(why.contains("/dev/kvm is not there"), "{guest}: {answer}");
        assert!(why.contains("kvm_amd"), "{guest}: the remedy: {answer}");
    }
    lab.script("mv /dev/kvm.away /dev/kvm");
    lab.clean("missing virtualisation");

    // A runtime that fails to start.
    lab.vm.put_file(RUNC, 0o755, b"#!/bin/sh\necho no such luck >&2\nexit 3\n").unwrap();
    let error = lab.start("runc").unwrap_err();
    assert!(error.contains("exited with code 3") && error.contains("no such luck"), "{error}");
    lab.clean("a runtime that fails");
    lab.script(&format!("rm {RUNC}"));

    // A guest that hangs at boot.
    lab.vm.put_file(QEMU, 0o755, WAITS_FOR_A_DISK.as_bytes()).unwrap();
    let begin = Instant::now();
    lab.start("qemu-microvm").unwrap();
    let ended = loop {
        let status = lab.call(RequestBody::DeployStatus).unwrap();
        if let Some(how) = status["exited"].as_str() {
            break how.to_owned();
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "still waited for: {status}");
        std::thread::sleep(Duration::from_secs(1));
    };
    assert!(ended.contains("after 25 s the guest has not booted"), "{ended}");
    let begin = Instant::now();
    lab.call(RequestBody::DeployStop).unwrap();
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    lab.clean("a guest that hangs");
    lab.script(&format!("rm {QEMU}"));

    // An image without the command.
    let mut lab = lab;
    lab.spec.service.command = vec!["/usr/bin/nonesuch".into()];
    for deployment in ["process", "runc", "crun"] {
        let error = lab.start(deployment).unwrap_err();
        assert!(error.contains("nonesuch"), "{deployment}: {error}");
        lab.clean(deployment);
    }

    // The rest goes on.
    lab.spec = spec();
    for deployment in ["process", "runc"] {
        lab.start(deployment).unwrap();
        assert_eq!(lab.call(RequestBody::DeployStatus).unwrap()["exited"], Value::Null);
        lab.call(RequestBody::DeployStop).unwrap();
        lab.clean(deployment);
    }
    lab.vm.poweroff().unwrap();
}
