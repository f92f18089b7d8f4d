//! What of a stream goes next: records as the log has them, gaps where it no longer has them, and
//! a gap in the place of a record that the cluster refuses.

use super::mapping::{Origin, Outgoing};
use super::position::{Fingerprint, fingerprint};
use skerry_store::{Batch, Error, Log, Offset, Reader, Record, StreamName, WallNanos};
use std::collections::VecDeque;

/// Payload bytes asked of the log at once while a slice is put together.
const READ_BYTES: usize = 256 * 1024;

/// A record that was refused, and what was said of it.
#[derive(Debug, Clone)]
pub(crate) struct Poison {
    pub(crate) offset: Offset,
    pub(crate) reason: String,
}

/// One stream from an offset on.
pub(crate) struct Source {
    origin: Origin,
    poison: Option<Poison>,
    /// With the log while it reads.
    reader: Option<Reader>,
    pending: VecDeque<Item>,
}

/// The content of one transaction.
#[derive(Debug, Default)]
pub(crate) struct Slice {
    pub(crate) records: Vec<Outgoing>,
    /// The first offset each of `records` stands for.
    pub(crate) offsets: Vec<Offset>,
    /// Everything before it is delivered once this slice is.
    pub(crate) next: Offset,
    /// Of the record at `next - 1`.
    pub(crate) last: Option<Fingerprint>,
    pub(crate) bytes: usize,
    pub(crate) delivered: u64,
    pub(crate) missing: u64,
    pub(crate) quarantined: u64,
    pub(crate) oldest: Option<WallNanos>,
}

#[derive(Debug)]
struct Item {
    offset: Offset,
    next: Offset,
    stands_for: StandsFor,
    outgoing: Outgoing,
}

#[derive(Debug, Clone, Copy)]
enum StandsFor {
    Itself {
        fingerprint: Fingerprint,
        ingest: WallNanos,
    },
    Missing,
    Refused,
}

impl Source {
    pub(crate) fn open(
        log: &Log,
        stream: &StreamName,
        from: Offset,
        origin: Origin,
        poison: Option<Poison>,
    ) -> Result<Self, Error> {
        let reader = Some(log.reader(stream, from)?);
        Ok(Self {
            origin,
            poison,
            reader,
            pending: VecDeque::new(),
        })
    }

    /// The next items up to either bound, at least one; none at the head of the log.
    pub(crate) async fn slice(&mut self, bytes: usize, records: usize) -> Result<Slice, Error> {
        let mut slice = Slice::default();
        while slice.bytes < bytes && slice.records.len() < records {
            if self.pending.is_empty() && !self.read().await? {
                break;
            }
            while slice.bytes < bytes && slice.records.len() < records {
                let Some(item) = self.pending.pop_front() else {
                    break;
                };
                slice.push(item);
            }
        }
        Ok(slice)
    }

    /// False at the head. Reads and maps on a thread that may block.
    async fn read(&mut self) -> Result<bool, Error> {
        let mut reader = self.reader.take().ok_or(Error::Closed)?;
        let (origin, poison) = (self.origin.clone(), self.poison.clone());
        let work = tokio::task::spawn_blocking(move || {
            let batch = reader.next(READ_BYTES);
            let items = batch.map(|batch| items(&origin, poison.as_ref(), batch));
            (reader, items)
        });
        let (reader, items) = work.await.map_err(|_| Error::Closed)?;
        self.reader = Some(reader);
        self.pending = items?;
        Ok(!self.pending.is_empty())
    }
}

fn items(origin: &Origin, poison: Option<&Poison>, batch: Batch) -> VecDeque<Item> {
    let missing = batch.missing.map(|(first, next)| Item {
        offset: first,
        next,
        stands_for: StandsFor::Missing,
        outgoing: origin.missing(first, next),
    });
    let records = batch.records.into_iter();
    missing
        .into_iter()
        .chain(records.map(|(at, record)| item(origin, poison, at, record)))
        .collect()
}

fn item(origin: &Origin, poison: Option<&Poison>, offset: Offset, record: Record) -> Item {
    let itself = StandsFor::Itself {
        fingerprint: fingerprint(&record),
        ingest: record.ingest_time,
    };
    let outgoing = origin.record(offset, record);
    let (stands_for, outgoing) = match poison.filter(|poison| poison.offset == offset) {
        Some(poison) => (
            StandsFor::Refused,
            origin.quarantined(offset, &outgoing, &poison.reason),
        ),
        None => (itself, outgoing),
    };
    Item {
        offset,
        next: offset.plus(1),
        stands_for,
        outgoing,
    }
}

impl Slice {
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    fn push(&mut self, item: Item) {
        self.last = None;
        match item.stands_for {
            StandsFor::Itself {
                fingerprint,
                ingest,
            } => {
                self.last = Some(fingerprint);
                self.delivered += 1;
                self.oldest.get_or_insert(ingest);
            }
            StandsFor::Missing => self.missing += item.next.0 - item.offset.0,
            StandsFor::Refused => self.quarantined += 1,
        }
        self.next = item.next;
        self.bytes += item.outgoing.size();
        self.offsets.push(item.offset);
        self.records.push(item.outgoing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skerry_store::Kind;

    fn batch(missing: Option<(u64, u64)>, offsets: std::ops::Range<u64>) -> Batch {
        let record = |n| (Offset(n), Record::new(Kind::Mqtt, "a", n.to_string()));
        Batch {
            missing: missing.map(|(first, next)| (Offset(first), Offset(next))),
            records: offsets.map(record).collect(),
        }
    }

    #[test]
    fn every_offset_is_counted_once_as_itself_or_as_a_gap() {
        let origin = Origin::new("n", 1, "s", "skerry.s".to_owned());
        let poison = Poison {
            offset: Offset(12),
            reason: "too large".to_owned(),
        };
        let mut slice = Slice::default();
        items(&origin, Some(&poison), batch(Some((4, 10)), 10..15))
            .into_iter()
            .for_each(|item| slice.push(item));
        assert_eq!(
            (slice.delivered, slice.missing, slice.quarantined),
            (4, 6, 1)
        );
        assert_eq!(slice.next, Offset(15));
        let offsets: Vec<u64> = slice.offsets.iter().map(|offset| offset.0).collect();
        assert_eq!(offsets, [4, 10, 11, 12, 13, 14]);
        assert!(slice.last.is_some() && slice.oldest.is_some());
    }

    #[test]
    fn a_slice_that_ends_with_a_gap_has_no_fingerprint() {
        let origin = Origin::new("n", 1, "s", "skerry.s".to_owned());
        let poison = Poison {
            offset: Offset(1),
            reason: String::new(),
        };
        let mut slice = Slice::default();
        items(&origin, Some(&poison), batch(None, 0..2))
            .into_iter()
            .for_each(|i| slice.push(i));
        assert_eq!((slice.last, slice.next), (None, Offset(2)));
    }
}
