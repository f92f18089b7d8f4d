//! Takes a payload apart into what its kind of payload has in common and what varies.
//!
//! This is no parser: it knows just enough of JSON, and of texts like it, to find numbers, quoted
//! texts and times. Whatever it finds, the pieces put together are the payload.

use crate::number::{self, Number};

/// More pieces of one payload do not get columns of their own: the rest is one text.
pub(crate) const FIELDS_MAX: usize = 256;

/// What a varying piece is, and so which kind of column it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Decimal,
    /// With so many digits of a second.
    Time(u8),
    /// A header without a value.
    Absent,
    /// All headers of a record in one text.
    List,
}

impl Kind {
    /// The byte that stands for it in a block.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Text => 0,
            Self::Decimal => 1,
            Self::Absent => 2,
            Self::List => 3,
            Self::Time(digits) => TIME_CODE + digits,
        }
    }

    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Text),
            1 => Some(Self::Decimal),
            2 => Some(Self::Absent),
            3 => Some(Self::List),
            TIME_CODE..=TIME_CODE_LAST => Some(Self::Time(code - TIME_CODE)),
            _ => None,
        }
    }
}

const TIME_CODE: u8 = 16;
const TIME_CODE_LAST: u8 = TIME_CODE + number::SECOND_DIGITS_MAX;

/// Where a piece ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Before what no word has in it.
    Word,
    /// Before the closing quote.
    Quoted,
    /// Where the payload ends.
    Rest,
}

/// A varying piece of a payload, or a header's value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    pub(crate) kind: Kind,
    pub(crate) extent: Extent,
    pub(crate) start: u32,
    pub(crate) end: u32,
    /// What the text stands for, if it is not one.
    pub(crate) value: i64,
    pub(crate) decimals: u8,
}

impl Field {
    pub(crate) const fn text(start: usize, end: usize, extent: Extent) -> Self {
        Self {
            kind: Kind::Text,
            extent,
            start: start as u32,
            end: end as u32,
            value: 0,
            decimals: 0,
        }
    }

    /// One that is not in a payload.
    pub(crate) const fn of(kind: Kind) -> Self {
        let text = Self::text(0, 0, Extent::Rest);
        Self { kind, ..text }
    }

    const fn number(kind: Kind, start: usize, extent: Extent, number: Number) -> Self {
        Self {
            kind,
            extent,
            start: start as u32,
            end: (start + number.bytes) as u32,
            value: number.value,
            decimals: number.decimals,
        }
    }
}

/// A header's value as a whole.
pub(crate) fn whole(text: &[u8]) -> Field {
    match number::decimal(text) {
        Some(number) if number.bytes == text.len() => {
            Field::number(Kind::Decimal, 0, Extent::Rest, number)
        }
        _ => Field::text(0, text.len(), Extent::Rest),
    }
}

/// The varying pieces of a payload of any kind.
pub(crate) fn scan(payload: &[u8], fields: &mut Vec<Field>) {
    let mut at = 0;
    while let Some(&byte) = payload.get(at) {
        if fields.len() == FIELDS_MAX - 1 {
            fields.push(Field::text(at, payload.len(), Extent::Rest));
            return;
        }
        let field = match CLASSES[usize::from(byte)] {
            Class::Other => {
                at += 1;
                continue;
            }
            Class::Quote => match closing_quote(payload, at + 1) {
                None => Field::text(at + 1, payload.len(), Extent::Rest),
                Some(close) if names_a_member(payload, close + 1) => {
                    at = close + 1;
                    continue;
                }
                Some(close) => {
                    fields.push(quoted(payload, at + 1, close));
                    at = close + 1;
                    continue;
                }
            },
            Class::Word => match word(payload, at) {
                Ok(field) => field,
                Err(end) => {
                    at = end;
                    continue;
                }
            },
        };
        at = field.end as usize;
        fields.push(field);
    }
}

/// The piece at `at`, if it is of the kind and extent that `like` has: what [`scan`] would find
/// there, without looking for anything else.
#[inline]
pub(crate) fn again(payload: &[u8], at: usize, like: (Kind, Extent)) -> Option<Field> {
    let field = match like.1 {
        Extent::Rest => return None,
        Extent::Quoted => {
            // Mostly it is a number again, and its end need not be looked for.
            if like.0 == Kind::Decimal {
                let number = number::decimal(&payload[at..])?;
                let ends = payload.get(at + number.bytes) == Some(&b'"');
                return ends.then(|| Field::number(Kind::Decimal, at, Extent::Quoted, number));
            }
            quoted(payload, at, closing_quote(payload, at)?)
        }
        Extent::Word => match CLASSES[usize::from(*payload.get(at)?)] {
            Class::Word => word(payload, at).ok()?,
            _ => return None,
        },
    };
    ((field.kind, field.extent) == like).then_some(field)
}

