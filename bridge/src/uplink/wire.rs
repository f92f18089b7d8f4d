//! The Kafka client, behind our own words. The only file that names `krafka`.
//!
//! What it asks of the cluster, and why that is enough, is told in [`super`].

use super::advice;
use super::config::{Config, Mechanism};
use super::fault::Fault;
use super::mapping::Outgoing;
use bytes::Bytes;
use krafka::admin::{
    ConfigResource, CreateTopicsOptions, DescribeConfigsOptions, ListOffsetsOptions, NewTopic,
    OffsetSpec, TopicPartition,
};
use krafka::auth::{AuthConfig, TlsConfig};
use krafka::consumer::{AutoOffsetReset, Consumer, IsolationLevel};
use krafka::error::{ErrorCode, KrafkaError, ProtocolErrorKind};
use krafka::producer::TransactionalProducer;
use krafka::{CloseOptions, Compression, Kafka, Record};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
/// A topic that the cluster creates is there well before.
const CREATE_WAIT_MAX: Duration = Duration::from_secs(5);
/// Reading positions back gives up when nothing came for so long.
const READ_STALL_MAX: Duration = Duration::from_secs(30);
/// A node keeps its positions in one partition, so that their order is one order.
pub(crate) const POSITIONS_PARTITION: i32 = 0;

/// A connection to the cluster, shared by all lanes.
pub(crate) struct Wire {
    kafka: Kafka,
    cluster: String,
    config: Arc<Config>,
}

impl Wire {
    pub(crate) async fn connect(config: &Arc<Config>) -> Result<Self, Fault> {
        let doing = format!("connecting to {}", config.brokers.join(", "));
        let limits = &config.limits;
        let mut builder = Kafka::builder(config.brokers.join(","))
            .client_id(format!("skerry-{}", config.node.as_str()))
            .request_timeout(limits.request_timeout)
            .connect_timeout(limits.connect_timeout.min(limits.request_timeout))
            .tcp_nodelay(true)
            .allow_auto_create_topics(config.auto_create);
        if let Some(security) = security(config).await? {
            builder = builder.security(security);
        }
        let failed = |error| at_the_door(config, error).before(&doing);
        let kafka = builder.connect().await.map_err(failed)?;
        let described = kafka.admin().describe_cluster(Default::default()).await;
        let cluster = described.map_err(failed)?.cluster_id;
        Ok(Self {
            kafka,
            cluster,
            config: Arc::clone(config),
        })
    }

    /// The cluster's own id: a hint about another cluster is no hint.
    pub(crate) fn cluster(&self) -> &str {
        &self.cluster
    }

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

    /// Where the topic exists or the cluster makes it, nothing; else a fault that names it.
    pub(crate) async fn require_topic(&self, topic: &str) -> Result<(), Fault> {
        let found = self
            .kafka
            .admin()
            .describe_topics([topic], Default::default())
            .await;
        let found = found.and_then(|mut topics| topics.remove(topic).unwrap_or(Err(none(topic))));
        match found {
            Ok(_) => Ok(()),
            Err(KrafkaError::Broker {
                code: ErrorCode::UnknownTopicOrPartition,
                ..
            }) if self.config.auto_create => self.let_create(topic).await,
            Err(error) => Err(fault(&self.config, topic, error)),
        }
    }

