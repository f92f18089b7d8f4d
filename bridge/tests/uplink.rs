//! The uplink against the stand-in for the cluster: whatever is cut, killed or copied, every
//! offset arrives once, in order per source, or as a gap that says why.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use bytes::Bytes;
use skerry_bridge::uplink::{
    self, CURSOR, Config, LaneState, LinkState, NodeName, Snapshot, Status,
};
use skerry_simulation::central::{Central, Delivered};
use skerry_store::{Append, Kind, Log, Offset, Options, Record, StreamName, StreamOptions};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const STREAM: &str = "telemetry";
const SOURCES: u64 = 7;

#[tokio::test(flavor = "multi_thread")]
async fn records_arrive_with_their_names_and_positions() {
    let central = Central::start(0).await.unwrap();
    let disk = tempfile::tempdir_in(".").unwrap();
    let log = open(disk.path());
    append(&log, 100).await;
    let node = Node::start(&log, config(&central));
    node.until_delivered(&log).await;
    append(&log, 50).await;
    node.until_delivered(&log).await;
    let status = node.stop().await;

    audit(&central, &log, 150);
    let first = &delivered(&central)[0];
    assert_eq!(first.header("skerry-node"), Some("vessel-7"));
    assert_eq!(
        first.header("skerry-epoch"),
        Some(&*format!("{:016x}", log.epoch()))
    );
    assert_eq!(first.header("skerry-kind"), Some("mqtt"));
    assert_eq!(status.link.state, LinkState::Up);
    assert_eq!(status.streams[0].delivered_total, 150);
    assert_eq!(status.streams[0].lag_records, 0);
    assert_eq!(log.cursor(CURSOR, &stream()).unwrap(), Some(Offset(150)));
}

