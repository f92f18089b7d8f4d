//! MQTT 3.1.1 and 5.0 packets, as a server reads and writes them.
//!
//! Why a codec of our own and not rumqttd's `protocol` module: that hides duplicate flag, QoS and
//! packet id in both directions, it ends in `unreachable!` on packets that only a server may send,
//! and it accepts set reserved bits, NUL in texts, repeated properties and bytes after the end.
//! Mapping another crate's two sets of packet types (one per version) onto one session would take
//! as many lines as this module.
//!
//! [`Decoder`] yields [`Incoming`], [`encode`] takes [`Outgoing`]: a packet that a client may not
//! send cannot be represented, so nothing downstream has to handle it. No I/O, no panic on any
//! input, and no allocation that the bytes at hand do not pay for.
//!
//! Where the standard leaves a choice, this is how it is taken:
//! - MQTT 3.1 ("MQIsdp") is served as 3.1.1: old devices speak it and nothing they send differs,
//!   except that a client must name itself and that CONNECT's flag bits mean nothing.
//! - Control and non-characters are malformed in topics, filters, client ids and user names, and
//!   pass in the texts of properties.
//! - A property that is known but misplaced, repeated or out of range is a protocol error, one
//!   that is unknown or cut short is malformed.

mod decode;
mod encode;
mod explain;
mod properties;
#[cfg(test)]
mod tests;
mod wire;

pub(crate) use decode::Decoder;
pub(crate) use encode::{Alias, PublishView, Terms, encode, encode_publish};
pub(crate) use properties::{ConnAckProperties, ConnectProperties, PublishProperties};
pub(crate) use wire::Wire;

use bytes::Bytes;

/// The protocol a connection speaks, from the level byte of its CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// MQTT 3.1.1, level 4, and with it 3.1, level 3.
    V311,
    /// MQTT 5.0, level 5.
    V5,
}

/// Quality of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(u8)]
#[expect(clippy::enum_variant_names, reason = "the standard's own words")]
pub(crate) enum Qos {
    #[default]
    AtMostOnce = 0,
    AtLeastOnce = 1,
    ExactlyOnce = 2,
}

impl Qos {
    pub(crate) const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// Packet identifier, never zero (3.1.1 and 5.0, 2.2.1).
pub(crate) type PacketId = std::num::NonZeroU16;

/// What a client may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Incoming {
    Connect(Box<Connect>),
    Publish(Publish),
    PubAck(Ack),
    PubRec(Ack),
    PubRel(Ack),
    PubComp(Ack),
    Subscribe(Subscribe),
    Unsubscribe(Unsubscribe),
    PingReq,
    Disconnect(Disconnect),
    Auth,
}

