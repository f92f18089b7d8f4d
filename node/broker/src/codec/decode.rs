//! Bytes → [`Incoming`].

use super::properties::{
    ConnectProperties, PublishProperties, read_ack, read_disconnect, read_subscribe,
    read_unsubscribe,
};
use super::wire::{Wire, peek_varint};
use super::{
    Ack, Connect, Credentials, Disconnect, Incoming, Malformed, Publish, Qos, RetainHandling,
    Subscribe, SubscribeOptions, Unsubscribe, Version,
};
use crate::topic;
use bytes::{Buf, BytesMut};

/// The first byte of every TLS connection.
const TLS_HANDSHAKE: u8 = 0x16;
const HTTP_GET: u8 = b'G';

/// Cuts packets off the front of a receive buffer. Knows the version once CONNECT was read.
#[derive(Debug)]
pub(crate) struct Decoder {
    version: Option<Version>,
    /// Bound of a whole packet, fixed header included.
    packet_bytes_max: usize,
}

impl Decoder {
    pub(crate) const fn new(packet_bytes_max: usize) -> Self {
        Self {
            version: None,
            packet_bytes_max,
        }
    }

    /// A decoder for packets of a version that needs no CONNECT first.
    pub(crate) const fn of(version: Version, packet_bytes_max: usize) -> Self {
        Self {
            version: Some(version),
            packet_bytes_max,
        }
    }

    /// What the client speaks, as soon as its CONNECT said so, even if the rest was malformed.
    pub(crate) const fn version(&self) -> Option<Version> {
        self.version
    }

    /// The next packet, or `None` until more bytes are there. A packet that is too large is
    /// refused from its length alone, so nobody has to buffer it.
    pub(crate) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Incoming>, Malformed> {
        let Some(&first) = buffer.first() else {
            return Ok(None);
        };
        self.check_first_byte(first)?;
        let Some((remaining, length_bytes)) = peek_varint(&buffer[1..])? else {
            return Ok(None);
        };
        let header = 1 + length_bytes;
        let remaining = usize::try_from(remaining).map_err(|_| Malformed::Length)?;
        if header + remaining > self.packet_bytes_max {
            return Err(Malformed::TooLarge);
        }
        if buffer.len() < header + remaining {
            return Ok(None);
        }
        buffer.advance(header);
        let body = Wire(buffer.split_to(remaining).freeze());
        self.packet(first, body).map(Some)
    }

    /// Refuses at the first byte what no further byte can mend.
    fn check_first_byte(&self, first: u8) -> Result<(), Malformed> {
        let (kind, flags) = (first >> 4, first & 0x0F);
        match (self.version, kind) {
            // No CONNECT begins so, and whoever set up the client should be told.
            (None, _) if first == TLS_HANDSHAKE => return Err(Malformed::Tls),
            (None, _) if first == HTTP_GET => return Err(Malformed::Http),
            (None, 1) => {}
            (None, _) => return Err(Malformed::NotConnect),
            (Some(_), 1) => return Err(Malformed::SecondConnect),
            (Some(Version::V311), 15) => return Err(Malformed::PacketType),
            (Some(_), 3..=8 | 10 | 12 | 14 | 15) => {}
            (Some(_), _) => return Err(Malformed::PacketType),
        }
        let expected = match kind {
            // 3.1 has no rule for the flags of CONNECT: they are looked at with the version.
            1 | 3 => return Ok(()),
            6 | 8 | 10 => 0b0010,
            _ => 0,
        };
        if flags == expected {
            Ok(())
        } else {
            Err(Malformed::ReservedBits)
        }
    }

    fn packet(&mut self, first: u8, mut wire: Wire) -> Result<Incoming, Malformed> {
        let Some(version) = self.version else {
            let connect = self.connect(first, &mut wire)?;
            wire.end()?;
            return Ok(Incoming::Connect(Box::new(connect)));
        };
        let packet = match first >> 4 {
            3 => Incoming::Publish(publish(first, &mut wire, version)?),
            4 => Incoming::PubAck(ack(&mut wire, version, &RECEIPT_REASONS)?),
            5 => Incoming::PubRec(ack(&mut wire, version, &RECEIPT_REASONS)?),
            6 => Incoming::PubRel(ack(&mut wire, version, &RELEASE_REASONS)?),
            7 => Incoming::PubComp(ack(&mut wire, version, &RELEASE_REASONS)?),
            8 => Incoming::Subscribe(subscribe(&mut wire, version)?),
            10 => Incoming::Unsubscribe(unsubscribe(&mut wire, version)?),
            12 => Incoming::PingReq,
            14 => Incoming::Disconnect(disconnect(&mut wire, version)?),
            15 => {
                wire.rest();
                Incoming::Auth
            }
            _ => return Err(Malformed::PacketType),
        };
        wire.end()?;
        Ok(packet)
    }

