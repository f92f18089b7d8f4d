//! What the node remembers of the cluster, so that a new session reads little to find its
//! position. Never needed for correctness: without it, the positions topic is read from its
//! beginning.

use super::position::Position;
use serde::{Deserialize, Serialize};
use skerry_store::{Append, Change, Error, Log, Offset, Pending, StreamName};

/// The name of the uplink's cursors, and of its bucket in the catalog. Name it among the readers
/// of a stream, so that what the cluster has may be reclaimed and nothing else.
pub const CURSOR: &str = "uplink";

/// "In this topic of this cluster, what lies before `read_to` says at most `position`."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hint {
    pub(crate) cluster: String,
    pub(crate) topic: String,
    pub(crate) read_to: i64,
    pub(crate) position: Option<Position>,
}

impl Hint {
    pub(crate) fn load(log: &Log, stream: &StreamName) -> Result<Option<Self>, Error> {
        let stored = log.get(CURSOR, stream.as_str().as_bytes())?;
        // An unreadable hint is no hint.
        Ok(stored.and_then(|value| serde_json::from_slice(&value).ok()))
    }

    pub(crate) fn matches(&self, cluster: &str, topic: &str) -> bool {
        self.cluster == cluster && self.topic == topic
    }

    /// Keeps the hint together with the cursor that retention goes by.
    pub(crate) async fn save(&self, log: &Log, stream: &StreamName) -> Result<Pending, Error> {
        let value = serde_json::to_vec(self).expect("a hint has string keys only");
        let mut changes = vec![Change::Put {
            bucket: CURSOR.to_owned(),
            key: stream.as_str().to_owned().into(),
            value: value.into(),
        }];
        changes.extend(self.position.map(|position| advance(stream, position.next)));
        let stream = StreamName::catalog();
        log.submit(Append {
            stream,
            records: Vec::new(),
            changes,
        })
        .await
    }
}

fn advance(stream: &StreamName, next: Offset) -> Change {
    Change::Advance {
        cursor: CURSOR.to_owned(),
        stream: stream.as_str().to_owned(),
        next,
    }
}
