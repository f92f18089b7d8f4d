//! What subscribers get: QoS, retained messages, sessions, wills, properties.

mod common;

use common::{Client, Hello, Node, QUIET, stream};
use rumqttc::{AsyncClient, Event, Incoming, MqttOptions, QoS};
use skerry_broker::TopicFilter;
use skerry_store::{Append, Kind, Record};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_gets_the_lower_of_published_and_granted_qos() {
    let node = Node::start().await;
    let mut subscriber = Client::connect(&node, &Hello::v4("s")).await;
    for (filter, granted) in [("q/0", 0), ("q/1", 1), ("q/2", 2)] {
        assert_eq!(subscriber.subscribe(filter, granted).await, granted);
    }
    let mut publisher = Client::connect(&node, &Hello::v4("p")).await;
    for granted in 0..=2 {
        for qos in 0..=2 {
            publisher
                .publish(&format!("q/{granted}"), "x", qos, 1 + u16::from(qos))
                .await;
            let got = subscriber.got().await;
            assert_eq!(got.qos, qos.min(granted));
            match got.qos {
                1 => subscriber.ack(0x40, got.id).await,
                2 => {
                    subscriber.ack(0x50, got.id).await;
                    subscriber.expect(0x62, got.id).await;
                    subscriber.ack(0x70, got.id).await;
                }
                _ => {}
            }
            match qos {
                1 => assert_eq!(publisher.expect(0x40, 2).await, 0),
                2 => {
                    publisher.expect(0x50, 3).await;
                    publisher.ack(0x62, 3).await;
                    publisher.expect(0x70, 3).await;
                }
                _ => {}
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_receive_maximum_is_kept_and_acknowledgements_come_in_any_order() {
    let node = Node::start().await;
    let three = b"\x21\0\x03";
    let mut subscriber = Client::connect(
        &node,
        &Hello {
            properties: three,
            ..Hello::v5("s")
        },
    )
    .await;
    subscriber.subscribe("#", 1).await;
    let mut publisher = Client::connect(&node, &Hello::v4("p")).await;
    for id in 1..=6 {
        publisher.publish("a", &id.to_string(), 1, id).await;
        publisher.expect(0x40, id).await;
    }
    let mut ids = Vec::new();
    for expected in ["1", "2", "3"] {
        let got = subscriber.got().await;
        assert_eq!(got.payload, expected);
        ids.push(got.id);
    }
    subscriber.expect_quiet().await;
    for id in ids.into_iter().rev() {
        subscriber.ack(0x40, id).await;
    }
    for expected in ["4", "5", "6"] {
        assert_eq!(subscriber.got().await.payload, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retained_messages_survive_a_crash_and_only_retain_clears_them() {
    let node = Node::start().await;
    let mut client = Client::connect(&node, &Hello::v4("p")).await;
    for index in 0..300 {
        client
            .publish_retained(&format!("r/{index:03}"), "old", 1)
            .await;
    }
    client.publish_retained("r/000", "new", 1).await;
    client.publish("r/001", "", 1, 1).await;
    client.expect(0x40, 1).await;
    client.publish_retained("r/002", "", 1).await;
    let large = "x".repeat(200_000);
    client.publish_retained("large", &large, 1).await;

    let node = node.crash_and_restart().await;
    node.until("the retained topics", |status| {
        status.retained_topics == 300
    })
    .await;
    let mut client = Client::connect(&node, &Hello::v4("s")).await;
    client.subscribe("r/+", 0).await;
    for index in (0..300).filter(|index| *index != 2) {
        let got = client.got().await;
        assert_eq!(got.topic, format!("r/{index:03}"));
        assert_eq!(got.payload, if index == 0 { "new" } else { "old" });
        assert!(got.retain);
    }
    client.subscribe("large", 0).await;
    assert_eq!(client.got().await.payload.len(), large.len());
    client.expect_quiet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn version_5_options_of_a_subscription_work() {
    let node = Node::start().await;
    let mut client = Client::connect(&node, &Hello::v5("c")).await;
    client.publish_retained("r", "kept", 1).await;
    const NO_LOCAL: u8 = 0b100;
    const AS_PUBLISHED: u8 = 0b1000;
    const IF_NEW: u8 = 0b1_0000;
    const NEVER: u8 = 0b10_0000;
    client.subscribe("r", NEVER).await;
    client.subscribe("r", IF_NEW).await;
    client.expect_quiet().await;
    client.subscribe("r", 0).await;
    assert_eq!(client.got().await.payload, "kept");

    client.subscribe("r", NEVER | NO_LOCAL | AS_PUBLISHED).await;
    client.publish_retained("r", "own", 1).await;
    client.expect_quiet().await;
    let mut other = Client::connect(&node, &Hello::v5("o")).await;
    other.publish_retained("r", "other", 1).await;
    let got = client.got().await;
    assert_eq!((got.payload.as_str(), got.retain), ("other", true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn properties_reach_version_5_the_log_and_not_version_3() {
    let node = Node::start().await;
    let mut four = Client::connect(&node, &Hello::v4("four")).await;
    let mut five = Client::connect(&node, &Hello::v5("five")).await;
    four.subscribe("p", 0).await;
    five.subscribe("p", 0).await;
    // Content type, user property, and an alias of this connection only.
    let properties = b"\x03\0\x04json\x26\0\x04unit\0\x03bar\x23\0\x01";
    let mut publisher = Client::connect(&node, &Hello::v5("p")).await;
    let bytes = publisher.publish_bytes("p", "1", 1, 1, 0, properties);
    publisher.send(&bytes).await;
    let bytes = publisher.publish_bytes("", "2", 1, 2, 0, b"\x23\0\x01");
    publisher.send(&bytes).await;

    let got = five.got().await;
    assert_eq!(got.properties, b"\x03\0\x04json\x26\0\x04unit\0\x03bar");
    assert_eq!((got.topic.as_str(), got.payload.as_str()), ("p", "1"));
    let got = four.got().await;
    assert_eq!((got.topic.as_str(), got.payload.as_str()), ("p", "1"));
    let got = five.got().await;
    assert_eq!(
        (
            got.topic.as_str(),
            got.payload.as_str(),
            got.properties.len()
        ),
        ("p", "2", 0)
    );

    let record = &node.records("default")[0];
    assert_eq!(record.source, "p");
    assert_eq!(
        record.attributes,
        [
            ("mqtt-content-type".to_owned(), "json".into()),
            ("unit".to_owned(), "bar".into())
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_message_is_not_delivered() {
    let node = Node::start().await;
    let mut publisher = Client::connect(&node, &Hello::v5("p")).await;
    let bytes = publisher.publish_bytes("e", "short", 1, 1, 1, b"\x02\0\0\0\x01");
    publisher.send(&bytes).await;
    publisher.expect(0x40, 1).await;
    let bytes = publisher.publish_bytes("e/long", "long", 1, 1, 1, b"\x02\0\0\0\x64");
    publisher.send(&bytes).await;
    publisher.expect(0x40, 1).await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let mut subscriber = Client::connect(&node, &Hello::v5("s")).await;
    subscriber.subscribe("e/#", 0).await;
    let got = subscriber.got().await;
    assert_eq!(got.payload, "long");
    assert!(matches!(got.properties[..], [2, 0, 0, 0, left] if (90..100).contains(&left)));
    subscriber.expect_quiet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_resumes_while_the_node_runs_and_says_so() {
    let node = Node::start().await;
    let hello = Hello {
        clean: false,
        ..Hello::v4("s")
    };
    let (mut client, connack) = Client::try_connect(node.address, &hello).await;
    assert_eq!(connack[2], 0, "nothing to resume");
    client.subscribe("a", 1).await;
    let mut publisher = Client::connect(&node, &Hello::v4("p")).await;
    publisher.publish("a", "unacknowledged", 1, 1).await;
    publisher.expect(0x40, 1).await;
    let first = client.got().await;
    client.leave().await;
    // The acknowledgement does not wait for the fan-out, so somebody else has to see it happen.
    let mut witness = Client::connect(&node, &Hello::v4("w")).await;
    witness.subscribe("a", 0).await;
    publisher.publish("a", "not owed", 0, 0).await;
    publisher.publish("a", "missed", 1, 1).await;
    publisher.expect(0x40, 1).await;
    assert_eq!(witness.got().await.payload, "not owed");
    assert_eq!(witness.got().await.payload, "missed");

    let (mut client, connack) = Client::try_connect(node.address, &hello).await;
    assert_eq!(connack[2], 1, "session present");
    let again = client.got().await;
    assert_eq!(
        (again.payload.as_str(), again.dup, again.id),
        ("unacknowledged", true, first.id)
    );
    assert_eq!(client.got().await.payload, "missed");
    client.expect_quiet().await;

    let node = node.restart().await;
    let (mut client, connack) = Client::try_connect(node.address, &hello).await;
    assert_eq!(connack[2], 1, "session present after a restart, too");
    let again = client.got().await;
    assert_eq!(
        (again.payload.as_str(), again.dup),
        ("unacknowledged", true)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_will_goes_through_the_log_unless_the_client_says_good_bye() {
    let node = Node::start().await;
    let mut subscriber = Client::connect(&node, &Hello::v4("s")).await;
    subscriber.subscribe("will", 0).await;
    let hello = Hello {
        will: Some(("will", "gone")),
        ..Hello::v4("w")
    };
    Client::connect(&node, &hello).await.leave().await;
    subscriber.expect_quiet().await;
    drop(Client::connect(&node, &hello).await);
    assert_eq!(subscriber.got().await.payload, "gone");
    assert_eq!(node.payloads("default"), ["gone"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_routed_into_streams() {
    let filter = TopicFilter::new("plant/#").expect("well formed");
    let node = Node::start_with(|config| config.routes = vec![(filter, stream("telemetry"))]).await;
    let mut client = Client::connect(&node, &Hello::v4("p")).await;
    for (topic, id) in [("plant/a", 1), ("other", 2)] {
        client.publish(topic, topic, 1, id).await;
        client.expect(0x40, id).await;
    }
    assert_eq!(node.payloads("telemetry"), ["plant/a"]);
    assert_eq!(node.payloads("default"), ["other"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn derived_streams_are_published_retained_and_once() {
    let node = Node::start_with(|config| config.republish = vec![stream("scores")]).await;
    let mut subscriber = Client::connect(&node, &Hello::v4("s")).await;
    subscriber.subscribe("skerry/#", 1).await;
    let score = |value: &str| Append {
        stream: stream("scores"),
        records: vec![Record::new(Kind::Score, "bearing/pump1", value.to_owned())],
        changes: Vec::new(),
    };
    for value in ["0.1", "0.9"] {
        node.log.append(score(value)).await.expect("appended");
        let got = subscriber.got().await;
        assert_eq!(
            (got.topic.as_str(), got.payload.as_str()),
            ("skerry/scores/bearing/pump1", value)
        );
        assert_eq!(got.qos, 1);
        subscriber.ack(0x40, got.id).await;
    }
    let mut late = Client::connect(&node, &Hello::v4("l")).await;
    late.subscribe("skerry/scores/#", 0).await;
    let got = late.got().await;
    assert_eq!((got.payload.as_str(), got.retain), ("0.9", true));
    subscriber.expect_quiet().await;
    assert_eq!(node.status().republished_total, 2);
}

/// A client that is not ours, through its own idea of the protocol.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rumqttc_publishes_and_subscribes_at_every_qos() {
    let node = Node::start().await;
    let mut options = MqttOptions::new("rumqttc", "127.0.0.1", node.address.port());
    options.set_keep_alive(Duration::from_secs(5));
    let (client, mut events) = AsyncClient::new(options, 10);
    client
        .subscribe("r/#", QoS::ExactlyOnce)
        .await
        .expect("queued");
    let levels = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
    let (mut got, mut sent) = (Vec::new(), false);
    let talk = async {
        while got.len() < 3 {
            match events.poll().await.expect("connected") {
                Event::Incoming(Incoming::SubAck(_)) if !sent => {
                    sent = true;
                    for qos in levels {
                        client
                            .publish("r/ü", qos, false, "x")
                            .await
                            .expect("queued");
                    }
                }
                Event::Incoming(Incoming::Publish(publish)) => got.push(publish.qos),
                _ => {}
            }
        }
    };
    tokio::time::timeout(common::PATIENCE, talk)
        .await
        .expect("all delivered");
    got.sort_by_key(|qos| *qos as u8);
    assert_eq!(got, levels);
    // Let the last handshakes through before looking.
    let _ = tokio::time::timeout(QUIET, async { while events.poll().await.is_ok() {} }).await;
    assert_eq!(node.payloads("default").len(), 3);
}
