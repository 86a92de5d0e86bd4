//! Executable pages of a service image by content.
//!
//! User code is not relocated: a code page in memory holds the very bytes of the file's page (zeros behind the end of
//! the file). So the hash of a page seen in memory says which file and which part of it was executing, whatever the
//! process, the address or the virtual machine around it. Kernels patch their code at boot and are named otherwise.

use crate::SymbolError;
use crate::bytes::{slice, slice_clamped, u32_at, u64_at};
use crate::functions::{Elf, ExecSegment};
use std::collections::HashMap;
use std::ops::Range;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// Bytes of a page.
pub const PAGE_SIZE: usize = 4096;

/// xxh3-128 of the bytes of a page in memory.
pub fn hash_page(page: &[u8]) -> u128 {
    xxh3_128(page)
}

/// A file of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub u32);

/// A page of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PageRef {
    /// Which file.
    pub file: FileId,
    /// Which page of it: file offset divided by [`PAGE_SIZE`].
    pub page: u32,
}

/// An ELF file of a service image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFile {
    /// Path in the image, absolute.
    pub path: String,
    /// Other paths with the same content (hard links, copies).
    pub aliases: Vec<String>,
    /// Bytes.
    pub size: u64,
    /// GNU build-id in lower-case hex.
    pub build_id: Option<String>,
    /// Where the content begins in the image's archive, if it came from one.
    pub tar_offset: Option<u64>,
    /// Executable ranges of the file.
    pub exec: Vec<ExecSegment>,
}

/// Collects files; see [`PageIndex`].
#[derive(Debug, Default)]
pub struct PageIndexBuilder {
    files: Vec<ImageFile>,
    contents: HashMap<(u128, u64), FileId>,
    pages: Vec<(u128, PageRef)>,
}

impl PageIndexBuilder {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file. Returns its id, that of the file it is a copy of, or `None` when it is not an ELF file with
    /// executable segments (scripts, data, 32-bit files).
    pub fn add(&mut self, path: &str, bytes: &[u8], tar_offset: Option<u64>) -> Option<FileId> {
        let elf = Elf::parse(bytes).ok()?;
        if elf.kind() == crate::BinaryKind::Rel {
            return None; // object files and kernel modules are relocated: no page of theirs runs as it is
        }
        let exec = elf.exec_segments();
        if exec.is_empty() {
            return None;
        }
        let key = (xxh3_128(bytes), bytes.len() as u64);
        if let Some(&id) = self.contents.get(&key) {
            let file = &mut self.files[id.0 as usize];
            if file.path != path && !file.aliases.iter().any(|a| a == path) {
                file.aliases.push(path.to_string());
            }
            return Some(id);
        }
        let id = FileId(u32::try_from(self.files.len()).ok()?);
        for page in exec_pages(&exec) {
            let hash = hash_page(&file_page(bytes, page));
            self.pages.push((hash, PageRef { file: id, page }));
        }
        self.contents.insert(key, id);
        self.files.push(ImageFile {
            path: path.to_string(),
            aliases: Vec::new(),
            size: bytes.len() as u64,
            build_id: elf.build_id(),
            tar_offset,
            exec,
        });
        Some(id)
    }

    /// Adds another name (hard or symbolic link) of a file that is in already.
    pub fn add_alias(&mut self, id: FileId, path: &str) {
        if let Some(file) = self.files.get_mut(id.0 as usize)
            && file.path != path
            && !file.aliases.iter().any(|a| a == path)
        {
            file.aliases.push(path.to_string());
        }
    }

    /// Sorts what was added.
    pub fn finish(mut self) -> PageIndex {
        self.pages.sort_unstable();
        self.pages.dedup();
        PageIndex::from_parts(self.files, self.pages)
    }
}

/// Numbers of the pages that executable ranges touch.
fn exec_pages(exec: &[ExecSegment]) -> Vec<u32> {
    let page = PAGE_SIZE as u64;
    let ranges = exec.iter().map(|s| s.file_offset / page..(s.file_offset + s.size).div_ceil(page));
    let mut pages: Vec<u32> = ranges.flatten().filter_map(|p| u32::try_from(p).ok()).collect();
    pages.sort_unstable();
    pages.dedup();
    pages
}

/// Page `number` of a file as the page cache holds it: zeros behind the end of the file.
pub fn file_page(file: &[u8], number: u32) -> [u8; PAGE_SIZE] {
    let mut page = [0; PAGE_SIZE];
    let bytes = slice_clamped(file, u64::from(number) * PAGE_SIZE as u64, PAGE_SIZE as u64);
    page[..bytes.len()].copy_from_slice(bytes);
    page
}

/// Executable pages of many files, found by their hash.
#[derive(Debug, Clone, Default)]
pub struct PageIndex {
    files: Vec<ImageFile>,
    hashes: Vec<u128>,
    refs: Vec<PageRef>,
}

impl PageIndex {
    fn from_parts(files: Vec<ImageFile>, pages: Vec<(u128, PageRef)>) -> Self {
        let (hashes, refs) = pages.into_iter().unzip();
        Self { files, hashes, refs }
    }

    /// Pages with this hash; several when files share a page. In the order of file ids.
    pub fn lookup(&self, hash: u128) -> &[PageRef] {
        let start = self.hashes.partition_point(|&h| h < hash);
        let len = self.hashes[start..].partition_point(|&h| h == hash);
        &self.refs[start..start + len]
    }

    /// The files, in the order of their ids.
    pub fn files(&self) -> &[ImageFile] {
        &self.files
    }

    /// A file by its id.
    pub fn file(&self, id: FileId) -> Option<&ImageFile> {
        self.files.get(id.0 as usize)
    }

