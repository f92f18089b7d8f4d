//! Topic aliases towards one client (5.0, 3.3.2.3.4): its frequent topics as two bytes. Pure.

use crate::codec::Alias;
use std::num::NonZeroU16;

/// Aliases at most, whatever the client allows: each keeps a topic in memory, and is looked at for
/// each delivery.
const ALIASES_MAX: u16 = 16;
/// A topic that is not longer gains nothing: an alias takes three bytes itself.
const TOPIC_BYTES_MIN: usize = 4;
/// A longer topic would cost the node more memory than it saves the line.
const TOPIC_BYTES_MAX: usize = 512;
/// An alias is given to another topic once it went unused for this many deliveries per alias. A
/// subscriber of more topics than aliases would otherwise have each delivery name its topic and
/// an alias for nothing.
const IDLE_DELIVERIES_PER_ALIAS: u64 = 4;

#[derive(Debug, Default)]
pub(crate) struct Aliases {
    /// How many the client takes.
    max: usize,
    /// The alias of an entry is its place, counted from one.
    topics: Vec<Entry>,
    deliveries: u64,
}

#[derive(Debug)]
struct Entry {
    /// Empty where the client was never told.
    topic: Box<str>,
    /// The number of the delivery that used it last.
    used: u64,
}

impl Aliases {
    /// `topic_alias_maximum` is what the client's CONNECT says.
    pub(crate) fn new(topic_alias_maximum: u16) -> Self {
        Self {
            max: topic_alias_maximum.min(ALIASES_MAX).into(),
            ..Self::default()
        }
    }

    /// The alias to send with a delivery on `topic`. If the delivery does not go out after all,
    /// [`Aliases::take_back`] must follow.
    pub(crate) fn of(&mut self, topic: &str) -> Option<Alias> {
        if !(TOPIC_BYTES_MIN..=TOPIC_BYTES_MAX).contains(&topic.len()) {
            return None;
        }
        self.deliveries += 1;
        let used = self.deliveries;
        let known = self.topics.iter().position(|entry| *entry.topic == *topic);
        if let Some(place) = known {
            self.topics[place].used = used;
            return Some(alias(place, true));
        }
        let place = self.free_place()?;
        let entry = Entry {
            topic: topic.into(),
            used,
        };
        match self.topics.get_mut(place) {
            Some(idle) => *idle = entry,
            None => self.topics.push(entry),
        }
        Some(alias(place, false))
    }

    fn free_place(&self) -> Option<usize> {
        if self.topics.len() < self.max {
            return Some(self.topics.len());
        }
        if let Some(untold) = self.topics.iter().position(|entry| entry.topic.is_empty()) {
            return Some(untold);
        }
        let oldest = (0..self.topics.len()).min_by_key(|place| self.topics[*place].used)?;
        let idle = self.deliveries - self.topics[oldest].used;
        (idle > IDLE_DELIVERIES_PER_ALIAS * self.max as u64).then_some(oldest)
    }

    /// The client was not sent what would have told it a new alias.
    pub(crate) fn take_back(&mut self, alias: Alias) {
        if !alias.is_known {
            self.topics[usize::from(alias.number.get()) - 1].topic = Box::default();
        }
    }
}

fn alias(place: usize, is_known: bool) -> Alias {
    let number = u16::try_from(place + 1).ok().and_then(NonZeroU16::new);
    Alias {
        number: number.expect("places are below ALIASES_MAX"),
        is_known,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn of(aliases: &mut Aliases, topic: &str) -> Option<(u16, bool)> {
        let alias = aliases.of(topic)?;
        Some((alias.number.get(), alias.is_known))
    }

    #[test]
    fn a_topic_gets_an_alias_and_keeps_it() {
        let mut aliases = Aliases::new(2);
        assert_eq!(of(&mut aliases, "topic/a"), Some((1, false)));
        assert_eq!(of(&mut aliases, "topic/b"), Some((2, false)));
        assert_eq!(of(&mut aliases, "topic/a"), Some((1, true)));
        assert_eq!(of(&mut aliases, "topic/b"), Some((2, true)));
    }

    #[test]
    fn clients_that_take_none_get_none_and_no_topic_that_would_not_gain() {
        assert_eq!(of(&mut Aliases::new(0), "topic/a"), None);
        assert_eq!(of(&mut Aliases::default(), "topic/a"), None);
        let mut aliases = Aliases::new(9);
        assert_eq!(of(&mut aliases, "a/b"), None);
        assert_eq!(of(&mut aliases, &"a".repeat(TOPIC_BYTES_MAX + 1)), None);
    }

    #[test]
    fn aliases_are_bounded_by_the_client_and_by_us() {
        for (client, expected) in [(3, 3), (u16::MAX, usize::from(ALIASES_MAX))] {
            let mut aliases = Aliases::new(client);
            let topics = (0..100).map(|number| format!("topic/{number}"));
            let given = topics.filter_map(|topic| aliases.of(&topic));
            let numbers: BTreeSet<_> = given.map(|alias| alias.number).collect();
            assert_eq!(numbers.len(), expected);
        }
    }

    #[test]
    fn only_an_alias_that_went_idle_is_given_away() {
        let mut aliases = Aliases::new(2);
        of(&mut aliases, "busy/one");
        of(&mut aliases, "idle/one");
        assert_eq!(of(&mut aliases, "new/one"), None, "both are in use");
        for _ in 0..2 * IDLE_DELIVERIES_PER_ALIAS {
            assert_eq!(of(&mut aliases, "busy/one"), Some((1, true)));
        }
        assert_eq!(of(&mut aliases, "new/one"), Some((2, false)));
        assert_eq!(of(&mut aliases, "new/one"), Some((2, true)));
        assert_eq!(of(&mut aliases, "idle/one"), None);
    }

    #[test]
    fn an_alias_that_the_client_was_not_told_is_told_with_the_next() {
        let mut aliases = Aliases::new(1);
        let alias = aliases.of("topic/a").expect("one is free");
        aliases.take_back(alias);
        assert_eq!(of(&mut aliases, "topic/b"), Some((1, false)));
        let known = aliases.of("topic/b").expect("known");
        aliases.take_back(known);
        assert_eq!(of(&mut aliases, "topic/b"), Some((1, true)), "it was told");
    }
}
