//! Which function a part (`.cold`) belongs to.
//!
//! A symbol says so (`f.cold` → `f`). In a stripped file the code does: a function jumps into its own part and nobody
//! else's, so the function with the most jumps into a part is its parent.

use crate::functions::{Function, cold_stem};
use crate::layout::Region;
use std::collections::HashMap;

/// Fills in [`Function::parent`] of parts. `list` is sorted by offset.
pub(crate) fn attribute(list: &mut [Function], regions: &[Region<'_>], x86: bool) {
    by_name(list);
    if x86 {
        by_jumps(list, regions);
    }
}

fn is_orphan(f: &Function) -> bool {
    f.part && f.parent.is_none()
}

fn by_name(list: &mut [Function]) {
    // Name → offset, or nothing when several functions share it.
    let mut wanted: HashMap<&str, Option<u64>> = HashMap::new();
    let stems = list.iter().filter(|f| is_orphan(f)).filter_map(|f| cold_stem(&f.name));
    wanted.extend(stems.map(|s| (s, None)));
    if wanted.is_empty() {
        return;
    }
    let mut seen: HashMap<&str, u32> = HashMap::new();
    for f in list.iter().filter(|f| !f.part) {
        if let Some(slot) = wanted.get_mut(f.name.as_str()) {
            *slot = Some(f.offset);
            *seen.entry(f.name.as_str()).or_default() += 1;
        }
    }
    let parents: Vec<(usize, u64)> = list
        .iter()
        .enumerate()
        .filter(|(_, f)| is_orphan(f))
        .filter_map(|(i, f)| {
            let stem = cold_stem(&f.name)?;
            let parent = wanted.get(stem).copied().flatten()?;
            (seen.get(stem) == Some(&1)).then_some((i, parent))
        })
        .collect();
    for (i, parent) in parents {
        list[i].parent = Some(parent);
    }
}

/// Reads every `jmp rel32` and `jcc rel32` pattern, aligned or not: a byte sequence that is no jump will hardly ever
/// point into one of the few parts, and a vote decides.
fn by_jumps(list: &mut [Function], regions: &[Region<'_>]) {
    let mut parts: Vec<(u64, u64, usize)> = list
        .iter()
        .enumerate()
        .filter(|(_, f)| is_orphan(f))
        .map(|(i, f)| (f.addr, f.addr + f.size, i))
        .collect();
    parts.sort_unstable();
    let (Some(low), Some(high)) = (parts.first().map(|p| p.0), parts.last().map(|p| p.1)) else {
        return;
    };
    let mut callers: Vec<(u64, usize)> =
        list.iter().enumerate().filter(|(_, f)| !f.part).map(|(i, f)| (f.addr, i)).collect();
    callers.sort_unstable();
    let mut votes: HashMap<(usize, usize), u32> = HashMap::new();
    for region in regions {
        for (at, window) in region.bytes.windows(5).enumerate() {
            let jump = match window[0] {
                0xe9 => true,
                0x80..=0x8f => at > 0 && region.bytes[at - 1] == 0x0f,
                _ => false,
            };
            if !jump {
                continue;
            }
            let rel = i32::from_le_bytes([window[1], window[2], window[3], window[4]]);
            let from = region.start + at as u64;
            let target = (from + 5).wrapping_add_signed(i64::from(rel));
            if target < low || target >= high {
                continue;
            }
            let Some(part) = parts.partition_point(|p| p.0 <= target).checked_sub(1) else {
                continue;
            };
            let (_, end, part) = parts[part];
            let caller = callers.partition_point(|c| c.0 <= from).checked_sub(1);
            if let (true, Some(caller)) = (target < end, caller) {
                let caller = callers[caller].1;
                let f = &list[caller];
                if from < f.addr + f.size {
                    *votes.entry((part, caller)).or_default() += 1;
                }
            }
        }
    }
    let mut best: HashMap<usize, (u32, std::cmp::Reverse<usize>)> = HashMap::new();
    for ((part, caller), count) in votes {
        let entry = best.entry(part).or_insert((0, std::cmp::Reverse(usize::MAX)));
        *entry = (*entry).max((count, std::cmp::Reverse(caller)));
    }
    for (part, (_, caller)) in best {
        list[part].parent = Some(list[caller.0].offset);
    }
}
