//! What was wrong with a feed, and where.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Something in a feed that could not be read. The rest of the feed is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// The record in it (a CVE, a line).
    pub record: String,
    /// The field.
    pub field: String,
    /// What is wrong with it.
    pub what: String,
}

impl Problem {
    /// Something wrong.
    pub fn new(
        file: &str,
        record: impl Into<String>,
        field: impl Into<String>,
        what: impl Into<String>,
    ) -> Self {
        Self { file: file.into(), record: record.into(), field: field.into(), what: what.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}, {}: {}", self.file, self.record, self.field, self.what)
    }
}

/// A file of which nothing can be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("cannot read the feed {file}: {what}")]
pub struct FeedError {
    /// The file.
    pub file: String,
    /// Why, and where in it.
    pub what: String,
}

impl FeedError {
    /// Why nothing of this file can be read.
    pub fn new(file: &str, what: impl Into<String>) -> Self {
        Self { file: file.into(), what: what.into() }
    }

    /// The file is not the JSON that it should be.
    pub(crate) fn json(file: &str, what: &str, error: &serde_json::Error) -> Self {
        Self::new(file, format!("it is no {what}: {error}"))
    }
}
