//! Record batches, format v2 (Kafka protocol guide, "Record Batch"): checked, stored as they came,
//! and opened only for the audit.
//!
//! ```text
//! base offset 8 · length 4 · leader epoch 4 · magic 1 · crc32c 4 · attributes 2 ·
//! last offset delta 4 · base timestamp 8 · max timestamp 8 · producer id 8 · producer epoch 2 ·
//! base sequence 4 · record count 4 · records…
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::io::Read;

const HEADER_BYTES: usize = 61;
/// What the length field does not count: itself and the base offset.
const LENGTH_EXCLUDES: usize = 12;
/// The checksum covers everything from the attributes on.
const CRC_FROM: usize = 21;

const ATTRIBUTE_CODEC: i16 = 0b0111;
const ATTRIBUTE_TRANSACTIONAL: i16 = 0b1_0000;
const ATTRIBUTE_CONTROL: i16 = 0b10_0000;

/// Why a batch is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    Truncated,
    Magic,
    Checksum,
}

/// A batch and what its header says.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    bytes: Bytes,
    attributes: i16,
    last_delta: i32,
    base_timestamp: i64,
    pub(crate) max_timestamp: i64,
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) base_sequence: i32,
    count: i32,
}

/// A record as its producer wrote it.
#[derive(Debug, Clone)]
pub(crate) struct Opened {
    pub(crate) delta: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<(String, Option<Bytes>)>,
}

impl Batch {
    /// Splits what a Produce request carries for one partition, and checks each batch.
    pub(crate) fn split(mut bytes: Bytes) -> Result<Vec<Self>, Flaw> {
        let mut batches = Vec::new();
        while !bytes.is_empty() {
            let length = bytes.get(8..LENGTH_EXCLUDES).ok_or(Flaw::Truncated)?;
            let length = i32::from_be_bytes(length.try_into().expect("four bytes"));
            let length = usize::try_from(length).map_err(|_| Flaw::Truncated)? + LENGTH_EXCLUDES;
            if length < HEADER_BYTES || length > bytes.len() {
                return Err(Flaw::Truncated);
            }
            batches.push(Self::parse(bytes.split_to(length))?);
        }
        Ok(batches)
    }

    fn parse(bytes: Bytes) -> Result<Self, Flaw> {
        if bytes[16] != 2 {
            return Err(Flaw::Magic);
        }
        let mut header = &bytes[17..HEADER_BYTES];
        if header.get_u32() != crc32c::crc32c(&bytes[CRC_FROM..]) {
            return Err(Flaw::Checksum);
        }
        Ok(Self {
            attributes: header.get_i16(),
            last_delta: header.get_i32(),
            base_timestamp: header.get_i64(),
            max_timestamp: header.get_i64(),
            producer_id: header.get_i64(),
            producer_epoch: header.get_i16(),
            base_sequence: header.get_i32(),
            count: header.get_i32(),
            bytes,
        })
    }

    /// The marker that ends a transaction in one partition.
    pub(crate) fn marker(producer_id: i64, producer_epoch: i16, commit: bool, now_ms: i64) -> Self {
        let mut record = BytesMut::new();
        record.put_slice(&[0, 0, 0]); // attributes, timestamp delta, offset delta
        record.put_slice(&[4 << 1]);
        record.put_i16(0);
        record.put_i16(i16::from(commit));
        record.put_slice(&[6 << 1]);
        record.put_i16(0);
        record.put_i32(0); // coordinator epoch
        record.put_u8(0);
        let mut body = BytesMut::new();
        body.put_i16(ATTRIBUTE_TRANSACTIONAL | ATTRIBUTE_CONTROL);
        body.put_i32(0);
        body.put_i64(now_ms);
        body.put_i64(now_ms);
        body.put_i64(producer_id);
        body.put_i16(producer_epoch);
        body.put_i32(-1);
        body.put_i32(1);
        body.put_u8(u8::try_from(record.len() << 1).expect("a marker is short"));
        body.put(record);
        let mut bytes = BytesMut::new();
        bytes.put_i64(0);
        bytes.put_i32(i32::try_from(body.len() + 9).expect("a marker is short"));
        bytes.put_i32(0);
        bytes.put_u8(2);
        bytes.put_u32(crc32c::crc32c(&body));
        bytes.put(body);
        Self::parse(bytes.freeze()).expect("a marker is a batch")
    }

