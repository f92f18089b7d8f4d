//! What a record of the log looks like in Kafka.
//!
//! ```text
//! topic      from the template: the stream's, or by the levels of the record's source
//! key        the record's source, so that Kafka's default partitioner keeps order per source;
//!            or as `key` says
//! value      the payload, byte for byte
//! timestamp  event time in milliseconds, or the ingest time as `timestamp` says; now, where the
//!            topic would not keep that and `late` says "restamp"
//! headers    skerry-node, skerry-epoch (hex), skerry-stream, skerry-source (where it is not the
//!            key), skerry-offset, skerry-kind, skerry-status (hex, when not Good),
//!            skerry-source-time, skerry-server-time, skerry-ingest-time (nanoseconds),
//!            skerry-retry-of (the refused record that this is, sent again from quarantine), then
//!            the record's attributes; skerry-backfill (`1`) where the record is late,
//!            skerry-event-time (nanoseconds) where the timestamp is no longer its own
//! ```
//!
//! *Late* means: sent more than 60 s after it came in ([`LATE_AFTER`](super::late::LATE_AFTER)).
//!
//! `(skerry-epoch, skerry-stream, skerry-offset)` names a record for ever: an auditor counts with
//! it and an at-least-once consumer drops repeats with it.

use super::config::{Config, Key, Late, NodeName, Route, Timestamp};
use super::doctor::topic::raise;
use super::late::{LATE_AFTER, Trap};
use super::position::Mark;
use super::preflight::Topics;
use super::template::TopicTemplate;
use bytes::Bytes;
use skerry_store::{Gap, Offset, Record, StreamName, WallNanos};
use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

/// A broker refuses timestamps more than an hour ahead of its clock (Kafka 4,
/// `message.timestamp.after.max.ms`), and keeps what is dated in the future past its retention.
/// A source this far ahead has a wrong clock: the node's own is used, the header keeps the claim.
const AHEAD_MAX_NANOS: i64 = 5 * 60 * 1_000_000_000;

/// Header names that are the node's alone.
const RESERVED: &str = "skerry-";
/// Where the source is told that is not the key.
const SOURCE: &str = "skerry-source";

/// The one attribute that is a header of the node: on a record that was sent again, which one it
/// is, as `<stream>/<offset>`. No publisher has it: what clients call so is stored as
/// `user-skerry-retry-of`.
pub(crate) const RETRY_OF: &str = "skerry-retry-of";

/// A source name longer than this is not repeated in the gap that stands for its record, which
/// would be refused for the same reason.
const QUARANTINED_KEY_MAX: usize = 256;
/// The same for the cluster's explanation.
const REASON_CHARS_MAX: usize = 500;

/// What every record of one stream has in common.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    name: NodeName,
    node: Bytes,
    epoch: Bytes,
    stream: Bytes,
    route: Route,
    /// The topic of every record, where it does not go by the source; filled in by the first one.
    topic: OnceLock<Arc<str>>,
    positions: TopicTemplate,
    /// What is known of the topics it goes to.
    pub(crate) topics: Arc<Topics>,
}

/// When a record arose and when it came in: what its timestamp is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    event: WallNanos,
    pub(crate) ingest: WallNanos,
}

impl Times {
    /// Of what the node says itself, in the place of a record.
    pub(crate) fn now() -> Self {
        let now = WallNanos::now();
        Self {
            event: now,
            ingest: now,
        }
    }

    pub(crate) fn of(record: &Record) -> Self {
        Self {
            event: record.event_time(),
            ingest: record.ingest_time,
        }
    }
}

/// What was done to a record so that its topic takes and keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Fitted {
    pub(crate) late: bool,
    pub(crate) restamped: bool,
    pub(crate) backfilled: bool,
}

/// Why a record cannot go yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// Nothing is known of the first of these topics, or only what was true a while ago; the
    /// others are known no better, and soon needed.
    Unseen(Vec<String>),
    /// It would be lost, and the policy is to wait.
    Held(String),
}

/// Most names are the node's own, and the same in every record.
pub(crate) type Header = (Cow<'static, str>, Bytes);

/// One Kafka record, in no client's types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outgoing {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: Option<i32>,
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
    pub(crate) timestamp_ms: i64,
    pub(crate) headers: Vec<Header>,
}

impl Outgoing {
    fn source(&self) -> String {
        String::from_utf8_lossy(self.source_bytes()).into_owned()
    }

    fn source_bytes(&self) -> &Bytes {
        let header = self.headers.iter().find(|(name, _)| name == SOURCE);
        header.map_or(&self.key, |(_, source)| source)
    }

    /// What makes the record itself that this was made of.
    pub(crate) fn mark(&self, ingest: WallNanos) -> Mark {
        Mark {
            ingest,
            source: self.source_bytes().clone(),
            payload: self.value.clone(),
        }
    }

