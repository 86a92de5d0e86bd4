//! Bytes of a Parquet file → profile. No byte of the input is trusted.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::Compression;
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::serialized_reader::SerializedPageReader;
use serde::Deserialize;

use super::check::{self, Invalid};
use super::error::Fault;
use super::guard::{Budget, check_pages, checksum};
use super::limits;
use super::pages::CheckedPages;
use super::schema::{CHECKSUM_KEY, Column, Kind, MANIFEST_KEY};
use crate::model::{Context, Evidence, Layer, Manifest, Phase, Profile, SCHEMA, Unit};

const MAGIC: &[u8; 4] = b"PAR1";
/// Magic number at both ends, length of the footer before the last one.
const SHELL: u64 = 4 + 8;
/// Units decoded at a time, which bounds the scratch memory.
const BATCH: usize = 4 << 10;

impl From<ParquetError> for Fault {
    fn from(error: ParquetError) -> Self {
        Fault::damaged(error.to_string())
    }
}

/// Decodes a whole file.
pub(super) fn profile(bytes: Bytes) -> Result<Profile, Fault> {
    let length = bytes.len() as u64;
    let head: [u8; 4] = bytes.first_chunk().copied().unwrap_or_default();
    let tail = bytes.last_chunk().copied().unwrap_or_default();
    let footer_start = (length - footer_length(length, head, tail)? - 8) as usize;
    no_panic(|| {
        let metadata = parse_footer(&bytes[footer_start..bytes.len() - 8])?;
        let (manifest, text) = parse_manifest(&metadata)?;
        verify_checksum(&metadata, &bytes[..footer_start], text)?;
        let rows = Rows { bytes: &bytes, footer_start, metadata: &metadata };
        let profile = Profile { manifest, units: rows.units()? };
        match check::profile(&profile) {
            Ok(()) => Ok(profile),
            Err(Invalid::TooLarge { what, limit }) => Err(Fault::TooLarge { what, limit }),
            Err(rule) => Err(Fault::damaged(rule.to_string())),
        }
    })
}

/// Decodes only the manifest.
pub(super) fn manifest(file: &mut File) -> Result<Manifest, Fault> {
    let length = file.metadata().map_err(Fault::Io)?.len();
    let (mut head, mut tail) = ([0; 4], [0; 8]);
    if length >= SHELL {
        file.read_exact(&mut head).map_err(Fault::Io)?;
        file.seek(SeekFrom::End(-8)).map_err(Fault::Io)?;
        file.read_exact(&mut tail).map_err(Fault::Io)?;
    }
    let footer = footer_length(length, head, tail)?;
    file.seek(SeekFrom::Start(length - 8 - footer)).map_err(Fault::Io)?;
    let mut bytes = vec![0; footer as usize];
    file.read_exact(&mut bytes).map_err(Fault::Io)?;
    no_panic(|| {
        let metadata = parse_footer(&bytes)?;
        Ok(parse_manifest(&metadata)?.0)
    })
}

/// Runs a decoder; a panic in it becomes an error.
///
/// All sizes, offsets, counts and types are checked before the Parquet decoder sees them ([`super::guard`]
/// for the headers of pages, [`super::pages`] for their content), and no input is known that makes it
/// panic. It still asserts on its input in dozens of places, so this is the last resort that keeps a damaged file from taking down a report over a thousand good ones.
/// Nothing that the closure touches outlives it, so no broken state is seen afterwards.
fn no_panic<T>(decode: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(decode))
        .unwrap_or_else(|_| Err(Fault::damaged("the Parquet decoder gave up on it")))
}

