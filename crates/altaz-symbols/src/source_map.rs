//! Kernel functions → source files. (placeholder)
