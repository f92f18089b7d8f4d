//! The topic of the positions, which must be there before anything is sent.

use super::{Wire, fault, is_denied, none};
use crate::uplink::fault::Fault;
use krafka::admin::{ConfigResource, CreateTopicsOptions, DescribeConfigsOptions, NewTopic};
use krafka::error::{ErrorCode, KrafkaError};

impl Wire {
    /// Makes sure of a compacted topic for positions. Where it is there but would be emptied by
    /// retention, says so: a position that vanishes could make a later session repeat records.
    pub(crate) async fn require_positions(&self, topic: &str) -> Result<Option<String>, Fault> {
        let admin = self.kafka.admin();
        let wanted = NewTopic::new(topic, 1, -1)
            .map_err(|error| fault(&self.config, topic, error))?
            .with_config("cleanup.policy", "compact")
            // Keeps what a new session reads short: only the newest segment is never compacted.
            .with_config("segment.ms", "3600000")
            .with_config("min.cleanable.dirty.ratio", "0.1")
            // So that each answer tells the cluster's time.
            .with_config("message.timestamp.type", "LogAppendTime");
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
