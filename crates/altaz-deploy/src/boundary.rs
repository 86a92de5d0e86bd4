//! Counts what crosses the boundaries of a running deployment: system calls by number, VM exits by
//! reason, port, address, register.
//!
//! The kernel counts by itself, in histogram triggers of a tracefs instance of altaz's own; nothing
//! runs in user space between [`Counter::arm`] and [`Counter::read`]. The recording and the counting
//! are separate runs: the counting leaves its own traces in the kernel's code.

use std::fs;
use std::path::{Path, PathBuf};

use altaz_profile::model::{Boundary, BoundaryEntry, Layer, Posture};
use serde::{Deserialize, Serialize};

use crate::permitted::{self, Permitted, monitor};
use crate::vm_exit::{self, Direction};
use crate::{DeployError, seccomp};

/// Where the lab mounts tracefs.
pub const TRACEFS: &str = "/sys/kernel/tracing";
/// Name of altaz's own instance.
const INSTANCE: &str = "altaz-boundary";
/// Name of the thread that arms and reads, which is not counted.
const OWN_THREAD: &str = "altaz-boundary";
/// Entries of a histogram; more are counted as dropped.
const SIZE: u32 = 8192;

/// One histogram: a boundary's name, its event, and its keys.
struct Source {
    boundary: &'static str,
    event: &'static str,
    keys: &'static str,
    /// Name of a row's entry point; `None` for a row that is only half of another.
    name: fn(&Row) -> Option<String>,
}

const SOURCES: &[Source] = &[
    Source {
        boundary: "syscall",
        event: "raw_syscalls/sys_enter",
        keys: "id",
        name: |r| Some(seccomp::syscall_name(r.key("id"))),
    },
    Source {
        boundary: "vm-exit",
        event: "kvm/kvm_exit",
        keys: "isa,exit_reason",
        name: |r| Some(vm_exit::reason(r.key("isa"), r.key("exit_reason"))),
    },
    Source {
        boundary: "port-io",
        event: "kvm/kvm_pio",
        keys: "port,rw,size",
        name: |r| Some(vm_exit::port(r.key("port"), direction(r.key("rw")), r.key("size"))),
    },
    Source {
        boundary: "mmio",
        event: "kvm/kvm_mmio",
        keys: "gpa,type,len",
        name: |r| {
            // A read that the kernel hands to user space is seen twice: asked for (0), answered (1).
            let way = match r.key("type") {
                0 => return None,
                1 => Direction::Read,
                _ => Direction::Write,
            };
            Some(vm_exit::memory(r.key("gpa"), way, r.key("len")))
        },
    },
    Source {
        boundary: "msr",
        event: "kvm/kvm_msr",
        keys: "ecx,write",
        name: |r| Some(vm_exit::msr(r.key("ecx"), direction(r.key("write")))),
    },
    Source {
        boundary: "hypercall",
        event: "kvm/kvm_hypercall",
        keys: "nr",
        name: |r| Some(vm_exit::hypercall(r.key("nr"))),
    },
];

/// From a key that is not 0 for a write.
fn direction(write: u64) -> Direction {
    Direction::of_write(write != 0)
}

/// What was counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Per boundary name, the entry points with their counts, most frequent first.
    pub boundaries: Vec<(String, Vec<BoundaryEntry>)>,
    /// Crossings that the kernel could not count because a histogram was full.
    pub dropped: u64,
    /// What may cross them, where it was found out.
    #[serde(default)]
    pub permitted: Vec<Permitted>,
    /// What the processes of the deployment may do.
    #[serde(default)]
    pub posture: Vec<Posture>,
    /// What could not be found out and why, one sentence each.
    #[serde(default)]
    pub notes: Vec<String>,
}

impl Counts {
    /// Writes the counts into a deployment's boundaries. System calls counted by the lab's kernel
    /// are those that reach the host kernel; other boundaries of the same name stay undetermined.
    pub fn fill(&self, boundaries: &mut Vec<Boundary>) {
        for b in boundaries.iter_mut() {
            if b.name == "syscall" && b.to != Layer::HostKernel {
                continue;
            }
            if let Some((_, entries)) = self.boundaries.iter().find(|(name, _)| *name == b.name) {
                b.exercised = Some(entries.len() as u32);
                b.entries = entries.clone();
            }
        }
        self.permitted.iter().for_each(|p| p.fill(boundaries));
    }

