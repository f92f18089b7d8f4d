//! Who wants which topic: a tree with one level of the topic per level.

use crate::codec::SubscribeOptions;
use crate::delivery::{Delivery, Published, Source};
use crate::mailbox::Mailbox;
use crate::topic::TopicFilter;
use std::collections::HashMap;
use std::sync::Arc;

/// A subscription as the dispatcher sees it.
#[derive(Debug, Clone)]
pub(crate) struct Subscription {
    pub mailbox: Arc<Mailbox>,
    pub options: SubscribeOptions,
    pub identifier: Option<u32>,
}

/// Values by topic filter and owner. Depth is bounded by the levels a filter may have, so
/// recursion is too.
#[derive(Debug, Clone)]
pub(crate) struct FilterTree<T> {
    root: Node<T>,
    count: usize,
}

#[derive(Debug, Clone)]
struct Node<T> {
    /// Filters that end here.
    here: Vec<(u64, T)>,
    /// Filters that end in `#` below here.
    rest: Vec<(u64, T)>,
    /// The level `+`.
    any: Option<Box<Node<T>>>,
    levels: HashMap<Box<str>, Node<T>>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self {
            here: Vec::new(),
            rest: Vec::new(),
            any: None,
            levels: HashMap::new(),
        }
    }
}

impl<T> Default for FilterTree<T> {
    fn default() -> Self {
        Self {
            root: Node::default(),
            count: 0,
        }
    }
}

impl<T> FilterTree<T> {
    pub(crate) const fn len(&self) -> usize {
        self.count
    }

    /// Adds or replaces; true if that owner did not have the filter before.
    pub(crate) fn insert(&mut self, filter: &TopicFilter, owner: u64, value: T) -> bool {
        let mut node = &mut self.root;
        let mut rest = false;
        for level in filter.as_str().split('/') {
            match level {
                "#" => rest = true,
                "+" => node = node.any.get_or_insert_default(),
                // One lookup more than `entry`, which would need an owned key each time.
                literal => {
                    if !node.levels.contains_key(literal) {
                        node.levels.insert(literal.into(), Node::default());
                    }
                    node = node.levels.get_mut(literal).expect("inserted above");
                }
            }
        }
        let list = if rest { &mut node.rest } else { &mut node.here };
        match list.iter_mut().find(|(held, _)| *held == owner) {
            Some((_, held)) => {
                *held = value;
                false
            }
            None => {
                list.push((owner, value));
                self.count += 1;
                true
            }
        }
    }

    /// Removes the owner's value for exactly this filter.
    pub(crate) fn remove(&mut self, filter: &TopicFilter, owner: u64) -> Option<T> {
        let levels: Vec<&str> = filter.as_str().split('/').collect();
        let removed = self.root.remove(&levels, owner);
        self.count -= usize::from(removed.is_some());
        removed
    }

    /// Every value whose filter matches.
    pub(crate) fn matching<'a>(&'a self, topic: &str, found: &mut impl FnMut(&'a T)) {
        let hidden = topic.starts_with('$');
        self.root.matching(Some(topic), hidden, found);
    }
}

impl FilterTree<Subscription> {
    pub(crate) fn subscribe(&mut self, filter: &TopicFilter, subscription: Subscription) -> bool {
        let owner = subscription.mailbox.number;
        self.insert(filter, owner, subscription)
    }

    /// The subscriptions that match, those of one session next to one another.
    pub(crate) fn subscribers(&self, topic: &str) -> Vec<&Subscription> {
        let mut found = Vec::new();
        self.matching(topic, &mut |subscription| found.push(subscription));
        found.sort_by_key(|subscription: &&Subscription| subscription.mailbox.number);
        found
    }
}

/// One delivery per session among `subscribers`, whatever number of its filters match.
pub(crate) fn deliveries(
    subscribers: &[&Subscription],
    message: &Arc<Published>,
    source: &Source,
    mut deliver: impl FnMut(&Mailbox, Delivery),
) {
    for group in subscribers.chunk_by(|a, b| a.mailbox.number == b.mailbox.number) {
        let mailbox = &group[0].mailbox;
        let own = message.publisher.as_deref() == Some(&mailbox.client_id);
        let wanted = group.iter().map(|one| (one.options, one.identifier));
        if let Some(delivery) = combined(wanted, own, message, source) {
            deliver(mailbox, delivery);
        }
    }
}

/// What a session's matching subscriptions make of a message: the highest QoS they grant, and
/// all their identifiers (5.0, 3.3.4). `own` is a message the session's client published itself.
pub(crate) fn combined(
    subscriptions: impl Iterator<Item = (SubscribeOptions, Option<u32>)>,
    own: bool,
    message: &Arc<Published>,
    source: &Source,
) -> Option<Delivery> {
    let mut wanted = subscriptions.filter(|(options, _)| !(own && options.no_local));
    let (mut options, first) = wanted.next()?;
    let mut identifiers: Vec<u32> = first.into_iter().collect();
    for (other, identifier) in wanted {
        options.qos = options.qos.max(other.qos);
        options.retain_as_published |= other.retain_as_published;
        identifiers.extend(identifier);
    }
    let identifiers = identifiers.into_boxed_slice();
    Some(Delivery::live(
        Arc::clone(message),
        source.clone(),
        options,
        identifiers,
    ))
}

