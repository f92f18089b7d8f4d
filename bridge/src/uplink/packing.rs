//! Columnar packing of a slice: many records of one partition become one that holds them all.
//!
//! ```text
//! key        <stream>/<epoch>/<first offset>: of its own, so that compaction takes none away
//! value      a block, see `bridge/pack/FORMAT.md`
//! timestamp  the newest of those in it, so that retention takes none of them early
//! headers    skerry-node, skerry-epoch, skerry-stream, skerry-pack (1),
//!            skerry-offsets (first-last, inclusive), skerry-count
//! ```
//!
//! Inside are the records as they would have been, byte for byte and in their order; a block's
//! records would all have gone to the partition it goes to, so order per key is what it was. A
//! handful of records is not worth a block and stays as it is.

use super::mapping::{Origin, Outgoing};
use super::wire::partition_of;
use skerry_pack::{Error, Header, Options, Packer, Row};
use skerry_store::Offset;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Fewer than these are not worth the learning.
const ROWS_MIN: usize = 16;
/// Of one block: a consumer decodes it at once.
const ROWS_MAX: usize = 16 * 1024;
/// Of one block, by what its like came to before; a broker takes 1 MiB by default.
const BLOCK_BYTES: usize = 384 * 1024;
/// Of one block before packing: it bounds memory, here and at consumers.
const UNPACKED_BYTES: usize = 4 * 1024 * 1024;
/// Of all blocks under way together.
const UNPACKED_BYTES_ALL: usize = 8 * 1024 * 1024;
/// Partitions with a block under way. Records of more go as they are.
const GROUPS_MAX: usize = 64;
/// What packing is assumed to come to before the first block says better, in percent: what does
/// not compress must not become a block that no broker takes.
const PERCENT_FIRST: usize = 100;

/// What a slice's records become, in the order in which they may go.
#[derive(Debug, Default)]
pub(crate) struct Packed {
    pub(crate) records: Vec<Outgoing>,
    /// The first offset of each.
    pub(crate) offsets: Vec<Offset>,
    pub(crate) bytes: usize,
}

/// Blocks under way, by where they go. Outlives slices: what a packer learned is of use again.
#[derive(Debug, Default)]
pub(crate) struct Packing {
    groups: BTreeMap<(Arc<str>, i32), Group>,
    /// Of all groups: as it is, and what it will come to.
    unpacked: usize,
    bytes: usize,
}

/// Records of one partition of one topic.
#[derive(Debug)]
struct Group {
    topic: Arc<str>,
    partition: i32,
    /// Not yet enough for a block.
    few: Vec<(Offset, Outgoing)>,
    few_bytes: usize,
    packer: Packer,
    first: Offset,
    last: Offset,
    newest_ms: i64,
    /// What a hundred bytes came to in the last block.
    percent: usize,
}

impl Packed {
    pub(crate) fn push(&mut self, offset: Offset, record: Outgoing) {
        self.bytes += record.size();
        self.offsets.push(offset);
        self.records.push(record);
    }
}

impl Packing {
    /// Takes `record`, whose topic has so many `partitions`. What is full by it goes to `packed`.
    pub(crate) fn push(
        &mut self,
        origin: &Origin,
        partitions: usize,
        offset: Offset,
        record: Outgoing,
        packed: &mut Packed,
    ) {
        let partition = partition_of(&record.key, partitions);
        let place = (Arc::clone(&record.topic), partition);
        if self.groups.len() >= GROUPS_MAX && !self.groups.contains_key(&place) {
            self.groups.retain(|_, group| !group.is_empty());
            if self.groups.len() >= GROUPS_MAX {
                packed.push(offset, record);
                return;
            }
        }
        let new = || Group::new(Arc::clone(&record.topic), partition);
        let group = self.groups.entry(place).or_insert_with(new);
        let (unpacked, bytes) = (group.packer.unpacked_bytes(), group.bytes());
        group.push(origin, offset, record, packed);
        self.unpacked = self.unpacked + group.packer.unpacked_bytes() - unpacked;
        self.bytes = self.bytes + group.bytes() - bytes;
        if self.unpacked > UNPACKED_BYTES_ALL {
            self.finish(origin, packed);
        }
    }

