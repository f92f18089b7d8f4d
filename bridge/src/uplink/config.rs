//! What the uplink needs to know. Plain types that cannot be wrong; the node's config reader
//! fills them from `[kafka]`.

use super::commands::LinkTopic;
use super::gate::{DEFAULT, LinkClass, Links, Pack, Priority};
use super::template::{TOPIC_BYTES_MAX, TopicTemplate, allowed_in_topic};
use skerry_store::StreamName;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct Config {
    /// The node's name: in headers, in the transactional id and in the positions topic.
    pub node: NodeName,
    /// `host:port` of some of the cluster's brokers; the others are learned from them.
    pub brokers: Vec<String>,
    /// Where records go and as what, unless their stream says otherwise.
    pub route: Route,
    /// The streams that do.
    pub routes: BTreeMap<StreamName, Route>,
    /// Where this node keeps its positions. The uplink creates the topic, compacted and with one
    /// partition, where it may; it goes by no source.
    pub positions: TopicTemplate,
    /// The streams to deliver; none means each that is not the node's own, but for the
    /// [quarantine](super::QUARANTINE).
    pub streams: Option<Vec<StreamName>>,
    pub delivery: Delivery,
    /// Create a topic that is missing. Without it a missing topic is waited for.
    pub create_topics: Option<NewTopics>,
    pub tls: Option<Tls>,
    pub sasl: Option<Sasl>,
    pub limits: Limits,
    /// What each kind of link may carry, and the kind in force. Shared with whoever commands it.
    pub links: Arc<Links>,
    /// Where that is commanded by MQTT.
    pub link_topic: Option<LinkTopic>,
}

/// What a crash or a cut in the middle of a delivery may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delivery {
    /// Records and position are one transaction.
    #[default]
    ExactlyOnce,
    /// The position follows the records, for clusters without transactions: what lies between
    /// is sent again. The headers that name a record let consumers tell.
    AtLeastOnce,
}

/// Where a stream's records go, and as what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub topic: TopicTemplate,
    pub key: Key,
    pub timestamp: Timestamp,
    pub late: Late,
    /// Where records go that are late, with [`Late::BackfillTopic`].
    pub backfill_topic: TopicTemplate,
    /// Streams of a lower number have the link to themselves while they have something to send.
    pub priority: Priority,
    /// The share among streams of the same priority.
    pub weight: NonZeroU32,
    /// Whether many records become one by columns; none of a stream leaves it to the link class,
    /// and none of that to what is said for all streams.
    pub pack: Option<Pack>,
}

/// The Kafka key. Order is kept per key, and a source's records have one key in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Key {
    /// The record's source: MQTT topic, OPC-UA tag or model.
    #[default]
    Source,
    /// The node's name: all of a stream in one partition, in the order of the log.
    Node,
    /// The stream's name: the same, with the streams of all nodes together.
    Stream,
}

/// What the Kafka timestamp says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Timestamp {
    /// When the value arose: the source's time, else the server's, else the node's.
    #[default]
    Event,
    /// When the node took it in.
    Ingest,
}

/// What becomes of records which the topic would delete at once or refuse, for their timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Late {
    /// They wait, and what is behind them too, until the topic is set up for them.
    Hold,
    /// They are dated now, and their event time is in a header: nothing is lost and nothing
    /// stands still, on a ship that nobody looks at, and only of records that would be gone.
    #[default]
    Restamp,
    /// They go to a topic of their own, which keeps them.
    BackfillTopic,
}

/// How a missing topic is created; none means as the cluster does by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NewTopics {
    pub partitions: Option<i32>,
    pub replication: Option<i16>,
}

impl Default for Route {
    fn default() -> Self {
        Self {
            topic: template("skerry.{stream}"),
            key: Key::default(),
            timestamp: Timestamp::default(),
            late: Late::default(),
            backfill_topic: template("skerry.backfill.{stream}"),
            priority: Priority::NORMAL,
            weight: NonZeroU32::MIN,
            pack: None,
        }
    }
}

