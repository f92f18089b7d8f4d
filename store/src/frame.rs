//! The frame codec: bytes in, bytes out, no files. The layout is in the crate documentation.

use crate::cipher::{Cipher, NONCE_BYTES, Nonce, SALT_BYTES, Salt, TAG_BYTES};
use crate::encoding;
use crate::records::Records;
use crate::view::{self, RecordViews};
use crate::{Change, Codec, Kind, Offset, Record, WallNanos};
use std::borrow::Cow;
use std::sync::Arc;

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
    /// The payload is encrypted, and has a tag behind it.
    pub(crate) const SEALED: u8 = 32;
    pub(crate) const KNOWN: u8 = 63;
}

const EPOCH_BYTES: usize = 8;
const PLACE_BYTES: usize = EPOCH_BYTES + 16;
/// What of a header comes before its checksums.
const FIELDS_BYTES: usize = 56;

/// Ties a frame to its segment: checksums start from here, so that a frame that was copied from
/// elsewhere, or is embedded in a payload, does not pass for one of this file.
#[derive(Debug, Clone)]
pub(crate) struct Seed {
    /// The segment's epoch, base offset and sequence.
    place: [u8; PLACE_BYTES],
    checksum: u32,
    /// What seals frames, and opens them.
    pub(crate) cipher: Option<Arc<Cipher>>,
}

impl Seed {
    pub(crate) fn new(epoch: u64, base: Offset, sequence: u64) -> Self {
        let mut place = [0; PLACE_BYTES];
        place[..EPOCH_BYTES].copy_from_slice(&epoch.to_le_bytes());
        place[8..16].copy_from_slice(&base.0.to_le_bytes());
        place[16..].copy_from_slice(&sequence.to_le_bytes());
        Self {
            place,
            checksum: crc32c::crc32c(&place),
            cipher: None,
        }
    }

    pub(crate) fn checksum(&self, bytes: &[u8]) -> u32 {
        crc32c::crc32c_append(self.checksum, bytes)
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
    /// Part of the nonce of a sealed payload.
    pub(crate) salt: Salt,
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
    #[error("payload or header is not what was encrypted")]
    Seal,
    /// No damage: somebody has to give the key.
    #[error("payload is encrypted, and no key was given")]
    Locked,
    #[error("frames are missing")]
    Absent,
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

    pub(crate) fn encode(&self, seed: &Seed) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..FIELDS_BYTES].copy_from_slice(&self.fields());
        bytes[56..60].copy_from_slice(&self.payload_checksum.to_le_bytes());
        let checksum = seed.checksum(&bytes[..60]);
        bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn fields(&self) -> [u8; FIELDS_BYTES] {
        let mut bytes = [0; FIELDS_BYTES];
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
        bytes[50..56].copy_from_slice(&self.salt);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES], seed: &Seed) -> Result<Self, Flaw> {
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
            salt: *bytes[50..].first_chunk().expect("six bytes"),
            payload_checksum: u32_at(bytes, 56),
        };
        let sane = header.payload_bytes <= BODY_BYTES_MAX
            && header.body_bytes <= BODY_BYTES_MAX
            && header.base.0.checked_add(u64::from(header.count)).is_some()
            && header.flags & !flags::KNOWN == 0;
        if sane { Ok(header) } else { Err(Flaw::Field) }
    }

    pub(crate) fn verify(&self, payload: &[u8], seed: &Seed) -> Result<(), Flaw> {
        if seed.checksum(payload) == self.payload_checksum {
            Ok(())
        } else {
            Err(Flaw::PayloadChecksum)
        }
    }

    /// Checks the payload, unpacks it into `bytes`, and decodes it there.
    pub(crate) fn open<'a>(
        &self,
        payload: &[u8],
        seed: &Seed,
        bytes: &'a mut Vec<u8>,
    ) -> Result<Body<'a>, Flaw> {
        self.verify(payload, seed)?;
        let payload = self.unseal(payload, seed)?;
        let body_bytes = self.body_bytes as usize;
        // Memory that a large frame took is given back at the next small one.
        bytes.truncate(body_bytes);
        bytes.shrink_to(2 * BODY_BYTES_TARGET);
        if !self.codec.unpack(&payload, body_bytes, bytes) {
            return Err(Flaw::Payload);
        }
        let body = Body::decode(bytes, self.base).ok_or(Flaw::Payload)?;
        if body.records.rest().2 == u64::from(self.count) {
            Ok(body)
        } else {
            Err(Flaw::Payload)
        }
    }

    /// Encrypts the payload, which is `out` from `start` on, where the log has a key.
    fn seal(&mut self, out: &mut Vec<u8>, start: usize, seed: &Seed) {
        let Some(cipher) = &seed.cipher else {
            return;
        };
        self.flags |= flags::SEALED;
        self.salt = cipher.salt();
        self.payload_bytes += TAG_BYTES as u32;
        let mut payload = out.split_off(start);
        cipher.seal_frame(&self.nonce(seed), &self.associated(seed), &mut payload);
        out.append(&mut payload);
    }

    fn unseal<'p>(&self, payload: &'p [u8], seed: &Seed) -> Result<Cow<'p, [u8]>, Flaw> {
        if !self.has(flags::SEALED) {
            return Ok(payload.into());
        }
        let cipher = seed.cipher.as_ref().ok_or(Flaw::Locked)?;
        let opened = cipher.open_frame(&self.nonce(seed), &self.associated(seed), payload);
        opened.map(Cow::from).ok_or(Flaw::Seal)
    }

    fn nonce(&self, seed: &Seed) -> Nonce {
        let mut nonce = [0; NONCE_BYTES];
        nonce[..EPOCH_BYTES].copy_from_slice(&seed.place[..EPOCH_BYTES]);
        nonce[EPOCH_BYTES..][..SALT_BYTES].copy_from_slice(&self.salt);
        nonce[16..].copy_from_slice(&self.sequence.to_le_bytes());
        nonce
    }

    /// What cannot be altered either: where the frame is, and its header.
    fn associated(&self, seed: &Seed) -> [u8; PLACE_BYTES + FIELDS_BYTES] {
        let mut bytes = [0; PLACE_BYTES + FIELDS_BYTES];
        bytes[..PLACE_BYTES].copy_from_slice(&seed.place);
        bytes[PLACE_BYTES..].copy_from_slice(&self.fields());
        bytes
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// What a frame carries, all of it known to decode.
#[derive(Debug)]
pub(crate) struct Body<'a> {
    pub(crate) records: RecordViews<'a>,
    pub(crate) changes: Vec<Change>,
}

