//! The MQTT broker whose acknowledgement means *on disk*.
//!
//! # Contract
//! - MQTT 3.1.1 (with it 3.1) and 5.0 on every listener, QoS 0, 1 and 2 in both directions. A listener is a TCP
//!   port or a Unix socket, with TLS 1.3 and 1.2, WebSocket, or both around MQTT.
//! - New certificate files are in use within seconds, and connections go on; files that cannot be
//!   used are told of, and the ones before stay.
//! - A connection's handshakes hold up nobody else, count as a connection, and have to end, CONNECT
//!   included, within `connect_timeout`.
//! - Strict where the standard is: what is malformed ends its connection, and version 5 clients
//!   are told the reason in a code and, where they want it and it fits, in words.
//! - PUBACK and PUBREC are sent only after the group commit of the record returned; subscribers
//!   get a message after that too, in the order of the log.
//! - A QoS 2 publish of a lasting session is in the log once, across `kill -9` as well.
//! - What the log refuses is never acknowledged: version 5 clients get a reason code (0x97 full,
//!   0x83 otherwise, 0x87 not allowed), 3.1.1 clients are held without an answer and then closed.
//!   QoS 0 publishes that were refused become a gap record once the log takes records again.
//! - Sessions survive a restart: subscriptions, what is in flight, and the queue, which is a
//!   cursor into the log. A client that comes back gets what it missed, in order per topic. What
//!   retention took meanwhile is counted and logged.
//! - A QoS 2 message reaches a lasting session once, across `kill -9` as well; one that it has
//!   from a shared subscription may come again after a crash.
//! - Retained messages survive a restart. Only an empty payload *with* the retain flag clears one.
//! - A slow subscriber slows nobody down and takes no memory: it reads the log when it can. Of QoS
//!   0 it loses what it does not take, counted and logged.
//! - Clients cannot publish to `skerry/#` (derived streams appear there), nor to `$SYS/#`,
//!   `$CONTROL/#` and `$share/#`. A payload that says it is text and is not UTF-8 is refused (0x99).
//! - Who may connect, publish and receive is in two files ([`Users`], [`Acl`]); a change of them
//!   holds within seconds, for open connections too, and a broken file changes nothing. What was
//!   refused, to whom and why, is in the audit stream. A 3.1.1 client, which cannot be told, gets
//!   its acknowledgement for a publish that it may not make, as in mosquitto; the message is dropped.
//!
//! # Parts
//! ```text
//! accept      listeners, a connection's way in    broker        what all connections share
//! listener, socket, unix, tls, websocket          certificate, renewal, throttle
//! link        a connection's bytes                codec         bytes ↔ packets
//! connection  one task per client, all its I/O    session       the protocol, pure
//! access      who may connect and do what         peer          the other end's names
//! handshake   CONNECT → what was agreed, pure     outbound      outbound QoS, pure
//! uncommitted appends under way, in order         qos2          inbound QoS 2 ids
//! ingest      publish → record                    record        record ↔ message
//! dispatch    log → mailboxes, a task a stream    subscriptions filters → sessions
//! mailbox     what one session is owed            catch_up      log → a session that is behind
//! registry    seats and absent sessions           shared        shared subscriptions
//! saved       sessions in the catalog             retained      retained messages
//! sys         `$SYS`, as mosquitto has it          gaps          refused QoS 0 → gap records
//! streams     how far each is dispatched          backlog, budget, delivery, interest,
//! aliases     topic aliases towards a client      republish, fuzzing (tests only)
//! ```

mod accept;
mod access;
mod aliases;
mod backlog;
mod broker;
mod budget;
mod catch_up;
mod certificate;
mod codec;
mod config;
mod connection;
mod delivery;
mod dispatch;
mod end;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod gaps;
mod handshake;
mod ingest;
mod interest;
mod link;
mod listener;
mod mailbox;
mod message;
mod outbound;
mod peer;
mod qos2;
mod record;
mod registry;
mod renewal;
mod republish;
mod retained;
mod saved;
mod session;
mod shared;
mod socket;
mod status;
mod streams;
mod subscriptions;
mod sys;
mod throttle;
mod tls;
mod topic;
mod uncommitted;
mod unix;
mod websocket;

pub use access::{
    AccessConfig, Acl, Anonymous, CertificateIdentity, FileError, Limits, Users, UsersFile,
};
pub use broker::{Broker, run};
pub use certificate::Validity;
pub use config::{Config, PACKET_BYTES_LIMIT};
pub use error::Error;
pub use listener::{Address, Listener, UnixSocket, WebSocket};
pub use renewal::EXPIRES_SOON_DAYS;
pub use status::{CertificateSnapshot, ListenerSnapshot, Snapshot, Status};
pub use tls::{ClientCertificates, Setting, Tls, TlsError};
pub use topic::{FilterError, TopicFilter};
