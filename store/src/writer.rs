//! The one thread that owns all files: takes what is queued, commits it, tells everybody.
//!
//! ```text
//! queue ─► admit ─► plan ─► write ─► sync ─► catalog ─► heads ─► answers ─► housekeeping
//!            │                 │        └─ fails: poison, the thread ends
//!            │                 └─ fails: roll back, make space if the disk is full, else every
//!            │                    append of the commit fails
//!            └─ full: this append fails, or the oldest segment is given up
//! ```

use crate::age::Ages;
use crate::catalog::{Mark, Reached};
use crate::directory::Lock;
use crate::disk::Disk;
use crate::frame::Encoded;
use crate::housekeeping::Snapshots;
use crate::plan::{Plan, Planned};
use crate::queue::{Company, Queued, Taken};
use crate::recovery;
use crate::reserve::Reserve;
use crate::stats::Storage;
use crate::stream::Shared;
use crate::track::{Origin, Track};
use crate::{Change, Committed, Error, Offset};
use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) disk: Disk,
    pub(crate) origin: Origin,
    pub(crate) tracks: Vec<Track>,
    pub(crate) poison: watch::Sender<Option<Error>>,
    pub(crate) commit_delay_max: Duration,
    /// The next frame's.
    pub(crate) next_sequence: u64,
    pub(crate) snapshots: Snapshots,
    pub(crate) ages: Ages,
    pub(crate) reserve: Reserve,
    pub(crate) reserve_warned: bool,
    /// What the reserve should hold after the commit under way, which draws on it.
    pub(crate) drawn: Option<u64>,
    /// Why only streams with a reserve are written: the disk is full.
    pub(crate) disk_full: Option<Error>,
    pub(crate) unflushed_bytes: u64,
    pub(crate) rebuild_after: Option<Instant>,
    /// Held for as long as the files may change.
    pub(crate) lock: Lock,
}

/// An idle log notices within this that its disk has become read-only, and one that failed that
/// the disk works again.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// An append that was let in, and the stream whose frame carries it.
pub(crate) type Note = (usize, Encoded);

