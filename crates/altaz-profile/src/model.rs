//! The data model of a profile: units, windows, layers, owners, boundaries, manifest.
//!
//! Pure values. No file format (that is [`crate::file`]) and no statistics
//! (that is [`crate::completeness`]).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::inventory::Place;

/// Schema identifier of the manifest that this version writes: `altaz.profile/MAJOR.MINOR`.
/// Readers refuse another major number.
pub const SCHEMA: &str = "altaz.profile/1.2";

macro_rules! names {
    ($(#[$meta:meta])* $ty:ident { $($(#[$vmeta:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $ty { $($(#[$vmeta])* #[serde(rename = $text)] $variant),+ }
        impl $ty {
            /// Every value, in its canonical order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// The name used in files, on the command line and in reports.
            pub const fn as_str(self) -> &'static str { match self { $(Self::$variant => $text),+ } }
            /// The value of this name, if there is one.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }
        }
        impl ::std::fmt::Display for $ty {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

pub(crate) use names;

names! {
    /// A body of code with its own privilege or address space that a request passes.
    /// The order is that of a request's way down: the application first, firmware last.
    Layer {
        /// The service's own executables.
        App = "app",
        /// Shared libraries that the service loads.
        Library = "library",
        /// Interpreters and virtual machines of languages, with their native extensions.
        LanguageRuntime = "language-runtime",
        /// User-space kernel of a sandbox (gVisor's sentry).
        SandboxKernel = "sandbox-kernel",
        /// Privileged helper of a sandbox (gVisor's gofer).
        SandboxHelper = "sandbox-helper",
        /// Userland of a guest that is not the service itself (its init).
        GuestUserland = "guest-userland",
        /// Kernel of a virtual machine's guest.
        GuestKernel = "guest-kernel",
        /// Virtual machine monitor: emulation of virtual hardware.
        Vmm = "vmm",
        /// Helper process of a virtual machine monitor (virtiofsd, vhost-user).
        VmmHelper = "vmm-helper",
        /// Service of the host that runs beside the deployment (shim, conmon).
        HostService = "host-service",
        /// Kernel of the host.
        HostKernel = "host-kernel",
        /// Firmware. Model only.
        Firmware = "firmware",
    }
}

names! {
    /// Who must find and fix the defects of a layer.
    Owner {
        /// The customer, whose service runs.
        Tenant = "tenant",
        /// The cloud service provider.
        Provider = "provider",
    }
}

names! {
    /// Phase of a service's life in which a unit was seen.
    Phase {
        /// From the start command until the service is ready.
        Start = "start",
        /// Under load.
        Serve = "serve",
        /// From the stop command until the last process is gone.
        Stop = "stop",
        /// Baseline of the machine without the service. Never part of VAP or HAP.
        Idle = "idle",
    }
}

names! {
    /// Execution context of a unit.
    Context {
        /// A task of the service.
        Task = "task",
        /// Softirq.
        Softirq = "softirq",
        /// Hard interrupt.
        Hardirq = "hardirq",
        /// A kernel worker thread.
        KernelWorker = "kernel-worker",
        /// The instrument attributes by isolation and does not know the context: the exact
        /// instrument, for code whose rate exceeds the idle baseline.
        Any = "any",
        /// Seen, but at a rate that the idle machine explains. Kept in the profile, and never part
        /// of VAP or HAP.
        Background = "background",
    }
}

impl Context {
    /// Whether it is interrupt work: it runs on the service's CPUs, and is not the service's own.
    pub const fn is_interrupt(self) -> bool {
        matches!(self, Self::Softirq | Self::Hardirq)
    }
}

names! {
    /// What a unit's presence proves.
    Evidence {
        /// The service's own load executed it.
        Exercised = "exercised",
        /// A hostile load under the same confinement executed it.
        Probed = "probed",
    }
}

names! {
    /// Which instrument wrote a profile.
    InstrumentKind {
        /// From outside, a QEMU plugin: every basic block of the lab machine.
        Exact = "exact",
        /// From inside, function tracing with disarm.
        Live = "live",
    }
}

/// One row of a profile: a function of one binary in one layer, in one phase and context.
///
/// Its identity is (`layer`, `binary`, `build_id`, `offset`), never its name: names repeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Layer that the function belongs to.
    pub layer: Layer,
    /// Path of the binary in its image; `kernel` for the core kernel, `[name]` for a module.
    pub binary: Arc<str>,
    /// GNU build-id in lower-case hex, where the binary has one.
    pub build_id: Option<Arc<str>>,
    /// Name of the function; empty when the binary gives none (then `offset` identifies it).
    pub symbol: Arc<str>,
    /// Start of the function: file offset in bytes for user binaries; for kernels the distance from
    /// the start of the text (core) or of the module.
    pub offset: u64,
    /// Size of the function in bytes.
    pub size: u64,
    /// Bytes of it that were executed; `None` where the instrument cannot know.
    pub covered: Option<u64>,
    /// Source file, where known.
    pub file: Option<Arc<str>>,
    /// Source line, where known.
    pub line: Option<u32>,
    /// Phase of this row.
    pub phase: Phase,
    /// Context of this row.
    pub context: Context,
    /// The first window in which it was seen (index into the manifest's windows).
    pub first_window: u32,
    /// All windows in which it was seen, ascending, none twice, never empty.
    pub windows: Vec<u32>,
    /// What the row proves.
    pub evidence: Evidence,
}

/// Facts about a recording that its rows cannot hold. JSON in the file's metadata.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Schema of this manifest, [`SCHEMA`].
    pub schema: String,
    /// Version of altaz that wrote it.
    pub tool_version: String,
    /// When the recording began, RFC 3339, UTC.
    pub recorded_at: String,
    /// Name of the service (from its spec).
    pub service: String,
    /// Name of the deployment.
    pub deployment: String,
    /// Instrument that recorded.
    pub instrument: Instrument,
    /// Machine that was observed.
    pub host: Host,
    /// Identity of the service image (SHA-256 of its root file system), for comparability.
    pub image_id: String,
    /// Layers of the deployment, in traversal order.
    pub layers: Vec<LayerInfo>,
    /// Boundaries between the layers.
    pub boundaries: Vec<Boundary>,
    /// Windows of the recording, by index.
    pub windows: Vec<Window>,
    /// What was asked of the service.
    pub load: Option<LoadSummary>,
    /// How much code each layer executed while serving, where the instrument knows. Since 1.2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub work: Vec<LayerWork>,
    /// The kinds of requests of the load, where they were made in windows of their own. Since 1.2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<KindOfLoad>,
    /// What the collectors could not see.
    pub blind_spots: Vec<BlindSpot>,
    /// Known calls made by altaz itself under the same collectors.
    pub calibration: Option<Calibration>,
    /// What the processes of the deployment may do. Since 1.1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub posture: Vec<Posture>,
    /// What the machine's clocks showed when the recording began. Since 1.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<MachineClock>,
    /// What was installed, so far as it was looked at. Since 1.2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<Place>,
    /// What the service can reach on the host, where it lives beside other users. Since 1.2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reachable: Vec<Reachable>,
    /// Things a reader must know (workarounds applied, models), one sentence each.
    pub notes: Vec<String>,
}

/// What a machine's clocks showed at the origin of a recording's windows, for putting recordings of
/// two machines side by side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineClock {
    /// `CLOCK_REALTIME`, ns since 1970.
    pub realtime_ns: u64,
    /// `CLOCK_MONOTONIC`, ns.
    pub monotonic_ns: u64,
    /// In a guest that can read its host's clock (the KVM PTP clock): how far its own real-time clock
    /// is ahead of it, ns. `None` when it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead_of_host_ns: Option<i64>,
    /// How far off the line above may be, ns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncertain_ns: Option<u64>,
}

/// Instrument of a recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instrument {
    /// Which one.
    pub kind: InstrumentKind,
    /// Version and settings in words ("QEMU 10.0.2 TCG, plugin API 4, 2 vCPUs").
    pub detail: String,
}

