//! The node's configuration: one TOML file, read into the parts' own types, every problem
//! reported at once with its line and key.

mod access;
mod encryption;
mod link;
mod listeners;
#[cfg_attr(not(feature = "inference"), path = "models/absent.rs")]
mod models;
#[cfg(any(feature = "opcua", feature = "inference"))]
mod number;
#[cfg_attr(not(feature = "opcua"), path = "opcua/absent.rs")]
mod opcua;
mod reader;
mod streams;
mod units;
mod uplink;

use crate::component::{self, Component};
use reader::{Remark, Source, Table};
use skerry_bridge::uplink as kafka;
use skerry_store::StreamName;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;
use streams::Streams;

pub use access::users_file;
pub use models::Models;
pub use opcua::Servers;
pub use reader::{Problem, Report, Severity};
pub use streams::NODE_EVENTS;

pub const DATA_DIR_DEFAULT: &str = "/var/lib/skerry";
pub const HTTP_LISTEN_DEFAULT: &str = "127.0.0.1:9810";

const MIB: u64 = 1024 * 1024;
const QUOTA_LEAST: u64 = 16 * MIB;
const QUOTA_MOST: u64 = 1 << 50;
const SEGMENT_BYTES_DEFAULT: u64 = 16 * MIB;
/// What `keep_alive_max` may be: MQTT counts seconds in 16 bits.
const KEEP_ALIVE_MAX: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(u16::MAX as u64);
/// MQTT's own limit on a packet (3.1.1, 2.2.3).
const PACKET_BYTES_MOST: u64 = 268_435_455;
/// What one node can be asked to remember: both are kept in memory as well as on disk.
const SESSIONS_MOST: usize = 1_000_000;
const RETAINED_MOST: usize = 10_000_000;
/// The longest a version 5 client can ask for, but for "never" (3.1.2.11.2).
const SESSION_EXPIRY_MOST: Duration = Duration::from_secs(u32::MAX as u64 - 1);

/// A configuration that was read without a problem.
#[derive(Debug)]
pub struct Config {
    pub node_name: String,
    pub http_listen: SocketAddr,
    pub store: skerry_store::Options,
    pub mqtt: Option<skerry_broker::Config>,
    pub opcua: Servers,
    pub models: Models,
    pub uplink: Option<skerry_bridge::uplink::Config>,
    /// What `skerry check` tells besides.
    pub remarks: Vec<Remark>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "cannot read the config file {}: {source}; name one, or start from configs/skerry.toml",
        path.display()
    )]
    Unreadable {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{0}")]
    Problems(#[from] Report),
}

impl Config {
    /// Reads `path`.
    ///
    /// # Errors
    /// When the file cannot be read, or with the list of all its problems.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(path, &text)
    }

    /// What the file amounts to, for a person who has just checked it: the streams, what comes
    /// in, what is computed, where it goes, and the most disk and memory it may take.
    pub fn summary(&self, path: &Path) -> String {
        let mut lines = vec![format!("{} is in order.", path.display())];
        let streams = &self.store.streams;
        let all: u64 = streams.iter().map(|stream| stream.bytes_max).sum();
        let total = self
            .store
            .bytes_max_total
            .map_or(all, |quota| quota.min(all));
        lines.push(format!(
            "  streams  {}; at most {} in {}",
            join(streams.iter().map(|stream| stream.name.as_str())),
            bytesize::ByteSize::b(total),
            self.store.directory.display(),
        ));
        if let Some(key) = self.store.keys.as_ref().map(|keys| keys.ids()[0]) {
            lines.push(format!("  key      the log is encrypted with {key}"));
        }
        if let Some(mqtt) = &self.mqtt {
            let listeners = mqtt.listeners.iter().map(|it| match it.transport() {
                "tcp" => it.address.to_string(),
                transport => format!("{} ({transport})", it.address),
            });
            let listeners: Vec<_> = listeners.collect();
            lines.push(format!("  mqtt     listens on {}", listeners.join(", ")));
        }
        lines.extend(opcua::summary(&self.opcua, self.mqtt.as_ref()));
        lines.extend(models::summary(&self.models));
        match &self.uplink {
            Some(kafka) => lines.push(format!("  kafka    {}", kafka.brokers.join(", "))),
            None => lines.push("  kafka    none: nothing leaves the site".to_owned()),
        }
        lines.push(format!("  http     listens on {}", self.http_listen));
        lines.join("\n")
    }

    /// What is right, but hardly meant.
    pub fn warnings(&self) -> Vec<String> {
        let reach = self.mqtt.iter().filter_map(access::warning);
        reach
            .chain(opcua::warning(&self.opcua, self.mqtt.as_ref()))
            .collect()
    }

    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        let base = path.parent().unwrap_or_else(|| Path::new(""));
        let source = Source::new(path, text);
        let mut config = source.read(|root| read_root(root, base));
        if let Some(config) = &mut config {
            config.remarks = source.take_remarks();
        }
        match (config, source.into_report()) {
            (Some(config), None) => Ok(config),
            (_, report) => Err(report.expect("a missing value is always noted").into()),
        }
    }
}

