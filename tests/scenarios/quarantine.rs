//! Records that the cluster will not have: they hold up nothing, and an operator has the last word.

use serde_json::Value;
use skerry_tests::audit::Arrived;
use skerry_tests::kafka::{Extra, Kafka};
use skerry_tests::node::{Node, metric, skerry};
use skerry_tests::process::Output;
use skerry_tests::python::Helper;
use skerry_tests::world::{Publishing, World};
use skerry_tests::{Context as _, Result, ensure, wait};

use crate::common::drained_but_for_gaps;

const TOPIC: &str = "skerry.telemetry";
/// What every topic takes at first, and what this one takes later.
const SMALL: &str = "max.message.bytes=20000";
const LARGE: &str = "max.message.bytes=200000";

/// Publishes, and waits until all of it is acknowledged.
fn publish(
    world: &World,
    node: &Node,
    name: &str,
    topic: &str,
    count: u32,
    pad: u32,
) -> Result<()> {
    let publishing = Publishing {
        name,
        topics: &[topic],
        count,
        pad,
        ..Publishing::default()
    };
    world
        .publisher(node.mqtt_port(), publishing)?
        .join(wait::START)?;
    Ok(())
}

fn quarantine(arguments: &[&str]) -> Result<Output> {
    skerry(&[&["quarantine"], arguments].concat())
}

/// The entries that `skerry quarantine ls` gives.
fn listed(arguments: &[&str]) -> Result<Vec<Value>> {
    let output = quarantine(&[&["ls", "--json"], arguments].concat())?;
    ensure!(output.code == Some(0), "ls failed: {}", output.text());
    let lines = output.stdout.lines();
    Ok(lines.map(serde_json::from_str).collect::<Result<_, _>>()?)
}

fn waiting_is(node: &Node, count: u32) -> Result<()> {
    let what = format!("{count} records wait in quarantine");
    node.wait_for_status(&what, wait::DRAIN, |status| {
        status["uplink"]["quarantine"]["waiting"] == count
    })?;
    let metrics = node.metrics()?;
    let told = metric(&metrics, "skerry_uplink_quarantine_waiting");
    ensure!(told == Some(f64::from(count)), "/metrics says {told:?}");
    Ok(())
}

/// Waits for the record that was sent again.
fn sent_again(consumer: &mut Helper, retry_of: &str) -> Result<Arrived> {
    wait::until("the retried record is in the cluster", wait::DRAIN, || {
        let arrived = skerry_tests::audit::arrived(&consumer.lines()?)?;
        let is_it = |record: &Arrived| record.header("skerry-retry-of").ok() == Some(retry_of);
        Ok(arrived.into_iter().find(is_it))
    })
}

/// Two records are larger than the topic takes: the lane goes on, the operator sees why, has one
/// sent again once the topic takes it, and lets go of the other.
pub(crate) fn too_large(world: &World) -> Result<()> {
    let extra = Extra {
        properties: "message.max.bytes=20000\n".to_owned(),
        ..Extra::default()
    };
    let kafka = Kafka::start_extended(world.folder(), world.logs(), &extra)?;
    let mut settings = world.settings()?;
    settings.kafka = Some(kafka.address());
    let mut node = world.started(settings)?;
    publish(world, &node, "before", "plant/a", 150, 0)?;
    publish(world, &node, "large", "plant/large", 2, 60_000)?;
    publish(world, &node, "after", "plant/a", 150, 0)?;

    let mut consumer = world.consumer(&kafka.address())?;
    let arrived = drained_but_for_gaps(&node, &mut consumer)?;
    let gaps = arrived.iter().filter(|r| r.kind() == "gap").count();
    ensure!(gaps == 2, "{gaps} gaps stand for 2 records");
    waiting_is(&node, 2)?;

    let address = format!("127.0.0.1:{}", node.settings().http_port);
    let at_node = ["--node", &address];
    let kept = listed(&at_node)?;
    ensure!(kept.len() == 2, "{kept:?}");
    for kept in &kept {
        let reason = kept["reason"].as_str().context("no reason")?;
        ensure!(
            reason.contains(SMALL) && reason.contains("bytes before compression"),
            "the reason is {reason}"
        );
        ensure!(
            kept["topic"] == TOPIC && kept["source"] == "plant/large",
            "{kept}"
        );
    }
    let id = |kept: &Value| {
        kept["id"]
            .as_u64()
            .context("no id")
            .map(|id| id.to_string())
    };
    let (first, second) = (id(&kept[0])?, id(&kept[1])?);
    let printed = quarantine(&[&["ls"][..], &at_node].concat())?.text();
    ensure!(printed.contains("plant/large"), "ls prints {printed}");
    let raw = quarantine(&[&["show", &first, "--raw"][..], &at_node].concat())?;
    let payload: Value = serde_json::from_str(&raw.stdout)?;
    ensure!(
        raw.stdout.len() > 60_000 && payload["id"] == 0,
        "show --raw prints {}",
        raw.text()
    );

    // The node that runs is found by the data directory and its config, too.
    let config = node.config().display().to_string();
    kafka.tool(
        "kafka.admin.ConfigCommand",
        &[
            "--alter",
            "--entity-type",
            "topics",
            "--entity-name",
            TOPIC,
            "--add-config",
            LARGE,
        ],
    )?;
    let retried = quarantine(&["retry", &first, "--config", &config])?;
    ensure!(retried.code == Some(0), "retry failed: {}", retried.text());
    let again = sent_again(&mut consumer, &format!("telemetry/{}", kept[0]["offset"]))?;
    ensure!(again.value == raw.stdout, "another payload was sent again");
    ensure!(again.key == "plant/large", "under key {}", again.key);
    let twice = quarantine(&[&["retry", &first][..], &at_node].concat())?;
    ensure!(
        twice.code == Some(1) && twice.stderr.contains("already"),
        "a second retry: {}",
        twice.text()
    );

    let unsure = quarantine(&[&["drop", &second][..], &at_node].concat())?;
    ensure!(
        unsure.code == Some(2),
        "drop without --yes: {}",
        unsure.text()
    );
    waiting_is(&node, 1)?;
    let dropped = quarantine(&[&["drop", "--all", "--yes"][..], &at_node].concat())?;
    ensure!(dropped.code == Some(0), "drop failed: {}", dropped.text());
    waiting_is(&node, 0)?;

    // All of it is in the log, so a stopped node's is as good.
    drained_but_for_gaps(&node, &mut consumer)?;
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    let settled = listed(&["--all", "--config", &config])?;
    let how: Vec<_> = settled
        .iter()
        .map(|kept| kept["settled"]["how"].clone())
        .collect();
    ensure!(how == ["retried", "dropped"], "settled as {how:?}");
    ensure!(
        listed(&["--config", &config])?.is_empty(),
        "something waits"
    );
    let anew = quarantine(&["drop", &second, "--yes", "--config", &config])?;
    ensure!(anew.code == Some(1), "dropped twice: {}", anew.text());
    Ok(())
}
