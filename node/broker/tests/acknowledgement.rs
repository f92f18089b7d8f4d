//! Acknowledged means on disk; refused means never acknowledged.

mod common;

use common::{Client, Hello, Node, stream};
use skerry_store::{Gap, Kind};
use std::sync::atomic::Ordering;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledgement_before_the_commit() {
    let node = Node::start().await;
    for hello in [Hello::v4("four"), Hello::v5("five")] {
        let mut client = Client::connect(&node, &hello).await;
        node.gate.hold(true);
        client.publish("a", "one", 1, 1).await;
        client.publish("a", "two", 2, 2).await;
        client.send(b"\xc0\0").await;
        assert_eq!(
            client.packet().await,
            Some(b"\xd0\0".to_vec()),
            "PINGRESP does not wait"
        );
        client.expect_quiet().await;
        node.gate.hold(false);
        client.expect(0x40, 1).await;
        client.expect(0x50, 2).await;
        client.ack(0x62, 2).await;
        client.expect(0x70, 2).await;
    }
    assert_eq!(node.payloads("default"), ["one", "two", "one", "two"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_get_nothing_that_is_not_on_disk() {
    let node = Node::start().await;
    let mut subscriber = Client::connect(&node, &Hello::v4("s")).await;
    subscriber.subscribe("#", 0).await;
    let mut publisher = Client::connect(&node, &Hello::v4("p")).await;
    node.gate.hold(true);
    publisher.publish("a", "1", 0, 0).await;
    publisher.publish("a", "2", 1, 1).await;
    subscriber.expect_quiet().await;
    node.gate.hold(false);
    assert_eq!(subscriber.got().await.payload, "1");
    assert_eq!(subscriber.got().await.payload, "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_s_window_shares_commits_and_keeps_its_order() {
    let node = Node::start().await;
    let mut client = Client::connect(&node, &Hello::v4("p")).await;
    let before = node.gate.syncs.load(Ordering::SeqCst);
    let mut bytes = Vec::new();
    for id in 1..=100 {
        bytes.extend(client.publish_bytes("a", &id.to_string(), 1, id, 0, &[]));
    }
    client.send(&bytes).await;
    for id in 1..=100 {
        client.expect(0x40, id).await;
    }
    let syncs = node.gate.syncs.load(Ordering::SeqCst) - before;
    assert!(syncs < 40, "{syncs} syncs for 100 publishes");
    let expected: Vec<String> = (1..=100).map(|id: u16| id.to_string()).collect();
    assert_eq!(node.payloads("default"), expected);
}

/// rumqttd alone loses the acknowledgement of 3 to 8 such clients in a thousand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_lived_clients_are_all_acknowledged() {
    let node = Node::start().await;
    let mut subscriber = Client::connect(&node, &Hello::v4("s")).await;
    subscriber.subscribe("#", 1).await;
    for round in 0..30 {
        let clients = (0..10).map(|index| {
            let address = node.address;
            tokio::spawn(async move {
                let id = format!("short-{round}-{index}");
                let (mut client, _) = Client::try_connect(address, &Hello::v4(&id)).await;
                let mut bytes = client.publish_bytes("short", &id, 1, 1, 0, &[]);
                // Good-bye follows at once; the acknowledgement is owed nevertheless.
                bytes.extend(b"\xe0\0");
                client.send(&bytes).await;
                client.expect(0x40, 1).await;
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.expect("acknowledged");
        }
    }
    assert_eq!(node.payloads("default").len(), 300);
    for _ in 0..300 {
        let got = subscriber.got().await;
        subscriber.ack(0x40, got.id).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_stream_is_never_acknowledged() {
    let node = Node::start_small(256 * 1024, |config| {
        config.refused_hold = Duration::from_millis(500);
    })
    .await;
    let mut five = Client::connect(&node, &Hello::v5("five")).await;
    let payload = noise(16 * 1024);
    let mut accepted = 0;
    let refusal = loop {
        five.publish("a", &payload, 1, 1).await;
        match five.expect(0x40, 1).await {
            0 => accepted += 1,
            reason => break reason,
        }
        assert!(accepted < 1000, "the stream never fills");
    };
    assert_eq!(refusal, 0x97, "quota exceeded");
    five.publish("a", &payload, 2, 2).await;
    assert_eq!(five.expect(0x50, 2).await, 0x97);

    let mut four = Client::connect(&node, &Hello::v4("four")).await;
    four.publish("a", &payload, 1, 1).await;
    four.expect_quiet().await;
    assert!(
        four.expect_closed().await.is_empty(),
        "held, then closed without a word"
    );
    assert_eq!(node.records("default").len(), accepted);
    assert!(node.status().refused_total["full"] >= 3);
}

/// Text that no codec makes smaller.
fn noise(bytes: usize) -> String {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'!' + u8::try_from(state % 90).expect("below 90"))
    };
    (0..bytes).map(|_| next()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn qos_0_that_the_disk_refused_becomes_a_gap_record() {
    let node = Node::start().await;
    let mut client = Client::connect(&node, &Hello::v4("p")).await;
    node.gate.full.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        client.publish("a", "lost", 0, 0).await;
    }
    node.until("refusals", |status| {
        status.refused_total.values().sum::<u64>() == 3
    })
    .await;
    node.gate.full.store(false, Ordering::SeqCst);
    node.until("the gap", |status| status.gaps_recorded_total == 1)
        .await;
    let records = node.records("default");
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].kind, Kind::Gap);
    let gap: Gap = serde_json::from_slice(&records[0].payload).expect("a gap");
    assert_eq!(
        (gap.subject.as_str(), gap.count),
        (stream("default").as_str(), Some(3))
    );
    assert!(gap.from <= gap.to);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_s_own_topics_are_closed_to_clients() {
    let node = Node::start().await;
    let mut five = Client::connect(&node, &Hello::v5("five")).await;
    for topic in ["skerry/alerts/x", "$SYS/broker"] {
        five.publish(topic, "forged", 1, 1).await;
        assert_eq!(five.expect(0x40, 1).await, 0x87, "not authorized");
    }
    let mut four = Client::connect(&node, &Hello::v4("four")).await;
    four.publish("skerry/alerts/x", "forged", 1, 1).await;
    // It cannot be told; the message is dropped nevertheless.
    four.expect(0x40, 1).await;
    assert!(node.records("default").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_settles_what_was_taken() {
    let node = Node::start().await;
    let mut client = Client::connect(&node, &Hello::v5("p")).await;
    node.gate.hold(true);
    client.publish("a", "1", 1, 1).await;
    node.until("the publish", |status| status.publishes_qos1_total == 1)
        .await;
    let gate = std::sync::Arc::clone(&node.gate);
    let stopping = tokio::spawn(node.stop());
    client.expect_quiet().await;
    gate.hold(false);
    client.expect(0x40, 1).await;
    let last = client.expect_closed().await;
    assert!(
        matches!(&last[..], [one] if one[0] == 0xe0 && one[2] == 0x8b),
        "server shutting down"
    );
    stopping.await.expect("stopped");
}

/// Small devices put CONNECT and their first PUBLISH into one segment (3.1.1, 3.1.4).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_in_one_go_with_connect_is_answered() {
    let node = Node::start().await;
    let mut client = Client::raw(&node, 4).await;
    let publish = client.publish_bytes("a/b", "early", 1, 7, 0, &[]);
    let both = [Hello::v4("eager").bytes(), publish].concat();
    client.send(&both).await;
    assert_eq!(client.packet().await.unwrap()[0], 0x20);
    client.expect(0x40, 7).await;
}
