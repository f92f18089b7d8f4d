//! Retention by age: what leaves, what stays whatever the clocks say, and what is told of it.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics is a test that fails"
)]

mod common;

use common::*;
use skerry_store::{
    Append, Disk, Fault, Gap, Kind, Log, Offset, Operation, Options, WallNanos, WhenFull,
};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

const HOUR: Duration = Duration::from_secs(60 * 60);

/// A disk that works, in a world where time passes as the test says.
#[derive(Default)]
struct Time(AtomicU64);

impl Time {
    fn pass(&self, hours: u64) {
        self.0.fetch_add(hours, Ordering::SeqCst);
    }
}

impl Fault for Time {
    fn before(&self, _: Operation, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn skipped(&self) -> Duration {
        HOUR * u32::try_from(self.0.load(Ordering::SeqCst)).unwrap()
    }
}

/// Stream "one" keeps its records for a day.
fn a_day(directory: &Path, when_full: WhenFull) -> Options {
    let mut options = options(directory);
    options.streams[0].age_max = Some(24 * HOUR);
    options.streams[0].when_full = when_full;
    options.streams[0].readers = vec!["uplink".into()];
    options
}

fn tail(log: &Log) -> u64 {
    log.tail(&name("one")).unwrap().0
}

/// A commit that touches another stream only.
async fn commit(log: &Log) {
    log.append(append("two", [0])).await.unwrap();
}

/// Lets time pass hour by hour, with a commit in each.
async fn live(log: &Log, time: &Time, hours: u64) {
    for _ in 0..hours {
        time.pass(1);
        commit(log).await;
    }
}

async fn fill(log: &Log, records: std::ops::Range<u64>) {
    for number in records {
        log.append(append("one", [number])).await.unwrap();
    }
}

#[tokio::test]
async fn only_what_is_confirmed_and_too_old_leaves_a_stream_that_blocks() {
    let directory = tempfile::tempdir().unwrap();
    let time = Arc::new(Time::default());
    let disk = Disk::failing(time.clone());
    let options = a_day(directory.path(), WhenFull::Block);
    let (log, _) = Log::open_on(options, disk).unwrap();
    fill(&log, 0..200).await;
    live(&log, &time, 12).await;
    fill(&log, 200..300).await;
    live(&log, &time, 36).await;
    assert_eq!(tail(&log), 0, "nothing is confirmed");

    log.append(change(advance("uplink", "one", 250)))
        .await
        .unwrap();
    live(&log, &time, 3).await;
    assert!((200..=250).contains(&tail(&log)), "{}", tail(&log));
    log.append(change(advance("uplink", "one", 300)))
        .await
        .unwrap();
    fill(&log, 300..310).await;
    live(&log, &time, 3).await;
    let (records, _) = read_all(&log, "one");
    let kept: Vec<_> = records.iter().map(|(offset, _)| *offset).collect();
    assert!(kept[0] <= 300 && kept.ends_with(&[308, 309]), "{kept:?}");
    assert!(
        records.iter().all(|(_, text)| !text.contains("offsets")),
        "no gap"
    );
}

#[tokio::test]
async fn what_leaves_unconfirmed_is_told_where_the_policy_allows_it() {
    let directory = tempfile::tempdir().unwrap();
    let time = Arc::new(Time::default());
    let disk = Disk::failing(time.clone());
    let options = a_day(directory.path(), WhenFull::DropOldest);
    let (log, _) = Log::open_on(options, disk).unwrap();
    fill(&log, 0..200).await;
    log.append(change(advance("uplink", "one", 60)))
        .await
        .unwrap();
    live(&log, &time, 27).await;
    let mut reader = log.reader(&name("one"), Offset(60)).unwrap();
    let batch = reader.next(1_000_000).unwrap();
    assert_eq!(batch.missing, Some((Offset(60), Offset(200))));
    let (_, record) = &batch.records[0];
    assert_eq!(record.kind, Kind::Gap);
    let gap: Gap = serde_json::from_slice(&record.payload).unwrap();
    assert_eq!(gap.offsets, Some((Offset(60), Offset(200))));
    assert_eq!(gap.count, Some(140));
    assert!(gap.reason.contains("age_max"), "{}", gap.reason);
    assert_eq!(segments(directory.path(), "one").len(), 1);
}

#[tokio::test]
async fn a_stream_that_falls_silent_leaves_its_disk_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = a_day(directory.path(), WhenFull::Block);
    options.streams[0].age_max = Some(Duration::from_millis(200));
    let (log, _) = Log::open(options.clone()).unwrap();
    fill(&log, 0..100).await;
    // Its changes are to outlive the frames they came in.
    let last = Append {
        changes: vec![put("key", "value"), advance("uplink", "one", 100)],
        ..append("one", [100])
    };
    log.append(last).await.unwrap();
    log.append(change(advance("uplink", "one", 101)))
        .await
        .unwrap();
    let patience = Instant::now() + Duration::from_secs(60);
    let bytes = |log: &Log| {
        let streams = log.stats().streams;
        streams
            .iter()
            .find(|stream| stream.name == "one")
            .unwrap()
            .bytes
    };
    // Nobody appends from here on.
    while bytes(&log) > 256 {
        assert!(Instant::now() < patience, "{} bytes stay", bytes(&log));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(tail(&log), 101);
    drop(log);
    let files = segments(directory.path(), "one");
    assert_eq!(files.len(), 1, "{files:?}");
    let (log, recovery) = Log::open(options).unwrap();
    assert!(!recovery.catalog_rebuilt, "nothing was lost");
    assert_eq!(recovery.records_missing, 0);
    assert_eq!(log.get("test", b"key").unwrap().unwrap(), "value");
    let committed = log.append(append("one", [7])).await.unwrap();
    assert_eq!(committed.first, Offset(101));
}

/// Whatever says another time, year and all: records, segment headers, files.
#[tokio::test]
async fn a_wall_clock_that_jumps_removes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let time = Arc::new(Time::default());
    let options = a_day(directory.path(), WhenFull::DropOldest);
    let open = || {
        time.0.store(0, Ordering::SeqCst);
        Log::open_on(options.clone(), Disk::failing(time.clone()))
            .unwrap()
            .0
    };
    let log = open();
    for (number, year) in [(0, 1970), (1, 2199), (2, 1971)] {
        let mut append = append("one", [number]);
        let at = WallNanos((year - 1970) * 365 * 86_400 * 1_000_000_000);
        append.records[0].ingest_time = at;
        append.records[0].source_time = Some(at);
        log.append(append).await.unwrap();
        time.pass(1);
        commit(&log).await;
    }
    live(&log, &time, 12).await;
    drop(log);
    for file in segments(directory.path(), "one") {
        let file = std::fs::File::options().write(true).open(file).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    }
    let log = open();
    live(&log, &time, 8).await;
    assert_eq!(read_all(&log, "one").0.len(), 3);
    // The fifteen hours before the restart count.
    live(&log, &time, 10).await;
    assert!(
        tail(&log) > 0,
        "what was noted before the restart is forgotten"
    );
}
