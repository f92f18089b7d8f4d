//! The one queue in front of the writer: bounded by bytes and by count.
//!
//! Deadlock rule: an append takes its room once, for its bytes and its place, and holds it until
//! its commit is over. Room is handed out first come, first served, so appends stay in order.

use crate::frame::Encoded;
use crate::{Committed, Error};
use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, oneshot};

pub(crate) const QUEUE_BYTES_MAX: usize = 8 * 1024 * 1024;
pub(crate) const QUEUE_APPENDS_MAX: usize = 16 * 1024;
/// One commit takes at most this much, so that the queue refills while it syncs.
pub(crate) const COMMIT_BYTES_MAX: usize = QUEUE_BYTES_MAX / 2;

const _: () = assert!(crate::APPEND_BYTES_MAX <= COMMIT_BYTES_MAX);

/// What an append weighs besides its bytes: more than it takes, so that the bound by bytes is
/// also the bound by count.
const APPEND_OVERHEAD_BYTES: usize = QUEUE_BYTES_MAX / QUEUE_APPENDS_MAX;

#[derive(Debug)]
pub(crate) struct Queue {
    room: Semaphore,
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Debug)]
struct Waiting {
    appends: VecDeque<Queued>,
    /// That `appends` encode to.
    bytes: usize,
    /// When the first of `appends` came.
    since: Instant,
    /// The writer sleeps until there is this much.
    wanted: Option<Wanted>,
    /// Appends that were taken, and whose commit is not over.
    under_way: usize,
    closed: bool,
}

/// Either of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    appends: usize,
    bytes: usize,
}

/// One source of appends, whose order holds even where some of them fail.
///
/// Appends that are submitted without waiting for one another may be in different commits. When
/// one fails, because the disk is full just then, those behind it in the same stream fail with
/// it, though there may be room again for them: or else the failed one, submitted again, would
/// come after them. Whoever has seen a failure goes on with a new producer.
#[derive(Debug, Clone, Default)]
pub struct Producer(Arc<Mutex<BTreeMap<usize, Error>>>);

impl Producer {
    /// Why nothing more of it goes to `stream`.
    fn failure(&self, stream: usize) -> Option<Error> {
        let failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failures.get(&stream).cloned()
    }

    fn fail(&self, stream: usize, error: &Error) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failures.entry(stream).or_insert_with(|| error.clone());
    }
}

/// An append on its way to the writer.
#[derive(Debug)]
pub(crate) struct Queued {
    /// Index of the stream whose frame carries it.
    pub(crate) carrier: usize,
    /// Index of the stream the caller named.
    pub(crate) stream: usize,
    pub(crate) append: Encoded,
    producer: Option<Producer>,
    answer: oneshot::Sender<Result<Committed, Error>>,
}

impl Queued {
    /// Tells the caller, who may have stopped listening.
    pub(crate) fn answer(self, result: Result<Committed, Error>) {
        if let (Err(error), Some(producer)) = (&result, &self.producer) {
            producer.fail(self.carrier, error);
        }
        let _ = self.answer.send(result);
    }

    /// The failure of an append before it that it must not overtake.
    pub(crate) fn behind(&self) -> Option<Error> {
        self.producer.as_ref()?.failure(self.carrier)
    }

    fn weight(&self) -> usize {
        self.append.bytes() + APPEND_OVERHEAD_BYTES
    }
}

pub(crate) type Answer = oneshot::Receiver<Result<Committed, Error>>;

/// The room that the appends of a commit take up in the queue, until it is over.
#[derive(Debug)]
pub(crate) struct Room<'a> {
    queue: &'a Queue,
    appends: usize,
    weight: usize,
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.queue.lock().under_way -= self.appends;
        self.queue.room.add_permits(self.weight);
    }
}

/// What the writer is to do next.
#[derive(Debug)]
pub(crate) enum Taken<'a> {
    /// Commit these.
    Appends(Vec<Queued>, Room<'a>),
    /// See to what is due: no commit is until then.
    Nothing,
    /// End: the queue is closed and empty.
    Closed,
}

impl Queue {
    pub(crate) fn new() -> Self {
        Self {
            room: Semaphore::new(QUEUE_BYTES_MAX),
            waiting: Mutex::new(Waiting {
                appends: VecDeque::new(),
                bytes: 0,
                since: Instant::now(),
                wanted: None,
                under_way: 0,
                closed: false,
            }),
            arrived: Condvar::new(),
        }
    }

