//! How long after the server's timestamp a value is durable.
//!
//! Looked at from outside: the node is asked again and again how much of the stream is durable, and
//! what its log has below that was durable by then. So a value is never found sooner than it was
//! durable, and later by up to the time between two questions.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use skerry_tests::node::{self, Node};
use skerry_tests::{Context as _, Result, bail};

use super::clients::{Client, Make, STREAM};
use super::plant::Plant;
use super::{COUNTERS, HERTZ, Scale, print};
use crate::figures::{Rounds, quantile};

/// Between two questions.
const ASK: Duration = Duration::from_millis(4);

/// How much of the stream was durable at a time in nanoseconds since the Unix epoch.
struct Seen {
    head: u64,
    at: i64,
}

pub(super) fn run(folder: &Path, scale: Scale) -> Result<()> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let there = Make::Open62541.lacks().is_none();
    for _ in 0..scale.rounds {
        ours.push(durable_p99_ms(&fresh(folder)?, scale)?);
        if there {
            theirs.push(received_p99_ms(&fresh(folder)?, scale)?);
        }
    }
    let line = Rounds {
        figure: &format!(
            "server timestamp to durable, p99, {COUNTERS} nodes x {HERTZ} Hz, published every 100 ms"
        ),
        unit: "ms",
        ours: &ours,
        peer: there.then_some("open62541's client, server timestamp to its callback"),
        theirs: &theirs,
        aim: None,
    };
    print(&line.figure());
    Ok(())
}

fn fresh(folder: &Path) -> Result<PathBuf> {
    let folder = folder.join("turn");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn durable_p99_ms(folder: &Path, scale: Scale) -> Result<f64> {
    let plant = Plant::start(folder, HERTZ)?;
    let Client::Node(mut node) = Make::Skerry.start(folder, plant.port)? else {
        bail!("skerry is the node");
    };
    thread::sleep(scale.warm_up);
    let seen = ask(&node, scale.measured)?;
    let data = node.settings().data.clone();
    node.terminate()?;
    plant.finish()?;
    let first = seen.first().context("nothing was seen")?.head;
    let mut took_ms = Vec::new();
    node::each_logged(&data, STREAM, |record| {
        let offset = record["offset"].as_u64().context("no offset")?;
        let Some(server_time) = record["server_time_ns"].as_i64() else {
            return Ok(());
        };
        let by_then = seen.partition_point(|seen| seen.head <= offset);
        if let Some(seen) = seen.get(by_then).filter(|_| offset >= first) {
            took_ms.push((seen.at - server_time) as f64 / 1e6);
        }
        Ok(())
    })?;
    quantile(took_ms, 0.99).context("the log has nothing of the measured time")
}

fn ask(node: &Node, time: Duration) -> Result<Vec<Seen>> {
    let begun = Instant::now();
    let mut seen = Vec::new();
    while begun.elapsed() < time {
        let head = head(&node.status()?)?;
        let at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        seen.push(Seen {
            head,
            at: i64::try_from(at)?,
        });
        thread::sleep(ASK);
    }
    Ok(seen)
}

fn head(status: &Value) -> Result<u64> {
    let streams = status["store"]["streams"]
        .as_array()
        .context("no streams")?;
    let stream = streams.iter().find(|stream| stream["name"] == STREAM);
    stream.context("no such stream")?["head"]
        .as_u64()
        .context("no head")
}

/// The peer's own figure, from its first value on.
fn received_p99_ms(folder: &Path, scale: Scale) -> Result<f64> {
    let plant = Plant::start(folder, HERTZ)?;
    let client = Make::Open62541.start(folder, plant.port)?;
    thread::sleep(scale.warm_up + scale.measured);
    let last = client.finish()?.context("the peer says nothing")?;
    plant.finish()?;
    last["p99_ms"].as_f64().context("no p99")
}
