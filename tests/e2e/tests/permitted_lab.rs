//! What altaz says a filter permits, against a program that really makes every call: in containers of
//! the lab with podman's default filter, with none, with systemd's `@system-service`, and with a
//! filter of conditions on arguments.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use altaz_deploy::boundary::Counts;
use altaz_deploy::seccomp::syscall_name;
use altaz_e2e::lab::{lab_image, service, start};
use altaz_e2e::live::qemu_in_turn;
use altaz_e2e::{Ran, altaz_program, command, repository};
use altaz_lab::protocol::RequestBody;
use altaz_lab::{BootOptions, LabVm, NetNs};
use serde_json::{Value, json};

const CASES: [&str; 4] = ["default", "unconfined", "system-service", "conditions"];

/// What the program found out about a call, over its sets of arguments.
#[derive(Debug, Default, Clone)]
struct Called {
    passed: u32,
    denied: u32,
    verdicts: BTreeSet<String>,
}

impl Called {
    /// Somebody answered that there is no such call: the kernel or its filter.
    fn says_nosys(&self) -> bool {
        self.verdicts.contains("nosys")
    }
}

/// By case and number.
fn called(stdout: &str) -> BTreeMap<String, BTreeMap<u64, Called>> {
    let mut all: BTreeMap<String, BTreeMap<u64, Called>> = BTreeMap::new();
    let mut case = String::new();
    for line in stdout.lines() {
        if let Some(name) = line.strip_prefix("case ") {
            case = name.to_owned();
        }
        let Some(rest) = line.strip_prefix("call ") else { continue };
        let words: Vec<&str> = rest.split(' ').collect();
        let [number, _, verdict, _] = words[..] else { continue };
        let entry = all.entry(case.clone()).or_default();
        let found = entry.entry(number.parse().unwrap()).or_default();
        match verdict {
            "refused" | "killed" => found.denied += 1,
            _ => found.passed += 1,
        }
        found.verdicts.insert(verdict.to_owned());
    }
    all
}

fn oci(default: &str, names: &[&str], extra: Vec<Value>) -> String {
    let mut rules = vec![json!({ "names": names, "action": "SCMP_ACT_ALLOW" })];
    rules.extend(extra);
    json!({
        "defaultAction": default,
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    })
    .to_string()
}

/// Names of systemd's group, as systemd itself resolves it.
fn system_service() -> Vec<String> {
    let (mut names, mut todo) = (BTreeSet::new(), vec!["@system-service".to_owned()]);
    while let Some(group) = todo.pop() {
        let output = command("systemd-analyze")
            .args(["syscall-filter", "--no-pager", &group])
            .output()
            .unwrap();
        // The first line is the group's name, comments begin with #.
        let text = String::from_utf8(output.stdout).unwrap();
        for word in text.lines().skip(1).map(str::trim) {
            match word.chars().next() {
                Some('@') => todo.push(word.to_owned()),
                Some('#') | None => {}
                Some(_) => {
                    names.insert(word.to_owned());
                }
            }
        }
    }
    names.into_iter().collect()
}

