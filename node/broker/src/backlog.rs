//! What a connection owes its client before live messages: resends of a resumed session, and
//! retained messages of new subscriptions.
//!
//! Retained messages are owed by topic and read from the catalog in small batches as the client
//! takes them, so a subscription to a million of them costs a list of names, not the messages.

use crate::codec::{PacketId, SubscribeOptions};
use crate::mailbox::Delivery;
use crate::outbound::Stage;
use crate::retained::Retained;
use skerry_store::Log;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// Retained messages read at once: bounded by the largest packet times this.
const FETCH_MESSAGES: usize = 32;

#[derive(Debug, Default)]
pub(crate) struct Backlog {
    resends: VecDeque<(PacketId, Stage)>,
    owed: VecDeque<OwedRetained>,
    ready: VecDeque<Delivery>,
    fetching: Option<JoinHandle<Vec<Delivery>>>,
}

/// A retained message that a subscription asked for.
#[derive(Debug, Clone)]
struct OwedRetained {
    topic: Arc<str>,
    options: SubscribeOptions,
    identifier: Option<u32>,
}

impl Backlog {
    pub(crate) fn resend(resends: Vec<(PacketId, Stage)>) -> Self {
        Self {
            resends: resends.into(),
            ..Self::default()
        }
    }

    pub(crate) fn take_resend(&mut self) -> Option<(PacketId, Stage)> {
        self.resends.pop_front()
    }

    pub(crate) fn owe(
        &mut self,
        topics: Vec<Arc<str>>,
        options: SubscribeOptions,
        identifier: Option<u32>,
    ) {
        let owed = topics.into_iter().map(|topic| OwedRetained {
            topic,
            options,
            identifier,
        });
        self.owed.extend(owed);
    }

    /// Live messages wait until this is true.
    pub(crate) fn is_done(&self) -> bool {
        let retained_done = self.owed.is_empty() && self.ready.is_empty();
        self.resends.is_empty() && retained_done && self.fetching.is_none()
    }

    /// The next retained message that was read, if `fits` agrees to it.
    pub(crate) fn take_if(&mut self, fits: impl FnOnce(&Delivery) -> bool) -> Option<Delivery> {
        if fits(self.ready.front()?) {
            self.ready.pop_front()
        } else {
            None
        }
    }

    /// Starts reading the next batch where that is due.
    pub(crate) fn fetch(&mut self, log: &Log) {
        if self.fetching.is_some() || !self.ready.is_empty() || self.owed.is_empty() {
            return;
        }
        let count = self.owed.len().min(FETCH_MESSAGES);
        let batch: Vec<_> = self.owed.drain(..count).collect();
        let log = log.clone();
        self.fetching = Some(tokio::task::spawn_blocking(move || read(&log, batch)));
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
}

fn read(log: &Log, batch: Vec<OwedRetained>) -> Vec<Delivery> {
    let read_one = |owed: OwedRetained| match Retained::get(log, &owed.topic) {
        Ok(message) => message.map(|message| Delivery {
            qos: message.qos.min(owed.options.qos),
            retain: true,
            subscriptions: owed.identifier.into_iter().collect(),
            message: Arc::new(message),
        }),
        Err(error) => {
            tracing::error!(topic = &*owed.topic, %error, "cannot read a retained message");
            None
        }
    };
    batch.into_iter().filter_map(read_one).collect()
}
