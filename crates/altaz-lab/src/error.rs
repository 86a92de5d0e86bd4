//! What can go wrong with the lab, each with what to do about it.

use std::io;
use std::path::PathBuf;

use crate::protocol::FrameError;

/// Result of this crate.
pub type Result<T, E = LabError> = std::result::Result<T, E>;

/// Why the lab could not be built, booted or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// The recipe of the lab image cannot be used.
    #[error("lab recipe {}: {message}", .path.display())]
    Recipe {
        /// The recipe file.
        path: PathBuf,
        /// What is wrong with it, with line and column where known.
        message: String,
    },
    /// A tool that is needed is not installed.
    #[error(
        "{tool} is not installed, but is needed to {needed_to}; install it: apt install {package}"
    )]
    ToolMissing {
        /// Program name.
        tool: String,
        /// Debian package that has it.
        package: &'static str,
        /// What it is needed for.
        needed_to: &'static str,
    },
    /// A tool failed.
    #[error("{what} failed: {tool} {status}{}\n{hint}", tail_of(.tail))]
    ToolFailed {
        /// What was being done.
        what: String,
        /// Program name.
        tool: String,
        /// Its exit status.
        status: String,
        /// The last lines it printed.
        tail: String,
        /// What to do.
        hint: &'static str,
    },
    /// A file could not be read or written.
    #[error("cannot {what} {}: {source}", .path.display())]
    File {
        /// What was tried (`read`, `create` …).
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The operating system refused something.
    #[error("cannot {what}: {source}{}", hint_of(.hint))]
    System {
        /// What was tried.
        what: String,
        /// The system's reason.
        source: io::Error,
        /// What to do; may be empty.
        hint: &'static str,
    },
    /// An OCI archive cannot be used as a service image.
    #[error("OCI archive {}: {message}", .path.display())]
    Oci {
        /// The archive.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// Something the image should contain is not there.
    #[error("the image {} {message}; remove the directory to have it built again", .path.display())]
    Image {
        /// Directory of the cached image.
        path: PathBuf,
        /// What is missing.
        message: String,
    },
    /// QEMU is not installed.
    #[error(
        "QEMU is not installed ({tried} not found); install it: Debian 12: apt install -t bookworm-backports qemu-system-x86; Debian 13, Ubuntu 25.04 or newer: apt install qemu-system-x86; or set ALTAZ_QEMU to a qemu-system-x86_64 of version 9.2 or newer"
    )]
    QemuMissing {
        /// Program looked for.
        tried: String,
    },
    /// QEMU is too old, or not QEMU.
    #[error(
        "{program} cannot be used: found version {found}, need 9.2 or newer for the exact instrument; Debian 12: apt install -t bookworm-backports qemu-system-x86; Debian 13, Ubuntu 25.04 or newer have a newer one; or set ALTAZ_QEMU"
    )]
    QemuVersion {
        /// Program asked.
        program: String,
        /// What it said.
        found: String,
    },
    /// The lab's agent was not found or cannot be used.
    #[error(
        "the lab's agent {problem}; build it with `make agent`, or set ALTAZ_AGENT to the static altaz-agent binary"
    )]
    Agent {
        /// What is wrong.
        problem: String,
    },
    /// The lab did not come up.
    #[error("the lab did not boot: {reason}{}", console_of(.console))]
    Boot {
        /// What happened instead.
        reason: String,
        /// The tail of its console and of QEMU's own messages.
        console: String,
    },
    /// A script in the lab did not do what it was to do.
    #[error("the lab's script {how}:\n{script}\n{output}")]
    Script {
        /// Its text.
        script: String,
        /// How it ended.
        how: String,
        /// What it wrote, standard output first.
        output: String,
    },
    /// The lab went away while it was used.
    #[error("the lab was lost while it was asked to {what}: {reason}{}", console_of(.console))]
    Lost {
        /// The request that was under way.
        what: String,
        /// What is known of the reason.
        reason: String,
        /// The tail of its console and of QEMU's own messages.
        console: String,
    },
    /// The agent could not do what was asked.
    #[error("in the lab: {what}: {message}")]
    Agents {
        /// The request.
        what: String,
        /// The agent's reason.
        message: String,
    },
    /// The agent said something that is not an answer.
    #[error("the lab's agent answered nonsense: {0}")]
    Protocol(#[from] FrameError),
    /// A request took too long.
    #[error("the lab did not {what} within {seconds:.0} s{}", console_of(.console))]
    Timeout {
        /// The request.
        what: String,
        /// The limit, in seconds.
        seconds: f64,
        /// The tail of its console.
        console: String,
    },
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl LabError {
    /// Adapter for `map_err`: a file operation and its path.
    pub fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }

    /// Adapter for `map_err`: a system operation.
    pub fn system<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self::System { what, source: source.into(), hint: "" }
    }
}

fn tail_of(tail: &str) -> String {
    let tail = tail.trim_end();
    if tail.is_empty() { String::new() } else { format!("; it said:\n{}", indented(tail)) }
}

fn hint_of(hint: &str) -> String {
    if hint.is_empty() { String::new() } else { format!("; {hint}") }
}

fn console_of(console: &str) -> String {
    let console = console.trim_end();
    if console.is_empty() {
        "; its console is empty".into()
    } else {
        format!("; end of its console:\n{}", indented(console))
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  | {line}")).collect::<Vec<_>>().join("\n")
}
