//! Looking at a log from outside: an account of each offset, and what a stream amounts to.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics is a test that fails"
)]

mod common;

use common::*;
use skerry_store::inspect::{self, Account, GapFigures, Times};
use skerry_store::{Append, Gap, Kind, Log, Offset, Record, StreamOptions, WallNanos, WhenFull};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// One record in each frame, at 10, 20, 30 ns and so on.
async fn filled(directory: &Path, records: u64) {
    let (log, _) = Log::open(options(directory)).unwrap();
    for number in 0..records {
        let mut append = append("one", [number]);
        append.records[0].source_time = Some(WallNanos(10 * number.cast_signed()));
        log.append(append).await.unwrap();
    }
    log.close().await.unwrap();
}

/// Everything from `from` on, and what the account says of it.
fn read(directory: &Path, from: u64, times: Times) -> (Vec<u64>, Account, Vec<inspect::Fault>) {
    let records = inspect::records(directory, &name("one"), Offset(from), None).unwrap();
    let mut records = records.within(times);
    let found = records.by_ref().map(|entry| entry.unwrap().0.0).collect();
    (found, records.account(), records.take_faults())
}

fn account(first: u64, next: u64, numbers: [u64; 4]) -> Account {
    let [records, outside, retired, lost] = numbers;
    Account {
        first: Offset(first),
        next: Offset(next),
        records,
        outside,
        retired,
        lost,
    }
}

#[tokio::test]
async fn records_of_the_times_asked_for_are_handed_out_and_the_others_counted() {
    let directory = scratch();
    filled(directory.path(), 100).await;
    let times = |since, until| Times {
        since: Some(WallNanos(since)),
        until: Some(WallNanos(until)),
    };
    let (found, sums, _) = read(directory.path(), 0, Times::default());
    assert_eq!(found, Vec::from_iter(0..100));
    assert_eq!(sums, account(0, 100, [100, 0, 0, 0]));
    let (found, sums, _) = read(directory.path(), 5, times(100, 200));
    assert_eq!(found, Vec::from_iter(10..20));
    assert_eq!(sums, account(5, 100, [10, 85, 0, 0]));
    let (found, ..) = read(directory.path(), 0, times(95, 101));
    assert_eq!(found, [10]);
    let (found, sums, _) = read(directory.path(), 300, Times::default());
    assert!(found.is_empty());
    assert_eq!(sums, account(300, 300, [0, 0, 0, 0]));
}

/// Times are looked at record by record where only some of a frame are meant.
#[tokio::test]
async fn a_frame_with_some_of_the_times_is_told_apart() {
    let directory = scratch();
    let (log, _) = Log::open(options(directory.path())).unwrap();
    let mut append = append("one", 0..6);
    for (record, time) in append.records.iter_mut().zip([50, 10, 90, 60, 20, 55]) {
        record.source_time = Some(WallNanos(time));
    }
    log.append(append).await.unwrap();
    let times = Times {
        since: Some(WallNanos(50)),
        until: Some(WallNanos(90)),
    };
    let (found, sums, _) = read(directory.path(), 0, times);
    assert_eq!(found, [0, 3, 5]);
    assert_eq!(sums, account(0, 6, [3, 3, 0, 0]));
    let records = inspect::records(directory.path(), &name("one"), Offset(1), None).unwrap();
    let mut records = records.within(times);
    assert_eq!(records.next().unwrap().unwrap().0, Offset(3));
    // As far as it was read, and no further.
    assert_eq!(records.account(), account(1, 4, [1, 2, 0, 0]));
}

