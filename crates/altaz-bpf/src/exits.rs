//! Exact counts of what a guest's CPUs leave the guest for, on the tracepoints of `kvm`.
//!
//! By programs on the tracepoints rather than by histogram triggers in a tracefs instance: the
//! same filter as for everything else holds (a trigger cannot ask for a cgroup), the counts are by
//! thread group, nothing of altaz's own lies in tracefs where it could be left behind, and reading
//! does not stop the counting. Fields are found by the tracepoints' `format` files.
//!
//! Keys are given as numbers; what a reason is called is not known here.

use std::path::Path;

use crate::asm::Reg::{R0, R1, R6, R7, R10};
use crate::asm::{Alu, Asm, Size};
use crate::counting::Counts;
use crate::error::BpfError;
use crate::event::Event;
use crate::filter::ActiveFilter;
use crate::link::Link;
use crate::program::{Kind, Program};

/// Kinds of crossing that are counted apart, unless said otherwise.
pub const ENTRIES: u32 = 16_384;
const NEEDS: &str = "the module kvm, which is loaded when a machine with KVM runs \
                     (modprobe kvm_intel or kvm_amd)";

/// The tracepoints and the fields that are counted by.
const SOURCES: [(&str, &[&str]); 5] = [
    ("kvm_exit", &["isa", "exit_reason"]),
    ("kvm_pio", &["port", "rw", "size"]),
    ("kvm_mmio", &["gpa", "type", "len"]),
    ("kvm_msr", &["ecx", "write"]),
    ("kvm_hypercall", &["nr"]),
];

/// What an access to memory without RAM behind it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mmio {
    /// A read that was handed to user space; its answer comes as a [`Mmio::Read`].
    ReadAsked,
    /// A read that was answered.
    Read,
    /// A write.
    Write,
    /// A kind that this altaz does not know.
    Other(u32),
}

/// A way out of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exit {
    /// The CPU left the guest (`kvm_exit`). Each of the others comes with one of these.
    Reason {
        /// 1: Intel's VMX; 2: AMD's SVM.
        isa: u32,
        /// The number by the architecture's manual, with VMX's flags in its upper half.
        reason: u64,
    },
    /// Port input or output (`kvm_pio`).
    Port {
        /// The port.
        port: u32,
        /// Output.
        write: bool,
        /// Bytes of one item.
        size: u32,
    },
    /// Access to memory without RAM (`kvm_mmio`).
    Memory {
        /// Guest-physical address.
        gpa: u64,
        /// What it was.
        kind: Mmio,
        /// Bytes.
        len: u32,
    },
    /// Model-specific register (`kvm_msr`).
    Msr {
        /// Its number.
        msr: u32,
        /// Written.
        write: bool,
    },
    /// Hypercall (`kvm_hypercall`).
    Hypercall {
        /// Its number.
        nr: u64,
    },
}

/// Crossings of one kind by the CPUs of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExitCount {
    /// Thread group of the machine's process.
    pub tgid: u32,
    /// What was crossed.
    pub exit: Exit,
    /// How often.
    pub count: u64,
}

/// Process, source, three fields of two words each.
type Key = [u32; 8];

/// Counts VM exits until it is dropped.
#[derive(Debug)]
pub struct ExitCounter {
    counts: Counts<8>,
    programs: Vec<Program>,
    _links: Vec<Link>,
}

impl ExitCounter {
    /// Starts to count the exits of tasks that pass the filter.
    ///
    /// # Errors
    /// [`BpfError::NoEvent`] without kvm; when tracefs is not at `tracefs`, an event lacks a field,
    /// or the kernel refuses.
    pub fn start(tracefs: &Path, filter: &ActiveFilter) -> Result<Self, BpfError> {
        Self::with_entries(tracefs, filter, ENTRIES)
    }

    /// The same with room for `entries` kinds of crossing.
    ///
    /// # Errors
    /// As [`ExitCounter::start`].
    pub fn with_entries(
        tracefs: &Path,
        filter: &ActiveFilter,
        entries: u32,
    ) -> Result<Self, BpfError> {
        // Before anything is made: without kvm there is nothing to count.
        let events = SOURCES
            .iter()
            .map(|(name, _)| Event::read(tracefs, "kvm", name, NEEDS))
            .collect::<Result<Vec<_>, _>>()?;
        let counts = Counts::new("altaz_exits", entries)?;
        let (mut programs, mut links) = (Vec::new(), Vec::new());
        for (source, (event, (name, fields))) in (0..).zip(events.iter().zip(SOURCES)) {
            let asm = program(filter, &counts, source, event, fields)?;
            let program = Program::load(Kind::Tracepoint, &format!("altaz_{name}"), asm)?;
            links.push(Link::tracepoint(&program, event)?);
            programs.push(program);
        }
        Ok(Self { counts, programs, _links: links })
    }

