//! Holes filled from the server's history.
//!
//! ```text
//!   log:   … a b c │              hole              │ f g …
//!                  last value of a node    first value of the next subscription,
//!                  that is in the log      or first behind an overflow of its queue
//! ```
//!
//! A hole is known when the value behind it arrives. That message is held back, unacknowledged,
//! until the history between the two is in the log: the records of a node stay in the order of
//! their times, and since nothing of the message is in the log yet, a crash on the way just finds
//! the hole again, a smaller one. The server queues what comes meanwhile, as it does in an outage.
//!
//! Live data does not wait for ever, though. After [`super::Config::history_hold`] it goes on, and what is still to
//! be read comes behind it, marked as late; each hole that is left is noted in the catalog with
//! the value behind it, and shrinks with every append.
//!
//! What the history does not have is a gap record of the node: nothing back to its last value in
//! the log, or an error. Values at the two ends are recognised by their source timestamps, and
//! belong to the log already.

use super::error::{Error, status};
use super::history::{History, Hole};
use super::ingest::{APPEND_BYTES, BACKFILL, LATE, Taken, bytes_of};
use super::link::Link;
use super::value::{Sample, Value};
use super::wire::{Chapter, Item, Page, Session, status_name};
use bytes::Bytes;
use skerry_store::{Change, Record, WallNanos};
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// Values of one node in one answer, and nodes in one request: what an answer takes in memory.
const VALUES_AT_ONCE: u32 = 1_000;
const NODES_AT_ONCE: usize = 10;
/// Nodes are read together when their holes start within so much of each other.
const TOGETHER: i64 = 1_000_000_000;
/// The node's last value in the log proves that the history reaches back to it. A server that
/// keeps times more coarsely than it sends them has it a little before.
const SLACK: i64 = 1_000_000_000;
/// Servers write their history with some delay: a node whose end has not shown is read once more
/// after this.
const SETTLE: Duration = Duration::from_secs(1);
/// Attempts at one node that bring nothing new, before the rest of its hole is a gap.
const ATTEMPTS_MAX: u32 = 5;
/// Connections that broke while history was read, after which none is read any more: better
/// without it than without data.
pub(super) const BREAKS_MAX: u32 = 3;
/// Nodes that get a gap record each; of more, one tells.
const GAPS_MAX: usize = 100;
/// Nodes in one question for their attributes.
const ASKED_AT_ONCE: usize = 500;

/// One node's hole, being filled.
#[derive(Debug)]
pub(super) struct Open {
    chapter: Chapter,
    hole: Hole,
    /// The value at its end, to be recognised.
    edge: Option<Value>,
    /// The history was seen to reach back to the start.
    reached_back: bool,
    /// The value at the end was seen.
    ended: bool,
    settled: bool,
    /// The newest value seen, be it in the log already.
    newest: Option<WallNanos>,
    attempts: u32,
}

/// Nodes that are read together.
#[derive(Debug)]
pub(super) struct Reading {
    open: Vec<Open>,
    pub(super) span: (WallNanos, WallNanos),
    not_before: Instant,
}

/// A page of each node, or why there is none.
pub(super) type Answer = Result<Vec<Result<Page, u32>>, Error>;

/// What is behind a hole that a message shows.
struct Found {
    handle: u32,
    hole: Hole,
    edge: Value,
    overflow: bool,
}

impl Reading {
    fn of(open: Vec<Open>, not_before: Instant) -> Self {
        let start = |node: &Open| match node.reached_back {
            true => node.hole.from.0,
            false => node.hole.from.0.saturating_sub(SLACK),
        };
        let from = open.iter().map(start).min().unwrap_or_default();
        let to = open.iter().map(|node| node.hole.to.0).max();
        // The end itself is excluded (Part 11, 6.5.3.2), and is to be seen.
        let to = to.unwrap_or_default().saturating_add(SLACK / 1_000);
        Self {
            open,
            span: (WallNanos(from), WallNanos(to)),
            not_before,
        }
    }

