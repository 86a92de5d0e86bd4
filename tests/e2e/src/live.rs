//! The kernel as tests of the live instrument look at it: which BPF objects there are, where the
//! control groups of version 2 are, and altaz under way.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::{Ran, altaz_program, command};

/// Perl that prints the ids of all BPF objects; for this machine and for the lab.
pub const BPF_IDS: &str = include_str!("bpf-ids.pl");

/// Every BPF object of the kernel: `prog 7`, `map 3`, `link 12`.
///
/// # Panics
/// When they cannot be listed.
pub fn bpf_objects() -> BTreeSet<String> {
    let output = command("perl").args(["-e", BPF_IDS]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// The BPF objects that a process holds, as [`bpf_objects`] calls them.
pub fn bpf_objects_of(pid: u32) -> BTreeSet<String> {
    let Ok(infos) = std::fs::read_dir(format!("/proc/{pid}/fdinfo")) else {
        return BTreeSet::new();
    };
    let text = |info: std::fs::DirEntry| std::fs::read_to_string(info.path()).ok();
    infos
        .flatten()
        .filter_map(text)
        .flat_map(|info| info.lines().filter_map(object).collect::<Vec<_>>())
        .collect()
}

fn object(line: &str) -> Option<String> {
    let (key, id) = line.split_once(':')?;
    let kind = key.strip_suffix("_id").filter(|k| ["prog", "map", "link"].contains(k))?;
    Some(format!("{kind} {}", id.trim()))
}

/// Where control groups of version 2 are mounted.
///
/// # Panics
/// When they are not.
pub fn cgroup2() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    let mut mounts = mounts.lines().map(|l| l.split(' ').collect::<Vec<_>>());
    mounts.find(|m| m[2] == "cgroup2").expect("no cgroup2 is mounted")[1].into()
}

/// A control group that is removed with all its processes.
pub struct Cgroup(pub PathBuf);

impl Cgroup {
    /// Makes it below the root.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn new(name: &str) -> Self {
        let path = cgroup2().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = std::fs::write(self.0.join("cgroup.kill"), "1");
        let begin = Instant::now();
        while std::fs::remove_dir(&self.0).is_err() && begin.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A process that ends with the test.
pub struct Process(pub Child);

impl Process {
    /// Starts a program.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(program: &str, args: &[&str]) -> Self {
        let mut command = command(program);
        command.args(args).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    /// Its id.
    pub fn pid(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// altaz at work in the background.
pub struct Running(Option<Child>);

impl Running {
    /// Starts it in a directory.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn altaz(dir: &Path, args: &[&str]) -> Self {
        let mut command = command(altaz_program());
        command.args(args).current_dir(dir).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(Some(command.spawn().unwrap()))
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.0.as_ref().map_or(0, Child::id)
    }

    /// Waits until it holds BPF objects: it has begun to record. They are given.
    ///
    /// # Panics
    /// When it does not within ten seconds.
    pub fn armed(&self) -> BTreeSet<String> {
        let begin = Instant::now();
        loop {
            let held = bpf_objects_of(self.pid());
            if held.iter().any(|o| o.starts_with("link")) {
                // The last of several is there a little later.
                std::thread::sleep(Duration::from_millis(500));
                return bpf_objects_of(self.pid());
            }
            assert!(begin.elapsed() < Duration::from_secs(10), "it records nothing");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When it is gone.
    pub fn signal(&self, signal: &str) {
        let sent = command("kill").args(["-s", signal, &self.pid().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// What it did, once it has ended.
    ///
    /// # Panics
    /// When it cannot be waited for.
    pub fn wait(mut self) -> Ran {
        self.0.take().unwrap().wait_with_output().unwrap().into()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A QEMU in this directory that runs the lab's processors in turn on one thread of the host. With a thread each, QEMU
/// once in a while executes a breakpoint that the kernel has just taken out while it arms functions, and the lab's
/// kernel panics.
///
/// # Panics
/// When it cannot be written.
pub fn qemu_in_turn(dir: &Path) -> PathBuf {
    let path = dir.join("qemu-in-turn");
    let script = "#!/bin/bash\nexec qemu-system-x86_64 \"${@/thread=multi/thread=single}\"\n";
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    path
}

/// Script for the lab: `altaz` records `what` into `/tmp/live.altaz`, says `armed` once all functions are, or after so
/// many seconds (what was not armed then is in the profile's blind spots), and records until it is given a line.
/// Prints what altaz said.
pub fn record_until_told(altaz: &str, what: &str, seconds: u32) -> String {
    format!(
        "rm -f /tmp/live.altaz
         {altaz} record {what} --phase serve --duration 1000s -o /tmp/live.altaz \
             >/tmp/altaz.log 2>&1 </dev/null &
         altaz=$!
         tries=0
         until grep -q 'everything is armed' /tmp/altaz.log || [ $tries -ge {seconds} ]; do
             kill -0 $altaz || {{ cat /tmp/altaz.log >&2; exit 1; }}
             tries=$((tries + 1))
             sleep 1
         done
         echo armed
         read line
         kill -INT $altaz
         code=0
         wait $altaz || code=$?
         cat /tmp/altaz.log
         [ $code = 0 ] || [ $code = 4 ] || [ $code = 130 ] || {{ cat /tmp/altaz.log >&2; exit 1; }}"
    )
}
