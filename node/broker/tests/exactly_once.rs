//! QoS 2 from a publisher is in the log once, whatever happens in between.

mod common;

use common::{Client, Hello, Node};

const DUP: u8 = 0b1000;

fn lasting(id: &str) -> Hello<'_> {
    Hello {
        clean: false,
        ..Hello::v4(id)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resend_after_a_crash_is_answered_and_not_logged_again() {
    let node = Node::start().await;
    let mut client = Client::connect(&node, &lasting("p")).await;
    for id in 1..=3 {
        client.publish("a", &format!("m{id}"), 2, id).await;
        client.expect(0x50, id).await;
    }
    // The first is complete before the crash, the second in the middle.
    client.ack(0x62, 1).await;
    client.expect(0x70, 1).await;

    let node = node.crash_and_restart().await;
    let mut client = Client::connect(&node, &lasting("p")).await;
    for id in 2..=3 {
        let again = client.publish_bytes("a", &format!("m{id}"), 2, id, DUP, &[]);
        client.send(&again).await;
        client.expect(0x50, id).await;
        client.ack(0x62, id).await;
        client.expect(0x70, id).await;
    }
    assert_eq!(node.payloads("default"), ["m1", "m2", "m3"]);
    assert_eq!(node.status().duplicates_suppressed_total, 2);

    // All ids are free again, in the catalog too.
    let node = node.crash_and_restart().await;
    let mut client = Client::connect(&node, &lasting("p")).await;
    let again = client.publish_bytes("a", "m2", 2, 2, DUP, &[]);
    client.send(&again).await;
    client.expect(0x50, 2).await;
    assert_eq!(node.payloads("default"), ["m1", "m2", "m3", "m2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pubrel_alone_after_a_crash_is_completed() {
    let node = Node::start().await;
    let mut client = Client::connect(&node, &lasting("p")).await;
    client.publish("a", "m", 2, 7).await;
    client.expect(0x50, 7).await;
    let node = node.crash_and_restart().await;
    let mut client = Client::connect(&node, &lasting("p")).await;
    client.ack(0x62, 7).await;
    client.expect(0x70, 7).await;
    client.ack(0x62, 7).await;
    client.expect(0x70, 7).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_message_with_an_old_id_is_not_swallowed() {
    let node = Node::start().await;
    let mut client = Client::connect(&node, &lasting("p")).await;
    client.publish("a", "old", 2, 1).await;
    client.expect(0x50, 1).await;
    let node = node.crash_and_restart().await;
    // The client lost its state and starts counting again.
    let mut client = Client::connect(&node, &lasting("p")).await;
    client.publish("a", "new", 2, 1).await;
    client.expect(0x50, 1).await;
    assert_eq!(node.payloads("default"), ["old", "new"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_start_forgets_the_ids() {
    let node = Node::start().await;
    let mut client = Client::connect(&node, &lasting("p")).await;
    client.publish("a", "m", 2, 1).await;
    client.expect(0x50, 1).await;
    client.leave().await;
    Client::connect(&node, &Hello::v4("p")).await.leave().await;
    let mut client = Client::connect(&node, &lasting("p")).await;
    let again = client.publish_bytes("a", "m", 2, 1, DUP, &[]);
    client.send(&again).await;
    client.expect(0x50, 1).await;
    assert_eq!(node.payloads("default"), ["m", "m"]);
}

/// The first connection's publish is still on its way to the disk when the second one sends it
/// again: the second must wait for it, or the log has it twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_take_over_waits_for_the_first_connection_s_commits() {
    let node = Node::start().await;
    let mut first = Client::connect(&node, &lasting("p")).await;
    node.gate.hold(true);
    first.publish("a", "m", 2, 1).await;
    node.until("the publish", |status| status.publishes_qos2_total == 1)
        .await;
    let address = node.address;
    let second = tokio::spawn(async move { Client::try_connect(address, &lasting("p")).await.0 });
    first.expect_quiet().await;
    assert!(!second.is_finished());
    node.gate.hold(false);
    let mut second = second.await.expect("connected");
    let again = second.publish_bytes("a", "m", 2, 1, DUP, &[]);
    second.send(&again).await;
    second.expect(0x50, 1).await;
    assert_eq!(node.payloads("default"), ["m"]);
}
