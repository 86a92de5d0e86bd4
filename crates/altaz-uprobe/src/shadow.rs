//! Whether a process uses a shadow stack, on which the kernel's emulation of calls does not push.

use std::path::Path;

/// Whether a thread of process `pid` has a shadow stack, by `status` below `proc` (usually `/proc`). Then
/// [`Allowed::without_calls`](crate::Allowed::without_calls) is what may be probed. A process that is gone has none.
pub fn uses_shadow_stack(proc: &Path, pid: u32) -> bool {
    let status = std::fs::read_to_string(proc.join(pid.to_string()).join("status"));
    status.is_ok_and(|text| says_so(&text))
}

fn says_so(status: &str) -> bool {
    let features = status.lines().find_map(|line| line.strip_prefix("x86_Thread_features:"));
    features.is_some_and(|features| features.split_whitespace().any(|f| f == "shstk"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_features_in_use_count() {
        let dir = tempfile::tempdir().unwrap();
        let says = |text: &str| {
            std::fs::create_dir_all(dir.path().join("7")).unwrap();
            std::fs::write(dir.path().join("7/status"), text).unwrap();
            uses_shadow_stack(dir.path(), 7)
        };
        assert!(says(
            "Name:\tx\nx86_Thread_features:\tshstk wrss \nx86_Thread_features_locked:\t\n"
        ));
        assert!(!says("Name:\tx\nx86_Thread_features:\t\nx86_Thread_features_locked:\tshstk\n"));
        assert!(!says("Name:\tshstk\n"));
        assert!(!uses_shadow_stack(dir.path(), 8));
    }
}
