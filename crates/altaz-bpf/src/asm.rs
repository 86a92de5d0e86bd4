//! A small assembler for BPF: instructions with labels, checked while they are put together.
//!
//! The programs of this crate have some dozens of instructions and one shape each; written out here
//! they need no compiler on the machine that is measured, no object file and no relocation. What
//! must never be in here: file descriptors that are opened, system calls, knowledge of what a
//! program is for. A map appears only as the number that stands in the instruction.
//!
//! Encoding: RFC 9669 (BPF instruction set architecture), sections 3 to 5.

use thiserror::Error;

/// A register. `R0` is the result, `R1`–`R5` are arguments (lost in a call), `R6`–`R9` survive
/// calls, `R10` is the frame's end, read only.
#[allow(missing_docs, reason = "they are numbers")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Reg {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    R10,
}

/// Width of a load or store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// 1 byte.
    B1,
    /// 2 bytes.
    B2,
    /// 4 bytes.
    B4,
    /// 8 bytes.
    B8,
}

impl Size {
    /// The width of that many bytes.
    pub fn of_bytes(bytes: usize) -> Option<Self> {
        Some(match bytes {
            1 => Self::B1,
            2 => Self::B2,
            4 => Self::B4,
            8 => Self::B8,
            _ => return None,
        })
    }

    fn code(self) -> u8 {
        match self {
            Self::B4 => 0x00,
            Self::B2 => 0x08,
            Self::B1 => 0x10,
            Self::B8 => 0x18,
        }
    }
}

/// Arithmetic on 64 bits.
#[allow(missing_docs, reason = "named as in the RFC")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Alu {
    Add = 0x00,
    Sub = 0x10,
    Or = 0x40,
    And = 0x50,
    LeftShift = 0x60,
    /// Unsigned.
    RightShift = 0x70,
    Move = 0xb0,
}

/// Condition of a jump; comparisons are unsigned, of 64 bits.
#[allow(missing_docs, reason = "named as in the RFC")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Cond {
    Equal = 0x10,
    Greater = 0x20,
    GreaterEqual = 0x30,
    AnyBit = 0x40,
    NotEqual = 0x50,
    Less = 0xa0,
    LessEqual = 0xb0,
}

/// Functions of the kernel that a program may call (`include/uapi/linux/bpf.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Helper {
    /// `(map, &key) -> &value or 0`.
    MapLookup = 1,
    /// `(map, &key, &value, flags) -> 0 or -errno`.
    MapUpdate = 2,
    /// `(map, &key) -> 0 or -errno`.
    MapDelete = 3,
    /// `() -> CLOCK_MONOTONIC in ns`.
    KtimeNs = 5,
    /// `() -> tgid << 32 | tid`, both of the initial PID namespace.
    CurrentPidTgid = 14,
    /// `() -> &task_struct` as a number.
    CurrentTask = 35,
    /// `(&to, size, from) -> 0 or -errno`; refused under lockdown's confidentiality.
    ProbeReadKernel = 113,
    /// `(level) -> id or 0` in the cgroup v2 hierarchy; Linux 5.6.
    CurrentAncestorCgroupId = 123,
    /// `(ctx) -> the cookie given when the program was attached`; Linux 5.15.
    AttachCookie = 174,
}

/// An instruction as the kernel takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Insn {
    code: u8,
    regs: u8,
    off: i16,
    imm: i32,
}

impl Insn {
    fn new(code: u8, dst: Reg, src: u8, off: i16, imm: i32) -> Self {
        Self { code, regs: dst as u8 | src << 4, off, imm }
    }

    /// The instruction's eight bytes, as they lie in this machine's memory.
    pub fn bytes(self) -> [u8; 8] {
        let ([a, b], [c, d, e, f]) = (self.off.to_ne_bytes(), self.imm.to_ne_bytes());
        [self.code, self.regs, a, b, c, d, e, f]
    }
}

/// A place in a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label(usize);

/// Why a program cannot be put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AsmError {
    /// A jump goes to a label without a place.
    #[error("a BPF program jumps to label {0}, which stands nowhere")]
    Unbound(usize),
    /// A label has two places.
    #[error("label {0} of a BPF program stands at two places")]
    BoundTwice(usize),
    /// A jump is too long for its 16 bits.
    #[error("a BPF program's jump at instruction {0} is longer than 32767 instructions")]
    TooFar(usize),
}

