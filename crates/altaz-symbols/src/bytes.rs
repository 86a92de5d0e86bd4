//! Little-endian reads that answer `None` outside the input instead of panicking.

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
    let end = window.iter().position(|&b| b == 0)?;
    std::str::from_utf8(&window[..end]).ok()
}
