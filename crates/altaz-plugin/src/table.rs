//! The table of blocks: what makes a translation *the same code* as an earlier one.
//!
//! QEMU translates a block again after each code-cache flush, page change or race between vCPUs; each
//! of these must count into the same counter. User code is the same when its page content, offset
//! and size are; kernel code (which is patched in place and loaded once) when its virtual address and
//! bytes are. The guest and the ring are always part of it.
//!
//! Pure: no QEMU, no I/O.

use std::collections::{HashMap, HashSet};

use altaz_wire::{Block, CodePage, PAGE, PageHash};
use xxhash_rust::xxh3::{Xxh3DefaultBuilder, xxh3_64, xxh3_128};

/// Content hash of a page.
pub fn page_hash(page: &[u8; PAGE]) -> PageHash {
    xxh3_128(page)
}

#[derive(PartialEq, Eq, Hash)]
struct Key {
    guest: u8,
    ring: u8,
    size: u16,
    /// Offset in the page for user code, virtual address for kernel code.
    at: u64,
    /// Hash of the page and the next page, or of the block's bytes.
    content: (PageHash, PageHash),
}

/// Blocks and pages seen so far, and those that the host has not been told of.
#[derive(Default)]
pub struct BlockTable {
    ids: HashMap<Key, u32, Xxh3DefaultBuilder>,
    known_pages: HashSet<PageHash, Xxh3DefaultBuilder>,
    new_blocks: Vec<Block>,
    new_pages: Vec<CodePage>,
    len: u32,
    capacity: u32,
    refused: u64,
}

impl BlockTable {
    /// A table that gives out at most `capacity` ids.
    pub fn new(capacity: u32) -> Self {
        Self { capacity, ..Self::default() }
    }

    /// The id of this block; `None` when the table is full (counted in [`Self::refused`]).
    ///
    /// `bytes` are the block's; only used for kernel code (`block.page == 0`).
    pub fn id(&mut self, block: Block, bytes: &[u8]) -> Option<u32> {
        let kernel = block.page == 0;
        let key = Key {
            guest: block.guest,
            ring: block.ring,
            size: block.size,
            at: if kernel { block.vaddr } else { block.page_offset() as u64 },
            content: if kernel {
                (u128::from(xxh3_64(bytes)), 0)
            } else {
                (block.page, block.next_page)
            },
        };
        if let Some(id) = self.ids.get(&key) {
            return Some(*id);
        }
        if self.len == self.capacity {
            self.refused += 1;
            return None;
        }
        let id = self.len;
        self.len += 1;
        self.ids.insert(key, id);
        self.new_blocks.push(block);
        Some(id)
    }

    /// Keeps the page's content for the host, once.
    pub fn page(&mut self, hash: PageHash, content: &[u8; PAGE]) {
        if self.known_pages.insert(hash) {
            self.new_pages.push((hash, content.as_slice().into()));
        }
    }

    /// Number of ids given out.
    pub fn given(&self) -> u32 {
        self.len
    }

    /// Translations that got no id.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Blocks and pages since the last call.
    pub fn take_new(&mut self) -> (Vec<Block>, Vec<CodePage>) {
        (std::mem::take(&mut self.new_blocks), std::mem::take(&mut self.new_pages))
    }
}

/// Instructions that change which code runs next without a jump.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Special {
    /// `VMRUN`: enters a nested guest (AMD64 manual, volume 3: `0F 01 D8`).
    Vmrun,
    /// `MOV CR3, reg`: changes the address space (`0F 22 /3`); the number of the register.
    MovToCr3(u8),
}

/// Recognises [`Special`] instructions in 64-bit code.
pub fn special(insn: &[u8]) -> Option<Special> {
    let (rex, rest) = match insn {
        [rex @ 0x40..=0x4f, rest @ ..] => (*rex, rest),
        _ => (0, insn),
    };
    match rest {
        [0x0f, 0x01, 0xd8] => Some(Special::Vmrun),
        // mod is ignored by the processor; reg selects the control register, REX.R would be CR11.
        [0x0f, 0x22, modrm] if (modrm >> 3) & 7 == 3 && rex & 4 == 0 => {
            Some(Special::MovToCr3((modrm & 7) | ((rex & 1) << 3)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(page: PageHash, offset: u64, size: u16) -> Block {
        Block { guest: 0, ring: 3, vaddr: 0x5555_0000_0000 + offset, size, page, next_page: 0 }
    }

    #[test]
    fn a_translation_of_the_same_page_at_another_address_is_the_same_block() {
        let mut table = BlockTable::new(10);
        let first = table.id(user(1, 0x123, 9), &[]);
        let mut moved = user(1, 0x123, 9);
        moved.vaddr += 0x7_0000;
        assert_eq!(table.id(moved, &[]), first);
        assert_ne!(table.id(user(2, 0x123, 9), &[]), first, "another page content");
        assert_ne!(table.id(user(1, 0x123, 8), &[]), first, "another length");
        assert_eq!(table.take_new().0.len(), 3);
        assert_eq!(table.take_new().0.len(), 0);
    }

    #[test]
    fn kernel_code_is_told_apart_by_address_and_bytes() {
        let mut table = BlockTable::new(10);
        let kernel = |vaddr| Block { guest: 0, ring: 0, vaddr, size: 2, page: 0, next_page: 0 };
        let a = table.id(kernel(0xffff_ffff_8100_0000), &[0x90, 0xc3]);
        assert_eq!(table.id(kernel(0xffff_ffff_8100_0000), &[0x90, 0xc3]), a);
        assert_ne!(table.id(kernel(0xffff_ffff_8100_0010), &[0x90, 0xc3]), a);
        assert_ne!(table.id(kernel(0xffff_ffff_8100_0000), &[0xeb, 0x10]), a, "patched");
        let mut guest = kernel(0xffff_ffff_8100_0000);
        guest.guest = 1;
        assert_ne!(table.id(guest, &[0x90, 0xc3]), a, "a nested guest's own kernel");
    }

    #[test]
    fn a_full_table_refuses_and_counts_and_still_knows_the_old() {
        let mut table = BlockTable::new(1);
        let first = table.id(user(1, 0, 1), &[]);
        assert_eq!(first, Some(0));
        assert_eq!(table.id(user(1, 1, 1), &[]), None);
        assert_eq!(table.id(user(1, 0, 1), &[]), first);
        assert_eq!(table.refused(), 1);
    }

    #[test]
    fn pages_are_sent_once() {
        let mut table = BlockTable::new(1);
        let page = [7; PAGE];
        let hash = page_hash(&page);
        table.page(hash, &page);
        table.page(hash, &page);
        assert_eq!(table.take_new().1, vec![(hash, page.as_slice().into())]);
    }

    #[test]
    fn vmrun_and_address_space_switches_are_recognised() {
        assert_eq!(special(&[0x0f, 0x01, 0xd8]), Some(Special::Vmrun));
        assert_eq!(special(&[0x0f, 0x22, 0xd8]), Some(Special::MovToCr3(0)));
        assert_eq!(special(&[0x0f, 0x22, 0xdf]), Some(Special::MovToCr3(7)));
        assert_eq!(special(&[0x41, 0x0f, 0x22, 0xdc]), Some(Special::MovToCr3(12)));
        assert_eq!(special(&[0x0f, 0x22, 0xe0]), None, "mov cr4");
        assert_eq!(special(&[0x0f, 0x20, 0xd8]), None, "mov from cr3");
        assert_eq!(special(&[]), None);
    }
}
