//! The one thread that owns all files: takes what is queued, commits it, tells everybody.
//!
//! ```text
//! queue ─► admit ─► plan ─► write ─► sync ─► catalog ─► heads ─► answers ─► housekeeping
//!            │                 │        └─ fails: poison, the thread ends
//!            │                 └─ fails: roll back, every append of the commit fails
//!            └─ full: this append fails, or the oldest segment is given up
//! ```

use crate::catalog::{Mark, Reached};
use crate::directory::Lock;
use crate::disk::Disk;
use crate::frame::{self, Encoded};
use crate::give_up;
use crate::housekeeping::Snapshots;
use crate::plan::{Plan, Planned};
use crate::queue::{Company, Queued};
use crate::recovery;
use crate::retention::{Held, Room, make_room};
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
    pub(crate) unflushed_bytes: u64,
    pub(crate) rebuild_after: Option<Instant>,
    /// Held for as long as the files may change.
    pub(crate) lock: Lock,
}

/// An append that was let in, and the stream whose frame carries it.
type Note = (usize, Encoded);

impl Writer {
    /// Works until the queue is closed and empty, or a sync fails.
    pub(crate) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut company = Company::new(self.commit_delay_max);
        while let Some(batch) = shared.queue.take(&mut company) {
            let appends = batch.len();
            if let Err(error) = self.commit(Vec::new(), batch) {
                return self.end_poisoned(&error);
            }
            company.committed(appends);
        }
        if let Err(error) = self.stop() {
            tracing::warn!(%error, "the log was closed without its clean-stop marker");
        }
        // Readers may outlive the writer; the files may be opened anew all the same.
        shared.catalog.abandon();
    }

    /// One group commit. An error means that the log is poisoned.
    pub(crate) fn commit(&mut self, notes: Vec<Note>, batch: Vec<Queued>) -> Result<(), Error> {
        self.mend_catalog();
        if let Err(error) = self.roll_back() {
            return self.fail(batch, error);
        }
        let (gaps, batch) = self.admit(batch);
        let mut plan = Plan::new(self.next_sequence);
        let damage = self.survey_damage();
        let notes: Vec<_> = notes.into_iter().chain(damage).chain(gaps).collect();
        for (stream, note) in &notes {
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
            return self.tidy();
        }
        // Numbers of a commit that fails are not used again: its frames may still turn up.
        self.next_sequence = next_sequence;

        let written = match self.write(&frames) {
            Ok(written) => written,
            Err(error) => {
                if matches!(&error, Error::Storage { source, .. } if is_full(source)) {
                    self.reclaim_confirmed();
                }
                return match self.roll_back() {
                    Err(poisoned @ Error::Poisoned { .. }) => self.fail(batch, poisoned),
                    _ => self.fail(batch, error),
                };
            }
        };
        if let Err(poisoned) = self.sync_all(&written) {
            return self.fail(batch, poisoned);
        }

        let changes = notes.iter().map(|(_, note)| note);
        let changes = changes.chain(batch.iter().map(|queued| &queued.append));
        let changes: Vec<_> = changes.flat_map(|append| &append.decoded).collect();
        self.apply(&changes, &written);
        for (&stream, &next) in &written.heads {
            self.tracks[stream].publish(next);
        }
        self.settle_removals(true);
        self.count(&notes, &batch, &written);
        for (queued, committed) in batch.into_iter().zip(offsets) {
            let committed = if queued.carrier == queued.stream {
                committed
            } else {
                let head = self.tracks[queued.stream].head();
                Committed {
                    first: head,
                    next: head,
                }
            };
            queued.answer(Ok(committed));
        }
        self.tidy()
    }

    /// Gap records for damage that readers came upon.
    fn survey_damage(&mut self) -> Vec<Note> {
        let damaged = self.shared.damaged.lock();
        let damaged = std::mem::take(&mut *damaged.unwrap_or_else(PoisonError::into_inner));
        self.snapshots.wanted |= !damaged.is_empty();
        let mut notes = Vec::new();
        for (stream, segment, end) in damaged {
            let places = recovery::survey(&segment, end).unwrap_or_default();
            for damage in places.iter().filter(|damage| damage.records() > 0) {
                let shared = &self.shared;
                let note = damage.note(&shared.catalog, &shared.directory, self.name(stream));
                notes.extend(note.map(|note| (stream, note)));
            }
        }
        notes
    }

    /// Lets in what fits. Returns gap records for what has to go, and the appends let in.
    fn admit(&mut self, batch: Vec<Queued>) -> (Vec<Note>, Vec<Queued>) {
        let mut gaps = Vec::new();
        let mut needed: BTreeMap<usize, Result<u64, Error>> = BTreeMap::new();
        let mut admitted = Vec::with_capacity(batch.len());
        for queued in batch {
            let stream = queued.carrier;
            let before = needed.remove(&stream).unwrap_or(Ok(0));
            // Once one is refused, all later ones are: a stream keeps its order.
            let after = before.and_then(|before| {
                let bytes = queued.append.bytes() + frame::HEADER_BYTES;
                let needed = before + bytes as u64;
                let gap = self.make_room(stream, needed)?;
                gaps.extend(gap.map(|gap| (stream, gap)));
                Ok(needed)
            });
            match &after {
                Ok(_) => admitted.push(queued),
                Err(full) => {
                    self.figures().full += 1;
                    queued.answer(Err(full.clone()));
                }
            }
            needed.insert(stream, after);
        }
        (gaps, admitted)
    }

    /// Marks segments for removal so that `needed` bytes fit, and journals what is lost by it.
    fn make_room(&mut self, index: usize, needed: u64) -> Result<Option<Encoded>, Error> {
        let track = &mut self.tracks[index];
        let stream = Arc::clone(&track.stream);
        let mut segments = stream.segments();
        segments.retain(|segment| segment.next() > track.kept_from());
        let held: Vec<_> = segments
            .iter()
            .map(|segment| Held {
                bytes: segment.bytes(),
                next: segment.next(),
            })
            .collect();
        let confirmed = self.shared.confirmed(&stream);
        let options = &stream.options;
        let room = make_room(
            &held,
            needed,
            options.bytes_max,
            confirmed,
            options.when_full,
        );
        let (count, dropped) = match room {
            Room::Enough => return Ok(None),
            Room::Reclaim(count) => (count, false),
            Room::Drop(count) => (count, true),
            Room::Full => {
                return Err(Error::Full {
                    stream: options.name.to_string(),
                    bytes: held.iter().map(|segment| segment.bytes).sum(),
                    bytes_max: options.bytes_max,
                });
            }
        };
        // The newest segment can only go once there is a newer one.
        track.rotate |= count == held.len();
        let next = held[count - 1].next;
        track.give_up(next);
        if !dropped {
            return Ok(None);
        }
        let lost = (segments[0].name.base.max(confirmed), next);
        let name = options.name.as_str();
        Ok(Some(give_up::journal(name, &segments[..count], lost)))
    }

    fn write(&mut self, frames: &[Planned]) -> Result<Written, Error> {
        let mut by_stream: BTreeMap<usize, Vec<&Planned>> = BTreeMap::new();
        for frame in frames {
            by_stream.entry(frame.stream).or_default().push(frame);
        }
        let mut written = Written::default();
        let mut bytes = Vec::new();
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
            let at = track.write(&self.disk, &bytes)?;
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
        let mut figures = self.figures();
        if figures.storage == Storage::Ok {
            tracing::error!(%error, "a commit failed; nothing acknowledged is lost");
        }
        figures.failed += batch.len() as u64;
        figures.storage = Storage::StorageFailed {
            reason: error.to_string(),
        };
        drop(figures);
        for queued in batch {
            queued.answer(Err(error.clone()));
        }
        match error {
            Error::Poisoned { .. } => Err(error),
            _ => Ok(()),
        }
    }

    fn settle_removals(&mut self, committed: bool) {
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
        figures.gaps += notes.len() as u64;
        figures.commits += 1;
        figures.written += written.bytes;
        if figures.storage != Storage::Ok {
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
        recovery::Marker {
            last_sequence: self.next_sequence - 1,
            heads: heads.collect(),
        }
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
        while let Some(batch) = self.shared.queue.take(&mut company) {
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

fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}
