//! Which instructions may carry a probe: an allowlist on decoded instructions, in 64-bit mode.
//!
//! A probe replaces the first byte of an instruction by a breakpoint; the kernel then either does the instruction's
//! work itself or lets the processor execute a copy elsewhere under single-step. Some instructions come out wrong that
//! way and no kernel says so, therefore everything that is not known to be harmless is refused, and what is known is
//! tried once more by the [self-test](crate::selftest). This module is pure: bytes in, a class out.
//!
//! What kernels do is in `arch/x86/kernel/uprobes.c`; what was measured is from 6.12 and 6.18:
//!
//! - relative jumps, calls and `90` are emulated since 3.16, `push` of a register since 4.17; `endbr64` is
//!   single-stepped on both, of the long nops 6.18 emulates most, so all of these count as stepped until the self-test
//!   has looked;
//! - rip-relative operands are rewritten to use a scratch register; prefixes `26 2e 36 3e f0` are refused;
//! - `90` with REX.B (`xchg r8,rax`) is taken for a nop, `vzeroupper` and some EVEX instructions (`vpbroadcastb`) come
//!   out wrong, `pushf` stores the single-step flag: none of them is refused by either kernel;
//! - 6.18 turns a nop of five bytes (later kernels: of ten, and a jump over eight) into a call at its second hit. The
//!   call writes below the stack pointer, where functions keep data, and makes a system call: all of these are refused
//!   here, also in the disguise of a `lea`.

use crate::form::{Access, Form, Kind, Speed};
use iced_x86::{
    Code, Decoder, DecoderOptions, EncodingKind, FlowControl, Instruction, Mnemonic, OpKind,
    Register,
};
use std::fmt;

/// Longest instruction of the architecture.
pub const MAX_LENGTH: usize = 15;

/// Why an instruction is not probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// The bytes are no instruction, or cut off.
    Undecodable,
    /// VEX, EVEX or XOP encoding: executed wrongly or not at all under a probe.
    Vector,
    /// LOCK prefix.
    Lock,
    /// `xchg`, also in its form `90` with REX.B, which kernels take for a nop.
    Exchange,
    /// `int`, `int3`, `into`, `icebp`.
    Interrupt,
    /// `ud2` and its relatives.
    Undefined,
    /// Only kernels may execute it (`hlt`, `cli`, port access…).
    Privileged,
    /// `syscall`, `sysenter`.
    SystemCall,
    /// Far jumps, calls and returns, `iret`, transactions.
    FarBranch,
    /// Jump or call through a register or memory.
    IndirectBranch,
    /// A string operation, with or without a repeat prefix.
    StringOperation,
    /// `pushf`, `popf` and others that see the flags the kernel sets for single-stepping.
    FlagTransfer,
    /// Segment registers or system state.
    System,
    /// Doubled, useless or misplaced prefixes, segment overrides, 32-bit addresses.
    OddPrefix,
    /// A nop, or a jump, that newer kernels rewrite into a call which writes below the stack pointer.
    Rewritten,
    /// Nothing is known against it, but it is not on the allowlist.
    NotListed,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Undecodable => "not an instruction",
            Self::Vector => "VEX, EVEX or XOP encoding",
            Self::Lock => "LOCK prefix",
            Self::Exchange => "xchg",
            Self::Interrupt => "software interrupt",
            Self::Undefined => "undefined instruction",
            Self::Privileged => "privileged instruction",
            Self::SystemCall => "system call",
            Self::FarBranch => "far or transactional branch",
            Self::IndirectBranch => "indirect branch",
            Self::StringOperation => "string operation",
            Self::FlagTransfer => "transfer of the flags register",
            Self::System => "segment or system register",
            Self::OddPrefix => "unusual prefixes",
            Self::Rewritten => "a nop or jump that newer kernels rewrite into a call",
            Self::NotListed => "instruction that is not on the allowlist",
        })
    }
}

/// How an instruction takes a probe, by the source of the kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The kernel does its work.
    Emulated(Form),
    /// A copy is executed under single-step.
    Stepped(Form),
    /// It must not be probed.
    Refused(Refusal),
}

impl Class {
    /// The form, of an instruction that may be probed.
    pub fn form(self) -> Option<Form> {
        match self {
            Self::Emulated(form) | Self::Stepped(form) => Some(form),
            Self::Refused(_) => None,
        }
    }

