//! What the writer does when the disk has no space: makes some, or writes only what has a reserve.
//!
//! ```text
//! no space ─► reclaim what is confirmed ─► give up the oldest of a drop_oldest stream ─► try again
//!                   │ nothing left               │ nothing left
//!                   └────────────────────────────┴─► refuse what has no reserve, write the rest
//! ```

use crate::append;
use crate::catalog;
use crate::directory;
use crate::frame;
use crate::give_up::Reason;
use crate::queue::Queued;
use crate::retention::Claim;
use crate::stats::Storage;
use crate::writer::{Note, Writer};
use crate::{Error, reserve, retention};
use std::collections::BTreeMap;

/// What a commit takes besides its appends: frame and segment headers, blocks that are begun.
const OVERHEAD_BYTES: u64 = 64 * 1024;

impl Writer {
    /// Goes on as usual once the disk has space again, or some can be made.
    pub(crate) fn look_for_space(&mut self, batch: &[Queued]) -> Result<(), Error> {
        if self.disk_full.is_none() {
            return Ok(());
        }
        let target = self.reserve_target();
        let reserved = batch.iter().all(|queued| self.may_draw(queued.carrier, 1));
        // Nothing is given up for what has a reserve.
        let found = self.reserve.probe(&self.disk, target).is_ok()
            || match reserved {
                true => self.reclaim_confirmed()?,
                false => self.relieve()?,
            };
        if found {
            self.disk_full = None;
        }
        Ok(())
    }

    /// Notices, while nobody writes, a disk that has become read-only; and returns something to
    /// write, which shows whether a disk that failed works again.
    pub(crate) fn look_at_disk(&mut self) -> Vec<Note> {
        let failed = self.figures().storage != Storage::Ok;
        if !failed && directory::is_read_only(&self.shared.directory) {
            let read_only = std::io::Error::from(std::io::ErrorKind::ReadOnlyFilesystem);
            let error = Error::storage("write to", &self.shared.directory)(read_only);
            self.storage_failed(&error, 0);
        }
        if !failed || self.disk_full.is_some() {
            return Vec::new();
        }
        vec![(self.shared.journal, append::nothing())]
    }

    /// Whether the disk has space for more than has to be: the reserve is whole.
    pub(crate) fn has_spare_space(&self) -> bool {
        self.disk_full.is_none() && self.reserve.held() >= self.shared.reserve_unused()
    }

    /// Keeps the reserve as large as it has to be, while the disk has space.
    pub(crate) fn keep_reserve(&mut self) {
        if self.disk_full.is_some() {
            return;
        }
        let target = self.reserve_target();
        let outcome = self.reserve.keep(&self.disk, target);
        if let Err(error) = &outcome
            && !self.reserve_warned
        {
            tracing::warn!(%error, bytes = target, "the disk has no space for the log's reserve");
        }
        self.reserve_warned = outcome.is_err();
        self.figures().reserve = self.reserve.held();
    }

    /// On a full disk: gives back as much of the reserve as `write` takes, for as long as it does,
    /// which includes to take back what failed and to remove what is no longer needed.
    pub(crate) fn with_reserve<T>(&mut self, bytes: u64, write: impl FnOnce(&mut Self) -> T) -> T {
        if self.disk_full.is_some() {
            self.draw(bytes);
        }
        let written = write(self);
        self.regain_reserve();
        written
    }

    /// What the reserve should hold: what streams may still write of theirs, and a snapshot,
    /// without which nothing that is confirmed could go.
    fn reserve_target(&self) -> u64 {
        let snapshot = self.snapshot_bytes();
        // In steps, as the file is not to change with every change of the catalog.
        self.shared.reserve_unused() + (snapshot + 1).next_multiple_of(reserve::STEP_BYTES)
    }

    /// What the next snapshot takes of the disk, and the catalog while it is read for it.
    pub(crate) const fn snapshot_bytes(&self) -> u64 {
        self.snapshots.next_bytes() + catalog::UNWRITTEN_BYTES
    }

    /// On a full disk: whether the journal has used up half of its reserve since its last snapshot,
    /// which gives back what came before, or something confirmed could go if there was one.
    pub(crate) fn reserve_wants_snapshot(&self) -> bool {
        let journal = &self.shared.streams[self.shared.journal];
        let half = journal.options.reserve_bytes / 2;
        self.disk_full.is_some()
            && (self.snapshots.journal_bytes_since > half || self.confirmed_needs_snapshot())
    }

