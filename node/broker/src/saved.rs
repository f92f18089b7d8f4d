//! Sessions in the catalog, and the only file that names postcard.
//!
//! ```text
//! bucket              key                        value: version byte 1, then postcard
//! mqtt-sessions       client id                  Session
//! mqtt-subscriptions  client id, NUL, filter     Subscription
//! mqtt-groups         $share/NAME/FILTER         cursors of the shared subscription
//! ```
//!
//! A client id cannot contain NUL. The queue of a session is no part of this: it is in the log,
//! and `cursors` say where it begins. Streams are named, because their order may change.

use crate::codec::{PacketId, Qos, RetainHandling, SubscribeOptions};
use crate::delivery::Source;
use crate::interest::Wanted;
use crate::message::Message;
use crate::outbound::{Named, Outbound, Stage};
use crate::shared::Group;
use crate::streams::{Place, Streams};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use skerry_store::{Change, Error, Log, Offset, WallNanos};
use std::collections::BTreeMap;
use std::time::Duration;

const SESSIONS: &str = "mqtt-sessions";
const SUBSCRIPTIONS: &str = "mqtt-subscriptions";
const GROUPS: &str = "mqtt-groups";
const FORMAT: u8 = 1;

type Cursors = Vec<(String, Offset)>;

/// A session without its subscriptions.
#[derive(Debug, Serialize, Deserialize)]
struct Session {
    expiry: Duration,
    /// `None` while the client is there: the time it was away counts from the restart then.
    absent_since: Option<WallNanos>,
    will: Option<Will>,
    cursors: Cursors,
    in_flight: Vec<InFlight>,
}

/// A will that is to be published unless its client comes back.
#[derive(Debug, Serialize, Deserialize)]
struct Will {
    due: WallNanos,
    /// [`Message::to_bytes`].
    message: Bytes,
}

