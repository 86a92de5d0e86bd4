//! The two ways in which kernels take probes on userland.

use altaz_bpf::asm::Asm;
use altaz_bpf::asm::Reg::R0;
use altaz_bpf::link::knows_uprobe_multi;
use altaz_bpf::program::{Kind, Program};

/// How probes are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// One link for all probes of a file (Linux 6.6).
    Multi,
    /// A perf event for each probe (Linux 5.15). Each costs a descriptor, and to take one off waits in the kernel for
    /// up to a tenth of a second, one after the other (252 took 26 s where it was measured, and as long from 32
    /// threads). So only [`FALLBACK_LIMIT`](crate::FALLBACK_LIMIT) functions of a file are probed.
    PerfEvents,
}

impl Method {
    /// The best that this kernel knows. Where BPF is not permitted at all, what is attached by it says so.
    pub fn best() -> Self {
        let mut asm = Asm::new();
        asm.mov(R0, 0).exit();
        let program = Program::load(Kind::UprobeMulti, "altaz_probe", asm);
        if program.is_ok_and(|program| knows_uprobe_multi(&program)) {
            Self::Multi
        } else {
            Self::PerfEvents
        }
    }

    /// The kind of program that it takes.
    pub(crate) fn program(self) -> Kind {
        match self {
            Self::Multi => Kind::UprobeMulti,
            Self::PerfEvents => Kind::Uprobe,
        }
    }
}