    /// Looks at what the machine permits: KVM's side and QEMU's where they are there, and what a
    /// sentry implements where one runs. Asked after everything was counted.
    pub fn look(&mut self, tracefs: &Path, run: &Path, kvm: &Path) {
        if self.boundaries.iter().any(|(name, entries)| name == "vm-exit" && !entries.is_empty()) {
            self.permitted.extend(permitted::kvm::permitted(tracefs, kvm));
        }
        let socket = run.join(monitor::SOCKET);
        if socket.exists() {
            match monitor::ask(&socket) {
                Ok(emulated) => {
                    for (name, entries) in &mut self.boundaries {
                        *entries = emulated.fold(name, entries);
                    }
                    self.permitted.extend(emulated.permitted());
                }
                Err(e) => self.notes.push(format!("what QEMU emulates is not known: {e}")),
            }
        }
    }
}

/// Histograms that count until they are read. Dropping it removes them.
#[derive(Debug)]
pub struct Counter {
    instance: PathBuf,
    armed: Vec<usize>,
    filter: String,
}

impl Counter {
    /// Starts counting. Calls of the calling process and of process 1 are left out.
    ///
    /// # Errors
    /// When tracefs is not mounted at `tracefs` or has no system call events.
    pub fn arm(tracefs: &Path) -> Result<Self, DeployError> {
        let _name = ThreadName::set();
        let instance = tracefs.join("instances").join(INSTANCE);
        let what = format!("make the tracing instance {}", instance.display());
        // One that a killed agent left behind would go on counting; its triggers go with it.
        let _ = fs::remove_dir(&instance);
        fs::create_dir(&instance).map_err(DeployError::system(what))?;
        let mut counter = Self { instance, armed: Vec::new(), filter: own_threads_filter() };
        for (index, source) in SOURCES.iter().enumerate() {
            if !counter.event(source).is_dir() {
                // kvm's events are there only with its module; then nothing can exit either.
                continue;
            }
            counter.write_trigger(source, "")?;
            counter.armed.push(index);
        }
        if counter.armed.first() != Some(&0) {
            return Err(DeployError::Service(
                "this kernel has no event raw_syscalls:sys_enter; it needs \
                 CONFIG_HAVE_SYSCALL_TRACEPOINTS and CONFIG_HIST_TRIGGERS"
                    .into(),
            ));
        }
        Ok(counter)
    }

    /// Reads what was counted until now and stops counting. Histograms are read while they count:
    /// pausing one loses what it holds.
    ///
    /// # Errors
    /// When a histogram cannot be read.
    pub fn read(self) -> Result<Counts, DeployError> {
        let _name = ThreadName::set();
        let mut counts = Counts::default();
        for &index in &self.armed {
            let source = &SOURCES[index];
            let file = self.event(source).join("hist");
            let text = fs::read_to_string(&file)
                .map_err(DeployError::system(format!("read {}", file.display())))?;
            let hist = parse_histogram(&text);
            counts.dropped += hist.dropped;
            counts.boundaries.push((source.boundary.to_owned(), entries(source, &hist)));
        }
        Ok(counts)
    }

    fn event(&self, source: &Source) -> PathBuf {
        self.instance.join("events").join(source.event)
    }

    /// Adds a source's trigger, or with `!` removes it.
    fn write_trigger(&self, source: &Source, sign: &str) -> Result<(), DeployError> {
        let file = self.event(source).join("trigger");
        let filter = if source.boundary == "syscall" { self.filter.as_str() } else { "" };
        let text = format!("{sign}hist:keys={}:size={SIZE}{filter}", source.keys);
        fs::write(&file, &text)
            .map_err(DeployError::system(format!("write `{text}` to {}", file.display())))
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        for &index in &self.armed {
            let _ = self.write_trigger(&SOURCES[index], "!");
        }
        let _ = fs::remove_dir(&self.instance);
    }
}

fn entries(source: &Source, hist: &Histogram) -> Vec<BoundaryEntry> {
    let mut out: Vec<BoundaryEntry> = Vec::new();
    for row in &hist.rows {
        let Some(name) = (source.name)(row) else { continue };
        match out.iter_mut().find(|e| e.name == name) {
            Some(e) => e.count += row.count,
            None => out.push(BoundaryEntry::new(name, row.count)),
        }
    }
    BoundaryEntry::sort(&mut out);
    out
}

/// A filter that leaves out process 1 and the threads that this process has now.
fn own_threads_filter() -> String {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let mut tids: Vec<u32> =
        tasks.filter_map(|t| t.file_name().to_str()?.parse().ok()).chain([1]).collect();
    tids.sort_unstable();
    let mut filter = format!(" if comm != \"{OWN_THREAD}\"");
    for tid in tids {
        filter.push_str(&format!(" && common_pid != {tid}"));
    }
    filter
}

/// Gives the calling thread the name that the filter leaves out, and its old one back.
struct ThreadName(Option<String>);

impl ThreadName {
    fn set() -> Self {
        let path = "/proc/thread-self/comm";
        let old = fs::read_to_string(path).ok();
        let _ = fs::write(path, OWN_THREAD);
        Self(old)
    }
}

