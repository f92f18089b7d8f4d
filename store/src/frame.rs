//! The frame codec: bytes in, bytes out, no files. The layout is in the crate documentation.

use crate::encoding;
use crate::{Change, Codec, Kind, Offset, Record, WallNanos};

pub(crate) const HEADER_BYTES: usize = 64;
/// Starts every frame. Not text, so that it is rare inside payloads; the checksum decides.
pub(crate) const MARKER: [u8; 4] = [0xF5, b'S', b'K', 0x0A];
/// A frame is closed once its body has this many bytes, so that readers hold little at a time.
pub(crate) const BODY_BYTES_TARGET: usize = 256 * 1024;
/// What a header may claim, so that a damaged one cannot ask for all the memory there is.
const BODY_BYTES_MAX: u32 = 2 * crate::APPEND_BYTES_MAX as u32;

const _: () = assert!(BODY_BYTES_TARGET + crate::APPEND_BYTES_MAX + 32 < BODY_BYTES_MAX as usize);

/// Bits of the header's flags byte.
pub(crate) mod flags {
    /// The body has catalog changes.
    pub(crate) const CHANGES: u8 = 1;
    /// The body is part of a catalog snapshot; bits for the first and the last part.
    pub(crate) const SNAPSHOT: u8 = 2;
    pub(crate) const SNAPSHOT_FIRST: u8 = 4;
    pub(crate) const SNAPSHOT_LAST: u8 = 8;
    /// Among the records is a gap record.
    pub(crate) const GAPS: u8 = 16;
    pub(crate) const KNOWN: u8 = 31;
}

/// Ties a frame to its segment: checksums start from here, so that a frame that was copied from
/// elsewhere, or is embedded in a payload, does not pass for one of this file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seed(u32);

impl Seed {
    pub(crate) fn new(epoch: u64, base: Offset, sequence: u64) -> Self {
        let crc = crc32c::crc32c(&epoch.to_le_bytes());
        let crc = crc32c::crc32c_append(crc, &base.0.to_le_bytes());
        Self(crc32c::crc32c_append(crc, &sequence.to_le_bytes()))
    }

    pub(crate) fn checksum(self, bytes: &[u8]) -> u32 {
        crc32c::crc32c_append(self.0, bytes)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) payload_bytes: u32,
    pub(crate) body_bytes: u32,
    pub(crate) count: u32,
    pub(crate) base: Offset,
    pub(crate) sequence: u64,
    pub(crate) first_time: WallNanos,
    pub(crate) last_time: WallNanos,
    pub(crate) codec: Codec,
    pub(crate) flags: u8,
    pub(crate) payload_checksum: u32,
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Flaw {
    #[error("no frame marker")]
    Marker,
    #[error("header checksum differs")]
    HeaderChecksum,
    #[error("payload checksum differs")]
    PayloadChecksum,
    #[error("frame ends after the file does")]
    Short,
    #[error("header field out of range")]
    Field,
    #[error("payload does not decode")]
    Payload,
}

impl Header {
    pub(crate) const fn next(&self) -> Offset {
        self.base.plus(self.count as u64)
    }

    /// Header and payload together.
    pub(crate) const fn frame_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + self.payload_bytes as u64
    }

