//! Opening what a crash, a bad disk or an older version left behind.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics is a test that fails"
)]

mod common;

use common::*;
use skerry_store::{Codec, Gap, Log, Offset, Options, StreamOptions, WhenFull, inspect};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

async fn filled(directory: &Path, records: u64) -> PathBuf {
    let (log, _) = Log::open(options(directory)).unwrap();
    for number in 0..records {
        log.append(append("one", [number])).await.unwrap();
    }
    log.close().await.unwrap();
    segments(directory, "one").pop().unwrap()
}

fn flip(file: &Path, at: u64) {
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(file)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

fn gaps(records: &[(u64, String)]) -> Vec<Gap> {
    let parsed = records
        .iter()
        .map(|(_, payload)| serde_json::from_str(payload));
    parsed.filter_map(Result::ok).collect()
}

#[tokio::test]
async fn a_torn_end_is_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let newest = filled(directory.path(), 5).await;
    let whole = std::fs::metadata(&newest).unwrap().len();
    let mut file = std::fs::File::options().append(true).open(&newest).unwrap();
    file.write_all(&[0xF5, b'S', b'K', 0x0A, 1, 2, 3]).unwrap();
    drop(file);
    let (log, recovery) = Log::open(options(directory.path())).unwrap();
    assert_eq!(recovery.torn_bytes, 7);
    assert_eq!(std::fs::metadata(&newest).unwrap().len(), whole);
    assert_eq!(read_all(&log, "one").0.len(), 5);
}

#[tokio::test]
async fn zeros_at_the_end_are_room_and_not_damage() {
    let directory = tempfile::tempdir().unwrap();
    let newest = filled(directory.path(), 5).await;
    let whole = std::fs::metadata(&newest).unwrap().len();
    let file = std::fs::File::options().write(true).open(&newest).unwrap();
    file.set_len(whole + 100_000).unwrap();
    assert!(inspect::verify(directory.path(), None).unwrap().is_sound());
    let (log, recovery) = Log::open(options(directory.path())).unwrap();
    assert_eq!(recovery.torn_bytes, 0);
    assert_eq!(read_all(&log, "one").0.len(), 5);
}

#[tokio::test]
async fn damage_in_the_newest_segment_is_noted_once() {
    let directory = tempfile::tempdir().unwrap();
    let newest = filled(directory.path(), 5).await;
    // The second frame's header: the first is 64 bytes and a small payload long.
    flip(&newest, 256 + 64 + 40);
    let report = inspect::verify(directory.path(), None).unwrap();
    assert_eq!(report.faults.len(), 1);
    let lost = report.faults[0].missing.unwrap();

    let (log, recovery) = Log::open(options(directory.path())).unwrap();
    assert_eq!(
        (recovery.quarantined_frames, recovery.records_missing),
        (1, 1)
    );
    let (records, missing) = read_all(&log, "one");
    assert_eq!(missing, [(lost.0.0, lost.1.0)]);
    let noted = gaps(&records);
    assert_eq!(noted.len(), 1);
    assert_eq!(noted[0].offsets, Some(lost));
    let kept = std::fs::read_dir(directory.path().join("quarantine")).unwrap();
    assert_eq!(kept.count(), 1);
    drop(log);

    let (log, recovery) = Log::open(options(directory.path())).unwrap();
    assert_eq!(recovery.quarantined_frames, 0);
    assert_eq!(gaps(&read_all(&log, "one").0).len(), 1);
}

#[tokio::test]
async fn damage_in_an_old_segment_is_noted_when_a_reader_meets_it() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path(), 100).await;
    let files = segments(directory.path(), "one");
    assert!(files.len() > 3);
    flip(&files[1], 256 + 70);
    let (log, recovery) = Log::open(options(directory.path())).unwrap();
    assert_eq!(recovery.quarantined_frames, 0);
    let (records, missing) = read_all(&log, "one");
    assert_eq!((records.len(), missing.len()), (99, 1));
    log.append(append("two", [1])).await.unwrap();
    let noted = gaps(&read_all(&log, "one").0);
    assert_eq!(noted.len(), 1);
    let (first, next) = noted[0].offsets.unwrap();
    assert_eq!((first.0, next.0), missing[0]);
}