    /// How it is treated, of an instruction that may be probed.
    pub fn speed(self) -> Option<Speed> {
        match self {
            Self::Emulated(_) => Some(Speed::Emulated),
            Self::Stepped(_) => Some(Speed::Stepped),
            Self::Refused(_) => None,
        }
    }
}

/// One decoded instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes.
    pub length: usize,
    /// How it takes a probe.
    pub class: Class,
    /// Whether the next instruction always follows: no branch, call, return, trap.
    pub falls_through: bool,
    /// Where a relative near jump goes.
    pub jump_target: Option<u64>,
}

/// The class of the instruction that `bytes` begin with, when it is at `address`.
pub fn classify(bytes: &[u8], address: u64) -> Class {
    decode(bytes, address).map_or(Class::Refused(Refusal::Undecodable), |decoded| decoded.class)
}

/// Decodes the instruction that `bytes` begin with. Nothing when they are no instruction or it is cut off.
pub fn decode(bytes: &[u8], address: u64) -> Option<Decoded> {
    let bytes = bytes.get(..MAX_LENGTH).unwrap_or(bytes);
    let mut decoder = Decoder::with_ip(64, bytes, address, DecoderOptions::NONE);
    if !decoder.can_decode() {
        return None;
    }
    let instruction = decoder.decode();
    if instruction.is_invalid() {
        return None;
    }
    let length = instruction.len();
    let class = match form_of(bytes.get(..length)?, &instruction) {
        Err(refusal) => Class::Refused(refusal),
        Ok(form) if is_emulated_everywhere(form.kind) => Class::Emulated(form),
        Ok(form) => Class::Stepped(form),
    };
    Some(Decoded {
        length,
        class,
        falls_through: instruction.flow_control() == FlowControl::Next,
        jump_target: jump_target(&instruction),
    })
}

/// Where the relative near jumps in `code` go, read from its start on; nothing is classified.
pub(crate) fn jump_targets(code: &[u8], address: u64) -> impl Iterator<Item = u64> {
    let decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    decoder.into_iter().filter_map(|instruction| jump_target(&instruction))
}

fn jump_target(instruction: &Instruction) -> Option<u64> {
    let flow = instruction.flow_control();
    let jumps = matches!(flow, FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch);
    let near = instruction.op_count() > 0 && instruction.op0_kind() == OpKind::NearBranch64;
    (jumps && near).then(|| instruction.near_branch64())
}

fn is_emulated_everywhere(kind: Kind) -> bool {
    matches!(kind, Kind::Push | Kind::CondJump | Kind::Jump | Kind::Call | Kind::Nop)
}

/// Prefix bytes of an instruction, in the order of the file.
#[derive(Default)]
struct Prefixes {
    operand_size: bool,
    repeat: bool,
    thread: bool,
    rex: Option<u8>,
    odd: bool,
    /// First byte behind them.
    opcode: Option<u8>,
}

/// Reads the prefixes. A prefix that is there twice, that has no place in ordinary code, or a REX that is not the last
/// one, makes the whole odd.
fn prefixes(bytes: &[u8]) -> Prefixes {
    let mut found = Prefixes::default();
    for &byte in bytes {
        let behind_rex = found.rex.is_some();
        let again = match byte {
            0x66 => std::mem::replace(&mut found.operand_size, true),
            0xf2 | 0xf3 => std::mem::replace(&mut found.repeat, true),
            0x64 => std::mem::replace(&mut found.thread, true),
            0x26 | 0x2e | 0x36 | 0x3e | 0x65 | 0x67 | 0xf0 => true,
            0x40..=0x4f => found.rex.replace(byte).is_some(),
            _ => {
                found.opcode = Some(byte);
                return found;
            }
        };
        found.odd |= again || behind_rex;
    }
    found
}

/// The form of an instruction that is on the list.
fn form_of(bytes: &[u8], instruction: &Instruction) -> Result<Form, Refusal> {
    if instruction.encoding() != EncodingKind::Legacy {
        return Err(Refusal::Vector);
    }
    if instruction.has_lock_prefix() {
        return Err(Refusal::Lock);
    }
    refuse_by_effect(instruction)?;
    let prefixes = prefixes(bytes);
    // `90` with REX.B decodes as xchg, and the one without as nop; with a repeat prefix it is `pause`.
    if instruction.mnemonic() == Mnemonic::Xchg {
        return Err(Refusal::Exchange);
    }
    if prefixes.odd {
        return Err(Refusal::OddPrefix);
    }
    let kind = kind_of(bytes, instruction, &prefixes)?;
    let access = access_of(kind, instruction, &prefixes)?;
    let sse = matches!(
        kind,
        Kind::SseMove | Kind::SseLogic | Kind::SseConvert | Kind::SseArithmetic | Kind::Endbr64
    );
    // Repeat prefixes belong to SSE opcodes; elsewhere they change nothing or too much.
    if prefixes.repeat && !sse {
        return Err(Refusal::OddPrefix);
    }
    Ok(Form { kind, access })
}

