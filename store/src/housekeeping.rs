//! What the writer does between commits, while nobody waits: give space back, keep the catalog
//! rebuildable and rebuild it.

use crate::catalog::Reached;
use crate::frame::{Builder, Encoded, flags};
use crate::replay::{self, Truth};
use crate::segment::Segment;
use crate::writer::Writer;
use crate::{Error, Offset};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// sled is handed to the operating system after this much log, which bounds the replay after a
/// crash of the process.
const FLUSH_BYTES: u64 = 8 * 1024 * 1024;
/// A catalog that is out of order is rebuilt no more often than this.
const REBUILD_PAUSE: Duration = Duration::from_secs(1);

/// When the catalog was last written into the log as a whole, and when it is to be again.
#[derive(Debug)]
pub(crate) struct Snapshots {
    /// Last sequence number of the newest complete snapshot; 0 if there is none.
    pub(crate) last: u64,
    /// Newest frame that carries changes.
    pub(crate) last_change: u64,
    /// Log written since, in all streams and in `_catalog` alone.
    pub(crate) bytes_since: u64,
    pub(crate) journal_bytes_since: u64,
    /// Size of the newest one: the journal may grow to a multiple of it.
    pub(crate) bytes: u64,
    pub(crate) segment_bytes: u64,
    /// Changes were found damaged in the log that the catalog still has.
    pub(crate) wanted: bool,
}

impl Snapshots {
    /// Often enough that a rebuild reads little, rarely enough that it costs little.
    fn due(&self) -> bool {
        let replay_bytes_max = (4 * self.segment_bytes).max(8 * self.bytes);
        let journal_bytes_max = (self.segment_bytes / 4).max(4 * self.bytes);
        let worthwhile = self.last_change > self.last;
        self.wanted
            || worthwhile
                && (self.bytes_since > replay_bytes_max
                    || self.journal_bytes_since > journal_bytes_max)
    }
}

impl Writer {
    /// Work that nobody waits for.
    pub(crate) fn tidy(&mut self) -> Result<(), Error> {
        for index in 0..self.tracks.len() {
            if self.tracks[index].remove_below > Offset::ZERO {
                self.remove_old(index)?;
            }
        }
        if self.snapshots.due() {
            self.snapshot()?;
        }
        if self.unflushed_bytes >= FLUSH_BYTES {
            self.flush_catalog();
        }
        Ok(())
    }

    /// Removes the segments of a stream that are marked for it.
    fn remove_old(&mut self, index: usize) -> Result<(), Error> {
        let track = &self.tracks[index];
        let segments = track.stream.segments();
        let count = segments
            .iter()
            .take_while(|segment| segment.next() <= track.remove_below)
            .count()
            // The newest one says where the stream goes on.
            .min(segments.len().saturating_sub(1));
        if count == 0 {
            return Ok(());
        }
        track.stream.raise_floor(track.remove_below);
        // Frames that go may hold the only copy of changes made since the last snapshot.
        let kept = segments[count].name.sequence;
        if kept > self.snapshots.last + 1
            && self.snapshots.last_change > self.snapshots.last
            && !self.snapshot()?
        {
            return Ok(());
        }
        self.unlink(index, count);
        Ok(())
    }

    /// A failure here costs space and nothing else: recovery finds the file again.
    fn unlink(&self, index: usize, count: usize) {
        let stream = &self.tracks[index].stream;
        let segments = stream.segments();
        stream.remove_oldest(count);
        for segment in &segments[..count] {
            if let Err(error) = self.disk.remove(&segment.path) {
                tracing::warn!(path = %segment.path.display(), %error, "cannot remove a segment");
                // Those after it stay as well: a hole would look like a segment that was lost.
                break;
            }
        }
        if let Err(error) = self.disk.sync_directory(&stream.directory) {
            tracing::warn!(path = %stream.directory.display(), %error, "cannot sync a directory");
        }
        self.figures().removed += count as u64;
    }

    /// The disk is full: gives back what is confirmed and needs no snapshot first.
    pub(crate) fn reclaim_confirmed(&mut self) {
        for index in 0..self.tracks.len() {
            let stream = &self.tracks[index].stream;
            let confirmed = self.shared.confirmed(stream);
            let segments = stream.segments();
            let safe = |pair: &&[Arc<Segment>]| {
                let all_applied = self.snapshots.last_change <= self.snapshots.last;
                pair[0].next() <= confirmed
                    && (all_applied || pair[1].name.sequence <= self.snapshots.last + 1)
            };
            let count = segments.windows(2).take_while(safe).count();
            if count > 0 {
                self.unlink(index, count);
            }
        }
    }

