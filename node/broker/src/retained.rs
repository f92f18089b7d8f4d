//! Retained messages: values in the catalog's bucket `retained`, topics in memory.
//!
//! A value changes in the same append as the record that caused it, so log and retained message
//! never disagree, whatever crashes. The topics are kept sorted in memory (about their own length
//! each) so that a SUBSCRIBE finds its matches without walking the catalog.

use crate::error::Error;
use crate::message::Message;
use crate::topic::TopicFilter;
use bytes::Bytes;
use skerry_store::{Change, Log};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The catalog bucket; its keys are topics, its values [`Message::to_bytes`].
const BUCKET: &str = "retained";

pub(crate) struct Retained {
    topics: Mutex<Topics>,
    topics_max: usize,
    /// What the broker says of itself, under [`SYS_PREFIX`]: never in the catalog.
    sys: Mutex<BTreeMap<Arc<str>, Message>>,
}

/// Topics that only the broker itself publishes to, and that are not logged.
pub(crate) const SYS_PREFIX: &str = "$SYS/";

#[derive(Default)]
struct Topics {
    kept: BTreeSet<Arc<str>>,
    /// On their way to the disk, and not kept yet: the bound holds for both together.
    promised: HashSet<Box<str>>,
}

impl Retained {
    /// Reads the topics. Blocks on the disk.
    pub(crate) fn load(log: &Log, topics_max: usize) -> Result<Self, Error> {
        let entries = log.scan(BUCKET, b"")?;
        let topics = entries
            .iter()
            .filter_map(|(key, _)| std::str::from_utf8(key).ok());
        Ok(Self {
            topics: Mutex::new(Topics {
                kept: topics.map(Arc::from).collect(),
                promised: HashSet::new(),
            }),
            topics_max,
            sys: Mutex::default(),
        })
    }

