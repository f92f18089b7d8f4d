//! MQTT's primitive types and properties, as a client reads and writes them.

use anyhow::{Context as _, Result, bail, ensure};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// The value of a property of version 5.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Number(u32),
    Text(String),
    Binary(Bytes),
    Pair(String, String),
}

/// The properties of one packet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties(pub Vec<(u8, Value)>);

pub(super) const SUBSCRIPTION_ID: u8 = 0x0B;
pub(super) const SESSION_EXPIRY: u8 = 0x11;
pub(super) const SERVER_KEEP_ALIVE: u8 = 0x13;
pub(super) const RECEIVE_MAXIMUM: u8 = 0x21;
pub(super) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
pub(super) const TOPIC_ALIAS: u8 = 0x23;
const USER: u8 = 0x26;

impl Properties {
    #[must_use]
    pub fn number(&self, identifier: u8) -> Option<u32> {
        self.0.iter().find_map(|(id, value)| match value {
            Value::Number(number) if *id == identifier => Some(*number),
            _ => None,
        })
    }

    /// Reads a block in which only `allowed` may stand, each once but for those that may repeat.
    pub(super) fn read(wire: &mut Bytes, allowed: &[u8]) -> Result<Self> {
        let length = varint(wire)?;
        let mut block = take(wire, length)?;
        let mut read = Self::default();
        while !block.is_empty() {
            let id = u8(&mut block)?;
            ensure!(
                allowed.contains(&id),
                "property {id:#04x} does not belong here"
            );
            let again = read.0.iter().any(|(before, _)| *before == id);
            let may_repeat = id == USER || id == SUBSCRIPTION_ID;
            ensure!(!again || may_repeat, "property {id:#04x} stands here twice");
            read.0.push((id, value(id, &mut block)?));
        }
        Ok(read)
    }

    /// Writes a block of numbers, which is all that these clients send.
    pub(super) fn write_numbers(buffer: &mut BytesMut, numbers: &[(u8, u32)]) {
        let mut block = BytesMut::new();
        for &(id, number) in numbers {
            block.put_u8(id);
            match id {
                RECEIVE_MAXIMUM | TOPIC_ALIAS_MAXIMUM => {
                    block.put_u16(u16::try_from(number).expect("a two-byte property"));
                }
                _ => block.put_u32(number),
            }
        }
        put_varint(buffer, block.len());
        buffer.extend_from_slice(&block);
    }
}

fn value(id: u8, wire: &mut Bytes) -> Result<Value> {
    Ok(match id {
        0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => Value::Number(u8(wire)?.into()),
        0x13 | 0x21 | 0x22 | 0x23 => Value::Number(u16(wire)?.into()),
        0x02 | 0x11 | 0x18 | 0x27 => {
            ensure!(wire.len() >= 4, "a property ends early");
            Value::Number(wire.get_u32())
        }
        SUBSCRIPTION_ID => Value::Number(u32::try_from(varint(wire)?)?),
        0x03 | 0x08 | 0x12 | 0x15 | 0x1A | 0x1C | 0x1F => Value::Text(text(wire)?),
        0x09 | 0x16 => Value::Binary(binary(wire)?),
        USER => Value::Pair(text(wire)?, text(wire)?),
        _ => bail!("there is no property {id:#04x}"),
    })
}

pub(super) fn u8(wire: &mut Bytes) -> Result<u8> {
    ensure!(!wire.is_empty(), "the packet ends early");
    Ok(wire.get_u8())
}

pub(super) fn u16(wire: &mut Bytes) -> Result<u16> {
    ensure!(wire.len() >= 2, "the packet ends early");
    Ok(wire.get_u16())
}

pub(super) fn take(wire: &mut Bytes, length: usize) -> Result<Bytes> {
    ensure!(wire.len() >= length, "the packet ends early");
    Ok(wire.split_to(length))
}

pub(super) fn binary(wire: &mut Bytes) -> Result<Bytes> {
    let length = u16(wire)?;
    take(wire, length.into())
}

pub(super) fn text(wire: &mut Bytes) -> Result<String> {
    let bytes = binary(wire)?;
    let text = std::str::from_utf8(&bytes).context("text that is not UTF-8")?;
    ensure!(!text.contains('\0'), "NUL in a text");
    Ok(text.to_owned())
}

pub(super) fn varint(wire: &mut Bytes) -> Result<usize> {
    let mut number = 0;
    for place in 0..4 {
        let byte = u8(wire)?;
        number |= usize::from(byte & 0x7F) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    bail!("a length of more than four bytes")
}

pub(super) fn put_varint(buffer: &mut BytesMut, mut number: usize) {
    loop {
        let low = u8::try_from(number % 128).expect("below 128");
        number /= 128;
        if number == 0 {
            return buffer.put_u8(low);
        }
        buffer.put_u8(low | 0x80);
    }
}

pub(super) fn put_text(buffer: &mut BytesMut, text: &str) {
    put_binary(buffer, text.as_bytes());
}

pub(super) fn put_binary(buffer: &mut BytesMut, bytes: &[u8]) {
    buffer.put_u16(u16::try_from(bytes.len()).expect("MQTT's texts have 65,535 bytes at most"));
    buffer.extend_from_slice(bytes);
}
