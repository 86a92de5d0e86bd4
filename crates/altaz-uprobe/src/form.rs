//! Kinds of instructions, as the allowlist, the self-test and the choice of probe points talk about them.
//!
//! A [`Form`] is what the kernel treats alike: the same operation with the same kind of operand. The self-test tries
//! examples of each form; a form without an example, or one whose example went wrong, is not probed. Nothing here
//! decodes bytes (see [`instruction`](crate::instruction)) or knows a kernel.

use std::collections::BTreeMap;
use std::fmt;

/// What an instruction does, as far as it matters to a probe on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `push` of a register.
    Push,
    /// Conditional near jump.
    CondJump,
    /// Unconditional relative near jump.
    Jump,
    /// Relative near call.
    Call,
    /// `90` and `66 90`.
    Nop,
    /// `0f 1f`, except the lengths that newer kernels rewrite.
    LongNop,
    /// `endbr64`.
    Endbr64,
    /// `mov` between registers and memory.
    Move,
    /// `mov` of a constant.
    MoveConstant,
    /// `movzx`, `movsx`, `movsxd`.
    Extend,
    /// `cdqe`, `cwde`, `cdq`, `cqo`.
    Widen,
    /// `lea`.
    Address,
    /// `add`, `adc`, `sub`, `sbb`, `and`, `or`, `xor`.
    Arithmetic,
    /// `cmp`, `test`.
    Compare,
    /// `inc`, `dec`, `neg`, `not`.
    Unary,
    /// `shl`, `shr`, `sar`, `rol`, `ror`.
    Shift,
    /// `imul` with two or three operands.
    Multiply,
    /// `cmovcc`.
    CondMove,
    /// `setcc`.
    CondSet,
    /// `bt`.
    BitTest,
    /// `push` of a constant.
    PushConstant,
    /// `pop` of a register.
    Pop,
    /// `ret` (near, without a count).
    Return,
    /// SSE moves in legacy encoding.
    SseMove,
    /// SSE bitwise logic and shuffles in legacy encoding.
    SseLogic,
    /// SSE conversions in legacy encoding.
    SseConvert,
    /// SSE scalar arithmetic and comparison in legacy encoding.
    SseArithmetic,
}

/// How an instruction gets at memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// Registers and constants only (the implied stack of push, pop, call and ret aside).
    Registers,
    /// Reads memory through registers.
    Load,
    /// Writes memory through registers.
    Store,
    /// Reads memory relative to the instruction pointer; the kernel rewrites such an instruction.
    RelativeLoad,
    /// Writes memory relative to the instruction pointer.
    RelativeStore,
    /// Reads memory of the thread (`fs:`), as stack protectors do.
    ThreadLoad,
}

/// A class of instructions that the kernel treats alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Form {
    /// What it does.
    pub kind: Kind,
    /// How it gets at memory.
    pub access: Access,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Push => "push",
            Kind::CondJump => "conditional jump",
            Kind::Jump => "jump",
            Kind::Call => "call",
            Kind::Nop => "nop",
            Kind::LongNop => "long nop",
            Kind::Endbr64 => "endbr64",
            Kind::Move => "mov",
            Kind::MoveConstant => "mov of a constant",
            Kind::Extend => "movzx/movsx",
            Kind::Widen => "cdqe/cqo",
            Kind::Address => "lea",
            Kind::Arithmetic => "arithmetic",
            Kind::Compare => "cmp/test",
            Kind::Unary => "inc/dec/neg/not",
            Kind::Shift => "shift",
            Kind::Multiply => "imul",
            Kind::CondMove => "cmov",
            Kind::CondSet => "setcc",
            Kind::BitTest => "bt",
            Kind::PushConstant => "push of a constant",
            Kind::Pop => "pop",
            Kind::Return => "ret",
            Kind::SseMove => "SSE move",
            Kind::SseLogic => "SSE logic",
            Kind::SseConvert => "SSE conversion",
            Kind::SseArithmetic => "SSE arithmetic",
        };
        f.write_str(kind)?;
        f.write_str(match self.access {
            Access::Registers => "",
            Access::Load => ", load",
            Access::Store => ", store",
            Access::RelativeLoad => ", rip-relative load",
            Access::RelativeStore => ", rip-relative store",
            Access::ThreadLoad => ", thread-local load",
        })
    }
}

/// What a hit costs: the kernel does the instruction's work itself, or lets the processor execute a copy of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Speed {
    /// One trap (about 0.8 µs where it was measured).
    Emulated,
    /// Two traps and a copy of the instruction (about 9.5 µs in the same place).
    Stepped,
}

/// The forms that may be probed, and how the kernel treats each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    forms: BTreeMap<Form, Speed>,
}

impl Allowed {
    /// What the kernels' source promises for every form that the self-test has an example of. For looking at files
    /// without a kernel at hand; before probes are attached the self-test's own answer counts
    /// ([`SelfTest::allowed`](crate::selftest::SelfTest::allowed)).
    pub fn assumed() -> Self {
        let classes = crate::examples::all()
            .into_iter()
            .map(|example| crate::instruction::classify(&example.bytes, example.assumed_address()));
        Self { forms: classes.filter_map(|class| Some((class.form()?, class.speed()?))).collect() }
    }

    /// How the kernel treats a form; nothing when it may not be probed.
    pub fn speed(&self, form: Form) -> Option<Speed> {
        self.forms.get(&form).copied()
    }

    /// Allows a form.
    pub fn insert(&mut self, form: Form, speed: Speed) {
        self.forms.insert(form, speed);
    }

    /// Forbids a form.
    pub fn remove(&mut self, form: Form) {
        self.forms.remove(&form);
    }

    /// The same without relative calls. The kernel pushes the return address of an emulated call on the stack but not
    /// on the shadow stack, so that the return would kill a thread that uses one
    /// ([`uses_shadow_stack`](crate::uses_shadow_stack)).
    #[must_use]
    pub fn without_calls(mut self) -> Self {
        self.forms.retain(|form, _| form.kind != Kind::Call);
        self
    }

    /// All forms with their treatment.
    pub fn iter(&self) -> impl Iterator<Item = (Form, Speed)> + '_ {
        self.forms.iter().map(|(&form, &speed)| (form, speed))
    }

    /// How many forms there are.
    pub fn len(&self) -> usize {
        self.forms.len()
    }

    /// Whether nothing may be probed.
    pub fn is_empty(&self) -> bool {
        self.forms.is_empty()
    }
}
