//! The conversation with altaz: reads the configuration, answers window requests while the guest
//! runs, and ends QEMU when altaz is gone.

use std::ffi::c_int;
use std::io::{BufReader, BufWriter};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use altaz_wire::{FromPlugin, Hello, PageHash, Snapshot, ToPlugin, WIRE_VERSION, WireError};

use crate::counters::{Counters, SplitReader};
use crate::ffi::{self, QemuInfo};
use crate::observe::Observer;

/// How long altaz may take to send the configuration.
const CONFIG_TIMEOUT: Duration = Duration::from_secs(30);

/// Takes the inherited socket, greets, and reads the configuration: pages to split.
pub fn open(fd: c_int, info: &QemuInfo) -> Result<(UnixStream, Vec<PageHash>), String> {
    // SAFETY: fcntl with F_GETFD only looks the number up.
    if fd < 0 || unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(format!("file descriptor {fd} is not open: it must be inherited"));
    }
    // SAFETY: it is open and was inherited for this plugin alone.
    let stream = UnixStream::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let hello = FromPlugin::Hello(Hello {
        wire_version: WIRE_VERSION,
        api_version: info.version_cur as u32,
        vcpus: info.smp_vcpus as u32,
    });
    let io = |e: &dyn std::fmt::Display| format!("talking to altaz on descriptor {fd}: {e}");
    hello.write(&mut &stream).map_err(|e| io(&e))?;
    stream.set_read_timeout(Some(CONFIG_TIMEOUT)).map_err(|e| io(&e))?;
    let config = ToPlugin::read(&mut BufReader::with_capacity(1, &stream)).map_err(|e| io(&e))?;
    stream.set_read_timeout(None).map_err(|e| io(&e))?;
    match config {
        ToPlugin::Config { split_pages } => Ok((stream, split_pages)),
        ToPlugin::Window { .. } => Err(io(&"it must send the configuration first")),
    }
}

/// Answers requests in a thread of its own.
pub fn serve(
    stream: UnixStream,
    mut counters: Counters,
    observer: &'static Observer,
) -> Result<(), String> {
    let run = move || {
        let mut split = SplitReader::default();
        let error = loop {
            match ToPlugin::read(&mut &stream) {
                Ok(ToPlugin::Window { id }) => {
                    let snapshot = snapshot(id, &mut counters, &mut split, observer);
                    let mut out = BufWriter::with_capacity(1 << 20, &stream);
                    if let Err(e) = FromPlugin::Snapshot(snapshot).write(&mut out) {
                        break WireError::Io(e);
                    }
                }
                Ok(ToPlugin::Config { .. }) => {}
                Err(e) => break e,
            }
        };
        if !matches!(error, WireError::Closed) {
            eprintln!("altaz-plugin: {error}");
        }
        // altaz is gone, so nobody waits for this machine any more.
        // SAFETY: kill(2) on our own process.
        unsafe { libc::kill(libc::getpid(), libc::SIGTERM) };
    };
    std::thread::Builder::new()
        .name("altaz-channel".into())
        .spawn(run)
        .map(|_| ())
        .map_err(|e| format!("starting the channel's thread: {e}"))
}

fn now_ns() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid clock and a valid place for its value.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

fn snapshot(
    id: u32,
    counters: &mut Counters,
    split: &mut SplitReader,
    observer: &Observer,
) -> Snapshot {
    let vcpus = (ffi::api().num_vcpus)().max(0) as u32;
    let begin_ns = now_ns();
    let totals = observer.totals();
    let counts = counters.read(totals.len, vcpus);
    let split = split.read(&Observer::split_counters(vcpus), &totals.split_blocks);
    Snapshot {
        id,
        begin_ns,
        end_ns: now_ns(),
        uncounted_blocks: totals.refused,
        guests: observer.guests(),
        slots: observer.slots(),
        pages: totals.pages,
        blocks: totals.blocks,
        counts,
        split,
    }
}
