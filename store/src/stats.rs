//! What the log tells about itself.

use crate::reserve::free_bytes;
use crate::stream::Shared;
use crate::{Durability, Offset};
use serde::Serialize;
use std::sync::PoisonError;
use std::time::Duration;

/// The state of the log and its streams at one moment. Counters start at 0 with the process.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Stats {
    pub streams: Vec<StreamStats>,
    /// Bytes that all streams hold or reserve together, and how many they may.
    pub quota_bytes: u64,
    pub quota_bytes_max: Option<u64>,
    /// Bytes that the file system has left for this process, besides the reserve; 0 where it does
    /// not tell.
    pub disk_free_bytes: u64,
    /// Bytes of disk kept for streams with a reserve; less than it should be on a full disk.
    pub reserve_bytes_held: u64,
    pub reserve_bytes: u64,
    /// The most that the streams' `recent_bytes` may be together between two commits.
    pub recent_bytes_max: usize,
    /// Group commits that reached the disk.
    pub commits_total: u64,
    /// Calls of `fdatasync`, one per file touched by a commit.
    pub syncs_total: u64,
    /// The last and the longest sync, in microseconds.
    pub sync_last_us: u64,
    pub sync_max_us: u64,
    /// What is queued or being committed right now.
    pub queue_bytes: usize,
    pub queue_appends: usize,
    pub queue_bytes_max: usize,
    pub records_appended_total: u64,
    /// Encoded size of what was appended, before compression.
    pub bytes_appended_total: u64,
    /// Bytes of frames written to segment files.
    pub bytes_written_total: u64,
    pub gap_records_total: u64,
    /// Appends refused because their stream was full.
    pub refused_full_total: u64,
    /// Appends that failed because the disk did.
    pub failed_storage_total: u64,
    pub segments_removed_total: u64,
    pub snapshots_total: u64,
    pub storage: Storage,
    /// Whether the catalog is usable; it is rebuilt at the next commit if not.
    pub catalog_in_order: bool,
}

/// Whether the disk takes what it is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Storage {
    #[default]
    Ok,
    /// The last write failed; each append tries again.
    StorageFailed { reason: String },
    /// A sync failed. The process has to restart.
    Poisoned { reason: String },
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct StreamStats {
    pub name: String,
    /// The first record still held, and one past the last durable one.
    pub tail: Offset,
    pub head: Offset,
    /// Bytes of segment files, and how many there may be.
    pub bytes: u64,
    pub bytes_max: u64,
    /// How long records stay, at most.
    pub age_max_seconds: Option<u64>,
    pub reserve_bytes: u64,
    pub segments: usize,
    /// Memory that its newest records take, from which readers at the head are served.
    pub recent_bytes: usize,
    /// How long an acknowledged record may wait for its sync; none where it never does.
    pub sync_interval_ms: Option<u64>,
    /// Acknowledged records that wait for it now, and for how long.
    pub unsynced_records: u64,
    pub unsynced_ms: u64,
    /// Everything before this is confirmed by all the readers the stream waits for.
    pub confirmed: Offset,
}

/// The counters the writer keeps.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) commits: u64,
    pub(crate) syncs: u64,
    pub(crate) sync_last: Duration,
    pub(crate) sync_max: Duration,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) written: u64,
    pub(crate) gaps: u64,
    pub(crate) full: u64,
    pub(crate) failed: u64,
    pub(crate) removed: u64,
    pub(crate) snapshots: u64,
    pub(crate) reserve: u64,
    pub(crate) storage: Storage,
}

impl Figures {
    pub(crate) fn synced(&mut self, took: Duration) {
        self.syncs += 1;
        self.sync_last = took;
        self.sync_max = self.sync_max.max(took);
    }
}

impl Shared {
    pub(crate) fn stats(&self) -> Stats {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let streams = self.streams.iter().map(|stream| {
            let (unsynced_records, since) = stream.unsynced();
            StreamStats {
                sync_interval_ms: match stream.options.durability {
                    Durability::Sync => None,
                    Durability::Interval(interval) => Some(millis(interval)),
                },
                unsynced_records,
                unsynced_ms: since.map_or(0, |since| millis(since.elapsed())),
                name: stream.options.name.to_string(),
                tail: stream.tail(),
                head: stream.head(),
                bytes: stream.bytes(),
                bytes_max: stream.options.bytes_max,
                age_max_seconds: stream.options.age_max.map(|age| age.as_secs()),
                reserve_bytes: stream.options.reserve_bytes,
                segments: stream.segments().len(),
                recent_bytes: stream.recent.bytes(),
                confirmed: self.confirmed(stream),
            }
        });
        let streams = streams.collect();
        let (queue_bytes, queue_appends) = self.queue.depth();
        let figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Stats {
            quota_bytes: self.weight(),
            quota_bytes_max: self.bytes_max_total,
            disk_free_bytes: free_bytes(&self.directory.join("lock")),
            reserve_bytes_held: figures.reserve,
            reserve_bytes: self.reserve_unused(),
            recent_bytes_max: self.recent_bytes_max,
            streams,
            commits_total: figures.commits,
            syncs_total: figures.syncs,
            sync_last_us: micros(figures.sync_last),
            sync_max_us: micros(figures.sync_max),
            queue_bytes,
            queue_appends,
            queue_bytes_max: crate::queue::QUEUE_BYTES_MAX,
            records_appended_total: figures.records,
            bytes_appended_total: figures.bytes,
            bytes_written_total: figures.written,
            gap_records_total: figures.gaps,
            refused_full_total: figures.full,
            failed_storage_total: figures.failed,
            segments_removed_total: figures.removed,
            snapshots_total: figures.snapshots,
            storage: figures.storage.clone(),
            catalog_in_order: self.catalog.in_order(),
        }
    }
}
