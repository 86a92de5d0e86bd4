//! What was seen: functions by window and context, and which of them were seen often enough to be disarmed.
//!
//! Pure: events in, [`Seen`] out. One array slot a function, touched once an event; nothing is allocated for an
//! event whose function was already seen in this window and context.

use crate::functions::FunctionIndex;
use crate::page::{Context, Event};

/// A function is disarmed once it was seen in this many windows: the completeness estimate needs to know the
/// functions that were seen in exactly one and in exactly two.
pub const ENOUGH: u8 = 3;

/// A function that was traversed, once a window and context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Which function.
    pub function: FunctionIndex,
    /// In which context.
    pub context: Context,
    /// The thread that was current the first time.
    pub tid: u32,
    /// The first time, CLOCK_MONOTONIC ns.
    pub at_ns: u64,
    /// It was never seen before in this recording, in no context.
    pub first: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    /// The last window in which it was seen, by context; 0 is none.
    marks: [u32; 4],
    /// Events since the window began.
    events: u32,
    /// The last window that was counted.
    counted: u32,
    /// Windows in which it was seen, up to [`ENOUGH`].
    windows: u8,
    /// Was handed out by [`Tally::ready`].
    queued: bool,
    disarmed: bool,
}

/// The state of a recording, by function.
#[derive(Debug)]
pub struct Tally {
    slots: Vec<Slot>,
    window: u32,
    seen: Vec<Seen>,
    /// Seen after the window's end, while it was drained: the next window's.
    next: Vec<Seen>,
    /// Seen often enough, still armed.
    ready: Vec<FunctionIndex>,
}

impl Tally {
    /// For a table of that many functions.
    pub fn new(functions: usize) -> Self {
        Self {
            slots: vec![Slot::default(); functions],
            window: 1,
            seen: Vec::new(),
            next: Vec::new(),
            ready: Vec::new(),
        }
    }

    /// The table grew.
    pub fn grow(&mut self, functions: usize) {
        if functions > self.slots.len() {
            self.slots.resize(functions, Slot::default());
        }
    }

    /// Takes an event of the window that ends at `end_ns`; later ones go into the next window.
    #[inline]
    pub fn event(&mut self, function: FunctionIndex, event: &Event, worker: bool, end_ns: u64) {
        let Some(slot) = self.slots.get_mut(function.as_usize()) else { return };
        slot.events = slot.events.saturating_add(1);
        let context = match event.context() {
            Context::Task if worker => Context::KernelWorker,
            context => context,
        };
        let late = event.at > end_ns;
        let window = self.window + u32::from(late);
        let mark = match context {
            Context::Task => &mut slot.marks[0],
            Context::Softirq => &mut slot.marks[1],
            Context::Hardirq => &mut slot.marks[2],
            Context::KernelWorker => &mut slot.marks[3],
        };
        if *mark < window {
            *mark = window;
            let first = slot.windows == 0;
            let seen = Seen { function, context, tid: event.tid, at_ns: event.at, first };
            if late { self.next.push(seen) } else { self.seen.push(seen) }
        }
    }

    /// Ends the window: what was seen in it, in order of time.
    pub fn close(&mut self) -> Vec<Seen> {
        let next = std::mem::take(&mut self.next);
        let mut seen = std::mem::replace(&mut self.seen, next);
        seen.sort_by_key(|s| s.at_ns);
        for seen in &mut seen {
            let Some(slot) = self.slots.get_mut(seen.function.as_usize()) else { continue };
            if slot.counted == self.window {
                seen.first = false;
                continue;
            }
            seen.first = slot.windows == 0;
            slot.counted = self.window;
            slot.windows = (slot.windows + 1).min(ENOUGH);
            if slot.windows == ENOUGH && !slot.queued {
                slot.queued = true;
                self.ready.push(seen.function);
            }
        }
        self.window += 1;
        seen
    }

    /// Functions seen often enough and still armed.
    pub fn ready(&self) -> &[FunctionIndex] {
        &self.ready
    }

    /// Events of the ready functions since the last call, which begins their count anew.
    pub fn ready_events(&mut self) -> u64 {
        let slots = &mut self.slots;
        let take = |f: &FunctionIndex| {
            slots.get_mut(f.as_usize()).map_or(0, |s| u64::from(std::mem::take(&mut s.events)))
        };
        self.ready.iter().map(take).sum()
    }

    /// The ready functions, which the caller now disarms.
    pub fn take_ready(&mut self) -> Vec<FunctionIndex> {
        let ready = std::mem::take(&mut self.ready);
        for function in &ready {
            if let Some(slot) = self.slots.get_mut(function.as_usize()) {
                slot.disarmed = true;
            }
        }
        ready
    }

