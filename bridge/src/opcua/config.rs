//! What one endpoint is asked for, and the limits everything else is derived from.

use super::address::{EndpointUrl, NodeAddress};
use super::commands::Commands;
use super::events::EventSource;
use super::folder::{BROWSE_INTERVAL, Folder};
use super::groups::{Group, GroupId};
use super::history::History;
use super::profile::Profile;
use super::user::User;
use super::wire::ReverseConnect;
use skerry_store::StreamName;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// [`Config::publishing_interval`] where nobody says otherwise.
pub const PUBLISHING_INTERVAL: Duration = Duration::from_millis(500);
/// [`Config::outage_budget`] where nobody says otherwise.
pub const OUTAGE_BUDGET: Duration = Duration::from_secs(600);
/// A subscription must outlive the session that made it.
pub const OUTAGE_BUDGET_MIN: Duration = Duration::from_secs(90);

/// [`Config::history_hold`]: the server's queues take much more, and next to an outage it is not
/// noticed.
const HISTORY_HOLD: Duration = Duration::from_secs(10);
/// Values a server is asked to keep for one node, at most. A PLC grants less and says so.
const QUEUE_VALUES_MAX: u32 = 10_000;

/// One OPC-UA server and what to read from it.
#[derive(Debug, Clone)]
pub struct Config {
    /// Names the endpoint in status, gap records and the catalog.
    pub name: String,
    pub endpoint: EndpointUrl,
    /// Other servers for the same plant, tried one after another while this one is away.
    pub standby: Vec<EndpointUrl>,
    /// Where the server connects to us, in place of us to it. Not together with `standby`.
    pub reverse: Option<ReverseConnect>,
    /// Stream of the log that the values go to.
    pub stream: StreamName,
    pub security: Security,
    /// Anonymous where absent.
    pub user: Option<User>,
    /// What the server is known to take; it has the last word itself.
    pub profile: Profile,
    /// Of everything that is in no group.
    pub publishing_interval: Duration,
    /// Other paces, for those who name them; at most [`super::GROUPS_MAX`].
    pub groups: Vec<Group>,
    /// How long an outage may last without loss on a server that grants what it is asked: the one
    /// figure that sampling queues and the subscriptions' lifetimes are derived from. Longer than
    /// [`OUTAGE_BUDGET_MIN`].
    pub outage_budget: Duration,
    pub nodes: Vec<Node>,
    /// Whose events are taken in.
    pub events: Vec<EventSource>,
    pub history: History,
    /// How long values of a new subscription may wait for older ones from the server's history.
    pub history_hold: Duration,
    /// What MQTT clients may have done at the server; absent: nothing.
    pub commands: Option<Commands>,
    /// Followed as they are at the server: their variables join `nodes` while it runs.
    pub folders: Vec<Folder>,
    /// How often the server is asked anew where paths lead and what is in folders.
    pub browse_interval: Duration,
    /// Own certificate and key, and the pinned certificates of servers: `DATA_DIR/pki`.
    pub pki_directory: PathBuf,
}

/// A variable to subscribe to.
#[derive(Debug, Clone)]
pub struct Node {
    /// Source of its records, hence its key in the cluster.
    pub name: String,
    pub id: NodeAddress,
    pub sampling: Duration,
    /// Values that the server is asked to keep; none leaves it to the outage budget.
    pub queue: Option<u32>,
    /// Changes smaller than this are none.
    pub deadband: Option<Deadband>,
    /// Whose pace it is reported at, if not the endpoint's.
    pub group: Option<GroupId>,
}

/// A finite number of at least 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Deadband {
    /// In the value's own unit (Part 4, 7.22.2).
    Absolute(f64),
    /// Percent of the node's `EURange`, 0 to 100 (Part 8, 6.2); a server without it refuses.
    Percent(f64),
}

/// What the channel must offer. Exactly this is used; a server that does not offer it is
/// refused, never met half-way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    None,
    Sign(Policy),
    SignAndEncrypt(Policy),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    Basic256Sha256,
    Aes128Sha256RsaOaep,
    Aes256Sha256RsaPss,
    /// Deprecated, for servers that have nothing else: SHA-1, and padding of RSA that leaks.
    Basic128Rsa15,
    /// Deprecated: SHA-1.
    Basic256,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecurityError {
    #[error(
        "security_policy `{0}` is not known: use None, Basic256Sha256, Aes128_Sha256_RsaOaep or \
         Aes256_Sha256_RsaPss; for old servers there are Basic256 and Basic128Rsa15"
    )]
    Policy(String),
    #[error("security_mode `{0}` is not known: use None, Sign or SignAndEncrypt")]
    Mode(String),
    #[error(
        "security_policy `{policy}` and security_mode `{mode}` do not go together: both are None, or neither is"
    )]
    Mismatch { policy: String, mode: String },
}