fn template(text: &str) -> TopicTemplate {
    TopicTemplate::new(text).expect("the defaults are valid")
}

/// Files in PEM. They are read again whenever the cluster is connected to anew, so a renewed
/// certificate is used without a restart.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// Only these authorities are trusted; none means the built-in web roots.
    pub ca_file: Option<PathBuf>,
    /// Certificate chain and key, for mutual TLS.
    pub identity: Option<Identity>,
}

impl Tls {
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        let identity = self.identity.iter();
        let identity = identity.flat_map(|i| [i.cert_file.as_path(), i.key_file.as_path()]);
        self.ca_file.as_deref().into_iter().chain(identity)
    }
}

#[derive(Debug, Clone)]
pub struct Identity {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
}

/// How the node logs in. Files are read again like those of [`Tls`]; a trailing line break does not
/// count.
#[derive(Debug, Clone)]
pub enum Sasl {
    Password {
        mechanism: Mechanism,
        user: String,
        password_file: PathBuf,
    },
    /// OAUTHBEARER with a token that somebody else keeps fresh.
    TokenFile(PathBuf),
    /// OAUTHBEARER with tokens that this node asks for itself: the client credentials flow of
    /// OpenID Connect, over TLS with the same authorities as the brokers'.
    TokenEndpoint {
        url: String,
        client_id: String,
        client_secret_file: PathBuf,
        scope: Option<String>,
    },
}

impl Sasl {
    /// The file with what nobody else may know, and the key of `[kafka]` that names it.
    pub(crate) fn secret(&self) -> (&'static str, &Path) {
        match self {
            Self::Password { password_file, .. } => ("password_file", password_file),
            Self::TokenFile(file) => ("token_file", file),
            Self::TokenEndpoint {
                client_secret_file, ..
            } => ("client_secret_file", client_secret_file),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mechanism {
    Plain,
    ScramSha256,
    #[default]
    ScramSha512,
}

/// Bounds, each with a default that suits both a harbour network and a satellite.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most bytes in one transaction, and so in flight, per stream.
    pub transaction_bytes_max: usize,
    /// Least time between the beginnings of two transactions of a stream that do not fill up.
    /// A transaction costs about three round trips, so many small ones waste a link.
    pub transaction_interval: Duration,
    /// A broker that does not answer for so long counts as gone.
    pub request_timeout: Duration,
    pub connect_timeout: Duration,
    /// Waits between attempts: the first, and the longest.
    pub retry_delay_first: Duration,
    pub retry_delay_max: Duration,
    /// A stream that is held looks again so often whether it may go on.
    pub held_delay: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            transaction_bytes_max: 1024 * 1024,
            transaction_interval: Duration::from_millis(250),
            request_timeout: Duration::from_secs(20),
            connect_timeout: Duration::from_secs(10),
            retry_delay_first: Duration::from_millis(200),
            retry_delay_max: Duration::from_secs(5),
            held_delay: Duration::from_secs(30),
        }
    }
}

impl Config {
    /// A plain connection to `brokers` with everything else at its default.
    #[must_use]
    pub fn new(node: NodeName, brokers: Vec<String>) -> Self {
        Self {
            node,
            brokers,
            route: Route::default(),
            routes: BTreeMap::new(),
            positions: template("skerry.positions.{node}"),
            streams: None,
            delivery: Delivery::default(),
            create_topics: None,
            tls: None,
            sasl: None,
            limits: Limits::default(),
            links: Arc::new(Links::new(LinkClass::new(DEFAULT), Vec::new())),
            link_topic: None,
        }
    }

    /// How the records of `stream` leave.
    #[must_use]
    pub fn route_of(&self, stream: &StreamName) -> &Route {
        self.routes.get(stream).unwrap_or(&self.route)
    }

