//! `make soak`: redis at full load in the lab, watched by `altaz watch` for half an hour.
//!
//! Writes `docs/soak.md`, and what it saw into `target/soak`. Ends with 3 when a bound is missed. Needs `make build`
//! and the lab. `ALTAZ_SOAK_SECONDS` (1800) makes it shorter; the page then goes to `target/soak`.

mod page;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use altaz_e2e::lab::{Result, end, lab_image, present, target_dir};
use altaz_e2e::left::Left;
use altaz_e2e::repository;
use altaz_lab::qemu::Accel;
use altaz_lab::{BootOptions, InputFile, LabVm, NetNs};

use page::Soak;

/// How long it is watched, s.
const SECONDS: u64 = 1800;
/// The service is looked at without altaz, before and after, for so much of that time.
const REST: u64 = 30;
/// Learning what is normal takes no longer, s.
const LEARNING: u64 = 1200;

fn main() -> ExitCode {
    end(run())
}

fn run() -> Result<Vec<String>> {
    let target = target_dir()?;
    let seconds = match std::env::var("ALTAZ_SOAK_SECONDS") {
        Ok(text) => text.parse()?,
        Err(_) => SECONDS,
    };
    let altaz = present(target.join("release/altaz"))?;
    let left = Left::new(&target.display().to_string(), "soak");
    soak(&altaz, seconds, &left)?;
    left.unpack();
    let soak = Soak::read(&left, seconds)?;
    let broken = soak.broken();
    let text = soak.markdown();
    println!("{text}");
    let path = match seconds >= SECONDS {
        true => repository().join("docs/soak.md"),
        false => left.dir().join("soak.md"),
    };
    std::fs::write(&path, text)?;
    eprintln!("written to {}", path.display());
    Ok(broken)
}

/// Boots the lab and runs the script in it.
fn soak(altaz: &Path, seconds: u64, left: &Left) -> Result<()> {
    let lab = lab_image(|step| eprintln!("{step}"))?;
    altaz_lab::become_unprivileged_root()?;
    let netns = NetNs::new()?;
    let mut boot = BootOptions::new(&netns);
    // Functions that both processors execute at full speed are armed and disarmed.
    boot.accel = Accel::TcgInTurn;
    let tests = repository().join("tests/e2e");
    boot.input_files = vec![
        InputFile::host("/root/altaz", 0o755, altaz),
        InputFile::host("/root/soak.sh", 0o755, tests.join("examples/soak/soak.sh")),
        InputFile::host("/root/answers.py", 0o755, tests.join("examples/soak/answers.py")),
        InputFile::host("/root/stamp.py", 0o755, tests.join("tests/lab/stamp.py")),
    ];
    let vm = LabVm::boot(&lab, boot)?;
    eprintln!("redis is watched for {seconds} s, once altaz has learned what is normal");
    let rest = (seconds / REST).max(10);
    let patience = Duration::from_secs(seconds * 2 + 4 * rest + LEARNING);
    vm.script(&format!("sh /root/soak.sh {seconds} {rest}"), Some(patience))?;
    std::fs::write(left.archive(), vm.get_file("/root/out.tar")?)?;
    vm.poweroff()?;
    Ok(())
}
