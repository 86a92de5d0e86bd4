//! Functions of Go programs from `.gopclntab`, the table Go's own runtime unwinds with; stripping keeps it.
//!
//! Formats of Go 1.16, 1.18 and 1.20 and later (the table changed at these versions; what lies between uses the older
//! format). Layout as in Go's `runtime/symtab.go` and `debug/gosym/pclntab.go`, read again here with checked offsets.

use crate::SymbolError;
use crate::bytes::{Budget, slice, u32_at, u64_at};
use std::collections::HashMap;
use std::sync::Arc;

/// One function of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoFunction {
    /// Link address.
    pub addr: u64,
    /// Bytes up to the next function (includes padding).
    pub size: u64,
    /// Full name, such as `net/http.(*conn).serve`.
    pub name: String,
    /// Source file, as the compiler was given it.
    pub file: Option<Arc<str>>,
    /// Line of the function's declaration (before Go 1.20: of its first instruction).
    pub line: Option<u32>,
}

/// Format of a table, named by the first Go version that wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Version {
    Go116,
    Go118,
    Go120,
}

const WHAT: &str = ".gopclntab";

struct Table<'a> {
    data: &'a [u8],
    version: Version,
    functions: usize,
    text: u64,
    names: usize,
    units: usize,
    files: usize,
    pc_values: usize,
    function_table: usize,
    quantum: u32,
}

struct Description<'a> {
    name: &'a str,
    file: Option<Arc<str>>,
    line: Option<u32>,
}

/// Whether `data` begins like a table this module reads.
pub fn looks_like(data: &[u8]) -> bool {
    version_of(data).is_some()
}

fn version_of(data: &[u8]) -> Option<Version> {
    let version = match u32_at(data, 0)? {
        0xffff_fffa => Version::Go116,
        0xffff_fff0 => Version::Go118,
        0xffff_fff1 => Version::Go120,
        _ => return None,
    };
    // two bytes of padding, instruction quantum, pointer size (8: only 64-bit files get here)
    let ok = data.get(4..6)? == [0, 0] && matches!(data.get(6)?, 1 | 2 | 4) && *data.get(7)? == 8;
    ok.then_some(version)
}

/// Reads all functions of a table. `text` is the link address of `runtime.text`, used when the table itself does not
/// hold it (position-independent programs, newer linkers).
///
/// # Errors
/// When the header is not one of the formats above or its offsets point outside the table. Damaged entries behind a
/// good header are left out.
pub fn functions(data: &[u8], text: Option<u64>) -> Result<Vec<GoFunction>, SymbolError> {
    let table = Table::parse(data, text)?;
    let entry_size = if table.version == Version::Go116 { 16 } else { 8 };
    let room = data.len().saturating_sub(table.function_table) / entry_size;
    if table.functions > room {
        return Err(SymbolError::TooLarge {
            what: WHAT,
            claimed: table.functions as u64,
            limit: room as u64,
        });
    }
    let mut files = HashMap::new();
    let mut out = Vec::with_capacity(table.functions);
    let mut budget = Budget::new(data.len());
    for i in 0..table.functions {
        let (Some((addr, info)), Some((end, _))) = (table.entry(i), table.entry(i + 1)) else {
            continue;
        };
        let Ok(found) = table.describe(info, &mut files, &mut budget) else { break };
        let Some(Description { name, file, line }) = found else { continue };
        if end <= addr || name.is_empty() {
            continue;
        }
        out.push(GoFunction { addr, size: end - addr, name: name.to_string(), file, line });
    }
    Ok(out)
}

impl<'a> Table<'a> {
    fn parse(data: &'a [u8], text: Option<u64>) -> Result<Self, SymbolError> {
        let version = version_of(data).ok_or_else(|| {
            SymbolError::damaged(
                WHAT,
                "its header is not that of Go 1.16 or later on a 64-bit machine",
            )
        })?;
        let word = |i: usize| {
            let value = u64_at(data, 8 + 8 * i);
            let value = value.ok_or_else(|| SymbolError::damaged(WHAT, "the header is cut off"))?;
            usize::try_from(value)
                .map_err(|_| SymbolError::damaged(WHAT, format!("header word {i} is {value:#x}")))
        };
        // Number of functions, number of files, (1.18: address of the text), then five offsets.
        let first = if version == Version::Go116 { 2 } else { 3 };
        let offset = |i: usize| {
            let value = word(first + i)?;
            if value >= data.len() {
                let detail =
                    format!("offset {i} is {value:#x}, the table has {} bytes", data.len());
                return Err(SymbolError::damaged(WHAT, detail));
            }
            Ok(value)
        };
        let own_text = if version == Version::Go116 { 0 } else { word(2)? as u64 };
        Ok(Self {
            data,
            version,
            functions: word(0)?,
            text: if own_text == 0 { text.unwrap_or(0) } else { own_text },
            names: offset(0)?,
            units: offset(1)?,
            files: offset(2)?,
            pc_values: offset(3)?,
            function_table: offset(4)?,
            quantum: u32::from(data[6]),
        })
    }

