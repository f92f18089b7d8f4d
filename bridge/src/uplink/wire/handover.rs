//! Records written to a topic together with how far others were read to make them: one
//! transaction holds both, so neither is there without the other.
//!
//! How far is kept where the cluster's own tools look for it, as offsets of a consumer group. Only
//! a member of the group may put them into a transaction, so this is one, under a name that never
//! changes: whoever comes next takes the place of a member that was killed at once, and one that
//! still lives learns that it was replaced. The member reads nothing; a [`Reading`](super::Reading)
//! does, from where the group stands.

use super::producer::{BATCH_BYTES, Verdict, refuses_record};
use super::reading::Positions;
use super::{Wire, fault};
use crate::uplink::config::Config;
use crate::uplink::fault::Fault;
use crate::uplink::unpack::Unpacked;
use bytes::Bytes;
use krafka::admin::ListConsumerGroupOffsetsOptions;
use krafka::consumer::{AutoOffsetReset, Consumer};
use krafka::error::{ErrorCode, KrafkaError};
use krafka::producer::{DeliveryHandle, TopicPartitionOffset, TransactionalProducer};
use krafka::{CloseOptions, Compression, GroupMembershipOperation, Record};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Written records wait for their answers up to here; then all of them are waited for. It bounds
/// what a block of any size takes.
const UNANSWERED_BYTES: usize = 4 * 1024 * 1024;
/// What the client may hold of them, batches under way included.
const BUFFER_BYTES: usize = 8 * 1024 * 1024;
/// Longer than a batch takes to fill; every transaction is flushed.
const LINGER: Duration = Duration::from_millis(50);
/// A transaction that nobody ends keeps readers of the topic waiting for so long. The largest block
/// is 48 MiB, which a slow link needs a while for.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(120);
/// For a member to have its place in the group: a coordinator may just be starting.
const JOIN_MAX: Duration = Duration::from_secs(60);
const JOIN_LOOK_EVERY: Duration = Duration::from_millis(50);
/// The name of the one member.
const MEMBER: &str = "skerry-unpack";

/// Answers that mean that somebody else has our place.
const FENCED: [ErrorCode; 3] = [
    ErrorCode::ProducerFenced,
    ErrorCode::InvalidProducerEpoch,
    ErrorCode::FencedInstanceId,
];

/// Writes to one topic, one transaction after the other.
pub(crate) struct Handover {
    producer: TransactionalProducer,
    member: Consumer,
    topic: String,
    config: Arc<Config>,
    /// Records written whose answers are not in, and where each came from.
    unanswered: Vec<(Source, DeliveryHandle)>,
    unanswered_bytes: usize,
}

/// The record that a written one came out of.
type Source = (Arc<str>, i32, i64);

impl Wire {
    /// The one writer of `group` to `topic`, which takes batches of `batch_bytes_max`. An older one
    /// is fenced, and what that left open is gone when this returns: only then what
    /// [`committed`](Self::committed) says is final.
    pub(crate) async fn handover(
        &self,
        group: &str,
        inputs: &[String],
        topic: &str,
        batch_bytes_max: Option<u64>,
    ) -> Result<Handover, Fault> {
        let batch = batch_bytes_max.and_then(|max| usize::try_from(max).ok());
        let batch = batch.map_or(BATCH_BYTES, |max| BATCH_BYTES.min(max));
        let patience = TRANSACTION_TIMEOUT.min(self.config.limits.request_timeout * 2 + LINGER);
        let producer = self
            .kafka
            .producer()
            .compression(Compression::Lz4)
            .batch_size(batch)
            .buffer_memory(BUFFER_BYTES)
            .linger(LINGER)
            .max_block(patience)
            .delivery_timeout(patience.max(LINGER + self.config.limits.request_timeout))
            .transaction_timeout(TRANSACTION_TIMEOUT)
            .metrics_push(false)
            .build_transactional(group)
            .await
            .map_err(|error| {
                classified(&self.config, error).before("opening the transactional id")
            });
        let member = self
            .kafka
            .consumer(group)
            .group_instance_id(MEMBER)
            .enable_auto_commit(false)
            .auto_offset_reset(AutoOffsetReset::Earliest)
            // It has to look at what it is assigned once before it can be told not to.
            .fetch_max_bytes(1)
            .max_partition_fetch_bytes(1)
            .max_poll_records(1)
            .metrics_push(false)
            .build()
            .await
            .map_err(|error| classified(&self.config, error));
        let handover = Handover {
            producer: producer?,
            member: member?,
            topic: topic.to_owned(),
            config: Arc::clone(&self.config),
            unanswered: Vec::new(),
            unanswered_bytes: 0,
        };
        let joined = match handover.member.subscribe(inputs).await {
            Ok(()) => handover.attend().await,
            Err(error) => Err(classified(&self.config, error)),
        };
        match joined {
            Ok(()) => Ok(handover),
            Err(fault) => {
                handover.give_up().await;
                Err(fault.before(&format!("joining the group {group}")))
            }
        }
    }