    /// Under which the cluster lets one producer at a time write `stream`.
    pub(crate) fn transactional_id(&self, stream: &StreamName) -> String {
        format!("skerry-{}-{}", self.node.as_str(), stream.as_str())
    }

    /// The topic of `stream`, or the template where its records go to many.
    pub(crate) fn shown_topic(&self, stream: &StreamName) -> String {
        let template = &self.route_of(stream).topic;
        match template.goes_by_source() {
            true => template.as_str().to_owned(),
            false => template.fill(&self.node, stream.as_str()),
        }
    }

    /// What only a look at the machine can tell: every problem with the key of `[kafka]` it is
    /// about, none when all is well.
    #[must_use]
    pub fn check(&self) -> Vec<(&'static str, String)> {
        let tls = self.tls.iter().flat_map(Tls::files);
        let files = tls.map(|file| ("tls", file));
        let files = files.chain(self.sasl.iter().map(Sasl::secret));
        let unreadable = |(key, file): (_, &Path)| {
            let error = std::fs::read(file).err()?;
            Some((key, format!("cannot read {}: {error}", file.display())))
        };
        let mut problems: Vec<_> = files.filter_map(unreadable).collect();
        if self.brokers.is_empty() {
            problems.push(("brokers", "names no broker".to_owned()));
        }
        let positions = self.positions.fill(&self.node, "");
        for route in self.routes.values().chain([&self.route]) {
            for (key, topic) in [
                ("topic", &route.topic),
                ("backfill_topic", &route.backfill_topic),
            ] {
                if !topic.goes_by_source() && topic.fill(&self.node, "") == positions {
                    let text = format!("`{positions}` is where this node keeps its positions");
                    problems.push((key, text));
                }
            }
        }
        if let (Some(sasl), None) = (&self.sasl, &self.tls) {
            let key = match sasl {
                Sasl::Password { .. } => "user",
                Sasl::TokenFile(_) => "token_file",
                Sasl::TokenEndpoint { .. } => "token_endpoint",
            };
            let text = "without `tls` would send the login in the clear; give `tls = {}` for a \
                        broker whose certificate a public authority signed";
            problems.push((key, text.to_owned()));
        }
        problems
    }
}

/// Letters, digits, `.`, `_` and `-`: what a Kafka topic's name may contain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeName(String);

impl NodeName {
    /// # Errors
    /// With a sentence that says what is wrong, when Kafka could not use the name.
    pub fn new(name: &str) -> Result<Self, InvalidName> {
        let room = TOPIC_BYTES_MAX / 2;
        if name.is_empty() || name.len() > room || !name.bytes().all(allowed_in_topic) {
            return Err(InvalidName(format!(
                "node name `{name}`: use 1 to {room} letters, digits, `.`, `_` or `-`"
            )));
        }
        Ok(Self(name.to_owned()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Says what is wrong with a name and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidName(String);

impl InvalidName {
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_a_name_that_kafka_takes() {
        assert!(NodeName::new("vessel-7").is_ok());
        assert!(NodeName::new("vessel 7").is_err());
        assert!(NodeName::new(&"x".repeat(200)).is_err());
    }

    #[test]
    fn check_names_every_problem() {
        let mut config = Config::new(NodeName::new("n").unwrap(), vec![]);
        config.sasl = Some(Sasl::Password {
            mechanism: Mechanism::Plain,
            user: "u".to_owned(),
            password_file: PathBuf::from("/does/not/exist"),
        });
        config.route.topic = TopicTemplate::new("skerry.positions.n").unwrap();
        let problems = config.check();
        for (key, part) in [
            ("topic", "keeps its positions"),
            ("brokers", "no broker"),
            ("password_file", "/does/not/exist"),
            ("user", "in the clear"),
        ] {
            let told = |(at, text): &(&str, String)| *at == key && text.contains(part);
            assert!(problems.iter().any(told), "{key}: {problems:?}");
        }
    }
}
