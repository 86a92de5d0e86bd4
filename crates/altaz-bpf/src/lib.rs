//! BPF without a compiler: small programs put together instruction by instruction, loaded and
//! attached without a file, and what altaz counts with them.
//!
//! Room for: an assembler, bpf(2), maps, programs and links; the filter by which all programs tell
//! the target's tasks from others; counters of system calls, VM exits and userland probes.
//!
//! Never in here: names of system calls or exits, profiles, files of the target, anything pinned
//! into a BPF file system. Whatever this crate attaches is gone when the process is, however it
//! ends.
//!
//! # What it needs
//! Linux 5.15; probes by links of many need 6.6. `CAP_BPF` and `CAP_PERFMON` (held by
//! `tests/rights.rs`), and files of root in tracefs readable: uid 0, or `CAP_DAC_READ_SEARCH`.
//! `CAP_SYS_ADMIN` besides in two cases: for probes on perf events, the fallback for kernels before
//! 6.6; and for tracepoints (following forks, VM exits) where `kernel.perf_event_paranoid` is above
//! 2, as Debian and Ubuntu set it. All of them are needed to start only: what is attached stays so.
//!
//! Under lockdown's integrity everything works. Under its confidentiality (Linux 6.12) tracepoints,
//! counters and probes did as well where tracefs was mounted before, but calls by the 32-bit entry
//! are not told apart ([`SyscallCounter::tells_ia32`]).

pub mod asm;
pub mod btf;
mod counting;
mod error;
pub mod event;
pub mod exits;
pub mod filter;
pub mod hits;
pub mod link;
pub mod map;
pub mod program;
mod sys;
pub mod syscalls;

pub use error::BpfError;
pub use exits::{Exit, ExitCount, ExitCounter, Mmio};
pub use filter::{ActiveFilter, TaskFilter};
pub use hits::{FirstHit, Hit, HitCounter};
pub use syscalls::{Abi, Calibration, Call, SyscallCount, SyscallCounter};
