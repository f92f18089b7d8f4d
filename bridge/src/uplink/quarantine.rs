//! Records that the cluster refuses, kept for whoever can do something about it.
//!
//! Before a gap may take a refused record's place, a copy of it is durable in the stream
//! [`QUARANTINE`]: the record as it was, and in front of its attributes those that say where it
//! belongs and why it is here ([`ABOUT`]). There the copy waits until somebody has it sent again
//! or lets go of it, or until retention takes it.
//!
//! ```text
//! bucket   uplink-quarantine
//! key      <stream>/<offset>                                         of the refused record
//! value    null                                                      it waits
//!          {"how":"retried","by":"root","at":1772366400000000000}    it is settled
//! ```
//!
//! The entry is written in the append that carries the copy, and looked at before: so there is one
//! copy, wherever a crash falls between the copy and the commit of the gap. It goes when its copy
//! is gone. A retry carries the record and the entry in one append as well, so it happens once.
//!
//! The copies are not sent to the cluster, unless the stream is named to be.

use super::mapping::RETRY_OF;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use skerry_store::{Append, Change, Error, Kind, Log, Offset, Record, StreamName, WallNanos};
use std::collections::HashSet;
use tokio::sync::Mutex;

/// The stream of the copies. A log whose records are delivered must have it.
pub const QUARANTINE: &str = "quarantine";

/// The cursor in it: everything before is settled. Name it among the stream's readers, so that
/// what is settled makes room first.
pub const SETTLED: &str = "quarantine";

const BUCKET: &str = "uplink-quarantine";

/// Names of a copy's first attributes, in this order. What comes behind them is the record's own,
/// whatever it is called.
const ABOUT: [&str; 6] = [
    "skerry-refused-stream",
    "skerry-refused-offset",
    "skerry-refused-epoch",
    "skerry-refused-topic",
    "skerry-refused-reason",
    "skerry-refused-time",
];

/// Follows [`ABOUT`] where the record leaves no room for it, its payload being as large as one can
/// be: then the copy is one without.
const WITHOUT_PAYLOAD: &str = "skerry-refused-payload-bytes";

/// As much as a person reads of an explanation.
const REASON_CHARS_MAX: usize = 1_000;

/// A cluster that refuses more than these is not one that gets bad records: going on would turn a
/// backlog into gaps.
const WAITING_MAX: usize = 10_000;

/// Entries that one append removes.
const PRUNED_AT_ONCE: usize = 1_000;

/// What is copied and settled, one at a time: no entry is written by two, none is looked for while
/// its copy is under way.
static ALONE: Mutex<()> = Mutex::const_new(());

/// A record of the log that the cluster refused.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused<'a> {
    pub(crate) stream: &'a StreamName,
    pub(crate) offset: Offset,
    pub(crate) topic: &'a str,
    pub(crate) reason: &'a str,
}

/// What became of a record that was to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeping {
    /// There is a copy of it, made now or by an earlier attempt.
    Kept,
    /// So many wait already that something else must be wrong.
    Overrun(usize),
}

/// A copy, but for its payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its offset in the quarantine.
    pub id: Offset,
    /// Where the record itself is, as long as retention leaves it there.
    pub stream: String,
    pub offset: Offset,
    pub epoch: String,
    /// Where it was to go in the cluster; its key there is `source`.
    pub topic: String,
    pub reason: String,
    pub refused_at: WallNanos,
    pub kind: Kind,
    pub source: String,
    pub ingest_time: WallNanos,
    pub payload_bytes: u64,
    /// Whether the copy has the payload.
    pub whole: bool,
    /// None as long as it waits.
    pub settled: Option<Settled>,
}

/// Who decided what, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    pub how: How,
    pub by: String,
    pub at: WallNanos,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// Appended to its stream again.
    Retried,
    /// Let go of.
    Dropped,
}

/// Why a copy was not settled.
#[derive(Debug, thiserror::Error)]
pub enum NotSettled {
    #[error("there is no record {0} in quarantine; `skerry quarantine ls` lists them")]
    NotThere(Offset),
    #[error("record {id} was {} by {} already", .was.how.in_words(), .was.by)]
    Before { id: Offset, was: Settled },
    #[error(
        "record {id} is in quarantine without its payload, for which there was no room: the \
         record itself is at offset {offset} of stream `{stream}` until retention takes it \
         (skerry log cat {stream} --from {offset} -n 1)"
    )]
    NotWhole {
        id: Offset,
        stream: String,
        offset: Offset,
    },
    #[error(transparent)]
    Log(#[from] Error),
}

impl How {
    /// What became of a record: it was ...
    #[must_use]
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Retried => "sent again",
            Self::Dropped => "dropped",
        }
    }
}

/// One lane's way into the quarantine.
pub(crate) struct Quarantine {
    log: Log,
    /// How many wait, at least as far as this lane knows.
    waiting: usize,
    /// The quarantine's tail when entries were last compared with copies.
    pruned_at: Option<Offset>,
}

impl Quarantine {
    pub(crate) fn new(log: &Log) -> Self {
        Self {
            log: log.clone(),
            waiting: WAITING_MAX,
            pruned_at: None,
        }
    }

