//! The server's values and messages in our types.

use super::changes::Changes;
use super::events;
use super::types::Types;
use super::vendor::{
    Array, DataValue, DateTime, EventNotificationList, ExpandedNodeId, LocalizedText, NodeId,
    NotificationMessage, StatusChangeNotification, Variant, VariantScalarTypeId,
};
use super::{Message, clock};
use crate::opcua::error::status;
use crate::opcua::value::{Sample, Value};
use skerry_store::WallNanos;
use std::borrow::Cow;

/// Ticks of 100 ns between OPC-UA's epoch, 1601-01-01, and Unix's.
const TICKS_TO_UNIX: i64 = 116_444_736_000_000_000;
/// Variants may nest in variants; the decoder bounds it at ten, this bounds our own recursion.
const DEPTH_MAX: usize = 12;

/// A notification taken apart.
pub(super) fn message(types: &mut Types, message: NotificationMessage) -> Message {
    types.begin();
    let mut decoded = Message {
        sequence: message.sequence_number,
        keep_alive: true,
        samples: Vec::new(),
        events: Vec::new(),
        clock: None,
        ended: None,
    };
    for data in message.notification_data.unwrap_or_default() {
        decoded.keep_alive = false;
        if let Some(change) = data.inner_as::<StatusChangeNotification>() {
            decoded.ended = Some(change.status.bits());
        } else if data.inner_is::<EventNotificationList>() {
            let events = data.into_inner_as::<EventNotificationList>();
            let events = events.map(|events| events::events(types, *events));
            decoded.events.extend(events.into_iter().flatten());
        } else if let Some(changes) = data.into_inner_as::<Changes>() {
            take_in(types, *changes, &mut decoded);
        }
    }
    decoded
}

fn take_in(types: &mut Types, changes: Changes, message: &mut Message) {
    let Changes {
        mut samples,
        others,
    } = changes;
    for (place, data) in others {
        let sample = &mut samples[place];
        match sample.handle {
            clock::HANDLE => message.clock = clock::shown(&data),
            handle => *sample = untold(types, handle, data),
        }
    }
    samples.retain_mut(|sample| {
        tell(types, sample);
        sample.handle != clock::HANDLE
    });
    match message.samples.is_empty() {
        true => message.samples = samples,
        false => message.samples.append(&mut samples),
    }
}

/// A value of the variable that is known under `handle`, with its names and its unit.
pub(super) fn sample(types: &mut Types, handle: u32, data: DataValue) -> Sample {
    let mut sample = untold(types, handle, data);
    tell(types, &mut sample);
    sample
}

fn untold(types: &mut Types, handle: u32, data: DataValue) -> Sample {
    Sample {
        handle,
        value: data
            .value
            .map_or(Value::Null, |value| nested(types, value, 0)),
        status: data.status.map_or(0, |status| status.bits()),
        source_time: data.source_timestamp.as_ref().and_then(time),
        server_time: data.server_timestamp.as_ref().and_then(time),
        unit: None,
    }
}

/// Adds what is known of the variable beside its value.
fn tell(types: &mut Types, sample: &mut Sample) {
    if status::semantics_changed(sample.status) {
        types.changed(sample.handle);
    }
    let Some(about) = types.about(sample.handle) else {
        return;
    };
    sample.unit.clone_from(&about.unit);
    let value = std::mem::replace(&mut sample.value, Value::Null);
    sample.value = types.with_names(sample.handle, value);
}

/// A value by itself, with structures of the standard taken apart only.
pub(super) fn value(variant: Variant) -> Value {
    nested(&mut Types::default(), variant, 0)
}

