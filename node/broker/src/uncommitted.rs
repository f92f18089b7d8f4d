//! Appends of one connection that are not on disk yet, in the order they were submitted.
//!
//! What one read brought goes into one append; many are under way at once, and they are settled
//! strictly in order, so acknowledgements keep the publisher's order.

use crate::backlog::OwedRetained;
use crate::codec::{PacketId, Qos};
use crate::config::{UNCOMMITTED_BYTES_MAX, UNCOMMITTED_MAX};
use skerry_store::{Append, Change, Committed, Error, Log, Pending, Producer, Record, StreamName};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A batch that has this much is submitted though more may follow at once.
const BATCH_BYTES: usize = 128 * 1024;
const BATCH_RECORDS: usize = 256;

type Future<T> = Pin<Box<dyn std::future::Future<Output = Result<T, Error>> + Send>>;

/// What an append was for.
#[derive(Debug)]
pub(crate) enum Owed {
    Publishes {
        stream: StreamName,
        publishes: Vec<OwedPublish>,
        bytes: usize,
    },
    /// QoS 2 ids that the catalog forgets.
    Forget(Vec<PacketId>),
    Subscribed(OwedSubAck),
    UnsubAck {
        id: PacketId,
        codes: Vec<u8>,
    },
    /// The session, and so many of the packets that waited for that.
    Saved(usize),
}

#[derive(Debug)]
pub(crate) struct OwedPublish {
    pub qos: Qos,
    pub id: Option<PacketId>,
    /// Its topic, where the message is retained.
    pub retained: Option<Box<str>>,
}

#[derive(Debug)]
pub(crate) struct OwedSubAck {
    pub id: PacketId,
    pub codes: Vec<u8>,
    pub retained: Vec<OwedRetained>,
    /// Filters that the session did not have before, to be taken back where the log refuses.
    pub new: Vec<Arc<str>>,
}

impl Owed {
    fn publishes(&self) -> (usize, usize) {
        match self {
            Self::Publishes {
                publishes, bytes, ..
            } => (publishes.len(), *bytes),
            _ => (0, 0),
        }
    }
}

/// Publishes of one stream that go into the log together.
#[derive(Debug)]
pub(crate) struct Batch {
    append: Append,
    publishes: Vec<OwedPublish>,
    bytes: usize,
}

impl Batch {
    pub(crate) fn new(stream: StreamName) -> Self {
        Self {
            append: Append {
                stream,
                records: Vec::new(),
                changes: Vec::new(),
            },
            publishes: Vec::new(),
            bytes: 0,
        }
    }

    /// Whether a publish to `stream` may join.
    pub(crate) fn takes(&self, stream: &StreamName) -> bool {
        self.append.stream == *stream
            && self.bytes < BATCH_BYTES
            && self.publishes.len() < BATCH_RECORDS
    }

    pub(crate) fn push(&mut self, record: Record, changes: Vec<Change>, owed: OwedPublish) {
        self.bytes += record.source.len() + record.payload.len();
        self.append.records.push(record);
        self.append.changes.extend(changes);
        self.publishes.push(owed);
    }
}

#[derive(Default)]
pub(crate) struct Uncommitted {
    entries: VecDeque<(Stage, Owed)>,
    publishes: usize,
    bytes: usize,
    /// Until one fails: what follows in its stream was sent before the client could know.
    producer: Producer,
}

enum Stage {
    /// Waiting for room in the log's queue; nothing behind it is submitted meanwhile.
    Submitting(Future<Pending>),
    Committing(Future<Committed>),
}

impl Uncommitted {
    /// Whether more publishes may be taken, besides those of a batch that is being made.
    pub(crate) fn has_room(&self, batch: Option<&Batch>) -> bool {
        let (publishes, bytes) = batch.map_or((0, 0), |batch| (batch.publishes.len(), batch.bytes));
        let waits = |(stage, _): &(Stage, Owed)| matches!(stage, Stage::Submitting(_));
        !self.entries.back().is_some_and(waits)
            && self.publishes + publishes < usize::from(UNCOMMITTED_MAX)
            && self.bytes + bytes < UNCOMMITTED_BYTES_MAX
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn submit_batch(&mut self, log: &Log, batch: Batch) {
        let owed = Owed::Publishes {
            stream: batch.append.stream.clone(),
            publishes: batch.publishes,
            bytes: batch.bytes,
        };
        self.submit(log, batch.append, owed);
    }

    /// The append is on its way at the next [`Uncommitted::advance`] or [`Uncommitted::settled`],
    /// which the connection always polls.
    pub(crate) fn submit(&mut self, log: &Log, append: Append, owed: Owed) {
        let (publishes, bytes) = owed.publishes();
        self.publishes += publishes;
        self.bytes += bytes;
        let (log, producer) = (log.clone(), self.producer.clone());
        let submit = async move { log.submit_from(&producer, append).await };
        self.entries
            .push_back((Stage::Submitting(Box::pin(submit)), owed));
    }

    /// Pushes submissions on without waiting.
    pub(crate) async fn advance(&mut self) {
        std::future::poll_fn(|context| {
            self.poll_submitting(context);
            Poll::Ready(())
        })
        .await;
    }

    /// Everything at the front that is settled by now; possibly nothing, when only a submission
    /// got through. Never resolves while there is nothing to wait for. Safe to cancel.
    pub(crate) async fn settled(&mut self) -> Vec<(Owed, Result<(), Error>)> {
        std::future::poll_fn(|context| {
            let moved = self.poll_submitting(context);
            let mut settled = Vec::new();
            while let Some((Stage::Committing(commit), _)) = self.entries.front_mut() {
                let Poll::Ready(result) = commit.as_mut().poll(context) else {
                    break;
                };
                let (_, owed) = self.entries.pop_front().expect("the front was just polled");
                let (publishes, bytes) = owed.publishes();
                self.publishes -= publishes;
                self.bytes -= bytes;
                if result.is_err() {
                    self.producer = Producer::default();
                }
                settled.push((owed, result.map(drop)));
            }
            if settled.is_empty() && !moved {
                Poll::Pending
            } else {
                Poll::Ready(settled)
            }
        })
        .await
    }

    /// True if a submission got through.
    fn poll_submitting(&mut self, context: &mut Context<'_>) -> bool {
        let mut moved = false;
        // They are all at the end: none gets through before the one ahead of it has.
        let is_submitting = |(stage, _): &&(Stage, Owed)| matches!(stage, Stage::Submitting(_));
        let submitting = self.entries.iter().rev().take_while(is_submitting).count();
        let from = self.entries.len() - submitting;
        for (stage, _) in self.entries.range_mut(from..) {
            let Stage::Submitting(submit) = stage else {
                continue;
            };
            let Poll::Ready(result) = submit.as_mut().poll(context) else {
                break;
            };
            moved = true;
            // A refused submission takes its place in the order like any other.
            *stage = Stage::Committing(match result {
                Ok(pending) => Box::pin(pending.committed()),
                Err(error) => Box::pin(std::future::ready(Err(error))),
            });
        }
        moved
    }
}