/// What a server may send, PUBLISH apart (see [`encode_publish`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outgoing {
    ConnAck {
        session_present: bool,
        code: u8,
        properties: Box<ConnAckProperties>,
    },
    PubAck(Ack),
    PubRec(Ack),
    PubRel(Ack),
    PubComp(Ack),
    SubAck {
        id: PacketId,
        codes: Vec<u8>,
    },
    UnsubAck {
        id: PacketId,
        codes: Vec<u8>,
    },
    PingResp,
    /// Version 5 only; nothing is written for 3.1.1.
    Disconnect {
        reason: u8,
        /// More than the reason says of itself.
        why: Option<String>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connect {
    pub version: Version,
    pub client_id: String,
    /// MQTT 3.1 has no "the server names the client".
    pub must_name_itself: bool,
    /// "Clean session" in 3.1.1, "clean start" in 5.0.
    pub clean: bool,
    pub keep_alive_secs: u16,
    pub will: Option<Publish>,
    /// How long the will waits for its client to come back (5.0, 3.1.3.2.2).
    pub will_delay_secs: u32,
    pub credentials: Credentials,
    pub properties: ConnectProperties,
}

/// User name and password of a CONNECT. `Debug` does not show the password.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Credentials {
    pub user: Option<String>,
    /// Empty where there is none.
    pub password: Bytes,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Publish {
    pub dup: bool,
    pub qos: Qos,
    pub retain: bool,
    /// Empty where a version 5 topic alias stands in for it.
    pub topic: String,
    /// `None` exactly for QoS 0 (and for wills).
    pub id: Option<PacketId>,
    pub payload: Bytes,
    pub properties: PublishProperties,
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ack {
    pub id: PacketId,
    /// 0 in 3.1.1.
    pub reason: u8,
}

impl Ack {
    pub(crate) const fn ok(id: PacketId) -> Self {
        Self { id, reason: 0 }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subscribe {
    pub id: PacketId,
    pub subscription_id: Option<u32>,
    pub filters: Vec<(String, SubscribeOptions)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SubscribeOptions {
    pub qos: Qos,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub retain_handling: RetainHandling,
}

/// Which retained messages a SUBSCRIBE asks for (5.0, 3.8.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum RetainHandling {
    #[default]
    Always,
    IfNew,
    Never,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unsubscribe {
    pub id: PacketId,
    pub filters: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Disconnect {
    /// 0 is a normal end; 0x04 asks for the will nevertheless.
    pub reason: u8,
    pub session_expiry_secs: Option<u32>,
}

/// Reason codes of version 5 that this broker uses (2.4).
pub(crate) mod reason {
    pub(crate) const WITH_WILL: u8 = 0x04;
    pub(crate) const NO_SUBSCRIPTION_EXISTED: u8 = 0x11;
    pub(crate) const UNSPECIFIED: u8 = 0x80;
    pub(crate) const MALFORMED: u8 = 0x81;
    pub(crate) const PROTOCOL_ERROR: u8 = 0x82;
    pub(crate) const IMPLEMENTATION_SPECIFIC: u8 = 0x83;
    pub(crate) const UNSUPPORTED_VERSION: u8 = 0x84;
    pub(crate) const CLIENT_ID_INVALID: u8 = 0x85;
    pub(crate) const BAD_USER_OR_PASSWORD: u8 = 0x86;
    pub(crate) const NOT_AUTHORIZED: u8 = 0x87;
    pub(crate) const SERVER_BUSY: u8 = 0x89;
    pub(crate) const BANNED: u8 = 0x8A;
    pub(crate) const SHUTTING_DOWN: u8 = 0x8B;
    pub(crate) const BAD_AUTH_METHOD: u8 = 0x8C;
    pub(crate) const KEEP_ALIVE_TIMEOUT: u8 = 0x8D;
    pub(crate) const TAKEN_OVER: u8 = 0x8E;
    pub(crate) const FILTER_INVALID: u8 = 0x8F;
    pub(crate) const RECEIVE_MAXIMUM: u8 = 0x93;
    pub(crate) const TOPIC_ALIAS_INVALID: u8 = 0x94;
    pub(crate) const PACKET_TOO_LARGE: u8 = 0x95;
    pub(crate) const QUOTA_EXCEEDED: u8 = 0x97;
    pub(crate) const PAYLOAD_FORMAT_INVALID: u8 = 0x99;
    pub(crate) const ADMINISTRATIVE_ACTION: u8 = 0x98;
    pub(crate) const CONNECTION_RATE_EXCEEDED: u8 = 0x9F;
}

/// Why bytes are not a packet that this connection may send now. Ends that connection, and only it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("the remaining length takes more than four bytes")]
    Length,
    #[error("the packet is larger than this node accepts")]
    TooLarge,
    #[error("reserved bits are set")]
    ReservedBits,
    #[error("a client may not send this packet type")]
    PacketType,
    #[error("the packet ends in the middle of a field")]
    Truncated,
    #[error("bytes follow the packet's last field")]
    TrailingBytes,
    #[error("a text is not UTF-8, contains NUL, or is a name with control characters")]
    Text,
    #[error("the client id is not UTF-8, or has control characters: choose another")]
    ClientId,
    #[error("the QoS bits say 3, or a duplicate flag at QoS 0")]
    Qos,
    #[error("the packet id is zero")]
    PacketId,
    #[error("a property is not for this packet, repeated, or out of range")]
    Property,
    #[error("a property is unknown")]
    UnknownProperty,
    #[error("a reason code is not one of this packet's")]
    ReasonCode,
    #[error("the first packet is not CONNECT")]
    NotConnect,
    #[error("this is TLS, and the listener speaks MQTT without it")]
    Tls,
    #[error("this is HTTP, and the listener speaks MQTT without WebSocket")]
    Http,
    #[error("a second CONNECT")]
    SecondConnect,
    #[error("the protocol name is not MQTT")]
    ProtocolName,
    #[error("protocol level {0} is neither 3.1.1 nor 5.0")]
    ProtocolLevel(u8),
    #[error("the topic to publish to contains a wildcard")]
    Topic,
    #[error("the topic is empty, and no topic alias stands for one")]
    NoTopic,
    #[error("a topic alias is zero, or higher than CONNACK allows")]
    TopicAlias,
    #[error(
        "a topic filter is malformed: + and # fill a whole level, # only the last, and $share/ is \
         followed by group and filter"
    )]
    Filter,
    #[error("a shared subscription cannot be \"no local\"")]
    SharedNoLocal,
    #[error("SUBSCRIBE or UNSUBSCRIBE without a topic filter")]
    NoFilter,
    #[error("more unacknowledged publishes than the receive maximum allows")]
    ReceiveMaximum,
    #[error("an acknowledgement of the wrong kind, or out of turn, for its packet id")]
    Acknowledgement,
    #[error("DISCONNECT makes a session last that CONNECT had end with its connection")]
    SessionExpiry,
    #[error("AUTH without enhanced authentication: log in with user and password")]
    Auth,
}

impl Malformed {
    /// The word under which it is counted.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Length => "length",
            Self::TooLarge => "too_large",
            Self::ReservedBits => "reserved_bits",
            Self::PacketType => "packet_type",
            Self::Truncated => "truncated",
            Self::TrailingBytes => "trailing_bytes",
            Self::Text => "text",
            Self::ClientId => "client_id",
            Self::Qos => "qos",
            Self::PacketId => "packet_id",
            Self::Property => "property",
            Self::UnknownProperty => "unknown_property",
            Self::ReasonCode => "reason_code",
            Self::NotConnect => "not_connect",
            Self::Tls => "tls_on_plain_port",
            Self::Http => "http_on_mqtt_port",
            Self::SecondConnect => "second_connect",
            Self::ProtocolName => "protocol_name",
            Self::ProtocolLevel(_) => "protocol_level",
            Self::Topic => "topic",
            Self::NoTopic => "no_topic",
            Self::TopicAlias => "topic_alias",
            Self::Filter => "filter",
            Self::SharedNoLocal => "shared_no_local",
            Self::NoFilter => "no_filter",
            Self::ReceiveMaximum => "receive_maximum",
            Self::Acknowledgement => "acknowledgement",
            Self::SessionExpiry => "session_expiry",
            Self::Auth => "auth",
        }
    }

    /// What a version 5 DISCONNECT or CONNACK says of it.
    pub(crate) const fn reason(self) -> u8 {
        match self {
            Self::TooLarge => reason::PACKET_TOO_LARGE,
            Self::ProtocolName | Self::ProtocolLevel(_) => reason::UNSUPPORTED_VERSION,
            Self::ClientId => reason::CLIENT_ID_INVALID,
            Self::TopicAlias => reason::TOPIC_ALIAS_INVALID,
            Self::ReceiveMaximum => reason::RECEIVE_MAXIMUM,
            Self::Property
            | Self::ReasonCode
            | Self::PacketId
            | Self::NotConnect
            | Self::Tls
            | Self::Http
            | Self::SecondConnect
            | Self::NoTopic
            | Self::NoFilter
            | Self::SharedNoLocal
            | Self::Acknowledgement
            | Self::SessionExpiry
            | Self::Auth
            | Self::PacketType => reason::PROTOCOL_ERROR,
            Self::Length
            | Self::ReservedBits
            | Self::Truncated
            | Self::TrailingBytes
            | Self::Text
            | Self::Topic
            | Self::Filter
            | Self::UnknownProperty
            | Self::Qos => reason::MALFORMED,
        }
    }
}
