//! What the live instrument finds here: rights, tracefs, the function tracer, probes, BPF; and whether
//! `altaz record` runs with all of it, with a part of it, or not at all.

use std::io::ErrorKind;

use altaz_profile::model::{InstrumentKind, Layer};

use super::kernel::LsmLockdown;
use super::{Capability, Check, InstrumentReport, KernelFacts, Machine, State, measured_layers};

const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Needed to record kernel functions.
const KERNEL: &[&str] = &["rights", "lockdown", "tracefs", "function-tracer"];
/// Needed to record userland functions. Without multi-uprobe links fewer functions are probed, by
/// performance events.
const USERLAND: &[&str] =
    &["rights", "bpf-rights", "pid-namespace", "lockdown", "tracefs", "uprobes", "bpf"];
/// Needed to count system calls.
const SYSCALL: &[&str] =
    &["rights", "bpf-rights", "pid-namespace", "lockdown", "tracefs", "bpf", "syscall-events"];
/// Needed to count VM exits.
const VM_EXIT: &[&str] =
    &["rights", "bpf-rights", "pid-namespace", "lockdown", "tracefs", "bpf", "kvm-events"];

pub(super) fn examine(m: &Machine<'_>, facts: &KernelFacts) -> InstrumentReport {
    let checks = vec![
        rights(m, facts),
        bpf_rights(facts),
        pid_namespace(facts),
        lockdown(facts),
        tracefs(m, facts),
        function_tracer(facts),
        kernel_symbols(facts),
        option(facts, "uprobes", &["UPROBES", "UPROBE_EVENTS"]),
        option(facts, "bpf", &["BPF_SYSCALL", "BPF_EVENTS"]),
        uprobe_multi(facts),
        btf(facts),
        event(m, facts, "syscall-events", "raw_syscalls/sys_enter", "CONFIG_FTRACE_SYSCALLS"),
        event(m, facts, "kvm-events", "kvm/kvm_exit", "the kvm module loaded (modprobe kvm)"),
    ];
    let layers: Vec<Capability> = measured_layers().map(|l| layer(l, &checks)).collect();
    let boundaries = vec![
        Capability::from_checks("syscall", &checks, SYSCALL),
        Capability::from_checks("vm-exit", &checks, VM_EXIT),
    ];
    let (state, note) = record(&checks);
    InstrumentReport {
        instrument: InstrumentKind::Live,
        state,
        note: Some(note),
        checks,
        layers,
        boundaries,
    }
}

