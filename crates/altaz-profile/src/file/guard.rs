//! What stands between a file from outside and the Parquet decoder: the checksum, and a walk over
//! the headers of all pages before any page is decoded.
//!
//! The decoder allocates what a page header promises (values of a dictionary, bytes of a
//! decompressed page). So the promises are checked against [`limits`] and against each other first.

use xxhash_rust::xxh3::Xxh3;

use super::error::Fault;
use super::limits;

/// Checksum over everything before the footer, and the manifest.
pub(super) fn checksum(before_footer: &[u8], manifest: &str) -> String {
    let mut hash = Xxh3::new();
    hash.update(before_footer);
    hash.update(manifest.as_bytes());
    format!("xxh3:{:016x}", hash.digest())
}

/// What the page headers of a whole file may add up to.
#[derive(Debug)]
pub(super) struct Budget {
    decoded: u64,
    values: u64,
}

impl Budget {
    pub(super) fn new() -> Self {
        // Every column may hold one value per unit; the lists hold the incidences.
        let values = limits::UNITS * super::schema::Column::ALL.len() as u64 + limits::INCIDENCES;
        Budget { decoded: limits::DECODED_BYTES, values }
    }

    fn page(&mut self, header: &PageHeader) -> Result<(), Fault> {
        let bytes = header.uncompressed;
        if bytes > limits::PAGE_BYTES || bytes > self.decoded {
            return Err(Fault::damaged(format!("a page promises {bytes} bytes")));
        }
        self.decoded -= bytes;
        // Four bytes is the least that a value of our types takes in a dictionary.
        if header.dictionary_values.saturating_mul(4) > bytes {
            return Err(Fault::damaged(format!(
                "a dictionary promises {} values in {bytes} bytes",
                header.dictionary_values
            )));
        }
        if header.data_values > self.values {
            return Err(Fault::damaged(format!("a page promises {} values", header.data_values)));
        }
        self.values -= header.data_values;
        Ok(())
    }
}

/// Walks the pages of one column chunk and checks their headers.
pub(super) fn check_pages(mut chunk: &[u8], budget: &mut Budget) -> Result<(), Fault> {
    while !chunk.is_empty() {
        let header = PageHeader::parse(&mut chunk)?;
        let length = usize::try_from(header.compressed).ok().filter(|&n| n <= chunk.len());
        let Some(length) = length else {
            return Err(Fault::damaged("a page is longer than its column"));
        };
        budget.page(&header)?;
        chunk = &chunk[length..];
    }
    Ok(())
}

/// The part of a page header that the decoder allocates by.
#[derive(Debug, Default, PartialEq, Eq)]
struct PageHeader {
    uncompressed: u64,
    compressed: u64,
    data_values: u64,
    dictionary_values: u64,
}

impl PageHeader {
    /// Reads a `PageHeader` structure of the Parquet format (Thrift compact protocol) and moves
    /// `input` behind it.
    fn parse(input: &mut &[u8]) -> Result<Self, Fault> {
        let mut header = PageHeader::default();
        let mut seen_sizes = 0;
        fields(input, |input, id, wire| match (id, wire) {
            (2, wire::I32) => {
                seen_sizes += 1;
                header.uncompressed = size(input)?;
                Ok(())
            }
            (3, wire::I32) => {
                seen_sizes += 1;
                header.compressed = size(input)?;
                Ok(())
            }
            // Data page, dictionary page, data page of version 2: the first field of each is its
            // number of values.
            (5 | 7 | 8, wire::STRUCT) => {
                let mut values = 0;
                fields(input, |input, inner, wire| match (inner, wire) {
                    (1, wire::I32) => {
                        values = size(input)?;
                        Ok(())
                    }
                    _ => skip(input, wire, 0),
                })?;
                let slot =
                    if id == 7 { &mut header.dictionary_values } else { &mut header.data_values };
                *slot = values;
                Ok(())
            }
            _ => skip(input, wire, 0),
        })?;
        if seen_sizes < 2 {
            return Err(Fault::damaged("a page header lacks its sizes"));
        }
        Ok(header)
    }
}

/// Type codes of Thrift's compact protocol.
mod wire {
    pub const STOP: u8 = 0;
    pub const TRUE: u8 = 1;
    pub const FALSE: u8 = 2;
    pub const BYTE: u8 = 3;
    pub const I16: u8 = 4;
    pub const I32: u8 = 5;
    pub const I64: u8 = 6;
    pub const DOUBLE: u8 = 7;
    pub const BINARY: u8 = 8;
    pub const LIST: u8 = 9;
    pub const SET: u8 = 10;
    pub const STRUCT: u8 = 12;
}

const SHORT: &str = "a page header is cut short";

fn byte(input: &mut &[u8]) -> Result<u8, Fault> {
    let (&first, rest) = input.split_first().ok_or_else(|| Fault::damaged(SHORT))?;
    *input = rest;
    Ok(first)
}

fn take(input: &mut &[u8], length: u64) -> Result<(), Fault> {
    let length = usize::try_from(length).ok().filter(|&n| n <= input.len());
    *input = &input[length.ok_or_else(|| Fault::damaged(SHORT))?..];
    Ok(())
}

