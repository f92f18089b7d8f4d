//! Reads what is committed, straight from the brokers: a consumer that is `read_committed`, without
//! a group, and done when it has caught up.

use super::wire::{Endpoint, Peer, invalid};
use crate::central::Delivered;
use crate::central::batch::{Batch, Flaw, Opened};
use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{AbortedTransaction, PartitionData};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiKey, BrokerId, FetchRequest, ListOffsetsRequest, MetadataRequest, MetadataResponse,
    TopicName,
};
use kafka_protocol::protocol::StrBytes;
use std::collections::{HashMap, HashSet};
use std::io;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// One version of each is enough: Kafka 2.7 to 4.x speak them, and topics go by their names.
pub(super) const NEEDED: [(ApiKey, i16); 3] = [
    (ApiKey::Metadata, METADATA),
    (ApiKey::ListOffsets, LIST_OFFSETS),
    (ApiKey::Fetch, FETCH),
];
const METADATA: i16 = 9;
const LIST_OFFSETS: i16 = 6;
const FETCH: i16 = 12;

const READ_COMMITTED: i8 = 1;
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

const FETCH_BYTES: i32 = 4 * 1024 * 1024;
const FETCH_WAIT_MS: i32 = 500;

/// How long a cluster may go without leaders or answers before it counts as unreadable.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(300);

/// Everything committed in `topics`, ordered by topic as given, partition, and offset.
pub(super) async fn committed(
    bootstrap: &Endpoint,
    topics: &[String],
) -> io::Result<Vec<Delivered>> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match attempt(bootstrap, topics).await {
            Ok(delivered) => return Ok(delivered),
            Err(Fault::Later(_)) if Instant::now() < give_up => sleep(PAUSE).await,
            Err(Fault::Later(error) | Fault::Final(error)) => return Err(error),
        }
    }
}

async fn attempt(bootstrap: &Endpoint, topics: &[String]) -> Result<Vec<Delivered>, Fault> {
    let reader = Reader::start(bootstrap, topics).await?;
    reader.read(topics).await
}

/// The brokers, and `topics` as far as they exist.
pub(super) async fn metadata(peer: &mut Peer, topics: &[String]) -> io::Result<MetadataResponse> {
    let topic = |topic: &String| {
        let name = TopicName(StrBytes::from_string(topic.clone()));
        MetadataRequestTopic::default().with_name(Some(name))
    };
    let request = MetadataRequest::default()
        .with_topics(Some(topics.iter().map(topic).collect()))
        .with_allow_auto_topic_creation(false);
    peer.call(METADATA, &request).await
}

/// What went wrong, and whether it may be right in a moment.
enum Fault {
    Later(io::Error),
    Final(io::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidData => Self::Final(error),
            _ => Self::Later(error),
        }
    }
}

/// An error code of Kafka's at some partition.
fn check(code: i16, place: &Place) -> Result<(), Fault> {
    let Some(error) = ResponseError::try_from_code(code) else {
        return Ok(());
    };
    let problem = io::Error::other(format!("{place}: {error}"));
    Err(if error.is_retriable() {
        Fault::Later(problem)
    } else {
        Fault::Final(problem)
    })
}

/// A partition of a topic.
struct Place {
    topic: StrBytes,
    partition: i32,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "topic {} partition {}", self.topic, self.partition)
    }
}

/// The cluster as its metadata shows it, and a connection to each leader used so far.
struct Reader {
    cluster: MetadataResponse,
    peers: HashMap<BrokerId, Peer>,
}

impl Reader {
    async fn start(bootstrap: &Endpoint, topics: &[String]) -> io::Result<Self> {
        let cluster = metadata(&mut Peer::connect(bootstrap).await?, topics).await?;
        Ok(Self {
            cluster,
            peers: HashMap::new(),
        })
    }

    async fn read(mut self, topics: &[String]) -> Result<Vec<Delivered>, Fault> {
        let mut delivered = Vec::new();
        for topic in topics {
            for (place, leader) in self.partitions(topic)? {
                self.partition(&place, leader, &mut delivered).await?;
            }
        }
        Ok(delivered)
    }

    /// The partitions of a topic and their leaders; none where it does not exist.
    fn partitions(&self, topic: &str) -> Result<Vec<(Place, BrokerId)>, Fault> {
        let named = |name: &Option<TopicName>| name.as_ref().is_some_and(|name| *name.0 == *topic);
        let Some(found) = self.cluster.topics.iter().find(|found| named(&found.name)) else {
            return Ok(Vec::new());
        };
        if found.error_code == ResponseError::UnknownTopicOrPartition.code() {
            return Ok(Vec::new());
        }
        let topic = StrBytes::from_string(topic.to_owned());
        check(
            found.error_code,
            &Place {
                topic: topic.clone(),
                partition: 0,
            },
        )?;
        let mut partitions = Vec::new();
        for partition in &found.partitions {
            let place = Place {
                topic: topic.clone(),
                partition: partition.partition_index,
            };
            // A replica that is missing elsewhere is no obstacle here.
            if partition.error_code != ResponseError::ReplicaNotAvailable.code() {
                check(partition.error_code, &place)?;
            }
            partitions.push((place, partition.leader_id));
        }
        partitions.sort_by_key(|(place, _)| place.partition);
        Ok(partitions)
    }

