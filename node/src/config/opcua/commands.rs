//! `[[opcua.command]]`: what MQTT clients may have done at a server.

use super::super::reader::{Table, Value};
use super::super::streams::Streams;
use super::super::{number, units};
use super::parsed;
use skerry_bridge::opcua::{
    Action, BrowsePath, COMMAND_AGE_MAX, Command, Commands, Limits, NodeAddress, result_topic,
};
use skerry_broker::{Acl, Config as Mqtt};
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Below this a command on a slow line is never young enough; above it, the machine is another one.
const AGES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3_600);

/// The commands of one endpoint. `topics` has those of all endpoints before it. `None` where none
/// is listed, and then nothing is possible.
pub fn read(
    server: &Table<'_>,
    has_mqtt: bool,
    streams: &Streams,
    topics: &mut BTreeSet<String>,
) -> Option<Commands> {
    let tables = server.tables("command");
    if !tables.is_empty() && !has_mqtt {
        server.problem(
            "command",
            "comes by MQTT, and there is no [mqtt] to take it",
        );
    }
    let read = tables.iter();
    let list: Vec<Command> = read
        .filter_map(|table| read_command(table, streams, topics))
        .collect();
    (!list.is_empty()).then(|| Commands {
        audit: streams.audit_stream(),
        list,
    })
}

fn read_command(
    table: &Table<'_>,
    streams: &Streams,
    topics: &mut BTreeSet<String>,
) -> Option<Command> {
    let topic = table.required("topic", |value| {
        let topic = topic(value)?;
        match topics.iter().find(|other| collide(other, &topic)) {
            Some(other) => Err(format!(
                "`{topic}` and the command topic `{other}` are the same, or one is where results \
                 of the other go"
            )),
            None => Ok(topic),
        }
    });
    let action = read_action(table);
    let max_age = table.optional("max_age", units::duration(AGES));
    table.finish();
    let topic = topic?;
    topics.insert(topic.clone());
    let (stream, results) = (
        streams.of_topic(&topic),
        streams.of_topic(&result_topic(&topic)),
    );
    if streams.memory().contains(&stream) {
        let why = format!(
            "messages to it go to stream `{}`, whose QoS 0 is not logged: a command could be \
             missed. Give it a [[stream]] of its own",
            stream.as_str()
        );
        table.problem("topic", why);
    }
    if streams.immediate().contains(&results) {
        let why = format!(
            "its results go to stream `{}`, which delivers what clients publish before it is \
             logged, and a result comes from the log: nobody would get it. Give `{}` a [[stream]] \
             of its own",
            results.as_str(),
            result_topic(&topic)
        );
        table.problem("topic", why);
    }
    Some(Command {
        topic,
        stream,
        results,
        action: action?,
        max_age: max_age.unwrap_or(COMMAND_AGE_MAX),
    })
}

fn read_action(table: &Table<'_>) -> Option<Action> {
    let write = node(table, "write", "write_path");
    let object = node(table, "object", "object_path");
    let method = node(table, "method", "method_path");
    let acknowledge = table.optional("acknowledge", units::flag) == Some(true);
    let confirm = table.optional("confirm", units::flag) == Some(true);
    let limits = read_limits(table);
    let has = |keys: [&str; 2]| keys.into_iter().any(|key| table.has(key));
    let has_object = has(["object", "object_path"]);
    let has_method = has(["method", "method_path"]);
    let calls = has_object || has_method;
    let writes = has(["write", "write_path"]);
    let said = [writes, calls, acknowledge, confirm];
    if said.into_iter().filter(|said| *said).count() != 1 {
        let why = "says what its topic does: write = \"NODE\", or object = \"NODE\" and method = \
                   \"NODE\", or acknowledge = true, or confirm = true";
        table.problem("topic", why);
        return None;
    }
    if calls && !(has_object && has_method) {
        table.problem("method", "goes together with object: give both");
    }
    if limits.are_set() && !writes {
        table.problem("min", "and max are for what is written");
    }
    match (write, object.zip(method)) {
        (Some(node), _) => Some(Action::Write { node, limits }),
        (_, Some((object, method))) => Some(Action::Call { object, method }),
        _ if acknowledge => Some(Action::Acknowledge),
        _ => confirm.then_some(Action::Confirm),
    }
}

/// A node by its id, or under another key by its path from Objects down.
fn node(table: &Table<'_>, key: &str, path_key: &str) -> Option<NodeAddress> {
    if table.has(path_key) {
        let path = table.optional(path_key, parsed::<BrowsePath>);
        if table.has(key) {
            table.problem(
                path_key,
                format!("goes in place of {key}: give one of them"),
            );
            return None;
        }
        return path.map(NodeAddress::from);
    }
    table.optional(key, parsed::<NodeAddress>)
}

fn read_limits(table: &Table<'_>) -> Limits {
    let limits = Limits {
        min: table.optional("min", number::finite),
        max: table.optional("max", number::finite),
    };
    if let (Some(min), Some(max)) = (limits.min, limits.max)
        && min > max
    {
        table.problem(
            "min",
            format!("is above max, {max}: nothing could be written"),
        );
    }
    limits
}

fn topic(value: &Value<'_>) -> Result<String, String> {
    let topic = value.string()?;
    let own = topic.starts_with('$') || topic.starts_with("skerry/");
    if topic.is_empty() || own || topic.contains(['+', '#', '\0']) {
        return Err("is one topic that clients may publish to, without + or #".to_owned());
    }
    Ok(topic.to_owned())
}

/// Whether they are one, or the results of one are commands of the other.
fn collide(one: &str, other: &str) -> bool {
    let below = |topic: &str, command: &str| {
        let rest = topic.strip_prefix(&result_topic(command));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    one == other || below(one, other) || below(other, one)
}

/// A line for each command: its topic, what that does, and who may.
pub fn summary<'c>(
    commands: &'c Commands,
    mqtt: Option<&Mqtt>,
) -> impl Iterator<Item = String> + use<'c> {
    let file = mqtt.and_then(|mqtt| mqtt.access.acl_file.as_deref());
    let acl = file.and_then(|file| Acl::load(file).ok());
    commands.list.iter().map(move |command| {
        let publishers = acl.as_ref().map(|acl| acl.publishers(&command.topic));
        let who = match publishers.as_deref() {
            None => "anybody who may connect".to_owned(),
            Some([]) => "nobody: acl_file lets none publish there".to_owned(),
            Some(names) => names.join(", "),
        };
        format!(
            "           {} {}, up to {} old, for {who}",
            command.topic,
            command.action,
            humantime::format_duration(command.max_age)
        )
    })
}

/// What is right, but hardly meant.
pub fn warning(commands: &[&Commands], mqtt: Option<&Mqtt>) -> Option<String> {
    let open = mqtt.is_some_and(|mqtt| mqtt.access.acl_file.is_none());
    let first = commands.iter().flat_map(|it| &it.list).next()?;
    open.then(|| {
        format!(
            "anybody who may connect by MQTT {} by publishing to {}: set mqtt.acl_file and say there \
             who may",
            first.action, first.topic
        )
    })
}

#[cfg(test)]
mod tests;
