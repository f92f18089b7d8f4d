//! What the users file and the ACL file have in common: lines, problems with their line, and how
//! to notice that a file is another one than before.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Larger than any file a person keeps; read into memory at once.
const BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Why a file of users or rules cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("cannot write {}: {source}", path.display())]
    Unwritable { path: PathBuf, source: io::Error },
    #[error(
        "{} is open to others (mode {mode:04o}): chmod 640 {}, or 600", path.display(),
        path.display()
    )]
    Exposed { path: PathBuf, mode: u32 },
    #[error("{}", Listed(path, problems))]
    Problems {
        path: PathBuf,
        /// Line, from 1, and what is wrong there.
        problems: Vec<(usize, String)>,
    },
}

struct Listed<'e>(&'e Path, &'e [(usize, String)]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (line, problem)) in self.1.iter().enumerate() {
            let separator = if index > 0 { "; " } else { "" };
            write!(f, "{separator}{}:{line}: {problem}", self.0.display())?;
        }
        Ok(())
    }
}

/// A file's text, with what the file system says of it.
pub(super) fn read(path: &Path) -> Result<(String, Metadata), FileError> {
    let unreadable = |source| FileError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let mut text = String::new();
    let read = file.take(BYTES_MAX + 1).read_to_string(&mut text);
    match read {
        Ok(bytes) if bytes as u64 > BYTES_MAX => {
            Err(unreadable(io::Error::other("it is over 16 MiB")))
        }
        Ok(_) => Ok((text, metadata)),
        Err(source) => Err(unreadable(source)),
    }
}

/// The lines that say something, with their numbers: blank ones and `# …` are for people.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = text.lines().enumerate();
    numbered
        .map(|(index, line)| (index + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// Tells one content of a file from the next. Equal for two absences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Stamp(Option<[i64; 6]>);

impl Stamp {
    pub(super) fn of(path: Option<&Path>) -> Self {
        let metadata = path.and_then(|path| std::fs::metadata(path).ok());
        Self(metadata.map(|at| {
            let (inode, bytes) = (at.ino().cast_signed(), at.size().cast_signed());
            let (modified, changed) = (at.mtime_nsec(), at.ctime_nsec());
            [inode, bytes, at.mtime(), modified, at.ctime(), changed]
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_change_to_a_file_changes_its_stamp() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("acl");
        let absent = Stamp::of(Some(&path));
        assert_eq!(absent, Stamp::of(None));
        std::fs::write(&path, "a").expect("written");
        let first = Stamp::of(Some(&path));
        assert_ne!(first, absent);
        assert_eq!(first, Stamp::of(Some(&path)));
        std::fs::write(&path, "ab").expect("written");
        let longer = Stamp::of(Some(&path));
        assert_ne!(longer, first);
        let other = directory.path().join("new");
        std::fs::write(&other, "xy").expect("written");
        std::fs::rename(&other, &path).expect("renamed");
        assert_ne!(Stamp::of(Some(&path)), longer);
    }

    #[test]
    fn a_problem_names_file_and_line() {
        let error = FileError::Problems {
            path: "site/acl".into(),
            problems: vec![(3, "one".into()), (7, "two".into())],
        };
        assert_eq!(error.to_string(), "site/acl:3: one; site/acl:7: two");
        let missing = read(Path::new("/does/not/exist")).expect_err("missing");
        assert!(missing.to_string().contains("/does/not/exist"), "{missing}");
    }
}
