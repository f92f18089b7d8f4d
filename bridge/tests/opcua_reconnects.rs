//! Again and again: reconnecting leaves nothing behind, neither at the server nor here.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[expect(dead_code, reason = "the module serves more than one test binary")]
mod plant;

use plant::{Client, Proxy, World, counts, gaps, wait};
use skerry_bridge::opcua::{Config, Node, State};
use skerry_simulation::opcua_server::historian::{Archive, Historian};
use std::time::{Duration, SystemTime};

async fn server(world: &World) -> Historian {
    let archive = Archive::default();
    let directory = world.directory.path();
    let server = Historian::start(0, directory, &[], &["count"], &archive);
    server.await.unwrap()
}

fn config(world: &World, url: &str) -> Config {
    let mut config = world.config(url, &[]);
    let id = Historian::node_id("count").parse().unwrap();
    config.nodes = vec![Node::new("plant/count", id, Duration::from_millis(100))];
    config
}

/// Kilobytes of memory that this process holds.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.unwrap().split_whitespace().nth(1);
    number.unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_and_changed_configurations_leave_one_subscription() {
    let world = World::new();
    let server = server(&world).await;
    for run in 1..=50_u64 {
        let mut config = config(&world, &server.url());
        // Every second one asks for something else, and cannot carry the earlier one on.
        config.publishing_interval = Duration::from_millis(50 + run / 2);
        let client = Client::run(&world, config);
        client
            .until("connected", |s| s.state == State::Connected)
            .await;
        if run.is_multiple_of(5) {
            client.stop().await;
        } else {
            // As a kill does, and at any moment: also within what it does first.
            client.task.abort();
            let _ = client.task.await;
        }
    }
    let client = Client::run(&world, config(&world, &server.url()));
    client
        .until("connected", |s| s.state == State::Connected)
        .await;
    wait("one subscription", || server.subscriptions() == 1).await;
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_reconnects_leak_nothing() {
    reconnects(50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes an hour: run it by name"]
async fn ten_thousand_reconnects_leak_nothing() {
    reconnects(10_000).await;
}

async fn reconnects(times: u64) {
    let world = World::new();
    let server = server(&world).await;
    let proxy = Proxy::to(server.port()).await;
    let client = Client::run(&world, config(&world, &proxy.url()));
    client
        .until("connected", |s| s.state == State::Connected)
        .await;
    let mut early = 0;
    for time in 1..=times {
        let value = i64::try_from(time).unwrap();
        proxy.cut();
        client
            .until("trouble", |s| s.state == State::Retrying)
            .await;
        proxy.open();
        server.set("count", value, SystemTime::now()).unwrap();
        // Connected again is not enough: a value has to come, or back-off grows.
        let what = format!("value {time}");
        client
            .until(&what, |s| {
                s.state == State::Connected && s.values_total > time
            })
            .await;
        if time == times / 2 {
            early = resident();
        }
    }
    let grown = resident().saturating_sub(early);
    assert!(grown < 16 * 1024, "{grown} kB more than half-way");
    assert_eq!(server.subscriptions(), 1);
    let status = client.stop().await;
    assert!(status.reconnects_total >= times, "{status:?}");
    let records = world.records();
    let expected: Vec<i64> = (0..=i64::try_from(times).unwrap()).collect();
    assert_eq!(counts(&records), expected);
    assert_eq!(gaps(&records), []);
}
