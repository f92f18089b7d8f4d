//! The writer's end of one stream: the file it appends to, and what of it is on the device.

use crate::cipher::Cipher;
use crate::digest::{Digest, Hasher};
use crate::disk::Disk;
use crate::segment::{HEADER_BYTES, Name, Preface, Segment};
use crate::stream::Stream;
use crate::{Error, Offset, WallNanos};
use std::fs::File;
use std::sync::Arc;
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
const ROOM_WRITE_BYTES_MAX: usize = 16 * 1024;

#[derive(Debug)]
pub(crate) struct Track {
    pub(crate) stream: Arc<Stream>,
    head: watch::Sender<Offset>,
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
    /// Where the next frame goes; ahead of the durable length while a commit is under way.
    end: u64,
    /// Where the zeros ahead of `end` end, or `end` itself or less where there are none.
    room_end: u64,
    /// The disk had no place for zeros: this file grows by what is written.
    roomless: bool,
    /// The file may hold bytes behind its durable length.
    dirty: bool,
    /// The file's name is not yet on the device.
    fresh: bool,
    /// Of the file up to `end`, and up to its durable length, as of the last clean moment.
    digest: Hasher,
    durable_digest: Hasher,
}

impl Track {
    /// `found` is the digest of the stream's newest segment that has a frame.
    pub(crate) const fn new(
        stream: Arc<Stream>,
        head: watch::Sender<Offset>,
        found: Digest,
        cipher: Option<Arc<Cipher>>,
    ) -> Self {
        Self {
            stream,
            head,
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

    pub(crate) fn head(&self) -> Offset {
        *self.head.borrow()
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
        let name = Name {
            base: self.head(),
            sequence,
        };
        let preface = Preface {
            epoch: origin.epoch,
            boot: origin.boot,
            name,
            created: WallNanos::now(),
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
            .with_cipher(self.cipher.as_ref());
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
            room_end: end,
            roomless: false,
            dirty: false,
            fresh: true,
            digest: Hasher::new(&header),
            durable_digest: Hasher::new(&header),
        });
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
            active.durable_digest.clone_from(&active.digest);
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
        Ok(())
    }

    /// What was synced becomes visible: up to `next`.
    pub(crate) fn publish(&mut self, next: Offset) {
        if let Some(active) = &self.active {
            active.segment.extend(active.end, next);
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

    /// Takes back what a failed commit left behind the durable length.
    pub(crate) fn roll_back(&mut self, disk: &Disk) -> Result<(), Error> {
        match &mut self.active {
            Some(active) if active.dirty => {
                let path = &active.segment.path;
                let durable = active.segment.bytes();
                disk.truncate(&active.file, path, durable)
                    .map_err(Error::storage("truncate", path))?;
                active.end = durable;
                active.room_end = durable;
                active.digest.clone_from(&active.durable_digest);
                self.sync(disk)
            }
            _ => Ok(()),
        }
    }
}

impl Active {
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