/// Length of the footer, from both ends of the file.
fn footer_length(length: u64, head: [u8; 4], tail: [u8; 8]) -> Result<u64, Fault> {
    if length == 0 {
        return Err(Fault::NotAProfile("it is empty".to_owned()));
    }
    if length < SHELL || head != *MAGIC {
        return Err(Fault::NotAProfile("it is no Parquet file".to_owned()));
    }
    let [a, b, c, d, magic @ ..] = tail;
    if magic != *MAGIC {
        return Err(Fault::damaged("its end is missing, the file was cut short"));
    }
    let footer = u64::from(u32::from_le_bytes([a, b, c, d]));
    if footer > length - SHELL {
        return Err(Fault::damaged("its footer is longer than the file"));
    }
    if footer > limits::FOOTER_BYTES {
        let limit = limits::FOOTER_BYTES;
        return Err(Fault::TooLarge { what: "bytes of manifest", limit });
    }
    Ok(footer)
}

fn parse_footer(footer: &[u8]) -> Result<ParquetMetaData, Fault> {
    ParquetMetaDataReader::decode_metadata(footer)
        .map_err(|error| Fault::damaged(format!("its footer does not parse ({error})")))
}

/// A value of the file's key-value metadata.
fn value<'a>(metadata: &'a ParquetMetaData, key: &str) -> Option<&'a str> {
    let pairs = metadata.file_metadata().key_value_metadata()?;
    pairs.iter().find(|pair| pair.key == key)?.value.as_deref()
}

/// The manifest and its text.
fn parse_manifest(metadata: &ParquetMetaData) -> Result<(Manifest, &str), Fault> {
    /// The only part that every version of the manifest has.
    #[derive(Deserialize)]
    struct Head {
        schema: String,
    }
    let Some(text) = value(metadata, MANIFEST_KEY) else {
        return Err(Fault::NotAProfile(format!("it has no `{MANIFEST_KEY}` in its metadata")));
    };
    let bad = |error| Fault::damaged(format!("its manifest does not parse ({error})"));
    let Head { schema } = serde_json::from_str(text).map_err(bad)?;
    let (Some(found), Some(ours)) = (check::major(&schema), check::major(SCHEMA)) else {
        return Err(Fault::NotAProfile(format!("its manifest has the schema `{schema}`")));
    };
    if found > ours {
        return Err(Fault::NewerSchema(schema));
    }
    Ok((serde_json::from_str(text).map_err(bad)?, text))
}

/// A file that altaz wrote must be as altaz wrote it. Another program that rewrites the rows copies
/// our keys, but not our checksum's subject: it is recognised by the name it puts into the file.
fn verify_checksum(
    metadata: &ParquetMetaData,
    before_footer: &[u8],
    manifest: &str,
) -> Result<(), Fault> {
    let ours = metadata.file_metadata().created_by().is_some_and(|by| by.starts_with("altaz "));
    match value(metadata, CHECKSUM_KEY) {
        Some(expected) if ours && expected != checksum(before_footer, manifest) => {
            Err(Fault::damaged("its checksum does not match its content"))
        }
        None if ours => Err(Fault::damaged("its checksum is missing")),
        _ => Ok(()),
    }
}

/// The rows of a file whose footer has been parsed.
struct Rows<'a> {
    bytes: &'a Bytes,
    footer_start: usize,
    metadata: &'a ParquetMetaData,
}

