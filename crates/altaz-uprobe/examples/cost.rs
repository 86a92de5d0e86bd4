//! Measures what probes cost on this machine: a hit on an emulated and on a single-stepped instruction, attaching,
//! taking off half, taking off all. `cost FILE…` also attaches to these files, which should be private copies.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a tool for measuring by hand")]

use altaz_bpf::{ActiveFilter, TaskFilter};
use altaz_symbols::Binary;
use altaz_uprobe::{
    Armed, Method, Options, Point, Points, ProbedFile, SelfTest, Speed, probe_points,
};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Calls two functions of its own many times; prints nanoseconds of a call of each.
const PROGRAM: &str = r#"
#include <stdio.h>
#include <time.h>
asm(".globl emulated\n.type emulated,@function\nemulated: push %rbx\n pop %rbx\n ret\n.size emulated,.-emulated\n"
    ".globl stepped\n.type stepped,@function\nstepped: mov %rdi,%rax\n ret\n.size stepped,.-stepped\n");
long emulated(long); long stepped(long);
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1e9 + t.tv_nsec; }
int main(void) { enum { N = 200000 }; double a = now(); for (int i = 0; i < N; i++) emulated(i); double b = now();
  for (int i = 0; i < N; i++) stepped(i); double c = now(); printf("%.0f %.0f\n", (b - a) / N, (c - b) / N); return 0; }
"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proof = SelfTest::run(Path::new("/sys"))?;
    println!("self-test: {:?}, {} forms", proof.took, proof.allowed().len());
    let filter = TaskFilter::Tgids(vec![std::process::id()]);
    let filter =
        ActiveFilter::start(Path::new("/sys/kernel/tracing"), Path::new("/proc"), &filter)?;
    let allowed = proof.allowed().clone();
    let options = Options { allowed, stepped: true, excluded: vec![] };
    let choose = |path: &Path| {
        let file = ProbedFile::open(path).unwrap();
        let bytes = file.read().unwrap();
        let started = Instant::now();
        let binary = Binary::parse(&bytes).unwrap();
        let parsed = started.elapsed();
        let started = Instant::now();
        let points = probe_points(&bytes, &binary, &options);
        (file, binary, points, parsed, started.elapsed())
    };
    let arm = |method, file, points: &Points| {
        Armed::attach_by(method, file, points, &proof, &filter, None, Path::new("/sys")).unwrap()
    };

    let dir = tempfile::tempdir()?;
    let (source, path) = (dir.path().join("p.c"), dir.path().join("p"));
    std::fs::write(&source, PROGRAM)?;
    assert!(Command::new("cc").arg("-O1").arg("-o").arg(&path).arg(&source).status()?.success());
    let measure = || String::from_utf8(Command::new(&path).output().unwrap().stdout).unwrap();
    println!("ns a call without probes (emulated, stepped): {}", measure().trim());
    for method in [Method::Multi, Method::PerfEvents] {
        let (file, binary, points, ..) = choose(&path);
        let both = |p: &&Point| {
            let name = &binary.functions.get(p.function as usize).unwrap().name;
            name == "emulated" || name == "stepped"
        };
        let probes: Vec<Point> = points.probes.iter().filter(both).copied().collect();
        assert_eq!(probes.len(), 2);
        let armed = arm(method, file, &Points { probes, left_out: vec![] });
        println!("ns a call by {method:?}: {}", measure().trim());
        assert!(armed.hits().all(|hit| hit.count == 200_000), "not counted exactly");
    }

    for name in std::env::args().skip(1) {
        let (file, binary, points, parsed, chosen) = choose(Path::new(&name));
        let emulated = points.probes.iter().filter(|p| p.speed == Speed::Emulated).count();
        println!(
            "{name}: {} functions ({parsed:?}), {emulated} emulated + {} stepped ({chosen:?})",
            binary.functions.len(),
            points.probes.len() - emulated
        );
        let mut armed = arm(Method::Multi, file, &points);
        let half: Vec<u32> = points.probes.iter().step_by(2).map(|p| p.function).collect();
        let some = armed.disarm(&half)?;
        let started = Instant::now();
        let attached = armed.took();
        drop(armed);
        let closed: Duration = started.elapsed();
        println!("  attached {attached:?}, half taken off {:?}, closed {closed:?}", some.took);
    }
    Ok(())
}
