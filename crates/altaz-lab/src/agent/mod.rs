//! The agent: first process of the lab, and of the guest nested in it.
//!
//! It blocks whenever it has nothing to do: no timer, no polling, so that an idle lab is idle.
//! PID 1 mounts, loads modules and reaps; its one child serves the control channel. What the
//! agent must never do is to measure anything or to know what a profile is.

mod control;
mod guest;
mod init;
mod modules;
mod nested;
mod run;
mod service;

use std::process::ExitCode;

/// Entry of the `altaz-agent` binary.
pub fn main() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!("altaz-agent: I am the first process of a lab VM and of nothing else");
        return ExitCode::from(2);
    }
    init::run()
}
