//! Trees of files that look like the kernel's and the engines', for tests without either.

#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use altaz_target::Roots;

/// A machine laid out in a temporary directory.
pub struct Machine {
    dir: tempfile::TempDir,
}

/// A process to lay out; the defaults are those of an ordinary daemon of the host.
pub struct Proc<'a> {
    pub pid: u32,
    pub ppid: u32,
    pub comm: &'a str,
    pub argv: &'a [&'a str],
    pub exe: &'a str,
    /// Lines of its `cgroup` file.
    pub cgroup: &'a str,
    /// Kinds of namespaces that are not the host's, with a number that tells them apart.
    pub ns: &'a [(&'a str, u64)],
    /// Names of further threads: id and name.
    pub threads: &'a [(u32, &'a str)],
    /// Links of its descriptors.
    pub fds: &'a [&'a str],
    pub start: u64,
    pub kernel: bool,
}

impl Default for Proc<'_> {
    fn default() -> Self {
        Self {
            pid: 1,
            ppid: 1,
            comm: "daemon",
            argv: &["/usr/sbin/daemon"],
            exe: "/usr/sbin/daemon",
            cgroup: "0::/",
            ns: &[],
            threads: &[],
            fds: &[],
            start: 5000,
            kernel: false,
        }
    }
}

/// Mounts of a machine with version 2 only.
pub const V2: &str =
    "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";
/// Mounts of a machine with both versions.
pub const HYBRID: &str = "30 23 0:26 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw,nsdelegate
32 30 0:28 / /sys/fs/cgroup/systemd rw shared:11 - cgroup cgroup rw,xattr,name=systemd
33 30 0:29 / /sys/fs/cgroup/memory rw shared:12 - cgroup cgroup rw,memory
34 30 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:13 - cgroup cgroup rw,cpu,cpuacct";

impl Machine {
    /// A machine with process 1 and these mounts.
    pub fn new(mounts: &str) -> Self {
        let machine = Self { dir: tempfile::tempdir().unwrap() };
        machine.file("proc/self/mountinfo", mounts);
        machine.proc(&Proc {
            pid: 1,
            ppid: 0,
            comm: "systemd",
            argv: &["/sbin/init"],
            exe: "/usr/lib/systemd/systemd",
            cgroup: "0::/init.scope",
            start: 1,
            ..Proc::default()
        });
        machine
    }

    pub fn roots(&self) -> Roots {
        Roots::under(self.dir.path())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn file(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A cgroup's directory.
    pub fn cgroup(&self, path: &str) {
        fs::create_dir_all(self.path(path)).unwrap();
    }

    pub fn proc(&self, p: &Proc<'_>) {
        let dir = format!("proc/{}", p.pid);
        let _ = fs::remove_dir_all(self.path(&dir));
        let flags = if p.kernel { 0x0020_8040 } else { 0x0040_0100 };
        let stat = |id: u32, comm: &str| {
            let tail = "0 0 0 0 0 0 0 0 20 0 1 0";
            format!("{id} ({comm}) S {} 1 1 0 -1 {flags} {tail} {} 0 0\n", p.ppid, p.start)
        };
        self.file(&format!("{dir}/stat"), &stat(p.pid, p.comm));
        let argv: String = p.argv.iter().map(|a| format!("{a}\0")).collect();
        self.file(&format!("{dir}/cmdline"), if p.kernel { "" } else { &argv });
        self.file(&format!("{dir}/cgroup"), &format!("{}\n", p.cgroup));
        self.file(&format!("{dir}/status"), &status(p));
        self.file(&format!("{dir}/task/{}/stat", p.pid), &stat(p.pid, p.comm));
        self.file(&format!("{dir}/task/{}/status", p.pid), &status(p));
        for (tid, comm) in p.threads {
            self.file(&format!("{dir}/task/{tid}/stat"), &stat(*tid, comm));
            self.file(&format!("{dir}/task/{tid}/status"), &status(p));
        }
        if !p.kernel {
            symlink(p.exe, self.path(&format!("{dir}/exe"))).unwrap();
            fs::create_dir_all(self.path(&format!("{dir}/ns"))).unwrap();
            for (i, kind) in
                ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"].iter().enumerate()
            {
                let own = p.ns.iter().find(|(k, _)| k == kind).map(|(_, n)| *n);
                let inode = own.map_or(4_026_531_834 + i as u64, |n| 4_026_532_000 + n);
                symlink(format!("{kind}:[{inode}]"), self.path(&format!("{dir}/ns/{kind}")))
                    .unwrap();
            }
        }
        fs::create_dir_all(self.path(&format!("{dir}/fd"))).unwrap();
        for (i, link) in p.fds.iter().enumerate() {
            symlink(link, self.path(&format!("{dir}/fd/{i}"))).unwrap();
        }
    }

    pub fn ends(&self, pid: u32) {
        fs::remove_dir_all(self.path(&format!("proc/{pid}"))).unwrap();
    }

    pub fn symlink(&self, to: &str, at: &str) {
        let at = self.path(at);
        fs::create_dir_all(at.parent().unwrap_or(Path::new("/"))).unwrap();
        symlink(to, at).unwrap();
    }
}

fn status(p: &Proc<'_>) -> String {
    format!(
        "Name:\t{}\nTgid:\t{}\nUid:\t1000\t1000\t1000\t1000\nCapEff:\t00000000a80425fb\n\
         CapBnd:\t00000000a80425fb\nNoNewPrivs:\t1\nSeccomp:\t0\nSeccomp_filters:\t0\n",
        p.comm, p.pid
    )
}
