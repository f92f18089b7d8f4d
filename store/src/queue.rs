//! The one queue in front of the writer: bounded by bytes and by count.
//!
//! Deadlock rule: an append takes its place (count), then its bytes, and holds both until its
//! commit is over. Both are handed out first come, first served, so appends stay in order.

use crate::frame::Encoded;
use crate::{Committed, Error};
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

pub(crate) const QUEUE_BYTES_MAX: usize = 8 * 1024 * 1024;
pub(crate) const QUEUE_APPENDS_MAX: usize = 16 * 1024;
/// One commit takes at most this much, so that the queue refills while it syncs.
pub(crate) const COMMIT_BYTES_MAX: usize = QUEUE_BYTES_MAX / 2;

const _: () = assert!(crate::APPEND_BYTES_MAX <= COMMIT_BYTES_MAX);

/// What an append weighs besides its bytes.
const APPEND_OVERHEAD_BYTES: usize = 128;

#[derive(Debug)]
pub(crate) struct Queue {
    places: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    appends: std::collections::VecDeque<Queued>,
    bytes: usize,
    closed: bool,
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
    producer: Producer,
    answer: oneshot::Sender<Result<Committed, Error>>,
    arrived: Instant,
    _places: [OwnedSemaphorePermit; 2],
}

impl Queued {
    /// Tells the caller, who may have stopped listening.
    pub(crate) fn answer(self, result: Result<Committed, Error>) {
        if let Err(error) = &result {
            self.producer.fail(self.carrier, error);
        }
        let _ = self.answer.send(result);
    }

    /// The failure of an append before it that it must not overtake.
    pub(crate) fn behind(&self) -> Option<Error> {
        self.producer.failure(self.carrier)
    }

    fn bytes(&self) -> usize {
        self.append.bytes() + APPEND_OVERHEAD_BYTES
    }
}

pub(crate) type Answer = oneshot::Receiver<Result<Committed, Error>>;

/// What the writer is to do next.
#[derive(Debug)]
pub(crate) enum Taken {
    /// Commit these.
    Appends(Vec<Queued>),
    /// See to what is due: nobody appended until then.
    Nothing,
    /// End: the queue is closed and empty.
    Closed,
}

impl Queue {
    pub(crate) fn new() -> Self {
        Self {
            places: Arc::new(Semaphore::new(QUEUE_APPENDS_MAX)),
            bytes: Arc::new(Semaphore::new(QUEUE_BYTES_MAX)),
            waiting: Mutex::default(),
            arrived: Condvar::new(),
        }
    }

    /// Waits for room, then queues.
    pub(crate) async fn push(
        &self,
        carrier: usize,
        stream: usize,
        append: Encoded,
        producer: Producer,
    ) -> Result<Answer, Error> {
        let weight = (append.bytes() + APPEND_OVERHEAD_BYTES) as u32;
        let place = self.places.clone().acquire_owned().await;
        let bytes = self.bytes.clone().acquire_many_owned(weight).await;
        let (Ok(place), Ok(bytes)) = (place, bytes) else {
            return Err(Error::Closed);
        };
        let (answer, receiver) = oneshot::channel();
        let queued = Queued {
            carrier,
            stream,
            append,
            producer,
            answer,
            arrived: Instant::now(),
            _places: [place, bytes],
        };
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(Error::Closed);
        }
        waiting.bytes += queued.bytes();
        waiting.appends.push_back(queued);
        drop(waiting);
        self.arrived.notify_one();
        Ok(receiver)
    }

    /// Nothing more is taken in; what is queued is still committed.
    pub(crate) fn close(&self) {
        self.places.close();
        self.bytes.close();
        self.lock().closed = true;
        self.arrived.notify_one();
    }

    /// What the next commit carries, or that it is time to go on without.
    pub(crate) fn take(&self, company: &mut Company, wake_at: Option<Instant>) -> Taken {
        let mut waiting = self.lock();
        loop {
            let patience = match waiting.appends.front() {
                None if waiting.closed => return Taken::Closed,
                None => wake_at.map(|at| at.saturating_duration_since(Instant::now())),
                Some(oldest) => {
                    let age = oldest.arrived.elapsed();
                    match company.patience(waiting.appends.len(), waiting.bytes, age) {
                        Some(patience) if !waiting.closed => Some(patience),
                        _ => return Taken::Appends(waiting.take()),
                    }
                }
            };
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
        (
            QUEUE_BYTES_MAX - self.bytes.available_permits(),
            QUEUE_APPENDS_MAX - self.places.available_permits(),
        )
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn take(&mut self) -> Vec<Queued> {
        let mut bytes = 0;
        let fits = |queued: &&Queued| {
            bytes += queued.bytes();
            bytes <= COMMIT_BYTES_MAX
        };
        let count = self.appends.iter().take_while(fits).count().max(1);
        let taken: Vec<_> = self.appends.drain(..count).collect();
        self.bytes -= taken.iter().map(Queued::bytes).sum::<usize>();
        taken
    }
}

/// Decides how long a commit waits for company.
///
/// It expects as many appends as the last commit carried. A lone writer is so served at once,
/// a crowd that writes in step shares one sync, and a steady trickle from many sources grows
/// its own company until the wait reaches `delay_max`. After a pause nobody is expected.
#[derive(Debug)]
pub(crate) struct Company {
    delay_max: Duration,
    expected: usize,
    last_commit: Option<Instant>,
}

impl Company {
    /// With this much queued, a commit is worth a sync whoever else may come.
    const ENOUGH_BYTES: usize = 256 * 1024;

    pub(crate) const fn new(delay_max: Duration) -> Self {
        Self {
            delay_max,
            expected: 1,
            last_commit: None,
        }
    }

    /// How much longer to wait; `None` to commit now.
    fn patience(&self, appends: usize, bytes: usize, oldest: Duration) -> Option<Duration> {
        let paused = self
            .last_commit
            .is_none_or(|last| last.elapsed() > self.delay_max + oldest);
        if paused || appends >= self.expected || bytes >= Self::ENOUGH_BYTES {
            return None;
        }
        self.delay_max
            .checked_sub(oldest)
            .filter(|left| !left.is_zero())
    }

    pub(crate) fn committed(&mut self, appends: usize) {
        self.expected = appends.max(1);
        self.last_commit = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_lone_writer_never_waits() {
        let mut company = Company::new(Duration::from_secs(60));
        assert_eq!(company.patience(1, 100, Duration::ZERO), None);
        company.committed(1);
        assert_eq!(company.patience(1, 100, Duration::ZERO), None);
    }

    #[test]
    fn a_crowd_is_waited_for_but_not_for_ever() {
        let mut company = Company::new(Duration::from_secs(60));
        company.committed(10);
        assert_eq!(
            company.patience(3, 100, MS),
            Some(Duration::from_secs(60) - MS)
        );
        assert_eq!(company.patience(10, 100, MS), None);
        assert_eq!(company.patience(3, 1 << 20, MS), None);
        assert_eq!(company.patience(3, 100, Duration::from_secs(60)), None);
    }
}
