//! Reads what tracefs and proc say about this kernel: page layout, traceable functions, loaded modules.

use std::fs;
use std::path::Path;

use crate::error::FtraceError;
use crate::functions::{FunctionTable, Reload};
use crate::instance::read;
use crate::layout::Layout;

/// The layout of raw pages and of function records.
pub(crate) fn layout(tracefs: &Path) -> Result<Layout, FtraceError> {
    let events = tracefs.join("events");
    let page = read(&events.join("header_page"))?;
    let event = read(&events.join("header_event"))?;
    let function = read(&events.join("ftrace/function/format"))?;
    Layout::parse(&page, &event, &function)
        .map_err(|e| FtraceError::Format { path: events, reason: e.to_string() })
}

/// All traceable functions.
pub(crate) fn table(tracefs: &Path, proc: &Path) -> Result<FunctionTable, FtraceError> {
    let mut table = FunctionTable::default();
    reload(tracefs, proc, &mut table)?;
    if table.is_empty() {
        return Err(FtraceError::Format {
            path: tracefs.join("available_filter_functions"),
            reason: "no function in it has an address (kernel.kptr_restrict=2 hides them)"
                .to_owned(),
        });
    }
    Ok(table)
}

/// Reads the traceable functions again. Kernels before 6.5 have no addresses in tracefs: kallsyms has them.
pub(crate) fn reload(
    tracefs: &Path,
    proc: &Path,
    table: &mut FunctionTable,
) -> Result<Reload, FtraceError> {
    let addrs = tracefs.join("available_filter_functions_addrs");
    if addrs.exists() {
        return Ok(table.reload_addrs(&read(&addrs)?));
    }
    let names = read(&tracefs.join("available_filter_functions"))?;
    Ok(table.reload_names(&names, &read(&proc.join("kallsyms"))?))
}

/// What changes when modules come and go: two small files, looked at after every window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Modules {
    total: String,
    names: String,
}

impl Modules {
    pub(crate) fn read(tracefs: &Path, proc: &Path) -> Self {
        let total = fs::read_to_string(tracefs.join("dyn_ftrace_total_info")).unwrap_or_default();
        let modules = fs::read_to_string(proc.join("modules")).unwrap_or_default();
        let mut names = String::with_capacity(modules.len() / 2);
        for line in modules.lines() {
            // Name and address; the reference count and its holders between them change all the time.
            let mut parts = line.split(' ');
            names.extend(parts.next());
            names.push(' ');
            names.extend(parts.nth(4));
            names.push('\n');
        }
        Self { total, names }
    }
}

/// Idle CPU time of the machine, between looks.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Idle {
    idle: u64,
    total: u64,
}

impl Idle {
    /// Looks at `/proc/stat`; returns the idle share of all CPUs since the last look, 0 to 1, where there is one.
    pub(crate) fn since_last(&mut self, proc: &Path) -> Option<f64> {
        let stat = fs::read_to_string(proc.join("stat")).ok()?;
        let now = Self::parse(&stat)?;
        let last = std::mem::replace(self, now);
        let total = now.total.checked_sub(last.total).filter(|&t| t > 0 && last.total > 0)?;
        Some((now.idle.saturating_sub(last.idle) as f64 / total as f64).clamp(0.0, 1.0))
    }

    /// `cpu  user nice system idle iowait irq softirq steal …`
    fn parse(stat: &str) -> Option<Self> {
        let line = stat.lines().next()?.strip_prefix("cpu ")?;
        let times: Vec<u64> = line.split_whitespace().filter_map(|t| t.parse().ok()).collect();
        let idle = times.get(3)?.saturating_add(*times.get(4)?);
        Some(Self { idle, total: times.iter().take(8).fold(0, |a, &b| a.saturating_add(b)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_noticed_and_its_reference_count_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let look = |modules: &str| {
            fs::write(dir.path().join("modules"), modules).unwrap();
            Modules::read(dir.path(), dir.path())
        };
        let before = look("tun 61440 2 - Live 0xffffffffc0a10000\n");
        assert_eq!(before, look("tun 61440 3 vhost_net, Live 0xffffffffc0a10000\n"));
        assert_ne!(before, look("tap 61440 2 - Live 0xffffffffc0a10000\n"));
        assert_ne!(before, look("tun 61440 2 - Live 0xffffffffc0a20000\n"));
        fs::write(dir.path().join("dyn_ftrace_total_info"), "43856 pages:189 groups: 24\n")
            .unwrap();
        assert_ne!(before, look("tun 61440 2 - Live 0xffffffffc0a10000\n"));
    }

    #[test]
    fn idle_time_is_a_share_since_the_last_look() {
        let dir = tempfile::tempdir().unwrap();
        let mut idle = Idle::default();
        let mut look = |stat: &str| {
            fs::write(dir.path().join("stat"), stat).unwrap();
            idle.since_last(dir.path())
        };
        assert_eq!(look("cpu  185 0 1154 841 7 0 500 0 0 0\ncpu0 1\n"), None);
        let share = look("cpu  218 0 1290 922 7 0 683 0 0 0\n").unwrap();
        assert!((share - 81.0 / 433.0).abs() < 1e-9, "{share}");
        assert_eq!(look("cpu  218 0 1290 922 7 0 683 0 0 0\n"), None);
        assert_eq!(look("nonsense"), None);
    }
}
