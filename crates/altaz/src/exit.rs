//! Exit codes and the last word about an error. The same whatever the output format.

use std::process::ExitCode;

/// How a run of altaz ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Fine.
    Fine = 0,
    /// Failed; the message names what is missing and what to do.
    Failed = 1,
    /// The command line or a setting makes no sense.
    Usage = 2,
    /// A budget or check was not met.
    NotMet = 3,
    /// The measurement is incomplete: events lost, coverage under the asked one, a deployment not
    /// available that was asked for.
    Incomplete = 4,
    /// Interrupted by the user, as shells count it (128 + SIGINT).
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The command line or a setting makes no sense: exit code 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// The user interrupted: exit code 130.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// The exit code of an error.
pub fn code_of(error: &anyhow::Error) -> Exit {
    if error.chain().any(|e| e.is::<UsageError>()) {
        Exit::Usage
    } else if error.chain().any(is_interruption) {
        Exit::Interrupted
    } else {
        Exit::Failed
    }
}

fn is_interruption(e: &(dyn std::error::Error + 'static)) -> bool {
    e.is::<Interrupted>() || matches!(e.downcast_ref(), Some(altaz_lab::LabError::Interrupted))
}

/// `what: cause; what to do`, in one line where the causes are. A cause that its context already
/// quotes is not said twice.
pub fn message(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.ends_with(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn the_kind_of_an_error_is_found_below_its_contexts() {
        let usage = anyhow!(UsageError("no deployment \"foo\"".into())).context("--deployment");
        assert_eq!(code_of(&usage), Exit::Usage);
        assert_eq!(code_of(&anyhow!(Interrupted).context("serving")), Exit::Interrupted);
        assert_eq!(code_of(&anyhow!("disk full").context("writing")), Exit::Failed);
    }

    #[test]
    fn causes_follow_each_other_and_are_not_repeated() {
        let e = anyhow!("disk full").context("writing a.json");
        assert_eq!(message(&e), "writing a.json: disk full");
        let e = anyhow!("disk full").context("cannot write a.json: disk full");
        assert_eq!(message(&e), "cannot write a.json: disk full");
    }
}
