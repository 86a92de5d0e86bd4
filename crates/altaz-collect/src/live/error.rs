//! Why a running service cannot be observed.

use altaz_bpf::BpfError;
use altaz_ftrace::error::FtraceError;
use altaz_target::TargetError;
use altaz_uprobe::UprobeError;

use super::kernel::KernelError;

/// Why a running service cannot be observed, or not any longer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LiveError {
    /// Kernel functions.
    #[error(transparent)]
    Ftrace(#[from] FtraceError),
    /// Names of kernel functions.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Boundaries, or probes' programs.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// Userland functions.
    #[error(transparent)]
    Uprobe(#[from] UprobeError),
    /// The processes themselves.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The target's layers.
    #[error("the target's layer rules cannot be used: {0}")]
    Rules(String),
    /// A thread that watches userland functions, or looks for new processes.
    #[error(
        "no thread can be made to watch userland functions and processes ({0}); raise the limit of tasks \
         (`ulimit -u`, pids.max of the cgroup)"
    )]
    Thread(std::io::Error),
    /// Nothing at all can be observed.
    #[error(
        "nothing of what was asked for can be observed on this machine; `altaz doctor` says why, \
         and `altaz compare` measures in the lab"
    )]
    Nothing,
}

impl LiveError {
    /// Whether the lab could measure what this machine cannot.
    pub fn lab_can(&self) -> bool {
        matches!(
            self,
            Self::Ftrace(
                FtraceError::NoFunctionTracer { .. }
                    | FtraceError::Refused { .. }
                    | FtraceError::Lockdown { .. }
                    | FtraceError::SwitchedOff
            ) | Self::Nothing
        )
    }
}
