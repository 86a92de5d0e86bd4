//! A view of a 64-bit little-endian ELF file: segments, sections, symbols, build-id.
//!
//! Tolerant on purpose: a file whose section table is missing or damaged is read through its program headers, as
//! the kernel reads it. Nothing here allocates more than the tables that really are in the file.

use crate::SymbolError;
use crate::bytes::{Budget, c_str, slice, slice_clamped, u16_at, u32_at, u64_at};

/// Longest symbol name that is read; longer ones count as unnamed.
pub(crate) const NAME_LIMIT: usize = 64 * 1024;

/// Segments that are looked at; programs have about ten, and only core dumps thousands.
const SEGMENT_LIMIT: usize = 1024;

/// Note segments and sections that are searched for the build-id.
const NOTE_LIMIT: usize = 32;

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_NOTE: u32 = 4;
const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
const SHT_SYMTAB: u32 = 2;
const SHT_NOTE: u32 = 7;
const SHT_NOBITS: u32 = 8;
const SHT_DYNSYM: u32 = 11;
const SHF_ALLOC: u64 = 2;
const SHF_EXECINSTR: u64 = 4;
const SHF_COMPRESSED: u64 = 0x800;

/// `e_type` of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BinaryKind {
    /// `ET_EXEC`: fixed addresses.
    Exec,
    /// `ET_DYN`: shared object or position-independent executable.
    Dyn,
    /// `ET_REL`: object file, kernel module.
    Rel,
}

/// An executable, file-backed range of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecSegment {
    /// First byte in the file.
    pub file_offset: u64,
    /// Link address of that byte. In object files, which have none, the file offset.
    pub vaddr: u64,
    /// Bytes in the file.
    pub size: u64,
}

/// A section header, reduced to what is used here.
#[derive(Debug, Clone)]
pub(crate) struct Section<'a> {
    pub name: &'a str,
    kind: u32,
    flags: u64,
    pub addr: u64,
    pub offset: u64,
    pub size: u64,
    link: u32,
}

impl Section<'_> {
    pub(crate) fn is_exec(&self) -> bool {
        self.flags & (SHF_ALLOC | SHF_EXECINSTR) == SHF_ALLOC | SHF_EXECINSTR
            && self.kind != SHT_NOBITS
            && self.size > 0
    }
}

#[derive(Debug, Clone, Copy)]
struct Segment {
    kind: u32,
    flags: u32,
    offset: u64,
    vaddr: u64,
    filesz: u64,
}

/// A function-like symbol.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Symbol<'a> {
    pub name: &'a str,
    /// Link address (object files: file offset).
    pub addr: u64,
    pub size: u64,
    /// 0 local, 1 global, 2 weak.
    pub bind: u8,
    /// The symbol's type says "function" (else it is an untyped label in code).
    pub is_function: bool,
}

/// A parsed ELF file, borrowing its bytes.
#[derive(Debug)]
pub struct Elf<'a> {
    pub(crate) data: &'a [u8],
    kind: BinaryKind,
    machine: u16,
    segments: Vec<Segment>,
    pub(crate) sections: Vec<Section<'a>>,
}

impl<'a> Elf<'a> {
    /// Reads the headers of `data`.
    ///
    /// # Errors
    /// When it is no ELF file, not 64-bit little-endian, of no kind that holds code, or has neither segments nor
    /// sections.
    pub fn parse(data: &'a [u8]) -> Result<Self, SymbolError> {
        if data.get(..4) != Some(b"\x7fELF") {
            return Err(SymbolError::NotElf);
        }
        if data.get(4) != Some(&2) {
            return Err(SymbolError::UnsupportedElf("not 64-bit"));
        }
        if data.get(5) != Some(&1) {
            return Err(SymbolError::UnsupportedElf("not little-endian"));
        }
        let cut = || SymbolError::damaged("ELF header", format!("only {} bytes", data.len()));
        let kind = match u16_at(data, 16).ok_or_else(cut)? {
            1 => BinaryKind::Rel,
            2 => BinaryKind::Exec,
            3 => BinaryKind::Dyn,
            _ => {
                return Err(SymbolError::UnsupportedElf(
                    "neither program, library nor object file",
                ));
            }
        };
        let machine = u16_at(data, 18).ok_or_else(cut)?;
        let segments = read_segments(data).ok_or_else(cut)?;
        let sections = read_sections(data).unwrap_or_default();
        if segments.is_empty() && sections.is_empty() {
            return Err(SymbolError::damaged("ELF file", "it has neither segments nor sections"));
        }
        Ok(Self { data, kind, machine, segments, sections })
    }

