//! Topics that must be there before anything is sent.

use super::{Wire, close, fault, is_denied, is_unknown, none};
use crate::uplink::fault::Fault;
use krafka::admin::{ConfigResource, CreateTopicsOptions, DescribeConfigsOptions, NewTopic};
use krafka::error::{ErrorCode, KrafkaError};
use std::time::{Duration, Instant};

/// A topic that the cluster creates is there well before.
const CREATE_WAIT_MAX: Duration = Duration::from_secs(5);

impl Wire {
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
}