impl<'a> Body<'a> {
    pub(crate) fn decode(bytes: &'a [u8], base: Offset) -> Option<Self> {
        let (records, changes) = RecordViews::of_body(bytes, base)?;
        let changes = encoding::decode(changes)?;
        Some(Self { records, changes })
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
            records: view::encode(records),
            changes: concatenated(&changes),
            times: records
                .iter()
                .map(Record::event_time)
                .fold(None, |times, at| widen(times, at, at)),
            has_gaps: records.iter().any(|record| record.kind == Kind::Gap),
            decoded: changes,
        }
    }

    /// The same of records that are encoded already, and stay with the caller.
    pub(crate) fn of(records: &Records, changes: Vec<Change>) -> Self {
        Self {
            count: records.count,
            records: records.bytes.clone(),
            changes: concatenated(&changes),
            times: records.times,
            has_gaps: records.has_gaps,
            decoded: changes,
        }
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.records.len() + self.changes.len()
    }

    pub(crate) const fn change_bytes(&self) -> usize {
        self.changes.len()
    }
}

fn concatenated<T: serde::Serialize>(items: &[T]) -> Vec<u8> {
    items
        .iter()
        .fold(Vec::new(), |bytes, item| encoding::append(item, bytes))
}

/// The earliest and the latest.
pub(crate) type Times = Option<(WallNanos, WallNanos)>;

pub(crate) fn widen(times: Times, from: WallNanos, to: WallNanos) -> Times {
    let (first, last) = times.unwrap_or((from, to));
    Some((first.min(from), last.max(to)))
}

/// A frame being filled.
#[derive(Debug)]
pub(crate) struct Builder<'a> {
    pub(crate) base: Offset,
    pub(crate) count: u32,
    appends: Vec<&'a Encoded>,
    appends_bytes: usize,
    changes_count: u32,
    times: Times,
    has_gaps: bool,
    pub(crate) snapshot: u8,
}

impl<'a> Builder<'a> {
    pub(crate) const fn new(base: Offset) -> Self {
        Self {
            base,
            count: 0,
            appends: Vec::new(),
            appends_bytes: 0,
            changes_count: 0,
            times: None,
            has_gaps: false,
            snapshot: 0,
        }
    }

    pub(crate) fn push(&mut self, append: &'a Encoded) {
        self.count += append.count;
        self.appends.push(append);
        self.appends_bytes += append.bytes();
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
        self.appends_bytes + HEADER_BYTES
    }

    pub(crate) const fn has_changes(&self) -> bool {
        self.changes_count > 0
    }

    pub(crate) const fn is_large(&self) -> bool {
        self.appends_bytes >= BODY_BYTES_TARGET
    }

