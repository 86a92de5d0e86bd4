//! A file whose functions are probed: opened once, read, and probed through the same descriptor, so that a file put in
//! its place meanwhile is never probed with the wrong offsets.
//!
//! The caller opens what a process has mapped through that process (`/proc/PID/exe`, `/proc/PID/root/…`,
//! `/proc/PID/map_files/…`). No choice of files is made here.

use crate::UprobeError;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Largest file that is read, in bytes.
const LIMIT: u64 = 1 << 30;
const PAGE: u64 = 4096;

/// An open file.
#[derive(Debug)]
pub struct ProbedFile {
    name: PathBuf,
    file: File,
    device: u64,
    inode: u64,
    size: u64,
}

impl ProbedFile {
    /// Opens a file for reading.
    ///
    /// # Errors
    /// When it cannot be opened, is no regular file, or is larger than 1 GiB.
    pub fn open(path: &Path) -> Result<Self, UprobeError> {
        let fail = |source| UprobeError::File { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(fail)?;
        let metadata = file.metadata().map_err(fail)?;
        if !metadata.is_file() {
            return Err(fail(io::Error::other("not a regular file")));
        }
        if metadata.size() > LIMIT {
            let (path, size) = (path.to_path_buf(), metadata.size());
            return Err(UprobeError::TooLarge { path, size, limit: LIMIT });
        }
        Ok(Self {
            name: path.to_path_buf(),
            file,
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
        })
    }

    /// All bytes. Reading them also brings them into memory, where the kernel wants them when it probes.
    ///
    /// # Errors
    /// When reading fails.
    pub fn read(&self) -> Result<Vec<u8>, UprobeError> {
        let mut bytes = Vec::with_capacity(usize::try_from(self.size).unwrap_or(0));
        let read =
            File::open(self.path()).and_then(|file| file.take(LIMIT).read_to_end(&mut bytes));
        let fail = |source| UprobeError::File { path: self.name.clone(), source };
        read.map_err(fail)?;
        Ok(bytes)
    }

    /// The path it was opened by.
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// Number of the device it is on, as `stat` says.
    pub fn device(&self) -> u64 {
        self.device
    }

    /// Number of its inode, as `stat` says.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// A path to this very file in this process, whatever became of its name.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    /// Brings the pages of these offsets into memory: with a page missing, attaching has made kernels complain.
    pub(crate) fn warm(&self, offsets: impl Iterator<Item = u64>) {
        let mut last = None;
        let mut byte = [0];
        for page in offsets.map(|offset| offset / PAGE) {
            if last.replace(page) != Some(page) {
                // What cannot be read will be refused by the kernel with its own words.
                let _ = self.file.read_at(&mut byte, page * PAGE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_replaced_is_still_the_one_that_was_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("service");
        std::fs::write(&path, b"first").unwrap();
        let file = ProbedFile::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, b"second").unwrap();
        assert_eq!(file.read().unwrap(), b"first");
        assert_eq!(std::fs::metadata(file.path()).unwrap().ino(), file.inode());
        assert_ne!(std::fs::metadata(&path).unwrap().ino(), file.inode());
        assert_eq!(file.name(), path);
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = ProbedFile::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{error}");
        let error = ProbedFile::open(&dir.path().join("gone")).unwrap_err();
        assert!(error.to_string().contains("gone: cannot be read"), "{error}");
    }
}
