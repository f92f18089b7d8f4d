//! Reading one stream in order, from memory at its head and from the files else, never ahead of
//! what is durable.

use crate::frame::{Flaw, Header, Seed};
use crate::recent::Unpacked;
use crate::segment::{Check, HEADER_BYTES, Segment, Step, Walk};
use crate::stream::{Shared, Stream};
use crate::{Error, Offset, Record, RecordViews};
use std::sync::Arc;
use tokio::sync::watch;

/// Reads one stream in order. Never sees a record that is not yet durable.
///
/// Holds one frame and a read-ahead window at most, and one open file, however far behind it
/// is, and nothing of all that once it found itself at the head. There it is served from memory
/// ([`Options::recent_bytes_max`]), be the copy on the disk damaged meanwhile or not. Advances nothing but itself: progress that is to survive is a [`Change::Advance`].
///
/// [`Change::Advance`]: crate::Change::Advance
/// [`Options::recent_bytes_max`]: crate::Options::recent_bytes_max
pub struct Reader {
    shared: Arc<Shared>,
    index: usize,
    stream: Arc<Stream>,
    head: watch::Receiver<Offset>,
    position: Offset,
    open: Option<Open>,
    /// The first record in it that was not handed out is the one at `position`.
    frame: Frame,
}

struct Open {
    segment: Arc<Segment>,
    walk: Walk,
    /// It went over the segment from its first frame on.
    from_front: bool,
}

/// A frame's body, and which of its records were not handed out.
#[derive(Default)]
struct Frame {
    /// What was read from a file, unless it is one of the stream's newest: those are shared with
    /// whoever reads there too.
    body: Vec<u8>,
    recent: Option<Arc<Vec<u8>>>,
    /// How many bytes at the end of the body those are, the frame's changes included.
    rest_bytes: usize,
    left: u64,
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

/// A [`Batch`] whose records are still in the reader: each is decoded when its turn comes.
#[derive(Debug)]
pub struct Views<'a> {
    pub missing: Option<(Offset, Offset)>,
    pub records: RecordViews<'a>,
}

