//! Every write to the log's files goes through here, so that tests can make it fail.

use rustix::fs::FallocateFlags;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
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
    SyncDirectory,
}

/// Asked before each operation; an error is returned in its place.
pub trait Fault: Send + Sync {
    fn before(&self, operation: Operation, path: &Path) -> io::Result<()>;

    /// Time that passed besides what the clock says, for tests that cannot wait.
    fn skipped(&self) -> Duration {
        Duration::ZERO
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

    pub(crate) fn create(&self, path: &Path) -> io::Result<File> {
        self.before(Operation::Create, path)?;
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
    }

    pub(crate) fn write(&self, file: &File, path: &Path, bytes: &[u8], at: u64) -> io::Result<()> {
        self.before(Operation::Write, path)?;
        file.write_all_at(bytes, at)
    }

    /// Has the file system set aside `bytes` for a file, and makes it that long.
    pub(crate) fn allocate(&self, file: &File, path: &Path, bytes: u64) -> io::Result<()> {
        self.before(Operation::Write, path)?;
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
            Err(rustix::io::Errno::OPNOTSUPP) => zero_fill(file, bytes),
            other => Ok(other?),
        }
    }

    /// Data and length are on the device when this returns.
    pub(crate) fn sync(&self, file: &File, path: &Path) -> io::Result<()> {
        self.before(Operation::Sync, path)?;
        file.sync_data()
    }

    pub(crate) fn truncate(&self, file: &File, path: &Path, bytes: u64) -> io::Result<()> {
        self.before(Operation::Truncate, path)?;
        file.set_len(bytes)
    }

    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        self.before(Operation::Remove, path)?;
        std::fs::remove_file(path)
    }

    /// The names in a directory are on the device when this returns.
    pub(crate) fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.before(Operation::SyncDirectory, path)?;
        File::open(path)?.sync_all()
    }
}

/// Where a file system cannot promise blocks, they are written.
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