#[tokio::test]
async fn a_lost_end_that_is_remembered_is_a_gap_and_no_offset_is_used_twice() {
    let directory = tempfile::tempdir().unwrap();
    let newest = filled(directory.path(), 5).await;
    let file = std::fs::File::options().write(true).open(&newest).unwrap();
    file.set_len(256 + 10).unwrap();
    let (log, recovery) = Log::open(options(directory.path())).unwrap();
    assert_eq!(recovery.records_missing, 5);
    assert_eq!(
        log.append(append("one", [5])).await.unwrap().first,
        Offset(6)
    );
    let (records, missing) = read_all(&log, "one");
    assert_eq!(missing, [(0, 5)]);
    assert_eq!(gaps(&records)[0].offsets, Some((Offset(0), Offset(5))));
}

#[tokio::test]
async fn a_catalog_that_does_not_open_is_rebuilt() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(options(directory.path())).unwrap();
    log.append(change(put("key", "value"))).await.unwrap();
    log.close().await.unwrap();
    let database = directory.path().join("catalog").join("db");
    let length = std::fs::metadata(&database).unwrap().len() as usize;
    std::fs::write(&database, vec![0xA5; length]).unwrap();
    let (log, recovery) = Log::open(options(directory.path())).unwrap();
    assert!(recovery.catalog_rebuilt);
    assert_eq!(log.get("test", b"key").unwrap().unwrap(), "value");
}

#[tokio::test]
async fn another_directorys_catalog_tells_nothing_of_this_one() {
    let here = tempfile::tempdir().unwrap();
    let there = tempfile::tempdir().unwrap();
    for (directory, records) in [(here.path(), 2), (there.path(), 9)] {
        let (log, _) = Log::open(options(directory)).unwrap();
        let mut filled = append("one", 0..records);
        filled.changes = vec![put("records", records.to_string())];
        log.append(filled).await.unwrap();
        log.close().await.unwrap();
    }
    std::fs::remove_dir_all(here.path().join("catalog")).unwrap();
    copy(&there.path().join("catalog"), &here.path().join("catalog"));
    let (log, recovery) = Log::open(options(here.path())).unwrap();
    assert!(recovery.catalog_rebuilt);
    assert_eq!(recovery.records_missing, 0);
    assert_eq!(log.get("test", b"records").unwrap().unwrap(), "2");
    assert_eq!(*log.head(&name("one")).unwrap().borrow(), Offset(2));
}

/// Loses all that an orderly stop leaves besides segments and the catalog.
fn forget_clean_stop(directory: &Path) {
    std::fs::remove_file(directory.join("clean-stop.json")).unwrap();
}

fn cut(file: &Path, length: u64) {
    let file = std::fs::File::options().write(true).open(file).unwrap();
    file.set_len(length).unwrap();
}

/// Opens the log with its catalog, and again without: both must know the same.
fn with_and_without_catalog(directory: &Path, check: impl Fn(&Log)) {
    let (log, _) = Log::open(options(directory)).unwrap();
    check(&log);
    drop(log);
    std::fs::remove_dir_all(directory.join("catalog")).unwrap();
    let (log, recovery) = Log::open(options(directory)).unwrap();
    assert!(recovery.catalog_rebuilt);
    check(&log);
}