/// What an instruction does that no copy of it under single-step can do.
fn refuse_by_effect(instruction: &Instruction) -> Result<(), Refusal> {
    use Mnemonic as M;
    match instruction.mnemonic() {
        M::Int | M::Int1 | M::Int3 | M::Into => return Err(Refusal::Interrupt),
        M::Ud0 | M::Ud1 | M::Ud2 => return Err(Refusal::Undefined),
        M::Syscall | M::Sysenter | M::Sysret | M::Sysexit | M::Sysretq | M::Sysexitq => {
            return Err(Refusal::SystemCall);
        }
        M::Iret | M::Iretd | M::Iretq | M::Retf | M::Xbegin | M::Xabort | M::Xend | M::Uiret => {
            return Err(Refusal::FarBranch);
        }
        M::Pushf | M::Pushfd | M::Pushfq | M::Popf | M::Popfd | M::Popfq => {
            return Err(Refusal::FlagTransfer);
        }
        _ => {}
    }
    if instruction.is_jmp_far()
        || instruction.is_jmp_far_indirect()
        || instruction.is_call_far()
        || instruction.is_call_far_indirect()
    {
        return Err(Refusal::FarBranch);
    }
    if instruction.is_jmp_near_indirect() || instruction.is_call_near_indirect() {
        return Err(Refusal::IndirectBranch);
    }
    if instruction.is_privileged() {
        return Err(Refusal::Privileged);
    }
    if instruction.is_string_instruction() {
        return Err(Refusal::StringOperation);
    }
    let special = |r: Register| r.is_segment_register() || r.is_cr() || r.is_dr() || r.is_tr();
    let touches = (0..instruction.op_count())
        .any(|i| instruction.op_kind(i) == OpKind::Register && special(instruction.op_register(i)));
    if touches { Err(Refusal::System) } else { Ok(()) }
}

fn kind_of(bytes: &[u8], i: &Instruction, prefixes: &Prefixes) -> Result<Kind, Refusal> {
    use Mnemonic as M;
    let bare = !prefixes.operand_size && !prefixes.repeat && !prefixes.thread;
    let plain = bare && prefixes.rex.is_none();
    let register = |n: u32| i.op_kind(n) == OpKind::Register;
    let constant =
        |n: u32| !matches!(i.op_kind(n), OpKind::Register | OpKind::Memory) && i.op_count() > n;
    Ok(match i.mnemonic() {
        // 41 is the only REX that the kernel's emulation of push takes.
        M::Push if register(0) && bare && matches!(prefixes.rex, None | Some(0x41)) => Kind::Push,
        M::Push if !register(0) && i.op_kind(0) != OpKind::Memory && plain => Kind::PushConstant,
        M::Pop if register(0) && bare && matches!(prefixes.rex, None | Some(0x41)) => Kind::Pop,
        M::Jmp if matches!(bytes, [0xeb, 0x03 | 0x08]) => return Err(Refusal::Rewritten),
        M::Jmp if plain => Kind::Jump,
        M::Call if plain => Kind::Call,
        M::Ret if i.code() == Code::Retnq && plain => Kind::Return,
        _ if i.is_jcc_short_or_near() && plain => Kind::CondJump,
        M::Nop if matches!(bytes, [0x90] | [0x66, 0x90]) => Kind::Nop,
        M::Nop if matches!(i.len(), 5 | 10) => return Err(Refusal::Rewritten),
        M::Nop if i.op_count() > 0 && i.op_kind(0) == OpKind::Memory => Kind::LongNop,
        M::Endbr64 if bytes == [0xf3, 0x0f, 0x1e, 0xfa] => Kind::Endbr64,
        // a0–a3: 64-bit absolute addresses, which only `rax` has
        M::Mov if matches!(prefixes.opcode, Some(0xa0..=0xa3)) => return Err(Refusal::NotListed),
        M::Mov if register(0) && register(1) && i.op0_register() == i.op1_register() => {
            return Err(Refusal::Rewritten);
        }
        M::Mov if constant(1) => Kind::MoveConstant,
        M::Mov => Kind::Move,
        M::Movzx | M::Movsx | M::Movsxd => Kind::Extend,
        M::Cdqe | M::Cwde | M::Cdq | M::Cqo => Kind::Widen,
        M::Lea if is_idle_lea(i) => return Err(Refusal::Rewritten),
        M::Lea => Kind::Address,
        M::Add | M::Adc | M::Sub | M::Sbb | M::And | M::Or | M::Xor => Kind::Arithmetic,
        M::Cmp | M::Test => Kind::Compare,
        M::Inc | M::Dec | M::Neg | M::Not => Kind::Unary,
        M::Shl | M::Shr | M::Sar | M::Rol | M::Ror => Kind::Shift,
        M::Imul if i.op_count() > 1 => Kind::Multiply,
        M::Bt if i.op_kind(0) != OpKind::Memory || constant(1) => Kind::BitTest,
        m => conditional(m).or_else(|| sse(i, m)).ok_or(Refusal::NotListed)?,
    })
}

