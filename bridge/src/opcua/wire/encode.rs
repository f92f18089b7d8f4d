//! JSON into the type that a node or an argument takes, exactly or not at all: nothing is cut off,
//! rounded to another whole number or taken for something else. The other way is `decode.rs`; what
//! that prints, this reads.

use super::decode;
use super::vendor::{
    Array, ByteString, DateTime, ExpandedNodeId, Guid, LocalizedText, NodeId, QualifiedName,
    StatusCode, Variant, VariantScalarTypeId, VariantTypeId, XmlElement,
};
use crate::opcua::value::Value;
use serde_json::Value as Json;
use std::fmt;

/// Elements of an array, at most: a command comes in one MQTT message.
const ELEMENTS_MAX: usize = 100_000;
/// Dimensions of an array, at most.
const RANK_MAX: usize = 8;
/// Whole numbers up to here are exact in 64 and in 32 bits of floating point.
const EXACT_DOUBLE: u64 = 1 << f64::MANTISSA_DIGITS;
const EXACT_FLOAT: u64 = 1 << f32::MANTISSA_DIGITS;

/// A value ready to be sent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Encoded(pub(super) Variant);

/// What a node or an argument takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Shape {
    pub(super) element: Element,
    /// `ValueRank` (Part 3, 5.6.2): -1 a scalar, from 1 the number of dimensions, 0 any array, -3 a
    /// scalar or a list, -2 whatever comes.
    pub(super) rank: i32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Element {
    Exactly(VariantScalarTypeId),
    /// Abstract: what is sent goes by the JSON.
    Number,
    Integer,
    UInteger,
    Any,
}

/// Why a value is none for this node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    #[error("{got} is no {wanted}{hint}")]
    Kind {
        wanted: String,
        got: String,
        hint: &'static str,
    },
    #[error("{got} does not fit {wanted}, which is {least} to {most}")]
    Range {
        wanted: &'static str,
        got: String,
        least: String,
        most: String,
    },
    #[error("{got} cannot be held exactly by a {wanted}")]
    Inexact { wanted: &'static str, got: String },
    #[error("the node takes {wanted}, and this is {got}")]
    Rank { wanted: String, got: String },
    #[error("the rows of the array differ in length")]
    Ragged,
    #[error("an array of more than {ELEMENTS_MAX} elements is not sent by a command")]
    TooMany,
    #[error("values of type {0} cannot be written by a command")]
    Unwritable(String),
}

impl Encoded {
    pub(crate) fn value(&self) -> Value {
        decode::value(self.0.clone())
    }

    /// Every number in it; `None` if it holds something that is no number.
    pub(crate) fn numbers(&self) -> Option<Vec<f64>> {
        match &self.0 {
            Variant::Array(array) => array.values.iter().map(number).collect(),
            scalar => number(scalar).map(|number| vec![number]),
        }
    }

    pub(crate) fn text(text: &str) -> Self {
        Self(Variant::from(LocalizedText::new("", text)))
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "limits are floating point numbers themselves"
)]
fn number(variant: &Variant) -> Option<f64> {
    Some(match variant {
        Variant::SByte(value) => f64::from(*value),
        Variant::Byte(value) => f64::from(*value),
        Variant::Int16(value) => f64::from(*value),
        Variant::UInt16(value) => f64::from(*value),
        Variant::Int32(value) => f64::from(*value),
        Variant::UInt32(value) => f64::from(*value),
        Variant::Int64(value) => *value as f64,
        Variant::UInt64(value) => *value as f64,
        Variant::Float(value) => f64::from(*value),
        Variant::Double(value) => *value,
        _ => return None,
    })
}

impl Shape {
    /// A type given by its word, of any rank.
    pub(crate) fn named(word: &str) -> Option<Self> {
        let element = (1..=21)
            .filter_map(VariantScalarTypeId::from_encoding_mask)
            .find(|scalar| name(*scalar).eq_ignore_ascii_case(word))?;
        Some(Self {
            element: Element::Exactly(element),
            rank: -2,
        })
    }