    /// What it takes on the wire before compression, near enough to bound memory by.
    pub(crate) fn size(&self) -> usize {
        const FRAMING: usize = 32;
        let headers: usize = self
            .headers
            .iter()
            .map(|(k, v)| k.len() + v.len() + 2)
            .sum();
        self.key.len() + self.value.len() + headers + FRAMING
    }
}

impl Origin {
    pub(crate) fn of(config: &Config, stream: &StreamName, epoch: u64) -> Self {
        Self {
            name: config.node.clone(),
            node: Bytes::copy_from_slice(config.node.as_str().as_bytes()),
            epoch: Bytes::from(format!("{epoch:016x}")),
            stream: Bytes::copy_from_slice(stream.as_str().as_bytes()),
            route: config.route_of(stream).clone(),
            topic: OnceLock::new(),
            positions: config.positions.clone(),
            topics: Arc::default(),
        }
    }

    pub(crate) fn set_epoch(&mut self, epoch: u64) {
        self.epoch = Bytes::from(format!("{epoch:016x}"));
    }

    /// The topics that are known before any record is: those to look at first.
    pub(crate) fn first_topics(&self) -> Vec<String> {
        let backfill =
            (self.route.late == Late::BackfillTopic).then_some(&self.route.backfill_topic);
        let known = [Some(&self.route.topic), backfill].into_iter().flatten();
        let known = known.filter(|topic| !topic.goes_by_source());
        known.map(|topic| self.topic(topic, "")).collect()
    }

    pub(crate) fn late(&self) -> Late {
        self.route.late
    }

    fn stream(&self) -> &str {
        std::str::from_utf8(&self.stream).expect("a stream's name is text")
    }

    /// A source names its topic, but not one where positions are kept, its node's or another's.
    fn topic(&self, template: &TopicTemplate, source: &str) -> String {
        let topic = template.fill_for(&self.name, self.stream(), source);
        match template.goes_by_source() && self.positions.could_give(&topic) {
            true => format!("s-{topic}"),
            false => topic,
        }
    }

    /// Makes the record one that its topic takes and keeps, by the stream's policy.
    pub(crate) fn fit(&self, outgoing: &mut Outgoing, times: Times) -> Result<Fitted, Obstacle> {
        let now = WallNanos::now();
        let now_ms = self.topics.in_cluster_ms(now);
        let since = now.0.saturating_sub(times.ingest.0);
        let mut fitted = Fitted {
            late: u64::try_from(since).is_ok_and(|since| u128::from(since) > LATE_AFTER.as_nanos()),
            ..Fitted::default()
        };
        let judge = |topic: &str, timestamp_ms| {
            let judged = self.topics.judge(topic, timestamp_ms, now_ms, fitted.late);
            judged.ok_or_else(|| Obstacle::Unseen(vec![topic.to_owned()]))
        };
        if let Err(trap) = judge(&outgoing.topic, outgoing.timestamp_ms)? {
            match self.route.late {
                Late::Hold => return Err(held(&outgoing.topic, trap)),
                Late::Restamp => {
                    fitted.restamped = true;
                    outgoing.timestamp_ms = now_ms;
                    let event = ("skerry-event-time".into(), decimal(times.event.0));
                    outgoing.headers.push(event);
                }
                Late::BackfillTopic => {
                    let source = outgoing.source();
                    let topic = self.topic(&self.route.backfill_topic, &source);
                    if let Err(trap) = judge(&topic, outgoing.timestamp_ms)? {
                        return Err(held(&topic, trap));
                    }
                    fitted.backfilled = true;
                    outgoing.topic = topic.into();
                }
            }
        }
        if fitted.late {
            let mark = ("skerry-backfill".into(), Bytes::from_static(b"1"));
            outgoing.headers.push(mark);
        }
        Ok(fitted)
    }

    /// The topic of a record, kept where it is the same for all of them.
    fn topic_of(&self, record: &Record) -> Arc<str> {
        let fill = || Arc::from(self.topic(&self.route.topic, &record.source));
        if self.route.topic.goes_by_source() {
            fill()
        } else {
            Arc::clone(self.topic.get_or_init(fill))
        }
    }

    pub(crate) fn record(&self, offset: Offset, record: Record) -> Outgoing {
        let topic = self.topic_of(&record);
        let mut headers: Vec<Header> = Vec::with_capacity(12 + record.attributes.len());
        headers.push(("skerry-node".into(), self.node.clone()));
        headers.push(("skerry-epoch".into(), self.epoch.clone()));
        headers.push(("skerry-stream".into(), self.stream.clone()));
        let key = match self.route.key {
            Key::Source => None,
            Key::Node => Some(self.node.clone()),
            Key::Stream => Some(self.stream.clone()),
        };
        if key.is_some() {
            let source = Bytes::from(record.source.clone());
            headers.push((SOURCE.into(), source));
        }
        headers.push(("skerry-offset".into(), decimal(offset.0)));
        headers.push((
            "skerry-kind".into(),
            Bytes::from_static(record.kind.word().as_bytes()),
        ));
        if record.status != 0 {
            let status = format!("{:08x}", record.status);
            headers.push(("skerry-status".into(), Bytes::from(status)));
        }
        let times = [
            ("skerry-source-time", record.source_time),
            ("skerry-server-time", record.server_time),
            ("skerry-ingest-time", Some(record.ingest_time)),
        ];
        for (name, time) in times {
            if let Some(time) = time {
                headers.push((name.into(), decimal(time.0)));
            }
        }
        let timestamp_ms = timestamp_ms(&record, self.route.timestamp);
        headers.extend(record.attributes.into_iter().map(attribute));
        Outgoing {
            topic,
            partition: None,
            key: key.unwrap_or_else(|| Bytes::from(record.source)),
            value: record.payload,
            timestamp_ms,
            headers,
        }
    }

