//! Records of a stream in order, with an account of every offset passed.

use super::{Fault, FaultKind};
use crate::frame::Flaw;
use crate::ranges::{self, Range, between};
use crate::segment::{Check, HEADER_BYTES, Segment, Step, Walk};
use crate::{Error, Offset, Record, StreamName, WallNanos};
use serde::Serialize;
use std::collections::VecDeque;
use std::path::PathBuf;

/// Which event times are asked for: those at `since` or later, and before `until`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    pub since: Option<WallNanos>,
    pub until: Option<WallNanos>,
}

impl Times {
    fn hold(self, time: WallNanos) -> bool {
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time < until)
    }

    /// Whether none of a frame's records can be meant.
    fn leave_out(self, earliest: WallNanos, latest: WallNanos) -> bool {
        self.since.is_some_and(|since| latest < since)
            || self.until.is_some_and(|until| earliest >= until)
    }

    const fn are_limited(self) -> bool {
        self.since.is_some() || self.until.is_some()
    }
}

/// What became of the offsets from `first` up to `next`: the other four add up to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Account {
    pub first: Offset,
    pub next: Offset,
    /// Handed out.
    pub records: u64,
    /// Of an event time that was not asked for.
    pub outside: u64,
    /// No longer there: confirmed, too old, or given up for newer ones.
    pub retired: u64,
    /// Damaged or lost.
    pub lost: u64,
}

/// A place that does not read: file, byte, and what is wrong there.
type Broken = (PathBuf, u64, FaultKind, String);

/// Records in order; holds one frame at a time.
#[derive(Debug)]
pub struct Records {
    stream: String,
    segments: VecDeque<Segment>,
    open: Option<(Segment, Walk)>,
    /// The body of the frame read last.
    body: Vec<u8>,
    ahead: VecDeque<(Offset, Record)>,
    times: Times,
    account: Account,
    /// Where something does not read, until it is known what was there.
    broken: Option<Broken>,
    /// A segment was retired since the list of them was made.
    retired: bool,
    faults: Vec<Fault>,
}

impl Records {
    /// `segments` are those from the one on that holds `from`.
    pub(super) fn new(stream: &StreamName, segments: Vec<Segment>, from: Offset) -> Self {
        Self {
            stream: stream.to_string(),
            segments: segments.into(),
            open: None,
            body: Vec::new(),
            ahead: VecDeque::new(),
            times: Times::default(),
            account: Account {
                first: from,
                next: from,
                records: 0,
                outside: 0,
                retired: 0,
                lost: 0,
            },
            broken: None,
            // What is before the first segment is not there any more.
            retired: true,
            faults: Vec::new(),
        }
    }

    /// Hands out these only. Frames without any of them are passed over unread.
    #[must_use]
    pub fn within(mut self, times: Times) -> Self {
        self.times = times;
        self
    }

    /// Of what was passed up to now.
    #[must_use]
    pub const fn account(&self) -> Account {
        self.account
    }

    /// The damaged places that were passed since this was last asked.
    pub fn take_faults(&mut self) -> Vec<Fault> {
        std::mem::take(&mut self.faults)
    }

