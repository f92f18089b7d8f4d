//! A PUBLISH as a record of the log, and back: what a subscriber gets a week later is what it
//! would have got at once.
//!
//! Topic, payload and time are the record's own. The rest are attributes, which travel on to the
//! cluster as headers: the publisher's properties under names of their own, and, where they are
//! not the usual, QoS and retain flag (`mqtt-qos` unless it is 1, `mqtt-retain`). `mqtt-client` is
//! there only if the publisher asked not to get its own messages back, or where the configuration
//! wants to know who published; then there is `mqtt-user` too, if the client logged in.

use crate::codec::{PublishProperties, Qos};
use crate::ingest::OWN_PREFIX;
use crate::message::Message;
use crate::topic;
use bytes::Bytes;
use skerry_store::{Kind, Record, RecordView, StreamName, WallNanos};
use std::borrow::Cow;

const QOS: &str = "mqtt-qos";
const RETAIN: &str = "mqtt-retain";
const CLIENT: &str = "mqtt-client";
const LOGIN: &str = "mqtt-user";
const CONTENT_TYPE: &str = "mqtt-content-type";
const RESPONSE_TOPIC: &str = "mqtt-response-topic";
const CORRELATION_DATA: &str = "mqtt-correlation-data";
const PAYLOAD_FORMAT: &str = "mqtt-payload-format";
const MESSAGE_EXPIRY: &str = "mqtt-message-expiry-seconds";
const USER: &str = "user-";

/// The record that stands for a client's message.
pub(crate) fn of(message: Message) -> Record {
    Record {
        kind: Kind::Mqtt,
        ingest_time: message.received,
        attributes: attributes(&message),
        source: message.topic,
        payload: message.payload,
        source_time: None,
        server_time: None,
        status: 0,
    }
}

fn attributes(message: &Message) -> Vec<(String, Bytes)> {
    let text =
        |name: &str, value: &str| (name.to_owned(), Bytes::copy_from_slice(value.as_bytes()));
    let mut attributes = Vec::new();
    match message.qos {
        Qos::AtMostOnce => attributes.push((QOS.to_owned(), Bytes::from_static(b"0"))),
        Qos::AtLeastOnce => {}
        Qos::ExactlyOnce => attributes.push((QOS.to_owned(), Bytes::from_static(b"2"))),
    }
    if message.retain {
        attributes.push((RETAIN.to_owned(), Bytes::from_static(b"1")));
    }
    if let Some(client) = &message.publisher {
        attributes.push(text(CLIENT, client));
    }
    let properties = &message.properties;
    if let Some(value) = &properties.content_type {
        attributes.push(text(CONTENT_TYPE, value));
    }
    if let Some(value) = &properties.response_topic {
        attributes.push(text(RESPONSE_TOPIC, value));
    }
    if let Some(value) = &properties.correlation_data {
        attributes.push((CORRELATION_DATA.to_owned(), value.clone()));
    }
    if let Some(is_text) = properties.payload_is_text {
        attributes.push(text(
            PAYLOAD_FORMAT,
            if is_text { "utf-8" } else { "bytes" },
        ));
    }
    if let Some(seconds) = properties.message_expiry_secs {
        attributes.push(text(MESSAGE_EXPIRY, &seconds.to_string()));
    }
    for (name, value) in &properties.user {
        attributes.push((header(name), Bytes::copy_from_slice(value.as_bytes())));
    }
    attributes
}

/// Says who published it; no message of a client carries that to others.
pub(crate) fn sign(record: &mut Record, user: &str) {
    let user = Bytes::copy_from_slice(user.as_bytes());
    record.attributes.push((LOGIN.to_owned(), user));
}

/// A user property that looks like a header of the node itself gets a prefix: what this node
/// says of a record must not be forgeable. So does one that looks prefixed already.
fn header(name: &str) -> String {
    if is_reserved(name) {
        format!("{USER}{name}")
    } else {
        name.to_owned()
    }
}

fn is_reserved(name: &str) -> bool {
    let bare = name.trim_start_matches(USER);
    bare.starts_with("skerry-") || bare.starts_with("mqtt-")
}

