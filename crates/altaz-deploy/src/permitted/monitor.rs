//! What QEMU emulates for a running guest, asked of its monitor (QMP over a Unix socket): regions of
//! ports and of device memory, and the queues of virtio devices with what was put into them.
//!
//! Nothing here writes to the machine; the questions are asked after everything else was recorded.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use altaz_profile::model::{BoundaryEntry, Layer};
use serde_json::{Value, json};

use super::Permitted;
use crate::DeployError;

/// File name of the monitor's socket, in the lab's directory for run-time state.
pub const SOCKET: &str = "monitor.sock";
/// How long QEMU may take for an answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Lines that QEMU may print before an answer (events).
const LINES: usize = 10_000;
/// Queues of one device that are asked about; a network card may have thousands.
const QUEUES: u64 = 256;

/// The two options of QEMU's command line that open its monitor.
pub fn options(run: &Path) -> [String; 2] {
    let socket = run.join(SOCKET);
    ["-qmp".into(), format!("unix:{},server=on,wait=off", socket.display())]
}

/// A region that a device answers for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// First address.
    pub first: u64,
    /// Last address.
    pub last: u64,
    /// QEMU's name.
    pub name: String,
}

impl Region {
    fn label(&self) -> String {
        format!("{:#x}-{:#x} {}", self.first, self.last, self.name)
    }
}

/// Regions of a machine by how they are reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Regions {
    /// Ports.
    pub ports: Vec<Region>,
    /// Memory without RAM behind it.
    pub memory: Vec<Region>,
}

/// What one QEMU emulates.
#[derive(Debug, Default)]
pub struct Emulated {
    /// Regions of devices.
    pub regions: Regions,
    /// Widths of the queues: those that QEMU serves, and those that the host's kernel serves (vhost).
    pub queues: Vec<Permitted>,
}

impl Emulated {
    /// Widths of all boundaries into this machine.
    pub fn permitted(&self) -> Vec<Permitted> {
        let into_vmm = (Layer::GuestKernel, Layer::Vmm);
        let both = |words: [&'static str; 2], regions: &[Region]| -> Vec<String> {
            let named = |r: &Region| words.map(|w| format!("{w} {}", r.label()));
            regions.iter().flat_map(named).collect()
        };
        let how = "regions that this QEMU answers for (`info mtree -f`), reading and writing each; \
                   those called kvm-… the host's kernel answers";
        let of = |name: &str, words, regions: &[Region]| {
            Permitted::new(name, into_vmm, both(words, regions), how)
        };
        let mut all = vec![
            of("port-io", ["in", "out"], &self.regions.ports),
            of("mmio", ["read", "write"], &self.regions.memory),
        ];
        all.extend(self.queues.iter().cloned());
        all
    }

    /// Puts accesses that were counted by address into their regions, so that permitted and exercised
    /// entry points are the same things. What no region answers for keeps its name.
    pub fn fold(&self, boundary: &str, entries: &[BoundaryEntry]) -> Vec<BoundaryEntry> {
        let regions = match boundary {
            "port-io" => &self.regions.ports,
            "mmio" => &self.regions.memory,
            _ => return entries.to_vec(),
        };
        let mut folded: Vec<BoundaryEntry> = Vec::new();
        for e in entries {
            let name = region_of(&e.name, regions).unwrap_or_else(|| e.name.clone());
            match folded.iter_mut().find(|f| f.name == name) {
                Some(f) => f.count = f.count.saturating_add(e.count),
                None => folded.push(BoundaryEntry::new(name, e.count)),
            }
        }
        BoundaryEntry::sort(&mut folded);
        folded
    }
}

/// `out 0x3f8 1 bytes` → `out 0x3f8-0x3ff serial`.
fn region_of(name: &str, regions: &[Region]) -> Option<String> {
    let mut words = name.split(' ');
    let (way, address) = (words.next()?, words.next()?);
    let address = u64::from_str_radix(address.strip_prefix("0x")?, 16).ok()?;
    let region = regions.iter().find(|r| (r.first..=r.last).contains(&address))?;
    Some(format!("{way} {}", region.label()))
}

/// Asks the monitor behind this socket.
///
/// # Errors
/// When there is no monitor or it answers something else. Queues that it does not tell (older QEMU)
/// are left out.
pub fn ask(socket: &Path) -> Result<Emulated, DeployError> {
    let what = || format!("ask QEMU's monitor {}", socket.display());
    let mut monitor = Monitor::connect(socket).map_err(DeployError::system(what()))?;
    let question = json!({ "command-line": "info mtree -f" });
    let tree =
        monitor.call("human-monitor-command", question).map_err(DeployError::system(what()))?;
    let regions = regions(tree.as_str().unwrap_or_default());
    let queues = monitor.queues().unwrap_or_default();
    Ok(Emulated { regions, queues })
}

struct Monitor {
    out: UnixStream,
    input: BufReader<UnixStream>,
}

