//! Properties of version 5 (2.2.2). Every one that this node does not act on is still checked and
//! then either carried along or dropped.

use super::Malformed;
use super::encode::Alias;
use super::wire::{Wire, put_binary, put_text, put_varint};
use crate::topic;
use bytes::{BufMut, Bytes, BytesMut};

/// A variable byte integer by the standard's letter; all of them fit one byte.
mod id {
    pub(super) const PAYLOAD_FORMAT: u8 = 0x01;
    pub(super) const MESSAGE_EXPIRY: u8 = 0x02;
    pub(super) const CONTENT_TYPE: u8 = 0x03;
    pub(super) const RESPONSE_TOPIC: u8 = 0x08;
    pub(super) const CORRELATION_DATA: u8 = 0x09;
    pub(super) const SUBSCRIPTION_ID: u8 = 0x0B;
    pub(super) const SESSION_EXPIRY: u8 = 0x11;
    pub(super) const ASSIGNED_CLIENT_ID: u8 = 0x12;
    pub(super) const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub(super) const AUTH_METHOD: u8 = 0x15;
    pub(super) const AUTH_DATA: u8 = 0x16;
    pub(super) const REQUEST_PROBLEM: u8 = 0x17;
    pub(super) const WILL_DELAY: u8 = 0x18;
    pub(super) const RESPONSE_INFORMATION: u8 = 0x1A;
    pub(super) const REQUEST_RESPONSE: u8 = 0x19;
    pub(super) const SERVER_REFERENCE: u8 = 0x1C;
    pub(super) const REASON_STRING: u8 = 0x1F;
    pub(super) const RECEIVE_MAXIMUM: u8 = 0x21;
    pub(super) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub(super) const TOPIC_ALIAS: u8 = 0x23;
    pub(super) const QOS_MAXIMUM: u8 = 0x24;
    pub(super) const RETAIN_AVAILABLE: u8 = 0x25;
    pub(super) const USER: u8 = 0x26;
    pub(super) const PACKET_SIZE_MAXIMUM: u8 = 0x27;
    pub(super) const WILDCARD_AVAILABLE: u8 = 0x28;
    pub(super) const SUBSCRIPTION_ID_AVAILABLE: u8 = 0x29;
    pub(super) const SHARED_AVAILABLE: u8 = 0x2A;
}

/// What a message carries besides topic and payload.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PublishProperties {
    /// The payload is UTF-8 text, says the publisher.
    pub payload_is_text: Option<bool>,
    pub message_expiry_secs: Option<u32>,
    pub topic_alias: Option<u16>,
    pub response_topic: Option<String>,
    pub correlation_data: Option<Bytes>,
    pub content_type: Option<String>,
    pub user: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ConnectProperties {
    pub session_expiry_secs: Option<u32>,
    pub receive_maximum: Option<u16>,
    pub packet_bytes_max: Option<u32>,
    /// Topic aliases that the client takes; none without this.
    pub topic_alias_maximum: Option<u16>,
    /// False where the client wants no reason strings but in CONNACK and DISCONNECT.
    pub wants_reasons: Option<bool>,
    /// The method's name, where the client asks for enhanced authentication.
    pub auth_method: Option<String>,
}

/// What CONNACK announces; everything at its default is left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ConnAckProperties {
    pub session_expiry_secs: Option<u32>,
    pub receive_maximum: Option<u16>,
    pub packet_bytes_max: Option<u32>,
    pub assigned_client_id: Option<String>,
    /// The keep-alive that holds instead of the client's.
    pub server_keep_alive_secs: Option<u16>,
    pub topic_alias_maximum: u16,
    /// More than the reason code says of itself.
    pub reason_string: Option<String>,
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), Malformed> {
    if slot.replace(value).is_some() {
        return Err(Malformed::Property);
    }
    Ok(())
}

/// Calls `property` for each identifier of a block; it must read that property's value.
fn each(
    wire: &mut Wire,
    mut property: impl FnMut(u8, &mut Wire) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let length = usize::try_from(wire.varint()?).map_err(|_| Malformed::Length)?;
    let mut block = Wire(wire.take(length)?);
    while !block.is_empty() {
        let identifier = u8::try_from(block.varint()?).map_err(|_| Malformed::UnknownProperty)?;
        property(identifier, &mut block)?;
    }
    Ok(())
}