/// Whether `altaz record` runs, and how.
fn record(checks: &[Check]) -> (State, String) {
    let parts = [
        ("kernel functions", KERNEL),
        ("system calls", SYSCALL),
        ("userland functions (--userland)", USERLAND),
    ];
    let failed = |needs: &[&str]| {
        checks.iter().find(|c| c.state == State::No && needs.contains(&c.name.as_str()))
    };
    let (can, cannot): (Vec<_>, Vec<_>) =
        parts.into_iter().partition(|(_, needs)| failed(needs).is_none());
    let names =
        |parts: &[(&str, &[&str])]| parts.iter().map(|(n, _)| *n).collect::<Vec<_>>().join(", ");
    let why = || {
        let mut reasons: Vec<String> = Vec::new();
        for check in cannot.iter().filter_map(|(_, needs)| failed(needs)) {
            let reason = format!("{}: {}", check.name, check.detail);
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        reasons.join("; ")
    };
    match (can.is_empty(), cannot.is_empty()) {
        (false, true) => (State::Yes, format!("altaz record runs here, with {}", names(&can))),
        (true, _) => (
            State::No,
            format!("altaz record cannot run here ({}); altaz compare measures in the lab", why()),
        ),
        (false, false) => (
            State::Yes,
            format!(
                "altaz record runs here with --partial only: {}, but not {} ({}); altaz compare \
                 measures all in the lab",
                names(&can),
                names(&cannot),
                why()
            ),
        ),
    }
}

fn layer(layer: Layer, checks: &[Check]) -> Capability {
    let name = layer.as_str();
    match layer {
        Layer::HostKernel => Capability::from_checks(name, checks, KERNEL),
        Layer::GuestKernel | Layer::GuestUserland => {
            Capability::never(name, "code of a guest is not visible from its host; record in it")
        }
        _ => Capability::from_checks(name, checks, USERLAND),
    }
}

fn rights(m: &Machine<'_>, facts: &KernelFacts) -> Check {
    if facts.has_capability(CAP_SYS_ADMIN) {
        Check::yes("rights", if m.uid == 0 { "root" } else { "CAP_SYS_ADMIN" })
    } else {
        Check::no(
            "rights",
            format!("user {} without CAP_SYS_ADMIN, which tracefs asks for", m.uid),
            "run as root",
        )
    }
}

fn bpf_rights(facts: &KernelFacts) -> Check {
    let name = "bpf-rights";
    let lacking: Vec<&str> = [(CAP_BPF, "CAP_BPF"), (CAP_PERFMON, "CAP_PERFMON")]
        .into_iter()
        .filter(|(number, _)| !facts.has_capability(*number))
        .map(|(_, name)| name)
        .collect();
    if lacking.is_empty() || facts.has_capability(CAP_SYS_ADMIN) {
        Check::yes(name, "BPF programs and performance events may be used")
    } else {
        Check::no(name, format!("{} missing", lacking.join(" and ")), "run as root")
    }
}

fn lockdown(facts: &KernelFacts) -> Check {
    match facts.lockdown {
        LsmLockdown::None => Check::yes("lockdown", "the kernel is not locked down"),
        LsmLockdown::Unknown => Check::unproven(
            "lockdown",
            "the kernel can be locked down, and does not show whether it is",
            "mount -t securityfs securityfs /sys/kernel/security",
        ),
        LsmLockdown::Integrity => Check::yes("lockdown", "integrity, which allows tracing"),
        LsmLockdown::Confidentiality => Check::no(
            "lockdown",
            "the kernel is locked down for confidentiality, which forbids tracing",
            "boot with lockdown=integrity, or measure in the lab (altaz compare)",
        ),
    }
}

/// Where altaz runs in a PID namespace of its own, the kernel's programs see other numbers.
fn pid_namespace(facts: &KernelFacts) -> Check {
    let name = "pid-namespace";
    match facts.sees_all_processes {
        Some(true) => Check::yes(name, "the machine's own"),
        Some(false) => Check::no(
            name,
            "altaz is in a PID namespace of its own, where processes have other numbers",
            "run it on the host, or start its container with --pid=host",
        ),
        None => Check::unproven(name, "not shown by the kernel", "mount procfs"),
    }
}

fn tracefs(m: &Machine<'_>, facts: &KernelFacts) -> Check {
    let name = "tracefs";
    let shown = m.tracefs.display();
    let usual = "mount -t tracefs tracefs /sys/kernel/tracing";
    if facts.tracers.is_some() {
        let found = match m.tracefs_is_own {
            true => "not mounted; altaz mounts it for itself alone, where nobody sees it".into(),
            false => format!("mounted at {shown}"),
        };
        return Check::yes(name, found);
    }
    if facts.has_tracefs == Some(false) {
        return Check::no(
            name,
            "this kernel has no trace file system (CONFIG_TRACING)",
            "boot a kernel that has it, or measure in the lab (altaz compare)",
        );
    }
    if !facts.has_capability(CAP_SYS_ADMIN) {
        let why = format!(
            "user {} cannot read {shown}, or it is not mounted and mounting it takes CAP_SYS_ADMIN",
            m.uid
        );
        return Check::no(name, why, "run as root");
    }
    if facts.lockdown == LsmLockdown::Confidentiality {
        let why = "closed, because the kernel is locked down for confidentiality";
        return Check::no(name, why, "see lockdown");
    }
    if facts.in_user_namespace {
        return Check::no(
            name,
            "not mounted, and altaz is in a user namespace, which may not mount it",
            "run altaz as root of the host",
        );
    }
    let why = format!("not mounted at {shown}, and altaz could not mount it for itself");
    Check::no(name, why, format!("{usual} (in a container: give it /sys/kernel/tracing)"))
}

fn function_tracer(facts: &KernelFacts) -> Check {
    let name = "function-tracer";
    let remedy = "boot a kernel with CONFIG_FUNCTION_TRACER and CONFIG_DYNAMIC_FTRACE \
                  (distributions' kernels have them), or measure in the lab (altaz compare)";
    let built = facts.config_set("FUNCTION_TRACER");
    match (&facts.tracers, built) {
        (Some(tracers), _) if tracers.iter().any(|t| t == "function") => {
            match facts.filter_functions {
                Ok(()) if facts.ftrace_enabled => Check::yes(name, "its functions are listed"),
                Ok(()) => Check::no(
                    name,
                    "switched off for everybody: kernel.ftrace_enabled is 0",
                    "sysctl kernel.ftrace_enabled=1",
                ),
                Err(ErrorKind::NotFound) => Check::no(
                    name,
                    "functions cannot be chosen: kernel built without CONFIG_DYNAMIC_FTRACE",
                    remedy,
                ),
                Err(why) => Check::no(
                    name,
                    format!("offered, but the kernel refuses to list its functions: {why}"),
                    "boot a kernel that allows it (this one may be hardened or locked down), or \
                     measure in the lab (altaz compare)",
                ),
            }
        }
        (_, Some(false)) => Check::no(name, "kernel built without CONFIG_FUNCTION_TRACER", remedy),
        (Some(_), _) => Check::no(name, "not in available_tracers", remedy),
        (None, Some(true)) => {
            Check::unproven(name, "CONFIG_FUNCTION_TRACER is set", "see tracefs; it would prove it")
        }
        (None, None) => Check::unproven(
            name,
            "unknown: neither tracefs nor the kernel's configuration can be read",
            "see tracefs",
        ),
    }
}

/// Without them functions are recorded all the same, without sizes and sources.
fn kernel_symbols(facts: &KernelFacts) -> Check {
    let name = "kernel-symbols";
    match facts.symbol_addresses {
        Some(true) => Check::yes(name, "the symbol table shows addresses"),
        Some(false) => Check::no(
            name,
            "the symbol table hides addresses; kernel functions would have no sizes and sources",
            "run as root with CAP_SYSLOG, and kernel.kptr_restrict below 2",
        ),
        None => Check::unproven(name, "the kernel's symbol table is not readable", "run as root"),
    }
}

/// A feature that the kernel has when all these options are set.
fn option(facts: &KernelFacts, name: &str, options: &[&str]) -> Check {
    let Some(config) = &facts.config else {
        return Check::unproven(
            name,
            "the kernel does not show its configuration",
            "modprobe configs, or install /boot/config-*",
        );
    };
    let lacking: Vec<String> =
        options.iter().filter(|o| !config.is_set(o)).map(|o| format!("CONFIG_{o}")).collect();
    if lacking.is_empty() {
        let set: Vec<String> = options.iter().map(|o| format!("CONFIG_{o}")).collect();
        Check::yes(name, set.join(", "))
    } else {
        Check::no(
            name,
            format!("kernel built without {}", lacking.join(", ")),
            "boot a kernel that has them, or measure in the lab (altaz compare)",
        )
    }
}

fn uprobe_multi(facts: &KernelFacts) -> Check {
    let name = "uprobe-multi";
    match facts.uprobe_multi {
        Some(true) => Check::yes(name, "one BPF link can carry many uprobes"),
        Some(false) => Check::no(
            name,
            format!(
                "kernel {} has no multi-uprobe links; --userland then probes at most 200 functions \
                 of a file",
                facts.release
            ),
            "boot Linux 6.6 or newer with CONFIG_UPROBES and CONFIG_BPF_EVENTS",
        ),
        None => Check::unproven(name, "the kernel's symbol table is not readable", "run as root"),
    }
}

fn btf(facts: &KernelFacts) -> Check {
    if facts.btf {
        Check::yes("btf", "kernel type information is there")
    } else {
        Check::no("btf", "no /sys/kernel/btf/vmlinux", "boot a kernel with CONFIG_DEBUG_INFO_BTF")
    }
}

fn event(m: &Machine<'_>, facts: &KernelFacts, name: &str, event: &str, needs: &str) -> Check {
    if facts.tracers.is_none() {
        return Check::unproven(name, "tracefs cannot be read", "see tracefs");
    }
    if m.tracefs.join("events").join(event).is_dir() {
        Check::yes(name, format!("{event} is there"))
    } else {
        Check::no(
            name,
            format!("the kernel has no event {event}"),
            format!("it needs {needs}; or measure in the lab (altaz compare)"),
        )
    }
}
