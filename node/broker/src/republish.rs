//! Retained messages of derived streams (scores, alerts), on `skerry/<stream>/<source>`. Who is
//! subscribed gets every record of them as it gets any message: from the log.
//!
//! Retained message and cursor move in one append, so after a crash a stream goes on exactly
//! where its retained messages stand.

use crate::ingest::Ingest;
use crate::record;
use skerry_store::{Batch, Change, Class, Error, Kind, Offset, Reader, StreamName};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The name under which the catalog keeps how far each stream is published.
const CURSOR: &str = "mqtt";
const BATCH_BYTES: usize = 64 * 1024;
const BACK_OFF_MIN: Duration = Duration::from_millis(200);
const BACK_OFF_MAX: Duration = Duration::from_secs(10);

/// Publishes one stream until `stop`. Faults of the log are tried again for ever.
pub(crate) async fn run(ingest: &Ingest, stream: StreamName, stop: &CancellationToken) {
    let mut back_off = BACK_OFF_MIN;
    loop {
        let result = tokio::select! {
            () = stop.cancelled() => return,
            result = follow(ingest, &stream, &mut back_off) => result,
        };
        if let Err(error) = result {
            if error.class() == Class::Fatal {
                ingest.refusal(&error);
                return;
            }
            let stream = stream.as_str();
            tracing::warn!(stream, %error, "publishing a stream locally failed, trying again");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(back_off) => {}
        }
        back_off = (back_off * 2).min(BACK_OFF_MAX);
    }
}

async fn follow(
    ingest: &Ingest,
    stream: &StreamName,
    back_off: &mut Duration,
) -> Result<(), Error> {
    let mut reader = open(ingest, stream)?;
    loop {
        let batch = reader.follow(BATCH_BYTES).await?;
        publish(ingest, stream, batch, reader.position()).await?;
        *back_off = BACK_OFF_MIN;
    }
}

fn open(ingest: &Ingest, stream: &StreamName) -> Result<Reader, Error> {
    let tail = ingest.log.tail(stream)?;
    let cursor = ingest.log.cursor(CURSOR, stream)?.unwrap_or(tail);
    ingest.log.reader(stream, cursor.max(tail))
}

async fn publish(
    ingest: &Ingest,
    stream: &StreamName,
    batch: Batch,
    next: Offset,
) -> Result<(), Error> {
    // The last one of each topic is what stays retained.
    let mut latest = BTreeMap::new();
    let derived = batch
        .records
        .iter()
        .filter(|(_, record)| record.kind != Kind::Mqtt);
    for (_, record) in derived {
        let message = record::derived_message(stream, record);
        latest.insert(message.topic.clone(), message);
        ingest.status.republished.up();
    }
    let mut changes = Vec::with_capacity(latest.len() + 1);
    for message in latest.values() {
        match ingest.retained.change(message) {
            Ok(change) => changes.extend(change),
            Err(_) => ingest.status.retained_refused.up(),
        }
    }
    changes.push(Change::Advance {
        cursor: CURSOR.to_owned(),
        stream: stream.as_str().to_owned(),
        next,
    });
    ingest.note(changes).await?;
    for (topic, message) in &latest {
        ingest.retained.set(topic, message.payload.is_empty());
    }
    ingest.status.retained.set(ingest.retained.len());
    if let Some(index) = ingest.streams.index(stream.as_str()) {
        ingest.streams.get(index).release(next);
    }
    Ok(())
}
