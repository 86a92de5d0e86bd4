//! `altaz record` as a user types it on a machine whose kernel has no function tracer to offer, or
//! as somebody who may not use it: messages, exit codes, and what is kept whatever happens.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use altaz_e2e::live::{Cgroup, Process, Running, bpf_objects};
use altaz_e2e::{altaz, altaz_in, altaz_program, command};
use altaz_profile::{BoundaryEntry, InstrumentKind, Layer, Profile, Unit};

/// A program that makes one system call, by number, a hundred times a second, and no other one but
/// to wait.
fn caller(nr: u32) -> String {
    format!("$| = 1; while (1) {{ syscall({nr}, 0); select(undef, undef, undef, 0.01); }}")
}

const SCHED_GET_PRIORITY_MAX: u32 = 146;
const SCHED_GET_PRIORITY_MIN: u32 = 147;

fn profile(dir: &Path, name: &str) -> Profile {
    altaz_profile::file::read(&dir.join(name)).unwrap()
}

/// System calls of the application.
fn syscalls(profile: &Profile) -> &[BoundaryEntry] {
    let boundaries = &profile.manifest.boundaries;
    let of_app = boundaries.iter().find(|b| b.name == "syscall" && b.from == Layer::App);
    &of_app.expect("no boundary of the application").entries
}

fn count(profile: &Profile, name: &str) -> u64 {
    syscalls(profile).iter().find(|e| e.name == name).map_or(0, |e| e.count)
}

#[test]
fn what_makes_no_sense_is_a_usage_error() {
    altaz(&["record"]).expect(2, &["--pid", "--cgroup", "--unit", "--container", "COMMAND"]);
    altaz(&["record", "-p", "1", "--unit", "x"]).expect(2, &["--pid", "--unit"]);
    altaz(&["record", "-p", "1", "--", "true"]).expect(2, &["--pid"]);
    altaz(&["record", "-p", "0"]).expect(2, &["'0'"]);
    altaz(&["record", "--duration", "soon", "-p", "1"]).expect(2, &["--duration"]);
    altaz(&["record", "--phase", "idle", "-p", "1"]).expect(2, &["start, serve or stop"]);
    altaz(&["record", "--until-complete", "1.5", "-p", "1"]).expect(2, &["0.99"]);
    altaz(&["record", "--buffer", "1", "-p", "1"]).expect(2, &["--buffer"]);
    altaz(&["record", "--syscalls", "some", "-p", "1"]).expect(2, &["auto", "always", "never"]);
    altaz(&["watch"]).expect(2, &["--pid"]);
    altaz(&["watch", "--metrics", "nowhere", "-p", "1"]).expect(2, &["--metrics"]);
}

#[test]
fn a_baseline_that_cannot_be_read_is_noticed_before_anything_is_observed() {
    altaz(&["watch", "--baseline", "no-such.altaz", "-p", "1"]).expect(1, &["no-such.altaz"]);
}

/// Runs altaz as nobody, in a directory that nobody may write to.
fn as_nobody(args: &[&str]) -> altaz_e2e::Ran {
    // The directory that the program lies in need not be open to everybody.
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("altaz");
    std::fs::copy(altaz_program(), &program).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(dir.path(), open).unwrap();
    let mut setpriv = command("setpriv");
    setpriv.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program).args(args);
    setpriv.current_dir(dir.path()).output().unwrap().into()
}

#[test]
#[ignore = "needs root to become somebody else"]
fn without_root_it_says_what_is_needed() {
    as_nobody(&["record", "--", "true"]).expect(1, &["permission denied", "root"]);
    let partial = as_nobody(&["record", "--partial", "--", "true"]);
    partial.expect(1, &["altaz doctor", "root"]);
    as_nobody(&["record", "-p", "1"]).expect(1, &["altaz: "]);
}