/// Machine that was observed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Kernel release (`uname -r`).
    pub kernel: String,
    /// Architecture (`uname -m`).
    pub arch: String,
    /// CPU model.
    pub cpu: String,
    /// Number of CPUs.
    pub cpus: u32,
}

/// A layer of the deployment: ownership, sharing, and how much of its code could be named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerInfo {
    /// Which layer.
    pub name: Layer,
    /// Who must fix its defects.
    pub owner: Owner,
    /// Whether one instance serves several tenants.
    pub shared: bool,
    /// Owner and side of the boundary differ from what the layer's place suggests.
    pub ownership_moved: bool,
    /// Executed code of this layer, in bytes, by whether it could be named. Serve phase.
    pub code: Option<CodeBytes>,
}

/// Executed code bytes of a layer by what is known of them. Bytes are distinct code bytes, each
/// counted once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeBytes {
    /// Inside a known function of a known binary.
    pub named: u64,
    /// Executable code generated at run time (anonymous memory).
    pub jit: u64,
    /// Everything else.
    pub unnamed: u64,
}

/// An interface between two layers and its width.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boundary {
    /// `syscall`, `vm-exit`, `gofer` …
    pub name: String,
    /// Calling side.
    pub from: Layer,
    /// Called side.
    pub to: Layer,
    /// Entry points that the other side may call; `None` when not determined.
    pub permitted: Option<u32>,
    /// Entry points that this load called; `None` when not determined.
    pub exercised: Option<u32>,
    /// The exercised entry points with their counts in the boundary run.
    pub entries: Vec<BoundaryEntry>,
    /// Requests during which they were counted; `None` when not known. Since 1.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// The permitted entry points by name, where they were determined. Since 1.1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permitted_entries: Vec<PermittedEntry>,
    /// How `permitted` was found out (a filter that was read, a table of the kernel …), and what
    /// confines the calling side where no posture was read. Since 1.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<String>,
}