fn read_root(root: &Table<'_>, base: &Path) -> Option<Config> {
    let node = read_node(root, base);
    let http_listen = read_http(root);
    let store = read_store(root, base);
    refuse_left_out(root, &component::ALL);
    let kafka = root.table("kafka");
    let streams = Streams::read(
        root,
        store.bytes_max_total,
        kafka.is_some(),
        root.has("model"),
    );
    check_reserves(root, &store, &streams);
    let data_dir = node.as_ref().map(|node| node.data_dir.clone());
    let opcua = opcua::read(root, base, data_dir.as_deref(), &streams);
    let models = models::read(root, base, data_dir.as_deref(), &streams, &|node| {
        opcua::stream_of_node(opcua.as_ref(), node)
    });
    let mut mqtt = read_mqtt(root, base, &streams, models.as_ref());
    if let (Some(mqtt), Some(servers)) = (&mut mqtt, &opcua) {
        mqtt.signed = opcua::command_topics(servers);
    }
    let uplink = match &kafka {
        // Read even where the node has no valid name yet, for the sake of its own problems.
        Some(table) => {
            let name = node.as_ref().map_or("unnamed", |node| &node.name);
            Some(uplink::read(table, base, name, &streams))
        }
        None => None,
    };
    let (node, opcua, models) = (node?, opcua?, models?);
    let uplink = match uplink {
        Some(read) => Some(read?),
        None => None,
    };
    let options = streams.into_options(|stream| readers_of(stream, uplink.as_ref()));
    Some(Config {
        node_name: node.name,
        http_listen: http_listen?,
        store: skerry_store::Options {
            directory: node.data_dir,
            streams: options,
            allow_volatile: node.allow_volatile,
            ..store
        },
        mqtt,
        opcua,
        models,
        uplink,
        remarks: Vec::new(),
    })
}

/// Refuses what the file asks of components that this binary was built without: passed over, a site
/// would believe it done.
fn refuse_left_out(root: &Table<'_>, components: &[Component]) {
    for component in components.iter().filter(|it| !it.is_in) {
        if let Some(section) = component.section.filter(|section| root.has(section)) {
            let lack = component.lack();
            root.problem(section, format!("{lack}, or take the section out"));
        }
    }
}

/// Only the cluster's confirmation frees space, or an operator's decision. A model or a local subscriber that lags must not
/// be able to fill the disk; what it misses it is told.
fn readers_of(stream: &StreamName, uplink: Option<&kafka::Config>) -> Vec<String> {
    let is_quarantine = stream.as_str() == kafka::quarantine::QUARANTINE;
    let delivered = uplink.is_some_and(|uplink| match &uplink.streams {
        Some(chosen) => chosen.contains(stream),
        None => !is_quarantine,
    });
    let cluster = delivered.then_some(kafka::CURSOR);
    // What somebody has decided on goes first.
    let operator = (is_quarantine && uplink.is_some()).then_some(kafka::quarantine::SETTLED);
    [cluster, operator]
        .into_iter()
        .flatten()
        .map(str::to_owned)
        .collect()
}

struct Node {
    name: String,
    data_dir: PathBuf,
    allow_volatile: bool,
}

fn read_node(root: &Table<'_>, base: &Path) -> Option<Node> {
    let Some(table) = root.table("node") else {
        root.problem("node", "is missing; write [node] and below it name = \"…\"");
        return None;
    };
    let name = table.required("name", |value| {
        let name = units::text(value)?;
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
        match name.len() <= 64 && name.chars().all(fits) {
            true => Ok(name),
            false => Err(format!(
                "`{name}` must be at most 64 of a-z, 0-9, `.`, `_` and `-`"
            )),
        }
    });
    let data_dir = table.optional("data_dir", units::path_from(base));
    let allow_volatile = table.optional("allow_volatile", units::flag);
    table.finish();
    Some(Node {
        name: name?,
        data_dir: data_dir.unwrap_or_else(|| DATA_DIR_DEFAULT.into()),
        allow_volatile: allow_volatile.unwrap_or(false),
    })
}