    /// Where `group` goes on, by what was committed and can no longer be undone.
    pub(crate) async fn committed(&self, group: &str) -> Result<Positions, Fault> {
        let options = ListConsumerGroupOffsetsOptions::default().require_stable(true);
        let admin = self.kafka.admin();
        let failed =
            |error| classified(&self.config, error).before(&format!("where group {group} stands"));
        let found = admin.list_consumer_group_offsets(group, options).await;
        let mut positions = Positions::new();
        for (partition, found) in found.map_err(failed)? {
            if let Some(offset) = found.map_err(failed)?.offset {
                positions.insert((partition.topic.into(), partition.partition), offset);
            }
        }
        Ok(positions)
    }
}

impl Handover {
    /// Keeps the place in the group; to be called every minute at least.
    ///
    /// # Errors
    /// [`Fault::Fenced`] when somebody else has it.
    pub(crate) async fn attend(&self) -> Result<(), Fault> {
        let began = Instant::now();
        loop {
            let polled = self.member.poll(Duration::ZERO).await;
            polled.map_err(|error| classified(&self.config, error))?;
            let assigned = self.member.assignment().await;
            let paused = self.member.paused_partitions().await;
            for (topic, partitions) in &assigned {
                let mut running = partitions.clone();
                running.retain(|partition| !paused.contains(&(topic.clone(), *partition)));
                if !running.is_empty() {
                    self.member.pause(topic, &running).await;
                }
            }
            if !assigned.is_empty() {
                return Ok(());
            }
            if began.elapsed() > JOIN_MAX {
                return Err(Fault::Unreachable(
                    "the coordinator gives no place in the group; do other consumers use it?"
                        .to_owned(),
                ));
            }
            tokio::time::sleep(JOIN_LOOK_EVERY).await;
        }
    }

    pub(crate) fn begin(&self) -> Result<(), Fault> {
        self.producer
            .begin()
            .map_err(|error| classified(&self.config, error))
    }

    /// Writes `record` as it is, to `partition` or to that of its key.
    ///
    /// # Errors
    /// After any the transaction cannot be committed: [give up](Self::give_up).
    pub(crate) async fn put(
        &mut self,
        record: Unpacked,
        partition: Option<i32>,
    ) -> Result<(), Fault> {
        let source = (record.topic, record.partition, record.kafka_offset);
        let mut outgoing =
            Record::new(self.topic.clone(), Bytes::new()).timestamp(record.timestamp_ms);
        (outgoing.key, outgoing.value) = (record.key, record.value);
        outgoing.headers = record.headers;
        outgoing.partition = partition;
        let bytes = outgoing.estimated_size();
        match self.producer.enqueue(outgoing).await {
            Ok(answer) => self.unanswered.push((source, answer)),
            Err(error) => return self.answers(Some((source, error))).await,
        }
        self.unanswered_bytes += bytes;
        if self.unanswered_bytes >= UNANSWERED_BYTES {
            self.answers(None).await?;
        }
        Ok(())
    }