fn varint(input: &mut &[u8]) -> Result<u64, Fault> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let next = byte(input)?;
        value |= u64::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Fault::damaged("a page header holds a number without an end"))
}

/// A number that must not be negative.
fn size(input: &mut &[u8]) -> Result<u64, Fault> {
    let zigzag = varint(input)?;
    if zigzag & 1 == 1 || zigzag >> 1 > i32::MAX as u64 {
        return Err(Fault::damaged("a page header holds an impossible size"));
    }
    Ok(zigzag >> 1)
}

/// Calls `each` for every field of a structure; `each` must consume the field's value.
fn fields(
    input: &mut &[u8],
    mut each: impl FnMut(&mut &[u8], i16, u8) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut id = 0_i16;
    loop {
        let head = byte(input)?;
        let (delta, wire) = (head >> 4, head & 0x0f);
        if wire == wire::STOP {
            return Ok(());
        }
        id = if delta == 0 {
            let zigzag = varint(input)?;
            let value = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
            i16::try_from(value).map_err(|_| Fault::damaged("a page header has a bad field"))?
        } else {
            id.checked_add(i16::from(delta))
                .ok_or_else(|| Fault::damaged("a page header has a bad field"))?
        };
        each(input, id, wire)?;
    }
}

fn skip(input: &mut &[u8], wire: u8, depth: u8) -> Result<(), Fault> {
    if depth > 8 {
        return Err(Fault::damaged("a page header is nested too deeply"));
    }
    match wire {
        wire::TRUE | wire::FALSE => Ok(()),
        wire::BYTE => byte(input).map(drop),
        wire::I16 | wire::I32 | wire::I64 => varint(input).map(drop),
        wire::DOUBLE => take(input, 8),
        wire::BINARY => {
            let length = varint(input)?;
            take(input, length)
        }
        wire::LIST | wire::SET => {
            let head = byte(input)?;
            let short = u64::from(head >> 4);
            let count = if short == 15 { varint(input)? } else { short };
            for _ in 0..count {
                match head & 0x0f {
                    // In a list a truth value takes a byte of its own.
                    wire::TRUE | wire::FALSE => byte(input).map(drop)?,
                    element => skip(input, element, depth + 1)?,
                }
            }
            Ok(())
        }
        wire::STRUCT => fields(input, |input, _, wire| skip(input, wire, depth + 1)),
        _ => Err(Fault::damaged("a page header has a field of an unknown type")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Header of a page: `kind` is the field of its inner header, 5 for data, 7 for a dictionary.
    fn header(kind: u8, values: u32, uncompressed: u32, compressed: u32) -> Vec<u8> {
        let mut bytes = vec![0x15, if kind == 7 { 4 } else { 0 }];
        for number in [uncompressed, compressed] {
            bytes.push(0x15);
            push(&mut bytes, number);
        }
        bytes.extend([(kind - 3) << 4 | wire::STRUCT, 0x15]);
        push(&mut bytes, values);
        // A binary and a list of two structures follow, to be skipped.
        bytes.extend([0x18, 2, b'a', b'b', 0x19, 0x2c, 0, 0, 0, 0]);
        bytes
    }

    fn push(bytes: &mut Vec<u8>, number: u32) {
        let mut rest = u64::from(number) << 1;
        while rest >= 0x80 {
            bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        bytes.push(rest as u8);
    }

    fn walk(pages: &[Vec<u8>]) -> Result<(), Fault> {
        check_pages(&pages.concat(), &mut Budget::new())
    }

    #[test]
    fn the_sizes_of_every_kind_of_page_are_read() {
        let bytes = header(7, 300, 5000, 70_000);
        let mut input = &bytes[..];
        let expected = PageHeader {
            uncompressed: 5000,
            compressed: 70_000,
            data_values: 0,
            dictionary_values: 300,
        };
        assert_eq!(PageHeader::parse(&mut input).unwrap(), expected);
        assert!(input.is_empty());
        let parsed = PageHeader::parse(&mut &header(8, 9, 1, 1)[..]).unwrap();
        assert_eq!(parsed.data_values, 9);
    }

    #[test]
    fn pages_that_keep_their_promises_pass() {
        walk(&[header(7, 2, 8, 3), vec![0; 3], header(5, 100, 20, 2), vec![0; 2]]).unwrap();
    }

    #[test]
    fn promises_that_would_take_the_memory_are_refused() {
        // Two thousand million values in eight bytes: 64 GB for the decoder's dictionary.
        let promises = [
            header(7, i32::MAX as u32, 8, 0),
            header(5, i32::MAX as u32, 8, 0),
            header(5, 1, limits::PAGE_BYTES as u32 + 1, 0),
            header(5, 1, 1, 1),
        ];
        for promise in promises {
            assert!(walk(&[promise]).is_err());
        }
        // Each page within its bound, all together beyond theirs.
        let page = header(5, 1, limits::PAGE_BYTES as u32, 0);
        assert!(walk(&vec![page.clone(); 64]).is_ok());
        assert!(walk(&vec![page; 65]).is_err());
    }

    #[test]
    fn headers_cut_anywhere_are_refused() {
        let whole = header(5, 7, 9, 0);
        for length in 1..whole.len() {
            assert!(walk(&[whole[..length].to_vec()]).is_err(), "{length} bytes");
        }
    }
}
