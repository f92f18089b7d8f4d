//! What a record of the log looks like in Kafka.
//!
//! ```text
//! topic      the stream's, from the template
//! key        the record's source, so that Kafka's default partitioner keeps order per source
//! value      the payload, byte for byte
//! timestamp  event time, milliseconds
//! headers    skerry-node, skerry-epoch (hex), skerry-stream, skerry-offset, skerry-kind,
//!            skerry-status (hex, when not Good), skerry-source-time, skerry-server-time,
//!            skerry-ingest-time (nanoseconds), then the record's attributes
//! ```
//!
//! `(skerry-epoch, skerry-stream, skerry-offset)` names a record for ever: an auditor counts with
//! it and an at-least-once consumer drops repeats with it.

use bytes::Bytes;
use skerry_store::{Gap, Offset, Record, WallNanos};

/// A broker refuses timestamps more than an hour ahead of its clock (Kafka 4,
/// `message.timestamp.after.max.ms`), and keeps what is dated in the future past its retention.
/// A source this far ahead has a wrong clock: the node's own is used, the header keeps the claim.
const AHEAD_MAX_NANOS: i64 = 5 * 60 * 1_000_000_000;

/// Header names that are the node's alone.
const RESERVED: &str = "skerry-";

/// A source name longer than this is not repeated in the gap that stands for its record, which
/// would be refused for the same reason.
const QUARANTINED_KEY_MAX: usize = 256;
/// The same for the cluster's explanation.
const REASON_CHARS_MAX: usize = 500;

/// What every record of one stream has in common.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) topic: String,
    pub(crate) node: Bytes,
    pub(crate) epoch: Bytes,
    pub(crate) stream: Bytes,
}

/// One Kafka record, in no client's types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outgoing {
    pub(crate) topic: String,
    pub(crate) partition: Option<i32>,
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
    pub(crate) timestamp_ms: i64,
    pub(crate) headers: Vec<(String, Bytes)>,
}

impl Outgoing {
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
    pub(crate) fn new(node: &str, epoch: u64, stream: &str, topic: String) -> Self {
        Self {
            topic,
            node: Bytes::copy_from_slice(node.as_bytes()),
            epoch: Bytes::from(format!("{epoch:016x}")),
            stream: Bytes::copy_from_slice(stream.as_bytes()),
        }
    }

    pub(crate) fn record(&self, offset: Offset, record: Record) -> Outgoing {
        let mut headers = Vec::with_capacity(9 + record.attributes.len());
        headers.push(("skerry-node".to_owned(), self.node.clone()));
        headers.push(("skerry-epoch".to_owned(), self.epoch.clone()));
        headers.push(("skerry-stream".to_owned(), self.stream.clone()));
        headers.push(("skerry-offset".to_owned(), Bytes::from(offset.to_string())));
        headers.push((
            "skerry-kind".to_owned(),
            Bytes::from_static(record.kind.word().as_bytes()),
        ));
        if record.status != 0 {
            let status = format!("{:08x}", record.status);
            headers.push(("skerry-status".to_owned(), Bytes::from(status)));
        }
        let times = [
            ("skerry-source-time", record.source_time),
            ("skerry-server-time", record.server_time),
            ("skerry-ingest-time", Some(record.ingest_time)),
        ];
        for (name, time) in times {
            if let Some(time) = time {
                headers.push((name.to_owned(), Bytes::from(time.0.to_string())));
            }
        }
        let timestamp_ms = timestamp_ms(&record);
        headers.extend(record.attributes.into_iter().map(attribute));
        Outgoing {
            topic: self.topic.clone(),
            partition: None,
            key: Bytes::from(record.source),
            value: record.payload,
            timestamp_ms,
            headers,
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
        let key_fits = refused.key.len() <= QUARANTINED_KEY_MAX;
        let subject = if key_fits { &refused.key } else { &self.stream };
        let reason: String = reason.chars().take(REASON_CHARS_MAX).collect();
        let gap = Gap {
            subject: String::from_utf8_lossy(subject).into_owned(),
            offsets: Some((offset, offset.plus(1))),
            from: None,
            to: None,
            count: Some(1),
            reason: format!("quarantined, {} bytes: {reason}", refused.size()),
        };
        self.record(offset, gap.into_record())
    }
}

fn timestamp_ms(record: &Record) -> i64 {
    let event = record.event_time();
    let trusted = event.0 <= WallNanos::now().0.saturating_add(AHEAD_MAX_NANOS);
    let time = if trusted { event } else { record.ingest_time };
    time.millis().max(0)
}

/// A publisher's own property must not pass for the node's word.
fn attribute((name, value): (String, Bytes)) -> (String, Bytes) {
    if name.starts_with(RESERVED) {
        (format!("user-{name}"), value)
    } else {
        (name, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skerry_store::Kind;

    fn origin() -> Origin {
        Origin::new("vessel-7", 0xf3, "telemetry", "skerry.telemetry".to_owned())
    }

    fn header<'a>(record: &'a Outgoing, name: &str) -> Option<&'a str> {
        let found = record.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| std::str::from_utf8(value).unwrap())
    }

