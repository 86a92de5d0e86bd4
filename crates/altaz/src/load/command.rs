//! A load that is a command of the user's, run outside the lab.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{Abort, ErrorKind, Latencies, LoadReport};
use crate::process::{self, Ended, Job};

/// A command that puts load on the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLoad {
    /// Program and arguments; `{host}`, `{port}` and `{requests}` are replaced in each.
    pub argv: Vec<String>,
    /// Where the service listens.
    pub addr: SocketAddr,
    /// How many requests the command is asked to make.
    pub requests: u64,
    /// Directory that it runs in; `None` keeps altaz's own.
    pub workdir: Option<PathBuf>,
    /// When it is killed, which is an error.
    pub timeout: Duration,
}

impl CommandLoad {
    /// The load in words: the command before the address is put in.
    pub fn description(&self) -> String {
        self.argv.join(" ")
    }

    fn expand(&self, text: &str) -> String {
        text.replace("{host}", &self.addr.ip().to_string())
            .replace("{port}", &self.addr.port().to_string())
            .replace("{requests}", &self.requests.to_string())
    }
}

/// Runs the command to its end. Must be called in the network namespace from which the service is
/// reached.
///
/// # Errors
/// When the command cannot be started. That it failed is no error here: it is counted in the report.
pub fn run_command(load: &CommandLoad, abort: &Abort<'_>) -> Result<LoadReport, String> {
    let argv: Vec<String> = load.argv.iter().map(|arg| load.expand(arg)).collect();
    let (program, args) = argv.split_first().ok_or("the load command is empty")?;
    let begin = Instant::now();
    let job = Job { program, args, dir: load.workdir.as_deref(), timeout: load.timeout };
    let finished = process::run(&job, abort).map_err(|e| {
        format!(
            "the load command {program} cannot be started: {e}; install it, or correct \
             load.command in the spec"
        )
    })?;
    let elapsed = begin.elapsed();
    let output_tail = finished.stdout + &finished.stderr;
    let (mut errors, mut first_error, mut aborted) = (BTreeMap::new(), None, None);
    if let Ended::Aborted(reason) = finished.ended {
        aborted = Some(reason);
    } else if let Some(what) = finished.ended.failure() {
        errors.insert(ErrorKind::Command, 1);
        let last = output_tail.trim().lines().next_back();
        let said = last.map(|line| format!("; its last line: {line}")).unwrap_or_default();
        first_error = Some(format!("{program} {what}{said}"));
    }
    Ok(LoadReport {
        description: load.description(),
        asked: load.requests,
        sent: load.requests,
        errors,
        first_error,
        latencies: Latencies::default(),
        elapsed,
        aborted,
        output_tail,
    })
}