    /// What is sent in `json`'s place, or why it cannot be.
    pub(crate) fn encode(self, json: &Json) -> Result<Encoded, Misfit> {
        let dimensions = dimensions(json)?;
        let rank = dimensions.len();
        if !self.takes(rank) {
            return Err(Misfit::Rank {
                wanted: wanted_rank(self.rank),
                got: rank_words(rank),
            });
        }
        if rank == 0 {
            return self.element.scalar(json).map(Encoded);
        }
        let mut leaves = Vec::new();
        flatten(json, &dimensions, &mut leaves)?;
        let element = self.element.settle(&leaves);
        let values: Vec<Variant> = leaves
            .into_iter()
            .map(|leaf| element.scalar(leaf))
            .collect::<Result<_, _>>()?;
        let scalar = match (element, values.first().map(Variant::type_id)) {
            (Element::Exactly(scalar), _) | (_, Some(VariantTypeId::Scalar(scalar))) => scalar,
            _ => return Err(Misfit::Unwritable("an empty array of no type".to_owned())),
        };
        let array = match rank {
            1 => Array::new(scalar, values),
            _ => Array::new_multi(scalar, values, dimensions),
        };
        let array = array.map_err(|why| Misfit::Unwritable(why.to_string()))?;
        Ok(Encoded(Variant::Array(Box::new(array))))
    }

    const fn takes(self, rank: usize) -> bool {
        match self.rank {
            -3 => rank <= 1,
            -2 => true,
            -1 => rank == 0,
            0 => rank >= 1,
            dimensions => dimensions > 0 && rank == dimensions.unsigned_abs() as usize,
        }
    }
}

fn wanted_rank(rank: i32) -> String {
    match rank {
        -3 => "one value or a list".to_owned(),
        -1 => rank_words(0),
        0 => "an array".to_owned(),
        dimensions => rank_words(dimensions.unsigned_abs() as usize),
    }
}

fn rank_words(rank: usize) -> String {
    match rank {
        0 => "one value".to_owned(),
        1 => "a list of values".to_owned(),
        rank => format!("an array of {rank} dimensions"),
    }
}

/// The lengths of nested JSON arrays, outermost first; none for a scalar.
fn dimensions(json: &Json) -> Result<Vec<u32>, Misfit> {
    let (mut lengths, mut inner) = (Vec::new(), json);
    while let Json::Array(elements) = inner {
        if lengths.len() == RANK_MAX || elements.len() > ELEMENTS_MAX {
            return Err(Misfit::TooMany);
        }
        lengths.push(u32::try_from(elements.len()).map_err(|_| Misfit::TooMany)?);
        match elements.first() {
            Some(first) => inner = first,
            None => break,
        }
    }
    Ok(lengths)
}

fn flatten<'j>(
    json: &'j Json,
    dimensions: &[u32],
    leaves: &mut Vec<&'j Json>,
) -> Result<(), Misfit> {
    match (json, dimensions) {
        (Json::Array(elements), [length, inner @ ..]) if elements.len() == *length as usize => {
            for element in elements {
                flatten(element, inner, leaves)?;
            }
            Ok(())
        }
        (Json::Array(_), _) | (_, [_, ..]) => Err(Misfit::Ragged),
        (_, []) if leaves.len() == ELEMENTS_MAX => Err(Misfit::TooMany),
        (leaf, []) => {
            leaves.push(leaf);
            Ok(())
        }
    }
}

impl Element {
    /// One type for all elements of an array.
    fn settle(self, leaves: &[&Json]) -> Self {
        let all = |is: fn(&Json) -> bool| leaves.iter().all(|leaf| is(leaf));
        match self {
            Self::Number | Self::Any if !leaves.is_empty() && all(Json::is_number) => {
                match all(Json::is_i64) {
                    true => Self::Exactly(VariantScalarTypeId::Int64),
                    false => Self::Exactly(VariantScalarTypeId::Double),
                }
            }
            settled => settled,
        }
    }

    fn scalar(self, json: &Json) -> Result<Variant, Misfit> {
        use VariantScalarTypeId as Scalar;
        let of = |scalar| exactly(scalar, json);
        match (self, json) {
            (Self::Exactly(scalar), _) => of(scalar),
            (Self::UInteger, _) => of(Scalar::UInt64),
            (Self::Integer, _) => of(Scalar::Int64),
            (Self::Number | Self::Any, Json::Number(number)) if number.is_i64() => {
                of(Scalar::Int64)
            }
            (Self::Number | Self::Any, Json::Number(number)) if number.is_u64() => {
                of(Scalar::UInt64)
            }
            (Self::Number, _) | (Self::Any, Json::Number(_)) => of(Scalar::Double),
            (Self::Any, Json::Bool(_)) => of(Scalar::Boolean),
            (Self::Any, _) => of(Scalar::String),
        }
    }
}

