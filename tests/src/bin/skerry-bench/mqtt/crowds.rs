//! What many connections cost that do nothing.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use skerry_tests::Result;
use skerry_tests::load::Crowd;

use super::{Compared, Scale, print};
use crate::brokers::{self, Broker, Peer};
use crate::figures::{Aim, median};
use crate::processes::memory_bytes;

const CROWDS: [usize; 2] = [1_000, 10_000];
/// Besides twice mosquitto's own: the log, its catalog and its caches.
const IDLE_MORE_BYTES: f64 = 32.0 * 1024.0 * 1024.0;
const CONNECTION_BYTES: f64 = 12.0 * 1024.0;
/// What connecting took besides, a broker has given back by then.
const SETTLE: Duration = Duration::from_secs(1);
const CONNECTS: usize = 2_000;

/// Memory of fresh processes: just started, and for each idle connection of a crowd.
pub(super) fn memory(folder: &Path, scale: Scale) -> Result<()> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let rounds = scale.rounds.div_ceil(3);
    let mut last = None;
    for round in 0..rounds {
        let folder = folder.join(round.to_string());
        std::fs::create_dir_all(&folder)?;
        ours.push(bytes(&brokers::skerry(&folder)?)?);
        let peer = brokers::mosquitto(&folder)?;
        if let Ok(peer) = &peer {
            theirs.push(bytes(peer)?);
        }
        last = Some(peer);
    }
    let peer = last.expect("at least one round");
    let at = |of: &[Vec<f64>], index: usize| median(of.iter().map(|round| round[index]));
    let idle = at(&theirs, 0).map(|theirs| 2.0 * theirs + IDLE_MORE_BYTES);
    print(&line(
        "memory, idle",
        &peer,
        [at(&ours, 0), at(&theirs, 0)],
        idle,
        rounds,
    ));
    for (index, crowd) in (1..).zip(CROWDS) {
        let figure = format!("memory per idle connection, {crowd} connections");
        let values = [at(&ours, index), at(&theirs, index)];
        print(&line(
            &figure,
            &peer,
            values,
            Some(CONNECTION_BYTES),
            rounds,
        ));
    }
    Ok(())
}

fn line(
    figure: &str,
    peer: &Peer,
    values: [Option<f64>; 2],
    aim: Option<f64>,
    runs: usize,
) -> Value {
    let [ours, theirs] = values;
    let mut line = json!({
        "figure": figure, "unit": "bytes", "ours": ours,
        "peer": peer.as_ref().map(|peer| peer.name).ok(), "theirs": theirs,
        "ratio": ours.zip(theirs).map(|(ours, theirs)| ours / theirs), "aim": aim,
        "aim_met": aim.zip(ours).map(|(aim, ours)| Aim::AtMost(aim).is_met_by(ours)),
        "runs": runs,
    });
    if let Err(why) = peer {
        line["why"] = json!(why);
    }
    line
}

/// In all while idle, then per connection of each crowd.
fn bytes(broker: &Broker) -> Result<Vec<f64>> {
    std::thread::sleep(SETTLE);
    let idle = memory_bytes(broker.id)? as f64;
    let mut bytes = vec![idle];
    for count in CROWDS {
        let crowd = Crowd::connect(broker.port, count)?;
        std::thread::sleep(SETTLE);
        bytes.push((memory_bytes(broker.id)? as f64 - idle) / count as f64);
        drop(crowd);
        std::thread::sleep(SETTLE);
    }
    Ok(bytes)
}

/// CONNECTs answered per second, sockets included, some tens at a time.
pub(super) fn connects(folder: &Path, scale: Scale) -> Result<()> {
    let skerry = brokers::skerry(folder)?;
    let peer = brokers::mosquitto(folder)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..scale.rounds {
        ours.push(connects_per_second(&skerry)?);
        if let Ok(peer) = &peer {
            theirs.push(connects_per_second(peer)?);
        }
    }
    Compared {
        figure: &format!("connects, {CONNECTS} connections"),
        unit: "connects/s",
        ours: &ours,
        peer: &peer,
        theirs: &theirs,
        aim: None,
    }
    .print();
    Ok(())
}

fn connects_per_second(broker: &Broker) -> Result<f64> {
    let crowd = Crowd::connect(broker.port, CONNECTS)?;
    let rate = CONNECTS as f64 / crowd.elapsed.as_secs_f64();
    drop(crowd);
    // Its goodbyes are not the next one's business.
    std::thread::sleep(SETTLE);
    Ok(rate)
}
