//! What a stream holds: one [`Record`] per value that entered the node or was derived on it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Position of a record in its stream: 0 for the first record ever, contiguous from there on.
#[derive(
    Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Offset(pub u64);

impl Offset {
    pub const ZERO: Self = Self(0);

    /// The offset `count` records further on.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}

impl std::fmt::Display for Offset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Nanoseconds since the Unix epoch, UTC; negative before 1970.
#[derive(
    Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct WallNanos(pub i64);

impl WallNanos {
    /// The wall clock now. Saturates in the year 2262.
    #[must_use]
    pub fn now() -> Self {
        let now = std::time::SystemTime::now();
        match now.duration_since(std::time::UNIX_EPOCH) {
            Ok(after) => Self(i64::try_from(after.as_nanos()).unwrap_or(i64::MAX)),
            Err(before) => {
                Self(i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |n| -n))
            }
        }
    }

    /// Whether a clock that shows this has been set. A board without a battery starts in 1970, or
    /// in a year that its firmware was made in; nothing of skerry is older than this.
    #[must_use]
    pub const fn is_set(self) -> bool {
        const BEGIN_OF_2024: i64 = 1_704_067_200_000_000_000;
        self.0 >= BEGIN_OF_2024
    }

    /// How long ago `then` was, as far as the clock can tell: nothing if it was not set then and is
    /// now, as the decades between the two never passed, nor if it was set back since.
    #[must_use]
    pub fn since(self, then: Self) -> Duration {
        if self.is_set() && !then.is_set() {
            return Duration::ZERO;
        }
        let passed = self.0.saturating_sub(then.0);
        Duration::from_nanos(u64::try_from(passed).unwrap_or(0))
    }

    /// Whole milliseconds since the Unix epoch, rounded towards the past.
    #[must_use]
    pub const fn millis(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }
}

/// Where a record came from, which decides how its payload reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An MQTT PUBLISH: `source` is the topic, the payload is the publisher's, byte for byte.
    Mqtt,
    /// An OPC-UA value: `source` is the configured name, the payload is JSON.
    Opcua,
    /// A model's score: `source` is the model's name, the payload is JSON.
    Score,
    /// An alert raised or cleared by a model: `source` is the model's name, the payload is JSON.
    Alert,
    /// A [`Gap`]: `source` names what is missing, the payload is the gap as JSON.
    Gap,
    /// An event of the node itself (start, crash recovery, link change), JSON.
    Node,
}

impl Kind {
    /// By the number that stands for them in a frame.
    pub(crate) const ALL: [Self; 6] = [
        Self::Mqtt,
        Self::Opcua,
        Self::Score,
        Self::Alert,
        Self::Gap,
        Self::Node,
    ];

    /// The word used in headers, exports and on the command line.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Opcua => "opcua",
            Self::Score => "score",
            Self::Alert => "alert",
            Self::Gap => "gap",
            Self::Node => "node",
        }
    }
}

/// One value, as it is written to disk and carried to the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub kind: Kind,
    /// The source's name: MQTT topic, configured OPC-UA tag or model. The key in the cluster:
    /// order is kept per source.
    pub source: String,
    pub payload: Bytes,
    /// When the value arose, by the source's own clock, where the source says so.
    pub source_time: Option<WallNanos>,
    /// When an OPC-UA server saw it.
    pub server_time: Option<WallNanos>,
    /// When this node took it in, by the node's wall clock.
    pub ingest_time: WallNanos,
    /// OPC-UA StatusCode (Part 4, 7.39); 0 is Good, and what every other source has.
    pub status: u32,
    /// Name and value pairs that travel along as Kafka headers: MQTT 5 user properties,
    /// content type, and what a model says of itself.
    pub attributes: Vec<(String, Bytes)>,
}

impl Record {
    /// A good record taken in now, without attributes.
    #[must_use]
    pub fn new(kind: Kind, source: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Self {
            kind,
            source: source.into(),
            payload: payload.into(),
            source_time: None,
            server_time: None,
            ingest_time: WallNanos::now(),
            status: 0,
            attributes: Vec::new(),
        }
    }

    pub(crate) fn attribute_pairs(&self) -> impl Iterator<Item = (&str, &[u8])> + Clone {
        let pairs = self.attributes.iter();
        pairs.map(|(name, value)| (name.as_str(), &value[..]))
    }

    /// The time this record stands for: the source's, else the server's, else the node's.
    #[must_use]
    pub fn event_time(&self) -> WallNanos {
        self.source_time
            .or(self.server_time)
            .unwrap_or(self.ingest_time)
    }
}

/// What is known to be missing, and why: the second half of "in = out + gaps".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The stream or source that lacks something.
    pub subject: String,
    /// The missing offsets of `subject`, where it is a stream: first and one past the last. All
    /// of them, unless `count` is less.
    pub offsets: Option<(Offset, Offset)>,
    /// The time the gap covers: last thing known before, first thing known after.
    pub from: Option<WallNanos>,
    pub to: Option<WallNanos>,
    /// How many values are missing, where that can be known.
    pub count: Option<u64>,
    pub reason: String,
}

impl Gap {
    /// The gap as a record for the log.
    #[must_use]
    pub fn into_record(self) -> Record {
        let payload = gap_json(&self);
        Record::new(Kind::Gap, self.subject, payload)
    }
}

fn gap_json(gap: &Gap) -> Vec<u8> {
    serde_json::to_vec(gap).expect("a gap has string keys only")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_clock_jumps_over_when_it_is_set_has_not_passed() {
        let at = |seconds: i64| WallNanos(seconds * 1_000_000_000);
        let (unset, set) = (at(90), at(1_800_000_000));
        assert!(!unset.is_set() && set.is_set());
        assert_eq!(set.since(unset), Duration::ZERO);
        assert_eq!(at(100).since(unset), Duration::from_secs(10));
        assert_eq!(at(1_800_000_060).since(set), Duration::from_secs(60));
        assert_eq!(unset.since(set), Duration::ZERO);
        assert_eq!(WallNanos(i64::MAX).since(set).as_secs(), 7_423_372_036);
    }
}
