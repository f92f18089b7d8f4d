//! The MQTT broker whose acknowledgement means *on disk*.
//!
//! # Contract
//! - MQTT 3.1.1 and 5.0 on every listener, QoS 0, 1 and 2 in both directions. A listener is a TCP
//!   port or a Unix socket, with TLS 1.3 and 1.2, WebSocket, or both around MQTT.
//! - New certificate files are in use within seconds, and connections go on; files that cannot be
//!   used are told of, and the ones before stay.
//! - A connection's handshakes hold up nobody else, count as a connection, and have to end, CONNECT
//!   included, within `connect_timeout`.
//! - PUBACK and PUBREC are sent only after the group commit of the record returned; subscribers
//!   get a message after that too, in commit order per publisher.
//! - A QoS 2 publish of a lasting session is in the log once, across `kill -9` as well.
//! - What the log refuses is never acknowledged: version 5 clients get a reason code (0x97 full,
//!   0x83 otherwise, 0x87 not allowed), 3.1.1 clients are held without an answer and then closed.
//!   QoS 0 publishes that were refused become a gap record once the log takes records again.
//! - Retained messages survive a restart. Only an empty payload *with* the retain flag clears one.
//! - A slow subscriber loses live messages, counted and logged, and slows nobody else down. The
//!   log keeps what it lost.
//! - Clients cannot publish to `skerry/#` (derived streams appear there) nor `$SYS/#`.
//!
//! # What it is not, yet
//! Sessions live in memory: subscriptions and unacknowledged deliveries survive a reconnect, not a
//! restart (CONNACK then says so). No users, no shared subscriptions (announced and
//! refused), no will delay (a will is published at once), no outbound topic aliases.
//!
//! # Parts
//! ```text
//! accept      listeners, a connection's way in     broker      what all connections share
//! listener, socket, unix, tls, websocket           certificate, renewal, throttle
//! link        a connection's bytes                 codec       bytes ↔ packets
//! connection  one task per client, all its I/O    session     the protocol, pure
//! handshake   CONNECT → what was agreed, pure     outbound    outbound QoS, pure
//! uncommitted appends under way, in order         qos2        inbound QoS 2 ids
//! ingest      publish → append → subscribers      retained    retained messages
//! registry    seats and absent sessions           subscriptions, mailbox, backlog
//! fanout      rumqttd's router (only there)       republish, gaps
//! ```

mod accept;
mod access;
mod backlog;
mod broker;
mod certificate;
mod codec;
mod config;
mod connection;
mod end;
mod error;
mod fanout;
mod gaps;
mod handshake;
mod ingest;
mod link;
mod listener;
mod mailbox;
mod message;
mod outbound;
mod peer;
mod qos2;
mod registry;
mod renewal;
mod republish;
mod retained;
mod session;
mod socket;
mod status;
mod subscriptions;
mod throttle;
mod tls;
mod topic;
mod uncommitted;
mod unix;
mod websocket;

pub use broker::{Broker, run};
pub use certificate::Validity;
pub use config::{Config, PACKET_BYTES_LIMIT};
pub use error::Error;
pub use listener::{Address, Listener, UnixSocket, WebSocket};
pub use renewal::EXPIRES_SOON_DAYS;
pub use status::{CertificateSnapshot, ListenerSnapshot, Snapshot, Status};
pub use tls::{ClientCertificates, Setting, Tls, TlsError};
pub use topic::{FilterError, TopicFilter};
