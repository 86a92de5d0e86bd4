//! Machines that lack one thing each.

use altaz_profile::model::InstrumentKind;

use super::testing::Fake;
use super::{Capability, Check, DoctorReport, InstrumentReport, State};

fn instrument(report: &DoctorReport, kind: InstrumentKind) -> &InstrumentReport {
    report.instruments.iter().find(|i| i.instrument == kind).unwrap()
}

fn exact<'a>(report: &'a DoctorReport, check: &str) -> &'a Check {
    let i = instrument(report, InstrumentKind::Exact);
    i.checks.iter().find(|c| c.name == check).unwrap()
}

fn live<'a>(report: &'a DoctorReport, check: &str) -> &'a Check {
    let i = instrument(report, InstrumentKind::Live);
    i.checks.iter().find(|c| c.name == check).unwrap()
}

fn live_capability<'a>(report: &'a DoctorReport, name: &str) -> &'a Capability {
    let i = instrument(report, InstrumentKind::Live);
    i.layers.iter().chain(&i.boundaries).find(|c| c.name == name).unwrap()
}

/// What is missing must come with a reason and a remedy.
fn assert_refused(check: &Check, reason: &str, remedy: &str) {
    assert_eq!(check.state, State::No, "{check:?}");
    assert!(check.detail.contains(reason), "{check:?}");
    assert!(check.remedy.as_deref().unwrap_or_default().contains(remedy), "{check:?}");
}

#[test]
fn a_complete_machine_can_do_everything_that_can_be_done() {
    let report = Fake::complete().examine();
    assert!(report.exact_can_run());
    assert_eq!((report.cpus, report.kernel.as_str()), (3, "6.12.43-amd64"));
    assert_eq!(report.memory, Some(16 << 30));
    for i in &report.instruments {
        assert!(i.checks.iter().all(|c| c.state == State::Yes), "{:#?}", i.checks);
        assert!(i.boundaries.iter().all(|c| c.state == State::Yes));
    }
    assert_eq!(live_capability(&report, "host-kernel").state, State::Yes);
    assert_eq!(live_capability(&report, "guest-kernel").state, State::No);
    assert_eq!(report.kvm.state, State::Unproven, "a file that opens proves nothing");
}

#[test]
fn without_qemu_there_is_no_exact_instrument_and_every_layer_says_so() {
    let fake = Fake::complete();
    fake.remove("bin/qemu-system-x86_64");
    let report = fake.examine();
    assert!(!report.exact_can_run());
    assert_refused(exact(&report, "qemu"), "not found", "apt install qemu-system-x86");
    let i = instrument(&report, InstrumentKind::Exact);
    assert!(i.layers.iter().all(|l| l.state == State::No && l.reason.is_some()));
    assert!(fake.ran.borrow().is_empty());
}

#[test]
fn an_old_qemu_is_refused_with_the_version_that_is_needed() {
    let mut fake = Fake::complete();
    fake.qemu_version = "QEMU emulator version 7.2.17 (Debian 1:7.2+dfsg-7)".into();
    assert_refused(exact(&fake.examine(), "qemu"), "7.2.17; the plugin needs 9.2", "backports");
}

#[test]
fn a_qemu_without_plugins_is_refused() {
    let mut fake = Fake::complete();
    fake.qemu_plugins = false;
    assert_refused(exact(&fake.examine(), "qemu"), "without plugins", "--enable-plugins");
}

#[test]
fn missing_parts_and_tools_are_named_with_the_way_to_get_them() {
    let fake = Fake::complete();
    fake.remove("parts/libaltaz_plugin.so");
    fake.remove("parts/altaz-agent");
    fake.remove("bin/mmdebstrap");
    let report = fake.examine();
    assert_refused(exact(&report, "plugin"), "libaltaz_plugin.so is not there", "cargo build");
    assert_refused(exact(&report, "agent"), "altaz-agent is not there", "make build");
    assert_refused(exact(&report, "mmdebstrap"), "not found", "apt install mmdebstrap");
}

