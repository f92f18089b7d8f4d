//! PLCs in: subscribes to variables of OPC-UA servers and takes every change into the log.
//!
//! What is promised, per endpoint:
//!
//! - **A notification is acknowledged to the server only after its values are on disk.** Until
//!   then the server keeps it and sends it again; what the log refuses stays unacknowledged.
//! - **Each value once.** How far a subscription was taken is written in the same append as its
//!   values ([`progress`]), so a broken connection or a crash is carried on without hole or
//!   double, as long as the server still has the subscription.
//! - **Nothing is missing silently.** What could not be had is a gap record: lost messages, a
//!   server queue that overflowed, the time between a lost subscription and the next. After five
//!   seconds without connection each node gets a record with `Bad_NoCommunication`.
//! - **An outage is filled from the server's history** where a node has one ([`backfill`]); such
//!   records have the attribute [`BACKFILL`].
//! - **A server that answers and does nothing is noticed** by its clock, which is sampled in the
//!   same subscription ([`watch`]).
//! - **It never gives up.** Every fault but the end of the log is shown in [`Status`] and retried
//!   with back-off; a node the server refuses is retried by itself and stops no other.
//! - **The server may change.** Nodes by browse path and whole folders are looked for at every
//!   connection and again and again ([`survey`]): what appears joins the subscription, what is
//!   gone gets one record with `Bad_NodeIdUnknown`. A name never goes to another node.
//! - **Never less security than configured.** A server that does not offer it is refused; its
//!   certificate is pinned at first contact ([`pki`]). Deprecated policies are used where they are
//!   spelled out and nowhere else, and a password leaves only hidden by the channel or by a policy,
//!   unless there is no security at all ([`User`]).
//!
//! A record: `kind` opcua, `source` the configured name, payload `{"value": …}` ([`value`]) with
//! structures as objects of their fields and enumerations by name where the server defines them,
//! the server's StatusCode with all its bits, and both timestamps. The attribute [`UNIT`] is the
//! unit it is measured in, where the server says so. The first value of a node in a new
//! subscription, which need not be a change, has the attribute [`INITIAL`].
//!
//! What a server reports, events and alarms, are records too ([`events`]). Writes, method calls and
//! acknowledgements are done for MQTT clients where they are listed, at most once each and with
//! audit records ([`commands`]).
//!
//! Nodes, folders and events may have a pace of their own ([`Group`]): a subscription each in the
//! one session, for which all of the above holds.
//!
//! Not here: structures of type dictionaries (before OPC-UA 1.04), and the history of events.

mod address;
mod awaited;
mod backfill;
mod backoff;
mod browse;
mod browse_path;
mod commands;
mod config;
mod error;
mod events;
mod find;
mod flow;
mod folder;
mod groups;
mod history;
mod ingest;
mod learn;
mod link;
mod nodes;
mod pki;
mod profile;
mod progress;
mod pulse;
mod redundancy;
mod resume;
mod roster;
mod sequence;
mod status;
mod strand;
mod survey;
mod trust;
mod user;
mod value;
mod visit;
mod walk;
mod watch;
mod wire;

pub use address::{AddressError, EndpointUrl, NodeAddress};
pub use browse::{Browse, Listing, Tree, Variable, browse, config_text, tree};
pub use browse_path::BrowsePath;
pub use commands::{
    Action, COMMAND_AGE_MAX, Called, Command, Commands, CommandsSnapshot, LastError, Limits,
    Written, call, result_topic, write,
};
pub use config::{
    Config, Deadband, Node, OUTAGE_BUDGET, OUTAGE_BUDGET_MIN, PUBLISHING_INTERVAL, Policy,
    Security, SecurityError,
};
pub use error::Error;
pub use events::{EVENT, EventSource, REFRESHED};
pub use folder::{BROWSE_INTERVAL, FOLDER_DEPTH, FOLDER_NODES, Folder, Pattern, PatternError};
pub use groups::{GROUPS_MAX, Group, GroupId};
pub use history::History;
pub use ingest::{BACKFILL, INITIAL, UNIT};
pub use link::run;
pub use profile::{Capacity, Profile, ProfileError};
pub use status::{
    BadNode, Clock, GrantedSnapshot, GroupSnapshot, ShortestQueue, Snapshot, State, Status,
};
pub use trust::{Rejected, rejected, trust};
pub use user::User;
pub use visit::{Offer, Reading, Visit, discover, read, watch};
pub use wire::Misfit;
pub use wire::ReverseConnect;

/// Targets of the OPC-UA crates' own log lines. They report as errors what is retried here and
/// costs nothing; a program's log filter does well to silence them.
pub const VENDOR_LOG_TARGETS: [&str; 4] =
    ["opcua_client", "opcua_core", "opcua_crypto", "opcua_types"];
