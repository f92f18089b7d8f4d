//! The keys to an encrypted log: where they come from, and which of them a segment needs.

use crate::Error;
use crate::cipher::Cipher;
use crate::digest;
use crate::directory;
use crate::segment::{Name, Preface, Segment};
use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const KEY_BYTES: usize = 32;
const KEY_ID_BYTES: usize = 8;
const ID: &str = "skerry log format 1: key id";
/// Far more than a person puts into one.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Nobody but the owner may read a key file, or put another in its place.
const MODE_FORBIDDEN: u32 = 0o077;
/// systemd gives the unit's user access by an ACL, which shows as a group that may read.
const MODE_FORBIDDEN_CREDENTIAL: u32 = 0o037;

pub(crate) type Key = Zeroizing<[u8; KEY_BYTES]>;

/// Tells keys apart without telling them: what segments say they need.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(pub(crate) [u8; KEY_ID_BYTES]);

impl KeyId {
    pub(crate) fn of(key: &Key) -> Self {
        let derived = digest::derive(ID, &**key);
        Self(*derived.first_chunk().expect("a digest is longer"))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The keys to an encrypted log. The first encrypts what is written, all decrypt what is read: so
/// a key is replaced by putting a new one in front of it, and leaves once no segment needs it.
#[derive(Clone)]
pub struct Keys(Vec<Key>);

impl Keys {
    #[must_use]
    pub fn new(first: [u8; KEY_BYTES], older: impl IntoIterator<Item = [u8; KEY_BYTES]>) -> Self {
        let keys = std::iter::once(first).chain(older);
        Self(keys.map(Zeroizing::new).collect())
    }

    /// Reads a key file: a key of 64 hex digits a line; blank lines, and what follows a `#`, are
    /// for people.
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::read_if(path, MODE_FORBIDDEN)
    }

    /// Reads a file of the same form that systemd hands over by the name it has in the unit's
    /// `LoadCredential=` or `LoadCredentialEncrypted=`; `directory` is `$CREDENTIALS_DIRECTORY`.
    pub fn read_credential(directory: &Path, name: &str) -> Result<Self, Error> {
        Self::read_if(&directory.join(name), MODE_FORBIDDEN_CREDENTIAL)
    }

    fn read_if(path: &Path, forbidden: u32) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::storage("open key file", path))?;
        let found = file.metadata();
        let mode = found.map_err(Error::storage("look at", path))?;
        let mode = mode.permissions().mode() & 0o777;
        if mode & forbidden != 0 {
            let shown = path.display();
            return Err(refused(
                path,
                format!("others may get at it (mode {mode:04o}): chmod 600 {shown}"),
            ));
        }
        let mut text = Zeroizing::new(String::new());
        file.take(FILE_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(Error::storage("read key file", path))?;
        parse(&text).map(Self).map_err(|what| refused(path, what))
    }

    /// Makes a key file with one new key that only this user may read. What is there already is
    /// never overwritten.
    pub fn create(path: &Path) -> Result<KeyId, Error> {
        let key = Zeroizing::new(directory::random()?);
        let id = KeyId::of(&key);
        let digits = key.iter().map(|byte| format!("{byte:02x}"));
        let digits: Zeroizing<String> = Zeroizing::new(digits.collect());
        let text = Zeroizing::new(format!("# key {id} of a skerry log\n{}\n", *digits));
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(Error::storage("create key file", path))?;
        let above = path.parent().filter(|above| !above.as_os_str().is_empty());
        // A log may be sealed with it any moment now, so it has to survive the power as well.
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .and_then(|()| File::open(above.unwrap_or(Path::new(".")))?.sync_all())
            .map_err(Error::storage("write key file", path))?;
        Ok(id)
    }

    /// What segments call these keys, in order.
    #[must_use]
    pub fn ids(&self) -> Vec<KeyId> {
        self.iter().map(KeyId::of).collect()
    }

