//! What the uplink needs to know. Plain types that cannot be wrong; the node's config reader
//! fills them from `[kafka]`.

use skerry_store::StreamName;
use std::path::PathBuf;
use std::time::Duration;

/// Kafka's own limit on a topic's name.
const TOPIC_BYTES_MAX: usize = 249;

#[derive(Debug, Clone)]
pub struct Config {
    /// The node's name: in headers, in the transactional id and in the positions topic.
    pub node: NodeName,
    /// `host:port` of some of the cluster's brokers; the others are learned from them.
    pub brokers: Vec<String>,
    /// Where a stream's records go.
    pub topic: TopicTemplate,
    /// Where this node keeps its positions. The uplink creates the topic, compacted and with one
    /// partition, where it may; only `{node}` is replaced.
    pub positions: TopicTemplate,
    /// The streams to deliver; none means each that is not the node's own.
    pub streams: Option<Vec<StreamName>>,
    /// Let the cluster create a missing topic, where its own settings allow that.
    pub auto_create: bool,
    pub tls: Option<Tls>,
    pub sasl: Option<Sasl>,
    pub limits: Limits,
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

#[derive(Debug, Clone)]
pub struct Identity {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
}

#[derive(Debug, Clone)]
pub struct Sasl {
    pub mechanism: Mechanism,
    pub user: String,
    /// Read again like those of [`Tls`]; a trailing line break does not count.
    pub password_file: PathBuf,
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
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            transaction_bytes_max: 512 * 1024,
            transaction_interval: Duration::from_millis(250),
            request_timeout: Duration::from_secs(20),
            connect_timeout: Duration::from_secs(10),
            retry_delay_first: Duration::from_millis(200),
            retry_delay_max: Duration::from_secs(5),
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
            topic: TopicTemplate("skerry.{stream}".to_owned()),
            positions: TopicTemplate("skerry.positions.{node}".to_owned()),
            streams: None,
            auto_create: true,
            tls: None,
            sasl: None,
            limits: Limits::default(),
        }
    }

    /// What only a look at the machine can tell: every problem with the key of `[kafka]` it is
    /// about, none when all is well.
    #[must_use]
    pub fn check(&self) -> Vec<(&'static str, String)> {
        let tls = self.tls.iter().flat_map(|tls| {
            let identity = tls.identity.iter();
            let identity = identity.flat_map(|i| [&i.cert_file, &i.key_file]);
            tls.ca_file.iter().chain(identity)
        });
        let password = self.sasl.iter().map(|sasl| &sasl.password_file);
        let files = tls.map(|file| ("tls", file));
        let files = files.chain(password.map(|file| ("password_file", file)));
        let unreadable = |(key, file): (_, &PathBuf)| {
            let error = std::fs::read(file).err()?;
            Some((key, format!("cannot read {}: {error}", file.display())))
        };
        let mut problems: Vec<_> = files.filter_map(unreadable).collect();
        if self.brokers.is_empty() {
            problems.push(("brokers", "names no broker".to_owned()));
        }
        if self.sasl.is_some() && self.tls.is_none() {
            let text = "without `tls` would send the login in the clear; give `tls = {}` for a \
                        broker whose certificate a public authority signed";
            problems.push(("user", text.to_owned()));
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

/// A topic's name in which `{stream}` and `{node}` are replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicTemplate(String);

impl TopicTemplate {
    /// # Errors
    /// With a sentence that says what is wrong, when no stream could give a valid topic name.
    pub fn new(template: &str) -> Result<Self, InvalidName> {
        let filled = template.replace("{stream}", "s").replace("{node}", "n");
        if filled.is_empty() || filled == "." || filled == ".." || filled.len() > TOPIC_BYTES_MAX {
            return Err(InvalidName(format!(
                "topic `{template}`: Kafka allows 1 to {TOPIC_BYTES_MAX} characters, not `.` or `..`"
            )));
        }
        if let Some(other) = filled
            .chars()
            .find(|c| !c.is_ascii() || !allowed_in_topic(*c as u8))
        {
            return Err(InvalidName(format!(
                "topic `{template}`: `{other}` is not allowed; use letters, digits, `.`, `_`, `-` \
                 and the placeholders {{stream}} and {{node}}"
            )));
        }
        Ok(Self(template.to_owned()))
    }

    pub(crate) fn fill(&self, node: &NodeName, stream: &str) -> String {
        self.0
            .replace("{stream}", stream)
            .replace("{node}", node.as_str())
    }
}

/// Says what is wrong with a name and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidName(String);

fn allowed_in_topic(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_filled_and_refused() {
        let node = NodeName::new("vessel-7").unwrap();
        let template = TopicTemplate::new("fleet.{node}.{stream}").unwrap();
        assert_eq!(
            template.fill(&node, "telemetry"),
            "fleet.vessel-7.telemetry"
        );
        for bad in ["", ".", "a b", "plant/{stream}", "{topic}", "é"] {
            assert!(TopicTemplate::new(bad).is_err(), "{bad}");
        }
        assert!(NodeName::new("vessel 7").is_err());
        assert!(NodeName::new(&"x".repeat(200)).is_err());
    }

    #[test]
    fn check_names_every_problem() {
        let mut config = Config::new(NodeName::new("n").unwrap(), vec![]);
        config.sasl = Some(Sasl {
            mechanism: Mechanism::Plain,
            user: "u".to_owned(),
            password_file: PathBuf::from("/does/not/exist"),
        });
        let problems = config.check();
        for (key, part) in [
            ("brokers", "no broker"),
            ("password_file", "/does/not/exist"),
            ("user", "in the clear"),
        ] {
            let told = |(at, text): &(&str, String)| *at == key && text.contains(part);
            assert!(problems.iter().any(told), "{key}: {problems:?}");
        }
    }
}
