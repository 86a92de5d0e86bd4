//! Builds ring-buffer pages as the kernel does.

use altaz_ftrace::layout::Layout;

/// One item of a page.
#[derive(Debug, Clone)]
pub enum Item {
    /// A function record: time since the item before, address, thread, flags.
    Function { delta: u32, ip: u64, tid: u32, flags: u8 },
    /// A function record with the length in a word of its own and that many bytes behind it.
    Long { delta: u32, ip: u64, extra: usize },
    /// A record of another kind.
    Other { delta: u32, kind: u16 },
    /// Time passes.
    Extend { delta: u64 },
    /// The time is this.
    Stamp { at: u64 },
    /// A discarded event of that many words.
    Discarded { words: u32 },
}

/// A page of `size` bytes.
#[derive(Debug, Clone)]
pub struct Page {
    bytes: Vec<u8>,
    size: usize,
}

fn record(kind: u16, ip: u64, tid: u32, flags: u8) -> Vec<u8> {
    let mut record = Vec::with_capacity(24);
    record.extend_from_slice(&kind.to_ne_bytes());
    record.extend_from_slice(&[flags, 0]);
    record.extend_from_slice(&tid.to_ne_bytes());
    record.extend_from_slice(&ip.to_ne_bytes());
    record.extend_from_slice(&(ip + 0x100).to_ne_bytes());
    record
}

impl Page {
    /// An empty page that begins at this time.
    pub fn new(size: usize, at: u64) -> Self {
        let mut bytes = at.to_ne_bytes().to_vec();
        bytes.resize(16, 0);
        Self { bytes, size }
    }

    fn word(&mut self, word: u32) {
        self.bytes.extend_from_slice(&word.to_ne_bytes());
    }

    /// Appends an item; says whether it still fitted.
    pub fn push(&mut self, item: &Item) -> bool {
        let before = self.bytes.len();
        match *item {
            Item::Function { delta, ip, tid, flags } => {
                self.word(6 | (delta << 5));
                self.bytes.extend(record(1, ip, tid, flags));
            }
            Item::Long { delta, ip, extra } => {
                self.word(delta << 5);
                self.word((4 + 24 + extra) as u32);
                self.bytes.extend(record(1, ip, 1, 0));
                self.bytes.resize(self.bytes.len() + extra.next_multiple_of(4), 0xee);
            }
            Item::Other { delta, kind } => {
                self.word(6 | (delta << 5));
                self.bytes.extend(record(kind, 0, 1, 0));
            }
            Item::Extend { delta } => {
                self.word(30 | ((delta as u32 & 0x7ff_ffff) << 5));
                self.word((delta >> 27) as u32);
            }
            Item::Stamp { at } => {
                self.word(31 | ((at as u32 & 0x7ff_ffff) << 5));
                self.word((at >> 27) as u32);
            }
            Item::Discarded { words } => {
                self.word(29 | (1 << 5));
                self.word(4 * (words + 1));
                self.bytes.resize(self.bytes.len() + 4 * words as usize, 0xdd);
            }
        }
        if self.bytes.len() > self.size {
            self.bytes.truncate(before);
            return false;
        }
        true
    }

    /// The finished page with these flags in `commit` and the count of lost events behind the data.
    pub fn finish(mut self, flags: u64, lost: Option<u64>) -> Vec<u8> {
        let commit = (self.bytes.len() - 16) as u64 | flags;
        self.bytes[8..16].copy_from_slice(&commit.to_ne_bytes());
        self.bytes.extend(lost.into_iter().flat_map(u64::to_ne_bytes));
        self.bytes.resize(self.bytes.len().max(self.size), 0);
        self.bytes
    }
}

/// A page full of calls, as a busy service fills it; and how many.
#[allow(dead_code, reason = "not every test and bench wants it")]
pub fn full(at: u64) -> (Vec<u8>, u64) {
    let mut page = Page::new(Layout::usual().page_size, at);
    let mut n = 0;
    while page.push(&Item::Function {
        delta: 300,
        ip: 0xffff_ffff_8100_0004 + (n * 7919 % 800) * 16,
        tid: 4242,
        flags: if n % 16 == 0 { 0x10 } else { 0 },
    }) {
        n += 1;
    }
    (page.finish(0, None), n)
}
