//! `folders` of an `[[opcua]]`, or `[[opcua.folder]]`: everything below a node of the server.

use super::super::reader::{Table, Value};
use super::super::units;
use super::groups::Paces;
use super::{INTERVALS, QUEUES, deadband, place};
use skerry_bridge::opcua::{Config, Folder, Pattern};
use std::time::Duration;

/// Levels below the folder.
const DEPTHS: std::ops::RangeInclusive<usize> = 1..=64;
/// Beyond this, the list of what was found would not fit beside the progress it belongs to.
const NODES: std::ops::RangeInclusive<usize> = 1..=10_000;

/// Both ways to write them.
const KEYS: [&str; 2] = ["folders", "folder"];

pub(super) fn read(table: &Table<'_>, paces: &Paces) -> Vec<Option<Folder>> {
    let tables = tables(table);
    let read = tables.iter().map(|table| read_folder(table, paces));
    read.collect()
}

pub(super) fn tables<'s>(table: &Table<'s>) -> Vec<Table<'s>> {
    KEYS.iter().flat_map(|key| table.tables(key)).collect()
}

/// The one that is used.
pub(super) fn key(table: &Table<'_>) -> &'static str {
    KEYS.into_iter()
        .find(|key| table.has(key))
        .unwrap_or(KEYS[0])
}

fn read_folder(table: &Table<'_>, paces: &Paces) -> Option<Folder> {
    let name = table.required("name", units::text);
    let at = place(table);
    let (group, interval) = paces.of(table);
    let patterns = |key| {
        let read = |value: &Value<'_>| value.list(pattern);
        table.optional(key, read).unwrap_or_default()
    };
    let (include, exclude) = (patterns("include"), patterns("exclude"));
    let depth = table.optional("depth", units::count(DEPTHS));
    let nodes_max = table.optional("nodes_max", units::count(NODES));
    let sampling = table.optional(
        "sampling",
        units::duration(Duration::ZERO..=*INTERVALS.end()),
    );
    let queue = table.optional("queue", units::count(QUEUES));
    let deadband = table.optional("deadband", deadband);
    table.finish();
    let mut folder = Folder::new(name?, at?, sampling.unwrap_or(interval));
    folder.include = include;
    folder.exclude = exclude;
    folder.depth = depth.unwrap_or(folder.depth);
    folder.nodes_max = nodes_max.unwrap_or(folder.nodes_max);
    folder.queue = queue.and_then(|values| u32::try_from(values).ok());
    folder.deadband = deadband;
    folder.group = group;
    Some(folder)
}

fn pattern(value: &Value<'_>) -> Result<Pattern, String> {
    let text = value.string()?;
    text.parse().map_err(|why| format!("{why}"))
}

/// The names below a folder are not known before the server is asked. So a folder's name and a
/// slash are its endpoint's own, and no other endpoint may have a name that starts so.
pub(super) fn keep_apart(tables: &[Table<'_>], servers: &[Option<Config>]) {
    let servers = || {
        tables
            .iter()
            .zip(servers)
            .filter_map(|(table, it)| Some((table, it.as_ref()?)))
    };
    for (table, server) in servers() {
        let key = key(table);
        let others = || servers().filter(|(_, other)| other.name != server.name);
        for folder in &server.folders {
            for (_, other) in others() {
                let node = other.nodes.iter().find(|node| folder.may_name(&node.name));
                let folders = other.folders.iter();
                let same = folders
                    .map(|other| &other.name)
                    .find(|name| folder.may_name(name) || **name == folder.name);
                if let Some(taken) = node.map(|node| &node.name).or(same) {
                    table.problem(
                        key,
                        format!(
                            "`{}` may name its nodes as [[opcua]] `{}` does with `{taken}`; names are keys in the \
                             cluster, so give the folder another one",
                            folder.name, other.name
                        ),
                    );
                }
            }
        }
    }
}
