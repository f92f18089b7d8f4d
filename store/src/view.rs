//! Records as they stand in a frame's body: postcard's wire format 1.0, read and written by hand.
//!
//! There are millions of them, and to make a string, a buffer and a list of each costs more than
//! to decompress it. That postcard itself says the same of every byte is tested below.

use crate::records::Fresh;
use crate::{Kind, Offset, Record, WallNanos};
use bytes::Bytes;

/// A [`Record`] whose bytes stay where they are.
#[derive(Debug, Clone, Copy)]
pub struct RecordView<'a> {
    pub kind: Kind,
    pub source: &'a str,
    pub payload: &'a [u8],
    pub source_time: Option<WallNanos>,
    pub server_time: Option<WallNanos>,
    pub ingest_time: WallNanos,
    pub status: u32,
    pub attributes: Attributes<'a>,
}

impl<'a> RecordView<'a> {
    /// A record of its own, that outlives what this one is borrowed from.
    #[must_use]
    pub fn to_record(&self) -> Record {
        let attributes = self.attributes;
        Record {
            kind: self.kind,
            source: self.source.to_owned(),
            payload: Bytes::copy_from_slice(self.payload),
            source_time: self.source_time,
            server_time: self.server_time,
            ingest_time: self.ingest_time,
            status: self.status,
            attributes: attributes
                .map(|(name, value)| (name.to_owned(), Bytes::copy_from_slice(value)))
                .collect(),
        }
    }

    /// See [`Record::event_time`].
    #[must_use]
    pub fn event_time(&self) -> WallNanos {
        self.source_time
            .or(self.server_time)
            .unwrap_or(self.ingest_time)
    }

    fn decode(cursor: &mut Cursor<'a>) -> Option<Self> {
        Some(Self {
            kind: *Kind::ALL.get(cursor.varint(u32::BITS)? as usize)?,
            source: cursor.text()?,
            payload: cursor.bytes()?,
            source_time: cursor.time_or_none()?,
            server_time: cursor.time_or_none()?,
            ingest_time: cursor.time()?,
            status: cursor.varint(u32::BITS)? as u32,
            attributes: cursor.attributes()?,
        })
    }
}

/// Name and value pairs of a [`RecordView`], see [`Record::attributes`].
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    cursor: Cursor<'a>,
    left: usize,
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (&'a str, &'a [u8]);

    /// Ends early nowhere: all of them were decoded once when the record was.
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        Some((self.cursor.text()?, self.cursor.bytes()?))
    }
}

/// Records that follow one another in a frame.
#[derive(Debug, Clone, Copy)]
pub struct RecordViews<'a> {
    cursor: Cursor<'a>,
    next: Offset,
    left: u64,
}

impl<'a> RecordViews<'a> {
    /// The `left` records that `bytes` begin with, the first of which is `next`.
    pub(crate) const fn new(bytes: &'a [u8], next: Offset, left: u64) -> Self {
        Self {
            cursor: Cursor(bytes),
            next,
            left,
        }
    }

    /// Those of a whole body, the first of which is `base`, and what is behind them; `None`
    /// unless every one of them decodes.
    pub(crate) fn of_body(body: &'a [u8], base: Offset) -> Option<(Self, &'a [u8])> {
        let mut cursor = Cursor(body);
        let count = cursor.length()? as u64;
        let records = Self::new(cursor.0, base, count);
        for _ in 0..count {
            RecordView::decode(&mut cursor)?;
        }
        Some((records, cursor.0))
    }

    /// The same, of a body that this process wrote: it is not decoded first to see whether it does.
    pub(crate) fn of_own_body(body: &'a [u8], base: Offset) -> Self {
        let mut cursor = Cursor(body);
        let count = cursor.length().expect("a body begins with its count");
        Self::new(cursor.0, base, count as u64)
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// Leaves out those before `offset`.
    pub(crate) fn skip_to(&mut self, offset: Offset) {
        while self.next < offset && self.next().is_some() {}
    }

    /// Bytes that are not decoded yet, the offset of the first record in them, and how many
    /// records they begin with.
    pub(crate) const fn rest(&self) -> (&'a [u8], Offset, u64) {
        (self.cursor.0, self.next, self.left)
    }
}

impl<'a> Iterator for RecordViews<'a> {
    type Item = (Offset, RecordView<'a>);

    /// Ends early nowhere: whoever made this knows that all of them decode.
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let record = RecordView::decode(&mut self.cursor)?;
        let offset = self.next;
        self.next = offset.plus(1);
        Some((offset, record))
    }
}

/// Goes over encoded bytes. `None` where postcard has an error.
#[derive(Debug, Clone, Copy)]
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// A number that has at most this many bits.
    fn varint(&mut self, bits: u32) -> Option<u64> {
        let mut value = 0;
        let mut shift = 0;
        while shift < bits {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                let fits = shift + 7 <= bits || byte >> (bits - shift) == 0;
                return fits.then_some(value);
            }
            shift += 7;
        }
        None
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(self.varint(usize::BITS)?).ok()
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    fn time(&mut self) -> Option<WallNanos> {
        let zigzag = self.varint(u64::BITS)?;
        Some(WallNanos(
            (zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed(),
        ))
    }

    fn time_or_none(&mut self) -> Option<Option<WallNanos>> {
        match self.byte()? {
            0 => Some(None),
            1 => self.time().map(Some),
            _ => None,
        }
    }

    fn attributes(&mut self) -> Option<Attributes<'a>> {
        let left = self.length()?;
        let attributes = Attributes {
            cursor: *self,
            left,
        };
        for _ in 0..left {
            self.text()?;
            self.bytes()?;
        }
        Some(attributes)
    }
}

