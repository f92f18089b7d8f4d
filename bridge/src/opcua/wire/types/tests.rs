//! Structures in all their forms, and definitions that mean no good.

use super::super::vendor::{
    Array, BinaryEncodable, ByteString, ByteStringBody, DataTypeDefinition, EnumDefinition,
    EnumField, ExtensionObject, LocalizedText, Range, StructureDefinition, StructureField,
    StructureType, UAString, VariantScalarTypeId, context,
};
use super::super::vendor::{NodeId, Variant};
use super::definition::Definition;
use super::{MEMBERS_MAX, TYPES_MAX, Types, decode};
use std::time::{Duration, Instant};

const INT32: u32 = 6;
const BYTE: u32 = 3;
const STRING: u32 = 12;

fn id(number: u32) -> NodeId {
    NodeId::new(2, number)
}

fn standard(number: u32) -> NodeId {
    NodeId::new(0, number)
}

fn field(name: &str, data_type: NodeId) -> StructureField {
    StructureField {
        name: name.into(),
        data_type,
        value_rank: -1,
        ..StructureField::default()
    }
}

fn optional(field: StructureField) -> StructureField {
    StructureField {
        is_optional: true,
        ..field
    }
}

fn ranked(rank: i32, field: StructureField) -> StructureField {
    StructureField {
        value_rank: rank,
        ..field
    }
}

/// Defines type `number` under the name `T<number>`, with the encoding id ten thousand above.
fn define(types: &mut Types, number: u32, kind: StructureType, fields: Vec<StructureField>) {
    let definition = StructureDefinition {
        structure_type: kind,
        fields: Some(fields),
        ..StructureDefinition::default()
    };
    let definition = DataTypeDefinition::Structure(definition);
    let read = Definition::read(&format!("T{number}"), false, None, definition).unwrap();
    types.encodings.insert(id(10_000 + number), id(number));
    types.define(id(number), read);
}

fn define_enumeration(types: &mut Types, number: u32, supertype: NodeId, names: &[(i64, &str)]) {
    let fields = names.iter().map(|(value, name)| EnumField {
        value: *value,
        display_name: LocalizedText::from(*name),
        description: LocalizedText::null(),
        name: (*name).into(),
    });
    let definition = DataTypeDefinition::Enum(EnumDefinition {
        fields: Some(fields.collect()),
    });
    let read = Definition::read("E", false, Some(supertype), definition).unwrap();
    types.define(id(number), read);
}

fn object(number: u32, bytes: Vec<u8>) -> Variant {
    let body = ByteStringBody::new(ByteString::from(bytes), id(10_000 + number));
    Variant::from(ExtensionObject::new(body))
}

/// Appends a field to a structure's bytes.
type Part<'a> = &'a dyn Fn(&mut Vec<u8>);

fn bytes(parts: &[Part<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        part(&mut bytes);
    }
    bytes
}

fn encoded<T: BinaryEncodable>(value: T) -> impl Fn(&mut Vec<u8>) {
    move |bytes| value.encode(bytes, &context(usize::MAX)).unwrap()
}

fn json(types: &mut Types, value: Variant) -> String {
    types.begin();
    let value = decode::nested(types, value, 0);
    String::from_utf8(value.into_payload()).unwrap()
}

#[test]
fn structures_become_objects_of_their_fields() {
    let mut types = Types::default();
    define_enumeration(&mut types, 1, standard(29), &[(0, "Idle"), (2, "Running")]);
    define(
        &mut types,
        2,
        StructureType::Structure,
        vec![field("x", standard(INT32)), field("name", standard(STRING))],
    );
    define(
        &mut types,
        3,
        StructureType::Structure,
        vec![
            field("state", id(1)),
            field("inner", id(2)),
            ranked(1, field("many", id(2))),
            ranked(1, field("numbers", standard(INT32))),
            ranked(2, field("matrix", standard(BYTE))),
            ranked(1, field("none", standard(INT32))),
        ],
    );
    let inner = |x: i32| {
        move |out: &mut Vec<u8>| {
            encoded(x)(out);
            encoded(UAString::from("a"))(out);
        }
    };
    let body = bytes(&[
        &encoded(2_i32),
        &inner(-1),
        &encoded(2_i32),
        &inner(1),
        &inner(2),
        &encoded(Some(vec![7_i32, 8])),
        &encoded(Some(vec![2_i32, 2])),
        &encoded(1_u8),
        &encoded(2_u8),
        &encoded(3_u8),
        &encoded(4_u8),
        &encoded(-1_i32),
    ]);
    assert_eq!(
        json(&mut types, object(3, body)),
        concat!(
            r#"{"value":{"state":{"value":2,"name":"Running"},"#,
            r#""inner":{"x":-1,"name":"a"},"#,
            r#""many":[{"x":1,"name":"a"},{"x":2,"name":"a"}],"#,
            r#""numbers":[7,8],"matrix":[[1,2],[3,4]],"none":null},"type":"T3"}"#
        )
    );
}