#[tokio::test]
async fn what_is_damaged_is_named_and_counted() {
    let directory = scratch();
    filled(directory.path(), 100).await;
    let files = segments(directory.path(), "one");
    let bytes = std::fs::read(&files[1]).unwrap();
    let base = u64::from_le_bytes(bytes[272..280].try_into().unwrap());
    let second = 320 + u64::from(u32::from_le_bytes(bytes[260..264].try_into().unwrap()));
    let file = std::fs::File::options()
        .write(true)
        .open(&files[1])
        .unwrap();
    // The first frame's payload, and the header of the one after it.
    file.write_all_at(&[bytes[330] ^ 1], 330).unwrap();
    file.write_all_at(&[bytes[second as usize] ^ 1], second)
        .unwrap();
    std::fs::remove_file(&files[2]).unwrap();
    let next = bytes_at(&files[3], 272);

    let (found, sums, faults) = read(directory.path(), 0, Times::default());
    let missing: Vec<_> = faults.iter().map(|fault| fault.missing.unwrap()).collect();
    assert_eq!(missing.len(), 3, "{faults:?}");
    let (gone, _) = missing[2];
    assert_eq!(
        missing,
        [
            (Offset(base), Offset(base + 1)),
            (Offset(base + 1), Offset(base + 2)),
            (gone, Offset(next))
        ]
    );
    let lost = 2 + next - gone.0;
    assert_eq!(sums, account(0, 100, [100 - lost, 0, 0, lost]));
    assert_eq!(found.len() as u64, 100 - lost);
    assert_eq!((faults[0].position, &faults[0].file), (256, &files[1]));
    assert_eq!((faults[1].position, &faults[1].file), (second, &files[1]));
    let verified = inspect::verify(directory.path(), None).unwrap();
    let verified: Vec<_> = verified.open_faults().map(|f| f.missing.unwrap()).collect();
    // One place: it looks at payloads before it says where frames go on.
    let together = (Offset(base), Offset(base + 2));
    assert_eq!(verified, [together, (gone, Offset(next))]);
    // Damage before the first offset asked for is none of this reading's.
    let (_, sums, faults) = read(directory.path(), next, Times::default());
    assert_eq!(faults, []);
    assert_eq!(sums, account(next, 100, [100 - next, 0, 0, 0]));
}

fn bytes_at(file: &Path, at: usize) -> u64 {
    let bytes = std::fs::read(file).unwrap();
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

#[tokio::test]
async fn a_stream_is_added_up() {
    let directory = scratch();
    let mut options = options(directory.path());
    options.streams = vec![StreamOptions {
        when_full: WhenFull::DropOldest,
        ..StreamOptions::new(name("one"), 20_000)
    }];
    let (log, _) = Log::open(options).unwrap();
    for number in 0..50_u64 {
        let mut records = vec![Record::new(Kind::Mqtt, "often", "x".repeat(100))];
        if number % 5 == 0 {
            records.push(Record::new(Kind::Score, "seldom", "{}"));
        }
        records[0].source_time = Some(WallNanos(1_000 - number.cast_signed()));
        let append = Append {
            stream: name("one"),
            records,
            changes: Vec::new(),
        };
        log.append(append).await.unwrap();
    }
    let gap = |reason: &str, count| Gap {
        subject: "plc".to_owned(),
        offsets: None,
        from: None,
        to: None,
        count,
        reason: reason.to_owned(),
    };
    let gaps = [
        gap("cable", Some(7)),
        gap("cable", Some(3)),
        gap("power", None),
    ];
    let append = Append {
        stream: name("one"),
        records: gaps.map(Gap::into_record).into(),
        changes: Vec::new(),
    };
    log.append(append).await.unwrap();

    let figures = inspect::figures(directory.path(), &name("one"), None).unwrap();
    assert_eq!((figures.records, figures.frames), (63, 51));
    let kinds: Vec<_> = figures.kinds.into_iter().collect();
    assert_eq!(kinds, [("gap", 3), ("mqtt", 50), ("score", 10)]);
    let sources: Vec<_> = figures
        .top_sources
        .iter()
        .map(|found| (found.source.as_str(), found.records))
        .collect();
    assert_eq!(sources, [("often", 50), ("seldom", 10), ("plc", 3)]);
    assert_eq!(figures.top_sources_short_by, 0);
    assert_eq!(figures.first_time, Some(WallNanos(951)));
    assert!(figures.last_time > Some(WallNanos(1_000)));
    let told = |reason: &str, records, values, uncounted| GapFigures {
        reason: reason.to_owned(),
        records,
        values,
        uncounted,
    };
    assert_eq!(
        figures.gaps,
        [told("cable", 2, 10, 0), told("power", 1, 0, 1)]
    );
    assert!(figures.payload_bytes < figures.body_bytes);
    assert!(figures.summary.bytes > figures.payload_bytes + 51 * 64);
    assert_eq!(figures.summary.head, Offset(63));
    assert_eq!(figures.faults, []);
    assert!(inspect::figures(directory.path(), &name("none"), None).is_err());
}
