//! A strict MQTT client of our own, for what no library lets a test do: keep a session's state
//! over any end of its connection, and take every slip of the broker for a failure.
//!
//! ```text
//! packet   bytes ↔ packets, both versions       session  ids, resends, QoS 2 both ways; pure
//! client   one connection at a time, tokio      ledger   who sent what, who is owed what
//! crowd    many clients that go on
//! ```
//!
//! Clients that are not ours play their parts in `tests/scenarios/foreign.rs`.

pub mod client;
pub mod crowd;
pub mod ledger;
pub mod packet;
pub mod session;
mod wire;

pub use client::{Client, Ended, Event};
pub use packet::{Message, Qos, Version};
pub use session::Session;