/// Puts a program together.
#[derive(Debug, Default)]
pub struct Asm {
    insns: Vec<Insn>,
    labels: Vec<Option<usize>>,
    jumps: Vec<(usize, Label)>,
    error: Option<AsmError>,
}

/// Classes and modes of instructions.
mod code {
    pub const LD: u8 = 0x00;
    pub const LDX: u8 = 0x01;
    pub const ST: u8 = 0x02;
    pub const STX: u8 = 0x03;
    pub const JMP: u8 = 0x05;
    pub const ALU64: u8 = 0x07;
    pub const MEM: u8 = 0x60;
    pub const ATOMIC: u8 = 0xc0;
    /// The operand is a register.
    pub const X: u8 = 0x08;
    pub const CALL: u8 = 0x80;
    pub const EXIT: u8 = 0x90;
    pub const FETCH: i32 = 0x01;
    pub const XCHG: i32 = 0xe0 | FETCH;
    /// `src` of a 64-bit load whose value is a map's descriptor; a value inside a map.
    pub const PSEUDO_MAP_FD: u8 = 1;
    pub const PSEUDO_MAP_VALUE: u8 = 2;
}

impl Asm {
    /// An empty program.
    pub fn new() -> Self {
        Self::default()
    }

    /// A label without a place.
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Gives the label its place: before the next instruction.
    pub fn bind(&mut self, label: Label) -> &mut Self {
        let here = self.insns.len();
        match self.labels.get_mut(label.0) {
            Some(place @ None) => *place = Some(here),
            _ => self.error = self.error.or(Some(AsmError::BoundTwice(label.0))),
        }
        self
    }

    fn push(&mut self, code: u8, dst: Reg, src: u8, off: i16, imm: i32) -> &mut Self {
        self.insns.push(Insn::new(code, dst, src, off, imm));
        self
    }

    /// `dst op= imm` (sign-extended).
    pub fn alu(&mut self, op: Alu, dst: Reg, imm: i32) -> &mut Self {
        self.push(code::ALU64 | op as u8, dst, 0, 0, imm)
    }

    /// `dst op= src`.
    pub fn alu_reg(&mut self, op: Alu, dst: Reg, src: Reg) -> &mut Self {
        self.push(code::ALU64 | code::X | op as u8, dst, src as u8, 0, 0)
    }

    /// `dst = imm` (sign-extended).
    pub fn mov(&mut self, dst: Reg, imm: i32) -> &mut Self {
        self.alu(Alu::Move, dst, imm)
    }

    /// `dst = src`.
    pub fn mov_reg(&mut self, dst: Reg, src: Reg) -> &mut Self {
        self.alu_reg(Alu::Move, dst, src)
    }

    fn wide(&mut self, dst: Reg, src: u8, low: u32, high: u32) -> &mut Self {
        self.push(code::LD | Size::B8.code(), dst, src, 0, low as i32);
        self.push(0, Reg::R0, 0, 0, high as i32)
    }

    /// `dst = value`, all 64 bits.
    pub fn mov64(&mut self, dst: Reg, value: u64) -> &mut Self {
        self.wide(dst, 0, value as u32, (value >> 32) as u32)
    }

    /// `dst = the map` with descriptor `fd`, as helpers take it.
    pub fn map(&mut self, dst: Reg, fd: i32) -> &mut Self {
        self.wide(dst, code::PSEUDO_MAP_FD, fd as u32, 0)
    }

    /// `dst = address of byte `offset` in the single value of the array map` with descriptor `fd`.
    pub fn map_value(&mut self, dst: Reg, fd: i32, offset: u32) -> &mut Self {
        self.wide(dst, code::PSEUDO_MAP_VALUE, fd as u32, offset)
    }

    /// `dst = *(src + off)`, zero-extended.
    pub fn load(&mut self, size: Size, dst: Reg, src: Reg, off: i16) -> &mut Self {
        self.push(code::LDX | code::MEM | size.code(), dst, src as u8, off, 0)
    }

    /// `*(dst + off) = src`.
    pub fn store(&mut self, size: Size, dst: Reg, off: i16, src: Reg) -> &mut Self {
        self.push(code::STX | code::MEM | size.code(), dst, src as u8, off, 0)
    }

    /// `*(dst + off) = imm` (sign-extended).
    pub fn store_imm(&mut self, size: Size, dst: Reg, off: i16, imm: i32) -> &mut Self {
        self.push(code::ST | code::MEM | size.code(), dst, 0, off, imm)
    }

