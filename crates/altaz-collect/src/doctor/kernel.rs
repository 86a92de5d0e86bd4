//! Facts about the running kernel, read from procfs, sysfs, tracefs and its configuration.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::Machine;

/// A kernel's build configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelConfig {
    /// File that it was read from.
    pub source: PathBuf,
    values: BTreeMap<String, String>,
}

impl KernelConfig {
    /// Reads `proc/config.gz` or `boot/config-RELEASE`, whichever is there.
    pub fn read(proc: &Path, boot: &Path, release: &str) -> Option<Self> {
        let packed = proc.join("config.gz");
        if let Ok(file) = std::fs::File::open(&packed) {
            let mut text = String::new();
            // A configuration is about 300 kB; anything much larger is none.
            let mut reader = flate2::read::GzDecoder::new(file).take(16 << 20);
            if reader.read_to_string(&mut text).is_ok() {
                return Some(Self::parse(packed, &text));
            }
        }
        let plain = boot.join(format!("config-{release}"));
        let text = std::fs::read_to_string(&plain).ok()?;
        Some(Self::parse(plain, &text))
    }

    fn parse(source: PathBuf, text: &str) -> Self {
        let values = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("CONFIG_")?.split_once('='))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        Self { source, values }
    }

    /// Whether an option (without `CONFIG_`) is built in or a module.
    pub fn is_set(&self, option: &str) -> bool {
        matches!(self.values.get(option).map(String::as_str), Some("y" | "m"))
    }
}

/// State of the lockdown security module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LsmLockdown {
    /// Not active, or not built in.
    None,
    /// The kernel has it and does not show its mode.
    Unknown,
    /// The kernel cannot be modified; tracing works.
    Integrity,
    /// Kernel memory cannot be read either: no tracing, no BPF, no probes.
    Confidentiality,
}

/// Facts about the running kernel and the caller's rights.
#[derive(Debug, Clone)]
pub struct KernelFacts {
    /// Release (`uname -r`).
    pub release: String,
    /// Online CPUs, at least 1.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory_total: Option<u64>,
    /// Memory that can be had without swapping, in bytes.
    pub memory_available: Option<u64>,
    /// Effective capabilities of this process.
    pub capabilities: u64,
    /// Build configuration, where it is shown.
    pub config: Option<KernelConfig>,
    /// Lockdown.
    pub lockdown: LsmLockdown,
    /// Contents of `available_tracers`; `None` when tracefs is not mounted or not readable.
    pub tracers: Option<Vec<String>>,
    /// Whether the kernel has a trace file system to mount; `None` when it does not list them.
    pub has_tracefs: Option<bool>,
    /// Whether the list of functions to choose from can be read; the error says why not.
    pub filter_functions: Result<(), std::io::ErrorKind>,
    /// Whether functions can be traced at all (`kernel.ftrace_enabled`).
    pub ftrace_enabled: bool,
    /// Whether this process is in a user namespace of its own, where mounts and BPF are refused.
    pub in_user_namespace: bool,
    /// Whether this process sees the process ids that the kernel's programs see; `None` when
    /// procfs does not say.
    pub sees_all_processes: Option<bool>,
    /// Whether the symbol table shows addresses; `None` when it is not readable.
    pub symbol_addresses: Option<bool>,
    /// Whether BTF type information of the kernel is there.
    pub btf: bool,
    /// Whether one BPF link can carry many uprobes; `None` when the symbol table is not readable.
    pub uprobe_multi: Option<bool>,
    /// Why a process without privileges cannot make user namespaces; `None` when it can.
    pub userns_refused: Option<String>,
}

impl KernelFacts {
    /// Reads them.
    pub fn read(m: &Machine<'_>) -> Self {
        let release = read_trimmed(&m.proc.join("sys/kernel/osrelease")).unwrap_or_default();
        let config = KernelConfig::read(&m.proc, &m.boot, &release);
        let symbols =
            std::fs::read_to_string(m.proc.join("kallsyms")).ok().filter(|t| !t.is_empty());
        Self {
            cpus: cpus(&m.sys),
            memory_total: meminfo(&m.proc, "MemTotal"),
            memory_available: meminfo(&m.proc, "MemAvailable"),
            capabilities: effective_capabilities(&m.proc),
            lockdown: lockdown(&m.sys, config.as_ref()),
            tracers: read_trimmed(&m.tracefs.join("available_tracers"))
                .map(|text| text.split_whitespace().map(str::to_owned).collect()),
            has_tracefs: read_trimmed(&m.proc.join("filesystems")).map(|text| {
                text.lines().any(|l| l.split_whitespace().next_back() == Some("tracefs"))
            }),
            filter_functions: readable(&m.tracefs.join("available_filter_functions")),
            ftrace_enabled: read_trimmed(&m.proc.join("sys/kernel/ftrace_enabled")).as_deref()
                != Some("0"),
            in_user_namespace: in_user_namespace(&m.proc),
            sees_all_processes: altaz_bpf::filter::sees_all_processes(&m.proc),
            symbol_addresses: symbols.as_deref().map(shows_addresses),
            btf: m.sys.join("kernel/btf/vmlinux").is_file(),
            uprobe_multi: symbols
                .as_deref()
                .map(|text| has_symbol(text, "bpf_uprobe_multi_link_attach")),
            userns_refused: userns_refused(&m.proc),
            config,
            release,
        }
    }