impl Rows<'_> {
    fn units(&self) -> Result<Vec<Unit>, Fault> {
        let leaves = self.leaves()?;
        let mut rows = 0_u64;
        let mut budget = Budget::new();
        for group in self.metadata.row_groups() {
            let more = u64::try_from(group.num_rows())
                .map_err(|_| Fault::damaged("a row group has a negative number of rows"))?;
            rows = rows.saturating_add(more);
            for &leaf in &leaves {
                check_pages(self.chunk(group, leaf)?, &mut budget)?;
            }
        }
        if rows > limits::UNITS {
            return Err(Fault::TooLarge { what: "units", limit: limits::UNITS });
        }
        // No capacity from the promised number of rows: the vector grows with rows that exist.
        let mut units = Vec::new();
        let mut texts = Interner::default();
        for group in self.metadata.row_groups() {
            let mut columns = Columns::open(self, group, &leaves)?;
            let mut left = group.num_rows() as usize;
            while left > 0 {
                let batch = left.min(BATCH);
                columns.read(batch, &mut units, &mut texts)?;
                left -= batch;
            }
        }
        Ok(units)
    }

    /// Index of each column's leaf in the file, in the order of [`Column::ALL`]. Further columns are
    /// those of a later minor version and are skipped.
    fn leaves(&self) -> Result<[usize; 14], Fault> {
        let schema = self.metadata.file_metadata().schema_descr();
        let mut leaves = [0; 14];
        for (slot, column) in leaves.iter_mut().zip(Column::ALL) {
            let name = column.name();
            let mut found =
                (0..schema.num_columns()).filter(|&i| schema.get_column_root(i).name() == name);
            let (Some(leaf), None) = (found.next(), found.next()) else {
                return Err(Fault::damaged(format!("it has not exactly one column `{name}`")));
            };
            let descriptor = schema.column(leaf);
            let repeated = column.kind() == Kind::ListU32;
            // A list may be absent, empty, or have absent elements; anything else at most be absent.
            let levels = if repeated { 1..=3 } else { 0..=1 };
            if descriptor.physical_type() != column.kind().physical()
                || descriptor.max_rep_level() != i16::from(repeated)
                || !levels.contains(&descriptor.max_def_level())
            {
                return Err(Fault::damaged(format!("its column `{name}` has another type")));
            }
            *slot = leaf;
        }
        Ok(leaves)
    }

    /// The bytes of one column of one row group.
    fn chunk(&self, group: &RowGroupMetaData, leaf: usize) -> Result<&[u8], Fault> {
        let outside = || Fault::damaged("a column lies outside of the file");
        let column = group.columns().get(leaf).ok_or_else(outside)?;
        let schema = self.metadata.file_metadata().schema_descr();
        if column.column_type() != schema.column(leaf).physical_type() {
            return Err(Fault::damaged("a column's pages have another type than its schema"));
        }
        if !matches!(column.compression(), Compression::ZSTD(_) | Compression::UNCOMPRESSED) {
            return Err(Fault::NotAProfile(format!(
                "it is compressed with {}, and profiles are with zstd or not at all",
                column.compression()
            )));
        }
        let start = column.dictionary_page_offset().unwrap_or_else(|| column.data_page_offset());
        let start = usize::try_from(start).map_err(|_| outside())?;
        let length = usize::try_from(column.compressed_size()).map_err(|_| outside())?;
        let end = start.checked_add(length).filter(|&end| end <= self.footer_start);
        self.bytes.get(start..end.ok_or_else(outside)?).ok_or_else(outside)
    }

    fn reader<T: DataType>(&self, group: &RowGroupMetaData, leaf: usize) -> Result<Leaf<T>, Fault> {
        let descriptor = self.metadata.file_metadata().schema_descr().column(leaf);
        let rows = group.num_rows() as usize;
        let source = Arc::new(self.bytes.clone());
        let pages = SerializedPageReader::new(source, group.column(leaf), rows, None)?;
        let pages = CheckedPages::new(pages, descriptor.clone());
        let defined = descriptor.max_def_level();
        Ok(Leaf {
            name: Column::ALL
                .into_iter()
                .find(|c| c.name() == descriptor.path().parts()[0])
                .map_or("?", Column::name),
            defined,
            reader: ColumnReaderImpl::new(descriptor, Box::new(pages)),
            values: Vec::new(),
            definition: Vec::new(),
            repetition: Vec::new(),
        })
    }
}

/// One column being read, with its scratch buffers.
struct Leaf<T: DataType> {
    name: &'static str,
    /// Definition level of a value that is there.
    defined: i16,
    reader: ColumnReaderImpl<T>,
    values: Vec<T::T>,
    definition: Vec<i16>,
    repetition: Vec<i16>,
}

