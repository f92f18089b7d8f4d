//! How old the records of a stream are, by a clock that nobody can set. Pure: time is an argument.
//!
//! The wall clock of a box without a battery starts in 1970 and jumps by years when a time server
//! is found; whoever trusts it for deletion wipes a log in one stroke. So age is counted on the
//! log's own clock, which is how long the log has been open, over all its lives. It is carried on
//! from what the journal last noted: at most one tick behind after a crash, never ahead. Time
//! that passes while nothing runs does not age anything, which errs on the side of keeping.
//!
//! The clock puts marks between records: what is before a mark is at least as old as the mark.

use crate::append::OWN_BUCKET;
use crate::catalog::Catalog;
use crate::stream::Stream;
use crate::{Change, Offset, encoding};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A stream's `age_max` is told apart in this many steps.
const STEPS: u32 = 16;
/// A segment that still grows is closed at this part of `age_max`: as a whole it is only as old
/// as its newest record.
const CLOSE_AFTER_PART: u32 = 4;
/// What a crash may take from the clock at most.
const TICK_MAX: Duration = Duration::from_secs(60 * 60);
const KEY: &[u8] = b"ages";

/// How long the log has been open, over all its lives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    before: Duration,
    opened: Instant,
}

impl Clock {
    fn new(before: Duration) -> Self {
        Self {
            before,
            opened: Instant::now(),
        }
    }

    pub(crate) fn now(self) -> Duration {
        self.before + self.opened.elapsed()
    }

    /// When the clock shows `time`.
    pub(crate) fn instant(self, time: Duration) -> Instant {
        self.opened + time.saturating_sub(self.before)
    }
}

/// Records before `next` were written when the clock showed `at`, or earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    next: Offset,
    at: Duration,
}

/// What the journal remembers of it.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Noted {
    clock: Duration,
    streams: BTreeMap<String, VecDeque<Mark>>,
}

#[derive(Debug)]
pub(crate) struct Ages {
    pub(crate) clock: Clock,
    streams: Vec<Aging>,
    /// How often marks are set and looked at; `None` where no stream has an `age_max`.
    tick: Option<Duration>,
    due: Duration,
}

#[derive(Debug, Default)]
struct Aging {
    age_max: Option<Duration>,
    /// Oldest first. Of those that are past `age_max`, only the newest is kept.
    marks: VecDeque<Mark>,
}

impl Ages {
    /// Goes on from what the catalog remembers.
    pub(crate) fn load(catalog: &Catalog, streams: &[Arc<Stream>]) -> Self {
        let noted = catalog.get(OWN_BUCKET, KEY).ok().flatten();
        let noted: Noted = noted
            .and_then(|bytes| encoding::decode(&bytes))
            .unwrap_or_default();
        Self::go_on(noted, streams.iter().map(|stream| &**stream))
    }

    fn go_on<'s>(mut noted: Noted, streams: impl Iterator<Item = &'s Stream>) -> Self {
        let aging = |stream: &Stream| {
            let age_max = stream.options.age_max;
            let marks = noted.streams.remove(stream.options.name.as_str());
            let mut marks = marks.filter(|_| age_max.is_some()).unwrap_or_default();
            for mark in &mut marks {
                // A stream that lost its end has new records where older ones were.
                mark.next = mark.next.min(stream.head());
            }
            Aging { age_max, marks }
        };
        let streams: Vec<_> = streams.map(aging).collect();
        let ages = streams.iter().filter_map(|stream| stream.age_max);
        let tick = ages.min().map(|least| (least / STEPS).min(TICK_MAX));
        Self {
            clock: Clock::new(noted.clock),
            streams,
            tick,
            due: noted.clock,
        }
    }

    /// When the next look is due, on the log's clock.
    pub(crate) fn due(&self) -> Option<Duration> {
        self.tick.map(|_| self.due)
    }

    /// Begins a tick, if one is due: marks how far each stream has come. `held` says which offsets
    /// a stream holds. True if there is anything to look at.
    pub(crate) fn tick(&mut self, now: Duration, held: impl Fn(usize) -> (Offset, Offset)) -> bool {
        let Some(tick) = self.tick.filter(|_| now >= self.due) else {
            return false;
        };
        self.due = now + tick;
        let mut aging = false;
        for (index, stream) in self.streams.iter_mut().enumerate() {
            let (tail, head) = held(index);
            stream.tick(now, head);
            aging |= stream.age_max.is_some() && tail < head;
        }
        aging
    }

    /// Every record before this is older than the stream's `age_max`.
    pub(crate) fn expired(&self, stream: usize, now: Duration) -> Offset {
        let stream = &self.streams[stream];
        let expired = stream.age_max.and_then(|age| stream.older_than(age, now));
        expired.unwrap_or_default()
    }

    /// Whether a segment that begins with `base` has grown for long enough.
    pub(crate) fn is_to_close(&self, stream: usize, base: Offset, now: Duration) -> bool {
        let stream = &self.streams[stream];
        let part = stream.age_max.map(|age| age / CLOSE_AFTER_PART);
        let old = part.and_then(|part| stream.older_than(part, now));
        old.is_some_and(|next| next > base)
    }

    /// The clock and the marks, for the journal.
    pub(crate) fn note<'n>(&self, now: Duration, name: impl Fn(usize) -> &'n str) -> Change {
        let marked = self.streams.iter().enumerate();
        let marked = marked.filter(|(_, stream)| !stream.marks.is_empty());
        let noted = Noted {
            clock: now,
            streams: marked
                .map(|(index, stream)| (name(index).to_owned(), stream.marks.clone()))
                .collect(),
        };
        Change::Put {
            bucket: OWN_BUCKET.to_owned(),
            key: KEY.into(),
            value: encoding::encode(&noted).into(),
        }
    }
}

