//! The packets a load sends, and just enough of those it gets.

use anyhow::{Result, ensure};

pub(super) const CONNACK: u8 = 0x20;
pub(super) const PUBLISH: u8 = 0x30;
pub(super) const PUBACK: u8 = 0x40;
pub(super) const PUBREC: u8 = 0x50;
pub(super) const PUBREL: u8 = 0x62;
pub(super) const PUBCOMP: u8 = 0x70;
pub(super) const SUBACK: u8 = 0x90;

/// Longer than any figure takes, so that no load has to ping.
const KEEP_ALIVE_S: u16 = 3_600;

/// A packet as it came, by its first byte and what follows the length.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet<'a> {
    pub(super) first: u8,
    pub(super) body: &'a [u8],
}

impl<'a> Packet<'a> {
    /// The packet at the start of `bytes` and what is behind it; `None` while it is not whole.
    pub(super) fn split(bytes: &'a [u8]) -> Result<Option<(Self, &'a [u8])>> {
        let Some((&first, rest)) = bytes.split_first() else {
            return Ok(None);
        };
        let mut length = 0;
        for (index, &byte) in rest.iter().enumerate() {
            ensure!(index < 4, "a remaining length of more than four bytes");
            length |= usize::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                let body = &rest[index + 1..];
                return Ok(body
                    .split_at_checked(length)
                    .map(|(body, rest)| (Self { first, body }, rest)));
            }
        }
        Ok(None)
    }

    pub(super) fn kind(&self) -> u8 {
        self.first & 0xf0
    }

    /// The packet id of an acknowledgement.
    pub(super) fn id(&self) -> Result<u16> {
        ensure!(self.body.len() >= 2, "an acknowledgement without packet id");
        Ok(u16::from_be_bytes([self.body[0], self.body[1]]))
    }

    /// Packet id, where the QoS has one, and payload of a PUBLISH.
    pub(super) fn published(&self) -> Result<(Option<u16>, &'a [u8])> {
        ensure!(self.kind() == PUBLISH, "not a PUBLISH: {:#x}", self.first);
        ensure!(self.body.len() >= 2, "a PUBLISH without topic");
        let topic = usize::from(u16::from_be_bytes([self.body[0], self.body[1]]));
        let rest = self.body.get(2 + topic..).unwrap_or_default();
        if self.first & 0x06 == 0 {
            return Ok((None, rest));
        }
        ensure!(rest.len() >= 2, "a PUBLISH without packet id");
        Ok((Some(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]))
    }
}

pub(super) fn connect(client: &str) -> Vec<u8> {
    let mut body = b"\x00\x04MQTT\x04\x02".to_vec();
    body.extend_from_slice(&KEEP_ALIVE_S.to_be_bytes());
    append_text(&mut body, client);
    let mut packet = Vec::new();
    append(&mut packet, 0x10, &body);
    packet
}

pub(super) fn subscribe(filter: &str, qos: u8) -> Vec<u8> {
    let mut body = vec![0, 1];
    append_text(&mut body, filter);
    body.push(qos);
    let mut packet = Vec::new();
    append(&mut packet, 0x82, &body);
    packet
}

/// `id` is left out at QoS 0.
pub(super) fn append_publish(buffer: &mut Vec<u8>, qos: u8, topic: &str, id: u16, payload: &[u8]) {
    let id = (qos > 0).then_some(id);
    let length = 2 + topic.len() + id.map_or(0, |_| 2) + payload.len();
    append_header(buffer, PUBLISH | (qos << 1), length);
    append_text(buffer, topic);
    if let Some(id) = id {
        buffer.extend_from_slice(&id.to_be_bytes());
    }
    buffer.extend_from_slice(payload);
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
pub(super) fn append_answer(buffer: &mut Vec<u8>, first: u8, id: u16) {
    append(buffer, first, &id.to_be_bytes());
}

fn append(buffer: &mut Vec<u8>, first: u8, body: &[u8]) {
    append_header(buffer, first, body.len());
    buffer.extend_from_slice(body);
}

fn append_header(buffer: &mut Vec<u8>, first: u8, mut length: usize) {
    buffer.push(first);
    loop {
        let more = if length >= 128 { 0x80 } else { 0 };
        buffer.push(u8::try_from(length % 128).expect("below 128") | more);
        length /= 128;
        if length == 0 {
            return;
        }
    }
}

fn append_text(buffer: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).expect("a short text");
    buffer.extend_from_slice(&length.to_be_bytes());
    buffer.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes_packet_by_packet() {
        let mut bytes = Vec::new();
        append_publish(&mut bytes, 1, "a/b", 513, &[7; 200]);
        append_answer(&mut bytes, PUBACK, 9);
        let (publish, rest) = Packet::split(&bytes).unwrap().unwrap();
        assert_eq!(
            publish.published().unwrap(),
            (Some(513), [7; 200].as_slice())
        );
        let (ack, rest) = Packet::split(rest).unwrap().unwrap();
        assert_eq!((ack.kind(), ack.id().unwrap()), (PUBACK, 9));
        assert!(rest.is_empty());
    }

    #[test]
    fn waits_for_the_rest_of_a_packet() {
        let mut bytes = Vec::new();
        append_publish(&mut bytes, 0, "a/b", 0, &[7; 200]);
        for length in 0..bytes.len() {
            assert!(Packet::split(&bytes[..length]).unwrap().is_none());
        }
        assert!(Packet::split(&bytes).unwrap().is_some());
    }
}
