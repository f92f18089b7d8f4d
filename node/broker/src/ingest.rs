//! From a PUBLISH to an append, and from its commit to subscribers.

use crate::codec::{PacketId, Publish, PublishProperties, Qos, reason};
use crate::config::Config;
use crate::error::Error;
use crate::fanout::Fanout;
use crate::gaps::Gaps;
use crate::message::Message;
use crate::qos2::{self, Digest};
use crate::registry::Registry;
use crate::retained::Retained;
use crate::status::Status;
use bytes::Bytes;
use skerry_store::{Append, Change, Class, Kind, Log, Record, StreamName, WallNanos};
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// Topics under this are the node's own: it publishes derived streams there.
pub(crate) const OWN_PREFIX: &str = "skerry/";
/// Topics under these mean something to brokers, or nothing at all: nobody can subscribe to a
/// topic that starts with `$share/`.
const BROKER_PREFIXES: [&str; 3] = ["$SYS/", "$share/", "$CONTROL/"];

/// What connections, wills and the republisher share.
pub(crate) struct Ingest {
    pub log: Log,
    pub config: Config,
    pub status: Arc<Status>,
    pub retained: Retained,
    pub registry: Arc<Registry>,
    pub gaps: Gaps,
    fanout: Fanout,
    /// Set when the log has failed for good or the fan-out is gone.
    fatal: Mutex<Option<Error>>,
    stopped: CancellationToken,
}

/// Why a publish is not in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The stream's limit is reached.
    Full,
    /// The disk is full or failing.
    Storage,
    /// This record cannot be logged at all.
    Rejected,
    /// The log has failed for good.
    Fatal,
    /// Clients may not publish there.
    NotAllowed,
    /// The payload is not the text that it says it is.
    PayloadFormat,
}

impl Refusal {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Storage => "storage",
            Self::Rejected => "rejected",
            Self::Fatal => "fatal",
            Self::NotAllowed => "not_allowed",
            Self::PayloadFormat => "payload_format",
        }
    }

    /// The reason code of a version 5 PUBACK or PUBREC.
    pub(crate) const fn reason(self) -> u8 {
        match self {
            Self::Full => reason::QUOTA_EXCEEDED,
            Self::NotAllowed => reason::NOT_AUTHORIZED,
            Self::PayloadFormat => reason::PAYLOAD_FORMAT_INVALID,
            Self::Storage | Self::Rejected | Self::Fatal => reason::IMPLEMENTATION_SPECIFIC,
        }
    }
}

/// A PUBLISH made ready for the log.
pub(crate) struct Prepared {
    pub append: Append,
    pub message: Message,
}

impl Ingest {
    pub(crate) fn new(
        log: Log,
        config: Config,
        status: Arc<Status>,
        retained: Retained,
        registry: Arc<Registry>,
        fanout: Fanout,
        stopped: CancellationToken,
    ) -> Self {
        status.retained.set(retained.len());
        Self {
            log,
            config,
            status,
            retained,
            registry,
            gaps: Gaps::default(),
            fanout,
            fatal: Mutex::new(None),
            stopped,
        }
    }

    /// Whether a client may publish to `topic`.
    pub(crate) fn check(&self, topic: &str) -> Result<(), Refusal> {
        let is_reserved = |prefix: &&str| topic.starts_with(*prefix);
        if [OWN_PREFIX].iter().chain(&BROKER_PREFIXES).any(is_reserved) {
            Err(Refusal::NotAllowed)
        } else {
            Ok(())
        }
    }

    /// The append for a client's publish: record, retained message and, where `qos2` names the
    /// client of a lasting session, the packet id; all of it or nothing.
    pub(crate) fn prepare(
        &self,
        publish: Publish,
        origin: u64,
        qos2: Option<(&str, PacketId)>,
    ) -> Prepared {
        let now = WallNanos::now();
        let stream = self.config.stream_of(&publish.topic).clone();
        let mut changes = Vec::new();
        if let Some((client_id, id)) = qos2 {
            changes.push(Change::Put {
                bucket: qos2::BUCKET.to_owned(),
                key: qos2::key(client_id, id),
                value: Digest::of(&publish.topic, &publish.payload).to_bytes(),
            });
        }
        let mut message = Message::new(publish, now, origin);
        match self.retained.change(&message) {
            Ok(change) => changes.extend(change),
            Err(_) => {
                // Delivered and logged, only not retained: refusing the whole record would lose
                // more than the retain flag.
                message.retain = false;
                self.status.retained_refused.up();
            }
        }
        let record = Record {
            ingest_time: now,
            attributes: attributes(&message.properties),
            ..Record::new(Kind::Mqtt, message.topic.clone(), message.payload.clone())
        };
        Prepared {
            append: Append {
                stream,
                records: vec![record],
                changes,
            },
            message,
        }
    }

