//! Decodes raw pages of the kernel's ring buffer (`per_cpu/cpuN/trace_pipe_raw`) into function events.
//!
//! Pure: bytes in, events out; no files, no clocks. Never panics and never reads behind the page or behind what
//! the page says was committed, whatever the bytes are: a page that makes no sense is reported as damaged, with
//! the events before the damage. Format: `include/linux/ring_buffer.h`, `kernel/trace/ring_buffer.c`.

use crate::layout::Layout;

/// Bits of `common_flags`, `include/linux/trace_events.h`.
mod flag {
    pub const HARDIRQ: u8 = 0x08;
    pub const SOFTIRQ: u8 = 0x10;
    pub const NMI: u8 = 0x40;
}

const TYPE_PADDING: u32 = 29;
const TYPE_TIME_EXTEND: u32 = 30;
const TYPE_TIME_STAMP: u32 = 31;
const TIME_DELTA_BITS: u32 = 27;
/// The five top bits do not fit an absolute time stamp and are kept from the page's.
const ABSOLUTE_BITS: u64 = (1 << 59) - 1;
/// In `commit`: events were overwritten before this page.
const MISSED_EVENTS: u64 = 1 << 31;
/// In `commit`: how many is stored behind the data.
const MISSED_STORED: u64 = 1 << 30;
/// `commit` is a 20-bit length beside its flags; larger sub-buffers need more, flags begin at bit 30.
const COMMIT_LENGTH: u64 = MISSED_STORED - 1;

/// In whose behalf the kernel ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Context {
    /// System calls, faults and exceptions of a followed thread.
    Task,
    /// A softirq served while a followed thread was current.
    Softirq,
    /// A hardware interrupt, or an NMI, while a followed thread was current.
    Hardirq,
    /// A kernel thread that works for the service (vhost, kvm).
    KernelWorker,
}

impl Context {
    /// All contexts.
    pub const ALL: [Self; 4] = [Self::Task, Self::Softirq, Self::Hardirq, Self::KernelWorker];

    /// From an event's flags; a hardware interrupt that interrupts a softirq is a hardware interrupt.
    pub fn from_flags(flags: u8) -> Self {
        if flags & (flag::HARDIRQ | flag::NMI) != 0 {
            Self::Hardirq
        } else if flags & flag::SOFTIRQ != 0 {
            Self::Softirq
        } else {
            Self::Task
        }
    }
}

/// One traced call of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Address of the call site in the traced function (its beginning or a few bytes behind).
    pub ip: u64,
    /// The thread that was current.
    pub tid: u32,
    /// `common_flags`.
    pub flags: u8,
    /// `common_preempt_count`.
    pub preempt: u8,
    /// Time in the unit of the instance's clock (ns).
    pub at: u64,
}

impl Event {
    /// The context that the flags say.
    pub fn context(&self) -> Context {
        Context::from_flags(self.flags)
    }
}

/// What a page held besides its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Function events.
    pub events: u64,
    /// Records of other kinds.
    pub others: u64,
    /// Events lost before this page.
    pub lost: Lost,
    /// The page made no sense from some place on; what was before was decoded.
    pub damaged: bool,
}

/// Events lost before a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lost {
    /// None.
    #[default]
    None,
    /// Some; the page had no room for the number.
    Some,
    /// That many.
    Number(u64),
}

impl Lost {
    /// At least that many.
    pub fn at_least(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Some => 1,
            Self::Number(n) => n.max(1),
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Calls `each` with every function event of the page, in order.
///
/// `page` may be shorter than the layout's page size (a short read); nothing behind it is looked at.
pub fn decode(layout: &Layout, page: &[u8], mut each: impl FnMut(Event)) -> Summary {
    let mut summary = Summary::default();
    if walk(layout, page, &mut summary, &mut each).is_none() {
        summary.damaged = true;
    }
    summary
}

/// `None` where the page makes no sense.
fn walk(
    layout: &Layout,
    page: &[u8],
    summary: &mut Summary,
    each: &mut impl FnMut(Event),
) -> Option<()> {
    let mut now = u64_at(page, 0)?;
    let commit = match layout.commit_size {
        4 => u64::from(u32_at(page, layout.commit)?),
        _ => u64_at(page, layout.commit)?,
    };
    let length = usize::try_from(commit & COMMIT_LENGTH).ok()?;
    let end = layout.data.checked_add(length)?;
    if commit & MISSED_EVENTS != 0 {
        // The count follows the data as a long, when the flag says so and it has room.
        summary.lost = match (commit & MISSED_STORED != 0).then(|| u64_at(page, end)).flatten() {
            Some(number) => Lost::Number(number),
            None => Lost::Some,
        };
    }
    // On a 64-bit word the upper half is never used; the lengths are multiples of four.
    let sane = commit >> 32 == 0 && length.is_multiple_of(4);
    let data = page.get(layout.data..end.min(page.len()))?;
    let whole = sane && end <= page.len();

    let record = layout.record;
    let mut rest = data;
    while let Some((head, body)) = rest.split_first_chunk::<4>() {
        let head = u32::from_ne_bytes(*head);
        // The bit field's order follows the byte order.
        let (kind, delta) = if cfg!(target_endian = "little") {
            (head & 31, head >> 5)
        } else {
            (head >> TIME_DELTA_BITS, head & ((1 << TIME_DELTA_BITS) - 1))
        };
        let size = match kind {
            1..=28 => {
                now = now.wrapping_add(u64::from(delta));
                let size = kind as usize * 4;
                let data = body.get(..size)?;
                function(layout, &record, data, now, summary, each);
                size
            }
            0 => {
                now = now.wrapping_add(u64::from(delta));
                // The length counts its own word.
                let size = u32_at(body, 0)? as usize;
                if size < 4 {
                    return None;
                }
                let data = body.get(4..size)?;
                function(layout, &record, data, now, summary, each);
                size.checked_next_multiple_of(4)?
            }
            TYPE_PADDING if delta == 0 => break,
            TYPE_PADDING => u32_at(body, 0)? as usize,
            TYPE_TIME_EXTEND => {
                let high = u64::from(u32_at(body, 0)?);
                now = now.wrapping_add((high << TIME_DELTA_BITS) + u64::from(delta));
                4
            }
            TYPE_TIME_STAMP => {
                let high = u64::from(u32_at(body, 0)?);
                let absolute = (high << TIME_DELTA_BITS) + u64::from(delta);
                now = (now & !ABSOLUTE_BITS) | (absolute & ABSOLUTE_BITS);
                4
            }
            _ => return None,
        };
        rest = body.get(size..)?;
    }
    whole.then_some(())
}

#[inline]
fn function(
    layout: &Layout,
    record: &crate::layout::Record,
    data: &[u8],
    at: u64,
    summary: &mut Summary,
    each: &mut impl FnMut(Event),
) {
    // One check for the record's length lets the compiler drop the others in the usual layout.
    if data.len() < record.len || u16_at(data, record.kind) != Some(layout.function_id) {
        summary.others += 1;
        return;
    }
    let fields = (
        u64_at(data, record.ip),
        u32_at(data, record.pid),
        data.get(record.flags),
        data.get(record.preempt),
    );
    if let (Some(ip), Some(tid), Some(&flags), Some(&preempt)) = fields {
        summary.events += 1;
        each(Event { ip, tid, flags, preempt, at });
    }
}
