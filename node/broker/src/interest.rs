//! What one session is subscribed to, by itself: for reading the log, and for the catalog.

use crate::codec::SubscribeOptions;
use crate::delivery::{Delivery, Published, Source};
use crate::streams::{Place, Positions};
use crate::subscriptions::{FilterTree, combined};
use crate::topic::TopicFilter;
use std::sync::Arc;

/// One subscription.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub options: SubscribeOptions,
    pub identifier: Option<u32>,
    /// Messages before these were published before it was made.
    pub since: Positions,
}

impl Wanted {
    fn covers(&self, place: Place) -> bool {
        let since = self.since.get(place.stream);
        since.is_none_or(|since| *since <= place.offset)
    }
}

/// The subscriptions of one session.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interest(FilterTree<Wanted>);

impl Interest {
    pub(crate) fn insert(&mut self, filter: &TopicFilter, wanted: Wanted) {
        self.0.insert(filter, 0, wanted);
    }

    /// Whether the message at `place` is wanted at all.
    pub(crate) fn wants(&self, topic: &str, place: Place) -> bool {
        let mut wanted = false;
        self.0
            .matching(topic, &mut |one| wanted |= one.covers(place));
        wanted
    }

    /// What the subscriptions make of it. `own` is a message that the client published itself.
    pub(crate) fn delivery(
        &self,
        message: &Arc<Published>,
        place: Place,
        own: bool,
    ) -> Option<Delivery> {
        let mut matching = Vec::new();
        self.0.matching(&message.topic, &mut |one| {
            if one.covers(place) {
                matching.push((one.options, one.identifier));
            }
        });
        combined(matching.into_iter(), own, message, &Source::Log(place))
    }
}
