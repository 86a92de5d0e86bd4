//! Wht  stack of system call filters decides, when the call's number is known and its arguments
//! are not. Pure; no filter can make it run long or panic.
//!
//! A filter is a program of the classic BPF machine over `struct seccomp_data`: number, architecture,
//! instruction pointer and six arguments, in 32-bit words (`Documentation/userspace-api/
//! seccomp_filter.rst`, `kernel/seccomp.c`). Jumps only go forward. Each word that is not known is
//! followed as an interval: a comparison that both outcomes of are possible is followed both ways,
//! with the word narrowed on each way.
//!
//! Sound, not always exact: `Allowed` and `Denied` hold for every argument, and where the intervals
//! cannot tell, or the bound on the work is reached, the answer is `Conditional`.

use std::collections::BTreeSet;

/// An instruction, as `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip if the comparison holds.
    pub jt: u8,
    /// Instructions to skip if it does not.
    pub jf: u8,
    /// Constant.
    pub k: u32,
}

/// One filter.
pub type Program = Vec<Instruction>;

/// `AUDIT_ARCH_X86_64`: the 64-bit system call table, and x32's.
pub const X86_64: u32 = 0xc000_003e;
/// `AUDIT_ARCH_I386`: the 32-bit system call table.
pub const I386: u32 = 0x4000_0003;
/// `__X32_SYSCALL_BIT`: set in the number of a call of the x32 ABI.
pub const X32_BIT: u32 = 0x4000_0000;

/// What filters decide on a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// It is refused whatever its arguments.
    Denied,
    /// It depends on its arguments, or on another process that is asked (a tracer, a supervisor).
    Conditional,
    /// It is let through whatever its arguments.
    Allowed,
}

/// Actions of `include/uapi/linux/seccomp.h` that let the kernel execute the call.
const RET_ALLOW: u32 = 0x7fff_0000;
const RET_LOG: u32 = 0x7ffc_0000;
/// Actions that ask somebody else.
const RET_TRACE: u32 = 0x7ff0_0000;
const RET_USER_NOTIF: u32 = 0x7fc0_0000;
/// `SECCOMP_RET_ACTION_FULL`.
const ACTION: u32 = 0xffff_0000;

/// Instructions executed for one call and one filter, over all ways; then the answer is that
/// everything is possible. A filter has at most 4096 instructions.
const WORK: usize = 20_000;

/// What the filters that a task has decide on a call. The most restrictive of their answers counts.
pub fn evaluate(filters: &[Program], arch: u32, number: u32) -> Verdict {
    let each: Vec<Actions> = filters.iter().map(|f| actions(f, arch, number)).collect();
    let mut verdicts = BTreeSet::new();
    // An answer counts if its filter can give it while every other one gives nothing stricter.
    for answer in each.iter().flat_map(|a| &a.possible) {
        let rest = |a: &Actions| a.possible.iter().any(|other| other >= answer);
        if each.iter().all(rest) {
            verdicts.insert(verdict_of(*answer as u32));
        }
    }
    match (verdicts.len(), verdicts.first()) {
        (0, _) => Verdict::Allowed,
        (1, Some(one)) => *one,
        _ => Verdict::Conditional,
    }
}

fn verdict_of(action: u32) -> Verdict {
    match action {
        RET_ALLOW | RET_LOG => Verdict::Allowed,
        RET_TRACE | RET_USER_NOTIF => Verdict::Conditional,
        // Killed, a signal, an error, or an action that the kernel does not know, which kills.
        _ => Verdict::Denied,
    }
}

/// Answers that one filter can give: actions, compared as the kernel does (signed, smaller is
/// stricter).
#[derive(Debug, Default)]
struct Actions {
    possible: BTreeSet<i32>,
}

impl Actions {
    /// Nothing is known: it may give any answer.
    fn anything() -> Self {
        let all = [0x8000_0000, 0, RET_USER_NOTIF, RET_ALLOW];
        Self { possible: all.map(|a: u32| a as i32).into() }
    }
}

/// Words of `struct seccomp_data`.
const WORDS: usize = 16;
/// Cells of the machine's memory.
const CELLS: usize = 16;

