//! Writes, method calls and acknowledgements, by messages to MQTT topics that are listed for it.
//!
//! - **Nothing is possible that is not listed**: a topic stands for one node or method of one
//!   endpoint. Who may publish to the topic is the broker's to say, and the record of a message
//!   has the user's name where there is one.
//! - **At most once.** A command is in the audit stream, and passed, before it is sent
//!   ([`ledger`]). Whatever breaks after that, it is not sent again; what cannot be known is said
//!   to be unknown. Without an audit record nothing is sent.
//! - **Not late.** A command is sent within `max_age` of the message or not at all: what was meant
//!   for the machine as it stood must not happen to it after an outage. After a restart of the
//!   computer, whose clock may show anything then, whatever is left is too old.
//! - **In order**, one at a time for each endpoint, over the link's own session, because small PLCs
//!   have few. The subscription flows on beside it.
//! - **Exactly as meant, or not**: a value is converted to the node's type as the server has it
//!   ([`super::Misfit`]), within the configured limits, or refused.
//!
//! ```text
//!  MQTT ─► log ─► order ─► wish ─► ready ─► "sending" in the audit ─► server ─► outcome in the audit
//!                                                                               └─► TOPIC/result
//! ```
//!
//! The result is a message like any other, through the log. After a crash between the two last
//! appends it may be missing, and then the audit stream alone has it.

mod by_hand;
mod config;
mod hand;
mod ledger;
mod order;
mod payload;
mod plain;
mod report;
mod status;
mod wish;

pub use by_hand::{Called, Written, call, write};
pub use config::{Action, COMMAND_AGE_MAX, Command, Commands, Limits, result_topic};
pub(crate) use report::Outcome;
pub(crate) use status::Counters;
pub use status::{CommandsSnapshot, LastError};

use super::config::Config;
use super::error::Error;
use super::ingest::Taken;
use super::status::Status;
use super::wire::Session;
use ledger::{Doubt, Entry, Start};
use order::{Follower, Looked, Order, Reply, WAITING_MAX};
use report::{Deed, Subject};
use serde_json::Value as Json;
use skerry_store::{Append, Change, Class, Log, Offset, Record, StreamName};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The session that the link has at the moment.
pub(crate) type Current = watch::Receiver<Option<Arc<Session>>>;

/// How long a log that refuses is left alone.
const REFUSED_WAIT: Duration = Duration::from_millis(500);
/// How often it is noted how far streams without commands were looked through.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(60);

/// Carries out one endpoint's commands until `stop`, and then the one under way.
///
/// # Errors
/// When the log cannot be read or takes nothing any more.
pub(crate) async fn run(
    config: &Config,
    log: Log,
    status: Arc<Status>,
    current: Current,
    stop: CancellationToken,
) -> Result<(), Error> {
    let Some(commands) = config.commands.clone() else {
        stop.cancelled().await;
        return Ok(());
    };
    let list: Arc<[Command]> = commands.list.into();
    let (reading, endpoint, topics) = (log.clone(), config.name.clone(), Arc::clone(&list));
    let loading = tokio::task::spawn_blocking(move || ledger::load(&reading, &endpoint, &topics));
    let start = loading.await.expect("reading the catalog does not panic")?;
    let mut followers = JoinSet::new();
    let (orders, waiting) = mpsc::channel(WAITING_MAX);
    let looked = follow(&list, &start, &log, &orders, &mut followers)?;
    drop(orders);
    let desk = Desk {
        endpoint: config.name.clone(),
        commands: list,
        entries: start.entries,
        audit: commands.audit,
        looked,
        log,
        status,
        current,
        stop,
    };
    desk.serve(waiting, followers).await
}

/// A task for each stream that has commands in it.
fn follow(
    commands: &Arc<[Command]>,
    start: &Start,
    log: &Log,
    orders: &mpsc::Sender<Order>,
    followers: &mut JoinSet<Result<(), skerry_store::Error>>,
) -> Result<BTreeMap<StreamName, Looked>, Error> {
    let mut from: BTreeMap<&StreamName, Offset> = BTreeMap::new();
    for (command, entry) in commands.iter().zip(&start.entries) {
        let earliest = from.entry(&command.stream).or_insert(entry.next);
        *earliest = entry.next.min(*earliest);
    }
    let mut all = BTreeMap::new();
    for (stream, from) in from {
        let looked = Looked::new(AtomicU64::new(from.0));
        let follower = Follower {
            commands: Arc::clone(commands),
            stream: stream.clone(),
            from,
            head: *log.head(stream)?.borrow(),
            left_behind: start.left_behind,
            looked: Arc::clone(&looked),
        };
        followers.spawn(follower.follow(log.clone(), orders.clone()));
        all.insert(stream.clone(), looked);
    }
    Ok(all)
}

/// Where the orders of one endpoint are carried out, one after the other.
struct Desk {
    endpoint: String,
    commands: Arc<[Command]>,
    /// One for each of the commands, as the catalog has it.
    entries: Vec<Entry>,
    audit: StreamName,
    looked: BTreeMap<StreamName, Looked>,
    log: Log,
    status: Arc<Status>,
    current: Current,
    stop: CancellationToken,
}