impl Monitor {
    fn connect(socket: &Path) -> std::io::Result<Self> {
        let out = UnixStream::connect(socket)?;
        out.set_read_timeout(Some(PATIENCE))?;
        out.set_write_timeout(Some(PATIENCE))?;
        let input = BufReader::new(out.try_clone()?);
        let mut monitor = Self { out, input };
        // The greeting comes by itself.
        monitor.line()?;
        monitor.call("qmp_capabilities", json!({}))?;
        Ok(monitor)
    }

    fn line(&mut self) -> std::io::Result<Value> {
        let mut line = String::new();
        if self.input.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        serde_json::from_str(&line).map_err(std::io::Error::other)
    }

    fn call(&mut self, command: &str, arguments: Value) -> std::io::Result<Value> {
        let mut question = json!({ "execute": command, "arguments": arguments }).to_string();
        question.push('\n');
        self.out.write_all(question.as_bytes())?;
        for _ in 0..LINES {
            let mut answer = self.line()?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = answer.get("error") {
                return Err(std::io::Error::other(format!("`{command}`: {error}")));
            }
        }
        Err(std::io::Error::other(format!("`{command}` was not answered")))
    }

    /// Queues of all virtio devices.
    fn queues(&mut self) -> std::io::Result<Vec<Permitted>> {
        let devices = self.call("x-query-virtio", json!({}))?;
        let mut here = Side::default();
        let mut in_kernel = Side::default();
        for device in devices.as_array().into_iter().flatten() {
            let (Some(path), Some(name)) = (device["path"].as_str(), device["name"].as_str())
            else {
                continue;
            };
            let status = self.call("x-query-virtio-status", json!({ "path": path }))?;
            let vhost = match status.get("vhost-dev") {
                Some(v) if status["vhost-started"].as_bool() == Some(true) => {
                    v["nvqs"].as_u64().unwrap_or(0)
                }
                _ => 0,
            };
            let total = status["num-vqs"].as_u64().unwrap_or(0).min(QUEUES);
            for queue in 0..total {
                let at = json!({ "path": path, "queue": queue });
                let state = self.call("x-query-virtio-queue-status", at).ok();
                // A queue that the guest has not set up has no ring.
                let ring = state.as_ref().is_some_and(|s| s["vring-desc"].as_u64() != Some(0));
                let label = format!("{name} {} queue {queue}", short(path));
                if queue < vhost {
                    in_kernel.names.push(label);
                    in_kernel.unknown = true;
                } else {
                    let used = state.as_ref().and_then(|s| s["used-idx"].as_u64()).unwrap_or(0);
                    if ring && used > 0 {
                        here.used.push(BoundaryEntry::new(label.clone(), used));
                    }
                    here.names.push(label);
                }
            }
        }
        let how = "queues of the virtio devices of this QEMU (`x-query-virtio`); used since the guest \
                   started, counted modulo 65,536";
        let vhost = "queues that vhost serves in the host's kernel (`x-query-virtio-status`); QEMU does \
                     not know how often they were used";
        Ok([
            here.width("virtqueue", (Layer::GuestKernel, Layer::Vmm), how),
            in_kernel.width("vhost-queue", (Layer::GuestKernel, Layer::HostKernel), vhost),
        ]
        .into_iter()
        .flatten()
        .collect())
    }
}

#[derive(Debug, Default)]
struct Side {
    names: Vec<String>,
    used: Vec<BoundaryEntry>,
    unknown: bool,
}

impl Side {
    fn width(mut self, name: &str, between: (Layer, Layer), how: &str) -> Option<Permitted> {
        if self.names.is_empty() {
            return None;
        }
        BoundaryEntry::sort(&mut self.used);
        let exercised = (!self.unknown).then_some(self.used);
        Some(Permitted { exercised, ..Permitted::new(name, between, self.names, how) })
    }
}

/// The part of a device's path that tells it from others.
fn short(path: &str) -> &str {
    let path = path.strip_suffix("/virtio-backend").unwrap_or(path);
    path.rsplit('/').next().unwrap_or(path)
}

/// Regions of devices in what `info mtree -f` prints. RAM and ROM are not among them: reading them
/// runs no device's code.
pub fn regions(text: &str) -> Regions {
    let mut out = Regions::default();
    let (mut ports, mut memory) = (false, false);
    for line in text.lines() {
        if line.starts_with("FlatView") {
            (ports, memory) = (false, false);
        } else if let Some(space) = line.trim_start().strip_prefix("AS \"") {
            ports |= space.starts_with("I/O\"");
            memory |= space.starts_with("memory\"");
        } else if let Some(region) = region(line) {
            let to = if ports {
                &mut out.ports
            } else if memory {
                &mut out.memory
            } else {
                continue;
            };
            if !to.contains(&region) {
                to.push(region);
            }
        }
    }
    out
}

