//! Probes that are attached: one link for each file, taken off function by function while the service runs.
//!
//! Taking probes off means to link what remains anew and to close the old link afterwards: in between both are there,
//! so no hit is missed, and when the new link fails the old one stays. Everything is held by descriptors of this
//! process; when it ends, however it ends, the kernel takes the probes off.
//!
//! Every process that maps the file runs into the probes and pays for them, unless they are put into one process alone;
//! only those that pass the filter are counted. Which files and functions, and when to take what off, is decided elsewhere.

use crate::UprobeError;
use crate::file::ProbedFile;
use crate::form::Speed;
use crate::method::Method;
use crate::points::{LeftOut, Point, Points, Reason};
use crate::relink;
use crate::selftest::SelfTest;
use altaz_bpf::hits::{FirstHit, HitCounter};
use altaz_bpf::link::{Link, ProbeAt, UprobePmu};
use altaz_bpf::{ActiveFilter, BpfError};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

/// Most functions of a file that are probed on kernels without links of many uprobes ([`Method::PerfEvents`]). The
/// largest functions are taken.
pub const FALLBACK_LIMIT: usize = 200;

/// Descriptors that the fall-back leaves to everything else.
const DESCRIPTORS_KEPT: usize = 256;

/// Hits of one function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FunctionHit {
    /// Index into the binary's functions.
    pub function: u32,
    /// Hits by tasks that pass the filter. At least one means that the function was entered; it is no number of calls.
    pub count: u64,
    /// The first hit of all; absent for the few nanoseconds in which it is written.
    pub first: Option<FirstHit>,
}

/// What taking probes off did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disarmed {
    /// Probes taken off now.
    pub disarmed: usize,
    /// Probes that remain.
    pub armed: usize,
    /// Time it took, most of it waiting in the kernel.
    pub took: Duration,
}

#[derive(Debug)]
enum Links {
    Multi(Option<Link>),
    Each(HashMap<u32, Link>),
}

#[derive(Debug)]
struct Probe {
    point: Point,
    armed: bool,
    /// Count at the last look.
    last: u64,
}

/// The probes of one file.
#[derive(Debug)]
pub struct Armed {
    // Declared, and therefore dropped, before what the program counts into.
    links: Links,
    counter: HitCounter,
    file: ProbedFile,
    /// The only process that has the probes.
    process: Option<u32>,
    probes: Vec<Probe>,
    left_out: Vec<LeftOut>,
    took: Duration,
}

impl Armed {
    /// Attaches probes to a file by the best method that the kernel knows, in all processes that map it, or in the one
    /// of this id alone ([`altaz_bpf::link::knows_one_process`]; not by [`Method::PerfEvents`]). Points of forms that
    /// `proof` does not allow are left out, as are those that the kernel refuses. `sys` is usually `/sys`.
    ///
    /// # Errors
    /// When BPF or probes are not available, or the kernel refuses hundreds of probes.
    pub fn attach(
        file: ProbedFile,
        points: &Points,
        proof: &SelfTest,
        filter: &ActiveFilter,
        process: Option<u32>,
        sys: &Path,
    ) -> Result<Self, UprobeError> {
        Self::attach_by(Method::best(), file, points, proof, filter, process, sys)
    }