    pub(crate) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub(crate) fn encode(&self, seed: Seed) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&MARKER);
        bytes[4..8].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.count.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.base.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.first_time.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.last_time.0.to_le_bytes());
        bytes[48] = self.codec as u8;
        bytes[49] = self.flags;
        bytes[56..60].copy_from_slice(&self.payload_checksum.to_le_bytes());
        let checksum = seed.checksum(&bytes[..60]);
        bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES], seed: Seed) -> Result<Self, Flaw> {
        if bytes[0..4] != MARKER {
            return Err(Flaw::Marker);
        }
        if seed.checksum(&bytes[..60]) != u32_at(bytes, 60) {
            return Err(Flaw::HeaderChecksum);
        }
        let header = Self {
            payload_bytes: u32_at(bytes, 4),
            body_bytes: u32_at(bytes, 8),
            count: u32_at(bytes, 12),
            base: Offset(u64_at(bytes, 16)),
            sequence: u64_at(bytes, 24),
            first_time: WallNanos(u64_at(bytes, 32).cast_signed()),
            last_time: WallNanos(u64_at(bytes, 40).cast_signed()),
            codec: Codec::from_byte(bytes[48]).ok_or(Flaw::Field)?,
            flags: bytes[49],
            payload_checksum: u32_at(bytes, 56),
        };
        let sane = header.payload_bytes <= BODY_BYTES_MAX
            && header.body_bytes <= BODY_BYTES_MAX
            && header.base.0.checked_add(u64::from(header.count)).is_some()
            && header.flags & !flags::KNOWN == 0;
        if sane { Ok(header) } else { Err(Flaw::Field) }
    }

    pub(crate) fn verify(&self, payload: &[u8], seed: Seed) -> Result<(), Flaw> {
        if seed.checksum(payload) == self.payload_checksum {
            Ok(())
        } else {
            Err(Flaw::PayloadChecksum)
        }
    }

    /// Checks and decodes the payload.
    pub(crate) fn open(&self, payload: &[u8], seed: Seed) -> Result<Body, Flaw> {
        self.verify(payload, seed)?;
        let body = self.codec.unpack(payload, self.body_bytes as usize);
        let body = Body::decode(&body.ok_or(Flaw::Payload)?)?;
        if body.records.len() == self.count as usize {
            Ok(body)
        } else {
            Err(Flaw::Payload)
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// What a frame carries.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) records: Vec<Record>,
    pub(crate) changes: Vec<Change>,
}

impl Body {
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Flaw> {
        encoding::decode(bytes)
            .map(|(records, changes)| Self { records, changes })
            .ok_or(Flaw::Payload)
    }
}

/// An append as its frame will hold it. Made on the caller's thread, so that the writer only
/// copies.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) count: u32,
    records: Vec<u8>,
    changes: Vec<u8>,
    times: Option<(WallNanos, WallNanos)>,
    has_gaps: bool,
    /// What `changes` encodes, for the catalog.
    pub(crate) decoded: Vec<Change>,
}

impl Encoded {
    pub(crate) fn new(records: &[Record], changes: Vec<Change>) -> Self {
        Self {
            count: u32::try_from(records.len()).unwrap_or(u32::MAX),
            records: concatenated(records),
            changes: concatenated(&changes),
            times: records
                .iter()
                .map(Record::event_time)
                .fold(None, |times, at| widen(times, at, at)),
            has_gaps: records.iter().any(|record| record.kind == Kind::Gap),
            decoded: changes,
        }
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.records.len() + self.changes.len()
    }
}

fn concatenated<T: serde::Serialize>(items: &[T]) -> Vec<u8> {
    items
        .iter()
        .fold(Vec::new(), |bytes, item| encoding::append(item, bytes))
}

type Times = Option<(WallNanos, WallNanos)>;

fn widen(times: Times, from: WallNanos, to: WallNanos) -> Times {
    let (first, last) = times.unwrap_or((from, to));
    Some((first.min(from), last.max(to)))
}

/// A frame being filled.
#[derive(Debug)]
pub(crate) struct Builder {
    pub(crate) base: Offset,
    pub(crate) count: u32,
    records: Vec<u8>,
    changes: Vec<u8>,
    changes_count: u32,
    times: Times,
    has_gaps: bool,
    pub(crate) snapshot: u8,
}

impl Builder {
    pub(crate) const fn new(base: Offset) -> Self {
        Self {
            base,
            count: 0,
            records: Vec::new(),
            changes: Vec::new(),
            changes_count: 0,
            times: None,
            has_gaps: false,
            snapshot: 0,
        }
    }

    pub(crate) fn push(&mut self, append: &Encoded) {
        self.count += append.count;
        self.records.extend_from_slice(&append.records);
        self.changes.extend_from_slice(&append.changes);
        self.changes_count += u32::try_from(append.decoded.len()).expect("an append is small");
        self.has_gaps |= append.has_gaps;
        if let Some((first, last)) = append.times {
            self.times = widen(self.times, first, last);
        }
    }

    pub(crate) const fn next(&self) -> Offset {
        self.base.plus(self.count as u64)
    }

    /// What the body will have, give or take.
    pub(crate) const fn bytes(&self) -> usize {
        self.records.len() + self.changes.len() + HEADER_BYTES
    }

