//! From the durable head of a stream to the mailboxes of those who want its messages.
//!
//! One task per stream follows the log, as everything on this node does; nobody hands it
//! anything. What it reads was just committed, so the log still has it in memory.

use crate::budget::Budget;
use crate::delivery::{Published, Source};
use crate::ingest::Ingest;
use crate::record;
use crate::streams::{Place, StreamIndex};
use crate::subscriptions::deliveries;
use skerry_store::{Class, Error, Kind, Offset, RecordView};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Records that are offered while nobody can subscribe.
const CHUNK: usize = 64;
/// The log's part of what live subscribers keep in memory, all of them together.
pub(crate) const LIVE_BYTES_MAX: usize = 16 * 1024 * 1024;
const BACK_OFF: Duration = Duration::from_secs(1);
/// How long commits gather where nobody is subscribed: to be woken by each of them would cost
/// their publishers a sixth of the wait for their acknowledgements.
const LULL: Duration = Duration::from_millis(10);

/// Dispatches one stream until `stop`. Faults of the log are tried again for ever.
pub(crate) async fn run(ingest: Arc<Ingest>, index: StreamIndex, stop: CancellationToken) {
    loop {
        let error = tokio::select! {
            () = stop.cancelled() => return,
            result = follow(&ingest, index) => match result {
                Ok(()) => return,
                Err(error) => error,
            },
        };
        if error.class() == Class::Fatal {
            ingest.refusal(&error);
            return;
        }
        let stream = ingest.streams.get(index).name.as_str();
        tracing::warn!(stream, %error, "a stream cannot be read for its subscribers, trying again");
        tokio::time::sleep(BACK_OFF).await;
    }
}

async fn follow(ingest: &Ingest, index: StreamIndex) -> Result<(), Error> {
    let stream = ingest.streams.get(index);
    let mut reader = ingest.log.reader(&stream.name, stream.claimed())?;
    let mut ready = stream.ready(&ingest.log)?;
    loop {
        let end = *ready.borrow_and_update();
        while reader.position() < end {
            let views = reader.next_views()?;
            if let Some((first, next)) = views.missing {
                missing(ingest, index, first, next);
            }
            let mut records = views.records.take_while(|(offset, _)| *offset < end);
            loop {
                let chunk: Vec<_> = records.by_ref().take(CHUNK).collect();
                if chunk.is_empty() {
                    break;
                }
                dispatch(ingest, index, &chunk);
            }
            // What of the frame may not be dispatched yet is read again.
            if stream.claimed() < reader.position() {
                reader.seek(stream.claimed());
            }
            tokio::task::consume_budget().await;
        }
        if !ingest.registry.has_subscriptions() {
            tokio::time::sleep(LULL).await;
        }
        if ready.changed().await.is_err() {
            // The log is closed.
            return Ok(());
        }
    }
}

/// Retention or damage took what nobody has been offered. Sessions that are behind find out by
/// themselves; the others are told here.
fn missing(ingest: &Ingest, index: StreamIndex, first: Offset, next: Offset) {
    let stream = ingest.streams.get(index);
    let tree = ingest.registry.tree.read();
    let tree = tree.unwrap_or_else(PoisonError::into_inner);
    stream.claim(next);
    stream.set_offered(next);
    drop(tree);
    let records = next.0 - first.0;
    ingest
        .status
        .fanout_losses
        .add(usize::try_from(records).unwrap_or(usize::MAX));
    tracing::error!(
        stream = stream.name.as_str(), %first, %next,
        "records went before they could be offered to local subscribers"
    );
}

fn dispatch(ingest: &Ingest, index: StreamIndex, chunk: &[(Offset, RecordView<'_>)]) {
    let Some((last, _)) = chunk.last() else {
        return;
    };
    let stream = ingest.streams.get(index);
    let tree = ingest.registry.tree.read();
    let tree = tree.unwrap_or_else(PoisonError::into_inner);
    stream.claim(last.plus(1));
    for (offset, view) in chunk {
        let Some(topic) = record::topic(view, &stream.name, stream.derived) else {
            continue;
        };
        if view.kind == Kind::Mqtt && record::is_retained(view) {
            ingest.retained.set(&topic, view.payload.is_empty());
        }
        let subscribers = tree.subscribers(&topic);
        if subscribers.is_empty() {
            continue;
        }
        let place = Place {
            stream: index,
            offset: *offset,
        };
        let message = published(
            &ingest.registry.budget,
            record::message(view, topic.into_owned()),
        );
        deliveries(
            &subscribers,
            &message,
            &Source::Log(place),
            |mailbox, delivery| {
                ingest.registry.count(mailbox, mailbox.offer(delivery));
            },
        );
    }
    stream.set_offered(last.plus(1));
    ingest.status.retained.set(ingest.retained.len());
}

fn published(budget: &Arc<Budget>, message: crate::message::Message) -> Arc<Published> {
    let charge = budget.charge(message.bytes());
    Published::new(message, Some(charge))
}
