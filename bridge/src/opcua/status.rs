//! What an endpoint is doing, for `skerry status`, the metrics and the readiness probe.

use super::address::NodeAddress;
use super::commands::{Command, CommandsSnapshot, Counters, Outcome};
use super::config::Config;
use super::history::Marks;
use super::nodes::words;
use super::watch::SERVICE_HEALTHY;
use super::wire::{Granted, Kept};
use serde::Serialize;
use skerry_store::WallNanos;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bad nodes listed by name; of more, only their number is told.
const BAD_NODES_LISTED_MAX: usize = 100;

/// Written by [`super::run`], read by anybody.
#[derive(Debug)]
pub struct Status {
    name: String,
    outage_budget: Duration,
    values: AtomicU64,
    publish_responses: AtomicU64,
    republished: AtomicU64,
    gaps: AtomicU64,
    backfilled: AtomicU64,
    reconnects: AtomicU64,
    connect_failures: AtomicU64,
    log_refusals: AtomicU64,
    /// Nanoseconds since the Unix epoch; 0 before the first value.
    last_data: AtomicI64,
    commands: Option<Counters>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    endpoint: String,
    state: State,
    since: WallNanos,
    error: Option<String>,
    log_refusal: Option<String>,
    granted: Vec<(Option<String>, GrantedSnapshot)>,
    /// Of the node with this handle.
    shortest_queue: Option<(u32, Duration)>,
    /// With the nodes as they are now, by handle; none before the catalog was read.
    config: Option<Arc<Config>>,
    /// So many of them are not at the server any more, and not expected to be.
    gone: usize,
    bad: BTreeMap<u32, u32>,
    /// By folder, what in it cannot be followed.
    complaints: BTreeMap<usize, Vec<BadNode>>,
    subscribed: bool,
    clock: Option<Clock>,
    service_level: Option<u8>,
    history_nodes: usize,
    backfill_pending: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The first connection is being made.
    Connecting,
    /// Subscribed: values flow, or would.
    Connected,
    /// Without connection; tried again for ever.
    Retrying,
    /// [`super::run`] has returned.
    Stopped,
}

/// [`Status`] at one moment. Counters are of this run of the process.
#[derive(Debug, Clone, Serialize)]
pub struct Snapshot {
    pub name: String,
    /// The one in use, or the one that is tried next.
    pub endpoint: String,
    pub state: State,
    /// Since when it is in this state.
    pub since: WallNanos,
    /// The last error, kept until a connection stands.
    pub error: Option<String>,
    /// Why the log takes no values at the moment; the server keeps them meanwhile.
    pub log_refusal: Option<String>,
    /// Nodes that the server monitors for us.
    pub nodes_good: usize,
    pub nodes_bad: usize,
    /// The bad ones, the first hundred.
    pub bad_nodes: Vec<BadNode>,
    /// Of nodes in no group; none where all are in one.
    pub granted: Option<GrantedSnapshot>,
    /// Of each group that something is in.
    pub groups: Vec<GroupSnapshot>,
    /// None as long as the subscription was made by an earlier run.
    pub shortest_queue: Option<ShortestQueue>,
    pub values_total: u64,
    pub publish_responses_total: u64,
    pub republished_total: u64,
    pub gaps_total: u64,
    /// Values read from the server's history.
    pub backfilled_total: u64,
    /// Nodes whose history the server offers.
    pub history_nodes: usize,
    /// Nodes whose history is still being read, behind their newer values.
    pub backfill_pending: usize,
    pub reconnects_total: u64,
    pub connect_failures_total: u64,
    pub log_refusals_total: u64,
    pub last_data: Option<WallNanos>,
    /// None before the server has told its time.
    pub server_clock: Option<Clock>,
    /// How well the server can serve by its own word, from 0 to 255; none where it does not tell.
    pub service_level: Option<u8>,
    /// Whether that is less than in full, which is 200.
    pub degraded: bool,
    /// None where nothing may be commanded.
    pub commands: Option<CommandsSnapshot>,
}

/// The server's clock beside ours. Timestamps are taken as the server gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Clock {
    /// How far it is ahead of the node's.
    pub offset_ms: i64,
    /// Whether that is more than five seconds, either way.
    pub wrong: bool,
    pub stands_still: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct BadNode {
    pub name: String,
    pub id: String,
    /// The server's StatusCode, by its name.
    pub error: String,
}

/// What the server granted, which may be less than was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct GrantedSnapshot {
    pub publishing_interval_ms: u64,
    pub keep_alive_ms: u64,
    /// How long the server keeps the subscription while we are away.
    pub lifetime_ms: u64,
}

