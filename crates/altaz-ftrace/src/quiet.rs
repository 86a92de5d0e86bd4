//! Runs what needs CPU time but no haste behind everybody else: on a thread of its own with a lower priority, so
//! that the service goes first where CPUs are scarce. A thread of its own, because getting the priority back would
//! need a capability, and because what drains buffers must not be slow.

use rustix::process::setpriority_process;

/// Low, but not lowest: the kernel's text lock is held meanwhile, and others may wait for it.
const NICE: i32 = 10;

/// Runs `work` with a lower priority and waits for it.
pub(crate) fn quietly<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let lowered = || {
        // Without it the work is only less quiet.
        let _ = setpriority_process(None, NICE);
        work()
    };
    std::thread::scope(|scope| match scope.spawn(lowered).join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::getpriority_process;

    #[test]
    fn only_the_work_has_the_lower_priority() {
        let own = getpriority_process(None).unwrap();
        assert_eq!(quietly(|| getpriority_process(None).unwrap()), own.max(NICE));
        assert_eq!(getpriority_process(None).unwrap(), own);
    }
}
