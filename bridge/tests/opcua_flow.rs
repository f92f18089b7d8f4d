//! Reconnecting, and nothing unsaid: what the data tells about how it was had.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[expect(dead_code, reason = "the module serves more than one test binary")]
mod liar;
#[expect(dead_code, reason = "the module serves more than one test binary")]
mod plant;

use liar::{Answer, Liar};
use plant::{Client, Proxy, TICK, World, counts, gaps, set};
use skerry_bridge::opcua::{self, State};
use skerry_simulation::opcua_server::TagValue;
use skerry_store::Record;
use std::time::{Duration, SystemTime};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_s_clock_is_watched_and_leaves_no_trace_in_the_data() {
    let world = World::new();
    let plant = world.plant(0).await;
    let first = Client::start(&world, &plant.url(), &["count"]);
    first.until("a value", |s| s.values_total >= 1).await;
    first.until("its clock", |s| s.server_clock.is_some()).await;
    let clock = first.status.snapshot().server_clock.unwrap();
    assert!(clock.offset_ms.abs() < 2_000, "{clock:?}");
    assert!(!clock.wrong && !clock.stands_still, "{clock:?}");
    // Past a sample of the clock, which alone is worth no write: a crash makes no hole of it.
    tokio::time::sleep(Duration::from_secs(11)).await;
    first.crash().await;
    for count in 1..=3 {
        set(&plant, count).await;
    }
    let second = Client::start(&world, &plant.url(), &["count"]);
    world
        .until("every value", |records| counts(records).last() == Some(&3))
        .await;
    second.stop().await;
    let records = world.records();
    assert_eq!(counts(&records), [0, 1, 2, 3]);
    assert_eq!(gaps(&records), []);
    assert_eq!(records.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_server_is_read_while_one_is_away() {
    let world = World::new();
    let first = world.plant(0).await;
    let second = world.plant(0).await;
    let (first_url, first_port) = (first.url(), first.port());
    let mut config = world.config(&first_url, &["count"]);
    config.standby = vec![second.url().parse().unwrap()];
    let client = Client::run(&world, config);
    client.until("a value", |s| s.values_total >= 1).await;
    assert_eq!(client.status.snapshot().endpoint, first_url);
    set(&first, 1).await;
    client.until("its change", |s| s.values_total >= 2).await;
    first.stop().await;
    client
        .until("the second server", |s| {
            s.state == State::Connected && s.endpoint == second.url()
        })
        .await;
    tokio::time::sleep(TICK).await;
    set(&second, 5).await;
    client.until("its values", |s| s.values_total >= 4).await;
    // Back at the first: what it had was never looked for at the second, and it knows us anew.
    let second_url = second.url();
    second.stop().await;
    let first = world.plant(first_port).await;
    client
        .until("the first server", |s| {
            s.state == State::Connected && s.endpoint != second_url
        })
        .await;
    tokio::time::sleep(TICK).await;
    set(&first, 9).await;
    client.until("its values", |s| s.values_total >= 6).await;
    client.stop().await;
    let records = world.records();
    assert_eq!(counts(&records), [0, 1, 0, 5, 0, 9]);
    assert_eq!(gaps(&records).len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_while_a_refused_node_is_asked_for_again_doubles_nothing() {
    let world = World::new();
    let plant = world.plant(0).await;
    let liar = Liar::between(plant.port()).await;
    let config = || world.config(&liar.url(), &["count", "late"]);
    let client = Client::run(&world, config());
    client
        .until("the good node's value", |s| s.values_total >= 1)
        .await;
    plant.add("late", TagValue::Count(0));
    // The server monitors it from now on, and the client does not live to hear of that.
    liar.lie(1, liar::CREATE_MONITORED_ITEMS, |_| {
        Some(Vec::<Answer>::new())
    });
    plant::wait("the question", || liar.has_lied()).await;
    client.crash().await;
    let client = Client::run(&world, config());
    client.until("both nodes", |s| s.nodes_good == 2).await;
    let late = || {
        let records = world.records();
        let of = records
            .iter()
            .filter(|record| record.source == "plant/late" && record.status == 0);
        of.map(|record| {
            let payload: serde_json::Value = serde_json::from_slice(&record.payload).unwrap();
            payload["value"].as_i64().unwrap()
        })
        .collect::<Vec<_>>()
    };
    world.until("its value", |_| !late().is_empty()).await;
    for value in 1..=5 {
        let now = SystemTime::now();
        plant.set("late", TagValue::Count(value), now).unwrap();
        tokio::time::sleep(TICK).await;
    }
    plant::wait("its last value", || late().ends_with(&[5])).await;
    client.stop().await;
    assert_eq!(late(), [0, 1, 2, 3, 4, 5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_can_serve_only_in_part_is_called_degraded() {
    let world = World::new();
    let plant = world.plant(0).await;
    for (level, degraded) in [(255, false), (199, true), (200, false)] {
        plant.set_service_level(level);
        let client = Client::start(&world, &plant.url(), &["count"]);
        client
            .until("its level", |s| s.service_level == Some(level))
            .await;
        assert_eq!(client.status.snapshot().degraded, degraded, "{level}");
        client.stop().await;
    }
}
