//! `[[stream]]`: which streams there are, what they may hold, and which topics go to them.

use super::reader::Table;
use super::uplink::RouteKeys;
use super::{MIB, units};
use bytesize::ByteSize;
use skerry_bridge::uplink::quarantine::QUARANTINE;
use skerry_broker::TopicFilter;
use skerry_store::{Codec, Durability, StreamName, StreamOptions, WhenFull};
use std::collections::BTreeMap;
use std::time::Duration;

/// A limit below this could not hold two segments of the smallest size.
const BYTES_LEAST: u64 = MIB;
const BYTES_MOST: u64 = 1 << 50;
const BYTES_DEFAULT: u64 = 1024 * MIB;

/// Age is looked at, and noted on the disk, sixteen times within it.
const AGE_LEAST: Duration = Duration::from_secs(60);
const AGE_MOST: Duration = units::YEAR.saturating_mul(100);

/// Below this an interval saves nothing over the group commit; above it, "on disk" means little.
const SYNC_INTERVAL_LEAST: Duration = Duration::from_millis(10);
const SYNC_INTERVAL_MOST: Duration = Duration::from_secs(60);
const SYNC_INTERVAL_DEFAULT: Duration = Duration::from_secs(1);

/// Where MQTT topics go that no stream asks for.
const DEFAULT: &str = "default";
/// Where refused MQTT clients are recorded.
const AUDIT: &str = "audit";
/// Where the node's own events go.
pub const NODE_EVENTS: &str = "node";

/// The streams of the configuration and those that always exist.
#[derive(Debug)]
pub struct Streams {
    options: BTreeMap<StreamName, StreamOptions>,
    routes: Vec<(TopicFilter, StreamName)>,
    /// `qos0 = "memory"`.
    memory: Vec<StreamName>,
    /// `deliver = "immediate"`.
    immediate: Vec<StreamName>,
    /// What `kafka = { … }` says of a stream's way to the cluster.
    north: BTreeMap<StreamName, RouteKeys>,
    /// What all of them may hold together.
    quota: Option<u64>,
}

impl Streams {
    pub fn read(
        root: &Table<'_>,
        quota: Option<u64>,
        leaves_the_site: bool,
        has_models: bool,
    ) -> Self {
        // Without a cluster nothing is ever confirmed, and a stream that blocks would end the
        // site's recording for good; then the oldest data makes room.
        let when_full = match leaves_the_site {
            true => WhenFull::Block,
            false => WhenFull::DropOldest,
        };
        let mut streams = Self {
            options: BTreeMap::new(),
            routes: Vec::new(),
            memory: Vec::new(),
            immediate: Vec::new(),
            north: BTreeMap::new(),
            quota,
        };
        streams.add_always(DEFAULT, BYTES_DEFAULT, when_full);
        streams.add_always(NODE_EVENTS, 16 * MIB, WhenFull::DropOldest);
        streams.add_always(AUDIT, 16 * MIB, WhenFull::DropOldest);
        if leaves_the_site {
            streams.add_always(QUARANTINE, 64 * MIB, WhenFull::DropOldest);
        }
        if has_models {
            streams.add_always("scores", 256 * MIB, when_full);
            streams.add_always("alerts", 64 * MIB, when_full);
        }
        let mut named = BTreeMap::new();
        for (index, table) in root.tables("stream").iter().enumerate() {
            let Some(stream) = streams.read_stream(table, when_full) else {
                continue;
            };
            if let Some(first) = named.insert(stream.clone(), index) {
                let message = format!("`{stream}` is already the name of stream[{first}]");
                table.problem("name", message);
            }
        }
        streams
    }

    fn add_always(&mut self, name: &str, bytes_max: u64, when_full: WhenFull) {
        let name = StreamName::new(name).expect("the names in this file are valid");
        let options = StreamOptions {
            when_full,
            ..StreamOptions::new(name.clone(), bytes_max)
        };
        self.options.insert(name, options);
    }

