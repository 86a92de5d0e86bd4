//! Shell scripts in the lab, and doing something while one waits.

use std::sync::mpsc::channel;
use std::time::Duration;

use super::{LabVm, Output};
use crate::error::{LabError, Result};
use crate::protocol::{ExitStatus, RunRequest};

/// What a script writes first when it waits for [`LabVm::script_while`].
const ARMED: &str = "armed\n";

impl LabVm {
    /// Runs a shell script (`sh -eu`) to its end and returns what it wrote to its standard output.
    ///
    /// # Errors
    /// When it fails, with all that it wrote; when it takes longer than `timeout`; when the lab dies.
    pub fn script(&self, script: &str, timeout: Option<Duration>) -> Result<String> {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let status = self.run(request(script, false), timeout, &mut |output| match output {
            Output::Stdout(data) => out.extend_from_slice(data),
            Output::Stderr(data) => err.extend_from_slice(data),
        })?;
        finished(script, status, &out, &err)
    }

    /// Runs a script that writes the line `armed`, waits for a line of input (`read line`), and goes on:
    /// `meanwhile` is called in between. Returns what `meanwhile` did and the script wrote after `armed`.
    ///
    /// # Errors
    /// As [`LabVm::script`], and when the script ends without that line; `meanwhile` is not called then.
    pub fn script_while<T: Send>(
        &self,
        script: &str,
        timeout: Option<Duration>,
        meanwhile: impl FnOnce() -> T + Send,
    ) -> Result<(T, String)> {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let (armed, when_armed) = channel();
        // Dropped with the script's end, so that nobody waits for a line that never comes.
        let mut armed = Some(armed);
        let (status, value) = std::thread::scope(|scope| {
            let mut waiter = None;
            let mut collect = |output: Output<'_>| {
                match output {
                    Output::Stdout(data) => out.extend_from_slice(data),
                    Output::Stderr(data) => err.extend_from_slice(data),
                }
                if out.starts_with(ARMED.as_bytes())
                    && let Some(armed) = armed.take()
                {
                    // It is received whatever the script does next.
                    let _ = armed.send(());
                }
            };
            let status = self.run_with(request(script, true), timeout, &mut collect, |handle| {
                waiter = Some(scope.spawn(move || {
                    when_armed.recv().ok()?;
                    let value = meanwhile();
                    // A script that ended meanwhile needs no line; its end says why.
                    let _ = handle.stdin(b"\n", true);
                    Some(value)
                }));
                Ok(())
            });
            drop(armed.take());
            let value = match waiter.map(std::thread::ScopedJoinHandle::join) {
                Some(Ok(value)) => value,
                Some(Err(panic)) => std::panic::resume_unwind(panic),
                None => None,
            };
            (status, value)
        });
        let text = finished(script, status?, &out, &err)?;
        match (value, text.strip_prefix(ARMED)) {
            (Some(value), Some(rest)) => Ok((value, rest.to_owned())),
            _ => Err(failed(script, "ended without saying `armed`".into(), &out, &err)),
        }
    }
}

fn request(script: &str, stdin: bool) -> RunRequest {
    RunRequest {
        argv: ["sh", "-euc", script].map(str::to_owned).to_vec(),
        stdin,
        ..RunRequest::default()
    }
}

fn finished(script: &str, status: ExitStatus, out: &[u8], err: &[u8]) -> Result<String> {
    match status {
        ExitStatus::Code(0) => Ok(String::from_utf8_lossy(out).into_owned()),
        status => Err(failed(script, format!("ended with {}", status.shell_code()), out, err)),
    }
}

fn failed(script: &str, how: String, out: &[u8], err: &[u8]) -> LabError {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    LabError::Script { script: script.to_owned(), how, output: text(out) + &text(err) }
}
