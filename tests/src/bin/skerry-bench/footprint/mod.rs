//! What the node takes of a small machine.
//!
//! ```text
//! binary  bytes of the program: SKERRY_BINARY, else the release build's
//! idle    resident memory of what has just started and has nothing to do
//! start   from the start of the process on an empty disk to the first acknowledged message
//! cpu     processor time while 1,000 messages a second come in, and go out to a subscriber
//! agent   processor time and memory while these are recorded: in place of a broker and Telegraf
//! loaded  resident memory with 10,000 OPC-UA variables and ten models, their process included
//! wear    what a disk of its own is written a day, by default and with configs/sd-card.toml
//! ```
//!
//! Where mosquitto is installed it does the same work beside the node in the same run: QoS 1, with
//! `persistence true`. It acknowledges from memory all the same, and writes its state every half
//! hour and at its end; the node acknowledges after the sync. It has no OPC-UA and no models, and
//! nothing that it would write in the minutes of a measurement.

mod agent;
mod loaded;
mod wear;

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use skerry_tests::load::{Paced, Reporter};
use skerry_tests::{Result, wait, workspace};

use crate::brokers::{self, Broker, Peer};
use crate::figures::{self, Aim, Rounds};
use crate::processes::{cpu_seconds, resident_bytes};

/// The program, stripped.
const BINARY_AIM: f64 = 25.0 * 1024.0 * 1024.0;
/// What starting took besides has been given back by then.
const SETTLE: Duration = Duration::from_secs(2);
const MESSAGES_PER_SECOND: u32 = 1_000;

/// How long and how often things are measured.
#[derive(Debug, Clone, Copy)]
struct Scale {
    /// Turns of ours and theirs.
    rounds: usize,
    measured: Duration,
    /// For what is told by the day.
    part_of_a_day: Duration,
}

const FULL: Scale = Scale {
    rounds: 5,
    measured: Duration::from_secs(30),
    part_of_a_day: Duration::from_secs(600),
};
const QUICK: Scale = Scale {
    rounds: 3,
    measured: Duration::from_secs(10),
    part_of_a_day: Duration::from_secs(60),
};

type Measure = figures::Measure<Scale>;

const FIGURES: [(&str, Measure); 7] = [
    ("binary", binary),
    ("idle", idle),
    ("start", start),
    ("cpu", cpu),
    ("agent", agent::run),
    ("loaded", loaded::run),
    ("wear", wear::run),
];

pub(crate) fn names() -> Vec<&'static str> {
    FIGURES.map(|(name, _)| name).to_vec()
}

pub(crate) fn is_figure(name: &str) -> bool {
    names().contains(&name)
}

pub(crate) fn run(quick: bool, only: Option<&str>) -> Result<()> {
    let scale = if quick { QUICK } else { FULL };
    figures::measure("footprint", &FIGURES, scale, only)
}

fn print(figure: &Value) {
    figures::print("footprint", figure);
}

/// Of the programs alone. mosquitto shares a C library, OpenSSL and others with the system; ours
/// brings what it needs.
fn binary(_folder: &Path, _scale: Scale) -> Result<()> {
    let bytes = |path: &Path| fs::metadata(path).map(|it| it.len() as f64);
    let program = workspace::skerry();
    let theirs = brokers::mosquitto_program().map(bytes).transpose()?;
    let line = Rounds {
        figure: "binary",
        unit: "bytes",
        ours: &[bytes(&program)?],
        peer: None,
        theirs: theirs.as_slice(),
        aim: Some(Aim::AtMost(BINARY_AIM)),
    };
    let mut line = line.figure();
    line["peer"] = json!(theirs.map(|_| "mosquitto, without its libraries"));
    print(&line);
    let theirs = workspace::target().join(agent::PROGRAM);
    if theirs.exists() {
        line["peer"] = json!("Telegraf, of MQTT, OPC-UA, Kafka and files");
        line["theirs"] = json!(bytes(&theirs)?);
        line["ratio"] = json!(bytes(&program)? / bytes(&theirs)?);
        print(&line);
    }
    Ok(())
}

fn idle(folder: &Path, scale: Scale) -> Result<()> {
    let once = |broker: &Broker| {
        thread::sleep(SETTLE);
        Ok(resident_bytes(broker.id)? as f64)
    };
    in_turns(folder, scale, "idle memory", "bytes", once)
}

fn start(folder: &Path, scale: Scale) -> Result<()> {
    let once = |broker: &Broker| {
        let acknowledged = wait::until("a message is acknowledged", wait::START, || {
            let mut reporter = Reporter::open(broker.port, "first")?;
            reporter.publish("plant/first", b"{}")?;
            Ok(Some(Instant::now()))
        })?;
        Ok((acknowledged - broker.launched_at).as_secs_f64() * 1e3)
    };
    in_turns(folder, scale, "start to first acknowledgement", "ms", once)
}

fn cpu(folder: &Path, scale: Scale) -> Result<()> {
    let load = Paced {
        connections: 10,
        per_second: MESSAGES_PER_SECOND,
        subscribed: true,
        measured: scale.measured,
    };
    let once = |broker: &Broker| {
        let before = cpu_seconds(broker.id)?;
        let seconds = load.run(broker.port)?.as_secs_f64();
        Ok((cpu_seconds(broker.id)? - before) / seconds * 100.0)
    };
    let figure = format!("processor at {MESSAGES_PER_SECOND} msg/s, qos1, 200 B, one subscriber");
    in_turns(folder, scale, &figure, "percent of a core", once)
}

/// Measures fresh processes, ours and theirs in turns.
fn in_turns(
    folder: &Path,
    scale: Scale,
    figure: &str,
    unit: &str,
    once: impl Fn(&Broker) -> Result<f64>,
) -> Result<()> {
    let (mut ours, mut theirs, mut peer) = (Vec::new(), Vec::new(), None);
    for round in 0..scale.rounds {
        let folder = folder.join(format!("{unit}-{round}"));
        fs::create_dir_all(&folder)?;
        ours.push(once(&brokers::skerry(&folder)?)?);
        let mosquitto: Peer = brokers::mosquitto_persistent(&folder)?;
        if let Ok(broker) = &mosquitto {
            theirs.push(once(broker)?);
        }
        peer = Some(mosquitto);
    }
    let peer = peer.expect("at least one round");
    let rounds = Rounds {
        figure,
        unit,
        ours: &ours,
        peer: peer.as_ref().map(|peer| peer.name).ok(),
        theirs: &theirs,
        aim: None,
    };
    let mut line = rounds.figure();
    if let Err(why) = peer {
        line["why"] = json!(why);
    }
    print(&line);
    Ok(())
}
