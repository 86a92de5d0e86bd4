//! Differential test of the running kernel: does an instruction do under a probe what it does without?
//!
//! Each example of each form on the allowlist is executed with many registers, flags, vectors and memory contents,
//! first as it is, then with a probe on it, in child processes that map a file of altaz's own. Whatever differs, is
//! refused by the kernel, kills the child, or is not counted exactly as often as it was executed, takes its form off
//! the list for this run. The test also learns which forms this kernel emulates: the first single-step in a process
//! makes a mapping that can be seen.
//!
//! Nothing of a service is touched here, and nothing may be attached to one before this has run.

mod code;
mod machine;

use crate::examples::{Example, Fill};
use crate::form::{Allowed, Form, Kind, Speed};
use crate::instruction::{self, Class};
use crate::method::Method;
use crate::{UprobeError, relink};
use altaz_bpf::BpfError;
use altaz_bpf::asm::Reg::{R0, R1, R2, R10};
use altaz_bpf::asm::{Alu, Asm, Cond, Helper, Size};
use altaz_bpf::link::{Link, ProbeAt, UprobePmu};
use altaz_bpf::map::MmapArray;
use altaz_bpf::program::{Kind as ProgramKind, Program};
use machine::{Ending, INPUTS, Stage};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Hits of a run that is timed.
const PRICED_HITS: u32 = 2000;
/// Runs of which the shortest counts: what else the machine does only makes them longer.
const PRICED_RUNS: u32 = 5;
/// No hit is taken for cheaper: an exception there and back takes as much on the fastest of processors.
const LEAST_HIT: Duration = Duration::from_nanos(200);

/// What became of one example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The same with and without a probe, counted exactly.
    Agreed(Speed),
    /// The kernel would not probe it.
    RefusedByKernel,
    /// It came out differently: what differed, or how the process ended.
    Disagreed(String),
    /// The right result, but not counted as often as it was executed.
    Miscounted {
        /// Executions.
        made: u64,
        /// Hits.
        counted: u64,
    },
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agreed(Speed::Emulated) => f.write_str("agreed, emulated"),
            Self::Agreed(Speed::Stepped) => f.write_str("agreed, single-stepped"),
            Self::RefusedByKernel => f.write_str("refused by the kernel"),
            Self::Disagreed(how) => write!(f, "executed wrongly: {how}"),
            Self::Miscounted { made, counted } => {
                write!(f, "executed {made} times, counted {counted} times")
            }
        }
    }
}

/// One example and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// Assembly text.
    pub text: String,
    /// Its form; nothing for an instruction that is not on the allowlist.
    pub form: Option<Form>,
    /// Whether it lay across a page boundary.
    pub crossing: bool,
    /// What became of it.
    pub outcome: Outcome,
}

/// Result of the self-test.
#[derive(Debug, Clone)]
pub struct SelfTest {
    /// All examples, in the order in which they were tried.
    pub tried: Vec<Tried>,
    /// Executions of instructions under a probe, of those that came out right.
    pub executions: u64,
    /// Hits that were counted of them. Different from the executions: no count of hits can be trusted.
    pub counted: u64,
    /// Time it took.
    pub took: Duration,
    /// What a hit of a probe on an emulated instruction costs here, as measured: the exception, the program that
    /// counts, and the way back. Under an emulated processor it is many times of what hardware takes.
    pub hit: Duration,
    allowed: Allowed,
}

impl SelfTest {
    /// Tests the running kernel. `sys` is usually `/sys`; it is looked at where the kernel has no `uprobe_multi`.
    ///
    /// # Errors
    /// When BPF or probes are not available, or child processes cannot be made.
    pub fn run(sys: &Path) -> Result<Self, UprobeError> {
        Self::run_by(Method::best(), sys)
    }

