//! What the QEMU plugin (`altaz-plugin`) and the host side of the exact instrument
//! (`altaz-collect::exact`) say to each other.
//!
//! It is a crate of its own because the plugin stands alone in its licence (GPL-2.0-or-later, as the
//! interface of QEMU that it uses) and the rest of altaz must not depend on it; both depend on this.
//!
//! A frame is a little-endian `u32` length (of all that follows), a `u8` kind, and a payload. Both
//! ends run on the same machine, so integers are little-endian and fixed in size. Decoding takes
//! bytes from outside the process: it checks every length before it allocates and never panics.
//!
//! Nothing in here does I/O beyond the `Read`/`Write` it is handed.

use std::io::{self, Read, Write};

/// Version of this protocol. Plugin and host refuse each other when it differs.
pub const WIRE_VERSION: u32 = 1;

/// Guest page size, bytes. x86-64 and most aarch64 kernels.
pub const PAGE: usize = 4096;

/// Longest frame that is accepted, bytes.
pub const MAX_FRAME: usize = 1 << 30;

/// Slot number of split counts whose address space is not known.
pub const SLOT_UNKNOWN: u16 = 0;

/// Why a frame could not be read.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The stream ended between frames: the peer is gone.
    #[error("the peer closed the stream")]
    Closed,
    /// The stream failed.
    #[error("reading from the instrument's stream failed: {0}")]
    Io(#[from] io::Error),
    /// The bytes are not a frame of this protocol.
    #[error("the instrument's stream is damaged at byte {at} of a frame: {what}")]
    Malformed {
        /// Offset in the frame's payload.
        at: usize,
        /// What was expected there.
        what: &'static str,
    },
}

/// 128-bit content hash (xxh3) of a code page.
pub type PageHash = u128;

/// A code page: the hash of its content, and the content ([`PAGE`] bytes).
pub type CodePage = (PageHash, Box<[u8]>);

/// What the host tells the plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToPlugin {
    /// First message, before the guest's first instruction.
    Config {
        /// Pages whose blocks are counted apart by the address space (CR3) that executes them.
        split_pages: Vec<PageHash>,
    },
    /// Close the current window and send a [`Snapshot`].
    Window {
        /// Returned in the snapshot.
        id: u32,
    },
}

/// What the plugin tells the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromPlugin {
    /// First message.
    Hello(Hello),
    /// Answer to [`ToPlugin::Window`].
    Snapshot(Snapshot),
}

/// The plugin's greeting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// [`WIRE_VERSION`] of the plugin.
    pub wire_version: u32,
    /// Plugin API version that QEMU offers.
    pub api_version: u32,
    /// Number of vCPUs.
    pub vcpus: u32,
}

/// A block as it was first translated.
///
/// Ids are given in order: the n-th block ever sent has the id n.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// 0: the observed machine itself; otherwise 1 + the index of the nested guest.
    pub guest: u8,
    /// Privilege ring at translation.
    pub ring: u8,
    /// Virtual address of the first translator. For user code this is *not* where every process
    /// has it: translations are shared by physical page.
    pub vaddr: u64,
    /// Size in bytes.
    pub size: u16,
    /// Content of the page that holds its first byte; 0 for kernel code, which is named by address.
    pub page: PageHash,
    /// Content of the page that holds its last byte, when that is another one; otherwise 0.
    pub next_page: PageHash,
}

impl Block {
    /// Offset of the first byte in its page.
    pub fn page_offset(&self) -> usize {
        (self.vaddr as usize) & (PAGE - 1)
    }
}

/// Executions of a block in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Block id.
    pub block: u32,
    /// Executions since the last window.
    pub count: u64,
}

/// Executions of a split block in a window by one address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitCount {
    /// Block id.
    pub block: u32,
    /// Index into [`Snapshot::slots`] over all snapshots, or [`SLOT_UNKNOWN`].
    pub slot: u16,
    /// Executions since the last window.
    pub count: u64,
}

/// Everything that happened in a window.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Id of the request.
    pub id: u32,
    /// Time at which reading began, ns of the machine's monotonic clock.
    pub begin_ns: u64,
    /// Time at which reading ended.
    pub end_ns: u64,
    /// Translations without a counter since the start (block table full). Executions of these are
    /// lost events.
    pub uncounted_blocks: u64,
    /// Page-table bases of nested guests' monitors, by guest index: all since the start.
    pub guests: Vec<u64>,
    /// Page-table base by slot, all since the start; the first is [`SLOT_UNKNOWN`]'s and 0.
    pub slots: Vec<u64>,
    /// Code pages that are new since the last snapshot.
    pub pages: Vec<CodePage>,
    /// Blocks that are new since the last snapshot.
    pub blocks: Vec<Block>,
    /// Counts, ascending by block.
    pub counts: Vec<Count>,
    /// Counts of split blocks.
    pub split: Vec<SplitCount>,
}

