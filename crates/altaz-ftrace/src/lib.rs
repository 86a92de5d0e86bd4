//! The kernel's function tracer, made cheap enough for a service in production.
//!
//! [`recorder::Recorder`] follows threads and tells, window by window, which kernel functions they traversed and in
//! which context. What it knows comes from a tracing instance of its own ([`instance`]), raw ring-buffer pages
//! ([`ring`], [`page`], [`layout`]) and the kernel's list of traceable functions ([`functions`]). [`tally`] and
//! [`pace`] decide, without touching anything, what was seen and what is armed and disarmed when.
//!
//! Must never be in it: symbols and sizes of functions, profiles, layers, completeness figures, the top-level
//! tracer or another user's instance, fprobe or kprobes on many functions (that took a 6.12 kernel down).
//!
//! # What tracing costs, and what is done about it
//!
//! Measured in a lab VM (Linux 6.12, TCG on two shared cores; ratios carry over, absolute figures do not):
//!
//! | what | cost |
//! |---|---|
//! | arming or disarming a function (the kernel patches its text three times) | 85–90 µs; all 43,856: 3.3 s |
//! | a change of a filter besides, however small | 15–25 ms |
//! | an event of a followed thread | 0.7–0.9 µs, of which recording is about half |
//! | reading the list of functions | 0.6 s |
//! | removing the instance with everything armed | 2–3 s |
//! | decoding a page here / with the tally, million events a second on one core | 250 / 119 |
//!
//! A service at full speed has a thousand functions that run for each request. With all of them armed it ran at a
//! sixth of its speed, and it takes seconds to arm them all; so functions are armed in *slices* of 1,024: a few
//! dozen hot ones at a time, which are seen in three windows of 4 ms and disarmed before the next slice. Arming
//! takes CPU time, which a machine without idle CPUs takes from the service: it is done by a thread of lower
//! priority, within a budget that follows the machine's idle time ([`pace::Pace`]), and bounded in time. Larger
//! slices (4,096) cost the service more while they are armed; smaller ones (512) cost more changes of the filter.
//!
//! A function that was seen in three windows is disarmed when its events have cost as much as the disarming will
//! ([`pace::Disarming`]), many at once, or after a second, at first, if they cost it nothing: other tasks hit armed
//! functions too, which the pid filter keeps out of the buffers. Measured with redis and its client on two virtual CPUs:
//! with such functions armed redis kept 0.85 of its speed, whether altaz ran or was stopped; without them 0.98. Disarming
//! is not done at the lower priority of arming, as the service runs into what is hot for as long as it takes. The entry
//! functions of system calls are armed first, so that a counter of system calls, for which every system call of the
//! machine pays, can stop. Once everything was armed, the filter is emptied (which means everything): that patches nothing,
//! makes disarming cheaper, and lets the kernel arm a module that is loaded later by itself.
//!
//! After that nothing armed is called: altaz sleeps in `poll`, wakes twice a second to look, and a function that is
//! traversed for the first time is in the report of the window, half a second later at most.
//!
//! # Known limits
//!
//! - Functions are disarmed for all contexts together; a context that first comes up after that is not seen.
//! - While text is patched in the converging phase nothing is recorded; the gap shows between two windows.
//! - Functions of a slice are exposed only from its arming on: windows before [`recorder::WindowReport::waiting`]
//!   is 0 do not cover all functions.
//! - A module's functions are not seen between its loading and the next look at the end of the window, as long as
//!   slices are waiting.
#![warn(missing_docs)]

pub mod baseline;
pub mod calibrate;
pub mod error;
pub mod filter;
pub mod functions;
pub mod instance;
pub mod layout;
pub mod pace;
pub mod page;
mod quiet;
pub mod ration;
pub mod recorder;
pub mod ring;
mod sources;
pub mod tally;

pub use baseline::{Background, Baseline};
pub use calibrate::Calibration;
pub use error::FtraceError;
pub use functions::{Function, FunctionIndex, FunctionTable};
pub use instance::{Orphan, orphans};
pub use pace::Pace;
pub use page::Context;
pub use ration::Ration;
pub use recorder::{Options, Recorder, WindowReport};
pub use tally::Seen;
