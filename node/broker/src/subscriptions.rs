//! Who wants which topic: a tree with one level of the topic per level.

use crate::codec::SubscribeOptions;
use crate::mailbox::{Delivery, Mailbox};
use crate::message::Message;
use crate::topic::TopicFilter;
use std::collections::HashMap;
use std::sync::Arc;

#[derive(Debug, Clone)]
pub(crate) struct Subscription {
    pub mailbox: Arc<Mailbox>,
    pub options: SubscribeOptions,
    pub identifier: Option<u32>,
}

/// Depth is bounded by the levels a filter may have, so recursion is too.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    root: Node,
    count: usize,
}

#[derive(Debug, Default)]
struct Node {
    /// Filters that end here.
    here: Vec<Subscription>,
    /// Filters that end in `#` below here.
    rest: Vec<Subscription>,
    /// The level `+`.
    any: Option<Box<Node>>,
    levels: HashMap<Box<str>, Node>,
}

impl Tree {
    pub(crate) const fn len(&self) -> usize {
        self.count
    }

    /// Adds or replaces; true if that session did not have the filter before.
    pub(crate) fn insert(&mut self, filter: &TopicFilter, subscription: Subscription) -> bool {
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
        let number = subscription.mailbox.number;
        match list.iter_mut().find(|held| held.mailbox.number == number) {
            Some(held) => {
                *held = subscription;
                false
            }
            None => {
                list.push(subscription);
                self.count += 1;
                true
            }
        }
    }

    /// Removes the session's subscription to exactly this filter; false if there was none.
    pub(crate) fn remove(&mut self, filter: &TopicFilter, session: u64) -> bool {
        let levels: Vec<&str> = filter.as_str().split('/').collect();
        let removed = self.root.remove(&levels, session);
        self.count -= usize::from(removed);
        removed
    }

    /// One delivery per session that is subscribed, whatever number of its filters match: the
    /// highest QoS they grant, and all their identifiers (5.0, 3.3.4).
    pub(crate) fn deliveries(
        &self,
        message: &Arc<Message>,
        mut deliver: impl FnMut(&Arc<Mailbox>, Delivery),
    ) {
        let mut found = Vec::new();
        self.matching(&message.topic, &mut |subscription| {
            let own = subscription.mailbox.number == message.origin;
            if !(own && subscription.options.no_local) {
                found.push(subscription);
            }
        });
        found.sort_unstable_by_key(|subscription| subscription.mailbox.number);
        for group in found.chunk_by(|a, b| a.mailbox.number == b.mailbox.number) {
            let mut options = group[0].options;
            for other in &group[1..] {
                options.qos = options.qos.max(other.options.qos);
                options.retain_as_published |= other.options.retain_as_published;
            }
            let identifiers = group.iter().filter_map(|one| one.identifier).collect();
            deliver(
                &group[0].mailbox,
                Delivery::live(Arc::clone(message), options, identifiers),
            );
        }
    }

    fn matching<'a>(&'a self, topic: &str, found: &mut impl FnMut(&'a Subscription)) {
        let hidden = topic.starts_with('$');
        self.root.matching(Some(topic), hidden, found);
    }
}