    /// Asking for the metadata as a producer does lets the cluster create the topic, if it wants
    /// to, and the leader is there a moment later.
    async fn let_create(&self, topic: &str) -> Result<(), Fault> {
        let failed = |error| fault(&self.config, topic, error);
        let consumer = self.kafka.consumer_without_group().metrics_push(false);
        let consumer = consumer.build().await.map_err(failed)?;
        let asked = Instant::now();
        let outcome = loop {
            match consumer.fetch_metadata(Some(topic)).await {
                Ok(known) if !known.topics.is_empty() => break Ok(()),
                Err(error) if !error.is_retriable() && !is_unknown(&error) => {
                    break Err(failed(error));
                }
                _ if asked.elapsed() > CREATE_WAIT_MAX => {
                    break Err(Fault::TopicMissing(topic.to_owned()));
                }
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        };
        close(&consumer).await;
        outcome
    }

    /// Makes sure of a compacted topic for positions. Where it is there but would be emptied by
    /// retention, says so: a position that vanishes could make a later session repeat records.
    pub(crate) async fn require_positions(&self, topic: &str) -> Result<Option<String>, Fault> {
        let admin = self.kafka.admin();
        let wanted = NewTopic::new(topic, 1, -1)
            .map_err(|error| fault(&self.config, topic, error))?
            .with_config("cleanup.policy", "compact")
            // Keeps what a new session reads short: only the newest segment is never compacted.
            .with_config("segment.ms", "3600000")
            .with_config("min.cleanable.dirty.ratio", "0.1");
        let described = admin
            .describe_configs(
                [ConfigResource::topic(topic)],
                DescribeConfigsOptions::default(),
            )
            .await
            .and_then(|configs| configs.into_values().next().unwrap_or(Err(none(topic))));
        match described {
            Ok(entries) => {
                let policy = entries.iter().find(|entry| entry.name == "cleanup.policy");
                let policy = policy
                    .and_then(|entry| entry.value.as_deref())
                    .unwrap_or("compact");
                Ok((!policy.contains("compact")).then(|| {
                    format!(
                        "topic `{topic}` has cleanup.policy={policy}: positions older than its \
                     retention are lost; set cleanup.policy=compact"
                    )
                }))
            }
            Err(KrafkaError::Broker {
                code: ErrorCode::UnknownTopicOrPartition,
                ..
            }) => {
                let created = admin
                    .create_topics([wanted], CreateTopicsOptions::default())
                    .await;
                let created = created.and_then(|mut t| t.remove(topic).unwrap_or(Err(none(topic))));
                match created {
                    Ok(())
                    | Err(KrafkaError::Broker {
                        code: ErrorCode::TopicAlreadyExists,
                        ..
                    }) => Ok(None),
                    Err(error) => Err(fault(&self.config, topic, error).before(&format!(
                        "creating the topic `{topic}` (create it by hand with 1 partition and \
                         cleanup.policy=compact)"
                    ))),
                }
            }
            // Not allowed to look: then not allowed to say anything either.
            Err(KrafkaError::Broker { code, .. }) if is_denied(code) => Ok(None),
            Err(error) => Err(fault(&self.config, topic, error)),
        }
    }

    /// The newest committed value of `key`, looking from `from` on (the beginning when `None`, or
    /// when the topic is not that long), and the offset up to which the topic was read: the end
    /// that it had when this call began. A transaction that is open there is waited for.
    pub(crate) async fn newest(
        &self,
        topic: &str,
        key: &[u8],
        from: Option<i64>,
    ) -> Result<(Option<Bytes>, i64), Fault> {
        self.newest_in(topic, key, from)
            .await
            .map_err(|error| fault(&self.config, topic, error).before("reading the position back"))
    }

    async fn newest_in(
        &self,
        topic: &str,
        key: &[u8],
        from: Option<i64>,
    ) -> Result<(Option<Bytes>, i64), KrafkaError> {
        let partition = TopicPartition::new(topic, POSITIONS_PARTITION);
        // Read uncommitted on purpose: the last stable offset would stop short of our own last
        // commit while another stream's transaction is open.
        let ends = self
            .kafka
            .admin()
            .list_offsets(
                [(partition.clone(), OffsetSpec::Latest)],
                ListOffsetsOptions::default(),
            )
            .await?;
        let end = ends
            .into_values()
            .next()
            .unwrap_or(Err(none(topic)))?
            .offset;
        let from = from.filter(|from| *from <= end).unwrap_or(0);
        if from == end {
            return Ok((None, end));
        }
        let consumer = self
            .kafka
            .consumer_without_group()
            .isolation_level(IsolationLevel::ReadCommitted)
            .auto_offset_reset(AutoOffsetReset::Earliest)
            .fetch_max_wait(Duration::from_millis(100))
            .metrics_push(false)
            .build()
            .await?;
        let newest = scan(&consumer, topic, key, from..end).await;
        close(&consumer).await;
        Ok((newest?, end))
    }
}

/// The last value of `key` in the offsets `range` of the positions topic.
async fn scan(
    consumer: &Consumer,
    topic: &str,
    key: &[u8],
    range: Range<i64>,
) -> Result<Option<Bytes>, KrafkaError> {
    consumer.assign(topic, vec![POSITIONS_PARTITION]).await?;
    consumer
        .seek(topic, POSITIONS_PARTITION, range.start)
        .await?;
    let mut newest = None;
    let (mut reached, mut moved) = (range.start, Instant::now());
    while reached < range.end {
        for record in consumer.poll(Duration::from_millis(200)).await? {
            if record.key.as_deref() == Some(key) && record.offset < range.end {
                newest = record.value;
            }
        }
        let position = consumer.position(topic, POSITIONS_PARTITION).await;
        let position = position.unwrap_or(reached);
        if position > reached {
            (reached, moved) = (position, Instant::now());
        } else if moved.elapsed() > READ_STALL_MAX {
            return Err(KrafkaError::timeout(format!(
                "{topic} stands at {reached} of {}: an open transaction, or no leader",
                range.end
            )));
        }
    }
    Ok(newest)
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

async fn security(config: &Config) -> Result<Option<AuthConfig>, Fault> {
    let tls = config.tls.as_ref().map(|tls| {
        let mut config = TlsConfig::new();
        if let Some(file) = &tls.ca_file {
            config = config.with_ca_cert(file.to_string_lossy());
        }
        if let Some(identity) = &tls.identity {
            let (cert, key) = (&identity.cert_file, &identity.key_file);
            config = config.with_client_cert(cert.to_string_lossy(), key.to_string_lossy());
        }
        config
    });
    let Some(sasl) = &config.sasl else {
        return Ok(tls.map(AuthConfig::ssl));
    };
    let file = &sasl.password_file;
    let password = tokio::fs::read_to_string(file)
        .await
        .map_err(|error| Fault::Denied(format!("cannot read {}: {error}", file.display())))?;
    let password = password.trim_end_matches(['\r', '\n']);
    let login = match sasl.mechanism {
        Mechanism::Plain => AuthConfig::sasl_plain(&sasl.user, password),
        Mechanism::ScramSha256 => AuthConfig::sasl_scram_sha256(&sasl.user, password),
        Mechanism::ScramSha512 => AuthConfig::sasl_scram_sha512(&sasl.user, password),
    };
    Ok(Some(match tls {
        Some(tls) => login.with_tls(tls),
        None => login,
    }))
}

/// What an answer that forgot the topic means.
fn none(topic: &str) -> KrafkaError {
    KrafkaError::broker(ErrorCode::UnknownTopicOrPartition, topic)
}

fn is_unknown(error: &KrafkaError) -> bool {
    let code = ErrorCode::UnknownTopicOrPartition;
    matches!(error, KrafkaError::UnknownTopic { .. })
        || matches!(error, KrafkaError::Broker { code: found, .. } if *found == code)
}

async fn close(consumer: &Consumer) {
    if let Err(error) = consumer.close().await {
        tracing::debug!(%error, "closing a consumer");
    }
}

fn is_denied(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::TopicAuthorizationFailed
            | ErrorCode::GroupAuthorizationFailed
            | ErrorCode::ClusterAuthorizationFailed
            | ErrorCode::TransactionalIdAuthorizationFailed
            | ErrorCode::SaslAuthenticationFailed
    )
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

/// What krafka says where the length of an answer cannot be one.
const NO_LENGTH: ProtocolErrorKind = ProtocolErrorKind::InvalidLength;

/// A fault before the cluster has said anything: more likely than later, the config is wrong.
fn at_the_door(config: &Config, error: KrafkaError) -> Fault {
    let text = error.to_string();
    let no_length = |error: &KrafkaError| error.protocol_error_kind() == Some(NO_LENGTH);
    if advice::chain(&error).any(|error| error.downcast_ref().is_some_and(no_length)) {
        return Fault::Denied(format!("{text}; {}", advice::NOT_KAFKA));
    }
    if matches!(error, KrafkaError::Config { .. }) {
        return Fault::Denied(format!("{text}; {}", advice::files(config)));
    }
    let hung_up = advice::hung_up(config, &error);
    match (fault(config, "", error), hung_up) {
        (Fault::Unreachable(text), Some(advice)) => Fault::Unreachable(format!("{text}; {advice}")),
        (fault, _) => fault,
    }
}

fn fault(config: &Config, topic: &str, error: KrafkaError) -> Fault {
    let text = error.to_string();
    if let Some(advice) = advice::tls(config, &error) {
        return Fault::Denied(format!("{text}; {advice}"));
    }
    let login = advice::login(config, &error);
    match error {
        KrafkaError::Network(_) | KrafkaError::Timeout { .. } => Fault::Unreachable(text),
        KrafkaError::DeliveryTimeout { .. } => Fault::Unreachable(text),
        KrafkaError::Auth { .. } => {
            Fault::Denied(login.map_or_else(|| text.clone(), |advice| format!("{text}; {advice}")))
        }
        KrafkaError::Fenced { .. } => Fault::Fenced {
            node: config.node.as_str().to_owned(),
            detail: text,
        },
        KrafkaError::UnknownTopic { topic } => Fault::TopicMissing(topic),
        KrafkaError::Broker {
            code: ErrorCode::UnknownTopicOrPartition,
            ..
        } if !topic.is_empty() => Fault::TopicMissing(topic.to_owned()),
        KrafkaError::Broker { code, .. } if is_denied(code) => Fault::Denied(text),
        KrafkaError::Broker { code, .. } if code.is_retriable() => Fault::Unreachable(text),
        _ => Fault::Failed(text),
    }
}

impl Fault {
    /// The same fault, saying what was being done.
    fn before(self, doing: &str) -> Self {
        match self {
            Self::Unreachable(text) => Self::Unreachable(format!("{doing}: {text}")),
            Self::Denied(text) => Self::Denied(format!("{doing}: {text}")),
            Self::Failed(text) => Self::Failed(format!("{doing}: {text}")),
            other => other,
        }
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