    pub(crate) const fn has_changes(&self) -> bool {
        self.changes_count > 0
    }

    pub(crate) const fn is_large(&self) -> bool {
        self.records.len() + self.changes.len() >= BODY_BYTES_TARGET
    }

    /// Writes the frame behind `out`.
    pub(crate) fn finish(
        &self,
        sequence: u64,
        seed: Seed,
        codec: Codec,
        out: &mut Vec<u8>,
    ) -> Header {
        let body = self.body();
        let (codec, payload) = codec.pack(&body);
        let (first_time, last_time) = self.times.unwrap_or_default();
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("a frame is small");
        let header = Header {
            payload_bytes: length(&payload),
            body_bytes: length(&body),
            count: self.count,
            base: self.base,
            sequence,
            first_time,
            last_time,
            codec,
            flags: self.snapshot
                | (u8::from(self.has_changes()) * flags::CHANGES)
                | (u8::from(self.has_gaps) * flags::GAPS),
            payload_checksum: seed.checksum(&payload),
        };
        out.extend_from_slice(&header.encode(seed));
        out.extend_from_slice(&payload);
        header
    }

    /// The postcard form of `(Vec<Record>, Vec<Change>)`, put together from encoded items.
    fn body(&self) -> Vec<u8> {
        let room = self.records.len() + self.changes.len() + 10;
        let mut body = encoding::append(&self.count, Vec::with_capacity(room));
        body.extend_from_slice(&self.records);
        let mut body = encoding::append(&self.changes_count, body);
        body.extend_from_slice(&self.changes);
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> (Builder, Vec<Record>, Vec<Change>) {
        let mut record = Record::new(Kind::Mqtt, "plant/pump1", vec![7; 300]);
        record.source_time = Some(WallNanos(-5));
        let records = vec![record, Record::new(Kind::Score, "s", "{}")];
        let changes = vec![Change::Advance {
            cursor: "c".into(),
            stream: "s".into(),
            next: Offset(9),
        }];
        let mut builder = Builder::new(Offset(40));
        builder.push(&Encoded::new(&records[..1], changes.clone()));
        builder.push(&Encoded::new(&records[1..], Vec::new()));
        (builder, records, changes)
    }

    #[test]
    fn a_frame_reads_back() {
        let seed = Seed::new(1, Offset(2), 3);
        let (builder, records, changes) = sample();
        let mut bytes = Vec::new();
        let written = builder.finish(77, seed, Codec::Lz4, &mut bytes);
        let (head, payload) = bytes.split_first_chunk().expect("a header");
        let header = Header::decode(head, seed).expect("valid");
        assert_eq!(header, written);
        assert_eq!(header.next(), Offset(42));
        assert_eq!(header.first_time, WallNanos(-5));
        assert!(header.has(flags::CHANGES));
        let body = header.open(payload, seed).expect("valid");
        assert_eq!(body, Body { records, changes });
    }

    #[test]
    fn a_frame_belongs_to_its_segment() {
        let (builder, ..) = sample();
        let mut bytes = Vec::new();
        let seed = Seed::new(1, Offset(2), 3);
        builder.finish(77, seed, Codec::Lz4, &mut bytes);
        let head = bytes.first_chunk().expect("a header");
        let elsewhere = Seed::new(1, Offset(2), 4);
        assert_eq!(Header::decode(head, elsewhere), Err(Flaw::HeaderChecksum));
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_noticed(at in 0usize..1000, bit in 0u8..8) {
            let seed = Seed::new(1, Offset(2), 3);
            let (builder, ..) = sample();
            let mut bytes = Vec::new();
            builder.finish(77, seed, Codec::Lz4, &mut bytes);
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            let (head, payload) = bytes.split_first_chunk().expect("a header");
            let opened = Header::decode(head, seed).and_then(|h| h.open(payload, seed));
            prop_assert!(opened.is_err());
        }

        #[test]
        fn noise_never_panics(bytes: [u8; HEADER_BYTES], payload: Vec<u8>) {
            let seed = Seed::new(0, Offset(0), 0);
            let _ = Header::decode(&bytes, seed);
            let _ = Body::decode(&payload);
        }
    }
}
