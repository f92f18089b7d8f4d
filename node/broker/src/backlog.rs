//! What a connection owes its client before live messages: resends of a resumed session, and
//! retained messages of new subscriptions.
//!
//! They are owed by name, and read in small batches as the client takes them, so a subscription
//! to a million retained topics costs a list of names, not the messages.

use crate::codec::{PacketId, SubscribeOptions};
use crate::delivery::{Delivery, Published, Source};
use crate::message::Message;
use crate::outbound::{Named, Resend};
use crate::record;
use crate::retained::Retained;
use crate::streams::{Place, Streams};
use skerry_store::{Error, Log};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// Messages read at once: bounded by the largest packet times this.
const FETCH_MESSAGES: usize = 32;

#[derive(Debug, Default)]
pub(crate) struct Backlog {
    resends: VecDeque<Resend>,
    owed: VecDeque<OwedRetained>,
    ready: VecDeque<Ready>,
    fetching: Option<JoinHandle<Vec<Ready>>>,
}

/// A retained message that a subscription asked for.
#[derive(Debug, Clone)]
pub(crate) struct OwedRetained {
    pub topic: Arc<str>,
    pub options: SubscribeOptions,
    pub identifier: Option<u32>,
}

/// What can be sent now.
#[derive(Debug)]
pub(crate) enum Ready {
    /// Again, under its old id; `None` if it is gone.
    Again(PacketId, Option<Box<Delivery>>),
    Release(PacketId),
    Retained(Box<Delivery>),
}

impl Backlog {
    pub(crate) fn new(resends: Vec<Resend>, owed: Vec<OwedRetained>) -> Self {
        Self {
            resends: resends.into(),
            owed: owed.into(),
            ..Self::default()
        }
    }

    pub(crate) fn owe(&mut self, owed: Vec<OwedRetained>) {
        self.owed.extend(owed);
    }

    /// Live messages wait until this is true.
    pub(crate) fn is_done(&self) -> bool {
        self.resends.is_empty()
            && self.owed.is_empty()
            && self.ready.is_empty()
            && !self.is_fetching()
    }

    /// The next one that was read, if `fits` agrees to it.
    pub(crate) fn take_if(&mut self, fits: impl FnOnce(&Ready) -> bool) -> Option<Ready> {
        if fits(self.ready.front()?) {
            self.ready.pop_front()
        } else {
            None
        }
    }

    /// Starts reading the next batch where that is due.
    pub(crate) fn fetch(&mut self, shelf: &Shelf) {
        if self.fetching.is_some() || !self.ready.is_empty() {
            return;
        }
        let shelf = shelf.clone();
        if !self.resends.is_empty() {
            let count = self.resends.len().min(FETCH_MESSAGES);
            let batch: Vec<_> = self.resends.drain(..count).collect();
            let read = move || batch.into_iter().map(|one| again(&shelf, one)).collect();
            self.fetching = Some(tokio::task::spawn_blocking(read));
        } else if !self.owed.is_empty() {
            let count = self.owed.len().min(FETCH_MESSAGES);
            let batch: Vec<_> = self.owed.drain(..count).collect();
            let read = move || {
                batch
                    .into_iter()
                    .filter_map(|owed| retained(&shelf, owed))
                    .collect()
            };
            self.fetching = Some(tokio::task::spawn_blocking(read));
        }
    }

    pub(crate) const fn is_fetching(&self) -> bool {
        self.fetching.is_some()
    }

    /// Resolves when the batch is read. Only while [`Backlog::is_fetching`]. Safe to cancel.
    pub(crate) async fn fetched(&mut self) {
        if let Some(fetching) = &mut self.fetching {
            // A panic in the catalog has been reported already; its messages are missing.
            let batch = fetching.await.unwrap_or_default();
            self.ready.extend(batch);
            self.fetching = None;
        }
    }

    /// Retained messages that did not get out, for the next connection of the session.
    pub(crate) fn into_owed(self) -> Vec<OwedRetained> {
        let unsent = self.ready.into_iter().filter_map(|ready| match ready {
            Ready::Retained(delivery) => Some(OwedRetained {
                topic: delivery.message.topic.as_str().into(),
                options: SubscribeOptions {
                    qos: delivery.qos,
                    ..SubscribeOptions::default()
                },
                identifier: delivery.subscriptions.first().copied(),
            }),
            Ready::Again(..) | Ready::Release(_) => None,
        });
        unsent.chain(self.owed).collect()
    }
}

fn again(shelf: &Shelf, resend: Resend) -> Ready {
    match resend {
        Resend::Release(id) => Ready::Release(id),
        Resend::Message(id, named) => {
            let delivery = shelf.read(&named);
            let delivery = delivery.unwrap_or_else(|error| {
                tracing::error!(%error, "cannot read a message that is to be sent again");
                None
            });
            Ready::Again(id, delivery.map(Box::new))
        }
    }
}

/// Where messages are found again that are in memory no more.
#[derive(Clone)]
pub(crate) struct Shelf {
    pub log: Log,
    pub streams: Arc<Streams>,
    pub retained: Arc<Retained>,
}

impl Shelf {
    /// Blocks on the disk.
    pub(crate) fn read(&self, named: &Named) -> Result<Option<Delivery>, Error> {
        let message = match &named.source {
            Source::Log(place) => self.logged(*place)?,
            Source::Retained(topic) => self.retained.get(&self.log, topic)?,
            Source::Memory => None,
        };
        Ok(message.map(|message| Delivery {
            message: Published::new(message, None),
            source: named.source.clone(),
            qos: named.qos,
            retain: named.retain,
            subscriptions: named.subscriptions.clone(),
            group: named.group.clone(),
        }))
    }

    fn logged(&self, place: Place) -> Result<Option<Message>, Error> {
        let stream = self.streams.get(place.stream);
        let mut reader = self.log.reader(&stream.name, place.offset)?;
        let mut views = reader.next_views()?.records;
        let Some((offset, view)) = views.next() else {
            return Ok(None);
        };
        let topic = record::topic(&view, &stream.name, stream.derived);
        let topic = topic.filter(|_| offset == place.offset);
        Ok(topic.map(|topic| record::message(&view, topic.into_owned())))
    }
}

fn retained(shelf: &Shelf, owed: OwedRetained) -> Option<Ready> {
    match shelf.retained.get(&shelf.log, &owed.topic) {
        Ok(message) => message.map(|message| {
            Ready::Retained(Box::new(Delivery {
                qos: message.qos.min(owed.options.qos),
                retain: true,
                subscriptions: owed.identifier.into_iter().collect(),
                source: Source::Retained(owed.topic),
                message: Published::new(message, None),
                group: None,
            }))
        }),
        Err(error) => {
            tracing::error!(topic = &*owed.topic, %error, "cannot read a retained message");
            None
        }
    }
}
