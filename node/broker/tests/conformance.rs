//! What the standard says of single packets, byte by byte: what is refused, with which reason, and
//! what version 5 adds to the answers.

mod common;

use common::{Client, Hello, Node, packet};
use std::num::NonZeroU16;

const REASON_STRING: u8 = 0x1f;

/// CONNECT of version 5 from its flags on: keep-alive 0, then `rest`.
fn connect_v5(flags: u8, rest: &[u8]) -> Vec<u8> {
    packet(
        0x10,
        &[b"\0\x04MQTT\x05", &[flags, 0, 0][..], rest].concat(),
    )
}

/// The reason code and the reason string of a CONNACK, PUBACK, PUBREC, SUBACK, UNSUBACK or
/// DISCONNECT that is shorter than 128 bytes and has no other property.
fn reason_of(packet: &[u8]) -> (u8, Option<String>) {
    let (code_at, properties_at) = match packet[0] {
        0xe0 => (2, 3),
        0x20 => (3, 4),
        0x40 | 0x50 => (4, 5),
        0x90 | 0xb0 => (packet.len() - 1, 4),
        _ => panic!("{packet:x?}"),
    };
    let code = packet.get(code_at).copied().unwrap_or(0);
    let words = match packet.get(properties_at) {
        Some(length) if *length > 0 => {
            let properties = &packet[properties_at + 1..][..usize::from(*length)];
            assert_eq!(properties[0], REASON_STRING, "{packet:x?}");
            Some(String::from_utf8(properties[3..].to_vec()).expect("UTF-8"))
        }
        _ => None,
    };
    (code, words)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_connect_is_said_in_version_5() {
    let node = Node::start().await;
    let cases: &[(&str, Vec<u8>, u8)] = &[
        ("reserved flag", connect_v5(0x03, b"\0\0\x01a"), 0x81),
        (
            "will bits without a will",
            connect_v5(0x22, b"\0\0\x01a"),
            0x81,
        ),
        (
            "will of QoS 3",
            connect_v5(0x1e, b"\0\0\x01a\0\0\x01t\0\0"),
            0x81,
        ),
        (
            "will topic with a wildcard",
            connect_v5(0x06, b"\0\0\x01a\0\0\x01#\0\0"),
            0x81,
        ),
        (
            "will topic with a control character",
            connect_v5(0x06, b"\0\0\x01a\0\0\x01\x07\0\0"),
            0x81,
        ),
        (
            "will without a message",
            connect_v5(0x06, b"\0\0\x01a\0\0\x01t"),
            0x81,
        ),
        (
            "NUL in the client id",
            connect_v5(0x02, b"\0\0\x01\0"),
            0x85,
        ),
        (
            "surrogate in the client id",
            connect_v5(0x02, b"\0\0\x03\xed\xa0\x80"),
            0x85,
        ),
        (
            "overlong client id",
            connect_v5(0x02, b"\0\0\x02\xc0\xaf"),
            0x85,
        ),
        (
            "non-character in the client id",
            connect_v5(0x02, b"\0\0\x03\xef\xbf\xbf"),
            0x85,
        ),
        (
            "control character in the user name",
            connect_v5(0x82, b"\0\0\x01a\0\x01\x1f"),
            0x81,
        ),
        (
            "receive maximum 0",
            connect_v5(0x02, b"\x03\x21\0\0\0\x01a"),
            0x82,
        ),
        (
            "packet size 0",
            connect_v5(0x02, b"\x05\x27\0\0\0\0\0\x01a"),
            0x82,
        ),
        (
            "a property twice",
            connect_v5(0x02, b"\x06\x21\0\x05\x21\0\x05\0\x01a"),
            0x82,
        ),
        (
            "a property of PUBLISH",
            connect_v5(0x02, b"\x03\x23\0\x01\0\x01a"),
            0x82,
        ),
        (
            "the same, cut short",
            connect_v5(0x02, b"\x02\x23\0\0\x01a"),
            0x81,
        ),
        (
            "an unknown property",
            connect_v5(0x02, b"\x02\x04\0\0\x01a"),
            0x81,
        ),
        (
            "a property id of two bytes",
            connect_v5(0x02, b"\x03\x97\x01\0\0\x01a"),
            0x81,
        ),
        (
            "an overlong property id",
            connect_v5(0x02, b"\x03\x97\0\0\0\x01a"),
            0x81,
        ),
        (
            "a flag of 2",
            connect_v5(0x02, b"\x02\x17\x02\0\x01a"),
            0x82,
        ),
        (
            "data without a method",
            connect_v5(0x02, b"\x04\x16\0\x01x\0\x01a"),
            0x82,
        ),
        ("bytes behind", connect_v5(0x02, b"\0\0\x01ax"), 0x81),
        (
            "enhanced authentication",
            connect_v5(0x02, b"\x04\x15\0\x01x\0\x01a"),
            0x8c,
        ),
    ];
    for (what, bytes, expected) in cases {
        let mut client = Client::raw(&node, 5).await;
        client.send(bytes).await;
        let answers = client.expect_closed().await;
        let [answer] = &answers[..] else {
            panic!("{what}: {answers:x?}");
        };
        assert_eq!(answer[0], 0x20, "{what}");
        let (code, words) = reason_of(answer);
        assert_eq!(code, *expected, "{what}");
        assert!(words.is_some(), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_versions_are_served_or_told() {
    let node = Node::start().await;
    let accepted = b"\x20\x02\0\0".to_vec();
    for first in [0x10, 0x14] {
        // 3.1 has no rule for the flags of its header, nor for the reserved one.
        let mut old = Client::raw(&node, 4).await;
        old.send(&packet(first, b"\0\x06MQIsdp\x03\x03\0\x0a\0\x01p"))
            .await;
        assert_eq!(old.packet().await, Some(accepted.clone()));
        assert_eq!(old.subscribe("a/#", 1).await, 1);
    }
    for (what, bytes, expected) in [
        (
            "3.1 has to name itself",
            &b"\0\x06MQIsdp\x03\x02\0\x0a\0\0"[..],
            &b"\x20\x02\0\x02"[..],
        ),
        (
            "level and name differ",
            b"\0\x06MQIsdp\x04\x02\0\x0a\0\x01p",
            b"\x20\x02\0\x01",
        ),
        (
            "a bridge tries",
            b"\0\x04MQTT\x84\x02\0\x0a\0\x01p",
            b"\x20\x02\0\x01",
        ),
    ] {
        let mut client = Client::raw(&node, 4).await;
        client.send(&packet(0x10, bytes)).await;
        assert_eq!(client.expect_closed().await, [expected.to_vec()], "{what}");
    }
    let mut flagged = Client::raw(&node, 4).await;
    flagged
        .send(&packet(0x14, b"\0\x04MQTT\x04\x02\0\x0a\0\x01p"))
        .await;
    assert!(
        flagged.expect_closed().await.is_empty(),
        "3.1.1 has such a rule"
    );
}

/// Version 5 is told why; 3.1.1, which has no such packet, is closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn violations_end_the_connection_with_their_reason() {
    let node = Node::start().await;
    let both: &[(&str, &[u8], &[u8], u8)] = &[
        (
            "publish to a wildcard",
            b"\x30\x05\0\x03a/#",
            b"\x30\x06\0\x03a/#\0",
            0x81,
        ),
        (
            "publish to nothing",
            b"\x30\x02\0\0",
            b"\x30\x03\0\0\0",
            0x82,
        ),
        (
            "control character in a topic",
            b"\x30\x04\0\x02a\x1f",
            b"\x30\x05\0\x02a\x1f\0",
            0x81,
        ),
        (
            "C1 control character",
            b"\x30\x05\0\x03a\xc2\x9f",
            b"\x30\x06\0\x03a\xc2\x9f\0",
            0x81,
        ),
        (
            "QoS 3",
            b"\x36\x05\0\x01a\0\x01",
            b"\x36\x06\0\x01a\0\x01\0",
            0x81,
        ),
        (
            "duplicate at QoS 0",
            b"\x38\x03\0\x01a",
            b"\x38\x04\0\x01a\0",
            0x81,
        ),
        (
            "packet id 0",
            b"\x32\x05\0\x01a\0\0",
            b"\x32\x06\0\x01a\0\0\0",
            0x82,
        ),
        (
            "a#",
            b"\x82\x07\0\x01\0\x02a#\0",
            b"\x82\x08\0\x01\0\0\x02a#\0",
            0x81,
        ),
        (
            "#/a",
            b"\x82\x08\0\x01\0\x03#/a\0",
            b"\x82\x09\0\x01\0\0\x03#/a\0",
            0x81,
        ),
        (
            "an empty filter",
            b"\x82\x05\0\x01\0\0\0",
            b"\x82\x06\0\x01\0\0\0\0",
            0x81,
        ),
        (
            "the second filter of two",
            b"\x82\x09\0\x01\0\x01a\0\0\0\0",
            b"\x82\x0a\0\x01\0\0\x01a\0\0\0\0",
            0x81,
        ),
        (
            "unsubscribe from a#",
            b"\xa2\x06\0\x01\0\x02a#",
            b"\xa2\x07\0\x01\0\0\x02a#",
            0x81,
        ),
        (
            "a group without a filter",
            b"\x82\x0d\0\x01\0\x08$share/g\0",
            b"\x82\x0e\0\x01\0\0\x08$share/g\0",
            0x81,
        ),
        (
            "subscribe to nothing",
            b"\x82\x02\0\x01",
            b"\x82\x03\0\x01\0",
            0x82,
        ),
        (
            "reserved options",
            b"\x82\x06\0\x01\0\x01a\x80",
            b"\x82\x07\0\x01\0\0\x01a\xc0",
            0x81,
        ),
        (
            "a second CONNECT",
            b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01a",
            b"\x10\x0e\0\x04MQTT\x05\x02\0\0\0\0\x01a",
            0x82,
        ),
    ];
    let only_5: &[(&str, &[u8], u8)] = &[
        ("alias 0", b"\x30\x07\0\x01a\x03\x23\0\0", 0x94),
        ("alias too high", b"\x30\x07\0\x01a\x03\x23\xff\xff", 0x94),
        ("alias never set", b"\x30\x06\0\0\x03\x23\0\x01", 0x82),
        (
            "subscription id in PUBLISH",
            b"\x30\x06\0\x01a\x02\x0b\x01",
            0x82,
        ),
        (
            "response topic with a wildcard",
            b"\x30\x08\0\x01a\x04\x08\0\x01#",
            0x82,
        ),
        ("empty response topic", b"\x30\x07\0\x01a\x03\x08\0\0", 0x82),
        (
            "subscription id 0",
            b"\x82\x09\0\x01\x02\x0b\0\0\x01a\0",
            0x82,
        ),
        (
            "subscription id twice",
            b"\x82\x0b\0\x01\x04\x0b\x01\x0b\x02\0\x01a\0",
            0x82,
        ),
        (
            "no local, shared",
            b"\x82\x10\0\x01\0\0\x0a$share/g/a\x04",
            0x82,
        ),
        ("retain handling 3", b"\x82\x07\0\x01\0\0\x01a\x30", 0x81),
        ("unknown reason of PUBACK", b"\x40\x03\0\x01\x01", 0x82),
        (
            "PUBREL with a reason of PUBACK",
            b"\x62\x03\0\x01\x80",
            0x82,
        ),
        (
            "a property of PUBLISH in PUBACK",
            b"\x40\x06\0\x01\0\x02\x01\0",
            0x82,
        ),
        (
            "DISCONNECT with a reason of the server's",
            b"\xe0\x01\x8e",
            0x82,
        ),
        (
            "DISCONNECT with an unknown property",
            b"\xe0\x03\0\x01\0",
            0x81,
        ),
        (
            "DISCONNECT that begins a session",
            b"\xe0\x07\0\x05\x11\0\0\0\x01",
            0x82,
        ),
        ("AUTH", b"\xf0\0", 0x82),
    ];
    let versions = both
        .iter()
        .flat_map(|(what, v4, v5, code)| [(*what, 4, *v4, *code), (*what, 5, *v5, *code)])
        .chain(
            only_5
                .iter()
                .map(|(what, bytes, code)| (*what, 5, *bytes, *code)),
        );
    for (what, level, bytes, expected) in versions {
        let hello = Hello {
            level,
            ..Hello::v4("violator")
        };
        let mut client = Client::connect(&node, &hello).await;
        client.send(bytes).await;
        let last = client.expect_closed().await;
        if level == 4 {
            assert!(last.is_empty(), "{what}: {last:x?}");
            continue;
        }
        let [disconnect] = &last[..] else {
            panic!("{what}: {last:x?}");
        };
        let (code, words) = reason_of(disconnect);
        assert_eq!(code, expected, "{what}");
        assert!(words.is_some(), "{what}");
    }
    assert!(
        node.payloads("default").is_empty(),
        "and nothing was logged"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deep_filter_is_well_formed_and_not_taken() {
    let node = Node::start().await;
    let deep = "a/".repeat(200);
    for (hello, expected) in [(Hello::v4("d"), 0x80), (Hello::v5("d"), 0x8f)] {
        let mut client = Client::connect(&node, &hello).await;
        assert_eq!(client.subscribe(&deep, 0).await, expected);
        assert_eq!(client.subscribe("a", 0).await, 0, "and it goes on");
    }
}

/// PUBREC for QoS 1, PUBACK for QoS 2.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_of_the_wrong_kind_ends_the_connection() {
    let node = Node::start().await;
    for (qos, wrong) in [(1, 0x50), (1, 0x70), (2, 0x40), (2, 0x70)] {
        let mut subscriber = Client::connect(&node, &Hello::v5("s")).await;
        subscriber.subscribe("t", qos).await;
        let mut publisher = Client::connect(&node, &Hello::v4("p")).await;
        publisher.publish("t", "x", qos, 1).await;
        let got = subscriber.got().await;
        assert_eq!(got.qos, qos);
        subscriber.ack(wrong, got.id).await;
        let last = subscriber.expect_closed().await;
        assert_eq!(reason_of(&last[0]).0, 0x82, "{wrong:x} at QoS {qos}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_explained_to_who_wants_it_as_far_as_it_fits() {
    let node = Node::start().await;
    let publish_refused = |mut client: Client| async move {
        client.publish("skerry/scores/x", "forged", 1, 7).await;
        client.packet().await.expect("PUBACK")
    };
    let wants = Client::connect(&node, &Hello::v5("wants")).await;
    let (code, words) = reason_of(&publish_refused(wants).await);
    assert_eq!(code, 0x87);
    assert!(words.expect("a sentence").contains("may not publish"));

    for properties in [&b"\x17\0"[..], b"\x27\0\0\0\x40"] {
        let hello = Hello {
            properties,
            ..Hello::v5("does not")
        };
        let client = Client::connect(&node, &hello).await;
        assert_eq!(publish_refused(client).await, b"\x40\x03\0\x07\x87");
    }

    let mut subscriber = Client::connect(&node, &Hello::v5("s")).await;
    let deep = [b"\0\x01\0\x01\x90".to_vec(), b"a/".repeat(200), vec![0]].concat();
    subscriber.send(&packet(0x82, &deep)).await;
    let suback = subscriber.packet().await.expect("SUBACK");
    assert!(reason_of(&suback).1.expect("a sentence").contains("levels"));
    subscriber.send(b"\xa2\x06\0\x02\0\0\x01a").await;
    let unsuback = subscriber.packet().await.expect("UNSUBACK");
    let (code, words) = reason_of(&unsuback);
    assert!(code == 0x11 && words.is_some());
}

/// Not even CONNACK would fit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_no_answer_gets_none() {
    let node = Node::start().await;
    let mut client = Client::raw(&node, 5).await;
    client
        .send(&connect_v5(0x02, b"\x05\x27\0\0\0\x02\0\x01p"))
        .await;
    assert!(client.expect_closed().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_longest_keep_alive_is_announced_and_holds() {
    let node = Node::start_with(|config| config.keep_alive_max = NonZeroU16::new(1)).await;
    for (keep_alive, is_told) in [(0, true), (120, true), (1, false)] {
        let hello = Hello {
            keep_alive,
            ..Hello::v5("k")
        };
        let (_, connack) = Client::try_connect(node.address, &hello).await;
        let told = connack.windows(3).any(|three| three == b"\x13\0\x01");
        assert_eq!(told, is_told, "{keep_alive}: {connack:x?}");
    }
    let mut silent = Client::connect(&node, &Hello::v5("silent")).await;
    let last = silent.expect_closed().await;
    assert_eq!(reason_of(&last[0]).0, 0x8d, "though it asked for none");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_topic_aliases_gets_them() {
    let node = Node::start().await;
    let hello = Hello {
        properties: b"\x22\0\x01",
        ..Hello::v5("s")
    };
    let mut subscriber = Client::connect(&node, &hello).await;
    let mut plain = Client::connect(&node, &Hello::v5("plain")).await;
    for client in [&mut subscriber, &mut plain] {
        client.subscribe("#", 0).await;
    }
    let mut publisher = Client::connect(&node, &Hello::v4("p")).await;
    for (topic, sent_topic, properties) in [
        ("plant/one", "plant/one", &b"\x23\0\x01"[..]),
        ("plant/one", "", b"\x23\0\x01"),
        ("plant/two", "plant/two", b""),
        ("plant/one", "", b"\x23\0\x01"),
    ] {
        publisher.publish(topic, "x", 0, 0).await;
        let got = subscriber.got().await;
        assert_eq!(
            (got.topic.as_str(), &got.properties[..]),
            (sent_topic, properties)
        );
        assert_eq!(plain.got().await.topic, topic, "who takes none gets none");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payload_that_is_no_text_though_it_says_so_is_refused() {
    let node = Node::start().await;
    let mut client = Client::connect(&node, &Hello::v5("p")).await;
    client.send(b"\x32\x09\0\x01a\0\x05\x02\x01\x01\xff").await;
    assert_eq!(client.expect(0x40, 5).await, 0x99);
    client.send(b"\x34\x09\0\x01a\0\x06\x02\x01\x01\xff").await;
    assert_eq!(client.expect(0x50, 6).await, 0x99);
    client
        .send(b"\x32\x0a\0\x01a\0\x07\x02\x01\x01\xc3\xbc")
        .await;
    assert_eq!(client.expect(0x40, 7).await, 0);
    assert_eq!(node.payloads("default"), ["ü"]);
    assert_eq!(node.status().refused_total["payload_format"], 2);
}
