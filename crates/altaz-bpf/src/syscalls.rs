//! Exact counts of system calls, by thread group and number, on the raw tracepoint `sys_enter`.
//!
//! The tracepoint is passed once for each call that the kernel carries out. Calls that the task's
//! seccomp filter refuses or that a tracer takes over never get there: they are not exercised, and
//! are not counted (`strace` sees them, as it stands before the filter). On the other hand `strace
//! -c` counts a call when it returns, and leaves out `exit_group` and what a death interrupts.
//!
//! Names of calls are not known here.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::asm::Reg::{R0, R1, R2, R3, R6, R7, R8, R9, R10};
use crate::asm::{Alu, Asm, Cond, Helper, Size};
use crate::btf;
use crate::counting::Counts;
use crate::error::BpfError;
use crate::filter::ActiveFilter;
use crate::link::Link;
use crate::map::MmapArray;
use crate::program::{Kind, Program};

/// Pairs of thread group and number that are counted apart, unless said otherwise.
pub const ENTRIES: u32 = 16_384;
/// Numbers from here on are no system calls of any kernel; they share one entry, so that a program
/// that tries them all cannot fill the map.
const NUMBERS: i32 = 4096;
/// The bit that x32 programs set in a call's number (`__X32_SYSCALL_BIT`).
const X32_BIT: i32 = 0x4000_0000;
/// `TS_COMPAT` in `thread_info.status`: the call came in by the 32-bit entry.
const TS_COMPAT: i32 = 2;

/// By which convention a call was made; its number means nothing without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Abi {
    /// The machine's own, 64 bits.
    Native,
    /// 32-bit entry (`int 0x80`, `sysenter`), whose numbers are those of i386.
    Ia32,
    /// x32: 64-bit entry with 32-bit pointers; the number is given without its bit.
    X32,
}

/// Which call was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Call {
    /// Convention.
    pub abi: Abi,
    /// Number; `None` for a number that no kernel knows.
    pub nr: Option<u32>,
}

/// Calls of one kind by one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SyscallCount {
    /// Thread group.
    pub tgid: u32,
    /// Which call.
    pub call: Call,
    /// How often.
    pub count: u64,
}

/// Known calls against counted ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calibration {
    /// Calls made.
    pub made: u64,
    /// Calls counted.
    pub counted: u64,
}

impl Calibration {
    /// Whether the counter may be believed.
    pub fn reconciles(&self) -> bool {
        self.made == self.counted && self.made > 0
    }
}

/// How calls by the 32-bit entry are told from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compat {
    /// By the word at this offset of the task.
    Status(u32),
    /// Not at all.
    Unknown,
}

/// Counts system calls until it is dropped.
#[derive(Debug)]
pub struct SyscallCounter {
    counts: Counts<3>,
    /// A word for each number below [`NUMBERS`]: not zero, and its calls are let pass at once.
    settled: MmapArray,
    program: Program,
    compat: Compat,
    _link: Link,
}

impl SyscallCounter {
    /// Starts to count the calls of tasks that pass the filter.
    ///
    /// # Errors
    /// When the kernel lacks the tracepoint or refuses.
    pub fn start(filter: &ActiveFilter) -> Result<Self, BpfError> {
        Self::with_entries(filter, ENTRIES)
    }

    /// The same with room for `entries` pairs of thread group and number.
    ///
    /// # Errors
    /// As [`SyscallCounter::start`].
    pub fn with_entries(filter: &ActiveFilter, entries: u32) -> Result<Self, BpfError> {
        let counts = Counts::new("altaz_calls", entries)?;
        let settled = MmapArray::new("altaz_settled", 1, NUMBERS.unsigned_abs())?;
        let load = |compat| {
            let asm = program(filter, &counts, &settled, compat);
            Program::load(Kind::RawTracepoint, "altaz_sys_enter", asm)
        };
        let mut compat = find_compat(Path::new("/sys"));
        let program = match load(compat) {
            // A locked down kernel withholds what reads its memory.
            Err(BpfError::Verifier { .. }) if compat != Compat::Unknown => {
                compat = Compat::Unknown;
                load(compat)?
            }
            loaded => loaded?,
        };
        let link = Link::raw_tracepoint(&program, "sys_enter")?;
        Ok(Self { counts, settled, program, compat, _link: link })
    }

