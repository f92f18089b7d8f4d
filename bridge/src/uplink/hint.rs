//! What the node remembers of the cluster, so that a new session reads little to find its
//! position. Never needed for correctness: without it, the positions topic is read from its
//! beginning.

use super::position::Position;
use serde::{Deserialize, Serialize};
use skerry_store::{Append, Change, Class, Error, Log, Offset, Pending, StreamName};
use tokio::time::{Duration, Instant};

/// The name of the uplink's cursors, and of its bucket in the catalog. Name it among the readers
/// of a stream, so that what the cluster has may be reclaimed and nothing else.
pub const CURSOR: &str = "uplink";

/// The cursor and the hint are saved at most this often: they only shorten work.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

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

/// Saves the hint and the cursor from time to time.
pub(crate) struct Saver {
    next: Instant,
    unsaved: bool,
}

impl Saver {
    pub(crate) fn new() -> Self {
        Self {
            next: Instant::now(),
            unsaved: true,
        }
    }

    /// When to call [`due`](Self::due) again, while [behind](Self::is_behind).
    pub(crate) fn when(&self) -> Instant {
        self.next
    }

    pub(crate) fn is_behind(&self) -> bool {
        self.unsaved
    }

    /// Saves if it is time; else remembers to.
    pub(crate) async fn due(
        &mut self,
        log: &Log,
        stream: &StreamName,
        hint: &Hint,
    ) -> Result<(), Error> {
        if Instant::now() < self.next {
            self.unsaved = true;
            return Ok(());
        }
        self.save(log, stream, hint).await
    }

    /// Whether it reaches the disk is not waited for: a lost one costs a longer read, no more.
    async fn save(&mut self, log: &Log, stream: &StreamName, hint: &Hint) -> Result<(), Error> {
        self.next = Instant::now() + SAVE_INTERVAL;
        match hint.save(log, stream).await {
            Ok(_pending) => self.unsaved = false,
            Err(error) if error.class() == Class::Fatal => return Err(error),
            Err(error) => {
                tracing::warn!(stream = stream.as_str(), %error, "the cursor is not saved");
                self.unsaved = true;
            }
        }
        Ok(())
    }
}