fn exactly(scalar: VariantScalarTypeId, json: &Json) -> Result<Variant, Misfit> {
    use VariantScalarTypeId as Scalar;
    let wrong = |hint| Misfit::Kind {
        wanted: name(scalar).to_owned(),
        got: excerpt(json),
        hint,
    };
    Ok(match scalar {
        Scalar::Boolean => {
            Variant::Boolean(json.as_bool().ok_or_else(|| wrong(": true or false"))?)
        }
        Scalar::SByte => Variant::SByte(whole(scalar, json, i8::MIN, i8::MAX)?),
        Scalar::Byte => Variant::Byte(whole(scalar, json, u8::MIN, u8::MAX)?),
        Scalar::Int16 => Variant::Int16(whole(scalar, json, i16::MIN, i16::MAX)?),
        Scalar::UInt16 => Variant::UInt16(whole(scalar, json, u16::MIN, u16::MAX)?),
        Scalar::Int32 => Variant::Int32(whole(scalar, json, i32::MIN, i32::MAX)?),
        Scalar::UInt32 => Variant::UInt32(whole(scalar, json, u32::MIN, u32::MAX)?),
        Scalar::Int64 => Variant::Int64(whole(scalar, json, i64::MIN, i64::MAX)?),
        Scalar::UInt64 => Variant::UInt64(whole(scalar, json, u64::MIN, u64::MAX)?),
        Scalar::StatusCode => {
            let bits: u32 = whole(scalar, json, u32::MIN, u32::MAX)?;
            Variant::StatusCode(StatusCode::from(bits))
        }
        Scalar::Float => Variant::Float(float(json)?),
        Scalar::Double => Variant::Double(double(scalar, json, EXACT_DOUBLE)?),
        Scalar::LocalizedText => Variant::from(
            localized(json)
                .ok_or_else(|| wrong(r#": a text, or {"locale": "en", "text": "…"}"#))?,
        ),
        textual => {
            let hint = hint(textual);
            let text = json.as_str().ok_or_else(|| wrong(hint))?;
            from_text(textual, text).ok_or_else(|| match hint {
                "" => Misfit::Unwritable(name(textual).to_owned()),
                hint => wrong(hint),
            })?
        }
    })
}

/// How a text of this type looks; nothing for types that no text stands for.
const fn hint(scalar: VariantScalarTypeId) -> &'static str {
    use VariantScalarTypeId as Scalar;
    match scalar {
        Scalar::String | Scalar::XmlElement => ": a text in quotes",
        Scalar::DateTime => ": a time such as \"2026-01-31T12:00:00Z\", from 1601 to 9999",
        Scalar::Guid => ": a text such as \"72962b91-fa75-4ae6-8d28-b404dc7daf63\"",
        Scalar::ByteString => ": bytes as base64 in quotes",
        Scalar::NodeId | Scalar::ExpandedNodeId => ": a node id such as \"ns=2;s=Pump\"",
        Scalar::QualifiedName => ": a name such as \"2:Pump\"",
        _ => "",
    }
}

fn from_text(scalar: VariantScalarTypeId, text: &str) -> Option<Variant> {
    use VariantScalarTypeId as Scalar;
    Some(match scalar {
        Scalar::String => Variant::from(text),
        Scalar::XmlElement => Variant::XmlElement(XmlElement::from(text)),
        Scalar::DateTime => {
            // The crate moves what lies outside to the next time it knows.
            let time = DateTime::parse_from_rfc3339(text).ok()?;
            let inside = !time.is_null() && time.ticks() < DateTime::endtimes_ticks();
            Variant::from(inside.then_some(time)?)
        }
        Scalar::Guid => Variant::from(text.parse::<Guid>().ok()?),
        Scalar::ByteString => Variant::from(ByteString::from_base64(text)?),
        Scalar::NodeId => Variant::from(text.parse::<NodeId>().ok()?),
        Scalar::ExpandedNodeId => Variant::from(text.parse::<ExpandedNodeId>().ok()?),
        Scalar::QualifiedName => {
            let numbered = text.split_once(':').and_then(|(namespace, name)| {
                Some(QualifiedName::new(namespace.parse().ok()?, name))
            });
            Variant::from(numbered.unwrap_or_else(|| QualifiedName::new(0, text)))
        }
        _ => return None,
    })
}

fn localized(json: &Json) -> Option<LocalizedText> {
    match json {
        Json::String(text) => Some(LocalizedText::new("", text)),
        Json::Object(fields) => {
            let known = fields.keys().all(|key| key == "locale" || key == "text");
            let text = fields.get("text")?.as_str().filter(|_| known)?;
            let locale = match fields.get("locale") {
                None | Some(Json::Null) => "",
                Some(locale) => locale.as_str()?,
            };
            Some(LocalizedText::new(locale, text))
        }
        _ => None,
    }
}

/// A whole number within the type's range; `1.0` is one, `1.5` is none.
fn whole<T>(scalar: VariantScalarTypeId, json: &Json, least: T, most: T) -> Result<T, Misfit>
where
    T: TryFrom<i128> + fmt::Display,
{
    let wrong = |hint| Misfit::Kind {
        wanted: name(scalar).to_owned(),
        got: excerpt(json),
        hint,
    };
    let Json::Number(number) = json else {
        return Err(wrong(": a number"));
    };
    let value = match (number.as_i64(), number.as_u64(), number.as_f64()) {
        (Some(value), _, _) => i128::from(value),
        (_, Some(value), _) => i128::from(value),
        (_, _, Some(value)) if value.fract() != 0.0 => return Err(wrong(": a whole number")),
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            reason = "whole, and beyond this no float stands for one number only"
        )]
        (_, _, Some(value)) if value.abs() <= EXACT_DOUBLE as f64 => value as i128,
        _ => {
            return Err(Misfit::Range {
                wanted: name(scalar),
                got: excerpt(json),
                least: least.to_string(),
                most: most.to_string(),
            });
        }
    };
    T::try_from(value).map_err(|_| Misfit::Range {
        wanted: name(scalar),
        got: excerpt(json),
        least: least.to_string(),
        most: most.to_string(),
    })
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a decimal fraction is rounded to the type's own precision; overflow is looked for"
)]
fn float(json: &Json) -> Result<f32, Misfit> {
    let scalar = VariantScalarTypeId::Float;
    let value = double(scalar, json, EXACT_FLOAT)?;
    let narrow = value as f32;
    if value.is_finite() && !narrow.is_finite() {
        return Err(Misfit::Range {
            wanted: name(scalar),
            got: excerpt(json),
            least: f32::MIN.to_string(),
            most: f32::MAX.to_string(),
        });
    }
    Ok(narrow)
}

