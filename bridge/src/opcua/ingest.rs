//! Into the log, and nothing forgotten while it refuses.

use super::config::Config;
use super::error::{Error, status};
use super::status::Status;
use super::value::{Sample, Value};
use super::wire::{SESSION_TIMEOUT, Session};
use bytes::Bytes;
use skerry_store::{Append, Change, Class, Gap, Kind, Log, Offset, Record, WallNanos};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long a refusing log is left alone: short at first, since readers may just be behind.
const REFUSED_WAIT_MIN: Duration = Duration::from_millis(100);
const REFUSED_WAIT_MAX: Duration = Duration::from_secs(2);
/// While nothing is asked of the server, it must still see that the session is alive.
const PING_INTERVAL: Duration = SESSION_TIMEOUT.checked_div(3).expect("three is not zero");

/// One append carries about this much; a notification above it is taken in pieces.
pub(crate) const APPEND_BYTES: usize = 1024 * 1024;
/// A single value beyond this is not stored but replaced by a gap that says so.
const RECORD_BYTES_MAX: usize = 2 * 1024 * 1024;
const _: () = assert!(APPEND_BYTES + RECORD_BYTES_MAX < skerry_store::APPEND_BYTES_MAX);

/// Attribute of a record, `true`: the value a node had when the subscription to it was made, at
/// the first start and after an outage that the server did not bridge. It need not be a change.
pub const INITIAL: &str = "opcua-initial";

/// Attribute of a record: the unit that its value is in, as the server writes it, such as `°C`.
pub const UNIT: &str = "unit";
/// Attribute of a record that was read from the server's history after an outage: `true`, or
/// `late` where it comes behind newer values of its node.
pub const BACKFILL: &str = "opcua-backfill";
pub(crate) const LATE: &[u8] = b"late";

/// Whether an append is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Taken {
    Durable,
    /// The node is stopping and the log did not take it: it was not acknowledged, so the server
    /// has it still.
    Stopped,
}

/// The way into the log for one endpoint.
pub(crate) struct Ingest {
    pub(crate) config: Arc<Config>,
    pub(crate) log: Log,
    pub(crate) status: Arc<Status>,
    pub(crate) stop: CancellationToken,
}

