//! Readers that begin in the middle of a segment nobody has read yet.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics is a test that fails"
)]

mod common;

use common::*;
use skerry_store::{Append, Codec, Kind, Log, Offset, Options, Record};
use std::path::Path;

fn options(directory: &Path) -> Options {
    let mut options = common::options(directory);
    options.segment_bytes = 4 << 20;
    options.streams[0].codec = Codec::None;
    options
}

async fn fill(log: &Log, payloads: impl IntoIterator<Item = Vec<u8>>) {
    for payload in payloads {
        let append = Append {
            stream: name("one"),
            records: vec![Record::new(Kind::Mqtt, "s", payload)],
            changes: Vec::new(),
        };
        log.append(append).await.unwrap();
    }
}

/// Closes the segment that is written to, so that the next opening does not read it.
async fn close(log: Log) {
    fill(&log, (0..2).map(|seed| noise(seed, 3 << 20))).await;
    log.close().await.unwrap();
}

fn check(log: &Log, from: u64) {
    let mut reader = log.reader(&name("one"), Offset(from)).unwrap();
    for offset in from..from + 3 {
        let views = reader.next_views().unwrap();
        assert_eq!(views.missing, None, "at {offset}");
        let found: Vec<_> = views.records.map(|(at, _)| at.0).collect();
        assert_eq!(found, [offset]);
    }
}

#[tokio::test]
async fn any_record_is_found() {
    let directory = scratch();
    let (log, _) = Log::open(options(directory.path())).unwrap();
    let sizes = |seed: u64| {
        if seed.is_multiple_of(50) {
            60_000
        } else {
            1_000
        }
    };
    fill(&log, (0..1_600).map(|seed| noise(seed, sizes(seed)))).await;
    close(log).await;
    let (log, _) = Log::open(options(directory.path())).unwrap();
    for step in 0..400 {
        check(&log, step * 997 % 1_598);
    }
}

#[tokio::test]
async fn frames_in_a_payload_lead_nobody_astray() {
    let directory = scratch();
    let (log, _) = Log::open(options(directory.path())).unwrap();
    fill(&log, (0..1_000).map(|seed| noise(seed, 600))).await;
    let file = segments(directory.path(), "one").remove(0);
    let end = usize::try_from(written(&file)).unwrap();
    // The frames so far, as somebody publishes them who can read the log's files.
    let frames = std::fs::read(&file).unwrap()[256..end].to_vec();
    assert!(end < 1 << 20 && !frames.is_empty());
    fill(&log, [frames.clone(), frames]).await;
    close(log).await;
    let (log, _) = Log::open(options(directory.path())).unwrap();
    for from in (0..1_000).rev().step_by(9) {
        check(&log, from);
    }
    assert_eq!(log.stats().gap_records_total, 0);
}
