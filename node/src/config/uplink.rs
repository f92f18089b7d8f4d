//! `[kafka]`: the way to the central cluster.

use super::link;
use super::reader::Table;
use super::streams::Streams;
use super::units;
use skerry_bridge::uplink::gate::{Links, Pack, Priority};
use skerry_bridge::uplink::{
    Config, Delivery, Identity, Key, Late, LinkTopic, Mechanism, NewTopics, NodeName, Route, Sasl,
    Timestamp, Tls, TopicTemplate,
};
use skerry_store::StreamName;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

/// Kafka itself sets no limit; a topic of more is a typing error.
const PARTITIONS_MOST: usize = 100_000;
const REPLICATION_MOST: usize = 1_000;
/// The last to go; 0 goes before all others.
const PRIORITY_MOST: usize = 9;
const WEIGHT_MOST: usize = 1_000;

/// The stream of the models' alerts: few, and urgent unless the config says otherwise.
const ALERTS: &str = "alerts";

/// What a stream, or `[kafka]` for all of them, says of where records go and as what.
#[derive(Debug, Clone, Default)]
pub struct RouteKeys {
    topic: Option<TopicTemplate>,
    key: Option<Key>,
    timestamp: Option<Timestamp>,
    late: Option<Late>,
    backfill_topic: Option<TopicTemplate>,
    priority: Option<Priority>,
    weight: Option<NonZeroU32>,
    pack: Option<Pack>,
}

impl RouteKeys {
    /// Asks for these keys; the caller finishes the table.
    pub fn read(table: &Table<'_>) -> Self {
        Self {
            topic: table.optional("topic", template),
            key: table.optional(
                "key",
                units::word(&[
                    ("source", Key::Source),
                    ("node", Key::Node),
                    ("stream", Key::Stream),
                ]),
            ),
            timestamp: table.optional(
                "timestamp",
                units::word(&[("event", Timestamp::Event), ("ingest", Timestamp::Ingest)]),
            ),
            late: table.optional(
                "late",
                units::word(&[
                    ("hold", Late::Hold),
                    ("restamp", Late::Restamp),
                    ("backfill_topic", Late::BackfillTopic),
                ]),
            ),
            backfill_topic: table.optional("backfill_topic", template),
            priority: table.optional("priority", |value| {
                let priority = units::count(0..=PRIORITY_MOST)(value)?;
                Ok(Priority(u8::try_from(priority).unwrap_or(u8::MAX)))
            }),
            weight: table.optional("weight", |value| {
                let weight = units::count(1..=WEIGHT_MOST)(value)?;
                let weight = u32::try_from(weight).unwrap_or(u32::MAX);
                Ok(NonZeroU32::new(weight).unwrap_or(NonZeroU32::MIN))
            }),
            pack: table.optional(
                "pack",
                units::word(&[("auto", Pack::Auto), ("off", Pack::Off)]),
            ),
        }
    }

    fn over(&self, base: &Route) -> Route {
        let template = |own: &Option<TopicTemplate>, base: &TopicTemplate| {
            own.as_ref().unwrap_or(base).clone()
        };
        Route {
            topic: template(&self.topic, &base.topic),
            key: self.key.unwrap_or(base.key),
            timestamp: self.timestamp.unwrap_or(base.timestamp),
            late: self.late.unwrap_or(base.late),
            backfill_topic: template(&self.backfill_topic, &base.backfill_topic),
            priority: self.priority.unwrap_or(base.priority),
            weight: self.weight.unwrap_or(base.weight),
            // What the whole node says comes after what the link says.
            pack: self.pack,
        }
    }
}

fn is_alerts(stream: &StreamName) -> bool {
    stream.as_str() == ALERTS
}

fn template(value: &super::reader::Value<'_>) -> Result<TopicTemplate, String> {
    TopicTemplate::new(value.string()?).map_err(|why| why.to_string())
}

