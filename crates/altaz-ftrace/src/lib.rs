//! The kernel's function tracer, made cheap enough for a service in production.
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
pub mod recorder;
pub mod ring;
mod sources;
pub mod tally;
