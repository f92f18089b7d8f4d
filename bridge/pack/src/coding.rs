//! Numbers as bytes and as bits.

use crate::error::{Error, Section};

/// A Rice code with this many ones and no zero announces a number too large for its parameter.
const ESCAPE: u32 = 12;
/// Bits that say how long such a number is, less one.
const LENGTH_BITS: u32 = 6;

/// No number takes more, however it is coded, nor do a byte that says how and a parameter.
pub(crate) const NUMBER_BYTES_MAX: usize = 12;

/// Small numbers of either sign become small numbers.
pub(crate) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

pub(crate) const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

pub(crate) const fn bit_length(value: u64) -> u32 {
    u64::BITS - value.leading_zeros()
}

/// LEB128: seven bits a byte, the low ones first.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// How many bytes [`put_varint`] adds.
pub(crate) const fn varint_bytes(value: u64) -> u32 {
    bit_length(value | 1).div_ceil(7)
}

/// How many bits [`Bits::put_rice`] adds.
pub(crate) const fn rice_bits(value: u64, parameter: u32) -> u32 {
    let ones = value >> parameter;
    if ones < ESCAPE as u64 {
        ones as u32 + 1 + parameter
    } else {
        ESCAPE + LENGTH_BITS + bit_length(value)
    }
}

/// Bits on their way out, the low bits of a byte first.
#[derive(Debug, Default)]
pub(crate) struct Bits {
    pub(crate) bytes: Vec<u8>,
    held: u64,
    held_bits: u32,
}

impl Bits {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.held = 0;
        self.held_bits = 0;
    }

    /// `count` is at most 32 and `value` has no more bits than that.
    fn put(&mut self, value: u64, count: u32) {
        self.held |= value << self.held_bits;
        self.held_bits += count;
        if self.held_bits >= 32 {
            let whole = self.held.to_le_bytes();
            self.bytes.extend_from_slice(&whole[..4]);
            self.held >>= 32;
            self.held_bits -= 32;
        }
    }

    fn put_long(&mut self, value: u64, count: u32) {
        if count > 32 {
            self.put(value & 0xffff_ffff, 32);
            self.put(value >> 32, count - 32);
        } else {
            self.put(value, count);
        }
    }

    /// As many ones as the number has multiples of 2^parameter, a zero, then what is left.
    pub(crate) fn put_rice(&mut self, value: u64, parameter: u32) {
        let ones = value >> parameter;
        if ones < u64::from(ESCAPE) {
            let ones = ones as u32;
            self.put((1 << ones) - 1, ones + 1);
            self.put_long(value & ((1 << parameter) - 1), parameter);
        } else {
            let length = bit_length(value);
            let announced = ((1 << ESCAPE) - 1) | (u64::from(length - 1) << ESCAPE);
            self.put(announced, ESCAPE + LENGTH_BITS);
            self.put_long(value, length);
        }
    }

    /// The last byte is filled up with zeros.
    pub(crate) fn finish(&mut self) -> &[u8] {
        let rest = self.held_bits.div_ceil(8) as usize;
        let held = self.held.to_le_bytes();
        self.bytes.extend_from_slice(&held[..rest]);
        self.held = 0;
        self.held_bits = 0;
        &self.bytes
    }
}

/// Bits on their way in.
#[derive(Debug)]
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    /// Of the next byte that is not held.
    at: usize,
    held: u64,
    held_bits: u32,
}

impl<'a> BitReader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            held: 0,
            held_bits: 0,
        }
    }

    /// Afterwards at least 56 bits are held, or all there are.
    fn refill(&mut self) {
        if let Some(next) = self.bytes[self.at..].first_chunk::<8>() {
            self.held |= u64::from_le_bytes(*next) << self.held_bits;
            let taken = (63 - self.held_bits) / 8;
            self.at += taken as usize;
            self.held_bits += taken * 8;
            // Bits of a byte that was not taken whole will come again.
            self.held &= (1 << self.held_bits) - 1;
            return;
        }
        while self.held_bits <= 48 && self.at < self.bytes.len() {
            self.held |= u64::from(self.bytes[self.at]) << self.held_bits;
            self.held_bits += 8;
            self.at += 1;
        }
    }

    /// `count` is at most 48.
    fn take(&mut self, count: u32) -> Result<u64, Error> {
        if self.held_bits < count {
            self.refill();
            if self.held_bits < count {
                return Err(self.malformed("end"));
            }
        }
        let value = self.held & ((1 << count) - 1);
        self.held >>= count;
        self.held_bits -= count;
        Ok(value)
    }

    fn take_long(&mut self, count: u32) -> Result<u64, Error> {
        if count <= 32 {
            return self.take(count);
        }
        let low = self.take(32)?;
        Ok(low | self.take(count - 32)? << 32)
    }

    pub(crate) fn rice(&mut self, parameter: u32) -> Result<u64, Error> {
        if self.held_bits < ESCAPE {
            self.refill();
        }
        let ones = self.held.trailing_ones().min(ESCAPE);
        if ones < ESCAPE {
            self.take(ones + 1)?;
            return Ok(u64::from(ones) << parameter | self.take_long(parameter)?);
        }
        self.take(ESCAPE)?;
        let length = self.take(LENGTH_BITS)? as u32 + 1;
        self.take_long(length)
    }

    /// Nothing may be left but the zeros of the last byte.
    pub(crate) fn end(mut self) -> Result<(), Error> {
        self.refill();
        let over = self.at < self.bytes.len() || self.held_bits >= 8 || self.held != 0;
        if over {
            return Err(self.malformed("end"));
        }
        Ok(())
    }

    const fn malformed(&self, what: &'static str) -> Error {
        Error::Malformed {
            what,
            section: Section::Bits,
            at: self.at,
        }
    }
}

