//! Probes on userland functions.
