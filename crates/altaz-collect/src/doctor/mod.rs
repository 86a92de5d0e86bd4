//! What this machine can measure: per instrument, layer and boundary yes, or no with the reason and
//! the remedy.
//!
//! Kernel facts are read below roots given as arguments, programs are run by a function given as an
//! argument, so tests fake a whole machine. Nothing is changed on the machine, nothing is printed.

mod exact;
mod kernel;
mod live;

use std::fmt;
use std::path::{Path, PathBuf};

use altaz_profile::model::{InstrumentKind, Layer};
use serde::{Deserialize, Serialize};

pub use kernel::{KernelConfig, KernelFacts, LsmLockdown};

/// Schema of the JSON form.
pub const DOCTOR_SCHEMA: &str = "altaz.doctor/1";
/// The oldest QEMU whose plugin interface has all that the exact instrument needs.
pub const MIN_QEMU: (u32, u32) = (9, 2);

/// Runs a program with arguments, waits a few seconds at most, and returns its standard output; the
/// error says why there is none (not found, status, time-out), with the last line of its messages.
pub type Runner<'a> = dyn Fn(&Path, &[&str]) -> Result<String, String> + 'a;

/// Where to look on the machine. [`Machine::here`] gives the real one.
pub struct Machine<'a> {
    /// Root of procfs.
    pub proc: PathBuf,
    /// Root of sysfs.
    pub sys: PathBuf,
    /// Where tracefs is or would be mounted.
    pub tracefs: PathBuf,
    /// Whether that is a mount that only altaz itself can reach.
    pub tracefs_is_own: bool,
    /// Device nodes.
    pub dev: PathBuf,
    /// Kernel images and their configurations.
    pub boot: PathBuf,
    /// Directories in which programs are looked for, in order.
    pub path: Vec<PathBuf>,
    /// Effective user.
    pub uid: u32,
    /// Runs a program.
    pub run: &'a Runner<'a>,
}

impl<'a> Machine<'a> {
    /// The machine that altaz runs on. `path` is the value of `PATH`; the system directories are
    /// searched besides, since users often lack them.
    pub fn here(path: Option<&std::ffi::OsStr>, run: &'a Runner<'a>) -> Self {
        let mut dirs: Vec<PathBuf> =
            path.map(std::env::split_paths).into_iter().flatten().collect();
        for dir in ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"] {
            if !dirs.iter().any(|d| d == Path::new(dir)) {
                dirs.push(dir.into());
            }
        }
        Self {
            proc: "/proc".into(),
            sys: "/sys".into(),
            tracefs: "/sys/kernel/tracing".into(),
            tracefs_is_own: false,
            dev: "/dev".into(),
            boot: "/boot".into(),
            path: dirs,
            uid: rustix::process::geteuid().as_raw(),
            run,
        }
    }

    /// The first executable file of this name, or the path itself when the name holds a slash.
    pub fn find_program(&self, name: &str) -> Option<PathBuf> {
        if name.contains('/') {
            return is_executable(Path::new(name)).then(|| name.into());
        }
        self.path.iter().map(|dir| dir.join(name)).find(|p| is_executable(p))
    }
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// Parts of altaz and resources of the lab, as the caller has resolved them.
#[derive(Debug, Clone)]
pub struct LabParts {
    /// Name or path of the QEMU system emulator.
    pub qemu: String,
    /// Where the plugin is expected.
    pub plugin: PathBuf,
    /// Where the lab's agent is expected.
    pub agent: PathBuf,
    /// Where lab images are cached.
    pub cache: PathBuf,
    /// Free bytes there; `None` when it could not be asked.
    pub cache_free: Option<u64>,
    /// Bytes that building and running the lab need in the cache.
    pub cache_needed: u64,
    /// Memory of the lab's virtual machine in bytes.
    pub memory_needed: u64,
    /// Whether a lab image of the current recipe is in the cache (then none need be built).
    pub lab_built: bool,
}

/// Whether something is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is.
    Yes,
    /// It is not.
    No,
    /// It looks so, and nothing has proved it.
    Unproven,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Unproven => "unproven",
        })
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Short name (`qemu`, `function-tracer`).
    pub name: String,
    /// Outcome.
    pub state: State,
    /// What was found, or the reason.
    pub detail: String,
    /// What to do about it; only when it is not there.
    pub remedy: Option<String>,
}

impl Check {
    /// It is there.
    pub fn yes(name: &str, detail: impl Into<String>) -> Self {
        Self { name: name.into(), state: State::Yes, detail: detail.into(), remedy: None }
    }

