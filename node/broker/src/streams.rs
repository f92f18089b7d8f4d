//! The streams that subscribers are fed from, and how far each has been dispatched.

use skerry_store::{Log, Offset, StreamName};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// Index of a stream in [`Streams`]; it holds for this process only.
pub(crate) type StreamIndex = usize;

/// Where a message stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub stream: StreamIndex,
    pub offset: Offset,
}

/// One offset for each stream.
pub(crate) type Positions = Arc<[Offset]>;

#[derive(Debug)]
pub(crate) struct Streams(Box<[Stream]>);

#[derive(Debug)]
pub(crate) struct Stream {
    pub name: StreamName,
    /// Its records are derived on this node, and published under `skerry/`.
    pub derived: bool,
    /// Subscribers whose sessions end with their connections get its messages before the commit.
    pub immediate: bool,
    /// One past the last record that the dispatcher has begun to offer.
    claimed: AtomicU64,
    /// One past the last record that it has offered to everybody.
    offered: watch::Sender<Offset>,
    /// Of a derived stream: one past the last record whose retained message is on disk.
    released: watch::Sender<Offset>,
}

/// How long a SUBSCRIBE waits for the dispatchers at most.
const SETTLE_WITHIN: Duration = Duration::from_millis(250);

impl Streams {
    /// Everything is dispatched from the head of each stream on; what came before is for
    /// sessions to read.
    pub(crate) fn new(
        log: &Log,
        names: impl IntoIterator<Item = StreamName>,
        derived: &[StreamName],
        immediate: &[StreamName],
    ) -> Result<Self, skerry_store::Error> {
        let mut streams: Vec<Stream> = Vec::new();
        for name in names {
            if streams.iter().any(|stream| stream.name == name) {
                continue;
            }
            let head = *log.head(&name)?.borrow();
            let (derived, immediate) = (derived.contains(&name), immediate.contains(&name));
            streams.push(Stream::new(name, derived, immediate, head));
        }
        Ok(Self(streams.into()))
    }

    /// One empty stream, without a log.
    #[cfg(test)]
    pub(crate) fn one() -> Self {
        let name = StreamName::new("default").expect("a name");
        Self([Stream::new(name, false, false, Offset::ZERO)].into())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn get(&self, index: StreamIndex) -> &Stream {
        &self.0[index]
    }

    pub(crate) fn index(&self, name: &str) -> Option<StreamIndex> {
        let found = |stream: &Stream| stream.name.as_str() == name;
        self.0.iter().position(found)
    }

    /// Resolves once everything is dispatched that is durable now, or before long: who subscribes
    /// after that gets nothing that was acknowledged before.
    pub(crate) async fn settled(&self, log: &Log) {
        let settled = async {
            for stream in &self.0 {
                if let Ok(head) = log.head(&stream.name) {
                    let head = *head.borrow();
                    let mut offered = stream.offered.subscribe();
                    let _ = offered.wait_for(|offered| *offered >= head).await;
                }
            }
        };
        let _ = tokio::time::timeout(SETTLE_WITHIN, settled).await;
    }

    /// Where a subscription made now begins. Exact while the dispatcher is kept out by the lock
    /// of the subscription tree.
    pub(crate) fn positions(&self) -> Positions {
        self.0.iter().map(Stream::claimed).collect()
    }
}

impl Stream {
    fn new(name: StreamName, derived: bool, immediate: bool, head: Offset) -> Self {
        Self {
            name,
            derived,
            immediate,
            claimed: AtomicU64::new(head.0),
            offered: watch::Sender::new(head),
            released: watch::Sender::new(head),
        }
    }

    /// How far it may be dispatched; changes wake the waiter.
    pub(crate) fn ready(&self, log: &Log) -> Result<watch::Receiver<Offset>, skerry_store::Error> {
        if self.derived {
            Ok(self.released.subscribe())
        } else {
            log.head(&self.name)
        }
    }

    /// The retained messages of everything before `next` are on disk.
    pub(crate) fn release(&self, next: Offset) {
        self.released
            .send_if_modified(|released| std::mem::replace(released, next.max(*released)) < next);
    }

    pub(crate) fn claimed(&self) -> Offset {
        Offset(self.claimed.load(Ordering::SeqCst))
    }

    pub(crate) fn claim(&self, next: Offset) {
        self.claimed.store(next.0, Ordering::SeqCst);
    }

    pub(crate) fn offered(&self) -> Offset {
        *self.offered.borrow()
    }

    pub(crate) fn set_offered(&self, next: Offset) {
        self.offered.send_replace(next);
    }
}
