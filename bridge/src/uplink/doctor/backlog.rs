//! What of a stream waits: the cluster says from where on, the data directory what is there.

use super::Site;
use crate::uplink::config::{Config, Timestamp};
use crate::uplink::mapping::Origin;
use crate::uplink::position::Position;
use crate::uplink::wire::Wire;
use skerry_store::{Offset, StreamName, inspect};
use std::collections::BTreeSet;

/// Where topics go by source, so many of the oldest records name the ones to look at.
const RECORDS_LOOKED_AT: usize = 1_000;

#[derive(Debug, Clone, Default)]
pub(super) struct Backlog {
    pub(super) records: u64,
    /// On the disk; as they are sent, records need more or less.
    pub(super) bytes: u64,
    /// The timestamp that the oldest of them would have.
    pub(super) oldest_ms: Option<i64>,
    /// Those that the first of them go to.
    pub(super) topics: BTreeSet<String>,
}

pub(super) struct Place<'p> {
    pub(super) config: &'p Config,
    pub(super) wire: &'p Wire,
    pub(super) site: &'p Site,
    /// The topic, where it is there.
    pub(super) positions: Option<&'p str>,
}

impl Place<'_> {
    pub(super) async fn look(&self, stream: &StreamName) -> Result<Backlog, String> {
        let directory = &self.site.data_dir;
        let told = |error: skerry_store::Error| error.to_string();
        if !directory.join("streams").is_dir() {
            return Err(format!(
                "{} holds no log, or may not be read",
                directory.display()
            ));
        }
        let epoch = inspect::epoch(directory).map_err(told)?;
        let confirmed = self.confirmed(stream, epoch).await?;
        let summaries = inspect::streams(directory).map_err(told)?;
        let Some(summary) = summaries.into_iter().find(|s| s.name == stream.as_str()) else {
            return Ok(Backlog::default());
        };
        let from = confirmed.max(summary.tail);
        let (held, waiting) = (
            summary.head.0 - summary.tail.0,
            summary.head.0.saturating_sub(from.0),
        );
        let bytes = u128::from(summary.bytes) * u128::from(waiting) / u128::from(held.max(1));
        let mut backlog = Backlog {
            records: waiting,
            bytes: u64::try_from(bytes).unwrap_or(u64::MAX),
            ..Backlog::default()
        };
        let route = self.config.route_of(stream);
        let origin = Origin::of(self.config, stream, epoch);
        let records =
            inspect::records(directory, stream, from, self.site.keys.as_ref()).map_err(told)?;
        let looked_at = if route.topic.goes_by_source() {
            RECORDS_LOOKED_AT
        } else {
            1
        };
        for entry in records.take(looked_at) {
            let (offset, record) = entry.map_err(told)?;
            let own = match route.timestamp {
                Timestamp::Event => record.event_time(),
                Timestamp::Ingest => record.ingest_time,
            };
            backlog.oldest_ms = Some(
                backlog
                    .oldest_ms
                    .map_or(own.millis(), |oldest| oldest.min(own.millis())),
            );
            backlog
                .topics
                .insert(origin.record(offset, record).topic.to_string());
        }
        Ok(backlog)
    }

    /// Everything before it is in the cluster, by the cluster's own word.
    async fn confirmed(&self, stream: &StreamName, epoch: u64) -> Result<Offset, String> {
        let Some(positions) = self.positions else {
            return Ok(Offset::ZERO);
        };
        let key = Position::key(self.config.node.as_str(), stream.as_str(), epoch);
        let newest = self.wire.newest(positions, key.as_bytes(), None).await;
        match newest.map_err(|fault| fault.to_string())?.0 {
            Some(value) => Position::from_json(&value)
                .map(|position| position.next)
                .map_err(|error| format!("position `{key}` is unreadable: {error}")),
            None => Ok(Offset::ZERO),
        }
    }
}
