//! Prints what altaz would be pointed at: `target -p PID… | --cgroup PATH | --unit NAME |
//! --container NAME`, and with `--expect DEPLOYMENT` fails unless that is what it is. For looking at
//! real machines by hand. `--default-profile` prints the system call filter of the containers that altaz
//! starts, to put into a bundle.

#![allow(clippy::unwrap_used, reason = "a tool for looking at things by hand")]

use std::process::ExitCode;

use altaz_target::{Request, Roots, posture, resolve};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (mut request, mut expect) = (None, None);
    while let Some(flag) = args.next() {
        let value = args.next().unwrap_or_default();
        match flag.as_str() {
            "-p" => {
                request =
                    Some(Request::Pids(value.split(',').map(|p| p.parse().unwrap()).collect()))
            }
            "--cgroup" => request = Some(Request::Cgroup(value.into())),
            "--unit" => request = Some(Request::Unit(value)),
            "--container" => request = Some(Request::Container(value)),
            "--default-profile" => {
                println!("{}", altaz_deploy::seccomp::default_profile());
                return ExitCode::SUCCESS;
            }
            "--expect" => expect = Some(value),
            other => panic!("{other}?"),
        }
    }
    let began = std::time::Instant::now();
    let mut target = match resolve(&Roots::here(), &request.unwrap()) {
        Ok(t) => t,
        Err(e) => {
            println!("error: {e}");
            return ExitCode::from(if expect.as_deref() == Some("error") { 0 } else { 1 });
        }
    };
    let found = began.elapsed();
    target.read_filters(&Roots::here());
    println!("{} ({found:?}, with filters {:?})", target.what, began.elapsed());
    println!("  cgroup {:?} outside {:?}", target.cgroup, target.outside_cgroup());
    for p in &target.processes {
        println!("  {} {} {} {:?} {}", p.pid, p.role.as_str(), p.comm, p.exe, p.origin() as u8);
        for t in &p.tids {
            println!("      {} {} {:?}", t.tid, t.comm, t.kind);
        }
    }
    for p in target.processes.iter().filter_map(|p| posture(&Roots::here(), p)) {
        println!(
            "  posture {} {} uid {} caps {} ns {:?} nnp {} seccomp {} lsm {:?} {:?}",
            p.tgid,
            p.role,
            p.uid,
            p.capabilities.len(),
            p.namespaces,
            p.no_new_privs,
            p.seccomp,
            p.lsm,
            p.devices
        );
    }
    for l in &target.layers {
        println!("  layer {} {} shared={} moved={}", l.name, l.owner, l.shared, l.ownership_moved);
    }
    for b in &target.boundaries {
        let conditional = b.permitted_entries.iter().filter(|e| e.conditional).count();
        println!(
            "  boundary {} {} → {} permitted {:?}, {conditional} on condition",
            b.name, b.from, b.to, b.permitted
        );
    }
    for b in &target.blind_spots {
        println!("  blind {}: {}", b.kind, b.what);
    }
    for n in &target.notes {
        println!("  note {n}");
    }
    match expect {
        Some(e) if e != target.deployment => {
            println!("FAILED: expected {e}, found {}", target.deployment);
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}
