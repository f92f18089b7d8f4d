//! The packets a client sends and the ones it gets. What a server may not send does not decode.

use anyhow::{Result, bail, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};

use super::wire::{self, Properties, RECEIVE_MAXIMUM, SESSION_EXPIRY, TOPIC_ALIAS_MAXIMUM};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V311,
    V5,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Qos {
    AtMostOnce,
    AtLeastOnce,
    ExactlyOnce,
}

impl Qos {
    fn from_bits(bits: u8) -> Result<Self> {
        Ok(match bits {
            0 => Self::AtMostOnce,
            1 => Self::AtLeastOnce,
            2 => Self::ExactlyOnce,
            _ => bail!("QoS {bits}"),
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub payload: Bytes,
    pub qos: Qos,
    pub retain: bool,
}

impl Message {
    pub fn new(topic: impl Into<String>, payload: impl Into<Bytes>, qos: Qos) -> Self {
        Self {
            topic: topic.into(),
            payload: payload.into(),
            qos,
            retain: false,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Connect {
    pub version: Version,
    pub client_id: String,
    pub clean: bool,
    pub keep_alive_secs: u16,
    /// Version 5 only, as are the two that follow.
    pub session_expiry_secs: u32,
    pub receive_maximum: u16,
    pub topic_alias_maximum: u16,
}

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    Publish {
        id: u16,
        dup: bool,
        message: Message,
    },
    PubAck(u16),
    PubRec(u16),
    PubRel(u16),
    PubComp(u16),
    Subscribe {
        id: u16,
        filters: Vec<(String, Qos)>,
    },
    Ping,
    Disconnect,
}

/// What a server sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    ConnAck {
        present: bool,
        code: u8,
        properties: Properties,
    },
    Publish {
        id: Option<u16>,
        dup: bool,
        message: Message,
        properties: Properties,
    },
    PubAck {
        id: u16,
        code: u8,
    },
    PubRec {
        id: u16,
        code: u8,
    },
    PubRel {
        id: u16,
        code: u8,
    },
    PubComp {
        id: u16,
        code: u8,
    },
    SubAck {
        id: u16,
        codes: Vec<u8>,
    },
    Pong,
    Disconnect {
        code: u8,
    },
}

/// Which properties each packet from a server may carry (version 5, 2.2.2.2).
mod allowed {
    pub(super) const CONNACK: &[u8] = &[
        0x11, 0x12, 0x13, 0x15, 0x16, 0x1A, 0x1C, 0x1F, 0x21, 0x22, 0x24, 0x25, 0x26, 0x27, 0x28,
        0x29, 0x2A,
    ];
    pub(super) const PUBLISH: &[u8] = &[0x01, 0x02, 0x03, 0x08, 0x09, 0x0B, 0x23, 0x26];
    pub(super) const ACK: &[u8] = &[0x1F, 0x26];
    pub(super) const DISCONNECT: &[u8] = &[0x1C, 0x1F, 0x26];
}

impl Connect {
    pub fn write(&self, buffer: &mut BytesMut) {
        let mut body = BytesMut::new();
        wire::put_text(&mut body, "MQTT");
        body.put_u8(match self.version {
            Version::V311 => 4,
            Version::V5 => 5,
        });
        body.put_u8(if self.clean { 0x02 } else { 0 });
        body.put_u16(self.keep_alive_secs);
        if self.version == Version::V5 {
            let numbers = [
                (SESSION_EXPIRY, self.session_expiry_secs),
                (RECEIVE_MAXIMUM, self.receive_maximum.into()),
                (TOPIC_ALIAS_MAXIMUM, self.topic_alias_maximum.into()),
            ];
            Properties::write_numbers(&mut body, &numbers);
        }
        wire::put_text(&mut body, &self.client_id);
        put(buffer, 0x10, &body);
    }
}

impl Sent {
    pub fn write(&self, version: Version, buffer: &mut BytesMut) {
        match self {
            Self::Publish { id, dup, message } => {
                let mut body = BytesMut::with_capacity(message.payload.len() + 64);
                wire::put_text(&mut body, &message.topic);
                if message.qos > Qos::AtMostOnce {
                    body.put_u16(*id);
                }
                no_properties(version, &mut body);
                body.extend_from_slice(&message.payload);
                let flags = u8::from(*dup) << 3 | (message.qos as u8) << 1;
                put(buffer, 0x30 | flags | u8::from(message.retain), &body);
            }
            Self::PubAck(id) => put(buffer, 0x40, &id.to_be_bytes()),
            Self::PubRec(id) => put(buffer, 0x50, &id.to_be_bytes()),
            Self::PubRel(id) => put(buffer, 0x62, &id.to_be_bytes()),
            Self::PubComp(id) => put(buffer, 0x70, &id.to_be_bytes()),
            Self::Subscribe { id, filters } => {
                let mut body = BytesMut::new();
                body.put_u16(*id);
                no_properties(version, &mut body);
                for (filter, qos) in filters {
                    wire::put_text(&mut body, filter);
                    body.put_u8(*qos as u8);
                }
                put(buffer, 0x82, &body);
            }
            Self::Ping => put(buffer, 0xC0, &[]),
            Self::Disconnect => put(buffer, 0xE0, &[]),
        }
    }
}

fn no_properties(version: Version, body: &mut BytesMut) {
    if version == Version::V5 {
        body.put_u8(0);
    }
}

fn put(buffer: &mut BytesMut, first: u8, body: &[u8]) {
    buffer.put_u8(first);
    wire::put_varint(buffer, body.len());
    buffer.extend_from_slice(body);
}

/// Takes the first whole packet out of `buffer`, if there is one.
pub fn read(version: Version, buffer: &mut BytesMut) -> Result<Option<Received>> {
    let Some((header, length)) = extent(buffer)? else {
        return Ok(None);
    };
    if buffer.len() < header + length {
        return Ok(None);
    }
    let first = buffer[0];
    let mut packet = buffer.split_to(header + length).freeze();
    let mut body = packet.split_off(header);
    let read = body_of(version, first, &mut body)?;
    ensure!(
        body.is_empty(),
        "{} bytes too many after {read:?}",
        body.len()
    );
    Ok(Some(read))
}

/// The bytes of the fixed header, and of what follows it.
fn extent(buffer: &BytesMut) -> Result<Option<(usize, usize)>> {
    const LENGTH_BYTES_MAX: usize = 4;
    let lengths = buffer.iter().skip(1).take(LENGTH_BYTES_MAX);
    let Some(last) = lengths.clone().position(|byte| byte & 0x80 == 0) else {
        ensure!(buffer.len() <= LENGTH_BYTES_MAX, "a length of five bytes");
        return Ok(None);
    };
    let bytes: Vec<u8> = lengths.take(last + 1).copied().collect();
    let length = wire::varint(&mut Bytes::from(bytes))?;
    Ok(Some((last + 2, length)))
}

fn body_of(version: Version, first: u8, body: &mut Bytes) -> Result<Received> {
    let flags = first & 0x0F;
    let flags_allowed = match first >> 4 {
        3 => flags,
        6 => 2,
        _ => 0,
    };
    ensure!(flags == flags_allowed, "reserved flags in {first:#04x}");
    Ok(match first >> 4 {
        2 => {
            let present = wire::u8(body)?;
            ensure!(present <= 1, "reserved flags in CONNACK: {present:#04x}");
            let code = wire::u8(body)?;
            ensure!(code == 0 || present == 0, "a session beside a refusal");
            Received::ConnAck {
                present: present == 1,
                code,
                properties: properties(version, body, allowed::CONNACK)?,
            }
        }
        3 => publish(version, flags, body)?,
        4 => ack(version, body).map(|(id, code)| Received::PubAck { id, code })?,
        5 => ack(version, body).map(|(id, code)| Received::PubRec { id, code })?,
        6 => ack(version, body).map(|(id, code)| Received::PubRel { id, code })?,
        7 => ack(version, body).map(|(id, code)| Received::PubComp { id, code })?,
        9 => {
            let id = wire::u16(body)?;
            properties(version, body, allowed::ACK)?;
            let codes = std::mem::take(body).to_vec();
            ensure!(!codes.is_empty(), "a SUBACK without a return code");
            Received::SubAck { id, codes }
        }
        13 => Received::Pong,
        14 if version == Version::V5 => {
            let code = if body.is_empty() { 0 } else { wire::u8(body)? };
            if !body.is_empty() {
                Properties::read(body, allowed::DISCONNECT)?;
            }
            Received::Disconnect { code }
        }
        kind => bail!("a packet of type {kind} from a server"),
    })
}

fn properties(version: Version, body: &mut Bytes, allowed: &[u8]) -> Result<Properties> {
    match version {
        Version::V311 => Ok(Properties::default()),
        Version::V5 => Properties::read(body, allowed),
    }
}

fn publish(version: Version, flags: u8, body: &mut Bytes) -> Result<Received> {
    let qos = Qos::from_bits(flags >> 1 & 3)?;
    let (dup, retain) = (flags & 8 != 0, flags & 1 != 0);
    ensure!(!dup || qos > Qos::AtMostOnce, "DUP on QoS 0");
    let topic = wire::text(body)?;
    ensure!(!topic.contains(['+', '#']), "a wildcard in topic {topic:?}");
    let id = match qos {
        Qos::AtMostOnce => None,
        _ => Some(wire::u16(body)?),
    };
    ensure!(id != Some(0), "packet id 0");
    let properties = properties(version, body, allowed::PUBLISH)?;
    let payload = std::mem::take(body);
    let message = Message {
        topic,
        payload,
        qos,
        retain,
    };
    Ok(Received::Publish {
        id,
        dup,
        message,
        properties,
    })
}

fn ack(version: Version, body: &mut Bytes) -> Result<(u16, u8)> {
    let id = wire::u16(body)?;
    if version == Version::V311 || body.is_empty() {
        return Ok((id, 0));
    }
    let code = wire::u8(body)?;
    if !body.is_empty() {
        Properties::read(body, allowed::ACK)?;
    }
    Ok((id, code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(version: Version, bytes: &[u8]) -> Result<Option<Received>> {
        read(version, &mut BytesMut::from(bytes))
    }

    #[test]
    fn a_packet_is_read_when_it_is_whole_and_not_before() {
        let whole = b"\x32\x06\x00\x01a\x00\x07x";
        for length in 0..whole.len() {
            let part = decoded(Version::V311, &whole[..length]).unwrap();
            assert_eq!(part, None, "{length} bytes");
        }
        let read = decoded(Version::V311, whole).unwrap();
        let Some(Received::Publish { id, message, .. }) = read else {
            panic!("{read:?}");
        };
        assert_eq!(id, Some(7));
        assert_eq!(message, Message::new("a", &b"x"[..], Qos::AtLeastOnce));
    }

    #[test]
    fn what_this_client_writes_is_what_the_standard_shows() {
        let mut buffer = BytesMut::new();
        let message = Message::new("a/b", &b"x"[..], Qos::ExactlyOnce);
        let publish = Sent::Publish {
            id: 10,
            dup: true,
            message,
        };
        publish.write(Version::V311, &mut buffer);
        assert_eq!(&buffer[..], b"\x3c\x08\x00\x03a/b\x00\x0ax");
        buffer.clear();
        let filters = vec![("a/b".to_owned(), Qos::AtLeastOnce)];
        Sent::Subscribe { id: 10, filters }.write(Version::V5, &mut buffer);
        assert_eq!(&buffer[..], b"\x82\x09\x00\x0a\x00\x00\x03a/b\x01");
    }

    #[test]
    fn what_no_server_may_send_is_an_error() {
        let wrong: [(&str, Version, &[u8]); 8] = [
            ("QoS 3", Version::V311, b"\x36\x06\x00\x01a\x00\x07x"),
            ("packet id 0", Version::V311, b"\x32\x06\x00\x01a\x00\x00x"),
            ("DUP on QoS 0", Version::V311, b"\x38\x04\x00\x01ax"),
            ("a wildcard in", Version::V311, b"\x30\x04\x00\x01#x"),
            ("reserved flags", Version::V311, b"\x41\x02\x00\x07"),
            ("bytes too many", Version::V311, b"\x40\x03\x00\x07\x00"),
            (
                "does not belong",
                Version::V5,
                b"\x20\x06\x00\x00\x03\x23\x00\x01",
            ),
            ("of type 14", Version::V311, b"\xe0\x00"),
        ];
        for (complaint, version, bytes) in wrong {
            let error = decoded(version, bytes).unwrap_err().to_string();
            assert!(error.contains(complaint), "{complaint}: {error}");
        }
    }
}
