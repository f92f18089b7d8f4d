//! The writer's end of one stream: the file it appends to, and what of it is on the device.
//!
//! ```text
//!                   synced         kept           end            room_end
//!  header │ frames    │   frames     │   frames     │   zeros        │
//!         └─ readers ─┘              │              └─ overwritten by small commits
//!                     └─ Interval: acknowledged     └─ the commit under way
//! ```
//!
//! In a stream of [`Durability::Sync`] what is kept is synced.

use crate::cipher::Cipher;
use crate::digest::{Digest, Hasher};
use crate::disk::Disk;
use crate::segment::{HEADER_BYTES, Name, Preface, Segment};
use crate::stream::Stream;
use crate::{Durability, Error, Offset, WallNanos};
use std::fs::File;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;

/// What every segment of this run has in its header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    pub(crate) epoch: u64,
    pub(crate) boot: u128,
}

/// A file gets zeros ahead of its frames in pieces of this size: a frame that overwrites them
/// changes no metadata, which a sync would have to put into the file system's journal. Measured
/// on ext4, 5 appends of 200 bytes per commit: 18.4 KiB to the device per commit without, 5.3 with.
const ROOM_BYTES: u64 = 256 * 1024;
/// Writes of at least this much go without: for them the zeros, which the device gets as well,
/// cost more than those 13 KiB.
const ROOM_WRITE_BYTES_MAX: usize = 12 * 1024;
/// However long its interval, a stream is synced when this much waits for it: half of what a
/// burst may put into the queue, so that the sync that follows is no stall.
const UNSYNCED_BYTES_MAX: u64 = 4 * 1024 * 1024;

#[derive(Debug)]
pub(crate) struct Track {
    pub(crate) stream: Arc<Stream>,
    head: watch::Sender<Offset>,
    /// One past the last record that is kept; readers see those before `head`.
    next: Offset,
    active: Option<Active>,
    /// Digest of the newest segment with a frame that an earlier run wrote.
    found: Digest,
    cipher: Option<Arc<Cipher>>,
    /// The next write begins a new segment.
    pub(crate) rotate: bool,
    /// Segments that end at or before this are to be removed.
    pub(crate) remove_below: Offset,
    /// What the commit under way makes of `remove_below`, should it succeed.
    removing_below: Option<Offset>,
}

#[derive(Debug)]
struct Active {
    file: File,
    segment: Arc<Segment>,
    /// Where the next frame goes; ahead of `kept` while a commit is under way.
    end: u64,
    /// Where the frames end that stay whatever becomes of the commit under way.
    kept: u64,
    /// Since when some of that waits for its sync.
    unsynced_since: Option<Instant>,
    /// Where the zeros ahead of `end` end, or `end` itself or less where there are none.
    room_end: u64,
    /// The disk had no place for zeros: this file grows by what is written.
    roomless: bool,
    /// The file may hold bytes behind `kept`.
    dirty: bool,
    /// The file's name is not yet on the device.
    fresh: bool,
    /// Of the file up to `end`, and up to `kept`, as of the last clean moment.
    digest: Hasher,
    kept_digest: Hasher,
}

impl Track {
    /// `found` is the digest of the stream's newest segment that has a frame.
    pub(crate) fn new(
        stream: Arc<Stream>,
        head: watch::Sender<Offset>,
        found: Digest,
        cipher: Option<Arc<Cipher>>,
    ) -> Self {
        let next = *head.borrow();
        Self {
            stream,
            head,
            next,
            active: None,
            found,
            cipher,
            rotate: false,
            remove_below: Offset::ZERO,
            removing_below: None,
        }
    }

    /// Segments that end at or before this are gone once the commit under way succeeds.
    pub(crate) fn kept_from(&self) -> Offset {
        self.removing_below.unwrap_or(self.remove_below)
    }

    /// Has the commit under way give up everything before `next`.
    pub(crate) fn give_up(&mut self, next: Offset) {
        self.removing_below = Some(next.max(self.kept_from()));
    }

    /// The commit succeeded, or it did not: then nothing was given up.
    pub(crate) fn settle_removal(&mut self, committed: bool) {
        if let Some(below) = self.removing_below.take().filter(|_| committed) {
            self.remove_below = below;
            // From here on its gap record stands for it, though the files are still there.
            self.stream.raise_floor(below);
        }
    }