/// A word: every value from `lo` to `hi` is possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Value {
    lo: u32,
    hi: u32,
    /// Word of the call that it is an unchanged copy of.
    word: Option<u8>,
}

impl Value {
    const ANY: Self = Self { lo: 0, hi: u32::MAX, word: None };

    const fn known(n: u32) -> Self {
        Self { lo: n, hi: n, word: None }
    }

    fn exact(self) -> Option<u32> {
        (self.lo == self.hi).then_some(self.lo)
    }
}

/// Where the machine is, on one way.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    at: usize,
    a: Value,
    x: Value,
    memory: [Value; CELLS],
    words: [Value; WORDS],
}

impl State {
    /// Goes on behind this instruction and so many more.
    fn skip(&mut self, instructions: usize) {
        self.at = self.at.saturating_add(1).saturating_add(instructions);
    }

    /// Takes over what a comparison said about the accumulator and the word that it is a copy of.
    fn narrow(&mut self, a: Value) {
        self.a = a;
        if let Some(word) = a.word.and_then(|w| self.words.get_mut(usize::from(w))) {
            *word = a;
        }
    }
}

fn actions(program: &[Instruction], arch: u32, number: u32) -> Actions {
    let mut words = [Value::ANY; WORDS];
    words[0] = Value::known(number);
    words[1] = Value::known(arch);
    for (i, w) in words.iter_mut().enumerate().skip(2) {
        w.word = Some(i as u8);
    }
    // Accumulator, index and memory are zero at the start.
    let zero = Value::known(0);
    let mut todo = vec![State { at: 0, a: zero, x: zero, memory: [zero; CELLS], words }];
    let mut seen = BTreeSet::new();
    let mut out = Actions::default();
    let mut work = 0;
    while let Some(mut state) = todo.pop() {
        loop {
            work += 1;
            if work > WORK {
                return Actions::anything();
            }
            match step(program.get(state.at), &mut state) {
                Next::Go => state.at += 1,
                Next::Jumped => {}
                // Ways that meet again with the same values are followed once.
                Next::Forked(other) => {
                    if seen.insert((*other).clone()) {
                        todo.push(*other);
                    }
                    if !seen.insert(state.clone()) {
                        break;
                    }
                }
                Next::Answer(value) => {
                    let Some(answer) = value.exact() else { return Actions::anything() };
                    out.possible.insert((answer & ACTION) as i32);
                    break;
                }
            }
        }
    }
    out
}

/// How it goes on after an instruction.
enum Next {
    /// With the next one.
    Go,
    /// Where the state says.
    Jumped,
    /// Where the state says, and from another state as well.
    Forked(Box<State>),
    /// Not: the filter has answered.
    Answer(Value),
}

// Parts of an instruction's code (`include/uapi/linux/bpf_common.h`).
const LD: u16 = 0x00;
const LDX: u16 = 0x01;
const ST: u16 = 0x02;
const STX: u16 = 0x03;
const ALU: u16 = 0x04;
const JMP: u16 = 0x05;
const RET: u16 = 0x06;
const MISC: u16 = 0x07;
const SOURCE_X: u16 = 0x08;
/// Size of `struct seccomp_data`, which the machine's `len` is.
const LENGTH: u32 = 64;