#[test]
fn a_user_gets_a_network_only_where_user_namespaces_are_allowed() {
    let mut fake = Fake::complete();
    fake.uid = 1000;
    fake.capabilities(0);
    assert_eq!(exact(&fake.examine(), "network").state, State::Yes);
    for (file, value) in [
        ("user/max_user_namespaces", "0"),
        ("kernel/unprivileged_userns_clone", "0"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1"),
    ] {
        fake.write(&format!("proc/sys/{file}"), value);
        let knob = file.replace('/', ".");
        assert_refused(exact(&fake.examine(), "network"), &knob, "root");
        fake.remove(&format!("proc/sys/{file}"));
    }
    fake.remove("dev/net/tun");
    assert_refused(exact(&fake.examine(), "network"), "net/tun", "modprobe tun");
}

#[test]
fn too_little_disk_matters_only_while_the_lab_is_not_built() {
    let mut fake = Fake::complete();
    fake.free = 1 << 30;
    assert_eq!(exact(&fake.examine(), "disk").state, State::Yes);
    fake.lab_built = false;
    assert_refused(exact(&fake.examine(), "disk"), "1.0 GiB free", "--cache-dir");
}

#[test]
fn too_little_memory_is_refused() {
    let fake = Fake::complete();
    fake.write("proc/meminfo", "MemTotal: 4194304 kB\nMemAvailable: 2097152 kB\n");
    assert_refused(exact(&fake.examine(), "memory"), "2.0 GiB available, 6.0 GiB needed", "stop");
}

#[test]
fn a_lab_that_is_not_built_yet_is_no_obstacle() {
    let mut fake = Fake::complete();
    fake.lab_built = false;
    let report = fake.examine();
    assert!(report.exact_can_run());
    assert_eq!(exact(&report, "lab-image").state, State::Unproven);
}

#[test]
fn an_unmounted_tracefs_is_told_from_a_missing_tracer() {
    let fake = Fake::complete();
    fake.remove("tracefs");
    let report = fake.examine();
    assert_refused(live(&report, "tracefs"), "could not mount it for itself", "mount -t tracefs");
    assert_eq!(live(&report, "function-tracer").state, State::Unproven);
    assert_eq!(live_capability(&report, "host-kernel").missing, ["tracefs"]);

    let fake = Fake::complete();
    fake.write("tracefs/available_tracers", "nop\n");
    let report = fake.examine();
    assert_refused(live(&report, "function-tracer"), "not in available_tracers", "altaz compare");
}

#[test]
fn a_tracer_that_is_offered_and_refused_is_none() {
    let fake = Fake::complete();
    // Even root cannot read it: here because it is no file.
    fake.remove("tracefs/available_filter_functions");
    fake.write("tracefs/available_filter_functions/x", "");
    let report = fake.examine();
    assert_refused(live(&report, "function-tracer"), "refuses to list", "altaz compare");
    let note = instrument(&report, InstrumentKind::Live).note.as_deref().unwrap();
    assert!(note.contains("--partial only"), "{note}");
}

#[test]
fn a_tracefs_that_altaz_mounts_for_itself_is_no_obstacle() {
    let mut fake = Fake::complete();
    fake.tracefs_is_own = true;
    let report = fake.examine();
    let check = live(&report, "tracefs");
    assert_eq!(check.state, State::Yes);
    assert!(check.detail.contains("for itself alone"), "{check:?}");
    assert_eq!(live_capability(&report, "host-kernel").state, State::Yes);
}

#[test]
fn why_there_is_no_tracefs_is_said() {
    let mut fake = Fake::complete();
    fake.remove("tracefs");
    fake.write("proc/self/uid_map", "0 1000 1\n");
    assert_refused(live(&fake.examine(), "tracefs"), "user namespace", "root of the host");
    fake.write("sys/kernel/security/lockdown", "none integrity [confidentiality]");
    assert_refused(live(&fake.examine(), "tracefs"), "locked down", "see lockdown");
    fake.uid = 1000;
    fake.capabilities(0);
    assert_refused(live(&fake.examine(), "tracefs"), "user 1000 cannot read", "root");
    fake.write("proc/filesystems", "nodev\tsysfs\n\text4\n");
    assert_refused(live(&fake.examine(), "tracefs"), "CONFIG_TRACING", "altaz compare");
}

#[test]
fn record_runs_with_everything_with_a_part_or_not_at_all() {
    let note = |fake: &Fake| {
        let i = instrument(&fake.examine(), InstrumentKind::Live).clone();
        (i.state, i.note.unwrap())
    };
    let fake = Fake::complete();
    let (state, text) = note(&fake);
    assert_eq!(state, State::Yes);
    assert!(text.starts_with("altaz record runs here, with kernel functions, system"), "{text}");

    fake.write("tracefs/available_tracers", "nop\n");
    let (state, text) = note(&fake);
    assert_eq!(state, State::Yes, "the rest can be recorded");
    assert!(text.contains("with --partial only: system calls, userland functions"), "{text}");
    assert!(text.contains("but not kernel functions (function-tracer: not in"), "{text}");

    fake.capabilities(0);
    let (state, text) = note(&fake);
    assert_eq!(state, State::No);
    assert!(text.contains("cannot run here") && text.contains("altaz compare"), "{text}");
    assert_eq!(text.matches("without CAP_SYS_ADMIN").count(), 1, "each reason once: {text}");
}

#[test]
fn a_tracer_that_is_switched_off_or_cannot_choose_is_said_so() {
    let fake = Fake::complete();
    fake.write("proc/sys/kernel/ftrace_enabled", "0\n");
    let report = fake.examine();
    assert_refused(live(&report, "function-tracer"), "ftrace_enabled is 0", "sysctl");
    fake.remove("tracefs/available_filter_functions");
    let report = fake.examine();
    assert_refused(live(&report, "function-tracer"), "CONFIG_DYNAMIC_FTRACE", "boot a kernel");
    assert_eq!(live_capability(&report, "host-kernel").missing, ["function-tracer"]);
}

#[test]
fn in_a_pid_namespace_of_its_own_altaz_can_only_trace_functions() {
    let fake = Fake::complete();
    fake.pid_namespace("pid:[4026532000]");
    let report = fake.examine();
    assert_refused(live(&report, "pid-namespace"), "other numbers", "--pid=host");
    assert_eq!(live_capability(&report, "syscall").missing, ["pid-namespace"]);
    assert_eq!(live_capability(&report, "app").missing, ["pid-namespace"]);
}

#[test]
fn hidden_kernel_addresses_cost_sizes_and_sources_only() {
    let fake = Fake::complete();
    fake.write("proc/kallsyms", "0000000000000000 T bpf_uprobe_multi_link_attach\n");
    let report = fake.examine();
    assert_refused(live(&report, "kernel-symbols"), "no sizes and sources", "kptr_restrict");
    assert_eq!(live_capability(&report, "host-kernel").state, State::Yes);
}

#[test]
fn a_kernel_config_in_procfs_is_read_and_named_options_are_missing() {
    let fake = Fake::complete();
    fake.write_gz("proc/config.gz", "CONFIG_UPROBES=y\n# CONFIG_FUNCTION_TRACER is not set\n");
    fake.write("tracefs/available_tracers", "nop\n");
    let report = fake.examine();
    assert_refused(
        live(&report, "function-tracer"),
        "without CONFIG_FUNCTION_TRACER",
        "boot a kernel",
    );
    assert_refused(live(&report, "uprobes"), "CONFIG_UPROBE_EVENTS", "boot a kernel");
    assert_refused(live(&report, "bpf"), "CONFIG_BPF_SYSCALL", "boot a kernel");
}

#[test]
fn a_config_that_is_not_gzip_is_passed_over_for_the_one_in_boot() {
    let fake = Fake::complete();
    fake.write("proc/config.gz", "not gzip");
    assert_eq!(live(&fake.examine(), "uprobes").state, State::Yes);
    fake.remove("boot");
    assert_eq!(live(&fake.examine(), "uprobes").state, State::Unproven);
}

#[test]
fn lockdown_for_confidentiality_forbids_tracing_and_integrity_does_not() {
    let fake = Fake::complete();
    fake.write("sys/kernel/security/lockdown", "none [integrity] confidentiality");
    assert_eq!(live(&fake.examine(), "lockdown").state, State::Yes);
    fake.write("sys/kernel/security/lockdown", "none integrity [confidentiality]");
    let report = fake.examine();
    assert_refused(live(&report, "lockdown"), "confidentiality", "altaz compare");
    let i = instrument(&report, InstrumentKind::Live);
    assert_eq!(i.state, State::No);
    assert!(report.exact_can_run(), "the exact instrument does not care");
}

#[test]
fn lockdown_that_is_not_shown_is_not_called_absent() {
    let fake = Fake::complete();
    fake.remove("sys/kernel/security");
    assert_eq!(live(&fake.examine(), "lockdown").state, State::Yes, "not built in");
    fake.write_gz("proc/config.gz", "CONFIG_SECURITY_LOCKDOWN_LSM=y\nCONFIG_UPROBES=y\n");
    let report = fake.examine();
    let check = live(&report, "lockdown");
    assert_eq!(check.state, State::Unproven);
    assert!(check.remedy.as_deref().unwrap_or_default().contains("securityfs"), "{check:?}");
}

#[test]
fn a_user_without_capabilities_is_told_to_be_root() {
    let mut fake = Fake::complete();
    fake.uid = 1000;
    fake.capabilities(0);
    let report = fake.examine();
    assert_refused(live(&report, "rights"), "user 1000 without CAP_SYS_ADMIN", "root");
    assert_refused(live(&report, "bpf-rights"), "CAP_BPF and CAP_PERFMON", "root");
    assert_eq!(live_capability(&report, "syscall").state, State::No);
}

#[test]
fn events_that_the_kernel_lacks_take_their_boundary_away() {
    let fake = Fake::complete();
    fake.remove("tracefs/events/kvm");
    let report = fake.examine();
    assert_refused(live(&report, "kvm-events"), "kvm/kvm_exit", "modprobe kvm");
    assert_eq!(live_capability(&report, "vm-exit").missing, ["kvm-events"]);
    assert_eq!(live_capability(&report, "syscall").state, State::Yes);
    fake.remove("tracefs/events/raw_syscalls");
    let report = fake.examine();
    assert_eq!(live_capability(&report, "syscall").missing, ["syscall-events"]);
}

#[test]
fn an_old_kernel_has_no_multi_uprobe_links_and_probes_fewer_functions() {
    let fake = Fake::complete();
    fake.write("proc/kallsyms", "ffffffff81000000 T other\n");
    let report = fake.examine();
    assert_refused(live(&report, "uprobe-multi"), "no multi-uprobe", "6.6");
    assert_eq!(live_capability(&report, "app").state, State::Yes);
}

#[test]
fn kvm_is_missing_or_forbidden_with_the_reason() {
    let fake = Fake::complete();
    fake.remove("dev/kvm");
    assert_refused(&fake.examine().kvm, "No such file", "not needed");
}

#[test]
fn a_machine_without_procfs_and_sysfs_is_examined_without_a_panic() {
    let fake = Fake::complete();
    for dir in ["proc", "sys", "tracefs", "dev", "boot", "bin", "parts"] {
        fake.remove(dir);
    }
    let report = fake.examine();
    assert!(!report.exact_can_run());
    assert_eq!(report.cpus, 1);
    assert_eq!(report.memory, None);
}

#[test]
fn the_report_survives_the_way_through_json() {
    let report = Fake::complete().examine();
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<DoctorReport>(&text).unwrap(), report);
}
