//! One direction of the link: [`Queue`] with a clock and tasks that wait.
//!
//! ```text
//!   connection ── acquire(bytes) ──▶ queue ◀── drive(): one task, sleeps until the link is free
//!        ▲                                                  │
//!        └────────────────────── granted ───────────────────┘
//! ```

use super::bucket::{BitRate, CHUNK_BYTES_MAX};
use super::queue::{Lane, Next, Queue};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};

/// Stands for "no cap" in [`Pacer::chunk`].
const UNPACED: usize = 0;

pub(super) struct Pacer {
    queue: Mutex<Queue<oneshot::Sender<()>>>,
    /// The cap's chunk, read for every write without the lock.
    chunk: AtomicUsize,
    changed: Notify,
    started: Instant,
}

impl Pacer {
    pub(super) fn new(rate: Option<BitRate>) -> Self {
        Self {
            queue: Mutex::new(Queue::new(rate)),
            chunk: AtomicUsize::new(rate.map_or(UNPACED, BitRate::chunk_bytes)),
            changed: Notify::new(),
            started: Instant::now(),
        }
    }

    /// Nothing changes when it is the rate already.
    pub(super) fn set_rate(&self, rate: Option<BitRate>) {
        let now = self.now();
        let mut queue = self.queue();
        if queue.rate() != rate {
            queue.set_rate(rate, now);
            let chunk = rate.map_or(UNPACED, BitRate::chunk_bytes);
            self.chunk.store(chunk, Ordering::Relaxed);
            self.changed.notify_one();
        }
    }

    /// How much to ask for at once.
    pub(super) fn chunk_bytes(&self) -> usize {
        match self.chunk.load(Ordering::Relaxed) {
            UNPACED => CHUNK_BYTES_MAX,
            chunk => chunk,
        }
    }

    /// Returns once `bytes` may go. Needs [`Pacer::drive`] to run beside it.
    pub(super) async fn acquire(&self, lane: Lane, bytes: u64) {
        if self.is_unpaced() {
            return;
        }
        let (grant, granted) = oneshot::channel();
        self.queue().ask(lane, bytes, grant);
        self.changed.notify_one();
        // The driver ends with the gate, and the connection with it.
        let _ = granted.await;
    }

    /// `bytes` went that could not be held back.
    pub(super) fn charge(&self, bytes: u64) {
        if !self.is_unpaced() {
            let now = self.now();
            self.queue().charge(bytes, now);
        }
    }

    /// Grants what is asked for, for ever.
    pub(super) async fn drive(&self) {
        loop {
            let next = {
                let now = self.now();
                self.queue().next(now, |grant| !grant.is_closed())
            };
            match next {
                // Gone in this very moment: then its bytes are lost to the link, one chunk.
                Next::Go(grant) => drop(grant.send(())),
                Next::At(then) => tokio::select! {
                    () = sleep_until(self.started + then) => {}
                    () = self.changed.notified() => {}
                },
                Next::Idle => self.changed.notified().await,
            }
        }
    }

    fn is_unpaced(&self) -> bool {
        self.chunk.load(Ordering::Relaxed) == UNPACED
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn queue(&self) -> MutexGuard<'_, Queue<oneshot::Sender<()>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
