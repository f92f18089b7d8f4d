//! Kafka's wire protocol over the [`Cluster`]: the stand-in's only file that names `kafka_protocol`.
//!
//! The versions offered stop where topics turn into ids (Metadata 10, Fetch 13, Produce 13) and
//! where KIP-890 would change transactions (Produce 12, EndTxn 5): a client then registers every
//! partition with the coordinator, as with brokers up to 3.9.

use super::cluster::{Cluster, Code, Identity};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult,
};
use kafka_protocol::messages::fetch_response::{
    AbortedTransaction, FetchableTopicResponse, PartitionData,
};
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The only broker there is.
const NODE: BrokerId = BrokerId(1);
pub(super) const CLUSTER_ID: &str = "skerry-central-stand-in";
const CONFIG_TOPIC: i8 = 2;

/// What is offered: the API and its versions.
const OFFERED: [(ApiKey, i16, i16); 12] = [
    (ApiKey::Produce, 3, 11),
    (ApiKey::Fetch, 4, 12),
    (ApiKey::ListOffsets, 1, 7),
    (ApiKey::Metadata, 1, 9),
    (ApiKey::FindCoordinator, 0, 3),
    (ApiKey::ApiVersions, 0, 3),
    (ApiKey::CreateTopics, 2, 7),
    (ApiKey::InitProducerId, 0, 4),
    (ApiKey::AddPartitionsToTxn, 0, 3),
    (ApiKey::EndTxn, 0, 4),
    (ApiKey::DescribeConfigs, 1, 4),
    (ApiKey::DescribeCluster, 0, 0),
];

/// What becomes of a request.
pub(super) enum Answer {
    Now(Bytes),
    /// A fetch that found nothing: ask again when something was written, or after so long.
    Wait(Duration),
    /// Produce with `acks=0`.
    Nothing,
}

/// A request nobody can answer; the connection is of no use any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum Nonsense {
    #[error("malformed request: {0}")]
    Malformed(String),
    #[error("API {0} version {1} is not offered")]
    NotOffered(i16, i16),
}

/// Answers one frame. With `patient`, a fetch that finds nothing may wait.
pub(super) fn answer(
    cluster: &mut Cluster,
    address: SocketAddr,
    mut frame: Bytes,
    patient: bool,
) -> Result<Answer, Nonsense> {
    let malformed = || Nonsense::Malformed("no header".to_owned());
    let key = frame.get(..2).ok_or_else(malformed)?.get_i16();
    let version = frame.get(2..4).ok_or_else(malformed)?.get_i16();
    let offered = OFFERED.iter().find(|(api, ..)| *api as i16 == key);
    let (api, min, max) = *offered.ok_or(Nonsense::NotOffered(key, version))?;
    let header = read::<RequestHeader>(&mut frame, api.request_header_version(version))?;
    cluster.expire(Instant::now());
    if !(min..=max).contains(&version) {
        // KIP-511: a client that is too new learns the versions in an answer of version 0.
        return match api {
            ApiKey::ApiVersions => {
                let body = api_versions(Some(Code::UnsupportedVersion));
                write(header.correlation_id, api, 0, &body).map(Answer::Now)
            }
            _ => Err(Nonsense::NotOffered(key, version)),
        };
    }
    let mut call = Call {
        cluster,
        address,
        frame,
        version,
        id: header.correlation_id,
    };
    match api {
        ApiKey::Produce => call.produce(),
        ApiKey::Fetch => call.fetch(patient),
        ApiKey::ListOffsets => call.list_offsets(),
        ApiKey::Metadata => call.metadata(),
        ApiKey::FindCoordinator => call.find_coordinator(),
        ApiKey::ApiVersions => call.reply(api, &api_versions(None)),
        ApiKey::CreateTopics => call.create_topics(),
        ApiKey::InitProducerId => call.init_producer_id(),
        ApiKey::AddPartitionsToTxn => call.add_partitions_to_txn(),
        ApiKey::EndTxn => call.end_txn(),
        ApiKey::DescribeConfigs => call.describe_configs(),
        ApiKey::DescribeCluster => call.describe_cluster(),
        _ => Err(Nonsense::NotOffered(key, version)),
    }
}

/// One request on its way through.
struct Call<'a> {
    cluster: &'a mut Cluster,
    address: SocketAddr,
    frame: Bytes,
    version: i16,
    id: i32,
}

