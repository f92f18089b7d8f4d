//! A running uplink, its log, and what the stand-in for the cluster has of it.

use bytes::Bytes;
use skerry_bridge::uplink::{
    self, Config, NewTopics, NodeName, Snapshot, Status, quarantine::QUARANTINE,
};
use skerry_simulation::central::{Central, Delivered};
use skerry_store::{Append, Kind, Log, Options, Record, StreamName, StreamOptions};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const STREAM: &str = "telemetry";
pub(crate) const SOURCES: u64 = 7;

/// A running uplink.
pub(crate) struct Node {
    pub(crate) status: Arc<Status>,
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<Result<(), uplink::Error>>,
}

impl Node {
    pub(crate) fn start(log: &Log, config: Config) -> Self {
        let (status, stop) = (Arc::new(Status::default()), CancellationToken::new());
        let run = uplink::run(config, log.clone(), Arc::clone(&status), stop.clone());
        Self {
            status,
            stop,
            task: tokio::spawn(run),
        }
    }

    pub(crate) async fn until(&self, reached: impl Fn(&Snapshot) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !reached(&self.status.snapshot()) {
            assert!(Instant::now() < deadline, "{:#?}", self.status.snapshot());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn until_delivered(&self, log: &Log) {
        let head = *log.head(&stream()).unwrap().borrow();
        self.until(|status| status.streams.first().is_some_and(|s| s.position == head))
            .await;
    }

    pub(crate) async fn stop(self) -> Snapshot {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
        self.status.snapshot()
    }

    /// As good as kill -9: every task is dropped where it stands.
    pub(crate) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

pub(crate) fn stream() -> StreamName {
    StreamName::new(STREAM).unwrap()
}

pub(crate) fn config(central: &Central) -> Config {
    let node = NodeName::new("vessel-7").unwrap();
    let mut config = Config::new(node, vec![central.address().to_string()]);
    config.limits.retry_delay_max = Duration::from_millis(300);
    config.limits.held_delay = Duration::from_millis(300);
    config.limits.transaction_bytes_max = 64 * 1024;
    config.limits.transaction_interval = Duration::from_millis(20);
    config.create_topics = Some(NewTopics::default());
    config
}

pub(crate) fn open(directory: &Path) -> Log {
    let mut options = Options::new(directory);
    options.allow_volatile = true;
    let quarantine = StreamName::new(QUARANTINE).unwrap();
    options.streams = vec![
        StreamOptions::new(stream(), 1 << 30),
        StreamOptions::new(quarantine, 1 << 26),
    ];
    Log::open(options).unwrap().0
}

/// Records numbered within their source, over a few sources.
pub(crate) async fn append(log: &Log, count: u64) {
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

/// A record that the cluster refuses: it takes 1 MiB.
pub(crate) async fn append_large(log: &Log) {
    let large = Record::new(Kind::Mqtt, "source/0", noise(1_500_000));
    log.append(Append {
        stream: stream(),
        records: vec![large],
        changes: Vec::new(),
    })
    .await
    .unwrap();
}

/// What does not compress.
pub(crate) fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

pub(crate) fn copy(from: &Path, to: &Path) {
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

pub(crate) fn delivered(central: &Central) -> Vec<Delivered> {
    let mut records = central.records();
    records.retain(|record| record.topic == "skerry.telemetry");
    records
}

pub(crate) fn audit(central: &Central, log: &Log, expected: u64) {
    assert_eq!(log.head(&stream()).unwrap().borrow().0, expected);
    audit_offsets(&delivered(central), expected);
}

/// Every offset once; in each partition in order per source.
pub(crate) fn audit_offsets(records: &[Delivered], expected: u64) {
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