#[test]
#[ignore = "needs root"]
fn what_this_kernel_lacks_is_named_with_the_ways_around_it() {
    let dir = tempfile::tempdir().unwrap();
    let marker = dir.path().join("ran").display().to_string();
    let ran = altaz_in(dir.path(), &["record", "-o", "x.altaz", "--", "touch", &marker]);
    ran.expect(1, &["function trac", "--partial", "altaz compare", "lab"]);
    assert!(!Path::new(&marker).exists(), "the command ran unobserved");
    assert!(!dir.path().join("x.altaz").exists());
}

#[test]
#[ignore = "needs root"]
fn a_commands_system_calls_are_counted_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let dd = |file: &str, blocks: u32| {
        let blocks = format!("count={blocks}");
        let args = ["record", "--partial", "-o", file, "--service", "dd", "--load", "zeros", "--"];
        let dd = ["dd", "if=/dev/zero", "of=/dev/null", "bs=1", "status=none", &blocks];
        let ran = altaz_in(dir.path(), &[&args[..], &dd[..]].concat());
        // What was not observed is said, not only written down.
        ran.expect(0, &["observing dd", "syscall from app", "kernel functions", file]);
        profile(dir.path(), file)
    };
    let (few, many) = (dd("few.altaz", 1000), dd("many.altaz", 3000));
    assert_eq!((count(&few, "write"), count(&many, "write")), (1000, 3000));
    assert_eq!(count(&many, "read") - count(&few, "read"), 2000);
    assert_eq!(count(&few, "execve"), 1, "altaz's search for the program is not the command's");
    let by: Vec<_> = syscalls(&few).iter().flat_map(|e| &e.by_process).collect();
    assert!(by.iter().all(|p| p.tgid == by[0].tgid), "{by:?}");
    let manifest = &few.manifest;
    assert_eq!((&*manifest.service, manifest.instrument.kind), ("dd", InstrumentKind::Live));
    assert_eq!(manifest.load.as_ref().unwrap().description, "zeros");
    assert!(!manifest.posture.is_empty());
    let spot = manifest.blind_spots.iter().find(|b| b.kind == "not-observed").unwrap();
    assert_eq!(spot.layer, Some(Layer::HostKernel));
}

#[test]
#[ignore = "needs root"]
fn a_profile_with_userland_can_be_reported_and_the_output_is_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let text: String = (0..1_000_000).map(|n| format!("{n} ")).collect();
    std::fs::write(dir.path().join("in"), &text).unwrap();
    let work: &[(&str, &[&str])] = &[
        ("gzip", &["gzip", "-9nc", "in"]),
        (
            "perl",
            &[
                "perl",
                "-e",
                "my %h; $h{$_ % 97} .= $_ for 1..3_000_000; print join q(,), %h ? map { length $h{$_} } sort keys %h : ()",
            ],
        ),
        (
            "python",
            &[
                "/usr/bin/python3",
                "-Ic",
                "import json, re; print(json.dumps({str(i): re.sub('1', 'x', str(i)) for i in range(300000)}))",
            ],
        ),
    ];
    for (name, argv) in work {
        let plain = command(argv[0]).args(&argv[1..]).current_dir(dir.path()).output().unwrap();
        let file = format!("{name}.altaz");
        let args = ["--quiet", "record", "--partial", "--userland", "-o", &file, "--"];
        let args = [&args[..], argv].concat();
        let probed = command(altaz_program()).args(&args).current_dir(dir.path()).output().unwrap();
        assert!(probed.status.success(), "{name}: {probed:?}");
        assert!(plain.status.success() && plain.stdout == probed.stdout, "{name} was disturbed");
        let own = |u: &&Unit| matches!(u.layer, Layer::App | Layer::LanguageRuntime);
        let functions = profile(dir.path(), &file).units.iter().filter(own).count();
        assert!(functions > 10, "{name}: {functions}");
        let report = altaz_in(dir.path(), &["report", &file]);
        report.expect(0, &[]);
        assert!(report.stdout.contains("app") && report.stdout.contains("syscall"), "{report:#?}");
    }
}

