//! Files that go into one boot of the lab: a tar in memory, attached as a disk.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::error::{LabError, Result};

/// A file of one boot.
#[derive(Debug, Clone)]
pub struct InputFile {
    /// Absolute path in the lab.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// What is in it.
    pub content: Content,
}

/// Where a file's bytes come from.
#[derive(Debug, Clone)]
pub enum Content {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A file of the host.
    HostFile(PathBuf),
}

impl InputFile {
    /// A file of these bytes.
    pub fn bytes(path: impl Into<String>, mode: u32, bytes: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), mode, content: Content::Bytes(bytes.into()) }
    }

    /// A copy of a file of the host.
    pub fn host(path: impl Into<String>, mode: u32, file: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), mode, content: Content::HostFile(file.into()) }
    }
}

/// A file without a name, with these bytes; it ends with its last descriptor.
pub(crate) fn memory_file(name: &str, bytes: &[u8]) -> Result<File> {
    let make = || -> io::Result<File> {
        let mut file = File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC)?);
        file.write_all(bytes)?;
        file.seek(SeekFrom::Start(0))?;
        Ok(file)
    };
    make().map_err(LabError::system("make a file in memory"))
}

/// The input disk of these files.
pub(crate) fn input_disk(files: &[InputFile]) -> Result<File> {
    let disk = memory_file("altaz-input", &[])?;
    let mut builder = tar::Builder::new(disk);
    for file in files {
        add(&mut builder, file)?;
    }
    let finish = || -> io::Result<File> {
        let mut disk = builder.into_inner()?;
        // A disk has whole sectors.
        let len = disk.stream_position()?.next_multiple_of(4096);
        disk.set_len(len)?;
        Ok(disk)
    };
    finish().map_err(LabError::system("write the input disk"))
}

fn add(builder: &mut tar::Builder<File>, file: &InputFile) -> Result<()> {
    let relative = Path::new(file.path.trim_start_matches('/'));
    let mut header = tar::Header::new_gnu();
    header.set_mode(file.mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    let added = match &file.content {
        Content::Bytes(bytes) => {
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, relative, bytes.as_slice())
        }
        Content::HostFile(host) => {
            let from = File::open(host).map_err(LabError::file("read", host))?;
            let len = from.metadata().map_err(LabError::file("read", host))?.len();
            header.set_size(len);
            builder.append_data(&mut header, relative, io::Read::take(from, len))
        }
    };
    added.map_err(LabError::system(format!("put {} on the input disk", file.path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_back_from_the_input_disk() {
        let host = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(host.path(), b"from the host").unwrap();
        let long = format!("/srv/{}", "x".repeat(200));
        let disk = input_disk(&[
            InputFile::bytes("/etc/a", 0o600, "alpha"),
            InputFile::host(long.clone(), 0o755, host.path()),
        ])
        .unwrap();
        assert_eq!(disk.metadata().unwrap().len() % 4096, 0);
        let mut disk = disk;
        disk.rewind().unwrap();
        let out = tempfile::tempdir().unwrap();
        tar::Archive::new(disk).unpack(out.path()).unwrap();
        assert_eq!(std::fs::read(out.path().join("etc/a")).unwrap(), b"alpha");
        assert_eq!(std::fs::read(out.path().join(&long[1..])).unwrap(), b"from the host");
    }

    #[test]
    fn a_missing_host_file_is_named() {
        let error = input_disk(&[InputFile::host("/x", 0o644, "/nowhere/file")]).unwrap_err();
        assert!(error.to_string().contains("/nowhere/file"));
    }
}
