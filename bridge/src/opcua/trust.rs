//! Certificates that servers were refused for, kept so that an operator can accept one.
//!
//! A server that shows another certificate than before may have been renewed, or somebody may be
//! in between: only people can tell. What it showed is in `pki/rejected`, one for each endpoint.

use super::error::Error;
use super::pki::{self, fingerprint};
use std::fs;
use std::path::{Path, PathBuf};

/// A certificate that is not trusted, and the one that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The endpoint's name, as far as a file's name can have it.
    pub endpoint: String,
    /// SHA-256 of the certificate it shows, in hex.
    pub shown: String,
    /// The same of the one that it showed before.
    pub trusted: Option<String>,
}

/// What was refused and not decided yet, by the endpoints' names.
///
/// # Errors
/// When the directory cannot be read; one that is not there has nothing in it.
pub fn rejected(pki_directory: &Path) -> Result<Vec<Rejected>, Error> {
    let folder = pki_directory.join(pki::REJECTED);
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(pki::failed("read", &folder))?,
    };
    let mut all = Vec::new();
    for entry in entries {
        let path = entry.map_err(pki::failed("read", &folder))?.path();
        if path.extension().is_some_and(|extension| extension == "der") {
            all.push(look(pki_directory, &path)?);
        }
    }
    all.sort_by(|one, other| one.endpoint.cmp(&other.endpoint));
    Ok(all)
}

/// Trusts what endpoint `name` showed last, instead of what it showed before. A node that runs
/// tries again by itself. `None` where nothing was refused.
///
/// # Errors
/// When a file cannot be read or moved.
pub fn trust(pki_directory: &Path, name: &str) -> Result<Option<Rejected>, Error> {
    let shown = rejected_path(pki_directory, name);
    if !shown.exists() {
        return Ok(None);
    }
    let rejected = look(pki_directory, &shown)?;
    let pin = pki::pin_path(pki_directory, name);
    fs::rename(&shown, &pin).map_err(pki::failed("write", &pin))?;
    Ok(Some(rejected))
}

pub(super) fn rejected_path(pki_directory: &Path, name: &str) -> PathBuf {
    let folder = pki_directory.join(pki::REJECTED);
    folder.join(pki::file_name(name))
}

fn look(pki_directory: &Path, path: &Path) -> Result<Rejected, Error> {
    let shown = fs::read(path).map_err(pki::failed("read", path))?;
    let endpoint = path.file_stem().unwrap_or_default();
    let endpoint = endpoint.to_string_lossy().into_owned();
    let trusted = fs::read(pki::pin_path(pki_directory, &endpoint)).ok();
    Ok(Rejected {
        shown: fingerprint(&shown),
        trusted: trusted.map(|trusted| fingerprint(&trusted)),
        endpoint,
    })
}
