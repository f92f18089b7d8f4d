//! Finding records by their event time.
//!
//! There is no index by time. Event times are what sources say of themselves: they come out of
//! order, and a clock that jumps takes them years away and back. What there is are the earliest
//! and the latest event time in each frame's header. They are walked once per segment, and what
//! was the latest in it is kept in memory, so that later questions only look at segments that
//! have an answer.

use crate::segment::{Check, HEADER_BYTES, Segment, Step, Walk};
use crate::stream::Shared;
use crate::{Error, Offset, StreamName, WallNanos};
use std::borrow::Borrow;
use std::sync::PoisonError;

/// What is known of the event times in a segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Latest {
    /// Headers before this byte were looked at.
    until: u64,
    time: Option<WallNanos>,
}

impl Default for Latest {
    fn default() -> Self {
        Self {
            until: HEADER_BYTES as u64,
            time: None,
        }
    }
}

impl Shared {
    pub(crate) fn offset_at(&self, stream: &StreamName, time: WallNanos) -> Result<Offset, Error> {
        let stream = self.stream(stream)?;
        // Taken first: what is appended meanwhile comes behind it.
        let head = stream.head();
        let found = first_since(stream.segments(), time, stream.tail())?;
        Ok(found.unwrap_or(head))
    }
}

/// The first record of the segments, from `tail` on, whose event time is `time` or later. What
/// does not read is passed over.
pub(crate) fn first_since(
    segments: impl IntoIterator<Item = impl Borrow<Segment>>,
    time: WallNanos,
    tail: Offset,
) -> Result<Option<Offset>, Error> {
    for segment in segments {
        let segment = segment.borrow();
        match segment.first_since(time, tail) {
            Ok(None) => {}
            // Retired since it was listed.
            Err(_) if !segment.path.exists() => {}
            found => return found,
        }
    }
    Ok(None)
}

impl Segment {
    fn first_since(&self, time: WallNanos, tail: Offset) -> Result<Option<Offset>, Error> {
        if self.latest()?.is_none_or(|latest| latest < time) {
            return Ok(None);
        }
        let mut walk = self.walk_headers(HEADER_BYTES as u64)?;
        let mut body = Vec::new();
        loop {
            let (at, header) = match walk.step(Check::Header)? {
                Step::Frame { at, header } => (at, header),
                Step::Damage { .. } => continue,
                Step::Torn { .. } | Step::End { .. } => return Ok(None),
            };
            if header.count == 0 || header.last_time < time || header.next() <= tail {
                continue;
            }
            let seed = walk.seed();
            let opened = header.open(walk.payload(at, &header)?, &seed, &mut body);
            let Ok(mut records) = opened.map(|body| body.records) else {
                continue;
            };
            let found = records.find(|(at, record)| *at >= tail && record.event_time() >= time);
            if let Some((offset, _)) = found {
                return Ok(Some(offset));
            }
        }
    }

    /// The latest event time in it, as far as it is durable.
    fn latest(&self) -> Result<Option<WallNanos>, Error> {
        let mut latest = *self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.until < self.bytes() {
            let mut walk = self.walk_headers(latest.until)?;
            loop {
                match walk.step(Check::Header)? {
                    Step::Frame { header, .. } if header.count > 0 => {
                        latest.time = latest.time.max(Some(header.last_time));
                    }
                    Step::Frame { .. } | Step::Damage { .. } => {}
                    Step::Torn { at, .. } | Step::End { at } => {
                        latest.until = at;
                        break;
                    }
                }
            }
            *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = latest;
        }
        Ok(latest.time)
    }

    fn walk_headers(&self, from: u64) -> Result<Walk, Error> {
        Ok(self.walk(from)?.beside_writer().headers_only())
    }
}