    fn draw(&mut self, bytes: u64) {
        self.drawn = true;
        let bytes = bytes.saturating_add(OVERHEAD_BYTES);
        self.reserve.give_back(&self.disk, bytes);
        self.figures().reserve = self.reserve.held();
    }

    /// Whether a stream has that much left of its reserve. Moving a cursor is what frees space: for
    /// that the journal may have all there is.
    fn may_draw(&self, stream: usize, bytes: u64) -> bool {
        let all = stream == self.shared.journal && self.reserve.held() > 0;
        all || bytes <= self.shared.streams[stream].reserve_left()
    }

    /// On a full disk, after a commit: takes back what it left, and what else there is to be had. A
    /// reserve that only got back what it had before would stay too small once it was.
    pub(crate) fn regain_reserve(&mut self) {
        if !std::mem::take(&mut self.drawn) {
            return;
        }
        let target = self.reserve_target();
        self.reserve.regain(&self.disk, target);
        self.figures().reserve = self.reserve.held();
    }

    /// Makes space on a full disk. False if there is nothing left that may go.
    pub(crate) fn relieve(&mut self) -> Result<bool, Error> {
        if self.reclaim_confirmed()? {
            return Ok(true);
        }
        let claims: Vec<_> = (0..self.tracks.len())
            .map(|index| self.claim(index))
            .collect();
        let Some(index) = retention::largest_share(&claims) else {
            return Ok(false);
        };
        // Its gap record, and a snapshot if the segment has changes, need some space first.
        self.reserve.give_back(&self.disk, u64::MAX);
        let segments = self.kept(index);
        if self.needs_snapshot(&segments, 1) && !self.snapshot()? {
            return Ok(false);
        }
        self.reserve.give_back(&self.disk, u64::MAX);
        let note = self.give_up(index, &segments[..1], Reason::DiskFull);
        let notes: Vec<Note> = note.into_iter().collect();
        if let Err(error) = self.put(&notes, &[]) {
            self.settle_removals(false);
            return match error {
                Error::Poisoned { .. } => Err(error),
                _ => Ok(false),
            };
        }
        self.tidy()?;
        let oldest = self.shared.streams[index].first();
        Ok(oldest.is_some_and(|oldest| oldest.name != segments[0].name))
    }

    /// On a full disk: refuses what no reserve is kept for, and gives back as much of the reserve
    /// as the rest takes.
    pub(crate) fn draw_on_reserve(&mut self, batch: Vec<Queued>, error: &Error) -> Vec<Queued> {
        let mut needed: BTreeMap<usize, u64> = BTreeMap::new();
        let (urgent, others): (Vec<_>, Vec<_>) = batch.into_iter().partition(|queued| {
            let needed = needed.entry(queued.carrier).or_default();
            *needed += (queued.append.bytes() + frame::HEADER_BYTES) as u64;
            // Once one is refused, all later ones are: a stream keeps its order.
            self.may_draw(queued.carrier, *needed)
        });
        self.storage_failed(error, others.len());
        for queued in others {
            queued.answer(Err(error.clone()));
        }
        if !urgent.is_empty() {
            let bytes = urgent
                .iter()
                .map(|queued| queued.append.bytes() as u64)
                .sum::<u64>();
            self.draw(bytes);
        }
        urgent
    }

    pub(crate) fn storage_failed(&self, error: &Error, refused: usize) {
        let mut figures = self.figures();
        if figures.storage == Storage::Ok {
            tracing::error!(%error, "a commit failed; nothing acknowledged is lost");
        }
        figures.failed += refused as u64;
        figures.storage = Storage::StorageFailed {
            reason: error.to_string(),
        };
    }

    /// A stream as the quota, and a full disk, see it.
    pub(crate) fn claim(&self, index: usize) -> Claim {
        let stream = &self.shared.streams[index];
        let segments = self.kept(index);
        let older = match segments.split_last() {
            // The newest one says where the stream goes on.
            Some((_, older)) if index != self.shared.journal => older,
            // The journal's go by themselves, once there is a snapshot.
            _ => &[],
        };
        Claim {
            bytes: segments.iter().map(|segment| segment.bytes()).sum(),
            bytes_max: stream.options.bytes_max,
            reserve_bytes: stream.options.reserve_bytes,
            when_full: stream.options.when_full,
            confirmed: self.shared.confirmed(stream),
            older: older.iter().map(|segment| segment.held()).collect(),
        }
    }
}