#[test]
#[ignore = "needs root"]
fn what_cannot_be_found_is_named() {
    let record = |args: &[&str]| altaz(&[&["record", "--partial"], args].concat());
    record(&["-p", "4194303"]).expect(1, &["4194303", "no process"]);
    record(&["--unit", "no-such"]).expect(1, &["no-such.service"]);
    record(&["--container", "no-such"]).expect(1, &["no-such", "container"]);
    record(&["--cgroup", "/no/such"]).expect(1, &["/no/such", "looked in"]);
    record(&["--", "/no/such/program"]).expect(1, &["cannot start /no/such/program"]);
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data").display().to_string();
    std::fs::write(&data, "no program").unwrap();
    record(&["--", &data]).expect(1, &["cannot start", &data, "ermission"]);
}

#[test]
#[ignore = "needs root"]
fn a_process_that_ends_is_no_error_and_its_windows_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let work = caller(SCHED_GET_PRIORITY_MIN);
    let mut process = Process::start("timeout", &["2", "perl", "-e", &work]);
    let pid = process.pid();
    // Its parent notices that it has ended, as init would.
    let waiting = std::thread::spawn(move || process.0.wait());
    let args = ["record", "--partial", "--syscalls=always", "-o", "x.altaz", "-p", &pid];
    altaz_in(dir.path(), &args).expect(0, &["wrote x.altaz"]);
    waiting.join().unwrap().unwrap();
    let profile = profile(dir.path(), "x.altaz");
    assert!(profile.manifest.windows.len() >= 2, "{:?}", profile.manifest.windows);
    // Its child's, of which nothing was said.
    assert!(count(&profile, "sched_get_priority_min") > 50, "{:?}", syscalls(&profile));
}

#[test]
#[ignore = "needs root"]
fn ctrl_c_ends_a_recording_well() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start("perl", &["-e", &caller(SCHED_GET_PRIORITY_MAX)]);
    let pid = process.pid();
    let altaz = Running::altaz(dir.path(), &["record", "--partial", "-o", "x.altaz", "-p", &pid]);
    altaz.armed();
    std::thread::sleep(Duration::from_secs(1));
    let begin = Instant::now();
    altaz.signal("INT");
    altaz.wait().expect(0, &["wrote x.altaz"]);
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    assert!(count(&profile(dir.path(), "x.altaz"), "sched_get_priority_max") > 0);
}

#[test]
#[ignore = "needs root"]
fn ctrl_c_ends_the_command_too() {
    let dir = tempfile::tempdir().unwrap();
    let work = caller(SCHED_GET_PRIORITY_MAX);
    let args = ["record", "--partial", "-o", "x.altaz", "--", "perl", "-e", &work];
    let altaz = Running::altaz(dir.path(), &args);
    altaz.armed();
    let command = altaz_e2e::children(altaz.pid());
    assert_eq!(command.len(), 1);
    // Until it is let go it is altaz.
    let begun = || std::fs::read_to_string(format!("/proc/{}/comm", command[0])).unwrap();
    let begin = Instant::now();
    while begun() != "perl\n" {
        assert!(begin.elapsed() < Duration::from_secs(10), "it does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_secs(1));
    altaz.signal("INT");
    altaz.wait().expect(0, &["wrote x.altaz"]);
    altaz_e2e::wait_gone(&command);
}

#[test]
#[ignore = "needs root"]
fn a_profile_that_cannot_be_kept_is_noticed_before_anything_is_observed() {
    let dir = tempfile::tempdir().unwrap();
    let marker = dir.path().join("ran").display().to_string();
    let record = |output: &str| {
        altaz_in(dir.path(), &["record", "--partial", "-o", output, "--", "touch", &marker])
    };
    record("/dev/full").expect(1, &["/dev/full", "not a regular file"]);
    record("no/such/x.altaz").expect(1, &["no/such/x.altaz", "directory"]);
    record(".").expect(1, &["altaz: "]);
    assert!(!Path::new(&marker).exists(), "the command ran for nothing");
}

#[test]
#[ignore = "needs root"]
fn an_earlier_profile_stays_when_nothing_was_recorded() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("x.altaz"), "an earlier one").unwrap();
    let idle = Process::start("sleep", &["60"]);
    let args = ["record", "--partial", "--duration", "1s", "-o", "x.altaz", "-p", &idle.pid()];
    altaz_in(dir.path(), &args).expect(1, &["empty", "is it under load?"]);
    assert_eq!(std::fs::read(dir.path().join("x.altaz")).unwrap(), b"an earlier one");
}

