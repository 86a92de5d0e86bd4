//! VM exits of the target's guests: by reason, port, address and register.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use altaz_bpf::exits::{Exit, ExitCounter, Mmio};
use altaz_bpf::{ActiveFilter, BpfError};
use altaz_profile::BoundaryEntry;
use altaz_target::vm_exit::{self, Direction};

/// The counter.
pub struct Exits {
    counter: ExitCounter,
    seen: BTreeSet<(&'static str, String)>,
    news: u64,
}

impl Exits {
    /// Starts counting.
    ///
    /// # Errors
    /// When kvm is not loaded or the kernel refuses.
    pub fn start(tracefs: &Path, filter: &ActiveFilter) -> Result<Self, BpfError> {
        let counter = ExitCounter::start(tracefs, filter)?;
        Ok(Self { counter, seen: BTreeSet::new(), news: 0 })
    }

    /// Crossings seen for the first time since the last window: boundary and name.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn window(&mut self) -> Result<Vec<(u32, String, String)>, BpfError> {
        let news = self.counter.news();
        if news == self.news {
            return Ok(Vec::new());
        }
        self.news = news;
        let mut new = Vec::new();
        for count in self.counter.counts()? {
            if let Some(crossing) = named(count.exit)
                && self.seen.insert(crossing.clone())
            {
                new.push((count.tgid, crossing.0.to_owned(), crossing.1));
            }
        }
        Ok(new)
    }

    /// By boundary, the entry points with their counts, most frequent first; and how many crossings
    /// were not counted.
    pub fn finish(self) -> (BTreeMap<String, Vec<BoundaryEntry>>, u64) {
        let mut counts: BTreeMap<&'static str, BTreeMap<String, u64>> =
            BOUNDARIES.iter().map(|b| (*b, BTreeMap::new())).collect();
        for count in self.counter.counts().unwrap_or_default() {
            if let Some((boundary, name)) = named(count.exit) {
                *counts.entry(boundary).or_default().entry(name).or_default() += count.count;
            }
        }
        let sorted = counts.into_iter().map(|(boundary, entries)| {
            let mut entries: Vec<BoundaryEntry> =
                entries.into_iter().map(|(name, n)| BoundaryEntry::new(name, n)).collect();
            BoundaryEntry::sort(&mut entries);
            (boundary.to_owned(), entries)
        });
        (sorted.collect(), self.counter.lost().unwrap_or(0))
    }
}

/// The boundaries that are counted.
const BOUNDARIES: [&str; 5] = ["vm-exit", "port-io", "mmio", "msr", "hypercall"];

/// Boundary and entry point of a crossing, named as the exact instrument names them; `None` for one
/// that is only half of another.
fn named(exit: Exit) -> Option<(&'static str, String)> {
    let way = Direction::of_write;
    Some(match exit {
        Exit::Reason { isa, reason } => ("vm-exit", vm_exit::reason(u64::from(isa), reason)),
        Exit::Port { port, write, size } => {
            ("port-io", vm_exit::port(port.into(), way(write), size.into()))
        }
        Exit::Memory { kind: Mmio::ReadAsked, .. } => return None,
        Exit::Memory { gpa, kind, len } => {
            ("mmio", vm_exit::memory(gpa, way(kind != Mmio::Read), len.into()))
        }
        Exit::Msr { msr, write } => ("msr", vm_exit::msr(msr.into(), way(write))),
        Exit::Hypercall { nr } => ("hypercall", vm_exit::hypercall(nr)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crossings_are_named_as_in_exact_profiles() {
        let names = |exit| named(exit).map(|(b, n)| format!("{b}: {n}"));
        let gpa = 0xfebf_ee60;
        assert_eq!(names(Exit::Reason { isa: 2, reason: 0x78 }).as_deref(), Some("vm-exit: hlt"));
        let port = Exit::Port { port: 0x3f8, write: true, size: 1 };
        assert_eq!(names(port).as_deref(), Some("port-io: out 0x3f8 1 bytes"));
        let read = Exit::Memory { gpa, kind: Mmio::Read, len: 4 };
        assert_eq!(names(read).as_deref(), Some("mmio: read 0xfebfee60 4 bytes"));
        assert_eq!(names(Exit::Memory { gpa, kind: Mmio::ReadAsked, len: 4 }), None);
        assert_eq!(names(Exit::Msr { msr: 0x1b, write: false }).as_deref(), Some("msr: read 0x1b"));
    }
}