/// Executes one instruction. One that the kernel would have refused, or the end of the program, is
/// answered like the strictest answer: no such filter can be installed.
fn step(instruction: Option<&Instruction>, s: &mut State) -> Next {
    let refused = Next::Answer(Value::known(0x8000_0000));
    let Some(&Instruction { code, jt, jf, k }) = instruction else { return refused };
    let operand = if code & SOURCE_X != 0 { s.x } else { Value::known(k) };
    match code & 0x07 {
        LD | LDX => {
            let value = match code & 0xe0 {
                0x00 => Some(Value::known(k)),
                0x20 if code & 0x07 == LD && k.is_multiple_of(4) => {
                    s.words.get(k as usize / 4).copied()
                }
                0x60 => s.memory.get(k as usize).copied(),
                0x80 => Some(Value::known(LENGTH)),
                _ => None,
            };
            let Some(value) = value else { return refused };
            if code & 0x07 == LD {
                s.a = value
            } else {
                s.x = value
            }
            Next::Go
        }
        ST | STX => {
            let value = if code & 0x07 == ST { s.a } else { s.x };
            match s.memory.get_mut(k as usize) {
                Some(cell) => *cell = value,
                None => return refused,
            }
            Next::Go
        }
        ALU => match arithmetic(code & 0xf0, s.a, operand) {
            Some(Ok(value)) => {
                s.a = value;
                Next::Go
            }
            // The machine ends with zero, which is the action that kills the thread.
            Some(Err(DivisionMayFail::Known)) => Next::Answer(Value::known(0)),
            Some(Err(DivisionMayFail::Unknown)) => Next::Answer(Value::ANY),
            None => refused,
        },
        JMP => jump(code & 0xf0, operand, s, (jt, jf, k)),
        RET => match code & 0x18 {
            0x00 => Next::Answer(Value::known(k)),
            0x10 => Next::Answer(s.a),
            _ => refused,
        },
        MISC => {
            if code & 0xf8 == 0x80 {
                s.a = s.x
            } else {
                s.x = s.a
            }
            Next::Go
        }
        _ => refused,
    }
}

/// The divisor is zero, or may be.
enum DivisionMayFail {
    Known,
    Unknown,
}

fn arithmetic(operation: u16, a: Value, b: Value) -> Option<Result<Value, DivisionMayFail>> {
    let pair = a.exact().zip(b.exact());
    let exact = |f: fn(u32, u32) -> u32| pair.map_or(Value::ANY, |(a, b)| Value::known(f(a, b)));
    let up_to = |hi: u32| Value { lo: 0, hi, word: None };
    Some(Ok(match operation {
        0x00 => exact(u32::wrapping_add),
        0x10 => exact(u32::wrapping_sub),
        0x20 => exact(u32::wrapping_mul),
        0x30 => match (pair, b.lo) {
            (Some((_, 0)), _) => return Some(Err(DivisionMayFail::Known)),
            (Some((a, b)), _) => Value::known(a / b),
            // Division by an unknown value that may be zero may end the filter.
            (None, 0) => return Some(Err(DivisionMayFail::Unknown)),
            (None, least) => up_to(a.hi / least),
        },
        0x40 => {
            pair.map_or(Value { lo: a.lo.max(b.lo), ..Value::ANY }, |(a, b)| Value::known(a | b))
        }
        0x50 => pair.map_or(up_to(a.hi.min(b.hi)), |(a, b)| Value::known(a & b)),
        0x60 => exact(|a, b| a.wrapping_shl(b)),
        0x70 => match (pair, b.exact()) {
            (Some((a, b)), _) => Value::known(a.wrapping_shr(b)),
            (None, Some(by)) => up_to(a.hi.wrapping_shr(by)),
            _ => Value::ANY,
        },
        0x80 => a.exact().map_or(Value::ANY, |a| Value::known(a.wrapping_neg())),
        0xa0 => exact(|a, b| a ^ b),
        _ => return None,
    }))
}

/// Follows a jump: one way if the intervals decide it, else both, each with what it says about the
/// word that was compared.
fn jump(operation: u16, b: Value, s: &mut State, (jt, jf, k): (u8, u8, u32)) -> Next {
    if operation == 0x00 {
        s.skip(k as usize);
        return Next::Jumped;
    }
    match compare(operation, s.a, b) {
        Some((Some(yes), Some(no))) => {
            let mut other = Box::new(s.clone());
            other.narrow(no);
            other.skip(usize::from(jf));
            s.narrow(yes);
            s.skip(usize::from(jt));
            Next::Forked(other)
        }
        Some((Some(yes), None)) => {
            s.narrow(yes);
            s.skip(usize::from(jt));
            Next::Jumped
        }
        Some((None, Some(no))) => {
            s.narrow(no);
            s.skip(usize::from(jf));
            Next::Jumped
        }
        _ => Next::Answer(Value::known(0x8000_0000)),
    }
}

