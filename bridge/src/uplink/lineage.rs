//! Under which name a log's offsets are known to the cluster.
//!
//! As a rule that is the log's epoch. A disk that went on from an older image has offsets that the
//! cluster knows with other content, and stands [held](super::LaneState::Held); once an operator
//! [releases](release) it, its records go under an epoch of their own from an offset on, so that
//! `(epoch, stream, offset)` goes on naming one record.

use super::hint::CURSOR;
use serde::{Deserialize, Serialize};
use skerry_store::{Append, Change, Error, Log, Offset, StreamName, WallNanos};
use std::hash::{BuildHasher, RandomState};

/// In the uplink's bucket, beside the hints, whose keys are names of streams.
const KEY: &str = "lineage/";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lineage {
    pub(crate) epoch: u64,
    /// Where it begins, if not with the log.
    pub(crate) from: Option<Offset>,
}

impl Lineage {
    pub(crate) fn of(log: &Log, stream: &StreamName) -> Result<Self, Error> {
        let stored = log.get(CURSOR, key(stream).as_bytes())?;
        let stored = stored.and_then(|value| serde_json::from_slice(&value).ok());
        Ok(stored.unwrap_or_else(|| Self {
            epoch: log.epoch(),
            from: None,
        }))
    }
}

/// Lets a stream that is held go on: what the disk holds from `from` on is delivered, under an
/// epoch of its own. What of it the cluster has under the old one it has twice then, by two
/// names. Without `from`, from where this disk last knew itself confirmed.
///
/// Returns the offset it begins with.
///
/// # Errors
/// When the log does not take it.
pub async fn release(
    log: &Log,
    stream: &StreamName,
    from: Option<Offset>,
) -> Result<Offset, Error> {
    let confirmed = || log.cursor(CURSOR, stream);
    let from = match from {
        Some(from) => from,
        None => confirmed()?.unwrap_or(Offset::ZERO),
    };
    let lineage = Lineage {
        epoch: RandomState::new().hash_one(WallNanos::now().0),
        from: Some(from),
    };
    let value = serde_json::to_vec(&lineage).expect("a lineage has string keys only");
    log.append(Append {
        stream: StreamName::catalog(),
        records: Vec::new(),
        changes: vec![Change::Put {
            bucket: CURSOR.to_owned(),
            key: key(stream).into(),
            value: value.into(),
        }],
    })
    .await?;
    Ok(from)
}

fn key(stream: &StreamName) -> String {
    format!("{KEY}{}", stream.as_str())
}
