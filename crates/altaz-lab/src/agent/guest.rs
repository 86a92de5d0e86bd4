//! The agent as first process of the guest nested in the lab.
//!
//! Its job comes on a small disk: which service, which address. It starts the service on the disk of
//! the service's image, then blocks: one thread on the console for the word to stop, one on the
//! service's end. At the end it leaves the kernel's symbols on the job's disk. A service that a
//! container runtime holds inside the guest is the business of [`nested`].

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use altaz_deploy::ServiceSpec;
use altaz_deploy::exec;
use altaz_deploy::guest_disk::{
    self, GUEST_UP, GuestJob, SERVICE_ENDED, STATUS_REQUEST, STOP_REQUEST, SYMBOLS_AT,
};
use altaz_deploy::launch::{self, Surroundings};
use altaz_deploy::rootfs::{self, Mounts};
use flate2::Compression;
use flate2::write::GzEncoder;
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::unistd::{chdir, chroot};

use super::{init, nested};
use crate::netif;

const ROOT: &str = "/newroot";
const CONSOLE: &str = "/dev/ttyS0";
/// The service's output: in memory, so that writing it is not part of the service's disk traffic.
const LOG: &str = "/dev/shm/altaz-service.log";
/// Longer than any service that is not asked to stop lives.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// What PID 1 found and its child needs.
struct Plan {
    job: GuestJob,
    disk: PathBuf,
}

static PLAN: OnceLock<Plan> = OnceLock::new();

/// What the lab writes to the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// To say whether the service has ended.
    Status,
    /// To stop it and to power off.
    Stop,
}

/// Runs the guest; returns when it may power off.
pub(super) fn run() -> io::Result<()> {
    console()?.write_all(GUEST_UP.as_bytes())?;
    let disk = init::context(init::disk("job"), "the job's disk")?;
    let mut head = vec![0; SYMBOLS_AT as usize];
    File::open(&disk)?.read_exact(&mut head)?;
    let job = guest_disk::decode_job(&head).map_err(io::Error::other)?;
    if job.inside.is_some() {
        nested::prepare(&job)?;
    } else {
        enter_root(&init::context(init::disk("root"), "the service's disk")?)?;
        init::context(network(&job), "setting up the network")?;
    }
    if PLAN.set(Plan { job, disk }).is_err() {
        return Err(io::Error::other("a guest has one job"));
    }
    init::serve(work)
}

/// The console, for what the lab must be told.
pub(super) fn console() -> io::Result<File> {
    init::context(File::options().write(true).open(CONSOLE), "opening the console")
}

fn enter_root(device: &Path) -> io::Result<()> {
    fs::create_dir_all(ROOT)?;
    let mounted = mount(Some(device), ROOT, Some("ext4"), MsFlags::empty(), None::<&str>);
    init::context(mounted.map_err(io::Error::from), "mounting the service's disk as root")?;
    let mut mounts = Mounts::default();
    rootfs::live_in(Path::new(ROOT), &mut mounts).map_err(io::Error::other)?;
    // They stay for as long as the guest lives.
    std::mem::forget(mounts);
    chdir(ROOT)?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)?;
    chroot(".")?;
    chdir("/")?;
    Ok(())
}

fn network(job: &GuestJob) -> io::Result<()> {
    let address = |text: &str| text.parse::<Ipv4Addr>().map_err(io::Error::other);
    netif::set_up("lo")?;
    let name = job.interface.as_str();
    netif::set_address(name, address(&job.ip)?, job.prefix)?;
    let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
    netif::set_up(name)?;
    netif::add_default_route(address(&job.gateway)?)
}

/// The child's work: the service from its start to its end.
fn work() -> io::Result<()> {
    let plan = PLAN.get().ok_or_else(|| io::Error::other("the guest has no job"))?;
    let asked = requests()?;
    match &plan.job.inside {
        Some(deployment) => nested::work(&plan.job, deployment, &asked)?,
        None => plain(&plan.job.spec, asked)?,
    }
    leave_symbols(&plan.disk)
}

/// The service as a process of the guest.
fn plain(spec: &ServiceSpec, asked: Receiver<Asked>) -> io::Result<()> {
    let mut console = console()?;
    let at = Surroundings { root: "/".into(), log: LOG.into(), ..Surroundings::default() };
    match launch::start(spec, &at) {
        Ok(mut child) => {
            let pid = child.pid();
            let grace = Duration::from_secs(spec.service.stop_timeout_s.into());
            let (stopping_out, stopping) = channel();
            thread::spawn(move || {
                // Without a console there is nobody who could ask.
                if asked.iter().any(|word| word == Asked::Stop) {
                    let _ = stopping_out.send(());
                    // SAFETY: kill has no memory arguments.
                    unsafe { libc::kill(pid as i32, libc::SIGTERM) };
                    thread::sleep(grace);
                    // SAFETY: as above; the guest ends with the service.
                    unsafe { libc::kill(pid as i32, libc::SIGKILL) };
                }
            });
            let status = child.wait(FOREVER);
            if stopping.try_recv().is_err() {
                let how = status.map_or_else(|| "ended".into(), exec::describe);
                writeln!(console, "\n{}\n{SERVICE_ENDED}{how}", exec::tail(LOG.as_ref()))?;
                let _ = stopping.recv();
            }
        }
        Err(e) => {
            let why = e.to_string().replace('\n', "; ");
            writeln!(console, "\n{SERVICE_ENDED}{why}")?;
            asked.iter().find(|word| *word == Asked::Stop);
        }
    }
    writeln!(console, "\n{}", exec::tail(LOG.as_ref()))
}

/// The console as a queue of what the lab asks.
fn requests() -> io::Result<Receiver<Asked>> {
    let input = BufReader::new(File::open(CONSOLE)?);
    let (out, requests) = channel();
    thread::spawn(move || {
        for line in input.lines() {
            let Ok(line) = line else { return };
            let word = line.trim();
            let asked = if word == STOP_REQUEST.trim() {
                Asked::Stop
            } else if word == STATUS_REQUEST.trim() {
                Asked::Status
            } else {
                continue;
            };
            if out.send(asked).is_err() || asked == Asked::Stop {
                return;
            }
        }
    });
    Ok(requests)
}

/// Writes the kernel's symbols, compressed, to their slot of the job's disk.
fn leave_symbols(disk: &Path) -> io::Result<()> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    io::copy(&mut File::open("/proc/kallsyms")?, &mut gzip)?;
    let slot = guest_disk::encode_symbols(&gzip.finish()?);
    let disk = File::options().write(true).open(disk)?;
    disk.write_all_at(&slot, SYMBOLS_AT)?;
    disk.sync_all()
}