/// What a record's numbers take at most: kind, two lengths, three times, status and a count.
const NUMBERS_BYTES_MAX: usize = 1 + 3 * 10 + 3 * 11 + 5;

/// The bytes of records, one after the other.
pub(crate) fn encode(records: &[Record]) -> Vec<u8> {
    let room = records.iter().map(|record| {
        let attributes = record.attribute_pairs();
        let attributes = attributes.map(|(name, value)| name.len() + value.len() + 2 * 10);
        NUMBERS_BYTES_MAX + record.source.len() + record.payload.len() + attributes.sum::<usize>()
    });
    let mut bytes = Vec::with_capacity(room.sum());
    for record in records {
        append(&Fresh::from(record), record.attribute_pairs(), &mut bytes);
    }
    bytes
}

pub(crate) fn append<'a>(
    record: &Fresh<'_>,
    attributes: impl Iterator<Item = (&'a str, &'a [u8])> + Clone,
    bytes: &mut Vec<u8>,
) {
    append_varint(record.kind as u64, bytes);
    append_bytes(record.source.as_bytes(), bytes);
    append_bytes(record.payload, bytes);
    for time in [record.source_time, record.server_time] {
        bytes.push(u8::from(time.is_some()));
        if let Some(time) = time {
            append_time(time, bytes);
        }
    }
    append_time(record.ingest_time, bytes);
    append_varint(u64::from(record.status), bytes);
    append_varint(attributes.clone().count() as u64, bytes);
    for (name, value) in attributes {
        append_bytes(name.as_bytes(), bytes);
        append_bytes(value, bytes);
    }
}

fn append_bytes(value: &[u8], bytes: &mut Vec<u8>) {
    append_varint(value.len() as u64, bytes);
    bytes.extend_from_slice(value);
}

fn append_time(WallNanos(nanos): WallNanos, bytes: &mut Vec<u8>) {
    append_varint(((nanos << 1) ^ (nanos >> 63)).cast_unsigned(), bytes);
}

pub(crate) fn append_varint(value: u64, bytes: &mut Vec<u8>) {
    let mut left = value;
    while left >= 0x80 {
        bytes.push(left as u8 | 0x80);
        left >>= 7;
    }
    bytes.push(left as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding;
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    prop_compose! {
        fn record()(
            kind in proptest::sample::select(&Kind::ALL[..]),
            source: String,
            payload: Vec<u8>,
            times in (option::of(any::<i64>()), option::of(any::<i64>()), any::<i64>()),
            status: u32,
            attributes in vec((any::<String>(), any::<Vec<u8>>()), 0..4),
        ) -> Record {
            Record {
                kind,
                source,
                payload: payload.into(),
                source_time: times.0.map(WallNanos),
                server_time: times.1.map(WallNanos),
                ingest_time: WallNanos(times.2),
                status,
                attributes: attributes
                    .into_iter()
                    .map(|(name, value)| (name, value.into()))
                    .collect(),
            }
        }
    }

    /// The records in a body, in the two ways, and how many bytes they take.
    fn both_ways(body: &[u8]) -> [Option<(Vec<Record>, usize)>; 2] {
        let by_hand = RecordViews::of_body(body, Offset::ZERO).map(|(views, rest)| {
            let records = views.map(|(_, view)| view.to_record()).collect();
            (records, rest.len())
        });
        let by_postcard = encoding::decode_front(body).map(|(records, rest)| (records, rest.len()));
        [by_hand, by_postcard]
    }

    proptest! {
        #[test]
        fn records_are_what_postcard_makes_of_them(records in vec(record(), 0..4)) {
            let body = encoding::encode(&records);
            let mut written = Vec::new();
            append_varint(records.len() as u64, &mut written);
            written.extend(encode(&records));
            prop_assert_eq!(&written, &body);
            let [by_hand, _] = both_ways(&body);
            prop_assert_eq!(by_hand, Some((records, 0)));
        }

        #[test]
        fn postcard_agrees_on_what_is_broken(
            records in vec(record(), 1..3),
            at: proptest::sample::Index,
            byte: u8,
            kept: proptest::sample::Index,
        ) {
            let mut body = encoding::encode(&records);
            let at = at.index(body.len());
            body[at] = byte;
            let [by_hand, by_postcard] = both_ways(&body);
            prop_assert_eq!(by_hand, by_postcard);
            body.truncate(kept.index(body.len() + 1));
            let [by_hand, by_postcard] = both_ways(&body);
            prop_assert_eq!(by_hand, by_postcard);
        }

        #[test]
        fn postcard_agrees_on_noise(body in vec(prop_oneof![0..4_u8, Just(0x80), any::<u8>()], 0..40)) {
            let [by_hand, by_postcard] = both_ways(&body);
            prop_assert_eq!(by_hand, by_postcard);
        }

        #[test]
        fn postcard_agrees_on_numbers(
            high in vec(prop_oneof![Just(0x80_u8), Just(0xFF)], 0..12),
            last in 0..0x80_u8,
        ) {
            let mut bytes = high;
            bytes.push(last);
            let narrow = Cursor(&bytes).varint(u32::BITS);
            prop_assert_eq!(narrow, encoding::decode::<u32>(&bytes).map(u64::from));
            let wide = Cursor(&bytes).varint(u64::BITS);
            prop_assert_eq!(wide, encoding::decode::<u64>(&bytes));
            let time = Cursor(&bytes).time();
            prop_assert_eq!(time, encoding::decode::<WallNanos>(&bytes));
        }
    }

    #[test]
    fn a_count_that_nothing_is_behind_takes_no_memory() {
        let mut body = Vec::new();
        append_varint(u64::MAX, &mut body);
        assert!(RecordViews::of_body(&body, Offset::ZERO).is_none());
    }
}
