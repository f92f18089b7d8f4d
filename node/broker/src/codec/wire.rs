//! The data types of the wire (5.0, 1.5), each read with its bounds checked.

use super::{Malformed, PacketId};
use crate::topic;
use bytes::{Buf, BufMut, Bytes};

/// Largest variable byte integer: four groups of seven bits.
pub(crate) const VARINT_MAX: u32 = 268_435_455;

/// A packet body being read from front to back.
#[derive(Debug, Clone)]
pub(crate) struct Wire(pub Bytes);

impl Wire {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn need(&self, count: usize) -> Result<(), Malformed> {
        if self.0.len() < count {
            return Err(Malformed::Truncated);
        }
        Ok(())
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.need(1)?;
        Ok(self.0.get_u8())
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.need(2)?;
        Ok(self.0.get_u16())
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.need(4)?;
        Ok(self.0.get_u32())
    }

    pub(crate) fn i64(&mut self) -> Result<i64, Malformed> {
        self.need(8)?;
        Ok(self.0.get_i64())
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.need(8)?;
        Ok(self.0.get_u64())
    }

    /// 0 or 1, as several properties have it.
    pub(crate) fn flag(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed::Property),
        }
    }

    pub(crate) fn packet_id(&mut self) -> Result<PacketId, Malformed> {
        PacketId::new(self.u16()?).ok_or(Malformed::PacketId)
    }

    /// Must take as few bytes as it can (5.0, 1.5.5). The remaining length of a packet, which
    /// 3.1.1 has too without that rule, is not read here.
    pub(crate) fn varint(&mut self) -> Result<u32, Malformed> {
        let (value, length) = peek_varint(&self.0)?.ok_or(Malformed::Truncated)?;
        if length > varint_len(value as usize) {
            return Err(Malformed::Length);
        }
        self.0.advance(length);
        Ok(value)
    }

    pub(crate) fn binary(&mut self) -> Result<Bytes, Malformed> {
        let length = usize::from(self.u16()?);
        self.take(length)
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<Bytes, Malformed> {
        self.need(length)?;
        Ok(self.0.split_to(length))
    }

    /// A text must be UTF-8 without NUL (1.5.4); Rust's check excludes surrogates already.
    pub(crate) fn text(&mut self) -> Result<String, Malformed> {
        let bytes = self.binary()?;
        let text = std::str::from_utf8(&bytes).map_err(|_| Malformed::Text)?;
        if text.contains('\0') {
            return Err(Malformed::Text);
        }
        Ok(text.to_owned())
    }

    /// A text that names a topic, a client or a user. The standard leaves it to the receiver
    /// whether control characters and non-characters are malformed (1.5.4); in a name they are,
    /// as in mosquitto: names appear in logs, metrics and keys of Kafka records.
    pub(crate) fn name(&mut self) -> Result<String, Malformed> {
        let text = self.text()?;
        if text.chars().all(topic::is_name_character) {
            Ok(text)
        } else {
            Err(Malformed::Text)
        }
    }

    pub(crate) fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.0)
    }

    /// The packet must end here.
    pub(crate) fn end(&self) -> Result<(), Malformed> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(Malformed::TrailingBytes)
        }
    }
}

/// A variable byte integer at the front of `bytes` and the bytes it takes; `None` while it is
/// incomplete.
pub(crate) fn peek_varint(bytes: &[u8]) -> Result<Option<(u32, usize)>, Malformed> {
    let mut value = 0_u32;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() >= 4 {
        return Err(Malformed::Length);
    }
    Ok(None)
}

/// Callers keep `value` at or below [`VARINT_MAX`]; a packet cannot be longer.
pub(crate) fn put_varint(out: &mut impl BufMut, value: usize) {
    debug_assert!(value <= VARINT_MAX as usize, "longer than a packet can be");
    let mut rest = value;
    loop {
        let low = u8::try_from(rest & 0x7F).expect("seven bits fit a byte");
        rest >>= 7;
        out.put_u8(if rest > 0 { low | 0x80 } else { low });
        if rest == 0 {
            return;
        }
    }
}

pub(crate) const fn varint_len(value: usize) -> usize {
    match value {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    }
}

/// Texts that came over the wire fit 16 bits; our own are cut rather than written wrong.
pub(crate) fn put_text(out: &mut impl BufMut, text: &str) {
    let mut end = text.len().min(usize::from(u16::MAX));
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    put_binary(out, &text.as_bytes()[..end]);
}

pub(crate) fn put_binary(out: &mut impl BufMut, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.put_u16(length);
    out.put_slice(&bytes[..usize::from(length)]);
}