const K_CONFIG: u8 = 1;
const K_WINDOW: u8 = 2;
const K_HELLO: u8 = 3;
const K_SNAPSHOT: u8 = 4;

impl ToPlugin {
    /// Writes the message as one frame.
    ///
    /// # Errors
    /// When the stream fails.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut p = Payload::default();
        let kind = match self {
            Self::Config { split_pages } => {
                p.u32(split_pages.len() as u32);
                split_pages.iter().for_each(|h| p.u128(*h));
                K_CONFIG
            }
            Self::Window { id } => {
                p.u32(*id);
                K_WINDOW
            }
        };
        write_frame(out, kind, &p.0)
    }

    /// Reads the next message.
    ///
    /// # Errors
    /// [`WireError::Closed`] at the end of the stream; otherwise as named.
    pub fn read(input: &mut impl Read) -> Result<Self, WireError> {
        let (kind, bytes) = read_frame(input)?;
        let mut c = Cursor { bytes: &bytes, at: 0 };
        let message = match kind {
            K_CONFIG => Self::Config { split_pages: c.list(16, |c| c.u128())? },
            K_WINDOW => Self::Window { id: c.u32()? },
            _ => return Err(c.bad("an unknown kind of frame")),
        };
        c.end()?;
        Ok(message)
    }
}

impl FromPlugin {
    /// Writes the message as one frame.
    ///
    /// # Errors
    /// When the stream fails.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut p = Payload::default();
        let kind = match self {
            Self::Hello(h) => {
                p.u32(h.wire_version);
                p.u32(h.api_version);
                p.u32(h.vcpus);
                K_HELLO
            }
            Self::Snapshot(s) => {
                s.encode(&mut p);
                K_SNAPSHOT
            }
        };
        write_frame(out, kind, &p.0)
    }

    /// Reads the next message.
    ///
    /// # Errors
    /// [`WireError::Closed`] at the end of the stream; otherwise as named.
    pub fn read(input: &mut impl Read) -> Result<Self, WireError> {
        let (kind, bytes) = read_frame(input)?;
        Self::decode(kind, &bytes)
    }

    /// Decodes the payload of a frame.
    ///
    /// # Errors
    /// [`WireError::Malformed`] when the bytes are not that message.
    pub fn decode(kind: u8, bytes: &[u8]) -> Result<Self, WireError> {
        let mut c = Cursor { bytes, at: 0 };
        let message = match kind {
            K_HELLO => Self::Hello(Hello {
                wire_version: c.u32()?,
                api_version: c.u32()?,
                vcpus: c.u32()?,
            }),
            K_SNAPSHOT => Self::Snapshot(Snapshot::decode(&mut c)?),
            _ => return Err(c.bad("an unknown kind of frame")),
        };
        c.end()?;
        Ok(message)
    }
}

impl Snapshot {
    fn encode(&self, p: &mut Payload) {
        p.u32(self.id);
        p.u64(self.begin_ns);
        p.u64(self.end_ns);
        p.u64(self.uncounted_blocks);
        p.u32(self.guests.len() as u32);
        self.guests.iter().for_each(|g| p.u64(*g));
        p.u32(self.slots.len() as u32);
        self.slots.iter().for_each(|s| p.u64(*s));
        p.u32(self.pages.len() as u32);
        for (hash, bytes) in &self.pages {
            p.u128(*hash);
            debug_assert_eq!(bytes.len(), PAGE);
            p.0.extend_from_slice(bytes);
        }
        p.u32(self.blocks.len() as u32);
        for b in &self.blocks {
            p.0.extend_from_slice(&[b.guest, b.ring]);
            p.u16(b.size);
            p.u64(b.vaddr);
            p.u128(b.page);
            p.u128(b.next_page);
        }
        p.u32(self.counts.len() as u32);
        for c in &self.counts {
            p.u32(c.block);
            p.u64(c.count);
        }
        p.u32(self.split.len() as u32);
        for c in &self.split {
            p.u32(c.block);
            p.u16(c.slot);
            p.u64(c.count);
        }
    }

    fn decode(c: &mut Cursor<'_>) -> Result<Self, WireError> {
        Ok(Self {
            id: c.u32()?,
            begin_ns: c.u64()?,
            end_ns: c.u64()?,
            uncounted_blocks: c.u64()?,
            guests: c.list(8, |c| c.u64())?,
            slots: c.list(8, |c| c.u64())?,
            pages: c.list(16 + PAGE, |c| Ok((c.u128()?, c.take(PAGE)?.into())))?,
            blocks: c.list(44, |c| {
                let [guest, ring] = c.array::<2>()?;
                Ok(Block {
                    guest,
                    ring,
                    size: c.u16()?,
                    vaddr: c.u64()?,
                    page: c.u128()?,
                    next_page: c.u128()?,
                })
            })?,
            counts: c.list(12, |c| Ok(Count { block: c.u32()?, count: c.u64()? }))?,
            split: c.list(14, |c| {
                Ok(SplitCount { block: c.u32()?, slot: c.u16()?, count: c.u64()? })
            })?,
        })
    }
}