    fn topics(&self) -> MutexGuard<'_, Topics> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn len(&self) -> usize {
        self.topics().kept.len()
    }

    /// The change that belongs into the message's append. Only an empty payload *with* the retain
    /// flag clears (3.3.1.3). `Err` means: one topic too many. If the append fails,
    /// [`Retained::refused`] gives the topic's place to others.
    pub(crate) fn change(&self, message: &Message) -> Result<Option<Change>, TooMany> {
        if !message.retain {
            return Ok(None);
        }
        let key = Bytes::copy_from_slice(message.topic.as_bytes());
        let bucket = BUCKET.to_owned();
        if message.payload.is_empty() {
            return Ok(Some(Change::Delete { bucket, key }));
        }
        let topic = message.topic.as_str();
        let mut topics = self.topics();
        if !topics.kept.contains(topic) && !topics.promised.contains(topic) {
            if topics.kept.len() + topics.promised.len() >= self.topics_max {
                return Err(TooMany);
            }
            topics.promised.insert(topic.into());
        }
        drop(topics);
        let value = message.to_bytes();
        Ok(Some(Change::Put { bucket, key, value }))
    }

    /// The record that carried [`Retained::change`] is on disk. Called in the order of the log.
    pub(crate) fn set(&self, topic: &str, cleared: bool) {
        let mut topics = self.topics();
        topics.promised.remove(topic);
        if cleared {
            topics.kept.remove(topic);
        } else if !topics.kept.contains(topic) {
            topics.kept.insert(topic.into());
        }
    }

    /// The append with [`Retained::change`] failed.
    pub(crate) fn refused(&self, topic: &str) {
        self.topics().promised.remove(topic);
    }

    fn sys(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Message>> {
        self.sys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces what the broker says of itself; false if it said the same before.
    pub(crate) fn say(&self, message: &Message) -> bool {
        let mut sys = self.sys();
        let same = |held: &Message| held.payload == message.payload;
        if sys.get(message.topic.as_str()).is_some_and(same) {
            return false;
        }
        sys.insert(message.topic.as_str().into(), message.clone());
        true
    }

    /// The topics a new subscription gets, in order.
    pub(crate) fn matching(&self, filter: &TopicFilter) -> Vec<Arc<str>> {
        if filter.as_str().starts_with('$') {
            let sys = self.sys();
            let matching = sys.keys().filter(|topic| filter.matches(topic));
            return matching.cloned().collect();
        }
        let topics = self.topics();
        if !filter.has_wildcard() {
            let found = topics.kept.get(filter.as_str());
            return found.cloned().into_iter().collect();
        }
        let prefix = filter.literal_prefix();
        let from = (Bound::Included(prefix), Bound::Unbounded);
        topics
            .kept
            .range::<str, _>(from)
            .take_while(|topic| topic.starts_with(prefix))
            .filter(|topic| filter.matches(topic))
            .cloned()
            .collect()
    }

    /// The message as it is now. Blocks on the disk.
    pub(crate) fn get(
        &self,
        log: &Log,
        topic: &str,
    ) -> Result<Option<Message>, skerry_store::Error> {
        if topic.starts_with(SYS_PREFIX) {
            return Ok(self.sys().get(topic).cloned());
        }
        let value = log.get(BUCKET, topic.as_bytes())?;
        Ok(value.and_then(Message::from_bytes))
    }
}

/// The bound on retained topics is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{PublishProperties, Qos};
    use skerry_store::WallNanos;

    fn message(topic: &str, payload: &'static [u8], retain: bool) -> Message {
        Message {
            topic: topic.into(),
            payload: Bytes::from_static(payload),
            qos: Qos::AtMostOnce,
            retain,
            properties: PublishProperties::default(),
            received: WallNanos(0),
            publisher: None,
        }
    }

    fn retained(topics_max: usize) -> Retained {
        Retained {
            topics: Mutex::default(),
            topics_max,
            sys: Mutex::default(),
        }
    }

    #[test]
    fn only_an_empty_payload_with_the_flag_clears() {
        let retained = retained(9);
        assert_eq!(retained.change(&message("a", b"", false)), Ok(None));
        let clear = retained.change(&message("a", b"", true));
        assert!(matches!(clear, Ok(Some(Change::Delete { .. }))));
        retained.set("a", false);
        assert_eq!(retained.len(), 1);
        retained.set("a", true);
        assert_eq!(retained.len(), 0);
    }

    #[test]
    fn the_bound_refuses_new_topics_only() {
        let retained = retained(1);
        retained.set("a", false);
        assert!(retained.change(&message("a", b"2", true)).is_ok());
        assert_eq!(retained.change(&message("b", b"2", true)), Err(TooMany));
        retained.set("a", true);
        assert!(retained.change(&message("b", b"2", true)).is_ok());
        let other = message("c", b"2", true);
        assert_eq!(
            retained.change(&other),
            Err(TooMany),
            "the place is promised"
        );
        retained.refused("b");
        assert!(retained.change(&other).is_ok());
    }

    #[test]
    fn matching_walks_only_the_literal_prefix_and_misses_nothing() {
        let retained = retained(99);
        for topic in ["a", "a/b", "a/b/c", "ab", "b", "ü/x"] {
            retained.set(topic, false);
        }
        let matching = |filter: &str| -> Vec<String> {
            let filter = TopicFilter::new(filter).expect("well formed");
            let topics = retained.matching(&filter);
            topics.iter().map(ToString::to_string).collect()
        };
        assert_eq!(matching("a/#"), ["a", "a/b", "a/b/c"]);
        assert_eq!(matching("a/+"), ["a/b"]);
        assert_eq!(matching("#"), ["a", "a/b", "a/b/c", "ab", "b", "ü/x"]);
        assert!(retained.say(&message("$SYS/x", b"1", true)));
        assert!(!retained.say(&message("$SYS/x", b"1", true)));
        assert_eq!(matching("$SYS/#"), ["$SYS/x"]);
        assert_eq!(matching("+/x"), ["ü/x"]);
        assert_eq!(matching("ab"), ["ab"]);
    }
}
