//! The trap that a weeks-old backlog falls into, and the three ways around it.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use skerry_tests::audit::{self, Arrived};
use skerry_tests::cluster::{Held, Operator};
use skerry_tests::kafka::{Extra, Kafka};
use skerry_tests::node::{Node, metric, skerry};
use skerry_tests::world::World;
use skerry_tests::{Context as _, Result, backlog, ensure, wait};

const DAY: u64 = 24 * 60 * 60;
const AGE: Duration = Duration::from_secs(3 * DAY);
const COUNT: u64 = 500;
const HOUR: &str = "retention.ms=3600000";
/// What a peer writes to, to see when the broker has looked for what to delete.
const TRAP: &str = "peer.trap";

/// A broker that looks every second, where others look every five minutes.
fn impatient(world: &World) -> Result<Kafka> {
    let extra = Extra {
        properties: "log.retention.check.interval.ms=1000
log.initial.task.delay.ms=500
log.segment.delete.delay.ms=500
"
        .to_owned(),
        ..Extra::default()
    };
    Kafka::start_extended(world.folder(), world.logs(), &extra)
}

/// A peer has records of this age confirmed, and they are gone: the broker has looked.
fn trapped(operator: &Operator) -> Result<()> {
    let before = operator.held(TRAP)?;
    let confirmed = operator.produce(TRAP, 100, AGE.as_secs())?;
    ensure!(confirmed == 100, "{confirmed} of 100 confirmed");
    wait::until_true("the broker has deleted them", wait::DRAIN, || {
        let held = operator.held(TRAP)?;
        Ok(held
            == Held {
                written: before.written + 100,
                readable: 0,
            })
    })
}

pub(crate) fn policies(world: &World) -> Result<()> {
    let kafka = impatient(world)?;
    let operator = Operator::new(kafka.address());
    for topic in [TRAP, "skerry.held", "skerry.stamped", "skerry.routed"] {
        operator.create(topic, &[HOUR])?;
    }
    operator.create("skerry.backfill.routed", &["retention.ms=-1"])?;
    trapped(&operator)?;

    let mut settings = world.settings()?;
    backlog::write(&settings.data, &["held", "stamped", "routed"], COUNT, AGE)?;
    settings.kafka = Some(kafka.address());
    for (stream, late) in [
        ("held", "hold"),
        ("stamped", "restamp"),
        ("routed", "backfill_topic"),
    ] {
        let table = format!("\n[[stream]]\nname = \"{stream}\"\nkafka = {{ late = \"{late}\" }}\n");
        settings.more.write_str(&table)?;
    }
    let node = world.started(settings)?;
    let position = |status: &serde_json::Value, stream: &str| {
        let streams = status["uplink"]["streams"].as_array();
        let found = streams.and_then(|all| all.iter().find(|s| s["stream"] == stream).cloned());
        found.unwrap_or_default()
    };
    let status = node.wait_for_status(
        "two streams are sent and one is held",
        wait::DRAIN,
        |status| {
            let sent = |stream| position(status, stream)["position"] == COUNT;
            sent("stamped") && sent("routed") && position(status, "held")["state"] == "held"
        },
    )?;
    let why = position(&status, "held")["last_error"].to_string();
    for part in [
        "`skerry.held`",
        "3d old",
        "retention.ms=3600000",
        "kafka-configs.sh",
        "restamp",
    ] {
        ensure!(
            why.contains(part),
            "the held stream does not say {part}: {why}"
        );
    }
    ensure!(
        position(&status, "stamped")["restamped_total"] == COUNT,
        "{status}"
    );
    ensure!(
        position(&status, "routed")["backfilled_total"] == COUNT,
        "{status}"
    );
    let metrics = node.metrics()?;
    let late = metric(&metrics, "skerry_uplink_stream_late_total");
    ensure!(late >= Some(2.0 * COUNT as f64), "late: {late:?}");
    let printed = examined(&node, "held")?;

    // Whatever the broker would delete of what was sent until now, it has looked for after this.
    trapped(&operator)?;
    trapped(&operator)?;
    ensure!(
        operator.held("skerry.held")?.written == 0,
        "something was sent to it"
    );
    let readable = read(world, &kafka, &["stamped", "routed"])?;
    judge(&readable)?;

    // What the sentence says is what helps.
    let raised = printed
        .split_whitespace()
        .find_map(|word| {
            word.strip_prefix("retention.ms=")
                .filter(|ms| *ms != "3600000")
        })
        .context("the doctor names no retention that is long enough")?
        .trim_matches(|c: char| !c.is_ascii_digit());
    operator.alter("skerry.held", &[&format!("retention.ms={raised}")])?;
    node.wait_for_status("the held stream goes on by itself", wait::DRAIN, |status| {
        position(status, "held")["position"] == COUNT
    })?;
    trapped(&operator)?;
    trapped(&operator)?;
    let readable = read(world, &kafka, &["held", "stamped", "routed"])?;
    judge(&readable)
}

