//! A page reader that lets only those pages through to the Parquet decoder which it decodes without
//! asserting on them.
//!
//! The decoder takes a page's inner lengths on trust: levels, lengths of texts, that a dictionary
//! came before the first page that uses it. They are checked here, once a page is decompressed.

use bytes::Bytes;
use parquet::basic::{Encoding, Type as Physical};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::schema::types::ColumnDescPtr;

/// Checks the pages of one column of one row group.
pub(super) struct CheckedPages {
    pages: SerializedPageReader<Bytes>,
    column: ColumnDescPtr,
    has_dictionary: bool,
}

impl CheckedPages {
    pub(super) fn new(pages: SerializedPageReader<Bytes>, column: ColumnDescPtr) -> Self {
        CheckedPages { pages, column, has_dictionary: false }
    }

    fn check(&mut self, page: &Page) -> Result<()> {
        match page {
            Page::DictionaryPage { buf, num_values, encoding, .. } => {
                if self.has_dictionary {
                    return bad("a column has two dictionaries");
                }
                if !matches!(encoding, Encoding::PLAIN | Encoding::PLAIN_DICTIONARY) {
                    return bad("a dictionary has an encoding of which profiles make no use");
                }
                self.has_dictionary = true;
                self.check_plain(buf, *num_values)
            }
            Page::DataPage {
                buf,
                num_values,
                encoding,
                def_level_encoding,
                rep_level_encoding,
                ..
            } => {
                let mut rest = &buf[..];
                if self.column.max_rep_level() > 0 {
                    levels(&mut rest, *rep_level_encoding)?;
                }
                let mut present = *num_values;
                if self.column.max_def_level() > 0 {
                    let defined = levels(&mut rest, *def_level_encoding)?;
                    // Only a level of one bit is counted; lists hold no texts.
                    if self.column.max_def_level() == 1 {
                        present = count_ones(defined, *num_values)?;
                    }
                }
                match encoding {
                    Encoding::PLAIN => self.check_plain(rest, present),
                    Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY => {
                        if self.has_dictionary { Ok(()) } else { bad("a dictionary is missing") }
                    }
                    _ => bad("a page has an encoding of which profiles make no use"),
                }
            }
            Page::DataPageV2 { .. } => bad("it has data pages of version 2, which profiles do not"),
        }
    }

    /// Checks that `values` values are there, one after the other.
    fn check_plain(&self, mut bytes: &[u8], values: u32) -> Result<()> {
        if self.column.physical_type() != Physical::BYTE_ARRAY {
            // Numbers: the decoder itself compares their size with what there is.
            return Ok(());
        }
        for _ in 0..values {
            let Some((length, rest)) = bytes.split_first_chunk() else {
                return bad("a page has fewer texts than it says");
            };
            let Some(rest) = rest.get(u32::from_le_bytes(*length) as usize..) else {
                return bad("a text is longer than its page");
            };
            bytes = rest;
        }
        Ok(())
    }
}

/// Moves `bytes` behind levels that carry their length in front, and gives the levels.
fn levels<'a>(bytes: &mut &'a [u8], encoding: Encoding) -> Result<&'a [u8]> {
    if encoding != Encoding::RLE {
        return bad("levels have an encoding of which profiles make no use");
    }
    let split = bytes
        .split_first_chunk()
        .and_then(|(length, rest)| rest.split_at_checked(u32::from_le_bytes(*length) as usize));
    let Some((levels, rest)) = split else {
        return bad("levels are longer than their page");
    };
    *bytes = rest;
    Ok(levels)
}

/// How many of `count` levels of one bit are set, in Parquet's mixture of runs and packed bits.
fn count_ones(mut bytes: &[u8], count: u32) -> Result<u32> {
    let (mut left, mut ones) = (count, 0);
    while left > 0 {
        let mut head = 0_u64;
        let mut shift = 0;
        loop {
            let Some((&byte, rest)) = bytes.split_first() else {
                return bad("levels end too early");
            };
            bytes = rest;
            head |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
            if shift > 56 {
                return bad("levels hold a number without an end");
            }
        }
        let length = head >> 1;
        if head & 1 == 0 {
            let Some((&value, rest)) = bytes.split_first() else {
                return bad("levels end too early");
            };
            bytes = rest;
            let run = u32::try_from(length).unwrap_or(left).min(left);
            ones += run * u32::from(value & 1);
            left -= run;
        } else {
            let groups = usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len());
            let (packed, rest) = bytes.split_at(groups);
            bytes = rest;
            for &byte in packed {
                let bits = left.min(8);
                ones += (u32::from(byte) & ((1 << bits) - 1)).count_ones();
                left -= bits;
            }
        }
        if length == 0 {
            return bad("levels have an empty run");
        }
    }
    Ok(ones)
}

fn bad<T>(what: &str) -> Result<T> {
    Err(ParquetError::General(what.to_owned()))
}

impl PageReader for CheckedPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.pages.get_next_page()?;
        if let Some(page) = &page {
            self.check(page)?;
        }
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.pages.skip_next_page()
    }
}

impl Iterator for CheckedPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ones_are_counted_in_runs_and_in_packed_bits() {
        assert_eq!(count_ones(&[], 0).unwrap(), 0);
        // A run of five ones, then a run of three zeros.
        assert_eq!(count_ones(&[5 << 1, 1, 3 << 1, 0], 8).unwrap(), 5);
        // Two groups of eight packed bits, of which eleven count.
        assert_eq!(count_ones(&[2 << 1 | 1, 0b1010_1010, 0b1111_1011], 11).unwrap(), 6);
        // A run that says more than there is to count.
        assert_eq!(count_ones(&[0xff, 0xff, 0x7e, 1], 9).unwrap_or(99), 99);
        assert_eq!(count_ones(&[0xfe, 0xff, 0x7f, 1], 9).unwrap(), 9);
        for short in [&[][..], &[4], &[0x80], &[0, 1], &[1], &[0xff; 12]] {
            assert!(count_ones(short, 9).is_err(), "{short:?}");
        }
    }
}
