//! Where an `[[opcua]]` is: one server, or several for the same plant.

use super::parsed;
use crate::config::reader::Table;
use skerry_bridge::opcua::{Config, EndpointUrl};
use std::collections::BTreeSet;

/// `endpoint`, or the first of `endpoints` and the others; `None` where there is a problem.
pub(super) fn endpoints(table: &Table<'_>) -> Option<(EndpointUrl, Vec<EndpointUrl>)> {
    if !table.has("endpoints") {
        return Some((table.required("endpoint", parsed)?, Vec::new()));
    }
    if table.has("endpoint") {
        let message = "is in the way of endpoints: give one of the two";
        table.problem("endpoint", message);
    }
    let all: Vec<EndpointUrl> = table.optional("endpoints", |value| value.list(parsed))?;
    let texts: BTreeSet<&str> = all.iter().map(EndpointUrl::as_str).collect();
    if texts.len() < all.len() {
        table.problem("endpoints", "lists one of them twice");
        return None;
    }
    let mut all = all.into_iter();
    let Some(first) = all.next() else {
        table.problem("endpoints", "lists no endpoint");
        return None;
    };
    Some((first, all.collect()))
}

/// The names that certificates of the further endpoints go by, which must be nobody else's.
pub(super) fn check_names(table: &Table<'_>, config: &Config, servers: &mut BTreeSet<String>) {
    for name in config.pin_names().skip(1) {
        if !servers.insert(name.clone()) {
            let message = format!(
                "has a server whose certificate goes by `{name}`, which is the name of another \
                 [[opcua]]"
            );
            table.problem("endpoints", message);
        }
    }
}
