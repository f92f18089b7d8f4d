//! `[[opcua]]`: the servers to read from.

mod commands;
mod events;
mod folders;
mod groups;
mod history;
mod profile;
mod redundancy;
mod reverse;
mod user;

use super::reader::{Table, Value};
use super::streams::Streams;
use super::{number, units};
use groups::Paces;
use skerry_bridge::opcua::{
    BrowsePath, Config, Deadband, Node, NodeAddress, OUTAGE_BUDGET_MIN, PUBLISHING_INTERVAL,
};
use skerry_broker::Config as Mqtt;
use skerry_store::StreamName;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

const INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(3_600);
/// No server keeps more than a week of anything.
const OUTAGE_BUDGETS: std::ops::RangeInclusive<Duration> =
    OUTAGE_BUDGET_MIN..=Duration::from_secs(7 * 86_400);
/// More often, a small PLC would do little else.
const BROWSE_INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(5)..=Duration::from_secs(86_400);
/// Of values that a server is asked to keep for one node.
const QUEUES: std::ops::RangeInclusive<usize> = 1..=100_000;

pub type Servers = Vec<Config>;

/// All servers, or `None` when one of them has a problem.
pub fn read(
    root: &Table<'_>,
    base: &Path,
    data_dir: Option<&Path>,
    streams: &Streams,
) -> Option<Servers> {
    let mut sources = BTreeSet::new();
    let mut servers = BTreeSet::new();
    let mut topics = BTreeSet::new();
    let has_mqtt = root.has("mqtt");
    let tables = root.tables("opcua");
    // Each table is read before the first `None` counts, so that all problems are noted.
    let read: Vec<Option<Config>> = tables
        .iter()
        .map(|table| {
            let commands = commands::read(table, has_mqtt, streams, &mut topics);
            let server = read_server(table, base, data_dir, streams, &mut servers, &mut sources);
            server.map(|server| Config { commands, ..server })
        })
        .collect();
    folders::keep_apart(&tables, &read);
    read.into_iter().collect()
}

/// The MQTT topics whose messages are commands.
pub fn command_topics(servers: &Servers) -> Vec<String> {
    let commands = servers.iter().filter_map(|it| it.commands.as_ref());
    let commands = commands.flat_map(|commands| &commands.list);
    commands.map(|command| command.topic.clone()).collect()
}

/// The stream that the values of a node go to.
pub fn stream_of_node(servers: Option<&Servers>, name: &str) -> Result<StreamName, String> {
    let servers = servers.map_or(&[][..], Vec::as_slice);
    let lists = |server: &&Config| server.nodes.iter().any(|node| node.name == name);
    // What is in a folder shows at the server only.
    let may_find = |server: &&Config| server.folders.iter().any(|folder| folder.may_name(name));
    let server = servers.iter().find(lists);
    server
        .or_else(|| servers.iter().find(may_find))
        .map(|server| server.stream.clone())
        .ok_or_else(|| {
            format!("no [[opcua]] has a node named `{name}`, or a folder that it could be in")
        })
}

/// A line for each server and for each command, for a person who has just checked the config.
pub fn summary(servers: &Servers, mqtt: Option<&Mqtt>) -> Vec<String> {
    let mut lines = Vec::new();
    for server in servers {
        let folders = match server.folders.len() {
            0 => String::new(),
            1 => " and a folder".to_owned(),
            count => format!(" and {count} folders"),
        };
        let endpoints: Vec<&str> = server.endpoints().map(|it| it.as_str()).collect();
        let calls = server.reverse.as_ref();
        let calls = calls.map(|reverse| format!(", which connects to {}", reverse.listen));
        lines.push(format!(
            "  opcua    {}: {} nodes{folders} of {}, {}{}",
            server.name,
            server.nodes.len(),
            endpoints.join(", or "),
            server.security,
            calls.unwrap_or_default(),
        ));
        let commands = server.commands.iter();
        lines.extend(commands.flat_map(|it| commands::summary(it, mqtt)));
    }
    lines
}

