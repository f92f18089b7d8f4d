//! Outages filled from the server's history.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[expect(dead_code, reason = "the module serves more than one test binary")]
mod plant;

use plant::{Client, TICK, World, counts, gaps, wait};
use skerry_bridge::opcua::{self, Config, Node, State};
use skerry_simulation::opcua_server::historian::{Archive, Historian};
use skerry_store::{Record, WallNanos};
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

const RECORDED: [&str; 2] = ["count", "other"];
const PLAIN: [&str; 1] = ["plain"];

/// A server with history in a world, and what it recorded.
struct Hall {
    world: World,
    archive: Archive,
    server: Option<Historian>,
    port: u16,
}

impl Hall {
    async fn open() -> Self {
        let world = World::new();
        let archive = Archive::default();
        for name in RECORDED {
            archive.record(name, 0, SystemTime::now());
        }
        let mut hall = Self {
            world,
            archive,
            server: None,
            port: 0,
        };
        hall.serve().await;
        hall
    }

    async fn serve(&mut self) {
        let directory = self.world.directory.path();
        let server = Historian::start(self.port, directory, &RECORDED, &PLAIN, &self.archive);
        let server = server.await.unwrap();
        self.port = server.port();
        self.server = Some(server);
    }

    async fn stop(&mut self) {
        self.server.take().unwrap().stop().await;
    }

    fn config(&self, names: &[&str]) -> Config {
        let url = format!("opc.tcp://127.0.0.1:{}/", self.port);
        let mut config = self.world.config(&url, &[]);
        let nodes = names.iter().map(|name| {
            let id = Historian::node_id(name).parse().unwrap();
            Node::new(format!("plant/{name}"), id, Duration::from_millis(100))
        });
        config.nodes = nodes.collect();
        config
    }

    /// Sets the counter live, each value long enough to be sampled.
    async fn set(&self, counts: std::ops::RangeInclusive<i64>) {
        for count in counts {
            let server = self.server.as_ref().unwrap();
            server.set("count", count, SystemTime::now()).unwrap();
            tokio::time::sleep(TICK).await;
        }
    }

    /// What the machine did while nobody listened, in a few milliseconds up to now.
    fn record(&self, counts: std::ops::RangeInclusive<i64>) {
        let (first, last) = (*counts.start(), *counts.end());
        let start = SystemTime::now() - Duration::from_micros(10 * (last - first).unsigned_abs());
        for count in counts {
            let after = Duration::from_micros(10 * (count - first).unsigned_abs());
            self.archive.record("count", count, start + after);
        }
    }

    async fn until_last(&self, last: i64) {
        let what = format!("{last} and everything before it");
        self.world
            .until(&what, |records| {
                let counts: BTreeSet<i64> = counts(records).into_iter().collect();
                counts.iter().copied().eq(0..=last)
            })
            .await;
    }
}

/// The counter's values whose back-fill mark is `mark`.
fn filled(records: &[Record], mark: &str) -> Vec<i64> {
    let has = |record: &&Record| {
        let mut attributes = record.attributes.iter();
        attributes.any(|(name, value)| name == opcua::BACKFILL && value == mark.as_bytes())
    };
    let filled: Vec<Record> = records.iter().filter(has).cloned().collect();
    counts(&filled)
}

async fn connected(client: &Client) {
    client
        .until("connected", |s| s.state == State::Connected)
        .await;
}

