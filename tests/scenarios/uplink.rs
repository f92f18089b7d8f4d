//! The uplink against real clusters: brokers that come and go, a drain that is killed at any
//! moment, disks that were copied or put back, a link that is long and narrow.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use skerry_tests::audit::{self, Copies, Journal};
use skerry_tests::chance::{Chance, number_from_environment};
use skerry_tests::kafka::Kafka;
use skerry_tests::node::Node;
use skerry_tests::process::Signal;
use skerry_tests::proxy::{Link, Proxy};
use skerry_tests::python::Helper;
use skerry_tests::world::{Publishing, World};
use skerry_tests::{Context as _, Result, ensure, wait};

use crate::common::{acked_more, drained, link_is};

const STEADY: Publishing<'_> = Publishing {
    name: "steady",
    topics: &["plant/a", "plant/b", "plant/c"],
    qos: 2,
    protocol: 4,
    count: 0,
    interval_ms: 2,
    pad: 0,
};

/// Longer than a transaction's time-out, one minute, and the ten seconds after which the
/// coordinator looks again.
const ABANDONED: Duration = Duration::from_secs(120);

/// At least `count` messages, as fast as one publisher can; what it knows of them.
fn publish(world: &World, node: &Node, name: &str, count: usize) -> Result<Journal> {
    let publishing = Publishing {
        name,
        interval_ms: 0,
        qos: 1,
        ..STEADY
    };
    let mut publisher = world.publisher(node.mqtt_port(), publishing)?;
    acked_more(&mut publisher, count)?;
    Journal::read(name, &publisher.finish(wait::START)?)
}

fn journal(publisher: Helper) -> Result<Journal> {
    let journal = Journal::read(STEADY.name, &publisher.finish(wait::START)?)?;
    ensure!(
        journal.acked() == journal.sent(),
        "something was never acknowledged"
    );
    Ok(journal)
}

/// Three brokers of which two must agree: each is killed, stopped orderly and frozen in turn, so
/// that every leader and every coordinator moves, while records keep coming.
pub(crate) fn cluster(world: &World) -> Result<()> {
    let frozen = Duration::from_secs(number_from_environment("SKERRY_FREEZE_SECS", 12)?);
    let mut brokers = Kafka::cluster(world.folder(), world.logs(), 3)?;
    let addresses: Vec<_> = brokers.iter().map(Kafka::address).collect();
    let mut settings = world.settings()?;
    settings.kafka = Some(addresses.join("\", \""));
    let mut node = world.started(settings)?;
    let mut publisher = world.publisher(node.mqtt_port(), STEADY)?;
    let mut consumer = world.consumer(&addresses.join(","))?;
    acked_more(&mut publisher, 300)?;
    link_is(&node, "up")?;

    for broker in &mut brokers {
        broker.kill()?;
        delivers_more(&node, &mut publisher)?;
        broker.restart()?;
        delivers_more(&node, &mut publisher)?;
    }
    for broker in &mut brokers {
        broker.stop()?;
        broker.restart()?;
        acked_more(&mut publisher, 100)?;
    }
    for broker in &brokers {
        broker.freeze()?;
        acked_more(&mut publisher, 100)?;
        std::thread::sleep(frozen);
        broker.thaw()?;
        delivers_more(&node, &mut publisher)?;
    }
    let journal = journal(publisher)?;
    let arrived = drained(&node, &mut consumer)?;
    audit::messages(&journal, &arrived, Copies::One)?;
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    Ok(())
}

/// What is published from now on is confirmed, whatever was just done to the cluster.
fn delivers_more(node: &Node, publisher: &mut Helper) -> Result<()> {
    let (head, _) = progress(node)?;
    acked_more(publisher, 100)?;
    wait::until("delivery goes on", wait::DRAIN, || {
        Ok((progress(node)?.1 > head + 50).then_some(()))
    })
}

/// The head of the stream `telemetry`, and how far it is confirmed.
fn progress(node: &Node) -> Result<(u64, u64)> {
    let status = node.status()?;
    let streams = status["uplink"]["streams"].as_array();
    let telemetry = streams
        .into_iter()
        .flatten()
        .find(|stream| stream["stream"] == "telemetry")
        .context("no stream `telemetry` in /status")?;
    let number = |name: &str| {
        telemetry[name]
            .as_u64()
            .with_context(|| format!("no {name}"))
    };
    Ok((number("head")?, number("position")?))
}