/// What is right, but hardly meant.
pub fn warning(servers: &Servers, mqtt: Option<&Mqtt>) -> Option<String> {
    let commands: Vec<_> = servers
        .iter()
        .filter_map(|it| it.commands.as_ref())
        .collect();
    commands::warning(&commands, mqtt)
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
    let endpoints = redundancy::endpoints(table);
    let reverse = reverse::read(table);
    let stream = table.optional("stream", |value| streams.named(value.string()?));
    let security = user::security(table);
    let user = user::user(table, base);
    let interval = table.optional("publishing_interval", units::duration(INTERVALS));
    let interval = interval.unwrap_or(PUBLISHING_INTERVAL);
    let outage_budget = table.optional("outage_budget", units::duration(OUTAGE_BUDGETS));
    let paces = Paces::read(table, interval);
    let nodes: Vec<Option<Node>> = table
        .tables("nodes")
        .iter()
        .map(|node| read_node(node, &paces, sources))
        .collect();
    let events = events::sources(table, &paces, sources);
    let history = history::history(table);
    let folders = folders::read(table, &paces);
    let groups = paces.finish(table);
    let no_events = events.as_ref().is_none_or(Vec::is_empty);
    if nodes.is_empty() && folders.is_empty() && no_events {
        let message =
            "lists no node, and there is no folder; `skerry opcua browse URL` prints some to paste";
        table.problem("nodes", message);
    }
    let profile = profile::read(table);
    let browse_interval = table.optional("browse_interval", units::duration(BROWSE_INTERVALS));
    table.finish();
    let nodes = nodes.into_iter().collect::<Option<Vec<_>>>()?;
    let folders = folders.into_iter().collect::<Option<Vec<_>>>()?;
    let stream = stream.unwrap_or_else(|| streams.default_stream());
    let (endpoint, standby) = endpoints?;
    let mut config = Config::new(name?, endpoint, stream, data_dir?.join("pki"));
    config.standby = standby;
    config.reverse = reverse;
    redundancy::check_names(table, &config, servers);
    config.security = security?;
    config.user = user;
    config.publishing_interval = interval;
    config.groups = groups?;
    config.outage_budget = outage_budget.unwrap_or(config.outage_budget);
    config.nodes = nodes;
    config.events = events?;
    config.history = history;
    config.folders = folders;
    config.profile = profile?;
    config.browse_interval = browse_interval.unwrap_or(config.browse_interval);
    profile::check(table, &config);
    Some(config)
}

fn read_node(table: &Table<'_>, paces: &Paces, sources: &mut BTreeSet<String>) -> Option<Node> {
    let name = table.required("name", source(sources));
    let id = place(table);
    let (group, interval) = paces.of(table);
    let sampling = table.optional(
        "sampling",
        units::duration(Duration::ZERO..=*INTERVALS.end()),
    );
    let queue = table.optional("queue", units::count(QUEUES));
    let deadband = table.optional("deadband", deadband);
    table.finish();
    let mut node = Node::new(name?, id?, sampling.unwrap_or(interval));
    node.queue = queue.and_then(|values| u32::try_from(values).ok());
    node.deadband = deadband;
    node.group = group;
    Some(node)
}

/// The name of records, which no other node may have.
fn source(sources: &mut BTreeSet<String>) -> impl FnOnce(&Value<'_>) -> Result<String, String> {
    |value| {
        let name = units::text(value)?;
        match sources.insert(name.clone()) {
            true => Ok(name),
            false => Err(format!(
                "`{name}` is already the name of another node; it is the key in the cluster"
            )),
        }
    }
}

/// Where a node is: by `id` or by `path`.
fn place(table: &Table<'_>) -> Option<NodeAddress> {
    match (table.has("id"), table.has("path")) {
        (true, true) => {
            table.problem("path", "goes in place of id: give one of them");
            None
        }
        (false, true) => {
            let path = table.optional("path", parsed::<BrowsePath>);
            path.map(NodeAddress::from)
        }
        _ => table.required("id", parsed),
    }
}

/// A number in the value's unit, or text such as `2%` of the node's range.
fn deadband(value: &Value<'_>) -> Result<Deadband, String> {
    let wrong =
        || "is a number of at least 0, or a share of the node's range such as \"2%\"".to_owned();
    match value.float() {
        Ok(number) if (0.0..=f64::MAX).contains(&number) => Ok(Deadband::Absolute(number)),
        Ok(_) => Err(wrong()),
        Err(_) => {
            let share = number::percent(value);
            share.map(Deadband::Percent).map_err(|_| wrong())
        }
    }
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

#[cfg(test)]
mod tests;