    /// The offset of the record that is written next.
    pub(crate) const fn next(&self) -> Offset {
        self.next
    }

    /// When what is kept is to be synced at the latest.
    pub(crate) fn sync_due(&self) -> Option<Instant> {
        let since = self.active.as_ref()?.unsynced_since?;
        match self.stream.options.durability {
            Durability::Sync => Some(since),
            Durability::Interval(interval) => Some(since + interval),
        }
    }

    /// Whether what the commit under way wrote may be acknowledged once the kernel has it.
    pub(crate) fn may_wait(&self) -> bool {
        let waiting = self.active.as_ref().map_or(0, Active::unsynced_bytes);
        self.has_interval() && waiting < UNSYNCED_BYTES_MAX
    }

    fn has_interval(&self) -> bool {
        matches!(self.stream.options.durability, Durability::Interval(_))
    }

    /// The segment the next `bytes` go to, begun if need be. No frame before `sequence` follows.
    pub(crate) fn segment(
        &mut self,
        disk: &Disk,
        origin: Origin,
        sequence: u64,
        bytes: u64,
    ) -> Result<Arc<Segment>, Error> {
        if let Some(active) = &self.active {
            let empty = active.end == HEADER_BYTES as u64;
            let full = active.end + bytes > self.stream.segment_bytes;
            if empty || !(full || self.rotate) {
                return Ok(Arc::clone(&active.segment));
            }
        }
        self.begin(disk, origin, sequence)
    }

    fn begin(&mut self, disk: &Disk, origin: Origin, sequence: u64) -> Result<Arc<Segment>, Error> {
        // Only the newest segment may have a torn end.
        if self.sync_due().is_some() {
            self.sync(disk)?;
            self.publish();
        }
        let interval = self.has_interval();
        let name = Name {
            base: self.next,
            sequence,
        };
        let preface = Preface {
            epoch: origin.epoch,
            boot: origin.boot,
            name,
            created: WallNanos::now(),
            interval,
            // An active segment without a frame is never left for another.
            previous: match &self.active {
                Some(active) => active.digest.digest(),
                None => self.found,
            },
            stream: self.stream.options.name.to_string(),
            key: self.cipher.as_ref().map(|cipher| cipher.id()),
        };
        let end = HEADER_BYTES as u64;
        let segment = Segment::new(&self.stream.directory, origin.epoch, name, end, name.base)
            .with_cipher(self.cipher.as_ref())
            .without_changes();
        let path = &segment.path;
        // Should this fail, the file may still turn up after a power cut. What is written from
        // now on belongs behind it, so no frame goes to the segment before it any more.
        self.rotate = true;
        let file = disk
            .create(path)
            .map_err(Error::storage("create segment", path))?;
        let header = preface.encode();
        if let Err(error) = disk.write(&file, path, &header, 0) {
            // Without a whole header the file is nothing; recovery also ignores it.
            let _ = disk.remove(path);
            return Err(Error::storage("write segment header of", path)(error));
        }
        self.cut_room(disk);
        let segment = Arc::new(segment);
        self.stream.push(Arc::clone(&segment));
        self.rotate = false;
        self.active = Some(Active {
            file,
            segment: Arc::clone(&segment),
            end,
            kept: end,
            unsynced_since: None,
            room_end: end,
            roomless: false,
            dirty: false,
            fresh: true,
            digest: Hasher::new(&header),
            kept_digest: Hasher::new(&header),
        });
        if interval {
            // It says that records may go missing; so it has to be there when they do.
            self.sync(disk)?;
        }
        Ok(segment)
    }

    /// Begins a segment though nothing is to be written yet, so that the one before it can go.
    pub(crate) fn renew(
        &mut self,
        disk: &Disk,
        origin: Origin,
        sequence: u64,
    ) -> Result<(), Error> {
        self.begin(disk, origin, sequence)?;
        self.sync(disk)
    }

