//! From a recording and names to the rows of a profile.
//!
//! A unit's count in a window is the highest count of any of its blocks: it follows the unit's
//! activity without depending on how the translator cut it into blocks. Covered bytes are the union
//! of its executed blocks' bytes in a phase, so overlapping translations do not count twice.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use altaz_profile::{CodeBytes, Context, Evidence, Layer, Phase, Unit, Window};

use super::baseline;
use super::naming::{Named, Names, Target, TargetId};
use super::recording::{Purpose, RecordedWindow, Recording};

/// What a recording comes to.
#[derive(Debug, Clone)]
pub struct Built {
    /// Rows, ordered by layer, binary, offset and phase.
    pub units: Vec<Unit>,
    /// The profile's windows.
    pub windows: Vec<Window>,
    /// Executed code bytes of the serve phase by layer, background left out.
    pub code: BTreeMap<Layer, CodeBytes>,
    /// Code that ran but belongs to nobody's layer (altaz's own agent), bytes.
    pub left_out: u64,
    /// How often functions were entered while serving: executions of blocks that begin where the
    /// function begins.
    pub entered: BTreeMap<(Layer, Arc<str>), u64>,
    /// Bytes of code executed while serving, each execution counted, by layer, background left out.
    pub executed: BTreeMap<Layer, u64>,
}

/// Byte ranges, united.
#[derive(Debug, Clone, Default)]
struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    fn add(&mut self, from: u64, to: u64) {
        self.0.push((from, to));
    }

    /// Number of distinct bytes.
    fn bytes(mut self) -> u64 {
        self.0.sort_unstable();
        let (mut sum, mut end) = (0, 0);
        for (from, to) in self.0 {
            let from = from.max(end);
            if to > from {
                sum += to - from;
                end = to;
            }
        }
        sum
    }
}

const PHASES: [Phase; 4] = [Phase::Start, Phase::Serve, Phase::Stop, Phase::Idle];

/// Index of the serve phase in [`PHASES`].
const SERVE: usize = 1;

fn phase_index(phase: Phase) -> usize {
    match phase {
        Phase::Start => 0,
        Phase::Serve => SERVE,
        Phase::Stop => 2,
        Phase::Idle => 3,
    }
}

#[derive(Default, Clone)]
struct Activity {
    /// (window, highest block count), ascending.
    windows: Vec<(u32, u64)>,
    covered: [Ranges; 4],
    /// Bytes executed in the serve phase, each execution counted.
    executed: u64,
}

impl Activity {
    fn note(&mut self, window: u32, count: u64) {
        match self.windows.last_mut() {
            Some((w, highest)) if *w == window => *highest = (*highest).max(count),
            _ => self.windows.push((window, count)),
        }
    }
}

/// Calls `f(block, slot, count)` for all counts of a window.
fn each_count(window: &RecordedWindow, mut f: impl FnMut(u32, Option<u16>, u64)) {
    window.counts.iter().for_each(|c| f(c.block, None, c.count));
    window.split.iter().for_each(|c| f(c.block, Some(c.slot), c.count));
}

