//! A node with a backlog, on its way to the cluster.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use skerry_tests::node::{self, Node};
use skerry_tests::{Context as _, Result, bail, ensure, wait};

use super::Maybe;
use super::backlog::{self, Backlog};
use crate::processes::cpu_seconds;

/// Settings that a build may not know yet.
const RECENT: [&str; 3] = ["pack", "bandwidth", "priority"];
/// Often enough for a drain of seconds, and too seldom to cost anything.
const LOOK: Duration = Duration::from_millis(100);
/// No progress for so long is none.
const STALLED: Duration = Duration::from_secs(120);

/// Whether records go one by one or many as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pack {
    Off,
    Auto,
}

impl Pack {
    fn toml(self) -> &'static str {
        match self {
            Self::Off => "pack = \"off\"\n",
            Self::Auto => "pack = \"auto\"\n",
        }
    }
}

/// Where to and how.
#[derive(Debug, Clone, Default)]
pub(super) struct Way {
    pub(super) brokers: String,
    /// As the node has it by itself, where it is not said.
    pub(super) pack: Option<Pack>,
    /// Further keys of `[kafka]`.
    pub(super) kafka_more: String,
    /// Whole sections more.
    pub(super) more: String,
}

pub(super) struct Site {
    node: Node,
    folder: PathBuf,
}

/// What a node has done at a moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    pub(super) at: Instant,
    /// Records that the cluster has confirmed.
    pub(super) confirmed: u64,
    pub(super) head: u64,
    pub(super) cpu_seconds: f64,
}

/// Between two marks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    pub(super) records: f64,
    pub(super) seconds: f64,
    pub(super) cpu_seconds: f64,
}

impl Work {
    pub(super) fn between(from: Mark, to: Mark) -> Result<Self> {
        ensure!(to.confirmed > from.confirmed, "nothing was delivered");
        Ok(Self {
            records: (to.confirmed - from.confirmed) as f64,
            seconds: (to.at - from.at).as_secs_f64(),
            cpu_seconds: to.cpu_seconds - from.cpu_seconds,
        })
    }

    pub(super) fn rate(&self) -> f64 {
        self.records / self.seconds
    }

    pub(super) fn cpu_seconds_per_million(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.records
    }
}

impl Site {
    /// A started node on a copy of `backlog`, or on an empty disk, with topics of its own.
    pub(super) fn start(
        folder: &Path,
        backlog: Option<&Backlog>,
        way: &Way,
    ) -> Result<Maybe<Self>> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let folder = folder.join(format!("site-{number}"));
        fs::create_dir_all(&folder)?;
        let mut settings = backlog::settings(&folder)?;
        settings.kafka = Some(way.brokers.clone());
        settings.kafka_topic = format!("site-{number}.{{stream}}");
        settings.kafka_more = format!("positions_topic = \"site-{number}.positions\"\n");
        settings.kafka_more.push_str(&way.kafka_more);
        settings.more.clone_from(&way.more);
        if let Some(pack) = way.pack {
            let without = settings.clone();
            settings.kafka_more.push_str(pack.toml());
            // What does not know the word sends each record by itself.
            if pack == Pack::Off
                && unknown(&Node::new(settings.clone(), &folder, &folder)?)?.is_some()
            {
                settings = without;
            }
        }
        let mut node = Node::new(settings, &folder, &folder)?;
        if let Some(why) = unknown(&node)? {
            return Ok(Err(why));
        }
        if let Some(backlog) = backlog {
            backlog.copy(&node.settings().data.clone())?;
        }
        node.start()?;
        Ok(Ok(Self { node, folder }))
    }

    pub(super) fn mqtt_port(&self) -> u16 {
        self.node.mqtt_port()
    }

    pub(super) fn node(&mut self) -> &mut Node {
        &mut self.node
    }

    /// The topic of one of its streams.
    pub(super) fn topic(&self, stream: &str) -> String {
        self.node.settings().kafka_topic.replace("{stream}", stream)
    }

    pub(super) fn mark(&mut self) -> Result<Mark> {
        let status = self.node.status()?;
        let streams = status["uplink"]["streams"].as_array();
        let telemetry = streams
            .into_iter()
            .flatten()
            .find(|stream| stream["stream"] == "telemetry")
            .context("no stream `telemetry` in /status")?;
        if telemetry["state"] == "held" {
            bail!(
                "the node holds its records back: {}",
                telemetry["last_error"]
            );
        }
        let number = |name: &str| {
            telemetry[name]
                .as_u64()
                .with_context(|| format!("no {name}"))
        };
        Ok(Mark {
            at: Instant::now(),
            confirmed: number("position")?,
            head: number("head")?,
            cpu_seconds: cpu_seconds(self.node.running()?.id())?,
        })
    }

    /// The first moment at which something has arrived.
    pub(super) fn begun(&mut self) -> Result<Mark> {
        let mut mark = None;
        wait::until_true("the drain begins", STALLED, || {
            let now = self.mark()?;
            mark = Some(now);
            Ok(now.confirmed > 0)
        })?;
        mark.context("the wait ended with it")
    }

    /// The moment at which everything has arrived.
    pub(super) fn drained(&mut self) -> Result<Mark> {
        let mut last = self.mark()?;
        loop {
            let now = self.mark()?;
            if now.confirmed == now.head {
                return Ok(now);
            }
            if now.confirmed > last.confirmed {
                last = now;
            }
            ensure!(
                now.at - last.at < STALLED,
                "no progress at {}",
                now.confirmed
            );
            std::thread::sleep(LOOK);
        }
    }

    /// A node that is in the middle of something may be killed: its disk is a copy.
    pub(super) fn remove(mut self) -> Result<()> {
        self.node.kill()?;
        Ok(fs::remove_dir_all(&self.folder)?)
    }
}

/// The complaint of `skerry check` where it is about a setting that this build does not know.
fn unknown(node: &Node) -> Result<Option<String>> {
    let checked = node::skerry(&["check".as_ref(), node.config().as_os_str()])?;
    if checked.code == Some(0) {
        return Ok(None);
    }
    let text = checked.text();
    let complaint = text
        .lines()
        .find(|line| RECENT.iter().any(|key| line.contains(key)));
    let complaint = complaint.with_context(|| format!("skerry check: {text}"))?;
    let place = format!("{}:", node.config().display());
    let complaint = complaint.trim().trim_start_matches(&place);
    Ok(Some(format!("this build does not take it: {complaint}")))
}