#[tokio::test]
async fn changes_are_lost_with_their_records_though_another_stream_went_on() {
    // In the middle of the frame, at its start, and before the segment's header ends.
    for length in [300, 256, 83] {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let (log, _) = Log::open(options(directory)).unwrap();
        let mut lost = append("one", 0..5);
        lost.changes = vec![advance("reader", "two", 0), put("key", "value")];
        log.append(lost).await.unwrap();
        log.append(append("two", [5])).await.unwrap();
        log.append(change(put("later", "value"))).await.unwrap();
        log.close().await.unwrap();
        forget_clean_stop(directory);
        cut(&segments(directory, "one").pop().unwrap(), length);
        with_and_without_catalog(directory, |log| {
            assert_eq!(log.cursor("reader", &name("two")).unwrap(), None);
            assert_eq!(log.get("test", b"key").unwrap(), None);
            assert_eq!(log.get("test", b"later").unwrap().unwrap(), "value");
            let (records, missing) = read_all(log, "one");
            assert_eq!(missing, [(0, 5)]);
            assert_eq!(gaps(&records).len(), 1);
        });
    }
}

#[tokio::test]
async fn changes_that_the_journal_lost_are_journalled_anew() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let (log, _) = Log::open(options(directory)).unwrap();
    log.append(change(put("key", "value"))).await.unwrap();
    log.append(append("one", [0])).await.unwrap();
    log.close().await.unwrap();
    forget_clean_stop(directory);
    cut(&segments(directory, "_catalog").pop().unwrap(), 256);
    with_and_without_catalog(directory, |log| {
        assert_eq!(log.get("test", b"key").unwrap().unwrap(), "value");
    });
}

#[tokio::test]
async fn damage_in_an_old_segment_of_the_journal_costs_no_change() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    for key in ["old", "new"] {
        let (log, _) = Log::open(options(directory)).unwrap();
        log.append(change(put(key, "value"))).await.unwrap();
        log.close().await.unwrap();
    }
    flip(&segments(directory, "_catalog")[0], 256 + 70);
    with_and_without_catalog(directory, |log| {
        for key in ["old", "new"] {
            assert_eq!(log.get("test", key.as_bytes()).unwrap().unwrap(), "value");
        }
    });
}

/// Two segments of one name would be one file, and go together when the first is removed.
#[tokio::test]
async fn a_segment_that_lost_all_its_frames_keeps_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let options = || {
        let mut options = options(directory);
        options.streams[0].bytes_max = 8_000;
        options.streams[0].when_full = WhenFull::DropOldest;
        options
    };
    for lifes in 0..2 {
        let (log, _) = Log::open(options()).unwrap();
        log.append(append("one", [lifes])).await.unwrap();
        log.close().await.unwrap();
    }
    forget_clean_stop(directory);
    std::fs::remove_dir_all(directory.join("catalog")).unwrap();
    let empty = segments(directory, "one").pop().unwrap();
    cut(&empty, 256);
    let (log, _) = Log::open(options()).unwrap();
    for number in 0..200 {
        log.append(append("one", [number])).await.unwrap();
        let head = log.head(&name("one")).unwrap().borrow().0;
        let mut reader = log.reader(&name("one"), Offset(head - 1)).unwrap();
        assert_eq!(reader.next(1).unwrap().missing, None);
        if number == 0 {
            assert_eq!(std::fs::metadata(&empty).unwrap().len(), 256);
        }
        let tail = log.tail(&name("one")).unwrap();
        let mut reader = log.reader(&name("one"), tail).unwrap();
        while reader.position().0 < head {
            assert_eq!(reader.next(1 << 20).unwrap().missing, None, "at {number}");
        }
    }
    assert!(!empty.exists());
}

