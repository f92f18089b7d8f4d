//! What a look at the cluster tells: topics, rights, transactions and the time there.

use super::{POSITIONS_PARTITION, Wire, fault, is_denied, none};
use crate::uplink::fault::Fault;
use crate::uplink::topic::{PartitionFacts, Rights, SETTINGS, Settings, TimestampType, TopicFacts};
use krafka::Record;
use krafka::admin::{
    AclOperation, ConfigEntry, ConfigResource, CreateTopicsOptions, DescribeClusterOptions,
    DescribeConfigsOptions, NewTopic, TopicDescription,
};
use krafka::error::{ErrorCode, KrafkaError};
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A topic that was just created has a leader well before.
const CREATE_WAIT_MAX: Duration = Duration::from_secs(10);
const CREATE_LOOK_EVERY: Duration = Duration::from_millis(100);

/// The cluster as one of its brokers describes it.
#[derive(Debug, Clone)]
pub(crate) struct ClusterFacts {
    pub(crate) id: String,
    /// `host:port` as the cluster tells its clients.
    pub(crate) brokers: Vec<String>,
    /// May write without a sequence being looked up; needed before Kafka 3 only.
    pub(crate) idempotent_write: Option<bool>,
    pub(crate) create: Option<bool>,
}

/// The cluster's clock against ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClockOffset {
    /// How far theirs is ahead.
    pub(crate) ahead_ms: i64,
    /// Half of the time the question took: no more is known.
    pub(crate) uncertain_ms: i64,
}

impl Wire {
    /// What `topics` are like, each, or why it cannot be looked at. One that is missing is created
    /// where the operator allows that.
    pub(crate) async fn topics(&self, topics: &[String]) -> Result<Looked, Fault> {
        let mut looked = self.look(topics).await?;
        if self.config.create_topics.is_some() {
            let is_missing = |(topic, found): (&String, &Result<_, Fault>)| {
                matches!(found, Err(Fault::TopicMissing(_))).then(|| topic.clone())
            };
            let missing: Vec<String> = looked.iter().filter_map(is_missing).collect();
            if !missing.is_empty() {
                self.create(&missing).await?;
                looked.extend(self.created(&missing).await?);
            }
        }
        Ok(looked)
    }

    /// The same without a change to the cluster, in the time of one round trip: what topics are
    /// and how they are set is asked at once.
    pub(crate) async fn look(&self, topics: &[String]) -> Result<Looked, Fault> {
        let failed = |error| fault(&self.config, "", error).before("looking at the topics");
        let admin = self.kafka.admin();
        let names = SETTINGS.map(str::to_owned).to_vec();
        let (described, configs) = tokio::join!(
            admin.describe_topics(topics, Default::default()),
            admin.describe_configs(
                topics.iter().map(ConfigResource::topic),
                DescribeConfigsOptions::default().config_names(names),
            )
        );
        let mut described = described.map_err(failed)?;
        let mut configs = configs.map_err(failed)?;
        let mut looked = Looked::new();
        for topic in topics {
            let facts = described.remove(topic).unwrap_or(Err(none(topic)));
            let configs = configs.remove(&ConfigResource::topic(topic));
            let facts = facts.and_then(|found| facts_of(&found, configs));
            let facts = facts.map_err(|error| self.topic_fault(topic, error));
            looked.insert(topic.clone(), facts);
        }
        Ok(looked)
    }

    fn topic_fault(&self, topic: &str, error: KrafkaError) -> Fault {
        match fault(&self.config, topic, error) {
            Fault::Denied(text) => Fault::Denied(format!(
                "topic `{topic}`: {text}; grant this node's user Describe, DescribeConfigs and Write \
                 on it (kafka-acls.sh --add --allow-principal … --operation Write --topic {topic})"
            )),
            other => other,
        }
    }

