//! How long one message takes.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use skerry_tests::Result;
use skerry_tests::load::{Acknowledged, Delivered};

use super::{Scale, print};
use crate::brokers;
use crate::figures::{Aim, median, quantile};

/// Samples of one kind in a row, so that a change of the machine's mood meets all kinds.
const TURN: usize = 25;

/// What a sync costs without a broker around it: the same write that each time makes a file
/// longer, or that each time replaces what is in one.
struct Disk {
    file: File,
    grows: bool,
    at: u64,
}

const PAGE: [u8; 4096] = [7; 4096];

impl Disk {
    fn growing(folder: &Path) -> Result<Self> {
        let file = File::create(folder.join("growing"))?;
        Ok(Self {
            file,
            grows: true,
            at: 0,
        })
    }

    fn in_place(folder: &Path) -> Result<Self> {
        let file = File::create(folder.join("in-place"))?;
        file.write_all_at(&PAGE, 0)?;
        file.sync_all()?;
        Ok(Self {
            file,
            grows: false,
            at: 0,
        })
    }

    fn once(&mut self) -> Result<Duration> {
        let start = Instant::now();
        self.file.write_all_at(&PAGE, self.at)?;
        self.file.sync_data()?;
        let elapsed = start.elapsed();
        if self.grows {
            self.at += PAGE.len() as u64;
        }
        Ok(elapsed)
    }
}

/// A turn of samples, in microseconds.
fn turn(samples: &mut Vec<f64>, mut once: impl FnMut() -> Result<Duration>) -> Result<()> {
    for _ in 0..TURN {
        samples.push(once()?.as_secs_f64() * 1e6);
    }
    Ok(())
}

/// One publisher that waits for each acknowledgement, against the sync behind it. Writing in place
/// is the least that a disk can do, and the log may well do it; the aim holds against both.
pub(super) fn ack(folder: &Path, scale: Scale) -> Result<()> {
    let skerry = brokers::skerry(folder)?;
    let mut publisher = Acknowledged::open(skerry.port)?;
    let mut growing = Disk::growing(folder)?;
    let mut in_place = Disk::in_place(folder)?;
    let (mut ours, mut grown, mut replaced) = (Vec::new(), Vec::new(), Vec::new());
    while ours.len() < scale.samples {
        turn(&mut ours, || publisher.once())?;
        turn(&mut grown, || growing.once())?;
        turn(&mut replaced, || in_place.once())?;
    }
    for (syncs, how) in [(&grown, "a growing file"), (&replaced, "a file in place")] {
        for (name, share, aim) in [("p50", 0.5, 1.3), ("p99", 0.99, 2.0)] {
            let [ours, sync] = [&ours, syncs].map(|of| quantile(of.iter().copied(), share));
            let ratio = ours.zip(sync).map(|(ours, sync)| ours / sync);
            print(&json!({
                "figure": format!("ack {name}, qos1, 1 connection, window 1, 200 B"),
                "unit": "us", "ours": ours, "peer": format!("fdatasync of 4 KiB, {how}"),
                "theirs": sync, "ratio": ratio, "aim": aim, "runs": syncs.len() / TURN,
                "aim_met": ratio.map(|ratio| Aim::AtMost(aim).is_met_by(ratio)),
            }));
        }
    }
    Ok(())
}

/// From a publish to a local subscriber: the aim is a sync in place, and twice what a broker takes
/// that has none.
pub(super) fn delivery(folder: &Path, scale: Scale) -> Result<()> {
    let skerry = brokers::skerry(folder)?;
    let peer = brokers::mosquitto(folder)?;
    let mut our_path = Delivered::open(skerry.port)?;
    let mut their_path = match &peer {
        Ok(peer) => Some(Delivered::open(peer.port)?),
        Err(_) => None,
    };
    let mut disk = Disk::in_place(folder)?;
    let (mut ours, mut theirs, mut syncs) = (Vec::new(), Vec::new(), Vec::new());
    while ours.len() < scale.samples {
        turn(&mut ours, || our_path.once())?;
        if let Some(path) = &mut their_path {
            turn(&mut theirs, || path.once())?;
        }
        turn(&mut syncs, || disk.once())?;
    }
    let p99 = [&ours, &theirs, &syncs].map(|of| quantile(of.iter().copied(), 0.99));
    let p50 = [&ours, &theirs, &syncs].map(|of| median(of.iter().copied()));
    for (name, [ours, theirs, sync], has_aim) in [("p50", p50, false), ("p99", p99, true)] {
        let aim = theirs.zip(sync).map(|(theirs, sync)| sync + 2.0 * theirs);
        let aim = aim.filter(|_| has_aim);
        let mut line = json!({
            "figure": format!("delivery {name}, publish to durable to subscriber, qos1, 200 B"),
            "unit": "us", "ours": ours, "peer": peer.as_ref().map(|peer| peer.name).ok(),
            "theirs": theirs, "ratio": ours.zip(theirs).map(|(ours, theirs)| ours / theirs),
            "aim": aim,
            "aim_met": aim.zip(ours).map(|(aim, ours)| Aim::AtMost(aim).is_met_by(ours)),
            "fdatasync": sync, "runs": syncs.len() / TURN,
        });
        if let Err(why) = peer {
            line["why"] = json!(why);
        }
        print(&line);
    }
    Ok(())
}