    /// Program, library or object file.
    pub fn kind(&self) -> BinaryKind {
        self.kind
    }

    /// Whether the code is x86-64.
    pub fn is_x86_64(&self) -> bool {
        self.machine == 62
    }

    /// The executable ranges, by file offset, without overlaps.
    pub fn exec_segments(&self) -> Vec<ExecSegment> {
        let file_len = self.data.len() as u64;
        let mut out: Vec<ExecSegment> = if self.kind == BinaryKind::Rel {
            let exec = self.sections.iter().filter(|s| s.is_exec());
            exec.map(|s| ExecSegment { file_offset: s.offset, vaddr: s.offset, size: s.size })
                .collect()
        } else {
            let exec = self.segments.iter().filter(|s| s.kind == PT_LOAD && s.flags & 1 != 0);
            exec.map(|s| ExecSegment { file_offset: s.offset, vaddr: s.vaddr, size: s.filesz })
                .collect()
        };
        out.retain_mut(|s| {
            s.size = s.size.min(file_len.saturating_sub(s.file_offset));
            s.size > 0 && s.vaddr.checked_add(s.size).is_some()
        });
        out.sort_by_key(|s| (s.file_offset, s.vaddr));
        let mut end = 0;
        out.retain(|s| {
            let keep = s.file_offset >= end;
            if keep {
                end = s.file_offset + s.size;
            }
            keep
        });
        out
    }

