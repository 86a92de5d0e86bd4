//! The program that the self-test runs, as bytes: a stage that sets every register, one slot for each instruction that
//! is tried, and a stage that writes every register down. Pure; nothing is executed here.
//!
//! All of it lies in one file, which is mapped in front of the page ([`cell`]) that holds inputs and outputs, so that
//! both stages reach the page relative to the instruction pointer and need no register for themselves:
//!
//! ```text
//! enter:  save callee-saved registers; load mxcsr, vectors, flags, registers, stack; jmp [target]
//! slot:   INSTRUCTION; path = 1; jmp leave           landing: path = 2; jmp leave
//! leave:  store registers, flags, vectors, mxcsr; restore; ret
//! ```

use crate::examples::{Example, Fill};

/// Bytes of a page.
pub(super) const PAGE: usize = 4096;

/// Where things are in the page of inputs and outputs.
pub(super) mod cell {
    /// Sixteen registers to load, in the order of their numbers.
    pub const REGISTERS: usize = 0;
    /// Flags to load.
    pub const FLAGS: usize = 128;
    /// SSE control and status to load.
    pub const MXCSR: usize = 136;
    /// Address of the instruction.
    pub const TARGET: usize = 144;
    /// Stack pointer of the caller.
    pub const HOST_STACK: usize = 152;
    /// SSE control and status of the caller.
    pub const HOST_MXCSR: usize = 160;
    /// Sixteen vector registers to load, 32 bytes each.
    pub const VECTORS: usize = 512;
    /// Sixteen registers as they were left.
    pub const OUT_REGISTERS: usize = 1024;
    /// Flags as they were left.
    pub const OUT_FLAGS: usize = 1152;
    /// SSE control and status as they were left.
    pub const OUT_MXCSR: usize = 1160;
    /// Which way was taken: 1 the next instruction, 2 the landing.
    pub const PATH: usize = 1168;
    /// Sixteen vector registers as they were left.
    pub const OUT_VECTORS: usize = 1536;
    /// Memory for operands.
    pub const MEMORY: usize = 2048;
    /// Where the stack pointer starts; the stack reaches from behind the memory for operands to the end of the page.
    pub const STACK_TOP: usize = 3328;
    /// What rip-relative operands point to.
    pub const DATA: usize = MEMORY + 64;
}

/// One instruction in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    /// Index into the examples.
    pub example: usize,
    /// Offset of the instruction in the file.
    pub offset: usize,
    /// Offset of the place that branches go to.
    pub landing: usize,
}

/// The whole file.
#[derive(Debug, Clone)]
pub(super) struct Program {
    /// Its bytes, whole pages; the cell follows them in memory.
    pub bytes: Vec<u8>,
    /// Where the instructions are.
    pub slots: Vec<Slot>,
}

const SLOT: usize = 128;
/// From an instruction to its landing, for all that do not cross a page.
pub(super) const LANDING: usize = 64;

/// Lays out a program that tries every example, and those that can cross a page also across one, with the landing of
/// branches behind them once and before them once. `wide`: the processor has 32-byte vector registers.
pub(super) fn program(examples: &[Example], wide: bool) -> Program {
    let crossing: Vec<usize> = (0..examples.len()).filter(|&i| crosses(&examples[i])).collect();
    let aligned = (PAGE + examples.len() * SLOT).next_multiple_of(PAGE);
    let length = aligned + (crossing.len() + 1) * PAGE;
    let mut code = Code { bytes: vec![0xcc; length], at: 0 };
    code.enter(wide);
    let leave = code.at;
    code.leave(wide);
    assert!(code.at <= PAGE, "the stages outgrew their page");
    let mut slots = Vec::new();
    for example in 0..examples.len() {
        let offset = PAGE + example * SLOT;
        slots.push(Slot { example, offset, landing: offset + LANDING });
    }
    for (n, &example) in crossing.iter().enumerate() {
        let offset = aligned + (n + 1) * PAGE - 1;
        slots.push(Slot { example, offset, landing: offset - LANDING });
    }
    for slot in &slots {
        code.slot(slot, &examples[slot.example], leave);
    }
    Program { bytes: code.bytes, slots }
}

/// A few that are long enough, one of each way in which kernels treat instructions.
fn crosses(example: &Example) -> bool {
    matches!(
        example.text.as_str(),
        "push r12"
            | "jne near"
            | "jmp near"
            | "jmp short"
            | "call near"
            | "endbr64"
            | "mov rax,[rip+DATA]"
            | "mov [rip+DATA],rcx"
            | "sub rsp,0x48"
            | "movups [rbx+0x10],xmm1"
    )
}

struct Code {
    bytes: Vec<u8>,
    at: usize,
}

impl Code {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    /// An opcode with a rip-relative operand in the cell; `behind`: bytes of the instruction after the distance.
    fn with_cell(&mut self, opcode: &[u8], offset: usize, behind: &[u8]) {
        self.put(opcode);
        let from = self.at + 4 + behind.len();
        let distance = i32::try_from(self.bytes.len() + offset - from).unwrap_or(0);
        self.put(&distance.to_le_bytes());
        self.put(behind);
    }

    fn jump(&mut self, to: usize) {
        self.put(&[0xe9]);
        let distance = distance(self.at + 4, to);
        self.put(&distance.to_le_bytes());
    }