impl Security {
    /// From the two words of the configuration.
    ///
    /// # Errors
    /// On an unknown word, and where only one of the two is `None`.
    pub fn new(policy: &str, mode: &str) -> Result<Self, SecurityError> {
        let parsed = match policy {
            "None" => None,
            named => Some(named.parse::<Policy>()?),
        };
        match (parsed, mode) {
            (None, "None") => Ok(Self::None),
            (Some(policy), "Sign") => Ok(Self::Sign(policy)),
            (Some(policy), "SignAndEncrypt") => Ok(Self::SignAndEncrypt(policy)),
            (_, "None" | "Sign" | "SignAndEncrypt") => Err(SecurityError::Mismatch {
                policy: policy.to_owned(),
                mode: mode.to_owned(),
            }),
            (_, unknown) => Err(SecurityError::Mode(unknown.to_owned())),
        }
    }

    #[must_use]
    pub const fn policy(self) -> Option<Policy> {
        match self {
            Self::None => None,
            Self::Sign(policy) | Self::SignAndEncrypt(policy) => Some(policy),
        }
    }
}

impl fmt::Display for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Sign(policy) => write!(f, "{policy}/Sign"),
            Self::SignAndEncrypt(policy) => write!(f, "{policy}/SignAndEncrypt"),
        }
    }
}

impl Policy {
    const ALL: [Self; 5] = [
        Self::Basic256Sha256,
        Self::Aes128Sha256RsaOaep,
        Self::Aes256Sha256RsaPss,
        Self::Basic128Rsa15,
        Self::Basic256,
    ];

    /// Given up by the OPC Foundation in 1.04 for what it is built on; used when spelled out, and
    /// never for anything else.
    #[must_use]
    pub const fn is_deprecated(self) -> bool {
        matches!(self, Self::Basic128Rsa15 | Self::Basic256)
    }

    /// The word used in configurations and at the end of the policy's URI (Part 7, 6.6.161).
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Basic256Sha256 => "Basic256Sha256",
            Self::Aes128Sha256RsaOaep => "Aes128_Sha256_RsaOaep",
            Self::Aes256Sha256RsaPss => "Aes256_Sha256_RsaPss",
            Self::Basic128Rsa15 => "Basic128Rsa15",
            Self::Basic256 => "Basic256",
        }
    }
}

impl FromStr for Policy {
    type Err = SecurityError;

    fn from_str(word: &str) -> Result<Self, SecurityError> {
        Self::ALL
            .into_iter()
            .find(|policy| policy.word() == word)
            .ok_or_else(|| SecurityError::Policy(word.to_owned()))
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Node {
    /// Every change, and as many values kept as the outage budget takes.
    #[must_use]
    pub fn new(name: impl Into<String>, id: NodeAddress, sampling: Duration) -> Self {
        Self {
            name: name.into(),
            id,
            sampling,
            queue: None,
            deadband: None,
            group: None,
        }
    }

    /// Tells it from others in the catalog, whatever its number is today.
    pub(crate) fn key(&self) -> u64 {
        let mut hash = Fnv::default();
        hash.text(&self.name);
        hash.text(&self.id.to_string());
        hash.0
    }

    /// Values the server is asked to keep for this node while nobody collects them: what it
    /// samples within the outage budget, unless the node says otherwise.
    #[must_use]
    pub(crate) fn queue_values(&self, outage_budget: Duration) -> u32 {
        let sampled = outage_budget.as_millis() / self.sampling.as_millis().max(1);
        let derived = u32::try_from(sampled)
            .unwrap_or(QUEUE_VALUES_MAX)
            .clamp(2, QUEUE_VALUES_MAX);
        self.queue.unwrap_or(derived)
    }
}

impl Config {
    /// An endpoint without security, login and nodes.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        endpoint: EndpointUrl,
        stream: StreamName,
        pki_directory: PathBuf,
    ) -> Self {
        Self {
            name: name.into(),
            endpoint,
            standby: Vec::new(),
            reverse: None,
            stream,
            security: Security::None,
            user: None,
            profile: Profile::Generic,
            publishing_interval: PUBLISHING_INTERVAL,
            groups: Vec::new(),
            outage_budget: OUTAGE_BUDGET,
            nodes: Vec::new(),
            events: Vec::new(),
            history: History::default(),
            history_hold: HISTORY_HOLD,
            commands: None,
            folders: Vec::new(),
            browse_interval: BROWSE_INTERVAL,
            pki_directory,
        }
    }

    /// Changes when what is asked of the server changes: a subscription made under another
    /// fingerprint numbers its nodes differently and cannot be carried on.
    #[must_use]
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut hash = Fnv::default();
        hash.text(self.endpoint.as_str());
        hash.text(&self.publishing_interval.as_nanos().to_string());
        for node in &self.nodes {
            hash.text(&node.name);
            hash.text(&node.id.to_string());
            hash.text(&node.sampling.as_nanos().to_string());
            // What was subscribed to before these words were known is asked for no differently.
            if let Some(queue) = node.queue {
                hash.text(&format!("queue {queue}"));
            }
            if let Some(deadband) = node.deadband {
                hash.text(&format!("{deadband:?}"));
            }
            self.hash_group(&mut hash, node.group);
        }
        for source in &self.events {
            hash.text(&source.text());
            self.hash_group(&mut hash, source.group);
        }
        if self.outage_budget != OUTAGE_BUDGET {
            hash.text(&format!("budget {}", self.outage_budget.as_nanos()));
        }
        hash.0
    }

