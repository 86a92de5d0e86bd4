//! Watches a layer of a running service: the host side of the exact instrument.

pub mod doctor;
pub mod exact;
