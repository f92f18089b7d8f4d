//! What it costs that an acknowledgement means on disk, and what the broker does besides.

mod crowds;
mod latencies;
mod rates;

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use skerry_tests::Result;

use crate::brokers::Peer;
use crate::figures::{self, Aim};

/// How long and how often things are measured.
#[derive(Debug, Clone, Copy)]
struct Scale {
    /// Turns of ours and theirs.
    rounds: usize,
    warm_up: Duration,
    measured: Duration,
    /// Single messages whose time is taken.
    samples: usize,
}

const FULL: Scale = Scale {
    rounds: 9,
    warm_up: Duration::from_secs(1),
    measured: Duration::from_secs(10),
    samples: 5_000,
};
const QUICK: Scale = Scale {
    rounds: 3,
    warm_up: Duration::from_millis(500),
    measured: Duration::from_millis(2_500),
    samples: 1_000,
};

type Measure = figures::Measure<Scale>;

const FIGURES: [(&str, Measure); 7] = [
    ("qos1", rates::qos1),
    ("ack", latencies::ack),
    ("qos2", rates::qos2),
    ("delivery", latencies::delivery),
    ("fan-out", rates::fan_out),
    ("memory", crowds::memory),
    ("connects", crowds::connects),
];

pub(crate) fn names() -> Vec<&'static str> {
    FIGURES.map(|(name, _)| name).to_vec()
}

pub(crate) fn is_figure(name: &str) -> bool {
    names().contains(&name)
}

/// Each figure has brokers of its own, so that none finds what another left behind.
pub(crate) fn run(quick: bool, only: Option<&str>) -> Result<()> {
    raise_open_files()?;
    let scale = if quick { QUICK } else { FULL };
    figures::measure("mqtt", &FIGURES, scale, only)
}

/// This process and the brokers it starts hold ten thousand sockets each.
fn raise_open_files() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.maximum;
    setrlimit(Resource::Nofile, Rlimit { current, ..limit })?;
    Ok(())
}

fn print(figure: &Value) {
    figures::print("mqtt", figure);
}

/// A value of ours and one of the peer for each round, and what to make of them.
struct Compared<'a> {
    figure: &'a str,
    unit: &'a str,
    ours: &'a [f64],
    peer: &'a Peer,
    theirs: &'a [f64],
    /// Of the ratio.
    aim: Option<Aim>,
}

impl Compared<'_> {
    fn print(&self) {
        let rounds = figures::Rounds {
            figure: self.figure,
            unit: self.unit,
            ours: self.ours,
            peer: self.peer.as_ref().map(|peer| peer.name).ok(),
            theirs: self.theirs,
            aim: self.aim.filter(|_| self.peer.is_ok()),
        };
        let mut line = rounds.figure();
        line["aim"] = json!(self.aim.map(Aim::value));
        if let Err(why) = self.peer {
            line["why"] = json!(why);
        }
        print(&line);
    }
}
