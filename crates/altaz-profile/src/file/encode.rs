//! Profile → bytes of a Parquet file. No file is touched here.

use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};

use super::guard::checksum;
use super::schema::{CHECKSUM_KEY, Column, MANIFEST_KEY, parquet_schema};
use crate::model::{Profile, Unit};

/// Units of one row group: enough to compress well, few enough to be read in parallel by others.
const ROW_GROUP: usize = 64 << 10;
/// Units handed to the column writer at a time, which bounds the scratch memory.
const BATCH: usize = 4 << 10;
/// Level of zstd: its default, which is fast and within a few per cent of the slow ones here.
const ZSTD_LEVEL: i32 = 3;

/// Encodes a profile that [`super::check`] has found valid.
pub(super) fn profile(profile: &Profile) -> Result<Vec<u8>, ParquetError> {
    let manifest = serde_json::to_string(&profile.manifest)
        .map_err(|error| ParquetError::General(format!("the manifest is not JSON: {error}")))?;
    let properties = WriterProperties::builder()
        .set_created_by(format!("altaz {}", env!("CARGO_PKG_VERSION")))
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_dictionary_enabled(true)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .build();
    let mut file = SerializedFileWriter::new(Vec::new(), parquet_schema()?, Arc::new(properties))?;
    for units in profile.units.chunks(ROW_GROUP) {
        let mut group = file.next_row_group()?;
        for column in Column::ALL {
            let mut writer = group.next_column()?.ok_or_else(|| {
                ParquetError::General(format!("the schema lacks the column {}", column.name()))
            })?;
            for batch in units.chunks(BATCH) {
                write_column(column, &mut writer, batch)?;
            }
            writer.close()?;
        }
        group.close()?;
    }
    // Between here and the footer nothing else is written: no page index, no Bloom filter. So the
    // checksum covers all bytes up to the footer.
    file.flush()?;
    let checksum = checksum(file.inner(), &manifest);
    file.append_key_value_metadata(KeyValue::new(MANIFEST_KEY.to_owned(), manifest));
    file.append_key_value_metadata(KeyValue::new(CHECKSUM_KEY.to_owned(), checksum));
    file.into_inner()
}

fn write_column(
    column: Column,
    writer: &mut SerializedColumnWriter<'_>,
    units: &[Unit],
) -> Result<(), ParquetError> {
    match column {
        Column::Layer => texts(writer, units, |u| u.layer.as_str()),
        Column::Binary => texts(writer, units, |u| &u.binary),
        Column::BuildId => optional_texts(writer, units, |u| u.build_id.as_deref()),
        Column::Symbol => texts(writer, units, |u| &u.symbol),
        Column::Offset => required::<Int64Type>(writer, units, |u| u.offset as i64),
        Column::Size => required::<Int64Type>(writer, units, |u| u.size as i64),
        Column::Covered => {
            optional::<Int64Type>(writer, units, |u| u.covered.map(|bytes| bytes as i64))
        }
        Column::File => optional_texts(writer, units, |u| u.file.as_deref()),
        Column::Line => optional::<Int32Type>(writer, units, |u| u.line.map(|l| l as i32)),
        Column::Phase => texts(writer, units, |u| u.phase.as_str()),
        Column::Context => texts(writer, units, |u| u.context.as_str()),
        Column::FirstWindow => required::<Int32Type>(writer, units, |u| u.first_window as i32),
        Column::Windows => windows(writer, units),
        Column::Evidence => texts(writer, units, |u| u.evidence.as_str()),
    }
}

// Unsigned numbers are stored in the signed physical type of the same width, bit for bit; the
// logical type in the schema says that they are unsigned. The casts above are that reinterpretation.

fn required<T: DataType>(
    writer: &mut SerializedColumnWriter<'_>,
    units: &[Unit],
    value: impl Fn(&Unit) -> T::T,
) -> Result<(), ParquetError> {
    let values: Vec<T::T> = units.iter().map(value).collect();
    writer.typed::<T>().write_batch(&values, None, None)?;
    Ok(())
}

fn optional<T: DataType>(
    writer: &mut SerializedColumnWriter<'_>,
    units: &[Unit],
    value: impl Fn(&Unit) -> Option<T::T>,
) -> Result<(), ParquetError> {
    let mut values = Vec::with_capacity(units.len());
    let mut levels = Vec::with_capacity(units.len());
    for unit in units {
        let value = value(unit);
        levels.push(i16::from(value.is_some()));
        values.extend(value);
    }
    writer.typed::<T>().write_batch(&values, Some(&levels), None)?;
    Ok(())
}

fn texts<'a>(
    writer: &mut SerializedColumnWriter<'_>,
    units: &'a [Unit],
    value: impl Fn(&'a Unit) -> &'a str,
) -> Result<(), ParquetError> {
    let values: Vec<ByteArray> =
        units.iter().map(|unit| ByteArray::from(value(unit).as_bytes())).collect();
    writer.typed::<ByteArrayType>().write_batch(&values, None, None)?;
    Ok(())
}

fn optional_texts(
    writer: &mut SerializedColumnWriter<'_>,
    units: &[Unit],
    value: impl Fn(&Unit) -> Option<&str>,
) -> Result<(), ParquetError> {
    optional::<ByteArrayType>(writer, units, |u| value(u).map(|t| ByteArray::from(t.as_bytes())))
}

fn windows(writer: &mut SerializedColumnWriter<'_>, units: &[Unit]) -> Result<(), ParquetError> {
    let total = units.iter().map(|unit| unit.windows.len()).sum();
    let mut values = Vec::with_capacity(total);
    let mut repetition = Vec::with_capacity(total);
    for unit in units {
        for (position, &window) in unit.windows.iter().enumerate() {
            repetition.push(i16::from(position > 0));
            values.push(window as i32);
        }
    }
    // Valid units were seen in at least one window: no list is empty, every element is defined.
    let definition = vec![1; total];
    writer.typed::<Int32Type>().write_batch(&values, Some(&definition), Some(&repetition))?;
    Ok(())
}
