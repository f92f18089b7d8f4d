//! Reading topics as the cluster's customers do: what is committed, from the first record on.

use super::{Wire, close, fault, none};
use crate::uplink::config::Config;
use crate::uplink::fault::Fault;
use bytes::Bytes;
use krafka::admin::{ListOffsetsOptions, OffsetSpec, TopicPartition};
use krafka::consumer::{AutoOffsetReset, Consumer, ConsumerRecord, IsolationLevel};
use krafka::error::KrafkaError;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What was there at the start is given up when nothing of it came for so long.
const STALL_MAX: Duration = Duration::from_secs(30);
const POLL_MAX: Duration = Duration::from_millis(200);

/// One record as it is in the cluster, in no client's types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Incoming {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<(String, Option<Bytes>)>,
}

/// All partitions of some topics, being read.
pub(crate) struct Reading {
    consumer: Consumer,
    config: Arc<Config>,
    /// Where each partition ended when this began, as long as it is not read that far.
    ends: BTreeMap<(String, i32), i64>,
    moved: Instant,
}

impl Wire {
    pub(crate) async fn read(&self, topics: &[String]) -> Result<Reading, Fault> {
        let mut ends = BTreeMap::new();
        let consumer = self
            .kafka
            .consumer_without_group()
            .isolation_level(IsolationLevel::ReadCommitted)
            .auto_offset_reset(AutoOffsetReset::Earliest)
            .metrics_push(false)
            .build()
            .await;
        let consumer = consumer.map_err(|error| fault(&self.config, "", error))?;
        for topic in topics {
            let partitions = self.assign(&consumer, topic, &mut ends).await;
            if let Err(error) = partitions {
                close(&consumer).await;
                return Err(fault(&self.config, topic, error).before(&format!("reading {topic}")));
            }
        }
        Ok(Reading {
            consumer,
            config: Arc::clone(&self.config),
            ends,
            moved: Instant::now(),
        })
    }

    async fn assign(
        &self,
        consumer: &Consumer,
        topic: &str,
        ends: &mut BTreeMap<(String, i32), i64>,
    ) -> Result<(), KrafkaError> {
        let admin = self.kafka.admin();
        let mut found = admin.describe_topics([topic], Default::default()).await?;
        let description = found.remove(topic).unwrap_or(Err(none(topic)))?;
        let partitions = description.partitions.iter().map(|p| p.partition);
        let partitions: Vec<_> = partitions.collect();
        let latest = partitions
            .iter()
            .map(|number| (TopicPartition::new(topic, *number), OffsetSpec::Latest));
        let latest = admin
            .list_offsets(latest, ListOffsetsOptions::default())
            .await?;
        for (partition, offset) in latest {
            let end = offset?.offset;
            // A partition that was never written to has no record to wait for.
            if end > 0 {
                ends.insert((topic.to_owned(), partition.partition), end);
            }
        }
        consumer.assign(topic, partitions).await
    }
}

impl Reading {
    /// What came within a moment; nothing is not the end.
    pub(crate) async fn poll(&mut self) -> Result<Vec<Incoming>, Fault> {
        let polled = self.consumer.poll(POLL_MAX).await;
        let polled = polled.map_err(|error| fault(&self.config, "", error).before("reading"))?;
        if !polled.is_empty() {
            self.moved = Instant::now();
        }
        Ok(polled.into_iter().map(incoming).collect())
    }

    /// Whether all that was there when this began has been read. An open transaction before that
    /// is waited for.
    pub(crate) async fn is_at_end(&mut self) -> Result<bool, Fault> {
        let mut reached = Vec::new();
        for ((topic, partition), end) in &self.ends {
            let position = self.consumer.position(topic, *partition).await;
            if position.is_some_and(|position| position >= *end) {
                reached.push((topic.clone(), *partition));
            }
        }
        for partition in reached {
            self.ends.remove(&partition);
            self.moved = Instant::now();
        }
        match self.ends.first_key_value() {
            None => Ok(true),
            Some(((topic, partition), end)) if self.moved.elapsed() > STALL_MAX => {
                Err(Fault::Unreachable(format!(
                    "partition {partition} of {topic} does not get on before offset {end}: an \
                     open transaction, or no leader"
                )))
            }
            Some(_) => Ok(false),
        }
    }

    pub(crate) async fn close(self) {
        close(&self.consumer).await;
    }
}

fn incoming(record: ConsumerRecord) -> Incoming {
    Incoming {
        topic: record.topic,
        partition: record.partition,
        offset: record.offset,
        timestamp_ms: record.timestamp,
        key: record.key,
        value: record.value,
        headers: record.headers.into_iter().collect(),
    }
}