    fn hash_group(&self, hash: &mut Fnv, group: Option<GroupId>) {
        if let Some(group) = self.group(group) {
            hash.text(&format!("{group:?}"));
        }
    }
}

/// FNV-1a: the standard library's hashers may change between releases, and this value is kept
/// on disk across them.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn text(&mut self, text: &str) {
        for byte in text.bytes().chain([0]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// As version 0.1 had them.
    const FP_NODES: u64 = 0x485a_9de8_f7c9_d3de;
    const FP_EVENTS: u64 = 0x4a34_72b8_e5bd_ffe8;

    pub(crate) fn config() -> Config {
        let endpoint = "opc.tcp://plc:4840".parse().unwrap();
        let stream = StreamName::new("machines").unwrap();
        let mut config = Config::new("plc", endpoint, stream, PathBuf::new());
        let id = "ns=2;s=Speed".parse().unwrap();
        config.nodes = vec![Node::new("speed", id, PUBLISHING_INTERVAL)];
        config
    }

    #[test]
    fn security_words_go_together_or_are_refused() {
        assert_eq!(Security::new("None", "None"), Ok(Security::None));
        assert_eq!(
            Security::new("Aes128_Sha256_RsaOaep", "Sign"),
            Ok(Security::Sign(Policy::Aes128Sha256RsaOaep))
        );
        assert!(matches!(
            Security::new("None", "Sign"),
            Err(SecurityError::Mismatch { .. })
        ));
        assert!(matches!(
            Security::new("Basic256Sha256", "None"),
            Err(SecurityError::Mismatch { .. })
        ));
        assert!(matches!(
            Security::new("Basic512", "Sign"),
            Err(SecurityError::Policy(_))
        ));
        assert!(matches!(
            Security::new("Basic256", "None"),
            Err(SecurityError::Mismatch { .. })
        ));
        assert!(matches!(
            Security::new("None", "sign"),
            Err(SecurityError::Mode(_))
        ));
    }

    #[test]
    fn queues_cover_the_outage_budget() {
        let node = |sampling| {
            let id = "i=1".parse().unwrap();
            Node::new("n", id, Duration::from_millis(sampling))
        };
        assert_eq!(node(250).queue_values(OUTAGE_BUDGET), 2400);
        assert_eq!(node(250).queue_values(OUTAGE_BUDGET * 2), 4800);
        assert_eq!(node(0).queue_values(OUTAGE_BUDGET), QUEUE_VALUES_MAX);
        assert_eq!(node(3_600_000).queue_values(OUTAGE_BUDGET), 2);
        let own = Node {
            queue: Some(7),
            ..node(250)
        };
        assert_eq!(own.queue_values(OUTAGE_BUDGET), 7);
    }

    /// Subscriptions that earlier versions made are carried on.
    #[test]
    fn the_fingerprint_is_as_it_ever_was_where_there_is_no_group() {
        let mut config = config();
        assert_eq!(config.fingerprint(), FP_NODES);
        config.events = vec![EventSource::new("alarms", None)];
        assert_eq!(config.fingerprint(), FP_EVENTS);
        config.groups = vec![Group {
            name: "fast".to_owned(),
            publishing_interval: Duration::from_millis(100),
            priority: 0,
        }];
        assert_eq!(config.fingerprint(), FP_EVENTS, "nothing is in it");
        config.nodes[0].group = GroupId::new(0);
        let grouped = config.fingerprint();
        assert_ne!(grouped, FP_EVENTS);
        config.groups[0].priority = 1;
        assert_ne!(config.fingerprint(), grouped);
    }
}
