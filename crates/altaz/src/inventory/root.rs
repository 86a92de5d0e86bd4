//! Files below a root that is a directory or a tar archive. Links are followed inside the root only.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use altaz_lab::tarfiles::TarFiles;
use anyhow::Context as _;

/// An archive that is this room's own, or somebody else's.
pub(crate) enum Archive<'a> {
    /// Opened here.
    Own(TarFiles),
    /// Opened elsewhere.
    Borrowed(&'a TarFiles),
}

/// A root file system.
pub(crate) enum Root<'a> {
    /// A directory.
    Dir(PathBuf),
    /// A tar archive of one.
    Tar(Archive<'a>),
}

impl Archive<'_> {
    fn files(&self) -> &TarFiles {
        match self {
            Self::Own(files) => files,
            Self::Borrowed(files) => files,
        }
    }
}

impl Root<'_> {
    /// Opens a directory or an archive.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        if path.is_dir() {
            return Ok(Self::Dir(path.to_owned()));
        }
        Ok(Self::Tar(Archive::Own(TarFiles::open(path)?)))
    }

    /// Bytes of a file; `None` when it is not there.
    pub(crate) fn bytes(&self, path: &str) -> anyhow::Result<Option<Vec<u8>>> {
        match self {
            Self::Dir(root) => {
                let path = root.join(path.trim_start_matches('/'));
                match fs::read(&path) {
                    Ok(bytes) => Ok(Some(bytes)),
                    Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
                    Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
                }
            }
            Self::Tar(archive) => match archive.files().find(path) {
                Some(file) => Ok(Some(archive.files().read(file.path)?)),
                None => Ok(None),
            },
        }
    }

    /// Text of a file; `None` when it is not there.
    pub(crate) fn text(&self, path: &str) -> anyhow::Result<Option<String>> {
        Ok(self.bytes(path)?.map(|b| String::from_utf8_lossy(&b).into_owned()))
    }

    /// Paths of all files below a directory that end so.
    pub(crate) fn below(&self, directory: &str, end: &str) -> Vec<String> {
        match self {
            Self::Dir(root) => {
                let mut found = Vec::new();
                walk(root, Path::new(directory.trim_start_matches('/')), &mut |path| {
                    if path.contains(end) {
                        found.push(format!("/{path}"));
                    }
                });
                found.sort_unstable();
                found
            }
            Self::Tar(archive) => {
                let files = archive.files().files().map(|f| f.path);
                let below = |p: &&str| {
                    p.strip_prefix(directory).is_some_and(|r| r.starts_with('/')) && p.contains(end)
                };
                files.filter(below).map(str::to_owned).collect()
            }
        }
    }

    /// Names below a directory, one level.
    pub(crate) fn names(&self, directory: &str) -> Vec<String> {
        let mut names: Vec<String> = match self {
            Self::Dir(root) => fs::read_dir(root.join(directory.trim_start_matches('/')))
                .map(|all| all.flatten().map(|e| e.file_name().to_string_lossy().into()).collect())
                .unwrap_or_default(),
            Self::Tar(archive) => archive
                .files()
                .entries()
                .iter()
                .filter_map(|e| e.path.strip_prefix(directory)?.strip_prefix('/'))
                .filter(|name| !name.is_empty() && !name.contains('/'))
                .map(str::to_owned)
                .collect(),
        };
        names.sort_unstable();
        names
    }

    /// Dpkg's lists of files: package and list.
    pub(crate) fn lists(&self) -> anyhow::Result<Vec<(String, String)>> {
        const INFO: &str = "/var/lib/dpkg/info";
        let mut lists = Vec::new();
        for name in self.names(INFO) {
            let Some(package) = name.strip_suffix(".list") else { continue };
            let package = package.split(':').next().unwrap_or(package).to_owned();
            if let Some(text) = self.text(&format!("{INFO}/{name}"))? {
                lists.push((package, text));
            }
        }
        Ok(lists)
    }
}

fn walk(root: &Path, directory: &Path, found: &mut impl FnMut(&str)) {
    let Ok(entries) = fs::read_dir(root.join(directory)) else { return };
    for entry in entries.flatten() {
        let path = directory.join(entry.file_name());
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(root, &path, found),
            Ok(kind) if kind.is_file() => found(&path.to_string_lossy()),
            _ => {}
        }
    }
}