    /// Like [`attach`](Self::attach), by a given method.
    ///
    /// # Errors
    /// Also when the kernel does not know the method.
    pub fn attach_by(
        method: Method,
        file: ProbedFile,
        points: &Points,
        proof: &SelfTest,
        filter: &ActiveFilter,
        process: Option<u32>,
        sys: &Path,
    ) -> Result<Self, UprobeError> {
        let started = Instant::now();
        let (proven, unproven): (Vec<Point>, Vec<Point>) =
            points.probes.iter().partition(|p| proof.allowed().speed(p.form).is_some());
        let mut left_out: Vec<LeftOut> =
            unproven.iter().map(|p| p.left_out(Reason::Untested(p.form))).collect();
        file.warm(proven.iter().map(|p| p.file_offset));
        let bpf =
            |source: BpfError| UprobeError::Bpf { what: file.name().display().to_string(), source };
        let cookies = u32::try_from(proven.len()).unwrap_or(u32::MAX);
        let counter = HitCounter::load(method.program(), filter, cookies).map_err(bpf)?;
        let places = places(&proven);
        let mut beyond = HashSet::new();
        let (links, refused) = match method {
            Method::Multi => {
                let program = counter.program();
                let (path, name) = (file.path(), file.name());
                let linked =
                    relink::link_what_the_kernel_takes(program, &path, name, &places, process)?;
                (Links::Multi(linked.link), linked.refused)
            }
            Method::PerfEvents => {
                let pmu = UprobePmu::find(sys).map_err(bpf)?;
                beyond = beyond_fallback(&proven, fallback_limit());
                let mut each = HashMap::new();
                let mut refused = Vec::new();
                for (i, place) in (0u32..).zip(&places).filter(|(i, _)| !beyond.contains(i)) {
                    match Link::uprobe(counter.program(), pmu, &file.path(), *place) {
                        Ok(link) => drop(each.insert(i, link)),
                        Err(e) if relink::is_about_the_instruction(&e) => {
                            refused.push(place.cookie);
                        }
                        Err(e) => return Err(bpf(e)),
                    }
                }
                (Links::Each(each), refused)
            }
        };
        let refused: HashSet<u64> = refused.into_iter().collect();
        let mut probes = Vec::with_capacity(proven.len());
        for (cookie, point) in (0u32..).zip(proven) {
            let reason = if refused.contains(&u64::from(cookie)) {
                Some(Reason::KernelRefused)
            } else if beyond.contains(&cookie) {
                Some(Reason::Limit)
            } else {
                None
            };
            left_out.extend(reason.map(|reason| point.left_out(reason)));
            probes.push(Probe { point, armed: reason.is_none(), last: 0 });
        }
        Ok(Self { links, counter, file, process, probes, left_out, took: started.elapsed() })
    }

    /// How the probes are attached.
    pub fn method(&self) -> Method {
        match self.links {
            Links::Multi(_) => Method::Multi,
            Links::Each(_) => Method::PerfEvents,
        }
    }

    /// The file.
    pub fn file(&self) -> &ProbedFile {
        &self.file
    }

    /// Probes attached now.
    pub fn armed(&self) -> usize {
        self.probes.iter().filter(|p| p.armed).count()
    }

    /// Functions that were to be probed but are not, beyond those that [`Points`] left out.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// Time that attaching took.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// All functions that were hit since attaching, in their order.
    pub fn hits(&self) -> impl Iterator<Item = FunctionHit> {
        self.counter.hits().filter_map(|(cookie, hit)| {
            let function = self.probes.get(cookie as usize)?.point.function;
            Some(FunctionHit { function, count: hit.count, first: hit.first })
        })
    }

    /// Functions that were hit since the last call, in their order; counts are those since then.
    pub fn news(&mut self) -> Vec<FunctionHit> {
        let Self { counter, probes, .. } = self;
        let mut out = Vec::new();
        for (cookie, hit) in counter.hits() {
            let Some(probe) = probes.get_mut(cookie as usize) else { continue };
            let since = hit.count.saturating_sub(std::mem::replace(&mut probe.last, hit.count));
            if since > 0 {
                let function = probe.point.function;
                out.push(FunctionHit { function, count: since, first: hit.first });
            }
        }
        out
    }

