//! What the opener of a log decides.

use crate::{Codec, Error, Keys};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Name of a stream: 1 to 64 of `a-z 0-9 - _`; a leading `_` is the node's own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamName(Arc<str>);

impl StreamName {
    pub const BYTES_MAX: usize = 64;

    pub fn new(name: &str) -> Result<Self, Error> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
        if (1..=Self::BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed) {
            Ok(Self(name.into()))
        } else {
            Err(Error::StreamName { name: name.into() })
        }
    }

    /// The node's own stream for appends that carry only changes; every log has it.
    #[must_use]
    pub fn catalog() -> Self {
        Self("_catalog".into())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for StreamName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// When an append to a stream is acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// Once it is on the device.
    #[default]
    Sync,
    /// Once the kernel has it; it is on the device within this time, and only then read. A crash
    /// of the process loses nothing. A power cut may take what was acknowledged within this time
    /// before it, and a gap record says so.
    Interval(Duration),
}

/// How a stream is kept.
#[derive(Debug, Clone)]
pub struct StreamOptions {
    pub name: StreamName,
    /// Bytes of segment files this stream may hold.
    pub bytes_max: u64,
    /// Room that nobody else can take: neither other streams, under [`Options::bytes_max_total`],
    /// nor other processes that fill the disk. The stream can always be written while it holds
    /// less than this.
    pub reserve_bytes: u64,
    /// Records older than this are removed by segment: where they are confirmed, and by
    /// [`WhenFull::DropOldest`] in any case. Age is the time that the log was open since then.
    pub age_max: Option<Duration>,
    /// What happens when `bytes_max` is reached and nothing confirmed is left to reclaim.
    pub when_full: WhenFull,
    /// Names of the cursors that must all have advanced past a record before it counts as
    /// confirmed, and its segment may be reclaimed. Without a name nothing is ever confirmed.
    pub readers: Vec<String>,
    pub codec: Codec,
    pub durability: Durability,
}

impl StreamOptions {
    /// A stream that blocks when full and counts nothing as confirmed.
    #[must_use]
    pub const fn new(name: StreamName, bytes_max: u64) -> Self {
        Self {
            name,
            bytes_max,
            reserve_bytes: 0,
            age_max: None,
            when_full: WhenFull::Block,
            readers: Vec::new(),
            codec: Codec::Lz4,
            durability: Durability::Sync,
        }
    }
}

/// What a full stream does with the next append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// Refuses it with [`Error::Full`]: nothing that was acknowledged is given up.
    Block,
    /// Gives up the oldest segment, and writes a gap record that says so.
    DropOldest,
}

/// Where the log lives and how it works.
#[derive(Debug, Clone)]
pub struct Options {
    pub directory: PathBuf,
    /// The streams to create or go on with. Streams found on disk besides these stay readable
    /// and writable, without a limit.
    pub streams: Vec<StreamOptions>,
    /// Bytes of segment files, and of reserves, that all streams may hold together. Confirmed
    /// data is reclaimed first, the oldest first; then the `drop_oldest` stream that fills most
    /// of its own limit gives up its oldest segment.
    pub bytes_max_total: Option<u64>,
    /// What the log keeps on the disk for itself: for cursors, which free space, and for the gap
    /// records without which nothing is given up.
    pub journal_reserve_bytes: u64,
    /// Upper bound on how long a record waits for company before its commit starts.
    pub commit_delay_max: Duration,
    /// Commits start at least this far apart, unless much is queued, for a disk that wears out
    /// by their number. Whoever appends less than this after a commit waits for as long.
    pub commit_interval_min: Duration,
    /// A segment file that reaches this is closed; streams with a small `bytes_max` use a
    /// quarter of that instead.
    pub segment_bytes: u64,
    /// Memory for the newest records of all streams together, from which readers at the head of a
    /// stream are served without the disk; and as much again while a commit is under way that is
    /// as large. What a busy stream holds of it is at nobody's expense who holds less.
    pub recent_bytes_max: usize,
    /// Open even where the directory is in memory (tmpfs).
    pub allow_volatile: bool,
    /// Encrypts what is written from now on. A log that was encrypted once opens with its keys
    /// only, so this is for good.
    pub keys: Option<Keys>,
}

impl Options {
    /// The defaults: no streams yet, 16 MiB segments, 4 MiB of newest records in memory, at most
    /// 5 ms of waiting for company.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            streams: Vec::new(),
            bytes_max_total: None,
            journal_reserve_bytes: 1024 * 1024,
            commit_delay_max: Duration::from_millis(5),
            commit_interval_min: Duration::ZERO,
            segment_bytes: 16 * 1024 * 1024,
            recent_bytes_max: 4 * 1024 * 1024,
            allow_volatile: false,
            keys: None,
        }
    }
}
