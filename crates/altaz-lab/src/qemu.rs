//! QEMU on the host: finding it, judging its version, and its command line. Nothing is started
//! here but the question for the version.

use std::env;
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use crate::child::Tool;
use crate::error::{LabError, Result};
use crate::interrupt::Interrupt;
use crate::places;
use crate::protocol::CONTROL_PORT;

/// Variable that names the QEMU to use.
pub const QEMU_VARIABLE: &str = "ALTAZ_QEMU";
/// The first version whose plugin interface has what the exact instrument needs.
pub const MINIMUM: Version = Version(9, 2);

/// Major and minor version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// A usable QEMU.
#[derive(Debug, Clone)]
pub struct Qemu {
    /// Program.
    pub program: PathBuf,
    /// Its version.
    pub version: Version,
    /// The first line of what it says about itself.
    pub banner: String,
}

impl Qemu {
    /// Finds QEMU (`ALTAZ_QEMU`, else `qemu-system-x86_64` in `PATH`) and checks its version.
    ///
    /// # Errors
    /// When there is none, or it is too old.
    pub fn find() -> Result<Self> {
        let program = env::var_os(QEMU_VARIABLE)
            .filter(|v| !v.is_empty())
            .unwrap_or_else(|| "qemu-system-x86_64".into());
        Self::probe(Path::new(&program))
    }

    fn probe(program: &Path) -> Result<Self> {
        let name = program.display().to_string();
        let tool = Tool {
            program: &name,
            name: &name,
            package: "qemu-system-x86",
            what: "asking QEMU for its version",
            needed_to: "run the lab",
            hint: "is ALTAZ_QEMU a qemu-system-x86_64?",
        };
        let mut banner = String::new();
        let mut keep = |line: &str| {
            if banner.is_empty() {
                banner = line.to_owned();
            }
        };
        match tool.run(["--version"], &[], &Interrupt::new(), &mut keep) {
            Err(LabError::ToolMissing { .. }) => return Err(LabError::QemuMissing { tried: name }),
            other => other?,
        }
        match parse_version(&banner) {
            Some(version) if version >= MINIMUM => {
                Ok(Self { program: program.to_owned(), version, banner })
            }
            Some(version) => {
                Err(LabError::QemuVersion { program: name, found: version.to_string() })
            }
            None => {
                Err(LabError::QemuVersion { program: name, found: format!("unknown ({banner:?})") })
            }
        }
    }
}