/// Builds the rows.
pub fn build(recording: &Recording, names: &mut Names<'_>) -> Built {
    let profile: Vec<(Phase, &RecordedWindow)> = recording.profile_windows().collect();
    let origin_ns = profile.first().map_or(0, |(_, w)| w.begin_ns);
    let windows: Vec<Window> = profile
        .iter()
        .map(|(phase, w)| Window {
            phase: *phase,
            start_ns: w.begin_ns.saturating_sub(origin_ns),
            end_ns: w.end_ns.saturating_sub(origin_ns),
            lost_events: w.lost,
        })
        .collect();

    let mut activity: Vec<Activity> = Vec::new();
    let mut seen: HashSet<(u32, Option<u16>, usize)> = HashSet::new();
    let mut loose = Loose::default();
    let mut begins: HashMap<(TargetId, u64), u64> = HashMap::new();
    for (index, (phase, window)) in profile.iter().enumerate() {
        let phase = phase_index(*phase);
        each_count(window, |block, slot, count| {
            let first = seen.insert((block, slot, phase));
            match names.of(block, slot) {
                Named::Code(pieces) => {
                    if phase == SERVE
                        && let Some(first) = pieces.first()
                    {
                        *begins.entry((first.target, first.from)).or_default() += count;
                    }
                    for piece in pieces {
                        let at = piece.target.0 as usize;
                        if activity.len() <= at {
                            activity.resize(at + 1, Activity::default());
                        }
                        activity[at].note(index as u32, count);
                        if phase == SERVE {
                            let bytes = count.saturating_mul(piece.to.saturating_sub(piece.from));
                            activity[at].executed = activity[at].executed.saturating_add(bytes);
                        }
                        if first {
                            activity[at].covered[phase].add(piece.from, piece.to);
                        }
                    }
                }
                named if first => loose.add(named, phase, &recording.blocks[block as usize]),
                _ => {}
            }
        });
    }

    let judged = judge(&activity, &windows);
    let mut units = Vec::new();
    let mut executed: BTreeMap<Layer, u64> = BTreeMap::new();
    let mut code: BTreeMap<Layer, CodeBytes> = BTreeMap::new();
    for (id, activity) in activity.into_iter().enumerate() {
        let target = names.target(TargetId(id as u32));
        let Activity { windows: seen, covered, executed: bytes } = activity;
        if judged[id][SERVE] && bytes > 0 {
            *executed.entry(target.layer).or_default() += bytes;
        }
        for ((phase, covered), service) in PHASES.iter().zip(covered).zip(judged[id]) {
            let in_phase: Vec<u32> = seen
                .iter()
                .map(|(w, _)| *w)
                .filter(|w| windows[*w as usize].phase == *phase)
                .collect();
            if in_phase.is_empty() {
                continue;
            }
            let covered = covered.bytes();
            if *phase == Phase::Serve && service {
                code.entry(target.layer).or_default().named += covered;
            }
            units.push(unit(target, *phase, service, covered, in_phase));
        }
    }
    units.sort_by(|a, b| {
        (a.layer, &a.binary, a.offset, &a.symbol, a.phase)
            .cmp(&(b.layer, &b.binary, b.offset, &b.symbol, b.phase))
    });
    let left_out = loose.finish(&mut code);
    let mut entered = BTreeMap::new();
    for ((id, from), count) in begins {
        let target = names.target(id);
        if target.offset == from {
            *entered.entry((target.layer, Arc::clone(&target.symbol))).or_default() += count;
        }
    }
    Built { units, windows, code, left_out, entered, executed }
}

/// A row; `windows` is not empty.
fn unit(target: &Target, phase: Phase, service: bool, covered: u64, windows: Vec<u32>) -> Unit {
    Unit {
        layer: target.layer,
        binary: Arc::clone(&target.binary),
        build_id: target.build_id.clone(),
        symbol: Arc::clone(&target.symbol),
        offset: target.offset,
        size: target.size,
        covered: Some(covered.min(target.size)),
        file: target.file.clone(),
        line: target.line,
        phase,
        context: if service { Context::Any } else { Context::Background },
        first_window: windows[0],
        windows,
        evidence: Evidence::Exercised,
    }
}

/// Ranges by page and guest.
type PageRanges = BTreeMap<(u128, u8), Ranges>;

/// Code without a unit, as distinct byte ranges by layer and kind; serve phase, not seen idle.
#[derive(Default)]
struct Loose {
    /// By (layer, generated at run time), then by (page, guest).
    ranges: BTreeMap<(Option<Layer>, bool), PageRanges>,
    idle: HashSet<(u128, u64)>,
}

impl Loose {
    fn add(&mut self, named: Named<'_>, phase: usize, block: &altaz_wire::Block) {
        let key = match named {
            Named::Jit(layer) => (Some(layer), true),
            Named::Unnamed(layer) => (Some(layer), false),
            Named::LeftOut => (None, false),
            Named::Code(_) => return,
        };
        // Kernel code lies at its address, user code in its page.
        let from = if block.page == 0 { block.vaddr } else { block.page_offset() as u64 };
        match PHASES[phase] {
            Phase::Idle => {
                self.idle.insert((block.page, from));
            }
            Phase::Serve if !self.idle.contains(&(block.page, from)) => {
                let ranges = self.ranges.entry(key).or_default();
                ranges
                    .entry((block.page, block.guest))
                    .or_default()
                    .add(from, from + u64::from(block.size));
            }
            _ => {}
        }
    }

