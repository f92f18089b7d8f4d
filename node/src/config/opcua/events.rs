//! `events` of an `[[opcua]]`: whose events and alarms are taken in.

use super::groups::Paces;
use super::{parsed, source};
use crate::config::reader::{Table, Value};
use crate::config::units;
use skerry_bridge::opcua::EventSource;
use std::collections::BTreeSet;

/// Severities run from 1 to 1,000 (Part 5, 6.4.2).
const SEVERITIES: std::ops::RangeInclusive<usize> = 1..=1_000;

/// All of them, or `None` when one has a problem.
pub(super) fn sources(
    table: &Table<'_>,
    paces: &Paces,
    sources: &mut BTreeSet<String>,
) -> Option<Vec<EventSource>> {
    let tables = table.tables("events");
    let read: Vec<Option<EventSource>> = tables
        .iter()
        .map(|table| event_source(table, paces, sources))
        .collect();
    read.into_iter().collect()
}

fn event_source(
    table: &Table<'_>,
    paces: &Paces,
    sources: &mut BTreeSet<String>,
) -> Option<EventSource> {
    let name = table.required("name", source(sources));
    let id = table.optional("id", parsed);
    let severity_min = table.optional("min_severity", units::count(SEVERITIES));
    let fields = table.optional("fields", |value| value.list(field));
    let (group, _) = paces.of(table);
    table.finish();
    Some(EventSource {
        severity_min: severity_min
            .and_then(|least| u16::try_from(least).ok())
            .unwrap_or(EventSource::SEVERITY_MIN),
        fields: fields.unwrap_or_default(),
        group,
        ..EventSource::new(name?, id)
    })
}

/// A browse path from the event's type: `2:Batch/2:Number`.
fn field(value: &Value<'_>) -> Result<String, String> {
    let path = units::text(value)?;
    match EventSource::is_standard(&path) {
        true => Err(format!(
            "`{path}` is among the fields that every event has here"
        )),
        false => Ok(path),
    }
}
