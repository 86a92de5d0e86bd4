//! The ELF image (`vmlinux`) inside a compressed kernel (`vmlinuz`, bzImage).
//!
//! Boot protocol: `Documentation/arch/x86/boot.rst` of the kernel.

use crate::SymbolError;
use crate::bytes::{c_str, slice, u16_at, u32_at};
use crate::lz4;
use std::io::Read;

/// Kernels unpack to some 60 MB; debug builds to several times that.
const UNPACKED_LIMIT: u64 = 512 << 20;
const WHAT: &str = "the kernel image";

/// Returns the `vmlinux` ELF file in a bzImage; an uncompressed `vmlinux` comes back as it is.
///
/// # Errors
/// When it is neither, is cut off, or is compressed with something other than zstd, gzip or LZ4.
pub fn decompress_kernel(image: &[u8]) -> Result<Vec<u8>, SymbolError> {
    if image.starts_with(b"\x7fELF") {
        return Ok(image.to_vec());
    }
    let payload = payload(image)?;
    let unsupported = |name| Err(SymbolError::UnsupportedCompression(name));
    let unpacked = match payload {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            // Behind the frame stand four bytes with the unpacked size.
            let decoder = zstd::stream::read::Decoder::with_buffer(payload);
            read_all(decoder.map(zstd::stream::read::Decoder::single_frame))?
        }
        [0x1f, 0x8b, ..] => read_all(Ok(flate2::read::GzDecoder::new(payload)))?,
        [0xfd, b'7', b'z', ..] => return unsupported("xz"),
        [0x5d, 0, 0, ..] => return unsupported("lzma"),
        [b'B', b'Z', b'h', ..] => return unsupported("bzip2"),
        _ if payload.starts_with(&lz4::MAGIC) => lz4::unpack(payload, UNPACKED_LIMIT)?,
        [0x89, b'L', b'Z', b'O', ..] => return unsupported("lzo"),
        [0x7f, b'E', b'L', b'F', ..] => payload.to_vec(),
        _ => return Err(SymbolError::damaged(WHAT, "its payload has no known compression magic")),
    };
    if !unpacked.starts_with(b"\x7fELF") {
        return Err(SymbolError::damaged(WHAT, "what it unpacks to is no ELF file"));
    }
    Ok(unpacked)
}

fn payload(image: &[u8]) -> Result<&[u8], SymbolError> {
    let header = || SymbolError::damaged(WHAT, "it has no x86 boot header (HdrS at 0x202)");
    if image.get(0x202..0x206) != Some(b"HdrS") {
        return Err(header());
    }
    // payload_offset exists since protocol 2.08 (Linux 2.6.26)
    let version = u16_at(image, 0x206).ok_or_else(header)?;
    if version < 0x208 {
        let detail = format!("its boot protocol {version:#x} is older than 2.08");
        return Err(SymbolError::damaged(WHAT, detail));
    }
    let sectors = match image.get(0x1f1) {
        None | Some(0) => 4,
        Some(&n) => u64::from(n),
    };
    let offset = u64::from(u32_at(image, 0x248).ok_or_else(header)?);
    let length = u64::from(u32_at(image, 0x24c).ok_or_else(header)?);
    let start = (sectors + 1) * 512 + offset;
    slice(image, start, length).ok_or_else(|| {
        let detail = format!(
            "its payload of {length} bytes at {start} ends behind the file's {}",
            image.len()
        );
        SymbolError::damaged(WHAT, detail)
    })
}

fn read_all(decoder: std::io::Result<impl Read>) -> Result<Vec<u8>, SymbolError> {
    let damaged =
        |e: std::io::Error| SymbolError::damaged(WHAT, format!("its payload does not unpack: {e}"));
    let mut out = Vec::new();
    decoder.map_err(damaged)?.take(UNPACKED_LIMIT + 1).read_to_end(&mut out).map_err(damaged)?;
    if out.len() as u64 > UNPACKED_LIMIT {
        let (claimed, limit) = (out.len() as u64, UNPACKED_LIMIT);
        return Err(SymbolError::TooLarge { what: WHAT, claimed, limit });
    }
    Ok(out)
}

/// The version text in a bzImage's header, such as `6.12.9-cloud-amd64 (…) #1 SMP …`.
pub fn kernel_version(image: &[u8]) -> Option<&str> {
    if image.get(0x202..0x206) != Some(b"HdrS") {
        return None;
    }
    c_str(image, 0x200 + usize::from(u16_at(image, 0x20e)?), 512).filter(|s| !s.is_empty())
}
