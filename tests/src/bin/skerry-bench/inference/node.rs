//! The whole path: values in over MQTT, into the log, through windows and models, scores into the
//! log. What it costs, whether anything is lost, and how long after a value its score is durable.
//!
//! The delay is looked at from outside: the node is asked again and again how many scores are
//! durable. So a score is never found sooner than it was, and later by up to the time between two
//! questions; as the questions cost too, the processor time is that of the time before them. What
//! the disk takes for a sync meanwhile is told beside it: a value and its score wait for one each.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use skerry_tests::load::{Kept, Sources};
use skerry_tests::node::{self, Node, Settings};
use skerry_tests::{Context as _, Result, ensure, wait};

use super::plant::Plant;
use super::probe::{self, Probe};
use super::{Scale, fresh, in_state, print};
use crate::figures::{Aim, Rounds, median, quantile};
use crate::processes::{cpu_seconds, memory_bytes, with_children};

const HERTZ: u32 = 10;
const WHAT: &str = "1,000 sources x 10 Hz, 10 models";
/// Between two questions.
const ASK: Duration = Duration::from_millis(4);
/// Between two syncs that are timed.
const SYNC: Duration = Duration::from_millis(100);
/// From a reading on disk to its alert.
const AIM_MS: f64 = 20.0;

/// What one run of a node was like.
struct Turn {
    cpu_ms_per_thousand: f64,
    /// Of one core.
    share: f64,
    bytes: f64,
    delay_ms: Option<Quantiles>,
    alert_ms: Option<Quantiles>,
    sync_ms: Option<Quantiles>,
    latest_ms: f64,
}

/// A number of something measured.
type Of<T, N = f64> = fn(&T) -> N;

#[derive(Clone, Copy)]
struct Quantiles {
    p50: f64,
    p99: f64,
}

impl Quantiles {
    fn of(values: &[f64]) -> Option<Self> {
        let at = |share| quantile(values.iter().copied(), share);
        let (p50, p99) = (at(0.5)?, at(0.99)?);
        Some(Self { p50, p99 })
    }
}

/// How many scores were durable at a time in nanoseconds since the Unix epoch.
struct Seen {
    head: u64,
    at: i64,
}

pub(super) fn run(folder: &Path, scale: Scale) -> Result<()> {
    let (plant, probe) = (Plant::new()?, Probe::new()?);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..scale.rounds {
        with.push(turn(&fresh(folder)?, scale, &plant, Some(&probe))?);
        without.push(turn(&fresh(folder)?, scale, &plant, None)?);
    }
    let of = |turns: &[Turn], figure: Of<Turn>| -> Vec<f64> { turns.iter().map(figure).collect() };
    let latest = of(&with, |turn| turn.latest_ms);
    let latest = latest.into_iter().fold(0.0, f64::max);
    let show = |figure: &str, unit, ours: &[f64], theirs: Option<&[f64]>, aim, more: &Value| {
        let line = Rounds {
            figure: &format!("{figure}, {WHAT}"),
            unit,
            ours,
            peer: theirs.map(|_| "skerry without models"),
            theirs: theirs.unwrap_or_default(),
            aim,
        };
        let mut line = line.figure();
        // Every turn ends with counting all of it, and fails if one is missing.
        line["none_lost"] = json!(true);
        line["load_late_ms_max"] = json!(latest);
        for (name, value) in more.as_object().into_iter().flatten() {
            line[name.as_str()] = value.clone();
        }
        print(&line);
    };
    let figures: [(&str, &str, Of<Turn>); 3] = [
        ("processor time", "ms/1,000 values", |turn| {
            turn.cpu_ms_per_thousand
        }),
        ("share of a core", "cores", |turn| turn.share),
        (
            "memory of the node and its models' process",
            "bytes",
            |turn| turn.bytes,
        ),
    ];
    for (what, unit, figure) in figures {
        let (with, without) = (of(&with, figure), of(&without, figure));
        show(what, unit, &with, Some(&without), None, &Value::Null);
    }
    let all = |figure: Of<Turn, Option<Quantiles>>| -> Option<Vec<_>> {
        with.iter().map(figure).collect()
    };
    let missing = "the log has no score of the measured time";
    let delays = all(|turn| turn.delay_ms).context(missing)?;
    let alerts = all(|turn| turn.alert_ms).context("no alert was published")?;
    let syncs = all(|turn| turn.sync_ms).context("no sync was timed")?;
    let quantiles: [(&str, Of<Quantiles>, _); 2] = [
        ("p50", |of| of.p50, None),
        ("p99", |of| of.p99, Some(Aim::AtMost(AIM_MS))),
    ];
    for (name, quantile, aim) in quantiles {
        let of = |turns: &[Quantiles]| turns.iter().map(quantile).collect::<Vec<_>>();
        let sync = json!({"disk_sync_ms": median(of(&syncs))});
        let figure = format!("a window's last value to its score durable, {name}");
        show(&figure, "ms", &of(&delays), None, None, &sync);
        let figure = format!("a reading durable to its alert at a subscriber, {name}");
        show(&figure, "ms", &of(&alerts), None, aim, &sync);
    }
    Ok(())
}

