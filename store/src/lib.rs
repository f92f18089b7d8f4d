//! Contract to come from the store's author; the types below are the fixed interface.

mod record;

pub use record::{Gap, Kind, Offset, Record, WallNanos};

use bytes::Bytes;
use std::path::PathBuf;
use tokio::sync::watch;

/// Name of a stream: 1 to 64 of `a-z 0-9 - _`; a leading `_` is the node's own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamName(std::sync::Arc<str>);
impl StreamName {
    pub fn new(_name: &str) -> Result<Self, Error> { todo!() }
    pub fn as_str(&self) -> &str { &self.0 }
}

/// How a stream is kept.
#[derive(Debug, Clone)]
pub struct StreamOptions {
    pub name: StreamName,
    /// Bytes of segment files this stream may hold.
    pub bytes_max: u64,
    /// What happens when `bytes_max` is reached and nothing confirmed is left to reclaim.
    pub when_full: WhenFull,
}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull { Block, DropOldest }

#[derive(Debug, Clone)]
pub struct Options {
    pub directory: PathBuf,
    pub streams: Vec<StreamOptions>,
    /// Upper bound on how long a record waits for company before its commit starts.
    pub commit_delay_max: std::time::Duration,
    pub segment_bytes: u64,
    pub allow_volatile: bool,
}

/// One atomic unit: all of it survives a crash, or none of it.
#[derive(Debug, Clone)]
pub struct Append {
    pub stream: StreamName,
    /// May be empty where only `changes` matter.
    pub records: Vec<Record>,
    /// Catalog changes that become true in the same instant as the records.
    pub changes: Vec<Change>,
}
/// A change of the catalog, journalled in the log itself; sled only mirrors it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Change {
    /// The reader `cursor` has done with everything in `stream` before `next`.
    Advance { cursor: String, stream: String, next: Offset },
    Put { bucket: String, key: Bytes, value: Bytes },
    Delete { bucket: String, key: Bytes },
}

/// Offsets given to an append: `first .. next`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed { pub first: Offset, pub next: Offset }

#[derive(Debug, thiserror::Error, Clone)]
pub enum Error {
    #[error("placeholder: {0}")]
    Placeholder(String),
}

/// The open log. Cheap to clone; the last clone to go stops the writer after a final commit.
#[derive(Clone)]
pub struct Log(std::sync::Arc<()>);

impl Log {
    pub fn open(_options: Options) -> Result<(Self, Recovery), Error> { todo!() }
    /// Queues the append and resolves when it is on disk. Waits while the bounded queue is full.
    /// Cancelling the future after it was queued does not undo the append.
    pub async fn append(&self, _append: Append) -> Result<Committed, Error> { todo!() }
    /// Queues without waiting for the disk: the returned future resolves at the commit.
    pub async fn submit(&self, _append: Append) -> Result<Pending, Error> { todo!() }
    /// A reader of durable records from `from` on; independent of every other reader.
    pub fn reader(&self, _stream: &StreamName, _from: Offset) -> Result<Reader, Error> { todo!() }
    /// One past the last durable record; changes wake the waiter.
    pub fn head(&self, _stream: &StreamName) -> Result<watch::Receiver<Offset>, Error> { todo!() }
    /// The first record still held.
    pub fn tail(&self, _stream: &StreamName) -> Result<Offset, Error> { todo!() }
    /// Where the named reader goes on; `None` if it never advanced.
    pub fn cursor(&self, _cursor: &str, _stream: &StreamName) -> Result<Option<Offset>, Error> { todo!() }
    pub fn get(&self, _bucket: &str, _key: &[u8]) -> Result<Option<Bytes>, Error> { todo!() }
    /// All entries of a bucket whose key starts with `prefix`, in key order.
    pub fn scan(&self, _bucket: &str, _prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, Error> { todo!() }
    pub fn streams(&self) -> Vec<StreamName> { todo!() }
    /// Random id of this data directory, made at its first opening.
    pub fn epoch(&self) -> u64 { todo!() }
    pub fn stats(&self) -> Stats { todo!() }
    /// Commits what is queued, syncs, stops the writer.
    pub async fn close(self) -> Result<(), Error> { todo!() }
}

/// Resolves when the append it came from is on disk.
pub struct Pending(());
impl Pending {
    pub async fn committed(self) -> Result<Committed, Error> { todo!() }
}

/// What opening found and mended.
#[derive(Debug, Clone, Default)]
pub struct Recovery { pub torn_bytes: u64, pub quarantined_frames: u64, pub catalog_rebuilt: bool, pub clean_stop: bool }

#[derive(Debug, Clone, Default)]
pub struct Stats {}

/// Reads one stream in order. Never sees a record that is not yet durable.
pub struct Reader(());
impl Reader {
    /// The next records, at least one and until `bytes_max` of payload is reached; empty at the
    /// head. Blocks on the disk only. Records removed by retention or damage show as
    /// `Batch::missing` before the next batch.
    pub fn next(&mut self, _bytes_max: usize) -> Result<Batch, Error> { todo!() }
    /// The same, waiting for the head to move when there is nothing to read.
    pub async fn follow(&mut self, _bytes_max: usize) -> Result<Batch, Error> { todo!() }
    pub fn position(&self) -> Offset { todo!() }
}
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Offsets that are gone for good and were skipped before `records`: first, one past last.
    pub missing: Option<(Offset, Offset)>,
    pub records: Vec<(Offset, Record)>,
}