    /// Address and position of the description of function `i`; the last entry has only an address that counts.
    fn entry(&self, i: usize) -> Option<(u64, usize)> {
        let size = if self.version == Version::Go116 { 16 } else { 8 };
        let at = self.function_table.checked_add(i.checked_mul(size)?)?;
        let (addr, info) = if self.version == Version::Go116 {
            (u64_at(self.data, at)?, u64_at(self.data, at + 8).unwrap_or(u64::MAX))
        } else {
            let addr = self.text.checked_add(u64::from(u32_at(self.data, at)?))?;
            (addr, u64::from(u32_at(self.data, at + 4).unwrap_or(u32::MAX)))
        };
        let info = usize::try_from(info).unwrap_or(usize::MAX);
        Some((addr, self.function_table.saturating_add(info)))
    }

    fn describe(
        &self,
        info: usize,
        files: &mut HashMap<usize, Option<Arc<str>>>,
        budget: &mut Budget,
    ) -> Result<Option<Description<'a>>, SymbolError> {
        // entry (8 or 4 bytes), then 32-bit fields: name, args, deferreturn, pcsp, pcfile, pcln, npcdata, unit, line
        let entry = if self.version == Version::Go116 { 8 } else { 4 };
        let field = |i: usize| u32_at(self.data, info.checked_add(entry + 4 * i)?);
        let name_at = field(0).and_then(|at| self.names.checked_add(at as usize));
        let Some(name_at) = name_at else { return Ok(None) };
        let Some(name) = budget.c_str(self.data, name_at, crate::elf::NAME_LIMIT)? else {
            return Ok(None);
        };
        let line = if self.version == Version::Go120 {
            field(8)
        } else {
            field(5).and_then(|at| self.first_value(at))
        };
        let line = line.filter(|&l| l > 0 && l < 1 << 30);
        let file_at = field(4).zip(field(7)).and_then(|(at, unit)| self.file_name_at(at, unit));
        let file = match file_at {
            None => None,
            Some(at) => match files.get(&at) {
                Some(known) => known.clone(),
                None => {
                    let name = budget.c_str(self.data, at, 4096)?.filter(|s| !s.is_empty());
                    files.entry(at).or_insert(name.map(Arc::from)).clone()
                }
            },
        };
        Ok(Some(Description { name, file, line }))
    }

    /// Where the name of a function's file is, by its pc-value table of files and its compilation unit.
    fn file_name_at(&self, values: u32, unit: u32) -> Option<usize> {
        let number = self.first_value(values)?;
        let slot = 4 * (unit as usize).checked_add(number as usize)?;
        let name_at = u32_at(self.data, self.units.checked_add(slot)?)?;
        if name_at == u32::MAX {
            return None;
        }
        self.files.checked_add(name_at as usize)
    }

    /// The value that a pc-value table holds at the function's entry: the first delta counts from -1.
    fn first_value(&self, at: u32) -> Option<u32> {
        if at == 0 || self.quantum == 0 {
            return None;
        }
        let bytes = slice(self.data, (self.pc_values as u64).checked_add(u64::from(at))?, 1)
            .and_then(|_| self.data.get(self.pc_values + at as usize..))?;
        let mut delta = 0u32;
        for (i, &byte) in bytes.iter().take(5).enumerate() {
            delta |= u32::from(byte & 0x7f).checked_shl(7 * i as u32)?;
            if byte & 0x80 == 0 {
                // zig-zag
                let signed = (delta >> 1).cast_signed() ^ -((delta & 1).cast_signed());
                return u32::try_from(signed.checked_sub(1)?).ok();
            }
        }
        None
    }
}
