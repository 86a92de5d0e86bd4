//! Reads an instance's ring buffers: raw pages CPU by CPU without blocking, and the kernel's own count of lost
//! events. Knows files, not functions.
//!
//! A CPU that is unplugged keeps its buffer and its files; one that was never plugged in has files that answer
//! with an error until it is. So an error of one CPU's file is never fatal: the file is opened again later.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

use crate::error::FtraceError;
use crate::layout::Layout;
use crate::page::{self, Event};

/// All buffers of an instance.
#[derive(Debug)]
pub struct Rings {
    layout: Layout,
    page: Vec<u8>,
    cpus: Vec<Cpu>,
}

#[derive(Debug)]
struct Cpu {
    number: u32,
    path: PathBuf,
    raw: Option<File>,
    /// It cannot be waited for, until it is opened again or has something to read.
    deaf: bool,
    /// The kernel's count at the last look.
    lost_before: u64,
    /// Losses that pages told since the last look.
    lost_in_pages: u64,
}

/// What a drain found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drained {
    /// Function events.
    pub events: u64,
    /// Bytes of pages read.
    pub bytes: u64,
    /// Largest number of bytes from one CPU.
    pub fullest: u64,
    /// Pages that made no sense.
    pub damaged: u64,
}

impl Drained {
    /// Adds what another drain found.
    pub fn add(&mut self, other: Self) {
        self.events += other.events;
        self.bytes += other.bytes;
        self.fullest = self.fullest.max(other.fullest);
        self.damaged += other.damaged;
    }
}

impl Rings {
    /// Opens every CPU's raw buffer.
    ///
    /// # Errors
    /// When there is no buffer to open at all.
    pub fn open(instance: &Path, layout: Layout) -> Result<Self, FtraceError> {
        let dir = instance.join("per_cpu");
        let entries = fs::read_dir(&dir).map_err(|e| FtraceError::from_io(&dir, "listing", e))?;
        let mut cpus: Vec<Cpu> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let number = entry.file_name().to_str()?.strip_prefix("cpu")?.parse().ok()?;
                let path = entry.path();
                Some(Cpu { number, path, raw: None, deaf: false, lost_before: 0, lost_in_pages: 0 })
            })
            .collect();
        cpus.sort_by_key(|c| c.number);
        let mut refused = None;
        for cpu in &mut cpus {
            match cpu.open() {
                Ok(()) => cpu.lost_before = cpu.lost_now().unwrap_or(0),
                Err(e) => refused = Some((cpu.path.join("trace_pipe_raw"), e)),
            }
        }
        if cpus.iter().all(|c| c.raw.is_none()) {
            let (path, e) = refused.unwrap_or((dir, io::ErrorKind::NotFound.into()));
            return Err(FtraceError::from_io(&path, "opening", e));
        }
        let page = vec![0; layout.page_size];
        Ok(Self { layout, page, cpus })
    }

    /// CPUs that may have a buffer.
    pub fn cpus(&self) -> usize {
        self.cpus.len()
    }

    /// Reads what is there, and hands each event on. A CPU's share is bounded by `most` bytes, so that a service
    /// which writes faster than this can read does not hold it here.
    pub fn drain(&mut self, most: u64, mut each: impl FnMut(Event)) -> Drained {
        let mut drained = Drained::default();
        for cpu in &mut self.cpus {
            if cpu.raw.is_none() && cpu.open().is_err() {
                continue;
            }
            let mut bytes = 0;
            while bytes < most {
                let Some(raw) = cpu.raw.as_mut() else { break };
                let n = match raw.read(&mut self.page) {
                    Ok(0) => break,
                    Ok(n) => n,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                    Err(_) => {
                        // Unplugged, or not there yet: opened again at the next drain.
                        cpu.raw = None;
                        break;
                    }
                };
                let Some(read) = self.page.get(..n) else { break };
                let summary = page::decode(&self.layout, read, &mut each);
                bytes += n as u64;
                cpu.deaf = false;
                drained.events += summary.events;
                drained.damaged += u64::from(summary.damaged);
                cpu.lost_in_pages = cpu.lost_in_pages.saturating_add(summary.lost.at_least());
            }
            drained.bytes += bytes;
            drained.fullest = drained.fullest.max(bytes);
        }
        drained
    }

    /// Waits until a buffer is so full that it should be drained (`buffer_percent`), at most so long; says whether
    /// one is. While nothing is recorded this costs nothing: no event wakes anybody before the buffer fills.
    pub fn wait(&mut self, most: Duration) -> bool {
        let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(self.cpus.len());
        let mut polled: Vec<&mut bool> = Vec::with_capacity(self.cpus.len());
        for Cpu { raw, deaf, .. } in &mut self.cpus {
            if let (Some(raw), false) = (raw.as_ref(), *deaf) {
                fds.push(PollFd::new(raw, PollFlags::IN));
                polled.push(deaf);
            }
        }
        let timeout = Timespec::try_from(most).ok();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) => false,
            Ok(_) if fds.iter().any(|f| f.revents().contains(PollFlags::IN)) => true,
            Ok(_) => {
                // A CPU that was never plugged in answers at once, and always: it is not asked again.
                for (fd, deaf) in fds.iter().zip(polled) {
                    *deaf = !fd.revents().is_empty();
                }
                false
            }
            Err(_) => {
                std::thread::sleep(most.min(Duration::from_millis(1)));
                false
            }
        }
    }

    /// Events lost on each CPU since the last call; only CPUs that lost some. The kernel's statistics and what
    /// the pages say count the same losses: the larger one is believed.
    pub fn lost(&mut self) -> Vec<(u32, u64)> {
        let mut lost = Vec::new();
        for cpu in &mut self.cpus {
            let told = std::mem::take(&mut cpu.lost_in_pages);
            let counted = match cpu.lost_now() {
                Some(now) => now.saturating_sub(std::mem::replace(&mut cpu.lost_before, now)),
                None => 0,
            };
            if told.max(counted) > 0 {
                lost.push((cpu.number, told.max(counted)));
            }
        }
        lost
    }
}