/// The property that [`header`] made a header of.
fn user_property(name: &str) -> &str {
    match name.strip_prefix(USER) {
        Some(rest) if is_reserved(rest) => rest,
        _ => name,
    }
}

/// The topic that subscribers know a record by; `None` for records that are no messages.
pub(crate) fn topic<'a>(
    record: &RecordView<'a>,
    stream: &StreamName,
    derived: bool,
) -> Option<Cow<'a, str>> {
    match record.kind {
        Kind::Mqtt => Some(Cow::Borrowed(record.source)),
        _ if derived => Some(Cow::Owned(derived_topic(stream, record.source))),
        _ => None,
    }
}

/// Sources are free text; a topic contains neither wildcards nor control characters.
pub(crate) fn derived_topic(stream: &StreamName, source: &str) -> String {
    let is_fine = |c: char| topic::is_name_character(c) && !matches!(c, '+' | '#');
    let source: String = source
        .chars()
        .map(|c| if is_fine(c) { c } else { '_' })
        .collect();
    format!("{OWN_PREFIX}{}/{source}", stream.as_str())
}

/// The message that a record of a derived stream stands for.
pub(crate) fn derived_message(stream: &StreamName, record: &Record) -> Message {
    let attributes = record.attributes.iter();
    let attributes = attributes.map(|(name, value)| (name.as_str(), &value[..]));
    derived(
        derived_topic(stream, &record.source),
        record.payload.clone(),
        record.ingest_time,
        attributes,
    )
}

fn derived<'a>(
    topic: String,
    payload: Bytes,
    received: WallNanos,
    attributes: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> Message {
    let mut message = Message {
        topic,
        payload,
        qos: Qos::AtLeastOnce,
        retain: true,
        properties: PublishProperties {
            content_type: Some("application/json".to_owned()),
            ..PublishProperties::default()
        },
        received,
        publisher: None,
    };
    for (name, value) in attributes {
        message.take(name, value);
    }
    message
}

/// Whether the record changed what is retained.
pub(crate) fn is_retained(record: &RecordView<'_>) -> bool {
    let mut attributes = record.attributes;
    attributes.any(|(name, _)| name == RETAIN)
}

/// The message that a record stands for, on the topic that [`topic`] names.
pub(crate) fn message(record: &RecordView<'_>, topic: String) -> Message {
    let payload = Bytes::copy_from_slice(record.payload);
    if record.kind != Kind::Mqtt {
        return derived(topic, payload, record.ingest_time, record.attributes);
    }
    let mut message = Message {
        topic,
        payload,
        qos: Qos::AtLeastOnce,
        retain: false,
        properties: PublishProperties::default(),
        received: record.ingest_time,
        publisher: None,
    };
    for (name, value) in record.attributes {
        message.take(name, value);
    }
    message
}