pub(super) fn nested(types: &mut Types, variant: Variant, depth: usize) -> Value {
    if depth >= DEPTH_MAX {
        return Value::Null;
    }
    match variant {
        Variant::Empty | Variant::DiagnosticInfo(_) => Value::Null,
        Variant::Boolean(value) => Value::Bool(value),
        Variant::SByte(value) => Value::Int(value.into()),
        Variant::Byte(value) => Value::UInt(value.into()),
        Variant::Int16(value) => Value::Int(value.into()),
        Variant::UInt16(value) => Value::UInt(value.into()),
        Variant::Int32(value) => Value::Int(value.into()),
        Variant::UInt32(value) => Value::UInt(value.into()),
        Variant::Int64(value) => Value::Int(value),
        Variant::UInt64(value) => Value::UInt(value),
        Variant::Float(value) => Value::Float(value),
        Variant::Double(value) => Value::Double(value),
        Variant::String(text) => text.value().clone().map_or(Value::Null, Value::Text),
        Variant::DateTime(moment) => Value::typed("DateTime", Value::Text(rfc3339(&moment))),
        Variant::Guid(guid) => Value::typed("Guid", Value::Text(guid.to_string())),
        Variant::StatusCode(status) => {
            Value::typed("StatusCode", Value::UInt(status.bits().into()))
        }
        Variant::ByteString(bytes) if bytes.is_null() => Value::Null,
        Variant::ByteString(bytes) => Value::typed("ByteString", Value::Text(bytes.as_base64())),
        Variant::XmlElement(xml) => Value::typed("XmlElement", Value::Text(xml.to_string())),
        Variant::QualifiedName(name) => Value::typed(
            "QualifiedName",
            Value::Text(format!("{}:{}", name.namespace_index, name.name)),
        ),
        Variant::LocalizedText(text) => Value::typed("LocalizedText", localized(&text)),
        Variant::NodeId(id) => Value::typed("NodeId", Value::Text(node_id(&id))),
        Variant::ExpandedNodeId(id) => Value::typed("ExpandedNodeId", Value::Text(expanded(&id))),
        Variant::ExtensionObject(object) => types.structure(&object, depth),
        Variant::Variant(inner) => nested(types, *inner, depth + 1),
        Variant::DataValue(data) => {
            let status = data.status.map_or(0, |status| status.bits());
            let inner = data
                .value
                .map_or(Value::Null, |value| nested(types, value, depth + 1).told());
            let mut fields = vec![("value", inner), ("status", Value::UInt(status.into()))];
            let times = [
                ("source_time", data.source_timestamp),
                ("server_time", data.server_timestamp),
            ];
            let times = times.iter().filter_map(|(name, moment)| {
                let moment = moment.as_ref().filter(|moment| !moment.is_null())?;
                Some((*name, Value::Text(rfc3339(moment))))
            });
            fields.extend(times);
            Value::typed("DataValue", Value::Object(fields))
        }
        Variant::Array(array) => rows(types, *array, depth + 1),
    }
}

/// An array as nested JSON arrays, outermost dimension first (Part 6, 5.2.2.16). The element
/// type, where it needs naming, is the whole array's; in an array of Variants, which may be of
/// many types, each element has its own.
fn rows(types: &mut Types, array: Array, depth: usize) -> Value {
    let dimensions = array.dimensions.unwrap_or_default();
    let mixed = array.value_type == VariantScalarTypeId::Variant;
    let mut elements: Vec<Value> = Vec::with_capacity(array.values.len());
    let mut name: Option<Cow<'static, str>> = None;
    for element in array.values {
        elements.push(match nested(types, element, depth) {
            value if mixed => value.told(),
            Value::Typed(element_type, value)
                if name.as_ref().is_none_or(|it| *it == element_type) =>
            {
                name = Some(element_type);
                *value
            }
            value => value,
        });
    }
    if array.value_type == VariantScalarTypeId::ExtensionObject {
        match common_type(&elements) {
            Some(common) => name = Some(Cow::Owned(common.to_owned())),
            None => elements = elements.into_iter().map(Value::told).collect(),
        }
    }
    let rows = Value::Array(folded(elements, &dimensions));
    match name {
        Some(name) => Value::typed(name, rows),
        None => rows,
    }
}

/// The type that all of the structures are of.
fn common_type(elements: &[Value]) -> Option<&str> {
    let [Value::Structure(first, _), rest @ ..] = elements else {
        return None;
    };
    let same = |it: &Value| matches!(it, Value::Structure(name, _) if name == first);
    rest.iter().all(same).then_some(&**first)
}

