//! bpf(2), perf_event_open(2) and the mapping of a map: the only `unsafe` of this crate.
//!
//! Every function here checks what memory safety needs (lengths of keys and values against the
//! map's own) and nothing else; what an errno means to people is said in [`crate::error`].
//!
//! The attributes are written out here (from `include/uapi/linux/bpf.h` and `perf_event.h`) rather
//! than taken from `aya-obj`, whose generated unions get new names with each release and which
//! brings an ELF library with it; the tests hold each offset that the kernel reads.

use std::ffi::{CStr, c_long};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::AtomicU64;

use memmap2::{MmapOptions, MmapRaw};

use crate::asm::Insn;

const MAP_CREATE: c_long = 0;
const MAP_LOOKUP: c_long = 1;
const MAP_UPDATE: c_long = 2;
const MAP_DELETE: c_long = 3;
const PROG_LOAD: c_long = 5;
const OBJ_GET_INFO: c_long = 15;
const RAW_TRACEPOINT_OPEN: c_long = 17;
const MAP_LOOKUP_BATCH: c_long = 24;
const LINK_CREATE: c_long = 28;

/// `BPF_PERF_EVENT`, an attach type of links.
const ATTACH_PERF_EVENT: u32 = 41;
/// `BPF_TRACE_UPROBE_MULTI`, an attach type of programs and links.
pub(crate) const ATTACH_UPROBE_MULTI: u32 = 48;

/// `BPF_F_MMAPABLE`.
pub(crate) const MMAPABLE: u32 = 1 << 10;

#[derive(Default)]
#[repr(C)]
struct MapCreate {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    name: [u8; 16],
}