#[derive(Debug, Serialize, Deserialize)]
struct InFlight {
    id: u16,
    qos: u8,
    released: bool,
    retain: bool,
    source: SavedSource,
    subscriptions: Vec<u32>,
    /// The shared subscription it is from.
    group: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
enum SavedSource {
    Log(String, Offset),
    Retained(String),
}

#[derive(Debug, Serialize, Deserialize)]
struct Subscription {
    qos: u8,
    no_local: bool,
    retain_as_published: bool,
    identifier: Option<u32>,
    since: Cursors,
}

/// What is kept of a session besides its subscriptions.
pub(crate) struct Kept<'a> {
    pub expiry: Duration,
    pub absent_since: Option<WallNanos>,
    pub will: Option<(WallNanos, &'a Message)>,
    pub cursors: &'a [Offset],
    pub outbound: &'a Outbound,
}

/// The same, as it was found.
pub(crate) struct Loaded {
    pub client_id: String,
    pub expiry: Duration,
    pub absent_since: Option<WallNanos>,
    pub will: Option<(WallNanos, Message)>,
    /// One for each stream that it has one for.
    pub cursors: Vec<Place>,
    pub in_flight: Vec<LoadedInFlight>,
    /// By filter, as it was subscribed to.
    pub subscriptions: Vec<(String, Wanted)>,
}

/// All that the catalog has of sessions.
pub(crate) struct Everything {
    pub sessions: Vec<Loaded>,
    /// How far the shared subscriptions are, by name.
    pub groups: BTreeMap<String, Vec<Place>>,
}

pub(crate) struct LoadedInFlight {
    pub id: PacketId,
    pub released: bool,
    pub named: Named,
    pub group: Option<String>,
}

/// The change that saves a session.
pub(crate) fn session(client_id: &str, kept: &Kept<'_>, streams: &Streams) -> Change {
    let will = kept.will.map(|(due, message)| Will {
        due,
        message: message.to_bytes(),
    });
    let in_flight = kept.outbound.in_order().into_iter();
    let in_flight = in_flight.filter_map(|(id, held)| {
        let source = match &held.named.source {
            Source::Log(place) => {
                let stream = &streams.get(place.stream).name;
                SavedSource::Log(stream.as_str().to_owned(), place.offset)
            }
            Source::Retained(topic) => SavedSource::Retained((**topic).to_owned()),
            Source::Memory => return None,
        };
        Some(InFlight {
            id: id.get(),
            qos: held.named.qos as u8,
            released: matches!(held.stage, Stage::Released),
            retain: held.named.retain,
            source,
            subscriptions: held.named.subscriptions.to_vec(),
            group: held
                .named
                .group
                .as_ref()
                .map(|group| (*group.name).to_owned()),
        })
    });
    let session = Session {
        expiry: kept.expiry,
        absent_since: kept.absent_since,
        will,
        cursors: named(kept.cursors, streams),
        in_flight: in_flight.collect(),
    };
    put(SESSIONS, client_id.as_bytes(), &session)
}

/// The change that saves a subscription.
pub(crate) fn subscription(
    client_id: &str,
    filter: &str,
    wanted: &Wanted,
    streams: &Streams,
) -> Change {
    let options = wanted.options;
    let subscription = Subscription {
        qos: options.qos as u8,
        no_local: options.no_local,
        retain_as_published: options.retain_as_published,
        identifier: wanted.identifier,
        since: named(&wanted.since, streams),
    };
    put(
        SUBSCRIPTIONS,
        &subscription_key(client_id, filter),
        &subscription,
    )
}

/// The change that saves how far a shared subscription is.
pub(crate) fn group(group: &Group, streams: &Streams) -> Change {
    let cursors = named(&group.cursors(), streams);
    put(GROUPS, group.name.as_bytes(), &cursors)
}

pub(crate) fn forget_session(client_id: &str) -> Change {
    delete(SESSIONS, client_id.as_bytes())
}

pub(crate) fn forget_subscription(client_id: &str, filter: &str) -> Change {
    delete(SUBSCRIPTIONS, &subscription_key(client_id, filter))
}

pub(crate) fn forget_group(name: &str) -> Change {
    delete(GROUPS, name.as_bytes())
}

fn subscription_key(client_id: &str, filter: &str) -> Vec<u8> {
    [client_id.as_bytes(), &[0], filter.as_bytes()].concat()
}

fn named(cursors: &[Offset], streams: &Streams) -> Cursors {
    let cursors = cursors.iter().enumerate();
    let named = cursors.map(|(stream, next)| (streams.get(stream).name.as_str().to_owned(), *next));
    named.collect()
}

fn put(bucket: &str, key: &[u8], value: &impl Serialize) -> Change {
    let bytes = postcard::to_extend(value, vec![FORMAT]).expect("its length is known");
    Change::Put {
        bucket: bucket.to_owned(),
        key: Bytes::copy_from_slice(key),
        value: bytes.into(),
    }
}

fn delete(bucket: &str, key: &[u8]) -> Change {
    Change::Delete {
        bucket: bucket.to_owned(),
        key: Bytes::copy_from_slice(key),
    }
}

fn read<T: DeserializeOwned>(value: &[u8]) -> Option<T> {
    match value.split_first()? {
        (&FORMAT, rest) => postcard::from_bytes(rest).ok(),
        _ => None,
    }
}

/// Streams that saved sessions have something in.
pub(crate) fn streams(log: &Log) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    for (_, value) in log.scan(SESSIONS, b"")? {
        let session = read::<Session>(&value);
        found.extend(session.into_iter().flat_map(|session| session.cursors));
    }
    let mut names: Vec<String> = found.into_iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// Every session there is, and how far the shared subscriptions are. Blocks on the disk.
pub(crate) fn load(log: &Log, streams: &Streams) -> Result<Everything, Error> {
    let mut subscriptions: BTreeMap<String, Vec<(String, Wanted)>> = BTreeMap::new();
    for (key, value) in log.scan(SUBSCRIPTIONS, b"")? {
        let key = std::str::from_utf8(&key).ok();
        let key = key.and_then(|key| key.split_once('\0'));
        match key.zip(read::<Subscription>(&value)) {
            Some(((client_id, filter), saved)) => {
                let wanted = saved.wanted(streams);
                let of_client = subscriptions.entry(client_id.to_owned()).or_default();
                of_client.push((filter.to_owned(), wanted));
            }
            None => tracing::error!("a saved subscription does not read and is left out"),
        }
    }
    let mut sessions = Vec::new();
    for (key, value) in log.scan(SESSIONS, b"")? {
        let client_id = std::str::from_utf8(&key).ok();
        let Some((client_id, session)) = client_id.zip(read::<Session>(&value)) else {
            tracing::error!("a saved session does not read and is left out");
            continue;
        };
        let subscriptions = subscriptions.remove(client_id).unwrap_or_default();
        sessions.push(session.loaded(client_id, subscriptions, streams));
    }
    let mut groups = BTreeMap::new();
    for (key, value) in log.scan(GROUPS, b"")? {
        if let (Ok(name), Some(cursors)) = (std::str::from_utf8(&key), read::<Cursors>(&value)) {
            groups.insert(name.to_owned(), places(&cursors, streams));
        }
    }
    Ok(Everything { sessions, groups })
}

fn places(cursors: &Cursors, streams: &Streams) -> Vec<Place> {
    let place = |(name, offset): &(String, Offset)| {
        Some(Place {
            stream: streams.index(name)?,
            offset: *offset,
        })
    };
    cursors.iter().filter_map(place).collect()
}

impl Subscription {
    fn wanted(&self, streams: &Streams) -> Wanted {
        // A stream that is new since then is wanted from its beginning.
        let mut since = vec![Offset::ZERO; streams.len()];
        for place in places(&self.since, streams) {
            since[place.stream] = place.offset;
        }
        Wanted {
            options: SubscribeOptions {
                qos: Qos::from_bits(self.qos).unwrap_or_default(),
                no_local: self.no_local,
                retain_as_published: self.retain_as_published,
                retain_handling: RetainHandling::default(),
            },
            identifier: self.identifier,
            since: since.into(),
        }
    }
}

impl Session {
    fn loaded(
        self,
        client_id: &str,
        subscriptions: Vec<(String, Wanted)>,
        streams: &Streams,
    ) -> Loaded {
        let will = self.will.and_then(|will| {
            let message = Message::from_bytes(will.message)?;
            Some((will.due, message))
        });
        let in_flight = self.in_flight.into_iter();
        let in_flight = in_flight.filter_map(|saved| saved.loaded(streams));
        Loaded {
            client_id: client_id.to_owned(),
            expiry: self.expiry,
            absent_since: self.absent_since,
            will,
            cursors: places(&self.cursors, streams),
            in_flight: in_flight.collect(),
            subscriptions,
        }
    }
}

impl InFlight {
    fn loaded(self, streams: &Streams) -> Option<LoadedInFlight> {
        let source = match self.source {
            SavedSource::Log(name, offset) => Source::Log(Place {
                stream: streams.index(&name)?,
                offset,
            }),
            SavedSource::Retained(topic) => Source::Retained(topic.into()),
        };
        Some(LoadedInFlight {
            id: PacketId::new(self.id)?,
            released: self.released,
            named: Named {
                source,
                qos: Qos::from_bits(self.qos)?,
                retain: self.retain,
                subscriptions: self.subscriptions.into(),
                group: None,
            },
            group: self.group,
        })
    }
}