impl Message {
    /// Takes over an attribute. What does not read as ours is left out.
    fn take(&mut self, name: &str, value: &[u8]) {
        let text = || std::str::from_utf8(value).ok().map(str::to_owned);
        match name {
            QOS => {
                self.qos = if value == b"0" {
                    Qos::AtMostOnce
                } else {
                    Qos::ExactlyOnce
                }
            }
            RETAIN => self.retain = true,
            CLIENT => self.publisher = text(),
            // Of the log, not of the message.
            LOGIN => {}
            CONTENT_TYPE => self.properties.content_type = text(),
            RESPONSE_TOPIC => self.properties.response_topic = text(),
            CORRELATION_DATA => {
                self.properties.correlation_data = Some(Bytes::copy_from_slice(value));
            }
            PAYLOAD_FORMAT => self.properties.payload_is_text = Some(value == b"utf-8"),
            MESSAGE_EXPIRY => {
                self.properties.message_expiry_secs = text().and_then(|text| text.parse().ok());
            }
            _ => {
                let user = text().map(|value| (user_property(name).to_owned(), value));
                self.properties.user.extend(user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use skerry_store::{Append, Log, Offset, Options, StreamOptions};

    fn property() -> impl Strategy<Value = (String, String)> {
        let name = prop_oneof!["[a-z]{0,5}", "(user-){0,3}(mqtt-qos|skerry-offset|unit)"];
        (name, "[a-zü]{0,4}")
    }

    prop_compose! {
        fn any_message()(
            topic in "[a-zü/]{1,9}",
            payload in proptest::collection::vec(any::<u8>(), 0..20),
            qos in 0..3_u8,
            retain: bool,
            publisher in proptest::option::of("[a-z]{1,5}"),
            content_type in proptest::option::of("[a-z]{0,5}"),
            response_topic in proptest::option::of("[a-z]{0,5}"),
            correlation_data in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..5)),
            payload_is_text: Option<bool>,
            message_expiry_secs: Option<u32>,
            user in proptest::collection::vec(property(), 0..4),
        ) -> Message {
            Message {
                topic,
                payload: payload.into(),
                qos: Qos::from_bits(qos).expect("0 to 2"),
                retain,
                properties: PublishProperties {
                    payload_is_text,
                    message_expiry_secs,
                    topic_alias: None,
                    response_topic,
                    correlation_data: correlation_data.map(Bytes::from),
                    content_type,
                    user,
                },
                received: WallNanos(7),
                publisher,
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]
        /// Through a real log: what comes out is what went in.
        #[test]
        fn a_record_stands_for_its_message(messages in proptest::collection::vec(any_message(), 1..20)) {
            let directory = tempfile::tempdir().expect("a directory");
            let name = StreamName::new("default").expect("a name");
            let mut options = Options::new(directory.path());
            options.allow_volatile = true;
            options.streams = vec![StreamOptions::new(name.clone(), u64::MAX)];
            let (log, _) = Log::open(options).expect("opened");
            let append = Append {
                stream: name.clone(),
                records: messages.iter().cloned().map(of).collect(),
                changes: Vec::new(),
            };
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(log.append(append)).expect("appended");
            let mut reader = log.reader(&name, Offset::ZERO).expect("a reader");
            let views = reader.next_views().expect("read");
            let mut found = Vec::new();
            for (_, view) in views.records {
                let topic = topic(&view, &name, false).expect("a message");
                prop_assert_eq!(is_retained(&view), messages[found.len()].retain);
                found.push(message(&view, topic.into_owned()));
            }
            prop_assert_eq!(found, messages);
        }
    }

    #[test]
    fn a_client_cannot_forge_the_node_s_own_headers() {
        for (name, expected) in [
            ("unit", "unit"),
            ("user-unit", "user-unit"),
            ("skerry-offset", "user-skerry-offset"),
            ("user-mqtt-qos", "user-user-mqtt-qos"),
        ] {
            assert_eq!(header(name), expected);
            assert_eq!(user_property(expected), name);
        }
    }

    #[test]
    fn who_published_is_in_the_log_and_not_told_to_subscribers() {
        let publish = Message {
            topic: "cmd/a".to_owned(),
            payload: Bytes::from_static(b"1"),
            qos: Qos::AtLeastOnce,
            retain: false,
            properties: PublishProperties::default(),
            received: WallNanos(7),
            publisher: Some("panel".to_owned()),
        };
        let mut record = of(publish.clone());
        sign(&mut record, "ada");
        let client = (CLIENT.to_owned(), Bytes::from_static(b"panel"));
        let user = (LOGIN.to_owned(), Bytes::from_static(b"ada"));
        assert_eq!(record.attributes, [client, user]);
        let mut read = Message {
            publisher: None,
            ..publish.clone()
        };
        for (name, value) in &record.attributes {
            read.take(name, value);
        }
        assert_eq!(read, publish);
    }

    #[test]
    fn any_source_becomes_a_topic() {
        let stream = StreamName::new("alerts").expect("a name");
        let named = derived_topic(&stream, "a+b#c\0d\n");
        assert_eq!(named, "skerry/alerts/a_b_c_d_");
        assert!(topic::is_name(&named));
    }
}
