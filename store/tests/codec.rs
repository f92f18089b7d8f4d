//! Streams that compress differently, and one that changed its mind.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics is a test that fails"
)]

mod common;
#[path = "common/forge.rs"]
mod forge;

use common::*;
use skerry_store::{Codec, Disk, Fault, Log, Offset, Operation, Options};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn options_with(directory: &Path, codec: Codec) -> Options {
    let mut options = options(directory);
    options.segment_bytes = 1 << 20;
    options.streams[0].codec = codec;
    options
}

#[tokio::test]
async fn a_stream_may_change_its_codec_and_reads_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let mut bytes = Vec::new();
    for codec in [Codec::None, Codec::Lz4, Codec::Zstd] {
        let (log, _) = Log::open(options_with(directory.path(), codec)).unwrap();
        log.append(append("one", 0..500)).await.unwrap();
        log.close().await.unwrap();
        let newest = segments(directory.path(), "one").pop().unwrap();
        let frame = std::fs::read(&newest).unwrap();
        assert_eq!(frame[256 + 48], codec as u8);
        bytes.push(std::fs::metadata(newest).unwrap().len());
    }
    assert!(bytes.is_sorted_by(|one, next| one > next), "{bytes:?}");
    let (log, _) = Log::open(options(directory.path())).unwrap();
    let (records, missing) = read_all(&log, "one");
    assert_eq!(missing, []);
    assert_eq!(records.len(), 1_500);
    for (offset, payload) in records {
        assert_eq!(payload, (offset % 500).to_string());
    }
}

/// Gives what is appended meanwhile the time to become much.
struct Slow;

impl Fault for Slow {
    fn before(&self, operation: Operation, _: &Path) -> io::Result<()> {
        if operation == Operation::Sync {
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }
}

/// Where a commit holds much, its frames are packed by two threads.
#[tokio::test]
async fn the_frames_of_a_large_commit_keep_their_order() {
    for codec in [Codec::None, Codec::Lz4, Codec::Zstd] {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let mut options = options_with(directory, codec);
        options.segment_bytes = 1 << 30;
        let slow = Disk::failing(Arc::new(Slow));
        let (log, _) = Log::open_on(options.clone(), slow).unwrap();
        log.append(append("one", [0])).await.unwrap();
        let mut pending = Vec::new();
        for number in 1..80 {
            let mut append = append("one", [number]);
            let noise = noise(number, 40_000);
            append.records[0].payload = [&noise[..], &noise[..]].concat().into();
            pending.push(log.submit(append).await.unwrap());
        }
        for (number, pending) in pending.into_iter().enumerate() {
            let committed = pending.committed().await.unwrap();
            assert_eq!(committed.first, Offset(number as u64 + 1));
        }
        let commits = log.stats().commits_total;
        assert!(commits < 10, "no commit was large: {commits}");
        log.close().await.unwrap();
        let report = skerry_store::inspect::verify(directory, None).unwrap();
        assert!(report.is_sound(), "{report:?}");
        let (log, _) = Log::open(options).unwrap();
        let mut reader = log.reader(&name("one"), Offset(1)).unwrap();
        for number in 1..80 {
            let batch = reader.next(1).unwrap();
            let (offset, record) = &batch.records[0];
            assert_eq!(*offset, Offset(number));
            assert_eq!(record.payload[..40_000], noise(number, 40_000));
        }
    }
}

/// A frame whose checksums pass and whose body would unfold to more than its header says.
#[tokio::test]
async fn a_frame_that_unfolds_too_far_is_damage() {
    for codec in [Codec::Lz4, Codec::Zstd] {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let (log, _) = Log::open(options_with(directory, codec)).unwrap();
        log.append(append("one", 0..500)).await.unwrap();
        log.append(append("one", [500])).await.unwrap();
        log.close().await.unwrap();
        let file = segments(directory, "one").pop().unwrap();
        forge::forge(&file, |bytes| {
            bytes[256 + 8..256 + 12].copy_from_slice(&100_u32.to_le_bytes());
        });
        let (log, _) = Log::open(options_with(directory, codec)).unwrap();
        let (records, missing) = read_all(&log, "one");
        assert_eq!(missing, [(0, 500)]);
        assert_eq!(records[0], (500, "500".to_owned()));
        assert_eq!(log.tail(&name("one")).unwrap(), Offset(0));
    }
}