/// Format version 1, as written by the first version of this crate. It must read for ever.
#[test]
fn format_version_1_reads() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-1");
    if std::env::var_os("SKERRY_WRITE_FIXTURE").is_some() {
        write_fixture(&fixture);
    }
    let report = inspect::verify(&fixture, None).unwrap();
    assert!(report.is_sound(), "{report:?}");
    let listed = inspect::streams(&fixture).unwrap();
    let names: Vec<_> = listed.iter().map(|stream| stream.name.as_str()).collect();
    assert_eq!(names, ["_catalog", "telemetry"]);
    let telemetry = name("telemetry");
    let records: Result<Vec<_>, _> = inspect::records(&fixture, &telemetry, Offset(1), None)
        .unwrap()
        .collect();
    assert_eq!(records.unwrap().len(), 81);

    let directory = tempfile::tempdir().unwrap();
    copy(&fixture, directory.path());
    let (log, recovery) = Log::open(fixture_options(directory.path())).unwrap();
    assert!(recovery.catalog_rebuilt && recovery.torn_bytes == 0);
    assert_eq!(log.epoch(), 0x0123_4567_89AB_CDEF);
    assert_eq!(log.cursor("uplink", &telemetry).unwrap(), Some(Offset(2)));
    assert_eq!(log.get("test", b"kept").unwrap().unwrap(), "value");
    assert_eq!(log.get("test", b"gone").unwrap(), None);
    let mut reader = log.reader(&telemetry, Offset::ZERO).unwrap();
    let batch = reader.next(1 << 20).unwrap();
    assert_eq!(batch.missing, None);
    assert_eq!(batch.records.len(), 82);
    assert_eq!(batch.records[1].1, full_record());
    // Compressed, as the rest of its frame.
    assert_eq!(&batch.records[41].1.payload[..], b"39");
    assert_eq!(&batch.records[81].1.payload[..], b"79");
}

fn fixture_options(directory: &Path) -> Options {
    let mut options = Options::new(directory);
    options.streams = vec![StreamOptions::new(name("telemetry"), 1 << 30)];
    options.allow_volatile = true;
    options
}

fn full_record() -> skerry_store::Record {
    use skerry_store::{Kind, WallNanos};
    skerry_store::Record {
        kind: Kind::Opcua,
        source: "pump1/vibration".into(),
        payload: "{\"value\":1.5}".into(),
        source_time: Some(WallNanos(-1)),
        server_time: Some(WallNanos(1_700_000_000_000_000_000)),
        ingest_time: WallNanos(1_700_000_000_000_000_001),
        status: 0x8034_0000,
        attributes: vec![("unit".into(), "mm/s".into())],
    }
}

/// Makes the fixture anew: only ever for a new format version, in a new folder.
fn write_fixture(fixture: &Path) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("epoch"), "0123456789abcdef\n").unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (log, _) = Log::open(fixture_options(directory.path())).unwrap();
        let mut first = append("telemetry", [7]);
        first.records.push(full_record());
        first.changes = vec![put("kept", "value"), put("gone", "value")];
        log.append(first).await.unwrap();
        log.append(change(advance("uplink", "telemetry", 2)))
            .await
            .unwrap();
        let gone = skerry_store::Change::Delete {
            bucket: "test".into(),
            key: "gone".into(),
        };
        log.append(change(gone)).await.unwrap();
        log.append(append("telemetry", 0..40)).await.unwrap();
        log.close().await.unwrap();
        // A segment that links to the one before, and another codec.
        let mut options = fixture_options(directory.path());
        options.streams[0].codec = Codec::Zstd;
        let (log, _) = Log::open(options).unwrap();
        log.append(append("telemetry", 40..80)).await.unwrap();
        log.close().await.unwrap();
    });
    for part in ["catalog", "quarantine"] {
        let _ = std::fs::remove_dir_all(directory.path().join(part));
    }
    for part in ["lock", "clean-stop.json"] {
        std::fs::remove_file(directory.path().join(part)).unwrap();
    }
    let _ = std::fs::remove_dir_all(fixture);
    copy(directory.path(), fixture);
}

/// sled holds its file for a moment after it was closed, which was taken for a broken catalog.
#[tokio::test]
async fn a_catalog_that_is_about_to_be_let_go_of_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(options(directory.path())).unwrap();
    log.append(change(put("key", "value"))).await.unwrap();
    log.close().await.unwrap();
    let database = std::fs::File::open(directory.path().join("catalog").join("db")).unwrap();
    database.lock().unwrap();
    let released = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(50));
        database.unlock().unwrap();
    });
    let (_log, recovery) = Log::open(options(directory.path())).unwrap();
    assert!(!recovery.catalog_rebuilt);
    released.join().unwrap();
}
