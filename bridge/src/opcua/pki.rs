//! Who we are and whom we know: the node's own certificate, and the pinned ones of servers.
//!
//! ```text
//! pki/own/application_uri      our name, in the certificate and in every session
//! pki/own/cert.der             our certificate, made at the first secured connect
//! pki/private/private.pem      its key, mode 0600
//! pki/servers/NAME.der         certificate of endpoint NAME, pinned at its first connect
//! pki/rejected/NAME.der        what NAME showed last instead of it, see `trust`
//! ```
//!
//! To use a certificate of your own, put it and its key in place: RSA, the certificate in DER, the
//! key in PEM without a passphrase. Its first alternative name must be the URI that is in
//! `application_uri`, which may be changed as well. The next connect uses them, or says what does
//! not fit. A server's new certificate is accepted by `skerry opcua trust NAME`.

use super::config::Security;
use super::error::Error;
use super::trust::rejected_path;
use super::wire::{self, KeyPair};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Endpoints start at the same time and share one identity: one of them makes it.
static MAKING: Mutex<()> = Mutex::new(());

/// Where certificates wait for an operator.
pub(super) const REJECTED: &str = "rejected";

#[derive(Debug, Clone)]
pub(crate) struct Identity {
    directory: PathBuf,
    application_uri: String,
    /// Our certificate and its key, where security needs them.
    keys: Option<Arc<KeyPair>>,
}

impl Identity {
    /// Reads the identity, making what is missing. Blocks, for seconds where a key is made.
    pub(crate) fn open(directory: &Path, security: Security) -> Result<Self, Error> {
        let _one_at_a_time = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        for (folder, mode) in [("own", 0o755), ("private", 0o700), ("servers", 0o755)] {
            make_directory(&directory.join(folder), mode)?;
        }
        let uri_path = directory.join("own/application_uri");
        let application_uri = if uri_path.exists() {
            let text = fs::read_to_string(&uri_path);
            text.map_err(failed("read", &uri_path))?.trim().to_owned()
        } else {
            let uri = format!("urn:{}:skerry", host_name());
            write(&uri_path, format!("{uri}\n").as_bytes(), 0o644)?;
            uri
        };
        let mut identity = Self {
            directory: directory.to_owned(),
            application_uri,
            keys: None,
        };
        if security != Security::None {
            identity.ensure_certificate()?;
            identity.keys = Some(Arc::new(identity.read_certificate()?));
        }
        Ok(identity)
    }

    /// For one look at a server that needs no certificate: nothing is written.
    pub(crate) fn passing(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            application_uri: format!("urn:{}:skerry", host_name()),
            keys: None,
        }
    }

    /// Makes a certificate where there is none; for the key that is there, if one is.
    fn ensure_certificate(&self) -> Result<(), Error> {
        let (certificate, key) = (self.certificate_path(), self.key_path());
        match (certificate.exists(), key.exists()) {
            (true, true) => return Ok(()),
            (true, false) => {
                return Err(Error::Pki {
                    action: "use",
                    path: certificate,
                    detail: format!(
                        "its key is missing: put it into {}, or remove the certificate to have a \
                         new pair made",
                        key.display()
                    ),
                });
            }
            (false, _) => {}
        }
        tracing::info!(certificate = %certificate.display(), "making our OPC-UA certificate");
        let made = |detail| Error::Pki {
            action: "make",
            path: certificate.clone(),
            detail,
        };
        let known = match fs::read(&key) {
            Ok(pem) => Some(pem),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed("read", &key)(error)),
        };
        let (der, pem) = wire::generate(&self.application_uri, known.as_deref()).map_err(made)?;
        if known.is_none() {
            write(&key, pem.as_bytes(), 0o600)?;
        }
        write(&certificate, &der, 0o644)
    }

    /// The pair as it is now, which may be an operator's.
    fn read_certificate(&self) -> Result<KeyPair, Error> {
        let path = self.certificate_path();
        let keys = KeyPair::read(&path, &self.key_path())?;
        keys.is_for(&self.application_uri)
            .map_err(|detail| Error::Pki {
                action: "use",
                path,
                detail: format!(
                    "it is not for the application `{}`, and servers refuse that: {detail}; put \
                     the name that it has into {}, or use a certificate for this one",
                    self.application_uri,
                    self.application_uri_path().display()
                ),
            })?;
        Ok(keys)
    }

    pub(crate) fn keys(&self) -> Option<&Arc<KeyPair>> {
        self.keys.as_ref()
    }

    fn application_uri_path(&self) -> PathBuf {
        self.directory.join("own/application_uri")
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn application_uri(&self) -> &str {
        &self.application_uri
    }

    pub(crate) fn certificate_path(&self) -> PathBuf {
        self.directory.join("own/cert.der")
    }

    pub(crate) fn key_path(&self) -> PathBuf {
        self.directory.join("private/private.pem")
    }

    /// Refuses a server whose certificate is not the one it showed before. A server that never
    /// showed one is fine, and so is one that shows none where none was seen.
    pub(crate) fn check_pin(&self, name: &str, address: &str, shown: &[u8]) -> Result<(), Error> {
        let pin = self.pin_path(name);
        match fs::read(&pin) {
            Ok(pinned) if pinned == shown => Ok(()),
            Ok(pinned) => {
                self.reject(name, shown)?;
                Err(Error::CertificateChanged {
                    name: name.to_owned(),
                    address: address.to_owned(),
                    found: fingerprint(shown),
                    pinned: fingerprint(&pinned),
                })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed("read", &pin)(error)),
        }
    }

    /// Keeps what a server showed for an operator to decide on.
    fn reject(&self, name: &str, shown: &[u8]) -> Result<(), Error> {
        let path = rejected_path(&self.directory, name);
        // It is tried again every few seconds, and a disk need not hear of each.
        if fs::read(&path).is_ok_and(|known| known == shown) {
            return Ok(());
        }
        make_directory(&self.directory.join(REJECTED), 0o755)?;
        write(&path, shown, 0o644)
    }

    /// Remembers the certificate of a server that we connected to for the first time.
    pub(crate) fn pin(&self, name: &str, address: &str, shown: &[u8]) -> Result<(), Error> {
        let pin = self.pin_path(name);
        if shown.is_empty() || !pin.parent().is_some_and(Path::exists) || pin.exists() {
            return Ok(());
        }
        tracing::warn!(
            endpoint = name,
            address,
            sha256 = fingerprint(shown),
            pin = %pin.display(),
            "first contact: trusting this server's certificate from now on; compare the \
             fingerprint with the server's own display"
        );
        write(&pin, shown, 0o644)
    }

    fn pin_path(&self, name: &str) -> PathBuf {
        pin_path(&self.directory, name)
    }
}