    /// CONNECT as far as it tells the version.
    fn connect(&mut self, first: u8, wire: &mut Wire) -> Result<Connect, Malformed> {
        let name = wire.binary()?;
        let level = wire.u8()?;
        let (version, is_3_1) = match (&name[..], level) {
            (b"MQTT", 4) => (Version::V311, false),
            (b"MQTT", 5) => (Version::V5, false),
            (b"MQIsdp", 3) => (Version::V311, true),
            (b"MQTT" | b"MQIsdp", other) => return Err(Malformed::ProtocolLevel(other)),
            _ => return Err(Malformed::ProtocolName),
        };
        self.version = Some(version);
        if first & 0x0F != 0 && !is_3_1 {
            return Err(Malformed::ReservedBits);
        }
        connect(wire, version, is_3_1)
    }
}

/// CONNECT (3.1) from its flags on.
fn connect(wire: &mut Wire, version: Version, is_3_1: bool) -> Result<Connect, Malformed> {
    const RESERVED: u8 = 0x01;
    const CLEAN: u8 = 0x02;
    const WILL: u8 = 0x04;
    const WILL_QOS: u8 = 0x18;
    const WILL_RETAIN: u8 = 0x20;
    const PASSWORD: u8 = 0x40;
    const USER: u8 = 0x80;

    let flags = wire.u8()?;
    let will_bits_without_will = flags & WILL == 0 && flags & (WILL_QOS | WILL_RETAIN) != 0;
    let password_without_user =
        version == Version::V311 && flags & PASSWORD != 0 && flags & USER == 0;
    let is_reserved_bit_set = flags & RESERVED != 0 && !is_3_1;
    if is_reserved_bit_set || will_bits_without_will || password_without_user {
        return Err(Malformed::ReservedBits);
    }
    let keep_alive_secs = wire.u16()?;
    let properties = match version {
        Version::V311 => ConnectProperties::default(),
        Version::V5 => ConnectProperties::read(wire)?,
    };
    let client_id = wire.name().map_err(|malformed| match malformed {
        Malformed::Text => Malformed::ClientId,
        other => other,
    })?;
    let mut will_delay_secs = 0;
    let will = if flags & WILL == 0 {
        None
    } else {
        let properties = match version {
            Version::V311 => PublishProperties::default(),
            Version::V5 => PublishProperties::read_will(wire, &mut will_delay_secs)?,
        };
        let topic = wire.name()?;
        if !topic::is_name(&topic) {
            return Err(Malformed::Topic);
        }
        Some(Publish {
            dup: false,
            qos: Qos::from_bits((flags & WILL_QOS) >> 3).ok_or(Malformed::Qos)?,
            retain: flags & WILL_RETAIN != 0,
            topic,
            id: None,
            payload: wire.binary()?,
            properties,
        })
    };
    let mut credentials = Credentials::default();
    if flags & USER != 0 {
        credentials.user = Some(wire.name()?);
    }
    if flags & PASSWORD != 0 {
        credentials.password = wire.binary()?;
    }
    Ok(Connect {
        version,
        client_id,
        must_name_itself: is_3_1,
        clean: flags & CLEAN != 0,
        keep_alive_secs,
        will,
        will_delay_secs,
        credentials,
        properties,
    })
}

/// PUBLISH (3.3). An empty topic passes only beside a topic alias.
fn publish(first: u8, wire: &mut Wire, version: Version) -> Result<Publish, Malformed> {
    let dup = first & 0b1000 != 0;
    let qos = Qos::from_bits((first >> 1) & 0b11).ok_or(Malformed::Qos)?;
    if dup && qos == Qos::AtMostOnce {
        return Err(Malformed::Qos);
    }
    let topic = wire.name()?;
    let id = match qos {
        Qos::AtMostOnce => None,
        Qos::AtLeastOnce | Qos::ExactlyOnce => Some(wire.packet_id()?),
    };
    let properties = match version {
        Version::V311 => PublishProperties::default(),
        Version::V5 => PublishProperties::read(wire)?,
    };
    if topic.is_empty() && properties.topic_alias.is_none() {
        return Err(Malformed::NoTopic);
    }
    if !topic.is_empty() && !topic::is_name(&topic) {
        return Err(Malformed::Topic);
    }
    Ok(Publish {
        dup,
        qos,
        retain: first & 1 != 0,
        topic,
        id,
        payload: wire.rest(),
        properties,
    })
}

