//! Deliveries, in transactions or without, and what the cluster says of the records in them.

use super::identity::Identity;
use super::{Wire, fault};
use crate::uplink::config::{Config, Delivery};
use crate::uplink::fault::Fault;
use crate::uplink::mapping::Outgoing;
use krafka::admin::{ConfigResource, DescribeConfigsOptions};
use krafka::error::{ErrorCode, KrafkaError, ProtocolErrorKind};
use krafka::producer::{DeliveryHandle, TransactionalProducer, murmur2};
use krafka::{CloseOptions, Compression, Kafka, Record};
use std::sync::Arc;
use std::time::Duration;

/// A batch of one partition is sent when it has so many bytes. Well below the 1 MiB that a
/// broker takes by default, well above what makes lz4 and the 61-byte header worth it.
pub(crate) const BATCH_BYTES: usize = 128 * 1024;
/// More than a transaction may hold, less than anybody notices.
const BUFFER_BYTES: usize = 8 * 1024 * 1024;
/// Longer than any slice needs; every slice is flushed.
const LINGER: Duration = Duration::from_millis(50);
/// The coordinator aborts a transaction nobody ends: readers of the topic wait that long at most
/// after this node lost its link in the middle of one.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(60);

impl Wire {
    /// A producer for one delivery after the other. Under exactly-once it alone may write under
    /// `transactional_id`: an older one is fenced, and what that left open is aborted or, where
    /// its commit had been decided, completed.
    pub(crate) async fn producer(&self, transactional_id: &str) -> Result<Producer, Fault> {
        // No more than the coordinator would wait anyway; see TRANSACTION_TIMEOUT.
        let delivery = TRANSACTION_TIMEOUT.min(self.config.limits.request_timeout * 2 + LINGER);
        let builder = self
            .kafka
            .producer()
            .compression(Compression::Lz4)
            .batch_size(BATCH_BYTES)
            .buffer_memory(BUFFER_BYTES)
            .linger(LINGER)
            .max_block(delivery)
            .delivery_timeout(delivery.max(LINGER + self.config.limits.request_timeout))
            .metrics_push(false);
        let built = match self.config.delivery {
            Delivery::ExactlyOnce => builder
                .transaction_timeout(TRANSACTION_TIMEOUT)
                .build_transactional(transactional_id)
                .await
                .map(|inner| Inner::Transactional(Box::new(inner)))
                .map_err(|error| ("opening the transactional id", error)),
            Delivery::AtLeastOnce => builder
                .idempotent(true)
                .build()
                .await
                .map(|inner| Inner::Idempotent(Box::new(inner)))
                .map_err(|error| ("opening a producer", error)),
        };
        let failed = |(doing, error)| fault(&self.config, "", error).before(doing);
        Ok(Producer {
            inner: built.map_err(failed)?,
            kafka: self.kafka.clone(),
            identity: Arc::clone(&self.identity),
            config: Arc::clone(&self.config),
        })
    }
}

/// Writes deliveries, one at a time: [written](Self::write), then [committed](Self::commit).
pub(crate) struct Producer {
    inner: Inner,
    kafka: Kafka,
    identity: Arc<Identity>,
    config: Arc<Config>,
}

enum Inner {
    Transactional(Box<TransactionalProducer>),
    /// For clusters without transactions: the position follows once the records are there.
    Idempotent(Box<krafka::producer::Producer>),
}

impl Producer {
    /// Writes `records` and `position`. In a transaction nobody who reads committed sees any of
    /// it before the [commit](Self::commit). Returns the offset given to `position`, where the
    /// broker said.
    ///
    /// # Errors
    /// [`Fault::Refused`] means that a transaction is still open, and nothing of it will ever be
    /// readable once it is [aborted](Self::abort). After every other fault the outcome is
    /// unknown: drop the producer, make another one, read the position back.
    pub(crate) async fn write(
        &self,
        records: Vec<Outgoing>,
        position: Outgoing,
    ) -> Result<Option<i64>, Fault> {
        let topic = records
            .first()
            .map_or_else(Arc::default, |record| Arc::clone(&record.topic));
        match &self.inner {
            Inner::Transactional(inner) => {
                inner
                    .begin()
                    .map_err(|error| fault(&self.config, &topic, error))?;
                self.send(&topic, records.into_iter().chain([position]))
                    .await
            }
            Inner::Idempotent(_) => {
                self.send(&topic, records.into_iter()).await?;
                let kept = self.send(&topic, [position].into_iter()).await;
                kept.map_err(|fault| match fault {
                    // The records are there: none of them is to blame.
                    Fault::Refused { reason, .. } => {
                        Fault::Failed(format!("the position is refused: {reason}"))
                    }
                    fault => fault,
                })
            }
        }
    }

