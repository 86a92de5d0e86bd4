//! Runs the self-test's program in child processes. The only `unsafe` of this crate.
//!
//! The program is in a file without a name (memfd) that nobody else maps, so probes on it touch no other process. The
//! mapping is made once in this process, which never executes it: children inherit it at the same address, therefore
//! everything they compute with and without probes must be equal to the bit. A child uses nothing but its own stack,
//! the mapping, and system calls, because other threads of altaz may have held locks when it was forked.

use super::code::{LANDING, PAGE, Program, cell};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Inputs that each instruction is tried with: every combination of carry, parity, zero, sign and overflow.
pub(super) const INPUTS: usize = 32;

/// What one run left: registers, flags, SSE status, way taken, memory (hash), vectors (hash).
pub(super) const WORDS: usize = 21;
const FLAGS_WORD: usize = 16;
const MXCSR_WORD: usize = 17;
const PATH_WORD: usize = 18;
const MEMORY_WORD: usize = 19;
const VECTORS_WORD: usize = 20;

/// A slot's record: one word of state, then what each run left.
const RECORD: usize = 1 + INPUTS * WORDS;
const DONE: u64 = 1;
const STEPPED: u64 = 2;

/// Seconds of processor time after which a child that does not end is killed.
const PATIENCE: u32 = 10;
/// Seconds after which it is in any case, by its own alarm: a busy machine gives it little time in many of them.
const LONGEST: u32 = 120;

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// By itself.
    Finished,
    /// Killed by this signal.
    Killed(i32),
}

/// The mapped program and the memory that children write their findings to.
#[derive(Debug)]
pub(super) struct Stage {
    file: OwnedFd,
    slots: Vec<usize>,
    code: Mapping,
    /// Offset of the cell in the mapping.
    cell: usize,
    findings: Mapping,
}

#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by this crate and nobody uses it after its owner.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