impl Views<'_> {
    /// Whether there was nothing to read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
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
            frame: Frame::default(),
        }
    }

    /// The next records, at least one and until `bytes_max` of payload is reached; empty at the
    /// head. Blocks on the disk only. Records removed by retention or damage show as
    /// [`Batch::missing`] before the next batch.
    pub fn next(&mut self, bytes_max: usize) -> Result<Batch, Error> {
        self.shared.check()?;
        let head = *self.head.borrow();
        let mut batch = Batch {
            missing: self.find(head)?,
            records: Vec::new(),
        };
        let mut bytes = 0;
        while self.frame.left > 0 {
            let mut views = self.frame.records(self.position);
            for (offset, view) in views.by_ref() {
                bytes += view.payload.len();
                batch.records.push((offset, view.to_record()));
                if bytes >= bytes_max {
                    break;
                }
            }
            let (rest, next, left) = views.rest();
            (self.frame.rest_bytes, self.frame.left) = (rest.len(), left);
            self.position = next;
            // The next frame need not be in memory as well while this batch is.
            if bytes + crate::frame::BODY_BYTES_TARGET > bytes_max || next >= head {
                break;
            }
            // What is missing is found again, and reported, by the next call.
            if let Loaded::Missing(_) = self.load(head)? {
                self.open = None;
            }
        }
        Ok(batch)
    }

    /// The next records, as many as one frame has, without a copy of each; empty at the head.
    /// Else like [`Reader::next`]. The reader goes on behind them however many are looked at.
    pub fn next_views(&mut self) -> Result<Views<'_>, Error> {
        self.shared.check()?;
        let head = *self.head.borrow();
        let missing = self.find(head)?;
        let first = self.position;
        self.position = first.plus(self.frame.left);
        Ok(Views {
            missing,
            records: self.frame.take(first),
        })
    }

    /// Loads the frame that holds `position`, unless it is, and says what is missing before it.
    fn find(&mut self, head: Offset) -> Result<Option<(Offset, Offset)>, Error> {
        let from = self.position;
        while self.frame.left == 0 && self.position < head {
            if let Loaded::Missing(next) = self.load(head)? {
                self.position = next;
            }
        }
        if self.frame.left == 0 {
            // There are many readers, and most of them wait.
            (self.open, self.frame) = (None, Frame::default());
        }
        Ok((from < self.position).then_some((from, self.position)))
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
        self.frame.left = 0;
    }

    /// Takes in the frame that holds `position`, or says where records go on instead.
    fn load(&mut self, head: Offset) -> Result<Loaded, Error> {
        let tail = self.stream.tail();
        if self.position < tail {
            self.open = None;
            return Ok(Loaded::Missing(tail.min(head)));
        }
        if let Some(recent) = self.stream.recent.frame_of(self.position) {
            self.open = None;
            self.frame.share(recent, self.position);
            return Ok(Loaded::Records);
        }
        let Some((segment, after)) = self.stream.segment_at(self.position) else {
            return Ok(Loaded::Missing(tail.min(head).max(self.position.plus(1))));
        };
        let stays = |open: &Open| Arc::ptr_eq(&open.segment, &segment);
        if !self.open.as_ref().is_some_and(stays) {
            self.open = None;
            match Open::near(&segment, self.position) {
                Ok(open) => self.open = Some(open),
                // Removed between our look at the list and now: look again.
                Err(_) if self.stream.tail() > self.position => return self.load(head),
                Err(error) => return Err(error),
            }
        }
        let open = self.open.as_mut().expect("opened above");
        let end = after.unwrap_or(head).min(head);
        let mut loaded = open.load(self.position, end, &mut self.frame)?;
        if loaded != Loaded::Records && !open.from_front {
            open.go_to_front();
            loaded = open.load(self.position, end, &mut self.frame)?;
        }
        if loaded != Loaded::Records {
            self.open = None;
            self.shared.report_damage(self.index, &segment, end);
        }
        Ok(loaded)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loaded {
    /// The frame holds at least the record at `position`, which is its next.
    Records,
    /// Nothing before this offset reads.
    Missing(Offset),
}

impl Open {
    fn near(segment: &Arc<Segment>, position: Offset) -> Result<Self, Error> {
        let from_front = position <= segment.name.base;
        let walk = if from_front {
            segment.walk(HEADER_BYTES as u64)
        } else {
            segment.walk_to(position)
        };
        Ok(Self {
            segment: Arc::clone(segment),
            walk: walk?,
            from_front,
        })
    }

    /// From there on nothing can pass for a frame that is none.
    fn go_to_front(&mut self) {
        self.walk.go_on_at(HEADER_BYTES as u64);
        self.from_front = true;
    }

    /// `end` is where the records of this segment end.
    fn load(&mut self, position: Offset, end: Offset, frame: &mut Frame) -> Result<Loaded, Error> {
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
            return match frame.fill(payload, &header, &seed, position) {
                Ok(()) => Ok(Loaded::Records),
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

impl Frame {
    fn records(&self, position: Offset) -> RecordViews<'_> {
        RecordViews::new(self.rest(), position, self.left)
    }

    /// The same, and they count as handed out.
    fn take(&mut self, position: Offset) -> RecordViews<'_> {
        let left = std::mem::take(&mut self.left);
        RecordViews::new(self.rest(), position, left)
    }

    fn rest(&self) -> &[u8] {
        let body = self.recent.as_deref().unwrap_or(&self.body);
        &body[body.len() - self.rest_bytes..]
    }

    /// Takes in one that is in memory.
    fn share(&mut self, recent: Unpacked, position: Offset) {
        let mut records = RecordViews::of_own_body(&recent.body, recent.base);
        records.skip_to(position);
        let (rest, _, left) = records.rest();
        (self.rest_bytes, self.left) = (rest.len(), left);
        (self.recent, self.body) = (Some(recent.body), Vec::new());
    }

    /// Takes in the frame that holds `position`.
    fn fill(
        &mut self,
        payload: &[u8],
        header: &Header,
        seed: &Seed,
        position: Offset,
    ) -> Result<(), Flaw> {
        (self.rest_bytes, self.left) = (0, 0);
        self.recent = None;
        let mut records = header.open(payload, seed, &mut self.body)?.records;
        records.skip_to(position);
        let (rest, _, left) = records.rest();
        (self.rest_bytes, self.left) = (rest.len(), left);
        Ok(())
    }
}