    /// Whether calls by the 32-bit entry are told apart; if not, they are counted as native ones
    /// under numbers that mean others. `false` without BTF and under lockdown's confidentiality.
    pub fn tells_ia32(&self) -> bool {
        self.compat != Compat::Unknown
    }

    /// All counts so far, in order.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn counts(&self) -> Result<Vec<SyscallCount>, BpfError> {
        let mut all: Vec<SyscallCount> = self
            .counts
            .map
            .all()?
            .into_iter()
            .map(|([tgid, nr, abi], count)| SyscallCount { tgid, call: call(nr, abi), count })
            .collect();
        all.sort_unstable();
        Ok(all)
    }

    /// Pairs of thread group and number that appeared so far: a word in memory, so that watching
    /// for news costs nothing while there is none.
    pub fn news(&self) -> u64 {
        self.counts.news()
    }

    /// Calls that were not counted: the map was full, or the kernel skipped the program.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn lost(&self) -> Result<u64, BpfError> {
        Ok(self.counts.full() + self.program.misses()?.unwrap_or(0))
    }

    fn settled(&self, nr: u32) -> Option<&AtomicU64> {
        self.settled.entry(0)?.get(nr as usize)
    }

    /// From now on lets calls pass uncounted whose number any process was counted with: what is
    /// left to see is news, and calls that are none cost next to nothing. Returns how many numbers
    /// have settled. Calls by the 32-bit entry under a settled number pass as well.
    ///
    /// # Errors
    /// When the kernel refuses to tell what was counted.
    pub fn settle(&self) -> Result<u32, BpfError> {
        for c in self.counts()? {
            if let Call { abi: Abi::Native, nr: Some(nr) } = c.call
                && let Some(word) = self.settled(nr)
            {
                word.store(1, Ordering::Relaxed);
            }
        }
        let words = self.settled.entry(0).unwrap_or_default();
        Ok(words.iter().filter(|w| w.load(Ordering::Relaxed) != 0).count() as u32)
    }

    /// Counts every call again.
    pub fn unsettle(&self) {
        for word in self.settled.entry(0).unwrap_or_default() {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// Makes `made` calls of `getppid` and looks how many were counted. The calls do not stay in
    /// the counts. Nobody else's calls are disturbed.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn calibrate(&self, made: u64) -> Result<Calibration, BpfError> {
        let own = std::process::id();
        let getppid = [own, libc::SYS_getppid as u32, 0];
        self.counts.map.remove(getppid)?;
        let settled = self.settled(libc::SYS_getppid as u32).map(|w| w.swap(0, Ordering::SeqCst));
        self.counts
            .calibrate_thread(rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned());
        for _ in 0..made {
            // Not one of the C library's that could answer from memory.
            let _ = rustix::process::getppid();
        }
        self.counts.calibrate_thread(0);
        if let (Some(word), Some(was)) = (self.settled(libc::SYS_getppid as u32), settled) {
            word.store(was, Ordering::SeqCst);
        }
        let counted = self.counts.map.get(getppid)?.unwrap_or(0);
        for ([tgid, nr, abi], _) in self.counts.map.all()? {
            if tgid == own {
                self.counts.map.remove([tgid, nr, abi])?;
            }
        }
        Ok(Calibration { made, counted })
    }
}

fn call(nr: u32, abi: u32) -> Call {
    let abi = match abi {
        0 => Abi::Native,
        1 => Abi::Ia32,
        _ => Abi::X32,
    };
    Call { abi, nr: (nr != u32::MAX).then_some(nr) }
}

fn find_compat(sys: &Path) -> Compat {
    if !cfg!(target_arch = "x86_64") {
        return Compat::Unknown;
    }
    fs::read(sys.join("kernel/btf/vmlinux"))
        .ok()
        .and_then(|btf| {
            let info = btf::field_offset(&btf, "task_struct", "thread_info")?;
            info.checked_add(btf::field_offset(&btf, "thread_info", "status")?)
        })
        .filter(|offset| i32::try_from(*offset).is_ok())
        .map_or(Compat::Unknown, Compat::Status)
}