impl Drop for ThreadName {
    fn drop(&mut self) {
        if let Some(old) = &self.0 {
            let _ = fs::write("/proc/thread-self/comm", old.trim_end());
        }
    }
}

/// A histogram as the kernel prints it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Its rows.
    pub rows: Vec<Row>,
    /// Events that found no room.
    pub dropped: u64,
}

/// A row of a histogram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Names and values of the keys.
    pub keys: Vec<(String, u64)>,
    /// How often.
    pub count: u64,
}

impl Row {
    fn key(&self, name: &str) -> u64 {
        self.keys.iter().find(|(k, _)| k == name).map_or(0, |(_, v)| *v)
    }
}

/// Parses a histogram. Lines that do not look like rows are skipped; keys may be decimal (also
/// negative, as a two's complement) or hexadecimal.
pub fn parse_histogram(text: &str) -> Histogram {
    let mut out = Histogram::default();
    for line in text.lines().map(str::trim) {
        if let Some(n) = line.strip_prefix("Dropped:") {
            out.dropped += n.trim().parse::<u64>().unwrap_or(0);
        } else if let Some(row) = parse_row(line) {
            out.rows.push(row);
        }
    }
    out
}

fn parse_row(line: &str) -> Option<Row> {
    let (keys, rest) = line.strip_prefix('{')?.split_once('}')?;
    let keys = keys
        .split(',')
        .map(|pair| {
            let (name, value) = pair.split_once(':')?;
            Some((name.trim().to_owned(), number(value.trim())?))
        })
        .collect::<Option<Vec<_>>>()?;
    let (_, count) = rest.split_once("hitcount:")?;
    let count = count.split_whitespace().next()?.parse().ok()?;
    Some(Row { keys, count })
}

fn number(text: &str) -> Option<u64> {
    if let Some(hex) = text.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).ok();
    }
    text.parse::<u64>().ok().or_else(|| text.parse::<i64>().ok().map(|n| n as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYSCALLS: &str = "# event histogram
#
# trigger info: hist:keys=id:vals=hitcount:sort=hitcount:size=8192 [paused]
#

{ id:        231 } hitcount:          1
{ id:          0 } hitcount:         40
{ id:          1 } hitcount:        100

Totals:
    Hits: 141
    Entries: 3
    Dropped: 2
";

    fn source(boundary: &str) -> &'static Source {
        SOURCES.iter().find(|s| s.boundary == boundary).unwrap()
    }

    #[test]
    fn system_calls_get_their_names_and_the_most_frequent_comes_first() {
        let hist = parse_histogram(SYSCALLS);
        assert_eq!(hist.dropped, 2);
        let names: Vec<_> =
            entries(source("syscall"), &hist).into_iter().map(|e| (e.name, e.count)).collect();
        let want = [("write", 100), ("read", 40), ("exit_group", 1)];
        assert_eq!(names, want.map(|(n, c)| (n.to_owned(), c)));
    }

    #[test]
    fn ports_keep_direction_and_size() {
        let hist =
            parse_histogram("{ port:       1016, rw:          1, size:          1 } hitcount: 7\n");
        assert_eq!(entries(source("port-io"), &hist)[0].name, "out 0x3f8 1 bytes");
    }

    #[test]
    fn a_read_of_device_memory_counts_once() {
        let hist = parse_histogram(
            "{ gpa: 4273991264, type: 0, len: 4 } hitcount: 9\n\
             { gpa: 4273991264, type: 1, len: 4 } hitcount: 9\n",
        );
        let got = entries(source("mmio"), &hist);
        assert_eq!((got.len(), got[0].name.as_str()), (1, "read 0xfebfee60 4 bytes"));
    }

    #[test]
    fn only_the_host_kernel_s_boundary_is_filled_with_the_host_kernel_s_counts() {
        let b = |to| Boundary::new("syscall", Layer::App, to, None);
        let mut both = vec![b(Layer::SandboxKernel), b(Layer::HostKernel)];
        let hist = parse_histogram(SYSCALLS);
        let counts = Counts {
            boundaries: vec![("syscall".into(), entries(source("syscall"), &hist))],
            ..Counts::default()
        };
        counts.fill(&mut both);
        assert_eq!((both[0].exercised, both[1].exercised), (None, Some(3)));
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_text_is_parsed_without_panic(text: String) {
            parse_histogram(&text);
        }

        #[test]
        fn rows_come_back_as_printed(rows in proptest::collection::vec((0u64..600, 1u64..1_000_000), 0..40)) {
            let text: String = rows.iter().map(|(id, n)| format!("{{ id: {id:10} }} hitcount: {n:10}\n")).collect();
            let got: Vec<_> = parse_histogram(&text).rows.iter().map(|r| (r.key("id"), r.count)).collect();
            proptest::prop_assert_eq!(got, rows);
        }
    }
}
