//! Transactions, and what the cluster says of the records in them.

use super::{Wire, fault};
use crate::uplink::config::Config;
use crate::uplink::fault::Fault;
use crate::uplink::mapping::Outgoing;
use krafka::error::{ErrorCode, KrafkaError, ProtocolErrorKind};
use krafka::producer::TransactionalProducer;
use krafka::{CloseOptions, Compression, Record};
use std::sync::Arc;
use std::time::Duration;

/// A batch of one partition is sent when it has so many bytes. Well below the 1 MiB that a
/// broker takes by default, well above what makes lz4 and the 61-byte header worth it.
const BATCH_BYTES: usize = 128 * 1024;
/// More than a transaction may hold, less than anybody notices.
const BUFFER_BYTES: usize = 8 * 1024 * 1024;
/// Longer than any slice needs; every slice is flushed.
const LINGER: Duration = Duration::from_millis(50);
/// The coordinator aborts a transaction nobody ends: readers of the topic wait that long at most
/// after this node lost its link in the middle of one.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(60);

impl Wire {
    /// A producer that alone may write under `transactional_id`: an older one is fenced, and what
    /// it left open is aborted or, where its commit had been decided, completed.
    pub(crate) async fn producer(&self, transactional_id: &str) -> Result<Producer, Fault> {
        // No more than the coordinator would wait anyway; see TRANSACTION_TIMEOUT.
        let delivery = TRANSACTION_TIMEOUT.min(self.config.limits.request_timeout * 2 + LINGER);
        let built = self
            .kafka
            .producer()
            .compression(Compression::Lz4)
            .batch_size(BATCH_BYTES)
            .buffer_memory(BUFFER_BYTES)
            .linger(LINGER)
            .max_block(delivery)
            .delivery_timeout(delivery.max(LINGER + self.config.limits.request_timeout))
            .transaction_timeout(TRANSACTION_TIMEOUT)
            .metrics_push(false)
            .build_transactional(transactional_id)
            .await;
        match built {
            Ok(inner) => Ok(Producer {
                inner,
                config: Arc::clone(&self.config),
            }),
            Err(error) => {
                Err(fault(&self.config, "", error).before("opening the transactional id"))
            }
        }
    }
}

/// Writes transactions, one at a time.
pub(crate) struct Producer {
    inner: TransactionalProducer,
    config: Arc<Config>,
}

impl Producer {
    /// Writes `records` and `position` in one transaction: all of it is readable, or none of it.
    /// Returns the offset given to `position`, where the broker said.
    ///
    /// # Errors
    /// [`Fault::Refused`] means that the transaction is still open and nothing of it will ever be
    /// readable once it is [aborted](Self::abort). After every other fault the outcome is
    /// unknown: drop the producer, make another one, read the position back.
    pub(crate) async fn transact(
        &self,
        records: Vec<Outgoing>,
        position: Outgoing,
    ) -> Result<Option<i64>, Fault> {
        let topic = records
            .first()
            .map_or(String::new(), |record| record.topic.clone());
        let failed = |error| fault(&self.config, &topic, error);
        self.inner.begin().map_err(failed)?;
        let mut outcomes = Vec::with_capacity(records.len() + 1);
        let mut verdict = Verdict::default();
        for (index, record) in records.into_iter().chain([position]).enumerate() {
            match self.inner.enqueue(to_record(record)).await {
                Ok(outcome) => outcomes.push(outcome),
                Err(error) => {
                    verdict.note(index, error);
                    break;
                }
            }
        }
        let flushed = self.inner.flush().await;
        let mut position_offset = None;
        for (index, outcome) in outcomes.into_iter().enumerate() {
            match outcome.await {
                Ok(written) => position_offset = written.is_success().then_some(written.offset),
                Err(error) => verdict.note(index, error),
            }
        }
        if let Some(fault) = verdict.into_fault(failed) {
            return Err(fault);
        }
        flushed.map_err(failed)?;
        self.inner.commit().await.map_err(failed)?;
        Ok(position_offset)
    }

    /// Ends an open transaction without a trace.
    pub(crate) async fn abort(&self) -> Result<(), Fault> {
        self.inner
            .abort()
            .await
            .map_err(|error| fault(&self.config, "", error))
    }

    /// Lets go of the connection's resources without waiting for a dead link.
    pub(crate) async fn close(self) {
        let options = CloseOptions::new().timeout(Duration::from_millis(500));
        if let Err(error) = self.inner.close_with(options).await {
            tracing::debug!(%error, "closing the producer");
        }
    }
}

/// What the cluster thinks of a slice.
#[derive(Default)]
struct Verdict {
    /// Something in it can never be written; which, if it is one alone.
    refused: Option<(Option<usize>, String)>,
    /// Anything else that went wrong, the first of it.
    failed: Option<KrafkaError>,
}

impl Verdict {
    fn note(&mut self, index: usize, error: KrafkaError) {
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
    fn into_fault(self, classify: impl FnOnce(KrafkaError) -> Fault) -> Option<Fault> {
        let follows = self.failed.as_ref().is_none_or(KrafkaError::requires_abort);
        match (self.refused, self.failed) {
            (Some((index, reason)), _) if follows => Some(Fault::Refused { index, reason }),
            (_, failed) => failed.map(classify),
        }
    }
}

fn to_record(outgoing: Outgoing) -> Record {
    let mut record = Record::new(outgoing.topic, outgoing.value)
        .key(outgoing.key)
        .timestamp(outgoing.timestamp_ms);
    record.partition = outgoing.partition;
    record.headers = outgoing
        .headers
        .into_iter()
        .map(|(k, v)| (k, Some(v)))
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

fn refuses_record(error: &KrafkaError) -> bool {
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
