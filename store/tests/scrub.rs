//! A scrub finds the damage there is, has it noted, and leaves nothing for the next one.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics is a test that fails"
)]

mod common;

use common::*;
use skerry_store::{Gap, Log, Offset, Outcome, Scrub, StreamOptions, inspect};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Some segments in stream `one`, a record in each frame, by a process that ended in order.
async fn filled(directory: &Path) -> Vec<PathBuf> {
    let (log, _) = Log::open(options(directory)).unwrap();
    for number in 0..100 {
        log.append(append("one", [number])).await.unwrap();
    }
    log.close().await.unwrap();
    let segments = segments(directory, "one");
    assert!(segments.len() >= 4, "{segments:?}");
    segments
}

fn flip(file: &Path, at: u64) {
    let mut byte = [0];
    let file = std::fs::File::options().read(true).write(true).open(file);
    let file = file.unwrap();
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

/// Where the frames of a segment begin, and the offset of the record in each.
fn frames(file: &Path) -> Vec<(u64, u64)> {
    let bytes = std::fs::read(file).unwrap();
    let (mut at, mut found) = (256, Vec::new());
    while let Some(header) = bytes.get(at..at + 64).filter(|h| h[..2] == [0xF5, b'S']) {
        let payload = u32::from_le_bytes(header[4..8].try_into().unwrap());
        let base = u64::from_le_bytes(header[16..24].try_into().unwrap());
        found.push((at as u64, base));
        at += 64 + payload as usize;
    }
    found
}

/// What the gap records of stream `one` tell.
fn told(log: &Log) -> Ranges {
    let (records, _) = read_all(log, "one");
    let gaps = records
        .iter()
        .filter_map(|(_, payload)| serde_json::from_str::<Gap>(payload).ok());
    let mut told: Ranges = gaps
        .map(|gap| gap.offsets.unwrap())
        .map(|(first, next)| (first.0, next.0))
        .collect();
    told.sort_unstable();
    told
}

fn lost(scrub: &Scrub) -> Ranges {
    let places = scrub.places.iter();
    let mut lost: Ranges = places
        .filter_map(|place| place.missing)
        .map(|(first, next)| (first.0, next.0))
        .collect();
    lost.sort_unstable();
    lost
}

fn open_faults(directory: &Path) -> usize {
    inspect::verify(directory, None)
        .unwrap()
        .open_faults()
        .count()
}

#[tokio::test]
async fn a_sound_log_is_read_in_full_and_left_as_it_is() {
    let directory = scratch();
    filled(directory.path()).await;
    let (log, _) = Log::open(options(directory.path())).unwrap();
    let scrub = log.scrub().await.unwrap();
    assert_eq!(scrub.records, 100);
    assert_eq!(scrub.places, []);
    assert_eq!(log.head(&name("one")).unwrap().borrow().0, 100);
    assert!(!directory.path().join("quarantine").exists());
}

#[tokio::test]
async fn the_damage_there_is_is_noted_and_none_of_it_twice() {
    let directory = scratch();
    let files = filled(directory.path()).await;
    let (old, later) = (frames(&files[0]), frames(&files[2]));
    // A payload, two headers in a row, and the end of a segment that others follow.
    flip(&files[0], old[2].0 + 70);
    flip(&files[2], later[1].0);
    flip(&files[2], later[2].0 + 9);
    let end = frames(&files[1]).pop().unwrap();
    let file = std::fs::File::options().write(true).open(&files[1]);
    file.unwrap().set_len(end.0 + 30).unwrap();
    let expected = [
        (old[2].1, old[2].1 + 1),
        (end.1, end.1 + 1),
        (later[1].1, later[2].1 + 1),
    ];
    assert_eq!(open_faults(directory.path()), 3);

    let (log, recovery) = Log::open(options(directory.path())).unwrap();
    assert_eq!(recovery.quarantined_frames, 0);
    let scrub = log.scrub().await.unwrap();
    assert_eq!(lost(&scrub), expected);
    assert_eq!(scrub.count(Outcome::Noted), 3, "{scrub:?}");
    assert_eq!(told(&log), expected);
    for place in &scrub.places {
        let kept = std::fs::read(place.quarantine.as_ref().unwrap()).unwrap();
        let file = std::fs::read(&place.file).unwrap();
        let from = place.position as usize;
        assert_eq!(kept, file[from..from + place.bytes as usize]);
    }
    assert_eq!(open_faults(directory.path()), 0);

    let head = log.head(&name("one")).unwrap().borrow().0;
    let again = log.scrub().await.unwrap();
    assert_eq!(again.count(Outcome::KnownBefore), 3, "{again:?}");
    assert_eq!(log.head(&name("one")).unwrap().borrow().0, head);
    log.close().await.unwrap();
    let (log, _) = Log::open(options(directory.path())).unwrap();
    let again = log.scrub().await.unwrap();
    assert_eq!(again.count(Outcome::KnownBefore), 3, "{again:?}");
    assert_eq!(told(&log), expected);
}

#[tokio::test]
async fn damage_beside_noted_damage_is_noted_too() {
    let directory = scratch();
    let files = filled(directory.path()).await;
    let frames = frames(&files[1]);
    let (log, _) = Log::open(options(directory.path())).unwrap();
    let mut expected = Vec::new();
    for frame in [2, 3, 1, 6] {
        flip(&files[1], frames[frame].0 + 70);
        log.scrub().await.unwrap();
        let offset = frames[frame].1;
        expected.push((offset, offset + 1));
        expected.sort_unstable();
        assert_eq!(told(&log), expected);
    }
    assert_eq!(open_faults(directory.path()), 0);
}

#[tokio::test]
async fn a_segment_that_is_gone_is_noted_as_lost() {
    let directory = scratch();
    let files = filled(directory.path()).await;
    let (first, next) = (frames(&files[1])[0].1, frames(&files[2])[0].1);
    std::fs::remove_file(&files[1]).unwrap();
    let (log, _) = Log::open(options(directory.path())).unwrap();
    let scrub = log.scrub().await.unwrap();
    assert_eq!(lost(&scrub), [(first, next)]);
    assert_eq!(scrub.count(Outcome::Noted), 1);
    assert_eq!(told(&log), [(first, next)]);
    assert_eq!(open_faults(directory.path()), 0);
    assert_eq!(log.scrub().await.unwrap().count(Outcome::KnownBefore), 1);
}

#[tokio::test]
async fn a_reader_that_meets_a_missing_segment_has_it_noted() {
    let directory = scratch();
    let files = filled(directory.path()).await;
    let expected = (frames(&files[1])[0].1, frames(&files[2])[0].1);
    std::fs::remove_file(&files[1]).unwrap();
    let (log, _) = Log::open(options(directory.path())).unwrap();
    assert_eq!(read_all(&log, "one").1, [expected]);
    log.append(append("two", [0])).await.unwrap();
    assert_eq!(told(&log), [expected]);
}

#[tokio::test]
async fn a_damaged_journal_is_written_anew() {
    let directory = scratch();
    let (log, _) = Log::open(options(directory.path())).unwrap();
    for number in 0..20 {
        let change = change(put(&format!("key/{number}"), "value"));
        log.append(change).await.unwrap();
    }
    let journal = segments(directory.path(), "_catalog").pop().unwrap();
    flip(&journal, frames(&journal)[3].0 + 70);
    assert_eq!(open_faults(directory.path()), 1);

    let scrub = log.scrub().await.unwrap();
    assert_eq!(scrub.count(Outcome::Replaced), 1, "{scrub:?}");
    assert!(scrub.places[0].quarantine.is_some());
    assert!(!journal.exists());
    assert!(inspect::verify(directory.path(), None).unwrap().is_sound());
    assert_eq!(log.scrub().await.unwrap().places, []);
    drop(log);
    std::fs::remove_dir_all(directory.path().join("catalog")).unwrap();
    let (log, _) = Log::open(options(directory.path())).unwrap();
    for number in 0..20 {
        let value = log.get("test", format!("key/{number}").as_bytes());
        assert_eq!(value.unwrap().unwrap(), "value");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn beside_writers_and_retention_nothing_is_invented() {
    let directory = scratch();
    let mut options = options(directory.path());
    options.streams.push(StreamOptions {
        readers: vec!["reader".to_owned()],
        ..StreamOptions::new(name("short"), 10_000)
    });
    let (log, _) = Log::open(options).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (writer, stopped) = (log.clone(), Arc::clone(&stop));
    let writer = tokio::spawn(async move {
        let mut number = 0;
        while !stopped.load(Ordering::Relaxed) {
            writer.append(append("one", [number])).await.unwrap();
            let five = append("short", 5 * number..5 * number + 5);
            writer.append(five).await.unwrap();
            number += 1;
            let confirm = change(advance("reader", "short", 5 * number));
            writer.append(confirm).await.unwrap();
        }
        number
    });
    let (short, mut rounds) = (name("short"), 0);
    while rounds < 30 || log.tail(&short).unwrap() < Offset(1_000) {
        rounds += 1;
        assert_eq!(log.scrub().await.unwrap().places, []);
        let seen = inspect::verify(directory.path(), None).unwrap();
        assert_eq!(seen.open_faults().next(), None);
        let figures = inspect::figures(directory.path(), &short, None).unwrap();
        assert_eq!((figures.gaps, figures.faults), (vec![], vec![]));
        let records = inspect::records(directory.path(), &short, Offset::ZERO, None);
        let mut records = records.unwrap();
        for record in records.by_ref() {
            record.unwrap();
        }
        assert_eq!(records.take_faults(), []);
        let account = records.account();
        let sum = account.records + account.retired;
        assert_eq!((sum, account.lost), (account.next.0, 0), "{account:?}");
    }
    stop.store(true, Ordering::Relaxed);
    let written = writer.await.unwrap();
    assert_eq!(read_all(&log, "one").0.len() as u64, written);
}

#[tokio::test]
async fn a_scrub_that_nobody_waits_for_ends() {
    let directory = scratch();
    filled(directory.path()).await;
    let (log, _) = Log::open(options(directory.path())).unwrap();
    for micros in [0, 300, 1_000, 3_000] {
        // Given up on at some point of its work, or at its end.
        let patience = std::time::Duration::from_micros(micros);
        let _ = tokio::time::timeout(patience, log.scrub()).await;
    }
    log.close().await.unwrap();
    let (log, _) = Log::open(options(directory.path())).unwrap();
    assert_eq!(log.scrub().await.unwrap().places, []);
    let closed = log.clone();
    log.close().await.unwrap();
    assert!(closed.scrub().await.is_err());
}
