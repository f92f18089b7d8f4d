//! MQTT 3.1.1 loads for figures, the same whichever broker they are pointed at.
//!
//! Deliberately poor: packets made by hand, no more of an answer read than the figure needs, and
//! one thread for all connections, so that the load leaves most of a small machine to the broker
//! and costs the same with each.
//!
//! ```text
//! publishers   many connections that keep a window of publishes open: messages per second
//! paced        so many messages a second, and no more
//! round_trip   one message at a time: time to the acknowledgement, and to a subscriber
//! answered     one message at a time: time from its acknowledgement to what the node makes of it
//! fill         a backlog of telemetry, published as fast as it is acknowledged
//! fan_out      one publisher and many subscribers: deliveries per second
//! sources      many sources at an even pace, whether the broker keeps up or not
//! crowd        many connections that do nothing: connects per second, and memory
//! ```

mod answered;
mod connection;
mod crowd;
mod fan_out;
mod fill;
mod paced;
mod packet;
mod payload;
mod poll;
mod publishers;
mod round_trip;
mod sources;
mod telemetry;

pub use answered::Answered;
pub use crowd::Crowd;
pub use fan_out::{FanOut, Spread};
pub use fill::Fill;
pub use paced::Paced;
pub use publishers::{Outcome, Publishers};
pub use round_trip::{Acknowledged, Delivered, Reporter};
pub use sources::{Kept, Sources};
pub use telemetry::{BYTES as REPORT_BYTES, MACHINES, Machine};

use std::time::Duration;

/// No broker is this slow: it hangs.
const STALLED: Duration = Duration::from_secs(30);