/// The table as a whole; `None` when it has a problem.
pub fn read(table: &Table<'_>, base: &Path, node: &str, streams: &Streams) -> Option<Config> {
    let brokers = table.required("brokers", |value| {
        match value.list(units::host_and_port)? {
            none if none.is_empty() => Err("must name at least one broker".to_owned()),
            brokers => Ok(brokers),
        }
    });
    let route = RouteKeys::read(table);
    let positions = table.optional("positions_topic", |value| {
        let positions = template(value)?;
        match positions.goes_by_source() {
            true => Err("is one topic of the node: {node} is its only placeholder".to_owned()),
            false => Ok(positions),
        }
    });
    let create_topics = read_new_topics(table);
    let chosen = table.optional("streams", |value| {
        value.list(|name| streams.named(name.string()?))
    });
    let delivery = table.optional(
        "delivery",
        units::word(&[
            ("exactly_once", Delivery::ExactlyOnce),
            ("at_least_once", Delivery::AtLeastOnce),
        ]),
    );
    let tls = table.table("tls").map(|tls| read_tls(&tls, base));
    let sasl = read_sasl(table, base);
    let links = link::read(table, base, |name| streams.named(name));
    let link_topic = read_link_topic(table, &links, streams);
    table.finish();
    let node = NodeName::new(node);
    if let Err(why) = &node {
        table.problem("brokers", why.to_string());
    }
    let mut config = Config::new(node.ok()?, brokers?);
    config.route = route.over(&config.route);
    let routes = streams.routes_north();
    config.routes = routes
        .map(|(stream, keys)| (stream.clone(), keys.over(&config.route)))
        .collect();
    let of_alerts = streams.routes_north().find(|(stream, _)| is_alerts(stream));
    let said = of_alerts
        .and_then(|(_, keys)| keys.priority)
        .or(route.priority);
    if let (None, Ok(alerts)) = (said, StreamName::new(ALERTS)) {
        let plain = || RouteKeys::default().over(&config.route);
        let route = config.routes.entry(alerts).or_insert_with(plain);
        route.priority = Priority::FIRST;
    }
    config.create_topics = create_topics;
    config.positions = positions.unwrap_or(config.positions);
    config.streams = chosen;
    config.delivery = delivery.unwrap_or_default();
    config.tls = tls;
    config.sasl = sasl;
    config.links = Arc::new(links);
    config.link_topic = link_topic;
    for (key, problem) in config.check() {
        table.problem(key, problem);
    }
    Some(config)
}

/// The topic by which MQTT clients choose among `links`.
fn read_link_topic(table: &Table<'_>, links: &Links, streams: &Streams) -> Option<LinkTopic> {
    let topic = table.optional("link_topic", |value| {
        let topic = value.string()?;
        if topic.is_empty() || topic.starts_with('$') || topic.contains(['+', '#', '\0']) {
            return Err("is one topic that clients may publish to, without + or #".to_owned());
        }
        Ok(topic.to_owned())
    })?;
    let stream = streams.of_topic(&topic);
    if links.names().count() < 2 {
        table.problem(
            "link_topic",
            "is of no use without [[kafka.link]]".to_owned(),
        );
    }
    if streams.memory().contains(&stream) {
        let why = format!(
            "messages to it go to stream `{}`, whose QoS 0 is not logged: a command could be \
             missed. Give it a [[stream]] of its own",
            stream.as_str()
        );
        table.problem("link_topic", why);
    }
    Some(LinkTopic { topic, stream })
}

/// Only who asks for it has topics created: a name that is mistyped else looks like success.
fn read_new_topics(table: &Table<'_>) -> Option<NewTopics> {
    let create = table.optional("create_topics", units::flag);
    let partitions = table.optional("partitions", units::count(1..=PARTITIONS_MOST));
    let replication = table.optional("replication", units::count(1..=REPLICATION_MOST));
    if create != Some(true) {
        for (key, given) in [
            ("partitions", partitions.is_some()),
            ("replication", replication.is_some()),
        ] {
            if given {
                table.problem(
                    key,
                    "only means something together with create_topics = true",
                );
            }
        }
        return None;
    }
    Some(NewTopics {
        partitions: partitions.and_then(|count| i32::try_from(count).ok()),
        replication: replication.and_then(|count| i16::try_from(count).ok()),
    })
}

