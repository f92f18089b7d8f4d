//! Records of topics into another topic of the same cluster, unpacked, once and in order.
//!
//! ```text
//! input topics ── read_committed ──> unpack ──> one transaction: the records in `to`
//!       ^                                                        and the group's offsets
//!       └───────────── after every start, from the group's offsets ─────────────┘
//! ```
//!
//! A transaction holds whole records of the input, never a part of one, so wherever this is
//! stopped, what is committed ends between two of them, and the next run goes on there. Who
//! begins fences whoever was at it before, and only then asks where the group stands.

use super::{Account, Damaged, of_row, plain};
use crate::Boxed;
use crate::uplink::config::Config;
use crate::uplink::fault::Fault;
use crate::uplink::wire::{Handover, Incoming, Positions, Reading, Wire};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// A transaction is committed when it has so many bytes: much more than its commit costs, and so
/// little that readers do not wait. One packed record alone may have more.
const TRANSACTION_BYTES: usize = 4 * 1024 * 1024;
/// Before the cluster is tried again, by who follows.
const AGAIN_AFTER: Duration = Duration::from_secs(3);
/// Who follows looks so often whether a topic has more partitions.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Copying {
    pub topics: Vec<String>,
    /// None of `topics`.
    pub to: String,
    /// The consumer group that says how far `topics` are read; the transactional id is the same.
    pub group: String,
    /// Go on until told to stop; otherwise until what was the end when this began.
    pub follow: bool,
    /// Begin, although `to` has records and nothing says which of them are from here.
    pub from_start: bool,
    /// Pass over what cannot be unpacked.
    pub skip_damaged: bool,
}

/// What is worth a line while it is done.
#[derive(Debug)]
pub enum Told<'a> {
    /// Everything is found and nobody else is at it.
    Begun {
        /// Not from the first record, but from where the group stands.
        resumed: bool,
        /// Whether each record keeps the number of its partition.
        keeps_partitions: bool,
    },
    /// Passed over.
    Damaged(&'a Damaged),
    /// The cluster is tried again in a moment.
    Again(&'a Error),
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster does not answer as it should; another run goes on where this one ended.
    #[error("{0}")]
    Cluster(String),
    #[error(
        "{why}; the user needs Read on the topics, Write on the topic `{to}`, Read on the group \
         `{group}` and Write on the transactional id `{group}`"
    )]
    Denied {
        why: String,
        to: String,
        group: String,
    },
    #[error("the cluster has no topic `{0}` to read")]
    NoInput(String),
    #[error(
        "the cluster has no topic `{to}` to write to: create it first (kafka-topics.sh --create \
         --topic {to} --partitions N --bootstrap-server …); with as many partitions as the input, \
         records keep theirs"
    )]
    NoOutput { to: String },
    #[error(
        "`{to}` has records already, and nothing says how far the group `{group}` has read: it \
         never ran, or not for longer than the cluster keeps the offsets of a group \
         (offsets.retention.minutes, a week by default), and then everything would be written \
         again. Begin with --from-start if that is right, or write to an empty topic"
    )]
    NoPosition { to: String, group: String },
    #[error(
        "another `skerry unpack` of the group `{group}` has taken over (or this one stood still \
         for minutes): it stops, and nothing is lost or there twice. Let one run at a time; for a \
         second copy give another --group and --to"
    )]
    Fenced { group: String },
    #[error(
        "`{to}` does not take {reason}. Change the settings of `{to}` (max.message.bytes, \
         message.timestamp.*) and run this again: it goes on before that record"
    )]
    Refused { to: String, reason: String },
    #[error(
        "stopped at a packed record that cannot be unpacked: {damaged}. What is before it in its \
         partition is written; with --skip-damaged it is passed over, and what was in it will be \
         missing"
    )]
    Damaged { damaged: Damaged },
}

impl Error {
    fn may_pass(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }
}

/// Copies until the end or `stop`; what is under way then is committed first.
///
/// # Errors
/// When nothing but a person can help, and unless it follows, when the cluster does not answer.
pub fn copy<'a>(
    config: Config,
    job: Copying,
    stop: CancellationToken,
    tell: &'a mut (dyn FnMut(Told<'_>) + Send + Sync),
) -> Boxed<'a, Result<Account, Error>> {
    Box::pin(copy_all(config, job, stop, tell))
}

async fn copy_all(
    config: Config,
    job: Copying,
    stop: CancellationToken,
    tell: &mut (dyn FnMut(Told<'_>) + Send + Sync),
) -> Result<Account, Error> {
    let mut copier = Copier {
        config: Arc::new(config),
        job,
        stop,
        tell,
        account: Account::default(),
    };
    loop {
        match copier.session().await {
            Ok(()) => return Ok(copier.account),
            Err(error) if copier.job.follow && error.may_pass() => {
                (copier.tell)(Told::Again(&error));
                tokio::select! {
                    () = tokio::time::sleep(AGAIN_AFTER) => {}
                    () = copier.stop.cancelled() => return Ok(copier.account),
                }
            }
            Err(error) => return Err(error),
        }
    }
}

struct Copier<'a> {
    config: Arc<Config>,
    job: Copying,
    stop: CancellationToken,
    tell: &'a mut (dyn FnMut(Told<'_>) + Send + Sync),
    /// Of what is committed.
    account: Account,
}

