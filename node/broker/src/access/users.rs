//! The users file: `NAME:HASH` a line, as `skerry user` writes it; `# …` and blank lines are kept.

use super::file::{self, FileError};
use super::password::HashedPassword;
use std::collections::HashMap;
use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Longest user name in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 256;
/// Permission bits that a file of password hashes must not have.
const FORBIDDEN_MODE: u32 = 0o137;
const NEW_MODE: u32 = 0o600;

/// Who may log in with a password.
#[derive(Debug, Default)]
pub struct Users(HashMap<Box<str>, Arc<HashedPassword>>);

impl Users {
    /// # Errors
    /// If the file cannot be read, is open to others, or with all problems in it.
    pub fn load(path: &Path) -> Result<Self, FileError> {
        let (text, metadata) = file::read(path)?;
        check_mode(path, &metadata)?;
        Self::parse(&text).map_err(|problems| FileError::Problems {
            path: path.to_owned(),
            problems,
        })
    }

    fn parse(text: &str) -> Result<Self, Vec<(usize, String)>> {
        let mut users = HashMap::new();
        let (mut first_lines, mut problems) = (HashMap::new(), Vec::new());
        for (number, line) in file::lines(text) {
            let (name, hash) = match entry(line) {
                Ok(entry) => entry,
                Err(problem) => {
                    problems.push((number, problem));
                    continue;
                }
            };
            if let Some(first) = first_lines.insert(name, number) {
                problems.push((number, format!("`{name}` is in line {first} already")));
            }
            users.insert(name.into(), Arc::new(hash));
        }
        if problems.is_empty() {
            Ok(Self(users))
        } else {
            Err(problems)
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Arc<HashedPassword>> {
        self.0.get(name)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn entry(line: &str) -> Result<(&str, HashedPassword), String> {
    let Some((name, hash)) = line.split_once(':') else {
        return Err("must be NAME:HASH; `skerry user add NAME` writes such a line".to_owned());
    };
    check_name(name)?;
    let hash = HashedPassword::parse(hash)
        .map_err(|why| format!("what `{name}` has {why}; `skerry user passwd {name}` sets one"))?;
    Ok((name, hash))
}

/// Whether a user may be called `name`. A name that could be read as more than one level of a topic
/// would widen the patterns of the ACL.
///
/// # Errors
/// What the name must not have.
fn check_name(name: &str) -> Result<(), String> {
    let fits = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name.trim() == name
        && !name.starts_with('#')
        && !name.contains([':', '+', '#', '/'])
        && !name.contains(char::is_control);
    if fits {
        return Ok(());
    }
    Err(format!(
        "`{}` cannot be a user's name: at most {NAME_BYTES_MAX} bytes, no `:`, `+`, `#`, `/`, no \
         control character, no space at either end",
        name.escape_debug()
    ))
}

fn check_mode(path: &Path, metadata: &Metadata) -> Result<(), FileError> {
    let mode = metadata.permissions().mode() & 0o777;
    if mode & FORBIDDEN_MODE == 0 {
        return Ok(());
    }
    Err(FileError::Exposed {
        path: path.to_owned(),
        mode,
    })
}

/// A users file while it is changed: one process at a time, and lines that are no users stay as they
/// are. Nothing is changed before [`UsersFile::save`].
#[derive(Debug)]
pub struct UsersFile {
    path: PathBuf,
    lines: Vec<String>,
    /// Whose file it was and who may read it; `None` for a new one.
    before: Option<Metadata>,
    /// The folder, locked for as long as this lives.
    folder: File,
}

impl UsersFile {
    /// Waits for whoever changes it now. A file that is not there is an empty one.
    ///
    /// # Errors
    /// If it cannot be read or is open to others.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let locked = File::open(folder).and_then(|folder| folder.lock().map(|()| folder));
        let folder = locked.map_err(|source| FileError::Unreadable {
            path: folder.to_owned(),
            source,
        })?;
        let (text, before) = match file::read(path) {
            Ok((text, metadata)) => {
                check_mode(path, &metadata)?;
                (text, Some(metadata))
            }
            Err(FileError::Unreadable { source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                (String::new(), None)
            }
            Err(error) => return Err(error),
        };
        Ok(Self {
            path: path.to_owned(),
            lines: text.lines().map(str::to_owned).collect(),
            before,
            folder,
        })
    }

    /// The names in it, in the order of the file.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let entries = self.lines.iter().filter_map(|line| entry(line.trim()).ok());
        entries.map(|(name, _)| name)
    }

    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.position(name).is_some()
    }

    /// Whether `password` is the user's; `None` if there is no such user.
    #[must_use]
    pub fn check(&self, name: &str, password: &[u8]) -> Option<bool> {
        let (_, hash) = entry(self.lines[self.position(name)?].trim()).ok()?;
        Some(hash.matches(password))
    }

    /// Gives a user, new or not, this password.
    ///
    /// # Errors
    /// If nobody can be called so.
    pub fn set(&mut self, name: &str, password: &[u8]) -> Result<(), String> {
        check_name(name)?;
        let line = format!("{name}:{}", HashedPassword::new(password).as_str());
        match self.position(name) {
            Some(at) => self.lines[at] = line,
            None => self.lines.push(line),
        }
        Ok(())
    }

    /// False if there is no such user.
    pub fn remove(&mut self, name: &str) -> bool {
        let at = self.position(name);
        at.map(|at| self.lines.remove(at)).is_some()
    }

    /// By the name alone, so that a user whose hash is broken can be mended.
    fn position(&self, name: &str) -> Option<usize> {
        let named = |line: &String| {
            let line = line.trim();
            !line.starts_with('#') && line.split_once(':').is_some_and(|(first, _)| first == name)
        };
        self.lines.iter().position(named)
    }

    /// Puts the new file in the place of the old one, at once and for good: the node, or a power cut,
    /// finds either the old or the new.
    ///
    /// # Errors
    /// If it cannot be written; the old file is then as it was.
    pub fn save(&self) -> Result<(), FileError> {
        let mut name = std::ffi::OsString::from(".");
        name.push(self.path.file_name().unwrap_or_default());
        name.push(format!(".{}", std::process::id()));
        let beside = self.path.with_file_name(name);
        let saved = self.write(&beside).and_then(|()| {
            std::fs::rename(&beside, &self.path)?;
            self.folder.sync_all()
        });
        saved.map_err(|source| {
            // Never renamed, so nobody's; if it cannot be removed either, it stays unread.
            let _ = std::fs::remove_file(&beside);
            FileError::Unwritable {
                path: self.path.clone(),
                source,
            }
        })
    }

    fn write(&self, beside: &Path) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(NEW_MODE)
            .open(beside)?;
        let mut text = self.lines.join("\n");
        text.push('\n');
        file.write_all(text.as_bytes())?;
        // The node may run as somebody else than the administrator who types: the file stays whose
        // it was, and a new one belongs to the owner of its folder (systemd's StateDirectory).
        let (owner, mode) = match &self.before {
            Some(before) => (before.clone(), before.mode() & 0o777),
            None => (self.folder.metadata()?, NEW_MODE),
        };
        let now = file.metadata()?;
        if (owner.uid(), owner.gid()) != (now.uid(), now.gid()) {
            let given = fchown(&file, Some(owner.uid()), Some(owner.gid()));
            // Only root may give files away. Whoever makes a new one keeps it then; an old one must
            // not change hands unnoticed.
            if self.before.is_some() {
                given?;
            }
        }
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash() -> String {
        HashedPassword::decoy().as_str().to_owned()
    }

    #[test]
    fn every_problem_has_its_line() {
        let hash = hash();
        let text = format!(
            "# people\n\nada:{hash}\nno colon\na/b:{hash}\n:{hash}\nbob:$7$old\nada:{hash}\n"
        );
        let problems = Users::parse(&text).expect_err("five of them");
        let expected = [
            (4, "NAME:HASH"),
            (5, "`a/b` cannot be"),
            (6, "`` cannot be"),
            (7, "`skerry user passwd bob`"),
            (8, "`ada` is in line 3 already"),
        ];
        assert_eq!(problems.len(), expected.len(), "{problems:?}");
        for ((line, problem), (number, part)) in problems.iter().zip(expected) {
            assert_eq!(*line, number, "{problem}");
            assert!(problem.contains(part), "{problem}");
            assert!(!problem.contains("$7$"), "no hash is shown: {problem}");
        }
        let users = Users::parse(&format!("ada:{hash}\n  bob:{hash}\n")).expect("fine");
        assert!(users.get("ada").is_some() && users.get("bob").is_some());
        assert_eq!((users.len(), users.is_empty()), (2, false));
    }

    #[test]
    fn changes_keep_other_lines_and_the_mode() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("users");
        let mut file = UsersFile::open(&path).expect("a new file");
        file.set("ada", b"one").expect("a name");
        file.save().expect("saved");
        drop(file);
        let mode = |path: &Path| std::fs::metadata(path).expect("there").mode() & 0o777;
        assert_eq!(mode(&path), 0o600);

        let text = std::fs::read_to_string(&path).expect("there");
        std::fs::write(&path, format!("# staff\nwhat is this\n{text}")).expect("written");
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("set");
        let mut file = UsersFile::open(&path).expect("an old file");
        assert_eq!(file.names().collect::<Vec<_>>(), ["ada"]);
        assert_eq!(file.check("ada", b"one"), Some(true));
        file.set("ada", b"two").expect("a name");
        file.set("bob", b"three").expect("a name");
        assert!(file.set("a+b", b"x").is_err());
        assert_eq!(file.check("ada", b"one"), Some(false));
        assert_eq!(file.check("eve", b"one"), None);
        file.save().expect("saved");
        drop(file);
        let mut file = UsersFile::open(&path).expect("an old file");
        assert_eq!(file.names().collect::<Vec<_>>(), ["ada", "bob"]);
        assert!(file.remove("ada") && !file.remove("ada"));
        file.save().expect("saved");
        let text = std::fs::read_to_string(&path).expect("there");
        assert!(text.starts_with("# staff\nwhat is this\nbob:"), "{text}");
        assert_eq!(mode(&path), 0o640);
        let left = std::fs::read_dir(directory.path()).expect("there").count();
        assert_eq!(left, 1, "no temporary file stays");
    }

    #[test]
    fn a_file_that_others_may_read_or_change_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("users");
        std::fs::write(&path, format!("ada:{}\n", hash())).expect("written");
        for (mode, fine) in [
            (0o600, true),
            (0o640, true),
            (0o400, true),
            (0o644, false),
            (0o660, false),
            (0o604, false),
        ] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).expect("set");
            assert_eq!(Users::load(&path).is_ok(), fine, "{mode:o}");
            assert_eq!(UsersFile::open(&path).is_ok(), fine, "{mode:o}");
        }
        let told = Users::load(&path).expect_err("open to others").to_string();
        assert!(
            told.contains("chmod 640") && told.contains("0604"),
            "{told}"
        );
    }
}
