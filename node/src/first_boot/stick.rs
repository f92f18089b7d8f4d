//! What is on the stick, as people put it there: with an editor that hides endings of names and
//! marks its texts, or on a computer that leaves files of its own behind.

use super::Refusal;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub const CONFIG: &str = "skerry.toml";
pub const NODES: &str = "nodes.csv";
pub const CREDENTIALS: &str = "credentials";

/// systemd's own limit on a credential.
const CREDENTIAL_BYTES_MAX: u64 = 1024 * 1024;
const TEXT_BYTES_MAX: u64 = 1024 * 1024;
/// A model; the board may have 512 MB of memory.
const FILE_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// The folder with the configuration.
#[derive(Debug)]
pub struct Stick {
    pub folder: PathBuf,
}

impl Stick {
    /// The first of `folders` that has a configuration, if any has.
    pub fn find(folders: &[PathBuf]) -> Result<Option<Self>, Refusal> {
        for folder in folders {
            if folder.join(CONFIG).symlink_metadata().is_ok() {
                return Ok(Some(Self {
                    folder: folder.clone(),
                }));
            }
            let alike = names(folder).into_iter().find(|name| is_alike(name));
            if let Some(alike) = alike {
                return Err(Refusal::Misnamed(folder.join(alike)));
            }
        }
        Ok(None)
    }

    pub fn config_path(&self) -> PathBuf {
        self.folder.join(CONFIG)
    }

    pub fn config(&self) -> Result<String, Refusal> {
        text(&self.config_path())
    }

    /// What differs between boxes, if the stick is for several.
    pub fn nodes(&self) -> Result<Option<(PathBuf, String)>, Refusal> {
        let path = self.folder.join(NODES);
        match path.symlink_metadata() {
            Ok(_) => text(&path).map(|text| Some((path, text))),
            Err(_) => Ok(None),
        }
    }

    /// The files beside the configuration that it names.
    pub fn files(&self, config: &str) -> Result<Vec<(String, Vec<u8>)>, Refusal> {
        let own = [CONFIG, NODES, super::result::NAME];
        named(&self.folder, config, FILE_BYTES_MAX, &own)
    }

    /// The credentials that it names.
    pub fn credentials(&self, config: &str) -> Result<Vec<(String, Vec<u8>)>, Refusal> {
        let folder = self.folder.join(CREDENTIALS);
        named(&folder, config, CREDENTIAL_BYTES_MAX, &[])
    }
}

fn named(
    folder: &Path,
    config: &str,
    bytes_max: u64,
    except: &[&str],
) -> Result<Vec<(String, Vec<u8>)>, Refusal> {
    let mut found = Vec::new();
    for name in names(folder) {
        let path = folder.join(&name);
        let is_folder = path.symlink_metadata().is_ok_and(|it| it.is_dir());
        if !is_folder && is_named(config, &name) && !except.contains(&name.as_str()) {
            found.push((name, bytes(&path, bytes_max)?));
        }
    }
    Ok(found)
}

/// In order, without what is hidden; of what has no name in UTF-8, a config cannot speak.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<_> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort();
    names
}

/// `skerry.toml.txt`, `Skerry.toml`, `skerry.txt`: meant, and not called, `skerry.toml`.
fn is_alike(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name == CONFIG || name == "skerry.txt" || name.starts_with("skerry.toml.")
}

/// Whether a text of the config ends with this name: `"ca.pem"`, `"credential:kafka-password"`.
pub fn is_named(config: &str, name: &str) -> bool {
    config.match_indices(name).any(|(at, _)| {
        let before = config[..at].chars().next_back();
        let after = config[at + name.len()..].chars().next();
        before.is_some_and(|c| matches!(c, '"' | '\'' | '/' | ':'))
            && after.is_some_and(|c| matches!(c, '"' | '\''))
    })
}

