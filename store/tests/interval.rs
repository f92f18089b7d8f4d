//! Streams that acknowledge before the device has it: when they are synced after all, what readers
//! see until then, and what is said about a power cut.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics is a test that fails"
)]

mod common;

use common::*;
use skerry_store::{
    Disk, Durability, Fault, Gap, Kind, Log, Offset, Operation, Options, StreamOptions, WhenFull,
};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longer than any test takes.
const FOR_EVER: Duration = Duration::from_secs(3_600);
const MOMENT: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(60);

/// Counts the syncs of one stream's files, and may be told to fail writes, or that it rebooted.
#[derive(Default)]
struct Watch {
    syncs: AtomicU64,
    /// How many there had been when the journal was next written to; 0 until then.
    syncs_before_journal: AtomicU64,
    failing: AtomicU64,
    boot: AtomicU64,
}

impl Watch {
    fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::SeqCst)
    }
}

impl Fault for Watch {
    fn before(&self, operation: Operation, path: &Path) -> io::Result<()> {
        let ours = path.parent().is_some_and(|stream| stream.ends_with("one"));
        match operation {
            Operation::Sync if ours => {
                self.syncs.fetch_add(1, Ordering::SeqCst);
            }
            Operation::Write if path.parent().is_some_and(|s| s.ends_with("_catalog")) => {
                let order = Ordering::SeqCst;
                let before = &self.syncs_before_journal;
                let _ = before.compare_exchange(0, self.syncs(), order, order);
            }
            Operation::Write if ours && self.failing.load(Ordering::SeqCst) > 0 => {
                return Err(io::Error::from_raw_os_error(5));
            }
            _ => {}
        }
        Ok(())
    }

    fn boot_id(&self) -> Option<u128> {
        Some(self.boot.load(Ordering::SeqCst).into())
    }
}

fn options(directory: &Path, interval: Duration) -> Options {
    let mut options = common::options(directory);
    options.streams[0].durability = Durability::Interval(interval);
    options
}

fn open(options: Options) -> (Log, Arc<Watch>) {
    let watch = Arc::new(Watch::default());
    let (log, _) = Log::open_on(options, Disk::failing(watch.clone())).unwrap();
    (log, watch)
}

fn head(log: &Log, stream: &str) -> u64 {
    log.head(&name(stream)).unwrap().borrow().0
}

fn gaps(log: &Log, stream: &str) -> Vec<Gap> {
    let mut reader = log.reader(&name(stream), Offset::ZERO).unwrap();
    let mut gaps = Vec::new();
    loop {
        let batch = reader.next(100_000).unwrap();
        if batch.is_empty() {
            return gaps;
        }
        let records = batch.records.into_iter().map(|(_, record)| record);
        let told = records.filter(|record| record.kind == Kind::Gap);
        gaps.extend(told.map(|record| serde_json::from_slice::<Gap>(&record.payload).unwrap()));
    }
}

async fn wait_until(what: &str, done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn it_acknowledges_without_a_sync_and_shows_records_after_one() {
    let directory = tempfile::tempdir().unwrap();
    let (log, watch) = open(options(directory.path(), FOR_EVER));
    log.append(append("one", [0])).await.unwrap();
    // The segment itself was begun for good.
    let begun = watch.syncs();
    assert_eq!(begun, 1);
    for number in 1..20 {
        let committed = log.append(append("one", [number])).await.unwrap();
        assert_eq!(committed.first, Offset(number));
        log.append(append("two", [number])).await.unwrap();
    }
    assert_eq!((watch.syncs(), head(&log, "one")), (begun, 0));
    assert_eq!(head(&log, "two"), 19);
    let stats = &log.stats().streams[1];
    assert_eq!((stats.name.as_str(), stats.unsynced_records), ("one", 20));
    assert_eq!(stats.sync_interval_ms, Some(3_600_000));
    drop(log);
    let (log, watch) = open(options(directory.path(), MOMENT));
    assert_eq!(head(&log, "one"), 20);
    assert_eq!(gaps(&log, "one"), []);
    let before = watch.syncs();
    for number in 20..30 {
        log.append(append("one", [number])).await.unwrap();
    }
    wait_until("the records are synced", || head(&log, "one") == 30).await;
    assert!(watch.syncs() < before + 10, "{}", watch.syncs() - before);
    let stats = &log.stats().streams[1];
    assert_eq!((stats.unsynced_records, stats.unsynced_ms), (0, 0));
}

#[tokio::test]
async fn however_long_the_interval_only_so_much_waits() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(directory.path(), FOR_EVER);
    options.segment_bytes = 1 << 30;
    let (log, _) = open(options);
    for number in 0..100 {
        let mut append = append("one", [number]);
        append.records[0].payload = noise(number, 100_000).into();
        log.append(append).await.unwrap();
        let waiting = number + 1 - head(&log, "one");
        assert!(waiting <= 42, "{waiting} records of 100 kB wait");
    }
    assert!(head(&log, "one") >= 40);
}

#[tokio::test]
async fn a_segment_is_left_only_once_it_is_synced() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = open(options(directory.path(), FOR_EVER));
    for number in 0..200 {
        log.append(append("one", [number])).await.unwrap();
    }
    let files = segments(directory.path(), "one");
    assert!(files.len() > 3);
    let newest = files.last().unwrap().file_name().unwrap().to_str().unwrap();
    let base: u64 = newest[..20].parse().unwrap();
    assert_eq!(head(&log, "one"), base);
}