/// A word is a piece if it is a number or could be one, or one of JSON's three words.
/// Otherwise it belongs to what payloads have in common, and this is where it ends.
#[inline]
fn word(payload: &[u8], start: usize) -> Result<Field, usize> {
    let text = &payload[start..];
    let digit_at = usize::from(text[0] == b'-');
    if text.get(digit_at).is_some_and(u8::is_ascii_digit) {
        if let Some(number) = number::decimal(text)
            && !text.get(number.bytes).is_some_and(|&byte| in_word(byte))
        {
            return Ok(Field::number(Kind::Decimal, start, Extent::Word, number));
        }
        if let Some(time) = number::time(text) {
            let kind = Kind::Time(time.decimals);
            return Ok(Field::number(kind, start, Extent::Word, time));
        }
    }
    let length = text.iter().position(|&byte| !in_word(byte));
    let length = length.unwrap_or(text.len());
    let end = start + length;
    let varies = text
        .get(digit_at)
        .is_some_and(|&byte| byte.is_ascii_digit() && digit_at < length)
        || matches!(&text[..length], b"true" | b"false" | b"null");
    if varies {
        Ok(Field::text(start, end, Extent::Word))
    } else {
        Err(end)
    }
}

fn quoted(payload: &[u8], start: usize, close: usize) -> Field {
    let text = &payload[start..close];
    if text
        .first()
        .is_some_and(|byte| *byte == b'-' || byte.is_ascii_digit())
    {
        if let Some(number) = number::decimal(text).filter(|number| number.bytes == text.len()) {
            return Field::number(Kind::Decimal, start, Extent::Quoted, number);
        }
        if let Some(time) = number::time(text).filter(|time| is_zone(&text[time.bytes..])) {
            return Field::number(Kind::Time(time.decimals), start, Extent::Quoted, time);
        }
    }
    Field::text(start, close, Extent::Quoted)
}

/// Sensors do not travel: a zone is the same all the time, and is no piece of its own.
fn is_zone(text: &[u8]) -> bool {
    matches!(text, b"" | b"Z" | [b'+' | b'-', _, _, b':', _, _])
}

fn closing_quote(payload: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        match payload.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Whether a quoted text is followed by the colon that makes it a member's name.
fn names_a_member(payload: &[u8], after: usize) -> bool {
    let mut rest = payload[after..].iter();
    rest.find(|byte| !byte.is_ascii_whitespace()) == Some(&b':')
}

fn in_word(byte: u8) -> bool {
    CLASSES[usize::from(byte)] == Class::Word
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Word,
    Quote,
    Other,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Other; 256];
    let mut byte = 0;
    while byte < 256 {
        let of = byte as u8;
        if of.is_ascii_alphanumeric() || of >= 0x80 || matches!(of, b'_' | b'.' | b'+' | b'-') {
            classes[byte] = Class::Word;
        }
        byte += 1;
    }
    classes[b'"' as usize] = Class::Quote;
    classes
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pieces(payload: &str) -> Vec<(Kind, &str)> {
        let mut fields = Vec::new();
        scan(payload.as_bytes(), &mut fields);
        let text = |field: &Field| &payload[field.start as usize..field.end as usize];
        fields.iter().map(|f| (f.kind, text(f))).collect()
    }

    #[test]
    fn the_pieces_are_what_varies() {
        use Kind::{Decimal, Text, Time};
        for (payload, expected) in [
            (
                r#"{"value": 41.25, "unit" : "°C","ok":true,"n":null}"#,
                vec![
                    (Decimal, "41.25"),
                    (Text, "°C"),
                    (Text, "true"),
                    (Text, "null"),
                ],
            ),
            (
                r#"["2026-11-26T14:42:44.120Z","12","a\"b",1e-7,-0]"#,
                vec![
                    (Time(3), "2026-11-26T14:42:44.120"),
                    (Decimal, "12"),
                    (Text, r#"a\"b"#),
                    (Text, "1e-7"),
                    (Text, "-0"),
                ],
            ),
            (
                "cpu,host=a1 load=0.5,n=3i 1764168164000000000",
                vec![
                    (Decimal, "0.5"),
                    (Text, "3i"),
                    (Decimal, "1764168164000000000"),
                ],
            ),
            (
                "2026-11-26T14:42:44 on",
                vec![(Time(0), "2026-11-26T14:42:44")],
            ),
            ("21.5", vec![(Decimal, "21.5")]),
            ("ON", vec![]),
            ("", vec![]),
            ("\"cut", vec![(Text, "cut")]),
        ] {
            assert_eq!(pieces(payload), expected, "{payload}");
        }
    }

    #[test]
    fn a_payload_of_many_pieces_ends_in_one_text() {
        let payload = "1,".repeat(1_000);
        let pieces = pieces(&payload);
        assert_eq!(pieces.len(), FIELDS_MAX);
        assert_eq!(pieces[FIELDS_MAX - 1].0, Kind::Text);
        assert_eq!(pieces[FIELDS_MAX - 1].1.len(), 2_001 - 2 * (FIELDS_MAX - 1));
    }

    proptest! {
        /// Else the bytes of a block would depend on what was packed before it.
        #[test]
        fn every_piece_is_found_again(payload in r#"([{",:\[-]|true|null|-?[0-9]{1,4}(\.[0-9]{1,3})?|2026-11-26T14:42:44(\.12)?Z?|[ae\\"]{1,3}){0,12}"#) {
            let payload = payload.as_bytes();
            let mut fields = Vec::new();
            scan(payload, &mut fields);
            for field in fields {
                let like = (field.kind, field.extent);
                let found = again(payload, field.start as usize, like);
                if field.extent == Extent::Rest {
                    prop_assert!(found.is_none());
                } else {
                    let found = found.map(|f| (f.start, f.end, f.value, f.decimals));
                    prop_assert_eq!(found, Some((field.start, field.end, field.value, field.decimals)));
                }
            }
        }
    }
}
