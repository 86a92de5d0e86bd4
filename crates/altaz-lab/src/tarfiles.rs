//! A table of contents over an uncompressed tar, so that single files can be read in place.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::{LabError, Result};

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TarKind {
    /// A regular file; its bytes are at this place of the archive.
    File {
        /// Offset in the archive, in bytes.
        offset: u64,
        /// Length in bytes.
        len: u64,
    },
    /// Another name of the file at this path.
    HardLink(String),
    /// A symbolic link with this target, as written.
    SymLink(String),
    /// A directory.
    Directory,
    /// A device, FIFO or socket.
    Other,
}

/// One entry of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarEntry {
    /// Absolute path, without `.` parts.
    pub path: String,
    /// What it is.
    pub kind: TarKind,
    /// Permission bits.
    pub mode: u32,
}

/// A regular file, hard links followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TarFile<'a> {
    /// Absolute path.
    pub path: &'a str,
    /// Offset in the archive, in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// Permission bits.
    pub mode: u32,
}

/// The table of contents of an open archive.
#[derive(Debug)]
pub struct TarFiles {
    file: File,
    path: PathBuf,
    entries: Vec<TarEntry>,
    by_path: HashMap<String, usize>,
}

/// Links followed before a path counts as a loop.
const MAX_LINKS: usize = 40;

impl TarFiles {
    /// Reads the table of contents; the files' bytes are skipped.
    ///
    /// # Errors
    /// When the archive cannot be read or is damaged.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(LabError::file("open", path))?;
        let mut entries: Vec<TarEntry> = Vec::new();
        let mut by_path = HashMap::new();
        let mut list = || -> io::Result<()> {
            let reader = file.try_clone()?;
            let mut archive = tar::Archive::new(reader);
            for entry in archive.entries_with_seek()? {
                let entry = entry?;
                let Some(path) = absolute(&entry.path_bytes()) else { continue };
                let header = entry.header();
                let link = || -> io::Result<String> {
                    let name = entry.link_name_bytes().unwrap_or_default();
                    Ok(String::from_utf8_lossy(&name).into_owned())
                };
                let kind = match header.entry_type() {
                    t if t.is_file() || t.is_contiguous() => {
                        TarKind::File { offset: entry.raw_file_position(), len: entry.size() }
                    }
                    t if t.is_hard_link() => {
                        TarKind::HardLink(absolute(link()?.as_bytes()).unwrap_or_default())
                    }
                    t if t.is_symlink() => TarKind::SymLink(link()?),
                    t if t.is_dir() => TarKind::Directory,
                    _ => TarKind::Other,
                };
                // A path given twice is the later one, as when unpacking.
                by_path.insert(path.clone(), entries.len());
                entries.push(TarEntry { path, kind, mode: header.mode()? & 0o7777 });
            }
            Ok(())
        };
        list().map_err(LabError::file("read the archive", path))?;
        Ok(Self { file, path: path.to_owned(), entries, by_path })
    }

    /// Every entry, in the archive's order.
    pub fn entries(&self) -> &[TarEntry] {
        &self.entries
    }

    /// Every regular file and hard link to one.
    pub fn files(&self) -> impl Iterator<Item = TarFile<'_>> {
        self.entries.iter().enumerate().filter_map(|(n, entry)| {
            // Only the last entry of a path counts.
            (self.by_path.get(&entry.path) == Some(&n)).then(|| self.regular(entry))?
        })
    }

    fn regular<'a>(&'a self, entry: &'a TarEntry) -> Option<TarFile<'a>> {
        let mut at = entry;
        for _ in 0..MAX_LINKS {
            match &at.kind {
                TarKind::File { offset, len } => {
                    let (offset, len) = (*offset, *len);
                    return Some(TarFile { path: &entry.path, offset, len, mode: at.mode });
                }
                TarKind::HardLink(target) => at = self.entries.get(*self.by_path.get(target)?)?,
                _ => return None,
            }
        }
        None
    }

    /// The regular file that `path` leads to, following symbolic links within the archive.
    pub fn find(&self, path: &str) -> Option<TarFile<'_>> {
        let mut parts: Vec<String> = split(path).rev().map(str::to_owned).collect();
        let mut here = String::new();
        let mut links = 0;
        while let Some(part) = parts.pop() {
            if part == ".." {
                here.truncate(here.rfind('/').unwrap_or(0));
                continue;
            }
            let next = format!("{here}/{part}");
            let entry = self.by_path.get(&next).and_then(|&n| self.entries.get(n));
            if let Some(TarEntry { kind: TarKind::SymLink(target), .. }) = entry {
                links += 1;
                if links > MAX_LINKS {
                    return None;
                }
                if target.starts_with('/') {
                    here.clear();
                }
                parts.extend(split(target).rev().map(str::to_owned));
            } else {
                here = next;
            }
        }
        self.regular(self.entries.get(*self.by_path.get(&here)?)?)
    }

    /// Reads part of the archive, at an offset that [`TarFile`] gave.
    ///
    /// # Errors
    /// When the archive cannot be read or has become shorter.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(buffer, offset).map_err(LabError::file("read", &self.path))
    }

    /// The whole content of a file.
    ///
    /// # Errors
    /// When there is no such file, or the archive cannot be read.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        let found = self.find(path).ok_or_else(|| LabError::Image {
            path: self.path.clone(),
            message: format!("has no file {path}"),
        })?;
        let size = self.file.metadata().map_err(LabError::file("read", &self.path))?.len();
        if found.offset.checked_add(found.len).is_none_or(|end| end > size) {
            let cut = io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is cut off");
            return Err(LabError::file("read", &self.path)(cut));
        }
        let mut bytes = vec![0; usize::try_from(found.len).unwrap_or(0)];
        self.read_at(found.offset, &mut bytes)?;
        Ok(bytes)
    }
}

