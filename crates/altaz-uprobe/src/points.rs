//! Where a function of a file is probed: pure choice of one instruction for each function, by bytes.
//!
//! The probe goes on the first instruction of the function's entry block that the kernel *emulates*: the block is
//! walked from the function's start to the first branch, call, return or trap, all of it is passed whenever the
//! function is entered, and the branch that ends it may carry the probe itself. Without such an instruction, the first
//! one that the kernel can single-step is taken where the caller allows it. A function without either, and whatever is
//! not certain to be the start of code, is left out with its size and the reason, never dropped.
//!
//! A hit says that the function was entered; the number of hits is no number of calls: a loop back into the entry
//! block (Go's functions restart after their stack has grown) hits again.
//!
//! No file is opened here and nothing attached.

use crate::form::{Allowed, Form, Speed};
use crate::instruction::{self, Class, Refusal};
use altaz_symbols::eh_frame::{FrameKind, frames};
use altaz_symbols::{Binary, Function, FunctionKind, Language};
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};
use std::collections::HashSet;
use std::fmt;

/// Instructions of an entry block that are looked at; longer ones exist in generated code only.
const BLOCK_LIMIT: usize = 256;

/// Functions that unwinders know by their bytes: a breakpoint there would break them.
const KNOWN_BY_BYTES: [&str; 2] = ["__restore_rt", "__restore"];

/// What to probe.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Forms that may carry a probe, from the self-test.
    pub allowed: Allowed,
    /// Whether single-stepped instructions may be used where there is no emulated one.
    pub stepped: bool,
    /// Functions whose (raw) name begins with one of these are left out.
    pub excluded: Vec<String>,
}

impl Options {
    /// What must not be probed in gVisor's `runsc`: the code that swaps address spaces and register sets, and the
    /// code that recovers from faults by looking at its own addresses.
    pub fn exclude_gvisor_platform(&mut self) {
        let packages = ["pkg/sentry/platform", "pkg/safecopy"];
        self.excluded.extend(packages.map(|p| format!("gvisor.dev/gvisor/{p}")));
    }
}

/// One probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Index into the binary's functions.
    pub function: u32,
    /// Offset in the file of the probed instruction.
    pub file_offset: u64,
    /// What kind of instruction it is.
    pub form: Form,
    /// What a hit costs.
    pub speed: Speed,
    /// The entry block is a loop: it is hit in each round.
    pub repeats: bool,
}

/// Why a function is not probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The part of a function that is jumped to, not called.
    Part,
    /// Stubs such as the procedure linkage table.
    Stubs,
    /// Code (or data) that no table describes.
    Undescribed,
    /// Known from an untyped label only, so it may be data.
    Label,
    /// The caller left it out.
    Excluded,
    /// Recognised by its bytes by unwinders.
    KnownByBytes,
    /// The file is not for x86-64.
    Machine,
    /// No instruction of the entry block may be probed; the first one is like this.
    Instruction(Refusal),
    /// The self-test took this form off the list, or has no example of it.
    Untested(Form),
    /// Only single-stepped instructions, which the caller does not want.
    OnlyStepped,
    /// The kernel refused the probe.
    KernelRefused,
    /// Beyond the number of probes that the fall-back without `uprobe_multi` takes.
    Limit,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Part => "part of another function",
            Self::Stubs => "linkage stubs",
            Self::Undescribed => "described by no table",
            Self::Label => "known by a label only, may be data",
            Self::Excluded => "excluded",
            Self::KnownByBytes => "recognised by its bytes by unwinders",
            Self::Machine => "not x86-64",
            Self::Instruction(refusal) => return write!(f, "entry block: {refusal}"),
            Self::Untested(form) => return write!(f, "not proven on this kernel: {form}"),
            Self::OnlyStepped => "only single-stepped instructions",
            Self::KernelRefused => "refused by the kernel",
            Self::Limit => "beyond the limit of probes without uprobe_multi",
        })
    }
}

/// A function that is not probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftOut {
    /// Index into the binary's functions.
    pub function: u32,
    /// Its bytes.
    pub size: u64,
    /// Why.
    pub reason: Reason,
}

/// What is probed in a file and what is not: every function is in exactly one of the two lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Points {
    /// In the order of functions.
    pub probes: Vec<Point>,
    /// In the order of functions.
    pub left_out: Vec<LeftOut>,
}

/// Chooses the probe of each function of `binary`, which was parsed from `file`.
pub fn probe_points(file: &[u8], binary: &Binary, options: &Options) -> Points {
    let starts = Starts::read(file, binary);
    let mut points = Points::default();
    for (index, function) in (0u32..).zip(&binary.functions) {
        match choose(file, function, &starts, options) {
            Ok(point) => points.probes.push(Point { function: index, ..point }),
            Err(reason) => {
                points.left_out.push(LeftOut { function: index, size: function.size, reason });
            }
        }
    }
    points
}