    /// A file by any of its paths.
    pub fn file_by_path(&self, path: &str) -> Option<FileId> {
        let same = |f: &ImageFile| f.path == path || f.aliases.iter().any(|a| a == path);
        self.files.iter().position(same).and_then(|i| u32::try_from(i).ok()).map(FileId)
    }

    /// How many pages are known.
    pub fn page_count(&self) -> usize {
        self.refs.len()
    }

    /// Serializes the index: `ALTAZPIX`, version, files, pages, xxh3-64 of all of that. Little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.refs.len() * 24);
        out.extend_from_slice(MAGIC);
        put_u32(&mut out, VERSION);
        put_u32(&mut out, self.files.len() as u32);
        for file in &self.files {
            put_str(&mut out, &file.path);
            put_u32(&mut out, file.aliases.len() as u32);
            file.aliases.iter().for_each(|a| put_str(&mut out, a));
            put_u64(&mut out, file.size);
            put_str(&mut out, file.build_id.as_deref().unwrap_or(""));
            put_u64(&mut out, file.tar_offset.unwrap_or(u64::MAX));
            put_u32(&mut out, file.exec.len() as u32);
            for s in &file.exec {
                [s.file_offset, s.vaddr, s.size].into_iter().for_each(|v| put_u64(&mut out, v));
            }
        }
        put_u64(&mut out, self.refs.len() as u64);
        for (hash, page) in self.hashes.iter().zip(&self.refs) {
            out.extend_from_slice(&hash.to_le_bytes());
            put_u32(&mut out, page.file.0);
            put_u32(&mut out, page.page);
        }
        let sum = xxh3_64(&out);
        put_u64(&mut out, sum);
        out
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    /// When it is not a page index, of another version, cut off or changed.
    pub fn from_bytes(data: &[u8]) -> Result<Self, SymbolError> {
        let damaged = |detail: &str| SymbolError::damaged("the page index", detail);
        if data.get(..8) != Some(MAGIC) {
            return Err(damaged("it does not begin with ALTAZPIX"));
        }
        let found = u32_at(data, 8).ok_or_else(|| damaged("it ends in the header"))?;
        if found != VERSION {
            return Err(SymbolError::Version { what: "the page index", found, expected: VERSION });
        }
        let body_len = data.len().checked_sub(8).ok_or_else(|| damaged("it ends in the header"))?;
        if u64_at(data, body_len) != Some(xxh3_64(&data[..body_len])) {
            return Err(damaged("its checksum does not match its content"));
        }
        Self::decode(&data[..body_len])
            .ok_or_else(|| damaged("a length in it is too large or an entry is invalid"))
    }

    /// The content behind a good checksum, which a hostile file can have too.
    fn decode(body: &[u8]) -> Option<Self> {
        let mut r = Input { data: body, at: 12 };
        let mut files = Vec::new();
        for _ in 0..r.u32()? {
            let path = r.str()?;
            let aliases = (0..r.count(4)?).map(|_| r.str()).collect::<Option<_>>()?;
            let size = r.u64()?;
            let build_id = Some(r.str()?).filter(|s| !s.is_empty());
            let tar_offset = Some(r.u64()?).filter(|&v| v != u64::MAX);
            let mut exec = Vec::new();
            for _ in 0..r.count(24)? {
                exec.push(ExecSegment { file_offset: r.u64()?, vaddr: r.u64()?, size: r.u64()? });
            }
            files.push(ImageFile { path, aliases, size, build_id, tar_offset, exec });
        }
        let count = usize::try_from(r.u64()?).ok()?;
        let rest = body.get(r.at..)?;
        if rest.len() != count.checked_mul(24)? {
            return None;
        }
        let mut pages = Vec::with_capacity(count);
        for entry in rest.as_chunks::<24>().0 {
            let hash = u128::from_le_bytes(entry[..16].try_into().ok()?);
            let page = PageRef { file: FileId(u32_at(entry, 16)?), page: u32_at(entry, 20)? };
            if page.file.0 as usize >= files.len() {
                return None;
            }
            pages.push((hash, page));
        }
        pages.is_sorted().then(|| Self::from_parts(files, pages))
    }

    /// File offsets of a page.
    pub fn page_range(page: PageRef) -> Range<u64> {
        let start = u64::from(page.page) * PAGE_SIZE as u64;
        start..start + PAGE_SIZE as u64
    }
}

const MAGIC: &[u8; 8] = b"ALTAZPIX";
const VERSION: u32 = 1;

fn put_u32(out: &mut Vec<u8>, v: u32) {
    out.extend_from_slice(&v.to_le_bytes());
}

fn put_u64(out: &mut Vec<u8>, v: u64) {
    out.extend_from_slice(&v.to_le_bytes());
}

fn put_str(out: &mut Vec<u8>, s: &str) {
    put_u32(out, s.len() as u32);
    out.extend_from_slice(s.as_bytes());
}

struct Input<'a> {
    data: &'a [u8],
    at: usize,
}

impl Input<'_> {
    fn u32(&mut self) -> Option<u32> {
        let v = u32_at(self.data, self.at)?;
        self.at += 4;
        Some(v)
    }

    fn u64(&mut self) -> Option<u64> {
        let v = u64_at(self.data, self.at)?;
        self.at += 8;
        Some(v)
    }

    /// A number of things of at least `size` bytes each.
    fn count(&mut self, size: usize) -> Option<u32> {
        let n = self.u32()?;
        (n as usize <= self.data.len().saturating_sub(self.at) / size).then_some(n)
    }

    fn str(&mut self) -> Option<String> {
        let len = u64::from(self.u32()?);
        let bytes = slice(self.data, self.at as u64, len)?;
        self.at += bytes.len();
        Some(std::str::from_utf8(bytes).ok()?.to_string())
    }
}