    fn group(mut open: Vec<Open>) -> VecDeque<Self> {
        open.sort_by_key(|node| node.hole.from);
        let mut readings = VecDeque::new();
        let mut group: Vec<Open> = Vec::new();
        for node in open {
            let apart = group.first().is_some_and(|first| {
                group.len() == NODES_AT_ONCE || node.hole.from.0 - first.hole.from.0 > TOGETHER
            });
            if apart {
                readings.push_back(Self::of(std::mem::take(&mut group), Instant::now()));
            }
            group.push(node);
        }
        if !group.is_empty() {
            readings.push_back(Self::of(group, Instant::now()));
        }
        readings
    }

    pub(super) async fn ask(&self, session: &Session) -> Answer {
        let chapters: Vec<_> = self.open.iter().map(|node| node.chapter.clone()).collect();
        session.history(&chapters, self.span, VALUES_AT_ONCE).await
    }
}

impl Open {
    fn new(chapter: Chapter, hole: Hole, edge: Option<Value>) -> Self {
        Self {
            chapter,
            hole,
            edge,
            reached_back: false,
            ended: false,
            settled: false,
            newest: None,
            attempts: 0,
        }
    }

    /// Whether this is the value at the end, which the subscription brought: by its time, or as
    /// the same value in the same millisecond, because some histories keep no more.
    fn is_edge(&self, time: WallNanos, value: &Value) -> bool {
        let millisecond = |time: WallNanos| time.0.div_euclid(1_000_000);
        time >= self.hole.to
            || (millisecond(time) == millisecond(self.hole.to) && self.edge.as_ref() == Some(value))
    }

    /// Takes from a page what lies in the hole; the start of the history, where the hole
    /// starts earlier.
    fn take(&mut self, page: Vec<Sample>) -> (Vec<Sample>, Option<Hole>) {
        let mut inside = Vec::new();
        let mut unknown = None;
        for sample in page {
            let Some(time) = sample.source_time.or(sample.server_time) else {
                continue;
            };
            if self.newest.is_none_or(|newest| time > newest) {
                self.newest = Some(time);
                self.attempts = 0;
            }
            if time <= self.hole.from {
                self.reached_back = true;
                continue;
            }
            if !std::mem::replace(&mut self.reached_back, true) {
                let (from, to) = (self.hole.from, time.min(self.hole.to));
                unknown = Some(Hole { from, to });
            }
            if self.is_edge(time, &sample.value) {
                self.ended = true;
                break;
            }
            self.hole.from = time;
            inside.push(sample);
        }
        (inside, unknown)
    }
}