    /// The function's module went or came: it is armed, or will be, and what it was counts on.
    pub fn rearm(&mut self, function: FunctionIndex) {
        self.ready.retain(|&f| f != function);
        if let Some(slot) = self.slots.get_mut(function.as_usize()) {
            slot.queued = false;
            slot.disarmed = false;
        }
    }

    /// Whether the function was disarmed.
    pub fn is_disarmed(&self, function: FunctionIndex) -> bool {
        self.slots.get(function.as_usize()).is_some_and(|s| s.disarmed)
    }

    /// Functions that were seen in an interrupt.
    pub fn in_interrupts(&self) -> Vec<FunctionIndex> {
        (0u32..)
            .zip(&self.slots)
            .filter(|(_, s)| s.marks[1] != 0 || s.marks[2] != 0)
            .map(|(index, _)| FunctionIndex(index))
            .collect()
    }

    /// Functions by the number of windows they were seen in: one, two, three or more.
    pub fn frequencies(&self) -> [usize; 3] {
        let count = |n| self.slots.iter().filter(|s| s.windows == n).count();
        [count(1), count(2), count(ENOUGH)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at: u64, flags: u8) -> Event {
        Event { ip: 0, tid: 42, flags, preempt: 0, at }
    }

    const A: FunctionIndex = FunctionIndex(0);
    const B: FunctionIndex = FunctionIndex(1);

    #[test]
    fn a_function_is_ready_after_three_different_windows_however_often_it_ran() {
        let mut tally = Tally::new(2);
        for window in 1..=3u64 {
            for call in 0..50 {
                tally.event(A, &event(window * 100 + call, 0), false, window * 100 + 99);
            }
            assert_eq!(tally.ready(), []);
            let seen = tally.close();
            assert_eq!(seen.len(), 1);
            assert_eq!((seen[0].first, seen[0].at_ns), (window == 1, window * 100));
        }
        assert_eq!(tally.ready(), [A]);
        assert_eq!((tally.ready_events(), tally.ready_events()), (150, 0));
        assert_eq!(tally.take_ready(), [A]);
        assert!(tally.is_disarmed(A) && !tally.is_disarmed(B));
        assert_eq!(tally.frequencies(), [0, 0, 1]);
    }

    #[test]
    fn contexts_are_apart_but_windows_are_counted_once() {
        let mut tally = Tally::new(2);
        tally.event(A, &event(12, 0x10), false, 99);
        tally.event(A, &event(11, 0x08), false, 99);
        tally.event(A, &event(13, 0x40), false, 99);
        tally.event(A, &event(14, 0), true, 99);
        tally.event(A, &event(15, 0), false, 99);
        let seen: Vec<_> = tally.close().iter().map(|s| (s.context, s.first)).collect();
        assert_eq!(
            seen,
            [
                (Context::Hardirq, true),
                (Context::Softirq, false),
                (Context::KernelWorker, false),
                (Context::Task, false)
            ]
        );
        assert_eq!(tally.frequencies(), [1, 0, 0]);
        tally.event(B, &event(150, 0), false, 199);
        assert_eq!(tally.in_interrupts(), [A]);
    }

    #[test]
    fn what_comes_while_draining_is_the_next_windows() {
        let mut tally = Tally::new(2);
        tally.event(A, &event(10, 0), false, 20);
        tally.event(A, &event(25, 0), false, 20);
        tally.event(B, &event(26, 0), false, 20);
        assert_eq!(tally.close().len(), 1);
        tally.event(B, &event(30, 0), false, 40);
        let seen: Vec<_> = tally.close().iter().map(|s| (s.function, s.at_ns, s.first)).collect();
        assert_eq!(seen, [(A, 25, false), (B, 26, true)]);
        assert_eq!(tally.frequencies(), [1, 1, 0]);
    }

    #[test]
    fn a_module_that_comes_back_is_disarmed_again_when_it_is_called_again() {
        let mut tally = Tally::new(1);
        let mut window = |at| {
            tally.event(A, &event(at, 0), false, u64::MAX);
            let seen = tally.close();
            let ready = tally.take_ready();
            (seen[0].first, ready, tally.is_disarmed(A))
        };
        assert_eq!([window(1), window(2)], [(true, vec![], false), (false, vec![], false)]);
        assert_eq!(window(3), (false, vec![A], true));
        assert_eq!(window(4), (false, vec![], true));
        tally.rearm(A);
        assert!(!tally.is_disarmed(A));
        tally.event(A, &event(5, 0), false, u64::MAX);
        assert!(!tally.close()[0].first);
        assert_eq!(tally.take_ready(), [A]);
    }

    #[test]
    fn functions_of_a_module_that_comes_later_are_tallied() {
        let mut tally = Tally::new(1);
        tally.event(B, &event(10, 0), false, 20);
        assert_eq!(tally.close(), []);
        tally.grow(2);
        tally.event(B, &event(30, 0), false, 40);
        assert_eq!(tally.close().len(), 1);
    }
}
