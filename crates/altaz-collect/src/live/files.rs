//! The executable files that processes have mapped, each once, opened so that it stays the same file
//! whatever happens to its name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A mapping of executable code, from a line of `/proc/PID/maps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// First and last address, as `/proc/PID/map_files` names them.
    pub range: String,
    /// Path in the process's own root.
    pub path: PathBuf,
    /// The file has no name any more.
    pub deleted: bool,
}

/// The executable mappings of files in the text of `/proc/PID/maps`.
pub fn executable_mappings(maps: &str) -> Vec<Mapping> {
    maps.lines()
        .filter_map(|line| {
            let mut words = line.splitn(6, ' ');
            let (range, rights) = (words.next()?, words.next()?);
            let (_offset, _device, inode) = (words.next()?, words.next()?, words.next()?);
            let path = words.next()?.trim_start();
            if rights.as_bytes().get(2) != Some(&b'x') || inode == "0" || !path.starts_with('/') {
                return None;
            }
            let (path, deleted) = match path.strip_suffix(" (deleted)") {
                Some(path) => (path, true),
                None => (path, false),
            };
            Some(Mapping { range: range.into(), path: unescaped(path).into(), deleted })
        })
        .collect()
}

/// The kernel writes newlines in names as `\012`.
fn unescaped(path: &str) -> String {
    path.replace("\\012", "\n")
}

/// Which file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileKey {
    /// Device.
    pub device: u64,
    /// Inode.
    pub inode: u64,
}

/// An executable file that is mapped.
#[derive(Debug)]
pub struct MappedFile {
    /// Which one.
    pub key: FileKey,
    /// Path in the root of the process that has it mapped.
    pub path: PathBuf,
    /// The open file.
    pub file: File,
}

/// The executable files that a process has mapped and that are not in `known`.
/// A process that is gone has none; files that cannot be opened are returned as errors.
pub fn mapped_files(
    proc: &Path,
    pid: u32,
    known: &BTreeSet<FileKey>,
) -> (Vec<MappedFile>, Vec<(PathBuf, std::io::Error)>) {
    let process = proc.join(pid.to_string());
    let Ok(maps) = std::fs::read(process.join("maps")) else { return (Vec::new(), Vec::new()) };
    let mut found: BTreeMap<FileKey, MappedFile> = BTreeMap::new();
    let mut errors = Vec::new();
    for mapping in executable_mappings(&String::from_utf8_lossy(&maps)) {
        match open(&process, &mapping) {
            Ok(file) if known.contains(&file.key) => {}
            Ok(file) => {
                found.entry(file.key).or_insert(file);
            }
            Err(error) => errors.push((mapping.path, error)),
        }
    }
    (found.into_values().collect(), errors)
}

/// By its mapping, which is the very file; where that is not allowed, by its name in the process's
/// root.
fn open(process: &Path, mapping: &Mapping) -> std::io::Result<MappedFile> {
    let by_mapping = File::open(process.join("map_files").join(map_file_name(&mapping.range)));
    let file = match by_mapping {
        Ok(file) => file,
        Err(error) if mapping.deleted => return Err(error),
        Err(_) => {
            let below = mapping.path.strip_prefix("/").unwrap_or(&mapping.path);
            File::open(process.join("root").join(below))?
        }
    };
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    let key = FileKey { device: meta.dev(), inode: meta.ino() };
    Ok(MappedFile { key, path: mapping.path.clone(), file })
}

/// `map_files` writes addresses without the leading zeros that `maps` pads with.
fn map_file_name(range: &str) -> String {
    let plain = |hex: &str| match hex.trim_start_matches('0') {
        "" => "0".to_owned(),
        hex => hex.to_owned(),
    };
    match range.split_once('-') {
        Some((from, to)) => format!("{}-{}", plain(from), plain(to)),
        None => range.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
00400000-00401000 r--p 00000000 fe:00 11 /usr/bin/a b
00401000-00402000 r-xp 00001000 fe:00 11                                 /usr/bin/a b
7f0000000000-7f0000001000 r-xp 00000000 00:00 0                          [vdso]
7f0000002000-7f0000003000 r-xp 00000000 fe:00 12                         /lib/x.so (deleted)
7f0000004000-7f0000005000 rwxp 00000000 00:00 0 
7f0000006000-7f0000007000 rw-p 00000000 fe:00 13                         /lib/data";

    #[test]
    fn only_executable_files_are_found_with_their_whole_names() {
        let found = executable_mappings(MAPS);
        let paths: Vec<_> = found.iter().map(|m| (m.path.to_str().unwrap(), m.deleted)).collect();
        assert_eq!(paths, [("/usr/bin/a b", false), ("/lib/x.so", true)]);
        assert_eq!(map_file_name(&found[0].range), "401000-402000");
    }

    #[test]
    fn this_test_has_its_own_program_mapped_once() {
        let (files, _) = mapped_files(Path::new("/proc"), std::process::id(), &BTreeSet::new());
        let own = std::env::current_exe().unwrap();
        let own: Vec<_> = files.iter().filter(|f| f.path == own).collect();
        assert_eq!(own.len(), 1);
        let bytes = std::io::Read::bytes(&own[0].file).take(4).collect::<Result<Vec<u8>, _>>();
        assert!(bytes.unwrap().starts_with(b"\x7fELF"));
        let known = files.iter().map(|f| f.key).collect();
        let (again, _) = mapped_files(Path::new("/proc"), std::process::id(), &known);
        assert!(again.is_empty(), "what is known is not opened again");
    }

    #[test]
    fn a_process_that_is_gone_has_no_files() {
        let (files, errors) = mapped_files(Path::new("/proc"), 4_194_305, &BTreeSet::new());
        assert!(files.is_empty() && errors.is_empty());
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_text_is_no_panic(text: String) {
            executable_mappings(&text);
        }
    }
}