    /// Writes the whole catalog into `_catalog` and trims what came before. `Ok(false)` if the
    /// disk or the catalog did not allow it; an error poisons.
    fn snapshot(&mut self) -> Result<bool, Error> {
        if !self.shared.catalog.in_order() {
            return Ok(false);
        }
        self.tracks[self.shared.journal].rotate = true;
        let outcome = match self.write_snapshot() {
            Ok(bytes) => self.sync(self.shared.journal).map(|()| bytes),
            Err(error) => Err(error),
        };
        let bytes = match outcome {
            Ok(bytes) => bytes,
            Err(error) => {
                return match (self.roll_back(), error) {
                    (_, poisoned @ Error::Poisoned { .. }) => Err(poisoned),
                    (Err(poisoned @ Error::Poisoned { .. }), _) => Err(poisoned),
                    (_, error) => self.fail(Vec::new(), error).map(|()| false),
                };
            }
        };
        let journal = &mut self.tracks[self.shared.journal];
        let head = journal.head();
        journal.publish(head);
        let before = journal.stream.segments().len() - 1;
        self.snapshots.last = self.next_sequence - 1;
        self.snapshots.wanted = false;
        self.snapshots.bytes = bytes;
        self.snapshots.bytes_since = 0;
        self.snapshots.journal_bytes_since = 0;
        self.figures().snapshots += 1;
        // From here on the older changes are in these frames only, should the catalog be lost.
        let journal = self.name(self.shared.journal);
        if let Err(error) = self.note_reached(&[(journal, self.snapshots.last)]) {
            self.abandon_catalog(&error);
        }
        self.flush_catalog();
        self.unlink(self.shared.journal, before);
        Ok(true)
    }

    /// Frames that hold the catalog as it is, the last of them marked as such.
    fn write_snapshot(&mut self) -> Result<u64, Error> {
        let (disk, origin) = (self.disk.clone(), self.origin);
        let shared = Arc::clone(&self.shared);
        let track = &mut self.tracks[shared.journal];
        let head = track.head();
        let next_sequence = &mut self.next_sequence;
        // The segment is begun here, and holds the snapshot however large it gets.
        let segment = track.segment(&disk, origin, *next_sequence, 0)?;
        let mut bytes = Vec::new();
        let mut total = 0;
        let mut flush = |part: &mut Builder, flag: u8| {
            part.snapshot |= flags::SNAPSHOT | flag;
            bytes.clear();
            let codec = track.stream.options.codec;
            part.finish(*next_sequence, segment.seed, codec, &mut bytes);
            *next_sequence += 1;
            total += bytes.len() as u64;
            *part = Builder::new(head);
            track.write(&disk, &bytes)
        };
        let mut part = Builder::new(head);
        part.snapshot = flags::SNAPSHOT_FIRST;
        shared.catalog.export(|change| {
            part.push(&Encoded::new(&[], vec![change]));
            if part.is_large() {
                flush(&mut part, 0)?;
            }
            Ok(())
        })?;
        flush(&mut part, flags::SNAPSHOT_LAST)?;
        Ok(total)
    }

    pub(crate) fn flush_catalog(&mut self) {
        self.unflushed_bytes = 0;
        let flushed = self
            .note_reached(&[])
            .and_then(|()| self.shared.catalog.flush());
        if let Err(error) = flushed {
            self.abandon_catalog(&error);
        }
    }

    /// Tells the catalog how far the log has come, and nothing else.
    fn note_reached(&self, changed: &[(&str, u64)]) -> Result<(), Error> {
        let reached = Reached {
            mark: self.mark(self.next_sequence - 1),
            heads: &self.heads(),
            changed,
        };
        self.shared.catalog.apply([], reached)
    }

    fn heads(&self) -> Vec<(&str, Offset)> {
        (0..self.tracks.len())
            .map(|stream| (self.name(stream), self.tracks[stream].head()))
            .collect()
    }

    pub(crate) fn abandon_catalog(&mut self, error: &Error) {
        if self.shared.catalog.in_order() {
            tracing::warn!(%error, "the catalog is out of order; it will be rebuilt from the log");
            self.shared.catalog.abandon();
            self.rebuild_after = Some(Instant::now() + REBUILD_PAUSE);
        }
    }

    /// Rebuilds the catalog if it is out of order.
    pub(crate) fn mend_catalog(&mut self) {
        let due = self
            .rebuild_after
            .is_none_or(|after| Instant::now() >= after);
        if self.shared.catalog.in_order() || !due {
            return;
        }
        let truth = Truth {
            streams: &self.shared.streams,
            journal: self.shared.journal,
            mark: self.mark(self.next_sequence - 1),
            heads: &self.heads(),
        };
        match replay::rebuild(&self.shared.catalog, truth) {
            Ok(_) => tracing::info!("the catalog was rebuilt from the log"),
            Err(error) => self.abandon_catalog(&error),
        }
        self.rebuild_after = Some(Instant::now() + REBUILD_PAUSE);
    }
}
