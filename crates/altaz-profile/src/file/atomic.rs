//! Replaces a file in one step: readers see the earlier file or the whole new one, and a failed or
//! killed writer leaves nothing behind.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

/// Readable by all, as far as the umask allows.
const MODE: Mode = Mode::from_raw_mode(0o644);

/// Where the process finds its open files by number.
const OPENED: &str = "/proc/self/fd";

type Step = &'static str;

/// Puts `bytes` at `path`, durably. The error says at which step it failed.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), (Step, io::Error)> {
    let target = real_target(path).map_err(|error| ("looking at what is there", error))?;
    let directory = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let (mut file, temporary) = create(directory, &target)
        .map_err(|error| ("creating a temporary file beside it", error))?;
    file.write_all(bytes).map_err(|error| ("writing", error))?;
    file.sync_all().map_err(|error| ("writing to the disk", error))?;
    temporary.publish(&file, &target).map_err(|error| ("renaming", error))?;
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| ("writing the directory to the disk", error))
}

/// The path that a rename must replace: behind a symbolic link it is the link's target. Anything but
/// a regular file is refused, or a rename would replace a device.
fn real_target(path: &Path) -> io::Result<PathBuf> {
    let target = match fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => fs::canonicalize(path)?,
        _ => path.to_owned(),
    };
    match fs::metadata(&target) {
        Ok(found) if !found.is_file() => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"))
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ if target.file_name().is_none() => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))
        }
        _ => Ok(target),
    }
}

/// What the file is called before it has its name.
enum Temporary {
    /// It has no name: the kernel removes it with the process.
    Unnamed,
    /// It has this name, removed on drop. For file systems that know no unnamed files.
    Named(Name),
}

/// A name that is removed on drop unless it was renamed away.
struct Name(PathBuf);

impl Drop for Name {
    fn drop(&mut self) {
        // After a rename it is gone; an error here has no one to go to.
        let _ = fs::remove_file(&self.0);
    }
}

impl Name {
    /// A name beside `target` that no other writer uses.
    fn beside(target: &Path) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mut name = OsString::from(".");
        name.push(target.file_name().unwrap_or_default());
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        name.push(format!(".{}-{number}.tmp", std::process::id()));
        Name(target.with_file_name(name))
    }
}

fn create(directory: &Path, target: &Path) -> io::Result<(File, Temporary)> {
    // An unnamed file gets its name through /proc.
    if !Path::new(OPENED).exists() {
        return create_named(target);
    }
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    match rustix::fs::open(directory, flags | OFlags::TMPFILE, MODE) {
        Ok(file) => return Ok((File::from(file), Temporary::Unnamed)),
        // What file systems and kernels without unnamed files say.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {}
        Err(error) => return Err(error.into()),
    }
    create_named(target)
}

fn create_named(target: &Path) -> io::Result<(File, Temporary)> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::CREATE | OFlags::EXCL;
    let name = Name::beside(target);
    match rustix::fs::open(&name.0, flags, MODE) {
        Ok(file) => Ok((File::from(file), Temporary::Named(name))),
        Err(error) => {
            // Not ours: whoever has it must keep it.
            std::mem::forget(name);
            Err(error.into())
        }
    }
}

impl Temporary {
    /// Gives the complete file its name.
    fn publish(self, file: &File, target: &Path) -> io::Result<()> {
        let name = match self {
            Temporary::Named(name) => name,
            Temporary::Unnamed => {
                match link(file, target) {
                    Ok(()) => return Ok(()),
                    Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                // A link never replaces a file: link beside it, then rename over it.
                let name = Name::beside(target);
                link(file, &name.0)?;
                name
            }
        };
        fs::rename(&name.0, target)
    }
}

fn link(file: &File, name: &Path) -> Result<(), Errno> {
    let opened = format!("{OPENED}/{}", file.as_raw_fd());
    rustix::fs::linkat(CWD, opened, CWD, name, AtFlags::SYMLINK_FOLLOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_new_file_and_a_replaced_one_have_the_new_content_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.altaz");
        for content in ["first", "second"] {
            replace(&path, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            assert_eq!(names(directory.path()), ["a.altaz"]);
        }
    }

    #[test]
    fn where_the_file_system_has_no_unnamed_files_a_named_one_does_and_is_gone_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.altaz");
        fs::write(&path, "first").unwrap();
        let (mut file, temporary) = create_named(&path).unwrap();
        assert_eq!(names(directory.path()).len(), 2);
        file.write_all(b"second").unwrap();
        temporary.publish(&file, &path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
        assert_eq!(names(directory.path()), ["a.altaz"]);

        let unfinished = create_named(&path).unwrap();
        drop(unfinished);
        assert_eq!(names(directory.path()), ["a.altaz"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
    }

    #[test]
    fn a_symbolic_link_stays_one_and_its_target_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let (target, link) = (directory.path().join("target"), directory.path().join("link"));
        fs::write(&target, "first").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        replace(&link, b"second").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&target).unwrap(), "second");
    }

    #[test]
    fn a_directory_or_a_device_is_refused_and_stays() {
        let directory = tempfile::tempdir().unwrap();
        for path in [directory.path(), Path::new("/dev/null"), Path::new("/")] {
            let (_, error) = replace(path, b"x").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{}", path.display());
        }
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn a_missing_directory_is_named_by_its_error() {
        let (step, error) = replace(Path::new("/nonexistent/x.altaz"), b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound, "{step}");
    }
}
