//! SIGINT and SIGTERM: the first asks everything to stop and clean up, a second one ends altaz at
//! once (the kernel then kills what altaz started).

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::exit::Exit;

/// Installs the handlers; the flag is set by the first signal. No thread is started, so that user
/// namespaces can still be entered afterwards.
///
/// # Errors
/// When the system refuses.
pub fn install() -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The order matters: when the second signal comes, the flag is already set.
        signal_hook::flag::register_conditional_shutdown(
            signal,
            Exit::Interrupted as i32,
            Arc::clone(&flag),
        )
        .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&flag)))
        .context("cannot install a signal handler")?;
    }
    Ok(flag)
}
