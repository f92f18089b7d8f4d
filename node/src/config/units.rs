//! What a single value of the config means: sizes, durations, addresses, names.

use super::reader::Value;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// As humantime reads and writes it: 365.25 days.
pub const YEAR: Duration = Duration::from_secs(31_557_600);

type Parsed<T> = Result<T, String>;

pub fn text(value: &Value<'_>) -> Parsed<String> {
    let text = value.string()?;
    if text.is_empty() {
        return Err("must not be empty".to_owned());
    }
    Ok(text.to_owned())
}

pub fn flag(value: &Value<'_>) -> Parsed<bool> {
    value.boolean()
}

/// A count within `range`.
pub fn count(range: RangeInclusive<usize>) -> impl Fn(&Value<'_>) -> Parsed<usize> {
    move |value| {
        let number = value.integer()?;
        usize::try_from(number)
            .ok()
            .filter(|count| range.contains(count))
            .ok_or_else(|| {
                format!(
                    "must be between {} and {}, not {number}",
                    range.start(),
                    range.end()
                )
            })
    }
}

/// A duration such as `"250ms"`, `"5s"`, `"10m"`, within `range`.
pub fn duration(range: RangeInclusive<Duration>) -> impl Fn(&Value<'_>) -> Parsed<Duration> {
    move |value| {
        let text = value.string().map_err(|_| {
            "must be a duration in quotes with its unit, such as \"250ms\"".to_owned()
        })?;
        let duration = humantime::parse_duration(text)
            .map_err(|why| format!("`{text}` is not a duration such as \"250ms\": {why}"))?;
        if !range.contains(&duration) {
            let (least, most) = (
                humantime::format_duration(*range.start()),
                humantime::format_duration(*range.end()),
            );
            return Err(format!("must be between {least} and {most}, not {text}"));
        }
        Ok(duration)
    }
}

/// A size in bytes such as `"16MiB"`, within `range`.
pub fn bytes(range: RangeInclusive<u64>) -> impl Fn(&Value<'_>) -> Parsed<u64> {
    move |value| {
        let text = value
            .string()
            .map_err(|_| "must be a size in quotes with its unit, such as \"16MiB\"".to_owned())?;
        let size = text
            .parse::<bytesize::ByteSize>()
            .map_err(|_| format!("`{text}` is not a size such as \"16MiB\" or \"1GiB\""))?
            .as_u64();
        if !range.contains(&size) {
            let (least, most) = (
                bytesize::ByteSize::b(*range.start()),
                bytesize::ByteSize::b(*range.end()),
            );
            return Err(format!("must be between {least} and {most}, not {text}"));
        }
        Ok(size)
    }
}

/// An address to listen on; port 0 lets the system choose.
pub fn listen(value: &Value<'_>) -> Parsed<SocketAddr> {
    let text = value.string()?;
    text.parse()
        .map_err(|_| format!("`{text}` is not an address with a port, such as \"0.0.0.0:1883\""))
}

/// `host:port`, where the host may be a name.
pub fn host_and_port(value: &Value<'_>) -> Parsed<String> {
    let text = value.string()?;
    let valid = text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    if !valid {
        return Err(format!(
            "`{text}` is not host:port, such as \"kafka.example.com:9093\""
        ));
    }
    Ok(text.to_owned())
}

/// A file or folder; a relative one is meant from the config file's own folder.
pub fn path_from(base: &Path) -> impl Fn(&Value<'_>) -> Parsed<PathBuf> {
    move |value| Ok(base.join(text(value)?))
}

/// What a file is called that systemd hands over.
const CREDENTIAL: &str = "credential:";

/// A file as [`path_from`] has it, or, as `credential:NAME`, one that systemd has put where only
/// this process finds it.
pub fn secret_from(base: &Path) -> impl Fn(&Value<'_>) -> Parsed<PathBuf> {
    let directory = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    move |value| {
        let text = text(value)?;
        match text.strip_prefix(CREDENTIAL) {
            Some(name) => Ok(credentials(directory.as_deref(), name)?.join(name)),
            None => Ok(base.join(text)),
        }
    }
}

/// Where the credential `name` is, if there are any.
pub fn credentials<'d>(directory: Option<&'d Path>, name: &str) -> Parsed<&'d Path> {
    if name.is_empty() || name.contains('/') {
        return Err(format!(
            "`{name}` must be the name of a credential, not a path"
        ));
    }
    directory.ok_or_else(|| {
        format!(
            "CREDENTIALS_DIRECTORY is not set: the unit needs LoadCredential={name}:FILE, and \
             outside of it there is no credential (systemd-run -P -p LoadCredential={name}:FILE \
             skerry check … has one)"
        )
    })
}

/// One of the `words`, turned into what it stands for.
pub fn word<T: Clone>(words: &[(&str, T)]) -> impl Fn(&Value<'_>) -> Parsed<T> {
    let words: Vec<(String, T)> = words
        .iter()
        .map(|(word, meaning)| ((*word).to_owned(), meaning.clone()))
        .collect();
    move |value| {
        let text = value.string()?;
        let found = words.iter().find(|(word, _)| word == text);
        found.map(|(_, meaning)| meaning.clone()).ok_or_else(|| {
            let known: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
            format!("`{text}` must be one of {}", known.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_where_systemd_put_it_or_told_to_be_missing() {
        let there = Path::new("/run/credentials/skerry.service");
        assert_eq!(credentials(Some(there), "kafka-password"), Ok(there));
        for (directory, name, told) in [
            (None, "kafka-password", "LoadCredential=kafka-password:FILE"),
            (Some(there), "../shadow", "not a path"),
            (Some(there), "", "not a path"),
        ] {
            let why = credentials(directory, name).expect_err(name);
            assert!(why.contains(told), "{why}");
        }
    }
}