#[derive(Default)]
#[repr(C)]
struct MapElem {
    map_fd: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[derive(Default)]
#[repr(C)]
struct MapBatch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

#[derive(Default)]
#[repr(C)]
struct ProgLoad {
    kind: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    name: [u8; 16],
    ifindex: u32,
    expected_attach_type: u32,
}

#[derive(Default)]
#[repr(C)]
struct RawTracepointOpen {
    name: u64,
    prog_fd: u32,
    _pad: u32,
}

#[derive(Default)]
#[repr(C)]
struct InfoByFd {
    fd: u32,
    len: u32,
    info: u64,
}

#[derive(Default)]
#[repr(C)]
struct LinkCreatePerf {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    cookie: u64,
}

#[derive(Default)]
#[repr(C)]
struct LinkCreateUprobeMulti {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    path: u64,
    offsets: u64,
    ref_ctr_offsets: u64,
    cookies: u64,
    cnt: u32,
    multi_flags: u32,
    pid: u32,
    _pad: u32,
}

/// The start of `perf_event_attr`, `PERF_ATTR_SIZE_VER1`.
#[derive(Debug, Default, Clone, Copy)]
#[repr(C)]
pub(crate) struct PerfAttr {
    pub(crate) kind: u32,
    pub(crate) size: u32,
    pub(crate) config: u64,
    pub(crate) sample_period: u64,
    pub(crate) sample_type: u64,
    pub(crate) read_format: u64,
    pub(crate) flags: u64,
    pub(crate) wakeup: u32,
    pub(crate) bp_type: u32,
    pub(crate) config1: u64,
    pub(crate) config2: u64,
}

/// `perf_event_open`'s flag that closes the descriptor on exec.
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 1 << 3;

/// Bit of `perf_event_attr` that opens the event stopped: its program runs, its counter does not.
const PERF_DISABLED: u64 = 1;

fn ptr<T>(slice: &[T]) -> u64 {
    slice.as_ptr() as u64
}

fn ptr_mut<T>(slice: &mut [T]) -> u64 {
    slice.as_mut_ptr() as u64
}

/// A name as the kernel takes it: letters, digits, `_` and `.`, at most 15.
fn name16(name: &str) -> [u8; 16] {
    let mut out = [0; 16];
    for (to, from) in out.iter_mut().take(15).zip(name.bytes()) {
        *to = if from.is_ascii_alphanumeric() || from == b'.' { from } else { b'_' };
    }
    out
}

/// # Safety
/// Every address in `attr` must be valid for what `cmd` does with it, for the length that `attr`
/// or the object behind its descriptor says.
unsafe fn bpf<T>(cmd: c_long, attr: &mut T) -> io::Result<c_long> {
    let size = size_of::<T>();
    // SAFETY: attr is `size` readable and writable bytes; what it points to is the caller's duty.
    let got = unsafe { libc::syscall(libc::SYS_bpf, cmd, std::ptr::from_mut(attr), size) };
    if got < 0 { Err(io::Error::last_os_error()) } else { Ok(got) }
}

/// # Safety
/// `fd` must be a descriptor just returned by the kernel and owned by nobody else.
unsafe fn owned(fd: c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the caller's duty.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// A map with the sizes that the kernel reads and writes by.
#[derive(Debug)]
pub(crate) struct MapFd {
    fd: OwnedFd,
    key_size: usize,
    /// Bytes that a look-up from user space writes.
    value_size: usize,
    entries: usize,
    mmapable: bool,
}

/// What to make a map of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MapSpec<'a> {
    pub(crate) kind: u32,
    pub(crate) name: &'a str,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) flags: u32,
    /// Values that a look-up returns: 1, or the number of possible CPUs.
    pub(crate) values: usize,
}

fn round8(bytes: usize) -> usize {
    bytes.next_multiple_of(8)
}

impl MapFd {
    pub(crate) fn create(spec: &MapSpec<'_>) -> io::Result<Self> {
        let mut attr = MapCreate {
            kind: spec.kind,
            key_size: spec.key_size,
            value_size: spec.value_size,
            max_entries: spec.max_entries,
            flags: spec.flags,
            name: name16(spec.name),
            ..MapCreate::default()
        };
        // SAFETY: the attribute of BPF_MAP_CREATE holds no address; the result is a new descriptor.
        let fd = unsafe { bpf(MAP_CREATE, &mut attr).and_then(|fd| owned(fd))? };
        Ok(Self {
            fd,
            key_size: spec.key_size as usize,
            value_size: round8(spec.value_size as usize) * spec.values.max(1),
            entries: spec.max_entries as usize,
            mmapable: spec.flags & MMAPABLE != 0,
        })
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    pub(crate) fn key_size(&self) -> usize {
        self.key_size
    }

    pub(crate) fn value_size(&self) -> usize {
        self.value_size
    }

    pub(crate) fn entries(&self) -> usize {
        self.entries
    }

    fn sizes(&self, key: usize, value: usize) -> io::Result<()> {
        if key == self.key_size && value >= self.value_size {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "wrong size of a map's key or value"))
        }
    }

    /// Whether there was a value.
    pub(crate) fn lookup(&self, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
        self.sizes(key.len(), value.len())?;
        let mut attr = MapElem {
            map_fd: raw(std::os::fd::AsFd::as_fd(&self.fd)),
            key: ptr(key),
            value: ptr_mut(value),
            ..MapElem::default()
        };
        // SAFETY: key and value are as long as the map's, checked above.
        match unsafe { bpf(MAP_LOOKUP, &mut attr) } {
            Ok(_) => Ok(true),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(e) => Err(e),
        }
    }

    pub(crate) fn update(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.sizes(key.len(), value.len())?;
        let mut attr = MapElem {
            map_fd: raw(std::os::fd::AsFd::as_fd(&self.fd)),
            key: ptr(key),
            value: ptr(value),
            ..MapElem::default()
        };
        // SAFETY: key and value are as long as the map's, checked above.
        unsafe { bpf(MAP_UPDATE, &mut attr) }.map(drop)
    }

