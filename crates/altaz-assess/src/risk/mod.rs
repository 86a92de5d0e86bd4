//! Expected exploitable defects, exposure and ranking, each with its doubt.
//!
//! Pure and deterministic: every random number comes from a stream named by its assumption
//! ([`stream`]), so one seed gives one result. What is absent here: files, clocks, threads, rendering,
//! and any figure that would pretend to forecast incidents. `docs/risk-model.md` says where the model
//! is weak.

pub mod assumption;
pub mod code;
pub mod evaluate;
mod explain;
mod findings;
mod history;
pub mod known;
pub mod priors;
mod rank;
pub mod rewrite;
mod run;
mod sensitivity;
pub mod stat;
mod statements;
pub mod stream;
pub mod subject;
mod weighting;

pub use known::Known;
pub use priors::{Language, Priors};
pub use run::{Settings, assess_risk};
pub use subject::Subject;