pub(super) fn pin_path(pki_directory: &Path, name: &str) -> PathBuf {
    pki_directory.join("servers").join(file_name(name))
}

/// The file of endpoint `name`, in any of the folders.
pub(super) fn file_name(name: &str) -> String {
    let safe = |c: char| {
        if c.is_ascii_alphanumeric() || "-_".contains(c) {
            c
        } else {
            '_'
        }
    };
    let file: String = name.chars().map(safe).collect();
    format!("{file}.der")
}

pub(super) fn fingerprint(certificate: &[u8]) -> String {
    let digest = Sha256::digest(certificate);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The part of our application's URI that tells this machine from others.
fn host_name() -> String {
    let name = fs::read("/proc/sys/kernel/hostname").unwrap_or_default();
    in_a_uri(&String::from_utf8_lossy(&name))
}

/// A kernel takes any bytes for a name, and a URN does not (RFC 8141, 2): servers refuse a
/// certificate whose URI they cannot read.
fn in_a_uri(name: &str) -> String {
    let safe = |c: char| match c {
        c if c.is_ascii_alphanumeric() || "-._".contains(c) => c,
        _ => '-',
    };
    let name: String = name.trim().chars().map(safe).collect();
    match name.chars().any(|c| c.is_ascii_alphanumeric()) {
        true => name,
        false => "localhost".to_owned(),
    }
}

fn make_directory(path: &Path, mode: u32) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(failed("create", path))
}

/// Writes beside the file and renames, so that a crash leaves the whole file or none; the mode
/// holds from the first byte on.
fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), Error> {
    let beside = path.with_extension("new");
    let written = (|| {
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&beside)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    written.map_err(failed("write", path))
}

pub(super) fn failed<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl FnOnce(std::io::Error) -> Error + 'a {
    move |error| Error::Pki {
        action,
        path: path.to_owned(),
        detail: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_odd_hostname_makes_a_uri_all_the_same() {
        for (name, wanted) in [
            ("vessel-7.fleet\n", "vessel-7.fleet"),
            ("Größe 7\n", "Gr--e-7"),
            ("a/b:c#d", "a-b-c-d"),
            ("(none)\n", "-none-"),
            ("\n", "localhost"),
            ("\u{fffd}\u{7}", "localhost"),
        ] {
            assert_eq!(in_a_uri(name), wanted);
        }
    }

    #[test]
    fn the_key_is_made_once_and_is_ours_alone() {
        let directory = tempfile::tempdir().unwrap();
        let policy = super::super::config::Policy::Basic256Sha256;
        let identity = Identity::open(directory.path(), Security::Sign(policy)).unwrap();
        let mode = fs::metadata(identity.key_path())
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let key = fs::read(identity.key_path()).unwrap();
        Identity::open(directory.path(), Security::SignAndEncrypt(policy)).unwrap();
        assert_eq!(fs::read(identity.key_path()).unwrap(), key);
    }

    #[test]
    fn a_changed_certificate_is_refused_with_a_way_out() {
        let directory = tempfile::tempdir().unwrap();
        let identity = Identity::open(directory.path(), Security::None).unwrap();
        identity.check_pin("hall/1", "plc:4840", b"one").unwrap();
        identity.pin("hall/1", "plc:4840", b"one").unwrap();
        identity.check_pin("hall/1", "plc:4840", b"one").unwrap();
        let error = identity.check_pin("hall/1", "plc:4840", b"two");
        let error = error.unwrap_err().to_string();
        assert!(error.contains("`skerry opcua trust hall/1`"), "{error}");
        let rejected = super::super::trust::rejected(directory.path()).unwrap();
        let [waits] = &rejected[..] else {
            panic!("{rejected:?}");
        };
        assert_eq!(waits.shown, fingerprint(b"two"));
        assert_eq!(waits.trusted, Some(fingerprint(b"one")));
        let trust = || super::super::trust::trust(directory.path(), "hall/1").unwrap();
        assert_eq!(trust().as_ref(), Some(waits));
        assert_eq!(trust(), None);
        identity.check_pin("hall/1", "plc:4840", b"two").unwrap();
        assert!(identity.check_pin("hall/1", "plc:4840", b"one").is_err());
    }
}