impl Node {
    /// `topic` is what is left of it, `None` past its last level. `hidden` keeps wildcards of the
    /// first level away from topics that start with `$` (4.7.2).
    fn matching<'a>(
        &'a self,
        topic: Option<&str>,
        hidden: bool,
        found: &mut impl FnMut(&'a Subscription),
    ) {
        if !hidden {
            self.rest.iter().for_each(&mut *found);
        }
        let Some(topic) = topic else {
            self.here.iter().for_each(found);
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

    fn remove(&mut self, levels: &[&str], session: u64) -> bool {
        let take = |list: &mut Vec<Subscription>| {
            let at = list.iter().position(|held| held.mailbox.number == session);
            at.map(|at| list.swap_remove(at)).is_some()
        };
        match levels {
            [] => take(&mut self.here),
            ["#"] => take(&mut self.rest),
            ["+", below @ ..] => {
                let Some(node) = &mut self.any else {
                    return false;
                };
                let removed = node.remove(below, session);
                if node.is_empty() {
                    self.any = None;
                }
                removed
            }
            [level, below @ ..] => {
                let Some(node) = self.levels.get_mut(*level) else {
                    return false;
                };
                let removed = node.remove(below, session);
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
    use crate::mailbox::MailboxLimits;
    use bytes::Bytes;
    use proptest::prelude::*;
    use skerry_store::WallNanos;

    fn mailbox(number: u64) -> Arc<Mailbox> {
        let limits = MailboxLimits {
            messages_max: 9,
            bytes_max: 9999,
        };
        Arc::new(Mailbox::new(number, "c".into(), limits))
    }

    fn message(topic: &str, origin: u64) -> Arc<Message> {
        Arc::new(Message {
            topic: topic.into(),
            payload: Bytes::new(),
            qos: Qos::ExactlyOnce,
            retain: true,
            properties: PublishProperties::default(),
            received: WallNanos(0),
            origin,
        })
    }

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::new(text).expect("well formed")
    }

    fn subscription(number: u64, qos: Qos) -> Subscription {
        Subscription {
            mailbox: mailbox(number),
            options: SubscribeOptions {
                qos,
                ..SubscribeOptions::default()
            },
            identifier: None,
        }
    }

    #[test]
    fn overlapping_filters_give_one_delivery_with_the_highest_qos() {
        let mut tree = Tree::default();
        let box_1 = mailbox(1);
        for (text, qos, identifier) in [
            ("a/#", Qos::AtMostOnce, 5),
            ("a/+", Qos::AtLeastOnce, 6),
            ("#", Qos::AtMostOnce, 7),
        ] {
            let options = SubscribeOptions {
                qos,
                ..SubscribeOptions::default()
            };
            let subscription = Subscription {
                mailbox: Arc::clone(&box_1),
                options,
                identifier: Some(identifier),
            };
            assert!(tree.insert(&filter(text), subscription));
        }
        tree.insert(&filter("a/b"), subscription(2, Qos::ExactlyOnce));
        let mut seen = Vec::new();
        tree.deliveries(&message("a/b", 0), |mailbox, delivery| {
            let mut identifiers = delivery.subscriptions.to_vec();
            identifiers.sort_unstable();
            seen.push((mailbox.number, delivery.qos, identifiers, delivery.retain));
        });
        assert_eq!(
            seen,
            [
                (1, Qos::AtLeastOnce, vec![5, 6, 7], false),
                (2, Qos::ExactlyOnce, vec![], false)
            ]
        );
    }

    #[test]
    fn no_local_spares_the_publisher_only() {
        let mut tree = Tree::default();
        let mut own = subscription(1, Qos::AtMostOnce);
        own.options.no_local = true;
        tree.insert(&filter("#"), own);
        let mut count = 0;
        tree.deliveries(&message("a", 1), |_, _| count += 1);
        assert_eq!(count, 0);
        tree.deliveries(&message("a", 2), |_, _| count += 1);
        assert_eq!(count, 1);
    }

    proptest! {
        /// The tree agrees with matching every filter by itself, and is empty after all are gone.
        #[test]
        fn tree_matches_like_the_filters(
            filters in proptest::collection::vec("[ab$+]{0,2}(/[ab+]{0,1}){0,3}(/#)?", 1..12),
            topic in "[ab$ü]{1,2}(/[ab]{0,1}){0,3}",
        ) {
            let filters: Vec<_> = filters.iter().filter_map(|f| TopicFilter::new(f).ok()).collect();
            let mut tree = Tree::default();
            for (number, filter) in (1..).zip(&filters) {
                tree.insert(filter, subscription(number, Qos::AtMostOnce));
            }
            let mut found = Vec::new();
            tree.deliveries(&message(&topic, 0), |mailbox, _| found.push(mailbox.number));
            let expected: Vec<u64> = (1..).zip(&filters)
                .filter(|(_, filter)| filter.matches(&topic))
                .map(|(number, _)| number)
                .collect();
            prop_assert_eq!(found, expected);
            for (number, filter) in (1..).zip(&filters) {
                prop_assert!(tree.remove(filter, number));
            }
            prop_assert_eq!(tree.len(), 0);
            prop_assert!(tree.root.is_empty());
        }
    }
}
