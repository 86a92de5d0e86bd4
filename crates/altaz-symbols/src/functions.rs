//! Functions of a binary, by offset in its file.
//!
//! A file offset identifies code wherever the file is mapped, and together with the build-id it identifies a unit of
//! a profile. Every executable byte of a file belongs to exactly one [`Function`]: what no table names is a section
//! function (`[.plt]`) or a gap function (`[.text gap at 0x…]`), see [`FunctionKind`].

use crate::SymbolError;
use crate::bytes::Budget;
use crate::claims::{claims, language};
use crate::debug_lines;
pub use crate::elf::{BinaryKind, Elf, ExecSegment};
use crate::kallsyms::Kallsyms;
use crate::layout::{Claim, Origin, Piece, Region, lay_out, merge};
use std::sync::Arc;

/// How a function is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FunctionKind {
    /// A symbol or Go's table names it.
    Named,
    /// Its bounds are known from a frame description; its name is made of its link address (`sub_4a30`).
    Unnamed,
    /// A section of stubs counted as one function: `[.plt]`, `[.init]`.
    Section,
    /// Code that no table describes.
    Gap,
}

/// Executable bytes that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// First byte, as offset in the file.
    pub offset: u64,
    /// First byte, as link address.
    pub addr: u64,
    /// Bytes of code, without the padding behind it.
    pub size: u64,
    /// Raw (mangled) name; see [`Function::demangled`].
    pub name: String,
    /// Source file, where a table of the binary knows it.
    pub file: Option<Arc<str>>,
    /// Line of the declaration in `file`.
    pub line: Option<u32>,
    /// How it is known.
    pub kind: FunctionKind,
    /// Not entered by a call: the `.cold` part of a function, or what lies behind a function nested in another.
    pub part: bool,
    /// For a part: offset of the function it belongs to, if that is known.
    pub parent: Option<u64>,
}

impl Function {
    /// The name for people.
    pub fn demangled(&self) -> String {
        crate::demangle(&self.name)
    }
}

/// What a binary was written in, judged by its tables and names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// C, assembly, or a stripped file that does not tell.
    C,
    /// C++ (mangled names).
    Cpp,
    /// Rust (mangled names or rustc's mark).
    Rust,
    /// Go (its function table).
    Go,
}

/// What is known of one ELF file.
#[derive(Debug, Clone)]
pub struct Binary {
    /// GNU build-id in lower-case hex.
    pub build_id: Option<String>,
    /// Program, library, object file.
    pub kind: BinaryKind,
    /// A hint, for telling people what they look at.
    pub language: Language,
    /// Executable ranges of the file.
    pub segments: Vec<ExecSegment>,
    /// All functions.
    pub functions: Functions,
}

/// Functions sorted by file offset, without overlaps.
#[derive(Debug, Clone, Default)]
pub struct Functions {
    list: Vec<Function>,
    /// For each function, where its padding ends: the next function, or the end of the executable range.
    limits: Vec<u64>,
}

impl Functions {
    /// The function that a file offset belongs to. Padding behind a function counts as that function.
    pub fn find(&self, file_offset: u64) -> Option<&Function> {
        self.list.get(self.find_index(file_offset)?)
    }

    /// Like [`find`](Self::find), as index for [`get`](Self::get).
    pub fn find_index(&self, file_offset: u64) -> Option<usize> {
        let i = self.list.partition_point(|f| f.offset <= file_offset).checked_sub(1)?;
        (file_offset < self.limits[i]).then_some(i)
    }

    /// Like [`find`](Self::find), but a part with a known parent counts as its parent.
    pub fn find_unit(&self, file_offset: u64) -> Option<&Function> {
        let found = self.find(file_offset)?;
        match found.parent {
            Some(parent) => self.find(parent).or(Some(found)),
            None => Some(found),
        }
    }

    /// Function number `index`, in the order of offsets.
    pub fn get(&self, index: usize) -> Option<&Function> {
        self.list.get(index)
    }

