//! How many a second.

use std::path::Path;

use serde_json::json;
use skerry_tests::Result;
use skerry_tests::load::{FanOut, Outcome, Publishers};

use super::{Compared, Scale, print};
use crate::brokers::{self, Broker, Peer};
use crate::figures::Aim;
use crate::processes::cpu_seconds;

const CONNECTIONS: usize = 50;
const SUBSCRIBERS: usize = 1_000;

pub(super) fn qos1(folder: &Path, scale: Scale) -> Result<()> {
    for (window, aims) in [(20, [2.0, 0.8].map(Some)), (1, [None, None])] {
        let figure = format!("qos1, {CONNECTIONS} connections, window {window}, 200 B");
        let load = publishers(1, window, scale);
        let peers = [brokers::mosquitto(folder)?, brokers::rumqttd(folder)?];
        acknowledged(folder, scale, load, &figure, &peers, &aims)?;
    }
    Ok(())
}

pub(super) fn qos2(folder: &Path, scale: Scale) -> Result<()> {
    let figure = format!("qos2, {CONNECTIONS} connections, window 20, 200 B");
    let peers = [brokers::mosquitto(folder)?];
    acknowledged(
        folder,
        scale,
        publishers(2, 20, scale),
        &figure,
        &peers,
        &[Some(1.0)],
    )
}

fn publishers(qos: u8, window: u16, scale: Scale) -> Publishers {
    Publishers {
        connections: CONNECTIONS,
        window,
        qos,
        warm_up: scale.warm_up,
        measured: scale.measured,
    }
}

/// Messages acknowledged to the end per second, and what they cost the broker's processor. The
/// peers acknowledge from memory; skerry after the sync.
fn acknowledged(
    folder: &Path,
    scale: Scale,
    load: Publishers,
    figure: &str,
    peers: &[Peer],
    aims: &[Option<f64>],
) -> Result<()> {
    let skerry = brokers::skerry(folder)?;
    let mut ours = Runs::default();
    let mut theirs: Vec<Runs> = peers.iter().map(|_| Runs::default()).collect();
    for _ in 0..scale.rounds {
        ours.add(&skerry, load)?;
        for (peer, runs) in peers.iter().zip(&mut theirs) {
            if let Ok(peer) = peer {
                runs.add(peer, load)?;
            }
        }
    }
    for ((peer, theirs), aim) in peers.iter().zip(&theirs).zip(aims) {
        let rate = Compared {
            figure,
            unit: "msg/s",
            ours: &ours.rates,
            peer,
            theirs: &theirs.rates,
            aim: aim.map(Aim::AtLeast),
        };
        rate.print();
        let cost = Compared {
            figure: &format!("processor time, {figure}"),
            unit: "us/msg",
            ours: &ours.costs,
            theirs: &theirs.costs,
            aim: None,
            ..rate
        };
        cost.print();
    }
    Ok(())
}

/// Messages per second, and microseconds of the broker's processor time per message.
#[derive(Default)]
struct Runs {
    rates: Vec<f64>,
    costs: Vec<f64>,
}

impl Runs {
    fn add(&mut self, broker: &Broker, load: Publishers) -> Result<()> {
        let own = std::process::id();
        let mut spent = Vec::new();
        let outcome = load.run(broker.port, || {
            spent.push([cpu_seconds(broker.id)?, cpu_seconds(own)?]);
            Ok(())
        })?;
        let [broker_s, load_s] = [0, 1].map(|of| spent[1][of] - spent[0][of]);
        warn_if_busy(broker, load_s, outcome);
        self.rates.push(outcome.per_second());
        self.costs.push(broker_s * 1e6 / outcome.count as f64);
        Ok(())
    }
}

/// A load whose one thread is never idle may be what is measured instead of the broker.
fn warn_if_busy(broker: &Broker, load_s: f64, outcome: Outcome) {
    let busy = load_s / outcome.elapsed.as_secs_f64();
    if busy > 0.95 {
        let name = broker.name;
        eprintln!(
            "the load on {name} was busy for {:.0} % of the time",
            busy * 100.0
        );
    }
}

/// Deliveries per second to many subscribers. A round in which a broker lost some is none.
pub(super) fn fan_out(folder: &Path, scale: Scale) -> Result<()> {
    let figure = format!("fan-out, 1 to {SUBSCRIBERS}, qos0, 200 B");
    let load = FanOut {
        subscribers: SUBSCRIBERS,
        warm_up: scale.warm_up,
        measured: scale.measured,
    };
    let skerry = brokers::skerry(folder)?;
    let peer = brokers::mosquitto(folder)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let (mut owed, mut lost) = (0, 0);
    for _ in 0..scale.rounds {
        let spread = load.run(skerry.port)?;
        ours.push(spread.deliveries.per_second());
        owed += spread.owed;
        lost += spread.lost;
        if let Ok(peer) = &peer {
            let spread = load.run(peer.port)?;
            theirs.push(spread.deliveries.per_second());
            if spread.lost > 0 {
                eprintln!("{} lost {} of {}", peer.name, spread.lost, spread.owed);
            }
        }
    }
    Compared {
        figure: &figure,
        unit: "deliveries/s",
        ours: &ours,
        peer: &peer,
        theirs: &theirs,
        aim: Some(Aim::AtLeast(1.0)),
    }
    .print();
    let delivered = 1.0 - lost as f64 / owed as f64;
    print(&json!({
        "figure": format!("share delivered, {figure}"), "unit": "ratio", "ours": delivered,
        "aim": 1.0, "aim_met": lost == 0, "runs": scale.rounds,
    }));
    Ok(())
}
