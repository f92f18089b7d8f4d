//! Reconnecting, and nothing unsaid: what the data tells about how it was had.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[expect(dead_code, reason = "the module serves more than one test binary")]
mod plant;

use plant::{Client, Proxy, TICK, World, counts, set};
use skerry_bridge::opcua::{self, State};
use skerry_store::Record;

/// The counter's values that are marked with `attribute`.
fn marked(records: &[Record], attribute: &str) -> Vec<i64> {
    let of = |record: &&Record| record.attributes.iter().any(|(name, _)| name == attribute);
    let marked: Vec<Record> = records.iter().filter(of).cloned().collect();
    counts(&marked)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_values_of_a_subscription_are_marked_and_changes_are_not() {
    let world = World::new();
    let plant = world.plant(0).await;
    let port = plant.port();
    let proxy = Proxy::to(port).await;
    let client = Client::start(&world, &proxy.url(), &["count"]);
    client.until("a value", |s| s.values_total >= 1).await;
    tokio::time::sleep(TICK).await;
    set(&plant, 1).await;
    // A cut that the server bridges makes no new subscription, a restart does.
    proxy.cut();
    client
        .until("trouble", |s| s.state == State::Retrying)
        .await;
    set(&plant, 2).await;
    proxy.open();
    client.until("the change", |s| s.values_total >= 3).await;
    plant.stop().await;
    client
        .until("trouble", |s| s.state == State::Retrying)
        .await;
    let plant = world.plant(port).await;
    client
        .until("its value anew", |s| s.values_total >= 4)
        .await;
    tokio::time::sleep(TICK).await;
    set(&plant, 3).await;
    client.until("the change", |s| s.values_total >= 5).await;
    client.stop().await;

    let records = world.records();
    assert_eq!(counts(&records), [0, 1, 2, 0, 3]);
    assert_eq!(marked(&records, opcua::INITIAL), [0, 0]);
}
