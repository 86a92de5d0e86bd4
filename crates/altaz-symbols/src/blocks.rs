//! Code that is not a whole page of a file: patched pages and copies at other places.
//!
//! A page whose hash is unknown may still be a page of a file with a few bytes changed (gVisor's systrap rewrites
//! every system call instruction; breakpoints; probes), or hold a copy of a piece of a file. The files that can be
//! behind it are few and known (the sentry, libc), so these are searched, and every answer is verified byte by byte
//! against the file: nothing is named by likeness alone.

use crate::bytes::u64_at;
use crate::pages::{FileId, PAGE_SIZE, PageIndex, PageRef, file_page};
use std::collections::HashMap;
use xxhash_rust::xxh3::xxh3_64;

/// Pages are compared in pieces of this many bytes.
const CHUNK: usize = 64;
/// More equal places than this tell nothing.
const TOO_COMMON: usize = 256;
/// Shorter copies are found anywhere by chance.
const SHORTEST_COPY: usize = 12;

/// Size of the filter of block beginnings, as power of two.
const FILTER_BITS: u32 = 18;

/// A page that resembles the one asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageMatch {
    /// The page in the file.
    pub page: PageRef,
    /// Bytes that agree.
    pub matched_bytes: usize,
    /// Bytes that agree with the next best page of different content: a sound match has far more.
    pub runner_up: usize,
}

/// A block of code that executed on a page.
#[derive(Debug, Clone, Copy)]
pub struct SeenBlock<'a> {
    /// Offset in the page.
    pub page_offset: usize,
    /// Its bytes as executed (up to the end of the page).
    pub bytes: &'a [u8],
}

/// Contents of the few files that are searched.
#[derive(Debug, Default)]
pub struct BlockSearch<'a> {
    files: Vec<(FileId, &'a [u8])>,
    pages: Vec<PageRef>,
    /// Hash and position of each chunk, and the number of its page in `pages`; sorted.
    chunks: Vec<(u64, u32)>,
}

