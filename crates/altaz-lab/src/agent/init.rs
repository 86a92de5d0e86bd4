//! What PID 1 of the lab does: mounts, modules, root, network, then one child and reaping.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, chdir, chroot, fork, sethostname};

use altaz_deploy::guest_disk::{DISK_WORD, GUEST_MODE};

use super::{control, guest, modules, run};
use crate::netif;
use crate::places;

/// Modules that the lab loads once its root is there, with their options.
const LAB_MODULES: &[&[&str]] = &[
    &["-a", "-q", "bridge", "veth", "tun", "vhost_net", "overlay", "fuse", "nf_tables"],
    &["-q", "kvm_amd", "nested=1"],
];

/// Runs as PID 1 and never returns while the machine is on.
pub(super) fn run() -> ExitCode {
    let outcome = base().and_then(|()| {
        let line = fs::read_to_string("/proc/cmdline")?;
        if line.split_whitespace().any(|word| word == GUEST_MODE) {
            guest::run()
        } else {
            set_up()?;
            serve(control::serve)
        }
    });
    if let Err(e) = outcome {
        eprintln!("altaz-agent: {e}");
    }
    power_off();
    ExitCode::FAILURE
}

/// What every machine needs first.
fn base() -> io::Result<()> {
    mount_at("proc", "/proc", "proc", None)?;
    mount_at("sysfs", "/sys", "sysfs", None)?;
    mount_at("devtmpfs", "/dev", "devtmpfs", None)?;
    // What distributions give a service; the kernel's own limit of 4096 is nobody's.
    setrlimit(Resource::RLIMIT_NOFILE, 1024, 524_288)?;
    modules::load_all(Path::new("/modules"))
}

pub(super) fn context<T>(result: io::Result<T>, what: &str) -> io::Result<T> {
    result.map_err(|e| io::Error::new(e.kind(), format!("{what}: {e}")))
}

fn mount_at(source: &str, target: &str, kind: &str, data: Option<&str>) -> io::Result<()> {
    fs::create_dir_all(target)?;
    let result = mount(Some(source), target, Some(kind), MsFlags::empty(), data);
    context(result.map_err(io::Error::from), &format!("mounting {kind} on {target}"))
}

fn set_up() -> io::Result<()> {
    let root = context(disk("root"), "the lab's root disk")?;
    enter_root(&root)?;
    mount_the_rest("altaz-lab")?;
    context(unpack_inputs(), "unpacking the input disk")?;
    for arguments in LAB_MODULES {
        // Absent modules are not fatal here: what needs them says so.
        let status = run::program("/sbin/modprobe").args(*arguments).status();
        if !matches!(&status, Ok(s) if s.success()) {
            eprintln!("altaz-agent: modprobe {}: {status:?}", arguments.join(" "));
        }
    }
    context(network(), "setting up the network")?;
    place_links()
}

/// The block device whose virtio serial number is `serial`, or that the kernel's command line names
/// for it where disks have no such numbers.
pub(super) fn disk(serial: &str) -> io::Result<PathBuf> {
    let line = fs::read_to_string("/proc/cmdline")?;
    if let Some(path) = disk_on_command_line(&line, serial) {
        return Ok(path);
    }
    for entry in fs::read_dir("/sys/block")? {
        let entry = entry?;
        let found = fs::read_to_string(entry.path().join("serial")).unwrap_or_default();
        if found.trim() == serial {
            return Ok(Path::new("/dev").join(entry.file_name()));
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, format!("no disk with serial number {serial:?}")))
}

fn disk_on_command_line(line: &str, serial: &str) -> Option<PathBuf> {
    line.split_whitespace().find_map(|word| {
        let (name, device) = word.strip_prefix(DISK_WORD)?.split_once('=')?;
        (name == serial).then(|| device.into())
    })
}

pub(super) fn enter_root(device: &Path) -> io::Result<()> {
    fs::create_dir_all("/newroot")?;
    let mounted = mount(Some(device), "/newroot", Some("ext4"), MsFlags::empty(), None::<&str>);
    context(mounted.map_err(io::Error::from), &format!("mounting {} as root", device.display()))?;
    for name in ["proc", "sys", "dev"] {
        let target = format!("/newroot/{name}");
        fs::create_dir_all(&target)?;
        let old = format!("/{name}");
        context(
            mount(
                Some(old.as_str()),
                target.as_str(),
                None::<&str>,
                MsFlags::MS_MOVE,
                None::<&str>,
            )
            .map_err(io::Error::from),
            &format!("moving /{name} into the root"),
        )?;
    }
    chdir("/newroot")?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)?;
    chroot(".")?;
    chdir("/")?;
    Ok(())
}

