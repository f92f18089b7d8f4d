//! The MQTT broker whose acknowledgement means *on disk*.
//!
//! # Contract
//! - MQTT 3.1.1 (with it 3.1) and 5.0 on one TCP port, QoS 0, 1 and 2 in both directions.
//! - Strict where the standard is: what is malformed ends its connection, and version 5 clients
//!   are told the reason in a code and, where they want it and it fits, in words.
//! - PUBACK and PUBREC are sent only after the group commit of the record returned; subscribers
//!   get a message after that too, in commit order per publisher.
//! - A QoS 2 publish of a lasting session is in the log once, across `kill -9` as well.
//! - What the log refuses is never acknowledged: version 5 clients get a reason code (0x97 full,
//!   0x83 otherwise, 0x87 not allowed), 3.1.1 clients are held without an answer and then closed.
//!   QoS 0 publishes that were refused become a gap record once the log takes records again.
//! - Retained messages survive a restart. Only an empty payload *with* the retain flag clears one.
//! - A slow subscriber loses live messages, counted and logged, and slows nobody else down. The
//!   log keeps what it lost.
//! - Clients cannot publish to `skerry/#` (derived streams appear there), nor to `$SYS/#`,
//!   `$CONTROL/#` and `$share/#`. A payload that says it is text and is not UTF-8 is refused (0x99).
//!
//! # What it is not, yet
//! Sessions live in memory: subscriptions and unacknowledged deliveries survive a reconnect, not a
//! restart (CONNACK then says so). No users, no TLS, no shared subscriptions (announced and
//! refused), no will delay (it is read, and a will is published at once).
//!
//! # Parts
//! ```text
//! broker      bind, accept, shared tasks          codec       bytes ↔ packets
//! connection  one task per client, all its I/O    session     the protocol, pure
//! handshake   CONNECT → what was agreed, pure     outbound    outbound QoS, pure
//! uncommitted appends under way, in order         qos2        inbound QoS 2 ids
//! ingest      publish → append → subscribers      retained    retained messages
//! registry    seats and absent sessions           subscriptions, mailbox, backlog
//! fanout      rumqttd's router (only there)       republish, gaps
//! aliases     topic aliases towards a client      fuzzing (tests only)
//! ```

mod access;
mod aliases;
mod backlog;
mod broker;
mod codec;
mod config;
mod connection;
mod end;
mod error;
mod fanout;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod gaps;
mod handshake;
mod ingest;
mod link;
mod mailbox;
mod message;
mod outbound;
mod peer;
mod qos2;
mod registry;
mod republish;
mod retained;
mod session;
mod status;
mod subscriptions;
mod topic;
mod uncommitted;

pub use broker::{Broker, run};
pub use config::{Config, PACKET_BYTES_LIMIT};
pub use error::Error;
pub use status::{Snapshot, Status};
pub use topic::{FilterError, TopicFilter};
