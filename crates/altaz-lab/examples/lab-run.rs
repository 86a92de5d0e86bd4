//! Boots the lab and runs a command in it: `cargo run -p altaz-lab --example lab-run -- uname -a`.

use std::io::Write;
use std::process::ExitCode;

use altaz_lab::protocol::RunRequest;
use altaz_lab::vm::Output;
use altaz_lab::{BootOptions, BuildOptions, Interrupt, LabImage, LabVm, NetNs, Recipe, cache_dir};

fn main() -> ExitCode {
    match run() {
        Ok(code) => ExitCode::from(code as u8),
        Err(e) => {
            eprintln!("lab-run: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> altaz_lab::Result<i32> {
    let argv: Vec<String> = std::env::args().skip(1).collect();
    let mut progress = |step: &str| eprintln!("lab-run: {step}");
    let mut options =
        BuildOptions { cache: cache_dir(), progress: &mut progress, interrupt: Interrupt::new() };
    let image = LabImage::ensure(&Recipe::builtin()?, &mut options)?;
    altaz_lab::become_unprivileged_root()?;
    let netns = NetNs::new()?;
    let vm = LabVm::boot(&image, BootOptions::new(&netns))?;
    eprintln!("lab-run: booted in {:.1} s: {:?}", vm.boot_time().as_secs_f64(), vm.hello());
    let request = RunRequest { argv, ..RunRequest::default() };
    let status = vm.run(request, None, &mut |output| {
        // A closed output is noticed by whoever reads the exit code.
        let _ = match output {
            Output::Stdout(data) => std::io::stdout().write_all(data),
            Output::Stderr(data) => std::io::stderr().write_all(data),
        };
    })?;
    vm.poweroff()?;
    Ok(status.shell_code())
}
