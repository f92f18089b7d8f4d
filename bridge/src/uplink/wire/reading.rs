//! Reading topics as the cluster's customers do: what is committed, from the first record on.

use super::{Wire, close, fault, none};
use crate::uplink::config::Config;
use crate::uplink::fault::Fault;
use bytes::Bytes;
use krafka::admin::{ListOffsetsOptions, OffsetSpec, TopicPartition};
use krafka::consumer::{AutoOffsetReset, Consumer, ConsumerRecord, IsolationLevel};
use krafka::error::KrafkaError;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What was there at the start is given up when nothing of it came for so long.
const STALL_MAX: Duration = Duration::from_secs(30);
const POLL_MAX: Duration = Duration::from_millis(200);
/// Of all partitions together, as they are compressed: what is read ahead stays in memory.
const FETCH_BYTES: i32 = 8 * 1024 * 1024;

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

/// The offset of each partition of a topic that is to be read next.
pub(crate) type Positions = BTreeMap<(Arc<str>, i32), i64>;

/// All partitions of some topics, being read.
pub(crate) struct Reading {
    consumer: Consumer,
    config: Arc<Config>,
    /// Where each partition ended when this began, as long as it is not read that far.
    ends: BTreeMap<(String, i32), i64>,
    moved: Instant,
}

impl Wire {
    /// From `starts` on; a partition without one, from its first record on.
    pub(crate) async fn read(
        &self,
        topics: &[String],
        starts: &Positions,
    ) -> Result<Reading, Fault> {
        let mut ends = BTreeMap::new();
        let consumer = self
            .kafka
            .consumer_without_group()
            .isolation_level(IsolationLevel::ReadCommitted)
            .auto_offset_reset(AutoOffsetReset::Earliest)
            .fetch_max_bytes(FETCH_BYTES)
            .metrics_push(false)
            .build()
            .await;
        let consumer = consumer.map_err(|error| fault(&self.config, "", error))?;
        for topic in topics {
            let assigned = self.assign(&consumer, topic, starts, &mut ends).await;
            if let Err(error) = assigned {
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
        starts: &Positions,
        ends: &mut BTreeMap<(String, i32), i64>,
    ) -> Result<(), KrafkaError> {
        let admin = self.kafka.admin();
        let mut found = admin.describe_topics([topic], Default::default()).await?;
        let description = found.remove(topic).unwrap_or(Err(none(topic)))?;
        let partitions = description.partitions.iter().map(|p| p.partition);
        let partitions: Vec<_> = partitions.collect();
        let bounds = self.bounds(topic, &partitions).await?;
        consumer.assign(topic, partitions).await?;
        let name: Arc<str> = topic.into();
        for (partition, Range { start: first, end }) in bounds {
            // A partition that was never written to has no record to wait for.
            if end > 0 {
                ends.insert((topic.to_owned(), partition), end);
            }
            let Some(start) = starts.get(&(Arc::clone(&name), partition)).copied() else {
                continue;
            };
            if start > end {
                tracing::warn!(
                    "partition {partition} of {topic} ends at offset {end} and was read up to \
                     {start} before: it was made anew, or lost records; it is read from its first \
                     record on"
                );
            } else if start < first {
                tracing::warn!(
                    "partition {partition} of {topic} begins at offset {first} and was read up to \
                     {start} before: retention took what is between before it was read"
                );
            } else {
                consumer.seek(topic, partition, start).await?;
            }
        }
        Ok(())
    }

    /// What each partition holds: its first offset, and one past its last.
    pub(super) async fn bounds(
        &self,
        topic: &str,
        partitions: &[i32],
    ) -> Result<BTreeMap<i32, Range<i64>>, KrafkaError> {
        let admin = self.kafka.admin();
        let ask = |spec| {
            let asked = partitions
                .iter()
                .map(move |number| (TopicPartition::new(topic, *number), spec));
            admin.list_offsets(asked, ListOffsetsOptions::default())
        };
        let (first, mut last) =
            tokio::try_join!(ask(OffsetSpec::Earliest), ask(OffsetSpec::Latest))?;
        let mut bounds = BTreeMap::new();
        for (partition, first) in first {
            let end = last.remove(&partition).unwrap_or(Err(none(topic)))?;
            bounds.insert(partition.partition, first?.offset..end.offset);
        }
        Ok(bounds)
    }

    /// The same for somebody who knows how many there are.
    pub(crate) async fn extent(
        &self,
        topic: &str,
        partitions: usize,
    ) -> Result<BTreeMap<i32, Range<i64>>, Fault> {
        let partitions: Vec<i32> = (0..).take(partitions).collect();
        let bounds = self.bounds(topic, &partitions).await;
        bounds.map_err(|error| fault(&self.config, topic, error))
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
