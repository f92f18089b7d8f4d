//! What of a stream goes next: records as the log has them, gaps where it no longer has them, and
//! a gap in the place of a record that the cluster refuses.

use super::mapping::{Fitted, Obstacle, Origin, Outgoing, Times};
use super::packing::{Packed, Packing};
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
    /// With the thread that reads while it does.
    inner: Option<Box<Inner>>,
}

struct Inner {
    origin: Origin,
    poison: Option<Poison>,
    reader: Reader,
    pending: VecDeque<Item>,
    packing: Packing,
}

/// How much of a stream goes next.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Want {
    /// On the wire, about, and more by the last item.
    pub(crate) bytes: usize,
    pub(crate) records: u64,
    /// Whether many records may become one.
    pub(crate) pack: bool,
}

/// The content of one transaction.
#[derive(Debug, Default)]
pub(crate) struct Slice {
    /// What goes, records by themselves or in blocks.
    pub(crate) content: Packed,
    /// How many of the log are in it, each gap counted as one.
    pub(crate) records: u64,
    /// Everything before it is delivered once this slice is.
    pub(crate) next: Offset,
    /// Of the record at `next - 1`.
    pub(crate) last: Option<Fingerprint>,
    pub(crate) delivered: u64,
    pub(crate) missing: u64,
    pub(crate) quarantined: u64,
    pub(crate) oldest: Option<WallNanos>,
    pub(crate) late: u64,
    pub(crate) restamped: u64,
    pub(crate) backfilled: u64,
    /// What the record after the last one waits for.
    pub(crate) obstacle: Option<Obstacle>,
}

#[derive(Debug)]
struct Item {
    offset: Offset,
    next: Offset,
    stands_for: StandsFor,
    times: Times,
    outgoing: Outgoing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StandsFor {
    Itself,
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
        let inner = Inner {
            origin,
            poison,
            reader: log.reader(stream, from)?,
            pending: VecDeque::new(),
            packing: Packing::default(),
        };
        Ok(Self {
            inner: Some(Box::new(inner)),
        })
    }

    /// The next items up to either bound, at least one; none at the head of the log, or before an
    /// obstacle. Reads, maps and packs on a thread that may block.
    pub(crate) async fn slice(&mut self, want: Want) -> Result<Slice, Error> {
        let mut inner = self.inner.take().ok_or(Error::Closed)?;
        let work = tokio::task::spawn_blocking(move || {
            let slice = inner.slice(want);
            (inner, slice)
        });
        let (inner, slice) = work.await.map_err(|_| Error::Closed)?;
        self.inner = Some(inner);
        slice
    }
}

impl Inner {
    fn slice(&mut self, want: Want) -> Result<Slice, Error> {
        let mut slice = Slice::default();
        // Not put where it goes before it is known whether it is the last.
        let mut held: Option<Item> = None;
        let size = |held: &Option<Item>| held.as_ref().map_or(0, |item| item.outgoing.size());
        while slice.content.bytes + self.packing.bytes() + size(&held) < want.bytes
            && slice.records < want.records
        {
            let Some(mut item) = self.next()? else { break };
            match self.origin.fit(&mut item.outgoing, item.times) {
                Ok(fitted) => {
                    slice.count(&item, fitted);
                    if let Some(before) = held.replace(item) {
                        self.put(before, want.pack, &mut slice.content);
                    }
                }
                Err(mut obstacle) => {
                    self.pending.push_front(item);
                    if let Obstacle::Unseen(topics) = &mut obstacle {
                        let coming = self.pending.iter().map(|item| &*item.outgoing.topic);
                        self.origin.topics.add_unseen(topics, coming);
                    }
                    slice.obstacle = Some(obstacle);
                    break;
                }
            }
        }
        if let Some(last) = held {
            let itself = last.stands_for == StandsFor::Itself;
            slice.last = itself.then(|| fingerprint(&last.outgoing.mark(last.times.ingest)));
            self.put(last, want.pack, &mut slice.content);
        }
        self.packing.finish(&self.origin, &mut slice.content);
        Ok(slice)
    }

