//! What the kernel's tracer says of its buffers, asked by a script in the lab.

/// Lines of shell that print `events N` (kept or read) and `lost N` of a tracing instance's directory, and
/// fail when the kernel does not say.
pub fn tracing_stats(instance: &str) -> String {
    format!(
        r#"cat {instance}/per_cpu/cpu*/stats | awk '
            /^entries:|^read events:/ {{ kept += $NF }}
            /^overrun:|^dropped events:/ {{ n++; lost += $NF }}
            END {{ if (!n) exit 1; printf "events %d\nlost %d\n", kept, lost }}'"#
    )
}