    /// What the records that are under way will come to, about.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Ends all blocks under way.
    pub(crate) fn finish(&mut self, origin: &Origin, packed: &mut Packed) {
        for group in self.groups.values_mut() {
            group.finish(origin, packed);
        }
        (self.unpacked, self.bytes) = (0, 0);
    }
}

impl Group {
    fn new(topic: Arc<str>, partition: i32) -> Self {
        Self {
            topic,
            partition,
            few: Vec::new(),
            few_bytes: 0,
            packer: Packer::new(Options::default()),
            first: Offset::ZERO,
            last: Offset::ZERO,
            newest_ms: 0,
            percent: PERCENT_FIRST,
        }
    }

    fn is_empty(&self) -> bool {
        self.few.is_empty() && self.packer.rows() == 0
    }

    fn bytes(&self) -> usize {
        self.few_bytes + self.packer.unpacked_bytes() * self.percent / 100
    }

    fn push(&mut self, origin: &Origin, offset: Offset, record: Outgoing, packed: &mut Packed) {
        if self.packer.rows() == 0 && self.few.len() < ROWS_MIN {
            self.few_bytes += record.size();
            self.few.push((offset, record));
            return;
        }
        self.few_bytes = 0;
        for (offset, record) in std::mem::take(&mut self.few) {
            self.add(origin, offset, record, packed);
        }
        self.add(origin, offset, record, packed);
        let full = self.packer.rows() >= ROWS_MAX
            || self.packer.unpacked_bytes() >= UNPACKED_BYTES
            || self.bytes() >= BLOCK_BYTES;
        if full {
            self.finish(origin, packed);
        }
    }

    fn add(&mut self, origin: &Origin, offset: Offset, record: Outgoing, packed: &mut Packed) {
        let outcome = match self.row(offset, &record) {
            Err(Error::Full) => {
                self.finish(origin, packed);
                self.row(offset, &record)
            }
            outcome => outcome,
        };
        if outcome.is_err() {
            // It has no room in any block; what is before it goes before it.
            self.finish(origin, packed);
            packed.push(offset, record);
            return;
        }
        if self.packer.rows() == 1 {
            (self.first, self.newest_ms) = (offset, record.timestamp_ms);
        }
        self.last = offset;
        self.newest_ms = self.newest_ms.max(record.timestamp_ms);
    }

    fn row(&mut self, offset: Offset, record: &Outgoing) -> Result<(), Error> {
        let headers = record.headers.iter().map(|(name, value)| Header {
            name: name.as_bytes(),
            value: Some(value),
        });
        self.packer.push(Row {
            offset: offset.0,
            timestamp_ms: record.timestamp_ms,
            key: &record.key,
            value: &record.value,
            headers,
        })
    }