    /// Waits for all answers; `last` could not even be sent.
    async fn answers(&mut self, last: Option<(Source, KrafkaError)>) -> Result<(), Fault> {
        let flushed = self.producer.flush().await;
        let (mut verdict, mut first_refused) = (Verdict::default(), None);
        let mut note = |index, source: Source, error: KrafkaError| {
            if refuses_record(&error) {
                first_refused.get_or_insert(source);
            }
            verdict.note(index, error);
        };
        let mut sent = 0;
        for (source, answer) in self.unanswered.drain(..) {
            if let Err(error) = answer.await {
                note(sent, source, error);
            }
            sent += 1;
        }
        self.unanswered_bytes = 0;
        if let Some((source, error)) = last {
            note(sent, source, error);
        }
        match verdict.into_fault(|error| classified(&self.config, error)) {
            Some(Fault::Refused { index, reason }) => {
                // The cluster refuses a batch, which may hold several.
                let (topic, partition, offset) = first_refused.expect("something was refused");
                let about = index.map_or("from about", |_| "from");
                let place = format!("{about} {topic}, partition {partition}, offset {offset}");
                let reason = format!("a record {place}: {reason}");
                Err(Fault::Refused { index, reason })
            }
            Some(fault) => Err(fault),
            None => flushed.map_err(|error| classified(&self.config, error)),
        }
    }

    /// Makes what was put since [`begin`](Self::begin) readable, and `positions` true, at once.
    ///
    /// # Errors
    /// The outcome is unknown after any: [give up](Self::give_up).
    pub(crate) async fn commit(&mut self, positions: &Positions) -> Result<(), Fault> {
        self.answers(None).await?;
        let failed = |error| classified(&self.config, error);
        let place = self.member.group_metadata().await;
        let place =
            place.ok_or_else(|| Fault::Failed("the place in the group is lost".to_owned()))?;
        let offsets = positions.iter().map(|((topic, partition), next)| {
            TopicPartitionOffset::new(topic.to_string(), *partition, *next)
        });
        let offsets: Vec<_> = offsets.collect();
        let sent = self.producer.send_offsets(&offsets, &place).await;
        sent.map_err(failed)?;
        self.producer.commit().await.map_err(failed)
    }

    /// Leaves in good order, so that the group is free at once.
    pub(crate) async fn close(self) {
        self.end(GroupMembershipOperation::LeaveGroup).await;
    }

    /// Leaves everything to whoever comes next: what is open is undone there.
    pub(crate) async fn give_up(self) {
        self.end(GroupMembershipOperation::RemainInGroup).await;
    }

    async fn end(self, membership: GroupMembershipOperation) {
        let options = || CloseOptions::new().timeout(Duration::from_secs(2));
        let member = options().group_membership_operation(membership);
        let closed = self.member.close_with(member).await;
        let closed = closed.and(self.producer.close_with(options()).await);
        if let Err(error) = closed {
            tracing::debug!(%error, "closing a handover");
        }
    }
}

fn classified(config: &Config, error: KrafkaError) -> Fault {
    if !is_fenced(&error) {
        return fault(config, "", error);
    }
    Fault::Fenced {
        node: config.node.as_str().to_owned(),
        detail: error.to_string(),
    }
}

/// Taking this for anything that another try may help would throw out whoever took over.
fn is_fenced(error: &KrafkaError) -> bool {
    match error {
        KrafkaError::Fenced { .. } => true,
        KrafkaError::Broker { code, .. } => FENCED.contains(code),
        // Of what was written in a transaction krafka keeps the broker's answer in the words only.
        KrafkaError::TransactionAbortable { message } => FENCED
            .iter()
            .any(|code| message.contains(&format!("{code:?}"))),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_taken_over_from_knows_it_by_any_answer() {
        let words = "produce to plain-2 failed with InvalidProducerEpoch";
        let fenced = [
            KrafkaError::fenced("ProducerFenced: another producer"),
            KrafkaError::broker(ErrorCode::FencedInstanceId, "heartbeat failed"),
            KrafkaError::transaction_abortable(words),
        ];
        for error in fenced {
            assert!(is_fenced(&error), "{error}");
        }
        let others = [
            KrafkaError::timeout("Produce"),
            KrafkaError::broker(ErrorCode::RebalanceInProgress, ""),
            KrafkaError::transaction_abortable("produce to plain-2 failed with MessageTooLarge"),
        ];
        for error in others {
            assert!(!is_fenced(&error), "{error}");
        }
    }
}