    /// Whether there was a value.
    pub(crate) fn delete(&self, key: &[u8]) -> io::Result<bool> {
        self.sizes(key.len(), self.value_size)?;
        let mut attr = MapElem {
            map_fd: raw(std::os::fd::AsFd::as_fd(&self.fd)),
            key: ptr(key),
            ..MapElem::default()
        };
        // SAFETY: the key is as long as the map's, checked above; there is no value.
        match unsafe { bpf(MAP_DELETE, &mut attr) } {
            Ok(_) => Ok(true),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Reads at most as many entries as fit, from `cursor` on; returns how many and whether these
    /// were the last. `ENOSPC`: not one bucket of the hash fits.
    pub(crate) fn batch(
        &self,
        cursor: &mut Option<u32>,
        keys: &mut [u8],
        values: &mut [u8],
    ) -> io::Result<(usize, bool)> {
        let fit = (keys.len() / self.key_size.max(1)).min(values.len() / self.value_size.max(1));
        let (input, mut output) = (cursor.unwrap_or(0), 0_u32);
        let mut attr = MapBatch {
            in_batch: if cursor.is_some() { (&raw const input) as u64 } else { 0 },
            out_batch: (&raw mut output) as u64,
            keys: ptr_mut(keys),
            values: ptr_mut(values),
            count: u32::try_from(fit).unwrap_or(u32::MAX),
            map_fd: raw(std::os::fd::AsFd::as_fd(&self.fd)),
            ..MapBatch::default()
        };
        // SAFETY: keys and values hold `count` of the map's keys and values; the two batch numbers
        // of hashes are four bytes and live until the call returns.
        let last = match unsafe { bpf(MAP_LOOKUP_BATCH, &mut attr) } {
            Ok(_) => false,
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => true,
            Err(e) => return Err(e),
        };
        *cursor = Some(output);
        Ok(((attr.count as usize).min(fit), last))
    }

    /// Maps an mmapable array.
    pub(crate) fn mmap(&self) -> io::Result<Mapping> {
        if !self.mmapable {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the map is not mmapable"));
        }
        let bytes = self.value_size * self.entries;
        let map = MmapOptions::new().len(bytes).map_raw(self.fd.as_raw_fd())?;
        Ok(Mapping { map, words: bytes / 8 })
    }
}

/// The values of an mmapable array: words that the kernel changes at any time.
#[derive(Debug)]
pub(crate) struct Mapping {
    map: MmapRaw,
    words: usize,
}

impl Mapping {
    pub(crate) fn words(&self) -> &[AtomicU64] {
        let start = self.map.as_mut_ptr().cast::<AtomicU64>().cast_const();
        // SAFETY: the mapping is page-aligned, readable and writable, holds `words` words, lives as
        // long as self, and is only ever reached through atomics; every bit pattern is a u64.
        unsafe { std::slice::from_raw_parts(start, self.words) }
    }
}

/// What to load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProgSpec<'a> {
    pub(crate) kind: u32,
    pub(crate) name: &'a str,
    pub(crate) insns: &'a [Insn],
    pub(crate) expected_attach_type: u32,
}

/// Loads a program. `log`, when not empty, takes the verifier's words, ended by a zero byte.
pub(crate) fn prog_load(spec: &ProgSpec<'_>, log: &mut [u8]) -> io::Result<OwnedFd> {
    // Helpers for tracing are for programs under a licence compatible with the kernel's; this crate
    // is offered under Apache-2.0 or MIT, and MIT is one.
    const LICENSE: &CStr = c"Dual MIT/GPL";
    let mut attr = ProgLoad {
        kind: spec.kind,
        insn_cnt: u32::try_from(spec.insns.len()).unwrap_or(u32::MAX),
        insns: ptr(spec.insns),
        license: LICENSE.as_ptr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: u32::try_from(log.len()).unwrap_or(0),
        log_buf: if log.is_empty() { 0 } else { ptr_mut(log) },
        name: name16(spec.name),
        expected_attach_type: spec.expected_attach_type,
        ..ProgLoad::default()
    };
    // The verifier gives up on a signal with EAGAIN.
    for _ in 0..4 {
        // SAFETY: insns holds insn_cnt instructions, the licence ends in a zero byte, the log has
        // log_size bytes; the result is a new descriptor.
        match unsafe { bpf(PROG_LOAD, &mut attr).and_then(|fd| owned(fd)) } {
            Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => {}
            done => return done,
        }
    }
    Err(io::Error::from_raw_os_error(libc::EAGAIN))
}

/// Runs of the program that the kernel skipped because one was under way on the same CPU
/// (`bpf_prog_info.recursion_misses`; `None` before Linux 5.12).
pub(crate) fn prog_misses(prog: BorrowedFd<'_>) -> io::Result<Option<u64>> {
    const INFO: usize = 232;
    const RECURSION_MISSES: usize = 208;
    let mut info = [0_u8; INFO];
    let mut attr = InfoByFd { fd: raw(prog), len: INFO as u32, info: ptr_mut(&mut info) };
    // SAFETY: info has len bytes; all its fields are zero, so the kernel fills no buffer of ours.
    unsafe { bpf(OBJ_GET_INFO, &mut attr)? };
    if (attr.len as usize) < RECURSION_MISSES + 8 {
        return Ok(None);
    }
    let word = info.get(RECURSION_MISSES..).and_then(|s| s.first_chunk::<8>());
    Ok(word.map(|w| u64::from_ne_bytes(*w)))
}

/// Attaches a raw tracepoint program; it stays attached as long as the descriptor is open.
pub(crate) fn raw_tracepoint_open(name: &CStr, prog: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attr =
        RawTracepointOpen { name: name.as_ptr() as u64, prog_fd: raw(prog), ..Default::default() };
    // SAFETY: the name ends in a zero byte; the result is a new descriptor.
    unsafe { bpf(RAW_TRACEPOINT_OPEN, &mut attr).and_then(|fd| owned(fd)) }
}

/// Links a program to a perf event, with a cookie (Linux 5.15).
pub(crate) fn link_perf_event(
    prog: BorrowedFd<'_>,
    event: BorrowedFd<'_>,
    cookie: u64,
) -> io::Result<OwnedFd> {
    let mut attr = LinkCreatePerf {
        prog_fd: raw(prog),
        target_fd: raw(event),
        attach_type: ATTACH_PERF_EVENT,
        flags: 0,
        cookie,
    };
    // SAFETY: the attribute holds no address; the result is a new descriptor.
    unsafe { bpf(LINK_CREATE, &mut attr).and_then(|fd| owned(fd)) }
}

/// Links a program to places of a file (Linux 6.6), in one process (thread group) or in all. `offsets` and `cookies`
/// are of one length.
pub(crate) fn link_uprobe_multi(
    prog: BorrowedFd<'_>,
    path: &CStr,
    offsets: &[u64],
    cookies: &[u64],
    process: Option<u32>,
) -> io::Result<OwnedFd> {
    if offsets.len() != cookies.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not one cookie an offset"));
    }
    let mut attr = LinkCreateUprobeMulti {
        prog_fd: raw(prog),
        attach_type: ATTACH_UPROBE_MULTI,
        path: path.as_ptr() as u64,
        offsets: ptr(offsets),
        cookies: ptr(cookies),
        cnt: u32::try_from(offsets.len()).map_err(io::Error::other)?,
        pid: process.unwrap_or(0),
        ..Default::default()
    };
    // SAFETY: the path ends in a zero byte; offsets and cookies hold cnt words each; there are no
    // reference counters; the result is a new descriptor.
    unsafe { bpf(LINK_CREATE, &mut attr).and_then(|fd| owned(fd)) }
}