pub(super) fn mount_the_rest(hostname: &str) -> io::Result<()> {
    mount_at("tmpfs", "/run", "tmpfs", Some("mode=755"))?;
    mount_at("tmpfs", "/tmp", "tmpfs", Some("mode=1777"))?;
    mount_at("devpts", "/dev/pts", "devpts", Some("mode=620,ptmxmode=666"))?;
    mount_at("tmpfs", "/dev/shm", "tmpfs", Some("mode=1777"))?;
    mount_at("cgroup2", "/sys/fs/cgroup", "cgroup2", None)?;
    mount_at("tracefs", "/sys/kernel/tracing", "tracefs", None)?;
    mount_at("bpf", "/sys/fs/bpf", "bpf", None)?;
    for (link, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        // devtmpfs has none of these; a second agent run would find them.
        let _ = symlink(target, link);
    }
    sethostname(hostname)?;
    Ok(())
}

/// Unpacks the input disk, a raw tar of files for this boot, into the root.
fn unpack_inputs() -> io::Result<()> {
    let Ok(device) = disk("input") else { return Ok(()) };
    let reader = io::BufReader::with_capacity(1 << 20, fs::File::open(device)?);
    let mut archive = tar::Archive::new(reader);
    archive.set_preserve_permissions(true);
    archive.set_overwrite(true);
    archive.unpack("/")
}

/// Before any interface is up: no duplicate-address chatter and no search for routers from then on, so
/// that what runs is the service alone. A kernel without IPv6 has nothing to switch off.
pub(super) fn no_ipv6() {
    for name in ["all", "default"] {
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
    }
}

fn network() -> io::Result<()> {
    no_ipv6();
    netif::set_up("lo")?;
    if !Path::new("/sys/class/net/eth0").exists() {
        return Ok(());
    }
    netif::add_bridge(places::BRIDGE)?;
    netif::add_to_bridge(places::BRIDGE, "eth0")?;
    netif::set_up("eth0")?;
    netif::set_mac(places::BRIDGE, places::LAB_MAC)?;
    netif::set_address(places::BRIDGE, places::LAB_ADDRESS, places::PREFIX)?;
    netif::set_up(places::BRIDGE)?;
    let gateway: Ipv4Addr = places::HOST_ADDRESS;
    netif::add_default_route(gateway)?;
    Ok(())
}

/// Names under which deployments find what boot gave them.
fn place_links() -> io::Result<()> {
    for serial in (0..).map(places::service_serial) {
        let Ok(device) = disk(&serial) else { break };
        fs::create_dir_all("/dev/altaz")?;
        symlink(device, Path::new("/dev/altaz").join(serial))?;
    }
    fs::create_dir_all(places::LAB_DIR)?;
    let release = nix::sys::utsname::uname()?.release().to_string_lossy().into_owned();
    let kernel = Path::new(places::LAB_DIR).join("vmlinuz");
    if !kernel.exists() {
        symlink(format!("/boot/vmlinuz-{release}"), kernel)?;
    }
    Ok(())
}

/// Does the machine's work in a child and reaps orphans until that ends.
pub(super) fn serve(work: fn() -> io::Result<()>) -> io::Result<()> {
    // SAFETY: PID 1 has one thread here, so the child may do anything.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let code = match work() {
                Ok(()) => 0,
                Err(e) => {
                    eprintln!("altaz-agent: {e}");
                    1
                }
            };
            std::process::exit(code);
        }
        ForkResult::Parent { child } => loop {
            match waitpid(None, None) {
                Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _))
                    if pid == child =>
                {
                    return Ok(());
                }
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        },
    }
}

/// Writes everything back and turns the machine off. A machine without a power switch is told by
/// its command line how to reset, which its monitor takes for its end.
fn power_off() {
    use nix::sys::reboot::{RebootMode, reboot};
    // SAFETY: sync has no arguments.
    unsafe { libc::sync() };
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let resets = line.split_whitespace().any(|word| word.starts_with("reboot="));
    let mode = if resets { RebootMode::RB_AUTOBOOT } else { RebootMode::RB_POWER_OFF };
    let _ = reboot(mode);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_without_serial_numbers_are_named_on_the_command_line() {
        let line = "console=ttyS0 altaz.disk.root=/dev/ubda altaz.disk.job=/dev/ubdb\n";
        assert_eq!(disk_on_command_line(line, "job"), Some("/dev/ubdb".into()));
        assert_eq!(disk_on_command_line(line, "guest"), None);
        assert_eq!(disk_on_command_line("altaz.disk.root", "root"), None);
    }
}