/// A cluster that cannot be reached, and a node with a backlog for it.
fn cut_off(world: &World) -> Result<(Kafka, Proxy, Node, Journal)> {
    let (port, advertised) = (world.port()?, world.port()?);
    let kafka = Kafka::start_advertising(world.folder(), world.logs(), port, advertised)?;
    let proxy = Proxy::start_on(advertised, kafka.port())?;
    proxy.cut();
    let mut settings = world.settings()?;
    settings.kafka = Some(proxy.address());
    let node = world.started(settings)?;
    let backlog = publish(world, &node, "backlog", 20_000)?;
    Ok((kafka, proxy, node, backlog))
}

/// A backlog over a slow link, with the node killed at random points of its drain: connecting,
/// fencing, reading back, sending, committing. A thousand: `SKERRY_KILLS=1000`.
pub(crate) fn drain_killed(world: &World) -> Result<()> {
    let kills = number_from_environment("SKERRY_KILLS", 25)?;
    let mut chance = Chance::from_environment()?;
    let (kafka, proxy, mut node, backlog) = cut_off(world)?;
    // Narrow enough that it takes longer than a few kills.
    proxy.set(Link::slow(Duration::from_millis(5), 4_000_000));
    let mut steady = world.publisher(node.mqtt_port(), STEADY)?;
    for _ in 0..kills {
        std::thread::sleep(chance.millis(20..1_500));
        node.kill()?;
        node.start()?;
    }
    acked_more(&mut steady, 100)?;
    let steady = journal(steady)?;
    proxy.restore();
    let mut consumer = world.consumer(&kafka.address())?;
    let arrived = drained(&node, &mut consumer)?;
    audit::messages(&backlog, &arrived, Copies::OnePerConnection)?;
    audit::messages(&steady, &arrived, Copies::One)?;
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    println!("  {kills} kills, {} records", arrived.len());
    Ok(())
}

/// The node stands still in the middle of a transaction, for longer than the cluster waits: what
/// it had begun is undone there, and delivered once it moves again.
pub(crate) fn frozen_in_a_drain(world: &World) -> Result<()> {
    let (kafka, proxy, mut node, backlog) = cut_off(world)?;
    proxy.set(Link::slow(Duration::from_millis(50), 1_000_000));
    let (_, begun) = progress(&node)?;
    wait::until("the drain is under way", wait::DRAIN, || {
        Ok((progress(&node)?.1 > begun).then_some(()))
    })?;
    node.running()?.signal(Signal::STOP)?;
    wait::until("the cluster ends the transaction", ABANDONED, || {
        Ok(kafka.output()?.contains("due to timeout").then_some(()))
    })?;
    node.running()?.signal(Signal::CONT)?;
    proxy.restore();
    let mut consumer = world.consumer(&kafka.address())?;
    let arrived = drained(&node, &mut consumer)?;
    audit::messages(&backlog, &arrived, Copies::OnePerConnection)?;
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    Ok(())
}

/// A copy of a node's disk is started beside it, and later the node itself goes on from an old
/// image. What the cluster has stays as it is, and whoever cannot go on says so.
pub(crate) fn copied_disks(world: &World) -> Result<()> {
    let kafka = world.kafka()?;
    let mut settings = world.settings()?;
    settings.kafka = Some(kafka.address());
    let data = settings.data.clone();
    let mut node = world.started(settings)?;
    let mut consumer = world.consumer(&kafka.address())?;
    let first = publish(world, &node, "first", 500)?;
    drained(&node, &mut consumer)?;
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    let image = world.folder().join("image");
    copy(&data, &image)?;

    node.start()?;
    let second = publish(world, &node, "second", 500)?;
    drained(&node, &mut consumer)?;
    let mut settings = world.settings()?;
    settings.kafka = Some(kafka.address());
    settings.data = world.folder().join("clone");
    copy(&image, &settings.data)?;
    let mut clone = world.node_named("clone", settings)?;
    clone.start()?;
    held(&clone)?;
    // It takes records all the same, and the node that it is a copy of is not disturbed.
    publish(world, &clone, "cloned", 200)?;
    held(&clone)?;
    let third = publish(world, &node, "third", 500)?;
    let arrived = drained(&node, &mut consumer)?;
    for journal in [&first, &second, &third] {
        audit::messages(journal, &arrived, Copies::OnePerConnection)?;
    }
    ensure!(
        clone.terminate()?.success(),
        "the clone did not stop cleanly"
    );
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");

    fs::remove_dir_all(&data)?;
    copy(&image, &data)?;
    node.start()?;
    held(&node)?;
    publish(world, &node, "fourth", 700)?;
    held(&node)?;
    let now = audit::arrived(&consumer.lines()?)?;
    ensure!(
        now.len() == arrived.len(),
        "the held node delivered something"
    );
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    Ok(())
}

