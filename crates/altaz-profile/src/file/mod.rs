//! The profile file: one Parquet file, a row per unit, the manifest as JSON in its metadata.
//!
//! This is the only room of the workspace that knows Parquet. Writing is atomic: whoever opens the
//! path sees the earlier file or the whole new one. Reading takes files from strangers: a damaged or
//! hostile file gives an error, never a panic, and memory stays under [`limits`].
//!
//! The format is documented in `docs/profile-format.md`.

mod atomic;
mod check;
mod decode;
mod encode;
mod error;
mod guard;
mod pages;
mod schema;

use std::io::Read as _;
use std::path::Path;

use bytes::Bytes;

use crate::model::{Manifest, Profile};
pub use check::Invalid;
pub use error::FileError;

/// Bounds of what is written and read. They stand far above a real profile (tens of thousands of
/// units, hundreds of windows) and keep a hostile file from taking the machine's memory.
pub mod limits {
    /// Units of one profile.
    pub const UNITS: u64 = 4 << 20;
    /// Sum over all units of the windows that they were seen in.
    pub const INCIDENCES: u64 = 256 << 20;
    /// Bytes of the file.
    pub const FILE_BYTES: u64 = 2 << 30;
    /// Bytes of the file's footer, which holds the manifest.
    pub const FOOTER_BYTES: u64 = 64 << 20;
    /// Bytes of one page once it is decompressed.
    pub const PAGE_BYTES: u64 = 64 << 20;
    /// Bytes of all pages once they are decompressed.
    pub const DECODED_BYTES: u64 = 4 << 30;
}

/// Writes a profile to `path`, replacing an earlier file only once the new one is complete and on
/// the disk.
///
/// # Errors
/// [`FileError::Invalid`] when the profile breaks a rule of the format, before anything is written;
/// [`FileError::Write`] when the disk refuses. The earlier file is unchanged in both cases.
pub fn write(profile: &Profile, path: &Path) -> Result<(), FileError> {
    let file = path.display().to_string();
    let bytes = encode(profile, &file)?;
    atomic::replace(path, &bytes).map_err(|(step, source)| FileError::Write { file, step, source })
}

/// The bytes that [`write()`] would put into the file.
///
/// # Errors
/// [`FileError::Invalid`] when the profile breaks a rule of the format.
pub fn to_bytes(profile: &Profile) -> Result<Vec<u8>, FileError> {
    encode(profile, "the profile in memory")
}

/// Reads a profile.
///
/// # Errors
/// When the file cannot be read, is not a profile, is damaged, or has a newer major schema. The
/// message names the file and says what to do.
pub fn read(path: &Path) -> Result<Profile, FileError> {
    let file = path.display().to_string();
    let failed = |source| FileError::Read { file: file.clone(), source };
    let mut handle = open(path).map_err(failed)?;
    let length = handle.metadata().map_err(failed)?.len();
    if length > limits::FILE_BYTES {
        return Err(FileError::TooLarge { file, what: "bytes", limit: limits::FILE_BYTES });
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    // The file may grow while it is read; the bound holds all the same.
    let limit = limits::FILE_BYTES;
    std::io::Read::by_ref(&mut handle).take(limit).read_to_end(&mut bytes).map_err(failed)?;
    decode::profile(Bytes::from(bytes)).map_err(|fault| fault.of(&file))
}

/// Reads a profile from memory.
///
/// # Errors
/// As [`read`].
pub fn from_bytes(bytes: &[u8]) -> Result<Profile, FileError> {
    decode::profile(Bytes::copy_from_slice(bytes)).map_err(|fault| fault.of("the given bytes"))
}

/// Reads only the manifest: the end of the file, no rows.
///
/// The checksum covers the rows, so it is not verified here.
///
/// # Errors
/// As [`read`].
pub fn read_manifest(path: &Path) -> Result<Manifest, FileError> {
    let file = path.display().to_string();
    let mut handle = open(path).map_err(|source| FileError::Read { file: file.clone(), source })?;
    decode::manifest(&mut handle).map_err(|fault| fault.of(&file))
}

fn encode(profile: &Profile, file: &str) -> Result<Vec<u8>, FileError> {
    let invalid = |source| FileError::Invalid { file: file.to_owned(), source };
    check::profile(profile).map_err(invalid)?;
    encode::profile(profile)
        .map_err(|detail| FileError::Encode { file: file.to_owned(), detail: detail.to_string() })
}

/// Opens a regular file; a directory or a pipe is refused instead of being waited for.
fn open(path: &Path) -> std::io::Result<std::fs::File> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::new(
            std::io::ErrorKind::InvalidInput,
            "it is not a regular file",
        ));
    }
    std::fs::File::open(path)
}