impl Call<'_> {
    fn request<T: Decodable>(&mut self) -> Result<T, Nonsense> {
        read(&mut self.frame, self.version)
    }

    fn reply<T: Encodable>(&self, api: ApiKey, body: &T) -> Result<Answer, Nonsense> {
        write(self.id, api, self.version, body).map(Answer::Now)
    }

    fn host(&self) -> StrBytes {
        StrBytes::from_string(self.address.ip().to_string())
    }

    fn port(&self) -> i32 {
        i32::from(self.address.port())
    }

    fn produce(&mut self) -> Result<Answer, Nonsense> {
        let request: ProduceRequest = self.request()?;
        let id = request.transactional_id.as_ref().map(|id| id.0.to_string());
        let mut topics = Vec::new();
        for topic in request.topic_data {
            let partitions = topic.partition_data.into_iter().map(|partition| {
                let records = partition.records.unwrap_or_default();
                let result =
                    self.cluster
                        .produce(id.as_deref(), &topic.name.0, partition.index, records);
                PartitionProduceResponse::default()
                    .with_index(partition.index)
                    .with_error_code(code(&result))
                    .with_base_offset(result.unwrap_or(-1))
                    .with_log_append_time_ms(-1)
                    .with_log_start_offset(0)
            });
            let partitions = partitions.collect();
            topics.push(
                TopicProduceResponse::default()
                    .with_name(topic.name)
                    .with_partition_responses(partitions),
            );
        }
        if request.acks == 0 {
            return Ok(Answer::Nothing);
        }
        self.reply(
            ApiKey::Produce,
            &ProduceResponse::default().with_responses(topics),
        )
    }

    fn fetch(&mut self, patient: bool) -> Result<Answer, Nonsense> {
        let request: FetchRequest = self.request()?;
        let committed = request.isolation_level == 1;
        let mut room = usize::try_from(request.max_bytes).unwrap_or(usize::MAX);
        let (mut found, mut failed) = (0, false);
        let mut topics = Vec::new();
        for topic in request.topics {
            let mut partitions = Vec::new();
            for wanted in topic.partitions {
                let most = usize::try_from(wanted.partition_max_bytes)
                    .unwrap_or(0)
                    .min(room);
                let fetched = self
                    .cluster
                    .partition(&topic.topic.0, wanted.partition)
                    .and_then(|partition| partition.fetch(wanted.fetch_offset, committed, most));
                failed |= fetched.is_err();
                let error = code(&fetched);
                let fetched = fetched.unwrap_or_default();
                found += fetched.records.len();
                room = room.saturating_sub(fetched.records.len());
                let aborted = fetched.aborted.iter().map(|aborted| {
                    AbortedTransaction::default()
                        .with_producer_id(ProducerId(aborted.producer_id))
                        .with_first_offset(aborted.first)
                });
                partitions.push(
                    PartitionData::default()
                        .with_partition_index(wanted.partition)
                        .with_error_code(error)
                        .with_high_watermark(fetched.high_watermark)
                        .with_last_stable_offset(fetched.last_stable)
                        .with_log_start_offset(0)
                        .with_aborted_transactions(committed.then(|| aborted.collect()))
                        .with_records(Some(fetched.records)),
                );
            }
            topics.push(
                FetchableTopicResponse::default()
                    .with_topic(topic.topic)
                    .with_partitions(partitions),
            );
        }
        if patient && found == 0 && !failed && request.min_bytes > 0 && request.max_wait_ms > 0 {
            let wait = u64::try_from(request.max_wait_ms).unwrap_or(0);
            return Ok(Answer::Wait(Duration::from_millis(wait)));
        }
        self.reply(
            ApiKey::Fetch,
            &FetchResponse::default().with_responses(topics),
        )
    }

    fn list_offsets(&mut self) -> Result<Answer, Nonsense> {
        const LATEST: i64 = -1;
        const EARLIEST: i64 = -2;
        let request: ListOffsetsRequest = self.request()?;
        let committed = request.isolation_level == 1;
        let topics = request.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|wanted| {
                let partition = self
                    .cluster
                    .partition(&topic.name.0, wanted.partition_index);
                let offset = partition.map(|partition| match wanted.timestamp {
                    LATEST if committed => partition.last_stable(),
                    LATEST => partition.high_watermark(),
                    EARLIEST => 0,
                    time => partition.offset_at(time).unwrap_or(-1),
                });
                ListOffsetsPartitionResponse::default()
                    .with_partition_index(wanted.partition_index)
                    .with_error_code(code(&offset))
                    .with_timestamp(-1)
                    .with_offset(offset.unwrap_or(-1))
            });
            let partitions = partitions.collect();
            ListOffsetsTopicResponse::default()
                .with_name(topic.name)
                .with_partitions(partitions)
        });
        let topics = topics.collect();
        self.reply(
            ApiKey::ListOffsets,
            &ListOffsetsResponse::default().with_topics(topics),
        )
    }

    fn metadata(&mut self) -> Result<Answer, Nonsense> {
        let request: MetadataRequest = self.request()?;
        // Before version 4 there is no such wish, and a broker just creates.
        let create = self.version < 4 || request.allow_auto_topic_creation;
        let names: Vec<String> = match request.topics {
            None => self
                .cluster
                .topics()
                .map(|(name, _)| name.clone())
                .collect(),
            Some(topics) => topics
                .into_iter()
                .filter_map(|t| t.name)
                .map(|name| name.0.to_string())
                .collect(),
        };
        let topics = names.into_iter().map(|name| {
            let created = match self.cluster.partitions(&name) {
                None if create => self.cluster.create(&name, None),
                _ => Ok(()),
            };
            let partitions = self.cluster.partitions(&name);
            let known = created.and_then(|()| partitions.ok_or(Code::UnknownTopicOrPartition));
            let error = code(&known);
            MetadataResponseTopic::default()
                .with_error_code(error)
                .with_name(Some(TopicName(StrBytes::from_string(name))))
                .with_partitions((0..known.unwrap_or(0)).map(metadata_partition).collect())
        });
        let topics = topics.collect();
        let broker = MetadataResponseBroker::default()
            .with_node_id(NODE)
            .with_host(self.host())
            .with_port(self.port());
        let body = MetadataResponse::default()
            .with_brokers(vec![broker])
            .with_cluster_id(Some(StrBytes::from_static_str(CLUSTER_ID)))
            .with_controller_id(NODE)
            .with_topics(topics);
        self.reply(ApiKey::Metadata, &body)
    }

    fn find_coordinator(&mut self) -> Result<Answer, Nonsense> {
        let _: FindCoordinatorRequest = self.request()?;
        let body = FindCoordinatorResponse::default()
            .with_node_id(NODE)
            .with_host(self.host())
            .with_port(self.port());
        self.reply(ApiKey::FindCoordinator, &body)
    }

    fn create_topics(&mut self) -> Result<Answer, Nonsense> {
        let request: CreateTopicsRequest = self.request()?;
        let topics = request.topics.into_iter().map(|topic| {
            let partitions = usize::try_from(topic.num_partitions).ok();
            let created = match self.cluster.partitions(&topic.name.0) {
                Some(_) => Err(Code::TopicAlreadyExists),
                None if request.validate_only => Ok(()),
                None => self.cluster.create(&topic.name.0, partitions),
            };
            CreatableTopicResult::default()
                .with_name(topic.name)
                .with_error_code(code(&created))
        });
        let topics = topics.collect();
        self.reply(
            ApiKey::CreateTopics,
            &CreateTopicsResponse::default().with_topics(topics),
        )
    }

    fn init_producer_id(&mut self) -> Result<Answer, Nonsense> {
        let request: InitProducerIdRequest = self.request()?;
        let id = request.transactional_id.as_ref().map(|id| id.0.to_string());
        let timeout = u64::try_from(request.transaction_timeout_ms).unwrap_or(0);
        let known = Identity {
            id: request.producer_id.0,
            epoch: request.producer_epoch,
        };
        let known = (known.id >= 0).then_some(known);
        let result =
            self.cluster
                .init_producer(id.as_deref(), Duration::from_millis(timeout), known);
        let identity = result.unwrap_or(Identity { id: -1, epoch: -1 });
        let body = InitProducerIdResponse::default()
            .with_error_code(code(&result))
            .with_producer_id(ProducerId(identity.id))
            .with_producer_epoch(identity.epoch);
        self.reply(ApiKey::InitProducerId, &body)
    }

    fn add_partitions_to_txn(&mut self) -> Result<Answer, Nonsense> {
        let request: AddPartitionsToTxnRequest = self.request()?;
        let id = request.v3_and_below_transactional_id.0.to_string();
        let identity = Identity {
            id: request.v3_and_below_producer_id.0,
            epoch: request.v3_and_below_producer_epoch,
        };
        let topics = request.v3_and_below_topics.into_iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| {
                let (name, now) = (&topic.name.0, Instant::now());
                let added = self
                    .cluster
                    .add_partition(&id, identity, name, *partition, now);
                AddPartitionsToTxnPartitionResult::default()
                    .with_partition_index(*partition)
                    .with_partition_error_code(code(&added))
            });
            let partitions = partitions.collect();
            AddPartitionsToTxnTopicResult::default()
                .with_name(topic.name)
                .with_results_by_partition(partitions)
        });
        let body = AddPartitionsToTxnResponse::default()
            .with_results_by_topic_v3_and_below(topics.collect());
        self.reply(ApiKey::AddPartitionsToTxn, &body)
    }

    fn end_txn(&mut self) -> Result<Answer, Nonsense> {
        let request: EndTxnRequest = self.request()?;
        let identity = Identity {
            id: request.producer_id.0,
            epoch: request.producer_epoch,
        };
        let ended = self
            .cluster
            .end(&request.transactional_id.0, identity, request.committed);
        self.reply(
            ApiKey::EndTxn,
            &EndTxnResponse::default().with_error_code(code(&ended)),
        )
    }

    fn describe_configs(&mut self) -> Result<Answer, Nonsense> {
        let request: DescribeConfigsRequest = self.request()?;
        let largest = self.cluster.batch_bytes_max().to_string();
        let largest = DescribeConfigsResourceResult::default()
            .with_name(StrBytes::from_static_str("max.message.bytes"))
            .with_value(Some(StrBytes::from_string(largest)));
        let results = request.resources.into_iter().map(|resource| {
            let known = match resource.resource_type {
                CONFIG_TOPIC => self.cluster.partitions(&resource.resource_name).map(|_| ()),
                _ => Some(()),
            };
            let known = known.ok_or(Code::UnknownTopicOrPartition);
            // Nothing is ever removed here, which keeps at least what compaction would keep.
            let policy = DescribeConfigsResourceResult::default()
                .with_name(StrBytes::from_static_str("cleanup.policy"))
                .with_value(Some(StrBytes::from_static_str("compact")));
            let configs = if resource.resource_type == CONFIG_TOPIC && known.is_ok() {
                vec![policy, largest.clone()]
            } else {
                Vec::new()
            };
            DescribeConfigsResult::default()
                .with_error_code(code(&known))
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name)
                .with_configs(configs)
        });
        let results = results.collect();
        self.reply(
            ApiKey::DescribeConfigs,
            &DescribeConfigsResponse::default().with_results(results),
        )
    }

    fn describe_cluster(&mut self) -> Result<Answer, Nonsense> {
        let _: DescribeClusterRequest = self.request()?;
        let broker = DescribeClusterBroker::default()
            .with_broker_id(NODE)
            .with_host(self.host())
            .with_port(self.port());
        let body = DescribeClusterResponse::default()
            .with_cluster_id(StrBytes::from_static_str(CLUSTER_ID))
            .with_controller_id(NODE)
            .with_brokers(vec![broker]);
        self.reply(ApiKey::DescribeCluster, &body)
    }
}