    fn read_stream(&mut self, table: &Table<'_>, when_full: WhenFull) -> Option<StreamName> {
        let name = table.required("name", |value| {
            let text = value.string()?;
            match text.starts_with('_') {
                true => Err(format!(
                    "`{text}`: a leading `_` is kept for the node's own streams"
                )),
                false => StreamName::new(text).map_err(|error| error.to_string()),
            }
        });
        let filters = table.optional("topics", |value| {
            value.list(|filter| TopicFilter::new(filter.string()?).map_err(|why| why.to_string()))
        });
        let bytes_max = table.optional("bytes_max", units::bytes(BYTES_LEAST..=BYTES_MOST));
        let reserve = table.optional("reserve_bytes", units::bytes(0..=BYTES_MOST));
        let age_max = table.optional("age_max", units::duration(AGE_LEAST..=AGE_MOST));
        let policy = table.optional(
            "when_full",
            units::word(&[
                ("block", WhenFull::Block),
                ("drop_oldest", WhenFull::DropOldest),
            ]),
        );
        let codec = table.optional(
            "codec",
            units::word(&[
                ("lz4", Codec::Lz4),
                ("zstd", Codec::Zstd),
                ("none", Codec::None),
            ]),
        );
        let durability = read_durability(table);
        let memory = table.optional("qos0", units::word(&[("log", false), ("memory", true)]));
        let immediate = table.optional(
            "deliver",
            units::word(&[("durable", false), ("immediate", true)]),
        );
        let north = table.table("kafka").map(|table| {
            let keys = RouteKeys::read(&table);
            table.finish();
            keys
        });
        table.finish();
        let kept = when_full == WhenFull::DropOldest && policy == Some(WhenFull::Block);
        if age_max.is_some() && kept {
            let message = "nothing confirms this stream without [kafka], and `block` gives up \
                 nothing that is not confirmed; leave one of the two out";
            table.problem("age_max", message);
        }
        let name = name?;
        if let Some(north) = north {
            self.north.insert(name.clone(), north);
        }
        let topics = filters.as_ref().is_some_and(|filters| !filters.is_empty());
        if topics && name.as_str() == QUARANTINE && self.options.contains_key(&name) {
            let message = "this stream has what the cluster refused, and nothing else goes to it";
            table.problem("topics", message);
        }
        if memory == Some(true) {
            self.memory.push(name.clone());
        }
        if immediate == Some(true) {
            self.immediate.push(name.clone());
        }
        for filter in filters.into_iter().flatten() {
            self.routes.push((filter, name.clone()));
        }
        let options = self
            .options
            .entry(name.clone())
            .or_insert_with(|| StreamOptions {
                when_full,
                ..StreamOptions::new(name.clone(), BYTES_DEFAULT)
            });
        options.bytes_max = bytes_max.unwrap_or(options.bytes_max);
        options.age_max = age_max;
        options.reserve_bytes = reserve.unwrap_or(0);
        if options.reserve_bytes > options.bytes_max {
            let most = ByteSize::b(options.bytes_max);
            table.problem(
                "reserve_bytes",
                format!("must be at most bytes_max, {most}"),
            );
        }
        if let Some(most) = self
            .quota
            .filter(|most| bytes_max.is_some_and(|max| max > *most))
        {
            let most = ByteSize::b(most);
            table.problem(
                "bytes_max",
                format!("is over store.bytes_max_total, {most}"),
            );
        }
        options.when_full = policy.unwrap_or(options.when_full);
        options.codec = codec.unwrap_or(options.codec);
        options.durability = durability;
        Some(name)
    }

    /// The stream called `name`, or a sentence that lists the ones there are.
    pub fn named(&self, name: &str) -> Result<StreamName, String> {
        let found = self.options.keys().find(|stream| stream.as_str() == name);
        found.cloned().ok_or_else(|| {
            let known: Vec<&str> = self.options.keys().map(StreamName::as_str).collect();
            format!(
                "there is no stream `{name}`; there are {}",
                known.join(", ")
            )
        })
    }

    pub fn default_stream(&self) -> StreamName {
        self.named(DEFAULT)
            .expect("the default stream always exists")
    }

    pub fn audit_stream(&self) -> StreamName {
        self.named(AUDIT).expect("the audit stream always exists")
    }

    /// What the streams keep for themselves, whatever the others take.
    pub fn reserves(&self) -> u64 {
        let streams = self.options.values();
        streams.map(|stream| stream.reserve_bytes).sum()
    }

    /// Those whose messages of QoS 0 are not logged.
    pub fn memory(&self) -> &[StreamName] {
        &self.memory
    }

    /// Those whose messages are delivered before the commit.
    pub fn immediate(&self) -> &[StreamName] {
        &self.immediate
    }

    /// The streams that go to the cluster in a way of their own.
    pub fn routes_north(&self) -> impl Iterator<Item = (&StreamName, &RouteKeys)> {
        self.north.iter()
    }

    pub fn routes(&self) -> &[(TopicFilter, StreamName)] {
        &self.routes
    }

    /// Where a PUBLISH to `topic` goes.
    pub fn of_topic(&self, topic: &str) -> StreamName {
        let route = self.routes.iter().find(|(filter, _)| filter.matches(topic));
        route.map_or_else(|| self.default_stream(), |(_, stream)| stream.clone())
    }

    /// The options for the log. `readers_of` names the cursors that must have passed a record
    /// before its space may be taken back.
    pub fn into_options(
        self,
        readers_of: impl Fn(&StreamName) -> Vec<String>,
    ) -> Vec<StreamOptions> {
        let options = self.options.into_values();
        options
            .map(|stream| StreamOptions {
                readers: readers_of(&stream.name),
                ..stream
            })
            .collect()
    }
}

/// When a stream's records are acknowledged: `sync`, or `interval` and how long one lasts.
fn read_durability(table: &Table<'_>) -> Durability {
    let word = table.optional(
        "durability",
        units::word(&[("sync", false), ("interval", true)]),
    );
    let lengths = units::duration(SYNC_INTERVAL_LEAST..=SYNC_INTERVAL_MOST);
    let interval = table.optional("sync_interval", lengths);
    if word == Some(true) {
        return Durability::Interval(interval.unwrap_or(SYNC_INTERVAL_DEFAULT));
    }
    if interval.is_some() {
        let message = "only means something together with durability = \"interval\"";
        table.problem("sync_interval", message);
    }
    Durability::Sync
}