impl<T: DataType> Leaf<T> {
    /// Fills the buffers with exactly `rows` rows.
    fn fill(&mut self, rows: usize) -> Result<(), Fault> {
        self.values.clear();
        self.definition.clear();
        self.repetition.clear();
        let (records, _, _) = self.reader.read_records(
            rows,
            Some(&mut self.definition),
            Some(&mut self.repetition),
            &mut self.values,
        )?;
        if records != rows {
            return Err(Fault::damaged(format!("its column `{}` has too few rows", self.name)));
        }
        Ok(())
    }

    fn missing(&self) -> Fault {
        Fault::damaged(format!("its column `{}` lacks a value", self.name))
    }

    /// The next rows, `None` where a row has no value.
    fn optional(&mut self, rows: usize) -> Result<Vec<Option<T::T>>, Fault> {
        self.fill(rows)?;
        if self.defined == 0 {
            return Ok(self.values.drain(..).map(Some).collect());
        }
        if self.definition.len() != rows {
            return Err(self.missing());
        }
        let mut values = self.values.drain(..);
        Ok(self
            .definition
            .iter()
            .map(|&level| if level == self.defined { values.next() } else { None })
            .collect())
    }

    /// The next rows, each of which must have a value.
    fn required(&mut self, rows: usize) -> Result<Vec<T::T>, Fault> {
        if self.defined == 0 {
            self.fill(rows)?;
            return Ok(std::mem::take(&mut self.values));
        }
        let values: Option<Vec<T::T>> = self.optional(rows)?.into_iter().collect();
        values.ok_or_else(|| self.missing())
    }
}

impl Leaf<Int32Type> {
    /// The next rows of a list column. An absent list is an empty one.
    fn lists(&mut self, rows: usize) -> Result<Vec<Vec<u32>>, Fault> {
        self.fill(rows)?;
        let elements = self.repetition.len();
        if elements < rows || (self.defined > 0 && self.definition.len() != elements) {
            return Err(self.missing());
        }
        let mut lists: Vec<Vec<u32>> = Vec::with_capacity(rows);
        let mut values = self.values.iter();
        for (at, &repetition) in self.repetition.iter().enumerate() {
            if repetition == 0 {
                lists.push(Vec::new());
            }
            if self.definition.get(at).is_none_or(|&level| level == self.defined) {
                let (Some(list), Some(&value)) = (lists.last_mut(), values.next()) else {
                    return Err(self.missing());
                };
                list.push(value as u32);
            }
        }
        for list in &mut lists {
            list.shrink_to_fit();
        }
        if lists.len() == rows { Ok(lists) } else { Err(self.missing()) }
    }
}

/// Equal texts share one allocation: binaries and files repeat in thousands of rows.
#[derive(Default)]
struct Interner(HashSet<Arc<str>>);

impl Interner {
    fn get(&mut self, bytes: &ByteArray) -> Result<Arc<str>, Fault> {
        let text = std::str::from_utf8(bytes.data())
            .map_err(|_| Fault::damaged("a text in it is not UTF-8"))?;
        if let Some(known) = self.0.get(text) {
            return Ok(known.clone());
        }
        let text: Arc<str> = Arc::from(text);
        self.0.insert(text.clone());
        Ok(text)
    }

    fn all(&mut self, values: Vec<ByteArray>) -> Result<Vec<Arc<str>>, Fault> {
        values.iter().map(|value| self.get(value)).collect()
    }

    fn some(&mut self, values: Vec<Option<ByteArray>>) -> Result<Vec<Option<Arc<str>>>, Fault> {
        values.iter().map(|value| value.as_ref().map(|v| self.get(v)).transpose()).collect()
    }
}

