//! What it costs to bring a backlog to the cluster, and what is got out of a narrow link.
//!
//! ```text
//! drain    how fast, and for how much processor time, from a full log to a broker beside it
//! narrow   the same over 256 kbit/s and 600 ms: processor time, use of the link, bytes per record
//! alerts   how long an alert takes to a reader of the cluster while a backlog drains
//! memory   the whole node during a large drain
//! ```
//!
//! The node is the real one, and so is the broker; the peers are Kafka's own load program and one
//! on librdkafka (`tests/kafka-clients`). What they send is what the log holds: telemetry in JSON
//! of 200 bytes. They read it from memory and the node from its log, headers, positions and
//! transactions included, which the peers do not have.
//!
//! A setting that this build does not know makes its figures null and says why.

mod alerts;
mod backlog;
mod cluster;
mod drain;
mod memory;
mod narrow;
mod peers;
mod site;

use std::time::Duration;

use serde_json::{Value, json};
use skerry_tests::Result;

use crate::figures::{self, Aim, Rounds};

/// How much and how often.
#[derive(Debug, Clone, Copy)]
struct Scale {
    /// Turns of ours and theirs.
    rounds: usize,
    /// Records of a backlog, and of a large one.
    backlog: u64,
    large: u64,
    /// On a narrow link: how long until the drain is steady, and how long it is looked at then.
    settle: Duration,
    steady: Duration,
    /// Alerts whose time is taken.
    alerts: usize,
}

/// 3 GB, and 10 GB.
const FULL: Scale = Scale {
    rounds: 5,
    backlog: 15_000_000,
    large: 50_000_000,
    settle: Duration::from_secs(45),
    steady: Duration::from_secs(180),
    alerts: 300,
};
/// 250 MB, and 500 MB.
const QUICK: Scale = Scale {
    rounds: 1,
    backlog: 1_250_000,
    large: 2_500_000,
    settle: Duration::from_secs(20),
    steady: Duration::from_secs(40),
    alerts: 30,
};

type Measure = figures::Measure<Scale>;

const FIGURES: [(&str, Measure); 4] = [
    ("drain", drain::run),
    ("narrow", narrow::run),
    ("alerts", alerts::run),
    ("memory", memory::run),
];

pub(crate) fn names() -> Vec<&'static str> {
    FIGURES.map(|(name, _)| name).to_vec()
}

pub(crate) fn is_figure(name: &str) -> bool {
    names().contains(&name)
}

pub(crate) fn run(quick: bool, only: Option<&str>) -> Result<()> {
    let scale = if quick { QUICK } else { FULL };
    figures::measure("uplink", &FIGURES, scale, only)
}

fn print(figure: &Value) {
    figures::print("uplink", figure);
}

/// Something that this build, or this machine, has or has not; why not.
type Maybe<T> = std::result::Result<T, String>;

/// Each part of what several rounds gave, or the first reason for there being none.
fn column<T>(rounds: &[Maybe<T>], of: impl Fn(&T) -> f64) -> Maybe<Vec<f64>> {
    rounds
        .iter()
        .map(|round| round.as_ref().map(&of).map_err(Clone::clone))
        .collect()
}

/// A figure, a peer and an aim for the ratio of the two.
struct Compared<'a> {
    figure: &'a str,
    unit: &'a str,
    ours: &'a Maybe<Vec<f64>>,
    peer: &'a str,
    theirs: &'a Maybe<Vec<f64>>,
    aim: Aim,
}

impl Compared<'_> {
    fn print(&self) {
        let values = |of: &Maybe<Vec<f64>>| of.clone().unwrap_or_default();
        let mut line = Rounds {
            figure: self.figure,
            unit: self.unit,
            ours: &values(self.ours),
            peer: Some(self.peer),
            theirs: &values(self.theirs),
            aim: Some(self.aim),
        }
        .figure();
        if let Some(why) = [self.ours, self.theirs]
            .into_iter()
            .find_map(|of| of.as_ref().err())
        {
            line["why"] = json!(why);
        }
        print(&line);
    }
}