/// Reason codes of PUBACK and PUBREC.
const RECEIPT_REASONS: [u8; 9] = [0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
/// Reason codes of PUBREL and PUBCOMP.
const RELEASE_REASONS: [u8; 2] = [0, 0x92];
/// Reason codes of a DISCONNECT that a client sends.
const DISCONNECT_REASONS: [u8; 14] = [
    0, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99,
];

fn reason_code(wire: &mut Wire, known: &[u8]) -> Result<u8, Malformed> {
    let code = wire.u8()?;
    if known.contains(&code) {
        Ok(code)
    } else {
        Err(Malformed::ReasonCode)
    }
}

fn ack(wire: &mut Wire, version: Version, reasons: &[u8]) -> Result<Ack, Malformed> {
    let id = wire.packet_id()?;
    let mut reason = 0;
    if version == Version::V5 && !wire.is_empty() {
        reason = reason_code(wire, reasons)?;
        if !wire.is_empty() {
            read_ack(wire)?;
        }
    }
    Ok(Ack { id, reason })
}

/// SUBSCRIBE (3.8). What this node does not take of well-formed filters is said in SUBACK.
fn subscribe(wire: &mut Wire, version: Version) -> Result<Subscribe, Malformed> {
    let id = wire.packet_id()?;
    let subscription_id = match version {
        Version::V311 => None,
        Version::V5 => read_subscribe(wire)?,
    };
    let mut filters = Vec::new();
    while !wire.is_empty() {
        let filter = filter(wire)?;
        let options = subscribe_options(wire.u8()?, version)?;
        if options.no_local && topic::shared(&filter).is_some() {
            return Err(Malformed::SharedNoLocal);
        }
        filters.push((filter, options));
    }
    if filters.is_empty() {
        return Err(Malformed::NoFilter);
    }
    Ok(Subscribe {
        id,
        subscription_id,
        filters,
    })
}

fn filter(wire: &mut Wire) -> Result<String, Malformed> {
    let filter = wire.name()?;
    if topic::is_filter(&filter) {
        Ok(filter)
    } else {
        Err(Malformed::Filter)
    }
}

fn subscribe_options(bits: u8, version: Version) -> Result<SubscribeOptions, Malformed> {
    let reserved = match version {
        Version::V311 => 0b1111_1100,
        Version::V5 => 0b1100_0000,
    };
    if bits & reserved != 0 {
        return Err(Malformed::ReservedBits);
    }
    Ok(SubscribeOptions {
        qos: Qos::from_bits(bits & 0b11).ok_or(Malformed::Qos)?,
        no_local: bits & 0b100 != 0,
        retain_as_published: bits & 0b1000 != 0,
        retain_handling: match (bits >> 4) & 0b11 {
            0 => RetainHandling::Always,
            1 => RetainHandling::IfNew,
            2 => RetainHandling::Never,
            _ => return Err(Malformed::ReservedBits),
        },
    })
}

fn unsubscribe(wire: &mut Wire, version: Version) -> Result<Unsubscribe, Malformed> {
    let id = wire.packet_id()?;
    if version == Version::V5 {
        read_unsubscribe(wire)?;
    }
    let mut filters = Vec::new();
    while !wire.is_empty() {
        filters.push(filter(wire)?);
    }
    if filters.is_empty() {
        return Err(Malformed::NoFilter);
    }
    Ok(Unsubscribe { id, filters })
}

fn disconnect(wire: &mut Wire, version: Version) -> Result<Disconnect, Malformed> {
    let mut disconnect = Disconnect::default();
    if version == Version::V5 && !wire.is_empty() {
        disconnect.reason = reason_code(wire, &DISCONNECT_REASONS)?;
        if !wire.is_empty() {
            disconnect.session_expiry_secs = read_disconnect(wire)?;
        }
    }
    Ok(disconnect)
}
