//! Merges layers, top first, into one tar.
//!
//! An entry is written if no higher layer has given its path, hidden it with a whiteout, or put
//! something that is no directory in the place of one of its parents. Directories of several
//! layers are one directory with the attributes of the highest.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};

use crate::interrupt::Interrupt;

/// Bytes that all layers together may unpack to.
const MAX_TOTAL: u64 = 64 << 30;
/// Entries that all layers together may have.
const MAX_ENTRIES: u64 = 4_000_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    Directory,
    Other,
}

/// The tar under construction.
pub(super) struct Merger<W: Write> {
    out: tar::Builder<W>,
    /// Paths that higher layers gave.
    seen: HashMap<String, Seen>,
    /// Paths that higher layers removed.
    removed: HashSet<String>,
    /// Directories that what was written is in, whether they were given or not.
    parents: HashSet<String>,
    /// Directories of which higher layers removed what is below.
    emptied: HashSet<String>,
    total: u64,
    entries: u64,
    interrupt: Interrupt,
}

impl<W: Write> Merger<W> {
    pub(super) fn new(out: W, interrupt: Interrupt) -> Self {
        Self {
            out: tar::Builder::new(out),
            seen: HashMap::new(),
            removed: HashSet::new(),
            parents: HashSet::new(),
            emptied: HashSet::new(),
            total: 0,
            entries: 0,
            interrupt,
        }
    }

    /// Adds the next lower layer; `open` begins to read it, and is called twice.
    pub(super) fn layer<R: Read>(
        &mut self,
        open: impl Fn() -> Result<R, String>,
    ) -> Result<(), String> {
        let heirs = self.heirs(open()?)?;
        let reader = open()?;
        // What this layer gives and removes counts for lower layers only.
        let (mut given, mut removed, mut emptied) =
            (HashMap::new(), HashSet::new(), HashSet::new());
        let mut archive = tar::Archive::new(reader);
        for entry in archive.entries().map_err(|e| e.to_string())? {
            let entry = entry.map_err(|e| e.to_string())?;
            self.count(entry.size())?;
            let Some(path) = inside_root(&entry.path_bytes())? else { continue };
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
            if name == ".wh..wh..opq" {
                emptied.insert(parent.to_owned());
                continue;
            }
            if let Some(name) = name.strip_prefix(".wh.") {
                if !name.starts_with(".wh.") {
                    removed.insert(if parent.is_empty() {
                        name.into()
                    } else {
                        format!("{parent}/{name}")
                    });
                }
                continue;
            }
            let kind = entry.header().entry_type();
            let seen = if kind.is_dir() { Seen::Directory } else { Seen::Other };
            if self.visible(&path) {
                // Later entries of a path replace earlier ones, but no image is made that way.
                if given.insert(path.clone(), seen).is_none() && !heirs.is_heir(&path) {
                    self.check_place(&path, seen, &given)?;
                    self.write(entry, &path, &heirs)?;
                }
            } else if let Some(heir) = heirs.of_target.get(&path) {
                self.write(entry, heir, &heirs)?;
            }
        }
        for (path, seen) in given {
            self.seen.entry(path).or_insert(seen);
        }
        self.removed.extend(removed);
        self.emptied.extend(emptied);
        Ok(())
    }

    /// Ends the tar and returns what it was written to.
    pub(super) fn finish(self) -> Result<W, String> {
        self.out.into_inner().map_err(|e| e.to_string())
    }

    fn count(&mut self, size: u64) -> Result<(), String> {
        self.entries += 1;
        self.total = self.total.saturating_add(size);
        if self.total > MAX_TOTAL || self.entries > MAX_ENTRIES {
            return Err(format!("unpacks to more than {MAX_TOTAL} bytes or {MAX_ENTRIES} files"));
        }
        self.interrupt.check().map_err(|e| e.to_string())
    }

    /// Refuses what would be unpacked through a link, and so in another place than it says.
    fn check_place(
        &mut self,
        path: &str,
        seen: Seen,
        given: &HashMap<String, Seen>,
    ) -> Result<(), String> {
        if seen == Seen::Other && self.parents.contains(path) {
            return Err(format!("a higher layer has files in {path}, which is no directory here"));
        }
        for (at, _) in path.match_indices('/') {
            let parent = &path[..at];
            if given.get(parent) == Some(&Seen::Other) {
                return Err(format!("{path} is in {parent}, which is no directory"));
            }
            if !self.parents.contains(parent) {
                self.parents.insert(parent.to_owned());
            }
        }
        Ok(())
    }

    /// Finds the hard links whose target is hidden by a higher layer while they are not.
    fn heirs(&self, reader: impl Read) -> Result<Heirs, String> {
        let mut heirs = Heirs::default();
        let mut archive = tar::Archive::new(reader);
        for entry in archive.entries().map_err(|e| e.to_string())? {
            let entry = entry.map_err(|e| e.to_string())?;
            self.interrupt.check().map_err(|e| e.to_string())?;
            if !entry.header().entry_type().is_hard_link() {
                continue;
            }
            let target = entry.link_name_bytes().unwrap_or_default().into_owned();
            let (Some(path), Some(target)) =
                (inside_root(&entry.path_bytes())?, inside_root(&target)?)
            else {
                continue;
            };
            if self.visible(&path) && !self.visible(&target) {
                heirs.of_target.entry(target).or_insert(path);
            }
        }
        Ok(heirs)
    }

