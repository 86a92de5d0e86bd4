//! What the live instrument would find here: rights, tracefs, the function tracer, probes, BPF.

use altaz_profile::model::{InstrumentKind, Layer};

use super::kernel::LsmLockdown;
use super::{Capability, Check, InstrumentReport, KernelFacts, Machine, State, measured_layers};

const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Needed to record kernel functions.
const KERNEL: &[&str] = &["rights", "lockdown", "tracefs", "function-tracer"];
/// Needed to record userland functions.
const USERLAND: &[&str] = &["rights", "bpf-rights", "lockdown", "uprobes", "bpf", "uprobe-multi"];
/// Needed to count system calls.
const SYSCALL: &[&str] = &["rights", "lockdown", "tracefs", "syscall-events", "histograms"];
/// Needed to count VM exits.
const VM_EXIT: &[&str] = &["rights", "lockdown", "tracefs", "kvm-events", "histograms"];

pub(super) fn examine(m: &Machine<'_>, facts: &KernelFacts) -> InstrumentReport {
    let checks = vec![
        rights(m, facts),
        bpf_rights(facts),
        lockdown(facts),
        tracefs(m, facts),
        function_tracer(facts),
        option(facts, "kprobes", &["KPROBES", "KPROBE_EVENTS"]),
        option(facts, "uprobes", &["UPROBES", "UPROBE_EVENTS"]),
        option(facts, "bpf", &["BPF_SYSCALL", "BPF_EVENTS"]),
        uprobe_multi(facts),
        btf(facts),
        histograms(m, facts),
        event(m, facts, "syscall-events", "raw_syscalls/sys_enter", "CONFIG_FTRACE_SYSCALLS"),
        event(m, facts, "kvm-events", "kvm/kvm_exit", "the kvm module loaded (modprobe kvm)"),
    ];
    let layers: Vec<Capability> = measured_layers().map(|l| layer(l, &checks)).collect();
    let boundaries = vec![
        Capability::from_checks("syscall", &checks, SYSCALL),
        Capability::from_checks("vm-exit", &checks, VM_EXIT),
    ];
    let any = layers.iter().any(|c| c.state == State::Yes);
    InstrumentReport {
        instrument: InstrumentKind::Live,
        state: if any { State::Yes } else { State::No },
        note: Some(
            "what this kernel would allow: this version of altaz records with the exact \
             instrument only"
                .into(),
        ),
        checks,
        layers,
        boundaries,
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
        LsmLockdown::Integrity => Check::yes("lockdown", "integrity, which allows tracing"),
        LsmLockdown::Confidentiality => Check::no(
            "lockdown",
            "the kernel is locked down for confidentiality, which forbids tracing",
            "boot with lockdown=integrity, or measure in the lab (altaz compare)",
        ),
    }
}

fn tracefs(m: &Machine<'_>, facts: &KernelFacts) -> Check {
    let shown = m.tracefs.display();
    match &facts.tracers {
        Some(_) => Check::yes("tracefs", format!("mounted at {shown}")),
        None if !facts.has_capability(CAP_SYS_ADMIN) => {
            Check::no("tracefs", format!("{shown} is not readable or not mounted"), "run as root")
        }
        None => Check::no(
            "tracefs",
            format!("not mounted at {shown}"),
            format!("mount -t tracefs tracefs {shown}"),
        ),
    }
}

fn function_tracer(facts: &KernelFacts) -> Check {
    let name = "function-tracer";
    let remedy = "boot a kernel with CONFIG_FUNCTION_TRACER and CONFIG_DYNAMIC_FTRACE \
                  (distributions' kernels have them), or measure in the lab (altaz compare)";
    let built = facts.config_set("FUNCTION_TRACER");
    match (&facts.tracers, built) {
        (Some(tracers), _) if tracers.iter().any(|t| t == "function") => {
            Check::yes(name, "in available_tracers")
        }
        (_, Some(false)) => Check::no(name, "kernel built without CONFIG_FUNCTION_TRACER", remedy),
        (Some(_), _) => Check::no(name, "not in available_tracers", remedy),
        (None, Some(true)) => {
            Check::unproven(name, "CONFIG_FUNCTION_TRACER is set", "mount tracefs to prove it")
        }
        (None, None) => Check::no(
            name,
            "unknown: neither tracefs nor the kernel's configuration can be read",
            "mount tracefs",
        ),
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
            format!("kernel {} has no multi-uprobe links", facts.release),
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

fn histograms(m: &Machine<'_>, facts: &KernelFacts) -> Check {
    let found = facts
        .tracers
        .is_some()
        .then(|| m.tracefs.join("events/raw_syscalls/sys_enter/hist").exists());
    match found.or_else(|| facts.config_set("HIST_TRIGGERS")) {
        Some(true) => Check::yes("histograms", "event histograms are there"),
        Some(false) => Check::no(
            "histograms",
            "kernel built without event histograms",
            "boot a kernel with CONFIG_HIST_TRIGGERS, or measure in the lab (altaz compare)",
        ),
        None => Check::unproven("histograms", "tracefs is not readable", "mount tracefs"),
    }
}

fn event(m: &Machine<'_>, facts: &KernelFacts, name: &str, event: &str, needs: &str) -> Check {
    if facts.tracers.is_none() {
        return Check::unproven(name, "tracefs is not readable", "mount tracefs");
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