impl Aging {
    fn tick(&mut self, now: Duration, head: Offset) {
        let Some(age_max) = self.age_max else {
            return;
        };
        let newest = self.marks.back();
        let due = newest.is_none_or(|mark| mark.next < head && now >= mark.at + age_max / STEPS);
        if due {
            self.marks.push_back(Mark {
                next: head,
                at: now,
            });
        }
        while self
            .marks
            .get(1)
            .is_some_and(|mark| now >= mark.at + age_max)
        {
            self.marks.pop_front();
        }
    }

    fn older_than(&self, age: Duration, now: Duration) -> Option<Offset> {
        let old = self.marks.iter().take_while(|mark| now >= mark.at + age);
        old.last().map(|mark| mark.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{StreamName, StreamOptions};
    use tokio::sync::watch;

    const HOUR: Duration = Duration::from_secs(60 * 60);
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn stream(age_max: Option<Duration>, head: u64) -> Stream {
        let name = StreamName::new("a").expect("a name");
        let options = StreamOptions {
            age_max,
            ..StreamOptions::new(name, 1000)
        };
        let (_, head) = watch::channel(Offset(head));
        Stream::new(options, "a".into(), 100, head, Vec::new())
    }

    /// One stream with an `age_max` of 16 days.
    fn ages(noted: Noted, head: u64) -> Ages {
        Ages::go_on(noted, [&stream(Some(16 * DAY), head)].into_iter())
    }

    fn noted(change: &Change) -> Noted {
        let Change::Put { value, .. } = change else {
            panic!("{change:?}");
        };
        encoding::decode(value).expect("a note")
    }

    #[test]
    fn nothing_is_called_older_than_it_is_and_nothing_stays_for_much_longer() {
        let mut ages = ages(Noted::default(), 0);
        // A record an hour: the record number n is written in hour n.
        for hour in 0..24 * 60 {
            let now = hour * HOUR;
            let head = Offset(u64::from(hour));
            assert!(ages.tick(now, |_| (Offset(0), head)) == (hour > 0));
            let expired = ages.expired(0, now).0;
            let due = u64::from(hour.saturating_sub(16 * 24));
            assert!(expired <= due, "hour {hour}: {expired} were called expired");
            assert!(expired + 2 * 24 >= due, "hour {hour}: only {expired}");
            assert!(ages.streams[0].marks.len() <= STEPS as usize + 2);
        }
    }

    #[test]
    fn the_clock_and_the_marks_survive_and_time_switched_off_does_not_count() {
        let mut first = ages(Noted::default(), 7);
        assert!(first.tick(DAY, |_| (Offset(0), Offset(7))));
        let note = first.note(DAY, |_| "a");
        let second = ages(noted(&note), 7);
        assert!(second.clock.now() >= DAY && second.clock.now() < DAY + HOUR);
        assert_eq!(second.expired(0, 17 * DAY - HOUR), Offset(0));
        assert_eq!(second.expired(0, 17 * DAY), Offset(7));
        let lost_its_end = ages(noted(&note), 3);
        assert_eq!(lost_its_end.expired(0, 17 * DAY), Offset(3));
        let without = Ages::go_on(noted(&note), [&stream(None, 7)].into_iter());
        assert_eq!(
            (without.due(), without.expired(0, 99 * DAY)),
            (None, Offset(0))
        );
    }

    #[test]
    fn a_segment_that_grows_slowly_is_closed_in_time() {
        let mut ages = ages(Noted::default(), 0);
        assert!(ages.tick(Duration::ZERO, |_| (Offset(0), Offset(5))));
        assert!(!ages.is_to_close(0, Offset(0), 4 * DAY - HOUR));
        assert!(ages.is_to_close(0, Offset(4), 4 * DAY));
        assert!(!ages.is_to_close(0, Offset(5), 4 * DAY));
    }
}
