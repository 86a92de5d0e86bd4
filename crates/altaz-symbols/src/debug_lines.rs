//! Source file and line of functions from `.debug_line`, which the service's own programs may have.
//!
//! Only the rows at function starts are kept. Distribution packages are stripped of this section; compressed ones
//! (`-gz`) are not read.

use crate::SymbolError;
use crate::bytes::Budget;
use crate::elf::Elf;
use crate::layout::Claim;
use gimli::{
    DebugLine, DebugLineOffset, DebugLineStr, DebugStr, EndianSlice, LineRow, LittleEndian, Section,
};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

type Reader<'a> = EndianSlice<'a, LittleEndian>;
type Header<'a> = gimli::LineProgramHeader<Reader<'a>>;

/// Longer paths than this are left out.
const PATH_LIMIT: usize = 4096;

/// File and line of those claims that have none and whose start the line table knows, by link address.
pub(crate) fn at_starts(
    elf: &Elf<'_>,
    claims: &[Claim],
    budget: &mut Budget,
) -> Result<HashMap<u64, (Arc<str>, u32)>, SymbolError> {
    let mut out = HashMap::new();
    let Some((_, bytes)) = elf.section(".debug_line") else { return Ok(out) };
    let starts: HashSet<u64> =
        claims.iter().filter(|c| c.file.is_none()).map(|c| c.start).collect();
    let section = |name| elf.section(name).map_or(&[][..], |(_, bytes)| bytes);
    let strings = Strings {
        line: DebugLineStr::load(|id| ok(section(id.name()))).unwrap_or_default(),
        general: DebugStr::load(|id| ok(section(id.name()))).unwrap_or_default(),
    };
    let lines = DebugLine::new(bytes, LittleEndian);
    let mut offset = 0usize;
    // Units follow each other; each says how long it is.
    while let Ok(program) = lines.program(DebugLineOffset(offset), 8, None, None) {
        let header = program.header();
        let length_field = if header.format() == gimli::Format::Dwarf64 { 12 } else { 4 };
        let Some(next) = offset.checked_add(header.unit_length() + length_field) else { break };
        let mut files: HashMap<u64, Option<Arc<str>>> = HashMap::new();
        let mut rows = program.rows();
        while let Ok(Some((header, row))) = rows.next_row() {
            let at = row.address();
            if row.end_sequence() || !starts.contains(&at) || out.contains_key(&at) {
                continue;
            }
            let file = match files.get(&row.file_index()) {
                Some(known) => known.clone(),
                None => {
                    let path = strings.path(header, row);
                    budget.take(path.as_ref().map_or(0, |p| p.len()))?;
                    files.entry(row.file_index()).or_insert(path).clone()
                }
            };
            let line = row.line().and_then(|l| u32::try_from(l.get()).ok());
            if let (Some(file), Some(line)) = (file, line) {
                out.insert(at, (file, line));
            }
        }
        offset = next;
    }
    Ok(out)
}

fn ok<'a>(bytes: &'a [u8]) -> Result<Reader<'a>, gimli::Error> {
    Ok(EndianSlice::new(bytes, LittleEndian))
}

struct Strings<'a> {
    line: DebugLineStr<Reader<'a>>,
    general: DebugStr<Reader<'a>>,
}

impl<'a> Strings<'a> {
    fn text(&self, value: &gimli::AttributeValue<Reader<'a>>) -> Option<&'a str> {
        let reader = match value {
            gimli::AttributeValue::String(s) => *s,
            gimli::AttributeValue::DebugLineStrRef(at) => self.line.get_str(*at).ok()?,
            gimli::AttributeValue::DebugStrRef(at) => self.general.get_str(*at).ok()?,
            _ => return None,
        };
        std::str::from_utf8(reader.slice()).ok().filter(|s| s.len() <= PATH_LIMIT)
    }

    /// The file of a row with as much of its directory as the table has.
    fn path(&self, header: &Header<'a>, row: &LineRow) -> Option<Arc<str>> {
        let file = row.file(header)?;
        let name = self.text(&file.path_name())?;
        if name.starts_with('/') {
            return Some(Arc::from(name));
        }
        let directory = file.directory(header).and_then(|d| self.text(&d)).unwrap_or("");
        // Directory 0 is where the compiler ran; others may be relative to it.
        let root = if directory.starts_with('/') || file.directory_index() == 0 {
            ""
        } else {
            header.directory(0).as_ref().and_then(|d| self.text(d)).unwrap_or("")
        };
        let parts: Vec<&str> =
            [root, directory, name].into_iter().filter(|p| !p.is_empty()).collect();
        Some(Arc::from(parts.join("/")))
    }
}
