//! `profile` of an `[[opcua]]`: what is more than a server of its kind takes is a remark. The
//! server has the last word, so nothing is refused for it.

use super::super::reader::{Severity, Table};
use super::parsed;
use skerry_bridge::opcua::{Config, Profile};
use std::time::Duration;

pub(super) fn read(table: &Table<'_>) -> Option<Profile> {
    match table.has("profile") {
        true => table.optional("profile", parsed),
        false => Some(Profile::default()),
    }
}

pub(super) fn check(table: &Table<'_>, config: &Config) {
    let Some(capacity) = config.profile.capacity() else {
        return;
    };
    let kind = config.profile.word();
    let shorter = |table: &Table<'_>, key: &str, is: Duration, least: Duration| {
        if is < least {
            let least = least.as_millis();
            let message = format!("an {kind} has {least} ms at the shortest, and makes it that");
            table.remark(key, Severity::Warning, message);
        }
    };
    let publishing = config.publishing_interval;
    shorter(
        table,
        "publishing_interval",
        publishing,
        capacity.publishing_min,
    );
    let groups = super::groups::tables(table);
    for (table, group) in groups.iter().zip(&config.groups) {
        let interval = group.publishing_interval;
        shorter(
            table,
            "publishing_interval",
            interval,
            capacity.publishing_min,
        );
    }
    let (paces, most) = (config.groups_in_use().len(), capacity.subscriptions);
    if paces > most {
        let message = format!(
            "{paces} paces take a subscription each; an {kind} has {most}, all clients together"
        );
        table.remark(super::groups::key(table), Severity::Warning, message);
    }
    let nodes = table.tables("nodes");
    for (table, node) in nodes.iter().zip(&config.nodes) {
        // What follows from the publishing interval was said there.
        if table.has("sampling") {
            shorter(table, "sampling", node.sampling, capacity.sampling_min);
        }
    }
    let folders = super::folders::tables(table);
    for (table, folder) in folders.iter().zip(&config.folders) {
        if table.has("sampling") {
            shorter(table, "sampling", folder.sampling, capacity.sampling_min);
        }
    }
    let of_folders: usize = config.folders.iter().map(|folder| folder.nodes_max).sum();
    let (named, most) = (config.nodes.len(), capacity.items);
    if named > most {
        let message = format!(
            "{named} nodes are more than the {most} that an {kind} is made for, all clients together"
        );
        table.remark("nodes", Severity::Warning, message);
    } else if of_folders > 0 && named + of_folders > most {
        let message = format!(
            "up to {} nodes with those in folders; an {kind} is made for {most}, all clients together: set nodes_max",
            named + of_folders
        );
        table.remark(super::folders::key(table), Severity::Warning, message);
    }
}
