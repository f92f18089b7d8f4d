//! The codec against a reference of bytes, a zoo of malformed packets, and noise.

use super::*;
use bytes::{BufMut, BytesMut};
use proptest::prelude::*;

const MAX: usize = 1 << 20;

fn id(number: u16) -> PacketId {
    PacketId::new(number).expect("not zero")
}

fn decode(version: Version, bytes: &[u8]) -> Result<Option<Incoming>, Malformed> {
    Decoder::of(version, MAX).next(&mut BytesMut::from(bytes))
}

fn decode_first(bytes: &[u8]) -> Result<Option<Incoming>, Malformed> {
    Decoder::new(MAX).next(&mut BytesMut::from(bytes))
}

#[test]
fn connect_of_both_versions_is_read() {
    let v4 = b"\x10\x1c\0\x04MQTT\x04\xee\0\x3c\0\x01a\0\x03w/t\0\x02hi\0\x01u\0\x01p";
    match decode_first(v4) {
        Ok(Some(Incoming::Connect(connect))) => {
            assert_eq!(connect.version, Version::V311);
            assert_eq!(
                (connect.client_id.as_str(), connect.keep_alive_secs),
                ("a", 60)
            );
            let will = connect.will.expect("has a will");
            assert_eq!(
                (will.topic.as_str(), &will.payload[..]),
                ("w/t", &b"hi"[..])
            );
            assert_eq!((will.qos, will.retain), (Qos::AtLeastOnce, true));
        }
        other => panic!("{other:?}"),
    }
    let v5 = b"\x10\x15\0\x04MQTT\x05\x02\0\0\x08\x11\0\0\0\x0a\x21\0\x05\0\0";
    match decode_first(v5) {
        Ok(Some(Incoming::Connect(connect))) => {
            assert_eq!(connect.version, Version::V5);
            assert_eq!(connect.properties.session_expiry_secs, Some(10));
            assert_eq!(connect.properties.receive_maximum, Some(5));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn malformed_packets_are_named() {
    use Malformed as M;
    use Version::{V5, V311};
    let first: &[(&[u8], M)] = &[
        (b"\x30\x03\0\x01a", M::NotConnect),
        (b"GET / HTTP/1.1\r\n", M::Http),
        (b"\x16\x03\x01\x02\0\x01\0", M::Tls),
        (b"\x11\0", M::ReservedBits),
        (b"\x10\xff\xff\xff\xff", M::Length),
        (b"\x10\xff\xff\xff\x7f", M::TooLarge),
        (b"\x10\x02\0\x04", M::Truncated),
        (b"\x10\x0c\0\x04MQTX\x04\x02\0\0\0\0", M::ProtocolName),
        (b"\x10\x0e\0\x06MQIsdp\x03\x02\0\0\0\0", M::ProtocolLevel(3)),
        (b"\x10\x0c\0\x04MQTT\x06\x02\0\0\0\0", M::ProtocolLevel(6)),
        (b"\x10\x0c\0\x04MQTT\x04\x03\0\0\0\0", M::ReservedBits),
        (b"\x10\x0c\0\x04MQTT\x04\x0a\0\0\0\0", M::ReservedBits),
        (b"\x10\x0c\0\x04MQTT\x04\x42\0\0\0\0", M::ReservedBits),
        (b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\0x", M::TrailingBytes),
        (b"\x10\x0e\0\x04MQTT\x04\x02\0\0\0\x02\xc3\x28", M::Text),
        (
            b"\x10\x0f\0\x04MQTT\x05\x02\0\0\x03\x21\0\0\0\0",
            M::Property,
        ),
    ];
    for (bytes, expected) in first {
        assert_eq!(decode_first(bytes), Err(*expected), "{bytes:x?}");
    }
    let later: &[(Version, &[u8], M)] = &[
        (
            V311,
            b"\x10\x0c\0\x04MQTT\x04\x02\0\0\0\0",
            M::SecondConnect,
        ),
        (V311, b"\0\0", M::PacketType),
        (V311, b"\xf0\0", M::PacketType),
        (V5, b"\x20\x03\0\0\0", M::PacketType),
        (V5, b"\xb0\x02\0\x01", M::PacketType),
        (V5, b"\xd0\0", M::PacketType),
        (V311, b"\x36\x05\0\x01a\0\x01", M::Qos),
        (V311, b"\x38\x03\0\x01a", M::Qos),
        (V311, b"\x32\x05\0\x01a\0\0", M::PacketId),
        (V311, b"\x30\x02\0\0", M::Topic),
        (V311, b"\x30\x05\0\x03a/#", M::Topic),
        (V311, b"\x30\x03\0\x01+", M::Topic),
        (V311, b"\x30\x05\0\x03a\0b", M::Text),
        (V311, b"\x30\x04\0\x02\xff\xfe", M::Text),
        (V311, b"\x30\x01\0", M::Truncated),
        (V311, b"\x30\x03\0\x09a", M::Truncated),
        (V5, b"\x30\x03\0\0\0", M::Topic),
        (V5, b"\x30\x06\0\x01a\x03\x23\0", M::Truncated),
        (V5, b"\x30\x08\0\x01a\x04\x01\0\x01\0", M::Property),
        (V5, b"\x30\x06\0\x01a\x02\x0b\x01", M::Property),
        (V5, b"\x30\x06\0\x01a\x02\x01\x07", M::Property),
        (V5, b"\x30\x09\0\x01a\x05\x08\0\x02a#", M::Topic),
        (V311, b"\x80\x06\0\x01\0\x01a\0", M::ReservedBits),
        (V311, b"\x82\x02\0\x01", M::NoFilter),
        (V311, b"\x82\x06\0\x01\0\x01a\x03", M::Qos),
        (V311, b"\x82\x06\0\x01\0\x01a\x05", M::ReservedBits),
        (V5, b"\x82\x07\0\x01\0\0\x01a\x31", M::ReservedBits),
        (V5, b"\x82\x09\0\x01\x02\x0b\0\0\x01a\0", M::Property),
        (V311, b"\xa2\x02\0\x01", M::NoFilter),
        (V311, b"\x60\x02\0\x01", M::ReservedBits),
        (V311, b"\x40\x03\0\x01\0", M::TrailingBytes),
        (V311, b"\xc0\x01\0", M::TrailingBytes),
        (V311, b"\xe0\x01\0", M::TrailingBytes),
    ];
    for (version, bytes, expected) in later {
        assert_eq!(decode(*version, bytes), Err(*expected), "{bytes:x?}");
    }
}

#[test]
fn a_packet_that_is_too_large_is_refused_before_it_arrives() {
    let mut decoder = Decoder::of(Version::V311, 100);
    assert_eq!(
        decoder.next(&mut BytesMut::from(&b"\x30\x7f"[..])),
        Err(Malformed::TooLarge)
    );
    assert_eq!(
        decoder.next(&mut BytesMut::from(&b"\x30\x62"[..])),
        Ok(None),
        "exactly 100"
    );
}

#[test]
fn a_3_1_1_receiver_gets_no_properties() {
    let properties = PublishProperties {
        user: vec![("a".into(), "b".into())],
        ..PublishProperties::default()
    };
    let publish = PublishView {
        dup: false,
        qos: Qos::AtMostOnce,
        retain: false,
        topic: "t",
        id: None,
        payload: b"x",
        properties: &properties,
        expiry_secs: None,
        subscriptions: &[1],
    };
    let mut out = BytesMut::new();
    encode_publish(&publish, Version::V311, &mut out);
    assert_eq!(&out[..], b"\x30\x04\0\x01tx");
    out.clear();
    encode_publish(&publish, Version::V5, &mut out);
    assert_eq!(&out[..], b"\x30\x0e\0\x01t\x09\x0b\x01\x26\0\x01a\0\x01bx");
}

#[test]
fn answers_have_their_bytes() {
    let encoded = |packet: &Outgoing, version| {
        let mut out = BytesMut::new();
        encode(packet, version, &mut out);
        out.to_vec()
    };
    let refused = Ack {
        id: id(7),
        reason: reason::QUOTA_EXCEEDED,
    };
    for (packet, v311, v5) in [
        (
            Outgoing::PubAck(Ack::ok(id(7))),
            &b"\x40\x02\0\x07"[..],
            &b"\x40\x02\0\x07"[..],
        ),
        (
            Outgoing::PubAck(refused),
            b"\x40\x02\0\x07",
            b"\x40\x03\0\x07\x97",
        ),
        (
            Outgoing::PubRel(Ack::ok(id(7))),
            b"\x62\x02\0\x07",
            b"\x62\x02\0\x07",
        ),
        (
            Outgoing::SubAck {
                id: id(1),
                codes: vec![1],
            },
            b"\x90\x03\0\x01\x01",
            b"\x90\x04\0\x01\0\x01",
        ),
        (
            Outgoing::UnsubAck {
                id: id(1),
                codes: vec![0],
            },
            b"\xb0\x02\0\x01",
            b"\xb0\x04\0\x01\0\0",
        ),
        (Outgoing::Disconnect { reason: 0x8e }, b"", b"\xe0\x01\x8e"),
        (Outgoing::PingResp, b"\xd0\0", b"\xd0\0"),
    ] {
        assert_eq!(encoded(&packet, Version::V311), v311, "{packet:?}");
        assert_eq!(encoded(&packet, Version::V5), v5, "{packet:?}");
    }
}

fn text() -> impl Strategy<Value = String> {
    "[a-zä/]{1,12}"
}

prop_compose! {
    fn any_publish()(
        qos in 0_u8..3, number in 1_u16.., retain: bool, dup: bool, topic in text(),
        payload in proptest::collection::vec(any::<u8>(), 0..300),
        content_type in proptest::option::of(text()),
        response_topic in proptest::option::of(text()),
        correlation in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..9)),
        payload_is_text: Option<bool>, message_expiry_secs: Option<u32>,
        user in proptest::collection::vec((text(), text()), 0..3),
    ) -> Publish {
        let qos = Qos::from_bits(qos).expect("below three");
        Publish {
            dup: dup && qos != Qos::AtMostOnce,
            qos,
            retain,
            topic,
            id: (qos != Qos::AtMostOnce).then(|| id(number)),
            payload: payload.into(),
            properties: PublishProperties {
                payload_is_text, message_expiry_secs, topic_alias: None, response_topic,
                correlation_data: correlation.map(Into::into), content_type, user,
            },
        }
    }
}

proptest! {
    #[test]
    fn publish_round_trips_and_waits_for_its_last_byte(publish in any_publish()) {
        let view = PublishView {
            dup: publish.dup, qos: publish.qos, retain: publish.retain, topic: &publish.topic,
            id: publish.id, payload: &publish.payload, properties: &publish.properties,
            expiry_secs: publish.properties.message_expiry_secs, subscriptions: &[],
        };
        let mut bytes = BytesMut::new();
        encode_publish(&view, Version::V5, &mut bytes);
        let mut decoder = Decoder::of(Version::V5, MAX);
        for cut in 0..bytes.len() {
            prop_assert_eq!(decoder.next(&mut BytesMut::from(&bytes[..cut])), Ok(None));
        }
        bytes.put_u8(0xC0);
        prop_assert_eq!(decoder.next(&mut bytes), Ok(Some(Incoming::Publish(publish))));
        prop_assert_eq!(bytes.len(), 1, "what follows is left alone");
    }

    #[test]
    fn noise_never_panics(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        kind in 0_u8..16, version in 0..3,
    ) {
        if let Some(first) = bytes.first_mut() {
            *first = kind << 4 | *first & 0x0F;
        }
        if let Some(length) = bytes.get_mut(1) {
            *length &= 0x7F;
        }
        let mut buffer = BytesMut::from(&bytes[..]);
        let mut decoder = match version {
            0 => Decoder::new(MAX),
            1 => Decoder::of(Version::V311, MAX),
            _ => Decoder::of(Version::V5, MAX),
        };
        while let Ok(Some(_)) = decoder.next(&mut buffer) {}
    }
}