impl Writer {
    /// Works until the queue is closed and empty, or a sync fails.
    pub(crate) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut company = Company::new(self.commit_delay_max);
        loop {
            let (notes, batch) = match shared.queue.take(&mut company, Some(self.wake_at())) {
                Taken::Appends(batch) => (Vec::new(), batch),
                Taken::Nothing => (self.look_at_disk(), Vec::new()),
                Taken::Closed => break,
            };
            let appends = batch.len();
            if let Err(error) = self.commit(notes, batch) {
                return self.end_poisoned(&error);
            }
            if appends > 0 {
                company.committed(appends);
            }
        }
        if let Err(error) = self.stop() {
            tracing::warn!(%error, "the log was closed without its clean-stop marker");
        }
        // Readers may outlive the writer; the files may be opened anew all the same.
        shared.catalog.abandon();
    }

    /// When to look after the disk and what is on it even if nobody appends.
    fn wake_at(&self) -> Instant {
        let look = Instant::now() + LOOK_PAUSE;
        let due = self.ages.due().map(|due| self.ages.clock.instant(due));
        match self.figures().storage {
            Storage::Ok => due.map_or(look, |due| due.min(look)),
            _ => look,
        }
    }

    /// One group commit. An error means that the log is poisoned.
    pub(crate) fn commit(&mut self, notes: Vec<Note>, batch: Vec<Queued>) -> Result<(), Error> {
        self.mend_catalog();
        if let Err(error) = self.roll_back() {
            return self.fail(batch, error);
        }
        self.look_for_space(&batch)?;
        let mut notes = notes;
        notes.extend(self.survey_damage());
        let lasting = notes.len();
        notes.extend(self.expire());
        let mut batch = batch;
        loop {
            if let Some(full) = self.disk_full.clone() {
                batch = self.draw_on_reserve(batch, &full);
            }
            let (removals, admitted) = self.admit(batch);
            notes.extend(removals);
            let error = match self.put(&notes, &admitted) {
                Ok(offsets) => {
                    answer(admitted, offsets, &self.tracks);
                    return self.tidy();
                }
                Err(error) => error,
            };
            if !is_full(&error) || self.disk_full.is_some() {
                return self.fail(admitted, error);
            }
            // Nothing was given up, so that is not to be told.
            self.settle_removals(false);
            notes.truncate(lasting);
            batch = admitted;
            if !self.relieve()? {
                self.disk_full = Some(error);
            }
        }
    }

    /// Writes and syncs notes and appends, and makes them true. Returns the offsets of each
    /// append. After an error nothing of it is there.
    pub(crate) fn put(
        &mut self,
        notes: &[Note],
        batch: &[Queued],
    ) -> Result<Vec<Committed>, Error> {
        let mut plan = Plan::new(self.next_sequence);
        for (stream, note) in notes {
            plan.push(*stream, self.tracks[*stream].head(), note);
        }
        let offsets: Vec<_> = batch
            .iter()
            .map(|queued| {
                let head = self.tracks[queued.carrier].head();
                plan.push(queued.carrier, head, &queued.append)
            })
            .collect();
        let (frames, next_sequence) = plan.finish();
        if frames.is_empty() {
            self.settle_removals(true);
            return Ok(offsets);
        }
        // Numbers of a commit that fails are not used again: its frames may still turn up.
        self.next_sequence = next_sequence;
        let written = match self.write(&frames) {
            Ok(written) => written,
            Err(error) => {
                return match self.roll_back() {
                    Err(poisoned @ Error::Poisoned { .. }) => Err(poisoned),
                    _ => Err(error),
                };
            }
        };
        self.sync_all(&written)?;

        let changes = notes.iter().map(|(_, note)| note);
        let changes = changes.chain(batch.iter().map(|queued| &queued.append));
        let changes: Vec<_> = changes.flat_map(|append| &append.decoded).collect();
        self.apply(&changes, &written);
        for (&stream, &next) in &written.heads {
            self.tracks[stream].publish(next);
        }
        self.settle_removals(true);
        self.count(notes, batch, &written);
        Ok(offsets)
    }

    /// Gap records for damage that readers came upon.
    fn survey_damage(&mut self) -> Vec<Note> {
        let damaged = self.shared.damaged.lock();
        let damaged = std::mem::take(&mut *damaged.unwrap_or_else(PoisonError::into_inner));
        self.snapshots.wanted |= !damaged.is_empty();
        let mut notes = Vec::new();
        for (stream, segment, end) in damaged {
            let places = recovery::survey(&segment, end).unwrap_or_default();
            for damage in &places {
                let shared = &self.shared;
                let note = damage.note(&shared.catalog, &shared.directory, self.name(stream));
                let note = note.filter(|note| note.count > 0);
                notes.extend(note.map(|note| (stream, note)));
            }
        }
        notes
    }

    fn write(&mut self, frames: &[Planned]) -> Result<Written, Error> {
        let mut by_stream: BTreeMap<usize, Vec<&Planned>> = BTreeMap::new();
        for frame in frames {
            by_stream.entry(frame.stream).or_default().push(frame);
        }
        let mut written = Written::default();
        let mut bytes = Vec::new();
        let spare = self.has_spare_space();
        for (stream, frames) in by_stream {
            let track = &mut self.tracks[stream];
            let size = frames
                .iter()
                .map(|frame| frame.builder.bytes() as u64)
                .sum();
            let sequence = frames[0].sequence();
            let segment = track.segment(&self.disk, self.origin, sequence, size)?;
            bytes.clear();
            let mut starts = Vec::new();
            for frame in &frames {
                starts.push((frame.builder.base, bytes.len() as u64));
                let (seed, codec) = (segment.seed, track.stream.options.codec);
                frame
                    .builder
                    .finish(frame.sequence(), seed, codec, &mut bytes);
                written.next_of(stream, frame.builder.next());
                if frame.builder.has_changes() {
                    written.changed.insert(stream, frame.sequence());
                }
            }
            let at = track.write(&self.disk, &bytes, spare)?;
            for (base, start) in starts {
                segment.mark(base, at + start);
            }
            written.bytes += bytes.len() as u64;
            if stream == self.shared.journal {
                written.journal_bytes += bytes.len() as u64;
            }
        }
        written.last_sequence = frames.last().map_or(0, Planned::sequence);
        Ok(written)
    }

    /// Syncs every file a commit touched, all at once: the file system then makes one flush of
    /// the device of them, where it would make as many as there are one after the other.
    fn sync_all(&mut self, written: &Written) -> Result<(), Error> {
        let (disk, started) = (&self.disk, Instant::now());
        let tracks = self.tracks.iter_mut().enumerate();
        let touched = tracks.filter(|(stream, _)| written.heads.contains_key(stream));
        let mut touched = touched.map(|(_, track)| track);
        let first = touched.next();
        std::thread::scope(|scope| {
            let others: Vec<_> = touched
                .map(|track| scope.spawn(|| track.sync(disk)))
                .collect();
            let first = first.map_or(Ok(()), |track| track.sync(disk));
            others
                .into_iter()
                .map(|other| other.join().expect("a sync does not panic"))
                .fold(first, Result::and)
        })?;
        let mut figures = self.figures();
        figures.synced(started.elapsed());
        figures.syncs += written.heads.len() as u64 - 1;
        Ok(())
    }

    pub(crate) fn sync(&mut self, stream: usize) -> Result<(), Error> {
        let started = Instant::now();
        self.tracks[stream].sync(&self.disk)?;
        self.figures().synced(started.elapsed());
        Ok(())
    }

    pub(crate) fn roll_back(&mut self) -> Result<(), Error> {
        for track in &mut self.tracks {
            track.roll_back(&self.disk)?;
        }
        Ok(())
    }

    /// Answers a commit that failed. A poisoning error is handed on.
    pub(crate) fn fail(&mut self, batch: Vec<Queued>, error: Error) -> Result<(), Error> {
        self.settle_removals(false);
        self.storage_failed(&error, batch.len());
        for queued in batch {
            queued.answer(Err(error.clone()));
        }
        match error {
            Error::Poisoned { .. } => Err(error),
            _ => Ok(()),
        }
    }

    pub(crate) fn settle_removals(&mut self, committed: bool) {
        for track in &mut self.tracks {
            track.settle_removal(committed);
        }
    }

    fn count(&self, notes: &[Note], batch: &[Queued], written: &Written) {
        let mut figures = self.figures();
        let queued = batch.iter().map(|queued| &queued.append);
        for append in notes.iter().map(|(_, note)| note).chain(queued) {
            figures.records += u64::from(append.count);
            figures.bytes += append.bytes() as u64;
        }
        let gaps = notes.iter().filter(|(_, note)| note.count > 0);
        figures.gaps += gaps.count() as u64;
        figures.commits += 1;
        figures.written += written.bytes;
        if figures.storage != Storage::Ok && self.disk_full.is_none() {
            tracing::info!("the disk takes writes again");
            figures.storage = Storage::Ok;
        }
    }

    fn apply(&mut self, changes: &[&Change], written: &Written) {
        self.unflushed_bytes += written.bytes;
        self.snapshots.bytes_since += written.bytes;
        self.snapshots.journal_bytes_since += written.journal_bytes;
        if changes.is_empty() {
            return;
        }
        self.snapshots.last_change = written.last_sequence;
        let heads: Vec<_> = written
            .heads
            .iter()
            .map(|(&stream, &next)| (self.name(stream), next))
            .collect();
        let changed: Vec<_> = written
            .changed
            .iter()
            .map(|(&stream, &sequence)| (self.name(stream), sequence))
            .collect();
        let reached = Reached {
            mark: self.mark(written.last_sequence),
            heads: &heads,
            changed: &changed,
        };
        let changes = changes.iter().copied();
        if let Err(error) = self.shared.catalog.apply(changes, reached) {
            self.abandon_catalog(&error);
        }
    }

    /// The end of an orderly life.
    fn stop(&mut self) -> Result<(), Error> {
        self.flush_catalog();
        self.roll_back()?;
        for track in &mut self.tracks {
            track.cut_room(&self.disk);
        }
        let heads = self.tracks.iter();
        let heads = heads.map(|track| (track.stream.options.name.to_string(), track.head()));
        recovery::Marker::new(self.next_sequence - 1, heads.collect())
            .write(&self.disk, &self.shared.directory)
    }

    fn end_poisoned(self, error: &Error) {
        tracing::error!(%error, "the log is poisoned");
        self.figures().storage = Storage::Poisoned {
            reason: error.to_string(),
        };
        self.poison.send_replace(Some(error.clone()));
        self.shared.queue.close();
        let mut company = Company::new(Duration::ZERO);
        while let Taken::Appends(batch) = self.shared.queue.take(&mut company, None) {
            for queued in batch {
                queued.answer(Err(error.clone()));
            }
        }
        drop(self.lock);
    }

    pub(crate) const fn mark(&self, applied: u64) -> Mark {
        Mark {
            epoch: self.origin.epoch,
            boot: self.origin.boot,
            applied,
        }
    }

    pub(crate) fn name(&self, stream: usize) -> &str {
        self.shared.streams[stream].options.name.as_str()
    }

    pub(crate) fn figures(&self) -> MutexGuard<'_, crate::stats::Figures> {
        let figures = self.shared.figures.lock();
        figures.unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one commit put into the files.
#[derive(Debug, Default)]
struct Written {
    /// Head of each stream touched, once the commit is durable.
    heads: BTreeMap<usize, Offset>,
    /// The last frame with changes, by sequence number, of each stream that got one.
    changed: BTreeMap<usize, u64>,
    bytes: u64,
    journal_bytes: u64,
    last_sequence: u64,
}

impl Written {
    fn next_of(&mut self, stream: usize, next: Offset) {
        self.heads.insert(stream, next);
    }
}

/// Tells each appender where its records are.
fn answer(batch: Vec<Queued>, offsets: Vec<Committed>, tracks: &[Track]) {
    for (queued, committed) in batch.into_iter().zip(offsets) {
        let committed = if queued.carrier == queued.stream {
            committed
        } else {
            let head = tracks[queued.stream].head();
            Committed {
                first: head,
                next: head,
            }
        };
        queued.answer(Ok(committed));
    }
}

pub(crate) fn is_full(error: &Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    let Error::Storage { source, .. } = error else {
        return false;
    };
    matches!(source.kind(), StorageFull | QuotaExceeded)
}
