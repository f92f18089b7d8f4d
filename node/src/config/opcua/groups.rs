//! `groups` of an `[[opcua]]`, or `[[opcua.group]]`: paces for those nodes, folders and events that
//! name one.

use super::super::reader::{Severity, Table, Value};
use super::super::units;
use super::INTERVALS;
use skerry_bridge::opcua::{GROUPS_MAX, Group, GroupId};
use std::cell::Cell;
use std::ops::RangeInclusive;
use std::time::Duration;

/// OPC-UA has a byte for them.
const PRIORITIES: RangeInclusive<usize> = 0..=255;
/// Both ways to write them.
const KEYS: [&str; 2] = ["groups", "group"];

/// The paces of one endpoint.
pub(super) struct Paces {
    /// Of what is in no group.
    interval: Duration,
    /// `None` for one with a problem, which was noted.
    groups: Vec<(String, Option<Group>, Cell<bool>)>,
}

impl Paces {
    pub(super) fn read(server: &Table<'_>, interval: Duration) -> Self {
        let tables = tables(server);
        let mut paces = Self {
            interval,
            groups: Vec::new(),
        };
        for table in &tables {
            let name = table.required("name", |value| {
                let name = units::text(value)?;
                match paces.groups.iter().any(|(known, ..)| *known == name) {
                    true => Err(format!("`{name}` is already the name of another group")),
                    false => Ok(name),
                }
            });
            let interval = table.required("publishing_interval", units::duration(INTERVALS));
            let priority = table.optional("priority", units::count(PRIORITIES));
            table.finish();
            let Some(name) = name else {
                continue;
            };
            let priority = priority.and_then(|priority| u8::try_from(priority).ok());
            let group = interval.map(|publishing_interval| Group {
                name: name.clone(),
                publishing_interval,
                priority: priority.unwrap_or_default(),
            });
            paces.groups.push((name, group, Cell::new(false)));
        }
        if tables.len() > GROUPS_MAX {
            let message = format!(
                "has {} groups; {GROUPS_MAX} are the most, since each is a subscription, of which \
                 servers have few",
                tables.len()
            );
            server.problem(key(server), message);
        }
        paces
    }

    /// The group of a node, folder or event source, and the pace that goes with it.
    pub(super) fn of(&self, table: &Table<'_>) -> (Option<GroupId>, Duration) {
        let place = table.optional("group", |value| self.place(value));
        let group = place.and_then(|place| self.groups.get(place)?.1.as_ref());
        (
            place.and_then(GroupId::new),
            group.map_or(self.interval, |group| group.publishing_interval),
        )
    }

    fn place(&self, value: &Value<'_>) -> Result<usize, String> {
        let wanted = value.string()?;
        let place = self.groups.iter().position(|(name, ..)| name == wanted);
        let Some(place) = place else {
            let names = self.groups.iter().map(|(name, ..)| name.as_str());
            return Err(match names.collect::<Vec<_>>().join(", ") {
                none if none.is_empty() => format!(
                    "`{wanted}` is no group here: add [[opcua.group]] with this name and a \
                     publishing_interval"
                ),
                known => format!("`{wanted}` is no group here; there is: {known}"),
            });
        };
        self.groups[place].2.set(true);
        Ok(place)
    }

    /// All of them, or `None` when one has a problem; tells of those that nothing is in.
    pub(super) fn finish(self, server: &Table<'_>) -> Option<Vec<Group>> {
        for (name, _, used) in &self.groups {
            if !used.get() {
                let message = format!("nothing is in `{name}`: set group = \"{name}\" at nodes");
                server.remark(key(server), Severity::Warning, message);
            }
        }
        self.groups.into_iter().map(|(_, group, _)| group).collect()
    }
}

pub(super) fn tables<'s>(server: &Table<'s>) -> Vec<Table<'s>> {
    KEYS.iter().flat_map(|key| server.tables(key)).collect()
}

/// The one that is used.
pub(super) fn key(server: &Table<'_>) -> &'static str {
    KEYS.into_iter()
        .find(|key| server.has(key))
        .unwrap_or(KEYS[0])
}