    /// The batch as a consumer gets it: the checksum does not cover its offset.
    pub(crate) fn at(&self, base_offset: i64) -> Bytes {
        let mut bytes = BytesMut::from(&self.bytes[..]);
        bytes[..8].copy_from_slice(&base_offset.to_be_bytes());
        bytes.freeze()
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// How many offsets it takes.
    pub(crate) fn offsets(&self) -> i64 {
        i64::from(self.last_delta) + 1
    }

    pub(crate) fn records(&self) -> u64 {
        u64::try_from(self.count).unwrap_or(0)
    }

    pub(crate) fn last_sequence(&self) -> i32 {
        // Sequences wrap from i32::MAX to 0.
        let last = i64::from(self.base_sequence) + i64::from(self.last_delta);
        i32::try_from(last % (i64::from(i32::MAX) + 1)).expect("taken modulo")
    }

    pub(crate) fn is_transactional(&self) -> bool {
        self.attributes & ATTRIBUTE_TRANSACTIONAL != 0
    }

    pub(crate) fn is_control(&self) -> bool {
        self.attributes & ATTRIBUTE_CONTROL != 0
    }

    /// Whether the stand-in can open it: plain or lz4.
    pub(crate) fn is_readable(&self) -> bool {
        matches!(self.attributes & ATTRIBUTE_CODEC, 0 | 3)
    }

    /// Its records; none where one is malformed.
    pub(crate) fn open(&self) -> Option<Vec<Opened>> {
        let packed = self.bytes.slice(HEADER_BYTES..);
        let mut records = match self.attributes & ATTRIBUTE_CODEC {
            0 => packed,
            3 => {
                let mut plain = Vec::new();
                lz4_flex::frame::FrameDecoder::new(packed.reader())
                    .read_to_end(&mut plain)
                    .ok()?;
                Bytes::from(plain)
            }
            _ => return None,
        };
        (0..self.count).map(|_| self.record(&mut records)).collect()
    }

    fn record(&self, from: &mut Bytes) -> Option<Opened> {
        let length = usize::try_from(varint(from)?).ok()?;
        if length > from.len() || length == 0 {
            return None;
        }
        let mut record = from.split_to(length);
        record.advance(1);
        let timestamp_ms = self.base_timestamp + varint(&mut record)?;
        let delta = varint(&mut record)?;
        let key = blob(&mut record)?;
        let value = blob(&mut record)?;
        let headers = (0..varint(&mut record)?)
            .map(|_| {
                let name = String::from_utf8(blob(&mut record)??.to_vec()).ok()?;
                Some((name, blob(&mut record)?))
            })
            .collect::<Option<_>>()?;
        Some(Opened {
            delta,
            timestamp_ms,
            key,
            value,
            headers,
        })
    }
}

/// A zig-zag varint of at most ten bytes.
fn varint(from: &mut Bytes) -> Option<i64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = from.first().copied()?;
        from.advance(1);
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some((value >> 1).cast_signed() ^ -((value & 1).cast_signed()));
        }
    }
    None
}

/// Bytes behind their length; -1 is null.
fn blob(from: &mut Bytes) -> Option<Option<Bytes>> {
    let length = varint(from)?;
    if length < 0 {
        return Some(None);
    }
    let length = usize::try_from(length)
        .ok()
        .filter(|length| *length <= from.len())?;
    Some(Some(from.split_to(length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_a_batch_a_reader_understands() {
        let marker = Batch::marker(7, 3, true, 1_000);
        assert!(marker.is_control() && marker.is_transactional());
        let records = marker.open().unwrap();
        assert_eq!(records[0].key.as_deref(), Some(&[0, 0, 0, 1][..]));
        let again = Batch::split(marker.at(42)).unwrap();
        assert_eq!((again[0].producer_id, again[0].producer_epoch), (7, 3));
    }

    #[test]
    fn damage_is_noticed() {
        let good = Batch::marker(7, 3, true, 1_000).at(0);
        let mut flipped = good.to_vec();
        *flipped.last_mut().unwrap() ^= 1;
        assert_eq!(Batch::split(flipped.into()).unwrap_err(), Flaw::Checksum);
        assert_eq!(
            Batch::split(good.slice(..good.len() - 1)).unwrap_err(),
            Flaw::Truncated
        );
        let mut old = good.to_vec();
        old[16] = 1;
        assert_eq!(Batch::split(old.into()).unwrap_err(), Flaw::Magic);
    }
}