impl Ingest {
    /// Resolves once the append is on disk. A log that refuses is asked again for as long as it
    /// takes; meanwhile nothing more is asked of the server, which keeps the values in its own
    /// queues, and `session` is kept from expiring.
    pub(crate) async fn append(
        &self,
        records: Vec<Record>,
        changes: impl IntoIterator<Item = Change> + Send,
        session: Option<&Session>,
    ) -> Result<Taken, Error> {
        let changes = changes.into_iter().collect();
        let append = Append {
            stream: self.config.stream.clone(),
            records,
            changes,
        };
        let mut wait = REFUSED_WAIT_MIN;
        let mut pinged = tokio::time::Instant::now();
        let mut refused = false;
        loop {
            match self.log.append_kept(&append).await {
                Ok(_) => {
                    if refused {
                        self.status.log_takes();
                        tracing::info!(endpoint = self.config.name, "the log takes values again");
                    }
                    return Ok(Taken::Durable);
                }
                Err(error) if error.class() == Class::Fatal => return Err(error.into()),
                Err(error) => {
                    self.status.log_refused(&error.to_string());
                    if !refused {
                        refused = true;
                        tracing::warn!(
                            endpoint = self.config.name, %error,
                            "the log refuses values; they stay unacknowledged at the server"
                        );
                    }
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => return Ok(Taken::Stopped),
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(REFUSED_WAIT_MAX);
            if let Some(session) = session.filter(|_| pinged.elapsed() >= PING_INTERVAL) {
                pinged = tokio::time::Instant::now();
                // A dead session shows at the next publish; here it only must not be forgotten.
                if let Err(error) = session.ping().await {
                    tracing::debug!(%error, "ping");
                }
            }
        }
    }

    /// Like [`Ingest::append`], of records that need not be in one append: of very many, the
    /// first ones come before, and the changes with the last ones.
    pub(crate) async fn append_many(
        &self,
        mut records: Vec<Record>,
        changes: Vec<Change>,
        session: Option<&Session>,
    ) -> Result<Taken, Error> {
        let mut bytes = 0;
        let fitting = records.iter().rev().take_while(|record| {
            bytes += bytes_of(record);
            bytes < APPEND_BYTES
        });
        let last = records.len() - fitting.count().max(1).min(records.len());
        if last > 0 {
            let rest = records.split_off(last);
            if self.append_all(records).await? == Taken::Stopped {
                return Ok(Taken::Stopped);
            }
            records = rest;
        }
        self.append(records, changes, session).await
    }

    /// Where the next append starts, at the earliest.
    pub(crate) fn head(&self) -> Result<Offset, Error> {
        Ok(*self.log.head(&self.config.stream)?.borrow())
    }

    /// Records that need not be in one append, without a session to keep.
    pub(crate) async fn append_all(&self, records: Vec<Record>) -> Result<Taken, Error> {
        let mut records = records.into_iter().peekable();
        while records.peek().is_some() {
            let mut batch = Vec::new();
            let mut bytes = 0;
            while let Some(record) = records.next_if(|_| bytes < APPEND_BYTES) {
                bytes += bytes_of(&record);
                batch.push(record);
            }
            if self.append(batch, None, None).await? == Taken::Stopped {
                return Ok(Taken::Stopped);
            }
        }
        Ok(Taken::Durable)
    }

    /// The records a sample becomes: its value, after a gap where the server's queue overflowed
    /// before it and nothing `bridged` that.
    pub(crate) fn records(&self, sample: Sample, news: WallNanos, bridged: bool) -> Vec<Record> {
        let Some(node) = self.config.nodes.get(sample.handle as usize) else {
            // async-opcua's server sends the attribute once whose events are monitored.
            if self.config.event_source(sample.handle).is_none() {
                tracing::warn!(
                    handle = sample.handle,
                    "a value for a node nobody asked for"
                );
            }
            return Vec::new();
        };
        let mut records = Vec::with_capacity(1);
        if status::overflowed(sample.status) && !bridged {
            records.push(self.gap(
                &node.name,
                None,
                sample.source_time.or(sample.server_time),
                "the server's queue for this node overflowed".to_owned(),
            ));
        }
        let time = sample.source_time.or(Some(news));
        let mut record = self.sized(&node.name, sample.value.into_payload(), time);
        if record.kind == Kind::Gap {
            records.push(record);
            return records;
        }
        record.source_time = sample.source_time;
        record.server_time = sample.server_time;
        record.status = sample.status;
        record
            .attributes
            .extend(sample.unit.map(|unit| (UNIT.to_owned(), unit)));
        records.push(record);
        records
    }

    /// The payload as a record, or a gap record where it is larger than what is stored.
    pub(super) fn sized(&self, name: &str, payload: Vec<u8>, time: Option<WallNanos>) -> Record {
        if payload.len() + name.len() <= RECORD_BYTES_MAX {
            return Record::new(Kind::Opcua, name, payload);
        }
        let reason = format!(
            "a value of {} bytes is larger than the {RECORD_BYTES_MAX} that are stored",
            payload.len()
        );
        self.gap(name, time, time, reason)
    }

    /// A record that says that a node has no value, and why.
    pub(crate) fn without_value(&self, handle: u32, status: u32) -> Option<Record> {
        let (name, _) = self.config.named(handle)?;
        let mut record = Record::new(Kind::Opcua, name, Value::Null.into_payload());
        record.status = status;
        Some(record)
    }

    pub(crate) fn gap(
        &self,
        subject: &str,
        from: Option<WallNanos>,
        to: Option<WallNanos>,
        reason: String,
    ) -> Record {
        self.status.gaps(1);
        let gap = Gap {
            subject: subject.to_owned(),
            offsets: None,
            from,
            to,
            count: None,
            reason,
        };
        gap.into_record()
    }
}

/// Only values: a gap record before one is no value of the node.
pub(crate) fn mark_initial(record: &mut Record) {
    if record.kind == Kind::Opcua {
        let mark = (INITIAL.to_owned(), Bytes::from_static(b"true"));
        record.attributes.push(mark);
    }
}

/// About what a record takes in an append.
pub(crate) fn bytes_of(record: &Record) -> usize {
    const FIXED: usize = 64;
    let attributes = record
        .attributes
        .iter()
        .map(|(name, value)| name.len() + value.len());
    record.payload.len() + record.source.len() + attributes.sum::<usize>() + FIXED
}
