//! What a cluster says of a topic, in no client's types.

use std::collections::BTreeMap;
use std::time::Duration;

/// Kafka says "no limit" with the largest number there is, or with -1.
const NO_LIMIT_MS: i64 = 100 * 365 * 24 * 3_600 * 1_000;

/// The settings the uplink asks for.
pub(crate) const SETTINGS: [&str; 9] = [
    "cleanup.policy",
    "retention.ms",
    "retention.bytes",
    "max.message.bytes",
    "min.insync.replicas",
    "message.timestamp.type",
    "message.timestamp.before.max.ms",
    "message.timestamp.after.max.ms",
    "message.timestamp.difference.max.ms",
];

#[derive(Debug, Clone, Default)]
pub(crate) struct TopicFacts {
    pub(crate) partitions: Vec<PartitionFacts>,
    /// What this node may do with it; none where the cluster does not tell.
    pub(crate) rights: Option<Rights>,
    /// None where this node may not see them.
    pub(crate) settings: Option<Settings>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartitionFacts {
    pub(crate) replicas: usize,
    pub(crate) in_sync: usize,
    pub(crate) has_leader: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rights {
    pub(crate) write: bool,
    pub(crate) read: bool,
    pub(crate) describe_configs: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimestampType {
    Create,
    LogAppend,
}

/// A topic's settings by name; what the cluster did not tell has Kafka's default.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings(BTreeMap<String, String>);

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Settings {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(settings: I) -> Self {
        let owned = settings.into_iter().map(|(n, v)| (n.into(), v.into()));
        Self(owned.collect())
    }
}

impl Settings {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.text(name)?.parse().ok()
    }

    /// None where it is missing or means "without a limit".
    fn duration(&self, name: &str) -> Option<Duration> {
        let ms = self.number(name).filter(|ms| *ms < NO_LIMIT_MS)?;
        u64::try_from(ms).ok().map(Duration::from_millis)
    }

    pub(crate) fn cleanup_policy(&self) -> &str {
        self.text("cleanup.policy").unwrap_or("delete")
    }

    /// Whether retention takes anything.
    pub(crate) fn deletes(&self) -> bool {
        self.cleanup_policy().contains("delete")
    }

    pub(crate) fn compacts(&self) -> bool {
        self.cleanup_policy().contains("compact")
    }

    pub(crate) fn retention(&self) -> Option<Duration> {
        self.duration("retention.ms")
    }

    /// Of each partition.
    pub(crate) fn retention_bytes(&self) -> Option<u64> {
        u64::try_from(self.number("retention.bytes")?).ok()
    }

    pub(crate) fn max_message_bytes(&self) -> Option<u64> {
        u64::try_from(self.number("max.message.bytes")?).ok()
    }

    pub(crate) fn min_in_sync(&self) -> usize {
        let least = self.number("min.insync.replicas");
        least.and_then(|n| usize::try_from(n).ok()).unwrap_or(1)
    }

    pub(crate) fn timestamp_type(&self) -> TimestampType {
        match self.text("message.timestamp.type") {
            Some("LogAppendTime") => TimestampType::LogAppend,
            _ => TimestampType::Create,
        }
    }

    pub(crate) fn timestamp_behind_max(&self) -> Option<Duration> {
        self.timestamp_limit("message.timestamp.before.max.ms")
    }

    pub(crate) fn timestamp_ahead_max(&self) -> Option<Duration> {
        self.timestamp_limit("message.timestamp.after.max.ms")
    }

    /// Before Kafka 3.6 there was one limit for both directions.
    fn timestamp_limit(&self, name: &str) -> Option<Duration> {
        match self.text(name) {
            Some(_) => self.duration(name),
            None => self.duration("message.timestamp.difference.max.ms"),
        }
    }
}
