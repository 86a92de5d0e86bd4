//! Damaged and hostile input: filters as the kernel hands them out, and a machine's files. A short sweep
//! always, mutations for `ALTAZ_FUZZ_SECONDS` (60) seconds each in `make fuzz`. Nothing may panic or take
//! ten seconds.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod common;

use altaz_target::seccomp::evaluate::{I386, Instruction, Verdict, X86_64, evaluate};
use altaz_target::{Request, posture, resolve};
use altaz_testkit::{fuzz_loop, fuzz_seconds, sweep};
use common::{HYBRID, Machine, Proc};

/// Instructions as they lie in memory; two filters from the halves.
fn filters(data: &[u8]) {
    let all: Vec<Instruction> = data
        .chunks_exact(8)
        .filter_map(|c| <[u8; 8]>::try_from(c).ok())
        .map(|[a, b, jt, jf, k @ ..]| Instruction {
            code: u16::from_le_bytes([a, b]),
            jt,
            jf,
            k: u32::from_le_bytes(k),
        })
        .collect();
    let (one, two) = all.split_at(all.len() / 2);
    for (arch, number) in [(X86_64, 0), (X86_64, 41), (I386, 102), (X86_64, u32::MAX)] {
        let alone = evaluate(std::slice::from_ref(&all), arch, number);
        let both = evaluate(&[one.to_vec(), two.to_vec()], arch, number);
        // Another filter can only take away.
        if evaluate(&[one.to_vec()], arch, number) == Verdict::Denied {
            assert_eq!(both, Verdict::Denied);
        }
        if alone == Verdict::Denied {
            assert_eq!(evaluate(&[all.clone(), one.to_vec()], arch, number), Verdict::Denied);
        }
    }
}

fn filter_seed() -> Vec<u8> {
    let op = |code: u16, jt: u8, jf: u8, k: u32| {
        let mut bytes = code.to_le_bytes().to_vec();
        bytes.extend([jt, jf]);
        bytes.extend(k.to_le_bytes());
        bytes
    };
    [
        op(0x20, 0, 0, 4),
        op(0x15, 1, 0, X86_64),
        op(0x06, 0, 0, 0x8000_0000),
        op(0x20, 0, 0, 0),
        op(0x35, 0, 1, 0x4000_0000),
        op(0x06, 0, 0, 0x0005_0026),
        op(0x15, 0, 5, 41),
        op(0x20, 0, 0, 20),
        op(0x15, 0, 3, 0),
        op(0x20, 0, 0, 16),
        op(0x54, 0, 0, 0x7e02_0000),
        op(0x15, 1, 0, 40),
        op(0x06, 0, 0, 0x7fff_0000),
        op(0x06, 0, 0, 0x0005_0001),
    ]
    .concat()
}

/// One of the files of a process and of engines holds the damaged bytes; the bytes say which.
fn files(machine: &Machine, data: &[u8]) {
    let names = [
        "proc/7/stat",
        "proc/7/status",
        "proc/7/cgroup",
        "proc/7/cmdline",
        "proc/7/uid_map",
        "proc/7/attr/current",
        "proc/7/task/8/stat",
        "proc/self/mountinfo",
        "run/runc/x/state.json",
        "run/crun/x/status",
        "run/runsc/x.state",
        "var/lib/containers/storage/overlay-containers/containers.json",
    ];
    let pick = data
        .iter()
        .fold(data.len(), |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
    let path = machine.path(names[pick % names.len()]);
    let before = std::fs::read(&path).ok();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, data).unwrap();
    let request = match pick / names.len() % 4 {
        0 => Request::Pids(vec![7]),
        1 => Request::Container("x".into()),
        2 => Request::Unit("x".into()),
        _ => Request::Cgroup("/x".into()),
    };
    if let Ok(mut t) = resolve(&machine.roots(), &request) {
        for p in &t.processes {
            posture(&machine.roots(), p);
        }
        t.refresh(&machine.roots()).unwrap();
    }
    match before {
        Some(bytes) => std::fs::write(&path, bytes).unwrap(),
        None => std::fs::remove_file(&path).unwrap(),
    }
}

fn machine() -> Machine {
    let m = Machine::new(HYBRID);
    let cgroup = "1:name=systemd:/x.service\n0::/x.service";
    m.proc(&Proc { pid: 7, cgroup, threads: &[(8, "t")], ..Proc::default() });
    m
}

fn file_seeds() -> Vec<Vec<u8>> {
    [
        "7 (a (b) c) S 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 5000 0 0",
        "Name:\tx\nTgid:\t7\nUid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\nSeccomp:\t2\n",
        "9:name=systemd:/docker/3f1c9b8a7d6e5f4c3b2a19080706050403020100ffeeddccbbaa998877665544\n0::/x\n",
        "runsc-sandbox\0--platform=ptrace\0boot\0--bundle=/b\0x\0",
        "30 23 0:26 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw\n",
        r#"{"id":"x","init_process_pid":7,"init_process_start":5000,"cgroup_paths":{"":"/sys/fs/cgroup/x"}}"#,
        r#"{"pid":7,"process-start-time":5000,"cgroup-path":"/x","rootfs":"r","bundle":"b"}"#,
        r#"{"id":"x","goferPid":7,"sandbox":{"id":"x","pid":7}}"#,
        r#"[{"id":"x","names":["x"]}]"#,
    ]
    .map(|t| t.as_bytes().to_vec())
    .into()
}

#[test]
fn a_short_sweep_of_damaged_filters() {
    sweep(&filter_seed(), 1, filters);
}

#[test]
#[ignore = "run by make fuzz"]
fn fuzz_system_call_filters() {
    fuzz_loop("system_call_filters", &[filter_seed()], fuzz_seconds(), filters);
}

#[test]
#[ignore = "run by make fuzz"]
fn fuzz_files_of_processes_and_engines() {
    let m = machine();
    fuzz_loop("files_of_processes_and_engines", &file_seeds(), fuzz_seconds(), |data| {
        files(&m, data)
    });
}