    /// Has a copy of `record` on the disk, one whatever happened before.
    pub(crate) async fn keep(
        &mut self,
        refused: Refused<'_>,
        record: Record,
    ) -> Result<Keeping, Error> {
        let _alone = ALONE.lock().await;
        // What is refused here has its copy: itself.
        let quarantine = quarantine();
        let key = key(refused.stream.as_str(), refused.offset);
        if *refused.stream == quarantine || self.log.get(BUCKET, &key)?.is_some() {
            return Ok(Keeping::Kept);
        }
        let tail = self.log.tail(&quarantine)?;
        if self.pruned_at != Some(tail) {
            prune(&self.log).await?;
            self.pruned_at = Some(tail);
        }
        if self.waiting >= WAITING_MAX {
            self.waiting = waiting(&self.log)?;
        }
        if self.waiting >= WAITING_MAX {
            return Ok(Keeping::Overrun(self.waiting));
        }
        let append = |record| Append {
            stream: quarantine.clone(),
            records: vec![record],
            changes: vec![put(key.clone(), None)],
        };
        let whole = copy(refused, self.log.epoch(), record.clone());
        let kept = match self.log.append(append(whole)).await {
            Err(Error::TooLarge { .. }) => {
                let stub = copy(refused, self.log.epoch(), without_payload(record));
                self.log.append(append(stub)).await
            }
            kept => kept,
        };
        kept?;
        self.waiting += 1;
        Ok(Keeping::Kept)
    }
}

/// How many records wait for a decision.
pub fn waiting(log: &Log) -> Result<usize, Error> {
    let entries = log.scan(BUCKET, b"")?;
    let settled = |value: &Bytes| settled_in(value).is_some();
    Ok(entries.iter().filter(|(_, value)| !settled(value)).count())
}

/// What is in quarantine, the oldest first: all of it, or what waits. Blocks on the disk.
pub fn list(log: &Log, also_settled: bool) -> Result<Vec<Kept>, Error> {
    let mut found = Vec::new();
    each(log, Offset::ZERO, |kept, _| {
        if also_settled || kept.settled.is_none() {
            found.push(kept);
        }
        true
    })?;
    Ok(found)
}

/// One copy and the record as it was. Blocks on the disk.
pub fn find(log: &Log, id: Offset) -> Result<Option<(Kept, Record)>, Error> {
    let mut found = None;
    each(log, id, |kept, record| {
        found = (kept.id == id).then_some((kept, record));
        false
    })?;
    Ok(found)
}

/// Has a record sent again: appends it to its stream, where it gets a new offset. Those who read
/// the stream on this node get it again, too.
pub async fn retry(log: &Log, id: Offset, by: &str) -> Result<Settled, NotSettled> {
    settle(log, id, How::Retried, by).await
}

/// Lets go of a record: its copy stays readable until retention takes it, but waits no longer.
pub async fn drop(log: &Log, id: Offset, by: &str) -> Result<Settled, NotSettled> {
    settle(log, id, How::Dropped, by).await
}

async fn settle(log: &Log, id: Offset, how: How, by: &str) -> Result<Settled, NotSettled> {
    let _alone = ALONE.lock().await;
    let (kept, mut record) = {
        let log = log.clone();
        let found = tokio::task::spawn_blocking(move || find(&log, id)).await;
        let found = found.map_err(|_| Error::Closed)??;
        found.ok_or(NotSettled::NotThere(id))?
    };
    if let Some(was) = kept.settled {
        return Err(NotSettled::Before { id, was });
    }
    let settled = Settled {
        how,
        by: by.to_owned(),
        at: WallNanos::now(),
    };
    let entry = key(&kept.stream, kept.offset);
    let records = match how {
        How::Dropped => Vec::new(),
        How::Retried if !kept.whole => {
            return Err(NotSettled::NotWhole {
                id,
                stream: kept.stream,
                offset: kept.offset,
            });
        }
        How::Retried => {
            record.attributes.retain(|(name, _)| name != RETRY_OF);
            let mark = (RETRY_OF.to_owned(), Bytes::from(entry.clone()));
            record.attributes.insert(0, mark);
            vec![record]
        }
    };
    log.append(Append {
        stream: StreamName::new(&kept.stream)?,
        records,
        changes: vec![put(entry, Some(&settled))],
    })
    .await?;
    Ok(settled)
}

/// Lets what is settled at the quarantine's beginning make room when it is needed.
pub async fn release(log: &Log) -> Result<(), Error> {
    let all = {
        let log = log.clone();
        let all = tokio::task::spawn_blocking(move || list(&log, true)).await;
        all.map_err(|_| Error::Closed)??
    };
    let first = all.iter().find(|kept| kept.settled.is_none());
    let next = match (first, all.last()) {
        (Some(first), _) => first.id,
        (None, Some(last)) => last.id.plus(1),
        (None, None) => return Ok(()),
    };
    if log.cursor(SETTLED, &quarantine())? >= Some(next) {
        return Ok(());
    }
    let change = Change::Advance {
        cursor: SETTLED.to_owned(),
        stream: QUARANTINE.to_owned(),
        next,
    };
    let append = Append {
        stream: quarantine(),
        records: Vec::new(),
        changes: vec![change],
    };
    log.append(append).await.map(|_| ())
}