    /// Bytes of a loaded range, by link address, as far as they are in the file.
    pub(crate) fn at_vaddr(&self, vaddr: u64) -> Option<&'a [u8]> {
        let s = self
            .segments
            .iter()
            .find(|s| s.kind == PT_LOAD && vaddr >= s.vaddr && vaddr - s.vaddr < s.filesz)?;
        let skip = vaddr - s.vaddr;
        let at = s.offset.checked_add(skip)?;
        Some(slice_clamped(self.data, at, s.filesz - skip))
    }

    /// Contents of every loaded segment, with their link addresses.
    pub(crate) fn loaded(&self) -> impl Iterator<Item = (u64, &'a [u8])> + '_ {
        let loads = self.segments.iter().filter(|s| s.kind == PT_LOAD);
        loads.map(|s| (s.vaddr, slice_clamped(self.data, s.offset, s.filesz)))
    }

    /// The first section of that name that has bytes in the file and is not compressed.
    pub(crate) fn section(&self, name: &str) -> Option<(&Section<'a>, &'a [u8])> {
        let s = self.sections.iter().find(|s| s.name == name)?;
        Some((s, self.section_bytes(s)?))
    }

    fn section_bytes(&self, s: &Section<'a>) -> Option<&'a [u8]> {
        if s.kind == SHT_NOBITS || s.flags & SHF_COMPRESSED != 0 {
            return None;
        }
        slice(self.data, s.offset, s.size)
    }

    /// The build-id note, in lower-case hex.
    pub fn build_id(&self) -> Option<String> {
        let notes = self.segments.iter().filter(|s| s.kind == PT_NOTE);
        let from_segments = notes.map(|s| (s.offset, s.filesz));
        let sections = self.sections.iter().filter(|s| s.kind == SHT_NOTE);
        let ranges = from_segments.chain(sections.map(|s| (s.offset, s.size)));
        let ranges = ranges.take(NOTE_LIMIT).map(|(at, len)| slice_clamped(self.data, at, len));
        ranges.into_iter().find_map(build_id_in)
    }

    /// `.eh_frame` with its link address: by section, else through `PT_GNU_EH_FRAME`.
    pub(crate) fn eh_frame(&self) -> Option<(u64, &'a [u8])> {
        if self.kind == BinaryKind::Rel {
            return None; // its addresses need relocations
        }
        if let Some((s, bytes)) = self.section(".eh_frame") {
            return Some((s.addr, bytes));
        }
        let hdr = self.segments.iter().find(|s| s.kind == PT_GNU_EH_FRAME)?;
        let bytes = slice_clamped(self.data, hdr.offset, hdr.filesz);
        // version 1, then three encodings; the pointer to .eh_frame is 4 bytes, relative to itself, in practice.
        if bytes.first() != Some(&1) || bytes.get(1) != Some(&0x1b) {
            return None;
        }
        let rel = crate::bytes::i32_at(bytes, 4)?;
        let addr = hdr.vaddr.wrapping_add(4).wrapping_add_signed(i64::from(rel));
        Some((addr, self.at_vaddr(addr)?))
    }

    /// Function-like symbols of `.symtab` and `.dynsym`, or of `PT_DYNAMIC`'s table when there are no sections.
    pub(crate) fn symbols(&self, budget: &mut Budget) -> Result<Vec<Symbol<'a>>, SymbolError> {
        let mut out = Vec::new();
        let mut any = false;
        for kind in [SHT_SYMTAB, SHT_DYNSYM] {
            // A file has at most one of each.
            let Some(table) = self.sections.iter().find(|s| s.kind == kind) else { continue };
            let Some(bytes) = self.section_bytes(table) else { continue };
            let strings = self.sections.get(table.link as usize);
            let Some(strings) = strings.and_then(|s| self.section_bytes(s)) else { continue };
            any = true;
            self.symbols_of(bytes, strings, budget, &mut out)?;
        }
        if !any && let Some((bytes, strings)) = self.dynamic_symbols() {
            self.symbols_of(bytes, strings, budget, &mut out)?;
        }
        Ok(out)
    }

    fn symbols_of(
        &self,
        table: &'a [u8],
        strings: &'a [u8],
        budget: &mut Budget,
        out: &mut Vec<Symbol<'a>>,
    ) -> Result<(), SymbolError> {
        for entry in table.as_chunks::<24>().0 {
            let (kind, bind) = (entry[4] & 0xf, entry[4] >> 4);
            let index = u16_at(entry, 6).unwrap_or(0);
            // FUNC and IFUNC are functions; NOTYPE may be an assembly label. Index 0: undefined.
            if !matches!(kind, 0 | 2 | 10) || index == 0 {
                continue;
            }
            let (Some(name), Some(value), Some(size)) =
                (u32_at(entry, 0), u64_at(entry, 8), u64_at(entry, 16))
            else {
                continue;
            };
            let mut addr = value;
            if self.kind == BinaryKind::Rel {
                let Some(section) = self.sections.get(usize::from(index)) else { continue };
                let Some(at) = section.offset.checked_add(value) else { continue };
                addr = at;
            }
            let name = budget.c_str(strings, name as usize, NAME_LIMIT)?;
            if let Some(name) = name.filter(|n| !n.is_empty()) {
                out.push(Symbol { name, addr, size, bind, is_function: kind != 0 });
            }
        }
        Ok(())
    }

    /// Symbol and string table as the dynamic linker finds them.
    fn dynamic_symbols(&self) -> Option<(&'a [u8], &'a [u8])> {
        let dynamic = self.segments.iter().find(|s| s.kind == PT_DYNAMIC)?;
        let bytes = slice_clamped(self.data, dynamic.offset, dynamic.filesz);
        let (mut symtab, mut strtab, mut strsz) = (None, None, None);
        for entry in bytes.as_chunks::<16>().0 {
            let value = u64_at(entry, 8);
            match u64_at(entry, 0)? {
                0 => break,
                5 => strtab = value,
                6 => symtab = value,
                10 => strsz = value,
                _ => {}
            }
        }
        let (symtab, strtab) = (symtab?, strtab?);
        let strings = self.at_vaddr(strtab)?;
        let strings = slice_clamped(strings, 0, strsz?);
        let mut table = self.at_vaddr(symtab)?;
        // The table's length is written nowhere; linkers put the strings right behind it.
        if strtab > symtab {
            table = slice_clamped(table, 0, strtab - symtab);
        }
        Some((table, strings))
    }
}

