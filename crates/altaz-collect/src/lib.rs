//! Watches a layer of a running service: the host side of the exact instrument, and the live
//! instrument.

pub mod doctor;
pub mod exact;
pub mod live;
