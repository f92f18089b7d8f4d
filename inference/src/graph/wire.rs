//! Protobuf's wire format, read in place: nothing is copied and nothing is set aside on the word
//! of the file.

/// What one field of a message holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed32(u32),
    Fixed64(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message in the order of the file.
#[derive(Debug, Clone)]
pub(super) struct Fields<'a>(&'a [u8]);

/// Not protobuf, or cut off.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken;

pub(super) fn fields(message: &[u8]) -> Fields<'_> {
    Fields(message)
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<(u32, Value<'a>), Broken> {
        let tag = varint(&mut self.0)?;
        let number = u32::try_from(tag >> 3).map_err(|_| Broken)?;
        let value = match tag & 7 {
            0 => Value::Varint(varint(&mut self.0)?),
            1 => Value::Fixed64(u64::from_le_bytes(array(&mut self.0)?)),
            2 => {
                let length = usize::try_from(varint(&mut self.0)?).map_err(|_| Broken)?;
                let (bytes, rest) = self.0.split_at_checked(length).ok_or(Broken)?;
                self.0 = rest;
                Value::Bytes(bytes)
            }
            5 => Value::Fixed32(u32::from_le_bytes(array(&mut self.0)?)),
            _ => return Err(Broken),
        };
        Ok((number, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

fn array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Broken> {
    let (head, rest) = bytes.split_first_chunk().ok_or(Broken)?;
    *bytes = rest;
    Ok(*head)
}

fn varint(bytes: &mut &[u8]) -> Result<u64, Broken> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(Broken)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Broken)
}

impl<'a> Value<'a> {
    pub(super) fn bytes(self) -> Result<&'a [u8], Broken> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(Broken),
        }
    }

    pub(super) fn text(self) -> Result<&'a str, Broken> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Broken)
    }

    pub(super) fn int(self) -> Result<i64, Broken> {
        match self {
            Self::Varint(value) => Ok(value as i64),
            _ => Err(Broken),
        }
    }

    pub(super) fn float(self) -> Result<f32, Broken> {
        match self {
            Self::Fixed32(bits) => Ok(f32::from_bits(bits)),
            _ => Err(Broken),
        }
    }

    /// A repeated number, alone or packed with others.
    pub(super) fn ints(self, mut take: impl FnMut(i64)) -> Result<(), Broken> {
        match self {
            Self::Varint(value) => take(value as i64),
            Self::Bytes(mut packed) => {
                while !packed.is_empty() {
                    take(varint(&mut packed)? as i64);
                }
            }
            _ => return Err(Broken),
        }
        Ok(())
    }

    pub(super) fn floats(self, mut take: impl FnMut(f32)) -> Result<(), Broken> {
        match self {
            Self::Fixed32(bits) => take(f32::from_bits(bits)),
            Self::Bytes(mut packed) => {
                while !packed.is_empty() {
                    take(f32::from_le_bytes(array(&mut packed)?));
                }
            }
            _ => return Err(Broken),
        }
        Ok(())
    }

    pub(super) fn doubles(self, mut take: impl FnMut(f64)) -> Result<(), Broken> {
        match self {
            Self::Fixed64(bits) => take(f64::from_bits(bits)),
            Self::Bytes(mut packed) => {
                while !packed.is_empty() {
                    take(f64::from_le_bytes(array(&mut packed)?));
                }
            }
            _ => return Err(Broken),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_field_is_read() {
        let message = [
            0x08, 0xac, 0x02, // 1: varint 300
            0x15, 0, 0, 0x80, 0x3f, // 2: 1.0f32
            0x1a, 2, b'h', b'i', // 3: "hi"
            0x21, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, // 4: 1.0f64
        ];
        let all: Vec<_> = fields(&message).collect::<Result<_, _>>().unwrap();
        let numbers: Vec<u32> = all.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [1, 2, 3, 4]);
        assert_eq!(all[0].1.int(), Ok(300));
        assert_eq!(all[1].1.float(), Ok(1.0));
        assert_eq!(all[2].1.text(), Ok("hi"));
        let mut doubles = Vec::new();
        all[3].1.doubles(|value| doubles.push(value)).unwrap();
        assert_eq!(doubles, [1.0]);
    }

    #[test]
    fn what_is_cut_off_or_no_protobuf_is_broken_and_ends() {
        for bad in [
            &[0x08][..],
            &[0x1a, 5, 1],
            &[0x15, 0],
            &[0x0b],
            &[0x80; 12],
            &[0x1a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
        ] {
            let all: Vec<_> = fields(bad).collect();
            assert!(matches!(all[..], [Err(Broken)]), "{bad:?}: {all:?}");
        }
    }
}