/// The elements of a matrix, which lie one behind the other, as rows within rows.
pub(super) fn folded(mut flat: Vec<Value>, dimensions: &[u32]) -> Vec<Value> {
    let product = dimensions.iter().try_fold(1_usize, |product, length| {
        product.checked_mul(*length as usize)
    });
    if dimensions.len() < 2 || product != Some(flat.len()) || flat.is_empty() {
        return flat;
    }
    for length in dimensions.iter().skip(1).rev() {
        let mut elements = flat.into_iter();
        let mut folded = Vec::new();
        loop {
            let row: Vec<Value> = elements.by_ref().take(*length as usize).collect();
            if row.is_empty() {
                break;
            }
            folded.push(Value::Array(row));
        }
        flat = folded;
    }
    flat
}

fn localized(text: &LocalizedText) -> Value {
    Value::Object(vec![
        (
            "locale",
            text.locale.value().clone().map_or(Value::Null, Value::Text),
        ),
        (
            "text",
            text.text.value().clone().map_or(Value::Null, Value::Text),
        ),
    ])
}

pub(super) fn node_id(id: &NodeId) -> String {
    id.to_string()
}

pub(super) fn expanded(id: &ExpandedNodeId) -> String {
    if id.namespace_uri.is_null() && id.server_index == 0 {
        node_id(&id.node_id)
    } else {
        id.to_string()
    }
}

pub(super) fn time(moment: &DateTime) -> Option<WallNanos> {
    if moment.is_null() {
        return None;
    }
    let nanos = moment
        .ticks()
        .checked_sub(TICKS_TO_UNIX)?
        .checked_mul(100)?;
    Some(WallNanos(nanos))
}

/// A moment in the server's steps of 100 ns, rounded down.
pub(super) fn ticks(time: WallNanos) -> i64 {
    (time.0.div_euclid(100)).saturating_add(TICKS_TO_UNIX)
}

