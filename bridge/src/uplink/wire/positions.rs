//! Reading a position back.

use super::{Wire, close, fault, none};
use crate::uplink::fault::Fault;
use bytes::Bytes;
use krafka::admin::{ListOffsetsOptions, OffsetSpec, TopicPartition};
use krafka::consumer::{AutoOffsetReset, Consumer, IsolationLevel};
use krafka::error::KrafkaError;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Reading positions back gives up when nothing came for so long.
const READ_STALL_MAX: Duration = Duration::from_secs(30);
/// A node keeps its positions in one partition, so that their order is one order.
pub(crate) const POSITIONS_PARTITION: i32 = 0;

impl Wire {
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