#[tokio::test(flavor = "multi_thread")]
async fn once_through_cuts_and_kills() {
    let central = Central::start(0).await.unwrap();
    let disk = tempfile::tempdir_in(".").unwrap();
    let log = open(disk.path());
    for round in 0..12_u64 {
        append(&log, 400).await;
        let node = Node::start(&log, config(&central));
        // Somewhere in the middle of connecting, fencing, reading back, sending, committing.
        tokio::time::sleep(Duration::from_millis(3 + round * round)).await;
        central.cut();
        append(&log, 100).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        central.restore();
        tokio::time::sleep(Duration::from_millis(40 + round * 17 % 60)).await;
        node.kill().await;
    }
    let node = Node::start(&log, config(&central));
    node.until_delivered(&log).await;
    node.stop().await;
    audit(&central, &log, 12 * 500);
    assert!(central.counts().transactions_committed > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_is_believed_when_the_disk_forgot_that_it_delivered() {
    let central = Central::start(0).await.unwrap();
    let disk = tempfile::tempdir_in(".").unwrap();
    let log = open(disk.path());
    append(&log, 300).await;
    log.close().await.unwrap();
    // The same disk, before it ever delivered.
    let before = tempfile::tempdir_in(".").unwrap();
    copy(disk.path(), before.path());

    let log = open(disk.path());
    let node = Node::start(&log, config(&central));
    node.until_delivered(&log).await;
    node.stop().await;
    drop(log);

    let log = open(before.path());
    assert_eq!(log.cursor(CURSOR, &stream()).unwrap(), None);
    let node = Node::start(&log, config(&central));
    node.until_delivered(&log).await;
    node.stop().await;
    audit(&central, &log, 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_went_on_from_an_old_image_is_held() {
    let central = Central::start(0).await.unwrap();
    let disk = tempfile::tempdir_in(".").unwrap();
    let log = open(disk.path());
    append(&log, 100).await;
    log.close().await.unwrap();
    let image = tempfile::tempdir_in(".").unwrap();
    copy(disk.path(), image.path());

    let log = open(disk.path());
    append(&log, 50).await;
    let node = Node::start(&log, config(&central));
    node.until_delivered(&log).await;
    node.stop().await;
    drop(log);

    // Behind the cluster at first; then ahead of it, with other records at the same offsets.
    let log = open(image.path());
    for more in [0, 100] {
        append(&log, more).await;
        let node = Node::start(&log, config(&central));
        let held = |status: &Snapshot| status.streams.iter().any(|s| s.state == LaneState::Held);
        node.until(held).await;
        let status = node.stop().await;
        let error = status.streams[0].last_error.clone().unwrap();
        assert!(error.contains("restored from an image"), "{error}");
    }
    assert_eq!(delivered(&central).len(), 150);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_the_cluster_refuses_becomes_a_gap_and_blocks_nothing() {
    let central = Central::start(0).await.unwrap();
    let disk = tempfile::tempdir_in(".").unwrap();
    let log = open(disk.path());
    append(&log, 40).await;
    let large = Record::new(Kind::Mqtt, "source/0", noise(1_500_000));
    let append_large = Append {
        stream: stream(),
        records: vec![large],
        changes: Vec::new(),
    };
    log.append(append_large).await.unwrap();
    append(&log, 40).await;

    let node = Node::start(&log, config(&central));
    node.until_delivered(&log).await;
    let status = node.stop().await;
    assert_eq!(status.streams[0].quarantined_total, 1);
    assert_eq!(status.streams[0].delivered_total, 80);
    let all = delivered(&central);
    audit_offsets(&all, 81);
    let gap = all
        .iter()
        .find(|record| record.header("skerry-offset") == Some("40"))
        .unwrap();
    assert_eq!(gap.header("skerry-kind"), Some("gap"));
    let text = std::str::from_utf8(gap.value.as_ref().unwrap()).unwrap();
    assert!(text.contains("quarantined"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_with_one_name_fence_each_other_and_repeat_nothing() {
    let central = Central::start(0).await.unwrap();
    let disk = tempfile::tempdir_in(".").unwrap();
    let log = open(disk.path());
    let (one, two) = (
        Node::start(&log, config(&central)),
        Node::start(&log, config(&central)),
    );
    for _ in 0..20 {
        append(&log, 50).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    one.until_delivered(&log).await;
    one.stop().await;
    two.until_delivered(&log).await;
    two.stop().await;
    audit(&central, &log, 1_000);
    assert!(central.counts().producers_fenced > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_away_is_a_state_and_a_missing_topic_is_named() {
    let central = Central::start(0).await.unwrap();
    central.cut();
    let disk = tempfile::tempdir_in(".").unwrap();
    let log = open(disk.path());
    append(&log, 10).await;
    let mut config = config(&central);
    config.auto_create = false;
    let node = Node::start(&log, config);
    node.until(|status| status.link.state == LinkState::Down)
        .await;
    assert!(node.status.snapshot().link.because.is_some());
    central.restore();
    let missing = |status: &Snapshot| {
        let error = status
            .streams
            .first()
            .and_then(|stream| stream.last_error.as_deref());
        let error = error.unwrap_or_default();
        error.contains("`skerry.telemetry`") && error.contains("create it")
    };
    node.until(missing).await;
    let status = node.stop().await;
    assert_eq!(status.streams[0].delivered_total, 0);
}

/// A running uplink.
struct Node {
    status: Arc<Status>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), uplink::Error>>,
}

impl Node {
    fn start(log: &Log, config: Config) -> Self {
        let (status, stop) = (Arc::new(Status::default()), CancellationToken::new());
        let run = uplink::run(config, log.clone(), Arc::clone(&status), stop.clone());
        Self {
            status,
            stop,
            task: tokio::spawn(run),
        }
    }

    async fn until(&self, reached: impl Fn(&Snapshot) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !reached(&self.status.snapshot()) {
            assert!(Instant::now() < deadline, "{:#?}", self.status.snapshot());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn until_delivered(&self, log: &Log) {
        let head = *log.head(&stream()).unwrap().borrow();
        self.until(|status| status.streams.first().is_some_and(|s| s.position == head))
            .await;
    }

    async fn stop(self) -> Snapshot {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
        self.status.snapshot()
    }

    /// As good as kill -9: every task is dropped where it stands.
    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

fn stream() -> StreamName {
    StreamName::new(STREAM).unwrap()
}

fn config(central: &Central) -> Config {
    let node = NodeName::new("vessel-7").unwrap();
    let mut config = Config::new(node, vec![central.address().to_string()]);
    config.limits.retry_delay_max = Duration::from_millis(300);
    config.limits.transaction_bytes_max = 64 * 1024;
    config.limits.transaction_interval = Duration::from_millis(20);
    config
}

fn open(directory: &Path) -> Log {
    let mut options = Options::new(directory);
    options.allow_volatile = true;
    options.streams = vec![StreamOptions::new(stream(), 1 << 30)];
    Log::open(options).unwrap().0
}

/// Records numbered within their source, over a few sources.
async fn append(log: &Log, count: u64) {
    if count == 0 {
        return;
    }
    let head = log.head(&stream()).unwrap().borrow().0;
    let records = (head..head + count).map(|n| {
        let value = format!("{{\"n\":{n},\"pad\":\"{}\"}}", "x".repeat(120));
        Record::new(Kind::Mqtt, format!("source/{}", n % SOURCES), value)
    });
    let records = records.collect();
    log.append(Append {
        stream: stream(),
        records,
        changes: Vec::new(),
    })
    .await
    .unwrap();
}

/// What does not compress.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn delivered(central: &Central) -> Vec<Delivered> {
    let mut records = central.records();
    records.retain(|record| record.topic == "skerry.telemetry");
    records
}

fn audit(central: &Central, log: &Log, expected: u64) {
    assert_eq!(log.head(&stream()).unwrap().borrow().0, expected);
    audit_offsets(&delivered(central), expected);
}

/// Every offset once; in each partition in order per source.
fn audit_offsets(records: &[Delivered], expected: u64) {
    let mut seen = BTreeMap::<u64, u32>::new();
    let mut last = BTreeMap::<Bytes, u64>::new();
    for record in records {
        let offset: u64 = record.header("skerry-offset").unwrap().parse().unwrap();
        *seen.entry(offset).or_default() += 1;
        let previous = last.insert(record.key.clone().unwrap(), offset);
        assert!(
            previous.is_none_or(|previous| previous < offset),
            "{previous:?} then {offset}"
        );
    }
    let repeated: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).collect();
    assert!(repeated.is_empty(), "repeated: {repeated:?}");
    let lost: Vec<_> = (0..expected)
        .filter(|offset| !seen.contains_key(offset))
        .collect();
    assert!(
        lost.is_empty() && seen.len() as u64 == expected,
        "lost: {lost:?}"
    );
}