/// A property that the packet at hand cannot have. Its value is read, so that one that is cut
/// short is told from one that is misplaced.
fn misplaced(identifier: u8, wire: &mut Wire) -> Result<(), Malformed> {
    match identifier {
        id::PAYLOAD_FORMAT
        | id::REQUEST_PROBLEM
        | id::REQUEST_RESPONSE
        | id::QOS_MAXIMUM
        | id::RETAIN_AVAILABLE
        | id::WILDCARD_AVAILABLE
        | id::SUBSCRIPTION_ID_AVAILABLE
        | id::SHARED_AVAILABLE => wire.u8().map(drop)?,
        id::SERVER_KEEP_ALIVE | id::RECEIVE_MAXIMUM | id::TOPIC_ALIAS_MAXIMUM | id::TOPIC_ALIAS => {
            wire.u16().map(drop)?
        }
        id::MESSAGE_EXPIRY | id::SESSION_EXPIRY | id::WILL_DELAY | id::PACKET_SIZE_MAXIMUM => {
            wire.u32().map(drop)?;
        }
        id::SUBSCRIPTION_ID => wire.varint().map(drop)?,
        id::CORRELATION_DATA | id::AUTH_DATA => wire.binary().map(drop)?,
        id::CONTENT_TYPE
        | id::RESPONSE_TOPIC
        | id::ASSIGNED_CLIENT_ID
        | id::AUTH_METHOD
        | id::RESPONSE_INFORMATION
        | id::SERVER_REFERENCE
        | id::REASON_STRING => wire.text().map(drop)?,
        id::USER => user_property(wire).map(drop)?,
        _ => return Err(Malformed::UnknownProperty),
    }
    Err(Malformed::Property)
}

/// Where an answer is to go: a topic that can be published to (3.3.2.3.5).
fn response_topic(wire: &mut Wire) -> Result<String, Malformed> {
    let topic = wire.name()?;
    if topic::is_name(&topic) {
        Ok(topic)
    } else {
        Err(Malformed::Property)
    }
}

fn user_property(wire: &mut Wire) -> Result<(String, String), Malformed> {
    Ok((wire.text()?, wire.text()?))
}

impl PublishProperties {
    pub(super) fn read(wire: &mut Wire) -> Result<Self, Malformed> {
        let mut read = Self::default();
        each(wire, |identifier, wire| match identifier {
            id::TOPIC_ALIAS => once(&mut read.topic_alias, wire.u16()?),
            _ => read.message_property(identifier, wire),
        })?;
        Ok(read)
    }

    /// A will's properties, and its delay if it has one.
    pub(super) fn read_will(wire: &mut Wire, delay_secs: &mut u32) -> Result<Self, Malformed> {
        let mut read = Self::default();
        let mut delay = None;
        each(wire, |identifier, wire| match identifier {
            id::WILL_DELAY => once(&mut delay, wire.u32()?),
            _ => read.message_property(identifier, wire),
        })?;
        *delay_secs = delay.unwrap_or(0);
        Ok(read)
    }

    /// A subscription identifier from a client is an error (3.3.4), hence not among these.
    fn message_property(&mut self, identifier: u8, wire: &mut Wire) -> Result<(), Malformed> {
        match identifier {
            id::PAYLOAD_FORMAT => once(&mut self.payload_is_text, wire.flag()?),
            id::MESSAGE_EXPIRY => once(&mut self.message_expiry_secs, wire.u32()?),
            id::CONTENT_TYPE => once(&mut self.content_type, wire.text()?),
            id::RESPONSE_TOPIC => once(&mut self.response_topic, response_topic(wire)?),
            id::CORRELATION_DATA => once(&mut self.correlation_data, wire.binary()?),
            id::USER => {
                self.user.push(user_property(wire)?);
                Ok(())
            }
            _ => misplaced(identifier, wire),
        }
    }

    /// Writes the block with its length. `expiry_secs` is what is left of the message's life,
    /// `subscriptions` are the receiver's own identifiers and `alias` stands for the topic.
    pub(super) fn write(
        &self,
        out: &mut BytesMut,
        expiry_secs: Option<u32>,
        subscriptions: &[u32],
        alias: Option<Alias>,
    ) {
        if subscriptions.is_empty() && alias.is_none() && *self == Self::default() {
            out.put_u8(0);
            return;
        }
        let mut block = BytesMut::new();
        if let Some(alias) = alias {
            block.put_u8(id::TOPIC_ALIAS);
            block.put_u16(alias.number.get());
        }
        if let Some(is_text) = self.payload_is_text {
            block.put_slice(&[id::PAYLOAD_FORMAT, u8::from(is_text)]);
        }
        if let Some(seconds) = expiry_secs {
            block.put_u8(id::MESSAGE_EXPIRY);
            block.put_u32(seconds);
        }
        if let Some(text) = &self.content_type {
            block.put_u8(id::CONTENT_TYPE);
            put_text(&mut block, text);
        }
        if let Some(text) = &self.response_topic {
            block.put_u8(id::RESPONSE_TOPIC);
            put_text(&mut block, text);
        }
        if let Some(bytes) = &self.correlation_data {
            block.put_u8(id::CORRELATION_DATA);
            put_binary(&mut block, bytes);
        }
        for subscription in subscriptions {
            block.put_u8(id::SUBSCRIPTION_ID);
            put_varint(&mut block, *subscription as usize);
        }
        for (name, value) in &self.user {
            block.put_u8(id::USER);
            put_text(&mut block, name);
            put_text(&mut block, value);
        }
        put_varint(out, block.len());
        out.put_slice(&block);
    }
}