fn read_segments(data: &[u8]) -> Option<Vec<Segment>> {
    let offset = usize::try_from(u64_at(data, 32)?).ok()?;
    let (size, count) = (usize::from(u16_at(data, 54)?), usize::from(u16_at(data, 56)?));
    if size < 56 || offset == 0 {
        return Some(Vec::new());
    }
    let mut out = Vec::new();
    for i in 0..count.min(SEGMENT_LIMIT) {
        let Some(p) = offset.checked_add(i * size).and_then(|at| data.get(at..at.checked_add(56)?))
        else {
            break;
        };
        out.push(Segment {
            kind: u32_at(p, 0)?,
            flags: u32_at(p, 4)?,
            offset: u64_at(p, 8)?,
            vaddr: u64_at(p, 16)?,
            filesz: u64_at(p, 32)?,
        });
    }
    Some(out)
}

fn read_sections(data: &[u8]) -> Option<Vec<Section<'_>>> {
    let offset = usize::try_from(u64_at(data, 40)?).ok()?;
    let size = usize::from(u16_at(data, 58)?);
    let mut count = u64::from(u16_at(data, 60)?);
    let mut names = u32::from(u16_at(data, 62)?);
    if size < 64 || offset == 0 {
        return None;
    }
    let header = |i: u64| {
        let at = usize::try_from(i).ok()?.checked_mul(size)?.checked_add(offset)?;
        data.get(at..at.checked_add(64)?)
    };
    // Many sections (object files with a section per function): the real numbers are in section 0.
    if count == 0 {
        count = u64_at(header(0)?, 32)?;
    }
    if names == 0xffff {
        names = u32_at(header(0)?, 40)?;
    }
    let names = header(u64::from(names)).and_then(|h| slice(data, u64_at(h, 24)?, u64_at(h, 32)?));
    let mut out = Vec::new();
    for i in 0..count {
        let Some(h) = header(i) else { break };
        let name = names.and_then(|n| c_str(n, u32_at(h, 0)? as usize, 256));
        out.push(Section {
            name: name.unwrap_or(""),
            kind: u32_at(h, 4)?,
            flags: u64_at(h, 8)?,
            addr: u64_at(h, 16)?,
            offset: u64_at(h, 24)?,
            size: u64_at(h, 32)?,
            link: u32_at(h, 40)?,
        });
    }
    Some(out)
}

/// Looks for a GNU build-id in a note segment or section (4-byte aligned entries).
fn build_id_in(notes: &[u8]) -> Option<String> {
    let mut at = 0usize;
    while let (Some(namesz), Some(descsz), Some(kind)) =
        (u32_at(notes, at), u32_at(notes, at + 4), u32_at(notes, at + 8))
    {
        let name = notes.get(at + 12..)?;
        let desc_at = (at + 12).checked_add((namesz as usize).next_multiple_of(4))?;
        let desc_end = desc_at.checked_add(descsz as usize)?;
        if kind == 3 && namesz == 4 && name.starts_with(b"GNU\0") {
            let id = notes.get(desc_at..desc_end)?;
            if id.is_empty() || id.len() > 64 {
                return None;
            }
            return Some(id.iter().map(|b| format!("{b:02x}")).collect());
        }
        at = desc_at.checked_add((descsz as usize).next_multiple_of(4))?;
    }
    None
}