    pub(crate) fn first(&self) -> &Key {
        &self.0[0]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Key> {
        self.0.iter()
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keys").field(&self.ids()).finish()
    }
}

fn refused(path: &Path, what: String) -> Error {
    Error::KeyFile {
        path: path.to_owned(),
        what,
    }
}

/// What it says is wrong never quotes the line: it may be a key with one digit mistyped.
fn parse(text: &str) -> Result<Vec<Key>, String> {
    let mut keys = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let digits = line.split('#').next().unwrap_or_default().trim();
        if digits.is_empty() {
            continue;
        }
        let number = index + 1;
        let key = parse_key(digits).ok_or_else(|| {
            let hex = digits.chars().all(|digit| digit.is_ascii_hexdigit());
            let found = digits.chars().count();
            match hex {
                true => format!("line {number}: a key has 64 hex digits, not {found}"),
                false => format!("line {number}: a key is 64 hex digits and nothing else"),
            }
        })?;
        keys.push(key);
    }
    if keys.is_empty() {
        return Err("there is no key in it: `skerry log new-key FILE` makes one".to_owned());
    }
    Ok(keys)
}

fn parse_key(digits: &str) -> Option<Key> {
    let digits: &[u8; 2 * KEY_BYTES] = digits.as_bytes().try_into().ok()?;
    let mut key = Key::default();
    for (byte, pair) in key.iter_mut().zip(digits.chunks(2)) {
        let [high, low] = [pair[0], pair[1]].map(|digit| char::from(digit).to_digit(16));
        *byte = (high? * 16 + low?) as u8;
    }
    Some(key)
}

/// Refuses a data directory in which a key is needed that `cipher` has not: without it everything
/// would look damaged.
pub(crate) fn check(directory: &Path, cipher: Option<&Cipher>) -> Result<(), Error> {
    for stream in directory::list(directory)? {
        let stream = directory::streams(directory).join(stream.as_str());
        let names = Name::list(&stream).map_err(Error::storage("list", &stream))?;
        check_segments(names.iter().map(|name| stream.join(name.file())), cipher)?;
    }
    Ok(())
}

/// The same for some segments of one stream, oldest first.
///
/// A log that has once been sealed is never written in clear again, since it does not open without
/// its keys. So the newest segment that is clear ends the search, and a log that was never sealed
/// is spared all but one look. Where no header says which key is needed, its frames will.
pub(crate) fn check_segments(
    paths: impl DoubleEndedIterator<Item = PathBuf>,
    cipher: Option<&Cipher>,
) -> Result<(), Error> {
    for path in paths.rev() {
        let preface = match Preface::read(&path) {
            // Retired by a live node since it was listed.
            Err(_) if !path.exists() => continue,
            read => read?,
        };
        let Some(preface) = preface else {
            continue;
        };
        match preface.key {
            None => return Ok(()),
            Some(needed) if knows(cipher, needed) => {}
            Some(needed) => return Err(missing(&path, Some(needed), cipher)),
        }
    }
    Ok(())
}

pub(crate) fn knows(cipher: Option<&Cipher>, key: KeyId) -> bool {
    cipher.is_some_and(|cipher| cipher.ids().contains(&key))
}

/// Somebody has to find the key to a segment.
pub(crate) fn missing(path: &Path, needed: Option<KeyId>, cipher: Option<&Cipher>) -> Error {
    Error::Key {
        path: path.to_owned(),
        needed,
        given: cipher.map(Cipher::ids).unwrap_or_default(),
    }
}

/// Whether some of the segments are not sealed with the key that seals from now on.
pub(crate) fn is_outdated(segments: &[std::sync::Arc<Segment>], cipher: Option<&Cipher>) -> bool {
    let Some(cipher) = cipher else {
        return false;
    };
    let current = |segment: &std::sync::Arc<Segment>| {
        let preface = Preface::read(&segment.path).ok().flatten();
        preface.and_then(|preface| preface.key) == Some(cipher.id())
    };
    !segments.iter().all(current)
}

