//! What the host's kernel handles of a KVM guest.
//!
//! Exit reasons are those that the kernel's own tracepoint names; registers are those that KVM lists
//! (`KVM_GET_MSR_INDEX_LIST`, `KVM_GET_MSR_FEATURE_INDEX_LIST`) and the x2APIC's; hypercalls are those
//! of `kvm_emulate_hypercall` (`arch/x86/kvm/x86.c`, `Documentation/virt/kvm/x86/hypercalls.rst`).

use std::fs::{self, File};
use std::path::Path;

use altaz_profile::model::{Layer, PermittedEntry};

use super::Permitted;
use crate::vm_exit::{self, Direction};

const EXITS: (Layer, Layer) = (Layer::GuestKernel, Layer::HostKernel);

/// Hypercalls that KVM answers on x86, and whether that depends on what the guest was offered.
/// Others get `-KVM_ENOSYS`.
const HYPERCALLS: [(u64, bool); 6] = [
    (1, false), // KVM_HC_VAPIC_POLL_IRQ
    (5, true),  // KVM_HC_KICK_CPU
    (9, false), // KVM_HC_CLOCK_PAIRING
    (10, true), // KVM_HC_SEND_IPI
    (11, true), // KVM_HC_SCHED_YIELD
    (12, true), // KVM_HC_MAP_GPA_RANGE
];

/// Registers of the local APIC in x2APIC mode that exist (Intel SDM volume 3, table 12-6); KVM serves
/// the range `0x800` to `0x8ff` (`kvm_x2apic_msr_read`, `arch/x86/kvm/lapic.c`) and refuses the rest.
const X2APIC: [(u64, bool, bool); 27] = [
    (0x802, true, false),
    (0x803, true, false),
    (0x808, true, true),
    (0x80a, true, false),
    (0x80b, false, true),
    (0x80d, true, false),
    (0x80f, true, true),
    (0x810, true, false),
    (0x811, true, false),
    (0x812, true, false),
    (0x813, true, false),
    (0x814, true, false),
    (0x815, true, false),
    (0x816, true, false),
    (0x817, true, false),
    (0x828, true, true),
    (0x82f, true, true),
    (0x830, true, true),
    (0x832, true, true),
    (0x833, true, true),
    (0x834, true, true),
    (0x835, true, true),
    (0x836, true, true),
    (0x837, true, true),
    (0x838, true, true),
    (0x839, true, false),
    (0x83e, true, true),
];

/// Everything that can be found out on this machine. Boundaries whose source is not there are left
/// out.
pub fn permitted(tracefs: &Path, kvm: &Path) -> Vec<Permitted> {
    let format = tracefs.join("events/kvm/kvm_exit/format");
    let exits = fs::read_to_string(format).ok().map(|text| exit_reasons(&text));
    let exits = exits.filter(|names| !names.is_empty()).map(|names| {
        Permitted::new(
            "vm-exit",
            EXITS,
            names,
            "exit reasons that the kernel's tracepoint kvm_exit names for this CPU's extension",
        )
    });
    let registers = File::open(kvm).ok().and_then(|device| ioctl::registers(&device).ok());
    exits.into_iter().chain(registers.map(|list| msrs(&list))).chain([hypercalls()]).collect()
}

/// Accesses to registers. A register that is handled may still refuse a value.
fn msrs(list: &[u32]) -> Permitted {
    let both = [Direction::Read, Direction::Write];
    let listed = list.iter().flat_map(|r| both.map(|way| vm_exit::msr(u64::from(*r), way)));
    let x2apic = X2APIC.iter().flat_map(|&(register, read, write)| {
        let named = move |way| vm_exit::msr(register, way);
        [(read, Direction::Read), (write, Direction::Write)]
            .into_iter()
            .filter(|(is, _)| *is)
            .map(move |(_, way)| named(way))
    });
    let mut all = Permitted::new(
        "msr",
        EXITS,
        listed.chain(x2apic),
        "registers that KVM lists (KVM_GET_MSR_INDEX_LIST and its feature list) and the x2APIC's, \
         each read and written; the value written may be refused",
    );
    for e in all.entries.iter_mut().filter(|e| e.name.starts_with("write")) {
        e.conditional = true;
    }
    all
}

fn hypercalls() -> Permitted {
    let entries = HYPERCALLS.iter().map(|&(number, conditional)| PermittedEntry {
        name: vm_exit::hypercall(number),
        conditional,
    });
    Permitted {
        entries: entries.collect(),
        ..Permitted::new(
            "hypercall",
            EXITS,
            [],
            "hypercalls that kvm_emulate_hypercall answers, some only where the guest was offered them",
        )
    }
}

