use super::VariantScalarTypeId as Scalar;
use super::*;
use serde_json::json;

const fn shape(scalar: Scalar, rank: i32) -> Shape {
    Shape {
        element: Element::Exactly(scalar),
        rank,
    }
}

fn sent(scalar: Scalar, json: &Json) -> Result<String, String> {
    let encoded = shape(scalar, -1).encode(json);
    let payload = |encoded: Encoded| String::from_utf8(encoded.value().into_payload()).unwrap();
    encoded.map(payload).map_err(|misfit| misfit.to_string())
}

#[test]
fn what_fits_exactly_is_sent_and_reads_back_the_same() {
    for (scalar, json) in [
        (Scalar::Boolean, json!(true)),
        (Scalar::SByte, json!(-128)),
        (Scalar::Byte, json!(255)),
        (Scalar::Int16, json!(i16::MIN)),
        (Scalar::UInt16, json!(u16::MAX)),
        (Scalar::Int32, json!(i32::MAX)),
        (Scalar::UInt32, json!(u32::MAX)),
        (Scalar::Int64, json!(i64::MIN)),
        (Scalar::UInt64, json!(u64::MAX)),
        (Scalar::Float, json!(0.5)),
        (Scalar::Float, json!("NaN")),
        (Scalar::Double, json!(0.1)),
        (Scalar::Double, json!("-Infinity")),
        (Scalar::String, json!("häll")),
        (Scalar::DateTime, json!("2026-02-03T04:05:06.123456700Z")),
        (Scalar::Guid, json!("72962b91-fa75-4ae6-8d28-b404dc7daf63")),
        (Scalar::ByteString, json!("AQL/")),
        (Scalar::NodeId, json!("ns=2;s=Pump")),
        (Scalar::StatusCode, json!(0x8001_0000_u32)),
        (Scalar::QualifiedName, json!("2:Pump")),
        (
            Scalar::LocalizedText,
            json!({"locale": "de", "text": "Halt"}),
        ),
    ] {
        let back = sent(scalar, &json).unwrap();
        let back: Json = serde_json::from_str(&back).unwrap();
        assert_eq!(back["value"], json, "{scalar:?}");
    }
}

#[test]
fn nothing_is_cut_off_or_taken_for_something_else() {
    for (scalar, json, why) in [
        (
            Scalar::Int16,
            json!(40_000),
            "does not fit Int16, which is -32768 to 32767",
        ),
        (Scalar::Byte, json!(-1), "does not fit Byte"),
        (Scalar::UInt64, json!(-1), "does not fit UInt64"),
        (Scalar::Int64, json!(u64::MAX), "does not fit Int64"),
        (Scalar::Int32, json!(0.5), "0.5 is no Int32: a whole number"),
        (Scalar::Int32, json!("NaN"), "is no Int32: a number"),
        (Scalar::UInt64, json!(1e19), "does not fit UInt64"),
        (Scalar::Boolean, json!(1), "1 is no Boolean: true or false"),
        (
            Scalar::Float,
            json!(16_777_217),
            "cannot be held exactly by a Float",
        ),
        (Scalar::Float, json!(1e39), "does not fit Float"),
        (
            Scalar::Double,
            json!(9_007_199_254_740_993_u64),
            "exactly by a Double",
        ),
        (Scalar::Double, json!(true), "true is no Double"),
        (Scalar::String, json!(5), "5 is no String: a text in quotes"),
        (
            Scalar::DateTime,
            json!("1066-10-14T09:00:00Z"),
            "is no DateTime",
        ),
        (Scalar::ByteString, json!("%"), "base64"),
        (
            Scalar::LocalizedText,
            json!({"text": "a", "txt": "b"}),
            "is no LocalizedText",
        ),
        (Scalar::Int32, json!(null), "null is no Int32"),
        (
            Scalar::ExtensionObject,
            json!("x"),
            "of type Structure cannot be written",
        ),
    ] {
        let misfit = sent(scalar, &json).unwrap_err();
        assert!(misfit.contains(why), "{scalar:?} {json}: {misfit}");
    }
    // Large, and exact all the same.
    assert!(sent(Scalar::Float, &json!(1_u64 << 40)).is_ok());
    assert!(sent(Scalar::Int32, &json!(2.0)).is_ok());
}

#[test]
fn arrays_have_the_node_s_own_rank() {
    let doubles = |rank| shape(Scalar::Double, rank);
    let list = json!([1, 2.5]);
    let encoded = doubles(1).encode(&list).unwrap();
    assert_eq!(encoded.numbers(), Some(vec![1.0, 2.5]));
    let matrix = json!([[1, 2], [3, 4], [5, 6]]);
    let Encoded(Variant::Array(array)) = doubles(2).encode(&matrix).unwrap() else {
        panic!("no array");
    };
    assert_eq!(array.dimensions, Some(vec![3, 2]));
    assert!(doubles(1).encode(&json!([])).is_ok());
    for (rank, json, why) in [
        (-1, &list, "takes one value, and this is a list of values"),
        (
            1,
            &json!(1),
            "takes a list of values, and this is one value",
        ),
        (2, &list, "takes an array of 2 dimensions"),
        (2, &json!([[1], [2, 3]]), "rows of the array differ"),
        (-2, &json!([[1], 2]), "rows of the array differ"),
        (1, &json!([1, "a"]), "is no Double"),
    ] {
        let misfit = doubles(rank).encode(json).unwrap_err().to_string();
        assert!(misfit.contains(why), "{rank} {json}: {misfit}");
    }
}

#[test]
fn an_abstract_type_takes_what_the_json_is() {
    let any = |element| Shape { element, rank: -2 };
    let sent = |element, json| any(element).encode(&json).unwrap().0;
    assert_eq!(sent(Element::Any, json!(1)), Variant::Int64(1));
    assert_eq!(sent(Element::Any, json!(true)), Variant::Boolean(true));
    assert_eq!(sent(Element::Number, json!(0.5)), Variant::Double(0.5));
    assert_eq!(sent(Element::UInteger, json!(1)), Variant::UInt64(1));
    let mixed = any(Element::Number).encode(&json!([1, 0.5])).unwrap();
    assert_eq!(mixed.numbers(), Some(vec![1.0, 0.5]));
    assert!(any(Element::UInteger).encode(&json!(-1)).is_err());
    assert!(any(Element::Any).encode(&json!([])).is_err());
    assert_eq!(Shape::named("int16"), Some(shape(Scalar::Int16, -2)));
}
