//! Blocks, pages and counts of a recording, by window, as the plugin sent them.

use std::collections::HashMap;

use altaz_profile::Phase;
use altaz_wire::{Block, Count, PAGE, PageHash, Snapshot, SplitCount};

/// What a window was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Purpose {
    /// Part of the profile.
    Phase(Phase),
    /// Known calls by altaz itself.
    Calibration,
    /// Boot, boundary counting, collecting symbols: not part of the profile.
    Aside,
}

/// A window's counts.
#[derive(Debug, Clone)]
pub struct RecordedWindow {
    /// What it was for.
    pub purpose: Purpose,
    /// Begin, ns of the machine's monotonic clock: the end of the one before.
    pub begin_ns: u64,
    /// End.
    pub end_ns: u64,
    /// Translations without a counter that came up in this window; their executions are lost.
    pub lost: u64,
    /// Counts of plain blocks, ascending by block.
    pub counts: Vec<Count>,
    /// Counts of split blocks by address space.
    pub split: Vec<SplitCount>,
}

/// Why a snapshot was refused.
#[derive(Debug, thiserror::Error)]
#[error(
    "the exact instrument's counts are inconsistent: {0}; this is a defect of altaz or of the QEMU build"
)]
pub struct Inconsistent(pub &'static str);

/// A whole recording.
#[derive(Debug, Default)]
pub struct Recording {
    /// All blocks, by id.
    pub blocks: Vec<Block>,
    /// Content of code pages that the index does not know.
    pub pages: HashMap<PageHash, Box<[u8]>>,
    /// Windows in order.
    pub windows: Vec<RecordedWindow>,
    /// Page-table base by slot.
    pub slots: Vec<u64>,
    /// Monitors' page-table bases by guest.
    pub guests: Vec<u64>,
    uncounted: u64,
    last_end: u64,
}

impl Recording {
    /// Adds a snapshot as a window. Pages for which `known` holds need not be kept: their content is
    /// that of a file.
    ///
    /// # Errors
    /// When the counts name blocks that were never announced.
    pub fn add(
        &mut self,
        snapshot: Snapshot,
        purpose: Purpose,
        known: impl Fn(PageHash) -> bool,
    ) -> Result<(), Inconsistent> {
        self.blocks.extend(snapshot.blocks);
        let len = self.blocks.len() as u64;
        let highest = snapshot.counts.iter().map(|c| c.block);
        if highest.chain(snapshot.split.iter().map(|c| c.block)).any(|b| u64::from(b) >= len) {
            return Err(Inconsistent("a count of a block that was never announced"));
        }
        for (hash, content) in snapshot.pages {
            if content.len() == PAGE && !known(hash) {
                self.pages.insert(hash, content);
            }
        }
        self.slots = snapshot.slots;
        self.guests = snapshot.guests;
        self.windows.push(RecordedWindow {
            purpose,
            begin_ns: if self.windows.is_empty() { snapshot.begin_ns } else { self.last_end },
            end_ns: snapshot.begin_ns,
            lost: snapshot.uncounted_blocks.saturating_sub(self.uncounted),
            counts: snapshot.counts,
            split: snapshot.split,
        });
        self.uncounted = snapshot.uncounted_blocks;
        self.last_end = snapshot.begin_ns;
        Ok(())
    }

    /// The windows that become the profile's, in order.
    pub fn profile_windows(&self) -> impl Iterator<Item = (Phase, &RecordedWindow)> {
        self.windows.iter().filter_map(|w| match w.purpose {
            Purpose::Phase(phase) => Some((phase, w)),
            Purpose::Calibration | Purpose::Aside => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_of_an_unknown_block_is_refused() {
        let mut recording = Recording::default();
        let snapshot =
            Snapshot { counts: vec![Count { block: 0, count: 1 }], ..Snapshot::default() };
        assert!(recording.add(snapshot, Purpose::Aside, |_| true).is_err());
    }

    #[test]
    fn windows_join_without_a_gap_and_translations_without_a_counter_are_lost_once() {
        let mut recording = Recording::default();
        for (begin_ns, uncounted_blocks) in [(100, 0), (600, 2), (1100, 2)] {
            let snapshot = Snapshot {
                begin_ns,
                end_ns: begin_ns + 9,
                uncounted_blocks,
                ..Snapshot::default()
            };
            recording.add(snapshot, Purpose::Phase(Phase::Serve), |_| true).unwrap();
        }
        let times: Vec<_> = recording.windows.iter().map(|w| (w.begin_ns, w.end_ns)).collect();
        assert_eq!(times, [(100, 100), (100, 600), (600, 1100)]);
        assert_eq!(recording.windows.iter().map(|w| w.lost).collect::<Vec<_>>(), [0, 2, 0]);
    }
}