/// Opens a perf event of all tasks on a CPU, stopped. A probe's path is in `path`; its address is
/// put into `config1`.
pub(crate) fn perf_event_open(
    mut attr: PerfAttr,
    path: Option<&CStr>,
    cpu: u32,
) -> io::Result<OwnedFd> {
    attr.size = size_of::<PerfAttr>() as u32;
    attr.flags = PERF_DISABLED;
    if let Some(path) = path {
        attr.config1 = path.as_ptr() as u64;
    }
    let cpu = i32::try_from(cpu).map_err(io::Error::other)?;
    // SAFETY: attr is size bytes; its only address, if any, is a string that ends in a zero byte.
    let fd = unsafe {
        libc::syscall(libc::SYS_perf_event_open, &raw mut attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just returned it.
    unsafe { owned(fd) }
}

/// Attaches a program to a perf event without a link (any Linux since 4.7).
pub(crate) fn perf_set_bpf(event: BorrowedFd<'_>, prog: BorrowedFd<'_>) -> io::Result<()> {
    /// `_IOW('$', 8, __u32)`.
    const PERF_EVENT_IOC_SET_BPF: libc::Ioctl = 0x4004_2408;
    // SAFETY: the request takes a number, no address.
    let got = unsafe { libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_SET_BPF, prog.as_raw_fd()) };
    if got < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    /// Offsets in `union bpf_attr` of Linux 6.15's `include/uapi/linux/bpf.h`; the kernel reads a
    /// shorter attribute as if zeros followed.
    #[test]
    fn attributes_lie_as_the_kernel_reads_them() {
        assert_eq!((offset_of!(MapCreate, flags), offset_of!(MapCreate, name)), (16, 28));
        assert_eq!((offset_of!(MapElem, key), offset_of!(MapElem, flags)), (8, 24));
        assert_eq!((offset_of!(MapBatch, values), offset_of!(MapBatch, count)), (24, 32));
        assert_eq!((offset_of!(MapBatch, map_fd), offset_of!(MapBatch, flags)), (36, 48));
        assert_eq!((offset_of!(ProgLoad, insns), offset_of!(ProgLoad, license)), (8, 16));
        assert_eq!((offset_of!(ProgLoad, log_level), offset_of!(ProgLoad, log_size)), (24, 28));
        assert_eq!((offset_of!(ProgLoad, log_buf), offset_of!(ProgLoad, kern_version)), (32, 40));
        assert_eq!((offset_of!(ProgLoad, prog_flags), offset_of!(ProgLoad, name)), (44, 48));
        assert_eq!(offset_of!(ProgLoad, ifindex), 64);
        assert_eq!(offset_of!(ProgLoad, expected_attach_type), 68);
        assert_eq!(offset_of!(RawTracepointOpen, prog_fd), 8);
        assert_eq!((offset_of!(InfoByFd, len), offset_of!(InfoByFd, info)), (4, 8));
        assert_eq!(offset_of!(LinkCreatePerf, attach_type), 8);
        assert_eq!(offset_of!(LinkCreatePerf, cookie), 16);
        assert_eq!(offset_of!(LinkCreateUprobeMulti, path), 16);
        assert_eq!(offset_of!(LinkCreateUprobeMulti, offsets), 24);
        assert_eq!(offset_of!(LinkCreateUprobeMulti, ref_ctr_offsets), 32);
        assert_eq!(offset_of!(LinkCreateUprobeMulti, cookies), 40);
        assert_eq!(offset_of!(LinkCreateUprobeMulti, cnt), 48);
        assert_eq!(offset_of!(LinkCreateUprobeMulti, multi_flags), 52);
        assert_eq!(offset_of!(LinkCreateUprobeMulti, pid), 56);
        assert_eq!(size_of::<PerfAttr>(), 72);
        assert_eq!(offset_of!(PerfAttr, config), 8);
        assert_eq!((offset_of!(PerfAttr, flags), offset_of!(PerfAttr, config1)), (40, 56));
        assert_eq!(size_of::<Insn>(), 8);
    }

    #[test]
    fn names_have_only_letters_the_kernel_takes() {
        assert_eq!(&name16("a b-c"), b"a_b_c\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(name16(&"x".repeat(40))[15], 0);
    }
}