    /// Reads a partition up to what was decided when it began.
    async fn partition(
        &mut self,
        place: &Place,
        leader: BrokerId,
        delivered: &mut Vec<Delivered>,
    ) -> Result<(), Fault> {
        let mut next = self.offset(place, leader, EARLIEST).await?;
        let end = self.offset(place, leader, LATEST).await?;
        let mut progress = Instant::now();
        while next < end {
            let fetched = self.fetch(place, leader, next).await?;
            let records = fetched.records.unwrap_or_default();
            let aborted = fetched.aborted_transactions.unwrap_or_default();
            let reached = open(records, aborted, next, |offset, record| {
                delivered.push(Delivered {
                    topic: place.topic.to_string(),
                    partition: place.partition,
                    offset,
                    timestamp_ms: record.timestamp_ms,
                    key: record.key,
                    value: record.value,
                    headers: record.headers,
                });
            })
            .map_err(|problem| Fault::Final(invalid(format!("{place}: {problem}"))))?;
            if reached > next {
                (next, progress) = (reached, Instant::now());
            } else if progress.elapsed() > PATIENCE {
                let problem = format!("{place}: nothing comes from offset {next} on");
                return Err(Fault::Final(io::Error::new(
                    io::ErrorKind::TimedOut,
                    problem,
                )));
            }
        }
        Ok(())
    }

    async fn offset(&mut self, place: &Place, leader: BrokerId, at: i64) -> Result<i64, Fault> {
        let partition = ListOffsetsPartition::default()
            .with_partition_index(place.partition)
            .with_current_leader_epoch(-1)
            .with_timestamp(at);
        let topic = ListOffsetsTopic::default()
            .with_name(TopicName(place.topic.clone()))
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_isolation_level(READ_COMMITTED)
            .with_topics(vec![topic]);
        let answer = self
            .peer(leader)
            .await?
            .call(LIST_OFFSETS, &request)
            .await?;
        let mut answers = answer.topics.into_iter().flat_map(|topic| topic.partitions);
        let answer = answers
            .next()
            .ok_or_else(|| invalid(format!("{place}: no offset")))?;
        check(answer.error_code, place)?;
        Ok(answer.offset)
    }

    async fn fetch(
        &mut self,
        place: &Place,
        leader: BrokerId,
        from: i64,
    ) -> Result<PartitionData, Fault> {
        let partition = FetchPartition::default()
            .with_partition(place.partition)
            .with_fetch_offset(from)
            .with_partition_max_bytes(FETCH_BYTES);
        let topic = FetchTopic::default()
            .with_topic(TopicName(place.topic.clone()))
            .with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_max_wait_ms(FETCH_WAIT_MS)
            .with_min_bytes(1)
            .with_max_bytes(FETCH_BYTES)
            .with_isolation_level(READ_COMMITTED)
            .with_topics(vec![topic]);
        let answer = self.peer(leader).await?.call(FETCH, &request).await?;
        check(answer.error_code, place)?;
        let mut answers = answer
            .responses
            .into_iter()
            .flat_map(|topic| topic.partitions);
        let answer = answers
            .next()
            .ok_or_else(|| invalid(format!("{place}: no answer")))?;
        check(answer.error_code, place)?;
        Ok(answer)
    }

    async fn peer(&mut self, broker: BrokerId) -> Result<&mut Peer, Fault> {
        if !self.peers.contains_key(&broker) {
            let known = self
                .cluster
                .brokers
                .iter()
                .find(|known| known.node_id == broker);
            let endpoint = known.and_then(|known| Endpoint::named(&known.host, known.port));
            let endpoint = endpoint.ok_or_else(|| {
                Fault::Later(io::Error::other(format!("broker {} is away", broker.0)))
            })?;
            self.peers.insert(broker, Peer::connect(&endpoint).await?);
        }
        Ok(self.peers.get_mut(&broker).expect("it was just put there"))
    }
}

/// Hands out the committed records of what a fetch from `from` brought, and returns the offset
/// after it.
pub(super) fn open(
    mut records: Bytes,
    mut aborted: Vec<AbortedTransaction>,
    from: i64,
    mut deliver: impl FnMut(i64, Opened),
) -> Result<i64, String> {
    aborted.sort_by_key(|transaction| std::cmp::Reverse(transaction.first_offset));
    let mut aborting = HashSet::new();
    let mut next = from;
    while let Some((base, batch)) = whole(&mut records) {
        let batch =
            batch.map_err(|flaw| format!("the batch at offset {base} is damaged: {flaw:?}"))?;
        let after = base + batch.offsets();
        while aborted
            .last()
            .is_some_and(|transaction| transaction.first_offset < after)
        {
            aborting.extend(aborted.pop().map(|transaction| transaction.producer_id.0));
        }
        next = next.max(after);
        if batch.is_control() {
            // A marker, of a commit or an abort, ends what its producer had under way.
            aborting.remove(&batch.producer_id);
            continue;
        }
        if batch.is_transactional() && aborting.contains(&batch.producer_id) {
            continue;
        }
        if !batch.is_readable() {
            return Err(format!(
                "the batch at offset {base} is packed, and not with lz4"
            ));
        }
        let opened = batch
            .open()
            .ok_or_else(|| format!("the batch at offset {base} is malformed"))?;
        for record in opened {
            let offset = base + record.delta;
            if offset >= from {
                deliver(offset, record);
            }
        }
    }
    Ok(next)
}

/// Takes the first batch; none at the end, or where a broker cut the last one short.
fn whole(records: &mut Bytes) -> Option<(i64, Result<Batch, Flaw>)> {
    let base = i64::from_be_bytes(records.get(..8)?.try_into().expect("eight bytes"));
    let length = i32::from_be_bytes(records.get(8..12)?.try_into().expect("four bytes"));
    let length = 12 + usize::try_from(length).unwrap_or(0);
    if length > records.len() {
        return None;
    }
    let batch = Batch::split(records.split_to(length));
    Some((
        base,
        batch.and_then(|batches| batches.into_iter().next().ok_or(Flaw::Truncated)),
    ))
}