    /// Writes the frame behind what is in `out`, by way of `body`.
    pub(crate) fn finish(
        &self,
        sequence: u64,
        seed: &Seed,
        codec: Codec,
        body: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Header {
        self.put_together(body);
        let start = out.len();
        let payload = start + HEADER_BYTES;
        out.resize(payload, 0);
        let codec = codec.pack(body, out);
        let (first_time, last_time) = self.times.unwrap_or_default();
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("a frame is small");
        let mut header = Header {
            payload_bytes: length(&out[payload..]),
            body_bytes: length(body),
            count: self.count,
            base: self.base,
            sequence,
            first_time,
            last_time,
            codec,
            flags: self.snapshot
                | (u8::from(self.has_changes()) * flags::CHANGES)
                | (u8::from(self.has_gaps) * flags::GAPS),
            salt: Salt::default(),
            payload_checksum: 0,
        };
        header.seal(out, payload, seed);
        header.payload_checksum = seed.checksum(&out[payload..]);
        out[start..payload].copy_from_slice(&header.encode(seed));
        header
    }

    /// The postcard form of `(Vec<Record>, Vec<Change>)`, from encoded items.
    fn put_together(&self, body: &mut Vec<u8>) {
        body.clear();
        view::append_varint(u64::from(self.count), body);
        for append in &self.appends {
            body.extend_from_slice(&append.records);
        }
        view::append_varint(u64::from(self.changes_count), body);
        for append in &self.appends {
            body.extend_from_slice(&append.changes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> (Vec<Record>, Vec<Change>) {
        let mut record = Record::new(Kind::Mqtt, "plant/pump1", vec![7; 300]);
        record.source_time = Some(WallNanos(-5));
        let mut records = vec![record, Record::new(Kind::Score, "s", "{}")];
        records[0].ingest_time = WallNanos(9);
        records[1].ingest_time = WallNanos(8);
        let changes = vec![Change::Advance {
            cursor: "c".into(),
            stream: "s".into(),
            next: Offset(9),
        }];
        (records, changes)
    }

    /// The sample as a frame of two appends.
    fn written(seed: &Seed) -> (Header, Vec<u8>) {
        let (records, changes) = sample();
        let appends = [
            Encoded::new(&records[..1], changes),
            Encoded::new(&records[1..], Vec::new()),
        ];
        let mut builder = Builder::new(Offset(40));
        appends.iter().for_each(|append| builder.push(append));
        let (mut body, mut bytes) = (vec![7], Vec::new());
        let header = builder.finish(77, seed, Codec::Lz4, &mut body, &mut bytes);
        (header, bytes)
    }

    #[test]
    fn a_frame_reads_back() {
        let seed = Seed::new(1, Offset(2), 3);
        let (written, bytes) = written(&seed);
        let (head, payload) = bytes.split_first_chunk().expect("a header");
        let header = Header::decode(head, &seed).expect("valid");
        assert_eq!(header, written);
        assert_eq!(header.next(), Offset(42));
        assert_eq!(header.first_time, WallNanos(-5));
        assert!(header.has(flags::CHANGES));
        let mut bytes = Vec::new();
        let body = header.open(payload, &seed, &mut bytes).expect("valid");
        let (records, changes) = sample();
        let found: Vec<_> = body
            .records
            .map(|(at, view)| (at.0, view.to_record()))
            .collect();
        assert_eq!(found, (40..).zip(records).collect::<Vec<_>>());
        assert_eq!(body.changes, changes);
    }

    #[test]
    fn a_frame_belongs_to_its_segment() {
        let (_, bytes) = written(&Seed::new(1, Offset(2), 3));
        let head = bytes.first_chunk().expect("a header");
        let elsewhere = Seed::new(1, Offset(2), 4);
        assert_eq!(Header::decode(head, &elsewhere), Err(Flaw::HeaderChecksum));
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_noticed(at in 0usize..1000, bit in 0u8..8) {
            let seed = Seed::new(1, Offset(2), 3);
            let (_, mut bytes) = written(&seed);
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            let (head, payload) = bytes.split_first_chunk().expect("a header");
            let mut body = Vec::new();
            let opened = Header::decode(head, &seed)
                .and_then(|header| header.open(payload, &seed, &mut body).map(|_| ()));
            prop_assert!(opened.is_err());
        }

        #[test]
        fn noise_never_panics(bytes: [u8; HEADER_BYTES], payload: Vec<u8>) {
            let seed = Seed::new(0, Offset(0), 0);
            let _ = Header::decode(&bytes, &seed);
            let _ = Body::decode(&payload, Offset(0));
        }
    }
}