fn quarantine() -> StreamName {
    StreamName::new(QUARANTINE).expect("a valid stream name")
}

fn key(stream: &str, offset: Offset) -> Vec<u8> {
    format!("{stream}/{offset}").into_bytes()
}

fn put(key: Vec<u8>, settled: Option<&Settled>) -> Change {
    let value = serde_json::to_vec(&settled).expect("it has string keys only");
    Change::Put {
        bucket: BUCKET.to_owned(),
        key: key.into(),
        value: value.into(),
    }
}

/// An entry that does not read is one that waits: somebody will look at it.
fn settled_in(value: &[u8]) -> Option<Settled> {
    serde_json::from_slice(value).ok().flatten()
}

/// The copies from an offset on, until one is not wanted any more.
fn each(
    log: &Log,
    from: Offset,
    mut wanted: impl FnMut(Kept, Record) -> bool,
) -> Result<(), Error> {
    const AT_ONCE_BYTES: usize = 256 * 1024;
    let mut reader = log.reader(&quarantine(), from)?;
    loop {
        let batch = reader.next(AT_ONCE_BYTES)?;
        if batch.is_empty() {
            return Ok(());
        }
        for (id, record) in batch.records {
            // The log notes its own gaps there, too.
            let Some((mut kept, record)) = parse(id, record) else {
                continue;
            };
            let entry = log.get(BUCKET, &key(&kept.stream, kept.offset))?;
            kept.settled = entry.and_then(|value| settled_in(&value));
            if !wanted(kept, record) {
                return Ok(());
            }
        }
    }
}

/// Removes the entries whose copies are gone.
async fn prune(log: &Log) -> Result<(), Error> {
    let orphans = {
        let log = log.clone();
        let orphans = tokio::task::spawn_blocking(move || orphans(&log)).await;
        orphans.map_err(|_| Error::Closed)??
    };
    for some in orphans.chunks(PRUNED_AT_ONCE) {
        let gone = some.iter().map(|key| Change::Delete {
            bucket: BUCKET.to_owned(),
            key: key.clone(),
        });
        log.append(Append {
            stream: quarantine(),
            records: Vec::new(),
            changes: gone.collect(),
        })
        .await?;
    }
    Ok(())
}

fn orphans(log: &Log) -> Result<Vec<Bytes>, Error> {
    let entries = log.scan(BUCKET, b"")?;
    let mut held = HashSet::new();
    each(log, Offset::ZERO, |kept, _| {
        held.insert(key(&kept.stream, kept.offset));
        true
    })?;
    let keys = entries.into_iter().map(|(key, _)| key);
    Ok(keys.filter(|key| !held.contains(&key[..])).collect())
}

fn copy(refused: Refused<'_>, epoch: u64, mut record: Record) -> Record {
    let reason: String = refused.reason.chars().take(REASON_CHARS_MAX).collect();
    let values = [
        refused.stream.as_str().to_owned(),
        refused.offset.to_string(),
        format!("{epoch:016x}"),
        refused.topic.to_owned(),
        reason,
        WallNanos::now().0.to_string(),
    ];
    let about = ABOUT.into_iter().zip(values);
    let about = about.map(|(name, value)| (name.to_owned(), Bytes::from(value)));
    record.attributes.splice(0..0, about);
    record
}

fn without_payload(mut record: Record) -> Record {
    let bytes = Bytes::from(record.payload.len().to_string());
    record.payload = Bytes::new();
    record.attributes = vec![(WITHOUT_PAYLOAD.to_owned(), bytes)];
    record
}

/// What a copy tells, and the record as it was.
fn parse(id: Offset, mut record: Record) -> Option<(Kept, Record)> {
    if record.attributes.len() < ABOUT.len() {
        return None;
    }
    let about: Vec<_> = record.attributes.drain(..ABOUT.len()).collect();
    let mut values = ABOUT.into_iter().zip(about).map(|(wanted, (name, value))| {
        (name == wanted).then(|| String::from_utf8_lossy(&value).into_owned())
    });
    let mut next = || values.next().flatten();
    let (stream, offset, epoch) = (next()?, next()?, next()?);
    let (topic, reason, time) = (next()?, next()?, next()?);
    let left_out = record
        .attributes
        .first()
        .filter(|(name, _)| name == WITHOUT_PAYLOAD);
    let left_out = left_out.and_then(|(_, bytes)| std::str::from_utf8(bytes).ok()?.parse().ok());
    let kept = Kept {
        id,
        stream,
        offset: Offset(offset.parse().ok()?),
        epoch,
        topic,
        reason,
        refused_at: WallNanos(time.parse().ok()?),
        kind: record.kind,
        source: record.source.clone(),
        ingest_time: record.ingest_time,
        payload_bytes: left_out.unwrap_or(record.payload.len() as u64),
        whole: left_out.is_none(),
        settled: None,
    };
    Some((kept, record))
}

#[cfg(test)]
mod tests;