    /// Adds the bytes to their layers; returns those of no layer.
    fn finish(self, code: &mut BTreeMap<Layer, CodeBytes>) -> u64 {
        let mut left_out = 0;
        for ((layer, jit), pages) in self.ranges {
            let bytes: u64 = pages.into_values().map(Ranges::bytes).sum();
            match layer {
                None => left_out += bytes,
                Some(layer) => {
                    let entry = code.entry(layer).or_default();
                    *if jit { &mut entry.jit } else { &mut entry.unnamed } += bytes;
                }
            }
        }
        left_out
    }
}

/// For each target and phase: whether it is the service's (true) or background.
fn judge(activity: &[Activity], windows: &[Window]) -> Vec<[bool; 4]> {
    let seconds = |w: u32| {
        let w = &windows[w as usize];
        (w.end_ns.saturating_sub(w.start_ns)).max(1) as f64 / 1e9
    };
    let mut in_phase = [0; PHASES.len()];
    windows.iter().for_each(|w| in_phase[phase_index(w.phase)] += 1);
    let rates = |a: &Activity, phase: Phase| -> Vec<f64> {
        let mut rates: Vec<f64> = a
            .windows
            .iter()
            .filter(|(w, _)| windows[*w as usize].phase == phase)
            .map(|(w, count)| *count as f64 / seconds(*w))
            .collect();
        rates.resize(in_phase[phase_index(phase)], 0.0);
        rates
    };
    let mut judged = vec![[true, true, true, false]; activity.len()];
    for phase in [Phase::Start, Phase::Serve, Phase::Stop] {
        let mut tested = Vec::new();
        let mut p_values = Vec::new();
        for (id, a) in activity.iter().enumerate() {
            let seen = |phase| a.windows.iter().any(|(w, _)| windows[*w as usize].phase == phase);
            if seen(Phase::Idle) && seen(phase) {
                let p = baseline::rank_sum(&rates(a, phase), &rates(a, Phase::Idle));
                tested.push(id);
                p_values.push(p.unwrap_or(1.0));
            }
        }
        let kept = baseline::discoveries(&p_values, baseline::FDR);
        for (id, kept) in tested.into_iter().zip(kept) {
            judged[id][phase_index(phase)] = kept;
        }
    }
    judged
}

/// How often the function of the machine's own kernel that starts at `start` was entered in calibration
/// windows: executions of blocks that begin where the function begins.
pub fn entries_in_calibration(recording: &Recording, start: u64) -> u64 {
    let mut sum = 0;
    for window in recording.windows.iter().filter(|w| w.purpose == Purpose::Calibration) {
        for count in &window.counts {
            let block = &recording.blocks[count.block as usize];
            if block.guest == 0 && block.ring == 0 && block.vaddr == start {
                sum += count.count;
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_translations_do_not_count_twice() {
        let mut ranges = Ranges::default();
        for (from, to) in [(10, 20), (15, 25), (0, 5), (10, 20), (24, 25), (30, 30)] {
            ranges.add(from, to);
        }
        assert_eq!(ranges.bytes(), 5 + 15);
    }

    fn windows(phases: &[(Phase, usize)]) -> Vec<Window> {
        let mut all = Vec::new();
        for (phase, n) in phases {
            for _ in 0..*n {
                let start_ns = all.len() as u64 * 500_000_000;
                all.push(Window {
                    phase: *phase,
                    start_ns,
                    end_ns: start_ns + 500_000_000,
                    lost_events: 0,
                });
            }
        }
        all
    }

    fn active(windows: &[Window], count: impl Fn(Phase, usize) -> u64) -> Activity {
        let mut activity = Activity::default();
        for (i, w) in windows.iter().enumerate() {
            let n = count(w.phase, i);
            if n > 0 {
                activity.note(i as u32, n);
            }
        }
        activity
    }

    #[test]
    fn the_timer_is_background_and_what_requests_add_is_the_services() {
        let windows = windows(&[(Phase::Idle, 20), (Phase::Start, 10), (Phase::Serve, 60)]);
        let wobble = |i: usize| (i % 3) as u64;
        let timer = active(&windows, |_, i| 120 + wobble(i));
        let socket = active(&windows, |p, i| if p == Phase::Serve { 400 } else { 2 } + wobble(i));
        let request = active(&windows, |p, _| u64::from(p == Phase::Serve) * 7);
        let judged = judge(&[timer, socket, request], &windows);
        assert!(!judged[0][1], "the timer");
        assert!(judged[1][1] && !judged[1][0], "used more while serving, not while starting");
        assert!(judged[2][1], "never seen idle");
    }
}