impl Cpu {
    fn open(&mut self) -> io::Result<()> {
        let flags = OFlags::NONBLOCK.bits() as i32;
        let path = self.path.join("trace_pipe_raw");
        self.raw = Some(OpenOptions::new().read(true).custom_flags(flags).open(path)?);
        Ok(())
    }

    fn lost_now(&self) -> Option<u64> {
        Some(parse_lost(&fs::read_to_string(self.path.join("stats")).ok()?))
    }
}

/// Overwritten, dropped and those that an interrupted commit lost.
fn parse_lost(stats: &str) -> u64 {
    stats
        .lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            matches!(name, "overrun" | "commit overrun" | "dropped events")
                .then(|| value.trim().parse::<u64>().ok())?
        })
        .fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATS: &str = "entries: 18244\noverrun: 3\ncommit overrun: 1\nbytes: 513332\n\
        oldest event ts:    10.842379\nnow ts:    11.218542\ndropped events: 5\nread events: 0\n";

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for cpu in ["cpu0", "cpu1", "cpu10"] {
            let path = dir.path().join("per_cpu").join(cpu);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("stats"), "overrun: 0\n").unwrap();
        }
        dir
    }

    /// A page with one event.
    fn page(ip: u64, commit_flags: u64) -> Vec<u8> {
        let mut page = vec![0u8; 4096];
        page[..8].copy_from_slice(&1000u64.to_ne_bytes());
        page[8..16].copy_from_slice(&(28 | commit_flags).to_ne_bytes());
        page[16..20].copy_from_slice(&6u32.to_ne_bytes());
        page[20..22].copy_from_slice(&1u16.to_ne_bytes());
        page[28..36].copy_from_slice(&ip.to_ne_bytes());
        page
    }

    #[test]
    fn every_way_of_losing_is_counted() {
        assert_eq!(parse_lost(STATS), 9);
        assert_eq!(parse_lost("overrun: x\n"), 0);
    }

    #[test]
    fn a_cpu_that_comes_late_is_read_and_one_that_goes_is_not_fatal() {
        let dir = tree();
        let cpu = |n: u32| dir.path().join(format!("per_cpu/cpu{n}"));
        assert!(matches!(Rings::open(dir.path(), Layout::usual()), Err(FtraceError::Io { .. })));
        fs::write(cpu(0).join("trace_pipe_raw"), page(7, 0)).unwrap();
        let mut rings = Rings::open(dir.path(), Layout::usual()).unwrap();
        assert_eq!(rings.cpus(), 3);
        let mut seen = Vec::new();
        assert_eq!(rings.drain(u64::MAX, |e| seen.push(e.ip)).events, 1);
        fs::write(cpu(10).join("trace_pipe_raw"), [page(8, 0), page(9, 3 << 30)].concat()).unwrap();
        fs::remove_dir_all(cpu(1)).unwrap();
        let drained = rings.drain(u64::MAX, |e| seen.push(e.ip));
        assert_eq!((drained.events, drained.bytes, drained.fullest), (2, 8192, 8192));
        assert_eq!(seen, [7, 8, 9]);
        // The page says one at least, the statistics five.
        fs::write(cpu(0).join("stats"), "dropped events: 5\n").unwrap();
        assert_eq!(rings.lost(), [(0, 5), (10, 1)]);
        assert_eq!(rings.lost(), []);
    }
}
