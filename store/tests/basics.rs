//! The contract, one promise at a time.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics is a test that fails"
)]

mod common;

use common::*;
use skerry_store::{Append, Class, Error, Log, Offset, StreamName, WhenFull};
use std::path::Path;

#[tokio::test]
async fn what_is_appended_is_read_and_survives_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let (log, recovery) = Log::open(options(directory.path())).unwrap();
    assert!(!recovery.clean_stop);
    for number in 0..100 {
        let committed = log.append(append("one", [number])).await.unwrap();
        assert_eq!(committed.first, Offset(number));
        assert_eq!(committed.next, Offset(number + 1));
    }
    let expected: Vec<_> = (0..100).map(|n| (n, n.to_string())).collect();
    assert_eq!(read_all(&log, "one"), (expected.clone(), vec![]));
    assert!(segments(directory.path(), "one").len() > 3);
    let epoch = log.epoch();
    log.close().await.unwrap();

    let (log, recovery) = Log::open(options(directory.path())).unwrap();
    assert!(recovery.clean_stop && !recovery.catalog_rebuilt && recovery.torn_bytes == 0);
    assert_eq!(log.epoch(), epoch);
    assert_eq!(read_all(&log, "one"), (expected, vec![]));
    let committed = log.append(append("one", [100, 101])).await.unwrap();
    assert_eq!(committed.first, Offset(100));
    assert_eq!(*log.head(&name("one")).unwrap().borrow(), Offset(102));
}

#[tokio::test]
async fn changes_are_there_with_their_records_and_without_sled() {
    let directory = tempfile::tempdir().unwrap();
    let big = vec![7; 250_000];
    {
        let (log, _) = Log::open(options(directory.path())).unwrap();
        for number in 0..200_u64 {
            let mut append = append("one", [number]);
            append.changes = vec![
                advance("reader", "one", number),
                put(&format!("key-{}", number % 7), number.to_string()),
            ];
            log.append(append).await.unwrap();
        }
        log.append(change(put("big", big.clone()))).await.unwrap();
        log.append(change(put("key-6", "last"))).await.unwrap();
        check(&log, &big);
    }
    let (log, recovery) = Log::open(options(directory.path())).unwrap();
    assert!(!recovery.catalog_rebuilt);
    check(&log, &big);
    drop(log);
    std::fs::remove_dir_all(directory.path().join("catalog")).unwrap();
    let (log, recovery) = Log::open(options(directory.path())).unwrap();
    assert!(recovery.catalog_rebuilt);
    check(&log, &big);
    log.append(change(put("big", "small"))).await.unwrap();
    assert_eq!(log.get("test", b"big").unwrap().unwrap(), "small");

    fn check(log: &Log, big: &[u8]) {
        assert_eq!(
            log.cursor("reader", &name("one")).unwrap(),
            Some(Offset(199))
        );
        assert_eq!(log.get("test", b"big").unwrap().unwrap(), big);
        let entries = log.scan("test", b"key-").unwrap();
        assert_eq!(entries.len(), 7);
        assert_eq!(entries[6].1, "last");
        assert_eq!(entries[0].0, "key-0");
        assert_eq!(entries[0].1, "196");
    }
}

#[tokio::test]
async fn a_full_stream_blocks_until_its_reader_confirms() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(directory.path());
    options.streams[0].bytes_max = 4_000;
    options.streams[0].readers = vec!["uplink".into()];
    let (log, _) = Log::open(options).unwrap();
    let mut accepted = 0;
    let full = loop {
        match log.append(append("one", [accepted])).await {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, Error::Full { .. }) && full.class() == Class::Full);
    assert_eq!(read_all(&log, "one").0.len() as u64, accepted);
    assert!(log.append(append("two", [1])).await.is_ok());

    log.append(change(advance("uplink", "one", accepted)))
        .await
        .unwrap();
    let next = log.append(append("one", [accepted])).await.unwrap();
    assert_eq!(next.first, Offset(accepted));
    // Files are removed after the answer; the next commit waits for that.
    log.append(append("two", [1])).await.unwrap();
    assert!(log.tail(&name("one")).unwrap() > Offset::ZERO);
    let stats = log.stats();
    let one = stats.streams.iter().find(|stream| stream.name == "one");
    assert!(one.unwrap().bytes <= 4_000 && stats.segments_removed_total > 0);
}