impl<T> Node<T> {
    /// `topic` is what is left of it, `None` past its last level. `hidden` keeps wildcards of the
    /// first level away from topics that start with `$` (4.7.2).
    fn matching<'a>(&'a self, topic: Option<&str>, hidden: bool, found: &mut impl FnMut(&'a T)) {
        if !hidden {
            self.rest.iter().for_each(|(_, value)| found(value));
        }
        let Some(topic) = topic else {
            self.here.iter().for_each(|(_, value)| found(value));
            return;
        };
        let (level, below) = match topic.split_once('/') {
            Some((level, below)) => (level, Some(below)),
            None => (topic, None),
        };
        if let Some(node) = self.levels.get(level) {
            node.matching(below, false, found);
        }
        if let (Some(node), false) = (&self.any, hidden) {
            node.matching(below, false, found);
        }
    }

    fn remove(&mut self, levels: &[&str], owner: u64) -> Option<T> {
        let take = |list: &mut Vec<(u64, T)>| {
            let at = list.iter().position(|(held, _)| *held == owner)?;
            Some(list.remove(at).1)
        };
        match levels {
            [] => take(&mut self.here),
            ["#"] => take(&mut self.rest),
            ["+", below @ ..] => {
                let node = self.any.as_mut()?;
                let removed = node.remove(below, owner);
                if node.is_empty() {
                    self.any = None;
                }
                removed
            }
            [level, below @ ..] => {
                let node = self.levels.get_mut(*level)?;
                let removed = node.remove(below, owner);
                if node.is_empty() {
                    self.levels.remove(*level);
                }
                removed
            }
        }
    }

    fn is_empty(&self) -> bool {
        let no_filter = self.here.is_empty() && self.rest.is_empty();
        no_filter && self.any.is_none() && self.levels.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{PublishProperties, Qos};
    use crate::message::Message;
    use proptest::prelude::*;
    use skerry_store::WallNanos;

    fn message() -> Arc<Published> {
        let message = Message {
            topic: "a/b".into(),
            payload: bytes::Bytes::new(),
            qos: Qos::ExactlyOnce,
            retain: true,
            properties: PublishProperties::default(),
            received: WallNanos(0),
            publisher: None,
        };
        Published::new(message, None)
    }

    fn options(qos: Qos) -> SubscribeOptions {
        SubscribeOptions {
            qos,
            ..SubscribeOptions::default()
        }
    }

    #[test]
    fn overlapping_filters_give_one_delivery_with_the_highest_qos() {
        let wanted = [
            (options(Qos::AtMostOnce), Some(5)),
            (options(Qos::AtLeastOnce), Some(6)),
            (options(Qos::AtMostOnce), None),
        ];
        let found = combined(wanted.into_iter(), false, &message(), &Source::Memory);
        let found = found.expect("wanted");
        assert_eq!(found.qos, Qos::AtLeastOnce);
        assert_eq!(*found.subscriptions, [5, 6]);
        assert!(!found.retain, "nobody asked for the flag");
    }

    #[test]
    fn no_local_spares_the_publisher_only() {
        let mut no_local = options(Qos::AtMostOnce);
        no_local.no_local = true;
        let found = |wanted: &[SubscribeOptions], own| {
            let wanted = wanted.iter().map(|options| (*options, None));
            combined(wanted, own, &message(), &Source::Memory).is_some()
        };
        assert!(!found(&[no_local], true));
        assert!(found(&[no_local], false));
        assert!(found(&[no_local, options(Qos::AtMostOnce)], true));
    }

    proptest! {
        /// The tree agrees with matching every filter by itself, and is empty after all are gone.
        #[test]
        fn tree_matches_like_the_filters(
            filters in proptest::collection::vec("[ab$+]{0,2}(/[ab+]{0,1}){0,3}(/#)?", 1..12),
            topic in "[ab$ü]{1,2}(/[ab]{0,1}){0,3}",
        ) {
            let filters: Vec<_> = filters.iter().filter_map(|f| TopicFilter::new(f).ok()).collect();
            let mut tree = FilterTree::default();
            for (number, filter) in (1..).zip(&filters) {
                prop_assert!(tree.insert(filter, number, number));
                prop_assert!(!tree.insert(filter, number, number));
            }
            let mut found = Vec::new();
            tree.matching(&topic, &mut |number| found.push(*number));
            found.sort_unstable();
            let expected: Vec<u64> = (1..).zip(&filters)
                .filter(|(_, filter)| filter.matches(&topic))
                .map(|(number, _)| number)
                .collect();
            prop_assert_eq!(found, expected);
            for (number, filter) in (1..).zip(&filters) {
                prop_assert_eq!(tree.remove(filter, number), Some(number));
            }
            prop_assert_eq!(tree.len(), 0);
            prop_assert!(tree.root.is_empty());
        }
    }
}