    /// It is not there.
    pub fn no(name: &str, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            state: State::No,
            detail: reason.into(),
            remedy: Some(remedy.into()),
        }
    }

    /// It looks so.
    pub fn unproven(name: &str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            state: State::Unproven,
            detail: detail.into(),
            remedy: Some(remedy.into()),
        }
    }
}

/// A layer or boundary that an instrument can observe, or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capability {
    /// Layer (`host-kernel`) or boundary (`syscall`).
    pub name: String,
    /// Whether it can be observed here.
    pub state: State,
    /// Why not, and what restricts it.
    pub reason: Option<String>,
    /// Names of the checks that it failed.
    pub missing: Vec<String>,
}

impl Capability {
    /// Observable exactly if these checks are passed; `needs` are names of checks.
    fn from_checks(name: &str, checks: &[Check], needs: &[&str]) -> Self {
        let failed: Vec<&Check> = checks
            .iter()
            .filter(|c| c.state == State::No && needs.contains(&c.name.as_str()))
            .collect();
        Self {
            name: name.into(),
            state: if failed.is_empty() { State::Yes } else { State::No },
            reason: failed.first().map(|c| c.detail.clone()),
            missing: failed.iter().map(|c| c.name.clone()).collect(),
        }
    }

    fn never(name: &str, reason: &str) -> Self {
        Self {
            name: name.into(),
            state: State::No,
            reason: Some(reason.into()),
            missing: Vec::new(),
        }
    }

    fn with_note(mut self, note: &str) -> Self {
        self.reason.get_or_insert_with(|| note.to_owned());
        self
    }
}

/// What one instrument can do here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstrumentReport {
    /// Which one.
    pub instrument: InstrumentKind,
    /// Whether it can run at all.
    pub state: State,
    /// Something that a reader must know about it, a sentence.
    pub note: Option<String>,
    /// What it needs.
    pub checks: Vec<Check>,
    /// Layers.
    pub layers: Vec<Capability>,
    /// Boundaries.
    pub boundaries: Vec<Capability>,
}

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoctorReport {
    /// [`DOCTOR_SCHEMA`].
    pub schema: String,
    /// Kernel release.
    pub kernel: String,
    /// Architecture that altaz was built for.
    pub arch: String,
    /// Online CPUs.
    pub cpus: u32,
    /// Memory in bytes, where known.
    pub memory: Option<u64>,
    /// The instruments: exact, then live.
    pub instruments: Vec<InstrumentReport>,
    /// Hardware virtualisation. Neither instrument needs it.
    pub kvm: Check,
}

impl DoctorReport {
    /// Whether the exact instrument can run, which is what `compare` needs.
    pub fn exact_can_run(&self) -> bool {
        self.instruments
            .iter()
            .any(|i| i.instrument == InstrumentKind::Exact && i.state == State::Yes)
    }
}

/// Looks at the machine. Takes well under a second; boots nothing (see [`DoctorReport::kvm`], which
/// is [`State::Unproven`] at best).
pub fn examine(machine: &Machine<'_>, parts: &LabParts) -> DoctorReport {
    let facts = KernelFacts::read(machine);
    DoctorReport {
        schema: DOCTOR_SCHEMA.into(),
        kernel: facts.release.clone(),
        arch: std::env::consts::ARCH.into(),
        cpus: facts.cpus,
        memory: facts.memory_total,
        instruments: vec![exact::examine(machine, parts, &facts), live::examine(machine, &facts)],
        kvm: kvm(machine),
    }
}

fn kvm(machine: &Machine<'_>) -> Check {
    let path = machine.dev.join("kvm");
    match std::fs::OpenOptions::new().read(true).write(true).open(&path) {
        Ok(_) => Check::unproven(
            "kvm",
            format!("{} opens; no guest has been booted to prove it", path.display()),
            "build the lab image (altaz lab build): its kernel is then booted as the proof",
        ),
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => Check::no(
            "kvm",
            format!("{}: {e}", path.display()),
            "join the group that owns it (usually kvm); not needed: the lab is emulated",
        ),
        Err(e) => Check::no(
            "kvm",
            format!("{}: {e}", path.display()),
            "enable virtualisation in firmware or hypervisor and load kvm_amd or kvm_intel; not \
             needed: the lab is emulated",
        ),
    }
}

/// Layers that code can be measured in (firmware is modelled only).
fn measured_layers() -> impl Iterator<Item = Layer> {
    Layer::ALL.iter().copied().filter(|l| *l != Layer::Firmware)
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