    /// All functions in the order of their offsets.
    pub fn iter(&self) -> std::slice::Iter<'_, Function> {
        self.list.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl<'a> IntoIterator for &'a Functions {
    type Item = &'a Function;
    type IntoIter = std::slice::Iter<'a, Function>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Binary {
    /// Reads an ELF file: symbols, frame descriptions, Go's function table.
    ///
    /// # Errors
    /// When it is no 64-bit little-endian ELF file with code, or when its tables claim names that together are
    /// several times larger than the file.
    pub fn parse(data: &[u8]) -> Result<Self, SymbolError> {
        let elf = Elf::parse(data)?;
        let segments = elf.exec_segments();
        let regions = regions(&elf, &segments);
        let mut names = Budget::new(data.len());
        let (claims, go) = claims(&elf, &mut names)?;
        let language = language(&elf, &claims, go);
        let functions = build(&elf, &regions, claims, &mut names)?;
        Ok(Self { build_id: elf.build_id(), kind: elf.kind(), language, segments, functions })
    }

    /// Takes over the names that a kernel has for its own functions: a kernel that is a program with its
    /// symbols stripped from the file. The bounds stay those of the file.
    pub fn name_by(&mut self, symbols: &Kallsyms) {
        for f in &mut self.functions.list {
            if f.kind != FunctionKind::Named
                && let Some(known) = symbols.lookup(f.addr)
                && known.start == f.addr
            {
                f.name = known.name.to_owned();
                f.kind = FunctionKind::Named;
            }
        }
    }

    /// Link address of a byte of the file that is in an executable range.
    pub fn addr_of(&self, file_offset: u64) -> Option<u64> {
        let s = self
            .segments
            .iter()
            .find(|s| file_offset >= s.file_offset && file_offset - s.file_offset < s.size)?;
        Some(s.vaddr + (file_offset - s.file_offset))
    }

    /// Offset in the file of a link address in an executable range.
    pub fn offset_of(&self, addr: u64) -> Option<u64> {
        let s = self.segments.iter().find(|s| addr >= s.vaddr && addr - s.vaddr < s.size)?;
        Some(s.file_offset + (addr - s.vaddr))
    }
}

/// Executable sections, and what executable segments hold outside of them.
fn regions<'a>(elf: &Elf<'a>, segments: &[ExecSegment]) -> Vec<Region<'a>> {
    let rel = elf.kind() == BinaryKind::Rel;
    let mut sections: Vec<_> = elf
        .sections
        .iter()
        .filter(|s| s.is_exec())
        .map(|s| (if rel { s.offset } else { s.addr }, s.size, s.name))
        .collect();
    sections.sort_unstable();
    let mut out = Vec::new();
    for segment in segments {
        let end = segment.vaddr + segment.size;
        let bytes = crate::bytes::slice_clamped(elf.data, segment.file_offset, segment.size);
        let mut push = |start: u64, stop: u64, name: String, whole: bool| {
            let range = (start - segment.vaddr) as usize..(stop - segment.vaddr) as usize;
            if let Some(bytes) = bytes.get(range).filter(|b| !b.is_empty()) {
                let offset = segment.file_offset + (start - segment.vaddr);
                out.push(Region { start, offset, bytes, name, whole });
            }
        };
        let mut at = segment.vaddr;
        let first = sections.partition_point(|s| s.0 < segment.vaddr);
        for &(start, size, name) in sections[first..].iter().take_while(|s| s.0 < end) {
            let stop = start.saturating_add(size).min(end);
            if start < at || stop <= start {
                continue; // overlapping section headers: the first one counts
            }
            push(at, start, "segment".into(), false);
            push(start, stop, name.to_string(), is_stub_section(name));
            at = stop;
        }
        push(at, end, "segment".into(), false);
    }
    out.sort_by_key(|r| r.start);
    // Segments of a sane file do not overlap in memory; of others the first counts.
    let mut end = 0;
    out.retain(|r| {
        let keep = r.start >= end;
        if keep {
            end = r.end();
        }
        keep
    });
    out
}

fn is_stub_section(name: &str) -> bool {
    matches!(name, ".init" | ".fini")
        || name == ".plt"
        || name.starts_with(".plt.")
        || name == ".iplt"
}

