//! From an alert's publish to a reader of the cluster, read committed, while a backlog drains over
//! a satellite's link and while nothing else is to be sent.
//!
//! The reader sits beside the broker and is not ours. Alerts are published one at a time at moments
//! that have nothing to do with what the uplink is at, and each goes by itself.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use skerry_tests::chance::Chance;
use skerry_tests::load::Reporter;
use skerry_tests::process::Process;
use skerry_tests::{Context as _, Result, bail, ensure, wait};

use super::backlog::Backlog;
use super::cluster::Cluster;
use super::site::{Pack, Site, Way};
use super::{Maybe, Scale, peers, print};
use crate::figures::{Aim, median, quantile};

/// A stream that goes before all others.
const STREAM: &str =
    "\n[[stream]]\nname = \"alerts\"\ntopics = [\"alarm/#\"]\nbytes_max = \"64MiB\"\n";
const URGENT: &str = "kafka = { priority = 0 }\n";
const BANDWIDTH: &str = "bandwidth = \"256 kbit/s\"\n";
/// Apart from each other.
const INTERVAL_MS: std::ops::Range<u64> = 500..2_500;
/// An alert that takes longer is lost.
const LOST: Duration = Duration::from_secs(300);
const SEED: u64 = 6;

pub(super) fn run(folder: &Path, scale: Scale) -> Result<()> {
    let backlog = Backlog::of(scale.backlog)?;
    let cluster = Cluster::start(folder)?;
    cluster.narrow();
    let ways = [
        ("the link itself is the cap", ""),
        ("with bandwidth at the cap", BANDWIDTH),
    ];
    for (how, kafka_more) in ways {
        let way = Way {
            brokers: cluster.link.address(),
            pack: Some(Pack::Off),
            kafka_more: kafka_more.to_owned(),
            more: format!("{STREAM}{URGENT}"),
        };
        let bench = Bench {
            folder,
            scale,
            cluster: &cluster,
            way,
        };
        let idle = bench.latencies(None)?;
        let busy = match &idle {
            Ok(_) => bench.latencies(Some(&backlog))?,
            Err(why) => Err(why.clone()),
        };
        for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
            print(&line(
                &format!("alert {name} during a drain, {how}"),
                share,
                &idle,
                &busy,
            ));
        }
    }
    Ok(())
}

fn line(figure: &str, share: f64, idle: &Maybe<Vec<f64>>, busy: &Maybe<Vec<f64>>) -> Value {
    let at = |of: &Maybe<Vec<f64>>| {
        of.as_ref()
            .ok()
            .and_then(|of| quantile(of.iter().copied(), share))
    };
    let (ours, theirs) = (at(busy), at(idle));
    let aim = theirs.map(|idle| 2.0 * idle + 1.0);
    let judged = aim
        .zip(ours)
        .map(|(aim, ours)| Aim::AtMost(aim).is_met_by(ours));
    let mut line = json!({
        "figure": figure, "unit": "s", "ours": ours, "peer": "an idle link", "theirs": theirs,
        "ratio": ours.zip(theirs).map(|(ours, theirs)| ours / theirs), "aim": aim,
        "aim_met": judged, "runs": busy.as_ref().map_or(0, Vec::len),
    });
    if let Err(why) = busy {
        line["why"] = json!(why);
    }
    line
}

struct Bench<'a> {
    folder: &'a Path,
    scale: Scale,
    cluster: &'a Cluster,
    way: Way,
}

impl Bench<'_> {
    /// Seconds of each alert.
    fn latencies(&self, backlog: Option<&Backlog>) -> Result<Maybe<Vec<f64>>> {
        if !peers::program().exists() {
            return Ok(Err(
                "kafka-clients is not built; `tests/bench uplink` builds it".to_owned(),
            ));
        }
        let mut site = match Site::start(self.folder, backlog, &self.way)? {
            Ok(site) => site,
            Err(why) => return Ok(Err(why)),
        };
        let topic = site.topic("alerts");
        let reader = Reader::start(&self.cluster.kafka.address(), &topic, self.folder)?;
        let mut publisher = Reporter::open(site.mqtt_port(), "bench-alerts")?;
        // The way is known to be there before anything counts.
        publisher.publish("alarm/press-07", br#"{"alert":0}"#)?;
        reader.wait_for(1)?;
        if backlog.is_some() {
            site.begun()?;
            std::thread::sleep(self.scale.settle);
        }
        let mut chance = Chance::new(SEED);
        let mut published = vec![now()?];
        for number in 1..=self.scale.alerts {
            std::thread::sleep(chance.millis(INTERVAL_MS));
            published.push(now()?);
            let alert = format!(r#"{{"alert":{number}}}"#);
            publisher.publish("alarm/press-07", alert.as_bytes())?;
        }
        let arrived = reader.wait_for(published.len())?;
        if backlog.is_some() {
            let mark = site.mark()?;
            ensure!(mark.confirmed < mark.head, "the backlog was too short");
        }
        site.remove()?;
        let took = |(number, at): (usize, &i128)| -> Result<f64> {
            let there = arrived
                .get(&(number as u64))
                .with_context(|| format!("{number} is lost"))?;
            Ok((there - at) as f64 / 1e9)
        };
        let took: Vec<f64> = published
            .iter()
            .enumerate()
            .skip(1)
            .map(took)
            .collect::<Result<_>>()?;
        let middle = median(took.iter().copied());
        eprintln!("{} alerts, median {middle:?} s", took.len());
        Ok(Ok(took))
    }
}

/// This machine's clock, which is the reader's too, in nanoseconds.
fn now() -> Result<i128> {
    Ok(i128::try_from(
        SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos(),
    )?)
}

/// `kafka-clients read`: what comes in, and when.
struct Reader(std::cell::RefCell<Process>);

impl Reader {
    fn start(brokers: &str, topic: &str, folder: &Path) -> Result<Self> {
        let mut command = Command::new(peers::program());
        command.args(["read", brokers, topic]);
        let log = folder.join(format!("{topic}.jsonl"));
        Ok(Self(Process::start("reader", &mut command, &log)?.into()))
    }

    /// When each alert came, once there are so many.
    fn wait_for(&self, count: usize) -> Result<BTreeMap<u64, i128>> {
        let what = format!("{count} alerts in the cluster");
        wait::until(&what, LOST, || {
            let mut process = self.0.borrow_mut();
            ensure!(
                process.is_running()?,
                "the reader ended: {}",
                process.output()?
            );
            let arrived = arrivals(&process.output()?)?;
            if arrived.len() < count {
                bail!("{} so far", arrived.len());
            }
            Ok(Some(arrived))
        })
    }
}

fn arrivals(text: &str) -> Result<BTreeMap<u64, i128>> {
    // The last line may still be in the writing.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut arrived = BTreeMap::new();
    for line in whole.lines() {
        let (at, value) = line.split_once(' ').context("no time and value")?;
        let value: Value = serde_json::from_str(value)?;
        let number = value["alert"].as_u64().context("no number")?;
        let fresh = arrived.insert(number, at.parse()?).is_none();
        ensure!(fresh, "{number} came twice");
    }
    Ok(arrived)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_read_line_by_line_and_once_each() {
        let line = |at: u64, number: u64| format!("{at} {{\"alert\":{number}}}\n");
        let text = line(10, 1) + &line(20, 2) + "30 {\"al";
        assert_eq!(arrivals(&text).unwrap(), BTreeMap::from([(1, 10), (2, 20)]));
        assert!(arrivals(&(line(10, 1) + &line(20, 1))).is_err());
    }
}
