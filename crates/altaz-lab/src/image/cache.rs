//! The directory of built images: one builder at a time, complete or absent.

use std::env;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

use super::BuildOptions;
use super::build::remove_tree;
use crate::error::{LabError, Result};
use crate::interrupt::Interrupt;

/// Start of the names of directories under construction.
const UNFINISHED: &str = "unfinished-";
/// How long a service image is kept that nobody uses.
const UNUSED: Duration = Duration::from_secs(14 * 24 * 3600);

/// Where images are cached: `$XDG_CACHE_HOME/altaz`, or `~/.cache/altaz`.
pub fn cache_dir() -> PathBuf {
    let set = |name| env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    set("XDG_CACHE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .unwrap_or_else(env::temp_dir)
        .join("altaz")
}

/// Removes every cached image; returns how many there were.
///
/// # Errors
/// When another altaz builds, or a directory cannot be removed.
pub fn remove_all(base: &Path) -> Result<usize> {
    if !base.exists() {
        return Ok(0);
    }
    let _lock = lock(base, &Interrupt::new(), &mut ())?;
    let mut removed = 0;
    for entry in fs::read_dir(base).map_err(LabError::file("list", base))? {
        let path = entry.map_err(LabError::file("list", base))?.path();
        if path.is_dir() {
            remove_tree(&path)?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// SHA-256 over parts of known bounds, in hexadecimal.
pub(super) fn hash(parts: &[&[u8]]) -> String {
    let mut sha = Sha256::new();
    for part in parts {
        sha.update((part.len() as u64).to_le_bytes());
        sha.update(part);
    }
    hex(&sha.finalize())
}

/// SHA-256 of a file, in hexadecimal.
pub(super) fn hash_file(path: &Path, interrupt: &Interrupt) -> Result<String> {
    let mut file = File::open(path).map_err(LabError::file("open", path))?;
    let mut sha = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        interrupt.check()?;
        match file.read(&mut buffer).map_err(LabError::file("read", path))? {
            0 => return Ok(hex(&sha.finalize())),
            n => sha.update(&buffer[..n]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The directory of all images.
pub(super) struct Cache {
    base: PathBuf,
}

impl Cache {
    pub(super) fn new(base: &Path) -> Self {
        Self { base: base.to_owned() }
    }

    /// The directory `name`, built by `build` if it is not there.
    pub(super) fn ensure(
        &self,
        name: &str,
        options: &mut BuildOptions<'_>,
        build: impl FnOnce(&Path, &mut BuildOptions<'_>) -> Result<()>,
    ) -> Result<PathBuf> {
        let complete = self.base.join(name);
        if complete.is_dir() {
            mark_used(&complete);
            return Ok(complete);
        }
        fs::create_dir_all(&self.base).map_err(LabError::file("create", &self.base))?;
        let _lock = lock(&self.base, &options.interrupt.clone(), options.progress)?;
        if complete.is_dir() {
            return Ok(complete); // another altaz built it while this one waited
        }
        self.remove_unfinished()?;
        self.remove_unused(UNUSED)?;
        let work = self.base.join(format!("{UNFINISHED}{}-{name}", std::process::id()));
        fs::create_dir(&work).map_err(LabError::file("create", &work))?;
        let outcome = build(&work, options).and_then(|()| {
            fs::rename(&work, &complete).map_err(LabError::file("rename to", &complete))
        });
        if outcome.is_err() {
            // The error of the build says more than one of the removal.
            let _ = remove_tree(&work);
        }
        outcome.map(|()| complete)
    }

    /// Removes service images that nobody used for a long time: every change of a spec makes one.
    fn remove_unused(&self, limit: Duration) -> Result<()> {
        for entry in fs::read_dir(&self.base).map_err(LabError::file("list", &self.base))? {
            let entry = entry.map_err(LabError::file("list", &self.base))?;
            let used = fs::metadata(entry.path().join("image.json")).and_then(|m| m.modified());
            let old = used.is_ok_and(|used| used.elapsed().is_ok_and(|age| age > limit));
            if old && entry.file_name().to_string_lossy().starts_with("service-") {
                remove_tree(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Under the lock nobody builds, so that everything unfinished is a dead builder's.
    fn remove_unfinished(&self) -> Result<()> {
        for entry in fs::read_dir(&self.base).map_err(LabError::file("list", &self.base))? {
            let entry = entry.map_err(LabError::file("list", &self.base))?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                remove_tree(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// Notes that an image is in use. In a cache that cannot be written nothing is removed either.
fn mark_used(dir: &Path) {
    if let Ok(file) = File::options().append(true).open(dir.join("image.json")) {
        let _ = file.set_modified(SystemTime::now());
    }
}

/// Waits for the lock of the cache; it is released when dropped or when the process dies.
fn lock(
    base: &Path,
    interrupt: &Interrupt,
    progress: &mut dyn super::Progress,
) -> Result<Flock<File>> {
    let path = base.join("lock");
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(LabError::file("open", &path))?;
    let mut told = false;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((back, nix::errno::Errno::EWOULDBLOCK)) => {
                interrupt.check()?;
                if !told {
                    progress.step("waiting for another altaz that builds an image");
                    told = true;
                }
                std::thread::sleep(Duration::from_millis(200));
                file = back;
            }
            Err((_, e)) => return Err(LabError::file("lock", &path)(io::Error::from(e))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(base: &Path) -> BuildOptions<'static> {
        BuildOptions {
            cache: base.to_owned(),
            progress: Box::leak(Box::new(())),
            interrupt: Interrupt::new(),
        }
    }

    #[test]
    fn a_failed_build_leaves_nothing_and_the_next_one_cleans_up_after_the_dead() {
        let base = tempfile::tempdir().unwrap();
        let cache = Cache::new(base.path());
        let mut options = options(base.path());
        fs::create_dir(base.path().join("unfinished-99999999-x")).unwrap();
        let failed = cache.ensure("x", &mut options, |dir, _| {
            fs::write(dir.join("half"), b"").unwrap();
            Err(LabError::Interrupted)
        });
        assert!(matches!(failed, Err(LabError::Interrupted)));
        let left = || {
            let mut names: Vec<_> = fs::read_dir(base.path())
                .unwrap()
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        assert_eq!(left(), ["lock"]);
        let built = cache.ensure("x", &mut options, |dir, _| {
            fs::write(dir.join("whole"), b"1").unwrap();
            Ok(())
        });
        assert!(built.unwrap().join("whole").exists());
        assert_eq!(left(), ["lock", "x"]);
        let again = cache.ensure("x", &mut options, |_, _| panic!("it is there"));
        again.unwrap();
        assert_eq!(remove_all(base.path()).unwrap(), 1);
    }

    #[test]
    fn only_service_images_that_nobody_used_for_long_are_removed() {
        let base = tempfile::tempdir().unwrap();
        let month = SystemTime::now() - Duration::from_secs(30 * 24 * 3600);
        for (name, used) in [
            ("service-old", month),
            ("service-new", SystemTime::now()),
            ("service-again", month),
            ("lab-old", month),
        ] {
            let dir = base.path().join(name);
            fs::create_dir(&dir).unwrap();
            File::create(dir.join("image.json")).unwrap().set_modified(used).unwrap();
        }
        let cache = Cache::new(base.path());
        let mut options = options(base.path());
        cache.ensure("service-again", &mut options, |_, _| panic!("it is there")).unwrap();
        cache.ensure("built", &mut options, |_, _| Ok(())).unwrap();
        let there = |name| base.path().join(name).exists();
        assert!(!there("service-old") && there("service-new"));
        assert!(there("service-again") && there("lab-old"));
    }

    #[test]
    fn two_builders_build_once() {
        let base = tempfile::tempdir().unwrap();
        let builds = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let cache = Cache::new(base.path());
                    cache
                        .ensure("y", &mut options(base.path()), |_, _| {
                            builds.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                            std::thread::sleep(std::time::Duration::from_millis(50));
                            Ok(())
                        })
                        .unwrap();
                });
            }
        });
        assert_eq!(builds.into_inner(), 1);
    }

    #[test]
    fn parts_of_a_hash_do_not_run_into_each_other() {
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
    }
}
