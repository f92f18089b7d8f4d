//! How far a subscription has been taken into the log.
//!
//! Kept in the catalog, written in the same append as the values it counts: whatever happens to
//! the process, the log holds exactly the values before this point, and the next run carries
//! the subscription on from here, with neither hole nor double, on servers that let it.
//!
//! ```text
//! bucket opcua
//!   ENDPOINT              what is in no group
//!   ENDPOINT 0 GROUP      a group
//! ```
//!
//! What concerns all of them, such as nodes that the server refuses, is with the first.

use super::address::EndpointUrl;
use super::awaited::Awaited;
use super::resume::{UNUSED_MAX, Unused};
use super::sequence::Sequence;
use super::wire::Granted;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use skerry_store::{Change, Log, WallNanos};
use std::collections::BTreeMap;
use std::time::Duration;

const BUCKET: &str = "opcua";
/// The catalog likes small values: with more bad nodes than this, the subscription is made anew
/// after a restart.
const BAD_NODES_MAX: usize = 200;

/// [`Progress::time`] of none.
const NEVER: WallNanos = WallNanos(0);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// [`super::Config::fingerprint`] of the configuration the subscription was made from.
    pub(crate) fingerprint: u64,
    /// The server's id of it; 0 where it must not be carried on.
    pub(crate) subscription: u32,
    interval_ms: u64,
    keep_alive_count: u32,
    lifetime_count: u32,
    /// Sequence number of the next notification.
    next: u32,
    /// Values of that notification that are in the log already: a large one takes several
    /// appends.
    pub(crate) taken: u32,
    /// Start time of the server that made it: after a restart the same id may be another's.
    pub(crate) server_start: Option<String>,
    /// Where it is; none where there is but one endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint: Option<String>,
    /// Last sign of life of the server: where a gap starts.
    pub(crate) time: WallNanos,
    /// Token of the session that owns the subscription, where it can be taken up again.
    pub(crate) session: Option<String>,
    /// Handles of nodes the server would not monitor, and why.
    pub(crate) bad: BTreeMap<u32, u32>,
    /// Nodes of which the subscription has not brought a value yet.
    #[serde(default, skip_serializing_if = "Awaited::is_empty")]
    pub(crate) initial: Awaited,
    /// Nodes before whose next value there may be a hole that the server's history fills.
    #[serde(default, skip_serializing_if = "Awaited::is_empty")]
    pub(crate) seams: Awaited,
    /// How often the subscription samples the server's clock, where it does; and whether it was
    /// seen to.
    #[serde(default)]
    pub(crate) clock_sampling_ms: Option<u64>,
    #[serde(default)]
    pub(crate) clock_proven: bool,
    /// Subscriptions to be deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unused: Vec<Unused>,
}

impl Progress {
    pub(crate) fn new(fingerprint: u64, granted: Granted, bad: &BTreeMap<u32, u32>) -> Self {
        let mut progress = Self {
            fingerprint,
            subscription: granted.id,
            interval_ms: granted.publishing_interval.as_millis() as u64,
            keep_alive_count: granted.keep_alive_count,
            lifetime_count: granted.lifetime_count,
            next: Sequence::START.next(),
            taken: 0,
            server_start: None,
            endpoint: None,
            time: WallNanos::now(),
            session: None,
            bad: BTreeMap::new(),
            initial: Awaited::default(),
            seams: Awaited::default(),
            clock_sampling_ms: None,
            clock_proven: false,
            unused: Vec::new(),
        };
        progress.set_bad(bad);
        progress
    }

    /// Before the first subscription.
    pub(crate) fn nothing() -> Self {
        Self {
            time: NEVER,
            ..Self::new(0, Granted::default(), &BTreeMap::new())
        }
    }

    /// What the keys of an endpoint's groups start with.
    pub(super) fn prefix(endpoint: &str) -> String {
        format!("{endpoint}\0")
    }

    /// Takes over what outlives a subscription; these, at `endpoint`, are in use from now on.
    pub(crate) fn inherit(&mut self, earlier: Option<Self>, endpoint: &str, in_use: &[u32]) {
        self.unused = earlier.map_or_else(Vec::new, |earlier| earlier.unused);
        self.unused
            .retain(|unused| unused.endpoint != endpoint || !in_use.contains(&unused.subscription));
    }

