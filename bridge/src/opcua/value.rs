//! Values as they enter the log: every built-in type of OPC-UA (Part 6, table 1) as JSON.
//!
//! Numbers stay numbers, also 64-bit ones; a float is written as short as it reads back; what
//! JSON has no number for is the string `NaN`, `Infinity` or `-Infinity` (as in Part 6, 5.4.2.4).
//! A type that JSON cannot tell from a plain string or number is named beside the value. A
//! structure is an object of its fields, named by its type; what an enumeration calls a number
//! stands beside the number as `name`, at the top as within a structure.

use bytes::Bytes;
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use skerry_store::WallNanos;
use std::borrow::Cow;
use std::sync::Arc;

/// Most payloads are a number.
const PAYLOAD_BYTES: usize = 32;

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
    /// What the server measures it in, where it says so.
    pub(crate) unit: Option<Bytes>,
}

impl Sample {
    pub(crate) const fn empty(handle: u32) -> Self {
        Self {
            handle,
            value: Value::Null,
            status: 0,
            source_time: None,
            server_time: None,
            unit: None,
        }
    }
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
    /// Text of a type's definition, shared by all values of it.
    Label(Arc<str>),
    /// A type whose JSON looks like another's.
    Typed(Cow<'static, str>, Box<Value>),
    Array(Vec<Value>),
    Object(Vec<(&'static str, Value)>),
    /// The type's name, and the fields that are there.
    Structure(Arc<str>, Vec<(Arc<str>, Value)>),
    /// Numbers of an enumeration, one or an array of them, and its names for them.
    Named(Box<(Value, Value)>),
}

impl Value {
    pub(crate) fn typed(name: impl Into<Cow<'static, str>>, value: Self) -> Self {
        Self::Typed(name.into(), Box::new(value))
    }

    /// The value with its type in it, for where nothing around it tells the type.
    pub(crate) fn told(self) -> Self {
        let with = |name, value| Self::Object(vec![("value", value), ("type", name)]);
        match self {
            Self::Typed(name, value) => with(Self::Text(name.into_owned()), *value),
            Self::Structure(ref name, _) => with(Self::Label(Arc::clone(name)), self),
            value => value,
        }
    }

    pub(crate) fn named(value: Self, name: Self) -> Self {
        Self::Named(Box::new((value, name)))
    }

    /// The value alone.
    pub(crate) fn into_json(self) -> Vec<u8> {
        let mut json = Vec::new();
        write_json(&self, &mut json);
        json
    }

    /// What stands beside `value` in the payload, under its key, and the value without it.
    pub(crate) fn split(&self) -> (&Self, Option<(&'static str, Beside<'_>)>) {
        match self {
            Self::Typed(name, value) => (value, Some(("type", Beside::Text(name)))),
            Self::Structure(name, _) => (self, Some(("type", Beside::Text(name)))),
            Self::Named(both) => (&both.0, Some(("name", Beside::Value(&both.1)))),
            value => (value, None),
        }
    }

    /// The record's payload: `{"value": …}`, with `"type"` where the JSON alone would mislead.
    pub(crate) fn into_payload(self) -> Vec<u8> {
        let mut payload = Vec::with_capacity(PAYLOAD_BYTES);
        self.write_payload(&mut payload);
        payload
    }

    /// Adds the record's payload to `out`.
    pub(crate) fn write_payload(&self, out: &mut Vec<u8>) {
        let (value, beside) = self.split();
        out.extend_from_slice(br#"{"value":"#);
        write_json(value, out);
        if let Some((key, beside)) = beside {
            out.push(b',');
            write_json(&key, out);
            out.push(b':');
            write_json(&beside, out);
        }
        out.push(b'}');
    }
}

fn write_json(value: &impl Serialize, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("keys are strings and floats are finite");
}

/// See [`Value::split`].
#[derive(Debug, Clone, Copy)]
pub(crate) enum Beside<'a> {
    Text(&'a str),
    Value(&'a Value),
}

impl Serialize for Beside<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Value(value) => value.serialize(serializer),
        }
    }
}

struct Payload<'a>(&'a Value);

impl Serialize for Payload<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (value, beside) = self.0.split();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("value", value)?;
        if let Some((key, beside)) = beside {
            map.serialize_entry(key, &beside)?;
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
            Self::Label(value) => serializer.serialize_str(value),
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
            Self::Structure(_, fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (name, value) in fields {
                    map.serialize_entry(&**name, value)?;
                }
                map.end()
            }
            Self::Named(_) => Payload(self).serialize(serializer),
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

    #[test]
    fn names_stand_beside_their_numbers_at_every_level() {
        let state = || Value::named(Value::Int(2), Value::Label("Running".into()));
        assert_eq!(json(state()), r#"{"value":2,"name":"Running"}"#);
        let pump = Value::Structure("Pump".into(), vec![("state".into(), state())]);
        assert_eq!(
            json(pump),
            r#"{"value":{"state":{"value":2,"name":"Running"}},"type":"Pump"}"#
        );
        let two = Value::Array(vec![Value::Int(1), Value::Int(9)]);
        let names = Value::Array(vec![Value::Label("Idle".into()), Value::Null]);
        assert_eq!(
            json(Value::named(two, names)),
            r#"{"value":[1,9],"name":["Idle",null]}"#
        );
    }
}