fn read_http(root: &Table<'_>) -> Option<SocketAddr> {
    let table = root.table("http");
    let listen = table.as_ref().and_then(|table| {
        let listen = table.optional("listen", units::listen);
        table.finish();
        listen
    });
    listen.or_else(|| HTTP_LISTEN_DEFAULT.parse().ok())
}

/// The options of the log that are not about its streams.
fn read_store(root: &Table<'_>, base: &Path) -> skerry_store::Options {
    let mut store = skerry_store::Options::new("");
    store.segment_bytes = SEGMENT_BYTES_DEFAULT;
    if let Some(table) = root.table("store") {
        let sizes = units::bytes(64 * 1024..=1024 * MIB);
        if let Some(segment) = table.optional("segment", sizes) {
            store.segment_bytes = segment;
        }
        let delays = units::duration(Duration::ZERO..=Duration::from_secs(1));
        if let Some(delay) = table.optional("commit_delay_max", delays) {
            store.commit_delay_max = delay;
        }
        let intervals = units::duration(Duration::ZERO..=Duration::from_secs(10));
        if let Some(interval) = table.optional("commit_interval_min", intervals) {
            store.commit_interval_min = interval;
        }
        let quotas = units::bytes(QUOTA_LEAST..=QUOTA_MOST);
        store.bytes_max_total = table.optional("bytes_max_total", quotas);
        store.keys = encryption::read(&table, base);
        table.finish();
    }
    store
}

/// What is reserved leaves at least half of the quota to be shared.
fn check_reserves(root: &Table<'_>, store: &skerry_store::Options, streams: &Streams) {
    let reserved = streams.reserves() + store.journal_reserve_bytes;
    if let Some(quota) = store.bytes_max_total
        && reserved > quota / 2
        && let Some(table) = root.table("store")
    {
        let message = format!(
            "the streams' reserve_bytes, with {} for the log's own notes, add up to {}: over half \
             of it",
            bytesize::ByteSize::b(store.journal_reserve_bytes),
            bytesize::ByteSize::b(reserved),
        );
        table.problem("bytes_max_total", message);
    }
}

fn read_mqtt(
    root: &Table<'_>,
    base: &Path,
    streams: &Streams,
    models: Option<&Models>,
) -> Option<skerry_broker::Config> {
    let table = root.table("mqtt")?;
    let listeners = listeners::read(&table, base);
    let packet_bytes = table.optional("packet_bytes_max", units::bytes(1024..=PACKET_BYTES_MOST));
    let connections = table.optional("connections_max", units::count(1..=100_000));
    let keep_alive = table.optional("keep_alive_max", units::duration(KEEP_ALIVE_MAX));
    let sessions = table.optional("sessions_max", units::count(1..=SESSIONS_MOST));
    let expiry = table.optional(
        "session_expiry_max",
        units::duration(Duration::ZERO..=SESSION_EXPIRY_MOST),
    );
    let retained = table.optional("retained_max", units::count(0..=RETAINED_MOST));
    let republish = table
        .optional("republish", |value| {
            value.list(|name| streams.named(name.string()?))
        })
        .unwrap_or_else(|| models.map(models::outputs).unwrap_or_default());
    let mut config = skerry_broker::Config::on(listeners, streams.default_stream());
    access::read(&table, base, &mut config);
    table.finish();
    config.audit = Some(streams.audit_stream());
    config.routes = streams.routes().to_vec();
    config.memory = streams.memory().to_vec();
    config.immediate = streams.immediate().to_vec();
    config.republish = republish;
    if let Some(bytes) = packet_bytes {
        config.packet_bytes_max = usize::try_from(bytes).unwrap_or(usize::MAX);
    }
    config.keep_alive_max = keep_alive.and_then(whole_seconds);
    if let Some(connections) = connections {
        config.connections_max = connections;
    }
    if let Some(sessions) = sessions {
        config.sessions_max = sessions;
    }
    if let Some(expiry) = expiry {
        config.session_expiry_max = expiry;
    }
    if let Some(retained) = retained {
        config.retained_max = retained;
    }
    Some(config)
}

/// A keep-alive as MQTT has it.
fn whole_seconds(keep_alive: Duration) -> Option<NonZeroU16> {
    NonZeroU16::new(u16::try_from(keep_alive.as_secs()).ok()?)
}

fn join<'t>(words: impl Iterator<Item = &'t str>) -> String {
    words.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