    /// The message is on disk: retained from now on, and out to subscribers.
    pub(crate) async fn committed(&self, message: &Message) {
        if message.retain {
            self.retained.committed(&self.log, message);
            self.status.retained.set(self.retained.len());
        }
        if self.registry.has_subscriptions()
            && let Err(error) = self.fanout.publish(message).await
        {
            self.fail(error);
        }
    }

    /// What a failed append means. A fatal one stops the broker: nothing could be acknowledged.
    pub(crate) fn refusal(&self, error: &skerry_store::Error) -> Refusal {
        match error.class() {
            Class::Full => Refusal::Full,
            Class::Retry => Refusal::Storage,
            Class::Reject => Refusal::Rejected,
            Class::Fatal => {
                self.fail(Error::Log(error.clone()));
                Refusal::Fatal
            }
        }
    }

    /// Counts a refusal. Where nobody is told (QoS 0, wills) a gap record will tell.
    pub(crate) fn refused(&self, stream: &StreamName, refusal: Refusal, untold: bool) {
        if self.status.refused.up(refusal.word()) == 0 {
            tracing::warn!(%refusal, stream = stream.as_str(), "a publish was refused");
        }
        if untold && refusal != Refusal::NotAllowed {
            self.gaps.note(stream, refusal.word(), WallNanos::now());
        }
    }

    /// Logs and fans out a will. Nobody waits for an answer.
    pub(crate) async fn will(&self, will: Publish, origin: u64) {
        self.status.published(will.qos);
        let stream = self.config.stream_of(&will.topic).clone();
        let refusal = match self.check(&will.topic) {
            Err(refusal) => refusal,
            Ok(()) => {
                let Prepared { append, message } = self.prepare(will, origin, None);
                match self.log.append(append).await {
                    Ok(_) => return self.committed(&message).await,
                    Err(error) => self.refusal(&error),
                }
            }
        };
        self.refused(&stream, refusal, true);
    }

    /// Ends the broker with `error`; the first one counts.
    pub(crate) fn fail(&self, error: Error) {
        let mut fatal = self.fatal.lock().unwrap_or_else(PoisonError::into_inner);
        fatal.get_or_insert(error);
        self.stopped.cancel();
    }

    pub(crate) fn take_fatal(&self) -> Option<Error> {
        self.fatal
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

/// MQTT 5 properties as they travel with the record. A user property that looks like a header of
/// the node itself gets a prefix: what this node says of a record must not be forgeable.
fn attributes(properties: &PublishProperties) -> Vec<(String, Bytes)> {
    let text = |name: &str, value: &String| (name.to_owned(), Bytes::from(value.clone()));
    let mut attributes = Vec::new();
    if let Some(value) = &properties.content_type {
        attributes.push(text("mqtt-content-type", value));
    }
    if let Some(value) = &properties.response_topic {
        attributes.push(text("mqtt-response-topic", value));
    }
    if let Some(value) = &properties.correlation_data {
        attributes.push(("mqtt-correlation-data".to_owned(), value.clone()));
    }
    if properties.payload_is_text == Some(true) {
        attributes.push((
            "mqtt-payload-format".to_owned(),
            Bytes::from_static(b"utf-8"),
        ));
    }
    if let Some(seconds) = properties.message_expiry_secs {
        attributes.push(text("mqtt-message-expiry-seconds", &seconds.to_string()));
    }
    for (name, value) in &properties.user {
        let reserved = name.starts_with("skerry-") || name.starts_with("mqtt-");
        let name = if reserved {
            format!("user-{name}")
        } else {
            name.clone()
        };
        attributes.push((name, Bytes::from(value.clone())));
    }
    attributes
}

/// Lowest QoS at which a refusal reaches somebody.
pub(crate) const fn is_untold(qos: Qos) -> bool {
    matches!(qos, Qos::AtMostOnce)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_cannot_forge_the_node_s_own_headers() {
        let properties = PublishProperties {
            content_type: Some("application/json".into()),
            user: vec![
                ("unit".into(), "bar".into()),
                ("skerry-offset".into(), "7".into()),
                ("mqtt-content-type".into(), "x".into()),
            ],
            ..PublishProperties::default()
        };
        let names: Vec<String> = attributes(&properties)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(
            names,
            [
                "mqtt-content-type",
                "unit",
                "user-skerry-offset",
                "user-mqtt-content-type"
            ]
        );
    }
}