    /// Hits that were not counted because the CPU was inside another BPF program; nothing where the kernel does not
    /// say.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn misses(&self) -> Result<Option<u64>, UprobeError> {
        let what = format!("{}: ask for missed hits", self.file.name().display());
        self.counter.program().misses().map_err(|source| UprobeError::Bpf { what, source })
    }

    /// Takes the probes of these functions off. Functions without a probe are ignored.
    ///
    /// # Errors
    /// When what remains cannot be linked anew; then everything stays as it was.
    pub fn disarm(&mut self, functions: &[u32]) -> Result<Disarmed, UprobeError> {
        let started = Instant::now();
        let unwanted: HashSet<u32> = functions.iter().copied().collect();
        let (gone, kept): (Vec<usize>, Vec<usize>) = (0..self.probes.len())
            .filter(|&i| self.probes[i].armed)
            .partition(|&i| unwanted.contains(&self.probes[i].point.function));
        if !gone.is_empty() {
            self.relink(&gone, &kept)?;
        }
        Ok(Disarmed { disarmed: gone.len(), armed: self.armed(), took: started.elapsed() })
    }

    /// Puts the probes of a single process into all that map the file. Nothing is missed meanwhile.
    ///
    /// # Errors
    /// When they cannot be linked anew; then everything stays as it was.
    pub fn widen(&mut self) -> Result<(), UprobeError> {
        let Some(process) = self.process.take() else { return Ok(()) };
        let kept: Vec<usize> = (0..self.probes.len()).filter(|&i| self.probes[i].armed).collect();
        self.relink(&[], &kept).inspect_err(|_| self.process = Some(process))
    }

    fn relink(&mut self, gone: &[usize], kept: &[usize]) -> Result<(), UprobeError> {
        match &mut self.links {
            Links::Multi(link) => {
                let at = |&i: &usize| ProbeAt {
                    offset: self.probes[i].point.file_offset,
                    cookie: i as u64,
                };
                let remainder: Vec<ProbeAt> = kept.iter().map(at).collect();
                let mut linked = relink::link_what_the_kernel_takes(
                    self.counter.program(),
                    &self.file.path(),
                    self.file.name(),
                    &remainder,
                    self.process,
                )?;
                std::mem::swap(link, &mut linked.link); // the old one is closed at the end of this block
                for cookie in linked.refused {
                    // It was taken before: the file's page has changed under us.
                    if let Some(probe) = self.probes.get_mut(cookie as usize) {
                        probe.armed = false;
                        self.left_out.push(probe.point.left_out(Reason::KernelRefused));
                    }
                }
            }
            Links::Each(links) => {
                for &i in gone {
                    links.remove(&(i as u32));
                }
            }
        }
        for &i in gone {
            self.probes[i].armed = false;
        }
        Ok(())
    }
}

fn places(points: &[Point]) -> Vec<ProbeAt> {
    (0..).zip(points).map(|(cookie, p)| ProbeAt { offset: p.file_offset, cookie }).collect()
}

/// Cookies of the points that are not among the `limit` to take: cheap ones first, then the largest functions.
fn beyond_fallback(points: &[Point], limit: usize) -> HashSet<u32> {
    let mut order: Vec<(u32, &Point)> = (0..).zip(points).collect();
    order.sort_by_key(|(_, p)| (p.speed == Speed::Stepped, std::cmp::Reverse(p.size)));
    order.into_iter().skip(limit).map(|(cookie, _)| cookie).collect()
}

/// As many as this process may have open.
fn fallback_limit() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let open = limit.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    open.saturating_sub(DESCRIPTORS_KEPT).min(FALLBACK_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::form::{Access, Form};

    #[test]
    fn the_fall_back_takes_cheap_and_large_functions_first() {
        let point = |speed, size| Point {
            function: 0,
            size,
            file_offset: 0,
            form: Form { kind: crate::form::Kind::Push, access: Access::Registers },
            speed,
            repeats: false,
        };
        let points = [
            point(Speed::Stepped, 900),
            point(Speed::Emulated, 10),
            point(Speed::Emulated, 30),
            point(Speed::Emulated, 20),
        ];
        assert_eq!(beyond_fallback(&points, 2), HashSet::from([0, 1]));
        assert_eq!(beyond_fallback(&points, 9), HashSet::new());
        assert!(fallback_limit() <= FALLBACK_LIMIT);
    }
}
