//! Function bounds from `.eh_frame`, which stripped binaries still have.
//!
//! An entry (FDE) is a contiguous range of code, nearly always a function. Three kinds are told apart: ordinary
//! functions, continuations (`.cold` parts, whose call frame at the first instruction is not that of a function just
//! entered), and procedure linkage tables (frame described by an expression).

use gimli::{
    BaseAddresses, CallFrameInstruction, CieOrFde, CommonInformationEntry, EhFrame, EndianSlice,
    LittleEndian, UnwindSection,
};
use std::collections::HashMap;

/// What kind of code a frame description covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// The frame at the start is that of a function just called.
    Function,
    /// Code that is jumped to from the middle of a function (`.cold`).
    Part,
    /// The frame is computed by an expression: a procedure linkage table.
    Plt,
}

/// One contiguous range of code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Link address of the first byte.
    pub addr: u64,
    /// Bytes.
    pub size: u64,
    /// What it looks like.
    pub kind: FrameKind,
}

type Reader<'a> = EndianSlice<'a, LittleEndian>;

/// Canonical frame address at a point of the code.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cfa {
    Unknown,
    Offset(u16, u64),
    Expression,
}

/// DWARF number of x86-64's stack pointer.
const RSP: u16 = 7;

/// Distinct CIEs and call-frame instructions that are looked at, bounding the time on hostile input.
const CIE_LIMIT: usize = 4096;
const INSTRUCTION_BUDGET: u64 = 50_000_000;

/// The ranges described by an `.eh_frame` section that is loaded at link address `addr`, in section order.
///
/// `x86_64` tells whether the frame at the start can be judged; on other machines everything is a function. A damaged
/// section gives the entries before the damage.
pub fn frames(addr: u64, bytes: &[u8], x86_64: bool) -> Vec<Frame> {
    let mut section = EhFrame::new(bytes, LittleEndian);
    section.set_address_size(8);
    let bases = BaseAddresses::default().set_eh_frame(addr);
    let mut cies: HashMap<usize, Option<(CommonInformationEntry<Reader>, Cfa)>> = HashMap::new();
    let mut budget = INSTRUCTION_BUDGET;
    let mut out = Vec::new();
    let mut entries = section.entries(&bases);
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(partial) = entry else { continue };
        let cie_at = partial.cie_offset().0;
        if !cies.contains_key(&cie_at) {
            if cies.len() >= CIE_LIMIT {
                continue;
            }
            let cie = section.cie_from_offset(&bases, partial.cie_offset()).ok();
            let cie = cie.map(|cie| {
                let mut cfa = Cfa::Unknown;
                initial_cfa(cie.instructions(&section, &bases), &mut cfa, &mut budget);
                (cie, cfa)
            });
            cies.insert(cie_at, cie);
        }
        let Some(Some((cie, mut cfa))) = cies.get(&cie_at).cloned() else { continue };
        let Ok(fde) = partial.parse(|_, _, _| Ok(cie.clone())) else { continue };
        let (mut start, mut size) = (fde.initial_address(), fde.len());
        if size == 0 || start.checked_add(size).is_none() {
            continue;
        }
        let mut kind = FrameKind::Function;
        if fde.is_signal_trampoline() {
            // Unwinders look up the address before the return address, so these begin one byte early.
            (start, size) = (start + 1, size - 1);
        } else if x86_64 {
            initial_cfa(fde.instructions(&section, &bases), &mut cfa, &mut budget);
            kind = match cfa {
                Cfa::Offset(RSP, 8) | Cfa::Unknown => FrameKind::Function,
                Cfa::Offset(RSP, 16)
                    if has_expression(fde.instructions(&section, &bases), &mut budget) =>
                {
                    FrameKind::Plt
                }
                _ => FrameKind::Part,
            };
        }
        if size > 0 {
            out.push(Frame { addr: start, size, kind });
        }
    }
    out
}

/// Whether any row of a frame is computed by an expression. Entered with 16 bytes on the stack, that is a `.plt`: one
/// frame for all its slots, which push one word more from the middle on.
fn has_expression(
    mut instructions: gimli::CallFrameInstructionIter<'_, Reader<'_>>,
    budget: &mut u64,
) -> bool {
    while *budget > 0 {
        *budget -= 1;
        match instructions.next() {
            Ok(Some(CallFrameInstruction::DefCfaExpression { .. })) => return true,
            Ok(Some(_)) => {}
            _ => return false,
        }
    }
    false
}

/// Follows instructions up to the first advance of the location.
fn initial_cfa(
    mut instructions: gimli::CallFrameInstructionIter<'_, Reader<'_>>,
    cfa: &mut Cfa,
    budget: &mut u64,
) {
    while *budget > 0 {
        *budget -= 1;
        let Ok(Some(instruction)) = instructions.next() else { return };
        match instruction {
            CallFrameInstruction::AdvanceLoc { delta: 0 } => {}
            CallFrameInstruction::AdvanceLoc { .. } | CallFrameInstruction::SetLoc { .. } => return,
            CallFrameInstruction::DefCfa { register, offset } => {
                *cfa = Cfa::Offset(register.0, offset);
            }
            CallFrameInstruction::DefCfaRegister { register } => {
                if let Cfa::Offset(r, _) = cfa {
                    *r = register.0;
                }
            }
            CallFrameInstruction::DefCfaOffset { offset } => {
                if let Cfa::Offset(_, o) = cfa {
                    *o = offset;
                }
            }
            CallFrameInstruction::DefCfaExpression { .. } => *cfa = Cfa::Expression,
            _ => {}
        }
    }
}