#[tokio::test]
async fn a_crash_of_the_process_takes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let (log, _) = open(options(&data, FOR_EVER));
    for number in 0..10 {
        let mut append = append("one", [number]);
        append.changes = vec![put("key", number.to_string())];
        log.append(append).await.unwrap();
    }
    let left = directory.path().join("left");
    copy(&data, &left);
    let (log, _) = open(options(&left, FOR_EVER));
    assert_eq!(read_all(&log, "one").0.len(), 10);
    assert_eq!(log.get("test", b"key").unwrap().unwrap(), "9");
    assert_eq!(gaps(&log, "one"), []);
}

#[tokio::test]
async fn a_power_cut_is_told_of_once_and_only_where_something_may_be_missing() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let (log, _) = open(options(&data, FOR_EVER));
    for number in 0..10 {
        log.append(append("one", [number])).await.unwrap();
        log.append(append("two", [number])).await.unwrap();
    }
    let left = directory.path().join("left");
    copy(&data, &left);
    drop(log);
    // What the device had of the stream: the segment's header, and no frame.
    let file = &segments(&left, "one")[0];
    let file = std::fs::File::options().write(true).open(file).unwrap();
    file.set_len(256).unwrap();
    std::fs::remove_dir_all(left.join("catalog")).unwrap();

    let reopened = |boot: u64| {
        let watch = Arc::new(Watch::default());
        watch.boot.store(boot, Ordering::SeqCst);
        let options = options(&left, FOR_EVER);
        Log::open_on(options, Disk::failing(watch)).unwrap().0
    };
    let log = reopened(1);
    let told = gaps(&log, "one");
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].offsets, told[0].count), (None, None));
    assert!(told[0].reason.contains("the power failed"), "{told:?}");
    assert!(told[0].to.is_some());
    assert_eq!(gaps(&log, "two"), []);
    assert_eq!(read_all(&log, "two").0.len(), 10);
    drop(log);
    for boot in [1, 2] {
        // Orderly stops, be it with a reboot in between.
        assert_eq!(gaps(&reopened(boot), "one").len(), 1);
    }
}

#[tokio::test]
async fn a_write_that_fails_takes_nothing_that_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let (log, watch) = open(options(directory.path(), FOR_EVER));
    for number in 0..5 {
        log.append(append("one", [number])).await.unwrap();
    }
    watch.failing.store(1, Ordering::SeqCst);
    assert!(log.append(append("one", [5])).await.is_err());
    watch.failing.store(0, Ordering::SeqCst);
    let committed = log.append(append("one", [6])).await.unwrap();
    assert_eq!(committed.first, Offset(5));
    drop(log);
    let (log, _) = open(options(directory.path(), FOR_EVER));
    let payloads: Vec<_> = read_all(&log, "one")
        .0
        .into_iter()
        .map(|(_, p)| p)
        .collect();
    assert_eq!(payloads, ["0", "1", "2", "3", "4", "6"]);
}

#[tokio::test]
async fn what_tells_of_a_removal_is_synced_before_the_files_go() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut options = options(&data, FOR_EVER);
    options.streams[0] = StreamOptions {
        when_full: WhenFull::DropOldest,
        durability: Durability::Interval(FOR_EVER),
        ..StreamOptions::new(name("one"), 8_000)
    };
    let (log, _) = open(options);
    let mut tail = 0;
    for number in 0..400 {
        log.append(append("one", [number])).await.unwrap();
        let now = log.tail(&name("one")).unwrap().0;
        if now > tail {
            tail = now;
            let told = gaps(&log, "one").into_iter().filter_map(|gap| gap.offsets);
            let told = told.map(|(_, next)| next.0).max();
            assert_eq!(
                told,
                Some(tail),
                "the files went before their gap record was there"
            );
        }
    }
    assert!(tail > 0);
}

#[tokio::test]
async fn a_cursor_that_waits_is_synced_before_the_journal_takes_away_what_it_confirms() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(directory.path(), FOR_EVER);
    options.streams[1] = StreamOptions {
        readers: vec!["uplink".to_owned()],
        ..StreamOptions::new(name("two"), 8_000)
    };
    let (log, watch) = open(options);
    let mut next = 0;
    while log.append(append("two", [next])).await.is_ok() {
        next += 1;
    }
    let mut confirms = append("one", [0]);
    confirms.changes = vec![advance("uplink", "two", next)];
    log.append(confirms).await.unwrap();
    let before = watch.syncs();
    assert_eq!(head(&log, "one"), 0, "it waits");
    watch.syncs_before_journal.store(0, Ordering::SeqCst);
    log.append(append("two", [next])).await.unwrap();
    assert!(log.tail(&name("two")).unwrap() > Offset::ZERO);
    assert!(watch.syncs_before_journal.load(Ordering::SeqCst) > before);
}

#[tokio::test]
async fn commits_that_keep_apart_do_not_keep_a_sync_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(directory.path(), MOMENT);
    options.commit_interval_min = FOR_EVER;
    let (log, _) = open(options);
    log.append(append("one", [0])).await.unwrap();
    // It waits for the next commit, and is not waited for.
    let waiting = log.submit(append("two", [0])).await.unwrap();
    wait_until("what waits is synced", || head(&log, "one") == 1).await;
    assert_eq!(head(&log, "two"), 0);
    drop(waiting);
}
