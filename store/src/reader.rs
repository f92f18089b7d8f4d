//! Reading one stream in order, from the files, never ahead of what is durable.

use crate::frame::Flaw;
use crate::segment::{Check, Segment, Step, Walk};
use crate::stream::{Shared, Stream};
use crate::{Error, Offset, Record};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::watch;

/// Reads one stream in order. Never sees a record that is not yet durable.
///
/// Holds one frame and a read-ahead window at most, and one open file, however far behind it
/// is. Advances nothing but itself: progress that is to survive is a [`Change::Advance`].
///
/// [`Change::Advance`]: crate::Change::Advance
pub struct Reader {
    shared: Arc<Shared>,
    index: usize,
    stream: Arc<Stream>,
    head: watch::Receiver<Offset>,
    position: Offset,
    open: Option<Open>,
    /// Decoded and not yet handed out; the first is the one at `position`.
    ahead: VecDeque<Record>,
}

struct Open {
    segment: Arc<Segment>,
    walk: Walk,
}

/// Records that follow one another, and what is missing before them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Offsets that are gone for good and were skipped before `records`: first, one past last.
    pub missing: Option<(Offset, Offset)>,
    pub records: Vec<(Offset, Record)>,
}

impl Batch {
    /// Whether there was nothing to read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.missing.is_none() && self.records.is_empty()
    }
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>, index: usize, from: Offset) -> Self {
        let stream = Arc::clone(&shared.streams[index]);
        Self {
            head: stream.head.clone(),
            shared,
            index,
            stream,
            position: from,
            open: None,
            ahead: VecDeque::new(),
        }
    }

    /// The next records, at least one and until `bytes_max` of payload is reached; empty at the
    /// head. Blocks on the disk only. Records removed by retention or damage show as
    /// [`Batch::missing`] before the next batch.
    pub fn next(&mut self, bytes_max: usize) -> Result<Batch, Error> {
        self.shared.check()?;
        let head = *self.head.borrow();
        let mut batch = Batch::default();
        let mut bytes = 0;
        while self.position < head {
            if let Some(record) = self.ahead.pop_front() {
                bytes += record.payload.len();
                batch.records.push((self.position, record));
                self.position = self.position.plus(1);
                if bytes >= bytes_max {
                    break;
                }
                continue;
            }
            // The next frame need not be in memory as well while this batch is.
            if !batch.records.is_empty() && bytes + crate::frame::BODY_BYTES_TARGET > bytes_max {
                break;
            }
            match self.load(head)? {
                Loaded::Records => {}
                Loaded::Missing(next) if batch.records.is_empty() => {
                    let first = batch.missing.map_or(self.position, |(first, _)| first);
                    batch.missing = Some((first, next));
                    self.position = next;
                }
                // To be found again, and reported, by the next call.
                Loaded::Missing(_) => {
                    self.open = None;
                    break;
                }
            }
        }
        Ok(batch)
    }

    /// The same, waiting for the head to move when there is nothing to read.
    ///
    /// Cancelling loses nothing. The reading itself blocks the task for as long as the disk
    /// takes; a task with others beside it reads a backlog with [`Reader::next`] on a thread
    /// where that is allowed.
    pub async fn follow(&mut self, bytes_max: usize) -> Result<Batch, Error> {
        loop {
            self.head.mark_unchanged();
            let batch = self.next(bytes_max)?;
            if !batch.is_empty() {
                return Ok(batch);
            }
            if self.head.changed().await.is_err() {
                self.shared.check()?;
                return Err(Error::Closed);
            }
        }
    }

    /// The offset of the record that comes next.
    #[must_use]
    pub const fn position(&self) -> Offset {
        self.position
    }

    /// Goes on at `offset`.
    pub fn seek(&mut self, offset: Offset) {
        self.position = offset;
        self.open = None;
        self.ahead.clear();
    }

    /// Decodes the frame that holds `position`, or says where records go on instead.
    fn load(&mut self, head: Offset) -> Result<Loaded, Error> {
        let tail = self.stream.tail();
        if self.position < tail {
            self.open = None;
            return Ok(Loaded::Missing(tail.min(head)));
        }
        let Some((segment, after)) = self.stream.segment_at(self.position) else {
            return Ok(Loaded::Missing(tail.min(head).max(self.position.plus(1))));
        };
        let stays = |open: &Open| Arc::ptr_eq(&open.segment, &segment);
        if !self.open.as_ref().is_some_and(stays) {
            self.open = None;
            match segment.walk(segment.seek(self.position)) {
                Ok(walk) => {
                    let segment = Arc::clone(&segment);
                    self.open = Some(Open { segment, walk });
                }
                // Removed between our look at the list and now: look again.
                Err(_) if self.stream.tail() > self.position => return self.load(head),
                Err(error) => return Err(error),
            }
        }
        let open = self.open.as_mut().expect("opened above");
        let end = after.unwrap_or(head).min(head);
        let loaded = open.load(self.position, end, &mut self.ahead)?;
        if loaded != Loaded::Records {
            self.open = None;
            self.shared.report_damage(self.index, &segment, end);
        }
        Ok(loaded)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loaded {
    /// `ahead` holds at least the record at `position`.
    Records,
    /// Nothing before this offset reads.
    Missing(Offset),
}

impl Open {
    /// `end` is where the records of this segment end.
    fn load(
        &mut self,
        position: Offset,
        end: Offset,
        ahead: &mut VecDeque<Record>,
    ) -> Result<Loaded, Error> {
        self.walk.extend(self.segment.bytes());
        loop {
            let (at, header) = match self.walk.step(Check::Header)? {
                Step::Frame { at, header } => (at, header),
                Step::Damage { .. } => continue,
                Step::Torn { .. } | Step::End { .. } => return Ok(Loaded::Missing(end)),
            };
            if header.next() <= position {
                self.segment.mark(header.base, at);
                continue;
            }
            if header.base > position {
                return Ok(Loaded::Missing(header.base));
            }
            let seed = self.walk.seed();
            let payload = self.walk.payload(at, &header)?;
            return match header.open(payload, &seed) {
                Ok(body) => {
                    let skip = (position.0 - header.base.0) as usize;
                    ahead.extend(body.records.into_iter().skip(skip));
                    Ok(Loaded::Records)
                }
                Err(Flaw::Locked) => Err(self.walk.locked()),
                Err(flaw) => {
                    let path = self.segment.path.display();
                    tracing::error!(%path, at, %flaw, "a frame is damaged and was skipped");
                    // Where records go on is for the next frame to say.
                    continue;
                }
            };
        }
    }
}
