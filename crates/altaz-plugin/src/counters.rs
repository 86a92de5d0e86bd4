//! The counters: one `u64` per block and vCPU, written by translated code, read by the channel's
//! thread while the guest runs.
//!
//! Plain blocks live in QEMU scoreboards, all made at load time: making one later would stop the
//! world inside a translation. Split blocks (binaries that several processes share, told apart by
//! address space) live in chunks of our own, made by the vCPU that first needs them.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::collections::HashMap;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use altaz_wire::{Count, SLOT_UNKNOWN, SplitCount};

use crate::ffi::{self, PluginU64, Scoreboard};

/// Counters in a scoreboard.
pub const CHUNK: u32 = 16_384;
/// Scoreboards.
pub const CHUNKS: u32 = 64;
/// Blocks that can be counted.
pub const CAPACITY: u32 = CHUNK * CHUNKS;
/// vCPUs that can be observed.
pub const MAX_VCPUS: usize = 16;
/// Address spaces that can be told apart.
const SLOTS: usize = 256;
/// Counters in a chunk of split counts.
const SPLIT_CHUNK: usize = 4_096;
/// Split blocks that can be counted.
pub const SPLIT_CAPACITY: usize = SPLIT_CHUNK * 64;

/// The scoreboards that hold the counters of plain blocks.
#[derive(Clone)]
pub struct Boards(Vec<*mut Scoreboard>);

// SAFETY: the pointers are handles that QEMU accepts from any thread.
unsafe impl Send for Boards {}
// SAFETY: as above.
unsafe impl Sync for Boards {}

impl Boards {
    /// Makes all scoreboards.
    pub fn new() -> Self {
        let element = CHUNK as usize * size_of::<u64>();
        Self((0..CHUNKS).map(|_| (ffi::api().scoreboard_new)(element)).collect())
    }

    /// Where block `id` is counted.
    pub fn entry(&self, id: u32) -> PluginU64 {
        PluginU64 {
            score: self.0[(id / CHUNK) as usize],
            offset: (id % CHUNK) as usize * size_of::<u64>(),
        }
    }
}

/// Counters of plain blocks, and what they said last.
pub struct Counters {
    boards: Boards,
    last: Vec<u64>,
}

impl Counters {
    /// Nothing read yet.
    pub fn new(boards: Boards) -> Self {
        Self { boards, last: Vec::new() }
    }

    /// What blocks `0..len` counted since the last call.
    pub fn read(&mut self, len: u32, vcpus: u32) -> Vec<Count> {
        self.last.resize(len as usize, 0);
        let mut counts = Vec::new();
        for (board, first) in self.boards.0.iter().zip((0..len).step_by(CHUNK as usize)) {
            let rows: Vec<*const u64> = (0..vcpus)
                .map(|cpu| (ffi::api().scoreboard_find)(*board, cpu).cast_const().cast())
                .collect();
            for id in first..len.min(first + CHUNK) {
                let sum = rows.iter().fold(0u64, |sum, row| {
                    // SAFETY: the row has CHUNK counters, aligned as u64; the vCPU writes them with
                    // plain 64-bit stores, which a volatile read never sees torn.
                    sum.wrapping_add(unsafe { row.add((id - first) as usize).read_volatile() })
                });
                let last = &mut self.last[id as usize];
                if sum != *last {
                    counts.push(Count { block: id, count: sum.wrapping_sub(*last) });
                    *last = sum;
                }
            }
        }
        counts
    }
}

type SplitChunk = [AtomicU64; SPLIT_CHUNK];
type SplitSlot = [AtomicPtr<SplitChunk>; SPLIT_CAPACITY / SPLIT_CHUNK];

/// Counters of split blocks of one vCPU, by address space.
pub struct SplitCounters {
    slots: [AtomicPtr<SplitSlot>; SLOTS],
}

/// Leaks zeroed memory for a `T`; the plugin lives as long as QEMU.
fn zeroed<T>() -> *mut T {
    let layout = Layout::new::<T>();
    // SAFETY: only used for arrays of atomics: not of size zero, and zero bytes are a value.
    let memory = unsafe { alloc_zeroed(layout) };
    if memory.is_null() {
        handle_alloc_error(layout);
    }
    memory.cast()
}

fn get_or_make<T>(place: &AtomicPtr<T>) -> &T {
    let mut p = place.load(Ordering::Acquire);
    if p.is_null() {
        p = zeroed();
        place.store(p, Ordering::Release);
    }
    // SAFETY: not null, never freed, made by `zeroed`. Only the vCPU that owns the counters makes
    // chunks, so no other store races with this one.
    unsafe { &*p }
}

impl SplitCounters {
    /// No counts.
    pub const fn new() -> Self {
        Self { slots: [const { AtomicPtr::new(ptr::null_mut()) }; SLOTS] }
    }

