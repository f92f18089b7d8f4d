//! The way out is gone for a while: the broker's doing, or the network's.

use skerry_tests::audit::{self, Copies, Journal};
use skerry_tests::kafka::Kafka;
use skerry_tests::node::Node;
use skerry_tests::proxy::{Link, Proxy};
use skerry_tests::python::Helper;
use skerry_tests::world::{Publishing, World};
use skerry_tests::{Result, ensure, wait};

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

/// While the link is out, the node says so, stays ready, and goes on acknowledging.
fn works_without_a_link(node: &Node, publisher: &mut Helper) -> Result<()> {
    link_is(node, "down")?;
    ensure!(
        node.get("/readyz")?.status == 200,
        "an outage made the node unready"
    );
    acked_more(publisher, 200)
}

fn audited(node: &mut Node, publisher: Helper, consumer: &mut Helper) -> Result<()> {
    let journal = Journal::read(STEADY.name, &publisher.finish(wait::START)?)?;
    ensure!(
        journal.connections() == 1,
        "the outage reached the publisher"
    );
    ensure!(
        journal.acked() == journal.sent(),
        "something was never acknowledged"
    );
    let arrived = drained(node, consumer)?;
    audit::messages(&journal, &arrived, Copies::One)?;
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    Ok(())
}

/// An orderly stop, kill -9 and SIGSTOP of the broker, one after the other.
pub(crate) fn kafka(world: &World) -> Result<()> {
    let mut kafka = world.kafka()?;
    let mut settings = world.settings()?;
    settings.kafka = Some(kafka.address());
    let mut node = world.started(settings)?;
    let mut consumer = world.consumer(&kafka.address())?;
    let mut publisher = world.publisher(node.mqtt_port(), STEADY)?;
    acked_more(&mut publisher, 300)?;
    link_is(&node, "up")?;

    kafka.stop()?;
    works_without_a_link(&node, &mut publisher)?;
    kafka.restart()?;
    link_is(&node, "up")?;
    acked_more(&mut publisher, 300)?;

    kafka.kill()?;
    works_without_a_link(&node, &mut publisher)?;
    kafka.restart()?;
    link_is(&node, "up")?;
    acked_more(&mut publisher, 300)?;

    kafka.freeze()?;
    works_without_a_link(&node, &mut publisher)?;
    kafka.thaw()?;
    link_is(&node, "up")?;
    audited(&mut node, publisher, &mut consumer)
}

/// The broker never notices; the network drops connections, refuses them, and swallows bytes.
pub(crate) fn link(world: &World) -> Result<()> {
    let (port, advertised) = (world.port()?, world.port()?);
    let kafka = Kafka::start_advertising(world.folder(), world.logs(), port, advertised)?;
    let proxy = Proxy::start_on(advertised, kafka.port())?;
    let mut settings = world.settings()?;
    settings.kafka = Some(proxy.address());
    let mut node = world.started(settings)?;
    let mut publisher = world.publisher(node.mqtt_port(), STEADY)?;
    acked_more(&mut publisher, 300)?;
    link_is(&node, "up")?;

    proxy.cut();
    works_without_a_link(&node, &mut publisher)?;
    proxy.restore();
    link_is(&node, "up")?;

    proxy.set(Link::Stalled);
    works_without_a_link(&node, &mut publisher)?;
    proxy.set(Link::Up {
        delay: std::time::Duration::from_millis(20),
        bytes_per_second: None,
    });
    link_is(&node, "up")?;

    // Cut at any moment of a transaction, many times.
    for _ in 0..10 {
        acked_more(&mut publisher, 50)?;
        proxy.cut();
        acked_more(&mut publisher, 50)?;
        proxy.restore();
    }
    let mut consumer = world.consumer(&proxy.address())?;
    audited(&mut node, publisher, &mut consumer)
}