#[test]
#[ignore = "needs the lab"]
fn permitted_system_calls_are_those_that_a_program_in_the_container_can_make() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let built = command("cc")
        .args(["-static", "-O1", "-o"])
        .arg(path("call-each"))
        .arg(repository().join("tests/fixtures/call-each.c"))
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let service = system_service();
    assert!(service.len() > 150, "{service:?}");
    // The program itself must be able to install its own filter, and the runtime to start it.
    let own = ["seccomp", "prctl", "pause", "alarm", "setsid", "execve", "exit_group"];
    let names: Vec<&str> = service.iter().map(String::as_str).chain(own).collect();
    std::fs::write(path("system-service.json"), oci("SCMP_ACT_ERRNO", &names, vec![])).unwrap();
    let when = |name: &str, args: Value| json!({ "names": [name], "action": "SCMP_ACT_ALLOW", "args": args });
    let conditions = vec![
        when("socket", json!([{ "index": 0, "value": 40, "op": "SCMP_CMP_NE" }])),
        when("personality", json!([{ "index": 0, "value": 0, "op": "SCMP_CMP_EQ" }])),
        when(
            "getppid",
            json!([{ "index": 1, "value": 0, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }]),
        ),
    ];
    let without = ["socket", "personality"];
    let plain: Vec<&str> = names.iter().copied().filter(|n| !without.contains(n)).collect();
    std::fs::write(path("conditions.json"), oci("SCMP_ACT_ERRNO", &plain, conditions)).unwrap();

    let altaz = altaz_program();
    let put = |from: &Path, to: &str| ["--put".to_owned(), format!("{}:{to}", from.display())];
    let get = |name: &str| {
        let to = path(&format!("{name}.altaz"));
        ["--get".to_owned(), format!("/out/{name}.altaz:{}", to.display())]
    };
    let ran: Ran = command(&altaz)
        .arg("--qemu")
        .arg(qemu_in_turn(dir.path()))
        .args(["lab", "run"])
        .args(put(&altaz, "/usr/local/bin/altaz"))
        .args(put(&path("call-each"), "/call-each"))
        .args(put(&path("system-service.json"), "/system-service.json"))
        .args(put(&path("conditions.json"), "/conditions.json"))
        .args(put(&repository().join("tests/e2e/tests/lab/permitted.sh"), "/permitted.sh"))
        .args(CASES.iter().flat_map(|c| get(c)))
        .args(["--", "sh", "/permitted.sh"])
        .output()
        .unwrap()
        .into();
    let mut all = called(&ran.stdout);
    // What this kernel has not got answers as a filter that says ENOSYS: only a call that is there without a filter
    // tells of one.
    let missing: BTreeSet<u64> = all
        .get("unconfined")
        .unwrap_or_else(|| panic!("unconfined: nothing in {ran:#?}"))
        .iter()
        .filter(|(_, called)| called.says_nosys())
        .map(|(number, _)| *number)
        .collect();
    for found in all.values_mut() {
        found.retain(|number, _| !missing.contains(number));
        for called in found.values_mut().filter(|called| called.says_nosys()) {
            called.denied += std::mem::take(&mut called.passed);
        }
    }
    for case in CASES {
        let found = all.get(case).unwrap_or_else(|| panic!("{case}: nothing in {ran:#?}"));
        let profile = altaz_profile::file::read(&path(&format!("{case}.altaz")))
            .unwrap_or_else(|e| panic!("{case}: {e}: {ran:#?}"));
        let boundary = profile.manifest.boundaries.iter().find(|b| b.name == "syscall").unwrap();
        let mut wrong = Vec::new();
        let (mut allowed, mut refused, mut conditional) = (0, 0, 0);
        for (number, called) in found {
            let name = syscall_name(*number);
            // Calls that this version's table does not know are not judged.
            if name.starts_with("syscall ") {
                continue;
            }
            let entry = boundary.permitted_entries.iter().find(|e| e.name == name);
            let agrees = match entry {
                None => called.passed == 0,
                Some(e) if e.conditional => true,
                Some(_) => called.denied == 0,
            };
            match entry {
                None => refused += 1,
                Some(e) if e.conditional => conditional += 1,
                Some(_) => allowed += 1,
            }
            if !agrees {
                wrong.push(format!("{name}: {entry:?}, really {called:?}"));
            }
        }
        println!(
            "{case}: {allowed} permitted, {conditional} depending on arguments, {refused} refused; \
             {} of {} agree",
            found.len() - wrong.len(),
            found.len()
        );
        assert!(wrong.is_empty(), "{case}: {wrong:#?}");
        assert!(found.len() > 350, "{case}: {}", found.len());
        let denied = found.values().filter(|c| c.denied > 0).count();
        assert_eq!(denied == 0, case == "unconfined", "{case}: {denied} really refused");
    }
    // What depends on arguments really goes both ways.
    let of = |name: &str| {
        let number = (0..470).find(|n| syscall_name(*n) == name).unwrap();
        all["conditions"][&number].clone()
    };
    for name in ["socket", "personality"] {
        let called = of(name);
        assert!(called.passed > 0 && called.denied > 0, "{name}: {called:?}");
    }
}

/// Neither the neighbour's processes nor what waits outside of the sandbox has the sandbox's filter.
#[test]
#[ignore = "needs the lab"]
fn a_hardened_login_may_what_its_sandbox_lets_through_whoever_else_is_on_the_machine() {
    const MINUTE: Duration = Duration::from_secs(60);
    let lab = lab_image(|_| ()).unwrap();
    let (spec, image) = service(&repository().join("demo/web.toml"), |_| ()).unwrap();
    let netns = NetNs::new().unwrap();
    let mut boot = BootOptions::new(&netns);
    boot.service_image = Some(&image);
    let vm = LabVm::boot(&lab, boot).unwrap();
    start(&vm, &spec, "login-hardened", Some(2 * MINUTE)).unwrap();
    let begin = Instant::now();
    while !vm.script("ps -e", Some(MINUTE)).unwrap().contains("nginx") {
        assert!(begin.elapsed() < 5 * MINUTE, "the service does not begin");
    }
    let neighbours = vm.script("ps -e -o user:20,comm", Some(MINUTE)).unwrap();
    assert!(neighbours.contains("sleep") && neighbours.contains("bwrap"), "{neighbours}");

    let call = |body| vm.call("count boundaries", body, &[], Some(2 * MINUTE)).unwrap().0;
    call(RequestBody::BoundaryArm);
    let counts: Counts = serde_json::from_value(call(RequestBody::BoundaryRead)).unwrap();
    let programs: BTreeSet<&str> = counts.posture.iter().map(|p| p.comm.as_str()).collect();
    assert!(programs.contains("nginx") && programs.contains("gunicorn"), "{programs:?}");
    assert!(!programs.contains("sleep") && !programs.contains("bwrap"), "{programs:?}");
    assert!(counts.posture.iter().all(|p| p.seccomp == "filter"), "{:?}", counts.posture);
    let permitted = counts.permitted.iter().find(|p| p.boundary == "syscall").unwrap();
    let may = |name: &str| permitted.entries.iter().any(|e| e.name == name);
    assert!(may("read") && !may("kexec_load") && !may("init_module"), "{}", permitted.how);
    vm.poweroff().unwrap();
}