#[test]
fn optional_fields_and_unions_hold_what_is_there() {
    let mut types = Types::default();
    let fields = || {
        vec![
            field("a", standard(BYTE)),
            optional(field("b", standard(BYTE))),
            optional(field("c", standard(BYTE))),
        ]
    };
    let kind = StructureType::StructureWithOptionalFields;
    define(&mut types, 1, kind, fields());
    let body = bytes(&[&encoded(0b10_u32), &encoded(1_u8), &encoded(3_u8)]);
    assert_eq!(
        json(&mut types, object(1, body)),
        r#"{"value":{"a":1,"c":3},"type":"T1"}"#
    );
    define(&mut types, 2, StructureType::Union, fields());
    let body = bytes(&[&encoded(2_u32), &encoded(9_u8)]);
    assert_eq!(
        json(&mut types, object(2, body)),
        r#"{"value":{"b":9},"type":"T2"}"#
    );
    let body = bytes(&[&encoded(0_u32)]);
    assert_eq!(
        json(&mut types, object(2, body)),
        r#"{"value":{},"type":"T2"}"#
    );
    let body = bytes(&[&encoded(4_u32), &encoded(9_u8)]);
    assert!(json(&mut types, object(2, body)).contains("body"));
}

#[test]
fn subtypes_name_themselves() {
    let mut types = Types::default();
    define(
        &mut types,
        1,
        StructureType::Structure,
        vec![field("x", standard(BYTE))],
    );
    define(
        &mut types,
        2,
        StructureType::StructureWithSubtypedValues,
        vec![
            optional(field("part", standard(22))),
            optional(field("number", standard(26))),
            field("plain", id(1)),
        ],
    );
    let part = ExtensionObject::new(ByteStringBody::new(
        ByteString::from(vec![5_u8]),
        id(10_001),
    ));
    let number = Variant::Float(1.5);
    let body = bytes(&[&encoded(part), &encoded(number), &encoded(6_u8)]);
    assert_eq!(
        json(&mut types, object(2, body)),
        concat!(
            r#"{"value":{"part":{"value":{"x":5},"type":"T1"},"#,
            r#""number":1.5,"plain":{"x":6}},"type":"T2"}"#
        )
    );
}

#[test]
fn arrays_of_structures_name_their_type_once_or_each() {
    let mut types = Types::default();
    for number in [1, 2] {
        let fields = vec![field("x", standard(BYTE))];
        define(&mut types, number, StructureType::Structure, fields);
    }
    let array = |types: [u32; 2]| {
        let elements = types.map(|number| object(number, vec![5])).to_vec();
        let array = Array::new(VariantScalarTypeId::ExtensionObject, elements).unwrap();
        Variant::Array(Box::new(array))
    };
    assert_eq!(
        json(&mut types, array([1, 1])),
        r#"{"value":[{"x":5},{"x":5}],"type":"T1"}"#
    );
    assert_eq!(
        json(&mut types, array([1, 2])),
        r#"{"value":[{"value":{"x":5},"type":"T1"},{"value":{"x":5},"type":"T2"}]}"#
    );
}

#[test]
fn structures_of_the_standard_need_no_definition() {
    let range = Range {
        low: -1.0,
        high: 2.5,
    };
    let value = Variant::from(ExtensionObject::from_message(range));
    assert_eq!(
        json(&mut Types::default(), value),
        r#"{"value":{"Low":-1.0,"High":2.5},"type":"Range"}"#
    );
}

#[test]
fn option_sets_name_the_bits_that_are_set() {
    let mut types = Types::default();
    define_enumeration(&mut types, 1, standard(7), &[(0, "Open"), (3, "Locked")]);
    define(
        &mut types,
        2,
        StructureType::Structure,
        vec![field("door", id(1))],
    );
    assert_eq!(
        json(&mut types, object(2, vec![9, 0, 0, 0])),
        r#"{"value":{"door":{"value":9,"name":["Open","Locked"]}},"type":"T2"}"#
    );
}