fn parse_version(banner: &str) -> Option<Version> {
    let number = banner.strip_prefix("QEMU emulator version ")?;
    let mut parts = number.split(|c: char| !c.is_ascii_digit());
    Some(Version(parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// How the VM's processor is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accel {
    /// Emulated: works everywhere, and the exact instrument needs it.
    #[default]
    Tcg,
    /// Emulated, all processors in one thread of the host, in turn. Slower, and safe where the guest's
    /// kernel patches code that other processors execute, over and over: with a thread for each,
    /// QEMU may run the translation of a breakpoint that is no longer there ("Oops: int3"; seen with
    /// 10.0, and on the kernel's list in July 2023, "qemu-x86_64 booting with 8.0.0 stil see int3").
    TcgInTurn,
    /// The host's KVM; only where it was proven by booting.
    Kvm,
}

/// A disk of the VM.
pub(crate) struct Disk<'a> {
    /// Virtio serial number, by which the agent finds it.
    pub(crate) serial: &'a str,
    pub(crate) path: PathBuf,
    /// Writes go to a copy that vanishes; otherwise the disk is read-only.
    pub(crate) snapshot: bool,
}

/// Everything that the command line says.
pub(crate) struct Machine<'a> {
    pub(crate) accel: Accel,
    pub(crate) cpus: u32,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: &'a Path,
    pub(crate) initrd: RawFd,
    pub(crate) append: String,
    pub(crate) disks: Vec<Disk<'a>>,
    pub(crate) tap: RawFd,
    pub(crate) control: RawFd,
    pub(crate) console: RawFd,
    /// Plugin file and its arguments.
    pub(crate) plugin: Option<(&'a Path, Vec<String>)>,
}

/// A value inside a comma-separated option.
fn escaped(path: &Path) -> OsString {
    path.to_string_lossy().replace(',', ",,").into()
}

fn joined(parts: &[&str], path: &Path, rest: &str) -> OsString {
    let mut out = OsString::from(parts.concat());
    out.push(escaped(path));
    out.push(rest);
    out
}

impl Machine<'_> {
    /// The arguments for `qemu-system-x86_64`.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = Vec::new();
        let mut add = |option: &str, value: OsString| {
            args.push(option.into());
            args.push(value);
        };
        let (cpu, accel) = match self.accel {
            // tb-size is in MiB; a small one would throw translated code away all the time.
            Accel::Tcg => ("max,+svm", "tcg,thread=multi,tb-size=1024"),
            Accel::TcgInTurn => ("max,+svm", "tcg,thread=single,tb-size=1024"),
            Accel::Kvm => ("host", "kvm"),
        };
        add("-name", "altaz-lab".into());
        add("-machine", "q35,memory-backend=ram".into());
        add("-cpu", cpu.into());
        add("-accel", accel.into());
        add("-smp", self.cpus.to_string().into());
        add("-m", format!("{}M", self.memory_mib).into());
        add(
            "-object",
            format!("memory-backend-memfd,id=ram,share=on,size={}M", self.memory_mib).into(),
        );
        add("-display", "none".into());
        add("-monitor", "none".into());
        add("-kernel", self.kernel.into());
        add("-initrd", format!("/proc/self/fd/{}", self.initrd).into());
        add("-append", self.append.clone().into());
        for disk in &self.disks {
            let end = if disk.snapshot { ",snapshot=on" } else { ",readonly=on" };
            let rest = format!(",format=raw,if=none,cache=unsafe,file.locking=off{end}");
            add("-drive", joined(&["id=", disk.serial, ",file="], &disk.path, &rest));
            add("-device", format!("virtio-blk-pci,drive={0},serial={0}", disk.serial).into());
        }
        let mac = places::LAB_MAC.map(|b| format!("{b:02x}")).join(":");
        add("-netdev", format!("tap,id=net0,fd={}", self.tap).into());
        add("-device", format!("virtio-net-pci,netdev=net0,mac={mac},romfile=").into());
        add("-chardev", format!("socket,id=control,fd={}", self.control).into());
        add("-device", "virtio-serial-pci".into());
        add("-device", format!("virtserialport,chardev=control,name={CONTROL_PORT}").into());
        add("-chardev", format!("socket,id=console,fd={}", self.console).into());
        add("-serial", "chardev:console".into());
        if let Some((file, plugin_args)) = &self.plugin {
            let rest: String =
                plugin_args.iter().map(|a| format!(",{}", a.replace(',', ",,"))).collect();
            add("-plugin", joined(&["file="], file, &rest));
        }
        for flag in ["-no-reboot", "-nodefaults", "-no-user-config"] {
            args.push(flag.into());
        }
        args
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_distributions_print() {
        let debian = "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)";
        assert_eq!(parse_version(debian), Some(Version(10, 0)));
        assert_eq!(parse_version("QEMU emulator version 7.2.19"), Some(Version(7, 2)));
        assert_eq!(parse_version("QEMU emulator version x"), None);
        assert_eq!(parse_version("GNU bash"), None);
        assert!(Version(10, 0) >= MINIMUM && Version(9, 1) < MINIMUM);
    }

    #[test]
    fn commas_in_paths_do_not_end_an_option() {
        assert_eq!(joined(&["file="], Path::new("/a,b"), ",x"), "file=/a,,b,x");
    }

    #[test]
    fn a_missing_qemu_says_what_to_install() {
        let error = Qemu::probe(Path::new("/nowhere/qemu")).unwrap_err().to_string();
        assert!(error.contains("bookworm-backports") && error.contains("/nowhere/qemu"), "{error}");
    }

    #[test]
    fn something_that_is_not_qemu_is_refused_with_what_it_said() {
        let error = Qemu::probe(Path::new("/bin/bash")).unwrap_err().to_string();
        assert!(error.contains("unknown") && error.contains("9.2"), "{error}");
    }
}