    /// Like [`run`](Self::run), with probes attached by a given method. By perf events only the first example of each
    /// form is tried: taking them off takes long.
    ///
    /// # Errors
    /// Also when the kernel does not know the method.
    pub fn run_by(method: Method, sys: &Path) -> Result<Self, UprobeError> {
        let started = Instant::now();
        let mut examples = crate::examples::all();
        if method == Method::PerfEvents {
            let mut seen = BTreeSet::new();
            examples.retain(|e| {
                instruction::classify(&e.bytes, 0).form().is_none_or(|f| seen.insert(f))
            });
        }
        let (tried, hit) = try_examples(&examples, method, sys)?;
        let (mut executions, mut counted) = (0, 0);
        for one in &tried {
            let (made, hits) = match one.outcome {
                Outcome::Agreed(_) => (INPUTS as u64, INPUTS as u64),
                Outcome::Miscounted { made, counted } => (made, counted),
                Outcome::RefusedByKernel | Outcome::Disagreed(_) => (0, 0),
            };
            executions += made;
            counted += hits;
        }
        let allowed = allowed(&tried);
        Ok(Self { tried, executions, counted, took: started.elapsed(), hit, allowed })
    }

    /// The forms that are probed in this run: those of which every example agreed. A form counts as emulated when all
    /// of its examples were.
    pub fn allowed(&self) -> &Allowed {
        &self.allowed
    }

    /// Examples that came out wrong or were miscounted.
    pub fn disagreed(&self) -> impl Iterator<Item = &Tried> {
        self.tried
            .iter()
            .filter(|t| matches!(t.outcome, Outcome::Disagreed(_) | Outcome::Miscounted { .. }))
    }

    /// Examples that the kernel would not probe.
    pub fn refused(&self) -> impl Iterator<Item = &Tried> {
        self.tried.iter().filter(|t| t.outcome == Outcome::RefusedByKernel)
    }
}

fn allowed(tried: &[Tried]) -> Allowed {
    let mut worst: BTreeMap<Form, Option<Speed>> = BTreeMap::new();
    for one in tried {
        let Some(form) = one.form else { continue };
        let speed = match one.outcome {
            Outcome::Agreed(speed) => Some(speed),
            _ => None,
        };
        let entry = worst.entry(form).or_insert(speed);
        *entry = entry.zip(speed).map(|(a, b)| a.max(b));
    }
    let mut out = Allowed::default();
    for (form, speed) in worst {
        if let Some(speed) = speed {
            out.insert(form, speed);
        }
    }
    out
}

/// What the running kernel makes of instructions that need not be on the allowlist: text and bytes of each. They are
/// executed in child processes of their own. An instruction that this processor does not have must not be among them.
///
/// # Errors
/// As [`SelfTest::run`].
pub fn try_instructions(
    instructions: &[(&str, &[u8])],
    sys: &Path,
) -> Result<Vec<Tried>, UprobeError> {
    let examples: Vec<Example> = instructions
        .iter()
        .map(|(text, bytes)| Example {
            text: (*text).to_string(),
            bytes: bytes.to_vec(),
            fill: Fill::Nothing,
        })
        .collect();
    try_examples(&examples, Method::best(), sys).map(|(tried, _)| tried)
}

fn try_examples(
    examples: &[Example],
    method: Method,
    sys: &Path,
) -> Result<(Vec<Tried>, Duration), UprobeError> {
    let fail = |what| move |source: io::Error| UprobeError::SelfTest { what, source };
    let wide = std::arch::is_x86_feature_detected!("avx");
    let program = code::program(examples, wide);
    let stage = Stage::new(&program).map_err(fail("map an executable file of its own"))?;
    let slots = program.slots.len();
    let everything: Vec<usize> = (0..slots).collect();
    match stage.run(&everything).map_err(fail("start a process"))? {
        Ending::Finished => {}
        Ending::Killed(signal) => return Err(UprobeError::SelfTestBroken { signal }),
    }
    let before: Vec<_> = (0..slots).map(|slot| stage.found(slot)).collect();
    stage.clear();

    let offsets: Vec<u64> = program.slots.iter().map(|slot| slot.offset as u64).collect();
    let probes = Probes::attach(&stage, &offsets, method, sys)?;
    let forms: Vec<Class> =
        examples.iter().map(|e| instruction::classify(&e.bytes, e.assumed_address())).collect();
    // What kernels single-step in any case is tried in one process: starting one takes most of the time.
    let (together, alone): (Vec<usize>, Vec<usize>) = (0..slots)
        .partition(|&i| forms.get(program.slots[i].example).is_some_and(|c| surely_stepped(*c)));
    let refused = |index: &usize| probes.refused.contains(&(*index as u64));
    let together: Vec<usize> = together.into_iter().filter(|i| !refused(i)).collect();
    let mut endings = vec![Ending::Finished; slots];
    if stage.run(&together).map_err(fail("start a process"))? != Ending::Finished {
        // Who of them was it? Each alone, from the start.
        stage.clear();
        probes.clear();
        for index in together {
            endings[index] = stage.run(&[index]).map_err(fail("start a process"))?;
        }
    }
    for index in alone.into_iter().filter(|i| !refused(i)) {
        endings[index] = stage.run(&[index]).map_err(fail("start a process"))?;
    }
    let mut tried = Vec::with_capacity(slots);
    for (index, ((slot, before), ending)) in
        program.slots.iter().zip(before).zip(endings).enumerate()
    {
        let Some((example, class)) = examples.get(slot.example).zip(forms.get(slot.example)) else {
            continue;
        };
        let outcome = if refused(&index) {
            Outcome::RefusedByKernel
        } else {
            judge(ending, before, stage.found(index), probes.count(index))
        };
        let last = slot.offset + example.bytes.len() - 1;
        let crossing = slot.offset / code::PAGE != last / code::PAGE;
        tried.push(Tried { text: example.text.clone(), form: class.form(), crossing, outcome });
    }
    let slot = tried.iter().position(|t| t.outcome == Outcome::Agreed(Speed::Emulated));
    let hit = price_of_a_hit(&stage, slot, probes).map_err(fail("start a process"))?;
    Ok((tried, hit))
}