    /// `*(dst + off) += src`, 64 bits, atomically.
    pub fn atomic_add(&mut self, dst: Reg, off: i16, src: Reg) -> &mut Self {
        self.push(code::STX | code::ATOMIC | Size::B8.code(), dst, src as u8, off, 0)
    }

    /// The same, and `src` = the value before (Linux 5.12).
    pub fn atomic_fetch_add(&mut self, dst: Reg, off: i16, src: Reg) -> &mut Self {
        self.push(code::STX | code::ATOMIC | Size::B8.code(), dst, src as u8, off, code::FETCH)
    }

    /// Exchanges `*(dst + off)` and `src`, 64 bits, atomically: a full barrier (Linux 5.12).
    pub fn atomic_exchange(&mut self, dst: Reg, off: i16, src: Reg) -> &mut Self {
        self.push(code::STX | code::ATOMIC | Size::B8.code(), dst, src as u8, off, code::XCHG)
    }

    /// Goes to `to`.
    pub fn jump(&mut self, to: Label) -> &mut Self {
        self.jumps.push((self.insns.len(), to));
        self.push(code::JMP, Reg::R0, 0, 0, 0)
    }

    /// Goes to `to` if `dst cond imm` (sign-extended).
    pub fn jump_if(&mut self, cond: Cond, dst: Reg, imm: i32, to: Label) -> &mut Self {
        self.jumps.push((self.insns.len(), to));
        self.push(code::JMP | cond as u8, dst, 0, 0, imm)
    }

    /// Goes to `to` if `dst cond src`.
    pub fn jump_if_reg(&mut self, cond: Cond, dst: Reg, src: Reg, to: Label) -> &mut Self {
        self.jumps.push((self.insns.len(), to));
        self.push(code::JMP | code::X | cond as u8, dst, src as u8, 0, 0)
    }

    /// Calls a function of the kernel; `R0` is its result, `R1`–`R5` are lost.
    pub fn call(&mut self, helper: Helper) -> &mut Self {
        self.push(code::JMP | code::CALL, Reg::R0, 0, 0, helper as i32)
    }

    /// Ends the program; `R0` is its result.
    pub fn exit(&mut self) -> &mut Self {
        self.push(code::JMP | code::EXIT, Reg::R0, 0, 0, 0)
    }

    /// The instructions, jumps filled in.
    ///
    /// # Errors
    /// When a label has no place or two, or a jump is too long.
    pub fn finish(mut self) -> Result<Vec<Insn>, AsmError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        for (at, label) in self.jumps {
            let place =
                self.labels.get(label.0).copied().flatten().ok_or(AsmError::Unbound(label.0))?;
            // Counted from the instruction behind the jump.
            let distance = place as i64 - (at as i64 + 1);
            let off = i16::try_from(distance).map_err(|_| AsmError::TooFar(at))?;
            if let Some(insn) = self.insns.get_mut(at) {
                insn.off = off;
            }
        }
        Ok(self.insns)
    }
}

#[cfg(test)]
mod tests {
    use super::Reg::{R0, R1, R2, R6, R7, R10};
    use super::*;
    use proptest::prelude::*;