impl ConnectProperties {
    pub(super) fn read(wire: &mut Wire) -> Result<Self, Malformed> {
        let mut read = Self::default();
        let (mut auth_data, mut response) = (None, None);
        each(wire, |identifier, wire| match identifier {
            id::SESSION_EXPIRY => once(&mut read.session_expiry_secs, wire.u32()?),
            id::RECEIVE_MAXIMUM => once(&mut read.receive_maximum, wire.u16()?),
            id::PACKET_SIZE_MAXIMUM => once(&mut read.packet_bytes_max, wire.u32()?),
            id::AUTH_METHOD => once(&mut read.auth_method, wire.text()?),
            id::AUTH_DATA => once(&mut auth_data, wire.binary()?),
            id::REQUEST_PROBLEM => once(&mut read.wants_reasons, wire.flag()?),
            id::REQUEST_RESPONSE => once(&mut response, wire.flag()?),
            id::TOPIC_ALIAS_MAXIMUM => once(&mut read.topic_alias_maximum, wire.u16()?),
            id::USER => user_property(wire).map(drop),
            _ => misplaced(identifier, wire),
        })?;
        let zero = read.receive_maximum == Some(0) || read.packet_bytes_max == Some(0);
        let data_without_method = auth_data.is_some() && read.auth_method.is_none();
        if zero || data_without_method {
            return Err(Malformed::Property);
        }
        Ok(read)
    }
}

/// SUBSCRIBE: its identifier.
pub(super) fn read_subscribe(wire: &mut Wire) -> Result<Option<u32>, Malformed> {
    let mut found = None;
    each(wire, |identifier, wire| match identifier {
        id::SUBSCRIPTION_ID => match wire.varint()? {
            0 => Err(Malformed::Property),
            number => once(&mut found, number),
        },
        id::USER => user_property(wire).map(drop),
        _ => misplaced(identifier, wire),
    })?;
    Ok(found)
}

/// UNSUBSCRIBE: nothing but user properties.
pub(super) fn read_unsubscribe(wire: &mut Wire) -> Result<(), Malformed> {
    each(wire, |identifier, wire| match identifier {
        id::USER => user_property(wire).map(drop),
        _ => misplaced(identifier, wire),
    })
}

/// The four acknowledgements: a reason in words and user properties.
pub(super) fn read_ack(wire: &mut Wire) -> Result<(), Malformed> {
    let mut text = None;
    each(wire, |identifier, wire| match identifier {
        id::REASON_STRING => once(&mut text, wire.text()?),
        id::USER => user_property(wire).map(drop),
        _ => misplaced(identifier, wire),
    })
}

/// DISCONNECT: a new session expiry.
pub(super) fn read_disconnect(wire: &mut Wire) -> Result<Option<u32>, Malformed> {
    let (mut expiry, mut text, mut server) = (None, None, None);
    each(wire, |identifier, wire| match identifier {
        id::SESSION_EXPIRY => once(&mut expiry, wire.u32()?),
        id::REASON_STRING => once(&mut text, wire.text()?),
        id::SERVER_REFERENCE => once(&mut server, wire.text()?),
        id::USER => user_property(wire).map(drop),
        _ => misplaced(identifier, wire),
    })?;
    Ok(expiry)
}

impl ConnAckProperties {
    pub(super) fn write(&self, words: Option<&str>, out: &mut BytesMut) {
        let mut block = BytesMut::new();
        if let Some(seconds) = self.session_expiry_secs {
            block.put_u8(id::SESSION_EXPIRY);
            block.put_u32(seconds);
        }
        if let Some(count) = self.receive_maximum {
            block.put_u8(id::RECEIVE_MAXIMUM);
            block.put_u16(count);
        }
        if let Some(bytes) = self.packet_bytes_max {
            block.put_u8(id::PACKET_SIZE_MAXIMUM);
            block.put_u32(bytes);
        }
        if let Some(client_id) = &self.assigned_client_id {
            block.put_u8(id::ASSIGNED_CLIENT_ID);
            put_text(&mut block, client_id);
        }
        if let Some(seconds) = self.server_keep_alive_secs {
            block.put_u8(id::SERVER_KEEP_ALIVE);
            block.put_u16(seconds);
        }
        if self.topic_alias_maximum > 0 {
            block.put_u8(id::TOPIC_ALIAS_MAXIMUM);
            block.put_u16(self.topic_alias_maximum);
        }
        put_reason_string(&mut block, words);
        put_varint(out, block.len());
        out.put_slice(&block);
    }
}

/// The properties of everything else that a server sends.
pub(super) fn write_words(words: Option<&str>, out: &mut BytesMut) {
    put_varint(out, words.map_or(0, |words| 3 + words.len()));
    put_reason_string(out, words);
}

fn put_reason_string(out: &mut BytesMut, words: Option<&str>) {
    if let Some(words) = words {
        out.put_u8(id::REASON_STRING);
        put_text(out, words);
    }
}