/// What a hit takes in a slot: the least of some runs with the probes, less the least without them.
fn price_of_a_hit(stage: &Stage, slot: Option<usize>, probes: Probes) -> io::Result<Duration> {
    let Some(slot) = slot else { return Ok(LEAST_HIT) };
    let least = || -> io::Result<Duration> {
        let mut least = Duration::MAX;
        for _ in 0..PRICED_RUNS {
            least = least.min(stage.repeat(slot, PRICED_HITS)?.unwrap_or(Duration::MAX));
        }
        Ok(least)
    };
    let with = least()?;
    drop(probes);
    let without = least()?;
    Ok((with.saturating_sub(without) / PRICED_HITS).max(LEAST_HIT))
}

/// Whether no kernel emulates it, so that it need not be looked at whether this one does.
fn surely_stepped(class: Class) -> bool {
    matches!(class, Class::Stepped(form) if !matches!(form.kind, Kind::Endbr64 | Kind::LongNop))
}

type Found = Option<(Vec<u64>, bool)>;

fn judge(ending: Ending, before: Found, after: Found, counted: u64) -> Outcome {
    let made = INPUTS as u64;
    match (ending, before, after) {
        (Ending::Killed(signal), ..) => {
            Outcome::Disagreed(format!("the process ended with signal {signal}"))
        }
        (_, Some((before, _)), Some((after, stepped))) => {
            if let Some(how) = machine::difference(&before, &after) {
                Outcome::Disagreed(how)
            } else if counted != made {
                Outcome::Miscounted { made, counted }
            } else {
                Outcome::Agreed(if stepped { Speed::Stepped } else { Speed::Emulated })
            }
        }
        _ => Outcome::Disagreed("it did not come to its end".to_string()),
    }
}

/// Probes on the self-test's own file, with the index of the slot as cookie.
struct Probes {
    _links: Vec<Link>,
    counts: MmapArray,
    refused: Vec<u64>,
}

impl Probes {
    fn attach(
        stage: &Stage,
        offsets: &[u64],
        method: Method,
        sys: &Path,
    ) -> Result<Self, UprobeError> {
        let bpf = |source: BpfError| UprobeError::Bpf { what: "self-test".into(), source };
        let path = PathBuf::from(format!("/proc/self/fd/{}", stage.file().as_raw_fd()));
        let entries = u32::try_from(offsets.len()).unwrap_or(u32::MAX);
        let counts = MmapArray::new("altaz_selftest", entries, 1).map_err(bpf)?;
        let probes: Vec<ProbeAt> =
            (0..).zip(offsets).map(|(cookie, &offset)| ProbeAt { offset, cookie }).collect();
        let program = load(method.program(), &counts).map_err(bpf)?;
        let (mut links, mut refused) = (Vec::new(), Vec::new());
        match method {
            Method::Multi => {
                let all =
                    relink::link_what_the_kernel_takes(&program, &path, &path, &probes, None)?;
                links.extend(all.link);
                refused = all.refused;
            }
            Method::PerfEvents => {
                let pmu = UprobePmu::find(sys).map_err(bpf)?;
                for probe in &probes {
                    match Link::uprobe(&program, pmu, &path, *probe) {
                        Ok(link) => links.push(link),
                        Err(e) if relink::is_about_the_instruction(&e) => {
                            refused.push(probe.cookie);
                        }
                        Err(e) => return Err(bpf(e)),
                    }
                }
            }
        }
        Ok(Self { _links: links, counts, refused })
    }

