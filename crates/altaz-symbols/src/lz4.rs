//! LZ4 in the "legacy" framing that Linux kernels are packed with: a magic number, then blocks of at most 8 MiB, each
//! behind its packed size. Format: `lz4_Block_format.md` and `lz4_Frame_format.md` of the LZ4 project.

use crate::SymbolError;
use crate::bytes::u32_at;

/// First bytes of the legacy frame.
pub(crate) const MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
/// A block unpacks to at most this.
const BLOCK: usize = 8 << 20;
const WHAT: &str = "the LZ4 payload of the kernel image";

/// Unpacks a frame that begins with [`MAGIC`]; what follows the last whole block (the kernel's own size field) is
/// ignored.
pub(crate) fn unpack(data: &[u8], limit: u64) -> Result<Vec<u8>, SymbolError> {
    let mut out = Vec::new();
    let mut at = MAGIC.len();
    while let Some(size) = u32_at(data, at).map(|s| s as usize) {
        if size == 0 || data.len() - at == 4 {
            break;
        }
        let block = (at + 4).checked_add(size).and_then(|end| data.get(at + 4..end));
        let block = block.ok_or_else(|| {
            SymbolError::damaged(WHAT, format!("the block at {at} of {size} bytes is cut off"))
        })?;
        let begin = out.len();
        unpack_block(block, &mut out, begin).ok_or_else(|| {
            SymbolError::damaged(WHAT, format!("the block at {at} is no valid LZ4"))
        })?;
        if out.len() as u64 > limit {
            return Err(SymbolError::TooLarge { what: WHAT, claimed: out.len() as u64, limit });
        }
        at += 4 + size;
    }
    Ok(out)
}

/// Appends one block. `None` when it reads or copies outside of itself, or unpacks to more than a block may.
fn unpack_block(block: &[u8], out: &mut Vec<u8>, begin: usize) -> Option<()> {
    let mut at = 0;
    loop {
        let token = *block.get(at)?;
        at += 1;
        let literals = length(block, &mut at, token >> 4)?;
        let end = at.checked_add(literals)?;
        out.extend_from_slice(block.get(at..end)?);
        at = end;
        if out.len() - begin > BLOCK {
            return None;
        }
        if at == block.len() {
            return Some(()); // the last sequence has literals only
        }
        let distance = usize::from(*block.get(at)?) | usize::from(*block.get(at + 1)?) << 8;
        at += 2;
        let count = length(block, &mut at, token & 15)?.checked_add(4)?;
        let from = out.len().checked_sub(distance).filter(|&f| distance > 0 && f >= begin)?;
        if count > BLOCK || out.len() - begin + count > BLOCK {
            return None;
        }
        if distance >= count {
            out.extend_from_within(from..from + count);
        } else {
            // overlapping: repeats what it has just written
            (from..from + count).for_each(|i| out.push(out[i]));
        }
    }
}

/// Four bits of the token, and bytes to add while they are 255.
fn length(block: &[u8], at: &mut usize, nibble: u8) -> Option<usize> {
    let mut length = usize::from(nibble);
    if nibble == 15 {
        loop {
            let byte = *block.get(*at)?;
            *at += 1;
            length += usize::from(byte);
            if byte != 255 {
                break;
            }
        }
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(blocks: &[&[u8]]) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for block in blocks {
            out.extend_from_slice(&(block.len() as u32).to_le_bytes());
            out.extend_from_slice(block);
        }
        out
    }

    #[test]
    fn literals_copies_and_repeats_are_unpacked_block_by_block() {
        // "abcd", then 4 + 4 bytes from 4 back, then "xy"; a second block with a long run of one byte
        let first = [0x44, b'a', b'b', b'c', b'd', 4, 0, 0x20, b'x', b'y'];
        let second = [0x1f, b'z', 1, 0, 30, 0x10, b'!'];
        let mut expected = b"abcdabcdabcdxyz".to_vec();
        expected.extend_from_slice(&[b'z'; 49]);
        expected.push(b'!');
        let mut data = frame(&[&first, &second]);
        assert_eq!(unpack(&data, 1000).unwrap(), expected);
        data.extend_from_slice(&65u32.to_le_bytes());
        assert_eq!(unpack(&data, 1000).unwrap(), expected, "the kernel's size field behind it");
    }

    #[test]
    fn damaged_blocks_are_errors() {
        for block in [&[0x44, b'a'][..], &[0x10, b'a', 9, 0, 0x00], &[0x10, b'a', 0, 0, 0x00]] {
            assert!(unpack(&frame(&[block]), 1000).is_err(), "{block:?}");
        }
        let mut cut = frame(&[&[0x20, b'a', b'b']]);
        cut.pop();
        assert!(unpack(&cut, 1000).unwrap_err().to_string().contains("cut off"));
        let bomb = frame(&[&[0x1f, b'z', 1, 0, 255, 255, 255, 0, 0x10, b'!']]);
        assert!(matches!(unpack(&bomb, 100), Err(SymbolError::TooLarge { .. })));
    }
}