    /// Sends all of it and waits for every answer; the last offset that a broker gave.
    async fn send(
        &self,
        topic: &str,
        records: impl Iterator<Item = Outgoing>,
    ) -> Result<Option<i64>, Fault> {
        let failed = |error| fault(&self.config, topic, error);
        let mut outcomes = Vec::with_capacity(records.size_hint().0);
        let mut verdict = Verdict::default();
        for (index, record) in records.enumerate() {
            match self.enqueue(to_record(record)).await {
                Ok(outcome) => outcomes.push(outcome),
                Err(error) => {
                    verdict.note(index, error);
                    break;
                }
            }
        }
        let flushed = match &self.inner {
            Inner::Transactional(inner) => inner.flush().await,
            Inner::Idempotent(inner) => inner.flush().await,
        };
        let mut offset = None;
        for (index, outcome) in outcomes.into_iter().enumerate() {
            match outcome.await {
                Ok(written) => offset = written.is_success().then_some(written.offset),
                Err(error) => verdict.note(index, error),
            }
        }
        if let Some(fault) = verdict.into_fault(failed) {
            return Err(fault);
        }
        flushed.map_err(failed)?;
        Ok(offset)
    }

    async fn enqueue(&self, record: Record) -> Result<DeliveryHandle, KrafkaError> {
        match &self.inner {
            Inner::Transactional(inner) => inner.enqueue(record).await,
            Inner::Idempotent(inner) => inner.enqueue(record).await,
        }
    }

    /// Makes what was [written](Self::write) readable, all at once.
    ///
    /// # Errors
    /// The outcome is unknown after any.
    pub(crate) async fn commit(&self) -> Result<(), Fault> {
        match &self.inner {
            Inner::Transactional(inner) => inner.commit().await,
            Inner::Idempotent(_) => Ok(()),
        }
        .map_err(|error| fault(&self.config, "", error))
    }

    /// Ends an open transaction without a trace.
    pub(crate) async fn abort(&self) -> Result<(), Fault> {
        match &self.inner {
            Inner::Transactional(inner) => inner.abort().await,
            Inner::Idempotent(_) => Ok(()),
        }
        .map_err(|error| fault(&self.config, "", error))
    }

    /// Whether the TLS files were replaced since the connection was made, by others that can be
    /// used: then it is time for another connection. What was replaced in part is waited for.
    pub(crate) async fn is_outdated(&self) -> bool {
        if !self.identity.has_changed() {
            return false;
        }
        let read = self.kafka.refresh_tls().await;
        read.inspect_err(|error| {
            tracing::warn!(%error, "the TLS files changed and cannot be used; the old ones stay");
        })
        .is_ok()
    }

    /// The largest batch that the topic takes, as it is compressed, where the cluster tells.
    pub(crate) async fn message_bytes_max(&self, topic: &str) -> Option<u64> {
        let resources = [ConfigResource::topic(topic)];
        let options = DescribeConfigsOptions::default();
        let admin = self.kafka.admin();
        let described = admin.describe_configs(resources, options).await;
        let entries = described.ok()?.into_values().next()?.ok()?;
        let mut entries = entries.into_iter();
        let found = entries.find(|entry| entry.name == "max.message.bytes")?;
        found.value?.parse().ok()
    }

    /// Lets go of the connection's resources without waiting for a dead link.
    pub(crate) async fn close(self) {
        let options = CloseOptions::new().timeout(Duration::from_millis(500));
        let closed = match self.inner {
            Inner::Transactional(inner) => inner.close_with(options).await,
            Inner::Idempotent(inner) => inner.close_with(options).await,
        };
        if let Err(error) = closed {
            tracing::debug!(%error, "closing the producer");
        }
    }
}

