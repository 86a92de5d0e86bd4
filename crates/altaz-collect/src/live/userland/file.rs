//! One file under probes: what of it was hit, and which of its functions need no probe any more.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use altaz_bpf::ActiveFilter;
use altaz_profile::Layer;
use altaz_symbols::Binary;
use altaz_uprobe::Armed;

use super::handover::{FileNumber, Found, Windows};
use super::payoff::Payoff;
use crate::exact::naming::{BinaryFile, part_sizes, user_target};
use crate::live::rows::ENOUGH;

/// How soon a file's hits are looked at after it was attached or changed.
const BURST: Duration = Duration::from_millis(10);
/// They are looked at this often at least.
const LONGEST: Duration = Duration::from_millis(500);
/// A file is hot while the hits of its probes take more than this share of a CPU together.
const HOT: f64 = 0.01;

/// One file in one layer.
pub(super) struct File {
    number: FileNumber,
    path: Arc<str>,
    build_id: Option<Arc<str>>,
    layer: Layer,
    binary: Binary,
    parts: HashMap<u64, u64>,
    armed: Armed,
    /// Keeps following what the filter follows; the file's own, where it has one.
    _filter: Option<ActiveFilter>,
    functions: HashMap<u32, Function>,
    every: Duration,
    looked: Instant,
    /// What a hit costs.
    hit: Duration,
    payoff: Payoff,
    hot: bool,
}

/// A function that was hit and still has its probe.
#[derive(Debug, Clone, Copy, Default)]
struct Function {
    /// Number of the last window that it was handed into; 0 is none.
    window: u64,
    /// Windows that it was handed into.
    windows: usize,
    /// Hits between the last two looks.
    hits: u64,
}

impl File {
    /// A file that was just attached; `hit` is what a hit costs.
    pub(super) fn new(
        number: FileNumber,
        path: Arc<str>,
        layer: Layer,
        binary: Binary,
        armed: Armed,
        filter: Option<ActiveFilter>,
        hit: Duration,
    ) -> Self {
        let now = Instant::now();
        Self {
            number,
            path,
            build_id: binary.build_id.as_deref().map(Arc::from),
            layer,
            parts: part_sizes(&binary),
            binary,
            armed,
            _filter: filter,
            functions: HashMap::new(),
            every: BURST,
            looked: now,
            hit,
            payoff: Payoff::new(hit),
            hot: true,
        }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn is_hot(&self) -> bool {
        self.hot
    }

    /// When its hits are to be looked at again.
    pub(super) fn due(&self) -> Instant {
        self.looked + self.every
    }

    /// Hits that the kernel skipped.
    pub(super) fn missed(&self) -> u64 {
        self.armed.misses().ok().flatten().unwrap_or(0)
    }

    /// Hands what was hit since the last look into the window that is open.
    pub(super) fn hand_over(&mut self, windows: &Windows) {
        self.functions.values_mut().for_each(|f| f.hits = 0);
        let news = self.armed.news();
        if news.is_empty() {
            return;
        }
        // The window cannot end before all of it is in.
        let mut open = windows.open();
        for hit in news {
            let Some(function) = self.binary.functions.get(hit.function as usize) else { continue };
            let seen = self.functions.entry(hit.function).or_default();
            seen.hits = hit.count;
            if seen.window == open.number() {
                continue;
            }
            seen.window = open.number();
            seen.windows += 1;
            let file = BinaryFile {
                path: &self.path,
                build_id: self.build_id.as_ref(),
                parts: &self.parts,
            };
            let (at_ns, tid) = hit.first.map_or((0, 0), |f| (f.at_ns, f.tid));
            open.push(Found {
                file: self.number,
                function: hit.function,
                target: user_target(self.layer, file, function),
                at_ns,
                tid,
            });
        }
    }

    /// Puts its probes into all processes.
    ///
    /// # Errors
    /// When the kernel refuses; then they stay where they are.
    pub(super) fn widen(&mut self) -> Result<(), altaz_uprobe::UprobeError> {
        self.armed.widen()
    }

    /// Takes the probes off that were seen in enough windows, when that pays.
    ///
    /// # Errors
    /// When the kernel refuses; then they stay, and it is tried again later.
    pub(super) fn disarm_what_pays(&mut self) -> Result<(), altaz_uprobe::UprobeError> {
        let took = self.looked.elapsed();
        self.looked = Instant::now();
        let ready: Vec<u32> =
            self.functions.iter().filter(|(_, f)| f.windows >= ENOUGH).map(|(f, _)| *f).collect();
        let all: u64 = self.functions.values().map(|f| f.hits).sum();
        let of_ready: u64 =
            ready.iter().filter_map(|f| self.functions.get(f)).map(|f| f.hits).sum();
        let cost = self.hit.as_secs_f64() * all as f64;
        self.hot = cost / took.as_secs_f64().max(1e-3) > HOT;
        if self.payoff.pays(took, ready.len(), of_ready) {
            let done = self.armed.disarm(&ready);
            self.payoff.done(self.looked.elapsed());
            self.looked = Instant::now();
            done?;
            for function in ready {
                self.functions.remove(&function);
            }
            self.every = BURST;
        } else {
            self.every = (self.every * 2).min(LONGEST);
        }
        Ok(())
    }
}