fn api_versions(error: Option<Code>) -> ApiVersionsResponse {
    let offered = OFFERED.iter().map(|(api, min, max)| {
        ApiVersion::default()
            .with_api_key(*api as i16)
            .with_min_version(*min)
            .with_max_version(*max)
    });
    ApiVersionsResponse::default()
        .with_error_code(error.map_or(0, |code| code as i16))
        .with_api_keys(offered.collect())
}

fn metadata_partition(index: usize) -> MetadataResponsePartition {
    MetadataResponsePartition::default()
        .with_partition_index(i32::try_from(index).unwrap_or(i32::MAX))
        .with_leader_id(NODE)
        .with_leader_epoch(0)
        .with_replica_nodes(vec![NODE])
        .with_isr_nodes(vec![NODE])
}

fn code<T>(result: &Result<T, Code>) -> i16 {
    result.as_ref().err().map_or(0, |code| *code as i16)
}

fn read<T: Decodable>(from: &mut Bytes, version: i16) -> Result<T, Nonsense> {
    T::decode(from, version).map_err(|error| Nonsense::Malformed(error.to_string()))
}

/// A whole response frame.
fn write<T: Encodable>(id: i32, api: ApiKey, version: i16, body: &T) -> Result<Bytes, Nonsense> {
    let malformed = |error: &dyn std::fmt::Display| Nonsense::Malformed(error.to_string());
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    ResponseHeader::default()
        .with_correlation_id(id)
        .encode(&mut frame, api.response_header_version(version))
        .map_err(|error| malformed(&error))?;
    body.encode(&mut frame, version)
        .map_err(|error| malformed(&error))?;
    let length = i32::try_from(frame.len() - 4).map_err(|error| malformed(&error))?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame.freeze())
}
