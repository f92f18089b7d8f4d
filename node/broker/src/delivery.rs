//! A message owed to one session, with what its subscriptions make of it.

use crate::budget::Charge;
use crate::codec::{Qos, SubscribeOptions};
use crate::message::Message;
use crate::shared::Group;
use crate::streams::Place;
use std::ops::Deref;
use std::sync::Arc;

/// A message that many sessions are owed.
#[derive(Debug)]
pub(crate) struct Published {
    message: Message,
    _charge: Option<Charge>,
}

impl Published {
    pub(crate) fn new(message: Message, charge: Option<Charge>) -> Arc<Self> {
        let _charge = charge;
        Arc::new(Self { message, _charge })
    }
}

impl Deref for Published {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

/// Where to find the message again, once it is not in memory any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Log(Place),
    /// The retained message of the topic.
    Retained(Arc<str>),
    /// Nowhere: it was not logged, or not yet. Only for sessions that end with their connection.
    Memory,
}

#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub message: Arc<Published>,
    pub source: Source,
    /// The lower of what was published and what was granted.
    pub qos: Qos,
    pub retain: bool,
    /// Subscription identifiers; empty for most.
    pub subscriptions: Box<[u32]>,
    /// The shared subscription that it was taken from.
    pub group: Option<Arc<Group>>,
}

impl Delivery {
    /// A live message under `options`: the retain flag stays only where it was asked for.
    pub(crate) fn live(
        message: Arc<Published>,
        source: Source,
        options: SubscribeOptions,
        subscriptions: Box<[u32]>,
    ) -> Self {
        Self {
            source,
            qos: message.qos.min(options.qos),
            retain: message.retain && options.retain_as_published,
            subscriptions,
            group: None,
            message,
        }
    }

    pub(crate) fn place(&self) -> Option<Place> {
        match self.source {
            Source::Log(place) => Some(place),
            Source::Retained(_) | Source::Memory => None,
        }
    }

    /// What it counts for in the bound of one mailbox.
    pub(crate) fn bytes(&self) -> usize {
        self.message.bytes()
    }
}

#[cfg(any(test, fuzzing))]
impl Delivery {
    /// A message without content.
    pub(crate) fn empty(qos: Qos, source: Source) -> Self {
        let publish = crate::codec::Publish {
            topic: "t".into(),
            qos,
            ..Default::default()
        };
        let message = Message::new(publish, skerry_store::WallNanos(0), None);
        Self {
            message: Published::new(message, None),
            source,
            qos,
            retain: false,
            subscriptions: Box::default(),
            group: None,
        }
    }
}
