//! [`Outgoing`] and PUBLISH → bytes.

use super::properties::PublishProperties;
use super::wire::{put_text, put_varint, varint_len};
use super::{Ack, Outgoing, PacketId, Qos, Version};
use bytes::{BufMut, BytesMut};

/// Appends one packet to `out`.
pub(crate) fn encode(packet: &Outgoing, version: Version, out: &mut BytesMut) {
    match packet {
        Outgoing::ConnAck {
            session_present,
            code,
            properties,
        } => {
            let mut body = BytesMut::with_capacity(32);
            body.put_slice(&[u8::from(*session_present), *code]);
            if version == Version::V5 {
                properties.write(&mut body);
            }
            framed(0x20, &body, out);
        }
        Outgoing::PubAck(ack) => put_ack(0x40, *ack, version, out),
        Outgoing::PubRec(ack) => put_ack(0x50, *ack, version, out),
        Outgoing::PubRel(ack) => put_ack(0x62, *ack, version, out),
        Outgoing::PubComp(ack) => put_ack(0x70, *ack, version, out),
        Outgoing::SubAck { id, codes } => put_codes(0x90, *id, codes, version, out),
        Outgoing::UnsubAck { id, codes } => match version {
            Version::V311 => put_codes(0xB0, *id, &[], version, out),
            Version::V5 => put_codes(0xB0, *id, codes, version, out),
        },
        Outgoing::PingResp => out.put_slice(&[0xD0, 0]),
        Outgoing::Disconnect { reason } => {
            if version == Version::V5 {
                out.put_slice(&[0xE0, 1, *reason]);
            }
        }
    }
}

fn framed(first: u8, body: &[u8], out: &mut BytesMut) {
    out.put_u8(first);
    put_varint(out, body.len());
    out.put_slice(body);
}

/// In version 5 a reason of 0 may be left out, which makes the common case the same four bytes.
fn put_ack(first: u8, ack: Ack, version: Version, out: &mut BytesMut) {
    let with_reason = version == Version::V5 && ack.reason != 0;
    out.put_slice(&[first, if with_reason { 3 } else { 2 }]);
    out.put_u16(ack.id.get());
    if with_reason {
        out.put_u8(ack.reason);
    }
}

fn put_codes(first: u8, id: PacketId, codes: &[u8], version: Version, out: &mut BytesMut) {
    let properties = usize::from(version == Version::V5);
    out.put_u8(first);
    put_varint(out, 2 + properties + codes.len());
    out.put_u16(id.get());
    if version == Version::V5 {
        out.put_u8(0);
    }
    out.put_slice(codes);
}

/// A PUBLISH to be written, borrowed from wherever its parts live.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PublishView<'a> {
    pub dup: bool,
    pub qos: Qos,
    pub retain: bool,
    pub topic: &'a str,
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
        publish
            .properties
            .write(&mut properties, publish.expiry_secs, publish.subscriptions);
    }
    let id_bytes = if publish.id.is_some() { 2 } else { 0 };
    let remaining = 2 + publish.topic.len() + id_bytes + properties.len() + publish.payload.len();
    out.reserve(1 + varint_len(remaining) + remaining);
    out.put_u8(
        0x30 | u8::from(publish.dup) << 3 | (publish.qos as u8) << 1 | u8::from(publish.retain),
    );
    put_varint(out, remaining);
    put_text(out, publish.topic);
    if let Some(id) = publish.id {
        out.put_u16(id.get());
    }
    out.put_slice(&properties);
    out.put_slice(publish.payload);
}