#[test]
fn what_is_not_known_stays_as_it_came_and_is_wanted_once() {
    let mut types = Types::default();
    let expected =
        r#"{"value":{"encoding":"ns=2;i=10001","body":"AQI="},"type":"ExtensionObject"}"#;
    for _ in 0..3 {
        assert_eq!(json(&mut types, object(1, vec![1, 2])), expected);
    }
    assert_eq!(types.wanted, [super::Wanted::Encoding(id(10_001))]);
}

#[test]
fn bytes_that_do_not_fit_stay_bytes() {
    let mut types = Types::default();
    define(
        &mut types,
        1,
        StructureType::Structure,
        vec![field("x", standard(INT32))],
    );
    define(
        &mut types,
        2,
        StructureType::Structure,
        vec![ranked(1, field("x", standard(INT32)))],
    );
    define(
        &mut types,
        3,
        StructureType::Structure,
        vec![ranked(3, field("x", standard(INT32)))],
    );
    define(
        &mut types,
        4,
        StructureType::Structure,
        vec![field("x", id(999))],
    );
    let huge = |length: i32| bytes(&[&encoded(length)]);
    let dimensions = bytes(&[&encoded(Some(vec![i32::MAX, i32::MAX, i32::MAX]))]);
    for value in [
        object(1, vec![1, 2, 3]),
        object(1, vec![1, 2, 3, 4, 5]),
        object(2, huge(i32::MAX)),
        object(2, bytes(&[&encoded(2_i32), &encoded(1_i32)])),
        object(3, dimensions),
        object(3, bytes(&[&encoded(Some(vec![1_i32; 100]))])),
        object(4, vec![1]),
    ] {
        let json = json(&mut types, value);
        assert!(json.contains("ExtensionObject"), "{json}");
    }
}

/// A type that holds itself, and one that multiplies at every level and never needs a byte.
#[test]
fn definitions_without_end_end() {
    let mut types = Types::default();
    let kind = StructureType::Structure;
    define(&mut types, 1, kind, vec![field("self", id(1))]);
    for level in 2..30 {
        let fields = (0..1_000).map(|_| field("x", id(level + 1))).collect();
        define(&mut types, level, kind, fields);
    }
    define(&mut types, 30, kind, vec![]);
    define(
        &mut types,
        31,
        kind,
        vec![ranked(1, field("empty", id(30)))],
    );
    let started = Instant::now();
    assert!(json(&mut types, object(1, vec![0])).contains("body"));
    for _ in 0..1_000 {
        assert!(json(&mut types, object(20, vec![0])).contains("body"));
    }
    let many = bytes(&[&encoded(i32::MAX)]);
    assert!(json(&mut types, object(31, many)).contains("body"));
    let took = started.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_message_is_taken_apart_into_so_many_values_only() {
    let mut types = Types::default();
    let fields = vec![ranked(1, field("x", standard(BYTE)))];
    define(&mut types, 1, StructureType::Structure, fields);
    let body = bytes(&[&encoded(Some(vec![1_u8; 900_000]))]);
    types.begin();
    let apart = (0..6).map(|_| decode::nested(&mut types, object(1, body.clone()), 0));
    let apart = apart.filter(|value| matches!(value, super::Value::Structure(..)));
    assert_eq!(apart.count(), 4);
}

#[test]
fn so_many_types_are_kept_and_no_more() {
    let mut types = Types::default();
    for number in 0..20 {
        let fields = (0..MEMBERS_MAX / 10).map(|_| field("x", standard(BYTE)));
        define(
            &mut types,
            number,
            StructureType::Structure,
            fields.collect(),
        );
    }
    let known = types.definitions.values();
    let structures = known.filter(|it| matches!(it, Definition::Structure(_)));
    assert_eq!(structures.count(), 10);
    for number in 0..10_000 {
        types.want_type(&id(50_000 + number));
    }
    assert_eq!(types.wanted.len(), TYPES_MAX);
}

#[test]
fn a_name_too_long_to_keep_refuses_its_type() {
    let definition = |name: &str| {
        DataTypeDefinition::Structure(StructureDefinition {
            fields: Some(vec![field(name, standard(BYTE))]),
            ..StructureDefinition::default()
        })
    };
    let read = |name: &str| Definition::read("T", false, None, definition(name));
    assert!(read("x").is_some());
    assert!(read("").is_none());
    assert!(read(&"x".repeat(1_000_000)).is_none());
}