impl<'a> BlockSearch<'a> {
    /// Prepares the search in files of an index, whose contents the caller has at hand (mapped, or read from the
    /// image's archive). Takes 1 KiB of memory for each page: meant for some files, not for all of an image.
    pub fn new(index: &PageIndex, contents: impl IntoIterator<Item = (FileId, &'a [u8])>) -> Self {
        let mut search = Self::default();
        for (id, bytes) in contents {
            let Some(file) = index.file(id) else { continue };
            search.files.push((id, bytes));
            let mut last = None;
            for s in &file.exec {
                let first = s.file_offset / PAGE_SIZE as u64;
                let end = (s.file_offset.saturating_add(s.size)).div_ceil(PAGE_SIZE as u64);
                let end = end.min((bytes.len() as u64).div_ceil(PAGE_SIZE as u64));
                for page in first..end {
                    let Ok(page) = u32::try_from(page) else { break };
                    if last.is_none_or(|l| page > l) {
                        last = Some(page);
                        search.pages.push(PageRef { file: id, page });
                    }
                }
            }
        }
        for (i, page) in search.pages.iter().enumerate() {
            let content = search.read(*page);
            let hashes = chunk_hashes(&content).map(|h| (h, i as u32));
            search.chunks.extend(hashes);
        }
        search.chunks.sort_unstable();
        search
    }

    fn read(&self, page: PageRef) -> [u8; PAGE_SIZE] {
        let file = self.files.iter().find(|f| f.0 == page.file);
        file_page(file.map_or(&[], |f| f.1), page.page)
    }

    /// Pages that hold exactly these bytes at this offset in the page, at most 256 of them.
    pub fn find_block(&self, bytes: &[u8], page_offset: usize) -> Vec<PageRef> {
        let fits = page_offset.checked_add(bytes.len()).is_some_and(|end| end <= PAGE_SIZE);
        if bytes.is_empty() || !fits {
            return Vec::new();
        }
        let equal = |page: &&PageRef| {
            let file = self.files.iter().find(|f| f.0 == page.file);
            let at = page.page as usize * PAGE_SIZE + page_offset;
            file.and_then(|f| f.1.get(at..at + bytes.len())) == Some(bytes)
        };
        self.pages.iter().filter(equal).take(TOO_COMMON).copied().collect()
    }

    /// The page that agrees with most of the blocks that executed on one page in memory. Blocks that were patched
    /// find their place through their neighbours.
    pub fn best_page(&self, blocks: &[SeenBlock<'_>]) -> Option<PageMatch> {
        let scores = self.pages.iter().map(|&page| {
            let content = self.read(page);
            let agrees = |b: &&SeenBlock<'_>| {
                let end = b.page_offset.saturating_add(b.bytes.len());
                content.get(b.page_offset..end) == Some(b.bytes)
            };
            (blocks.iter().filter(agrees).map(|b| b.bytes.len()).sum(), page)
        });
        self.best(scores)
    }

    /// The page that a page in memory was made from, by 64-byte pieces that are still the same.
    pub fn closest_page(&self, page: &[u8; PAGE_SIZE]) -> Option<PageMatch> {
        let mut votes = HashMap::<u32, usize>::new();
        for hash in chunk_hashes(page) {
            let start = self.chunks.partition_point(|c| c.0 < hash);
            let same = self.chunks[start..].iter().take_while(|c| c.0 == hash);
            let same: Vec<u32> = same.take(TOO_COMMON + 1).map(|c| c.1).collect();
            if same.len() <= TOO_COMMON {
                same.iter().for_each(|&i| *votes.entry(i).or_default() += 1);
            }
        }
        let mut candidates: Vec<u32> = votes.into_keys().collect();
        candidates.sort_unstable();
        let scores = candidates.into_iter().map(|i| {
            let candidate = self.pages[i as usize];
            let content = self.read(candidate);
            let same = page.iter().zip(&content).filter(|(a, b)| a == b).count();
            (same, candidate)
        });
        self.best(scores)
    }

    fn best(&self, scores: impl Iterator<Item = (usize, PageRef)>) -> Option<PageMatch> {
        let mut best: Option<(usize, PageRef)> = None;
        let mut runner_up = 0;
        for (score, page) in scores.filter(|s| s.0 > 0) {
            match best {
                Some((top, held)) if score <= top => {
                    if score > runner_up && (score < top || self.read(held) != self.read(page)) {
                        runner_up = score;
                    }
                }
                _ => {
                    runner_up = best.map_or(0, |b| b.0);
                    best = Some((score, page));
                }
            }
        }
        best.map(|(matched_bytes, page)| PageMatch { page, matched_bytes, runner_up })
    }

    /// Places (file and offset) that hold these bytes at any alignment: a stub copied elsewhere. Empty for fewer than
    /// 12 bytes, which are found by chance. For many blocks [`find_copies`](Self::find_copies) is far faster.
    pub fn find_copy(&self, bytes: &[u8]) -> Vec<(FileId, u64)> {
        self.find_copies(&[bytes]).pop().unwrap_or_default()
    }

    /// [`find_copy`](Self::find_copy) for many blocks, reading the files once.
    pub fn find_copies(&self, blocks: &[&[u8]]) -> Vec<Vec<(FileId, u64)>> {
        let mut out = vec![Vec::new(); blocks.len()];
        // Blocks by their first eight bytes, and a bit for each hash of such a beginning: nearly every place in a file
        // is dismissed by one look at the bits.
        let mut by_start: HashMap<u64, Vec<usize>> = HashMap::new();
        let mut bits = vec![0u64; 1 << (FILTER_BITS - 6)];
        for (i, block) in blocks.iter().enumerate().filter(|(_, b)| b.len() >= SHORTEST_COPY) {
            let Some(start) = u64_at(block, 0) else { continue };
            let bit = filter_bit(start);
            bits[bit / 64] |= 1 << (bit % 64);
            by_start.entry(start).or_default().push(i);
        }
        if by_start.is_empty() {
            return out;
        }
        for (id, file, start, end) in self.runs() {
            let run = &file[start..end];
            for (at, window) in run.windows(8).enumerate() {
                let Some(beginning) = u64_at(window, 0) else { continue };
                let bit = filter_bit(beginning);
                if bits[bit / 64] & (1 << (bit % 64)) == 0 {
                    continue;
                }
                for &i in by_start.get(&beginning).map_or(&[][..], Vec::as_slice) {
                    if out[i].len() < TOO_COMMON && run[at..].starts_with(blocks[i]) {
                        out[i].push((id, (start + at) as u64));
                    }
                }
            }
        }
        out
    }

    /// Contiguous executable pages: file, content, first and last byte.
    fn runs(&self) -> Vec<(FileId, &'a [u8], usize, usize)> {
        let mut out: Vec<(FileId, &'a [u8], usize, usize)> = Vec::new();
        for page in &self.pages {
            let Some(&(id, bytes)) = self.files.iter().find(|f| f.0 == page.file) else { continue };
            let start = page.page as usize * PAGE_SIZE;
            let end = (start + PAGE_SIZE).min(bytes.len());
            match out.last_mut().filter(|r| r.0 == id && r.3 == start) {
                Some(run) => run.3 = end,
                None => out.push((id, bytes, start, end)),
            }
        }
        out
    }
}

fn filter_bit(start: u64) -> usize {
    (start.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - FILTER_BITS)) as usize
}

/// Hash of each chunk together with its place in the page; uniform chunks (padding) tell nothing and are left out.
fn chunk_hashes(page: &[u8; PAGE_SIZE]) -> impl Iterator<Item = u64> + '_ {
    let chunks = page.as_chunks::<CHUNK>().0.iter().enumerate();
    chunks
        .filter(|(_, c)| c.iter().any(|&b| b != c[0]))
        .map(|(i, c)| xxh3_64(c) ^ (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}