    async fn create(&self, topics: &[String]) -> Result<(), Fault> {
        let wanted = self.config.create_topics.unwrap_or_default();
        let (partitions, replicas) = (
            wanted.partitions.unwrap_or(-1),
            wanted.replication.unwrap_or(-1),
        );
        let new = topics
            .iter()
            .map(|topic| NewTopic::new(topic, partitions, replicas));
        let new: Result<Vec<_>, _> = new.collect();
        let new = new.map_err(|error| fault(&self.config, "", error))?;
        let admin = self.kafka.admin();
        let created = admin.create_topics(new, CreateTopicsOptions::default());
        for (topic, outcome) in created
            .await
            .map_err(|error| fault(&self.config, "", error))?
        {
            match outcome {
                Ok(()) => tracing::info!(topic, "topic created"),
                Err(KrafkaError::Broker {
                    code: ErrorCode::TopicAlreadyExists,
                    ..
                }) => {}
                Err(error) => {
                    let doing =
                        format!("creating the topic `{topic}`, as `create_topics` in [kafka] says");
                    return Err(fault(&self.config, &topic, error).before(&doing));
                }
            }
        }
        Ok(())
    }

    /// Every broker hears of a new topic a moment later.
    async fn created(&self, topics: &[String]) -> Result<Looked, Fault> {
        let asked = Instant::now();
        loop {
            let looked = self.look(topics).await?;
            let ready = looked.values().all(|found| {
                let is_led = |facts: &TopicFacts| facts.partitions.iter().all(|p| p.has_leader);
                found.as_ref().is_ok_and(is_led)
            });
            if ready || asked.elapsed() > CREATE_WAIT_MAX {
                return Ok(looked);
            }
            tokio::time::sleep(CREATE_LOOK_EVERY).await;
        }
    }

    /// The brokers behind the first one, and what this node may do with the cluster.
    pub(crate) async fn cluster_facts(&self) -> Result<ClusterFacts, Fault> {
        let options = DescribeClusterOptions::default().include_authorized_operations(true);
        let found = self.kafka.admin().describe_cluster(options).await;
        let found = found.map_err(|error| fault(&self.config, "", error))?;
        let may = |operation| {
            Some(allows(
                found.authorized_operations.filter(is_told)?,
                operation,
            ))
        };
        let brokers = found.brokers.iter();
        Ok(ClusterFacts {
            brokers: brokers
                .map(|broker| format!("{}:{}", broker.host, broker.port))
                .collect(),
            idempotent_write: may(AclOperation::IdempotentWrite),
            create: may(AclOperation::Create),
            id: found.cluster_id,
        })
    }

    /// Whether the coordinator of `transactional_id` answers and lets this node see the id, which
    /// whoever may write under it may too. It changes nothing: a producer would fence the node's.
    pub(crate) async fn transactions(&self, transactional_id: &str) -> Result<(), Fault> {
        let options = krafka::admin::DescribeTransactionsOptions::default()
            .timeout(self.config.limits.request_timeout);
        let found = self
            .kafka
            .admin()
            .describe_transactions([transactional_id], options)
            .await;
        let found =
            found.and_then(|mut found| found.remove(transactional_id).unwrap_or(Err(none(""))));
        match found {
            Ok(_) => Ok(()),
            Err(KrafkaError::Broker {
                code: ErrorCode::TransactionalIdNotFound,
                ..
            }) => Ok(()),
            Err(error) => Err(fault(&self.config, "", error)),
        }
    }

    /// The same, asked once per connection; none where it cannot be known.
    pub(crate) async fn known_clock(&self) -> Option<ClockOffset> {
        *self
            .clock
            .get_or_init(|| async { self.clock().await.ok().flatten() })
            .await
    }