/// `lea rsi,[rsi+0]`: a nop in disguise.
fn is_idle_lea(i: &Instruction) -> bool {
    i.memory_base() == i.op0_register()
        && i.memory_index() == Register::None
        && i.memory_displacement64() == 0
}

fn conditional(m: Mnemonic) -> Option<Kind> {
    use Mnemonic as M;
    match m {
        M::Cmovo
        | M::Cmovno
        | M::Cmovb
        | M::Cmovae
        | M::Cmove
        | M::Cmovne
        | M::Cmovbe
        | M::Cmova
        | M::Cmovs
        | M::Cmovns
        | M::Cmovp
        | M::Cmovnp
        | M::Cmovl
        | M::Cmovge
        | M::Cmovle
        | M::Cmovg => Some(Kind::CondMove),
        M::Seto
        | M::Setno
        | M::Setb
        | M::Setae
        | M::Sete
        | M::Setne
        | M::Setbe
        | M::Seta
        | M::Sets
        | M::Setns
        | M::Setp
        | M::Setnp
        | M::Setl
        | M::Setge
        | M::Setle
        | M::Setg => Some(Kind::CondSet),
        _ => None,
    }
}

/// Legacy SSE; MMX registers share state with the FPU and stay out.
fn sse(i: &Instruction, m: Mnemonic) -> Option<Kind> {
    use Mnemonic as M;
    let mmx =
        (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Register && i.op_register(n).is_mm());
    if mmx {
        return None;
    }
    match m {
        M::Movaps
        | M::Movapd
        | M::Movups
        | M::Movupd
        | M::Movdqa
        | M::Movdqu
        | M::Movss
        | M::Movd
        | M::Movq
        | M::Movlps
        | M::Movlpd
        | M::Movhps
        | M::Movhpd
        | M::Movlhps
        | M::Movhlps => Some(Kind::SseMove),
        // the string operation of the same name was refused before
        M::Movsd => Some(Kind::SseMove),
        M::Pxor
        | M::Por
        | M::Pand
        | M::Pandn
        | M::Xorps
        | M::Xorpd
        | M::Andps
        | M::Andpd
        | M::Andnps
        | M::Andnpd
        | M::Orps
        | M::Orpd
        | M::Punpcklqdq
        | M::Punpckldq
        | M::Punpcklwd
        | M::Punpcklbw
        | M::Punpckhqdq
        | M::Pshufd
        | M::Shufps
        | M::Shufpd
        | M::Unpcklps
        | M::Unpcklpd => Some(Kind::SseLogic),
        M::Cvtsi2sd | M::Cvtsi2ss | M::Cvttsd2si | M::Cvttss2si | M::Cvtss2sd | M::Cvtsd2ss => {
            Some(Kind::SseConvert)
        }
        M::Addsd
        | M::Subsd
        | M::Mulsd
        | M::Divsd
        | M::Sqrtsd
        | M::Addss
        | M::Subss
        | M::Mulss
        | M::Divss
        | M::Sqrtss
        | M::Ucomisd
        | M::Ucomiss
        | M::Comisd
        | M::Comiss
        | M::Minsd
        | M::Maxsd => Some(Kind::SseArithmetic),
        _ => None,
    }
}

