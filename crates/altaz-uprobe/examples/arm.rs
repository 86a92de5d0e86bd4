//! Probes all functions of the files named and says what was entered: `arm [--stepped] [--tgid PID]… FILE…`. Reads
//! commands from standard input: `news`, `disarm` (what was hit), `all` (take everything off); ends with it.
//!
//! For trying probes by hand and for tests that kill it while it holds them.

#![allow(clippy::unwrap_used, reason = "a tool for tests")]

use altaz_bpf::{ActiveFilter, TaskFilter};
use altaz_symbols::Binary;
use altaz_uprobe::{Armed, Options, ProbedFile, SelfTest, probe_points};
use std::io::BufRead;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut options = Options::default();
    let (mut tgids, mut files) = (Vec::new(), Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--stepped" => options.stepped = true,
            "--tgid" => tgids.push(arguments.next().ok_or("--tgid PID")?.parse()?),
            _ => files.push(argument),
        }
    }
    let proof = SelfTest::run(Path::new("/sys"))?;
    println!(
        "self-test: {} examples, {} forms, {} of {} counted, {:?}",
        proof.tried.len(),
        proof.allowed().len(),
        proof.counted,
        proof.executions,
        proof.took
    );
    for bad in proof.disagreed().chain(proof.refused()) {
        println!("  {}: {}", bad.text, bad.outcome);
    }
    options.allowed = proof.allowed().clone();
    options.exclude_gvisor_platform();
    if tgids.is_empty() {
        tgids.push(std::process::id());
    }
    let tracefs = Path::new("/sys/kernel/tracing");
    let filter = ActiveFilter::start(tracefs, Path::new("/proc"), &TaskFilter::Tgids(tgids))?;
    let mut all = Vec::new();
    for name in &files {
        let file = ProbedFile::open(Path::new(name))?;
        let bytes = file.read()?;
        let binary = Binary::parse(&bytes)?;
        let points = probe_points(&bytes, &binary, &options);
        let armed = Armed::attach(file, &points, &proof, &filter, None, Path::new("/sys"))?;
        println!("{name}: {} of {} in {:?}", armed.armed(), binary.functions.len(), armed.took());
        all.push(armed);
    }
    println!("armed");
    for line in std::io::stdin().lock().lines() {
        let command = line?;
        for armed in &mut all {
            let name = armed.file().name().display().to_string();
            match command.as_str() {
                "news" => println!("{name}: {} hit", armed.news().len()),
                "disarm" => {
                    let hit: Vec<u32> = armed.hits().map(|hit| hit.function).collect();
                    println!("{name}: {:?}", armed.disarm(&hit)?);
                }
                "all" => {
                    let everything: Vec<u32> = (0..1 << 20).collect();
                    println!("{name}: {:?}", armed.disarm(&everything)?);
                }
                other => println!("unknown command {other:?}"),
            }
        }
        println!("done");
    }
    Ok(())
}
