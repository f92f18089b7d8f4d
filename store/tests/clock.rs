//! The wall clock jumps, as it does when a box without a battery learns the time: order, reading
//! and retention go by offsets and never by it.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics is a test that fails"
)]

mod common;

use common::rng::Rng;
use common::*;
use skerry_store::{Append, Gap, Log, Offset, Options, Record, WallNanos, WhenFull};
use std::path::Path;

const DAY: i64 = 24 * 3_600 * 1_000_000_000;

/// Ten years back, ten years on, before 1970, as far as numbers go, and small steps.
fn jump(now: i64, rng: &mut Rng) -> i64 {
    match rng.below(7) {
        0 => now.saturating_sub(3_650 * DAY),
        1 => now.saturating_add(3_650 * DAY),
        2 => -5,
        3 => i64::MAX,
        4 => i64::MIN,
        5 => 1_700_000_000_000_000_000,
        _ => now.saturating_sub(1),
    }
}

fn at(number: u64, time: i64, rng: &mut Rng) -> Record {
    let mut record = record(number);
    record.ingest_time = WallNanos(time);
    record.source_time = rng.one_in(2).then_some(WallNanos(jump(time, rng)));
    record
}

/// Appends records one by one at times that jump; returns where each of them is.
async fn filled(log: &Log, numbers: std::ops::Range<u64>, rng: &mut Rng) -> Vec<(Offset, Record)> {
    let (mut now, mut written) = (0, Vec::new());
    for number in numbers {
        now = jump(now, rng);
        let record = at(number, now, rng);
        let append = Append {
            records: vec![record.clone()],
            ..append("one", [])
        };
        let committed = log.append(append).await.unwrap();
        written.push((committed.first, record));
        assert_eq!(committed.next, committed.first.plus(1));
    }
    written
}

fn read(log: &Log, from: u64) -> Vec<(Offset, Record)> {
    let mut reader = log.reader(&name("one"), Offset(from)).unwrap();
    let mut found = Vec::new();
    loop {
        let batch = reader.next(1 << 20).unwrap();
        if batch.is_empty() {
            return found;
        }
        assert_eq!(batch.missing, None);
        found.extend(batch.records);
    }
}

#[tokio::test]
async fn offsets_and_reading_do_not_go_by_the_clock() {
    let directory = tempfile::tempdir().unwrap();
    let mut rng = Rng::new(1);
    let (log, _) = Log::open(options(directory.path())).unwrap();
    let mut written = filled(&log, 0..150, &mut rng).await;
    log.close().await.unwrap();
    // A box that was off, and whose clock starts from nothing again.
    let (log, recovery) = Log::open(options(directory.path())).unwrap();
    assert!(recovery.clean_stop && recovery.records_missing == 0);
    written.extend(filled(&log, 150..300, &mut rng).await);
    assert!(segments(directory.path(), "one").len() > 3);
    for from in [0, 1, 77, 149, 150, 299] {
        assert_eq!(written[from].0, Offset(from as u64));
        assert!(read(&log, from as u64) == written[from..]);
    }
    // And the same of what a crash would leave.
    let copied = tempfile::tempdir().unwrap();
    copy(directory.path(), copied.path());
    let (log, _) = Log::open(options(copied.path())).unwrap();
    assert_eq!(read(&log, 0).len(), written.len());
}

fn dropping(directory: &Path) -> Options {
    let mut options = options(directory);
    options.segment_bytes = 900;
    options.streams[0].bytes_max = 6_000;
    options.streams[0].when_full = WhenFull::DropOldest;
    options
}

#[tokio::test]
async fn the_oldest_to_go_is_the_one_written_first() {
    let directory = tempfile::tempdir().unwrap();
    let mut rng = Rng::new(2);
    let (log, _) = Log::open(dropping(directory.path())).unwrap();
    let written = filled(&log, 0..300, &mut rng).await;
    let head = log.head(&name("one")).unwrap().borrow().0;
    let tail = log.tail(&name("one")).unwrap().0;
    assert!(tail > 0);
    let held = read(&log, tail);
    assert_eq!(
        held.len() as u64,
        head - tail,
        "nothing is missing in between"
    );
    let (told, kept): (Vec<_>, Vec<_>) = held
        .into_iter()
        .partition(|(_, record)| record.kind == skerry_store::Kind::Gap);
    // What is kept is the end of what was written, whatever its times say.
    let (lost, rest) = written.split_at(written.len() - kept.len());
    assert_eq!(kept, rest);
    let gaps = told
        .iter()
        .map(|(_, record)| serde_json::from_slice(&record.payload));
    let gaps: Vec<Gap> = gaps.map(Result::unwrap).collect();
    assert_eq!(gaps.iter().filter_map(|gap| gap.count).sum::<u64>(), tail);
    for (offset, record) in lost {
        let time = Some(record.event_time());
        let told = gaps.iter().any(|gap| {
            let (first, next) = gap.offsets.unwrap();
            (first..next).contains(offset) && gap.from <= time && time <= gap.to
        });
        assert!(told, "{record:?} at {offset}");
    }
}
