//! Properties of version 5 (2.2.2). Every one that this node does not act on is still checked and
//! then either carried along or dropped.

use super::Malformed;
use super::wire::{Wire, put_binary, put_text, put_varint};
use bytes::{BufMut, Bytes, BytesMut};

mod id {
    pub(super) const PAYLOAD_FORMAT: u8 = 0x01;
    pub(super) const MESSAGE_EXPIRY: u8 = 0x02;
    pub(super) const CONTENT_TYPE: u8 = 0x03;
    pub(super) const RESPONSE_TOPIC: u8 = 0x08;
    pub(super) const CORRELATION_DATA: u8 = 0x09;
    pub(super) const SUBSCRIPTION_ID: u8 = 0x0B;
    pub(super) const SESSION_EXPIRY: u8 = 0x11;
    pub(super) const ASSIGNED_CLIENT_ID: u8 = 0x12;
    pub(super) const AUTH_METHOD: u8 = 0x15;
    pub(super) const AUTH_DATA: u8 = 0x16;
    pub(super) const REQUEST_PROBLEM: u8 = 0x17;
    pub(super) const WILL_DELAY: u8 = 0x18;
    pub(super) const REQUEST_RESPONSE: u8 = 0x19;
    pub(super) const SERVER_REFERENCE: u8 = 0x1C;
    pub(super) const REASON_STRING: u8 = 0x1F;
    pub(super) const RECEIVE_MAXIMUM: u8 = 0x21;
    pub(super) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub(super) const TOPIC_ALIAS: u8 = 0x23;
    pub(super) const USER: u8 = 0x26;
    pub(super) const PACKET_SIZE_MAXIMUM: u8 = 0x27;
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
    pub topic_alias_maximum: u16,
    pub reason_string: Option<&'static str>,
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
        let identifier = block.u8()?;
        property(identifier, &mut block)?;
    }
    Ok(())
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

    /// A will's properties; its delay is returned beside them.
    pub(super) fn read_will(wire: &mut Wire) -> Result<(Self, u32), Malformed> {
        let mut read = Self::default();
        let mut delay_secs = None;
        each(wire, |identifier, wire| match identifier {
            id::WILL_DELAY => once(&mut delay_secs, wire.u32()?),
            _ => read.message_property(identifier, wire),
        })?;
        Ok((read, delay_secs.unwrap_or(0)))
    }

    /// A subscription identifier from a client is an error (3.3.4), hence not among these.
    fn message_property(&mut self, identifier: u8, wire: &mut Wire) -> Result<(), Malformed> {
        match identifier {
            id::PAYLOAD_FORMAT => once(&mut self.payload_is_text, wire.flag()?),
            id::MESSAGE_EXPIRY => once(&mut self.message_expiry_secs, wire.u32()?),
            id::CONTENT_TYPE => once(&mut self.content_type, wire.text()?),
            id::RESPONSE_TOPIC => once(&mut self.response_topic, wire.text()?),
            id::CORRELATION_DATA => once(&mut self.correlation_data, wire.binary()?),
            id::USER => {
                self.user.push(user_property(wire)?);
                Ok(())
            }
            _ => Err(Malformed::Property),
        }
    }

    /// Writes the block with its length. `expiry_secs` is what is left of the message's life and
    /// `subscriptions` are the receiver's own identifiers.
    pub(super) fn write(
        &self,
        out: &mut BytesMut,
        expiry_secs: Option<u32>,
        subscriptions: &[u32],
    ) {
        if subscriptions.is_empty() && *self == Self::default() {
            out.put_u8(0);
            return;
        }
        let mut block = BytesMut::new();
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
        let (mut auth_data, mut problem, mut response, mut aliases) = (None, None, None, None);
        each(wire, |identifier, wire| match identifier {
            id::SESSION_EXPIRY => once(&mut read.session_expiry_secs, wire.u32()?),
            id::RECEIVE_MAXIMUM => once(&mut read.receive_maximum, wire.u16()?),
            id::PACKET_SIZE_MAXIMUM => once(&mut read.packet_bytes_max, wire.u32()?),
            id::AUTH_METHOD => once(&mut read.auth_method, wire.text()?),
            id::AUTH_DATA => once(&mut auth_data, wire.binary()?),
            id::REQUEST_PROBLEM => once(&mut problem, wire.flag()?),
            id::REQUEST_RESPONSE => once(&mut response, wire.flag()?),
            id::TOPIC_ALIAS_MAXIMUM => once(&mut aliases, wire.u16()?),
            id::USER => user_property(wire).map(drop),
            _ => Err(Malformed::Property),
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
        _ => Err(Malformed::Property),
    })?;
    Ok(found)
}

/// UNSUBSCRIBE: nothing but user properties.
pub(super) fn read_unsubscribe(wire: &mut Wire) -> Result<(), Malformed> {
    each(wire, |identifier, wire| match identifier {
        id::USER => user_property(wire).map(drop),
        _ => Err(Malformed::Property),
    })
}

/// The four acknowledgements: a reason in words and user properties.
pub(super) fn read_ack(wire: &mut Wire) -> Result<(), Malformed> {
    let mut text = None;
    each(wire, |identifier, wire| match identifier {
        id::REASON_STRING => once(&mut text, wire.text()?),
        id::USER => user_property(wire).map(drop),
        _ => Err(Malformed::Property),
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
        _ => Err(Malformed::Property),
    })?;
    Ok(expiry)
}

impl ConnAckProperties {
    pub(super) fn write(&self, out: &mut BytesMut) {
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
        if self.topic_alias_maximum > 0 {
            block.put_u8(id::TOPIC_ALIAS_MAXIMUM);
            block.put_u16(self.topic_alias_maximum);
        }
        if let Some(text) = self.reason_string {
            block.put_u8(id::REASON_STRING);
            put_text(&mut block, text);
        }
        put_varint(out, block.len());
        out.put_slice(&block);
    }
}
