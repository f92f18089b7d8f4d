//! The server's values and messages in our types.

use super::vendor::{
    Array, ByteStringBody, DataChangeNotification, DataValue, DateTime, ExpandedNodeId,
    ExtensionObject, LocalizedText, NodeId, NotificationMessage, StatusChangeNotification, Variant,
};
use super::{FIRST_HANDLE, Message, clock};
use crate::opcua::value::{Sample, Value};
use skerry_store::WallNanos;

/// Ticks of 100 ns between OPC-UA's epoch, 1601-01-01, and Unix's.
const TICKS_TO_UNIX: i64 = 116_444_736_000_000_000;
/// Variants may nest in variants; the decoder bounds it at ten, this bounds our own recursion.
const DEPTH_MAX: usize = 12;

/// A notification taken apart. What is neither data nor a status change (events, which nobody
/// asked for) is left out.
pub(super) fn message(message: NotificationMessage) -> Message {
    let mut decoded = Message {
        sequence: message.sequence_number,
        keep_alive: true,
        samples: Vec::new(),
        clock: None,
        ended: None,
    };
    for data in message.notification_data.unwrap_or_default() {
        decoded.keep_alive = false;
        if let Some(change) = data.inner_as::<StatusChangeNotification>() {
            decoded.ended = Some(change.status.bits());
        } else if let Some(changes) = data.into_inner_as::<DataChangeNotification>() {
            let items = changes.monitored_items.unwrap_or_default();
            decoded.samples.reserve(items.len());
            for item in items {
                match item.client_handle.wrapping_sub(FIRST_HANDLE) {
                    clock::HANDLE => decoded.clock = clock::shown(&item.value),
                    handle => decoded.samples.push(sample(handle, item.value)),
                }
            }
        }
    }
    decoded
}

pub(super) fn sample(handle: u32, data: DataValue) -> Sample {
    Sample {
        handle,
        value: data.value.map_or(Value::Null, value),
        status: data.status.map_or(0, |status| status.bits()),
        source_time: data.source_timestamp.as_ref().and_then(time),
        server_time: data.server_timestamp.as_ref().and_then(time),
    }
}

pub(super) fn value(variant: Variant) -> Value {
    nested(variant, 0)
}

fn nested(variant: Variant, depth: usize) -> Value {
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
        Variant::ExtensionObject(object) => structure(&object),
        Variant::Variant(inner) => nested(*inner, depth + 1),
        Variant::DataValue(data) => {
            let status = data.status.map_or(0, |status| status.bits());
            let inner = data
                .value
                .map_or(Value::Null, |value| nested(value, depth + 1));
            Value::Object(vec![
                ("value", inner),
                ("status", Value::UInt(status.into())),
            ])
        }
        Variant::Array(array) => rows(*array, depth + 1),
    }
}

/// An array as nested JSON arrays, outermost dimension first (Part 6, 5.2.2.16). The element
/// type, where it needs naming, is the whole array's.
fn rows(array: Array, depth: usize) -> Value {
    let dimensions = array.dimensions.unwrap_or_default();
    let mut name = None;
    let mut flat: Vec<Value> = array
        .values
        .into_iter()
        .map(|element| match nested(element, depth) {
            Value::Typed(element_type, value) => {
                name = Some(element_type);
                *value
            }
            value => value,
        })
        .collect();
    let product = dimensions.iter().try_fold(1_usize, |product, length| {
        product.checked_mul(*length as usize)
    });
    if dimensions.len() > 1 && product == Some(flat.len()) && !flat.is_empty() {
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
    }
    match name {
        Some(name) => Value::typed(name, Value::Array(flat)),
        None => Value::Array(flat),
    }
}

/// A structure whose type the server defines: its encoding's id and its bytes, to be decoded
/// where the type is known. Structures of the standard itself are named only.
fn structure(object: &ExtensionObject) -> Value {
    if object.is_null() {
        return Value::Null;
    }
    let encoding = Value::Text(expanded(&object.binary_type_id()));
    let mut fields = vec![("encoding", encoding)];
    if let Some(raw) = object.inner_as::<ByteStringBody>() {
        fields.push(("body", Value::Text(raw.raw_body().as_base64())));
    } else if let Some(name) = object.type_name() {
        fields.push(("name", Value::Text(name.to_owned())));
    }
    Value::typed("ExtensionObject", Value::Object(fields))
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

fn expanded(id: &ExpandedNodeId) -> String {
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
    use super::super::vendor::{ByteString, Guid, VariantScalarTypeId};
    use super::*;

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
        let decoded = sample(7, data);
        assert_eq!(decoded.handle, 7);
        assert_eq!(decoded.status, 0x4092_0000);
        assert_eq!(
            decoded.source_time,
            Some(WallNanos(1_767_225_600_123_456_700))
        );
        assert_eq!(decoded.server_time, None);
    }
}