    fn put(&mut self, item: Item, pack: bool, content: &mut Packed) {
        let Item {
            offset, outgoing, ..
        } = item;
        match self.origin.topics.partitions(&outgoing.topic) {
            Some(partitions) if pack => {
                self.packing
                    .push(&self.origin, partitions, offset, outgoing, content);
            }
            _ => content.push(offset, outgoing),
        }
    }

    /// None at the head.
    fn next(&mut self) -> Result<Option<Item>, Error> {
        if self.pending.is_empty() {
            let batch = self.reader.next(READ_BYTES)?;
            self.pending = items(&self.origin, self.poison.as_ref(), batch);
        }
        Ok(self.pending.pop_front())
    }
}

fn items(origin: &Origin, poison: Option<&Poison>, batch: Batch) -> VecDeque<Item> {
    let missing = batch.missing.map(|(first, next)| Item {
        offset: first,
        next,
        stands_for: StandsFor::Missing,
        times: Times::now(),
        outgoing: origin.missing(first, next),
    });
    let records = batch.records.into_iter();
    missing
        .into_iter()
        .chain(records.map(|(at, record)| item(origin, poison, at, record)))
        .collect()
}

fn item(origin: &Origin, poison: Option<&Poison>, offset: Offset, record: Record) -> Item {
    let times = Times::of(&record);
    let outgoing = origin.record(offset, record);
    let (stands_for, times, outgoing) = match poison.filter(|poison| poison.offset == offset) {
        Some(poison) => (
            StandsFor::Refused,
            Times::now(),
            origin.quarantined(offset, &outgoing, &poison.reason),
        ),
        None => (StandsFor::Itself, times, outgoing),
    };
    Item {
        offset,
        next: offset.plus(1),
        stands_for,
        times,
        outgoing,
    }
}

impl Slice {
    pub(crate) fn is_empty(&self) -> bool {
        self.records == 0
    }

    fn count(&mut self, item: &Item, fitted: Fitted) {
        self.records += 1;
        self.next = item.next;
        self.late += u64::from(fitted.late);
        self.restamped += u64::from(fitted.restamped);
        self.backfilled += u64::from(fitted.backfilled);
        match item.stands_for {
            StandsFor::Itself => {
                self.delivered += 1;
                self.oldest.get_or_insert(item.times.ingest);
            }
            StandsFor::Missing => self.missing += item.next.0 - item.offset.0,
            StandsFor::Refused => self.quarantined += 1,
        }
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

    /// All of `batch`, of a log that ends with it.
    fn slice(poison: Poison, batch: Batch) -> Slice {
        let folder = tempfile::tempdir_in(".").unwrap();
        let mut options = skerry_store::Options::new(folder.path());
        options.allow_volatile = true;
        let stream = StreamName::new("s").unwrap();
        options.streams = vec![skerry_store::StreamOptions::new(stream.clone(), 1 << 20)];
        let (log, _) = Log::open(options).unwrap();
        let origin = Origin::new("n", 1, "s", "skerry.s".to_owned());
        let mut inner = Inner {
            pending: items(&origin, Some(&poison), batch),
            origin,
            poison: None,
            reader: log.reader(&stream, Offset::ZERO).unwrap(),
            packing: Packing::default(),
        };
        let want = Want {
            bytes: usize::MAX,
            records: u64::MAX,
            pack: false,
        };
        inner.slice(want).unwrap()
    }

    #[test]
    fn every_offset_is_counted_once_as_itself_or_as_a_gap() {
        let poison = Poison {
            offset: Offset(12),
            reason: "too large".to_owned(),
        };
        let slice = slice(poison, batch(Some((4, 10)), 10..15));
        assert_eq!(
            (slice.delivered, slice.missing, slice.quarantined),
            (4, 6, 1)
        );
        assert_eq!((slice.next, slice.records), (Offset(15), 6));
        let offsets: Vec<u64> = slice.content.offsets.iter().map(|at| at.0).collect();
        assert_eq!(offsets, [4, 10, 11, 12, 13, 14]);
        assert!(slice.last.is_some() && slice.oldest.is_some());
    }

    #[test]
    fn a_slice_that_ends_with_a_gap_has_no_fingerprint() {
        let poison = Poison {
            offset: Offset(1),
            reason: String::new(),
        };
        let slice = slice(poison, batch(None, 0..2));
        assert_eq!((slice.last, slice.next), (None, Offset(2)));
    }
}
