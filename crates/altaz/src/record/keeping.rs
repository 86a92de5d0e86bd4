//! Where the profile goes: looked at before anything is observed, so that an hour's recording is not
//! lost to a wrong path. What changes until it is written is the writer's to say.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use rustix::fs::{Access, AtFlags, CWD, accessat};

/// The directory that the profile goes into; the working directory without a path.
///
/// # Errors
/// When it is not there or cannot be written to, or when something that is no file has the name.
pub(crate) fn directory(output: Option<&Path>) -> anyhow::Result<PathBuf> {
    let what = || {
        let name = output.unwrap_or(Path::new("."));
        format!("nothing was recorded, because {} could not be written at the end", name.display())
    };
    if let Some(output) = output {
        match std::fs::metadata(output) {
            Ok(there) if !there.is_file() => {
                return Err(anyhow!("it is not a regular file")).with_context(what);
            }
            _ => {}
        }
    }
    let directory = match output.and_then(Path::parent) {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let shown = || format!("the directory {}", directory.display());
    let there = std::fs::metadata(&directory).with_context(shown).with_context(what)?;
    if !there.is_dir() {
        return Err(anyhow!("{} is not a directory", directory.display())).with_context(what);
    }
    accessat(CWD, &directory, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
        .with_context(shown)
        .with_context(what)?;
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_can_be_written_to_is_given() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.altaz");
        assert_eq!(directory(Some(&file)).unwrap(), dir.path());
        std::fs::write(&file, "an earlier one").unwrap();
        assert_eq!(directory(Some(&file)).unwrap(), dir.path());
        assert_eq!(directory(Some(Path::new("x.altaz"))).unwrap(), Path::new("."));
        assert_eq!(directory(None).unwrap(), Path::new("."));
    }

    #[test]
    fn one_that_cannot_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let bad = [dir.path().to_owned(), dir.path().join("no/x"), dir.path().join("file/x")];
        for path in bad.into_iter().chain([PathBuf::from("/dev/full")]) {
            let error = format!("{:#}", directory(Some(&path)).unwrap_err());
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
    }
}