fn access_of(kind: Kind, i: &Instruction, prefixes: &Prefixes) -> Result<Access, Refusal> {
    let memory = (0..i.op_count()).find(|&n| i.op_kind(n) == OpKind::Memory);
    let Some(operand) = memory else {
        return if prefixes.thread { Err(Refusal::OddPrefix) } else { Ok(Access::Registers) };
    };
    if kind == Kind::LongNop {
        return if prefixes.thread { Err(Refusal::OddPrefix) } else { Ok(Access::Registers) };
    }
    let reads_only = matches!(kind, Kind::Compare | Kind::BitTest | Kind::SseArithmetic);
    let writes = operand == 0 && !reads_only;
    if prefixes.thread {
        let absolute = i.memory_base() == Register::None && i.memory_index() == Register::None;
        let plain = matches!(kind, Kind::Move | Kind::Arithmetic | Kind::Compare);
        return if absolute && plain && !writes {
            Ok(Access::ThreadLoad)
        } else {
            Err(Refusal::NotListed)
        };
    }
    if i.is_ip_rel_memory_operand() {
        return Ok(match kind {
            Kind::Address => Access::RelativeLoad,
            _ if writes => Access::RelativeStore,
            _ => Access::RelativeLoad,
        });
    }
    if i.memory_base() == Register::None && kind != Kind::Address {
        return Err(Refusal::NotListed); // absolute or scaled without base: not in ordinary code
    }
    Ok(if kind == Kind::Address {
        Access::Registers
    } else if writes {
        Access::Store
    } else {
        Access::Load
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refusal(bytes: &[u8]) -> Refusal {
        match classify(bytes, 0x40_1000) {
            Class::Refused(refusal) => refusal,
            class => panic!("{bytes:02x?} is allowed: {class:?}"),
        }
    }

    #[test]
    fn each_reason_has_its_instruction() {
        for (bytes, reason) in [
            (&[0x62, 0xf2, 0x7d, 0x28, 0x7a, 0xc8][..], Refusal::Vector), // vpbroadcastb ymm1,eax
            (&[0xc5, 0xf8, 0x77], Refusal::Vector),                       // vzeroupper
            (&[0x8f, 0xe9, 0x78, 0x01, 0xc8], Refusal::Vector),           // blcfill (XOP)
            (&[0xf0, 0xff, 0x03], Refusal::Lock),                         // lock inc [rbx]
            (&[0x49, 0x90], Refusal::Exchange),                           // xchg rax,r8
            (&[0x41, 0x90], Refusal::Exchange),                           // xchg eax,r8d
            (&[0x48, 0x87, 0x03], Refusal::Exchange),                     // xchg [rbx],rax
            (&[0xcc], Refusal::Interrupt),
            (&[0xcd, 0x80], Refusal::Interrupt),
            (&[0xf1], Refusal::Interrupt),
            (&[0x0f, 0x0b], Refusal::Undefined),
            (&[0xf4], Refusal::Privileged), // hlt
            (&[0xfa], Refusal::Privileged), // cli
            (&[0x0f, 0x05], Refusal::SystemCall),
            (&[0x0f, 0x34], Refusal::SystemCall),
            (&[0x48, 0xcf], Refusal::FarBranch),      // iretq
            (&[0xff, 0x2b], Refusal::FarBranch),      // jmp far [rbx]
            (&[0xcb], Refusal::FarBranch),            // retf
            (&[0xff, 0xe0], Refusal::IndirectBranch), // jmp rax
            (&[0xff, 0x15, 0, 0, 0, 0], Refusal::IndirectBranch), // call [rip]
            (&[0xf3, 0xa4], Refusal::StringOperation), // rep movsb
            (&[0xab], Refusal::StringOperation),      // stosd
            (&[0x9c], Refusal::FlagTransfer),         // pushfq
            (&[0x9d], Refusal::FlagTransfer),         // popfq
            (&[0x8e, 0xd0], Refusal::System),         // mov ss,eax
            (&[0x8c, 0xd8], Refusal::System),         // mov eax,ds
            (&[0x0f, 0xa0], Refusal::System),         // push fs
            (&[0x65, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0], Refusal::OddPrefix), // mov rax,gs:0
            (&[0x66, 0x66, 0x90], Refusal::OddPrefix),
            (&[0xf3, 0x90], Refusal::NotListed), // pause
            (&[0xf2, 0xe8, 0, 0, 0, 0], Refusal::NotListed), // bnd call
            (&[0x67, 0x8b, 0x03], Refusal::OddPrefix), // mov eax,[ebx]
            (&[0x48, 0x66, 0x89, 0xd8], Refusal::OddPrefix), // a REX that counts for nothing
            (&[0x0f, 0x1f, 0x44, 0, 0], Refusal::Rewritten), // nop of five bytes
            (&[0xeb, 0x08], Refusal::Rewritten),
            (&[0x48, 0x8d, 0x74, 0x26, 0], Refusal::Rewritten), // lea rsi,[rsi+0]
            (&[0x48, 0x89, 0xc0], Refusal::Rewritten),          // mov rax,rax
            (&[0xe3, 0x10], Refusal::NotListed),                // jrcxz
            (&[0x48, 0xf7, 0xf1], Refusal::NotListed),          // div rcx
            (&[0xd9, 0xe8], Refusal::NotListed),                // fld1
            (&[0x0f, 0x6f, 0x03], Refusal::NotListed),          // movq mm0,[rbx]
            (&[0x0f, 0xa2], Refusal::NotListed),                // cpuid
            (&[0x8b, 0x04, 0x25, 0, 0, 0, 0], Refusal::NotListed), // mov eax,[0]
            (&[0x06], Refusal::Undecodable),
            (&[], Refusal::Undecodable),
            (&[0x48], Refusal::Undecodable),
        ] {
            assert_eq!(refusal(bytes), reason, "{bytes:02x?}");
        }
    }

    #[test]
    fn access_is_read_from_the_operands() {
        let form = |bytes: &[u8]| classify(bytes, 0).form().unwrap();
        for (bytes, kind, access) in [
            (&[0x48, 0x89, 0xd8][..], Kind::Move, Access::Registers),
            (&[0x48, 0x8b, 0x03], Kind::Move, Access::Load),
            (&[0x48, 0x89, 0x03], Kind::Move, Access::Store),
            (&[0x48, 0x8b, 0x05, 0, 0, 0, 0], Kind::Move, Access::RelativeLoad),
            (&[0x48, 0x89, 0x05, 0, 0, 0, 0], Kind::Move, Access::RelativeStore),
            (&[0x48, 0x3b, 0x05, 0, 0, 0, 0], Kind::Compare, Access::RelativeLoad),
            (&[0x80, 0x3d, 0, 0, 0, 0, 1], Kind::Compare, Access::RelativeLoad),
            (&[0x48, 0x83, 0x3b, 0], Kind::Compare, Access::Load),
            (&[0x48, 0x8d, 0x05, 0, 0, 0, 0], Kind::Address, Access::RelativeLoad),
            (&[0x48, 0x8d, 0x43, 8], Kind::Address, Access::Registers),
            (&[0x64, 0x48, 0x8b, 0x04, 0x25, 0x28, 0, 0, 0], Kind::Move, Access::ThreadLoad),
        ] {
            assert_eq!(form(bytes), Form { kind, access }, "{bytes:02x?}");
        }
    }

    #[test]
    fn jumps_know_their_target_and_calls_end_a_block() {
        let jump = decode(&[0x75, 0xfe], 0x1000).unwrap();
        assert_eq!((jump.jump_target, jump.falls_through), (Some(0x1000), false));
        let call = decode(&[0xe8, 0, 0, 0, 0], 0x1000).unwrap();
        assert_eq!((call.jump_target, call.falls_through), (None, false));
        let push = decode(&[0x55, 0xcc], 0x1000).unwrap();
        assert_eq!((push.length, push.falls_through), (1, true));
        let all: Vec<u64> = jump_targets(&[0x75, 0xfe, 0x55, 0xeb, 0], 0x1000).collect();
        assert_eq!(all, [0x1000, 0x1005]);
    }

    proptest! {
        /// Whatever is allowed is one instruction in legacy encoding whose prefixes all mean something.
        #[test]
        fn nothing_odd_is_allowed(bytes in proptest::collection::vec(any::<u8>(), 0..20), at: u64) {
            let Some(decoded) = decode(&bytes, at) else { return Ok(()) };
            prop_assert!((1..=MAX_LENGTH.min(bytes.len())).contains(&decoded.length));
            if let Some(form) = decoded.class.form() {
                let found = prefixes(&bytes[..decoded.length]);
                prop_assert!(!found.odd, "{form}");
                prop_assert!(!matches!(bytes[0], 0xc4 | 0xc5 | 0x62 | 0xf0 | 0xcc | 0xf4 | 0x9c));
                let allowed = crate::Allowed::assumed();
                prop_assert!(allowed.speed(form).is_some(), "{form} has no example");
            }
        }
    }
}