/// Waits until the stream `telemetry` waits for an operator, and looks at what it says.
fn held(node: &Node) -> Result<()> {
    let status = node.wait_for_status("the stream is held", wait::DRAIN, |status| {
        let streams = status["uplink"]["streams"].as_array();
        let is = |stream: &&serde_json::Value| stream["stream"] == "telemetry";
        let stream = streams.into_iter().flatten().find(is);
        stream.is_some_and(|stream| stream["state"] == "held")
    })?;
    let text = status.to_string();
    for part in ["restored from an image", "skerry uplink release telemetry"] {
        ensure!(text.contains(part), "it does not say {part:?}: {text}");
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// 600 ms there and back, 256 kbit/s: slow, packed, within a cap, and not a record less or more.
/// That it is a satellite is what the bridge says by MQTT, just before the power fails.
pub(crate) fn satellite(world: &World) -> Result<()> {
    let (port, advertised) = (world.port()?, world.port()?);
    let kafka = Kafka::start_advertising(world.folder(), world.logs(), port, advertised)?;
    let proxy = Proxy::start_on(advertised, kafka.port())?;
    proxy.cut();
    let mut settings = world.settings()?;
    settings.kafka = Some(proxy.address());
    settings.kafka_more = SATELLITE.to_owned();
    let mut node = world.started(settings)?;
    let backlog = publish(world, &node, "backlog", 4_000)?;
    link_class_is(&node, "default")?;
    let script = world.folder().join("command.jsonl");
    fs::write(&script, COMMAND)?;
    let bridge = world.replay(node.mqtt_port(), "bridge", &script)?;
    Journal::read("bridge", &bridge.join(wait::START)?)?;
    node.kill()?;
    node.start()?;
    link_class_is(&node, "satellite")?;
    proxy.set(Link::slow(Duration::from_millis(300), 256_000));
    let mut steady = world.publisher(
        node.mqtt_port(),
        Publishing {
            interval_ms: 100,
            ..STEADY
        },
    )?;
    acked_more(&mut steady, 50)?;
    link_is(&node, "up")?;
    let steady = journal(steady)?;
    let mut consumer = world.consumer(&kafka.address())?;
    let arrived = drained(&node, &mut consumer)?;
    audit::messages(&backlog, &arrived, Copies::OnePerConnection)?;
    audit::messages(&steady, &arrived, Copies::One)?;
    let sent = node.status()?["uplink"]["wire"]["sent_bytes_total"].clone();
    println!("  {} records in {sent} bytes on the wire", arrived.len());
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    Ok(())
}

const SATELLITE: &str = r#"link_topic = "vessel/link"
[[kafka.link]]
name = "satellite"
pack = "auto"
bandwidth = "240 kbit/s"
"#;
const COMMAND: &str = r#"{"topic": "vessel/link", "payload": "satellite"}"#;

fn link_class_is(node: &Node, class: &str) -> Result<()> {
    wait::until(&format!("the link is {class}"), wait::START, || {
        let chosen: serde_json::Value = serde_json::from_str(&node.get("/uplink/link")?.body)?;
        Ok((chosen["class"] == class).then_some(()))
    })
}

/// An operator deletes the topic, and makes it again.
pub(crate) fn topic_recreated(world: &World) -> Result<()> {
    let kafka = world.kafka()?;
    let mut settings = world.settings()?;
    settings.kafka = Some(kafka.address());
    let mut node = world.started(settings)?;
    let mut publisher = world.publisher(node.mqtt_port(), STEADY)?;
    acked_more(&mut publisher, 200)?;
    delivers_more(&node, &mut publisher)?;
    kafka.topics(&["--delete", "--topic", "skerry.telemetry"])?;
    acked_more(&mut publisher, 200)?;
    kafka.topics(&["--create", "--if-not-exists", "--topic", "skerry.telemetry"])?;
    delivers_more(&node, &mut publisher)?;
    journal(publisher)?;
    // What was in the deleted topic is gone with it; from some offset on everything is there.
    let consumer = world.consumer(&kafka.address())?;
    let (head, _) = progress(&node)?;
    wait::until("the new topic has the newest record", wait::DRAIN, || {
        let mut there = BTreeSet::new();
        for record in audit::arrived(&consumer.lines()?)? {
            let (stream, offset) = record.origin()?;
            let fresh = stream != "telemetry" || there.insert(offset);
            ensure!(fresh, "{stream} {offset} is in the cluster twice");
        }
        let whole = there
            .first()
            .is_some_and(|first| head - first == there.len() as u64);
        Ok(whole.then_some(()))
    })?;
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    Ok(())
}
