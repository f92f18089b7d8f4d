//! Disk space that is kept from everybody, other processes included, until the log has to write
//! on a disk that is full: a file of allocated blocks, made shorter by what is about to be
//! written. Between the two somebody else may take the space; then more is given back. A file system
//! that shares or compresses blocks may promise more than it keeps.

use crate::disk::Disk;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The disk counts as having space again when this much is free besides the reserve.
const HEADROOM_BYTES: u64 = 256 * 1024;
/// The file is shortened in steps, not with every commit.
pub(crate) const STEP_BYTES: u64 = 256 * 1024;
/// Not all that a file system calls free can be had: what it needs for itself is guessed in steps.
const REGAIN_STEP_BYTES: u64 = 16 * 1024;
const REGAIN_TRIES: u32 = 8;

#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    file: Option<File>,
    held: u64,
}

impl Reserve {
    /// What is there from last time.
    pub(crate) fn open(directory: &Path) -> Self {
        let path = directory.join("reserve");
        let file = File::options().read(true).write(true).open(&path).ok();
        let length = file.as_ref().and_then(|file| file.metadata().ok());
        Self {
            path,
            file,
            held: length.map_or(0, |metadata| metadata.len()),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) const fn held(&self) -> u64 {
        self.held
    }

    /// Holds `target` bytes, if the disk has them.
    pub(crate) fn keep(&mut self, disk: &Disk, target: u64) -> io::Result<()> {
        if self.held > target + STEP_BYTES {
            self.give_back(disk, self.held - target);
        }
        if self.held >= target {
            return Ok(());
        }
        let outcome = self.allocate(disk, target);
        if outcome.is_err() {
            self.regain(disk, target);
        }
        outcome
    }

    /// Holds `target` bytes, and makes sure that there is more where they came from.
    pub(crate) fn probe(&mut self, disk: &Disk, target: u64) -> io::Result<()> {
        let more = target.max(self.held) + HEADROOM_BYTES;
        let outcome = self.allocate(disk, more);
        self.give_back(disk, self.held.saturating_sub(target));
        outcome
    }

    /// Leaves up to `bytes` to whoever writes next.
    pub(crate) fn give_back(&mut self, disk: &Disk, bytes: u64) {
        let Some(file) = self.file.as_ref().filter(|_| bytes > 0) else {
            return;
        };
        let rest = self.held.saturating_sub(bytes);
        match disk.truncate(file, &self.path, rest) {
            Ok(()) => self.held = rest,
            Err(error) => tracing::warn!(%error, "the reserve stays where it is"),
        }
    }

    /// After a commit on a full disk: takes back, up to `most` bytes, what that has left.
    pub(crate) fn regain(&mut self, disk: &Disk, most: u64) {
        let there = self.held + free_bytes(&self.path);
        let mut wanted = most.min(there);
        for _ in 0..REGAIN_TRIES {
            if wanted <= self.held || self.allocate(disk, wanted).is_ok() {
                return;
            }
            wanted = wanted.saturating_sub(REGAIN_STEP_BYTES);
        }
    }

    fn allocate(&mut self, disk: &Disk, bytes: u64) -> io::Result<()> {
        let file = match self.file.take() {
            Some(file) => file,
            None => disk.create(&self.path)?,
        };
        let outcome = disk.allocate(&file, &self.path, bytes);
        if outcome.is_ok() {
            self.held = bytes;
        } else {
            // Part of it may be there, uncounted.
            let _ = disk.truncate(&file, &self.path, self.held);
        }
        self.file = Some(file);
        outcome
    }
}

/// What the file system that holds `path` has left for this user; 0 where it does not tell.
pub(crate) fn free_bytes(path: &Path) -> u64 {
    let directory = path.parent().unwrap_or(path);
    let found = rustix::fs::statvfs(directory);
    found.map_or(0, |found| found.f_bavail * found.f_frsize)
}
