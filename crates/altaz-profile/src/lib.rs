//! What a profile is: units, layers, owners, boundaries, windows; its file; completeness; diff and
//! merge.
//!
//! This crate knows nobody else in the workspace, and only this crate knows Parquet.

pub mod completeness;
#[cfg(feature = "file")]
pub mod file;
pub mod inventory;
pub mod model;
pub mod ops;
pub mod results;
pub mod rules;
pub mod version;
pub mod vulnerability;

pub use model::*;