    fn finish(&mut self, origin: &Origin, packed: &mut Packed) {
        self.few_bytes = 0;
        for (offset, record) in self.few.drain(..) {
            packed.push(offset, record);
        }
        let (rows, unpacked) = (self.packer.rows(), self.packer.unpacked_bytes());
        let Some(value) = self.packer.finish() else {
            return;
        };
        self.percent = (value.len() * 100 / unpacked.max(1)).clamp(1, 100);
        let block = origin.block(self.first, self.last, rows);
        packed.push(
            self.first,
            Outgoing {
                topic: Arc::clone(&self.topic),
                partition: Some(self.partition),
                value,
                timestamp_ms: self.newest_ms,
                ..block
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use skerry_store::{Kind, Record};

    const PARTITIONS: usize = 3;

    fn origin() -> Origin {
        Origin::new("vessel-7", 0xf3, "telemetry", "skerry.telemetry".to_owned())
    }

    fn telemetry(n: u64) -> Record {
        let value = format!("{{\"n\":{n},\"temp\":{}.{}}}", 20 + n % 3, n % 10);
        Record::new(Kind::Mqtt, format!("machine/{}", n % 7), value)
    }

    /// What goes into a slice, and what a consumer of one partition after the other gets.
    fn packed(records: impl IntoIterator<Item = Record>) -> (Vec<Outgoing>, Packed) {
        let (origin, mut packing) = (origin(), Packing::default());
        let (mut plain, mut packed) = (Vec::new(), Packed::default());
        for (at, record) in records.into_iter().enumerate() {
            let offset = Offset(at as u64);
            let record = origin.record(offset, record);
            plain.push(record.clone());
            packing.push(&origin, PARTITIONS, offset, record, &mut packed);
        }
        packing.finish(&origin, &mut packed);
        assert_eq!(packing.bytes(), 0);
        (plain, packed)
    }

    fn is_block(record: &Outgoing) -> bool {
        skerry_pack::is_packed(&record.value)
    }

    /// Every record as it would have been, by partition.
    fn unpacked(packed: &Packed) -> BTreeMap<i32, Vec<Outgoing>> {
        let mut partitions = BTreeMap::<i32, Vec<Outgoing>>::new();
        for record in &packed.records {
            if !is_block(record) {
                let partition = partition_of(&record.key, PARTITIONS);
                partitions
                    .entry(partition)
                    .or_default()
                    .push(record.clone());
                continue;
            }
            let block = skerry_pack::unpack(&record.value).unwrap();
            let rows = block.rows().map(|row| Outgoing {
                topic: record.topic.clone(),
                partition: None,
                key: Bytes::copy_from_slice(row.key),
                value: Bytes::copy_from_slice(row.value),
                timestamp_ms: row.timestamp_ms,
                headers: row
                    .headers
                    .map(|header| {
                        let name = String::from_utf8(header.name.to_vec()).unwrap();
                        (name.into(), Bytes::copy_from_slice(header.value.unwrap()))
                    })
                    .collect(),
            });
            partitions
                .entry(record.partition.unwrap())
                .or_default()
                .extend(rows);
        }
        partitions
    }

    #[test]
    fn every_record_comes_out_in_its_partition_as_it_would_have_gone() {
        let mut records: Vec<_> = (0..5_000).map(telemetry).collect();
        // Too large for any block, in the middle of them.
        records[2_500].payload = vec![7; 49 << 20].into();
        let (plain, packed) = packed(records);
        let blocks = packed.records.iter().filter(|record| is_block(record));
        assert!((3..12).contains(&blocks.count()));
        let mut expected = BTreeMap::<i32, Vec<Outgoing>>::new();
        for record in plain {
            let partition = partition_of(&record.key, PARTITIONS);
            expected.entry(partition).or_default().push(record);
        }
        assert!(unpacked(&packed) == expected);
    }

    #[test]
    fn a_handful_stays_as_it_is() {
        let (plain, packed) = packed((0..20).map(telemetry));
        assert!(!packed.records.iter().any(is_block));
        let bytes: usize = plain.iter().map(Outgoing::size).sum();
        assert_eq!((packed.records.len(), packed.bytes), (20, bytes));
    }

    #[test]
    fn a_block_says_what_is_in_it() {
        let record = |_| Record::new(Kind::Mqtt, "machine/1", "{\"n\":1}");
        let (plain, packed) = packed((0..40).map(record));
        let [block] = &packed.records[..] else {
            panic!("{packed:?}");
        };
        let header = |name: &str| {
            let found = block.headers.iter().find(|(it, _)| it == name);
            found.map(|(_, value)| std::str::from_utf8(value).unwrap())
        };
        assert_eq!(header("skerry-pack"), Some("1"));
        assert_eq!(header("skerry-offsets"), Some("0-39"));
        assert_eq!(header("skerry-count"), Some("40"));
        assert_eq!(header("skerry-stream"), Some("telemetry"));
        assert_eq!(&block.key[..], b"telemetry/00000000000000f3/0");
        let newest = plain.iter().map(|record| record.timestamp_ms).max();
        assert_eq!(Some(block.timestamp_ms), newest);
    }

    #[test]
    fn what_cannot_be_packed_small_still_fits_in_a_message() {
        let mut noise = 1_u64;
        let mut random = || {
            noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (noise >> 33) as u8
        };
        let mut payload = || (0..2_000).map(|_| random()).collect::<Vec<_>>();
        let records: Vec<_> = (0..2_000)
            .map(|n| Record::new(Kind::Mqtt, format!("m/{}", n % 7), payload()))
            .collect();
        let (_, packed) = packed(records);
        let largest = packed.records.iter().map(Outgoing::size).max();
        assert!(largest.is_some_and(|bytes| bytes < 600_000), "{largest:?}");
    }
}