    /// `expect`: an instruction a line, as `llvm-objdump -d` and `bpftool prog dump xlated opcodes`
    /// print them on a little-endian machine.
    fn check(build: impl for<'a> FnOnce(&'a mut Asm) -> &'a mut Asm, expect: &[&str]) {
        let mut asm = Asm::new();
        build(&mut asm);
        let got: Vec<String> = asm
            .finish()
            .unwrap()
            .iter()
            .map(|i| i.bytes().map(|b| format!("{b:02x}")).join(" "))
            .collect();
        assert_eq!(got, expect);
    }

    #[test]
    fn instructions_are_encoded_as_clang_encodes_them() {
        check(|a| a.mov(R0, 1), &["b7 00 00 00 01 00 00 00"]);
        check(|a| a.mov_reg(R6, R1), &["bf 16 00 00 00 00 00 00"]);
        check(|a| a.mov_reg(R2, R10), &["bf a2 00 00 00 00 00 00"]);
        check(|a| a.alu(Alu::Add, R2, -4), &["07 02 00 00 fc ff ff ff"]);
        check(|a| a.alu(Alu::RightShift, R0, 32), &["77 00 00 00 20 00 00 00"]);
        check(|a| a.alu(Alu::LeftShift, R1, 32), &["67 01 00 00 20 00 00 00"]);
        check(|a| a.alu_reg(Alu::Or, R7, R0), &["4f 07 00 00 00 00 00 00"]);
        check(|a| a.load(Size::B4, R1, R6, 8), &["61 61 08 00 00 00 00 00"]);
        check(|a| a.load(Size::B8, R1, R6, 0), &["79 61 00 00 00 00 00 00"]);
        check(|a| a.load(Size::B2, R1, R6, 2), &["69 61 02 00 00 00 00 00"]);
        check(|a| a.load(Size::B1, R1, R6, 1), &["71 61 01 00 00 00 00 00"]);
        check(|a| a.store(Size::B4, R10, -4, R0), &["63 0a fc ff 00 00 00 00"]);
        check(|a| a.store(Size::B8, R10, -16, R1), &["7b 1a f0 ff 00 00 00 00"]);
        check(|a| a.store_imm(Size::B8, R10, -8, 0), &["7a 0a f8 ff 00 00 00 00"]);
        check(|a| a.atomic_add(R0, 0, R1), &["db 10 00 00 00 00 00 00"]);
        check(|a| a.atomic_fetch_add(R0, 8, R1), &["db 10 08 00 01 00 00 00"]);
        check(|a| a.atomic_exchange(R0, 8, R1), &["db 10 08 00 e1 00 00 00"]);
        check(|a| a.call(Helper::MapLookup), &["85 00 00 00 01 00 00 00"]);
        check(|a| a.exit(), &["95 00 00 00 00 00 00 00"]);
        check(
            |a| a.mov64(R1, 0x1122_3344_5566_7788),
            &["18 01 00 00 88 77 66 55", "00 00 00 00 44 33 22 11"],
        );
        check(|a| a.map(R1, 5), &["18 11 00 00 05 00 00 00", "00 00 00 00 00 00 00 00"]);
        check(|a| a.map_value(R1, 5, 8), &["18 21 00 00 05 00 00 00", "00 00 00 00 08 00 00 00"]);
    }

    #[test]
    fn jumps_count_from_the_next_instruction_and_wide_loads_count_twice() {
        check(
            |a| {
                let (end, again) = (a.label(), a.label());
                a.bind(again);
                a.jump_if(Cond::Equal, R0, 0, end).mov64(R1, 1);
                a.jump_if_reg(Cond::NotEqual, R0, R1, again);
                a.jump(end).bind(end);
                a.exit()
            },
            &[
                "15 00 04 00 00 00 00 00",
                "18 01 00 00 01 00 00 00",
                "00 00 00 00 00 00 00 00",
                "5d 10 fc ff 00 00 00 00",
                "05 00 00 00 00 00 00 00",
                "95 00 00 00 00 00 00 00",
            ],
        );
    }

    #[test]
    fn labels_that_stand_nowhere_or_twice_are_errors() {
        let mut a = Asm::new();
        let l = a.label();
        a.jump(l);
        assert_eq!(a.finish(), Err(AsmError::Unbound(0)));
        let mut a = Asm::new();
        let l = a.label();
        a.bind(l).bind(l);
        assert_eq!(a.finish(), Err(AsmError::BoundTwice(0)));
        let mut a = Asm::new();
        let l = a.label();
        a.jump(l);
        (0..40_000).for_each(|_| {
            a.mov(R0, 0);
        });
        a.bind(l);
        assert_eq!(a.finish(), Err(AsmError::TooFar(0)));
    }

    proptest! {
        /// Any jump lands where its label was bound.
        #[test]
        fn a_jump_lands_on_its_label(before in 0_usize..300, between in 0_usize..300, back: bool) {
            let mut a = Asm::new();
            let to = a.label();
            (0..before).for_each(|_| {
            a.mov(R0, 0);
        });
            let at;
            if back {
                a.bind(to);
                (0..between).for_each(|_| {
            a.mov64(R0, 7);
        });
                at = before + 2 * between;
                a.jump(to);
            } else {
                at = before;
                a.jump(to);
                (0..between).for_each(|_| {
            a.mov64(R0, 7);
        });
                a.bind(to);
            }
            let place = if back { before } else { before + 1 + 2 * between };
            let insns = a.finish().unwrap();
            let b = insns[at].bytes();
            let off = i64::from(i16::from_le_bytes([b[2], b[3]]));
            prop_assert_eq!(at as i64 + 1 + off, place as i64);
        }
    }
}