fn write_frame(out: &mut impl Write, kind: u8, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len() + 1)
        .ok()
        .filter(|l| *l as usize <= MAX_FRAME)
        .ok_or_else(|| io::Error::other("a frame is longer than the protocol allows"))?;
    let mut head = [0; 5];
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4] = kind;
    out.write_all(&head)?;
    out.write_all(payload)?;
    out.flush()
}

fn read_frame(input: &mut impl Read) -> Result<(u8, Vec<u8>), WireError> {
    let mut head = [0; 5];
    let mut have = 0;
    while have < head.len() {
        match input.read(&mut head[have..]) {
            Ok(0) if have == 0 => return Err(WireError::Closed),
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(n) => have += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    if length == 0 || length > MAX_FRAME {
        return Err(WireError::Malformed { at: 0, what: "a frame length out of range" });
    }
    // Grown while reading: a false length must not allocate a gigabyte.
    let mut bytes = Vec::new();
    input.take(length as u64 - 1).read_to_end(&mut bytes)?;
    if bytes.len() != length - 1 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok((head[4], bytes))
}

#[derive(Default)]
struct Payload(Vec<u8>);

impl Payload {
    fn u16(&mut self, v: u16) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }
    fn u32(&mut self, v: u32) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }
    fn u64(&mut self, v: u64) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }
    fn u128(&mut self, v: u128) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn bad(&self, what: &'static str) -> WireError {
        WireError::Malformed { at: self.at, what }
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], WireError> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..n).ok_or(self.bad("more bytes"))?;
        self.at += n;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_le_bytes)
    }
    fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_le_bytes)
    }
    fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_le_bytes)
    }
    fn u128(&mut self) -> Result<u128, WireError> {
        self.array().map(u128::from_le_bytes)
    }

    /// A `u32` number of items of `size` bytes each.
    fn list<T>(
        &mut self,
        size: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, WireError>,
    ) -> Result<Vec<T>, WireError> {
        let n = self.u32()? as usize;
        if n.checked_mul(size).is_none_or(|bytes| bytes > self.bytes.len() - self.at) {
            return Err(self.bad("a list that fits into its frame"));
        }
        (0..n).map(|_| item(self)).collect()
    }

    fn end(&self) -> Result<(), WireError> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.bad("the end of the frame")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn snapshot() -> Snapshot {
        Snapshot {
            id: 7,
            begin_ns: 1,
            end_ns: 2,
            uncounted_blocks: 0,
            guests: vec![0x1000],
            slots: vec![0, 0x2000],
            pages: vec![(9, vec![0x90; PAGE].into())],
            blocks: vec![Block {
                guest: 0,
                ring: 3,
                vaddr: 0x7fff_1234_5ffe,
                size: 11,
                page: 9,
                next_page: 10,
            }],
            counts: vec![Count { block: 0, count: u64::MAX }],
            split: vec![SplitCount { block: 0, slot: 1, count: 3 }],
        }
    }

    #[test]
    fn a_snapshot_comes_back_as_it_was_sent() {
        let message = FromPlugin::Snapshot(snapshot());
        let mut bytes = Vec::new();
        message.write(&mut bytes).unwrap();
        assert_eq!(FromPlugin::read(&mut bytes.as_slice()).unwrap(), message);
    }

    #[test]
    fn the_end_of_the_stream_is_told_from_a_torn_frame() {
        assert!(matches!(ToPlugin::read(&mut [].as_slice()), Err(WireError::Closed)));
        let mut bytes = Vec::new();
        ToPlugin::Window { id: 3 }.write(&mut bytes).unwrap();
        bytes.pop();
        assert!(matches!(ToPlugin::read(&mut bytes.as_slice()), Err(WireError::Io(_))));
    }

    proptest! {
        #[test]
        fn damaged_frames_never_panic(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
            let mut bytes = Vec::new();
            FromPlugin::Snapshot(snapshot()).write(&mut bytes).unwrap();
            for (at, value) in flips {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            let _ = FromPlugin::read(&mut bytes.as_slice());
        }

        #[test]
        fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0u8..6) {
            let _ = FromPlugin::decode(kind, &bytes);
            let _ = ToPlugin::read(&mut bytes.as_slice());
        }

        #[test]
        fn config_comes_back(split_pages in prop::collection::vec(any::<u128>(), 0..50)) {
            let message = ToPlugin::Config { split_pages };
            let mut bytes = Vec::new();
            message.write(&mut bytes).unwrap();
            prop_assert_eq!(ToPlugin::read(&mut bytes.as_slice()).unwrap(), message);
        }
    }
}
