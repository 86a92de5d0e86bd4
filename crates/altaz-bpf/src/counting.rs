//! What the counters of boundaries share: a hash with a count for each CPU, and a page of words
//! that says, without a system call, whether there is news and whether anything was lost.

use std::sync::atomic::Ordering;

use crate::asm::Reg::{R0, R1, R2, R3, R4, R10};
use crate::asm::{Alu, Asm, Cond, Helper, Label, Size};
use crate::error::BpfError;
use crate::map::{Hash, MmapArray};

/// Words of the control page.
const CALIBRATING: usize = 0;
const NEWS: usize = 1;
const LOST: usize = 2;
const WORDS: u32 = 3;

/// Counts by key.
#[derive(Debug)]
pub(crate) struct Counts<const K: usize> {
    pub(crate) map: Hash<K>,
    control: MmapArray,
}

impl<const K: usize> Counts<K> {
    /// Where programs put the key, below the frame's end.
    pub(crate) const KEY: i16 = -(8 + (4 * K).next_multiple_of(8) as i16);
    const VALUE: i16 = Self::KEY - 8;
    /// Below everything that [`Counts::emit`] and the filter use.
    pub(crate) const FREE: i16 = Self::VALUE - 8;

    pub(crate) fn new(name: &str, entries: u32) -> Result<Self, BpfError> {
        Ok(Self {
            map: Hash::per_cpu(name, entries)?,
            control: MmapArray::new("altaz_control", 1, WORDS)?,
        })
    }

    pub(crate) fn control(&self) -> &MmapArray {
        &self.control
    }

    fn word(&self, index: usize) -> u64 {
        let word = self.control.entry(0).and_then(|words| words.get(index));
        word.map_or(0, |w| w.load(Ordering::Acquire))
    }

    /// Keys that appeared so far; costs no system call.
    pub(crate) fn news(&self) -> u64 {
        self.word(NEWS)
    }

    /// Events that found the hash full.
    pub(crate) fn full(&self) -> u64 {
        self.word(LOST)
    }

    /// Lets a thread of altaz's own pass the filter, or none.
    pub(crate) fn calibrate_thread(&self, tid: u32) {
        let word = self.control.entry(0).and_then(|words| words.get(CALIBRATING));
        if let Some(word) = word {
            word.store(tid.into(), Ordering::SeqCst);
        }
    }

    /// Writes the instructions that count the key at [`Counts::KEY`] and go on to `out`; `R0`–`R5`
    /// are lost.
    pub(crate) fn emit(&self, a: &mut Asm, out: Label) {
        let (add, lost) = (a.label(), a.label());
        let lookup = |a: &mut Asm| {
            a.map(R1, self.map.raw()).mov_reg(R2, R10).alu(Alu::Add, R2, Self::KEY.into());
            a.call(Helper::MapLookup);
        };
        lookup(a);
        a.jump_if(Cond::NotEqual, R0, 0, add);
        // A new key, with 1 for this CPU and 0 for the others.
        a.store_imm(Size::B8, R10, Self::VALUE, 1);
        a.map(R1, self.map.raw()).mov_reg(R2, R10).alu(Alu::Add, R2, Self::KEY.into());
        a.mov_reg(R3, R10).alu(Alu::Add, R3, Self::VALUE.into());
        /// `BPF_NOEXIST`: another CPU may have been quicker.
        const NOEXIST: i32 = 1;
        a.mov(R4, NOEXIST).call(Helper::MapUpdate);
        let again = a.label();
        a.jump_if(Cond::NotEqual, R0, 0, again);
        a.mov(R1, 1).map_value(R2, self.control.raw(), 0);
        a.atomic_add(R2, 8 * NEWS as i16, R1).jump(out).bind(again);
        lookup(a);
        a.jump_if(Cond::Equal, R0, 0, lost);
        // Atomic, though the value is this CPU's own: the program may be interrupted by itself.
        a.bind(add).mov(R1, 1).atomic_add(R0, 0, R1).jump(out);
        a.bind(lost).mov(R1, 1).map_value(R2, self.control.raw(), 0);
        a.atomic_add(R2, 8 * LOST as i16, R1);
    }
}
