//! Shared by the store's tests.
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test uses its own part of this"
)]

pub(crate) mod rng;

use skerry_store::{Append, Change, Kind, Log, Offset, Options, Record, StreamName, StreamOptions};
use std::path::Path;
use std::time::Duration;

pub(crate) fn name(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

/// Two streams with room for everything, and small segments.
pub(crate) fn options(directory: &Path) -> Options {
    let mut options = Options::new(directory);
    options.streams = ["one", "two"]
        .map(|stream| StreamOptions::new(name(stream), 1 << 40))
        .into();
    options.segment_bytes = 2_000;
    options.commit_delay_max = Duration::from_millis(1);
    options.journal_reserve_bytes = 64 * 1024;
    options.allow_volatile = true;
    options
}

pub(crate) fn record(number: u64) -> Record {
    Record::new(Kind::Mqtt, format!("s{}", number % 3), number.to_string())
}

pub(crate) fn append(stream: &str, records: impl IntoIterator<Item = u64>) -> Append {
    Append {
        stream: name(stream),
        records: records.into_iter().map(record).collect(),
        changes: Vec::new(),
    }
}

pub(crate) fn put(key: &str, value: impl Into<Vec<u8>>) -> Change {
    Change::Put {
        bucket: "test".into(),
        key: key.to_owned().into(),
        value: value.into().into(),
    }
}

pub(crate) fn advance(cursor: &str, stream: &str, next: u64) -> Change {
    Change::Advance {
        cursor: cursor.into(),
        stream: stream.into(),
        next: Offset(next),
    }
}

pub(crate) fn change(change: Change) -> Append {
    Append {
        stream: StreamName::catalog(),
        records: Vec::new(),
        changes: vec![change],
    }
}

/// Bytes that do not compress, others for each seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// A folder in memory, if there is any: for files that no test takes the power from.
pub(crate) fn scratch() -> tempfile::TempDir {
    let made = tempfile::tempdir_in("/dev/shm");
    made.unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// First, one past last.
pub(crate) type Ranges = Vec<(u64, u64)>;

/// Everything in a stream from the start: offsets and payloads, and what is missing.
pub(crate) fn read_all(log: &Log, stream: &str) -> (Vec<(u64, String)>, Ranges) {
    let mut reader = log.reader(&name(stream), Offset::ZERO).unwrap();
    let (mut records, mut missing) = (Vec::new(), Vec::new());
    loop {
        let batch = reader.next(1_000).unwrap();
        if batch.is_empty() {
            return (records, missing);
        }
        missing.extend(batch.missing.map(|(first, next)| (first.0, next.0)));
        for (offset, record) in batch.records {
            let payload = String::from_utf8(record.payload.to_vec()).unwrap();
            records.push((offset.0, payload));
        }
    }
}

/// Copies a data directory as a crash would leave it.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

pub(crate) fn segments(directory: &Path, stream: &str) -> Vec<std::path::PathBuf> {
    let directory = directory.join("streams").join(stream);
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

/// Where the last frame of a segment file ends.
pub(crate) fn written(file: &Path) -> u64 {
    let bytes = std::fs::read(file).unwrap();
    let mut end = 256.min(bytes.len());
    while let Some(header) = bytes.get(end..end + 64).filter(|h| h[..2] == [0xF5, b'S']) {
        let payload = u32::from_le_bytes(header[4..8].try_into().unwrap());
        end += 64 + payload as usize;
    }
    end as u64
}