fn split(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".")
}

/// `./a/b` as `/a/b`; `None` for the root itself and for paths that leave it.
fn absolute(path: &[u8]) -> Option<String> {
    let path = String::from_utf8_lossy(path);
    let mut out = String::with_capacity(path.len() + 1);
    for part in split(&path) {
        if part == ".." {
            return None;
        }
        out.push('/');
        out.push_str(part);
    }
    (!out.is_empty()).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn archive(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> TarFiles {
        let mut builder = tar::Builder::new(Vec::new());
        build(&mut builder);
        open(&builder.into_inner().unwrap()).unwrap()
    }

    fn open(bytes: &[u8]) -> Result<TarFiles> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        TarFiles::open(file.path())
    }

    fn add(builder: &mut tar::Builder<Vec<u8>>, path: &str, data: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o755);
        builder.append_data(&mut header, path, data).unwrap();
    }

    fn link(builder: &mut tar::Builder<Vec<u8>>, kind: tar::EntryType, path: &str, to: &str) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_mode(0o777);
        builder.append_link(&mut header, path, to).unwrap();
    }

    #[test]
    fn files_are_read_in_place_through_links_of_both_kinds() {
        let long = format!("./usr/{}/x", "d".repeat(150));
        let tar = archive(|b| {
            link(b, tar::EntryType::Symlink, "./bin", "usr/bin");
            add(b, "./usr/bin/a", b"alpha");
            link(b, tar::EntryType::Link, "./usr/bin/b", "./usr/bin/a");
            link(b, tar::EntryType::Symlink, "./usr/lib/c", "../bin/b");
            link(b, tar::EntryType::Symlink, "./abs", "/usr/lib/c");
            add(b, &long, b"long");
        });
        for path in ["/usr/bin/a", "/bin/a", "/bin/b", "/usr/lib/c", "/abs", "usr//bin/./a"] {
            assert_eq!(tar.read(path).unwrap(), b"alpha", "{path}");
        }
        assert_eq!(tar.read(&long[1..]).unwrap(), b"long");
        assert_eq!(tar.files().count(), 3);
        assert!(tar.read("/usr/bin").is_err());
        assert!(tar.read("/nowhere").is_err());
    }

    #[test]
    fn links_in_a_circle_end() {
        let tar = archive(|b| {
            link(b, tar::EntryType::Symlink, "./a", "b");
            link(b, tar::EntryType::Symlink, "./b", "a");
            link(b, tar::EntryType::Link, "./c", "./c");
        });
        assert_eq!(tar.find("/a"), None);
        assert_eq!(tar.find("/c"), None);
        assert_eq!(tar.files().count(), 0);
    }

    #[test]
    fn a_path_given_twice_is_the_later_file() {
        let tar = archive(|b| {
            add(b, "./x", b"old");
            add(b, "./x", b"newer");
        });
        assert_eq!(tar.read("/x").unwrap(), b"newer");
        assert_eq!(tar.files().count(), 1);
    }

    proptest! {
        #[test]
        fn a_damaged_archive_never_panics(at in 0usize..2048, value in any::<u8>()) {
            let mut builder = tar::Builder::new(Vec::new());
            add(&mut builder, "./x", b"content");
            link(&mut builder, tar::EntryType::Symlink, "./y", "x");
            let mut bytes = builder.into_inner().unwrap();
            bytes[at] = value;
            if let Ok(tar) = open(&bytes) {
                let _ = tar.read("/y");
                let _ = tar.files().count();
            }
        }
    }
}