/// What the server granted for a publishing group.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GroupSnapshot {
    pub name: String,
    #[serde(flatten)]
    pub granted: GrantedSnapshot,
}

/// The node whose values the server keeps for the shortest time while nobody collects them: a
/// longer outage loses some of its values, and says so in a gap record.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShortestQueue {
    pub node: String,
    pub covers_ms: u64,
    /// Whether that is less than `outage_budget`.
    pub short: bool,
}

impl GrantedSnapshot {
    fn new(granted: Granted) -> Self {
        let interval_ms = granted.publishing_interval.as_millis() as u64;
        Self {
            publishing_interval_ms: interval_ms,
            keep_alive_ms: interval_ms.saturating_mul(granted.keep_alive_count.into()),
            lifetime_ms: interval_ms.saturating_mul(granted.lifetime_count.into()),
        }
    }
}

impl Inner {
    fn named(&self, handle: u32) -> Option<(&str, &NodeAddress)> {
        self.config.as_ref()?.named(handle)
    }
}

impl Status {
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            name: config.name.clone(),
            outage_budget: config.outage_budget,
            values: AtomicU64::new(0),
            publish_responses: AtomicU64::new(0),
            republished: AtomicU64::new(0),
            gaps: AtomicU64::new(0),
            backfilled: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
            connect_failures: AtomicU64::new(0),
            log_refusals: AtomicU64::new(0),
            last_data: AtomicI64::new(0),
            commands: config
                .commands
                .as_ref()
                .map(|commands| Counters::new(commands.list.len())),
            inner: Mutex::new(Inner {
                endpoint: config.endpoint.to_string(),
                state: State::Connecting,
                since: WallNanos::now(),
                error: None,
                log_refusal: None,
                granted: Vec::new(),
                shortest_queue: None,
                config: None,
                gone: 0,
                bad: BTreeMap::new(),
                complaints: BTreeMap::new(),
                subscribed: false,
                clock: None,
                service_level: None,
                history_nodes: 0,
                backfill_pending: 0,
            }),
        }
    }

    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let inner = self.inner();
        let name_of = |(handle, code): (&u32, &u32)| {
            let (name, id) = inner.named(*handle)?;
            Some(BadNode {
                name: name.to_owned(),
                id: id.to_string(),
                error: words(*code),
            })
        };
        let monitored = inner.subscribed && inner.state == State::Connected;
        Snapshot {
            name: self.name.clone(),
            endpoint: inner.endpoint.clone(),
            state: inner.state,
            since: inner.since,
            error: inner.error.clone(),
            log_refusal: inner.log_refusal.clone(),
            nodes_good: if monitored {
                let config = inner.config.as_ref();
                let all = config.map_or(0, |config| config.handles().count());
                let expected = all.saturating_sub(inner.gone);
                expected.saturating_sub(inner.bad.len())
            } else {
                0
            },
            nodes_bad: inner.bad.len() + inner.complaints.values().map(Vec::len).sum::<usize>(),
            bad_nodes: inner
                .bad
                .iter()
                .filter_map(name_of)
                .chain(inner.complaints.values().flatten().cloned())
                .take(BAD_NODES_LISTED_MAX)
                .collect(),
            granted: inner
                .granted
                .iter()
                .find_map(|(name, granted)| name.is_none().then_some(*granted)),
            groups: inner
                .granted
                .iter()
                .filter_map(|(name, granted)| {
                    let (name, granted) = (name.clone()?, *granted);
                    Some(GroupSnapshot { name, granted })
                })
                .collect(),
            shortest_queue: self.shortest_queue(&inner),
            values_total: count(&self.values),
            publish_responses_total: count(&self.publish_responses),
            republished_total: count(&self.republished),
            gaps_total: count(&self.gaps),
            backfilled_total: count(&self.backfilled),
            history_nodes: inner.history_nodes,
            backfill_pending: inner.backfill_pending,
            reconnects_total: count(&self.reconnects),
            connect_failures_total: count(&self.connect_failures),
            log_refusals_total: count(&self.log_refusals),
            last_data: match self.last_data.load(Ordering::Relaxed) {
                0 => None,
                nanos => Some(WallNanos(nanos)),
            },
            server_clock: inner.clock,
            service_level: inner.service_level,
            degraded: inner.service_level.is_some_and(|it| it < SERVICE_HEALTHY),
            commands: self.commands.as_ref().map(Counters::snapshot),
        }
    }

    /// Of the subscription that this run made, if it did.
    pub(crate) fn shortest(&self) -> Option<ShortestQueue> {
        self.shortest_queue(&self.inner())
    }

    fn shortest_queue(&self, inner: &Inner) -> Option<ShortestQueue> {
        let (handle, covers) = inner.shortest_queue?;
        let (node, _) = inner.named(handle)?;
        Some(ShortestQueue {
            node: node.to_owned(),
            covers_ms: covers.as_millis() as u64,
            short: covers < self.outage_budget,
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, state: State) -> MutexGuard<'_, Inner> {
        let mut inner = self.inner();
        if inner.state != state {
            inner.state = state;
            inner.since = WallNanos::now();
        }
        inner
    }

    /// Subscribed, with what was granted for each group.
    pub(crate) fn connected(
        &self,
        granted: Vec<(Option<String>, Granted)>,
        bad: &BTreeMap<u32, u32>,
    ) {
        let mut inner = self.enter(State::Connected);
        inner.error = None;
        inner.subscribed = true;
        inner.bad.clone_from(bad);
        let granted = granted.into_iter();
        inner.granted = granted
            .map(|(name, granted)| (name, GrantedSnapshot::new(granted)))
            .collect();
    }

    /// Without connection. `failed` where no connection came about, otherwise one broke.
    pub(crate) fn retrying(&self, error: String, failed: bool) {
        let counter = if failed {
            &self.connect_failures
        } else {
            &self.reconnects
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.enter(State::Retrying).error = Some(error);
    }

    pub(crate) fn stopped(&self) {
        drop(self.enter(State::Stopped));
    }

    pub(crate) fn endpoint(&self, url: String) {
        self.inner().endpoint = url;
    }

    /// A new subscription: what another one was granted does not count any more.
    pub(crate) fn subscribing(&self) {
        self.inner().shortest_queue = None;
    }

    /// What the server keeps of a node. One that is sampled by exception has no time.
    pub(crate) fn kept(&self, handle: u32, kept: Kept) {
        let covers = kept.sampling.saturating_mul(kept.queue_values);
        let mut inner = self.inner();
        let shorter = inner.shortest_queue.is_none_or(|(_, most)| covers < most);
        if shorter && !covers.is_zero() {
            inner.shortest_queue = Some((handle, covers));
        }
    }

    pub(crate) fn bad_nodes(&self, bad: &BTreeMap<u32, u32>) {
        self.inner().bad.clone_from(bad);
    }

    /// The server's clock; returns what was known of it before.
    pub(crate) fn clock(&self, clock: Clock) -> Option<Clock> {
        self.inner().clock.replace(clock)
    }

    /// The server's `ServiceLevel`; returns what was known of it before.
    pub(crate) fn service_level(&self, level: Option<u8>) -> Option<u8> {
        std::mem::replace(&mut self.inner().service_level, level)
    }

    /// The nodes there are now, by handle, `gone` of them for good.
    pub(crate) fn roster(&self, config: &Arc<Config>, gone: usize) {
        let mut inner = self.inner();
        inner.config = Some(Arc::clone(config));
        inner.gone = gone;
    }

    /// What in a folder cannot be followed, from now on; of that, what is new.
    pub(crate) fn complain(&self, folder: usize, complaints: &[BadNode]) -> Vec<BadNode> {
        let mut inner = self.inner();
        let before = inner.complaints.insert(folder, complaints.to_vec());
        let before: BTreeSet<BadNode> = before.into_iter().flatten().collect();
        let new = complaints.iter().filter(|one| !before.contains(one));
        new.cloned().collect()
    }

    pub(crate) fn publish_response(&self) {
        self.publish_responses.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn republished(&self) {
        self.republished.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn values(&self, count: usize) {
        self.values.fetch_add(count as u64, Ordering::Relaxed);
        self.last_data.store(WallNanos::now().0, Ordering::Relaxed);
    }

    pub(crate) fn history(&self, marks: &Marks) {
        let mut inner = self.inner();
        inner.history_nodes = marks.count();
        inner.backfill_pending = marks.late_holes().count();
    }

    pub(crate) fn backfilled(&self, count: usize) {
        self.backfilled.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn command(&self, command: &Command, outcome: &Outcome) {
        if let Some(commands) = &self.commands {
            commands.came_to(command, outcome);
        }
    }

    pub(crate) fn gaps(&self, count: usize) {
        self.gaps.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn log_refused(&self, error: &str) {
        self.log_refusals.fetch_add(1, Ordering::Relaxed);
        self.inner().log_refusal = Some(error.to_owned());
    }

    pub(crate) fn log_takes(&self) {
        self.inner().log_refusal = None;
    }
}