#[test]
#[ignore = "needs root"]
fn what_was_asked_for_and_not_reached_is_an_incomplete_measurement() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["record", "--partial", "--until-complete=0.99", "-o", "x.altaz", "--", "true"];
    altaz_in(dir.path(), &args).expect(4, &["too short for a completeness", "wrote x.altaz"]);
    profile(dir.path(), "x.altaz");
}

/// Root, who has dropped the right to write anywhere, still writes where root may.
#[test]
#[ignore = "needs root"]
fn a_profile_is_kept_in_another_users_directory() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    std::fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(1000), Some(1000)).unwrap();
    altaz_in(&home, &["record", "--partial", "--", "true"]).expect(0, &["wrote true.altaz"]);
    profile(&home, "true.altaz");
}

#[test]
#[ignore = "needs root"]
fn a_control_group_is_observed_and_its_neighbours_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let cgroup = Cgroup::new("altaz-test-record");
    let (inside, outside) = (caller(SCHED_GET_PRIORITY_MIN), caller(SCHED_GET_PRIORITY_MAX));
    let inside = Process::start("perl", &["-e", &inside]);
    std::fs::write(cgroup.0.join("cgroup.procs"), inside.pid()).unwrap();
    let _outside = Process::start("perl", &["-e", &outside]);
    let path = cgroup.0.display().to_string();
    let args = ["record", "--partial", "--duration=2s", "-o", "x.altaz", "--cgroup", &path];
    altaz_in(dir.path(), &args).expect(0, &["wrote x.altaz", "1 process"]);
    let profile = profile(dir.path(), "x.altaz");
    assert!(count(&profile, "sched_get_priority_min") > 50, "{:?}", syscalls(&profile));
    assert_eq!(count(&profile, "sched_get_priority_max"), 0);
    let empty = Cgroup::new("altaz-test-empty");
    let path = empty.0.display().to_string();
    altaz(&["record", "--partial", "--cgroup", &path])
        .expect(1, &["altaz-test-empty", "no process"]);
}

/// The tracing instances there are.
fn instances() -> Vec<String> {
    let there = std::fs::read_dir("/sys/kernel/tracing/instances").unwrap();
    there.map(|i| i.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
#[ignore = "needs root"]
fn killing_altaz_leaves_nothing_in_the_kernel() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start("perl", &["-e", &caller(SCHED_GET_PRIORITY_MAX)]);
    let args = ["record", "--partial", "--userland", "-o", "x.altaz", "-p", &process.pid()];
    let altaz = Running::altaz(dir.path(), &args);
    let held = altaz.armed();
    for kind in ["prog", "map", "link"] {
        assert!(held.iter().any(|o| o.starts_with(kind)), "no {kind} in {held:?}");
    }
    assert!(held.is_subset(&bpf_objects()), "the list is not complete");
    let own = format!("altaz-{}-", altaz.pid());
    altaz.signal("KILL");
    assert_eq!(altaz.wait().code, None);
    let begin = Instant::now();
    while !held.is_disjoint(&bpf_objects()) {
        assert!(begin.elapsed() < Duration::from_secs(10), "{held:?} is still there");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(instances().iter().all(|i| !i.starts_with(&own)));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "half a file");
    // The service goes on.
    let mut state = String::new();
    let stat = format!("/proc/{}/stat", process.pid());
    std::fs::File::open(stat).unwrap().read_to_string(&mut state).unwrap();
    assert!(!state.contains(") Z"), "{state}");
}
