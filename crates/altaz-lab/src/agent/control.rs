//! Serves the control channel: reads requests, blocks between them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use nix::libc;
use serde_json::json;

use super::run::Runs;
use super::service::Service;
use crate::protocol::{
    CHUNK, CONTROL_PORT, Event, Hello, PROTOCOL_VERSION, Reply, Request, RequestBody, read_frame,
    write_frame,
};

/// The way back to the host; frames of several threads do not mix.
#[derive(Clone)]
pub(super) struct Out {
    port: Arc<Mutex<File>>,
}

impl Out {
    /// Sends one answer. A host that is gone is noticed by the reading side.
    pub(super) fn send(&self, id: u64, event: Event, blob: &[u8]) {
        let mut port = self.port.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(e) = write_frame(&mut *port, &Reply { id, event }, blob) {
            eprintln!("altaz-agent: answering the host: {e}");
        }
    }
}

/// Serves requests until the host asks for power-off or goes away.
pub(super) fn serve() -> io::Result<()> {
    let path = find_port()?;
    let mut input = File::options().read(true).write(true).open(&path)?;
    let out = Out { port: Arc::new(Mutex::new(input.try_clone()?)) };
    let runs = Runs::default();
    let mut service = Service::default();
    out.send(0, Event::Hello(hello()?), &[]);
    loop {
        let frame = read_frame::<_, Request>(&mut input).map_err(io::Error::other)?;
        let Some((request, blob)) = frame else { return Ok(()) };
        if request.body == RequestBody::Poweroff {
            out.send(request.id, Event::Done(json!(null)), &[]);
            return Ok(());
        }
        match answer(&request, &blob, &runs, &mut service, &out) {
            Ok(Some(event)) => out.send(request.id, event, &[]),
            Ok(None) => {}
            Err(e) => out.send(request.id, Event::Failed(e.to_string()), &[]),
        }
    }
}

/// The character device of the control port; without udev, by its name in sysfs.
fn find_port() -> io::Result<PathBuf> {
    for entry in fs::read_dir("/sys/class/virtio-ports")? {
        let entry = entry?;
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim() == CONTROL_PORT {
            return Ok(Path::new("/dev").join(entry.file_name()));
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, format!("no virtio-serial port {CONTROL_PORT}")))
}

/// Answers one request; `None` when the answer comes later from a thread.
fn answer(
    request: &Request,
    blob: &[u8],
    runs: &Runs,
    service: &mut Service,
    out: &Out,
) -> io::Result<Option<Event>> {
    let done = || Ok(Some(Event::Done(json!(null))));
    match &request.body {
        RequestBody::Hello => Ok(Some(Event::Hello(hello()?))),
        RequestBody::Run(run) => runs.start(request.id, run, out).map(|()| None),
        RequestBody::Stdin { target, eof } => {
            runs.stdin(*target, blob, *eof)?;
            done()
        }
        RequestBody::Signal { target, signal } => {
            runs.signal(*target, *signal)?;
            done()
        }
        RequestBody::PutFile { path, mode, append } => {
            put_file(Path::new(path), *mode, *append, blob)?;
            done()
        }
        RequestBody::GetFile { path } => {
            let file = File::open(path)
                .map_err(|e| io::Error::new(e.kind(), format!("reading {path}: {e}")))?;
            send_all(request.id, file, out)?;
            done()
        }
        RequestBody::Calibrate { calls } => {
            calibrate(*calls);
            Ok(Some(Event::Done(json!({ "calls": calls }))))
        }
        RequestBody::Kallsyms { guest: false } => {
            send_all(request.id, File::open("/proc/kallsyms")?, out)?;
            done()
        }
        RequestBody::Vdso => {
            out.send(request.id, Event::Data, &vdso()?);
            done()
        }
        RequestBody::Kallsyms { guest: true } => match service.guest_kallsyms() {
            Some(symbols) => {
                send_all(request.id, symbols, out)?;
                done()
            }
            None => Ok(Some(Event::Done(json!(false)))),
        },
        RequestBody::DeployStart { deployment, spec } => {
            service.start(deployment, spec).map(|value| Some(Event::Done(value)))
        }
        RequestBody::DeployStop => service.stop().map(|value| Some(Event::Done(value))),
        RequestBody::DeployStatus => service.status().map(|value| Some(Event::Done(value))),
        RequestBody::DeployReachable => service.reachable().map(|value| Some(Event::Done(value))),
        RequestBody::DeployTraces => {
            Ok(Some(Event::Done(json!(altaz_deploy::traces::traces("/".as_ref())))))
        }
        RequestBody::BoundaryArm => {
            service.arm()?;
            done()
        }
        RequestBody::BoundaryRead => service.read().map(|value| Some(Event::Done(value))),
        RequestBody::Poweroff => done(),
    }
}

fn put_file(path: &Path, mode: u32, append: bool, data: &[u8]) -> io::Result<()> {
    let write = || {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        OpenOptions::new()
            .create(true)
            .write(true)
            .append(append)
            .truncate(!append)
            .mode(mode)
            .open(path)?
            .write_all(data)
    };
    write().map_err(|e| io::Error::new(e.kind(), format!("writing {}: {e}", path.display())))
}

fn send_all(id: u64, mut file: impl Read, out: &Out) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut filled = 0;
    loop {
        // Files of procfs give a page at a time; send full chunks all the same.
        let n = file.read(&mut buffer[filled..])?;
        filled += n;
        if n == 0 || filled == buffer.len() {
            out.send(id, Event::Data, &buffer[..filled]);
            filled = 0;
        }
        if n == 0 {
            return Ok(());
        }
    }
}

/// The kernel's vDSO, as it is mapped into this process.
fn vdso() -> io::Result<Vec<u8>> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let range = maps
        .lines()
        .find(|line| line.ends_with("[vdso]"))
        .and_then(|line| line.split_whitespace().next()?.split_once('-'))
        .and_then(|(from, to)| {
            Some((u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?))
        });
    let Some((from, to)) = range.filter(|(from, to)| from < to && to - from <= CHUNK as u64) else {
        return Err(io::Error::new(io::ErrorKind::NotFound, "no vDSO is mapped"));
    };
    let mut bytes = vec![0; (to - from) as usize];
    File::open("/proc/self/mem")?.read_exact_at(&mut bytes, from)?;
    Ok(bytes)
}

/// Makes exactly `calls` system calls, and nothing else in between.
#[inline(never)]
fn calibrate(calls: u64) {
    for _ in 0..calls {
        // SAFETY: getppid has no arguments and cannot fail.
        unsafe { libc::syscall(libc::SYS_getppid) };
    }
}

fn hello() -> io::Result<Hello> {
    let uname = nix::sys::utsname::uname()?;
    let text = |s: &std::ffi::OsStr| s.to_string_lossy().into_owned();
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        cpuinfo.lines().find(|l| l.starts_with(name)).and_then(|l| l.split(": ").nth(1))
    };
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let uptime = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)?;
    Ok(Hello {
        protocol: PROTOCOL_VERSION,
        kernel_release: text(uname.release()),
        kernel_version: text(uname.version()),
        machine: text(uname.machine()),
        cpu: field("model name").unwrap_or("unknown").to_owned(),
        cpus: cpuinfo.lines().filter(|l| l.starts_with("processor")).count(),
        memory_kib: meminfo
            .split_whitespace()
            .nth(1)
            .and_then(|kib| kib.parse().ok())
            .unwrap_or_default(),
        boot_seconds: uptime.tv_sec() as f64 + uptime.tv_nsec() as f64 / 1e9,
    })
}