    /// Forgets what was counted.
    fn clear(&self) {
        self.counts.entries().flatten().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    fn count(&self, slot: usize) -> u64 {
        let word = self.counts.entry(slot).and_then(|entry| entry.first());
        word.map_or(0, |word| word.load(Ordering::Relaxed))
    }
}

/// Counts hits by cookie, of whoever: nobody else maps the file.
fn load(kind: ProgramKind, counts: &MmapArray) -> Result<Program, BpfError> {
    let mut asm = Asm::new();
    let out = asm.label();
    asm.call(Helper::AttachCookie).store(Size::B4, R10, -4, R0);
    asm.map(R1, counts.raw()).mov_reg(R2, R10).alu(Alu::Add, R2, -4).call(Helper::MapLookup);
    asm.jump_if(Cond::Equal, R0, 0, out).mov(R1, 1).atomic_add(R0, 0, R1);
    asm.bind(out).mov(R0, 0).exit();
    Program::load(kind, "altaz_selftest", asm)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::form::Access;

    fn tried(kind: Kind, outcome: Outcome) -> Tried {
        let form = Some(Form { kind, access: Access::Registers });
        Tried { text: String::new(), form, crossing: false, outcome }
    }

    #[test]
    fn one_bad_example_takes_its_form_off_the_list_and_one_stepped_makes_it_stepped() {
        let list = allowed(&[
            tried(Kind::Push, Outcome::Agreed(Speed::Emulated)),
            tried(Kind::Push, Outcome::Agreed(Speed::Emulated)),
            tried(Kind::Nop, Outcome::Agreed(Speed::Emulated)),
            tried(Kind::Nop, Outcome::Agreed(Speed::Stepped)),
            tried(Kind::Call, Outcome::Agreed(Speed::Emulated)),
            tried(Kind::Call, Outcome::RefusedByKernel),
            tried(Kind::Call, Outcome::Agreed(Speed::Emulated)),
            tried(Kind::Jump, Outcome::Miscounted { made: 32, counted: 31 }),
            tried(Kind::Jump, Outcome::Agreed(Speed::Emulated)),
        ]);
        let speed = |kind| list.speed(Form { kind, access: Access::Registers });
        assert_eq!(speed(Kind::Push), Some(Speed::Emulated));
        assert_eq!(speed(Kind::Nop), Some(Speed::Stepped));
        assert_eq!(speed(Kind::Call), None);
        assert_eq!(speed(Kind::Jump), None);
        assert_eq!(list.len(), 2);
    }

    #[test]
    fn what_differs_is_said() {
        let runs = |flags: u64| {
            let mut words = vec![7u64; INPUTS * machine::WORDS];
            words[3 * machine::WORDS + 16] = flags;
            Some((words, false))
        };
        let same = judge(Ending::Finished, runs(7), runs(7), INPUTS as u64);
        assert_eq!(same, Outcome::Agreed(Speed::Emulated));
        let counted = judge(Ending::Finished, runs(7), runs(7), 31);
        assert_eq!(counted, Outcome::Miscounted { made: 32, counted: 31 });
        let Outcome::Disagreed(how) = judge(Ending::Finished, runs(7), runs(0x107), 32) else {
            panic!("a difference passed")
        };
        assert!(how.starts_with("flags is 0x107 with a probe and 0x7 without (input 3)"), "{how}");
        assert!(matches!(judge(Ending::Killed(11), runs(7), runs(7), 32), Outcome::Disagreed(_)));
        assert!(matches!(judge(Ending::Finished, runs(7), None, 32), Outcome::Disagreed(_)));
    }
}