    /// Whether the process has a capability, by its number.
    pub fn has_capability(&self, number: u32) -> bool {
        self.capabilities & (1 << number) != 0
    }

    /// Whether a configuration option is set; `None` when the configuration is not shown.
    pub fn config_set(&self, option: &str) -> Option<bool> {
        self.config.as_ref().map(|c| c.is_set(option))
    }
}

fn read_trimmed(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// `0-3,6` → 5.
fn cpus(sys: &Path) -> u32 {
    let text = read_trimmed(&sys.join("devices/system/cpu/online")).unwrap_or_default();
    let range = |part: &str| -> Option<u32> {
        let (a, b) = part.split_once('-').unwrap_or((part, part));
        let (a, b): (u32, u32) = (a.trim().parse().ok()?, b.trim().parse().ok()?);
        b.checked_sub(a)?.checked_add(1)
    };
    text.split(',').filter_map(range).fold(0_u32, u32::saturating_add).max(1)
}

fn meminfo(proc: &Path, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(proc.join("meminfo")).ok()?;
    let value = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn effective_capabilities(proc: &Path) -> u64 {
    std::fs::read_to_string(proc.join("self/status"))
        .ok()
        .and_then(|text| {
            let hex = text.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
            u64::from_str_radix(hex.trim(), 16).ok()
        })
        .unwrap_or(0)
}

/// The file names all modes and brackets the active one: `none [integrity] confidentiality`.
fn lockdown(sys: &Path, config: Option<&KernelConfig>) -> LsmLockdown {
    let Some(text) = read_trimmed(&sys.join("kernel/security/lockdown")) else {
        return match config {
            Some(config) if !config.is_set("SECURITY_LOCKDOWN_LSM") => LsmLockdown::None,
            _ => LsmLockdown::Unknown,
        };
    };
    match () {
        () if text.contains("[integrity]") => LsmLockdown::Integrity,
        () if text.contains("[confidentiality]") => LsmLockdown::Confidentiality,
        () => LsmLockdown::None,
    }
}

/// Whether a file gives its first byte. Long ones are not read whole.
fn readable(path: &Path) -> Result<(), std::io::ErrorKind> {
    let mut first = [0_u8];
    let mut read = || std::fs::File::open(path)?.read_exact(&mut first);
    read().map_err(|e| e.kind())
}

fn has_symbol(kallsyms: &str, name: &str) -> bool {
    kallsyms.lines().any(|line| line.split_whitespace().nth(2) == Some(name))
}

/// Whoever may not see them is shown zeros.
fn shows_addresses(kallsyms: &str) -> bool {
    let address = |line: &str| u64::from_str_radix(line.split_whitespace().next()?, 16).ok();
    // The first symbols may be offsets into per-CPU data, which begin at 0.
    kallsyms.lines().any(|line| address(line).is_some_and(|a| a > u64::from(u32::MAX)))
}

/// The initial one maps all ids to themselves.
fn in_user_namespace(proc: &Path) -> bool {
    read_trimmed(&proc.join("self/uid_map"))
        .is_some_and(|map| map.split_whitespace().ne(["0", "0", "4294967295"]))
}

fn userns_refused(proc: &Path) -> Option<String> {
    let is = |file: &str, value: &str| {
        read_trimmed(&proc.join("sys").join(file)).is_some_and(|v| v == value)
    };
    if !proc.join("self/ns/user").exists() {
        Some("the kernel has no user namespaces (CONFIG_USER_NS)".into())
    } else if is("user/max_user_namespaces", "0") {
        Some("user.max_user_namespaces is 0".into())
    } else if is("kernel/unprivileged_userns_clone", "0") {
        Some("kernel.unprivileged_userns_clone is 0".into())
    } else if is("kernel/apparmor_restrict_unprivileged_userns", "1") {
        Some("kernel.apparmor_restrict_unprivileged_userns is 1".into())
    } else {
        None
    }
}