/// The words of [`Error::Key`].
pub(crate) fn refusal(path: &Path, needed: Option<KeyId>, given: &[KeyId]) -> String {
    let needed = needed.map_or_else(|| "a key".to_owned(), |needed| format!("key {needed}"));
    let given: Vec<_> = given.iter().map(KeyId::to_string).collect();
    let given = match given.as_slice() {
        [] => "no key was given".to_owned(),
        keys => format!("the key file has {}", keys.join(", ")),
    };
    format!(
        "{} is encrypted with {needed}, and {given}: give the key file that has it \
         (store.encryption_key_file in the config, --key-file at `skerry log`); a key that was \
         replaced stays in it, below the new one, until its segments are gone",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "00000000000000000000000000000000000000000000000000000000000000aF";
    const SECOND: &str = "1100000000000000000000000000000000000000000000000000000000000022";

    fn read(text: &str, mode: u32) -> Result<Keys, String> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log.key");
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("set");
        let read = Keys::read(&path).map_err(|error| error.to_string());
        let credential = Keys::read_credential(directory.path(), "log.key").is_ok();
        let group_may_read = [0o640, 0o440].contains(&mode);
        assert_eq!(credential, read.is_ok() || group_may_read, "{mode:o}");
        read
    }

    #[test]
    fn a_key_file_has_a_key_a_line_and_words_for_people() {
        let text = format!("# new\n{FIRST}  # of May\n\n\t{SECOND}\r\n");
        let keys = read(&text, 0o600).expect("keys");
        let mut expected = [[0; 32], [0; 32]];
        expected[0][31] = 0xAF;
        (expected[1][0], expected[1][31]) = (0x11, 0x22);
        let keys: Vec<_> = keys.iter().map(|key| **key).collect();
        assert_eq!(keys, expected);
    }

    #[test]
    fn what_is_wrong_with_a_key_file_is_told_without_telling_a_key() {
        let short = &FIRST[1..];
        let (typo, long) = (FIRST.replace('F', "g"), format!("{FIRST}{SECOND}"));
        for (text, told) in [
            (
                format!("\n{short}\n"),
                "line 2: a key has 64 hex digits, not 63",
            ),
            (
                format!("{FIRST}\n{long}"),
                "line 2: a key has 64 hex digits, not 128",
            ),
            (typo, "line 1: a key is 64 hex digits and nothing else"),
            (
                format!("{}é", &FIRST[2..]),
                "line 1: a key is 64 hex digits",
            ),
            (
                "# nothing\n".to_owned(),
                "no key in it: `skerry log new-key FILE`",
            ),
        ] {
            let error = read(&text, 0o600).expect_err("refused");
            assert!(error.contains(told) && error.contains("log.key"), "{error}");
            assert!(!error.contains("0000"), "{error}");
        }
        let keys = read(FIRST, 0o400).expect("keys");
        let shown = format!("{keys:?} {:?}", Cipher::new(&keys).expect("random bytes"));
        assert!(!shown.contains("00000000"), "{shown}");
        assert_eq!(shown.matches(&keys.ids()[0].to_string()).count(), 2);
    }

    #[test]
    fn a_key_file_that_others_can_read_is_refused() {
        for mode in [0o640, 0o604, 0o620, 0o602, 0o440] {
            let error = read(FIRST, mode).expect_err("refused");
            assert!(error.contains("chmod 600"), "{error}");
        }
        assert!(read(FIRST, 0o600).is_ok() && read(FIRST, 0o400).is_ok());
    }

    #[test]
    fn a_new_key_file_has_one_new_key_and_replaces_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let [one, two] = ["one", "two"].map(|name| directory.path().join(name));
        let ids = [&one, &two].map(|path| Keys::create(path).expect("created"));
        assert_ne!(ids[0], ids[1]);
        assert_eq!(Keys::read(&one).expect("keys").ids(), ids[..1]);
        let mode = std::fs::metadata(&one).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let before = std::fs::read(&one).expect("there");
        assert!(Keys::create(&one).is_err());
        assert_eq!(std::fs::read(&one).expect("there"), before);
    }
}