impl Boundary {
    /// A boundary of which nothing is known yet but, where it is, how many entry points are permitted.
    pub fn new(name: impl Into<String>, from: Layer, to: Layer, permitted: Option<u32>) -> Self {
        Self {
            name: name.into(),
            from,
            to,
            permitted,
            exercised: None,
            entries: Vec::new(),
            requests: None,
            permitted_entries: Vec::new(),
            guard: None,
        }
    }

    /// How often a request crossed it, on average: what is done in the background meanwhile counts
    /// too. `None` where calls or requests were not counted.
    pub fn per_request(&self) -> Option<f64> {
        let requests = self.requests.filter(|n| *n > 0)?;
        self.exercised?;
        let crossings: u64 = self.entries.iter().map(|e| e.count).sum();
        Some(crossings as f64 / requests as f64)
    }
}

/// An entry point of a boundary that the calling side may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermittedEntry {
    /// Name, as in [`BoundaryEntry::name`].
    pub name: String,
    /// Whether it depends on the call's arguments.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub conditional: bool,
}

/// An exercised entry point of a boundary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundaryEntry {
    /// Name (`read`, `npf`, `io 0x3f8 out 1`).
    pub name: String,
    /// How often it was called.
    pub count: u64,
    /// The same by thread group, where the collector tells them apart. Since 1.1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_process: Vec<ProcessCount>,
}

impl BoundaryEntry {
    /// An entry point whose callers are not told apart.
    pub fn new(name: impl Into<String>, count: u64) -> Self {
        Self { name: name.into(), count, by_process: Vec::new() }
    }

    /// Puts the most frequent first; those of one frequency by name.
    pub fn sort(entries: &mut [Self]) {
        entries.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.name.cmp(&b.name)));
    }
}

/// How often one thread group called an entry point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessCount {
    /// Thread group id on the host.
    pub tgid: u32,
    /// Name of its main thread (`comm`), empty when it was gone before it could be read.
    pub comm: String,
    /// How often it called.
    pub count: u64,
}