/// `  00000000000003f8-00000000000003ff (prio 0, i/o): serial`
fn region(line: &str) -> Option<Region> {
    let (range, rest) = line.trim_start().split_once(" (prio ")?;
    let (first, last) = range.split_once('-')?;
    let (kind, name) = rest.split_once("): ")?;
    // ROM devices are read like memory and written like devices.
    if !kind.ends_with("i/o") && !kind.ends_with("romd") {
        return None;
    }
    let name = name.trim_end().trim_end_matches(" KVM");
    let name = name.split(" @").next().unwrap_or(name);
    // The port space itself, where no device is: reads give ones, writes are dropped.
    if name == "io" {
        return None;
    }
    Some(Region {
        first: u64::from_str_radix(first, 16).ok()?,
        last: u64::from_str_radix(last, 16).ok()?,
        name: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "FlatView #0
 AS \"memory\", root: system
 AS \"cpu-memory-0\", root: system
 Root memory region: system
  0000000000000000-000000002fffffff (prio 0, ram): microvm.ram KVM KVM
  00000000feb00000-00000000feb001ff (prio 0, i/o): virtio-mmio
  00000000feb00200-00000000feb003ff (prio 0, i/o): virtio-mmio

FlatView #1
 AS \"I/O\", root: io
 Root memory region: io
  00000000000003f8-00000000000003ff (prio 0, i/o): serial
  0000000000000072-000000000000007d (prio 0, i/o): io @0000000000000072
  0000000000000cf8-0000000000000cfb (prio 0, i/o): pci-conf-idx @0000000000000000

FlatView #2
 AS \"virtio-net-pci\", root: bus master container
  00000000fee00000-00000000feefffff (prio 4096, i/o): kvm-apic-msi
";

    #[test]
    fn only_regions_that_a_device_answers_for_count_and_only_those_that_the_guest_reaches() {
        let r = regions(TREE);
        let names: Vec<_> = r.ports.iter().map(Region::label).collect();
        assert_eq!(names, ["0x3f8-0x3ff serial", "0xcf8-0xcfb pci-conf-idx"]);
        assert_eq!(r.memory.len(), 2);
    }

    #[test]
    fn what_was_called_has_the_name_of_what_may_be_called() {
        let emulated = Emulated { regions: regions(TREE), queues: vec![] };
        let counted =
            ["out 0x3f8 1 bytes", "out 0x3fd 1 bytes", "in 0x3fd 1 bytes", "in 0x99 4 bytes"]
                .map(|n| BoundaryEntry::new(n, 2));
        let folded = emulated.fold("port-io", &counted);
        let got: Vec<_> = folded.iter().map(|e| (e.name.as_str(), e.count)).collect();
        assert_eq!(
            got,
            [("out 0x3f8-0x3ff serial", 4), ("in 0x3f8-0x3ff serial", 2), ("in 0x99 4 bytes", 2)]
        );
        let all = emulated.permitted();
        assert_eq!((all[0].boundary.as_str(), all[0].entries.len()), ("port-io", 4));
        assert!(all[0].entries.iter().any(|e| e.name == got[0].0));
        assert_eq!((all[1].boundary.as_str(), all[1].entries.len()), ("mmio", 4));
    }

    #[test]
    fn a_monitor_is_asked_for_regions_and_queues() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join(SOCKET);
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let qemu = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut out = stream.try_clone().unwrap();
            out.write_all(b"{\"QMP\": {}}\n").unwrap();
            for line in BufReader::new(stream).lines() {
                let asked: Value = serde_json::from_str(&line.unwrap()).unwrap();
                let path = "/machine/peripheral/net0/virtio-backend";
                let answer = match asked["execute"].as_str().unwrap() {
                    "human-monitor-command" => json!(TREE),
                    "x-query-virtio" => json!([{ "path": path, "name": "virtio-net" }]),
                    "x-query-virtio-status" => json!({
                        "num-vqs": 3, "vhost-started": true, "vhost-dev": { "nvqs": 2 } }),
                    "x-query-virtio-queue-status" => json!({ "used-idx": 5, "vring-desc": 4096 }),
                    _ => json!({}),
                };
                let event = json!({ "event": "RTC_CHANGE" });
                out.write_all(format!("{event}\n{}\n", json!({ "return": answer })).as_bytes())
                    .unwrap();
            }
        });
        let emulated = ask(&socket).unwrap();
        qemu.join().unwrap();
        let queues: Vec<_> = emulated
            .queues
            .iter()
            .map(|p| (p.boundary.as_str(), p.entries.len(), p.exercised.as_ref().map(Vec::len)))
            .collect();
        assert_eq!(queues, [("virtqueue", 1, Some(1)), ("vhost-queue", 2, None)]);
        assert_eq!(emulated.queues[0].entries[0].name, "virtio-net net0 queue 2");
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_trees_never_panic(text: String) {
            regions(&text);
            regions(&format!("FlatView #0\n AS \"memory\"\n{text} (prio 0, i/o): {text}"));
        }
    }
}