fn map(length: usize, at: Option<NonNull<u8>>, fd: Option<BorrowedFd<'_>>) -> io::Result<Mapping> {
    let (protection, mut flags) = match fd {
        Some(_) => (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE),
        None => (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS),
    };
    if at.is_some() {
        flags |= libc::MAP_FIXED;
    }
    let hint = at.map_or(std::ptr::null_mut(), |p| p.as_ptr().cast());
    let raw = fd.map_or(-1, |fd| fd.as_raw_fd());
    // SAFETY: either the kernel chooses the place, or the place is inside a mapping that the caller just made.
    let got = unsafe { libc::mmap(hint, length, protection, flags, raw, 0) };
    if got == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let start = NonNull::new(got.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
    Ok(Mapping { start, length })
}

/// An executable file without a name.
fn memory_file() -> io::Result<OwnedFd> {
    const MFD_EXEC: u32 = 0x10; // since Linux 6.3; before, every memfd was executable
    for flags in [libc::MFD_CLOEXEC | MFD_EXEC, libc::MFD_CLOEXEC] {
        // SAFETY: the name is a string that ends in a zero byte; a new descriptor is ours.
        let fd = unsafe { libc::memfd_create(c"altaz-selftest".as_ptr(), flags) };
        if fd >= 0 {
            // SAFETY: just returned, owned by nobody else.
            return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINVAL) {
            return Err(error);
        }
    }
    Err(io::Error::from_raw_os_error(libc::EINVAL))
}

impl Stage {
    pub(super) fn new(program: &Program) -> io::Result<Self> {
        let file = memory_file()?;
        let mut written = 0;
        while written < program.bytes.len() {
            match rustix::io::write(&file, &program.bytes[written..])? {
                0 => return Err(io::Error::from(io::ErrorKind::WriteZero)),
                n => written += n,
            }
        }
        let cell = program.bytes.len();
        // One range for both, then the code over its front: the cell stays right behind it.
        let code = map(cell + PAGE, None, None)?;
        std::mem::forget(map(cell, Some(code.start), Some(file.as_fd()))?); // part of `code` now
        let slots: Vec<usize> = program.slots.iter().map(|slot| slot.offset).collect();
        let findings = map(slots.len() * RECORD * size_of::<u64>(), None, None)?;
        Ok(Self { file, slots, code, cell, findings })
    }

    /// The file; probes are attached to it by `/proc/self/fd/N`.
    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    fn findings(&self) -> &[AtomicU64] {
        let start = self.findings.start.as_ptr().cast_const().cast();
        // SAFETY: page-aligned, as long as the mapping, lives as long as self; shared with children, hence atomics.
        unsafe { std::slice::from_raw_parts(start, self.slots.len() * RECORD) }
    }

    fn record(&self, slot: usize) -> &[AtomicU64] {
        self.findings().get(slot * RECORD..(slot + 1) * RECORD).unwrap_or(&[])
    }

    /// Forgets what was found before.
    pub(super) fn clear(&self) {
        self.findings().iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    /// What the runs of a slot left, when all of them came to their end, and whether the kernel has single-stepped in
    /// the child that made them.
    pub(super) fn found(&self, slot: usize) -> Option<(Vec<u64>, bool)> {
        let (state, words) = self.record(slot).split_first()?;
        let state = state.load(Ordering::Acquire);
        (state & DONE != 0).then(|| {
            (words.iter().map(|w| w.load(Ordering::Relaxed)).collect(), state & STEPPED != 0)
        })
    }

    /// Tries these slots in one child.
    pub(super) fn run(&self, slots: &[usize]) -> io::Result<Ending> {
        self.in_child(|| self.try_slots(slots))
    }

    /// Executes one slot so often in one child, with one input and without looking at what comes out. The time that
    /// it took, as the child itself reads it: starting and ending the child, which takes longer and as it likes, is
    /// not in it. `None` when the child did not come to its end.
    pub(super) fn repeat(&self, slot: usize, times: u32) -> io::Result<Option<Duration>> {
        let (Some(&offset), Some(took)) = (self.slots.get(slot), self.record(slot).first()) else {
            return Ok(None);
        };
        let ending = self.in_child(|| {
            self.prepare(slot, offset, 0);
            // The pages come into the child's memory by the first one.
            self.enter();
            // Not processor time: where a hypervisor tells how much it stole, the kernel takes that off, and a run of
            // two milliseconds is seen to take none.
            let begin = Instant::now();
            (0..times).for_each(|_| self.enter());
            took.store(begin.elapsed().as_nanos() as u64, Ordering::Relaxed);
        })?;
        Ok((ending == Ending::Finished).then(|| Duration::from_nanos(took.load(Ordering::Relaxed))))
    }

    /// `work` may call only what may be called after fork in a process with threads.
    fn in_child(&self, work: impl FnOnce()) -> io::Result<Ending> {
        // SAFETY: the child calls only what may be called after fork in a process with threads, and never returns.
        let pid = unsafe { libc::fork() };
        match pid {
            -1 => return Err(io::Error::last_os_error()),
            0 => {
                confine();
                work();
                // SAFETY: ends the process without running anything of the parent's.
                unsafe { libc::_exit(0) }
            }
            _ => {}
        }
        let mut status = 0;
        loop {
            // SAFETY: status is a place for an int; the child is ours and not waited for elsewhere.
            let got = unsafe { libc::waitpid(pid, &raw mut status, 0) };
            if got == pid {
                break;
            }
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EINTR) {
                return Err(error);
            }
        }
        if libc::WIFSIGNALED(status) {
            return Ok(Ending::Killed(libc::WTERMSIG(status)));
        }
        Ok(Ending::Finished)
    }

    /// Enters the program, which executes the slot that was prepared.
    fn enter(&self) {
        // SAFETY: the file starts with the entry stage, which keeps the C calling convention.
        let enter: extern "sysv64" fn() = unsafe { std::mem::transmute(self.code.start.as_ptr()) };
        enter();
    }

    fn try_slots(&self, slots: &[usize]) {
        for &slot in slots {
            let (Some(&offset), Some((state, words))) =
                (self.slots.get(slot), self.record(slot).split_first())
            else {
                break;
            };
            for (input, out) in words.chunks_exact(WORDS).enumerate() {
                self.prepare(slot, offset, input);
                self.enter();
                self.write_down(out);
            }
            let stepped = if single_stepped() { STEPPED } else { 0 };
            state.store(DONE | stepped, Ordering::Release);
        }
    }

    fn cell_word(&self, offset: usize) -> *mut u64 {
        // SAFETY: the cell is one page inside the mapping and the offsets are below its end.
        unsafe { self.code.start.as_ptr().add(self.cell + offset).cast() }
    }

    fn put(&self, offset: usize, value: u64) {
        // SAFETY: an aligned word of the cell; volatile because the code behind `enter` is invisible to the compiler.
        unsafe { self.cell_word(offset).write_volatile(value) }
    }

    fn get(&self, offset: usize) -> u64 {
        // SAFETY: as in `put`.
        unsafe { self.cell_word(offset).read_volatile() }
    }

    /// The same input for the same slot and number, in every child.
    fn prepare(&self, slot: usize, offset: usize, input: usize) {
        let mut random = Random((slot * INPUTS + input) as u64);
        for at in (0..PAGE).step_by(8) {
            self.put(at, random.next());
        }
        let memory = |at: usize| self.cell_word(cell::MEMORY + at) as u64;
        let start = self.code.start.as_ptr() as u64;
        let registers = [
            random.nasty(),
            random.nasty(),
            random.nasty(),
            memory(128),
            self.cell_word(cell::STACK_TOP) as u64,
            memory(160),
            memory(192),
            memory(224),
            random.nasty(),
            random.nasty(),
            random.nasty(),
            random.nasty(),
            memory(256),
            memory(288),
            random.next() % 8,
            random.nasty(),
        ];
        for (n, value) in registers.into_iter().enumerate() {
            self.put(cell::REGISTERS + 8 * n, value);
        }
        let bit = |n: usize, flag: u64| if input >> n & 1 == 1 { flag } else { 0 };
        let conditions = bit(0, 1) | bit(1, 4) | bit(2, 0x40) | bit(3, 0x80) | bit(4, 0x800);
        self.put(cell::FLAGS, 0x202 | conditions | random.next() & 0x10);
        self.put(cell::MXCSR, 0x1f80 | (input as u64 % 4) << 13);
        self.put(cell::TARGET, start + offset as u64);
        self.put(cell::PATH, 0);
        // where `ret` goes, and what `pop` gets
        self.put(cell::STACK_TOP, start + (offset + LANDING) as u64);
    }

    fn write_down(&self, out: &[AtomicU64]) {
        let mut words = [0u64; WORDS];
        for (n, word) in words.iter_mut().take(16).enumerate() {
            *word = self.get(cell::OUT_REGISTERS + 8 * n);
        }
        words[FLAGS_WORD] = self.get(cell::OUT_FLAGS);
        words[MXCSR_WORD] = self.get(cell::OUT_MXCSR) & 0xffff_ffff;
        words[PATH_WORD] = self.get(cell::PATH);
        words[MEMORY_WORD] = self.hash(cell::MEMORY, PAGE);
        words[VECTORS_WORD] = self.hash(cell::OUT_VECTORS, cell::MEMORY);
        for (to, from) in out.iter().zip(words) {
            to.store(from, Ordering::Relaxed);
        }
    }

    fn hash(&self, from: usize, to: usize) -> u64 {
        (from..to).step_by(8).fold(0xcbf2_9ce4_8422_2325, |hash: u64, at| {
            (hash ^ self.get(at)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29)
        })
    }
}

/// What a child does first: it dies with its parent, leaves no core file, and does not run on for ever.
fn confine() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let enough = libc::rlimit { rlim_cur: PATIENCE.into(), rlim_max: PATIENCE.into() };
    // SAFETY: plain system calls on this new process: it dies with its parent, leaves no core file, does not run
    // on for ever, and takes signals as the kernel sends them.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
        libc::setrlimit(libc::RLIMIT_CPU, &raw const enough);
        for signal in
            [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGTRAP, libc::SIGALRM, libc::SIGFPE]
        {
            libc::signal(signal, libc::SIG_DFL);
        }
        libc::alarm(LONGEST);
    }
}