/// Values flow for the time of the warm-up, for that in which the processor's time is taken, and
/// for that in which the delays are.
fn turn(folder: &Path, scale: Scale, plant: &Plant, probe: Option<&Probe>) -> Result<Turn> {
    let mut settings = Settings::new(folder)?;
    let mut models = 0;
    if let Some(probe) = probe {
        settings.more = plant.config() + &probe.config();
        models = plant.models.len() + 1;
    }
    let mut node = Node::new(settings, folder, folder)?;
    node.start()?;
    // A model begins with what comes from then on.
    node.wait_for_status("every model is running", wait::START, |status| {
        in_state(status, "running") == models
    })?;
    let id = node.running()?.id();
    let time = scale.warm_up + 2 * scale.measured;
    let topics = plant.topics();
    let load = Sources {
        groups: &topics,
        hertz: HERTZ,
        ticks: time.as_secs() * u64::from(HERTZ),
    };
    let port = node.mqtt_port();
    let (cpu, bytes, asked, alerts_ms, kept) = thread::scope(|scope| {
        let publishing = scope.spawn(|| {
            load.run(port, |model, source, tick| {
                plant.payload(model, source, tick)
            })
        });
        thread::sleep(scale.warm_up);
        let cpu = cpu(id, scale.measured)?;
        let bytes = with_children(id)?.into_iter().map(memory_bytes);
        let bytes: u64 = bytes.sum::<Result<u64>>()?;
        let probing = probe.map(|probe| scope.spawn(|| probe.run(port, scale.measured)));
        let asked = ask(&node, folder, scale.measured)?;
        let probing = probing.map(|it| it.join().expect("the probe does not panic"));
        let alerts_ms = probing.transpose()?.unwrap_or_default();
        let kept = publishing.join().expect("the load does not panic")?;
        Ok::<_, skerry_tests::Error>((cpu, bytes, asked, alerts_ms, kept))
    })?;
    let expected = match probe {
        Some(_) => plant.scores(load.ticks) + alerts_ms.len() as u64,
        None => 0,
    };
    wait::until("a score for each window", wait::DRAIN, || {
        let head = head(&node.status()?, "scores");
        ensure!(head >= expected, "{head} of {expected} scores");
        Ok(Some(()))
    })?;
    let data = node.settings().data.clone();
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    nothing_is_lost(&data, plant, load, kept, probe.map(|_| alerts_ms.len()))?;
    let values = (topics.iter().map(Vec::len).sum::<usize>() * HERTZ as usize) as f64;
    Ok(Turn {
        cpu_ms_per_thousand: cpu * 1e6 / values,
        share: cpu,
        bytes: bytes as f64,
        delay_ms: delays(&data, &asked.seen)?,
        alert_ms: Quantiles::of(&alerts_ms),
        sync_ms: Quantiles::of(&asked.syncs_ms),
        latest_ms: kept.latest.as_secs_f64() * 1e3,
    })
}

/// Processor seconds per second, of a node and the process of its models.
fn cpu(id: u32, time: Duration) -> Result<f64> {
    let spent = |ids: &[u32]| ids.iter().map(|id| cpu_seconds(*id)).sum::<Result<f64>>();
    let ids = with_children(id)?;
    let (begun, before) = (Instant::now(), spent(&ids)?);
    thread::sleep(time);
    Ok((spent(&ids)? - before) / begun.elapsed().as_secs_f64())
}

struct Asked {
    seen: Vec<Seen>,
    syncs_ms: Vec<f64>,
}

