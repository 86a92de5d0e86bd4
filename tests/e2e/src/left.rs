//! What a script of a test left in the lab: an archive of files, unpacked here and kept until the next run, for
//! looking into what failed. The scripts judge nothing; the tests do, by these files.

use std::path::{Path, PathBuf};

use crate::command;

/// The directory `out` of a script, on this side.
#[derive(Debug)]
pub struct Left(PathBuf);

impl Left {
    /// An empty directory of that name below the build's, where the archive is to go.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn new(build: &str, name: &str) -> Self {
        let dir = Path::new(build).join(name);
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.0
    }

    /// Where the archive is to be written before it is unpacked.
    pub fn archive(&self) -> PathBuf {
        self.0.join("out.tar")
    }

    /// Unpacks the archive; the script must have had no trouble of its own.
    ///
    /// # Panics
    /// When it cannot be unpacked, or the script waited in vain for something.
    pub fn unpack(&self) {
        let tar = command("tar").args(["-xf", "out.tar"]).current_dir(&self.0).status().unwrap();
        assert!(tar.success());
        let trouble = self.path("trouble");
        assert!(!trouble.exists(), "{:?}", std::fs::read_to_string(trouble));
    }

    /// Path of one of the script's files.
    pub fn path(&self, file: &str) -> PathBuf {
        self.0.join("out").join(file)
    }

    /// Text of one of the script's files, without the white space around it.
    ///
    /// # Panics
    /// When it is not there.
    #[track_caller]
    pub fn text(&self, file: &str) -> String {
        let path = self.path(file);
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }

    /// One of the script's files that holds a number.
    ///
    /// # Panics
    /// When it holds none.
    #[track_caller]
    pub fn number(&self, file: &str) -> f64 {
        let text = self.text(file);
        text.parse().unwrap_or_else(|_| panic!("{file}: {text}"))
    }
}
