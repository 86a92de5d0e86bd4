//! The `altaz` command as a library: command line, load generator, progress, wiring.
//!
//! The only crate that knows clap and anyhow. It joins the other crates and decides nothing that a
//! profile or an assessment should decide.

pub mod load;
