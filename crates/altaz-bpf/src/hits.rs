//! Which userland functions were hit, how often, and by whom first: a program for probes.
//!
//! One array holds a count and the first hit for each cookie. It is mapped, so that looking for
//! news costs no system call.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::asm::Reg::{R0, R1, R2, R6, R7, R8, R10};
use crate::asm::{Alu, Asm, Cond, Helper, Size};
use crate::error::BpfError;
use crate::filter::ActiveFilter;
use crate::map::MmapArray;
use crate::program::{Kind, Program};

/// Words of an entry: count; time of the first hit; who hit first.
const COUNT: usize = 0;
const FIRST_NS: usize = 1;
const FIRST_TASK: usize = 2;
const WORDS: u32 = 3;

/// What is known of one cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hit {
    /// Hits by tasks that pass the filter.
    pub count: u64,
    /// The first one; absent for the few nanoseconds in which the program writes it.
    pub first: Option<FirstHit>,
}

/// Who hit a probe first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstHit {
    /// `CLOCK_MONOTONIC`, ns.
    pub at_ns: u64,
    /// Thread group.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
}

/// A loaded program that counts hits by cookie, and its counts.
#[derive(Debug)]
pub struct HitCounter {
    program: Program,
    hits: MmapArray,
}

impl HitCounter {
    /// Loads the program. Cookies are below `cookies`; hits of others are not counted.
    /// `kind` is [`Kind::UprobeMulti`] or [`Kind::Uprobe`].
    ///
    /// # Errors
    /// When the kernel refuses the map or the program.
    pub fn load(kind: Kind, filter: &ActiveFilter, cookies: u32) -> Result<Self, BpfError> {
        let hits = MmapArray::new("altaz_hits", cookies.max(1), WORDS)?;
        let mut asm = Asm::new();
        let out = asm.label();
        let a = &mut asm;
        a.mov_reg(R6, R1);
        filter.emit(a, None, out);
        a.mov_reg(R1, R6).call(Helper::AttachCookie);
        // A cookie wider than an index is none of ours.
        a.mov_reg(R1, R0).alu(Alu::RightShift, R1, 32).jump_if(Cond::NotEqual, R1, 0, out);
        a.store(Size::B4, R10, -4, R0);
        a.map(R1, hits.raw()).mov_reg(R2, R10).alu(Alu::Add, R2, -4).call(Helper::MapLookup);
        a.jump_if(Cond::Equal, R0, 0, out).mov_reg(R8, R0);
        a.mov(R1, 1).atomic_fetch_add(R8, 8 * COUNT as i16, R1).jump_if(Cond::NotEqual, R1, 0, out);
        // The time is written last, with a barrier: who sees it sees the task.
        a.store(Size::B8, R8, 8 * FIRST_TASK as i16, R7);
        a.call(Helper::KtimeNs).atomic_exchange(R8, 8 * FIRST_NS as i16, R0);
        // Not 1: Linux 6.6 to 6.12 take that for a wish to remove the probe.
        a.bind(out).mov(R0, 0).exit();
        let program = Program::load(kind, "altaz_hits", asm)?;
        Ok(Self { program, hits })
    }

    /// The program, to attach it ([`crate::link::Link::uprobe_multi`], [`crate::link::Link::uprobe`]).
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// What is known of a cookie.
    pub fn hit(&self, cookie: u32) -> Option<Hit> {
        self.hits.entry(cookie as usize).map(read)
    }

    /// All cookies that were hit, in order.
    pub fn hits(&self) -> impl Iterator<Item = (u32, Hit)> {
        (0..).zip(self.hits.entries()).map(|(c, w)| (c, read(w))).filter(|(_, h)| h.count > 0)
    }
}

fn read(words: &[AtomicU64]) -> Hit {
    let word = |i: usize| words.get(i).map_or(0, |w| w.load(Ordering::Acquire));
    let (count, at_ns) = (word(COUNT), word(FIRST_NS));
    let task = word(FIRST_TASK);
    let first = FirstHit { at_ns, tgid: (task >> 32) as u32, tid: task as u32 };
    Hit { count, first: (at_ns != 0).then_some(first) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_hit_is_known_once_its_time_is() {
        let words = [3, 0, 7 << 32 | 8].map(AtomicU64::new);
        assert_eq!(read(&words), Hit { count: 3, first: None });
        words[FIRST_NS].store(99, Ordering::Relaxed);
        let first = FirstHit { at_ns: 99, tgid: 7, tid: 8 };
        assert_eq!(read(&words), Hit { count: 3, first: Some(first) });
    }
}
