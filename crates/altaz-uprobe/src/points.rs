//! Where a function of a file is probed: pure choice of one instruction for each function, by bytes.
//!
//! The probe goes on the first instruction of the function's entry block that the kernel *emulates*: the block is
//! walked from the function's start to the first branch, call, return or trap, all of it is passed whenever the
//! function is entered, and the branch that ends it may carry the probe itself. Without such an instruction, the first
//! one that the kernel can single-step is taken where the caller allows it. A function without either, and whatever is
//! not certain to be the start of code, is left out with its size and the reason, never dropped.
//!
//! A hit says that the function was entered; the number of hits is no number of calls: a loop back into the entry
//! block (Go's functions restart after their stack has grown) hits again, and a function that faults in front of its
//! probe and never comes back is not hit.
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

/// Bytes of a function that are searched for loops.
const FUNCTION_LIMIT: usize = 1 << 16;

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
    /// Bytes of the function.
    pub size: u64,
    /// Offset in the file of the probed instruction.
    pub file_offset: u64,
    /// What kind of instruction it is.
    pub form: Form,
    /// What a hit costs.
    pub speed: Speed,
    /// The entry block is a loop: it is hit in each round.
    pub repeats: bool,
}

impl Point {
    pub(crate) fn left_out(&self, reason: Reason) -> LeftOut {
        LeftOut { function: self.function, size: self.size, reason }
    }
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
        let typed = symbols.filter(|s| s.kind() == SymbolKind::Text);
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
    let mut emulated: Option<Point> = None;
    let mut first_reason = None;
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
            size: function.size,
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
        if !decoded.falls_through {
            break;
        }
        at += decoded.length;
    }
    let last = emulated.or(stepped).map_or(0, |point| point.file_offset - function.offset);
    let loop_start = first_jump_back(code, function.addr, last);
    let in_loop =
        |point: &Point| loop_start.is_some_and(|at| at <= point.file_offset - function.offset);
    // One slow hit for each entry is better than a fast one in each round of a loop.
    let before_loop = stepped.filter(|point| options.stepped && !in_loop(point));
    let chosen = match (emulated, stepped) {
        (Some(point), _) if in_loop(&point) => before_loop.unwrap_or(point),
        (Some(point), _) => point,
        (None, Some(point)) if options.stepped => point,
        (None, Some(_)) => return Err(Reason::OnlyStepped),
        (None, None) => {
            return Err(first_reason.unwrap_or(Reason::Instruction(Refusal::Undecodable)));
        }
    };
    Ok(Point { repeats: in_loop(&chosen), ..chosen })
}