    /// Goes on by a frame or a segment; false at the end.
    fn load(&mut self) -> Result<bool, Error> {
        let Some((segment, walk)) = &mut self.open else {
            return self.open_next();
        };
        let (at, header) = match walk.step(Check::Header)? {
            Step::Frame { at, header } => (at, header),
            Step::Damage { at, flaw, .. } => {
                let path = segment.path.clone();
                self.broken = Some((path, at, FaultKind::Damage, flaw.to_string()));
                return Ok(true);
            }
            Step::Torn { at, flaw, .. } => {
                // At the very end it is a commit under way, or one that never finished.
                let path = segment.path.clone();
                self.broken = Some((path, at, FaultKind::Damage, flaw.to_string()));
                self.open = None;
                return Ok(true);
            }
            Step::End { .. } => {
                self.open = None;
                return Ok(true);
            }
        };
        let next = header.next();
        if next <= self.account.next {
            self.broken = None;
            return Ok(true);
        }
        if self.times.leave_out(header.first_time, header.last_time) {
            self.reach(header.base, at);
            self.account.outside += next.0 - self.account.next.0;
            self.account.next = next;
            return Ok(true);
        }
        let seed = walk.seed();
        let mut bytes = std::mem::take(&mut self.body);
        match header.open(walk.payload(at, &header)?, &seed, &mut bytes) {
            Ok(body) => {
                self.reach(header.base, at);
                let from = self.account.next;
                let records = body.records.filter(|(at, _)| *at >= from);
                let records = records.map(|(at, record)| (at, record.to_record()));
                self.ahead.extend(records);
            }
            // Begun since we looked, by a node that was given a key since.
            Err(Flaw::Locked) => return Err(walk.locked()),
            // What its header says is not to be believed: the next frame tells what was here.
            Err(flaw @ Flaw::Seal) => {
                let path = segment.path.clone();
                self.broken = Some((path, at, FaultKind::Seal, flaw.to_string()));
            }
            Err(flaw) => {
                let path = segment.path.clone();
                self.reach(header.base, at);
                self.broken = Some((path, at, FaultKind::Damage, flaw.to_string()));
                self.reach(next, at);
            }
        }
        self.body = bytes;
        Ok(true)
    }

    fn open_next(&mut self) -> Result<bool, Error> {
        let Some(segment) = self.segments.pop_front() else {
            self.end();
            return Ok(false);
        };
        match segment.walk(HEADER_BYTES as u64) {
            Ok(walk) => {
                let walk = walk.beside_writer();
                let walk = match self.times.are_limited() {
                    true => walk.headers_only(),
                    false => walk,
                };
                let base = segment.name.base;
                self.open = Some((segment, walk));
                self.reach(base, 0);
                self.retired = false;
            }
            // Retired by the live node since we listed it.
            Err(_) if !segment.path.exists() => self.retired = true,
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    fn fault(&mut self, (file, position, kind, what): Broken, missing: Option<Range>) {
        self.faults.push(Fault {
            stream: self.stream.clone(),
            file,
            position,
            kind,
            what,
            missing,
            told: false,
        });
    }

    /// Nothing follows that could tell how many records were in an altered frame. What is torn here
    /// is a commit under way, or one that never finished.
    fn end(&mut self) {
        let broken = self.broken.take();
        if let Some(altered) = broken.filter(|broken| broken.2 == FaultKind::Seal) {
            self.fault(altered, None);
        }
    }

    /// The log goes on with `base`, at byte `at` of the open segment: what is missing before it
    /// is accounted for.
    fn reach(&mut self, base: Offset, at: u64) {
        let broken = self.broken.take();
        let Some(missing) = between(self.account.next, base) else {
            return;
        };
        self.account.next = base;
        let count = ranges::count(missing);
        if broken.is_none() && self.retired {
            self.account.retired += count;
            return;
        }
        self.account.lost += count;
        let here = || {
            let open = self.open.as_ref();
            let path = open.map_or_else(PathBuf::new, |(segment, _)| segment.path.clone());
            (
                path,
                at,
                FaultKind::Missing,
                "records are missing".to_owned(),
            )
        };
        self.fault(broken.unwrap_or_else(here), Some(missing));
    }
}

impl Iterator for Records {
    type Item = Result<(Offset, Record), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((offset, record)) = self.ahead.pop_front() {
                self.account.next = offset.plus(1);
                if self.times.hold(record.event_time()) {
                    self.account.records += 1;
                    return Some(Ok((offset, record)));
                }
                self.account.outside += 1;
                continue;
            }
            match self.load() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    self.open = None;
                    return Some(Err(error));
                }
            }
        }
    }
}
