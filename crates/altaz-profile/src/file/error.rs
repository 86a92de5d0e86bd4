//! What can go wrong with a profile file, in words that say what to do.

use std::io;

use super::check::Invalid;
use crate::model::SCHEMA;

/// Error of reading or writing a profile file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The operating system refused to read.
    #[error("cannot read the profile {file}: {source}")]
    Read {
        /// Path of the file.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// The operating system refused to write. An earlier file of that name is unchanged.
    #[error(
        "cannot write the profile {file} ({step}): {source}. A file that was there is unchanged. {}",
        remedy(source)
    )]
    Write {
        /// Path of the file.
        file: String,
        /// What was being done.
        step: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The file is something else.
    #[error("{file} is not an altaz profile: {detail}. Give a file that altaz has recorded")]
    NotAProfile {
        /// Path of the file.
        file: String,
        /// What gives it away.
        detail: String,
    },
    /// The file was a profile once.
    #[error(
        "the profile {file} is damaged: {detail}. Take a good copy of the file, or record it again"
    )]
    Damaged {
        /// Path of the file.
        file: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A later altaz wrote the file.
    #[error(
        "the profile {file} has the schema {found}, and this altaz reads up to {SCHEMA}. Read it \
         with a newer altaz"
    )]
    NewerSchema {
        /// Path of the file.
        file: String,
        /// Schema of the file.
        found: String,
    },
    /// More of something than a profile may have.
    #[error(
        "the profile {file} has more than {limit} {what}, which is the most that altaz reads. \
         Split the recording"
    )]
    TooLarge {
        /// Path of the file.
        file: String,
        /// What there is too much of.
        what: &'static str,
        /// How much of it is allowed.
        limit: u64,
    },
    /// The profile in memory breaks a rule of the format. Nothing was written.
    #[error(
        "refused to write the profile {file}: {source}. This is a defect of the program that made \
         the profile: report it"
    )]
    Invalid {
        /// Path of the file.
        file: String,
        /// The broken rule.
        source: Invalid,
    },
    /// The encoder failed. Nothing was written.
    #[error("cannot encode the profile {file}: {detail}. This is a defect of altaz: report it")]
    Encode {
        /// Path of the file.
        file: String,
        /// What the encoder said.
        detail: String,
    },
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "Free space there, or choose another directory"
        }
        io::ErrorKind::FileTooLarge => "Raise the limit of file sizes (ulimit -f)",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "Choose a directory that you may write to"
        }
        io::ErrorKind::NotFound => "Create the directory first",
        _ => "Choose another path, or repair the file system",
    }
}

/// A fault found while decoding, before it is known which file it is in.
#[derive(Debug)]
pub(super) enum Fault {
    Io(io::Error),
    NotAProfile(String),
    Damaged(String),
    NewerSchema(String),
    TooLarge { what: &'static str, limit: u64 },
}

impl Fault {
    pub(super) fn damaged(detail: impl Into<String>) -> Self {
        Fault::Damaged(detail.into())
    }

    pub(super) fn of(self, file: &str) -> FileError {
        let file = file.to_owned();
        match self {
            Fault::Io(source) => FileError::Read { file, source },
            Fault::NotAProfile(detail) => FileError::NotAProfile { file, detail },
            Fault::Damaged(detail) => FileError::Damaged { file, detail },
            Fault::NewerSchema(found) => FileError::NewerSchema { file, found },
            Fault::TooLarge { what, limit } => FileError::TooLarge { file, what, limit },
        }
    }
}