    fn visible(&self, path: &str) -> bool {
        if self.seen.contains_key(path) || self.removed.contains(path) {
            return false;
        }
        if self.emptied.contains("") {
            return false;
        }
        let mut parents = path.match_indices('/').map(|(at, _)| &path[..at]);
        !parents.any(|parent| {
            self.seen.get(parent) == Some(&Seen::Other)
                || self.removed.contains(parent)
                || self.emptied.contains(parent)
        })
    }

    fn write<R: Read>(
        &mut self,
        mut entry: tar::Entry<'_, R>,
        path: &str,
        heirs: &Heirs,
    ) -> Result<(), String> {
        let named = |e: io::Error| format!("{path}: {e}");
        let mut header = entry.header().clone();
        let size = entry.size();
        let xattrs = extended_attributes(&mut entry).map_err(named)?;
        let kind = header.entry_type();
        let link = entry.link_name_bytes().map(|name| name.into_owned());
        // Long names came in entries of their own; the builder writes such again where needed.
        let mut plain = tar::Header::new_gnu();
        plain.set_entry_type(if kind.is_contiguous() { tar::EntryType::Regular } else { kind });
        plain.set_mode(header.mode().map_err(named)?);
        plain.set_uid(header.uid().map_err(named)?);
        plain.set_gid(header.gid().map_err(named)?);
        plain.set_mtime(header.mtime().unwrap_or(0));
        plain.set_size(0);
        if !xattrs.is_empty() {
            self.out
                .append_pax_extensions(xattrs.iter().map(|(k, v)| (k.as_str(), v.as_slice())))
                .map_err(named)?;
        }
        header.set_size(size);
        match kind {
            k if k.is_file() || k.is_contiguous() => {
                plain.set_size(size);
                self.out.append_data(&mut plain, path, entry).map_err(named)
            }
            k if k.is_dir() => self.out.append_data(&mut plain, path, io::empty()).map_err(named),
            k if k.is_symlink() => {
                let target = text(&link.unwrap_or_default(), path)?;
                self.out.append_link(&mut plain, path, target).map_err(named)
            }
            k if k.is_hard_link() => {
                let target = inside_root(&link.unwrap_or_default())?
                    .ok_or_else(|| format!("{path} is a hard link to the root"))?;
                let target = heirs.of_target.get(&target).unwrap_or(&target);
                self.out.append_link(&mut plain, path, target).map_err(named)
            }
            k if k.is_character_special() || k.is_block_special() || k.is_fifo() => {
                let device = |n: io::Result<Option<u32>>| n.map(Option::unwrap_or_default);
                plain
                    .set_device_major(device(header.device_major()).map_err(named)?)
                    .map_err(named)?;
                plain
                    .set_device_minor(device(header.device_minor()).map_err(named)?)
                    .map_err(named)?;
                self.out.append_data(&mut plain, path, io::empty()).map_err(named)
            }
            other => Err(format!("{path} is of a kind that no root has ({other:?})")),
        }
    }
}

/// Files whose own name a higher layer took: their content lives on under a hard link's name.
#[derive(Default)]
struct Heirs {
    /// The name under which the content is written, by its hidden name.
    of_target: HashMap<String, String>,
}

impl Heirs {
    fn is_heir(&self, path: &str) -> bool {
        self.of_target.values().any(|heir| heir == path)
    }
}

/// File capabilities and the like, which travel as extensions of an entry.
fn extended_attributes<R: Read>(
    entry: &mut tar::Entry<'_, R>,
) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    if let Some(extensions) = entry.pax_extensions()? {
        for extension in extensions {
            let extension = extension?;
            if let Ok(key) = extension.key()
                && key.starts_with("SCHILY.xattr.")
            {
                found.push((key.to_owned(), extension.value_bytes().to_vec()));
            }
        }
    }
    Ok(found)
}

fn text(bytes: &[u8], path: &str) -> Result<String, String> {
    String::from_utf8(bytes.to_vec())
        .map_err(|_| format!("{path} links to a name that is not UTF-8"))
}

/// A path relative to the root, without `.` parts; `None` for the root itself.
///
/// A path that would leave the root makes the whole archive suspicious and is refused.
fn inside_root(path: &[u8]) -> Result<Option<String>, String> {
    let path = std::str::from_utf8(path)
        .map_err(|_| format!("{:?} is not UTF-8", String::from_utf8_lossy(path)))?;
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(format!("the path {path:?} leaves the root")),
            part => parts.push(part),
        }
    }
    Ok(if parts.is_empty() { None } else { Some(parts.join("/")) })
}
