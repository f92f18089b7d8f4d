//! Sessions, and what they are owed, over restarts and crashes: the queue is the log.

mod common;

use common::{Client, Got, Hello, Node};
use std::collections::BTreeSet;
use std::time::Duration;

const QOS_2: u8 = 2;

fn lasting(id: &str) -> Hello<'_> {
    Hello {
        clean: false,
        ..Hello::v4(id)
    }
}

/// A session of version 5 that outlives its connection.
fn lasting_v5(id: &str) -> Hello<'_> {
    Hello {
        clean: false,
        properties: b"\x11\0\0\x0e\x10",
        ..Hello::v5(id)
    }
}

async fn resumed(node: &Node, hello: &Hello<'_>) -> Client {
    let (client, connack) = Client::try_connect(node.address, hello).await;
    assert_eq!(connack[2..4], [1, 0], "session present");
    client
}

async fn published(client: &mut Client, topic: &str, payload: &str, id: u16) {
    client.publish(topic, payload, 1, id).await;
    assert_eq!(client.expect(0x40, id).await, 0);
}

/// The next message of QoS 1, acknowledged.
async fn taken(client: &mut Client) -> Got {
    let got = client.got().await;
    assert_eq!(got.qos, 1, "{got:?}");
    client.ack(0x40, got.id).await;
    got
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_absent_client_missed_is_there_after_a_crash() {
    let node = Node::start().await;
    let mut client = Client::connect(&node, &lasting("s")).await;
    assert_eq!(client.subscribe("a/#", 1).await, 1);
    client.leave().await;
    let mut publisher = Client::connect(&node, &Hello::v4("p")).await;
    for number in 0..300_u16 {
        let topic = if number % 3 == 0 { "b/x" } else { "a/x" };
        published(&mut publisher, topic, &number.to_string(), 1 + number).await;
    }
    let node = node.crash_and_restart().await;
    let mut publisher = Client::connect(&node, &Hello::v4("p")).await;
    published(&mut publisher, "a/x", "300", 1).await;
    let mut client = resumed(&node, &lasting("s")).await;
    for number in (0..=300).filter(|number| number % 3 != 0 || *number == 300) {
        assert_eq!(taken(&mut client).await.payload, number.to_string());
    }
    published(&mut publisher, "a/x", "live", 2).await;
    assert_eq!(taken(&mut client).await.payload, "live");
    client.expect_quiet().await;
}

/// Nothing but what came after the SUBSCRIBE, filter by filter, though the log has it all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_filter_counts_from_its_own_subscribe() {
    let node = Node::start().await;
    let mut publisher = Client::connect(&node, &Hello::v4("p")).await;
    published(&mut publisher, "a", "before", 1).await;
    let mut client = Client::connect(&node, &lasting("s")).await;
    client.subscribe("a", 1).await;
    published(&mut publisher, "b", "before", 1).await;
    published(&mut publisher, "a", "1", 1).await;
    assert_eq!(taken(&mut client).await.payload, "1");
    // From here on it is behind, because it does not acknowledge.
    client.leave().await;
    published(&mut publisher, "a", "2", 1).await;
    published(&mut publisher, "b", "too early", 1).await;
    let mut client = resumed(&node, &lasting("s")).await;
    assert_eq!(taken(&mut client).await.payload, "2");
    client.subscribe("b", 1).await;
    client.leave().await;
    published(&mut publisher, "b", "3", 1).await;
    let node = node.crash_and_restart().await;
    let mut client = resumed(&node, &lasting("s")).await;
    // Of QoS 1, and what was acknowledged last may come again after a crash.
    let mut got = vec![taken(&mut client).await.payload];
    while got.last().expect("one at least") != "3" {
        got.push(taken(&mut client).await.payload);
    }
    got.retain(|payload| payload != "2");
    assert_eq!(got, ["3"]);
    client.expect_quiet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unsubscribed_filter_stays_unsubscribed() {
    let node = Node::start().await;
    let mut client = Client::connect(&node, &lasting("s")).await;
    client.subscribe("a", 1).await;
    client.subscribe("b", 1).await;
    client.send(b"\xa2\x05\x00\x09\x00\x01a").await;
    client.expect(0xb0, 9).await;
    client.leave().await;
    let node = node.crash_and_restart().await;
    let mut publisher = Client::connect(&node, &Hello::v4("p")).await;
    published(&mut publisher, "a", "no", 1).await;
    published(&mut publisher, "b", "yes", 1).await;
    let mut client = resumed(&node, &lasting("s")).await;
    assert_eq!(taken(&mut client).await.payload, "yes");
    client.expect_quiet().await;
}

/// QoS 2 to a subscriber: killed at each step, it is delivered once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn qos_2_reaches_a_subscriber_once_whatever_step_a_crash_falls_on() {
    let mut node = Node::start().await;
    let mut client = Client::connect(&node, &lasting("s")).await;
    client.subscribe("a", QOS_2).await;
    for crash_after in 0..3 {
        let mut publisher = Client::connect(&node, &Hello::v4("p")).await;
        let payload = crash_after.to_string();
        publisher.publish("a", &payload, QOS_2, 1).await;
        publisher.expect(0x50, 1).await;
        publisher.ack(0x62, 1).await;
        publisher.expect(0x70, 1).await;
        let got = client.got().await;
        assert_eq!(
            (got.payload.as_str(), got.qos, got.dup),
            (payload.as_str(), 2, false)
        );
        if crash_after > 0 {
            client.ack(0x50, got.id).await;
            client.expect(0x62, got.id).await;
        }
        if crash_after > 1 {
            client.ack(0x70, got.id).await;
        }
        node = node.crash_and_restart().await;
        client = resumed(&node, &lasting("s")).await;
        if crash_after == 0 {
            let again = client.got().await;
            assert_eq!((again.id, again.dup), (got.id, true), "the same packet id");
            assert_eq!(again.payload, payload);
            client.ack(0x50, got.id).await;
        }
        // The release may come again; it ends the flow either way.
        client.expect(0x62, got.id).await;
        client.ack(0x70, got.id).await;
        client.expect_quiet().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_in_flight_comes_again_under_its_id_after_a_clean_stop() {
    let node = Node::start().await;
    let mut client = Client::connect(&node, &lasting("s")).await;
    client.subscribe("a", 1).await;
    let mut publisher = Client::connect(&node, &Hello::v4("p")).await;
    published(&mut publisher, "a", "1", 1).await;
    published(&mut publisher, "a", "2", 2).await;
    let first = client.got().await;
    let second = client.got().await;
    client.ack(0x40, second.id).await;
    client.leave().await;
    let node = node.restart().await;
    let mut client = resumed(&node, &lasting("s")).await;
    let again = client.got().await;
    assert_eq!(
        (again.id, again.dup, again.payload.as_str()),
        (first.id, true, "1")
    );
    client.expect_quiet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_start_ends_the_session_for_good() {
    let node = Node::start().await;
    let mut client = Client::connect(&node, &lasting("s")).await;
    client.subscribe("a", 1).await;
    client.leave().await;
    Client::connect(&node, &Hello::v4("s")).await.leave().await;
    let node = node.crash_and_restart().await;
    let (mut client, connack) = Client::try_connect(node.address, &lasting("s")).await;
    assert_eq!(connack[2], 0, "no session");
    let mut publisher = Client::connect(&node, &Hello::v4("p")).await;
    published(&mut publisher, "a", "no", 1).await;
    client.expect_quiet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_expires_though_the_node_was_restarted() {
    let node = Node::start().await;
    let hello = Hello {
        properties: b"\x11\0\0\0\x02",
        ..lasting_v5("s")
    };
    let mut client = Client::connect(&node, &hello).await;
    client.subscribe("a", 1).await;
    client.leave().await;
    let node = node.restart().await;
    resumed(&node, &hello).await.leave().await;
    tokio::time::sleep(Duration::from_millis(3500)).await;
    assert_eq!(node.status().sessions_absent, 0);
    assert_eq!(node.status().subscriptions, 0);
    let node = node.restart().await;
    let (_client, connack) = Client::try_connect(node.address, &hello).await;
    assert_eq!(connack[2], 0, "no session");
}

/// More than a mailbox holds, for a client that is there and does not acknowledge.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_subscriber_gets_everything_from_the_log_in_order() {
    let node = Node::start_with(|config| config.mailbox_messages_max = 10).await;
    let mut client = Client::connect(&node, &Hello::v4("s")).await;
    client.subscribe("a/+", 1).await;
    let mut publisher = Client::connect(&node, &Hello::v4("p")).await;
    for number in 1..=500_u16 {
        published(
            &mut publisher,
            &format!("a/{}", number % 7),
            &number.to_string(),
            number,
        )
        .await;
    }
    for number in 1..=500 {
        assert_eq!(taken(&mut client).await.payload, number.to_string());
    }
    client.expect_quiet().await;
    let status = node.status();
    assert!(status.sessions_fell_behind_total > 0, "{status:?}");
    assert_eq!(status.slow_reader_losses_total, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_subscription_gives_each_message_to_one_member() {
    let node = Node::start().await;
    let mut members = Vec::new();
    for name in ["m1", "m2", "m3"] {
        let mut member = Client::connect(&node, &Hello::v5(name)).await;
        assert_eq!(member.subscribe("$share/g/a/#", 1).await, 1);
        members.push(member);
    }
    let mut witness = Client::connect(&node, &Hello::v5("w")).await;
    witness.subscribe("a/#", 1).await;
    let mut publisher = Client::connect(&node, &Hello::v4("p")).await;
    let mut expected = BTreeSet::new();
    for number in 0..60_u16 {
        published(&mut publisher, "a/b", &number.to_string(), 1 + number).await;
        assert_eq!(taken(&mut witness).await.payload, number.to_string());
        expected.insert(number.to_string());
    }
    let mut got = BTreeSet::new();
    let mut shares = Vec::new();
    for member in &mut members {
        let mut share = 0;
        while let Some(message) = member.got_soon().await {
            member.ack(0x40, message.id).await;
            assert!(got.insert(message.payload), "given to two");
            share += 1;
        }
        shares.push(share);
    }
    assert_eq!(got, expected);
    assert!(shares.iter().all(|share| *share >= 10), "{shares:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_leaves_hands_back_what_it_did_not_acknowledge() {
    let node = Node::start().await;
    let mut first = Client::connect(&node, &Hello::v5("m1")).await;
    first.subscribe("$share/g/a", 1).await;
    let mut publisher = Client::connect(&node, &Hello::v4("p")).await;
    published(&mut publisher, "a", "1", 1).await;
    assert_eq!(first.got().await.payload, "1");
    let mut second = Client::connect(&node, &Hello::v5("m2")).await;
    second.subscribe("$share/g/a", 1).await;
    first.leave().await;
    assert_eq!(taken(&mut second).await.payload, "1");
    published(&mut publisher, "a", "2", 1).await;
    assert_eq!(taken(&mut second).await.payload, "2");
    second.expect_quiet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_subscription_of_a_lasting_session_waits_over_a_crash() {
    let node = Node::start().await;
    let mut member = Client::connect(&node, &lasting_v5("m")).await;
    member.subscribe("$share/g/a", 1).await;
    member.leave().await;
    let mut publisher = Client::connect(&node, &Hello::v4("p")).await;
    published(&mut publisher, "a", "1", 1).await;
    let node = node.crash_and_restart().await;
    let mut publisher = Client::connect(&node, &Hello::v4("p")).await;
    published(&mut publisher, "a", "2", 1).await;
    let mut member = resumed(&node, &lasting_v5("m")).await;
    assert_eq!(taken(&mut member).await.payload, "1");
    assert_eq!(taken(&mut member).await.payload, "2");
    member.expect_quiet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delayed_will_waits_for_its_client_and_survives_a_restart() {
    let node = Node::start().await;
    // Will delay 2 s, session expiry an hour.
    let willing = || Hello {
        will: Some(("will", "gone")),
        will_properties: b"\x18\0\0\0\x02",
        ..lasting_v5("d")
    };
    drop(Client::connect(&node, &willing()).await);
    node.until("the loss", |status| status.sessions_absent == 1)
        .await;
    // It comes back in time, and is lost again.
    drop(resumed(&node, &willing()).await);
    node.until("the loss", |status| status.sessions_absent == 1)
        .await;
    assert!(node.payloads("default").is_empty(), "too early");
    let node = node.restart().await;
    let gone = async {
        while node.payloads("default").is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let published = tokio::time::timeout(common::PATIENCE, gone).await;
    assert!(published.is_ok(), "the will never came");
    assert_eq!(node.payloads("default"), ["gone"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn immediate_delivery_does_not_wait_for_the_disk_and_lasting_sessions_do() {
    let stream = common::stream("default");
    let node = Node::start_with(|config| config.immediate = vec![stream]).await;
    let mut quick = Client::connect(&node, &Hello::v4("quick")).await;
    quick.subscribe("a", 1).await;
    let mut sure = Client::connect(&node, &lasting("sure")).await;
    sure.subscribe("a", 1).await;
    let mut publisher = Client::connect(&node, &Hello::v4("p")).await;
    node.gate.hold(true);
    publisher.publish("a", "x", 1, 1).await;
    assert_eq!(taken(&mut quick).await.payload, "x");
    publisher.expect_quiet().await;
    sure.expect_quiet().await;
    node.gate.hold(false);
    publisher.expect(0x40, 1).await;
    assert_eq!(taken(&mut sure).await.payload, "x");
    quick.expect_quiet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memory_route_delivers_qos_0_and_logs_the_rest() {
    let stream = common::stream("default");
    let node = Node::start_with(|config| config.memory = vec![stream]).await;
    let mut subscriber = Client::connect(&node, &lasting("s")).await;
    subscriber.subscribe("a", 1).await;
    let mut publisher = Client::connect(&node, &Hello::v4("p")).await;
    publisher.publish("a", "0", 0, 0).await;
    assert_eq!(subscriber.got().await.payload, "0");
    published(&mut publisher, "a", "1", 1).await;
    assert_eq!(taken(&mut subscriber).await.payload, "1");
    assert_eq!(node.payloads("default"), ["1"]);
}
