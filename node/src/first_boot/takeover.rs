//! Files on their way from the stick into the folder of the configuration: all are whole and on
//! the device beside their places before the first is in its place, and the configuration itself
//! comes last. So a box that loses power meanwhile has none, and is set up when it starts again.

use super::Refusal;
use super::stick::{CONFIG, CREDENTIALS};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Where files wait, in the folder that they are for.
const STAGE: &str = ".first-boot";
const OLD: &str = "skerry.toml.old";

/// What is to be taken over.
#[derive(Debug)]
pub struct Takeover<'t> {
    pub into: &'t Path,
    pub config: &'t str,
    pub files: &'t [(String, Vec<u8>)],
    pub credentials: &'t [(String, Vec<u8>)],
}

/// Staged; gone again when this is dropped.
#[derive(Debug)]
pub struct Staged<'t> {
    of: &'t Takeover<'t>,
    pub folder: PathBuf,
}

impl<'t> Takeover<'t> {
    /// Every file with its place below `into` and who may read it; the configuration last.
    fn places(&self) -> Vec<(PathBuf, &'t [u8], u32)> {
        let credentials = self.credentials.iter();
        let credentials =
            credentials.map(|(name, bytes)| (Path::new(CREDENTIALS).join(name), &**bytes, 0o600));
        let files = self.files.iter();
        let files = files.map(|(name, bytes)| (PathBuf::from(name), &**bytes, 0o644));
        let config = (PathBuf::from(CONFIG), self.config.as_bytes(), 0o644);
        credentials.chain(files).chain([config]).collect()
    }

    /// Whether all of it is there already.
    pub fn is_done(&self) -> bool {
        let places = self.places();
        let same = |(place, bytes): (&PathBuf, &[u8])| {
            fs::read(self.into.join(place)).is_ok_and(|there| there == bytes)
        };
        places.iter().all(|(place, bytes, _)| same((place, bytes)))
    }

    /// A file besides the configuration that is there and is another.
    pub fn conflict(&self) -> Option<PathBuf> {
        let places = self.places();
        let besides = places
            .iter()
            .filter(|(place, ..)| place != Path::new(CONFIG));
        let paths = besides.map(|(place, bytes, _)| (self.into.join(place), bytes));
        let mut other = paths
            .filter(|(path, bytes)| fs::read(path).map_or(path.exists(), |there| there != **bytes));
        other.next().map(|(path, _)| path)
    }

    /// Puts everything on the device, beside its place.
    pub fn stage(&'t self) -> Result<Staged<'t>, Refusal> {
        fs::create_dir_all(self.into).map_err(Refusal::io("make the folder", self.into))?;
        let staged = Staged {
            of: self,
            folder: self.into.join(STAGE),
        };
        // Left by a power cut.
        staged.clear();
        private_folder(&staged.folder)?;
        private_folder(&staged.folder.join(CREDENTIALS))?;
        for (place, bytes, mode) in self.places() {
            let path = staged.folder.join(place);
            write(&path, bytes, mode).map_err(Refusal::io("write", &path))?;
        }
        Ok(staged)
    }
}

impl Staged<'_> {
    pub fn config(&self) -> PathBuf {
        self.folder.join(CONFIG)
    }

    pub fn credentials(&self) -> PathBuf {
        self.folder.join(CREDENTIALS)
    }

    /// Puts everything in its place. What was configured before is kept.
    pub fn publish(self) -> Result<(), Refusal> {
        let into = self.of.into;
        let credentials = into.join(CREDENTIALS);
        if !self.of.credentials.is_empty() {
            private_folder(&credentials)?;
        }
        let config = into.join(CONFIG);
        if let Ok(old) = fs::read(&config) {
            replace(&into.join(OLD), &old, 0o644)?;
        }
        for (place, ..) in self.of.places() {
            if place == Path::new(CONFIG) {
                // Nothing names a file before the file is on the device.
                sync(into)?;
            }
            let to = into.join(&place);
            fs::rename(self.folder.join(&place), &to).map_err(Refusal::io("write", &to))?;
            if place.starts_with(CREDENTIALS) {
                sync(&credentials)?;
            }
        }
        sync(into)
    }

    fn clear(&self) {
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!("{} cannot be removed: {error}", self.folder.display());
            }
            _ => {}
        }
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Writes a file beside its place and renames it.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Refusal> {
    let draft = path.with_extension("new");
    let _ = fs::remove_file(&draft);
    let written = write(&draft, bytes, mode).and_then(|()| fs::rename(&draft, path));
    written.map_err(Refusal::io("write", path))?;
    sync(path.parent().unwrap_or(Path::new("/")))
}

/// A new file, readable for nobody else while it is written, and on the device when it is.
fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    // A stick's file system has no modes to set.
    if mode != 0o600 {
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    file.sync_all()
}

fn private_folder(path: &Path) -> Result<(), Refusal> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made.map_err(Refusal::io("make the folder", path)),
    }
}

fn sync(folder: &Path) -> Result<(), Refusal> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(Refusal::io("write", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").permissions().mode() & 0o777
    }

    #[test]
    fn everything_is_in_its_place_and_credentials_are_for_root_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let into = folder.path().join("etc/skerry");
        let (files, credentials) = (
            [("ca.pem".to_owned(), b"ca".to_vec())],
            [("password".to_owned(), b"secret".to_vec())],
        );
        let takeover = Takeover {
            into: &into,
            config: "a = 1",
            files: &files,
            credentials: &credentials,
        };
        assert!(!takeover.is_done() && takeover.conflict().is_none());
        // A power cut in the middle of it.
        fs::create_dir_all(into.join(STAGE).join("credentials")).expect("folders");
        fs::write(into.join(STAGE).join("ca.pem"), "c").expect("written");
        let staged = takeover.stage().expect("staged");
        assert!(staged.config().exists() && !into.join(CONFIG).exists());
        staged.publish().expect("published");
        assert!(takeover.is_done() && takeover.conflict().is_none());
        assert!(!into.join(STAGE).exists() && !into.join(OLD).exists());
        for (path, wanted) in [
            ("skerry.toml", 0o644),
            ("ca.pem", 0o644),
            ("credentials", 0o700),
            ("credentials/password", 0o600),
        ] {
            assert_eq!(mode(&into.join(path)), wanted, "{path}");
        }
        let other = [("password".to_owned(), b"another".to_vec())];
        let again = Takeover {
            config: "a = 2",
            credentials: &other,
            ..takeover
        };
        let conflict = Some(into.join("credentials/password"));
        assert_eq!((again.is_done(), again.conflict()), (false, conflict));
        again.stage().expect("staged").publish().expect("published");
        let old = fs::read_to_string(into.join(OLD)).expect("kept");
        assert_eq!(old, "a = 1");
    }

    #[test]
    fn what_is_not_published_leaves_no_trace() {
        let folder = tempfile::tempdir().expect("a folder");
        let takeover = Takeover {
            into: folder.path(),
            config: "a = 1",
            files: &[],
            credentials: &[],
        };
        drop(takeover.stage().expect("staged"));
        assert_eq!(fs::read_dir(folder.path()).expect("read").count(), 0);
    }
}
