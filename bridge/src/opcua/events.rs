//! Events and alarms: which are subscribed to, and what becomes of them.
//!
//! A record: `source` the configured name, the attribute [`EVENT`], the payload an object of the
//! event's fields: `{"EventId": …, "Message": …, "Severity": 700, …}`. Of a condition it has what
//! acknowledging it takes, `ConditionId` and `EventId`. Conditions that already stood when the
//! subscription was made come once more, with [`REFRESHED`].

use super::address::NodeAddress;
use super::config::Config;
use super::error::{Error, status};
use super::groups::GroupId;
use super::ingest::Ingest;
use super::link::Link;
use super::nodes::Refused;
use super::value::Value;
use super::wire::{Event, EventItem, Session, field_names};
use bytes::Bytes;
use skerry_store::{Kind, Record, WallNanos};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

/// Attribute of an event's record: `condition` of one that has a state, `event` otherwise.
pub const EVENT: &str = "opcua-event";
/// Attribute of an event's record, `true`: no news, but how a condition stands now that the
/// subscription was made.
pub const REFRESHED: &str = "opcua-refreshed";

/// The `Server` object, which reports what any part of it does (Part 5, 8.3.2).
const SERVER: &str = "i=2253";
/// Events of these types speak of the others (Part 9, 5.11; Part 4, 7.22.3).
const REFRESH_START: &str = "i=2787";
const REFRESH_END: &str = "i=2788";
const REFRESH_REQUIRED: &str = "i=2789";
const QUEUE_OVERFLOW: &str = "i=3035";

/// Of events that a refresh brought, whose ids are remembered.
const REFRESHED_MAX: usize = 10_000;

/// A node whose events are subscribed to: the server itself, or an area of the plant.
#[derive(Debug, Clone, PartialEq)]
pub struct EventSource {
    /// Source of its records, hence its key in the cluster.
    pub name: String,
    pub id: NodeAddress,
    /// Events of a lower severity, of 1 to 1,000, are left out.
    pub severity_min: u16,
    /// Fields beside the standard ones, by their browse paths: `2:Batch/2:Number`.
    pub fields: Vec<String>,
    /// Whose pace they are reported at, if not the endpoint's.
    pub group: Option<GroupId>,
}

impl EventSource {
    /// All severities (Part 5, 6.4.2).
    pub const SEVERITY_MIN: u16 = 1;

    /// Everything that the server reports, or of a node of it.
    #[must_use]
    pub fn new(name: impl Into<String>, id: Option<NodeAddress>) -> Self {
        let server = || SERVER.parse().expect("it is a node id");
        Self {
            name: name.into(),
            id: id.unwrap_or_else(server),
            severity_min: Self::SEVERITY_MIN,
            fields: Vec::new(),
            group: None,
        }
    }

    /// What is asked for of it. The fingerprints of subscriptions are made of this text: it must
    /// not change.
    pub(super) fn text(&self) -> String {
        let Self {
            name,
            id,
            severity_min,
            fields,
            group: _,
        } = self;
        format!(
            "EventSource {{ name: {name:?}, id: {id:?}, severity_min: {severity_min:?}, \
             fields: {fields:?} }}"
        )
    }

    /// Whether a field of this name is there without being asked for.
    #[must_use]
    pub fn is_standard(field: &str) -> bool {
        field_names(&[]).any(|standard| standard == field)
    }
}

/// Handles of event sources start here, far behind those of nodes, which become more while a
/// subscription runs.
pub(super) const EVENT_HANDLES: u32 = 1 << 24;

/// What is going on with the events of a connection.
#[derive(Debug, Default)]
pub(super) struct Going {
    /// Handles of sources between the start and the end of a refresh.
    refreshing: BTreeSet<u32>,
    /// Handles of sources that are told of a start.
    told: BTreeSet<u32>,
    /// Ids of events of the last refresh, for the sources that are not (node-opcua tells those who
    /// listen to the server, and nobody else).
    refreshed: HashSet<String>,
    /// The server has lost track and asks to be asked again.
    pub(super) refresh_due: bool,
}

