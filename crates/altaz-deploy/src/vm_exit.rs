//! Names of what a guest crosses its boundaries by: the reasons for which its CPU leaves it, ports,
//! addresses, registers, hypercalls. Both instruments name them here, so that their entry points are
//! the same strings. Pure.
//!
//! From the architecture manuals: AMD64 volume 2, appendix C (SVM intercept exit codes); Intel SDM
//! volume 3, appendix C (VMX basic exit reasons). Reasons without a name here keep their number.

/// Instruction set that `kvm:kvm_exit` reports for Intel's extension.
const VMX: u64 = 1;
/// The same for AMD's.
const SVM: u64 = 2;

/// Name of an exit reason.
pub fn reason(isa: u64, code: u64) -> String {
    let name = match isa {
        // The upper half of a VMX reason holds flags.
        VMX => vmx(code & 0xffff),
        SVM => svm(code),
        _ => None,
    };
    match (isa, name) {
        (_, Some(name)) => name.to_owned(),
        (SVM, None) => svm_range(code).unwrap_or_else(|| format!("exit {code:#x}")),
        _ => format!("exit {code:#x}"),
    }
}

/// Which way a value goes at a port, an address or a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the guest.
    Read,
    /// From the guest.
    Write,
}

impl Direction {
    /// From a flag that is set for a write.
    pub const fn of_write(write: bool) -> Self {
        if write { Self::Write } else { Self::Read }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// Name of an access to a port of so many bytes.
pub fn port(port: u64, direction: Direction, size: u64) -> String {
    let word = if direction == Direction::Write { "out" } else { "in" };
    format!("{word} {port:#x} {size} bytes")
}

/// Name of an access to device memory at a guest's physical address.
pub fn memory(address: u64, direction: Direction, length: u64) -> String {
    format!("{} {address:#x} {length} bytes", direction.word())
}

/// Name of an access to a model-specific register.
pub fn msr(register: u64, direction: Direction) -> String {
    format!("{} {register:#x}", direction.word())
}

/// Name of a hypercall.
pub fn hypercall(number: u64) -> String {
    format!("hypercall {number}")
}

fn svm_range(code: u64) -> Option<String> {
    Some(match code {
        0x00..=0x0f => format!("read cr{code}"),
        0x10..=0x1f => format!("write cr{}", code - 0x10),
        0x20..=0x2f => format!("read dr{}", code - 0x20),
        0x30..=0x3f => format!("write dr{}", code - 0x30),
        0x40..=0x5f => format!("exception {}", code - 0x40),
        _ => return None,
    })
}

fn svm(code: u64) -> Option<&'static str> {
    Some(match code {
        0x60 => "interrupt",
        0x61 => "nmi",
        0x62 => "smi",
        0x63 => "init",
        0x64 => "interrupt-window",
        0x65 => "cr0-selective-write",
        0x66 => "idtr-read",
        0x67 => "gdtr-read",
        0x68 => "ldtr-read",
        0x69 => "tr-read",
        0x6a => "idtr-write",
        0x6b => "gdtr-write",
        0x6c => "ldtr-write",
        0x6d => "tr-write",
        0x6e => "rdtsc",
        0x6f => "rdpmc",
        0x70 => "pushf",
        0x71 => "popf",
        0x72 => "cpuid",
        0x73 => "rsm",
        0x74 => "iret",
        0x75 => "software-interrupt",
        0x76 => "invd",
        0x77 => "pause",
        0x78 => "hlt",
        0x79 => "invlpg",
        0x7a => "invlpga",
        0x7b => "io",
        0x7c => "msr",
        0x7d => "task-switch",
        0x7f => "shutdown",
        0x80 => "vmrun",
        0x81 => "vmmcall",
        0x82 => "vmload",
        0x83 => "vmsave",
        0x84 => "stgi",
        0x85 => "clgi",
        0x86 => "skinit",
        0x87 => "rdtscp",
        0x88 => "icebp",
        0x89 => "wbinvd",
        0x8a => "monitor",
        0x8b | 0x8c => "mwait",
        0x8d => "xsetbv",
        0x8e => "rdpru",
        0x8f => "efer-write",
        0xa2 => "invpcid",
        0xa3 => "mcommit",
        0x400 => "nested-page-fault",
        0x401 => "avic-incomplete-ipi",
        0x402 => "avic-unaccelerated-access",
        0x403 => "vmgexit",
        _ => return None,
    })
}

fn vmx(code: u64) -> Option<&'static str> {
    Some(match code {
        0 => "exception-or-nmi",
        1 => "interrupt",
        2 => "triple-fault",
        7 => "interrupt-window",
        8 => "nmi-window",
        9 => "task-switch",
        10 => "cpuid",
        12 => "hlt",
        13 => "invd",
        14 => "invlpg",
        15 => "rdpmc",
        16 => "rdtsc",
        18 => "vmcall",
        28 => "cr-access",
        29 => "dr-access",
        30 => "io",
        31 => "rdmsr",
        32 => "wrmsr",
        36 => "mwait",
        39 => "monitor",
        40 => "pause",
        43 => "tpr-below-threshold",
        44 => "apic-access",
        45 => "virtualized-eoi",
        46 => "gdtr-idtr-access",
        47 => "ldtr-tr-access",
        48 => "ept-violation",
        49 => "ept-misconfiguration",
        50 => "invept",
        51 => "rdtscp",
        52 => "preemption-timer",
        53 => "invvpid",
        54 => "wbinvd",
        55 => "xsetbv",
        56 => "apic-write",
        58 => "invpcid",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_number_means_different_things_on_the_two_extensions() {
        assert_eq!(reason(SVM, 0x78), "hlt");
        assert_eq!(reason(VMX, 12), "hlt");
        assert_eq!(reason(SVM, 12), "read cr12");
    }

    #[test]
    fn a_name_says_which_way_and_how_wide() {
        assert_eq!(port(0x3f8, Direction::of_write(true), 1), "out 0x3f8 1 bytes");
        assert_eq!(port(0x3f8, Direction::of_write(false), 4), "in 0x3f8 4 bytes");
        assert_eq!(memory(0xfebf_ee60, Direction::Read, 4), "read 0xfebfee60 4 bytes");
        assert_eq!(msr(0x1b, Direction::Write), "write 0x1b");
        assert_eq!(hypercall(5), "hypercall 5");
    }

    #[test]
    fn unknown_reasons_keep_their_number() {
        assert_eq!(reason(SVM, 0x9999), "exit 0x9999");
        assert_eq!(reason(7, 1), "exit 0x1");
    }
}
