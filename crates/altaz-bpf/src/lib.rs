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
//! Linux 5.15; probes by links of many need 6.6. `CAP_BPF` and `CAP_PERFMON` (checked by
//! `tests/rights.rs`), and files of root in tracefs readable: uid 0, or `CAP_DAC_READ_SEARCH`.
//! Only the fallback for older kernels, probes on perf events, takes `CAP_SYS_ADMIN`. Under
//! lockdown's confidentiality nothing of this works; under its integrity everything does.

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