impl Going {
    /// Looks through a message for what it says of a refresh, ahead of its events' records: an
    /// area's may stand in front of the server's.
    pub(super) fn look_at(&mut self, events: &[Event]) {
        let mut refreshing = self.refreshing.clone();
        for event in events {
            match event.event_type() {
                Some(REFRESH_START) => {
                    if refreshing.is_empty() {
                        self.refreshed.clear();
                    }
                    refreshing.insert(event.handle);
                    self.told.insert(event.handle);
                }
                Some(REFRESH_END) => drop(refreshing.remove(&event.handle)),
                Some(REFRESH_REQUIRED) => self.refresh_due = true,
                _ => {
                    let more = self.refreshed.len() < REFRESHED_MAX;
                    if let Some(id) = event.id()
                        && more
                        && refreshing.contains(&event.handle)
                    {
                        self.refreshed.insert(id.to_owned());
                    }
                }
            }
        }
    }

    /// Whether it is how a condition stands, and no news.
    fn is_refreshed(&self, event: &Event) -> bool {
        match self.told.contains(&event.handle) {
            true => self.refreshing.contains(&event.handle),
            false => event.id().is_some_and(|id| self.refreshed.contains(id)),
        }
    }
}

impl Link {
    /// Has the server monitor the events of those of `handles` that are event sources, adds what
    /// it will not to `refused`, and asks how its conditions stand.
    pub(super) async fn monitor_events(
        &mut self,
        session: &Session,
        handles: &[u32],
        refused: &mut Refused,
    ) -> Result<(), Error> {
        let config = Arc::clone(&self.ingest.config);
        let sources: Vec<(u32, &EventSource)> = handles
            .iter()
            .filter_map(|handle| Some((*handle, config.event_source(*handle)?)))
            .collect();
        if sources.is_empty() {
            return Ok(());
        }
        let namespaces = session.namespaces().await?;
        for strand in 0..self.strands.len() {
            let (group, subscription) = self.strands[strand].at_server();
            let mut items = Vec::new();
            for (handle, source) in sources.iter().filter(|(_, it)| it.group == group) {
                match source.id.resolve(&namespaces) {
                    Some(node) => items.push(EventItem {
                        handle: *handle,
                        node,
                        severity_min: source.severity_min,
                        fields: &source.fields,
                        conditions: true,
                    }),
                    None => drop(refused.insert(*handle, status::BAD_NODE_ID_UNKNOWN)),
                }
            }
            let all = items.len();
            let mut without = Vec::new();
            for (mut item, code) in monitored(session, subscription, items).await? {
                item.conditions = false;
                without.push(item);
                tracing::debug!(code, "the server does not take the fields of conditions");
            }
            let left = monitored(session, subscription, without).await?;
            let monitors = left.len() < all;
            refused.extend(left.into_iter().map(|(item, code)| (item.handle, code)));
            if monitors {
                self.going = Going::default();
                self.refresh(session, subscription).await;
            }
        }
        Ok(())
    }

    /// As [`Self::refresh`], of every subscription that has events.
    pub(super) async fn refresh_all(&mut self, session: &Session) {
        for strand in 0..self.strands.len() {
            let (group, subscription) = self.strands[strand].at_server();
            let events = &self.ingest.config.events;
            if events.iter().any(|source| source.group == group) {
                self.refresh(session, subscription).await;
            }
        }
    }

    /// Asks how the conditions stand. Few servers have any; without, there is nothing to tell.
    async fn refresh(&mut self, session: &Session, subscription: u32) {
        self.going.refresh_due = false;
        if let Err(error) = session.refresh_conditions(subscription).await {
            tracing::info!(
                endpoint = self.ingest.config.name, %error,
                "alarms that stand already are not told; those that come will be"
            );
        }
    }
}

