//! Host side of the exact instrument.
//!
//! `altaz-plugin` counts blocks from inside QEMU; here its snapshots become units:
//!
//! 1. [`channel`] asks for a window and takes the snapshot.
//! 2. [`recording`] keeps blocks, pages and counts by window.
//! 3. [`naming`] finds the binary, function and layer of each block: user code by the content of its
//!    page, kernels by their symbol table.
//! 4. [`baseline`] tells the service's work from what the idle machine does anyway, by rate.
//! 5. [`build`] makes units, and the sizes of what could not be named.
//!
//! What must never be in here: starting machines, deployments, file formats.

pub mod baseline;
pub mod build;
pub mod channel;
pub mod naming;
pub mod recording;