    /// Around a block of so many records, see [`packing`](super::packing).
    pub(crate) fn block(&self, first: Offset, last: Offset, records: usize) -> Outgoing {
        let epoch = String::from_utf8_lossy(&self.epoch);
        let text = |name: &'static str, value: String| (name.into(), Bytes::from(value));
        Outgoing {
            topic: Arc::default(),
            partition: None,
            key: Bytes::from(format!("{}/{epoch}/{first}", self.stream())),
            value: Bytes::new(),
            timestamp_ms: 0,
            headers: vec![
                ("skerry-node".into(), self.node.clone()),
                ("skerry-epoch".into(), self.epoch.clone()),
                ("skerry-stream".into(), self.stream.clone()),
                text("skerry-pack", "1".to_owned()),
                text("skerry-offsets", format!("{first}-{last}")),
                text("skerry-count", records.to_string()),
            ],
        }
    }

    /// Stands for offsets the log no longer has. Its own offset is the first of them.
    pub(crate) fn missing(&self, first: Offset, next: Offset) -> Outgoing {
        let gap = Gap {
            subject: String::from_utf8_lossy(&self.stream).into_owned(),
            offsets: Some((first, next)),
            from: None,
            to: None,
            count: Some(next.0 - first.0),
            reason: "removed by retention or lost to damage before it was delivered".to_owned(),
        };
        self.record(first, gap.into_record())
    }

    /// Stands for one record the cluster refuses. It keeps the key, and so its place in order.
    pub(crate) fn quarantined(&self, offset: Offset, refused: &Outgoing, reason: &str) -> Outgoing {
        let source = refused.source();
        let fits = source.len() <= QUARANTINED_KEY_MAX;
        let subject = if fits { &source } else { self.stream() };
        let reason: String = reason.chars().take(REASON_CHARS_MAX).collect();
        let gap = Gap {
            subject: subject.to_owned(),
            offsets: Some((offset, offset.plus(1))),
            from: None,
            to: None,
            count: Some(1),
            reason: format!("quarantined, {} bytes: {reason}", refused.size()),
        };
        self.record(offset, gap.into_record())
    }
}

/// Where a record waits for its topic to be set up for it.
fn held(topic: &str, trap: Trap) -> Obstacle {
    let fix = raise(topic, &trap);
    Obstacle::Held(format!(
        "topic `{topic}` would not keep the oldest record that waits: {trap}. Nothing is sent until \
         then: {fix} (or set `late` in [kafka] to \"restamp\" or \"backfill_topic\")"
    ))
}

fn timestamp_ms(record: &Record, policy: Timestamp) -> i64 {
    let event = match policy {
        Timestamp::Event => record.event_time(),
        Timestamp::Ingest => record.ingest_time,
    };
    let is_by = |now: WallNanos| event.0 <= now.0.saturating_add(AHEAD_MAX_NANOS);
    // The clock is only asked where that does not settle it.
    let trusted = is_by(record.ingest_time) || is_by(WallNanos::now());
    let time = if trusted { event } else { record.ingest_time };
    time.millis().max(0)
}

/// A publisher's own property must not pass for the node's word.
fn attribute((name, value): (String, Bytes)) -> Header {
    if name.starts_with(RESERVED) && name != RETRY_OF {
        (format!("user-{name}").into(), value)
    } else {
        (name.into(), value)
    }
}

/// A number as text; there are several in every record.
fn decimal(number: impl itoa::Integer) -> Bytes {
    Bytes::copy_from_slice(itoa::Buffer::new().format(number).as_bytes())
}

#[cfg(test)]
impl Origin {
    /// To one topic, of which all is known and which keeps everything.
    pub(crate) fn new(node: &str, epoch: u64, stream: &str, topic: String) -> Self {
        let mut config = Config::new(NodeName::new(node).unwrap(), vec!["b:1".to_owned()]);
        config.route.topic = TopicTemplate::new(&topic).unwrap();
        let origin = Self::of(&config, &StreamName::new(stream).unwrap(), epoch);
        origin
            .topics
            .learn(topic, super::late::TimeRules::default(), 3);
        origin
    }
}

#[cfg(test)]
mod tests;