impl Link {
    /// Asks which of `items` have history at the server.
    pub(super) async fn ask_history(
        &mut self,
        session: &Session,
        items: &[Item],
    ) -> Result<(), Error> {
        if self.ingest.config.history == History::Off {
            return Ok(());
        }
        let mut at_once = ASKED_AT_ONCE;
        let mut rest = items;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(at_once.min(rest.len()));
            let nodes: Vec<String> = now.iter().map(|item| item.node.clone()).collect();
            match session.have_history(&nodes).await {
                Ok(offered) => {
                    for (item, offered) in now.iter().zip(offered) {
                        self.marks.offered(item.handle, offered);
                    }
                    rest = later;
                }
                Err(error) if at_once > 1 && !error.is_broken_connection() => at_once /= 2,
                Err(error) => return Err(error),
            }
        }
        self.ingest.status.history(&self.marks);
        Ok(())
    }

    /// After an outage since `last` that no subscription bridged: gap records of what no history
    /// will fill.
    pub(super) fn outage_gaps(
        &self,
        last: WallNanos,
        bad_before: &super::nodes::Refused,
    ) -> Vec<Record> {
        let config = &self.ingest.config;
        let filled: BTreeSet<u32> = self.marks.with_values().collect();
        let never = |handle: &u32| bad_before.contains_key(handle) && self.bad.contains_key(handle);
        let rest: Vec<u32> = config
            .handles()
            .filter(|handle| !filled.contains(handle) && !never(handle))
            .collect();
        if !filled.is_empty() {
            tracing::info!(
                endpoint = config.name,
                nodes = filled.len(),
                without = rest.len(),
                "filling the outage from the server's history"
            );
        }
        let reason = "no subscription at the server: values of this time were not collected";
        let gap = |subject: &str, reason: String| {
            let now = Some(WallNanos::now());
            self.ingest.gap(subject, Some(last), now, reason)
        };
        if filled.is_empty() {
            return vec![gap(&config.name, reason.to_owned())];
        }
        if rest.len() > GAPS_MAX {
            let reason = format!("{reason} of {} nodes without history", rest.len());
            return vec![gap(&config.name, reason)];
        }
        let named = rest.iter().filter_map(|handle| config.named(*handle));
        named
            .map(|(name, _)| gap(name, reason.to_owned()))
            .collect()
    }

    /// Fills the holes before these samples, as far as there is time. Of the nodes that it
    /// returns the overflow is filled; `None` if the node stops.
    pub(super) async fn fill_before(
        &mut self,
        session: &Session,
        strand: usize,
        samples: &[Sample],
    ) -> Result<Option<BTreeSet<u32>>, Error> {
        let (found, mut gaps) = self.holes(strand, samples);
        if found.is_empty() && gaps.is_empty() {
            return Ok(Some(BTreeSet::new()));
        }
        let overflowed = found.iter().filter(|hole| hole.overflow);
        let overflowed = overflowed.map(|hole| hole.handle).collect();
        let namespaces = session.namespaces().await?;
        let mut open = Vec::new();
        for found in found {
            let why = match self.chapter(found.handle, &namespaces) {
                Some(chapter) if self.breaks < BREAKS_MAX => {
                    open.push(Open::new(chapter, found.hole, Some(found.edge)));
                    continue;
                }
                Some(_) => "the connection breaks whenever it is read",
                None => "its namespace is gone",
            };
            gaps.extend(self.unfilled(found.handle, found.hole, why));
        }
        if self.ingest.append_all(gaps).await? == Taken::Stopped {
            return Ok(None);
        }
        let deadline = Instant::now() + self.ingest.config.history_hold;
        let mut queue = Reading::group(open);
        while let Some(reading) = queue.pop_front() {
            tokio::time::sleep_until(reading.not_before.min(deadline)).await;
            if Instant::now() >= deadline {
                queue.push_front(reading);
                break;
            }
            self.breaks += 1;
            let answer = reading.ask(session).await;
            let turned = self.turn(session, reading, answer, &mut queue, false);
            if turned.await? == Taken::Stopped {
                return Ok(None);
            }
        }
        if !queue.is_empty() && self.postpone(session, queue).await? == Taken::Stopped {
            return Ok(None);
        }
        Ok(Some(overflowed))
    }

    /// The holes that end with these samples, and gap records where one has no end in time.
    fn holes(&self, strand: usize, samples: &[Sample]) -> (Vec<Found>, Vec<Record>) {
        let (mut found, mut gaps) = (Vec::new(), Vec::new());
        let Some(progress) = &self.strands[strand].progress else {
            return (found, gaps);
        };
        let overflow = |sample: &Sample| status::overflowed(sample.status);
        if progress.seams.is_empty() && !samples.iter().any(overflow) {
            return (found, gaps);
        }
        let mut seen = BTreeSet::new();
        for sample in samples {
            let handle = sample.handle;
            let seam = progress.seams.contains(handle);
            let Some(from) = self.marks.last(handle).filter(|_| seen.insert(handle)) else {
                continue;
            };
            if !seam && !overflow(sample) {
                continue;
            }
            let to = sample.source_time.or(sample.server_time);
            match to {
                // Known already, from before the connection broke.
                Some(to) if self.marks.late(handle).is_some_and(|late| late.to == to) => {}
                Some(to) if to > from => found.push(Found {
                    handle,
                    hole: Hole { from, to },
                    edge: sample.value.clone(),
                    overflow: overflow(sample),
                }),
                Some(to) if to == from => {}
                _ if seam => {
                    let to = to.unwrap_or_else(WallNanos::now);
                    let why = "its values' times do not go on from there";
                    gaps.extend(self.unfilled(handle, Hole { from, to }, why));
                }
                _ => {}
            }
        }
        (found, gaps)
    }

    fn chapter(&self, handle: u32, namespaces: &[String]) -> Option<Chapter> {
        let node = self.ingest.config.nodes.get(handle as usize)?;
        Some(Chapter {
            handle,
            node: node.id.resolve(namespaces)?,
            continuation: None,
        })
    }

    fn unfilled(&self, handle: u32, hole: Hole, why: &str) -> Option<Record> {
        let node = self.ingest.config.nodes.get(handle as usize)?;
        tracing::debug!(
            endpoint = self.ingest.config.name,
            node = node.name,
            why,
            "not filled"
        );
        let reason = format!("not in the log, and not in the server's history: {why}");
        let (from, to) = (Some(hole.from), Some(hole.to));
        Some(self.ingest.gap(&node.name, from, to, reason))
    }

    /// There is no more time to hold values back: what is left comes behind them.
    async fn postpone(
        &mut self,
        session: &Session,
        queue: VecDeque<Reading>,
    ) -> Result<Taken, Error> {
        let mut open: Vec<Open> = queue.into_iter().flat_map(|it| it.open).collect();
        tracing::info!(
            endpoint = self.ingest.config.name,
            nodes = open.len(),
            "there is much history to read: new values go on, older ones come behind them"
        );
        let continued: Vec<Chapter> = open
            .iter_mut()
            .filter(|node| node.chapter.continuation.is_some())
            .map(|node| {
                let chapter = node.chapter.clone();
                node.chapter.continuation = None;
                chapter
            })
            .collect();
        if !continued.is_empty() {
            // Later they begin anew, so that a crash or another session is no special case.
            session.close_history(&continued).await?;
        }
        let mut gaps = Vec::new();
        open.retain(|node| {
            let handle = node.chapter.handle;
            let free = self.marks.late(handle).is_none();
            if free {
                self.marks.set_late(handle, Some(node.hole));
            } else {
                let why = "an earlier hole is still being filled";
                gaps.extend(self.unfilled(handle, node.hole, why));
            }
            free
        });
        self.marks.save_next();
        self.ingest.status.history(&self.marks);
        if let Some(late) = &mut self.late {
            late.extend(Reading::group(open));
        }
        self.ingest.append_all(gaps).await
    }

    /// What of the late holes is to be read next, beside the subscription.
    pub(super) async fn next_reading(
        &mut self,
        session: &Session,
    ) -> Result<Option<Reading>, Error> {
        if self.late.is_none() {
            self.late = Some(self.late_readings(session).await?);
        }
        let next = self.late.as_mut().and_then(VecDeque::pop_front);
        self.breaks += u32::from(next.is_some());
        Ok(next)
    }

    async fn late_readings(&self, session: &Session) -> Result<VecDeque<Reading>, Error> {
        let holes: Vec<(u32, Hole)> = self.marks.late_holes().collect();
        if holes.is_empty() || self.breaks >= BREAKS_MAX {
            return Ok(VecDeque::new());
        }
        let namespaces = session.namespaces().await?;
        let open = holes.into_iter().filter_map(|(handle, hole)| {
            let chapter = self.chapter(handle, &namespaces)?;
            Some(Open::new(chapter, hole, None))
        });
        Ok(Reading::group(open.collect()))
    }

    /// Takes an answer into the log; what is to be asked next is put into `queue`.
    pub(super) async fn turn(
        &mut self,
        session: &Session,
        reading: Reading,
        answer: Answer,
        queue: &mut VecDeque<Reading>,
        late: bool,
    ) -> Result<Taken, Error> {
        let pages = match answer {
            Ok(pages) => pages,
            // Whatever it is that the server cannot do, or not in time, it may be able to do it
            // one by one.
            Err(Error::Service { status: code, .. })
                if code == status::BAD_TIMEOUT || !status::is_broken_connection(code) =>
            {
                reading.open.iter().map(|_| Err(code)).collect()
            }
            Err(error) => return Err(error),
        };
        self.breaks = 0;
        let alone = reading.open.len() == 1;
        let (mut records, mut goes_on, mut finished) = (Vec::new(), Vec::new(), Vec::new());
        for (mut node, page) in reading.open.into_iter().zip(pages) {
            let handle = node.chapter.handle;
            match page {
                Ok(page) => {
                    node.attempts += 1;
                    let (samples, unknown) = node.take(page.samples);
                    let why = "it does not reach back so far";
                    records.extend(unknown.and_then(|hole| self.unfilled(handle, hole, why)));
                    records.extend(self.recorded(samples, late));
                    node.chapter.continuation = page.continuation;
                    let more = node.chapter.continuation.is_some();
                    if more && node.ended {
                        session.close_history(&[node.chapter.clone()]).await?;
                    } else if more && node.attempts < ATTEMPTS_MAX {
                        goes_on.push(node);
                        continue;
                    } else if more {
                        let why = "it brings nothing new";
                        records.extend(self.unfilled(handle, node.hole, why));
                    } else if !node.ended && !node.settled && !late {
                        node.settled = true;
                        let then = Instant::now() + SETTLE;
                        queue.push_back(Reading::of(vec![node], then));
                        continue;
                    } else if !node.reached_back {
                        let why = "it has nothing of this time";
                        records.extend(self.unfilled(handle, node.hole, why));
                    }
                }
                Err(_) if !alone || node.attempts == 0 => {
                    node.attempts += u32::from(alone);
                    node.chapter.continuation = None;
                    queue.push_back(Reading::of(vec![node], Instant::now()));
                    continue;
                }
                Err(code) => {
                    let why = status_name(code);
                    records.extend(self.unfilled(handle, node.hole, &why));
                }
            }
            if late {
                self.marks.set_late(handle, None);
                finished.push(handle);
            }
        }
        if !goes_on.is_empty() {
            queue.push_front(Reading {
                open: goes_on,
                ..reading
            });
        }
        let changes = self.marks.changes_of(finished.into_iter());
        self.ingest.status.history(&self.marks);
        self.append_history(session, records, changes).await
    }

    /// As records in the log, with what they mean for the marks.
    fn recorded(&mut self, samples: Vec<Sample>, late: bool) -> Vec<Record> {
        let mark = Bytes::from_static(if late { LATE } else { b"true" });
        let mut records = Vec::with_capacity(samples.len());
        self.ingest.status.backfilled(samples.len());
        for sample in samples {
            let (handle, time) = (sample.handle, sample.source_time.or(sample.server_time));
            match (late, self.marks.late(handle), time) {
                (false, ..) => self.marks.value(handle, time),
                (true, Some(hole), Some(from)) => {
                    self.marks.set_late(handle, Some(Hole { from, ..hole }));
                }
                _ => {}
            }
            if let Some(mut record) = self.ingest.record(sample, WallNanos::now()) {
                let attribute = (BACKFILL.to_owned(), mark.clone());
                record.attributes.push(attribute);
                records.push(record);
            }
        }
        records
    }

    /// In as many appends as it takes: after a crash the records themselves tell how far it came.
    async fn append_history(
        &self,
        session: &Session,
        records: Vec<Record>,
        changes: Vec<Change>,
    ) -> Result<Taken, Error> {
        let mut records = records.into_iter().peekable();
        while records.peek().is_some() {
            let (mut batch, mut bytes) = (Vec::new(), 0);
            while let Some(record) = records.next_if(|_| bytes < APPEND_BYTES) {
                bytes += bytes_of(&record);
                batch.push(record);
            }
            if self.ingest.append(batch, None, Some(session)).await? == Taken::Stopped {
                return Ok(Taken::Stopped);
            }
        }
        if changes.is_empty() {
            return Ok(Taken::Durable);
        }
        // Last, and on its own: a hole is closed once everything in it is on disk.
        self.ingest.append(Vec::new(), changes, Some(session)).await
    }
}