fn build(
    elf: &Elf<'_>,
    regions: &[Region<'_>],
    claims: Vec<Claim>,
    names: &mut Budget,
) -> Result<Functions, SymbolError> {
    let x86 = elf.is_x86_64();
    let mut claims = merge(claims);
    for claim in &mut claims {
        // A frame that does not begin like a function's is a cold part unless a symbol says otherwise
        // (`_dl_runtime_resolve` is entered with two words more on the stack).
        claim.part =
            if claim.name.is_empty() { claim.part } else { cold_stem(&claim.name).is_some() };
    }
    let mut lines = debug_lines::at_starts(elf, &claims, names)?;
    for claim in claims.iter_mut().filter(|c| c.file.is_none()) {
        if let Some((file, line)) = lines.remove(&claim.start) {
            (claim.file, claim.line) = (Some(file), Some(line));
        }
    }
    let mut list = Vec::with_capacity(claims.len());
    let mut limits = Vec::with_capacity(claims.len());
    for region in regions {
        let first = claims.partition_point(|c| c.start < region.start);
        let last = claims.partition_point(|c| c.start < region.end());
        let pieces = lay_out(region, first, &claims[first..last], x86);
        for (i, piece) in pieces.iter().enumerate() {
            let offset = region.offset + (piece.start - region.start);
            let function = function_of(piece, offset, region, &claims, x86);
            names.take(function.name.len())?;
            let next = pieces.get(i + 1).map_or(region.end(), |p| p.start);
            limits.push(offset + (next - piece.start));
            list.push(function);
        }
    }
    sort_together(&mut list, &mut limits);
    let mut functions = Functions { list, limits };
    crate::parts::attribute(&mut functions.list, regions, x86);
    Ok(functions)
}

fn sort_together(list: &mut Vec<Function>, limits: &mut Vec<u64>) {
    if list.is_sorted_by_key(|f| f.offset) {
        return;
    }
    let mut both: Vec<_> = list.drain(..).zip(limits.drain(..)).collect();
    both.sort_by_key(|(f, _)| f.offset);
    (*list, *limits) = both.into_iter().unzip();
}

fn function_of(
    piece: &Piece,
    offset: u64,
    region: &Region<'_>,
    claims: &[Claim],
    x86: bool,
) -> Function {
    let mut function = Function {
        offset,
        addr: piece.start,
        size: piece.end - piece.start,
        name: String::new(),
        file: None,
        line: None,
        kind: FunctionKind::Gap,
        part: false,
        parent: None,
    };
    match piece.origin {
        Origin::Region => {
            function.name = format!("[{}]", region.name);
            function.kind = FunctionKind::Section;
        }
        Origin::Gap => function.name = format!("[{} gap at {:#x}]", region.name, piece.start),
        Origin::Claim(index, remainder) => {
            let claim = &claims[index];
            function.kind = FunctionKind::Named;
            function.name.clone_from(&claim.name);
            if claim.name.is_empty() {
                function.kind = FunctionKind::Unnamed;
                let kind = if claim.part { "part" } else { "sub" };
                function.name = format!("{kind}_{:x}", claim.start);
            }
            function.file.clone_from(&claim.file);
            function.line = claim.line;
            function.part = claim.part || remainder;
            if remainder {
                function.parent = Some(offset - (piece.start - claim.start));
            }
            // Go's table counts the padding up to the next function.
            if claim.rank == 4 {
                let start = (piece.start - region.start) as usize;
                let code = region.bytes.get(start..start + function.size as usize);
                function.size -= code.map_or(0, |c| trailing_padding(c, x86)) as u64;
            }
        }
    }
    function
}

fn trailing_padding(code: &[u8], x86: bool) -> usize {
    let fill: u8 = if x86 { 0xcc } else { 0 };
    let pad = code.iter().rev().take_while(|&&b| b == fill).count();
    if pad == code.len() { 0 } else { pad }
}

/// `f` of `f.cold`, `f.cold.12`; what a compiler calls the part of `f` that it moved away.
pub(crate) fn cold_stem(name: &str) -> Option<&str> {
    let at = name.rfind(".cold")?;
    let rest = &name[at + 5..];
    let numbered = rest.strip_prefix('.').is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
    (at > 0 && (rest.is_empty() || numbered)).then(|| &name[..at])
}