/// The arguments of `sys_enter` are `(struct pt_regs *regs, long id)`; the calibration would not
/// reconcile if they were others.
fn program(filter: &ActiveFilter, counts: &Counts<3>, settled: &MmapArray, compat: Compat) -> Asm {
    const KEY: i16 = Counts::<3>::KEY;
    const SCRATCH: i16 = Counts::<3>::FREE;
    let mut asm = Asm::new();
    let (out, write) = (asm.label(), asm.label());
    let a = &mut asm;
    let count = a.label();
    // The kernel looks at 32 bits of it.
    a.mov_reg(R6, R1).load(Size::B4, R8, R6, 8);
    // Before anything else, as it is the way of nearly all calls in the end.
    a.jump_if(Cond::GreaterEqual, R8, NUMBERS, count);
    a.mov_reg(R1, R8).alu(Alu::LeftShift, R1, 3).map_value(R2, settled.raw(), 0);
    a.alu_reg(Alu::Add, R2, R1).load(Size::B8, R1, R2, 0).jump_if(Cond::NotEqual, R1, 0, out);
    a.bind(count);
    filter.emit(a, Some(counts.control()), out);
    a.mov(R9, 0);
    if let Compat::Status(offset) = compat {
        let native = a.label();
        a.call(Helper::CurrentTask).mov_reg(R3, R0).alu(Alu::Add, R3, offset.cast_signed());
        a.store_imm(Size::B8, R10, SCRATCH, 0);
        a.mov_reg(R1, R10).alu(Alu::Add, R1, SCRATCH.into());
        a.mov(R2, 4).call(Helper::ProbeReadKernel);
        a.load(Size::B4, R1, R10, SCRATCH).alu(Alu::And, R1, TS_COMPAT);
        a.jump_if(Cond::Equal, R1, 0, native).mov(R9, 1).bind(native);
    }
    if cfg!(target_arch = "x86_64") {
        let not_x32 = a.label();
        a.jump_if(Cond::NotEqual, R9, 0, not_x32).mov_reg(R1, R8).alu(Alu::And, R1, X32_BIT);
        a.jump_if(Cond::Equal, R1, 0, not_x32).mov(R9, 2).alu(Alu::And, R8, !X32_BIT);
        a.bind(not_x32);
    }
    a.jump_if(Cond::Less, R8, NUMBERS, write).mov(R8, -1).bind(write);
    a.mov_reg(R1, R7).alu(Alu::RightShift, R1, 32);
    a.store_imm(Size::B8, R10, KEY + 8, 0);
    a.store(Size::B4, R10, KEY, R1).store(Size::B4, R10, KEY + 4, R8);
    a.store(Size::B4, R10, KEY + 8, R9);
    counts.emit(a, out);
    a.bind(out).mov(R0, 0).exit();
    asm
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_becomes_a_call() {
        assert_eq!(call(39, 0), Call { abi: Abi::Native, nr: Some(39) });
        assert_eq!(call(20, 1), Call { abi: Abi::Ia32, nr: Some(20) });
        assert_eq!(call(u32::MAX, 2), Call { abi: Abi::X32, nr: None });
    }

    #[test]
    fn a_calibration_of_nothing_proves_nothing() {
        assert!(!Calibration { made: 0, counted: 0 }.reconciles());
        assert!(!Calibration { made: 3, counted: 2 }.reconciles());
        assert!(Calibration { made: 3, counted: 3 }.reconciles());
    }

    #[test]
    fn without_a_description_of_types_the_entry_is_not_told() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(find_compat(dir.path()), Compat::Unknown);
        fs::create_dir_all(dir.path().join("kernel/btf")).unwrap();
        fs::write(dir.path().join("kernel/btf/vmlinux"), btf::tests::sample()).unwrap();
        assert_eq!(find_compat(dir.path()), Compat::Unknown);
    }
}
