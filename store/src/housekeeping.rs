//! What the writer does between commits, while nobody waits: give space back, keep the catalog
//! rebuildable and rebuild it.

use crate::catalog::Reached;
use crate::frame::{BODY_BYTES_TARGET, Builder, Encoded, flags};
use crate::give_up;
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
    /// Encoded size of the changes since; more where that is not known.
    pub(crate) change_bytes_since: u64,
    /// Size of the newest one: the journal may grow to a multiple of it.
    pub(crate) bytes: u64,
    pub(crate) segment_bytes: u64,
    /// Changes were found damaged in the log that the catalog still has.
    pub(crate) wanted: bool,
}

impl Snapshots {
    /// The most that the next one may take, frames aside.
    pub(crate) const fn next_bytes(&self) -> u64 {
        self.bytes + self.change_bytes_since
    }

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
        if self.snapshots.due() || self.reserve_wants_snapshot() {
            self.snapshot()?;
        }
        self.keep_reserve();
        if self.unflushed_bytes >= FLUSH_BYTES {
            self.flush_catalog();
        }
        Ok(())
    }

    /// Removes the segments of a stream that are marked for it.
    fn remove_old(&mut self, index: usize) -> Result<(), Error> {
        self.renew(index)?;
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
        if self.needs_snapshot(&segments, count) && !self.snapshot()? {
            return Ok(());
        }
        self.unlink(index, count);
        Ok(())
    }

    /// Where all of a stream is to go, and nothing was appended since: begins its next segment.
    fn renew(&mut self, index: usize) -> Result<(), Error> {
        let (disk, origin, sequence) = (&self.disk, self.origin, self.next_sequence);
        let track = &mut self.tracks[index];
        let newest = track.stream.segments().pop();
        let all = newest.is_some_and(|newest| {
            newest.name.base < newest.next() && newest.next() <= track.remove_below
        });
        match all.then(|| track.renew(disk, origin, sequence)) {
            Some(Err(poisoned @ Error::Poisoned { .. })) => Err(poisoned),
            Some(Err(error)) => {
                tracing::warn!(%error, "old records stay until their stream can go on elsewhere");
                Ok(())
            }
            Some(Ok(())) | None => Ok(()),
        }
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

    /// Whether changes in the oldest segments of a stream, `going` of them, are in no snapshot yet.
    pub(crate) fn needs_snapshot(&self, segments: &[Arc<Segment>], going: usize) -> bool {
        let last = self.snapshots.last;
        let newer = |segment: &Arc<Segment>| segment.has_changes_after(last);
        self.snapshots.last_change > last
            && segments[going].name.sequence > last + 1
            && segments[..going].iter().any(newer)
    }

    /// The disk is full: gives back what is confirmed and needs no snapshot first. False if
    /// there is nothing of that kind.
    pub(crate) fn reclaim_confirmed(&mut self) -> Result<bool, Error> {
        // A cursor may be among it that says so.
        self.sync_waiting()?;
        let mut reclaimed = false;
        for index in 0..self.tracks.len() {
            // The journal has no readers that could confirm a snapshot: the next one trims it.
            if index == self.shared.journal {
                continue;
            }
            let segments = self.tracks[index].stream.segments();
            let confirmed = self.confirmed_in(index, &segments);
            let safe = |going: &usize| !self.needs_snapshot(&segments, *going);
            let count = (1..=confirmed).take_while(safe).count();
            // On a full disk no new tail can be journalled. One after the other, what is left of
            // them after a power cut has no holes, that would look like losses.
            for _ in 0..count {
                self.unlink(index, 1);
                reclaimed = true;
            }
        }
        Ok(reclaimed)
    }

    /// How many of a stream's segments are confirmed, the newest aside, which always stays.
    fn confirmed_in(&self, index: usize, segments: &[Arc<Segment>]) -> usize {
        let confirmed = self.shared.confirmed(&self.tracks[index].stream);
        let older = segments.split_last().map_or(segments, |(_, older)| older);
        let done = |segment: &&Arc<Segment>| segment.next() <= confirmed;
        older.iter().take_while(done).count()
    }

    /// Whether something that is confirmed waits for nothing but a snapshot.
    pub(crate) fn confirmed_needs_snapshot(&self) -> bool {
        let mut records = (0..self.tracks.len()).filter(|&index| index != self.shared.journal);
        records.any(|index| {
            let segments = self.tracks[index].stream.segments();
            let confirmed = self.confirmed_in(index, &segments);
            confirmed > 0 && self.needs_snapshot(&segments, confirmed)
        })
    }

    /// Writes the whole catalog into `_catalog` and trims what came before. `Ok(false)` if the
    /// disk or the catalog did not allow it; an error poisons.
    pub(crate) fn snapshot(&mut self) -> Result<bool, Error> {
        if !self.shared.catalog.in_order() {
            return Ok(false);
        }
        self.with_reserve(self.snapshot_bytes(), Self::try_snapshot)
    }

    fn try_snapshot(&mut self) -> Result<bool, Error> {
        // Changes must not be there for good before the records that came with them are.
        self.sync_waiting()?;
        self.tracks[self.shared.journal].rotate = true;
        let written = self.write_snapshot();
        let synced = written.and_then(|bytes| self.sync(self.shared.journal).map(|()| bytes));
        let bytes = match synced {
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
        journal.publish();
        let before = journal.stream.segments().len() - 1;
        self.snapshots.last = self.next_sequence - 1;
        self.snapshots.wanted = false;
        self.snapshots.bytes = bytes;
        self.snapshots.bytes_since = 0;
        self.snapshots.journal_bytes_since = 0;
        self.snapshots.change_bytes_since = 0;
        self.figures().snapshots += 1;
        // From here on the older changes are in these frames only, should the catalog be lost.
        let journal = self.name(self.shared.journal);
        if let Err(error) = self.note_reached(&[(journal, self.snapshots.last)]) {
            self.abandon_catalog(&error);
        }
        // Room for what sled has not written yet, where the disk has no other.
        self.unlink(self.shared.journal, before);
        self.flush_catalog();
        self.shared.streams[self.shared.journal].renew_reserve();
        Ok(true)
    }

    /// Frames that hold the catalog as it is, the last of them marked as such.
    fn write_snapshot(&mut self) -> Result<u64, Error> {
        let (disk, origin) = (self.disk.clone(), self.origin);
        let shared = Arc::clone(&self.shared);
        let track = &mut self.tracks[shared.journal];
        let next = track.next();
        let next_sequence = &mut self.next_sequence;
        // The segment is begun here, and holds the snapshot however large it gets.
        let segment = track.segment(&disk, origin, *next_sequence, 0)?;
        let (mut body, mut bytes) = (Vec::new(), Vec::new());
        let mut total = 0;
        let mut first = flags::SNAPSHOT_FIRST;
        let mut flush = |part: &[Encoded], last: u8| {
            let mut frame = Builder::new(next);
            part.iter().for_each(|change| frame.push(change));
            frame.snapshot = flags::SNAPSHOT | std::mem::take(&mut first) | last;
            bytes.clear();
            let codec = track.stream.options.codec;
            frame.finish(*next_sequence, &segment.seed, codec, &mut body, &mut bytes);
            *next_sequence += 1;
            total += bytes.len() as u64;
            track.write(&disk, &bytes, false)
        };
        let (mut part, mut part_bytes) = (Vec::new(), 0);
        shared.catalog.export(|change| {
            let change = Encoded::new(&[], vec![change]);
            part_bytes += change.bytes();
            part.push(change);
            if part_bytes >= BODY_BYTES_TARGET {
                flush(&part, 0)?;
                part.clear();
                part_bytes = 0;
            }
            Ok(())
        })?;
        flush(&part, flags::SNAPSHOT_LAST)?;
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
            .map(|stream| (self.name(stream), self.tracks[stream].next()))
            .collect()
    }

    pub(crate) fn abandon_catalog(&mut self, error: &Error) {
        if self.shared.catalog.in_order() {
            tracing::warn!(%error, "the catalog is out of order; it will be rebuilt from the log");
            self.rebuild_after = Some(Instant::now() + REBUILD_PAUSE);
        }
        // One that is half rebuilt as well.
        self.shared.catalog.abandon();
    }

    /// Takes from the catalog what was given up and is still on disk: a log that was opened
    /// without it could not know.
    fn adopt_tails(&mut self) {
        for track in &mut self.tracks {
            let tail = give_up::tail(&self.shared.catalog, track.stream.options.name.as_str());
            track.remove_below = track.remove_below.max(tail);
            track.stream.raise_floor(tail);
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
        // On a full disk it takes what it needs of the reserve: without a catalog there is no
        // snapshot, and without that nothing that is confirmed can go.
        let rebuilt = self.with_reserve(u64::MAX, |writer| {
            let truth = Truth {
                streams: &writer.shared.streams,
                journal: writer.shared.journal,
                mark: writer.mark(writer.next_sequence - 1),
                heads: &writer.heads(),
            };
            // What sled has not written yet would find no room beside a whole reserve.
            replay::rebuild(&writer.shared.catalog, truth)
                .and_then(|_| writer.shared.catalog.flush())
        });
        match rebuilt {
            Ok(()) => {
                tracing::info!("the catalog was rebuilt from the log");
                self.adopt_tails();
            }
            Err(error) => self.abandon_catalog(&error),
        }
        self.rebuild_after = Some(Instant::now() + REBUILD_PAUSE);
    }
}
