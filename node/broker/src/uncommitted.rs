//! Appends of one connection that are not on disk yet, in the order they were submitted.
//!
//! Many are under way at once, so one connection with a window of 100 shares group commits; they
//! are settled strictly in order, so fan-out and acknowledgements keep the publisher's order.

use crate::codec::{PacketId, Qos};
use crate::config::{UNCOMMITTED_BYTES_MAX, UNCOMMITTED_MAX};
use crate::message::Message;
use skerry_store::{Append, Committed, Error, Log, Pending, Producer, StreamName};
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

type Future<T> = Pin<Box<dyn std::future::Future<Output = Result<T, Error>> + Send>>;

/// What an append was for.
#[derive(Debug)]
pub(crate) enum Owed {
    Publish {
        message: Box<Message>,
        qos: Qos,
        id: Option<PacketId>,
        stream: StreamName,
    },
    /// A QoS 2 id that the catalog forgets.
    Forget(PacketId),
}

impl Owed {
    fn bytes(&self) -> usize {
        match self {
            Self::Publish { message, .. } => message.topic.len() + message.payload.len(),
            Self::Forget(_) => 0,
        }
    }
}

#[derive(Default)]
pub(crate) struct Uncommitted {
    /// Waiting for room in the log's queue; nothing else is submitted meanwhile.
    submitting: Option<(Future<Pending>, Owed)>,
    queued: VecDeque<(Future<Committed>, Owed)>,
    bytes: usize,
    /// Until one fails: what follows in its stream was sent before the client could know.
    producer: Producer,
}

impl Uncommitted {
    pub(crate) fn has_room(&self) -> bool {
        self.submitting.is_none()
            && self.queued.len() < usize::from(UNCOMMITTED_MAX)
            && self.bytes < UNCOMMITTED_BYTES_MAX
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.submitting.is_none() && self.queued.is_empty()
    }

    /// Only after [`Uncommitted::has_room`]. The append is on its way at the next
    /// [`Uncommitted::settled`], which the connection always polls.
    pub(crate) fn submit(&mut self, log: &Log, append: Append, owed: Owed) {
        debug_assert!(self.has_room(), "the caller looked for room");
        let log = log.clone();
        self.bytes += owed.bytes();
        let producer = self.producer.clone();
        let submit = async move { log.submit_from(&producer, append).await };
        self.submitting = Some((Box::pin(submit), owed));
    }

    /// Pushes a submission on without waiting, so that the next packet can be taken.
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
            while let Some((commit, _)) = self.queued.front_mut() {
                let Poll::Ready(result) = commit.as_mut().poll(context) else {
                    break;
                };
                let (_, owed) = self.queued.pop_front().expect("the front was just polled");
                self.bytes -= owed.bytes();
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

    /// True if a submission left the slot.
    fn poll_submitting(&mut self, context: &mut Context<'_>) -> bool {
        let Some((submit, _)) = &mut self.submitting else {
            return false;
        };
        let Poll::Ready(result) = submit.as_mut().poll(context) else {
            return false;
        };
        let (_, owed) = self.submitting.take().expect("it was just polled");
        // A refused submission takes its place in the order like any other.
        let commit: Future<Committed> = match result {
            Ok(pending) => Box::pin(pending.committed()),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        };
        self.queued.push_back((commit, owed));
        true
    }
}
