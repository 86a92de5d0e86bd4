//! Maps: where programs and altaz meet.
//!
//! Keys and values are arrays of plain words, so that what the kernel fills is never read as
//! anything but numbers. A map dies with its last descriptor or program; none is ever pinned.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::AtomicU64;

use crate::error::BpfError;
use crate::sys::{MMAPABLE, MapFd, MapSpec, Mapping};

const HASH: u32 = 1;
const ARRAY: u32 = 2;
const PERCPU_HASH: u32 = 5;

/// An array of equal groups of 64-bit words, mapped into this process: reading it costs no system
/// call and disturbs no program.
#[derive(Debug)]
pub struct MmapArray {
    fd: MapFd,
    mapping: Mapping,
    words_per_entry: usize,
}

impl MmapArray {
    /// An array of `entries` groups of `words_per_entry` words, all zero.
    ///
    /// # Errors
    /// When the kernel refuses it or has no memory.
    pub fn new(name: &str, entries: u32, words_per_entry: u32) -> Result<Self, BpfError> {
        let fd = create(&MapSpec {
            kind: ARRAY,
            name,
            key_size: 4,
            value_size: words_per_entry.saturating_mul(8),
            max_entries: entries,
            flags: MMAPABLE,
            values: 1,
        })?;
        let mapping = fd.mmap().map_err(BpfError::system(format!("map the array {name}")))?;
        Ok(Self { fd, mapping, words_per_entry: words_per_entry as usize })
    }

    /// The descriptor's number, for [`crate::asm::Asm::map`] and
    /// [`crate::asm::Asm::map_value`] (the latter only with one entry).
    pub fn raw(&self) -> RawFd {
        self.fd.raw()
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.fd.entries()
    }

    /// Whether there is no entry; the kernel makes no such array.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The words of an entry; programs change them at any time.
    pub fn entry(&self, index: usize) -> Option<&[AtomicU64]> {
        let start = index.checked_mul(self.words_per_entry)?;
        self.mapping.words().get(start..start.checked_add(self.words_per_entry)?)
    }

    /// All entries in order.
    pub fn entries(&self) -> impl Iterator<Item = &[AtomicU64]> {
        self.mapping.words().chunks_exact(self.words_per_entry.max(1))
    }
}

/// A hash with keys of `K` 32-bit words and values of one 64-bit word; one value, or one for each
/// CPU, whose sum is what counts.
#[derive(Debug)]
pub struct Hash<const K: usize> {
    fd: MapFd,
}

impl<const K: usize> Hash<K> {
    /// A hash with room for `entries`, one value a key.
    ///
    /// # Errors
    /// When the kernel refuses it or has no memory.
    pub fn shared(name: &str, entries: u32) -> Result<Self, BpfError> {
        Self::new(HASH, name, entries, 1)
    }

    /// A hash with room for `entries` and a value for each possible CPU: adding to it costs the
    /// same however many CPUs do.
    ///
    /// # Errors
    /// When the kernel refuses it or has no memory, or the number of CPUs cannot be read.
    pub fn per_cpu(name: &str, entries: u32) -> Result<Self, BpfError> {
        Self::new(PERCPU_HASH, name, entries, possible_cpus()?)
    }

    fn new(kind: u32, name: &str, entries: u32, values: usize) -> Result<Self, BpfError> {
        // Entries are made at once: a program that allocates inside the allocator would hang.
        let fd = create(&MapSpec {
            kind,
            name,
            key_size: 4 * K as u32,
            value_size: 8,
            max_entries: entries,
            flags: 0,
            values,
        })?;
        Ok(Self { fd })
    }

    /// The descriptor's number, for [`crate::asm::Asm::map`].
    pub fn raw(&self) -> RawFd {
        self.fd.raw()
    }

    fn key(key: [u32; K]) -> Vec<u8> {
        key.iter().flat_map(|w| w.to_ne_bytes()).collect()
    }

    /// Sets a key's value (on every CPU).
    ///
    /// # Errors
    /// When the map is full.
    pub fn set(&self, key: [u32; K], value: u64) -> Result<(), BpfError> {
        let value: Vec<u8> =
            (0..self.fd.value_size() / 8).flat_map(|_| value.to_ne_bytes()).collect();
        self.fd.update(&Self::key(key), &value).map_err(BpfError::system("add to a BPF map"))
    }