    /// What is to be deleted of a group that is not there any more: itself, and what it noted.
    pub(crate) fn retire(mut self, first: &EndpointUrl) -> Vec<Unused> {
        self.unused.extend(self.as_unused(first));
        self.unused
    }

    /// Where it was, and in whose session, without any subscription.
    pub(crate) fn remains(&self) -> Self {
        Self {
            session: self.session.clone(),
            endpoint: self.endpoint.clone(),
            ..Self::nothing()
        }
    }

    /// The subscription itself, if there is one.
    pub(crate) fn as_unused(&self, first: &EndpointUrl) -> Option<Unused> {
        (self.subscription != 0).then(|| Unused {
            endpoint: self.endpoint.clone().unwrap_or_else(|| first.to_string()),
            subscription: self.subscription,
            server_start: self.server_start.clone(),
        })
    }

    pub(crate) fn note_unused(&mut self, unused: Unused) {
        if self.unused.contains(&unused) {
            return;
        }
        self.unused.push(unused);
        let surplus = self.unused.len().saturating_sub(UNUSED_MAX);
        self.unused.drain(..surplus);
    }

    /// Those that are at `endpoint`.
    pub(crate) fn take_unused(&mut self, endpoint: &str) -> Vec<Unused> {
        let here = |unused: &mut Unused| unused.endpoint == endpoint;
        self.unused.extract_if(.., here).collect()
    }

    /// Last sign of life of the server, if there was one.
    pub(crate) fn news(&self) -> Option<WallNanos> {
        Some(self.time).filter(|time| *time != NEVER)
    }

    /// Reads the catalog; blocks.
    pub(crate) fn load(log: &Log, key: &str) -> Result<Option<Self>, skerry_store::Error> {
        let stored = log.get(BUCKET, key.as_bytes())?;
        Ok(stored.and_then(|bytes| Self::parse(&bytes)))
    }

    /// What an older or newer version wrote differently is as good as nothing: the subscription
    /// is made anew.
    fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// What the catalog has of an endpoint under other keys than `known`; blocks.
    pub(crate) fn retired(
        log: &Log,
        endpoint: &str,
        known: &[String],
    ) -> Result<Vec<(Bytes, Option<Self>)>, skerry_store::Error> {
        let mut stored = log.scan(BUCKET, Self::prefix(endpoint).as_bytes())?;
        if let Some(bytes) = log.get(BUCKET, endpoint.as_bytes())? {
            stored.push((endpoint.as_bytes().to_vec().into(), bytes));
        }
        stored.retain(|(key, _)| !known.iter().any(|known| known.as_bytes() == key.as_ref()));
        let read = stored.into_iter();
        Ok(read
            .map(|(key, bytes)| (key, Self::parse(&bytes)))
            .collect())
    }

    pub(crate) fn delete(key: Bytes) -> Change {
        let bucket = BUCKET.to_owned();
        Change::Delete { bucket, key }
    }

    pub(crate) fn change(&self, key: &str) -> Change {
        Change::Put {
            bucket: BUCKET.to_owned(),
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: serde_json::to_vec(self)
                .expect("plain numbers and strings")
                .into(),
        }
    }

    pub(crate) const fn granted(&self) -> Granted {
        Granted {
            id: self.subscription,
            publishing_interval: Duration::from_millis(self.interval_ms),
            keep_alive_count: self.keep_alive_count,
            lifetime_count: self.lifetime_count,
        }
    }

    pub(crate) const fn sequence(&self) -> Sequence {
        Sequence::from_next(self.next)
    }

    /// Everything before `sequence` is in the log, or in a gap.
    pub(crate) fn advance(&mut self, sequence: Sequence) {
        self.next = sequence.next();
        self.taken = 0;
    }

    pub(crate) fn set_bad(&mut self, bad: &BTreeMap<u32, u32>) {
        if bad.len() > BAD_NODES_MAX {
            self.fingerprint = 0;
        } else {
            self.bad.clone_from(bad);
        }
    }
}
