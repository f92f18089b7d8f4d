//! The log under measurement.

use anyhow::{Context, Result};
use skerry_store::{
    Append, Change, Codec, Error, Kind, Log, Options, Record, StreamName, StreamOptions,
};
use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;
use tokio::runtime::Runtime;

pub(crate) const STREAM: &str = "telemetry";
pub(crate) const READERS: [&str; 8] = ["r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7"];
/// What a broker's connection keeps under way.
const WINDOW: usize = 4_096;
/// Records of one append, where the source delivers several at once.
pub(crate) const PER_APPEND: usize = 100;

pub(crate) fn options(folder: &Path, delay: Duration) -> Options {
    let mut options = Options::new(folder);
    let mut stream = StreamOptions::new(stream(), u64::MAX);
    stream.readers = vec![READERS[0].to_owned()];
    options.streams = vec![stream];
    options.commit_delay_max = delay;
    options
}

pub(crate) fn stream() -> StreamName {
    StreamName::new(STREAM).expect("a stream's name")
}

pub(crate) fn open(folder: &Path) -> Result<Log, Error> {
    open_with(folder, Codec::default())
}

pub(crate) fn open_with(folder: &Path, codec: Codec) -> Result<Log, Error> {
    let mut options = options(folder, Duration::from_millis(5));
    options.streams[0].codec = codec;
    Log::open(options).map(|(log, _)| log)
}

pub(crate) fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?)
}

pub(crate) fn append(stream: &StreamName, payloads: Vec<Vec<u8>>) -> Append {
    let record = |payload| Record::new(Kind::Mqtt, "plant/pumps/telemetry", payload);
    Append {
        stream: stream.clone(),
        records: payloads.into_iter().map(record).collect(),
        changes: Vec::new(),
    }
}

/// The cursor of a reader that has done with everything.
pub(crate) fn advance(reader: &str, log: &Log) -> Result<Append> {
    let next = *log.head(&stream())?.borrow();
    Ok(Append {
        stream: stream(),
        records: Vec::new(),
        changes: vec![Change::Advance {
            cursor: reader.to_owned(),
            stream: STREAM.to_owned(),
            next,
        }],
    })
}

/// Writes the payloads as fast as they are taken, many appends under way; returns when the last
/// one is on disk.
pub(crate) async fn write(
    log: &Log,
    payloads: impl IntoIterator<Item = Vec<u8>>,
    per_append: usize,
) -> Result<()> {
    let stream = stream();
    let mut payloads = payloads.into_iter();
    let mut pending = VecDeque::new();
    loop {
        // As a broker has it: one buffer for as many records as came at once.
        let mut several = Vec::with_capacity(per_append);
        several.extend(payloads.by_ref().take(per_append));
        if several.is_empty() {
            break;
        }
        pending.push_back(log.submit(append(&stream, several)).await?);
        if pending.len() >= WINDOW {
            let oldest: skerry_store::Pending = pending.pop_front().context("not empty")?;
            oldest.committed().await?;
        }
    }
    for last in pending {
        last.committed().await?;
    }
    Ok(())
}
