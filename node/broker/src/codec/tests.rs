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
        (b"\x11\x0d\0\x04MQTT\x04\x02\0\0\0\x01a", M::ReservedBits),
        (b"\x10\xff\xff\xff\xff", M::Length),
        (b"\x10\xff\xff\xff\x7f", M::TooLarge),
        (b"\x10\x02\0\x04", M::Truncated),
        (b"\x10\x0c\0\x04MQTX\x04\x02\0\0\0\0", M::ProtocolName),
        (b"\x10\x0e\0\x06MQIsdp\x04\x02\0\0\0\0", M::ProtocolLevel(4)),
        (b"\x10\x0c\0\x04MQTT\x03\x02\0\0\0\0", M::ProtocolLevel(3)),
        (b"\x10\x0c\0\x04MQTT\x06\x02\0\0\0\0", M::ProtocolLevel(6)),
        (b"\x10\x0c\0\x04MQTT\x04\x03\0\0\0\0", M::ReservedBits),
        (b"\x10\x0c\0\x04MQTT\x04\x0a\0\0\0\0", M::ReservedBits),
        (b"\x10\x0c\0\x04MQTT\x04\x42\0\0\0\0", M::ReservedBits),
        (b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\0x", M::TrailingBytes),
        (b"\x10\x0e\0\x04MQTT\x04\x02\0\0\0\x02\xc3\x28", M::ClientId),
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
        (V311, b"\x30\x02\0\0", M::NoTopic),
        (V311, b"\x30\x05\0\x03a/#", M::Topic),
        (V311, b"\x30\x03\0\x01+", M::Topic),
        (V311, b"\x30\x05\0\x03a\0b", M::Text),
        (V311, b"\x30\x04\0\x02\xff\xfe", M::Text),
        (V311, b"\x30\x01\0", M::Truncated),
        (V311, b"\x30\x03\0\x09a", M::Truncated),
        (V5, b"\x30\x03\0\0\0", M::NoTopic),
        (V5, b"\x30\x06\0\x01a\x03\x23\0", M::Truncated),
        (V5, b"\x30\x08\0\x01a\x04\x01\0\x01\0", M::Property),
        (V5, b"\x30\x06\0\x01a\x02\x0b\x01", M::Property),
        (V5, b"\x30\x06\0\x01a\x02\x01\x07", M::Property),
        (V5, b"\x30\x09\0\x01a\x05\x08\0\x02a#", M::Property),
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
        alias: None,
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
        let quiet = Terms {
            wants_reasons: false,
            ..Terms::default()
        };
        assert!(encode(packet, version, quiet, &mut out));
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
        (
            Outgoing::Disconnect {
                reason: 0x04,
                why: None,
            },
            b"",
            b"\xe0\x01\x04",
        ),
        (Outgoing::PingResp, b"\xd0\0", b"\xd0\0"),
    ] {
        assert_eq!(encoded(&packet, Version::V311), v311, "{packet:?}");
        assert_eq!(encoded(&packet, Version::V5), v5, "{packet:?}");
    }
}

#[test]
fn an_alias_stands_for_its_topic_once_it_is_known() {
    let properties = PublishProperties::default();
    let mut view = PublishView {
        dup: false,
        qos: Qos::AtMostOnce,
        retain: false,
        topic: "topic",
        alias: None,
        id: None,
        payload: b"x",
        properties: &properties,
        expiry_secs: None,
        subscriptions: &[],
    };
    for (is_known, expected) in [
        (false, &b"\x30\x0c\0\x05topic\x03\x23\0\x07x"[..]),
        (true, b"\x30\x07\0\0\x03\x23\0\x07x"),
    ] {
        view.alias = Some(Alias {
            number: id(7),
            is_known,
        });
        let mut out = BytesMut::new();
        encode_publish(&view, Version::V5, &mut out);
        assert_eq!(&out[..], expected);
    }
}

#[test]
fn words_are_added_where_they_are_wanted_and_fit() {
    let refused = Outgoing::PubAck(Ack {
        id: id(7),
        reason: reason::QUOTA_EXCEEDED,
    });
    let bare = b"\x40\x03\0\x07\x97";
    let encoded = |packet_bytes_max, wants_reasons| {
        let terms = Terms {
            packet_bytes_max,
            wants_reasons,
        };
        let mut out = BytesMut::new();
        encode(&refused, Version::V5, terms, &mut out).then(|| out.to_vec())
    };
    let in_full = encoded(usize::MAX, true).expect("fits");
    assert!(in_full.starts_with(b"\x40") && in_full.len() > 50);
    assert_eq!(encoded(in_full.len(), true), Some(in_full.clone()));
    assert_eq!(encoded(in_full.len() - 1, true), Some(bare.to_vec()));
    assert_eq!(encoded(usize::MAX, false), Some(bare.to_vec()));
    assert_eq!(encoded(bare.len() - 1, true), None);
}

