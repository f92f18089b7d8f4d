//! The streams that subscribers are fed from, and how far each has been dispatched.

use skerry_store::{Log, Offset, StreamName};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
    offered: AtomicU64,
}

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
            let head = log.head(&name)?.borrow().0;
            streams.push(Stream {
                derived: derived.contains(&name),
                immediate: immediate.contains(&name),
                claimed: AtomicU64::new(head),
                offered: AtomicU64::new(head),
                name,
            });
        }
        Ok(Self(streams.into()))
    }

    /// One empty stream, without a log.
    #[cfg(test)]
    pub(crate) fn one() -> Self {
        let stream = Stream {
            name: StreamName::new("default").expect("a name"),
            derived: false,
            immediate: false,
            claimed: AtomicU64::new(0),
            offered: AtomicU64::new(0),
        };
        Self([stream].into())
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

    /// Where a subscription made now begins. Exact while the dispatcher is kept out by the lock
    /// of the subscription tree.
    pub(crate) fn positions(&self) -> Positions {
        self.0.iter().map(Stream::claimed).collect()
    }
}

impl Stream {
    pub(crate) fn claimed(&self) -> Offset {
        Offset(self.claimed.load(Ordering::SeqCst))
    }

    pub(crate) fn claim(&self, next: Offset) {
        self.claimed.store(next.0, Ordering::SeqCst);
    }

    pub(crate) fn offered(&self) -> Offset {
        Offset(self.offered.load(Ordering::SeqCst))
    }

    pub(crate) fn set_offered(&self, next: Offset) {
        self.offered.store(next.0, Ordering::SeqCst);
    }
}
