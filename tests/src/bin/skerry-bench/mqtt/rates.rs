//! How many a second.

use std::path::Path;

use skerry_tests::Result;
use skerry_tests::load::{FanOut, Outcome, Publishers};

use super::{Compared, Scale};
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
    let once =
        |broker: &Broker, runs: &mut Runs| runs.add(broker, |mark| load.run(broker.port, mark));
    for _ in 0..scale.rounds {
        once(&skerry, &mut ours)?;
        for (peer, runs) in peers.iter().zip(&mut theirs) {
            if let Ok(peer) = peer {
                once(peer, runs)?;
            }
        }
    }
    for ((peer, theirs), aim) in peers.iter().zip(&theirs).zip(aims) {
        ours.print(figure, "msg", peer, theirs, *aim);
    }
    Ok(())
}

/// What happens per second, and microseconds of the broker's processor time for each.
#[derive(Default)]
struct Runs {
    rates: Vec<f64>,
    costs: Vec<f64>,
}

impl Runs {
    /// Runs a load, which calls back when the measured time begins and ends.
    fn add(
        &mut self,
        broker: &Broker,
        load: impl FnOnce(&mut dyn FnMut() -> Result<()>) -> Result<Outcome>,
    ) -> Result<()> {
        let own = std::process::id();
        let mut spent = Vec::new();
        let outcome = load(&mut || {
            spent.push([cpu_seconds(broker.id)?, cpu_seconds(own)?]);
            Ok(())
        })?;
        let [broker_s, load_s] = [0, 1].map(|of| spent[1][of] - spent[0][of]);
        warn_if_busy(broker, load_s, outcome);
        self.rates.push(outcome.per_second());
        self.costs.push(broker_s * 1e6 / outcome.count as f64);
        Ok(())
    }

    fn print(&self, figure: &str, what: &str, peer: &Peer, theirs: &Self, aim: Option<f64>) {
        let rate = Compared {
            figure,
            unit: &format!("{what}/s"),
            ours: &self.rates,
            peer,
            theirs: &theirs.rates,
            aim: aim.map(Aim::AtLeast),
        };
        rate.print();
        let cost = Compared {
            figure: &format!("processor time, {figure}"),
            unit: &format!("us/{what}"),
            ours: &self.costs,
            theirs: &theirs.costs,
            aim: None,
            ..rate
        };
        cost.print();
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

/// Deliveries per second to many subscribers, and the share of all that is owed to them.
pub(super) fn fan_out(folder: &Path, scale: Scale) -> Result<()> {
    let figure = format!("fan-out, 1 to {SUBSCRIBERS}, qos0, 200 B");
    let load = FanOut {
        subscribers: SUBSCRIBERS,
        warm_up: scale.warm_up,
        measured: scale.measured,
    };
    let once = |broker: &Broker, runs: &mut Runs, [owed, lost]: &mut [u64; 2]| {
        runs.add(broker, |mark| {
            let spread = load.run(broker.port, mark)?;
            *owed += spread.owed;
            *lost += spread.lost;
            Ok(spread.deliveries)
        })
    };
    let skerry = brokers::skerry(folder)?;
    let peer = brokers::mosquitto(folder)?;
    let (mut ours, mut theirs) = (Runs::default(), Runs::default());
    let (mut our_debt, mut their_debt) = ([0; 2], [0; 2]);
    for _ in 0..scale.rounds {
        once(&skerry, &mut ours, &mut our_debt)?;
        if let Ok(peer) = &peer {
            once(peer, &mut theirs, &mut their_debt)?;
        }
    }
    ours.print(&figure, "delivery", &peer, &theirs, Some(1.0));
    let share = |[owed, lost]: [u64; 2]| 1.0 - lost as f64 / owed as f64;
    let their_share = peer.as_ref().ok().map(|_| share(their_debt));
    Compared {
        figure: &format!("share delivered, {figure}"),
        unit: "ratio",
        ours: &[share(our_debt)],
        peer: &peer,
        theirs: their_share.as_slice(),
        aim: Some(Aim::AtLeast(1.0)),
    }
    .print();
    Ok(())
}
