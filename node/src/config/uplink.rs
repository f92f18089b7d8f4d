//! `[kafka]`: the way to the central cluster.

use super::reader::Table;
use super::streams::Streams;
use super::units;
use skerry_bridge::uplink::{Config, Identity, Mechanism, NodeName, Sasl, Tls, TopicTemplate};
use std::path::Path;

/// The table as a whole; `None` when it has a problem.
pub fn read(table: &Table<'_>, base: &Path, node: &str, streams: &Streams) -> Option<Config> {
    let brokers = table.required("brokers", |value| {
        match value.list(units::host_and_port)? {
            none if none.is_empty() => Err("must name at least one broker".to_owned()),
            brokers => Ok(brokers),
        }
    });
    let template = |value: &super::reader::Value<'_>| {
        TopicTemplate::new(value.string()?).map_err(|why| why.to_string())
    };
    let topic = table.optional("topic", template);
    let positions = table.optional("positions_topic", template);
    let chosen = table.optional("streams", |value| {
        value.list(|name| streams.named(name.string()?))
    });
    table.optional("delivery", units::word(&[("exactly_once", ())]));
    let tls = table.table("tls").map(|tls| read_tls(&tls, base));
    let sasl = read_sasl(table, base);
    table.finish();
    let node = NodeName::new(node);
    if let Err(why) = &node {
        table.problem("brokers", why.to_string());
    }
    let mut config = Config::new(node.ok()?, brokers?);
    config.topic = topic.unwrap_or(config.topic);
    config.positions = positions.unwrap_or(config.positions);
    config.streams = chosen;
    config.tls = tls;
    config.sasl = sasl;
    for (key, problem) in config.check() {
        table.problem(key, problem);
    }
    Some(config)
}

fn read_tls(table: &Table<'_>, base: &Path) -> Tls {
    let ca_file = table.optional("ca_file", units::path_from(base));
    let cert_file = table.optional("cert_file", units::path_from(base));
    let key_file = table.optional("key_file", units::path_from(base));
    if cert_file.is_some() != key_file.is_some() {
        table.problem(
            "cert_file",
            "goes together with key_file: give both or neither",
        );
    }
    table.finish();
    Tls {
        ca_file,
        identity: cert_file
            .zip(key_file)
            .map(|(cert_file, key_file)| Identity {
                cert_file,
                key_file,
            }),
    }
}

fn read_sasl(table: &Table<'_>, base: &Path) -> Option<Sasl> {
    let user = table.optional("user", units::text);
    let password_file = table.optional("password_file", units::path_from(base));
    let mechanism = table.optional(
        "mechanism",
        units::word(&[
            ("PLAIN", Mechanism::Plain),
            ("SCRAM-SHA-256", Mechanism::ScramSha256),
            ("SCRAM-SHA-512", Mechanism::ScramSha512),
        ]),
    );
    if user.is_some() != password_file.is_some() {
        table.problem(
            "user",
            "goes together with password_file: give both or neither",
        );
    }
    if user.is_none() && mechanism.is_some() {
        table.problem("mechanism", "is of no use without user and password_file");
    }
    let (user, password_file) = user.zip(password_file)?;
    Some(Sasl {
        mechanism: mechanism.unwrap_or_default(),
        user,
        password_file,
    })
}
