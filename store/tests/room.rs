//! Zeros ahead of the frames: there while a segment is written to, nowhere else.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics is a test that fails"
)]

mod common;
#[path = "common/mounted.rs"]
mod mounted;

use common::*;
use mounted::{Mounted, may_mount};
use skerry_store::{Disk, Fault, Log, Operation, Options, inspect};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const ROOM_BYTES: u64 = 256 * 1024;

fn options_with(directory: &Path, segment_bytes: u64) -> Options {
    let mut options = options(directory);
    options.segment_bytes = segment_bytes;
    options
}

fn length(file: &Path) -> u64 {
    std::fs::metadata(file).unwrap().len()
}

#[tokio::test]
async fn small_appends_do_not_change_a_files_length() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(options_with(directory.path(), 1 << 20)).unwrap();
    for number in 0..50 {
        log.append(append("one", [number])).await.unwrap();
        let file = &segments(directory.path(), "one")[0];
        assert_eq!(length(file), ROOM_BYTES);
    }
    let counted = log.stats();
    let counted = counted.streams.iter().find(|stream| stream.name == "one");
    let file = &segments(directory.path(), "one")[0];
    assert_eq!(counted.unwrap().bytes, written(file), "room is not data");
    let mut large = append("one", [50]);
    large.records[0].payload = noise(1, ROOM_BYTES as usize).into();
    log.append(large).await.unwrap();
    assert_eq!(length(file), written(file), "a large write needs no zeros");
    log.append(append("one", [51])).await.unwrap();
    assert_eq!(length(file), 2 * ROOM_BYTES);
    log.close().await.unwrap();
    assert_eq!(length(file), written(file));
    assert!(inspect::verify(directory.path(), None).unwrap().is_sound());
}

#[tokio::test]
async fn a_segment_that_is_left_for_another_keeps_no_room() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(options_with(directory.path(), 2_000)).unwrap();
    for number in 0..100 {
        log.append(append("one", [number])).await.unwrap();
    }
    let files = segments(directory.path(), "one");
    let (newest, older) = files.split_last().unwrap();
    assert_eq!(length(newest), 2_000, "never more than a segment may have");
    assert!(older.len() > 2);
    for file in older {
        assert_eq!(length(file), written(file));
    }
}

#[tokio::test]
async fn a_crash_leaves_room_and_only_what_was_torn_counts_as_torn() {
    let directory = tempfile::tempdir().unwrap();
    let crashed = tempfile::tempdir().unwrap();
    let options = |directory| options_with(directory, 1 << 20);
    let (log, _) = Log::open(options(directory.path())).unwrap();
    log.append(append("one", 0..3)).await.unwrap();
    copy(directory.path(), crashed.path());
    drop(log);
    let file = segments(crashed.path(), "one").pop().unwrap();
    let (whole, end) = (length(&file), written(&file));
    assert_eq!(whole, ROOM_BYTES);
    let torn = std::fs::File::options().write(true).open(&file).unwrap();
    torn.write_all_at(&[0xF5, b'S', b'K', 0x0A, 1, 2, 3], end)
        .unwrap();
    let report = inspect::verify(crashed.path(), None).unwrap();
    assert!(report.is_sound());
    assert_eq!(report.unfinished_bytes, 7);
    let (log, recovery) = Log::open(options(crashed.path())).unwrap();
    assert_eq!(recovery.torn_bytes, 7);
    assert_eq!(length(&file), end);
    assert_eq!(read_all(&log, "one").0.len(), 3);
}

/// A disk that fails one write to stream one, counted from 0.
struct FailOne {
    fails: u32,
    writes: AtomicU32,
}

impl Fault for FailOne {
    fn before(&self, operation: Operation, path: &Path) -> io::Result<()> {
        let one = path.components().any(|part| part.as_os_str() == "one");
        if one && operation == Operation::Write {
            let write = self.writes.fetch_add(1, Ordering::SeqCst);
            if write == self.fails {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        Ok(())
    }
}

#[tokio::test]
async fn without_place_for_zeros_a_file_grows_as_it_is_written() {
    let directory = tempfile::tempdir().unwrap();
    // The first write is the segment's header, the second its room.
    let disk = Disk::failing(Arc::new(FailOne {
        fails: 1,
        writes: AtomicU32::new(0),
    }));
    let (log, _) = Log::open_on(options_with(directory.path(), 1 << 20), disk).unwrap();
    for number in 0..5 {
        log.append(append("one", [number])).await.unwrap();
        let file = &segments(directory.path(), "one")[0];
        assert_eq!(length(file), written(file));
    }
    assert_eq!(read_all(&log, "one").0.len(), 5);
}

/// As above, on a file system with less than a piece of room left, and another stream to serve.
#[tokio::test]
async fn the_last_of_a_disk_goes_to_records() {
    if !may_mount("the_last_of_a_disk_goes_to_records") {
        return;
    }
    let mounted = Mounted::tmpfs("size=2m").unwrap();
    let data = mounted.path.join("data");
    let (log, _) = Log::open(options_with(&data, 1 << 20)).unwrap();
    let ballast = std::fs::File::create(mounted.path.join("ballast")).unwrap();
    let mut at = 0;
    while mounted.free_bytes() > 200 * 1024 {
        ballast.write_all_at(&[1; 4096], at).unwrap();
        at += 4096;
    }
    for number in 0..20 {
        log.append(append("one", [number])).await.unwrap();
        log.append(append("two", [number])).await.unwrap();
    }
    assert!(
        mounted.free_bytes() > 100 * 1024,
        "what zeros took is given back"
    );
}

#[tokio::test]
async fn a_commit_that_is_rolled_back_takes_the_room_with_it() {
    let directory = tempfile::tempdir().unwrap();
    // After header and room, the first frame.
    let disk = Disk::failing(Arc::new(FailOne {
        fails: 2,
        writes: AtomicU32::new(0),
    }));
    let (log, _) = Log::open_on(options_with(directory.path(), 1 << 20), disk).unwrap();
    log.append(append("one", [0])).await.unwrap_err();
    for number in 0..2 {
        log.append(append("one", [number])).await.unwrap();
        assert_eq!(length(&segments(directory.path(), "one")[0]), ROOM_BYTES);
    }
}
