//! Every change to the log's files goes through here, so that tests can make it fail, and know all
//! that a power cut could undo.

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What is about to be done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Create,
    Write,
    Sync,
    Truncate,
    Remove,
    Rename,
    CreateDirectory,
    SyncDirectory,
}

/// What was done, in full: enough to do it again elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done<'a> {
    /// There now, and empty.
    Created(&'a Path),
    Wrote {
        path: &'a Path,
        bytes: &'a [u8],
        at: u64,
    },
    Synced(&'a Path),
    Truncated {
        path: &'a Path,
        bytes: u64,
    },
    Removed(&'a Path),
    Renamed {
        from: &'a Path,
        to: &'a Path,
    },
    DirectoryCreated(&'a Path),
    DirectorySynced(&'a Path),
}

/// Asked before each operation, where an error is returned in its place, and told after it.
pub trait Fault: Send + Sync {
    fn before(&self, operation: Operation, path: &Path) -> io::Result<()>;

    /// Time that passed besides what the clock says, for tests that cannot wait.
    fn skipped(&self) -> Duration {
        Duration::ZERO
    }

    fn after(&self, _done: Done<'_>) {}

    /// The boot the kernel is to say it is in: a test that cuts the power cannot reboot.
    fn boot_id(&self) -> Option<u128> {
        None
    }
}

/// The real file system, or one that fails when a test says so.
#[derive(Clone, Default)]
pub struct Disk(Option<Arc<dyn Fault>>);

impl Disk {
    #[must_use]
    pub fn failing(fault: Arc<dyn Fault>) -> Self {
        Self(Some(fault))
    }

    fn before(&self, operation: Operation, path: &Path) -> io::Result<()> {
        self.0
            .as_ref()
            .map_or(Ok(()), |fault| fault.before(operation, path))
    }

    pub(crate) fn skipped(&self) -> Duration {
        let fault = self.0.as_ref();
        fault.map_or(Duration::ZERO, |fault| fault.skipped())
    }

    fn after(&self, done: Done<'_>) {
        if let Some(fault) = &self.0 {
            fault.after(done);
        }
    }

    pub(crate) fn boot_id(&self) -> Option<u128> {
        self.0.as_ref().and_then(|fault| fault.boot_id())
    }

    pub(crate) fn create(&self, path: &Path) -> io::Result<File> {
        self.before(Operation::Create, path)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        self.after(Done::Created(path));
        Ok(file)
    }

    pub(crate) fn write(&self, file: &File, path: &Path, bytes: &[u8], at: u64) -> io::Result<()> {
        self.before(Operation::Write, path)?;
        file.write_all_at(bytes, at)?;
        self.after(Done::Wrote { path, bytes, at });
        Ok(())
    }

    /// Has the file system set aside `bytes` for a file, and makes it that long.
    pub(crate) fn allocate(&self, file: &File, path: &Path, bytes: u64) -> io::Result<()> {
        self.before(Operation::Write, path)?;
        let allocated = rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes);
        or_fill(allocated, file, bytes)
    }

    /// Data and length are on the device when this returns.
    pub(crate) fn sync(&self, file: &File, path: &Path) -> io::Result<()> {
        self.before(Operation::Sync, path)?;
        file.sync_data()?;
        self.after(Done::Synced(path));
        Ok(())
    }

    pub(crate) fn truncate(&self, file: &File, path: &Path, bytes: u64) -> io::Result<()> {
        self.before(Operation::Truncate, path)?;
        file.set_len(bytes)?;
        self.after(Done::Truncated { path, bytes });
        Ok(())
    }

    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        self.before(Operation::Remove, path)?;
        std::fs::remove_file(path)?;
        self.after(Done::Removed(path));
        Ok(())
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.before(Operation::Rename, from)?;
        std::fs::rename(from, to)?;
        self.after(Done::Renamed { from, to });
        Ok(())
    }

    /// Makes one directory, for this user and its group, unless it is there.
    pub(crate) fn create_directory(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        self.before(Operation::CreateDirectory, path)?;
        DirBuilder::new().mode(0o750).create(path)?;
        self.after(Done::DirectoryCreated(path));
        Ok(())
    }

    /// The names in a directory are on the device when this returns.
    pub(crate) fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.before(Operation::SyncDirectory, path)?;
        File::open(path)?.sync_all()?;
        self.after(Done::DirectorySynced(path));
        Ok(())
    }
}

/// The file system may not know how to promise blocks, and an old kernel or a sandbox may never
/// have heard of it; then they are written.
fn or_fill(allocated: Result<(), Errno>, file: &File, bytes: u64) -> io::Result<()> {
    match allocated {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => zero_fill(file, bytes),
        other => Ok(other?),
    }
}

fn zero_fill(file: &File, bytes: u64) -> io::Result<()> {
    static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
    let mut at = file.metadata()?.len();
    while at < bytes {
        let length = (bytes - at).min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..length as usize], at)?;
        at += length;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_nobody_promises_are_written_and_a_full_disk_is_still_one() {
        for errno in [Errno::OPNOTSUPP, Errno::NOSYS] {
            let file = tempfile::tempfile().expect("a file");
            or_fill(Err(errno), &file, 100_000).expect("written");
            assert_eq!(file.metadata().expect("its length").len(), 100_000);
        }
        let file = tempfile::tempfile().expect("a file");
        let full = or_fill(Err(Errno::NOSPC), &file, 100_000).expect_err("full");
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        assert_eq!(file.metadata().expect("its length").len(), 0);
    }
}
