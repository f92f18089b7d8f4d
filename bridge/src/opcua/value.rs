//! Values as they enter the log: every built-in type of OPC-UA (Part 6, table 1) as JSON.
//!
//! Numbers stay numbers, also 64-bit ones; a float is written as short as it reads back; what
//! JSON has no number for is the string `NaN`, `Infinity` or `-Infinity` (as in Part 6, 5.4.2.4).
//! A type that JSON cannot tell from a plain string or number is named beside the value.

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use skerry_store::WallNanos;

/// One value a server sent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    /// Our number for the node it belongs to.
    pub(crate) handle: u32,
    pub(crate) value: Value,
    /// StatusCode, all 32 bits.
    pub(crate) status: u32,
    pub(crate) source_time: Option<WallNanos>,
    pub(crate) server_time: Option<WallNanos>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Float(f32),
    Double(f64),
    Text(String),
    /// A type whose JSON looks like another's.
    Typed(&'static str, Box<Value>),
    Array(Vec<Value>),
    Object(Vec<(&'static str, Value)>),
}

impl Value {
    pub(crate) fn typed(name: &'static str, value: Self) -> Self {
        Self::Typed(name, Box::new(value))
    }

    /// The record's payload: `{"value": …}`, with `"type"` where the JSON alone would mislead.
    pub(crate) fn into_payload(self) -> Vec<u8> {
        serde_json::to_vec(&Payload(&self)).expect("keys are strings and floats are finite")
    }
}

struct Payload<'a>(&'a Value);

impl Serialize for Payload<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self.0 {
            Value::Typed(name, value) => {
                map.serialize_entry("value", value)?;
                map.serialize_entry("type", name)?;
            }
            value => map.serialize_entry("value", value)?,
        }
        map.end()
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_none(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => serializer.serialize_i64(*value),
            Self::UInt(value) => serializer.serialize_u64(*value),
            Self::Float(value) if value.is_finite() => serializer.serialize_f32(*value),
            Self::Float(value) => serializer.serialize_str(not_finite(f64::from(*value))),
            Self::Double(value) if value.is_finite() => serializer.serialize_f64(*value),
            Self::Double(value) => serializer.serialize_str(not_finite(*value)),
            Self::Text(value) => serializer.serialize_str(value),
            Self::Typed(_, value) => value.serialize(serializer),
            Self::Array(values) => {
                let mut sequence = serializer.serialize_seq(Some(values.len()))?;
                for value in values {
                    sequence.serialize_element(value)?;
                }
                sequence.end()
            }
            Self::Object(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (name, value) in fields {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

fn not_finite(value: f64) -> &'static str {
    if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(value: Value) -> String {
        String::from_utf8(value.into_payload()).unwrap()
    }

    #[test]
    fn payloads_read_as_one_expects() {
        assert_eq!(json(Value::Null), r#"{"value":null}"#);
        assert_eq!(json(Value::Float(0.1)), r#"{"value":0.1}"#);
        assert_eq!(
            json(Value::Double(f64::NEG_INFINITY)),
            r#"{"value":"-Infinity"}"#
        );
        assert_eq!(
            json(Value::UInt(u64::MAX)),
            r#"{"value":18446744073709551615}"#
        );
        let matrix = Value::Array(vec![
            Value::Array(vec![Value::Int(-1)]),
            Value::Array(vec![]),
        ]);
        assert_eq!(json(matrix), r#"{"value":[[-1],[]]}"#);
        let time = Value::typed("DateTime", Value::Text("2026-01-01T00:00:00Z".into()));
        assert_eq!(
            json(time),
            r#"{"value":"2026-01-01T00:00:00Z","type":"DateTime"}"#
        );
    }
}
