//! Where the kernel's and the engines' files are: everything in this crate that reads takes these
//! roots, so that tests can lay out trees of their own.

use std::path::{Component, Path, PathBuf};

/// Roots of the file systems that are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// The process file system (`/proc`).
    pub proc: PathBuf,
    /// The kernel's objects (`/sys`); mount points of cgroup hierarchies lie in it.
    pub sys: PathBuf,
    /// Run-time state of container runtimes (`/run`).
    pub run: PathBuf,
    /// Durable state of container engines (`/var/lib`).
    pub var_lib: PathBuf,
    /// Home directories, for engines that run without root (`/home/*`, `/root`).
    pub homes: Vec<PathBuf>,
}

impl Roots {
    /// The running machine.
    pub fn here() -> Self {
        let homes = std::fs::read_dir("/home").into_iter().flatten().flatten().map(|e| e.path());
        Self {
            proc: "/proc".into(),
            sys: "/sys".into(),
            run: "/run".into(),
            var_lib: "/var/lib".into(),
            homes: homes.chain([PathBuf::from("/root")]).collect(),
        }
    }

    /// Trees under one directory: `DIR/proc`, `DIR/sys` …, for tests.
    pub fn under(dir: &Path) -> Self {
        Self {
            proc: dir.join("proc"),
            sys: dir.join("sys"),
            run: dir.join("run"),
            var_lib: dir.join("var/lib"),
            homes: vec![dir.join("home/user")],
        }
    }

    /// Whether these are the running machine's own.
    pub(crate) fn is_here(&self) -> bool {
        self.proc == Path::new("/proc")
    }

    /// A file of a process.
    pub(crate) fn of(&self, pid: u32, name: &str) -> PathBuf {
        self.proc.join(pid.to_string()).join(name)
    }

    /// A path as the kernel names it, in these trees.
    pub(crate) fn rebase(&self, path: &Path) -> PathBuf {
        for (prefix, root) in [("/sys", &self.sys), ("/run", &self.run), ("/var/run", &self.run)] {
            if let Ok(rest) = path.strip_prefix(prefix) {
                return root.join(rest);
            }
        }
        path.to_owned()
    }
}

/// The path without `.` and `..`, so that prefixes can be compared. Does not touch the file system.
pub(crate) fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}