    /// What time it is there, without writing anything: the leader of the cluster's metadata says
    /// when it last heard of itself, which is the moment of the question. Only of clusters without
    /// ZooKeeper, and only for who may describe the cluster.
    pub(crate) async fn clock(&self) -> Result<Option<ClockOffset>, Fault> {
        let options = krafka::admin::DescribeMetadataQuorumOptions::default()
            .timeout(self.config.limits.request_timeout);
        let (asked, began) = (now_ms(), Instant::now());
        let quorum = self.kafka.admin().describe_metadata_quorum(options).await;
        let took_ms = i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX);
        let quorum = quorum.map_err(|error| fault(&self.config, "", error))?;
        let leader = quorum
            .voters
            .iter()
            .find(|voter| voter.replica_id == quorum.leader_id);
        let theirs = leader.and_then(|leader| leader.last_fetch_timestamp);
        Ok(theirs.map(|theirs| ClockOffset {
            ahead_ms: theirs - (asked + took_ms / 2),
            uncertain_ms: took_ms / 2 + 1,
        }))
    }

    /// The same where only a broker's own date on a record tells: one is written into the positions
    /// topic, under a key that is no stream's, so that compaction keeps one of them.
    pub(crate) async fn clock_by_probe(&self, topic: &str) -> Result<Option<ClockOffset>, Fault> {
        let looked = self.look(&[topic.to_owned()]).await?;
        let settings = looked
            .into_values()
            .next()
            .and_then(|found| found.ok()?.settings);
        if settings.is_none_or(|settings| settings.timestamp_type() != TimestampType::LogAppend) {
            return Ok(None);
        }
        let failed =
            |error| fault(&self.config, topic, error).before("asking a broker for its time");
        let producer = self
            .kafka
            .producer()
            .linger(Duration::ZERO)
            .metrics_push(false);
        let producer = producer.build().await.map_err(failed)?;
        let mut probe = Record::new(topic, r#"{"probe":"skerry uplink doctor"}"#)
            .key(format!("{}/doctor", self.config.node.as_str()));
        probe.partition = Some(POSITIONS_PARTITION);
        let (asked, began) = (now_ms(), Instant::now());
        let written = producer.send(probe).await;
        let took_ms = i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX);
        let closed = producer.close().await;
        let written = written.map_err(failed)?;
        closed.map_err(failed)?;
        Ok(Some(ClockOffset {
            ahead_ms: written.timestamp - (asked + took_ms / 2),
            uncertain_ms: took_ms / 2 + 1,
        }))
    }
}

/// Each topic that was asked for, or why it cannot be looked at.
pub(crate) type Looked = BTreeMap<String, Result<TopicFacts, Fault>>;
type Configs = Result<Vec<ConfigEntry>, KrafkaError>;

fn facts_of(found: &TopicDescription, configs: Option<Configs>) -> Result<TopicFacts, KrafkaError> {
    let settings = match configs {
        Some(Ok(entries)) => Some(settings_of(entries)),
        Some(Err(KrafkaError::Broker { code, .. })) if is_denied(code) => None,
        Some(Err(error)) => return Err(error),
        None => None,
    };
    let rights = found
        .authorized_operations
        .filter(is_told)
        .map(|bits| Rights {
            write: allows(bits, AclOperation::Write),
            read: allows(bits, AclOperation::Read),
            describe_configs: allows(bits, AclOperation::DescribeConfigs),
        });
    let partitions = found.partitions.iter().map(|partition| PartitionFacts {
        replicas: partition.replicas.len(),
        in_sync: partition.isr.len(),
        has_leader: partition.leader.is_some(),
    });
    Ok(TopicFacts {
        partitions: partitions.collect(),
        rights,
        settings,
    })
}

fn settings_of(entries: Vec<ConfigEntry>) -> Settings {
    let told = entries
        .into_iter()
        .filter_map(|entry| Some((entry.name, entry.value?)));
    told.collect()
}

/// Zero rights are what a cluster says that does not know: who can see a topic may do something.
fn is_told(bits: &i32) -> bool {
    !matches!(*bits, 0 | i32::MIN)
}

fn allows(bits: i32, operation: AclOperation) -> bool {
    bits & (1 << operation.to_i8()) != 0
}

fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
