//! Publishing groups: nodes that the server reports on at a pace of their own.
//!
//! Each group is a subscription of the endpoint's one session. A server has few sessions and
//! several subscriptions in each, so that is where different paces belong.

use super::config::{Config, Node};
use super::events::EventSource;
use super::folder::Folder;
use super::wire::Pace;
use std::collections::BTreeSet;
use std::time::Duration;

/// Groups of one endpoint; a small PLC has five subscriptions for all of its clients.
pub const GROUPS_MAX: usize = 8;

/// A silent subscription says it is alive this often. With three of them missed, the link is
/// taken for dead: ten seconds is what an operator accepts and a Wi-Fi roam survives.
const KEEP_ALIVE: Duration = Duration::from_secs(3);

/// A pace that nodes can have in place of the endpoint's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    pub publishing_interval: Duration,
    /// Which subscription the server is to serve first where several are due: the highest.
    pub priority: u8,
}

/// A group by its place in [`Config::groups`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupId(u8);

impl GroupId {
    /// `None` beyond [`GROUPS_MAX`].
    #[must_use]
    pub fn new(place: usize) -> Option<Self> {
        let place = u8::try_from(place).ok()?;
        (usize::from(place) < GROUPS_MAX).then_some(Self(place))
    }
}

impl Config {
    /// The groups that something is in, `None` first: the endpoint's own pace.
    #[must_use]
    pub fn groups_in_use(&self) -> BTreeSet<Option<GroupId>> {
        let nodes = self.nodes.iter().map(|node: &Node| node.group);
        let folders = self.folders.iter().map(|folder: &Folder| folder.group);
        let events = self.events.iter().map(|source: &EventSource| source.group);
        nodes.chain(folders).chain(events).collect()
    }

    /// The group of what has this handle.
    pub(super) fn group_of(&self, handle: u32) -> Option<GroupId> {
        match self.nodes.get(handle as usize) {
            Some(node) => node.group,
            None => self.event_source(handle)?.group,
        }
    }

    /// A group's entry in the configuration.
    pub(super) fn group(&self, id: Option<GroupId>) -> Option<&Group> {
        self.groups.get(usize::from(id?.0))
    }

    /// What a group's subscription is asked for.
    pub(super) fn pace(&self, id: Option<GroupId>) -> Pace {
        let group = self.group(id);
        let interval = group.map_or(self.publishing_interval, |group| group.publishing_interval);
        let keep_alive_count = intervals(KEEP_ALIVE, interval).max(1);
        Pace {
            publishing_interval: interval,
            keep_alive_count,
            // At least three keep-alives (Part 4, 5.13.2).
            lifetime_count: intervals(self.outage_budget, interval)
                .max(keep_alive_count.saturating_mul(3)),
            priority: group.map_or(0, |group| group.priority),
        }
    }
}

fn intervals(time: Duration, interval: Duration) -> u32 {
    u32::try_from(time.as_millis().div_ceil(interval.as_millis().max(1))).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::config::tests::config;
    use super::*;

    #[test]
    fn every_group_outlives_the_outage_budget_at_its_own_pace() {
        let mut config = config();
        for (name, interval_ms) in [("fast", 100), ("slow", 20_000)] {
            config.groups.push(Group {
                name: name.to_owned(),
                publishing_interval: Duration::from_millis(interval_ms),
                priority: 7,
            });
        }
        let ids = [None, GroupId::new(0), GroupId::new(1)];
        for (id, keep_alives) in ids.into_iter().zip([6, 30, 1]) {
            let pace = config.pace(id);
            assert_eq!(pace.keep_alive_count, keep_alives);
            let lifetime = pace.publishing_interval * pace.lifetime_count;
            assert_eq!(lifetime, config.outage_budget);
            assert_eq!(pace.priority, if id.is_some() { 7 } else { 0 });
        }
        assert_eq!(GroupId::new(GROUPS_MAX), None);
    }
}
