//! BPF without a compiler.
