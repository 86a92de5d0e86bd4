//! The live instrument: joins what the collectors of a running machine saw into the rows of a
//! profile.
//!
//! The collectors themselves are crates of their own: `altaz-ftrace` (kernel functions),
//! `altaz-uprobe` (userland functions), `altaz-bpf` (boundaries), and `altaz-target` says what is
//! watched. Here their windows become one sequence of windows, and functions become units:
//!
//! | module | room for |
//! |---|---|
//! | [`rows`] | windows and sightings → units; completeness while recording. Pure |
//! | [`kernel`] | the running kernel's symbols and sources |
//! | [`files`] | the executable files that the processes have mapped |
//! | [`userland`] | their functions under probes, on a thread of their own |
//! | [`look`] | when the target's processes are looked at again, beside the recording |
//! | [`syscalls`], [`exits`] | counts of boundary crossings, by name |
//! | [`session`] | one recording from the first probe to the profile |
//!
//! There must never be a decision here about how a kernel interface is used safely; that belongs to
//! the collectors.

mod error;
pub mod exits;
pub mod files;
mod finish;
pub mod kernel;
mod look;
mod news;
pub mod rows;
pub mod session;
pub mod syscalls;
pub mod userland;

pub use error::LiveError;
pub use finish::Recorded;
pub use news::{News, NewsOf};