    /// Waits for room, then queues.
    pub(crate) async fn push(
        &self,
        carrier: usize,
        stream: usize,
        append: Encoded,
        producer: Option<Producer>,
    ) -> Result<Answer, Error> {
        let (answer, receiver) = oneshot::channel();
        let queued = Queued {
            carrier,
            stream,
            append,
            producer,
            answer,
        };
        let room = self.room.acquire_many(queued.weight() as u32).await;
        let room = room.map_err(|_| Error::Closed)?;
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(Error::Closed);
        }
        // Given back by the commit.
        room.forget();
        if waiting.push(queued) {
            drop(waiting);
            self.arrived.notify_one();
        }
        Ok(receiver)
    }

    /// Nothing more is taken in; what is queued is still committed.
    pub(crate) fn close(&self) {
        self.room.close();
        self.lock().closed = true;
        self.arrived.notify_one();
    }

    /// What the next commit carries, or that it is time to go on without.
    pub(crate) fn take(&self, company: &Company, wake_at: Option<Instant>) -> Taken<'_> {
        let mut waiting = self.lock();
        loop {
            waiting.wanted = None;
            let now = Instant::now();
            let due = wake_at.map(|at| at.saturating_duration_since(now));
            let (patience, wanted) = match waiting.appends.len() {
                0 if waiting.closed => return Taken::Closed,
                0 => (due, Wanted::ANY),
                appends => match company.patience(appends, waiting.bytes, waiting.since, now) {
                    // What is due is not kept waiting by appends that wait for company.
                    Some((patience, wanted)) if !waiting.closed => {
                        let until_due = due.unwrap_or(patience);
                        (Some(patience.min(until_due)), wanted)
                    }
                    _ => {
                        let (appends, weight) = waiting.take();
                        let room = Room {
                            queue: self,
                            appends: appends.len(),
                            weight,
                        };
                        return Taken::Appends(appends, room);
                    }
                },
            };
            waiting.wanted = Some(wanted);
            waiting = match patience {
                None => self
                    .arrived
                    .wait(waiting)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return Taken::Nothing,
                Some(patience) => {
                    let (waiting, _) = self
                        .arrived
                        .wait_timeout(waiting, patience)
                        .unwrap_or_else(PoisonError::into_inner);
                    waiting
                }
            };
        }
    }

    /// Bytes and appends that are queued or being committed.
    pub(crate) fn depth(&self) -> (usize, usize) {
        let waiting = self.lock();
        (
            QUEUE_BYTES_MAX - self.room.available_permits(),
            waiting.appends.len() + waiting.under_way,
        )
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wanted {
    const ANY: Self = Self {
        appends: 1,
        bytes: usize::MAX,
    };
}

impl Waiting {
    /// Whether the writer is to be woken.
    fn push(&mut self, queued: Queued) -> bool {
        if self.appends.is_empty() {
            self.since = Instant::now();
        }
        self.bytes += queued.append.bytes();
        self.appends.push_back(queued);
        let (appends, bytes) = (self.appends.len(), self.bytes);
        let enough = |wanted: &mut Wanted| appends >= wanted.appends || bytes >= wanted.bytes;
        // Once: it has been told then.
        self.wanted.take_if(enough).is_some()
    }

    /// What one commit carries, and what it weighs.
    fn take(&mut self) -> (Vec<Queued>, usize) {
        let mut weight = 0;
        let fits = |queued: &&Queued| {
            weight += queued.weight();
            weight <= COMMIT_BYTES_MAX
        };
        let count = self.appends.iter().take_while(fits).count().max(1);
        let taken: Vec<_> = self.appends.drain(..count).collect();
        let weight = taken.iter().map(Queued::weight).sum::<usize>();
        self.bytes -= weight - count * APPEND_OVERHEAD_BYTES;
        self.under_way += count;
        (taken, weight)
    }
}

/// Decides how long a commit waits for company.
///
/// It expects as many appends as the last commit carried. A lone writer is so served at once,
/// a crowd that writes in step shares one sync, and a steady trickle from many sources grows
/// its own company until the wait reaches `delay_max`. After a pause nobody is expected.
///
/// A commit costs the device a few blocks however little it carries. Where that wears it out,
/// `interval_min` keeps commits apart, whoever is there; the first after a pause starts at once.
#[derive(Debug)]
pub(crate) struct Company {
    delay_max: Duration,
    interval_min: Duration,
    expected: usize,
    /// When the last commit started, and when it was over.
    last_commit: Option<(Instant, Instant)>,
}

impl Company {
    /// With this much queued, a commit is worth a sync whoever else may come.
    const ENOUGH_BYTES: usize = 256 * 1024;

    pub(crate) const fn new(delay_max: Duration, interval_min: Duration) -> Self {
        Self {
            delay_max,
            interval_min,
            expected: 1,
            last_commit: None,
        }
    }

    /// How much longer to wait, unless as much as is wanted comes before; `None` to commit now.
    /// The oldest of what is queued is there since `since`.
    fn patience(
        &self,
        appends: usize,
        bytes: usize,
        since: Instant,
        now: Instant,
    ) -> Option<(Duration, Wanted)> {
        let (started, over) = self.last_commit?;
        if bytes >= Self::ENOUGH_BYTES {
            return None;
        }
        let due = started + self.interval_min;
        let paused = since > over + self.delay_max;
        let (until, appends_wanted) = if now < due {
            (due, usize::MAX)
        } else if paused || appends >= self.expected {
            return None;
        } else {
            (since + self.delay_max, self.expected)
        };
        let wanted = Wanted {
            appends: appends_wanted,
            bytes: Self::ENOUGH_BYTES,
        };
        let left = until.saturating_duration_since(now);
        (!left.is_zero()).then_some((left, wanted))
    }

    /// A commit of so many appends, that started then, is over.
    pub(crate) fn committed(&mut self, appends: usize, started: Instant) {
        self.expected = appends.max(1);
        self.last_commit = Some((started, Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const ENOUGH: usize = Company::ENOUGH_BYTES;

    /// Has just committed `appends`.
    fn company(appends: usize, delay_max: Duration, interval_min: Duration) -> Company {
        let mut company = Company::new(delay_max, interval_min);
        company.committed(appends, Instant::now());
        company
    }

    fn until(left: Duration, appends: usize) -> Option<(Duration, Wanted)> {
        let bytes = ENOUGH;
        Some((left, Wanted { appends, bytes }))
    }

    #[test]
    fn a_lone_writer_never_waits() {
        let now = Instant::now();
        let company = Company::new(60 * 1000 * MS, Duration::ZERO);
        assert_eq!(company.patience(1, 100, now, now), None);
        let company = self::company(1, 60 * 1000 * MS, Duration::ZERO);
        let now = Instant::now();
        assert_eq!(company.patience(1, 100, now, now), None);
    }

    #[test]
    fn a_crowd_is_waited_for_but_not_for_ever() {
        let company = company(10, 1000 * MS, Duration::ZERO);
        let since = Instant::now();
        let patience = |appends, bytes, age| company.patience(appends, bytes, since, since + age);
        assert_eq!(patience(3, 100, MS), until(999 * MS, 10));
        assert_eq!(patience(10, 100, MS), None);
        assert_eq!(patience(3, ENOUGH, MS), None);
        assert_eq!(patience(3, 100, 1000 * MS), None);
    }

    #[test]
    fn after_a_pause_nobody_is_waited_for() {
        let company = company(10, 5 * MS, Duration::ZERO);
        let since = Instant::now() + 6 * MS;
        assert_eq!(company.patience(1, 100, since, since), None);
    }

    #[test]
    fn commits_keep_apart_whoever_is_there() {
        let company = company(1, 5 * MS, 100 * MS);
        let (started, _) = company.last_commit.expect("just now");
        let at = |age, appends, bytes| {
            let since = started + 10 * MS;
            company.patience(appends, bytes, since, started + age)
        };
        assert_eq!(at(10 * MS, 1, 100), until(90 * MS, usize::MAX));
        assert_eq!(at(99 * MS, 5_000, ENOUGH - 1), until(MS, usize::MAX));
        assert_eq!(at(99 * MS, 5_000, ENOUGH), None);
        assert_eq!(at(100 * MS, 1, 100), None);
        // Whoever comes after a pause.
        let late = started + 200 * MS;
        assert_eq!(company.patience(1, 100, late, late), None);
    }
}
