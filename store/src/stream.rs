//! What the writer, the readers and the handles share.

use crate::catalog::Catalog;
use crate::queue::Queue;
use crate::recent::Recent;
use crate::segment::Segment;
use crate::stats::Figures;
use crate::{Change, Error, Offset, StreamName, StreamOptions};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;
use tokio::sync::watch;

/// One stream as everybody sees it: its segments, and how far they are durable.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) options: StreamOptions,
    pub(crate) directory: PathBuf,
    pub(crate) segment_bytes: u64,
    pub(crate) head: watch::Receiver<Offset>,
    /// Oldest first.
    segments: RwLock<Vec<Arc<Segment>>>,
    /// What of them is in memory.
    pub(crate) recent: Recent,
    /// Records before this are given up, even where their segment is still on disk.
    floor: AtomicU64,
    /// One past the last acknowledged record, and since when one of those waits for its sync.
    accepted: AtomicU64,
    waiting_since: Mutex<Option<Instant>>,
    /// Bytes it holds besides its reserve: for the journal, its snapshot.
    unreserved: AtomicU64,
}

impl Stream {
    pub(crate) fn new(
        options: StreamOptions,
        directory: PathBuf,
        segment_bytes: u64,
        head: watch::Receiver<Offset>,
        segments: Vec<Arc<Segment>>,
    ) -> Self {
        // At least four segments, so that reclaiming one never frees more than a quarter.
        let segment_bytes = segment_bytes.min(options.bytes_max / 4).max(1);
        let accepted = AtomicU64::new(head.borrow().0);
        Self {
            options,
            directory,
            segment_bytes,
            head,
            segments: RwLock::new(segments),
            recent: Recent::default(),
            floor: AtomicU64::new(0),
            accepted,
            waiting_since: Mutex::default(),
            unreserved: AtomicU64::new(0),
        }
    }

    pub(crate) fn head(&self) -> Offset {
        *self.head.borrow()
    }

    pub(crate) fn accept(&self, next: Offset) {
        self.accepted.store(next.0, Ordering::Release);
    }

    pub(crate) fn waits_since(&self, since: Option<Instant>) {
        let waiting = self.waiting_since.lock();
        *waiting.unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// How many acknowledged records wait for their sync, and since when.
    pub(crate) fn unsynced(&self) -> (u64, Option<Instant>) {
        let waiting = self.waiting_since.lock();
        let since = *waiting.unwrap_or_else(PoisonError::into_inner);
        let accepted = self.accepted.load(Ordering::Acquire);
        (accepted.saturating_sub(self.head().0), since)
    }

    /// The first record still held.
    pub(crate) fn tail(&self) -> Offset {
        let first = self.first().map(|segment| segment.name.base);
        let floor = Offset(self.floor.load(Ordering::Acquire));
        first.unwrap_or_else(|| self.head()).max(floor)
    }

    /// The segment that holds `offset` or would, and the base of the one after it.
    pub(crate) fn segment_at(&self, offset: Offset) -> Option<(Arc<Segment>, Option<Offset>)> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let after = segments.partition_point(|segment| segment.name.base <= offset);
        let found = segments.get(after.checked_sub(1)?)?;
        let next = segments.get(after).map(|segment| segment.name.base);
        Some((Arc::clone(found), next))
    }

