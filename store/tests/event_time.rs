//! Reading from a time: the first record at or after it, whatever the clocks did.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics is a test that fails"
)]

mod common;

use common::*;
use proptest::prelude::*;
use skerry_store::{Append, Log, Offset, Record, StreamOptions, WallNanos, inspect};
use std::os::unix::fs::FileExt;
use std::path::Path;

fn at(time: i64) -> Record {
    let mut record = record(0);
    // Frames are to have some size, and segments to be left for others.
    record.payload = noise(time.unsigned_abs(), 60).into();
    record.source_time = Some(WallNanos(time));
    record
}

async fn write(log: &Log, times: &[i64]) {
    let append = Append {
        stream: name("one"),
        records: times.iter().copied().map(at).collect(),
        changes: Vec::new(),
    };
    log.append(append).await.unwrap();
}

/// Reads from the tail on, and looks at each record.
fn naive(log: &Log, time: i64) -> Offset {
    let tail = log.tail(&name("one")).unwrap();
    let mut reader = log.reader(&name("one"), tail).unwrap();
    loop {
        let batch = reader.next(1_000).unwrap();
        if batch.is_empty() {
            return reader.position();
        }
        let mut records = batch.records.into_iter();
        if let Some((offset, _)) = records.find(|(_, record)| record.event_time().0 >= time) {
            return offset;
        }
    }
}

fn asked(log: &Log, time: i64) -> Offset {
    log.offset_at(&name("one"), WallNanos(time)).unwrap()
}

fn asked_from_outside(directory: &Path, time: i64) -> Offset {
    inspect::offset_at(directory, &name("one"), WallNanos(time), None).unwrap()
}

/// A stream that keeps little once it is confirmed.
fn open(directory: &Path) -> Log {
    let mut options = options(directory);
    options.streams = vec![StreamOptions {
        readers: vec!["reader".to_owned()],
        ..StreamOptions::new(name("one"), 6_000)
    }];
    options.segment_bytes = 1_000;
    Log::open(options).unwrap().0
}

/// Times near one another, and now and then one from a clock that is years off.
fn times() -> impl Strategy<Value = Vec<Vec<i64>>> {
    let time = prop_oneof![
        9 => 0..200_i64,
        1 => prop_oneof![Just(i64::MIN), Just(-1_000_000), Just(1_000_000), Just(i64::MAX)],
    ];
    prop::collection::vec(prop::collection::vec(time, 1..6), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_first_record_from_a_time_on_is_found(
        appends in times(),
        questions in prop::collection::vec(-50..250_i64, 6),
        reopen: bool,
    ) {
        let directory = scratch();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut log = open(directory.path());
            for (number, times) in appends.iter().enumerate() {
                write(&log, times).await;
                // What was confirmed makes room for what comes.
                let head = log.head(&name("one")).unwrap().borrow().0;
                log.append(change(advance("reader", "one", head))).await.unwrap();
                if reopen && number == appends.len() / 2 {
                    log.close().await.unwrap();
                    log = open(directory.path());
                }
                // What is kept in memory of the segments has to follow.
                let time = questions[number % questions.len()];
                prop_assert_eq!(asked(&log, time), naive(&log, time));
            }
            for time in questions.into_iter().chain([i64::MIN, i64::MAX]) {
                let expected = naive(&log, time);
                prop_assert_eq!(asked(&log, time), expected);
                prop_assert_eq!(asked_from_outside(directory.path(), time), expected);
            }
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn the_retired_are_not_found_and_the_head_stands_for_none() {
    let directory = scratch();
    let log = open(directory.path());
    for time in 0..200 {
        write(&log, &[time]).await;
        let head = log.head(&name("one")).unwrap().borrow().0;
        let confirm = change(advance("reader", "one", head));
        log.append(confirm).await.unwrap();
    }
    let tail = log.tail(&name("one")).unwrap();
    assert!(tail > Offset(100), "{tail}");
    assert_eq!(asked(&log, 0), tail);
    assert_eq!(asked(&log, 199), Offset(199));
    assert_eq!(asked(&log, 200), Offset(200));
    assert_eq!(asked_from_outside(directory.path(), 200), Offset(200));
    write(&log, &[500]).await;
    assert_eq!(asked(&log, 200), Offset(200));
    assert!(log.offset_at(&name("none"), WallNanos(0)).is_err());
    assert!(inspect::offset_at(directory.path(), &name("none"), WallNanos(0), None).is_err());
}

#[tokio::test]
async fn what_does_not_read_is_passed_over() {
    let directory = scratch();
    let log = open(directory.path());
    for time in [10, 20, 30] {
        write(&log, &[time]).await;
    }
    let segment = segments(directory.path(), "one").pop().unwrap();
    let bytes = std::fs::read(&segment).unwrap();
    let payload = u32::from_le_bytes(bytes[260..264].try_into().unwrap());
    // In the second frame's payload: its header reads, and promises what is not there.
    let inside = 256 + 64 + u64::from(payload) + 64 + 20;
    let file = std::fs::File::options().write(true).open(&segment).unwrap();
    file.write_all_at(&[bytes[inside as usize] ^ 1], inside)
        .unwrap();
    assert_eq!(asked(&log, 15), Offset(2));
    assert_eq!(asked_from_outside(directory.path(), 15), Offset(2));
    assert_eq!(asked(&log, 5), Offset(0));
}