#[tokio::test]
async fn drop_oldest_gives_up_the_oldest_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(directory.path());
    options.streams[0].bytes_max = 4_000;
    options.streams[0].when_full = WhenFull::DropOldest;
    let (log, _) = Log::open(options.clone()).unwrap();
    for number in 0..300 {
        log.append(append("one", [number])).await.unwrap();
    }
    // Files are removed after the answer; the next commit waits for that.
    log.append(append("two", [1])).await.unwrap();
    let tail = log.tail(&name("one")).unwrap();
    let check = |log: &Log| {
        let (records, missing) = read_all(log, "one");
        assert_eq!(missing, [(0, tail.0)]);
        // The gap records still held account for all that is missing, back to the first.
        let gaps = records.iter().filter(|(_, p)| p.contains("drop_oldest"));
        let gaps: Vec<skerry_store::Gap> = gaps
            .map(|(_, payload)| serde_json::from_str(payload).unwrap())
            .collect();
        let counts = gaps.iter().map(|gap| gap.count.unwrap());
        assert_eq!(counts.sum::<u64>(), tail.0);
        let ranges = || gaps.iter().map(|gap| gap.offsets.unwrap());
        assert_eq!(ranges().map(|(first, _)| first).min(), Some(Offset::ZERO));
        assert_eq!(ranges().map(|(_, next)| next).max(), Some(tail));
        assert!(
            gaps.iter()
                .all(|gap| gap.from.is_some() && gap.to.is_some())
        );
        records
    };
    let before = check(&log);
    drop(log);
    let (log, _) = Log::open(options).unwrap();
    assert_eq!(check(&log), before);
}

#[tokio::test]
async fn following_sees_each_record_once_it_is_durable() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(options(directory.path())).unwrap();
    let mut reader = log.reader(&name("one"), Offset::ZERO).unwrap();
    let follower = tokio::spawn(async move {
        let mut seen = 0;
        loop {
            match reader.follow(100).await {
                Ok(batch) => seen += batch.records.len(),
                Err(end) => return (seen, end),
            }
        }
    });
    for number in 0..50 {
        log.append(append("one", [number])).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut head = log.head(&name("one")).unwrap();
    head.wait_for(|head| *head == Offset(50)).await.unwrap();
    let other = log.clone();
    log.close().await.unwrap();
    let (seen, end) = follower.await.unwrap();
    assert!(seen <= 50 && matches!(end, Error::Closed));
    let refused = other.append(append("one", [1])).await.unwrap_err();
    assert!(matches!(refused, Error::Closed));
}

#[tokio::test]
async fn bad_appends_are_refused_and_harm_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(options(directory.path())).unwrap();
    let empty = Append {
        stream: name("one"),
        records: vec![],
        changes: vec![],
    };
    let mut in_catalog = append("one", [1]);
    in_catalog.stream = StreamName::catalog();
    let mut huge = append("one", [1]);
    huge.records[0].payload = vec![0; 5_000_000].into();
    let beyond = change(advance("reader", "one", 1));
    let nowhere = change(advance("reader", "three", 0));
    for bad in [
        empty,
        in_catalog,
        huge,
        append("three", [1]),
        beyond,
        nowhere,
    ] {
        let error = log.append(bad).await.unwrap_err();
        assert_eq!(error.class(), Class::Reject, "{error}");
    }
    assert_eq!(
        log.append(append("one", [1])).await.unwrap().first,
        Offset(0)
    );
}

#[test]
fn names_are_checked() {
    for good in ["a", "telemetry", "_node", "a-b_9"] {
        assert_eq!(StreamName::new(good).unwrap().as_str(), good);
    }
    for bad in ["", "A", "a/b", "..", &"x".repeat(65)] {
        assert!(StreamName::new(bad).is_err());
    }
}

#[test]
fn a_data_directory_may_be_a_bare_name() {
    let here = tempfile::tempdir_in(".").unwrap();
    let name = Path::new(here.path().file_name().unwrap());
    std::fs::remove_dir(name).unwrap();
    Log::open(options(name)).unwrap();
    assert!(name.join("epoch").exists());
}
