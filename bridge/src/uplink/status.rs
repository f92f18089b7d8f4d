//! What an operator sees of the uplink: the link's state, and per stream how far it is.

use super::doctor::report::{Finding, Verdict};
use super::gate::{self, Ledger, UnixSeconds};
use serde::Serialize;
use skerry_store::{Offset, StreamName, WallNanos};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// A stream may have a topic per source; an operator reads about so many.
const PREFLIGHT_TOPICS_MAX: usize = 20;

/// Shared between the uplink, which writes, and whoever asks.
#[derive(Debug, Default)]
pub struct Status {
    link: Mutex<Link>,
    ledger: Mutex<Option<Arc<Ledger>>>,
    streams: Mutex<BTreeMap<String, Arc<StreamStatus>>>,
}

/// Everything at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct Snapshot {
    pub link: Link,
    /// What goes over it, once it is open.
    pub wire: Option<gate::Snapshot>,
    pub streams: Vec<StreamSnapshot>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Link {
    pub state: LinkState,
    pub since: WallNanos,
    /// Why it is down, in words.
    pub because: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// No attempt has ended yet.
    Connecting,
    Up,
    Down,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            state: LinkState::Connecting,
            since: WallNanos::now(),
            because: None,
        }
    }
}

/// What one stream's lane is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LaneState {
    /// Connecting, fencing or reading the position back.
    #[default]
    Starting,
    /// The link is not for this stream now: its class, its windows or its budget.
    Waiting,
    /// Everything up to the head is in the cluster.
    Idle,
    Delivering,
    /// The last attempt failed; another follows.
    Retrying,
    /// Stands still until an operator decides; see the error.
    Held,
}

#[derive(Debug, Clone, Serialize)]
pub struct StreamSnapshot {
    pub stream: String,
    pub topic: String,
    pub state: LaneState,
    /// One past the last durable record of the log.
    pub head: Offset,
    /// Everything before it is confirmed by the cluster or no longer held. By the node's own
    /// word until the cluster was asked, which may be a little behind.
    pub position: Offset,
    /// `head - position`.
    pub lag_records: u64,
    pub delivered_total: u64,
    /// Records the cluster has only as gaps, by retention or damage.
    pub gap_records_total: u64,
    /// Records the cluster refused; a gap with the reason stands for each.
    pub quarantined_total: u64,
    /// Records that were sent more than a minute after they came in.
    pub late_total: u64,
    /// Of these: dated anew, or sent to the backfill topic, since theirs would not have kept them.
    pub restamped_total: u64,
    pub backfilled_total: u64,
    /// What the pre-flight has against the topics.
    pub preflight: Vec<Finding>,
    pub preflight_problems: usize,
    pub transactions_total: u64,
    pub bytes_total: u64,
    pub retries_total: u64,
    pub last_error: Option<String>,
    /// Why the link is not for it now, in words.
    pub waits_because: Option<String>,
    /// When the oldest record that waits came in.
    pub oldest_unsent: Option<WallNanos>,
    pub last_confirmed: Option<WallNanos>,
}

impl Status {
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let ledger = lock(&self.ledger).clone();
        let streams = lock(&self.streams)
            .values()
            .map(|stream| stream.snapshot())
            .collect();
        Snapshot {
            link: lock(&self.link).clone(),
            wire: ledger.map(|ledger| ledger.snapshot(UnixSeconds::now())),
            streams,
        }
    }

    pub(crate) fn stream(
        &self,
        name: &StreamName,
        topic: &str,
        head: watch::Receiver<Offset>,
        position: Offset,
    ) -> Arc<StreamStatus> {
        let entry = StreamStatus::new(name, topic, head, position);
        let mut streams = lock(&self.streams);
        Arc::clone(
            streams
                .entry(name.as_str().to_owned())
                .or_insert_with(|| Arc::new(entry)),
        )
    }

    /// Who counts what goes over the link.
    pub(crate) fn counted_by(&self, ledger: Arc<Ledger>) {
        *lock(&self.ledger) = Some(ledger);
    }

    /// True when that is news.
    pub(crate) fn link_up(&self) -> bool {
        self.turn(LinkState::Up, None)
    }

    /// True when that is news.
    pub(crate) fn link_down(&self, because: &str) -> bool {
        self.turn(LinkState::Down, Some(because.to_owned()))
    }

    fn turn(&self, state: LinkState, because: Option<String>) -> bool {
        let mut link = lock(&self.link);
        let turned = link.state != state;
        if turned {
            link.since = WallNanos::now();
        }
        (link.state, link.because) = (state, because);
        turned
    }
}

