//! A message on its way from the log to subscribers.

use crate::codec::{Decoder, Incoming, PacketId, Publish, PublishProperties, PublishView, Qos};
use crate::codec::{Version, Wire, encode_publish};
use bytes::{BufMut, Bytes, BytesMut};
use skerry_store::WallNanos;

/// What subscribers get and what is retained: a PUBLISH that this node took in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub topic: String,
    pub payload: Bytes,
    pub qos: Qos,
    pub retain: bool,
    pub properties: PublishProperties,
    /// When this node took it in; its expiry counts from here.
    pub received: WallNanos,
    /// Client id of the publisher, where that has a subscription with "no local".
    pub publisher: Option<String>,
}

/// How long a message may still be delivered (5.0, 3.3.2.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Unlimited,
    Seconds(u32),
    Over,
}

impl Message {
    pub(crate) fn new(publish: Publish, received: WallNanos, publisher: Option<String>) -> Self {
        Self {
            topic: publish.topic,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            properties: PublishProperties {
                // An alias names a topic on one connection only.
                topic_alias: None,
                ..publish.properties
            },
            received,
            publisher,
        }
    }

    /// What it takes in memory, roughly.
    pub(crate) fn bytes(&self) -> usize {
        256 + self.topic.len() + self.payload.len()
    }

    /// The bytes that go into the `retained` bucket and into a saved will:
    ///
    /// ```text
    /// received, i64 ns │ 0, u64 │ an MQTT 5 PUBLISH packet
    /// ```
    ///
    /// Integers are big-endian, as everywhere in MQTT. Using the packet itself spares a second
    /// format for the same fields.
    pub(crate) fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64 + self.topic.len() + self.payload.len());
        out.put_i64(self.received.0);
        out.put_u64(0);
        let publish = PublishView {
            dup: false,
            qos: self.qos,
            retain: self.retain,
            topic: &self.topic,
            alias: None,
            id: (self.qos != Qos::AtMostOnce).then_some(PacketId::MIN),
            payload: &self.payload,
            properties: &self.properties,
            expiry_secs: self.properties.message_expiry_secs,
            subscriptions: &[],
        };
        encode_publish(&publish, Version::V5, &mut out);
        out.freeze()
    }

    /// Reads what [`Message::to_bytes`] wrote; `None` for anything else.
    pub(crate) fn from_bytes(bytes: Bytes) -> Option<Self> {
        let mut wire = Wire(bytes);
        let received = WallNanos(wire.i64().ok()?);
        wire.u64().ok()?;
        let mut packet = BytesMut::from(wire.rest());
        match Decoder::of(Version::V5, usize::MAX).next(&mut packet) {
            Ok(Some(Incoming::Publish(publish))) => Some(Self::new(publish, received, None)),
            _ => None,
        }
    }

    /// What is left of the message's life. A wall clock that jumped back does not age it, nor does
    /// one that was set for the first time.
    pub(crate) fn life(&self, now: WallNanos) -> Life {
        let Some(expiry) = self.properties.message_expiry_secs else {
            return Life::Unlimited;
        };
        let age = now.since(self.received).as_secs();
        match u64::from(expiry).saturating_sub(age) {
            0 => Life::Over,
            left => Life::Seconds(u32::try_from(left).unwrap_or(expiry)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        Message {
            topic: "ü/t".into(),
            payload: Bytes::from_static(b"\0payload"),
            qos: Qos::ExactlyOnce,
            retain: true,
            properties: PublishProperties {
                message_expiry_secs: Some(10),
                user: vec![("a".into(), "b".into())],
                ..PublishProperties::default()
            },
            received: WallNanos(5_000_000_000),
            publisher: None,
        }
    }

    #[test]
    fn bytes_round_trip() {
        let message = message();
        assert_eq!(Message::from_bytes(message.to_bytes()), Some(message));
        assert_eq!(Message::from_bytes(Bytes::from_static(b"rubbish")), None);
    }

    #[test]
    fn life_runs_out_and_survives_a_clock_that_jumps_back() {
        let message = message();
        let at = |seconds: i64| message.life(WallNanos(seconds * 1_000_000_000));
        assert_eq!(at(5), Life::Seconds(10));
        assert_eq!(at(14), Life::Seconds(1));
        assert_eq!(at(15), Life::Over);
        assert_eq!(at(-100), Life::Seconds(10));
        // From 1970 to the present: none of it passed.
        assert_eq!(at(1_800_000_000), Life::Seconds(10));
    }
}
