//! What a broker is told, and the limits it sets itself.

use crate::access::{AccessConfig, Limits};
use crate::listener::Listener;
use crate::topic::TopicFilter;
use skerry_store::StreamName;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::Duration;

/// Publishes of one connection that wait for their commit. Also the Receive Maximum announced to
/// version 5 clients: large enough that one fast publisher fills a group commit.
pub(crate) const UNCOMMITTED_MAX: u16 = 1024;
/// The same in bytes of payload, whatever the packets' size.
pub(crate) const UNCOMMITTED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Unacknowledged deliveries to a 3.1.1 client, which cannot say how many it takes. Mosquitto's
/// default is 20 as well, so clients are used to it.
pub(crate) const IN_FLIGHT_DEFAULT: u16 = 20;
/// Version 5 clients that name no Receive Maximum allow 65,535 (3.1.2.11.3); this node keeps less
/// in memory for each.
pub(crate) const IN_FLIGHT_MAX: u16 = 256;
/// Topic aliases a version 5 client may set on one connection.
pub(crate) const TOPIC_ALIAS_MAX: u16 = 10;
/// Bytes waiting to be written to one client before deliveries wait in its mailbox.
pub(crate) const OUTBOX_BYTES_MAX: usize = 64 * 1024;
/// Subscriptions of one session: bounds what a client can make the node remember.
pub(crate) const SUBSCRIPTIONS_MAX: usize = 1000;

/// Most that `packet_bytes_max` may allow: one append holds a publish twice if it is retained, as
/// record and as retained message.
pub const PACKET_BYTES_LIMIT: usize = 1024 * 1024;

const _: () = assert!(2 * PACKET_BYTES_LIMIT + 256 * 1024 <= skerry_store::APPEND_BYTES_MAX);

/// Everything a broker needs to know. Fields are public and all combinations work.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where clients connect; without any, nobody does.
    pub listeners: Vec<Listener>,
    /// Largest packet accepted, its header included; announced to version 5 clients. Taken as
    /// [`PACKET_BYTES_LIMIT`] where it is more.
    pub packet_bytes_max: usize,
    /// Connections beyond this are closed at once and counted.
    pub connections_max: usize,
    /// Which stream a topic is logged in: the first filter that matches decides.
    pub routes: Vec<(TopicFilter, StreamName)>,
    /// The stream of topics that no route matches.
    pub default_stream: StreamName,
    /// Streams whose messages of QoS 0 are delivered and not logged, retained ones apart.
    pub memory: Vec<StreamName>,
    /// Streams whose messages reach subscribers before the disk. Sessions that outlive their
    /// connection get them after it, as everything.
    pub immediate: Vec<StreamName>,
    /// Topics whose messages are logged with who published them.
    pub signed: Vec<String>,
    /// Derived streams that are published locally as `skerry/<stream>/<source>`.
    pub republish: Vec<StreamName>,
    /// Longest keep-alive in seconds: a version 5 client that asks for a longer one, or for none,
    /// is told to use this. 3.1.1 has no way to tell, so there the client's own holds.
    pub keep_alive_max: Option<NonZeroU16>,
    /// Who may connect and do what.
    pub access: AccessConfig,
    pub limits: Limits,
    /// Where refusals are recorded; without it they are only counted.
    pub audit: Option<StreamName>,
    /// A client that sent no CONNECT by then is closed.
    pub connect_timeout: Duration,
    /// A client that took no byte for this long while bytes were waiting is closed.
    pub write_timeout: Duration,
    /// How long a 3.1.1 client whose publish the log refuses is held before it is closed: it
    /// cannot be told, and closing at once would only make it reconnect at once.
    pub refused_hold: Duration,
    /// Longest time the session of an absent client is kept.
    pub session_expiry_max: Duration,
    /// Absent sessions kept at most.
    pub sessions_max: usize,
    /// Deliveries that may wait in memory for one session; beyond it the log has them.
    pub mailbox_messages_max: usize,
    pub mailbox_bytes_max: usize,
    /// Retained topics at most; beyond it a message is delivered but not retained, and counted.
    pub retained_max: usize,
}

impl Config {
    /// The defaults: plain TCP on `listen`, no routes, everything into `default_stream`.
    #[must_use]
    pub fn new(listen: SocketAddr, default_stream: StreamName) -> Self {
        Self::on(vec![Listener::tcp(listen)], default_stream)
    }

    /// The same with other listeners.
    #[must_use]
    pub const fn on(listeners: Vec<Listener>, default_stream: StreamName) -> Self {
        Self {
            listeners,
            packet_bytes_max: 256 * 1024,
            connections_max: 1000,
            routes: Vec::new(),
            default_stream,
            memory: Vec::new(),
            immediate: Vec::new(),
            signed: Vec::new(),
            republish: Vec::new(),
            keep_alive_max: None,
            access: AccessConfig::DEFAULT,
            limits: Limits::DEFAULT,
            audit: None,
            connect_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(20),
            refused_hold: Duration::from_secs(5),
            session_expiry_max: Duration::from_secs(30 * 24 * 3600),
            sessions_max: 10_000,
            mailbox_messages_max: 10_000,
            mailbox_bytes_max: 1024 * 1024,
            retained_max: 1_000_000,
        }
    }

    /// The stream that messages on `topic` are logged in.
    #[must_use]
    pub fn stream_of(&self, topic: &str) -> &StreamName {
        let route = self.routes.iter().find(|(filter, _)| filter.matches(topic));
        route.map_or(&self.default_stream, |(_, stream)| stream)
    }
}