/// Exit reasons in the format of the event, named as [`vm_exit::reason`] names them. The format has a
/// table for each extension (`(REC->isa == 1) ? VMX's : SVM's`); the one that this machine has is the
/// one that is asked for by the CPU's flags.
pub fn exit_reasons(format: &str) -> Vec<String> {
    let here = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let svm = here.lines().any(|l| l.starts_with("flags") && l.split(' ').any(|f| f == "svm"));
    reasons_of(format, if svm { 2 } else { 1 })
}

fn reasons_of(format: &str, isa: u64) -> Vec<String> {
    // Tables follow each other in the text, VMX's first, because its number is 1.
    let tables: Vec<&str> = format.split("__print_symbolic(REC->exit_reason").skip(1).collect();
    let Some(table) = tables.get(isa.saturating_sub(1) as usize) else { return Vec::new() };
    let pairs = table.split('{').skip(1).map_while(|part| {
        let (number, rest) = part.split_once(',')?;
        let (_, after) = rest.split_once('}')?;
        Some((number.trim().to_owned(), after.trim_start().starts_with(')')))
    });
    let mut names = Vec::new();
    for (number, last) in pairs {
        let code = match number.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None => number.parse().ok(),
        };
        names.extend(code.map(|c| vm_exit::reason(isa, c)));
        if last {
            break;
        }
    }
    names
}

/// The two requests of `/dev/kvm` that list registers.
#[allow(unsafe_code, reason = "a list whose length the kernel says")]
mod ioctl {
    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd;

    use nix::libc;

    /// `_IOWR(0xAE, 0x02, struct kvm_msr_list)`.
    const INDEX_LIST: libc::c_ulong = 0xc004_ae02;
    /// `_IOWR(0xAE, 0x0a, struct kvm_msr_list)`.
    const FEATURE_LIST: libc::c_ulong = 0xc004_ae0a;
    /// More than any kernel lists.
    const MOST: usize = 4096;

    /// Registers of both lists, ascending, none twice.
    pub(super) fn registers(kvm: &File) -> io::Result<Vec<u32>> {
        let mut all = list(kvm, INDEX_LIST)?;
        // Kernels before 4.18 have no second list.
        all.extend(list(kvm, FEATURE_LIST).unwrap_or_default());
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    fn list(kvm: &File, request: libc::c_ulong) -> io::Result<Vec<u32>> {
        // `struct kvm_msr_list`: the number of entries, then the entries.
        let mut buffer = vec![0_u32; MOST + 1];
        buffer[0] = MOST as u32;
        // SAFETY: the buffer holds as many entries as its first word says, and the kernel writes no
        // more than that; the descriptor is open for the call.
        let done = unsafe { libc::ioctl(kvm.as_raw_fd(), request as _, buffer.as_mut_ptr()) };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        let count = buffer.first().map_or(0, |n| (*n as usize).min(MOST));
        Ok(buffer.into_iter().skip(1).take(count).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: &str = r#"name: kvm_exit
ID: 1
print fmt: "vcpu %u reason %s%s%s", REC->vcpu_id, (REC->isa == 1) ? __print_symbolic(REC->exit_reason & 0xffff, { 0, "EXCEPTION_NMI" }, { 12, "HLT" }) : __print_symbolic(REC->exit_reason, { 0x000, "read_cr0" }, { 0x078, "hlt" }, { 0x400, "npf" }), (REC->isa == 1 && REC->exit_reason & ~0xffff) ? " " : "", (REC->isa == 1) ? __print_flags(REC->exit_reason & ~0xffff, " ", { 0x80000000, "FAILED_VMENTRY" }) : "", REC->guest_rip
"#;

    #[test]
    fn exit_reasons_are_those_of_the_machine_s_own_extension() {
        assert_eq!(reasons_of(FORMAT, 1), ["exception-or-nmi", "hlt"]);
        assert_eq!(reasons_of(FORMAT, 2), ["read cr0", "hlt", "nested-page-fault"]);
        assert_eq!(reasons_of("print fmt: \"%d\"", 2), Vec::<String>::new());
    }

    #[test]
    fn a_register_is_two_entry_points_and_writing_depends_on_the_value() {
        let p = msrs(&[0x1b]);
        let of = |name: &str| p.entries.iter().find(|e| e.name == name).map(|e| e.conditional);
        assert_eq!((of("read 0x1b"), of("write 0x1b")), (Some(false), Some(true)));
        assert_eq!((of("read 0x80b"), of("write 0x80b")), (None, Some(true)));
    }

    #[test]
    fn without_kvm_only_what_the_source_says_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<_> = permitted(dir.path(), &dir.path().join("kvm"))
            .into_iter()
            .map(|p| (p.boundary, p.entries.len()))
            .collect();
        assert_eq!(names, [("hypercall".to_owned(), 6)]);
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_formats_never_panic(text: String, isa in 0_u64..4) {
            reasons_of(&text, isa);
            reasons_of(&format!("__print_symbolic(REC->exit_reason{text}"), isa);
        }
    }
}
