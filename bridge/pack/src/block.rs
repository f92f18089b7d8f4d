//! What stands around the sections of a block: head and checksum. The inside is in `FORMAT.md`.

use crate::coding::{Cursor, put_varint};
use crate::error::{Error, Section};

/// No text in UTF-8 begins like this, thus no JSON.
pub(crate) const MAGIC: [u8; 4] = [0xF5, b'S', b'K', b'P'];
const VERSION: u8 = 1;
/// The column section is compressed.
const COMPRESSED: u8 = 1;
/// The checksum at the end.
const CHECKSUM_BYTES: usize = 4;

/// Rows of a block.
pub const ROWS_MAX: usize = 1 << 16;
/// Bytes of all keys, values, header names and header values of a block together.
pub const UNPACKED_BYTES_MAX: usize = 48 << 20;
/// Varying pieces of payloads, and headers, of all rows of a block together.
pub const VALUES_MAX: usize = 1 << 19;
/// The column section before compression.
pub const COLUMN_BYTES_MAX: usize = 64 << 20;

// Every byte of a text or of what payloads have in common is in some row. A piece takes at most
// two numbers of ten bytes and a length of four, a row five numbers besides.
const _: () = assert!(UNPACKED_BYTES_MAX + 24 * VALUES_MAX + 50 * ROWS_MAX <= COLUMN_BYTES_MAX);

/// What a block tells of itself without being decompressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    pub first_offset: u64,
    /// Of the last row; offsets between may be missing.
    pub last_offset: u64,
    pub rows: usize,
    /// Bytes of all keys, values, header names and header values together.
    pub unpacked_bytes: usize,
}

impl Summary {
    /// Reads the head of a block.
    ///
    /// # Errors
    /// When this is no block, one of another version, or its head is malformed. The checksum is
    /// not looked at.
    pub fn read(block: &[u8]) -> Result<Self, Error> {
        Head::read(block).map(|(head, _)| head.summary)
    }

    /// How far the last offset is from the first.
    pub(crate) const fn span(&self) -> u64 {
        self.last_offset - self.first_offset
    }
}

/// Whether a Kafka record's value is a packed block.
#[must_use]
pub fn is_packed(value: &[u8]) -> bool {
    value.starts_with(&MAGIC)
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    pub(crate) summary: Summary,
    pub(crate) compressed: bool,
    pub(crate) column_bytes: usize,
    pub(crate) stored_column_bytes: usize,
    pub(crate) bit_bytes: usize,
}

/// A block whose checksum is right, taken apart.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) head: Head,
    pub(crate) columns: &'a [u8],
    pub(crate) bits: &'a [u8],
}

impl Head {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.extend(MAGIC);
        out.push(VERSION);
        out.push(if self.compressed { COMPRESSED } else { 0 });
        let summary = &self.summary;
        put_varint(out, summary.first_offset);
        put_varint(out, summary.span());
        for count in [
            summary.rows,
            summary.unpacked_bytes,
            self.column_bytes,
            self.stored_column_bytes,
            self.bit_bytes,
        ] {
            put_varint(out, count as u64);
        }
    }

    /// The head, and how long it is.
    fn read(block: &[u8]) -> Result<(Self, usize), Error> {
        if !is_packed(block) {
            return Err(Error::NotPacked);
        }
        let mut cursor = Cursor::new(block, Section::Head);
        cursor.skip(MAGIC.len(), "magic")?;
        let version = cursor.byte("version")?;
        if version != VERSION {
            return Err(Error::Version { version });
        }
        let flags = cursor.byte("flags")?;
        if flags & !COMPRESSED != 0 {
            return Err(cursor.malformed("flags"));
        }
        let first_offset = cursor.varint("first offset")?;
        let span = cursor.varint("last offset")?;
        let rows = cursor.at_most(ROWS_MAX, "number of rows")?;
        let last_offset = first_offset.checked_add(span);
        let last_offset = last_offset.ok_or_else(|| cursor.malformed("last offset"))?;
        // Each row has an offset of its own.
        if rows == 0 || span < rows as u64 - 1 || (rows == 1 && span > 0) {
            return Err(cursor.malformed("number of rows"));
        }
        let head = Self {
            summary: Summary {
                first_offset,
                last_offset,
                rows,
                unpacked_bytes: cursor.at_most(UNPACKED_BYTES_MAX, "number of unpacked bytes")?,
            },
            compressed: flags & COMPRESSED != 0,
            column_bytes: cursor.at_most(COLUMN_BYTES_MAX, "length of the column section")?,
            stored_column_bytes: cursor.at_most(block.len(), "stored length of the columns")?,
            bit_bytes: cursor.at_most(block.len(), "length of the bit section")?,
        };
        if !head.compressed && head.column_bytes != head.stored_column_bytes {
            return Err(cursor.malformed("length of the column section"));
        }
        Ok((head, cursor.at))
    }
}

/// Closes a block.
pub(crate) fn seal(block: &mut Vec<u8>) {
    let checksum = crc32c::crc32c(block);
    block.extend(checksum.to_le_bytes());
}

pub(crate) fn open(block: &[u8]) -> Result<Parts<'_>, Error> {
    let (head, head_bytes) = Head::read(block)?;
    let columns_end = head_bytes + head.stored_column_bytes;
    let bits_end = columns_end + head.bit_bytes;
    if block.len() != bits_end + CHECKSUM_BYTES {
        return Err(Error::Malformed {
            what: "length of the block",
            section: Section::Head,
            at: block.len(),
        });
    }
    let (content, stated) = block.split_at(bits_end);
    let stated = u32::from_le_bytes(stated.try_into().expect("four bytes"));
    let found = crc32c::crc32c(content);
    if found != stated {
        return Err(Error::Checksum { found, stated });
    }
    Ok(Parts {
        head,
        columns: &content[head_bytes..columns_end],
        bits: &content[columns_end..],
    })
}