/// What a process may do besides making system calls: read from `/proc` and the security modules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posture {
    /// Role of the process in the deployment (`app`, `sentry`, `gofer`, `vmm` …).
    pub role: String,
    /// Its `comm`.
    pub comm: String,
    /// Thread group id on the host.
    pub tgid: u32,
    /// User id on the host.
    pub uid: u32,
    /// Effective capabilities by name.
    pub capabilities: Vec<String>,
    /// Bounding set by name.
    pub bounding: Vec<String>,
    /// Kinds of its namespaces that are not the host's (`mnt`, `net`, `pid`, `user` …).
    pub namespaces: Vec<String>,
    /// Its user id map, one line each (`0 100000 65536`).
    pub uid_map: Vec<String>,
    /// Whether it is barred from gaining privileges by executing a file.
    pub no_new_privs: bool,
    /// Mode of its system call filter: `none`, `strict` or `filter`.
    pub seccomp: String,
    /// Security module labels (`apparmor:docker-default (enforce)`).
    pub lsm: Vec<String>,
    /// Device nodes it has open or in its root, with their numbers (`/dev/kvm 10:232`).
    pub devices: Vec<String>,
}

/// Things of one kind on the host that a process of the deployment can reach and that are not its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reachable {
    /// Short kind: `setuid`, `writable`, `socket`, `process`.
    pub kind: String,
    /// What it is, in words.
    pub what: String,
    /// How many there are.
    pub count: u64,
    /// Their names, not necessarily all.
    pub names: Vec<String>,
}

/// A time slice of a recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Phase that it lies in.
    pub phase: Phase,
    /// Begin, ns since the recording began.
    pub start_ns: u64,
    /// End, ns since the recording began.
    pub end_ns: u64,
    /// Events that the instrument lost in it.
    pub lost_events: u64,
}

/// What was asked of the service and how it answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadSummary {
    /// The load in words, equal for comparable recordings ("POST /visit, 10/s, 1 connection").
    pub description: String,
    /// Requests sent while serving.
    pub requests: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Latency, milliseconds: median. `None` when the load does not report it.
    pub p50_ms: Option<f64>,
    /// Latency, milliseconds: 99th percentile.
    pub p99_ms: Option<f64>,
    /// Requests per second achieved.
    pub rate: Option<f64>,
    /// Seconds from the start command until ready.
    pub ready_s: Option<f64>,
}

/// How much a layer did while serving: unlike the set of its functions this grows with each request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerWork {
    /// Which layer.
    pub layer: Layer,
    /// Bytes of code that were executed, each execution counted; background left out.
    pub executed_bytes: u64,
}

/// One kind of request of a load, and the windows that are its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KindOfLoad {
    /// Its name (`read`, `write`, `login`).
    pub name: String,
    /// What was asked and how it was answered.
    pub load: LoadSummary,
    /// First of its windows, an index into the manifest's windows.
    pub first_window: u32,
    /// The window behind its last one.
    pub end_window: u32,
}

/// Code or work that the collectors could not see, with its size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlindSpot {
    /// Layer it lies in.
    pub layer: Option<Layer>,
    /// Short kind: `jit`, `unnamed`, `not-traceable`, `interpreted-code` …
    pub kind: String,
    /// What it is, in a sentence.
    pub what: String,
    /// Size in bytes, where known.
    pub bytes: Option<u64>,
    /// Functions, where known.
    pub functions: Option<u64>,
}

/// Known calls made by altaz under the same collectors, and how many of them were counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calibration {
    /// What was called (`getppid`).
    pub what: String,
    /// Calls made.
    pub made: u64,
    /// Calls counted.
    pub counted: u64,
}

impl Calibration {
    /// Whether the collectors counted every call that was made, and none besides.
    pub fn reconciles(&self) -> bool {
        self.made == self.counted && self.made > 0
    }
}

/// A profile in memory: the manifest and one row per unit.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// The manifest.
    pub manifest: Manifest,
    /// The rows.
    pub units: Vec<Unit>,
}