impl Desk {
    async fn serve(
        mut self,
        mut waiting: mpsc::Receiver<Order>,
        mut followers: JoinSet<Result<(), skerry_store::Error>>,
    ) -> Result<(), Error> {
        // First of all, so that what comes from now on is found by the next run.
        if self.begin().await? == Taken::Stopped {
            return Ok(());
        }
        let stop = self.stop.clone();
        let mut checkpoint = tokio::time::interval(CHECKPOINT_EVERY);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Some(ended) = followers.join_next() => {
                    ended.map_err(|_| skerry_store::Error::Closed)??;
                }
                Some(order) = waiting.recv() => {
                    if self.carry_out(order).await? == Taken::Stopped {
                        return Ok(());
                    }
                }
                _ = checkpoint.tick() => {
                    let changes = self.passed(&waiting);
                    if !changes.is_empty()
                        && self.append(StreamName::catalog(), Vec::new(), changes).await?
                            == Taken::Stopped
                    {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Notes where each topic begins, and answers for what an earlier run left in doubt.
    async fn begin(&mut self) -> Result<Taken, Error> {
        for index in 0..self.entries.len() {
            let Some(doubt) = self.entries[index].doubt.take() else {
                continue;
            };
            let outcome = Outcome::Unknown(
                "the node ended while the server was about to do it; it is not sent again"
                    .to_owned(),
            );
            let told = Told {
                index,
                offset: doubt.offset,
                id: doubt.id.clone(),
                order: None,
                reply: doubt.reply(),
            };
            if self.tell(told, &outcome, &Deed::default()).await? == Taken::Stopped {
                return Ok(Taken::Stopped);
            }
        }
        let entries = self.entries.iter().zip(self.commands.iter());
        let changes = entries.map(|(entry, command)| entry.change(&self.endpoint, command));
        self.append(StreamName::catalog(), Vec::new(), changes.collect())
            .await
    }

    /// Streams that went on without a command: where the next run may begin.
    fn passed(&mut self, waiting: &mpsc::Receiver<Order>) -> Vec<Change> {
        let looked = |stream: &StreamName| {
            let looked = self.looked.get(stream);
            looked.map_or(Offset::ZERO, |it| Offset(it.load(Ordering::Acquire)))
        };
        let until: Vec<Offset> = self.commands.iter().map(|it| looked(&it.stream)).collect();
        // Asked after: an order that was found before waits here now.
        if !waiting.is_empty() {
            return Vec::new();
        }
        let entries = self.entries.iter_mut().zip(self.commands.iter()).zip(until);
        entries
            .filter_map(|((entry, command), until)| {
                let passed = entry.pass(until);
                passed.then(|| entry.change(&self.endpoint, command))
            })
            .collect()
    }

    /// Whatever becomes of it, it is told.
    async fn tell(
        &mut self,
        told: Told<'_>,
        outcome: &Outcome,
        deed: &Deed,
    ) -> Result<Taken, Error> {
        let commands = Arc::clone(&self.commands);
        let command = &commands[told.index];
        let entry = &mut self.entries[told.index];
        entry.next = entry.next.max(told.offset.plus(1));
        entry.doubt = match outcome {
            Outcome::Sending => Some(Doubt::of(told.offset, told.id.clone(), &told.reply)),
            _ => None,
        };
        let change = entry.change(&self.endpoint, command);
        let endpoint = self.endpoint.clone();
        let subject = Subject {
            endpoint: &endpoint,
            command,
            offset: told.offset,
            id: told.id.as_ref(),
            order: told.order,
        };
        let record = subject.record(outcome, deed);
        let recorded = self.append(self.audit.clone(), vec![record], vec![change]);
        let recorded = recorded.await?;
        if recorded == Taken::Stopped || *outcome == Outcome::Sending {
            return Ok(recorded);
        }
        self.status.command(command, outcome);
        let (topic, offset) = (&command.topic, told.offset);
        match (outcome, outcome.reason()) {
            (Outcome::Unknown(why), _) => {
                tracing::warn!(endpoint, topic, %offset, why, "a command was done, or was not");
            }
            (_, Some(why)) => {
                tracing::warn!(endpoint, topic, %offset, why, "a command was not carried out");
            }
            (_, None) => tracing::info!(endpoint, topic, %offset, "a command was carried out"),
        }
        let message = subject.message(outcome, deed, &told.reply);
        self.append(command.results.clone(), vec![message], Vec::new())
            .await
    }

    /// Resolves once it is on disk; a log that refuses is asked again for as long as it takes.
    async fn append(
        &self,
        stream: StreamName,
        records: Vec<Record>,
        changes: Vec<Change>,
    ) -> Result<Taken, Error> {
        let append = Append {
            stream,
            records,
            changes,
        };
        let mut refused = false;
        loop {
            match self.log.append(append.clone()).await {
                Ok(_) => return Ok(Taken::Durable),
                Err(error) if matches!(error.class(), Class::Fatal | Class::Reject) => {
                    return Err(error.into());
                }
                Err(error) if !refused => {
                    refused = true;
                    tracing::warn!(
                        endpoint = self.endpoint, %error,
                        "the log refuses the record of a command; no command is carried out meanwhile"
                    );
                }
                Err(_) => {}
            }
            tokio::select! {
                () = self.stop.cancelled() => return Ok(Taken::Stopped),
                () = tokio::time::sleep(REFUSED_WAIT) => {}
            }
        }
    }
}

/// Of which order something is told, and to whom.
struct Told<'o> {
    index: usize,
    offset: Offset,
    id: Option<Json>,
    order: Option<&'o Order>,
    reply: Reply,
}