/// Written by one lane.
#[derive(Debug)]
pub(crate) struct StreamStatus {
    stream: String,
    topic: String,
    pub(crate) delivered: AtomicU64,
    pub(crate) gap_records: AtomicU64,
    pub(crate) quarantined: AtomicU64,
    pub(crate) late: AtomicU64,
    pub(crate) restamped: AtomicU64,
    pub(crate) backfilled: AtomicU64,
    preflight: Mutex<BTreeMap<String, Vec<Finding>>>,
    pub(crate) transactions: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) retries: AtomicU64,
    head: watch::Receiver<Offset>,
    rest: Mutex<Rest>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Rest {
    pub(crate) state: LaneState,
    pub(crate) position: Offset,
    pub(crate) last_error: Option<String>,
    pub(crate) waits_because: Option<String>,
    pub(crate) oldest_unsent: Option<WallNanos>,
    pub(crate) last_confirmed: Option<WallNanos>,
}

impl StreamStatus {
    fn new(
        stream: &StreamName,
        topic: &str,
        head: watch::Receiver<Offset>,
        position: Offset,
    ) -> Self {
        Self {
            stream: stream.as_str().to_owned(),
            topic: topic.to_owned(),
            delivered: AtomicU64::new(0),
            gap_records: AtomicU64::new(0),
            quarantined: AtomicU64::new(0),
            late: AtomicU64::new(0),
            restamped: AtomicU64::new(0),
            backfilled: AtomicU64::new(0),
            preflight: Mutex::default(),
            transactions: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            head,
            rest: Mutex::new(Rest {
                position,
                ..Rest::default()
            }),
        }
    }

    pub(crate) fn rest(&self) -> MutexGuard<'_, Rest> {
        lock(&self.rest)
    }

    pub(crate) fn name(&self) -> &str {
        &self.stream
    }

    /// What is not well with `topic` now; the part of it that was not known before.
    pub(crate) fn examined(&self, topic: &str, found: Vec<Finding>) -> Vec<Finding> {
        let mut known = lock(&self.preflight);
        let before = known.remove(topic).unwrap_or_default();
        let same = |a: &Finding, b: &Finding| a.check == b.check && a.verdict == b.verdict;
        let news = found
            .iter()
            .filter(|new| !before.iter().any(|old| same(old, new)));
        let news = news.cloned().collect();
        if !found.is_empty() && known.len() < PREFLIGHT_TOPICS_MAX {
            known.insert(topic.to_owned(), found);
        }
        news
    }

    fn snapshot(&self) -> StreamSnapshot {
        let preflight: Vec<Finding> = lock(&self.preflight).values().flatten().cloned().collect();
        let rest = self.rest().clone();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let head = *self.head.borrow();
        StreamSnapshot {
            stream: self.stream.clone(),
            topic: self.topic.clone(),
            state: rest.state,
            head,
            position: rest.position,
            lag_records: head.0.saturating_sub(rest.position.0),
            delivered_total: read(&self.delivered),
            gap_records_total: read(&self.gap_records),
            quarantined_total: read(&self.quarantined),
            late_total: read(&self.late),
            restamped_total: read(&self.restamped),
            backfilled_total: read(&self.backfilled),
            preflight_problems: preflight
                .iter()
                .filter(|f| f.verdict == Verdict::Problem)
                .count(),
            preflight,
            transactions_total: read(&self.transactions),
            bytes_total: read(&self.bytes),
            retries_total: read(&self.retries),
            last_error: rest.last_error,
            waits_because: rest.waits_because,
            oldest_unsent: rest.oldest_unsent,
            last_confirmed: rest.last_confirmed,
        }
    }
}

/// A panic elsewhere does not make a number unreadable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