    /// Counts an execution of split block `index` in `slot`. Only called by the owning vCPU.
    #[inline]
    pub fn add(&self, slot: u16, index: usize) {
        let Some(chunks) = self.slots.get(slot as usize) else { return };
        let chunk = get_or_make(&get_or_make(chunks)[index / SPLIT_CHUNK]);
        let counter = &chunk[index % SPLIT_CHUNK];
        // One writer: no read-modify-write needed.
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Calls `f(slot, index, count)` for every counter that is not zero.
    fn for_each(&self, mut f: impl FnMut(u16, usize, u64)) {
        for (slot, chunks) in self.slots.iter().enumerate() {
            let chunks = chunks.load(Ordering::Acquire);
            if chunks.is_null() {
                continue;
            }
            // SAFETY: not null and never freed.
            for (c, chunk) in unsafe { &*chunks }.iter().enumerate() {
                let chunk = chunk.load(Ordering::Acquire);
                if chunk.is_null() {
                    continue;
                }
                // SAFETY: as above.
                for (i, counter) in unsafe { &*chunk }.iter().enumerate() {
                    let count = counter.load(Ordering::Relaxed);
                    if count != 0 {
                        f(slot as u16, c * SPLIT_CHUNK + i, count);
                    }
                }
            }
        }
    }
}

/// Address spaces by slot; the same for all vCPUs.
#[derive(Default)]
pub struct Slots(Mutex<(HashMap<u64, u16>, Vec<u64>)>);

impl Slots {
    /// The slot of a page-table base; [`SLOT_UNKNOWN`] for 0 and when all slots are taken.
    pub fn slot(&self, cr3: u64) -> u16 {
        if cr3 == 0 {
            return SLOT_UNKNOWN;
        }
        let mut guard = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (by_base, bases) = &mut *guard;
        if bases.is_empty() {
            bases.push(0);
        }
        if let Some(slot) = by_base.get(&cr3) {
            return *slot;
        }
        if bases.len() == SLOTS {
            return SLOT_UNKNOWN;
        }
        let slot = bases.len() as u16;
        bases.push(cr3);
        by_base.insert(cr3, slot);
        slot
    }

    /// Page-table base by slot.
    pub fn bases(&self) -> Vec<u64> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).1.clone()
    }
}

/// Remembers what split counters said last.
#[derive(Default)]
pub struct SplitReader(HashMap<(u16, usize), u64>);

impl SplitReader {
    /// What was counted since the last call; `block_of` gives the block of a split index.
    pub fn read(&mut self, vcpus: &[&SplitCounters], block_of: &[u32]) -> Vec<SplitCount> {
        let mut sums: HashMap<(u16, usize), u64> = HashMap::new();
        for counters in vcpus {
            counters
                .for_each(|slot, index, count| *sums.entry((slot, index)).or_default() += count);
        }
        let mut counts: Vec<SplitCount> = sums
            .iter()
            .filter_map(|(key @ (slot, index), sum)| {
                let delta = sum - self.0.get(key).copied().unwrap_or(0);
                let block = *block_of.get(*index)?;
                (delta > 0).then_some(SplitCount { block, slot: *slot, count: delta })
            })
            .collect();
        counts.sort_by_key(|c| (c.block, c.slot));
        self.0 = sums;
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executions_of_a_shared_block_are_kept_apart_by_address_space() {
        let slots = Slots::default();
        let (sentry, gofer) = (slots.slot(0x1000), slots.slot(0x2000));
        assert_eq!(slots.slot(0x1000), sentry);
        assert_ne!(sentry, gofer);
        assert_eq!(slots.slot(0), SLOT_UNKNOWN);
        assert_eq!(slots.bases(), vec![0, 0x1000, 0x2000]);

        let (cpu0, cpu1) = (SplitCounters::new(), SplitCounters::new());
        let block_of: Vec<u32> = (0..5000).map(|i| i + 100).collect();
        cpu0.add(sentry, 3);
        cpu1.add(sentry, 3);
        cpu1.add(gofer, 4999);
        let mut reader = SplitReader::default();
        assert_eq!(
            reader.read(&[&cpu0, &cpu1], &block_of),
            vec![
                SplitCount { block: 103, slot: sentry, count: 2 },
                SplitCount { block: 5099, slot: gofer, count: 1 },
            ]
        );
        assert_eq!(reader.read(&[&cpu0, &cpu1], &block_of), vec![]);
        cpu0.add(gofer, 3);
        assert_eq!(
            reader.read(&[&cpu0, &cpu1], &block_of),
            vec![SplitCount { block: 103, slot: gofer, count: 1 }]
        );
    }
}
