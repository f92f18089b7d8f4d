//! The one thread that owns all files: takes what is queued, commits it, tells everybody.
//!
//! ```text
//! queue ─► admit ─► plan ─► write ─► sync ─► catalog ─► heads ─► answers ─► housekeeping
//!            │                 │        └─ fails: poison, the thread ends
//!            │                 └─ fails: roll back, make space if the disk is full, else every
//!            │                    append of the commit fails
//!            └─ full: this append fails, or the oldest segment is given up
//! ```
//!
//! What only streams of `Durability::Interval` got is answered without its sync, which is done
//! with that of a later commit, or with none, once it is due.

use crate::age::Ages;
use crate::catalog::{Mark, Reached};
use crate::directory::Lock;
use crate::disk::Disk;
use crate::frame::Encoded;
use crate::housekeeping::Snapshots;
use crate::packing::Packer;
use crate::plan::{Plan, Planned};
use crate::queue::{Company, Queued, Taken};
use crate::recovery;
use crate::reserve::Reserve;
use crate::stats::Storage;
use crate::stream::Shared;
use crate::track::{Origin, Track};
use crate::{Change, Committed, Error, Offset};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) disk: Disk,
    pub(crate) origin: Origin,
    pub(crate) tracks: Vec<Track>,
    pub(crate) poison: watch::Sender<Option<Error>>,
    pub(crate) company: Company,
    /// The next frame's.
    pub(crate) next_sequence: u64,
    pub(crate) snapshots: Snapshots,
    pub(crate) ages: Ages,
    pub(crate) reserve: Reserve,
    pub(crate) reserve_warned: bool,
    /// The commit under way was given some of the reserve.
    pub(crate) drawn: bool,
    /// Why only streams with a reserve are written: the disk is full.
    pub(crate) disk_full: Option<Error>,
    /// Gap records for losses that were found, until a commit carries them.
    pub(crate) untold: Vec<Note>,
    pub(crate) unflushed_bytes: u64,
    pub(crate) packer: Packer,
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
        loop {
            let taken = shared.queue.take(&self.company, Some(self.wake_at()));
            let started = Instant::now();
            let (notes, batch, _room) = match taken {
                Taken::Appends(batch, room) => (Vec::new(), batch, Some(room)),
                Taken::Nothing => (self.look_at_disk(), Vec::new(), None),
                Taken::Closed => break,
            };
            let appends = batch.len();
            if let Err(error) = self.commit(notes, batch) {
                return self.end_poisoned(&error);
            }
            if appends > 0 {
                self.company.committed(appends, started);
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
        let aged = self.ages.due().map(|due| self.ages.clock.instant(due));
        let aged = aged.filter(|_| self.figures().storage == Storage::Ok);
        let syncs = self.tracks.iter().filter_map(Track::sync_due);
        syncs.chain(aged).fold(look, Instant::min)
    }

    /// One group commit, of appends and of `probes` that need not be told again if it fails. An
    /// error means that the log is poisoned.
    pub(crate) fn commit(&mut self, probes: Vec<Note>, batch: Vec<Queued>) -> Result<(), Error> {
        self.mend_catalog();
        if let Err(error) = self.roll_back() {
            return self.fail(batch, error);
        }
        self.look_for_space(&batch)?;
        self.survey_damage();
        let mut notes = probes;
        notes.extend(self.expire());
        let mut batch = batch;
        loop {
            let losses = match self.disk_full.clone() {
                // They can wait for space; what has a reserve is not to fail with them.
                Some(full) => {
                    batch = self.draw_on_reserve(batch, &full);
                    Vec::new()
                }
                None => std::mem::take(&mut self.untold),
            };
            let lasting = losses.len();
            notes.splice(0..0, losses);
            let (removals, admitted) = self.admit(batch);
            notes.extend(removals);
            let error = match self.put(&notes, &admitted) {
                Ok(offsets) => {
                    // First, or whoever fills the disk as soon as it hears of this commit has
                    // what it left of the reserve.
                    self.regain_reserve();
                    answer(admitted, offsets, &self.tracks);
                    return self.tidy();
                }
                Err(error) => error,
            };
            // Another process may have been quicker than the write that the reserve gave way to.
            self.untold.extend(notes.drain(..lasting));
            let more = self.disk_full.is_some() && self.reserve.held() > 0;
            if !is_full(&error) || (self.disk_full.is_some() && !more) {
                self.regain_reserve();
                return self.fail(admitted, error);
            }
            // Nothing was given up, so that is not to be told.
            self.settle_removals(false);
            notes.clear();
            batch = admitted;
            if !more && !self.relieve()? {
                self.disk_full = Some(error);
                if self.reserve_wants_snapshot() {
                    self.snapshot()?;
                }
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
        if !notes.is_empty() {
            // What goes may be confirmed by a cursor that waits for its sync.
            self.sync_waiting()?;
        }
        let mut plan = Plan::new(self.next_sequence);
        for (stream, note) in notes {
            plan.push(*stream, self.tracks[*stream].next(), note);
        }
        let offsets: Vec<_> = batch
            .iter()
            .map(|queued| {
                let next = self.tracks[queued.carrier].next();
                plan.push(queued.carrier, next, &queued.append)
            })
            .collect();
        let (frames, next_sequence) = plan.finish();
        if frames.is_empty() {
            let due = self.due();
            self.sync_and_publish(&due)?;
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
        // What the log itself has to say is never left waiting: files may go for it.
        let noted = |stream| notes.iter().any(|(index, _)| *index == stream);
        let mut syncing = self.due();
        let touched = written.heads.keys().copied();
        syncing.extend(touched.filter(|&stream| noted(stream) || !self.tracks[stream].may_wait()));
        self.sync_all(&syncing)?;

        let appends = notes.iter().map(|(_, note)| note);
        let appends = appends.chain(batch.iter().map(|queued| &queued.append));
        self.apply(appends, &written);
        for (&stream, &next) in &written.heads {
            self.tracks[stream].keep(next);
        }
        self.publish(&syncing);
        self.shared.trim_recent();
        self.settle_removals(true);
        self.count(notes, batch, &written);
        Ok(offsets)
    }

    /// Gap records for damage that readers came upon.
    fn survey_damage(&mut self) {
        let damaged = self.shared.damaged.lock();
        let damaged = std::mem::take(&mut *damaged.unwrap_or_else(PoisonError::into_inner));
        self.snapshots.wanted |= !damaged.is_empty();
        for (stream, segment, end) in damaged {
            let places = recovery::survey(&segment, end).unwrap_or_default();
            for damage in &places {
                let shared = &self.shared;
                let note = damage.note(&shared.catalog, &shared.directory, self.name(stream));
                let note = note.filter(|note| note.count > 0);
                self.untold.extend(note.map(|note| (stream, note)));
            }
        }
    }

    fn write(&mut self, frames: &[Planned<'_>]) -> Result<Written, Error> {
        let mut by_stream: BTreeMap<usize, Vec<&Planned<'_>>> = BTreeMap::new();
        for frame in frames {
            by_stream.entry(frame.stream).or_default().push(frame);
        }
        let mut written = Written::default();
        let spare = self.has_spare_space();
        for (stream, frames) in by_stream {
            let track = &mut self.tracks[stream];
            let size = frames
                .iter()
                .map(|frame| frame.builder.bytes() as u64)
                .sum();
            let sequence = frames[0].sequence();
            let segment = track.segment(&self.disk, self.origin, sequence, size)?;
            let codec = track.stream.options.codec;
            let recent_from = self.shared.recent_from(&frames);
            let packed = self.packer.pack(&frames, &segment.seed, codec, recent_from);
            for packed in packed {
                let at = track.write(&self.disk, &packed.bytes, spare)?;
                for frame in packed.recent.drain(..) {
                    track.stream.recent.push(frame);
                }
                for (base, start) in &packed.starts {
                    segment.mark(*base, at + start);
                }
                written.bytes += packed.bytes.len() as u64;
                if stream == self.shared.journal {
                    written.journal_bytes += packed.bytes.len() as u64;
                }
            }
            for frame in frames {
                written.next_of(stream, frame.builder.next());
                if frame.builder.has_changes() {
                    written.changed.insert(stream, frame.sequence());
                    segment.changes_in(frame.sequence());
                }
            }
        }
        written.last_sequence = frames.last().map_or(0, Planned::sequence);
        self.packer.shrink();
        Ok(written)
    }

    /// The streams in which something has waited for its sync for long enough.
    fn due(&self) -> BTreeSet<usize> {
        let now = Instant::now();
        self.tracks_where(|track| track.sync_due().is_some_and(|due| due <= now))
    }

    fn tracks_where(&self, chosen: impl Fn(&Track) -> bool) -> BTreeSet<usize> {
        let tracks = self.tracks.iter().enumerate();
        let chosen = tracks.filter(|(_, track)| chosen(track));
        chosen.map(|(stream, _)| stream).collect()
    }

    /// Syncs whatever waits for it, due or not.
    pub(crate) fn sync_waiting(&mut self) -> Result<(), Error> {
        let waiting = self.tracks_where(|track| track.sync_due().is_some());
        self.sync_and_publish(&waiting)
    }

    fn sync_and_publish(&mut self, streams: &BTreeSet<usize>) -> Result<(), Error> {
        self.sync_all(streams)?;
        self.publish(streams);
        Ok(())
    }

    /// Syncs the files of some streams all at once: the file system then makes one flush of the
    /// device of them, where it would make as many as there are one after the other.
    fn sync_all(&mut self, streams: &BTreeSet<usize>) -> Result<(), Error> {
        let (disk, started) = (&self.disk, Instant::now());
        let tracks = self.tracks.iter_mut().enumerate();
        let chosen = tracks.filter(|(stream, _)| streams.contains(stream));
        let mut chosen = chosen.map(|(_, track)| track);
        let Some(first) = chosen.next() else {
            return Ok(());
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = chosen
                .map(|track| scope.spawn(|| track.sync(disk)))
                .collect();
            let first = first.sync(disk);
            others
                .into_iter()
                .map(|other| other.join().expect("a sync does not panic"))
                .fold(first, Result::and)
        })?;
        let mut figures = self.figures();
        figures.synced(started.elapsed());
        figures.syncs += streams.len() as u64 - 1;
        Ok(())
    }

    fn publish(&mut self, synced: &BTreeSet<usize>) {
        for &stream in synced {
            self.tracks[stream].publish();
        }
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

    fn apply<'a>(&mut self, appends: impl Iterator<Item = &'a Encoded>, written: &Written) {
        let mut changes: Vec<&Change> = Vec::new();
        for append in appends {
            changes.extend(&append.decoded);
            self.snapshots.change_bytes_since += append.change_bytes() as u64;
        }
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
        if let Err(error) = self.shared.catalog.apply(changes, reached) {
            self.abandon_catalog(&error);
        }
    }

    /// The end of an orderly life.
    fn stop(&mut self) -> Result<(), Error> {
        self.flush_catalog();
        self.roll_back()?;
        self.sync_waiting()?;
        for track in &mut self.tracks {
            track.cut_room(&self.disk);
        }
        let heads = self.tracks.iter();
        let heads = heads.map(|track| (track.stream.options.name.to_string(), track.next()));
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
        while let Taken::Appends(batch, _room) = self.shared.queue.take(&self.company, None) {
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

/// Tells each appender where its records are. From the back: who has many under way waits for the
/// oldest, and is to find all of them settled when it wakes up.
fn answer(batch: Vec<Queued>, offsets: Vec<Committed>, tracks: &[Track]) {
    for (queued, committed) in batch.into_iter().zip(offsets).rev() {
        let committed = if queued.carrier == queued.stream {
            committed
        } else {
            let next = tracks[queued.stream].next();
            Committed { first: next, next }
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
