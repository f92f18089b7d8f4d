//! Derived streams (scores, alerts) back to local subscribers: `skerry/<stream>/<source>`,
//! retained, QoS 1.
//!
//! Retained message and cursor move in one append, so after a crash a stream goes on exactly
//! where its retained messages stand.

use crate::codec::{Publish, PublishProperties, Qos};
use crate::ingest::{Ingest, OWN_PREFIX};
use crate::message::Message;
use crate::topic;
use skerry_store::{Append, Batch, Change, Class, Error, Kind, Offset, Reader, Record, StreamName};
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
    let messages: Vec<Message> = batch
        .records
        .into_iter()
        .map(|(_, record)| message(stream, record))
        .collect();
    // The last one of each topic is what stays retained.
    let latest: BTreeMap<&str, &Message> = messages
        .iter()
        .map(|message| (message.topic.as_str(), message))
        .collect();
    let mut changes = Vec::with_capacity(latest.len() + 1);
    for message in latest.into_values() {
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
    let append = Append {
        stream: StreamName::catalog(),
        records: Vec::new(),
        changes,
    };
    ingest.log.append(append).await?;
    for message in &messages {
        ingest.committed(message).await;
        ingest.status.republished.up();
    }
    Ok(())
}

fn message(stream: &StreamName, record: Record) -> Message {
    let user = record.attributes.iter();
    let user = user.filter_map(|(name, value)| {
        Some((name.clone(), std::str::from_utf8(value).ok()?.to_owned()))
    });
    let is_json = record.kind != Kind::Mqtt;
    let publish = Publish {
        qos: Qos::AtLeastOnce,
        retain: true,
        topic: topic(stream, &record.source),
        payload: record.payload,
        properties: PublishProperties {
            content_type: is_json.then(|| "application/json".to_owned()),
            user: user.collect(),
            ..PublishProperties::default()
        },
        ..Publish::default()
    };
    Message::new(publish, record.ingest_time, 0)
}

/// Sources are free text; a topic contains neither wildcards nor control characters.
fn topic(stream: &StreamName, source: &str) -> String {
    let is_fine = |c: char| topic::is_name_character(c) && !matches!(c, '+' | '#');
    let source: String = source
        .chars()
        .map(|c| if is_fine(c) { c } else { '_' })
        .collect();
    format!("{OWN_PREFIX}{}/{source}", stream.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_source_becomes_a_topic() {
        let stream = StreamName::new("alerts").expect("a name");
        assert_eq!(
            topic(&stream, "bearing/pump1"),
            "skerry/alerts/bearing/pump1"
        );
        assert_eq!(topic(&stream, "a+b#c\0d\n"), "skerry/alerts/a_b_c_d_");
    }
}