fn ask(node: &Node, folder: &Path, time: Duration) -> Result<Asked> {
    let file = File::create(folder.join("synced"))?;
    let begun = Instant::now();
    thread::scope(|scope| {
        let syncing = scope.spawn(|| {
            let mut syncs_ms = Vec::new();
            while begun.elapsed() < time {
                let started = Instant::now();
                file.write_all_at(&[7; 4096], 0)?;
                file.sync_data()?;
                syncs_ms.push(started.elapsed().as_secs_f64() * 1e3);
                thread::sleep(SYNC);
            }
            Ok::<_, skerry_tests::Error>(syncs_ms)
        });
        let mut seen = Vec::new();
        while begun.elapsed() < time {
            let head = head(&node.status()?, "scores");
            let at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
            let at = i64::try_from(at)?;
            seen.push(Seen { head, at });
            thread::sleep(ASK);
        }
        let syncs_ms = syncing.join().expect("timing a sync does not panic")?;
        Ok(Asked { seen, syncs_ms })
    })
}

/// Of a stream; zero before its first record.
fn head(status: &Value, stream: &str) -> u64 {
    let streams = status["store"]["streams"].as_array();
    let mut streams = streams.into_iter().flatten();
    let stream = streams.find(|it| it["name"] == stream);
    stream
        .and_then(|it| it["head"].as_u64())
        .unwrap_or_default()
}

/// Every value is in the log once, and so is every score, in its asset's order.
fn nothing_is_lost(
    data: &Path,
    plant: &Plant,
    load: Sources<'_>,
    kept: Kept,
    alerts: Option<usize>,
) -> Result<()> {
    let mut values: BTreeMap<String, u64> = BTreeMap::new();
    node::each_logged(data, "telemetry", |record| {
        let source = record["source"].as_str().context("no source")?;
        *values.entry(source.to_owned()).or_default() += 1;
        Ok(())
    })?;
    let probed = values.remove(&Probe::topic()).unwrap_or_default();
    let sources = load.groups.iter().map(Vec::len).sum::<usize>();
    ensure!(
        values.len() == sources && values.values().all(|count| *count == load.ticks),
        "of {sources} sources with {} values each {} are in the log: {} of {} values",
        load.ticks,
        values.len(),
        values.values().sum::<u64>(),
        kept.published
    );
    let Some(alerts) = alerts else {
        return Ok(());
    };
    let mut scores: BTreeMap<String, u64> = BTreeMap::new();
    node::each_logged(data, "scores", |record| {
        let source = record["source"].as_str().context("no source")?;
        let next = scores.entry(source.to_owned()).or_default();
        let sequence = record["payload"]["sequence"].as_u64();
        ensure!(
            sequence == Some(*next),
            "score {next} of {source}: {record}"
        );
        *next += 1;
        Ok(())
    })?;
    let answered = scores.remove(&format!("{0}/{0}", probe::NAME));
    ensure!(
        probed == alerts as u64 && answered == Some(probed),
        "{alerts} alerts of {probed} readings with {answered:?} scores"
    );
    for model in &plant.models {
        let expected = model.scores(load.ticks);
        for asset in 0..model.assets() {
            let source = format!("{0}/{0}-{asset}", model.name);
            let there = scores.remove(&source).unwrap_or_default();
            ensure!(there == expected, "{source}: {there} of {expected} scores");
        }
    }
    ensure!(scores.is_empty(), "scores of nobody: {scores:?}");
    Ok(())
}

/// Of the scores that became durable while the node was asked.
fn delays(data: &Path, seen: &[Seen]) -> Result<Option<Quantiles>> {
    let first = seen.first().context("nothing was seen")?.head;
    let mut took_ms = Vec::new();
    if seen.iter().all(|seen| seen.head == 0) {
        return Ok(None);
    }
    node::each_logged(data, "scores", |record| {
        let offset = record["offset"].as_u64().context("no offset")?;
        let value = record["payload"]["to_ns"].as_i64().context("no time")?;
        let by_then = seen.partition_point(|seen| seen.head <= offset);
        if let Some(seen) = seen.get(by_then).filter(|_| offset >= first) {
            took_ms.push((seen.at - value) as f64 / 1e6);
        }
        Ok(())
    })?;
    Ok(Quantiles::of(&took_ms))
}