    fn register(&mut self, opcode: u8, n: usize, offset: usize) {
        let rex = if n < 8 { 0x48 } else { 0x4c };
        self.with_cell(&[rex, opcode, 0x05 | ((n as u8 & 7) << 3)], offset + 8 * n, &[]);
    }

    fn vector(&mut self, opcode: u8, n: usize, offset: usize, wide: bool) {
        let operand = 0x05 | ((n as u8 & 7) << 3);
        let bytes: &[u8] = match (wide, n < 8) {
            (true, true) => &[0xc5, 0xfc, opcode, operand],
            (true, false) => &[0xc5, 0x7c, opcode, operand],
            (false, true) => &[0x0f, opcode, operand],
            (false, false) => &[0x44, 0x0f, opcode, operand],
        };
        self.with_cell(bytes, offset + 32 * n, &[]);
    }

    fn enter(&mut self, wide: bool) {
        self.put(&[0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57]); // push rbx, rbp, r12–r15
        self.with_cell(&[0x48, 0x89, 0x25], cell::HOST_STACK, &[]); // mov [..],rsp
        self.with_cell(&[0x0f, 0xae, 0x1d], cell::HOST_MXCSR, &[]); // stmxcsr
        self.with_cell(&[0x0f, 0xae, 0x15], cell::MXCSR, &[]); // ldmxcsr
        for n in 0..16 {
            self.vector(0x10, n, cell::VECTORS, wide); // (v)movups
        }
        self.with_cell(&[0xff, 0x35], cell::FLAGS, &[]); // push qword [..]
        self.put(&[0x9d]); // popfq
        for n in (0..16).filter(|&n| n != 4).chain([4]) {
            self.register(0x8b, n, cell::REGISTERS); // mov; the stack pointer last
        }
        self.with_cell(&[0xff, 0x25], cell::TARGET, &[]); // jmp [..]
    }

    fn leave(&mut self, wide: bool) {
        for n in 0..16 {
            self.register(0x89, n, cell::OUT_REGISTERS);
        }
        self.with_cell(&[0x48, 0x8b, 0x25], cell::HOST_STACK, &[]); // mov rsp,[..]
        self.put(&[0x9c]); // pushfq
        self.with_cell(&[0x8f, 0x05], cell::OUT_FLAGS, &[]); // pop qword [..]
        self.put(&[0xfc]); // cld
        for n in 0..16 {
            self.vector(0x11, n, cell::OUT_VECTORS, wide);
        }
        self.with_cell(&[0x0f, 0xae, 0x1d], cell::OUT_MXCSR, &[]);
        self.with_cell(&[0x0f, 0xae, 0x15], cell::HOST_MXCSR, &[]);
        if wide {
            self.put(&[0xc5, 0xf8, 0x77]); // vzeroupper
        }
        self.put(&[0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3]);
    }

    fn slot(&mut self, slot: &Slot, example: &Example, leave: usize) {
        let mut bytes = example.bytes.clone();
        let end = slot.offset + bytes.len();
        let tail = |n: usize| bytes.len().saturating_sub(n)..bytes.len();
        match example.fill {
            Fill::Nothing => {}
            Fill::ShortTarget => {
                let (range, distance) = (tail(1), distance(end, slot.landing) as i8);
                bytes[range].copy_from_slice(&distance.to_le_bytes());
            }
            Fill::NearTarget => {
                let (range, distance) = (tail(4), distance(end, slot.landing));
                bytes[range].copy_from_slice(&distance.to_le_bytes());
            }
            Fill::Data(at) => {
                let distance = distance(end, self.bytes.len() + cell::DATA);
                bytes[at..at + 4].copy_from_slice(&distance.to_le_bytes());
            }
        }
        self.at = slot.offset;
        self.put(&bytes);
        self.note_path(1, leave);
        self.at = slot.landing;
        self.note_path(2, leave);
    }

    fn note_path(&mut self, path: u8, leave: usize) {
        self.with_cell(&[0xc6, 0x05], cell::PATH, &[path]); // mov byte [..],path
        self.jump(leave);
    }
}

fn distance(from: usize, to: usize) -> i32 {
    i32::try_from(to as i64 - from as i64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruction::decode;

    #[test]
    fn slots_do_not_overlap_and_hold_their_instruction() {
        for wide in [false, true] {
            let examples = crate::examples::all();
            let program = program(&examples, wide);
            assert_eq!(program.bytes.len() % PAGE, 0);
            let mut used: Vec<(usize, usize)> = Vec::new();
            for slot in &program.slots {
                let example = &examples[slot.example];
                let found = decode(&program.bytes[slot.offset..], slot.offset as u64).unwrap();
                assert_eq!(found.length, example.bytes.len(), "{}", example.text);
                if let Some(target) = found.jump_target {
                    assert_eq!(target, slot.landing as u64, "{}", example.text);
                }
                used.push((slot.offset, slot.offset + example.bytes.len() + 12));
                used.push((slot.landing, slot.landing + 12));
            }
            used.sort_unstable();
            assert!(used[0].0 >= PAGE);
            assert!(used.windows(2).all(|w| w[0].1 <= w[1].0), "slots overlap");
            assert!(used.last().unwrap().1 <= program.bytes.len());
        }
    }

    #[test]
    fn some_instructions_cross_a_page() {
        let examples = crate::examples::all();
        let slots = program(&examples, false).slots;
        let across = slots
            .iter()
            .filter(|s| s.offset / PAGE != (s.offset + examples[s.example].bytes.len() - 1) / PAGE);
        assert!(across.count() >= 10);
    }
}
