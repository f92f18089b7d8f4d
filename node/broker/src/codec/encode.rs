//! [`Outgoing`] and PUBLISH → bytes.

use super::explain::explain;
use super::properties::{PublishProperties, write_words};
use super::wire::{put_text, put_varint, varint_len};
use super::{Ack, Outgoing, PacketId, Qos, Version};
use bytes::{BufMut, BytesMut};
use std::num::NonZeroU16;

/// What a client takes, as its CONNECT said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    /// Largest packet.
    pub packet_bytes_max: usize,
    /// Reason strings in more than CONNACK and DISCONNECT (5.0, 3.1.2.11.7).
    pub wants_reasons: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            packet_bytes_max: usize::MAX,
            wants_reasons: true,
        }
    }
}

/// Appends one packet to `out`, in words too where that is welcome and fits. False, with nothing
/// written, if the client does not take a packet of this size.
pub(crate) fn encode(
    packet: &Outgoing,
    version: Version,
    terms: Terms,
    out: &mut BytesMut,
) -> bool {
    let may_explain = match packet {
        Outgoing::ConnAck { .. } | Outgoing::Disconnect { .. } => true,
        _ => terms.wants_reasons,
    };
    let words = explain(packet).filter(|_| version == Version::V5 && may_explain);
    let start = out.len();
    put(packet, version, words, out);
    if words.is_some() && out.len() - start > terms.packet_bytes_max {
        out.truncate(start);
        put(packet, version, None, out);
    }
    let fits = out.len() - start <= terms.packet_bytes_max;
    if !fits {
        out.truncate(start);
    }
    fits
}

fn put(packet: &Outgoing, version: Version, words: Option<&str>, out: &mut BytesMut) {
    match packet {
        Outgoing::ConnAck {
            session_present,
            code,
            properties,
        } => {
            let mut body = BytesMut::with_capacity(32);
            body.put_slice(&[u8::from(*session_present), *code]);
            if version == Version::V5 {
                properties.write(words, &mut body);
            }
            framed(0x20, &body, out);
        }
        Outgoing::PubAck(ack) => put_ack(0x40, *ack, version, words, out),
        Outgoing::PubRec(ack) => put_ack(0x50, *ack, version, words, out),
        Outgoing::PubRel(ack) => put_ack(0x62, *ack, version, words, out),
        Outgoing::PubComp(ack) => put_ack(0x70, *ack, version, words, out),
        Outgoing::SubAck { id, codes } => put_codes(0x90, *id, codes, version, words, out),
        Outgoing::UnsubAck { id, codes } => match version {
            Version::V311 => put_codes(0xB0, *id, &[], version, words, out),
            Version::V5 => put_codes(0xB0, *id, codes, version, words, out),
        },
        Outgoing::PingResp => out.put_slice(&[0xD0, 0]),
        Outgoing::Disconnect { reason, .. } => {
            if version == Version::V5 {
                framed(0xE0, &reason_and_words(*reason, words), out);
            }
        }
    }
}

/// Properties may be left out where there are none, as the last thing in a packet.
fn reason_and_words(reason: u8, words: Option<&str>) -> BytesMut {
    let mut body = BytesMut::new();
    body.put_u8(reason);
    if words.is_some() {
        write_words(words, &mut body);
    }
    body
}

fn framed(first: u8, body: &[u8], out: &mut BytesMut) {
    out.put_u8(first);
    put_varint(out, body.len());
    out.put_slice(body);
}

/// In version 5 a reason of 0 may be left out, which makes the common case the same four bytes.
fn put_ack(first: u8, ack: Ack, version: Version, words: Option<&str>, out: &mut BytesMut) {
    if version == Version::V311 || ack.reason == 0 {
        out.put_slice(&[first, 2]);
        out.put_u16(ack.id.get());
        return;
    }
    let reason = reason_and_words(ack.reason, words);
    out.put_u8(first);
    put_varint(out, 2 + reason.len());
    out.put_u16(ack.id.get());
    out.put_slice(&reason);
}

fn put_codes(
    first: u8,
    id: PacketId,
    codes: &[u8],
    version: Version,
    words: Option<&str>,
    out: &mut BytesMut,
) {
    let mut properties = BytesMut::new();
    if version == Version::V5 {
        write_words(words, &mut properties);
    }
    out.put_u8(first);
    put_varint(out, 2 + properties.len() + codes.len());
    out.put_u16(id.get());
    out.put_slice(&properties);
    out.put_slice(codes);
}

/// A topic alias towards the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Alias {
    pub number: NonZeroU16,
    /// The client was told what it stands for, so the topic is left out.
    pub is_known: bool,
}

/// A PUBLISH to be written, borrowed from wherever its parts live.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PublishView<'a> {
    pub dup: bool,
    pub qos: Qos,
    pub retain: bool,
    pub topic: &'a str,
    /// For version 5 only.
    pub alias: Option<Alias>,
    /// `None` exactly for QoS 0.
    pub id: Option<PacketId>,
    pub payload: &'a [u8],
    pub properties: &'a PublishProperties,
    /// What is left of the message's life.
    pub expiry_secs: Option<u32>,
    pub subscriptions: &'a [u32],
}

/// Appends a PUBLISH to `out`. A 3.1.1 receiver gets no properties: it could not read them.
pub(crate) fn encode_publish(publish: &PublishView<'_>, version: Version, out: &mut BytesMut) {
    let mut properties = BytesMut::new();
    if version == Version::V5 {
        publish.properties.write(
            &mut properties,
            publish.expiry_secs,
            publish.subscriptions,
            publish.alias,
        );
    }
    let topic = match publish.alias {
        Some(alias) if alias.is_known => "",
        _ => publish.topic,
    };
    let id_bytes = if publish.id.is_some() { 2 } else { 0 };
    let remaining = 2 + topic.len() + id_bytes + properties.len() + publish.payload.len();
    out.reserve(1 + varint_len(remaining) + remaining);
    out.put_u8(
        0x30 | u8::from(publish.dup) << 3 | (publish.qos as u8) << 1 | u8::from(publish.retain),
    );
    put_varint(out, remaining);
    put_text(out, topic);
    if let Some(id) = publish.id {
        out.put_u16(id.get());
    }
    out.put_slice(&properties);
    out.put_slice(publish.payload);
}