    #[test]
    fn a_record_keeps_its_payload_and_gets_its_name() {
        let mut record = Record::new(Kind::Opcua, "pump1/vibration", "{\"value\":1}");
        record.source_time = Some(WallNanos(1_500_000_000_999_999_999));
        record.status = 0x8034_0000;
        record.attributes = vec![("unit".to_owned(), Bytes::from_static(b"mm/s"))];
        let sent = origin().record(Offset(42), record.clone());
        assert_eq!(
            (&sent.key[..], &sent.value),
            (&b"pump1/vibration"[..], &record.payload)
        );
        assert_eq!(sent.timestamp_ms, 1_500_000_000_999);
        assert_eq!(header(&sent, "skerry-epoch"), Some("00000000000000f3"));
        assert_eq!(header(&sent, "skerry-offset"), Some("42"));
        assert_eq!(header(&sent, "skerry-kind"), Some("opcua"));
        assert_eq!(header(&sent, "skerry-status"), Some("80340000"));
        assert_eq!(
            header(&sent, "skerry-source-time"),
            Some("1500000000999999999")
        );
        assert_eq!(header(&sent, "skerry-server-time"), None);
        assert_eq!(header(&sent, "unit"), Some("mm/s"));
    }

    #[test]
    fn a_publisher_cannot_speak_for_the_node() {
        let mut record = Record::new(Kind::Mqtt, "a", "1");
        record.attributes = vec![("skerry-offset".to_owned(), Bytes::from_static(b"0"))];
        let sent = origin().record(Offset(9), record);
        let named: Vec<_> = sent
            .headers
            .iter()
            .filter(|(n, _)| n == "skerry-offset")
            .collect();
        assert_eq!(
            named,
            [&("skerry-offset".to_owned(), Bytes::from_static(b"9"))]
        );
        assert_eq!(header(&sent, "user-skerry-offset"), Some("0"));
    }

    #[test]
    fn a_source_far_in_the_future_does_not_date_the_record() {
        let mut record = Record::new(Kind::Mqtt, "a", "1");
        record.source_time = Some(WallNanos(i64::MAX));
        let sent = origin().record(Offset(0), record.clone());
        assert_eq!(sent.timestamp_ms, record.ingest_time.millis());
        assert_eq!(
            header(&sent, "skerry-source-time"),
            Some("9223372036854775807")
        );
    }

    #[test]
    fn gaps_say_what_they_stand_for() {
        let gap = origin().missing(Offset(5), Offset(9));
        assert_eq!(header(&gap, "skerry-kind"), Some("gap"));
        assert_eq!(header(&gap, "skerry-offset"), Some("5"));
        let text = std::str::from_utf8(&gap.value).unwrap();
        assert!(
            text.contains("\"offsets\":[5,9]") && text.contains("\"count\":4"),
            "{text}"
        );

        let refused = origin().record(Offset(7), Record::new(Kind::Mqtt, "a/b", vec![0; 100]));
        let gap = origin().quarantined(Offset(7), &refused, "too large");
        assert_eq!(header(&gap, "skerry-kind"), Some("gap"));
        assert_eq!(gap.key, refused.key);
        let refused = origin().record(Offset(7), Record::new(Kind::Mqtt, "x".repeat(9_000), ""));
        assert!(
            origin()
                .quarantined(Offset(7), &refused, &"y".repeat(9_000))
                .size()
                < 2_000
        );
    }
}