/// Every identifier there is, in every packet that has properties: known or not, whole or cut
/// short, alone or twice.
#[test]
fn properties_belong_to_their_packets() {
    // Identifier, a value, and the packets that may have it: CONNECT, will, PUBLISH, SUBSCRIBE,
    // UNSUBSCRIBE, acknowledgements, DISCONNECT.
    let known: &[(u8, &[u8], [u8; 7])] = &[
        (0x01, b"\0", [0, 1, 1, 0, 0, 0, 0]),
        (0x02, b"\0\0\0\x01", [0, 1, 1, 0, 0, 0, 0]),
        (0x03, b"\0\x01a", [0, 1, 1, 0, 0, 0, 0]),
        (0x08, b"\0\x01a", [0, 1, 1, 0, 0, 0, 0]),
        (0x09, b"\0\x01a", [0, 1, 1, 0, 0, 0, 0]),
        (0x0b, b"\x01", [0, 0, 0, 1, 0, 0, 0]),
        (0x11, b"\0\0\0\x01", [1, 0, 0, 0, 0, 0, 1]),
        (0x12, b"\0\x01a", [0; 7]),
        (0x13, b"\0\x01", [0; 7]),
        (0x15, b"\0\x01a", [1, 0, 0, 0, 0, 0, 0]),
        (0x16, b"\0\x01a", [0; 7]),
        (0x17, b"\0", [1, 0, 0, 0, 0, 0, 0]),
        (0x18, b"\0\0\0\x01", [0, 1, 0, 0, 0, 0, 0]),
        (0x19, b"\0", [1, 0, 0, 0, 0, 0, 0]),
        (0x1a, b"\0\x01a", [0; 7]),
        (0x1c, b"\0\x01a", [0, 0, 0, 0, 0, 0, 1]),
        (0x1f, b"\0\x01a", [0, 0, 0, 0, 0, 1, 1]),
        (0x21, b"\0\x01", [1, 0, 0, 0, 0, 0, 0]),
        (0x22, b"\0\x01", [1, 0, 0, 0, 0, 0, 0]),
        (0x23, b"\0\x01", [0, 0, 1, 0, 0, 0, 0]),
        (0x24, b"\0", [0; 7]),
        (0x25, b"\0", [0; 7]),
        (0x26, b"\0\x01a\0\x01b", [2; 7]),
        (0x27, b"\0\0\0\x01", [1, 0, 0, 0, 0, 0, 0]),
        (0x28, b"\0", [0; 7]),
        (0x29, b"\0", [0; 7]),
        (0x2a, b"\0", [0; 7]),
    ];
    type Framed = fn(&[u8]) -> Vec<u8>;
    let packets: [Framed; 7] = [
        |block| framed(0x10, b"\0\x04MQTT\x05\x02\0\0", block, b"\0\x01a"),
        |block| {
            framed(
                0x10,
                b"\0\x04MQTT\x05\x06\0\0\0\0\x01a",
                block,
                b"\0\x01t\0\0",
            )
        },
        |block| framed(0x30, b"\0\x01t", block, b""),
        |block| framed(0x82, b"\0\x01", block, b"\0\x01a\0"),
        |block| framed(0xa2, b"\0\x01", block, b"\0\x01a"),
        |block| framed(0x40, b"\0\x01\0", block, b""),
        |block| framed(0xe0, b"\0", block, b""),
    ];
    for (place, packet) in packets.iter().enumerate() {
        let read = |block: &[u8]| {
            let bytes = packet(block);
            match bytes[0] {
                0x10 => decode_first(&bytes),
                _ => decode(Version::V5, &bytes),
            }
        };
        for identifier in 0..=0x7f_u8 {
            let found = known.iter().find(|(known, ..)| *known == identifier);
            let Some((_, value, allowed)) = found else {
                let unknown = read(&[identifier, 0]);
                assert_eq!(
                    unknown,
                    Err(Malformed::UnknownProperty),
                    "{identifier:x} {place}"
                );
                continue;
            };
            let (one, what) = ([&[identifier], *value].concat(), (identifier, place));
            let answers = [
                read(&one),
                read(&one.repeat(2)),
                read(&one[..one.len() - 1]),
            ];
            let [once, twice, cut] = answers.map(|read| read.map(|packet| packet.is_some()));
            assert_eq!(cut, Err(Malformed::Truncated), "{what:x?}");
            let (fine, misplaced) = (Ok(true), Err(Malformed::Property));
            let expected = match allowed[place] {
                0 => (misplaced, misplaced),
                1 => (fine, misplaced),
                _ => (fine, fine),
            };
            assert_eq!((once, twice), expected, "{what:x?}");
        }
    }
}

fn framed(first: u8, before: &[u8], block: &[u8], after: &[u8]) -> Vec<u8> {
    let length = u8::try_from(block.len()).expect("short");
    let body = [before, &[length], block, after].concat();
    let remaining = u8::try_from(body.len()).expect("short");
    [&[first, remaining], &body[..]].concat()
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
            alias: None, id: publish.id, payload: &publish.payload, properties: &publish.properties,
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