/// All columns of one row group, read side by side.
struct Columns {
    layer: Leaf<ByteArrayType>,
    binary: Leaf<ByteArrayType>,
    build_id: Leaf<ByteArrayType>,
    symbol: Leaf<ByteArrayType>,
    offset: Leaf<Int64Type>,
    size: Leaf<Int64Type>,
    covered: Leaf<Int64Type>,
    file: Leaf<ByteArrayType>,
    line: Leaf<Int32Type>,
    phase: Leaf<ByteArrayType>,
    context: Leaf<ByteArrayType>,
    first_window: Leaf<Int32Type>,
    windows: Leaf<Int32Type>,
    evidence: Leaf<ByteArrayType>,
}

impl Columns {
    fn open(
        rows: &Rows<'_>,
        group: &RowGroupMetaData,
        leaves: &[usize; 14],
    ) -> Result<Self, Fault> {
        let text = |column: Column| rows.reader::<ByteArrayType>(group, leaves[column as usize]);
        let u64s = |column: Column| rows.reader::<Int64Type>(group, leaves[column as usize]);
        let u32s = |column: Column| rows.reader::<Int32Type>(group, leaves[column as usize]);
        Ok(Columns {
            layer: text(Column::Layer)?,
            binary: text(Column::Binary)?,
            build_id: text(Column::BuildId)?,
            symbol: text(Column::Symbol)?,
            offset: u64s(Column::Offset)?,
            size: u64s(Column::Size)?,
            covered: u64s(Column::Covered)?,
            file: text(Column::File)?,
            line: u32s(Column::Line)?,
            phase: text(Column::Phase)?,
            context: text(Column::Context)?,
            first_window: u32s(Column::FirstWindow)?,
            windows: u32s(Column::Windows)?,
            evidence: text(Column::Evidence)?,
        })
    }

    /// Reads the next `rows` rows of every column and appends them as units.
    fn read(
        &mut self,
        rows: usize,
        units: &mut Vec<Unit>,
        texts: &mut Interner,
    ) -> Result<(), Fault> {
        let layer = names(&mut self.layer, rows, Layer::parse)?;
        let phase = names(&mut self.phase, rows, Phase::parse)?;
        let context = names(&mut self.context, rows, Context::parse)?;
        let evidence = names(&mut self.evidence, rows, Evidence::parse)?;
        let offset = self.offset.required(rows)?;
        let size = self.size.required(rows)?;
        let covered = self.covered.optional(rows)?;
        let line = self.line.optional(rows)?;
        let first_window = self.first_window.required(rows)?;
        let mut binary = texts.all(self.binary.required(rows)?)?.into_iter();
        let mut symbol = texts.all(self.symbol.required(rows)?)?.into_iter();
        let mut build_id = texts.some(self.build_id.optional(rows)?)?.into_iter();
        let mut file = texts.some(self.file.optional(rows)?)?.into_iter();
        let mut windows = self.windows.lists(rows)?.into_iter();
        for row in 0..rows {
            // Every column above has exactly `rows` entries.
            let (Some(binary), Some(symbol)) = (binary.next(), symbol.next()) else {
                return Err(self.binary.missing());
            };
            units.push(Unit {
                layer: layer[row],
                binary,
                build_id: build_id.next().flatten(),
                symbol,
                offset: offset[row] as u64,
                size: size[row] as u64,
                covered: covered[row].map(|bytes| bytes as u64),
                file: file.next().flatten(),
                line: line[row].map(|line| line as u32),
                phase: phase[row],
                context: context[row],
                first_window: first_window[row] as u32,
                windows: windows.next().unwrap_or_default(),
                evidence: evidence[row],
            });
        }
        Ok(())
    }
}

/// The next rows of a column of names.
fn names<T>(
    leaf: &mut Leaf<ByteArrayType>,
    rows: usize,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, Fault> {
    leaf.required(rows)?
        .iter()
        .map(|value| {
            let text = String::from_utf8_lossy(value.data());
            parse(&text).ok_or_else(|| {
                let shown: String = text.chars().take(40).collect();
                Fault::damaged(format!("its column `{}` has the unknown `{shown}`", leaf.name))
            })
        })
        .collect()
}