    /// Writes behind what is there and returns where. Not durable before [`Track::sync`].
    /// `spare` says whether the disk has space for zeros too.
    pub(crate) fn write(&mut self, disk: &Disk, bytes: &[u8], spare: bool) -> Result<u64, Error> {
        let active = self.active.as_mut().expect("a segment was asked for first");
        if !active.dirty {
            active.kept_digest.clone_from(&active.digest);
        }
        active.dirty = true;
        if spare {
            active.make_room(disk, bytes.len(), self.stream.segment_bytes);
        }
        let path = &active.segment.path;
        disk.write(&active.file, path, bytes, active.end)
            .map_err(Error::storage("write to", path))?;
        let at = active.end;
        active.end += bytes.len() as u64;
        active.digest.update(bytes);
        Ok(at)
    }

    /// Brings what was written, and the file's name, onto the device. An error here leaves
    /// unknown what is there: never to be tried again.
    pub(crate) fn sync(&mut self, disk: &Disk) -> Result<(), Error> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        let path = &active.segment.path;
        disk.sync(&active.file, path).map_err(poison(path))?;
        if active.fresh {
            let directory = &self.stream.directory;
            disk.sync_directory(directory).map_err(poison(directory))?;
            active.fresh = false;
        }
        active.dirty = false;
        active.kept = active.end;
        active.unsynced_since = None;
        self.stream.waits_since(None);
        Ok(())
    }

    /// What was written stays, up to `next`. What of it is not synced yet waits from now on.
    pub(crate) fn keep(&mut self, next: Offset) {
        if let Some(active) = self.active.as_mut().filter(|active| active.dirty) {
            active.kept = active.end;
            active.dirty = false;
            let since = active.unsynced_since.get_or_insert_with(Instant::now);
            self.stream.waits_since(Some(*since));
        }
        self.next = next;
        self.stream.accept(next);
    }

    /// What is kept was synced, and becomes visible.
    pub(crate) fn publish(&mut self) {
        let next = self.next;
        if let Some(active) = &self.active {
            active.segment.extend(active.kept, next);
        }
        self.head.send_if_modified(|head| {
            let moved = *head != next;
            *head = next;
            moved
        });
    }

    /// Gives back what no frame was written to. Not synced: zeros behind the frames are room, and
    /// recovery cuts them off as well.
    pub(crate) fn cut_room(&mut self, disk: &Disk) {
        let Some(active) = &mut self.active else {
            return;
        };
        if active.room_end > active.end {
            let path = &active.segment.path;
            match disk.truncate(&active.file, path, active.end) {
                Ok(()) => active.room_end = active.end,
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "cannot cut off unused room");
                }
            }
        }
    }

    /// Takes back what a failed commit left behind what is kept.
    pub(crate) fn roll_back(&mut self, disk: &Disk) -> Result<(), Error> {
        match &mut self.active {
            Some(active) if active.dirty => {
                let path = &active.segment.path;
                disk.truncate(&active.file, path, active.kept)
                    .map_err(Error::storage("truncate", path))?;
                active.end = active.kept;
                active.room_end = active.kept;
                active.digest.clone_from(&active.kept_digest);
                self.stream.recent.forget_from(self.next);
                self.sync(disk)?;
                self.publish();
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Active {
    fn unsynced_bytes(&self) -> u64 {
        self.end - self.segment.bytes()
    }

    /// Sees to it that a small write overwrites zeros. Without them the file grows, as it does
    /// where the disk is nearly full: then what the zeros took is given back.
    fn make_room(&mut self, disk: &Disk, bytes: usize, segment_bytes: u64) {
        let needed = self.end + bytes as u64;
        if self.roomless || bytes >= ROOM_WRITE_BYTES_MAX || needed <= self.room_end {
            return;
        }
        let room_end = needed.next_multiple_of(ROOM_BYTES).min(segment_bytes);
        // What is written next needs no zeros first.
        let from = self.room_end.max(needed);
        if room_end <= from {
            return;
        }
        let path = &self.segment.path;
        let zeros = vec![0; (room_end - from) as usize];
        match disk.write(&self.file, path, &zeros, from) {
            Ok(()) => self.room_end = room_end,
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "no room ahead of the frames");
                self.roomless = true;
                // Of no consequence if it fails: zeros are no damage.
                let _ = disk.truncate(&self.file, path, self.room_end.max(self.end));
            }
        }
    }
}

fn poison(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Poisoned {
        path: path.to_owned(),
        source: Arc::new(source),
    }
}
