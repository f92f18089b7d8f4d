//! The one error type of the log.

use crate::keys::{self, KeyId};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What went wrong, where, and what to do about it. Cheap to clone: one failed commit answers
/// many appends.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("stream name {name:?}: use 1 to 64 of a-z, 0-9, `-` and `_`")]
    StreamName { name: String },
    #[error("there is no stream called {name}: add it to the configuration and restart")]
    UnknownStream { name: String },
    #[error("{what}")]
    Invalid { what: String },
    #[error("an append of {bytes} bytes is over the limit of {bytes_max}: split it")]
    TooLarge { bytes: usize, bytes_max: usize },
    #[error(
        "stream {stream} is full: {bytes} of {bytes_max} bytes, and its readers have not \
         confirmed what could be reclaimed; raise bytes_max or restore the way out"
    )]
    Full {
        stream: String,
        bytes: u64,
        bytes_max: u64,
    },
    #[error(
        "stream {stream} has no room: all streams together hold or reserve {bytes} of \
         {bytes_max} bytes, and nothing is left that is confirmed or may be dropped; raise \
         bytes_max_total or restore the way out"
    )]
    QuotaFull {
        stream: String,
        bytes: u64,
        bytes_max: u64,
    },
    #[error("cannot {action} {}: {source}", path.display())]
    Storage {
        action: &'static str,
        path: PathBuf,
        source: Arc<io::Error>,
    },
    #[error(
        "the log is poisoned: syncing {} failed ({source}), so what the disk holds is unknown; \
         restart the process to recover from what is there, and check the disk", path.display()
    )]
    Poisoned {
        path: PathBuf,
        source: Arc<io::Error>,
    },
    #[error("the log is closed")]
    Closed,
    #[error(
        "data directory {} is in use by another process: stop that one, or choose another \
         data_dir", path.display()
    )]
    InUse { path: PathBuf },
    #[error(
        "data directory {} cannot be written to ({source}): give this user the right to, remount \
         it writable, or choose another data_dir", path.display()
    )]
    Unwritable {
        path: PathBuf,
        source: Arc<io::Error>,
    },
    #[error(
        "data directory {} is on a file system in memory, which loses everything with the \
         power: choose a disk, or set allow_volatile = true", path.display()
    )]
    Volatile { path: PathBuf },
    #[error(
        "{} has format version {found}, this program reads up to {known}: use a newer skerry",
        path.display()
    )]
    Version {
        path: PathBuf,
        found: u16,
        known: u16,
    },
    #[error("{}", keys::refusal(path, *needed, given))]
    Key {
        path: PathBuf,
        /// `None` where the segment's header, which would tell, is damaged.
        needed: Option<KeyId>,
        given: Vec<KeyId>,
    },
    #[error("key file {}: {what}", path.display())]
    KeyFile { path: PathBuf, what: String },
    #[error("the catalog {} failed: {reason}; it is rebuilt from the log", path.display())]
    Catalog { path: PathBuf, reason: String },
}

/// What the caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The same call may succeed later by itself: the disk is full or failing.
    Retry,
    /// The stream's limit, or that over all streams, is reached: succeeds once readers confirm.
    Full,
    /// This call can never succeed; others can.
    Reject,
    /// Nothing on this log succeeds any more: end the process or open the log anew.
    Fatal,
}

impl Error {
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Storage { .. } | Self::Catalog { .. } => Class::Retry,
            Self::Full { .. } | Self::QuotaFull { .. } => Class::Full,
            Self::StreamName { .. }
            | Self::UnknownStream { .. }
            | Self::Invalid { .. }
            | Self::TooLarge { .. } => Class::Reject,
            Self::Poisoned { .. }
            | Self::Closed
            | Self::InUse { .. }
            | Self::Unwritable { .. }
            | Self::Volatile { .. }
            | Self::Version { .. }
            | Self::Key { .. }
            | Self::KeyFile { .. } => Class::Fatal,
        }
    }

    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid { what: what.into() }
    }

    /// For `map_err`: a failed file operation, named.
    pub(crate) fn storage(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Storage {
            action,
            path: path.to_owned(),
            source: Arc::new(source),
        }
    }
}