/// Bytes on their way in.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) at: usize,
    section: Section,
}

impl<'a> Cursor<'a> {
    pub(crate) const fn new(bytes: &'a [u8], section: Section) -> Self {
        Self {
            bytes,
            at: 0,
            section,
        }
    }

    pub(crate) fn byte(&mut self, what: &'static str) -> Result<u8, Error> {
        let byte = self.bytes.get(self.at).copied();
        self.at += 1;
        byte.ok_or_else(|| self.malformed(what))
    }

    pub(crate) fn varint(&mut self, what: &'static str) -> Result<u64, Error> {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.byte(what)?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has one bit of 64.
            if shift == 63 && byte > 1 {
                return Err(self.malformed(what));
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
            shift += 7;
        }
    }

    /// A count or length that something of at most `max` has.
    pub(crate) fn at_most(&mut self, max: usize, what: &'static str) -> Result<usize, Error> {
        let value = self.varint(what)?;
        match usize::try_from(value) {
            Ok(value) if value <= max => Ok(value),
            _ => Err(Error::TooLarge {
                what,
                found: value,
                max: max as u64,
            }),
        }
    }

    /// Passes `count` bytes by and says where they begin.
    pub(crate) fn skip(&mut self, count: usize, what: &'static str) -> Result<usize, Error> {
        let start = self.at;
        if self.bytes.len().saturating_sub(start) < count {
            return Err(self.malformed(what));
        }
        self.at += count;
        Ok(start)
    }

    pub(crate) const fn malformed(&self, what: &'static str) -> Error {
        Error::Malformed {
            what,
            section: self.section,
            at: self.at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_size() -> impl Strategy<Value = u64> {
        (any::<u64>(), 0_u32..64).prop_map(|(value, shift)| value >> shift)
    }

    proptest! {
        #[test]
        fn what_is_coded_comes_back(values in prop::collection::vec((any_size(), 0_u32..60), 0..200)) {
            let (mut bits, mut bytes) = (Bits::default(), Vec::new());
            let (mut bit_count, mut byte_count) = (0_u64, 0);
            for (value, parameter) in &values {
                bits.put_rice(*value, *parameter);
                bit_count += u64::from(rice_bits(*value, *parameter));
                put_varint(&mut bytes, *value);
                byte_count += varint_bytes(*value) as usize;
                prop_assert_eq!(unzigzag(zigzag(value.cast_signed())), value.cast_signed());
            }
            prop_assert_eq!(bits.finish().len() as u64, bit_count.div_ceil(8));
            prop_assert_eq!(bytes.len(), byte_count);
            let mut reader = BitReader::new(&bits.bytes);
            let mut cursor = Cursor::new(&bytes, Section::Columns);
            for (value, parameter) in &values {
                prop_assert_eq!(reader.rice(*parameter), Ok(*value));
                prop_assert_eq!(cursor.varint("number"), Ok(*value));
            }
            prop_assert_eq!(reader.end(), Ok(()));
            prop_assert_eq!(cursor.at, bytes.len());
        }

        #[test]
        fn noise_ends_in_an_error(noise: Vec<u8>, parameter in 0_u32..64) {
            let mut reader = BitReader::new(&noise);
            // No code is shorter than a bit.
            prop_assert!((0..=noise.len() * 8).any(|_| reader.rice(parameter).is_err()));
        }
    }

    #[test]
    fn bits_left_over_are_refused() {
        let mut reader = BitReader::new(&[0b0000_0010, 0]);
        assert_eq!(reader.rice(0), Ok(0));
        assert!(reader.end().is_err());
        let mut reader = BitReader::new(&[0b0000_0010]);
        assert_eq!(reader.rice(0), Ok(0));
        assert!(reader.end().is_err(), "a bit that is not zero");
    }
}