    /// A key's value (sum over CPUs).
    ///
    /// # Errors
    /// When the kernel refuses the look-up.
    pub fn get(&self, key: [u32; K]) -> Result<Option<u64>, BpfError> {
        let mut value = vec![0; self.fd.value_size()];
        let found = self
            .fd
            .lookup(&Self::key(key), &mut value)
            .map_err(BpfError::system("read a BPF map"))?;
        Ok(found.then(|| sum(&value)))
    }

    /// Removes a key; whether it was there.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn remove(&self, key: [u32; K]) -> Result<bool, BpfError> {
        self.fd.delete(&Self::key(key)).map_err(BpfError::system("remove from a BPF map"))
    }

    /// All keys with their values, in no order. An entry that is added meanwhile may be missing.
    ///
    /// # Errors
    /// When the kernel refuses the look-up (`BPF_MAP_LOOKUP_BATCH`, Linux 5.6).
    pub fn all(&self) -> Result<Vec<([u32; K], u64)>, BpfError> {
        self.read_all().map_err(BpfError::judge(
            "read a BPF map in one go",
            "Linux 5.6 (BPF_MAP_LOOKUP_BATCH)",
        ))
    }

    fn read_all(&self) -> io::Result<Vec<([u32; K], u64)>> {
        let (key_size, value_size) = (self.fd.key_size(), self.fd.value_size());
        let mut room = self.fd.entries().clamp(1, 512);
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        let (mut cursor, mut all) = (None, Vec::new());
        loop {
            keys.resize(room * key_size, 0_u8);
            values.resize(room * value_size, 0_u8);
            let (count, last) = match self.fd.batch(&mut cursor, &mut keys, &mut values) {
                // Not one bucket fits: more room, from the same place.
                Err(e) if e.raw_os_error() == Some(libc::ENOSPC) && room < self.fd.entries() => {
                    room *= 2;
                    continue;
                }
                got => got?,
            };
            for (key, value) in
                keys.chunks_exact(key_size).zip(values.chunks_exact(value_size)).take(count)
            {
                let mut words = [0; K];
                for (to, from) in words.iter_mut().zip(key.chunks_exact(4)) {
                    *to = from.first_chunk::<4>().map_or(0, |w| u32::from_ne_bytes(*w));
                }
                all.push((words, sum(value)));
            }
            if last {
                return Ok(all);
            }
        }
    }
}

fn sum(value: &[u8]) -> u64 {
    value
        .chunks_exact(8)
        .filter_map(|w| w.first_chunk::<8>())
        .fold(0, |sum, w| sum.wrapping_add(u64::from_ne_bytes(*w)))
}

fn create(spec: &MapSpec<'_>) -> Result<MapFd, BpfError> {
    MapFd::create(spec)
        .map_err(BpfError::judge(format!("make the BPF map {}", spec.name), "Linux 5.15"))
}

/// Number of CPUs that may ever be there: a look-up writes a value for each.
fn possible_cpus() -> Result<usize, BpfError> {
    let path = "/sys/devices/system/cpu/possible";
    let text = std::fs::read_to_string(path).map_err(BpfError::system(format!("read {path}")))?;
    cpus(&text).map(|all| all.len()).ok_or_else(|| {
        let source = io::Error::new(io::ErrorKind::InvalidData, format!("not a list: {text:?}"));
        BpfError::System { what: format!("read {path}"), source }
    })
}

/// Parses a list of CPUs like `0-3,6`.
pub(crate) fn cpus(text: &str) -> Option<Vec<u32>> {
    let mut all = Vec::new();
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        // More CPUs than the kernel can be built for: not a list of CPUs.
        if last >= 1 << 16 {
            return None;
        }
        all.extend(first..=last);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_parsed() {
        assert_eq!(cpus("0\n"), Some(vec![0]));
        assert_eq!(cpus("0-3\n"), Some(vec![0, 1, 2, 3]));
        assert_eq!(cpus("0,2-3"), Some(vec![0, 2, 3]));
        assert_eq!(cpus("\n"), None);
        assert_eq!(cpus("0-4294967295"), None);
    }
}