fn read_tls(table: &Table<'_>, base: &Path) -> Tls {
    let ca_file = table.optional("ca_file", units::secret_from(base));
    let cert_file = table.optional("cert_file", units::secret_from(base));
    let key_file = table.optional("key_file", units::secret_from(base));
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

/// What `mechanism` says.
#[derive(Clone, Copy)]
enum Way {
    Password(Mechanism),
    Token,
}

fn read_sasl(table: &Table<'_>, base: &Path) -> Option<Sasl> {
    let way = table.optional(
        "mechanism",
        units::word(&[
            ("PLAIN", Way::Password(Mechanism::Plain)),
            ("SCRAM-SHA-256", Way::Password(Mechanism::ScramSha256)),
            ("SCRAM-SHA-512", Way::Password(Mechanism::ScramSha512)),
            ("OAUTHBEARER", Way::Token),
        ]),
    );
    let (password, token) = (
        read_password(table, base, way),
        read_token(table, base, way),
    );
    password.or(token)
}

fn read_password(table: &Table<'_>, base: &Path, way: Option<Way>) -> Option<Sasl> {
    let user = table.optional("user", units::text);
    let password_file = table.optional("password_file", units::secret_from(base));
    if let Some(Way::Token) = way {
        if table.has("user") || table.has("password_file") {
            let key = if table.has("user") {
                "user"
            } else {
                "password_file"
            };
            table.problem(key, "is of no use with mechanism = \"OAUTHBEARER\"");
        }
        return None;
    }
    if table.has("user") != table.has("password_file") {
        table.problem(
            "user",
            "goes together with password_file: give both or neither",
        );
    }
    if way.is_some() && !table.has("user") && !table.has("password_file") {
        table.problem("mechanism", "is of no use without user and password_file");
    }
    let mechanism = match way {
        Some(Way::Password(mechanism)) => mechanism,
        _ => Mechanism::default(),
    };
    Some(Sasl::Password {
        mechanism,
        user: user?,
        password_file: password_file?,
    })
}

fn read_token(table: &Table<'_>, base: &Path, way: Option<Way>) -> Option<Sasl> {
    const ASKED_FOR: [&str; 4] = ["token_endpoint", "client_id", "client_secret_file", "scope"];
    let token_file = table.optional("token_file", units::secret_from(base));
    let url = table.optional("token_endpoint", |value| {
        let url = units::text(value)?;
        match url.starts_with("https://") {
            true => Ok(url),
            false => Err(format!(
                "`{url}` must begin with https://: a secret goes there"
            )),
        }
    });
    let client_id = table.optional("client_id", units::text);
    let client_secret_file = table.optional("client_secret_file", units::secret_from(base));
    let scope = table.optional("scope", units::text);
    let first = ASKED_FOR.into_iter().find(|key| table.has(key));
    if !matches!(way, Some(Way::Token)) {
        let key = Some("token_file").filter(|key| table.has(key)).or(first);
        if let Some(key) = key {
            table.problem(key, "is of no use without mechanism = \"OAUTHBEARER\"");
        }
        return None;
    }
    match (table.has("token_file"), first) {
        (true, None) => return token_file.map(Sasl::TokenFile),
        (true, Some(key)) => {
            table.problem(key, "and token_file are two ways to a token: give one");
        }
        (false, None) => table.problem(
            "mechanism",
            "OAUTHBEARER needs token_file, or token_endpoint with client_id and client_secret_file",
        ),
        (false, Some(_)) => {
            let missing = ASKED_FOR[..3].iter().find(|key| !table.has(key));
            if let Some(missing) = missing {
                table.problem(
                    missing,
                    "is missing: token_endpoint, client_id and \
                                        client_secret_file go together",
                );
            }
        }
    }
    Some(Sasl::TokenEndpoint {
        url: url?,
        client_id: client_id?,
        client_secret_file: client_secret_file?,
        scope,
    })
}