/// The first offset up to `last` that a jump of the same function goes to. Reads on over whatever is no instruction: a
/// jump that is none makes a probe look hotter than it is, no more.
fn first_jump_back(code: &[u8], addr: u64, last: u64) -> Option<u64> {
    let code = code.get(..FUNCTION_LIMIT).unwrap_or(code);
    let targets = instruction::jump_targets(code, addr).map(|target| target.wrapping_sub(addr));
    targets.filter(|&offset| offset <= last).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::form::Kind;

    fn function(size: usize) -> Function {
        Function {
            offset: 0x400,
            addr: 0x1400,
            size: size as u64,
            name: "f".into(),
            file: None,
            line: None,
            kind: FunctionKind::Named,
            part: false,
            parent: None,
        }
    }

    fn choice(code: &[u8], stepped: bool) -> Result<(u64, Kind, bool), Reason> {
        let options = Options { allowed: Allowed::assumed(), stepped, excluded: vec![] };
        let point = choose_in(code, &function(code.len()), &options)?;
        Ok((point.file_offset - 0x400, point.form.kind, point.repeats))
    }

    #[test]
    fn the_first_emulated_instruction_of_the_entry_block_is_taken() {
        // endbr64; sub rsp,8; push rbx; call
        let code = [0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x83, 0xec, 8, 0x53, 0xe8, 0, 0, 0, 0, 0xc3];
        assert_eq!(choice(&code, false), Ok((8, Kind::Push, false)));
        assert_eq!(choice(&code, true), Ok((8, Kind::Push, false)));
        // test edi,edi; je +1
        assert_eq!(
            choice(&[0x85, 0xff, 0x74, 1, 0x90, 0xc3], false),
            Ok((2, Kind::CondJump, false))
        );
    }

    #[test]
    fn nothing_behind_the_entry_block_is_taken() {
        // jmp rax; push rbx — and: syscall; push rbx
        let indirect = Reason::Instruction(Refusal::IndirectBranch);
        assert_eq!(choice(&[0xff, 0xe0, 0x53], true), Err(indirect));
        let syscall = Reason::Instruction(Refusal::SystemCall);
        assert_eq!(choice(&[0x0f, 0x05, 0x53], true), Err(syscall));
        // ret; push rbx
        assert_eq!(choice(&[0xc3, 0x53], false), Err(Reason::OnlyStepped));
        assert_eq!(choice(&[0xc3, 0x53], true), Ok((0, Kind::Return, false)));
    }

    #[test]
    fn what_is_refused_is_passed_over() {
        // vzeroupper; xchg rax,r8; lock inc [rdi]; push rbp
        let code = [0xc5, 0xf8, 0x77, 0x49, 0x90, 0xf0, 0xff, 0x07, 0x55, 0xc3];
        assert_eq!(choice(&code, false), Ok((8, Kind::Push, false)));
        let only = Reason::Instruction(Refusal::Vector);
        assert_eq!(choice(&code[..8], true), Err(only));
    }

    #[test]
    fn a_form_that_failed_the_self_test_is_not_taken() {
        let mut options = Options { allowed: Allowed::assumed(), ..Options::default() };
        let push = Form { kind: Kind::Push, access: crate::form::Access::Registers };
        options.allowed.remove(push);
        let code = [0x55, 0x90];
        let point = choose_in(&code, &function(2), &options).unwrap();
        assert_eq!(point.form.kind, Kind::Nop);
        assert_eq!(choose_in(&code[..1], &function(1), &options), Err(Reason::Untested(push)));
    }

    #[test]
    fn a_loop_around_the_probe_is_known_and_left_where_that_is_possible() {
        // dec edi; jne back to the start
        assert_eq!(choice(&[0xff, 0xcf, 0x75, 0xfc, 0xc3], false), Ok((2, Kind::CondJump, true)));
        assert_eq!(choice(&[0xff, 0xcf, 0x75, 0xfc, 0xc3], true), Ok((2, Kind::CondJump, true)));
        // xor eax,eax; loop: call …; dec edi; jne loop; ret
        let code = [0x31, 0xc0, 0xe8, 0, 0, 0, 0, 0xff, 0xcf, 0x75, 0xf7, 0xc3];
        assert_eq!(choice(&code, false), Ok((2, Kind::Call, true)));
        assert_eq!(choice(&code, true), Ok((0, Kind::Arithmetic, false)));
    }

    #[test]
    fn code_that_is_cut_off_has_no_probe() {
        let undecodable = Reason::Instruction(Refusal::Undecodable);
        assert_eq!(choice(&[], true), Err(undecodable));
        assert_eq!(choice(&[0xe8, 0, 0], true), Err(undecodable));
        assert_eq!(choice(&[0x06], true), Err(undecodable)); // push es: no such thing in 64-bit mode
    }

    #[test]
    fn every_function_of_a_real_file_is_probed_or_left_out_with_a_reason() {
        let bytes = std::fs::read("/proc/self/exe").unwrap();
        let binary = Binary::parse(&bytes).unwrap();
        let mut options = Options { allowed: Allowed::assumed(), ..Options::default() };
        let count = |options: &Options| {
            let points = probe_points(&bytes, &binary, options);
            assert_eq!(points.probes.len() + points.left_out.len(), binary.functions.len());
            let mut offsets: Vec<u64> = points.probes.iter().map(|p| p.file_offset).collect();
            for point in &points.probes {
                let function = binary.functions.get(point.function as usize).unwrap();
                let range = function.offset..function.offset + function.size;
                assert!(range.contains(&point.file_offset));
                assert_eq!(point.size, function.size);
            }
            offsets.dedup();
            assert_eq!(offsets.len(), points.probes.len(), "two probes in one place");
            points
        };
        let emulated = count(&options).probes.len();
        assert!(emulated > binary.functions.len() / 2, "only {emulated}");
        options.stepped = true;
        let all = count(&options);
        assert!(all.probes.len() > emulated);
        options.excluded.push("_R".into());
        options.excluded.push("_ZN".into());
        let excluded = count(&options);
        assert!(excluded.left_out.iter().filter(|l| l.reason == Reason::Excluded).count() > 1000);
        assert!(excluded.probes.len() < all.probes.len());
    }

    #[test]
    fn a_file_of_another_machine_has_no_probes() {
        let mut bytes = std::fs::read("/bin/true").unwrap();
        let binary = Binary::parse(&bytes).unwrap();
        bytes[18] = 183; // e_machine: AArch64
        let options = Options { allowed: Allowed::assumed(), ..Options::default() };
        let points = probe_points(&bytes, &binary, &options);
        assert!(points.probes.is_empty());
        assert!(points.left_out.iter().all(|l| l.reason == Reason::Machine));
    }
}