/// The accumulator if the comparison holds, and if it does not; `None` where that cannot be.
fn compare(operation: u16, a: Value, b: Value) -> Option<(Option<Value>, Option<Value>)> {
    let within = |lo: u32, hi: u32| (lo <= hi).then_some(Value { lo, hi, word: a.word });
    // Narrowed only by a known operand: that is what compilers of filters write.
    let narrow = |f: &dyn Fn(u32) -> (Option<Value>, Option<Value>)| match b.exact() {
        Some(k) => f(k),
        None => (Some(a), Some(a)),
    };
    Some(match operation {
        // Equal.
        0x10 => narrow(&|k| {
            let equal = if a.lo <= k && k <= a.hi { within(k, k) } else { None };
            let lo = if a.lo == k { k.checked_add(1) } else { Some(a.lo) };
            let hi = if a.hi == k { k.checked_sub(1) } else { Some(a.hi) };
            (equal, lo.zip(hi).and_then(|(lo, hi)| within(lo, hi)))
        }),
        // Greater.
        0x20 => narrow(&|k| {
            let more = k.checked_add(1).and_then(|n| within(a.lo.max(n), a.hi));
            (more, within(a.lo, a.hi.min(k)))
        }),
        // Greater or equal.
        0x30 => narrow(&|k| {
            let less = k.checked_sub(1).and_then(|n| within(a.lo, a.hi.min(n)));
            (within(a.lo.max(k), a.hi), less)
        }),
        // Bits in common.
        0x40 => match (a.exact(), b.exact()) {
            (Some(x), Some(k)) if x & k != 0 => (Some(a), None),
            (Some(_), Some(_)) => (None, Some(a)),
            (_, Some(0)) => (None, Some(a)),
            _ => (Some(a), Some(a)),
        },
        _ => return None,
    })
}

/// Executes a filter on a call whose arguments are known, as the kernel does: the action with its
/// data. For comparison with [`evaluate`].
#[cfg(test)]
pub(super) fn run(program: &[Instruction], data: &[u32; WORDS]) -> u32 {
    let (mut at, mut a, mut x, mut memory) = (0_usize, 0_u32, 0_u32, [0_u32; CELLS]);
    loop {
        let Some(i) = program.get(at) else { return 0x8000_0000 };
        at += 1;
        let k = i.k;
        let b = if i.code & 8 != 0 { x } else { k };
        match i.code {
            0x20 => a = data[k as usize / 4],
            0x00 => a = k,
            0x01 => x = k,
            0x60 => a = memory[k as usize],
            0x61 => x = memory[k as usize],
            0x80 => a = LENGTH,
            0x81 => x = LENGTH,
            0x02 => memory[k as usize] = a,
            0x03 => memory[k as usize] = x,
            0x04 | 0x0c => a = a.wrapping_add(b),
            0x14 | 0x1c => a = a.wrapping_sub(b),
            0x24 | 0x2c => a = a.wrapping_mul(b),
            0x34 | 0x3c if b == 0 => return 0,
            0x34 | 0x3c => a /= b,
            0x44 | 0x4c => a |= b,
            0x54 | 0x5c => a &= b,
            0x64 | 0x6c => a = a.wrapping_shl(b),
            0x74 | 0x7c => a = a.wrapping_shr(b),
            0x84 => a = a.wrapping_neg(),
            0xa4 | 0xac => a ^= b,
            0x05 => at += k as usize,
            0x15 | 0x1d => at += usize::from(if a == b { i.jt } else { i.jf }),
            0x25 | 0x2d => at += usize::from(if a > b { i.jt } else { i.jf }),
            0x35 | 0x3d => at += usize::from(if a >= b { i.jt } else { i.jf }),
            0x45 | 0x4d => at += usize::from(if a & b != 0 { i.jt } else { i.jf }),
            0x06 => return k,
            0x16 => return a,
            0x07 => x = a,
            0x87 => a = x,
            other => panic!("instruction {other:#x}"),
        }
    }
}

#[cfg(test)]
mod tests;