    /// All counts so far, in order.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn counts(&self) -> Result<Vec<ExitCount>, BpfError> {
        let mut all: Vec<ExitCount> =
            self.counts.map.all()?.into_iter().filter_map(|(key, n)| entry(key, n)).collect();
        all.sort_unstable();
        Ok(all)
    }

    /// Kinds of crossing that appeared so far: a word in memory.
    pub fn news(&self) -> u64 {
        self.counts.news()
    }

    /// Crossings that were not counted: the map was full, or the kernel skipped a program (known
    /// since Linux 6.7).
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn lost(&self) -> Result<u64, BpfError> {
        let mut lost = self.counts.full();
        for program in &self.programs {
            lost += program.misses()?.unwrap_or(0);
        }
        Ok(lost)
    }
}

fn program(
    filter: &ActiveFilter,
    counts: &Counts<8>,
    source: u32,
    event: &Event,
    fields: &[&str],
) -> Result<Asm, BpfError> {
    const KEY: i16 = Counts::<8>::KEY;
    let mut asm = Asm::new();
    let out = asm.label();
    let a = &mut asm;
    a.mov_reg(R6, R1);
    filter.emit(a, None, out);
    a.mov_reg(R1, R7).alu(Alu::RightShift, R1, 32).store(Size::B4, R10, KEY, R1);
    a.store_imm(Size::B4, R10, KEY + 4, source.cast_signed());
    for index in 0..3_u8 {
        let at = KEY + 8 + 8 * i16::from(index);
        match fields.get(usize::from(index)) {
            Some(field) => {
                let (offset, size) = event.number(field)?;
                a.load(size, R1, R6, offset).store(Size::B8, R10, at, R1);
            }
            None => {
                a.store_imm(Size::B8, R10, at, 0);
            }
        }
    }
    counts.emit(a, out);
    // Not zero: other users' perf events on this tracepoint go on.
    a.bind(out).mov(R0, 1).exit();
    Ok(asm)
}

fn entry(key: Key, count: u64) -> Option<ExitCount> {
    let [tgid, source, field @ ..] = key;
    // Words as they lie in memory.
    let wide = |i: usize| {
        let (Some(first), Some(second)) = (field.get(2 * i), field.get(2 * i + 1)) else {
            return 0;
        };
        let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
        u64::from_ne_bytes([a, b, c, d, e, f, g, h])
    };
    let (a, b, c) = (wide(0), wide(1), wide(2));
    // Fields of 32 bits were widened by the program.
    let narrow = |v: u64| v as u32;
    let exit = match source {
        0 => Exit::Reason { isa: narrow(a), reason: b },
        1 => Exit::Port { port: narrow(a), write: b != 0, size: narrow(c) },
        2 => Exit::Memory {
            gpa: a,
            kind: match b {
                0 => Mmio::ReadAsked,
                1 => Mmio::Read,
                2 => Mmio::Write,
                other => Mmio::Other(narrow(other)),
            },
            len: narrow(c),
        },
        3 => Exit::Msr { msr: narrow(a), write: b != 0 },
        4 => Exit::Hypercall { nr: a },
        _ => return None,
    };
    Some(ExitCount { tgid, exit, count })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn keys_become_ways_out() {
        let got = |source, a: u64, b: u64, c: u64| {
            let halves = |v: u64| [v as u32, (v >> 32) as u32];
            let ([a, aa], [b, bb], [c, cc]) = (halves(a), halves(b), halves(c));
            entry([7, source, a, aa, b, bb, c, cc], 3).map(|e| (e.tgid, e.exit, e.count))
        };
        let is = |exit| Some((7, exit, 3));
        assert_eq!(got(0, 2, 0x7b, 0), is(Exit::Reason { isa: 2, reason: 0x7b }));
        assert_eq!(got(0, 1, 0x8000_0021, 0), is(Exit::Reason { isa: 1, reason: 0x8000_0021 }));
        assert_eq!(got(1, 0x3f8, 1, 1), is(Exit::Port { port: 0x3f8, write: true, size: 1 }));
        let gpa = 0xfe_e000_0000;
        assert_eq!(got(2, gpa, 2, 4), is(Exit::Memory { gpa, kind: Mmio::Write, len: 4 }));
        assert_eq!(got(2, gpa, 9, 4), is(Exit::Memory { gpa, kind: Mmio::Other(9), len: 4 }));
        assert_eq!(got(3, 0x1b, 0, 0), is(Exit::Msr { msr: 0x1b, write: false }));
        assert_eq!(got(4, 5, 0, 0), is(Exit::Hypercall { nr: 5 }));
        assert_eq!(got(5, 0, 0, 0), None);
    }
}