    pub(crate) fn first(&self) -> Option<Arc<Segment>> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.first().cloned()
    }

    pub(crate) fn segments(&self) -> Vec<Arc<Segment>> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.clone()
    }

    pub(crate) fn bytes(&self) -> u64 {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.iter().map(|segment| segment.bytes()).sum()
    }

    /// About how many of them hold the records from `offset` on.
    pub(crate) fn bytes_from(&self, offset: Offset) -> u64 {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments
            .iter()
            .map(|segment| segment.bytes_from(offset))
            .sum()
    }

    /// What it may still write of its reserve.
    pub(crate) fn reserve_left(&self) -> u64 {
        let unreserved = self.unreserved.load(Ordering::Acquire);
        let used = self.bytes().saturating_sub(unreserved);
        self.options.reserve_bytes.saturating_sub(used)
    }

    /// What it holds now does not count against its reserve.
    pub(crate) fn renew_reserve(&self) {
        self.unreserved.store(self.bytes(), Ordering::Release);
    }

    pub(crate) fn push(&self, segment: Arc<Segment>) {
        let mut segments = self
            .segments
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        segments.push(segment);
    }

    pub(crate) fn remove_oldest(&self, count: usize) {
        let mut segments = self
            .segments
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        segments.drain(..count);
        drop(segments);
        self.recent.forget_before(self.tail());
    }

    /// From now on nothing before `floor` is handed out.
    pub(crate) fn raise_floor(&self, floor: Offset) {
        self.floor.fetch_max(floor.0, Ordering::AcqRel);
        self.recent.forget_before(floor);
    }
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) epoch: u64,
    pub(crate) directory: PathBuf,
    pub(crate) streams: Vec<Arc<Stream>>,
    /// Index of `_catalog` in `streams`.
    pub(crate) journal: usize,
    pub(crate) bytes_max_total: Option<u64>,
    pub(crate) recent_bytes_max: usize,
    pub(crate) catalog: Catalog,
    pub(crate) queue: Queue,
    /// Segments in which a reader came upon damage: the stream's index, and where it ends.
    pub(crate) damaged: Mutex<Vec<(usize, Arc<Segment>, Offset)>>,
    pub(crate) figures: Mutex<Figures>,
    /// Why the writer ended before it was told to. Its sender goes with the writer.
    pub(crate) poison: watch::Receiver<Option<Error>>,
}

impl Shared {
    pub(crate) fn index(&self, name: &StreamName) -> Result<usize, Error> {
        let found = self
            .streams
            .iter()
            .position(|stream| stream.options.name == *name);
        found.ok_or_else(|| Error::UnknownStream {
            name: name.to_string(),
        })
    }

    pub(crate) fn stream(&self, name: &StreamName) -> Result<&Arc<Stream>, Error> {
        self.index(name).map(|index| &self.streams[index])
    }

    /// Has the writer look at a segment, at its next commit; once each.
    pub(crate) fn report_damage(&self, stream: usize, segment: &Arc<Segment>, end: Offset) {
        if segment.report() {
            let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
            damaged.push((stream, Arc::clone(segment), end));
        }
    }

    /// A reader cannot have done with what is not there. Recovery relies on it: a cursor beyond
    /// the head means that the end of the stream was lost.
    pub(crate) fn check_advance(&self, change: &Change) -> Result<(), Error> {
        let Change::Advance {
            cursor,
            stream,
            next,
        } = change
        else {
            return Ok(());
        };
        let head = self.stream(&StreamName::new(stream)?)?.head();
        if *next <= head {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "cursor {cursor} cannot advance to {next}: the head of stream {stream} is {head}"
        )))
    }

    /// An error once the log is poisoned.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match &*self.poison.borrow() {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// What the streams hold, or reserve where that is more.
    pub(crate) fn weight(&self) -> u64 {
        let streams = self.streams.iter();
        streams
            .map(|stream| stream.bytes().max(stream.options.reserve_bytes))
            .sum()
    }

    /// What the streams may still write of what is reserved for them.
    pub(crate) fn reserve_unused(&self) -> u64 {
        let streams = self.streams.iter();
        streams.map(|stream| stream.reserve_left()).sum()
    }

    /// Everything in the stream before this is confirmed by all the readers it waits for.
    pub(crate) fn confirmed(&self, stream: &Stream) -> Offset {
        let name = stream.options.name.as_str();
        let cursor = |reader: &String| self.catalog.cursor(reader, name).unwrap_or_default();
        let cursors = stream.options.readers.iter().map(cursor);
        cursors.min().unwrap_or_default()
    }
}