/// One connection's worth of it.
struct Session {
    wire: Wire,
    handover: Handover,
    reading: Reading,
    layout: Layout,
}

/// How many partitions the topics have.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Layout {
    inputs: BTreeMap<String, usize>,
    output: usize,
}

impl Layout {
    /// The partition for what comes from `partition` of `topic`; none leaves it to the key. With
    /// the same count everything keeps its order, whatever its key.
    fn partition(&self, topic: &str, partition: i32) -> Option<i32> {
        (self.inputs.get(topic) == Some(&self.output)).then_some(partition)
    }

    fn keeps_partitions(&self) -> bool {
        self.inputs.values().all(|count| *count == self.output)
    }
}

/// What one transaction holds.
#[derive(Default)]
struct Slice {
    positions: Positions,
    account: Account,
    bytes: usize,
}

impl Copier<'_> {
    /// From connecting to the end or to whatever breaks it.
    async fn session(&mut self) -> Result<(), Error> {
        let stop = self.stop.clone();
        let opened = tokio::select! {
            opened = self.open() => opened,
            () = stop.cancelled() => return Ok(()),
        };
        let mut session = opened?;
        let outcome = self.carry_on(&mut session).await;
        session.reading.close().await;
        match outcome {
            Ok(()) => session.handover.close().await,
            Err(_) => session.handover.give_up().await,
        }
        outcome
    }

    async fn open(&mut self) -> Result<Session, Error> {
        let wire = Wire::connect(&self.config, None).await;
        let wire = wire.map_err(|fault| self.error(fault))?;
        let (layout, batch_bytes_max) = self.layout(&wire).await?;
        let Copying {
            group, to, topics, ..
        } = &self.job;
        let handover = wire.handover(group, topics, to, batch_bytes_max).await;
        let mut handover = handover.map_err(|fault| self.error(fault))?;
        let begun = match self.begin(&wire, &layout, &mut handover).await {
            Ok((starts, resumed)) => {
                let reading = wire.read(topics, &starts).await;
                reading
                    .map(|reading| (reading, resumed))
                    .map_err(|fault| self.error(fault))
            }
            Err(error) => Err(error),
        };
        match begun {
            Ok((reading, resumed)) => {
                (self.tell)(Told::Begun {
                    resumed,
                    keeps_partitions: layout.keeps_partitions(),
                });
                Ok(Session {
                    wire,
                    handover,
                    reading,
                    layout,
                })
            }
            Err(error) => {
                handover.give_up().await;
                Err(error)
            }
        }
    }

    /// With what the output takes as one batch, where the cluster says.
    async fn layout(&self, wire: &Wire) -> Result<(Layout, Option<u64>), Error> {
        let to = &self.job.to;
        let names: Vec<String> = self.job.topics.iter().chain([to]).cloned().collect();
        let looked = wire.look(&names).await;
        let mut looked = looked.map_err(|fault| self.error(fault))?;
        let output = looked.remove(to).expect("it was asked for");
        let output = output.map_err(|fault| self.error(fault))?;
        let mut inputs = BTreeMap::new();
        for (topic, found) in looked {
            let found = found.map_err(|fault| self.error(fault))?;
            inputs.insert(topic, found.partitions.len());
        }
        let layout = Layout {
            inputs,
            output: output.partitions.len(),
        };
        let settings = output.settings.unwrap_or_default();
        Ok((layout, settings.max_message_bytes()))
    }

    /// Where to read from, and whether the group knew. A group that is new is made known before
    /// the first record is written: so nobody takes a killed first run for one long ago.
    async fn begin(
        &self,
        wire: &Wire,
        layout: &Layout,
        handover: &mut Handover,
    ) -> Result<(Positions, bool), Error> {
        let Copying { group, to, .. } = &self.job;
        let failed = |fault| self.error(fault);
        let mut known = wire.committed(group).await.map_err(failed)?;
        known.retain(|(topic, _), _| layout.inputs.contains_key(&**topic));
        if !known.is_empty() {
            return Ok((known, true));
        }
        let output = wire.extent(to, layout.output).await.map_err(failed)?;
        let is_empty = output.values().all(|offsets| offsets.is_empty());
        if !is_empty && !self.job.from_start {
            return Err(Error::NoPosition {
                to: to.clone(),
                group: group.clone(),
            });
        }
        let mut starts = Positions::new();
        for (topic, partitions) in &layout.inputs {
            let name: Arc<str> = topic.as_str().into();
            let extent = wire.extent(topic, *partitions).await.map_err(failed)?;
            for (partition, offsets) in extent {
                starts.insert((Arc::clone(&name), partition), offsets.start);
            }
        }
        handover.begin().map_err(failed)?;
        handover.commit(&starts).await.map_err(failed)?;
        Ok((starts, false))
    }

    async fn carry_on(&mut self, session: &mut Session) -> Result<(), Error> {
        let stop = self.stop.clone();
        let mut looked = Instant::now();
        loop {
            let polled = tokio::select! {
                polled = session.reading.poll() => polled,
                () = stop.cancelled() => return Ok(()),
            };
            let records = polled.map_err(|fault| self.error(fault))?;
            self.carry(session, records).await?;
            let attended = session.handover.attend().await;
            attended.map_err(|fault| self.error(fault))?;
            if stop.is_cancelled() {
                return Ok(());
            }
            if !self.job.follow {
                let at_end = session.reading.is_at_end().await;
                if at_end.map_err(|fault| self.error(fault))? {
                    return Ok(());
                }
            } else if looked.elapsed() > LOOK_EVERY {
                looked = Instant::now();
                if self.layout(&session.wire).await?.0 != session.layout {
                    let why = "the number of partitions has changed".to_owned();
                    return Err(Error::Cluster(why));
                }
            }
        }
    }

    /// Writes what comes of `records` in as many transactions as it takes.
    async fn carry(&mut self, session: &mut Session, records: Vec<Incoming>) -> Result<(), Error> {
        let mut records = records.into_iter().peekable();
        while records.peek().is_some() && !self.stop.is_cancelled() {
            session
                .handover
                .begin()
                .map_err(|fault| self.error(fault))?;
            let mut slice = Slice::default();
            let mut outcome = Ok(());
            while slice.bytes < TRANSACTION_BYTES && outcome.is_ok() {
                let Some(record) = records.next() else { break };
                outcome = self.put(session, record, &mut slice).await;
            }
            match outcome {
                Err(Error::Damaged { .. }) | Ok(()) if !slice.positions.is_empty() => {
                    let committed = session.handover.commit(&slice.positions).await;
                    committed.map_err(|fault| self.error(fault))?;
                    self.account += slice.account;
                }
                _ => {}
            }
            outcome?;
        }
        Ok(())
    }

    /// Writes what comes of `record`, all of it or nothing.
    async fn put(
        &mut self,
        session: &mut Session,
        record: Incoming,
        slice: &mut Slice,
    ) -> Result<(), Error> {
        let Session {
            handover, layout, ..
        } = session;
        let partition = layout.partition(&record.topic, record.partition);
        let read = (Arc::clone(&record.topic), record.partition);
        let next = record.offset + 1;
        match super::open(&record) {
            Ok(None) => {
                slice.account.plain += 1;
                slice.bytes += record.value.as_ref().map_or(0, bytes::Bytes::len);
                let put = handover.put(plain(record), partition).await;
                put.map_err(|fault| self.error(fault))?;
            }
            Ok(Some(block)) => {
                slice.account.packed += 1;
                for row in block.rows() {
                    slice.account.unpacked += 1;
                    slice.bytes += row.key.len() + row.value.len();
                    let put = handover.put(of_row(&record, row), partition).await;
                    put.map_err(|fault| self.error(fault))?;
                }
            }
            Err(damaged) if self.job.skip_damaged => {
                slice.account.damaged += 1;
                (self.tell)(Told::Damaged(&damaged));
            }
            Err(damaged) => return Err(Error::Damaged { damaged }),
        }
        slice.positions.insert(read, next);
        Ok(())
    }

    fn error(&self, fault: Fault) -> Error {
        let (to, group) = (self.job.to.clone(), self.job.group.clone());
        match fault {
            Fault::Fenced { .. } => Error::Fenced { group },
            Fault::TopicMissing(topic) if topic == to => Error::NoOutput { to },
            Fault::TopicMissing(topic) => Error::NoInput(topic),
            Fault::Denied(why) => Error::Denied { why, to, group },
            Fault::Refused { reason, .. } => Error::Refused { to, reason },
            Fault::Unreachable(why) | Fault::Failed(why) => Error::Cluster(why),
        }
    }
}

impl std::ops::AddAssign for Account {
    fn add_assign(&mut self, other: Self) {
        self.packed += other.packed;
        self.unpacked += other.unpacked;
        self.plain += other.plain;
        self.damaged += other.damaged;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_kept_where_the_counts_are_the_same() {
        let inputs = [("same".to_owned(), 4), ("more".to_owned(), 8)];
        let mut layout = Layout {
            inputs: inputs.into(),
            output: 4,
        };
        assert_eq!(layout.partition("same", 3), Some(3));
        // Its partition 7 is none of the output, and keys decide for all of it.
        assert_eq!(layout.partition("more", 3), None);
        assert!(!layout.keeps_partitions());
        layout.inputs.remove("more");
        assert!(layout.keeps_partitions());
    }
}
