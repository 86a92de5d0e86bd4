//! System calls of the target: counted by number and thread group, until told to stop.

use std::collections::{BTreeMap, BTreeSet};

use altaz_bpf::syscalls::{Abi, Call, SyscallCount, SyscallCounter};
use altaz_bpf::{ActiveFilter, BpfError};
use altaz_profile::{BoundaryEntry, Calibration, ProcessCount};

/// Calls made for calibration.
const CALIBRATION_CALLS: u64 = 1000;

/// Name of a system call by its number.
pub type NameOf = fn(u64) -> String;

/// The counter, and what was counted when it was stopped.
pub struct Syscalls {
    counter: Option<SyscallCounter>,
    counts: Vec<SyscallCount>,
    lost: u64,
    seen: BTreeSet<Call>,
    /// Calls that only their kernel function gave away after counting had ended, and who made them.
    late: BTreeMap<String, u32>,
    news: u64,
    name: NameOf,
    calibration: Calibration,
}

impl Syscalls {
    /// Starts counting, and makes known calls to see whether they are counted.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn start(filter: &ActiveFilter, name: NameOf) -> Result<Self, BpfError> {
        let counter = SyscallCounter::start(filter)?;
        let known = counter.calibrate(CALIBRATION_CALLS)?;
        Ok(Self {
            calibration: Calibration {
                what: "getppid".into(),
                made: known.made,
                counted: known.counted,
            },
            counter: Some(counter),
            counts: Vec::new(),
            lost: 0,
            seen: BTreeSet::new(),
            late: BTreeMap::new(),
            news: 0,
            name,
        })
    }

    /// Calls that were made for the first time since the last window: who made them, and their
    /// names. Costs nothing while there are none.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn window(&mut self) -> Result<Vec<(u32, String)>, BpfError> {
        let Some(counter) = &self.counter else { return Ok(Vec::new()) };
        let news = counter.news();
        if news == self.news {
            return Ok(Vec::new());
        }
        self.news = news;
        let counts = counter.counts()?;
        let mut new = Vec::new();
        for count in counts {
            if self.seen.insert(count.call) {
                new.push((count.tgid, call_name(self.name, count.call)));
            }
        }
        Ok(new)
    }

    /// A kernel function was entered for the first time, by this task. If it is the entry of a system call and calls
    /// are not counted any more, the call was made once at least.
    pub fn entered(&mut self, symbol: &str, tid: u32) {
        if let (None, Some(name)) = (&self.counter, entry_name(symbol)) {
            self.late.entry(name.to_owned()).or_insert(tid);
        }
    }

    /// Known calls against counted ones.
    pub fn calibration(&self) -> &Calibration {
        &self.calibration
    }

    /// Stops counting; calls cost nothing from here on.
    ///
    /// # Errors
    /// When the kernel refuses to tell what was counted.
    pub fn stop(&mut self) -> Result<(), BpfError> {
        if let Some(counter) = self.counter.take() {
            self.counts = counter.counts()?;
            self.lost = counter.lost()?;
        }
        Ok(())
    }

    /// The entry points by name with their counts, most frequent first, and how many calls were not
    /// counted.
    pub fn finish(mut self, comm: &mut dyn FnMut(u32) -> String) -> (Vec<BoundaryEntry>, u64) {
        // What was counted until the failure is better than nothing.
        let _ = self.stop();
        let mut entries = entries(&self.counts, self.name, comm);
        for (name, tid) in self.late {
            if !entries.iter().any(|e| e.name == name) {
                let by_process = vec![ProcessCount { tgid: tid, comm: comm(tid), count: 1 }];
                entries.push(BoundaryEntry { name, count: 1, by_process });
            }
        }
        BoundaryEntry::sort(&mut entries);
        (entries, self.lost)
    }
}

/// The system call that a kernel function is the entry of, by the name that user programs know.
fn entry_name(symbol: &str) -> Option<&str> {
    // One without arguments has one function for all conventions.
    let name = altaz_symbols::syscall_name(symbol).or_else(|| symbol.strip_prefix("__do_sys_"))?;
    Some(match name {
        "newstat" => "stat",
        "newlstat" => "lstat",
        "newfstat" => "fstat",
        "newuname" => "uname",
        "sendfile64" => "sendfile",
        "umount" => "umount2",
        name => name,
    })
}

fn call_name(name: NameOf, call: Call) -> String {
    let plain = match call.nr {
        Some(nr) if call.abi == Abi::Ia32 => format!("number {nr}"),
        Some(nr) => name(u64::from(nr)),
        None => "out of range".into(),
    };
    match call.abi {
        Abi::Native => plain,
        Abi::Ia32 => format!("{plain} (32 bit)"),
        Abi::X32 => format!("{plain} (x32)"),
    }
}

fn entries(
    counts: &[SyscallCount],
    name: NameOf,
    comm: &mut dyn FnMut(u32) -> String,
) -> Vec<BoundaryEntry> {
    let mut by_name: BTreeMap<String, BTreeMap<u32, u64>> = BTreeMap::new();
    for count in counts {
        let processes = by_name.entry(call_name(name, count.call)).or_default();
        *processes.entry(count.tgid).or_default() += count.count;
    }
    let mut out: Vec<BoundaryEntry> = by_name
        .into_iter()
        .map(|(name, processes)| BoundaryEntry {
            name,
            count: processes.values().sum(),
            by_process: processes
                .into_iter()
                .map(|(tgid, count)| ProcessCount { tgid, comm: comm(tgid), count })
                .collect(),
        })
        .collect();
    BoundaryEntry::sort(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_processes_are_kept_apart_and_added_up() {
        let count = |tgid, nr, count| SyscallCount {
            tgid,
            call: Call { abi: Abi::Native, nr: Some(nr) },
            count,
        };
        let counts = [count(10, 0, 5), count(10, 1, 1), count(11, 0, 7)];
        let name: NameOf = |nr| ["read", "write"][nr as usize].into();
        let entries = entries(&counts, name, &mut |tgid| format!("p{tgid}"));
        let plain: Vec<_> = entries.iter().map(|e| (e.name.as_str(), e.count)).collect();
        assert_eq!(plain, [("read", 12), ("write", 1)]);
        let who: Vec<_> =
            entries[0].by_process.iter().map(|p| (p.comm.as_str(), p.count)).collect();
        assert_eq!(who, [("p10", 5), ("p11", 7)]);
    }

    #[test]
    fn an_entry_function_names_its_call() {
        let names = ["__x64_sys_fsync", "__do_sys_getpid", "__x64_sys_newuname", "vfs_read"];
        let named: Vec<_> = names.iter().map(|n| entry_name(n)).collect();
        assert_eq!(named, [Some("fsync"), Some("getpid"), Some("uname"), None]);
    }

    #[test]
    fn calls_by_other_conventions_are_marked() {
        let name: NameOf = |nr| format!("call{nr}");
        let call = |abi, nr| call_name(name, Call { abi, nr });
        assert_eq!(call(Abi::Native, Some(3)), "call3");
        assert_eq!(call(Abi::Ia32, Some(3)), "number 3 (32 bit)");
        assert_eq!(call(Abi::X32, Some(3)), "call3 (x32)");
        assert_eq!(call(Abi::Native, None), "out of range");
    }
}