/// A floating point number; whole ones up to `exact` only, beyond it they would be others.
fn double(scalar: VariantScalarTypeId, json: &Json, exact: u64) -> Result<f64, Misfit> {
    let wrong = || Misfit::Kind {
        wanted: name(scalar).to_owned(),
        got: excerpt(json),
        hint: ": a number, or \"NaN\", \"Infinity\" or \"-Infinity\"",
    };
    match json {
        Json::Number(number) => {
            let whole = number.as_i64().map(i64::unsigned_abs);
            let inexact = |whole: u64| {
                let shift = whole.trailing_zeros().min(63);
                whole != 0 && whole >> shift > exact
            };
            if whole.or_else(|| number.as_u64()).is_some_and(inexact) {
                return Err(Misfit::Inexact {
                    wanted: name(scalar),
                    got: excerpt(json),
                });
            }
            number.as_f64().ok_or_else(wrong)
        }
        Json::String(text) => match text.as_str() {
            "NaN" => Ok(f64::NAN),
            "Infinity" => Ok(f64::INFINITY),
            "-Infinity" => Ok(f64::NEG_INFINITY),
            _ => Err(wrong()),
        },
        _ => Err(wrong()),
    }
}

pub(super) const fn name(scalar: VariantScalarTypeId) -> &'static str {
    use VariantScalarTypeId as Scalar;
    match scalar {
        Scalar::Boolean => "Boolean",
        Scalar::SByte => "SByte",
        Scalar::Byte => "Byte",
        Scalar::Int16 => "Int16",
        Scalar::UInt16 => "UInt16",
        Scalar::Int32 => "Int32",
        Scalar::UInt32 => "UInt32",
        Scalar::Int64 => "Int64",
        Scalar::UInt64 => "UInt64",
        Scalar::Float => "Float",
        Scalar::Double => "Double",
        Scalar::String => "String",
        Scalar::DateTime => "DateTime",
        Scalar::Guid => "Guid",
        Scalar::ByteString => "ByteString",
        Scalar::XmlElement => "XmlElement",
        Scalar::NodeId => "NodeId",
        Scalar::ExpandedNodeId => "ExpandedNodeId",
        Scalar::StatusCode => "StatusCode",
        Scalar::QualifiedName => "QualifiedName",
        Scalar::LocalizedText => "LocalizedText",
        Scalar::ExtensionObject => "Structure",
        Scalar::DataValue => "DataValue",
        Scalar::Variant => "Variant",
        Scalar::DiagnosticInfo => "DiagnosticInfo",
    }
}

/// Of somebody's JSON, as much as a message needs.
fn excerpt(json: &Json) -> String {
    const BYTES_MAX: usize = 60;
    let text = json.to_string();
    match text.len() <= BYTES_MAX {
        true => text,
        false => format!("{}…", &text[..text.floor_char_boundary(BYTES_MAX)]),
    }
}

#[cfg(test)]
mod tests;
