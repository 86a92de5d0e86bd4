//! The kernel's description of its own types, as far as to say where a field of a structure lies.
//!
//! Pure: takes the bytes of `/sys/kernel/btf/vmlinux`. Format: the kernel's
//! `Documentation/bpf/btf.rst`. Anything odd in it ends the search without an answer.

const MAGIC: u16 = 0xeb9f;
const STRUCT: u32 = 4;
const UNION: u32 = 5;

/// Offset in bytes of `field` in the first structure named `structure`; `None` when there is no
/// such thing, or it is a bit field.
pub fn field_offset(btf: &[u8], structure: &str, field: &str) -> Option<u32> {
    if u16::from_ne_bytes(*btf.first_chunk()?) != MAGIC {
        return None;
    }
    let header = word(btf, 4)? as usize;
    let section = |at: usize| -> Option<&[u8]> {
        let start = header.checked_add(word(btf, at)? as usize)?;
        btf.get(start..start.checked_add(word(btf, at + 4)? as usize)?)
    };
    let (types, names) = (section(8)?, section(16)?);
    let is_named = |offset: u32, name: &str| {
        names
            .get(offset as usize..)
            .and_then(|rest| rest.get(..=name.len()))
            .is_some_and(|s| s.split_last() == Some((&0, name.as_bytes())))
    };
    let mut at = 0;
    while let (Some(name), Some(info)) = (word(types, at), word(types, at + 4)) {
        let (kind, members) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
        at += 12;
        if (kind == STRUCT || kind == UNION) && is_named(name, structure) {
            let member = (0..members)
                .map(|m| at + 12 * m)
                .find(|m| word(types, *m).is_some_and(|name| is_named(name, field)))?;
            let offset = word(types, member + 8)?;
            // With bit fields about, the upper byte is the number of bits.
            let with_bits = info >> 31 == 1;
            let bits = if with_bits { offset & 0xff_ffff } else { offset };
            let is_bits = with_bits && offset >> 24 != 0;
            return (!is_bits && bits.is_multiple_of(8)).then_some(bits / 8);
        }
        at += match kind {
            // Integer, variable, declaration tag.
            1 | 14 | 17 => 4,
            // Array.
            3 => 12,
            // Structure, union, section, 64-bit enumeration: 12 bytes a member.
            STRUCT | UNION | 15 | 19 => 12 * members,
            // Enumeration, prototype.
            6 | 13 => 8 * members,
            // Pointer, forward, typedef, qualifiers, function, float, type tag.
            2 | 7..=12 | 16 | 18 => 0,
            // One that came later, whose length nobody here knows.
            _ => return None,
        };
    }
    None
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|w| u32::from_ne_bytes(*w))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An integer, then `struct t { int a; int b; }`, the way `pahole -J` writes them.
    pub(crate) fn sample() -> Vec<u8> {
        let names = b"\0int\0t\0a\0b\0";
        let mut types: Vec<u32> = vec![1, 1 << 24, 4, 32];
        types.extend([5, STRUCT << 24 | 2, 8, 7, 1, 0, 9, 1, 32]);
        let types: Vec<u8> = types.iter().flat_map(|w| w.to_ne_bytes()).collect();
        let mut btf = MAGIC.to_ne_bytes().to_vec();
        btf.extend([1, 0]);
        for w in [24, 0, types.len(), types.len(), names.len()] {
            btf.extend((w as u32).to_ne_bytes());
        }
        btf.extend(types);
        btf.extend(names);
        btf
    }

    #[test]
    fn a_field_of_a_structure_is_found() {
        let btf = sample();
        assert_eq!(field_offset(&btf, "t", "a"), Some(0));
        assert_eq!(field_offset(&btf, "t", "b"), Some(4));
        assert_eq!(field_offset(&btf, "t", "c"), None);
        assert_eq!(field_offset(&btf, "in", "a"), None);
        assert_eq!(field_offset(&btf, "int", "a"), None);
    }

    #[test]
    fn a_truncated_description_answers_nothing_and_does_not_panic() {
        let btf = sample();
        for end in 0..btf.len() {
            assert_eq!(field_offset(&btf[..end], "t", "b"), None, "{end}");
        }
    }

    #[test]
    fn this_kernels_description_is_readable_if_it_has_one() {
        // In every kernel, by the ABI of the linker's sections: `list_head` is two pointers.
        if let Ok(btf) = std::fs::read("/sys/kernel/btf/vmlinux") {
            assert_eq!(field_offset(&btf, "list_head", "prev"), Some(8));
        }
    }
}
