//! Whether the TLS files on the disk are still those that a connection was made with.

use crate::uplink::config::Tls;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How often the files are looked at: a certificate is renewed days before it ends.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(5);

/// What tells one version of a file from another; none where it cannot be read.
type Stamp = Option<(SystemTime, u64)>;

/// The files as they were when the connection was made.
#[derive(Debug)]
pub(super) struct Identity {
    files: Vec<(PathBuf, Stamp)>,
    looked_at: Mutex<Instant>,
}

impl Identity {
    pub(super) fn of(tls: Option<&Tls>) -> Self {
        let files = tls.into_iter().flat_map(Tls::files);
        Self {
            files: files.map(|file| (file.to_owned(), stamp(file))).collect(),
            looked_at: Mutex::new(Instant::now()),
        }
    }

    /// Whether one of them is another now. Mostly answered without a look.
    pub(super) fn has_changed(&self) -> bool {
        let mut looked_at = self
            .looked_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if self.files.is_empty() || looked_at.elapsed() < LOOKED_AT_EVERY {
            return false;
        }
        *looked_at = Instant::now();
        self.differs()
    }

    fn differs(&self) -> bool {
        let mut files = self.files.iter();
        files.any(|(file, before)| stamp(file) != *before)
    }
}

fn stamp(file: &Path) -> Stamp {
    let found = std::fs::metadata(file).ok()?;
    Some((found.modified().ok()?, found.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_replaced_is_noticed() {
        let folder = tempfile::tempdir_in(".").unwrap();
        let ca_file = folder.path().join("ca.pem");
        std::fs::write(&ca_file, "one").unwrap();
        let tls = Tls {
            ca_file: Some(ca_file.clone()),
            identity: None,
        };
        let identity = Identity::of(Some(&tls));
        assert!(!identity.differs());
        std::fs::write(&ca_file, "another").unwrap();
        assert!(identity.differs());
        // Just made, it is not looked at yet.
        assert!(!identity.has_changed());
        std::fs::remove_file(&ca_file).unwrap();
        assert!(identity.differs());
        assert!(!Identity::of(None).differs());
    }
}
