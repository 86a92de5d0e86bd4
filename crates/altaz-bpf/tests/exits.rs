//! Exits of a guest of twenty instructions, counted against what it is known to do.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::{Path, PathBuf};

use altaz_bpf::{ActiveFilter, BpfError, Exit, ExitCounter, Mmio, TaskFilter};
use common::{Child, alone, tracefs};
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VcpuExit};

/// Where the guest's only memory begins, and how long it is.
const RAM: u64 = 0x1000;
const SIZE: usize = 0x1000;
/// Rounds of everything.
const ROUNDS: u16 = 50;

/// Real-mode code: `ROUNDS` times two bytes to a port, one word from another, a write to and a read
/// from memory that is not there, a read of an MSR, and the hypercall without effect of number 9.
fn guest(hypercall: &[u8]) -> Vec<u8> {
    let [lo, hi] = ROUNDS.to_le_bytes();
    let mut code = vec![0xbe, lo, hi]; // mov si, ROUNDS
    let round = [
        &[0xba, 0xf8, 0x03, 0xb0, b'x', 0xee, 0xee][..], // mov dx,0x3f8; mov al,'x'; out dx,al ×2
        &[0xba, 0xf4, 0x01, 0xed],                       // mov dx,0x1f4; in ax,dx
        &[0xa2, 0x00, 0x80],                             // mov [0x8000], al
        &[0xa1, 0x10, 0x80],                             // mov ax, [0x8010]
        &[0x66, 0xb9, 0x1b, 0, 0, 0, 0x0f, 0x32],        // mov ecx, 0x1b; rdmsr
        &[0x66, 0xb8, 9, 0, 0, 0],                       // mov eax, 9
        hypercall,
        &[0x4e], // dec si
    ]
    .concat();
    let back = -(round.len() as i8 + 2);
    code.extend(round);
    code.extend([0x75, back.cast_unsigned(), 0xf4]); // jnz; hlt
    code
}

/// Whether kvm runs without the CPU's extension (the module `kvm_pvm`): then it interprets code in
/// real mode, which leaves no guest, and knows no hypercall there.
fn software_only() -> bool {
    Path::new("/sys/module/kvm_pvm").exists()
}

fn run() {
    let kvm = Kvm::new().expect("needs /dev/kvm");
    let vm = kvm.create_vm().unwrap();
    let layout = std::alloc::Layout::from_size_align(SIZE, SIZE).unwrap();
    let amd = std::fs::read_to_string("/proc/cpuinfo").unwrap().contains("AuthenticAMD");
    let code = guest(match () {
        () if software_only() => &[],
        () if amd => &[0x0f, 0x01, 0xd9],
        () => &[0x0f, 0x01, 0xc1],
    });
    // SAFETY: the memory has a size, is zeroed, holds the code, and is never freed.
    let memory = unsafe {
        let memory = std::alloc::alloc_zeroed(layout);
        std::ptr::copy_nonoverlapping(code.as_ptr(), memory, code.len());
        memory
    };
    let region = kvm_userspace_memory_region {
        slot: 0,
        guest_phys_addr: RAM,
        memory_size: SIZE as u64,
        userspace_addr: memory as u64,
        flags: 0,
    };
    // SAFETY: the region is memory of this process that stays.
    unsafe { vm.set_user_memory_region(region).unwrap() };
    let mut cpu = vm.create_vcpu(0).unwrap();
    let mut segments = cpu.get_sregs().unwrap();
    (segments.cs.base, segments.cs.selector) = (0, 0);
    cpu.set_sregs(&segments).unwrap();
    let mut registers = cpu.get_regs().unwrap();
    (registers.rip, registers.rflags) = (RAM, 2);
    cpu.set_regs(&registers).unwrap();
    loop {
        match cpu.run().unwrap() {
            VcpuExit::Hlt => return,
            VcpuExit::IoIn(..) | VcpuExit::IoOut(..) => {}
            VcpuExit::MmioRead(..) | VcpuExit::MmioWrite(..) => {}
            other => {
                let what = format!("{other:?}");
                panic!("{what}: {:?}", cpu.get_regs());
            }
        }
    }
}