/// Those of `items` that the server does not monitor, and why.
async fn monitored<'a>(
    session: &Session,
    subscription: u32,
    items: Vec<EventItem<'a>>,
) -> Result<Vec<(EventItem<'a>, u32)>, Error> {
    if items.is_empty() {
        return Ok(Vec::new());
    }
    let results = session.monitor_events(subscription, &items).await?;
    let refused = items.into_iter().zip(results);
    Ok(refused
        .filter_map(|(item, result)| Some((item, result.err()?)))
        .collect())
}

impl Config {
    pub(super) fn event_source(&self, handle: u32) -> Option<&EventSource> {
        let index = (handle as usize).checked_sub(EVENT_HANDLES as usize)?;
        self.events.get(index)
    }

    /// The handles of everything that is subscribed to.
    pub(super) fn handles(&self) -> impl Iterator<Item = u32> {
        let nodes = (0..).take(self.nodes.len());
        nodes.chain((EVENT_HANDLES..).take(self.events.len()))
    }

    /// Name and node of what has this handle.
    pub(super) fn named(&self, handle: u32) -> Option<(&str, &NodeAddress)> {
        match self.nodes.get(handle as usize) {
            Some(node) => Some((&node.name, &node.id)),
            None => {
                let source = self.event_source(handle)?;
                Some((&source.name, &source.id))
            }
        }
    }
}

impl Ingest {
    /// The record that an event becomes: its own, a gap where the server gave events up, none
    /// where it only speaks of others or is less severe than asked for.
    pub(super) fn event(&self, going: &mut Going, event: Event, news: WallNanos) -> Option<Record> {
        let source = self.config.event_source(event.handle)?;
        match event.event_type() {
            Some(REFRESH_START) => {
                going.refreshing.insert(event.handle);
                return None;
            }
            Some(REFRESH_END) => {
                going.refreshing.remove(&event.handle);
                return None;
            }
            Some(REFRESH_REQUIRED) => return None,
            Some(QUEUE_OVERFLOW) => {
                let reason = "the server's queue for these events overflowed";
                return Some(self.gap(&source.name, None, Some(news), reason.to_owned()));
            }
            _ => {}
        }
        let refreshed = going.is_refreshed(&event);
        let fields = Fields::new(source, event.fields);
        // Some servers take the filter and send everything.
        if fields
            .severity()
            .is_some_and(|severity| severity < source.severity_min.into())
        {
            return None;
        }
        let kind: &[u8] = match fields.has("ConditionId") || fields.has("ConditionName") {
            true => b"condition",
            false => b"event",
        };
        let kind = (EVENT.to_owned(), Bytes::from_static(kind));
        let refreshed = refreshed.then(|| (REFRESHED.to_owned(), Bytes::from_static(b"true")));
        let mut record = self.sized(
            &source.name,
            fields.into_payload(),
            event.time.or(Some(news)),
        );
        if record.kind == Kind::Opcua {
            record.source_time = event.time;
            record.server_time = event.received;
            record.attributes.push(kind);
            record.attributes.extend(refreshed);
        }
        Some(record)
    }
}

/// The fields of an event that are there, by their names.
struct Fields<'a>(Vec<(&'a str, Value)>);

impl<'a> Fields<'a> {
    fn new(source: &'a EventSource, fields: Vec<Value>) -> Self {
        let named = field_names(&source.fields).zip(fields);
        Self(named.filter(|(_, value)| *value != Value::Null).collect())
    }

    fn get(&self, name: &str) -> Option<&Value> {
        let field = self.0.iter().find(|(field, _)| *field == name);
        field.map(|(_, value)| value)
    }

    fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    fn into_payload(self) -> Vec<u8> {
        let fields = self.0.into_iter().map(|(name, value)| (name.into(), value));
        Value::Structure("".into(), fields.collect()).into_json()
    }

    fn severity(&self) -> Option<u64> {
        match self.get("Severity")? {
            Value::UInt(severity) => Some(*severity),
            _ => None,
        }
    }
}
