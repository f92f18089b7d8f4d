//! The newest frames of each stream, unpacked and in memory, so that who reads at the head of a
//! stream neither touches the disk nor decompresses.
//!
//! ```text
//!  disk    │ frame │ frame │ frame │ frame │ frame │ frame │
//!  memory                          │ body  │ body  │ body  │ body
//!                                        readers ─► head   └ waits for its sync
//! ```
//!
//! It is only ever a copy: what is not in it is read from the disk, so the writer may leave out
//! and drop what it likes. A frame is put in before its sync. That is no earlier than it may be,
//! as readers ask for records before the head alone; and when the head moves past it, it is there.

use crate::Offset;
use crate::frame::Builder;
use crate::plan::Planned;
use crate::stream::Shared;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a frame takes besides its body, give or take.
const OVERHEAD_BYTES: usize = 128;

/// One frame's records.
#[derive(Debug, Clone)]
pub(crate) struct Unpacked {
    pub(crate) base: Offset,
    next: Offset,
    pub(crate) body: Arc<Vec<u8>>,
    bytes: usize,
}

impl Unpacked {
    /// The frame that `builder` makes, whose body is `body`.
    pub(crate) fn new(builder: &Builder<'_>, body: Vec<u8>) -> Self {
        Self {
            base: builder.base,
            next: builder.next(),
            body: Arc::new(body),
            bytes: Self::bytes_of(builder),
        }
    }

    const fn bytes_of(builder: &Builder<'_>) -> usize {
        builder.bytes() + OVERHEAD_BYTES
    }
}

/// Those of one stream. Changed by the writer alone.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    /// Oldest first; they need not follow one another.
    frames: Mutex<VecDeque<Unpacked>>,
    /// What they take.
    bytes: AtomicUsize,
}

impl Recent {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The frame that holds `offset`, which is before the head.
    pub(crate) fn frame_of(&self, offset: Offset) -> Option<Unpacked> {
        let frames = self.frames();
        let after = frames.partition_point(|frame| frame.base <= offset);
        let found = frames.get(after.checked_sub(1)?)?;
        (offset < found.next).then(|| found.clone())
    }

    /// Behind all others.
    pub(crate) fn push(&self, frame: Unpacked) {
        self.bytes.fetch_add(frame.bytes, Ordering::Relaxed);
        self.frames().push_back(frame);
    }

    /// Retention gave up what is before `tail`.
    pub(crate) fn forget_before(&self, tail: Offset) {
        let mut frames = self.frames();
        while frames.front().is_some_and(|frame| frame.next <= tail) {
            self.forgotten(frames.pop_front());
        }
    }

    /// A commit failed: the records from `next` on are going to be others.
    pub(crate) fn forget_from(&self, next: Offset) {
        let mut frames = self.frames();
        while frames.back().is_some_and(|frame| frame.next > next) {
            self.forgotten(frames.pop_back());
        }
    }

    /// Returns how much that was.
    fn forget_oldest(&self) -> usize {
        let oldest = self.frames().pop_front();
        self.forgotten(oldest)
    }

    fn forgotten(&self, frame: Option<Unpacked>) -> usize {
        let bytes = frame.map_or(0, |frame| frame.bytes);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        bytes
    }

    fn frames(&self) -> MutexGuard<'_, VecDeque<Unpacked>> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// From where on the bodies of the frames that a commit writes to a stream are to stay: as
    /// many as there may be at all.
    pub(crate) fn recent_from(&self, frames: &[&Planned<'_>]) -> Offset {
        let mut bytes = 0;
        let newest = frames.iter().rev();
        let stay = newest.take_while(|frame| {
            bytes += Unpacked::bytes_of(&frame.builder);
            bytes <= self.recent_bytes_max
        });
        let first = stay.last().map(|frame| frame.builder.base);
        first.unwrap_or(Offset(u64::MAX))
    }

    /// Forgets what is too much. Done once a commit is over: until then readers have those of the
    /// commit before, that may be as large.
    ///
    /// Whoever holds most loses its oldest frame: so no stream, however busy, takes from another
    /// its share.
    pub(crate) fn trim_recent(&self) {
        let held = self.streams.iter().map(|stream| stream.recent.bytes());
        let mut held: Vec<usize> = held.collect();
        while held.iter().sum::<usize>() > self.recent_bytes_max {
            let largest = (0..held.len()).max_by_key(|&stream| held[stream]);
            let largest = largest.expect("somebody holds it");
            held[largest] -= self.streams[largest].recent.forget_oldest();
        }
    }
}
