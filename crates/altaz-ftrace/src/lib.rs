//! The kernel's function tracer.