/// Where two runs differ, in words.
pub(super) fn difference(before: &[u64], after: &[u64]) -> Option<String> {
    const NAMES: [&str; 16] = [
        "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12",
        "r13", "r14", "r15",
    ];
    let pairs = before.chunks_exact(WORDS).zip(after.chunks_exact(WORDS)).enumerate();
    for (input, (a, b)) in pairs {
        let Some(at) = a.iter().zip(b).position(|(a, b)| a != b) else { continue };
        let what = match at {
            FLAGS_WORD => "flags",
            MXCSR_WORD => "SSE status",
            PATH_WORD => "way taken",
            MEMORY_WORD => return Some(format!("memory or stack differ (input {input})")),
            VECTORS_WORD => return Some(format!("vector registers differ (input {input})")),
            n => NAMES.get(n).copied().unwrap_or("?"),
        };
        let (a, b) = (a.get(at).copied().unwrap_or(0), b.get(at).copied().unwrap_or(0));
        return Some(format!("{what} is {b:#x} with a probe and {a:#x} without (input {input})"));
    }
    (before.len() != after.len()).then(|| "runs are missing".to_string())
}

/// Whether the kernel has made the area in this process that it single-steps in. Looks for its name in
/// `/proc/self/maps` without allocating.
fn single_stepped() -> bool {
    const NAME: &[u8] = b"[uprobes]";
    // SAFETY: opens and reads a file into memory of this stack; the descriptor is closed below.
    unsafe {
        let fd = libc::open(c"/proc/self/maps".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if fd < 0 {
            return true; // the slower class is the safe answer
        }
        let mut buffer = [0u8; 16384];
        let mut kept = 0;
        let mut found = false;
        loop {
            let room = buffer.len() - kept;
            let got = libc::read(fd, buffer.as_mut_ptr().add(kept).cast(), room);
            let Ok(got) = usize::try_from(got) else { break };
            if got == 0 {
                break;
            }
            let filled = kept + got;
            let seen = &buffer[..filled];
            found |= seen.windows(NAME.len()).any(|w| w == NAME);
            // The name may be cut by the end of what was read.
            kept = filled.min(NAME.len() - 1);
            buffer.copy_within(filled - kept..filled, 0);
        }
        libc::close(fd);
        found
    }
}

/// A generator of inputs (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Often a value at the edge of something.
    fn nasty(&mut self) -> u64 {
        const EDGES: [u64; 8] =
            [0, 1, 0x7f, 0xffff_ffff, 1 << 31, 1 << 63, u64::MAX, 0x7fff_ffff_ffff_ffff];
        let value = self.next();
        let edge = EDGES.get((value % 16) as usize).copied();
        edge.unwrap_or_else(|| self.next())
    }
}
