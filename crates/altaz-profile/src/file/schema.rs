//! The columns of a profile file: their names, order and Parquet types, in one place.
//!
//! Adding a column is a minor change of the format; renaming, removing or retyping one is a major
//! change. `docs/profile-format.md` documents every line of this.

use std::sync::Arc;

use parquet::basic::{LogicalType, Repetition, Type as Physical};
use parquet::errors::ParquetError;
use parquet::schema::types::{Type, TypePtr};

/// Key of the manifest (JSON) in the file's key-value metadata.
pub(super) const MANIFEST_KEY: &str = "altaz.manifest";
/// Key of the checksum in the file's key-value metadata.
pub(super) const CHECKSUM_KEY: &str = "altaz.checksum";

/// A column of the file. The discriminant is its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Layer,
    Binary,
    BuildId,
    Symbol,
    Offset,
    Size,
    Covered,
    File,
    Line,
    Phase,
    Context,
    FirstWindow,
    Windows,
    Evidence,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    U32,
    U64,
    ListU32,
}

impl Column {
    /// Every column in file order.
    pub(super) const ALL: [Column; 14] = [
        Column::Layer,
        Column::Binary,
        Column::BuildId,
        Column::Symbol,
        Column::Offset,
        Column::Size,
        Column::Covered,
        Column::File,
        Column::Line,
        Column::Phase,
        Column::Context,
        Column::FirstWindow,
        Column::Windows,
        Column::Evidence,
    ];

    /// Name in the file.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Column::Layer => "layer",
            Column::Binary => "binary",
            Column::BuildId => "build_id",
            Column::Symbol => "symbol",
            Column::Offset => "offset",
            Column::Size => "size",
            Column::Covered => "covered",
            Column::File => "file",
            Column::Line => "line",
            Column::Phase => "phase",
            Column::Context => "context",
            Column::FirstWindow => "first_window",
            Column::Windows => "windows",
            Column::Evidence => "evidence",
        }
    }

    /// Type of its values.
    pub(super) const fn kind(self) -> Kind {
        match self {
            Column::Offset | Column::Size | Column::Covered => Kind::U64,
            Column::Line | Column::FirstWindow => Kind::U32,
            Column::Windows => Kind::ListU32,
            _ => Kind::Text,
        }
    }

    /// Whether a row may have no value here.
    pub(super) const fn nullable(self) -> bool {
        matches!(self, Column::BuildId | Column::Covered | Column::File | Column::Line)
    }
}

impl Kind {
    /// Parquet's physical type of the values.
    pub(super) const fn physical(self) -> Physical {
        match self {
            Kind::Text => Physical::BYTE_ARRAY,
            Kind::U32 | Kind::ListU32 => Physical::INT32,
            Kind::U64 => Physical::INT64,
        }
    }

    fn logical(self) -> LogicalType {
        match self {
            Kind::Text => LogicalType::String,
            Kind::U32 | Kind::ListU32 => LogicalType::integer(32, false),
            Kind::U64 => LogicalType::integer(64, false),
        }
    }
}

/// The Parquet schema of a profile file.
pub(super) fn parquet_schema() -> Result<TypePtr, ParquetError> {
    let mut fields = Vec::with_capacity(Column::ALL.len());
    for column in Column::ALL {
        let kind = column.kind();
        let repetition =
            if column.nullable() { Repetition::OPTIONAL } else { Repetition::REQUIRED };
        let name = if kind == Kind::ListU32 { "element" } else { column.name() };
        let value = Arc::new(
            Type::primitive_type_builder(name, kind.physical())
                .with_repetition(repetition)
                .with_logical_type(Some(kind.logical()))
                .build()?,
        );
        fields.push(if kind == Kind::ListU32 { list(column.name(), value)? } else { value });
    }
    Ok(Arc::new(Type::group_type_builder("altaz_profile").with_fields(fields).build()?))
}

/// The standard three-level list that every reader knows.
fn list(name: &str, element: TypePtr) -> Result<TypePtr, ParquetError> {
    let repeated = Type::group_type_builder("list")
        .with_repetition(Repetition::REPEATED)
        .with_fields(vec![element])
        .build()?;
    Ok(Arc::new(
        Type::group_type_builder(name)
            .with_repetition(Repetition::REQUIRED)
            .with_logical_type(Some(LogicalType::List))
            .with_fields(vec![Arc::new(repeated)])
            .build()?,
    ))
}