/// Link addresses where the file itself says that a function begins.
struct Starts {
    x86_64: bool,
    /// Go's own table lists functions only.
    go: bool,
    known: HashSet<u64>,
}

impl Starts {
    fn read(file: &[u8], binary: &Binary) -> Self {
        let go = binary.language == Language::Go;
        let Ok(elf) = object::File::parse(file) else {
            return Self { x86_64: false, go, known: HashSet::new() };
        };
        let x86_64 = elf.architecture() == object::Architecture::X86_64;
        let symbols = elf.symbols().chain(elf.dynamic_symbols());
        let typed = symbols.filter(|s| s.kind() == SymbolKind::Text && s.size() > 0);
        let mut known: HashSet<u64> = typed.map(|s| s.address()).collect();
        if let Some(section) = elf.section_by_name(".eh_frame")
            && let Ok(bytes) = section.data()
        {
            let all = frames(section.address(), bytes, x86_64);
            known.extend(all.iter().filter(|f| f.kind != FrameKind::Plt).map(|f| f.addr));
        }
        Self { x86_64, go, known }
    }

    fn contains(&self, function: &Function) -> bool {
        // An unnamed function is known from nothing but a frame description.
        self.go || function.kind == FunctionKind::Unnamed || self.known.contains(&function.addr)
    }
}

fn choose(
    file: &[u8],
    function: &Function,
    starts: &Starts,
    options: &Options,
) -> Result<Point, Reason> {
    if !starts.x86_64 {
        return Err(Reason::Machine);
    }
    match function.kind {
        FunctionKind::Section => return Err(Reason::Stubs),
        FunctionKind::Gap => return Err(Reason::Undescribed),
        FunctionKind::Named | FunctionKind::Unnamed => {}
    }
    if function.part {
        return Err(Reason::Part);
    }
    if !starts.contains(function) {
        return Err(Reason::Label);
    }
    if options.excluded.iter().any(|prefix| function.name.starts_with(prefix.as_str())) {
        return Err(Reason::Excluded);
    }
    if KNOWN_BY_BYTES.contains(&function.name.as_str()) {
        return Err(Reason::KnownByBytes);
    }
    let start = usize::try_from(function.offset).unwrap_or(usize::MAX);
    let size = usize::try_from(function.size).unwrap_or(usize::MAX);
    let code = file.get(start..).unwrap_or(&[]);
    let code = code.get(..size).unwrap_or(code);
    choose_in(code, function, options)
}

/// Chooses among the instructions of the entry block; `code` are the bytes of the function.
fn choose_in(code: &[u8], function: &Function, options: &Options) -> Result<Point, Reason> {
    let mut stepped: Option<Point> = None;
    let mut first_reason = None;
    let mut emulated: Option<Point> = None;
    let mut repeats = false;
    let mut at = 0usize;
    for _ in 0..BLOCK_LIMIT {
        let rest = code.get(at..).unwrap_or(&[]);
        let address = function.addr.wrapping_add(at as u64);
        let Some(decoded) = instruction::decode(rest, address) else {
            first_reason.get_or_insert(Reason::Instruction(Refusal::Undecodable));
            break;
        };
        let point = |form, speed| Point {
            function: 0,
            file_offset: function.offset.saturating_add(at as u64),
            form,
            speed,
            repeats: false,
        };
        match decoded.class {
            Class::Refused(refusal) => {
                first_reason.get_or_insert(Reason::Instruction(refusal));
            }
            Class::Emulated(form) | Class::Stepped(form) => match options.allowed.speed(form) {
                Some(Speed::Emulated) => {
                    emulated.get_or_insert(point(form, Speed::Emulated));
                }
                Some(Speed::Stepped) => {
                    stepped.get_or_insert(point(form, Speed::Stepped));
                }
                None => {
                    first_reason.get_or_insert(Reason::Untested(form));
                }
            },
        }
        if let Some(target) = decoded.jump_target {
            let chosen = emulated.or(stepped).map(|p| p.file_offset - function.offset);
            let offset = target.wrapping_sub(function.addr);
            repeats = chosen.is_some_and(|chosen| offset <= chosen);
        }
        if !decoded.falls_through {
            break;
        }
        at += decoded.length;
    }
    let chosen = match (emulated, stepped) {
        (Some(point), _) => point,
        (None, Some(point)) if options.stepped => point,
        (None, Some(_)) => return Err(Reason::OnlyStepped),
        (None, None) => {
            return Err(first_reason.unwrap_or(Reason::Instruction(Refusal::Undecodable)));
        }
    };
    Ok(Point { repeats, ..chosen })
}