/// The doctor beside the running node says of `stream` what the node says; its words.
fn examined(node: &Node, stream: &str) -> Result<String> {
    let config = node.config().display().to_string();
    let output = skerry(&["uplink", "doctor", &config])?;
    ensure!(
        output.code == Some(1),
        "the doctor ends with {:?}: {}",
        output.code,
        output.text()
    );
    let topic = format!("skerry.{stream}");
    let mut lines = output.stdout.lines();
    let found = lines.find(|l| l.starts_with("PROBLEM  retention") && l.contains(&topic));
    let (found, fix) = (found.unwrap_or_default(), lines.next().unwrap_or_default());
    ensure!(
        found.contains("3d old"),
        "the doctor says {}",
        output.stdout
    );
    ensure!(fix.contains("kafka-configs.sh"), "the doctor advises {fix}");
    Ok(fix.to_owned())
}

/// All that can be read of these streams now, from the beginning.
fn read(world: &World, kafka: &Kafka, streams: &[&str]) -> Result<Vec<Arrived>> {
    // Helpers append to what an earlier one of their name has written.
    let earlier = world.folder().join("consumer.jsonl");
    if earlier.exists() {
        fs::remove_file(earlier)?;
    }
    let mut consumer = world.consumer(&kafka.address())?;
    let of = |line: &serde_json::Value, stream: &str| line["headers"]["skerry-stream"] == stream;
    let lines = consumer.wait_for("everything is readable", wait::DRAIN, |lines| {
        streams.iter().all(|stream| {
            let there = lines.iter().filter(|line| of(line, stream)).count();
            there as u64 >= COUNT
        })
    })?;
    let wanted: Vec<_> = lines
        .into_iter()
        .filter(|line| streams.iter().any(|stream| of(line, stream)))
        .collect();
    consumer.kill()?;
    audit::arrived(&wanted)
}

/// Every offset once and in order; each record where, and dated, as its stream's policy says.
fn judge(arrived: &[Arrived]) -> Result<()> {
    for (stream, account) in audit::offsets(arrived)? {
        let count = account.delivered.len() as u64;
        ensure!(count == COUNT, "{stream}: {count} of {COUNT} can be read");
    }
    for record in arrived {
        let (stream, _) = record.origin()?;
        let ingest: i64 = record.header("skerry-ingest-time")?.parse()?;
        let own = record.timestamp_ms == ingest / 1_000_000;
        ensure!(
            record.header("skerry-backfill")? == "1",
            "not marked as late: {record:?}"
        );
        let topic = match stream.as_str() {
            "routed" => "skerry.backfill.routed".to_owned(),
            stream => format!("skerry.{stream}"),
        };
        ensure!(record.topic == topic, "{stream} is in {}", record.topic);
        match stream.as_str() {
            "stamped" => {
                ensure!(!own, "not dated anew: {record:?}");
                let event: i64 = record.header("skerry-event-time")?.parse()?;
                ensure!(event == ingest, "the event time is gone: {record:?}");
            }
            _ => ensure!(own, "dated otherwise: {record:?}"),
        }
    }
    Ok(())
}
