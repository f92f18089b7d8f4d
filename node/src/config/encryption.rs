//! `[store] encryption_key_…`: where the keys to the log come from.

use super::reader::{Table, Value};
use super::units;
use skerry_store::Keys;
use std::path::{Path, PathBuf};

/// The keys, if the log is to be encrypted; a key that cannot be read is a problem, never a log
/// in clear: nothing runs on a config with one.
pub fn read(table: &Table<'_>, base: &Path) -> Option<Keys> {
    let (in_file, in_credential) = ("encryption_key_file", "encryption_key_credential");
    let from_file = table.optional(in_file, |value| {
        let path = units::path_from(base)(value)?;
        Keys::read(&path).map_err(|error| error.to_string())
    });
    // systemd's, for a unit with credentials.
    let directory = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let from_credential = table.optional(in_credential, |value| {
        credential(directory.as_deref(), value)
    });
    if table.has(in_file) && table.has(in_credential) {
        table.problem(
            in_file,
            format!("and {in_credential} are two places for one thing: give one"),
        );
    }
    from_file.or(from_credential)
}

fn credential(directory: Option<&Path>, value: &Value<'_>) -> Result<Keys, String> {
    let name = units::text(value)?;
    let directory = units::credentials(directory, &name)?;
    Keys::read_credential(directory, &name).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::reader::Source;
    use super::*;

    /// What is read with `table` as the table, and the problems of it.
    fn read_with(directory: Option<&Path>, table: &str) -> (Option<Keys>, String) {
        let source = Source::new(Path::new("skerry.toml"), table);
        let keys = source.read(|table| table.optional("key", |value| credential(directory, value)));
        let report = source.into_report();
        (
            keys,
            report.map_or_else(String::new, |report| report.to_string()),
        )
    }

    #[test]
    fn a_credential_is_found_by_its_name_where_systemd_put_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let id = Keys::create(&directory.path().join("log.key")).expect("created");
        let here = Some(directory.path());
        let (keys, problems) = read_with(here, "key = \"log.key\"");
        assert_eq!(
            (keys.expect("keys").ids(), problems.as_str()),
            (vec![id], "")
        );
        for (directory, key, told) in [
            (
                None,
                "log.key",
                "the unit needs LoadCredential=log.key:FILE",
            ),
            (here, "../log.key", "not a path"),
            (here, "other.key", "cannot open key file"),
        ] {
            let (keys, problems) = read_with(directory, &format!("key = \"{key}\""));
            assert!(keys.is_none() && problems.contains(told), "{problems}");
        }
    }
}
