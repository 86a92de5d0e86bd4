//! What was traversed for the first time, and by whom.

use altaz_profile::{Context, Layer};

use super::rows::UnitId;
use super::session::Session;

/// News that nobody fetched are dropped beyond this many; they stay in the profile.
const NEWS: usize = 65_536;
/// Threads whose process is remembered.
const THREADS: usize = 4096;

/// Something traversed for the first time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// When, `CLOCK_MONOTONIC` ns.
    pub at_ns: u64,
    /// What kind of thing.
    pub what: NewsOf,
    /// Thread that did it first.
    pub tid: u32,
    /// Its process; 0 when it was gone before it could be asked.
    pub pid: u32,
    /// Name of the process.
    pub comm: String,
    /// Context.
    pub context: Context,
}

/// What was traversed for the first time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewsOf {
    /// A function.
    Function {
        /// Layer.
        layer: Layer,
        /// Binary.
        binary: String,
        /// Name; empty where there is none.
        symbol: String,
        /// Start of the function; not known for kernel functions unless there is a profile to
        /// compare with.
        offset: Option<u64>,
        /// The system call that it serves, when it is the entry of one.
        syscall: Option<String>,
    },
    /// An entry point of a boundary.
    Entry {
        /// Boundary (`syscall`, `vm-exit`, `port-io` …).
        boundary: String,
        /// Entry point.
        name: String,
    },
}

impl Session {
    pub(super) fn function_news(&mut self, unit: UnitId, at_ns: u64, tid: u32, context: Context) {
        let Some(mut target) = self.rows.target(unit).cloned() else { return };
        if let Some(names) = self.kernel.as_ref().and_then(|k| k.names.as_ref())
            && target.layer == Layer::HostKernel
            && let Some(named) = names.target(target.offset)
        {
            target = named;
        }
        let named = target.layer != Layer::HostKernel || target.size > 0;
        let id = target.build_id.as_deref().map(str::to_owned);
        if self.plan.known.contains(&(target.binary.to_string(), id, target.offset)) {
            return;
        }
        let syscall = (target.layer == Layer::HostKernel)
            .then(|| altaz_symbols::syscall_name(&target.symbol).map(str::to_owned))
            .flatten();
        let (pid, comm) = self.process_of(tid);
        self.push_news(News {
            at_ns,
            what: NewsOf::Function {
                layer: target.layer,
                binary: target.binary.to_string(),
                symbol: target.symbol.to_string(),
                offset: named.then_some(target.offset),
                syscall,
            },
            tid,
            pid,
            comm,
            context,
        });
    }

    pub(super) fn push_news(&mut self, news: News) {
        if self.news.len() >= NEWS {
            self.news_dropped += 1;
            return;
        }
        self.news.push_back(news);
    }

    /// Process and name of a thread.
    pub(super) fn process_of(&mut self, tid: u32) -> (u32, String) {
        if let Some(known) = self.comms.get(&tid) {
            return known.clone();
        }
        let found = self
            .target
            .processes
            .iter()
            .find(|p| p.pid == tid || p.tids.iter().any(|t| t.tid == tid))
            .map(|p| (p.pid, p.comm.clone()))
            .or_else(|| process_from_proc(&self.roots.proc, tid))
            .unwrap_or_default();
        if self.comms.len() < THREADS {
            self.comms.insert(tid, found.clone());
        }
        found
    }

    /// News since the last time, and how many were dropped because nobody fetched them.
    pub fn take_news(&mut self) -> (Vec<News>, u64) {
        (self.news.drain(..).collect(), std::mem::take(&mut self.news_dropped))
    }
}

/// Thread group and name of a thread that the target does not list.
fn process_from_proc(proc: &std::path::Path, tid: u32) -> Option<(u32, String)> {
    let status = std::fs::read_to_string(proc.join(tid.to_string()).join("status")).ok()?;
    let field =
        |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).map(|v| v.trim().to_owned());
    Some((field("Tgid:")?.parse().ok()?, field("Name:")?))
}
