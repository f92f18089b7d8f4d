//! `[[opcua]]`: the servers to read from.

use super::reader::{Table, Value};
use super::streams::Streams;
use super::units;
use skerry_bridge::opcua::{Config, Node, Security, User};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

const INTERVAL_DEFAULT: Duration = Duration::from_millis(500);
const INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(3_600);

/// All servers, or `None` when one of them has a problem.
pub fn read(
    root: &Table<'_>,
    base: &Path,
    data_dir: Option<&Path>,
    streams: &Streams,
) -> Option<Vec<Config>> {
    let mut sources = BTreeSet::new();
    let mut servers = BTreeSet::new();
    let tables = root.tables("opcua");
    // Each table is read before the first `None` counts, so that all problems are noted.
    let read: Vec<Option<Config>> = tables
        .iter()
        .map(|table| read_server(table, base, data_dir, streams, &mut servers, &mut sources))
        .collect();
    read.into_iter().collect()
}

fn read_server(
    table: &Table<'_>,
    base: &Path,
    data_dir: Option<&Path>,
    streams: &Streams,
    servers: &mut BTreeSet<String>,
    sources: &mut BTreeSet<String>,
) -> Option<Config> {
    let name = table.required("name", |value| {
        let name = units::text(value)?;
        match servers.insert(name.clone()) {
            true => Ok(name),
            false => Err(format!("`{name}` is already the name of another [[opcua]]")),
        }
    });
    let endpoint = table.required("endpoint", parsed);
    let stream = table.optional("stream", |value| streams.named(value.string()?));
    let policy = table.optional("security_policy", units::text);
    let mode = table.optional("security_mode", units::text);
    let (policy, mode) = (
        policy.as_deref().unwrap_or("None"),
        mode.as_deref().unwrap_or("None"),
    );
    let security = match Security::new(policy, mode) {
        Ok(security) => Some(security),
        Err(why) => {
            table.problem("security_policy", why.to_string());
            None
        }
    };
    let user = table.optional("user", units::text);
    let password_file = table.optional("password_file", units::path_from(base));
    if user.is_some() != password_file.is_some() {
        table.problem(
            "user",
            "goes together with password_file: give both or neither",
        );
    }
    let interval = table.optional("publishing_interval", units::duration(INTERVALS));
    let interval = interval.unwrap_or(INTERVAL_DEFAULT);
    let nodes: Vec<Option<Node>> = table
        .tables("nodes")
        .iter()
        .map(|node| read_node(node, interval, sources))
        .collect();
    if nodes.is_empty() {
        let message = "lists no node; `skerry opcua browse URL` prints some to paste";
        table.problem("nodes", message);
    }
    table.finish();
    Some(Config {
        name: name?,
        endpoint: endpoint?,
        stream: stream.unwrap_or_else(|| streams.default_stream()),
        security: security?,
        user: user.zip(password_file).map(|(name, password_file)| User {
            name,
            password_file,
        }),
        publishing_interval: interval,
        nodes: nodes.into_iter().collect::<Option<Vec<_>>>()?,
        pki_directory: data_dir?.join("pki"),
    })
}

fn read_node(
    table: &Table<'_>,
    interval: Duration,
    sources: &mut BTreeSet<String>,
) -> Option<Node> {
    let name = table.required("name", |value| {
        let name = units::text(value)?;
        match sources.insert(name.clone()) {
            true => Ok(name),
            false => Err(format!(
                "`{name}` is already the name of another node; it is the key in the cluster"
            )),
        }
    });
    let id = table.required("id", parsed);
    let sampling = table.optional(
        "sampling",
        units::duration(Duration::ZERO..=*INTERVALS.end()),
    );
    table.finish();
    Some(Node {
        name: name?,
        id: id?,
        sampling: sampling.unwrap_or(interval),
    })
}

fn parsed<T>(value: &Value<'_>) -> Result<T, String>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    value
        .string()?
        .parse()
        .map_err(|why: T::Err| why.to_string())
}
