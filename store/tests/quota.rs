//! The quota over all streams: who makes room, who is refused, and who never is.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics is a test that fails"
)]

mod common;

use common::*;
use skerry_store::{Class, Error, Gap, Log, Offset, Options, WhenFull};
use std::path::Path;
use std::time::{Duration, Instant};

const QUOTA: u64 = 60_000;
const JOURNAL_RESERVE: u64 = 10_000;
const PATIENCE: Duration = Duration::from_secs(60);

fn quota(directory: &Path, when_full: WhenFull) -> Options {
    let mut options = options(directory);
    options.segment_bytes = 1_000;
    options.journal_reserve_bytes = JOURNAL_RESERVE;
    options.bytes_max_total = Some(QUOTA);
    for stream in &mut options.streams {
        stream.bytes_max = 1 << 20;
        stream.when_full = when_full;
        stream.readers = vec!["uplink".into()];
    }
    options
}

fn tail(log: &Log, stream: &str) -> u64 {
    log.tail(&name(stream)).unwrap().0
}

fn bytes(log: &Log, stream: &str) -> u64 {
    let streams = log.stats().streams;
    let stream = streams.iter().find(|found| found.name == stream);
    stream.unwrap().bytes
}

/// Appends until the stream holds that much, or does not take more.
async fn fill(log: &Log, stream: &str, up_to: u64) -> Result<(), Error> {
    for number in 0.. {
        if bytes(log, stream) >= up_to {
            break;
        }
        log.append(append(stream, [number])).await?;
    }
    Ok(())
}

async fn confirm(log: &Log, stream: &str) {
    let head = log.head(&name(stream)).unwrap().borrow().0;
    log.append(change(advance("uplink", stream, head)))
        .await
        .unwrap();
}

#[tokio::test]
async fn what_is_confirmed_goes_before_anything_is_refused_or_given_up() {
    for when_full in [WhenFull::Block, WhenFull::DropOldest] {
        let directory = tempfile::tempdir().unwrap();
        let (log, _) = Log::open(quota(directory.path(), when_full)).unwrap();
        fill(&log, "one", 30_000).await.unwrap();
        confirm(&log, "one").await;
        fill(&log, "two", 40_000).await.unwrap();
        assert_eq!(tail(&log, "two"), 0);
        assert!(bytes(&log, "one") < 15_000, "{}", bytes(&log, "one"));
        let stats = log.stats();
        assert_eq!(stats.gap_records_total, 0);
        assert!(stats.quota_bytes <= QUOTA, "{}", stats.quota_bytes);
    }
}

#[tokio::test]
async fn the_fullest_stream_that_may_gives_up_its_oldest_for_any_other() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = quota(directory.path(), WhenFull::DropOldest);
    options.streams[1].when_full = WhenFull::Block;
    let (log, _) = Log::open(options.clone()).unwrap();
    fill(&log, "one", 30_000).await.unwrap();
    fill(&log, "two", 35_000).await.unwrap();
    assert_eq!(tail(&log, "two"), 0);
    assert!(log.stats().quota_bytes <= QUOTA);
    let mut reader = log.reader(&name("one"), Offset::ZERO).unwrap();
    let mut told = 0;
    let mut missing = 0;
    loop {
        let batch = reader.next(1_000).unwrap();
        if batch.is_empty() {
            break;
        }
        missing += batch.missing.map_or(0, |(first, next)| next.0 - first.0);
        for (_, record) in batch.records {
            if let Ok(gap) = serde_json::from_slice::<Gap>(&record.payload) {
                assert!(gap.reason.contains("bytes_max_total"), "{}", gap.reason);
                told += gap.count.unwrap();
            }
        }
    }
    assert!(missing > 50, "{missing}");
    assert_eq!(told, missing);
    let (before, bytes_before) = (tail(&log, "one"), log.stats().quota_bytes);
    drop(log);
    let (log, _) = Log::open(options).unwrap();
    assert_eq!(tail(&log, "one"), before);
    assert!(log.stats().quota_bytes <= bytes_before + 1_000);
}

#[tokio::test]
async fn a_reserve_stays_writable_and_cursors_move_when_the_quota_is_full() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = quota(directory.path(), WhenFull::Block);
    options.streams[1].reserve_bytes = 20_000;
    let (log, _) = Log::open(options).unwrap();
    let full = fill(&log, "one", QUOTA).await.unwrap_err();
    assert!(matches!(full, Error::QuotaFull { .. }), "{full}");
    assert_eq!(full.class(), Class::Full);
    let most = QUOTA - JOURNAL_RESERVE - 20_000;
    assert!(
        (most - 1_000..=most).contains(&bytes(&log, "one")),
        "{}",
        bytes(&log, "one")
    );

    fill(&log, "two", 19_000).await.unwrap();
    fill(&log, "two", 22_000).await.unwrap_err();
    assert!(log.stats().quota_bytes <= QUOTA, "the rest of it is shared");
    // What is kept beside the streams is let in even beyond its own reserve.
    for number in 0..12 {
        let entry = put(&number.to_string(), noise(number, 1_000));
        log.append(change(entry)).await.unwrap();
    }
    assert!(bytes(&log, "_catalog") > JOURNAL_RESERVE);
    assert_eq!((tail(&log, "one"), tail(&log, "two")), (0, 0));

    confirm(&log, "one").await;
    fill(&log, "two", 30_000).await.unwrap();
    assert!(tail(&log, "one") > 0);
    log.append(append("one", [1])).await.unwrap();
    assert!(log.stats().storage == skerry_store::Storage::Ok);
}

/// Grows the log's own stream by entries that a snapshot would have as well.
async fn put_entries(log: &Log, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let entry = put(&number.to_string(), noise(number, 1_000));
        log.append(change(entry)).await.unwrap();
    }
}

#[tokio::test]
async fn what_the_journal_holds_beyond_its_reserve_counts_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(quota(directory.path(), WhenFull::Block)).unwrap();
    put_entries(&log, 0..25).await;
    let full = fill(&log, "one", QUOTA).await.unwrap_err();
    assert!(matches!(full, Error::QuotaFull { .. }), "{full}");
    let journal = bytes(&log, "_catalog");
    assert!(journal > 2 * JOURNAL_RESERVE, "{journal}");
    let held = bytes(&log, "one") + journal;
    assert!((QUOTA - 1_000..=QUOTA).contains(&held), "{held}");
    assert_eq!(log.stats().quota_bytes, held);
}

#[tokio::test]
async fn the_journal_is_let_in_over_the_quota_and_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(quota(directory.path(), WhenFull::Block)).unwrap();
    fill(&log, "one", QUOTA).await.unwrap_err();
    put_entries(&log, 0..25).await;
    assert!(log.stats().quota_bytes > QUOTA + JOURNAL_RESERVE);
    for stream in ["one", "two"] {
        let full = log.append(append(stream, [1])).await.unwrap_err();
        assert!(matches!(full, Error::QuotaFull { .. }), "{full}");
    }
    // For this above all: what is confirmed makes room for all that is over.
    confirm(&log, "one").await;
    log.append(append("two", [1])).await.unwrap();
    let begun = Instant::now();
    while log.stats().quota_bytes > QUOTA {
        assert!(begun.elapsed() < PATIENCE, "{:?}", log.stats());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(log.stats().gap_records_total, 0);
}