/// A text in UTF-8, without the mark that some editors put before it.
fn text(path: &Path) -> Result<String, Refusal> {
    let bytes = bytes(path, TEXT_BYTES_MAX)?;
    let unusable = |what| Refusal::Unusable {
        path: path.to_owned(),
        what,
    };
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(unusable("is saved as UTF-16; save it as UTF-8"));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| unusable("is not UTF-8; save it as UTF-8 (in Excel: CSV UTF-8)"))?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned())
}

/// What a plain file holds; a link could lead to what the stick's owner may not read.
fn bytes(path: &Path, most: u64) -> Result<Vec<u8>, Refusal> {
    let failed = |source: io::Error| Refusal::io("read", path)(source);
    if !path.symlink_metadata().map_err(failed)?.is_file() {
        return Err(Refusal::Unusable {
            path: path.to_owned(),
            what: "is no plain file",
        });
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    let length = file
        .take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    match length as u64 > most {
        true => Err(Refusal::TooLarge {
            path: path.to_owned(),
            most,
        }),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stick(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, bytes) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("in the folder")).expect("a folder");
            fs::write(path, bytes).expect("written");
        }
        folder
    }

    #[test]
    fn the_first_folder_with_a_configuration_counts() {
        let (empty, full) = (
            stick(&[("notes", b"")]),
            stick(&[(CONFIG, b"\xef\xbb\xbfa = 1")]),
        );
        let gone = empty.path().join("gone");
        let folders = [gone, empty.path().to_owned(), full.path().to_owned()];
        let found = Stick::find(&folders).expect("no refusal").expect("a stick");
        assert_eq!(found.folder, full.path());
        assert_eq!(found.config().expect("a text"), "a = 1");
        assert!(Stick::find(&folders[..2]).expect("no refusal").is_none());
    }

    #[test]
    fn what_an_editor_did_to_the_configuration_is_told() {
        for name in ["skerry.toml.txt", "Skerry.toml", "skerry.txt"] {
            let folder = stick(&[(name, b"")]);
            let refusal = Stick::find(&[folder.path().to_owned()]).expect_err(name);
            assert!(refusal.to_string().contains(name), "{refusal}");
        }
        for (bytes, told) in [
            (&b"\xff\xfea\0"[..], "saved as UTF-16"),
            (b"name = \"\xe4\"", "not UTF-8"),
            (&[b'#'; 1024 * 1024 + 1], "larger than 1.0 MiB"),
        ] {
            let folder = stick(&[(CONFIG, bytes)]);
            let path = folder.path().to_owned();
            let stick = Stick::find(&[path]).expect("no refusal").expect("a stick");
            let refusal = stick.config().expect_err(told).to_string();
            assert!(refusal.contains(told), "{refusal}");
        }
    }

    #[test]
    fn only_what_the_configuration_names_leaves_the_stick() {
        let folder = stick(&[
            (CONFIG, b""),
            ("ca.pem", b"ca"),
            ("holiday.jpg", b""),
            ("._ca.pem", b""),
            ("credentials/press-1.key", b"one"),
            ("credentials/press-2.key", b"two"),
        ]);
        let config = "ca_file = \"ca.pem\"\nkey_file = 'credential:press-2.key'\n# press-1.key";
        let stick = Stick {
            folder: folder.path().to_owned(),
        };
        let files = stick.files(config).expect("read");
        assert_eq!(files, [("ca.pem".to_owned(), b"ca".to_vec())]);
        let credentials = stick.credentials(config).expect("read");
        assert_eq!(credentials, [("press-2.key".to_owned(), b"two".to_vec())]);
    }

    #[test]
    fn a_link_is_not_followed() {
        let folder = stick(&[("secret", b"of the box")]);
        let link = folder.path().join(CONFIG);
        std::os::unix::fs::symlink(folder.path().join("secret"), link).expect("a link");
        let path = folder.path().to_owned();
        let stick = Stick::find(&[path]).expect("no refusal").expect("a stick");
        let refusal = stick.config().expect_err("a link").to_string();
        assert!(refusal.contains("no plain file"), "{refusal}");
    }
}