#[test]
#[ignore = "needs root"]
fn every_exit_of_a_small_guest_is_counted_and_a_strangers_is_not() {
    let _alone = alone();
    let child = Child::held(run);
    let stranger = Child::held(run);
    let pid = child.pid();
    let filter = TaskFilter::Tgids(vec![pid]);
    let filter = ActiveFilter::start(&tracefs(), Path::new("/proc"), &filter).unwrap();
    let counter = ExitCounter::start(&tracefs(), &filter).unwrap();
    stranger.release().wait();
    child.release().wait();
    let counts = counter.counts().unwrap();
    assert!(counts.iter().all(|c| c.tgid == pid), "{counts:?}");
    assert_eq!(counter.news(), counts.len() as u64);
    assert_eq!(counter.lost().unwrap(), 0);
    let of = |exit| counts.iter().find(|c| c.exit == exit).map_or(0, |c| c.count);
    let n = u64::from(ROUNDS);
    assert_eq!(of(Exit::Port { port: 0x3f8, write: true, size: 1 }), 2 * n);
    assert_eq!(of(Exit::Port { port: 0x1f4, write: false, size: 2 }), n);
    assert_eq!(of(Exit::Memory { gpa: 0x8000, kind: Mmio::Write, len: 1 }), n);
    assert_eq!(of(Exit::Memory { gpa: 0x8010, kind: Mmio::ReadAsked, len: 2 }), n);
    assert_eq!(of(Exit::Memory { gpa: 0x8010, kind: Mmio::Read, len: 2 }), n);
    assert_eq!(of(Exit::Msr { msr: 0x1b, write: false }), n);
    if software_only() {
        return;
    }
    assert_eq!(of(Exit::Hypercall { nr: 9 }), n);
    let reasons = counts.iter().filter(|c| matches!(c.exit, Exit::Reason { .. }));
    let exits: u64 = reasons.map(|c| c.count).sum();
    // 3 port accesses, 2 of memory, an MSR and a hypercall a round, and the halt; besides these,
    // faults while pages are mapped and interrupts of the host.
    assert!((7 * n + 1..7 * n + 200).contains(&exits), "{exits}: {counts:?}");
}

#[test]
#[ignore = "needs root"]
fn without_kvms_tracepoints_the_module_is_named() {
    let _alone = alone();
    let filter = TaskFilter::Tgids(vec![1]);
    let filter = ActiveFilter::start(&tracefs(), Path::new("/proc"), &filter).unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("events")).unwrap();
    let e = ExitCounter::start(dir.path(), &filter).unwrap_err();
    assert!(matches!(e, BpfError::NoEvent { .. }) && e.to_string().contains("modprobe"), "{e}");
}

/// altaz itself, built beside this test or named by `ALTAZ`.
fn altaz() -> PathBuf {
    let deps = std::env::current_exe().unwrap();
    let profile = deps.parent().unwrap().parent().unwrap();
    let beside = [profile.join("altaz"), profile.join("../release/altaz")];
    let named = std::env::var_os("ALTAZ").map(PathBuf::from);
    let mut places = named.into_iter().chain(beside);
    places.find(|p| p.is_file()).expect("build altaz first, or name it by ALTAZ")
}

/// This test, inside a lab whose kvm has the CPU's extension: hypercalls and reasons as well.
#[test]
#[ignore = "needs the lab"]
#[allow(clippy::disallowed_methods, reason = "boots the lab")]
fn exits_of_a_nested_guest_in_the_lab_are_counted() {
    let put = format!("{}:/root/exits", std::env::current_exe().unwrap().display());
    let output = std::process::Command::new(altaz())
        .args(["lab", "run", "--put", &put, "--", "sh", "-c"])
        .arg("modprobe kvm_amd && exec /root/exits --ignored --exact every_exit_of_a_small_guest_is_counted_and_a_strangers_is_not")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}\n{shown}");
}