/// The partition that Kafka's clients choose for a key, in Java and here.
pub(crate) fn partition_of(key: &[u8], partitions: usize) -> i32 {
    let positive = murmur2(key) & 0x7fff_ffff;
    let partition = positive as usize % partitions.max(1);
    i32::try_from(partition).expect("it is less than an i32's largest")
}

/// What the cluster thinks of a slice.
#[derive(Default)]
pub(super) struct Verdict {
    /// Something in it can never be written; which, if it is one alone.
    refused: Option<(Option<usize>, String)>,
    /// Anything else that went wrong, the first of it.
    failed: Option<KrafkaError>,
}

impl Verdict {
    pub(super) fn note(&mut self, index: usize, error: KrafkaError) {
        if refuses_record(&error) {
            self.refused = match self.refused.take() {
                None => Some((Some(index), error.to_string())),
                Some((_, reason)) => Some((None, reason)),
            };
        } else if self.failed.as_ref().is_none_or(KrafkaError::requires_abort) {
            // That the transaction is lost merely follows from something else.
            self.failed = Some(error);
        }
    }

    /// The fault, if any. A refusal counts only where nothing but itself went wrong.
    pub(super) fn into_fault(self, classify: impl FnOnce(KrafkaError) -> Fault) -> Option<Fault> {
        let follows = self.failed.as_ref().is_none_or(KrafkaError::requires_abort);
        match (self.refused, self.failed) {
            (Some((index, reason)), _) if follows => Some(Fault::Refused { index, reason }),
            (_, failed) => failed.map(classify),
        }
    }
}

fn to_record(outgoing: Outgoing) -> Record {
    let mut record = Record::new(&*outgoing.topic, outgoing.value)
        .key(outgoing.key)
        .timestamp(outgoing.timestamp_ms);
    record.partition = outgoing.partition;
    record.headers = outgoing
        .headers
        .into_iter()
        .map(|(k, v)| (k.into_owned(), Some(v)))
        .collect();
    record
}

/// Answers that mean that a record can never be written, however often it is tried.
const REFUSALS: [ErrorCode; 5] = [
    ErrorCode::MessageTooLarge,
    ErrorCode::RecordListTooLarge,
    ErrorCode::InvalidRecord,
    ErrorCode::InvalidTimestamp,
    ErrorCode::PolicyViolation,
];

pub(super) fn refuses_record(error: &KrafkaError) -> bool {
    match error {
        KrafkaError::Broker { code, .. } => REFUSALS.contains(code),
        // In a transaction krafka keeps the broker's answer in the words only.
        KrafkaError::TransactionAbortable { message } => REFUSALS
            .iter()
            .any(|code| message.ends_with(&format!("failed with {code:?}"))),
        // Of what would be sent. `InvalidLength` is not here: it is also what krafka makes of a
        // peer that does not speak Kafka, such as a listener that was switched to TLS.
        KrafkaError::Protocol { kind, .. } => *kind == ProtocolErrorKind::FrameTooLarge,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record that counts as refused is set aside for good, so nothing may count that says
    /// nothing about the record: such as a leader that was switched to TLS under a node that
    /// speaks without, whose alert reads like the length of an answer.
    #[test]
    fn only_words_about_a_record_refuse_it() {
        let alert = "message size 352518912 exceeds maximum 104857600";
        let innocent = [
            KrafkaError::protocol_kind(ProtocolErrorKind::InvalidLength, alert),
            KrafkaError::auth("SASL authentication failed"),
            KrafkaError::timeout("Produce"),
            KrafkaError::broker(ErrorCode::NotEnoughReplicas, ""),
        ];
        for error in innocent {
            assert!(!refuses_record(&error), "{error}");
        }
        let guilty = [
            KrafkaError::protocol_kind(ProtocolErrorKind::FrameTooLarge, ""),
            KrafkaError::broker(ErrorCode::MessageTooLarge, ""),
            KrafkaError::transaction_abortable("produce to t-0 failed with InvalidRecord"),
        ];
        for error in guilty {
            assert!(refuses_record(&error), "{error}");
        }
    }
}
