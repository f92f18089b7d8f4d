//! kill -9 of the node while everything is under way.

use skerry_tests::audit::{self, Copies, Journal};
use skerry_tests::node::Node;
use skerry_tests::python::Helper;
use skerry_tests::world::{Publishing, World};
use skerry_tests::{Result, ensure, wait};

use crate::common::{acked_more, drained, log_agrees};

const KILLS: u32 = 5;
/// Acknowledged between two kills, by each publisher.
const BETWEEN: usize = 300;

const AT_LEAST_ONCE: Publishing<'_> = Publishing {
    name: "once-or-more",
    topics: &["plant/a", "plant/b", "office/c"],
    qos: 1,
    protocol: 4,
    count: 0,
    interval_ms: 1,
    pad: 0,
};
const EXACTLY_ONCE: Publishing<'_> = Publishing {
    name: "exactly-once",
    qos: 2,
    protocol: 5,
    ..AT_LEAST_ONCE
};

struct Publishers {
    qos1: Helper,
    qos2: Helper,
}

impl Publishers {
    fn start(world: &World, node: &Node) -> Result<Self> {
        let qos1 = world.publisher(node.mqtt_port(), AT_LEAST_ONCE)?;
        let qos2 = world.publisher(node.mqtt_port(), EXACTLY_ONCE)?;
        Ok(Self { qos1, qos2 })
    }

    fn acked_more(&mut self, count: usize) -> Result<()> {
        acked_more(&mut self.qos1, count)?;
        acked_more(&mut self.qos2, count)
    }

    fn finish(self) -> Result<[(Journal, Copies); 2]> {
        let qos1 = Journal::read(AT_LEAST_ONCE.name, &self.qos1.finish(wait::START)?)?;
        let qos2 = Journal::read(EXACTLY_ONCE.name, &self.qos2.finish(wait::START)?)?;
        for journal in [&qos1, &qos2] {
            ensure!(
                journal.acked() == journal.sent(),
                "something was never acknowledged"
            );
            ensure!(
                journal.connections() > 1,
                "the publisher was never interrupted"
            );
        }
        Ok([(qos1, Copies::OnePerConnection), (qos2, Copies::One)])
    }
}

/// Killed again and again while Kafka is there: QoS 2 once, QoS 1 at least once, and the log
/// once in the cluster.
pub(crate) fn node_killed(world: &World) -> Result<()> {
    let kafka = world.kafka()?;
    let mut settings = world.settings()?;
    settings.kafka = Some(kafka.address());
    let mut node = world.started(settings)?;
    let mut consumer = world.consumer(&kafka.address())?;
    let mut publishers = Publishers::start(world, &node)?;
    for _ in 0..KILLS {
        publishers.acked_more(BETWEEN)?;
        node.kill()?;
        node.start()?;
    }
    publishers.acked_more(BETWEEN)?;
    let journals = publishers.finish()?;
    let arrived = drained(&node, &mut consumer)?;
    for (journal, copies) in &journals {
        audit::messages(journal, &arrived, *copies)?;
    }
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    for stream in ["telemetry", "default"] {
        log_agrees(&node, stream, &arrived)?;
    }
    Ok(())
}

/// The same with nobody to deliver to, from a first start without a cluster on.
pub(crate) fn offline(world: &World) -> Result<()> {
    let mut kafka = world.kafka()?;
    kafka.stop()?;
    let mut settings = world.settings()?;
    settings.kafka = Some(kafka.address());
    let mut node = world.started(settings)?;
    let mut publishers = Publishers::start(world, &node)?;
    for _ in 0..2 {
        publishers.acked_more(BETWEEN)?;
        node.kill()?;
        node.start()?;
    }
    publishers.acked_more(BETWEEN)?;
    let journals = publishers.finish()?;
    kafka.restart()?;
    let mut consumer = world.consumer(&kafka.address())?;
    let arrived = drained(&node, &mut consumer)?;
    for (journal, copies) in &journals {
        audit::messages(journal, &arrived, *copies)?;
    }
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    Ok(())
}
