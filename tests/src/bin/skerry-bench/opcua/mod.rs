//! What it costs to take every change of a large plant into the log, and how many it can be.
//!
//! ```text
//! changes  at growing rates: what is taken without loss, for how much processor time and memory
//! latency  from the server's timestamp until the value is durable
//! ```
//!
//! The server is open62541's (`tests/opcua-c`): 10,000 counters that are all set at each tick, each
//! of them a sample. The node is the real one and has every value on disk before it acknowledges;
//! the peers are bare clients that count what comes and forget it: open62541's own in C, and
//! node-opcua's (`tests/opcua-js`). Each turn has a server and a client of its own, since a server
//! keeps what a client that left has subscribed to.

mod clients;
mod latency;
mod plant;
mod rates;

use std::time::Duration;

use serde_json::Value;
use skerry_tests::Result;

use crate::figures;

pub(crate) use clients::endpoint;
pub(crate) use plant::Plant;

/// Variables of the server, all of them monitored.
pub(crate) const COUNTERS: u32 = 10_000;
/// Ticks a second that the issue names.
const HERTZ: u32 = 10;

/// How long and how often things are measured.
#[derive(Debug, Clone, Copy)]
struct Scale {
    /// Turns of ours and theirs.
    rounds: usize,
    warm_up: Duration,
    measured: Duration,
    /// Ticks a second, one after the other.
    hertz: &'static [u32],
}

const FULL: Scale = Scale {
    rounds: 5,
    warm_up: Duration::from_secs(5),
    measured: Duration::from_secs(20),
    hertz: &[HERTZ, 20, 30, 40, 50],
};
const QUICK: Scale = Scale {
    rounds: 1,
    warm_up: Duration::from_secs(2),
    measured: Duration::from_secs(5),
    hertz: &[HERTZ, 20, 40],
};

type Measure = figures::Measure<Scale>;

const FIGURES: [(&str, Measure); 2] = [("changes", rates::run), ("latency", latency::run)];

pub(crate) fn names() -> Vec<&'static str> {
    FIGURES.map(|(name, _)| name).to_vec()
}

pub(crate) fn is_figure(name: &str) -> bool {
    names().contains(&name)
}

pub(crate) fn run(quick: bool, only: Option<&str>) -> Result<()> {
    let scale = if quick { QUICK } else { FULL };
    figures::measure("opcua", &FIGURES, scale, only)
}

fn print(figure: &Value) {
    figures::print("opcua", figure);
}