fn rfc3339(moment: &DateTime) -> String {
    // The crate's own form stops at milliseconds; a DateTime carries 100 ns.
    moment
        .as_chrono()
        .format("%Y-%m-%dT%H:%M:%S%.fZ")
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::super::vendor::StatusCode;
    use super::super::vendor::{ByteString, Guid};
    use super::*;
    use std::str::FromStr;

    fn json(variant: Variant) -> String {
        String::from_utf8(value(variant).into_payload()).unwrap()
    }

    #[test]
    fn built_in_types_become_json() {
        assert_eq!(json(Variant::Float(0.1)), r#"{"value":0.1}"#);
        assert_eq!(
            json(Variant::Int64(i64::MIN)),
            r#"{"value":-9223372036854775808}"#
        );
        assert_eq!(json(Variant::from("a\"b")), r#"{"value":"a\"b"}"#);
        assert_eq!(
            json(Variant::from(ByteString::from(vec![1_u8, 2, 255]))),
            r#"{"value":"AQL/","type":"ByteString"}"#
        );
        assert_eq!(
            json(Variant::from(DateTime::ymd_hms_nano(
                2026, 2, 3, 4, 5, 6, 700
            ))),
            r#"{"value":"2026-02-03T04:05:06.000000700Z","type":"DateTime"}"#
        );
        assert_eq!(
            json(Variant::StatusCode(StatusCode::BadTimeout)),
            r#"{"value":2148139008,"type":"StatusCode"}"#
        );
        assert_eq!(
            json(Variant::from(NodeId::new(2, "Pump"))),
            r#"{"value":"ns=2;s=Pump","type":"NodeId"}"#
        );
    }

    #[test]
    fn extremes_come_through_as_they_are() {
        let array = |of, elements: Vec<Variant>| {
            Variant::Array(Box::new(Array::new(of, elements).unwrap()))
        };
        let doubles = [f64::NAN, f64::INFINITY, f64::MIN_POSITIVE, -0.0, f64::MAX];
        let doubles = doubles.map(Variant::Double).to_vec();
        assert_eq!(
            json(array(VariantScalarTypeId::Double, doubles)),
            r#"{"value":["NaN","Infinity",2.2250738585072014e-308,-0.0,1.7976931348623157e+308]}"#
        );
        assert_eq!(
            json(Variant::Float(f32::NEG_INFINITY)),
            r#"{"value":"-Infinity"}"#
        );
        assert_eq!(
            json(Variant::Int64(i64::MAX)),
            r#"{"value":9223372036854775807}"#
        );
        assert_eq!(
            json(Variant::UInt64(u64::MAX)),
            r#"{"value":18446744073709551615}"#
        );
        assert_eq!(json(Variant::from(ByteString::null())), r#"{"value":null}"#);
        assert_eq!(
            json(Variant::from(LocalizedText::new("de", "Läuft \u{0}"))),
            r#"{"value":{"locale":"de","text":"Läuft \u0000"},"type":"LocalizedText"}"#
        );
        let guid = Guid::from_str("72962b91-fa75-4ae6-8d28-b404dc7daf63").unwrap();
        assert_eq!(
            json(Variant::from(guid)),
            r#"{"value":"72962b91-fa75-4ae6-8d28-b404dc7daf63","type":"Guid"}"#
        );
        // The last tick that a DateTime has (Part 6, 5.2.2.5).
        let last = json(Variant::from(DateTime::from(i64::MAX)));
        assert!(last.contains(r#""type":"DateTime""#), "{last}");
    }

    #[test]
    fn arrays_of_anything_name_each_element() {
        let inner = Array::new(
            VariantScalarTypeId::UInt64,
            vec![Variant::UInt64(u64::MAX), Variant::UInt64(0)],
        );
        let elements = [
            Variant::from(Guid::null()),
            Variant::Int64(i64::MIN),
            Variant::Array(Box::new(inner.unwrap())),
            Variant::Empty,
        ];
        let elements = elements.map(|element| Variant::Variant(Box::new(element)));
        let mixed = Array::new(VariantScalarTypeId::Variant, elements.to_vec()).unwrap();
        assert_eq!(
            json(Variant::Array(Box::new(mixed))),
            concat!(
                r#"{"value":[{"value":"00000000-0000-0000-0000-000000000000","type":"Guid"},"#,
                r#"-9223372036854775808,[18446744073709551615,0],null]}"#
            )
        );
        let data = DataValue {
            value: Some(Variant::from(Guid::null())),
            status: Some(StatusCode::BadTimeout),
            source_timestamp: Some(DateTime::ymd_hms(2026, 1, 2, 3, 4, 5)),
            ..DataValue::default()
        };
        assert_eq!(
            json(Variant::from(data)),
            concat!(
                r#"{"value":{"value":{"value":"00000000-0000-0000-0000-000000000000","#,
                r#""type":"Guid"},"status":2148139008,"source_time":"2026-01-02T03:04:05Z"},"#,
                r#""type":"DataValue"}"#
            )
        );
    }

    #[test]
    fn arrays_keep_their_dimensions() {
        let elements: Vec<Variant> = (0..6).map(Variant::Int32).collect();
        let flat = Array::new(VariantScalarTypeId::Int32, elements.clone()).unwrap();
        assert_eq!(
            json(Variant::Array(Box::new(flat))),
            r#"{"value":[0,1,2,3,4,5]}"#
        );
        let matrix =
            Array::new_multi(VariantScalarTypeId::Int32, elements, vec![2_u32, 3]).unwrap();
        assert_eq!(
            json(Variant::Array(Box::new(matrix))),
            r#"{"value":[[0,1,2],[3,4,5]]}"#
        );
        let guids =
            Array::new(VariantScalarTypeId::Guid, vec![Variant::from(Guid::null())]).unwrap();
        assert_eq!(
            json(Variant::Array(Box::new(guids))),
            r#"{"value":["00000000-0000-0000-0000-000000000000"],"type":"Guid"}"#
        );
    }

    #[test]
    fn times_keep_their_resolution_and_their_absence() {
        let data = DataValue {
            value: Some(Variant::Int32(1)),
            status: Some(StatusCode::UncertainInitialValue),
            source_timestamp: Some(DateTime::ymd_hms_nano(2026, 1, 1, 0, 0, 0, 123_456_700)),
            server_timestamp: Some(DateTime::null()),
            ..DataValue::default()
        };
        let decoded = sample(&mut Types::default(), 7, data);
        assert_eq!(decoded.handle, 7);
        assert_eq!(decoded.status, 0x4092_0000);
        assert_eq!(
            decoded.source_time,
            Some(WallNanos(1_767_225_600_123_456_700))
        );
        assert_eq!(decoded.server_time, None);
    }
}