async fn in_trouble(client: &Client) {
    client
        .until("trouble", |s| s.state == State::Retrying)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_filled_in_order_and_what_has_no_history_is_a_gap() {
    let mut hall = Hall::open().await;
    let client = Client::run(&hall.world, hall.config(&["count", "other", "plain"]));
    client.until("first values", |s| s.values_total >= 3).await;
    tokio::time::sleep(TICK).await;
    hall.set(1..=4).await;
    let server = hall.server.as_ref().unwrap();
    // Set in the last moment: the server goes before it has told.
    server.set("count", 5, SystemTime::now()).unwrap();
    hall.stop().await;
    in_trouble(&client).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    hall.record(6..=120);
    hall.serve().await;
    connected(&client).await;
    hall.until_last(120).await;
    hall.set(121..=123).await;
    hall.until_last(123).await;
    let status = client.stop().await;
    assert_eq!((status.history_nodes, status.backfill_pending), (2, 0));

    let records = hall.world.records();
    assert_eq!(counts(&records), (0..=123).collect::<Vec<_>>());
    let history = filled(&records, "true");
    assert!(
        history.ends_with(&(6..=119).collect::<Vec<_>>()),
        "{history:?}"
    );
    assert_eq!(status.backfilled_total, history.len() as u64);
    let of: Vec<_> = gaps(&records).into_iter().map(|gap| gap.subject).collect();
    assert_eq!(of, ["plant/plain"]);
    let others: Vec<_> = records
        .iter()
        .filter(|record| record.source == "plant/other" && record.status == 0)
        .collect();
    assert_eq!(others.len(), 2, "the first value, and the same one anew");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_within_neither_loses_nor_doubles() {
    let mut hall = Hall::open().await;
    let client = Client::run(&hall.world, hall.config(&["count"]));
    client.until("a first value", |s| s.values_total >= 1).await;
    tokio::time::sleep(TICK).await;
    hall.set(1..=3).await;
    // Killed, and what is in the log is all that is known of the time before.
    client.crash().await;
    hall.stop().await;
    hall.record(4..=700);
    hall.archive.slow_down(Duration::from_millis(20));
    hall.serve().await;
    let client = Client::run(&hall.world, hall.config(&["count"]));
    client
        .until("some of it", |s| s.backfilled_total >= 100)
        .await;
    client.crash().await;
    assert!(
        counts(&hall.world.records()).len() < 700,
        "it was in the middle"
    );
    let client = Client::run(&hall.world, hall.config(&["count"]));
    hall.until_last(700).await;
    hall.set(701..=702).await;
    hall.until_last(702).await;
    client.stop().await;
    let records = hall.world.records();
    assert_eq!(counts(&records), (0..=702).collect::<Vec<_>>());
    assert_eq!(gaps(&records), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn much_history_comes_behind_new_values_and_a_crash_does_not_matter_there_either() {
    let mut hall = Hall::open().await;
    let mut config = hall.config(&["count"]);
    config.history_hold = Duration::from_millis(500);
    let client = Client::run(&hall.world, config.clone());
    client.until("a first value", |s| s.values_total >= 1).await;
    tokio::time::sleep(TICK).await;
    hall.set(1..=3).await;
    hall.stop().await;
    in_trouble(&client).await;
    hall.record(4..=700);
    hall.archive.slow_down(Duration::from_millis(50));
    hall.serve().await;
    client
        .until("the end of waiting", |s| s.backfill_pending == 1)
        .await;
    hall.set(701..=703).await;
    let live = || counts(&hall.world.records()).contains(&703);
    wait("new values", live).await;
    client.crash().await;
    let before = filled(&hall.world.records(), "late").len();
    assert!(before < 600, "it was in the middle: {before}");
    let client = Client::run(&hall.world, config);
    hall.until_last(703).await;
    client
        .until("nothing to do", |s| s.backfill_pending == 0)
        .await;
    client.stop().await;
    let records = hall.world.records();
    let all = counts(&records);
    assert_eq!(all.len(), 704, "each once");
    let late = filled(&records, "late");
    assert!(late.ends_with(&[698, 699]) && late.is_sorted(), "{late:?}");
    let live: Vec<_> = all.into_iter().filter(|it| !late.contains(it)).collect();
    assert!(live.is_sorted() && live.ends_with(&[700, 701, 702, 703]));
    assert_eq!(gaps(&records), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_that_was_lost_is_a_gap_up_to_where_it_starts() {
    let mut hall = Hall::open().await;
    let client = Client::run(&hall.world, hall.config(&["count"]));
    client.until("a first value", |s| s.values_total >= 1).await;
    tokio::time::sleep(TICK).await;
    hall.set(1..=3).await;
    hall.until_last(3).await;
    hall.stop().await;
    in_trouble(&client).await;
    hall.archive.clear();
    tokio::time::sleep(TICK).await;
    let start = WallNanos::now();
    tokio::time::sleep(Duration::from_millis(50)).await;
    hall.record(10..=30);
    hall.serve().await;
    let last = || counts(&hall.world.records()).last() == Some(&30);
    wait("what there is", last).await;
    client.stop().await;
    let records = hall.world.records();
    let expected: Vec<_> = (0..=3).chain(10..=30).collect();
    assert_eq!(counts(&records), expected);
    let gaps = gaps(&records);
    let [gap] = &gaps[..] else { panic!("{gaps:?}") };
    assert_eq!(gap.subject, "plant/count");
    assert!(
        gap.from.unwrap() < start && gap.to.unwrap() > start,
        "{gap:?}"
    );
    assert!(gap.reason.contains("does not reach back"), "{gap:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_left_alone_where_it_is_turned_off() {
    let mut hall = Hall::open().await;
    let mut config = hall.config(&["count"]);
    config.history = opcua::History::Off;
    let client = Client::run(&hall.world, config);
    client.until("a first value", |s| s.values_total >= 1).await;
    hall.stop().await;
    in_trouble(&client).await;
    hall.record(1..=9);
    hall.serve().await;
    connected(&client).await;
    let last = || counts(&hall.world.records()).last() == Some(&9);
    wait("the current value", last).await;
    client.stop().await;
    let records = hall.world.records();
    assert_eq!(counts(&records), [0, 9]);
    assert_eq!(hall.archive.reads(), 0);
    let of: Vec<_> = gaps(&records).into_iter().map(|gap| gap.subject).collect();
    assert_eq!(of, ["plant"]);
}
