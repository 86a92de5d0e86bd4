//! Little-endian reads that answer `None` outside the input instead of panicking, and a limit for what strings take.

use crate::SymbolError;

/// `len` bytes at `at`.
pub(crate) fn slice(data: &[u8], at: u64, len: u64) -> Option<&[u8]> {
    let start = usize::try_from(at).ok()?;
    let end = start.checked_add(usize::try_from(len).ok()?)?;
    data.get(start..end)
}

/// The bytes from `at` on, at most `len` of them.
pub(crate) fn slice_clamped(data: &[u8], at: u64, len: u64) -> &[u8] {
    let start = usize::try_from(at).unwrap_or(usize::MAX).min(data.len());
    let rest = &data[start..];
    &rest[..usize::try_from(len).unwrap_or(usize::MAX).min(rest.len())]
}

pub(crate) fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(data.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

pub(crate) fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(data.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

pub(crate) fn i32_at(data: &[u8], at: usize) -> Option<i32> {
    u32_at(data, at).map(u32::cast_signed)
}

pub(crate) fn u64_at(data: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(data.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// The zero-terminated string at `at`, at most `limit` bytes long; `None` if it is not UTF-8 or not terminated.
pub(crate) fn c_str(data: &[u8], at: usize, limit: usize) -> Option<&str> {
    let rest = data.get(at..)?;
    let window = &rest[..rest.len().min(limit)];
    let end = memchr::memchr(0, window)?;
    std::str::from_utf8(&window[..end]).ok()
}

/// Bounds time and memory for strings: an honest file holds each of its names about once, but thousands of entries
/// can point into one long string.
#[derive(Debug)]
pub(crate) struct Budget {
    left: usize,
    limit: usize,
}

impl Budget {
    /// For a file of this many bytes.
    pub(crate) fn new(file: usize) -> Self {
        let limit = file.saturating_mul(4).saturating_add(1 << 20);
        Self { left: limit, limit }
    }

    /// Spends `bytes`.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<(), SymbolError> {
        self.left = self.left.checked_sub(bytes).ok_or(SymbolError::TooLarge {
            what: "the names in the file's tables together",
            claimed: (self.limit - self.left + bytes) as u64,
            limit: self.limit as u64,
        })?;
        Ok(())
    }

    /// Like [`c_str`], paid for by the bytes looked at.
    pub(crate) fn c_str<'a>(
        &mut self,
        data: &'a [u8],
        at: usize,
        limit: usize,
    ) -> Result<Option<&'a str>, SymbolError> {
        let found = c_str(data, at, limit);
        let looked_at = data.len().saturating_sub(at).min(limit);
        self.take(found.map_or(looked_at, str::len))?;
        Ok(found)
    }
}
