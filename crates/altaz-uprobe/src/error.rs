//! What can go wrong, each with what to do.

use altaz_bpf::BpfError;
use std::io;
use std::path::PathBuf;

/// Why userland functions could not be probed.
#[derive(Debug, thiserror::Error)]
pub enum UprobeError {
    /// A file that processes map could not be read.
    #[error("{}: cannot be read for probing: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is larger than what altaz takes into memory.
    #[error("{}: {size} bytes, more than the {limit} that altaz reads; it is not probed", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        size: u64,
        /// The most that is read.
        limit: u64,
    },
    /// BPF said no.
    #[error("{what}: {source}")]
    Bpf {
        /// What was tried.
        what: String,
        /// What it said.
        source: BpfError,
    },
    /// So many instructions were refused that something else must be wrong.
    #[error(
        "{}: the kernel refused {refused} probes, then altaz gave up; nothing of this file is probed. The last refusal: {source}",
        path.display()
    )]
    ManyRefused {
        /// The file.
        path: PathBuf,
        /// Single probes refused.
        refused: usize,
        /// The last refusal.
        source: BpfError,
    },
    /// The self-test could not run.
    #[error(
        "the self-test of this kernel's probes could not run ({what}): {source}; without it no function is probed"
    )]
    SelfTest {
        /// The step that failed.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The self-test's own program misbehaved before there were any probes.
    #[error(
        "the self-test's program ended with signal {signal} before it was probed; without the self-test no function is probed"
    )]
    SelfTestBroken {
        /// The signal.
        signal: i32,
    },
}
