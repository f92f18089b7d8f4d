//! Disks that must be refused, and disks and streams that fill up.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use skerry_tests::audit::{self, Copies, Journal};
use skerry_tests::kafka::Kafka;
use skerry_tests::node::Node;
use skerry_tests::proxy::{Link, Proxy};
use skerry_tests::python::Helper;
use skerry_tests::world::{Publishing, World};
use skerry_tests::{Context as _, Result, ensure, wait};

use crate::common::{acked_more, drained, drained_but_for_gaps};

/// The exit code for a log that cannot be opened.
const UNAVAILABLE: i32 = 3;

/// Big messages that do not compress: a megabyte is some seven hundred of them.
const BULK: Publishing<'_> = Publishing {
    name: "bulk",
    topics: &["plant/a", "plant/b"],
    qos: 2,
    protocol: 4,
    count: 0,
    interval_ms: 0,
    pad: 3000,
};
const ASIDE: Publishing<'_> = Publishing {
    name: "aside",
    topics: &["office/a"],
    pad: 0,
    interval_ms: 10,
    ..BULK
};

/// The node must end, saying where and what to do.
fn refused(node: &Node, hint: &str) -> Result<()> {
    let output = node.run_to_end()?;
    let text = output.text();
    ensure!(
        output.code == Some(UNAVAILABLE),
        "exit code {:?}: {text}",
        output.code
    );
    let data = node.settings().data.display().to_string();
    ensure!(
        text.contains(&data),
        "the message does not name {data}: {text}"
    );
    ensure!(
        text.contains(hint),
        "the message does not say {hint:?}: {text}"
    );
    Ok(())
}

/// A second node on the same directory gives way; the first does not notice.
pub(crate) fn in_use(world: &World) -> Result<()> {
    let mut first = world.started(world.settings()?)?;
    let mut settings = world.settings()?;
    settings.data.clone_from(&first.settings().data);
    let other = world.folder().join("other");
    fs::create_dir(&other)?;
    let second = Node::new(settings, &other, &world.logs().join("other"))?;
    refused(&second, "in use by another process")?;
    ensure!(
        first.get("/readyz")?.status == 200,
        "the first node suffered"
    );
    ensure!(
        first.terminate()?.success(),
        "the first node did not stop cleanly"
    );
    Ok(())
}

pub(crate) fn read_only(world: &World) -> Result<()> {
    let settings = world.settings()?;
    let data = settings.data.clone();
    let mut node = world.started(settings)?;
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    let mount = format!(
        r#"mount --bind "{0}" "{0}" && mount -o remount,bind,ro "{0}" && exec "$@""#,
        data.display()
    );
    node.set_wrapper(&["unshare", "-rm", "sh", "-c", &mount, "sh"]);
    refused(&node, "cannot be written to")?;
    node.set_wrapper(&[]);
    node.start()?;
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    Ok(())
}

/// A file system in memory is refused, unless the config says that it is meant.
pub(crate) fn in_memory(world: &World) -> Result<()> {
    let memory = tempfile::tempdir_in("/dev/shm")?;
    let mut settings = world.settings()?;
    settings.data = memory.path().join("data");
    refused(&world.node(settings.clone())?, "allow_volatile = true")?;
    settings.allow_volatile = true;
    let mut node = world.started(settings)?;
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    Ok(())
}

fn journal(publishing: Publishing<'_>, helper: Helper) -> Result<Journal> {
    let journal = Journal::read(publishing.name, &helper.finish(wait::DRAIN)?)?;
    ensure!(
        journal.acked() == journal.sent(),
        "something was never acknowledged"
    );
    Ok(journal)
}

fn settings(world: &World, kafka: String) -> Result<skerry_tests::node::Settings> {
    let mut settings = world.settings()?;
    settings.kafka = Some(kafka);
    settings.more = "\n[store]\nsegment = \"256KiB\"\n".to_owned();
    Ok(settings)
}

/// With the cluster away, a stream of a few megabytes fills up. One that blocks refuses new
/// messages until the cluster is back; the others go on. One that drops says what it dropped.
pub(crate) fn stream_full(world: &World) -> Result<()> {
    let mut kafka = world.kafka()?;
    kafka.stop()?;
    let mut blocking = settings(world, kafka.address())?;
    blocking.telemetry_bytes_max = "2MiB".to_owned();
    blocking.more.push_str(
        "\n[[stream]]\nname = \"newest\"\ntopics = [\"newest/#\"]\nbytes_max = \"2MiB\"\nwhen_full = \"drop_oldest\"\n",
    );
    let mut node = world.started(blocking)?;
    let port = node.mqtt_port();
    let mut bulk = world.publisher(port, BULK)?;
    node.wait_for_status("the stream is full", wait::DRAIN, |status: &Value| {
        status["store"]["refused_full_total"]
            .as_u64()
            .is_some_and(|count| count > 0)
    })?;
    let mut aside = world.publisher(port, ASIDE)?;
    acked_more(&mut aside, 100)?;
    let newest = Publishing {
        name: "newest",
        topics: &["newest/a"],
        count: 2500,
        ..BULK
    };
    let newest = Journal::read("newest", &world.publisher(port, newest)?.join(wait::DRAIN)?)?;
    ensure!(
        node.get("/healthz")?.status == 200,
        "a full stream made the node unhealthy"
    );

    kafka.restart()?;
    acked_more(&mut bulk, 300)?;
    let (bulk, aside) = (journal(BULK, bulk)?, journal(ASIDE, aside)?);
    let mut consumer = world.consumer(&kafka.address())?;
    let arrived = drained_but_for_gaps(&node, &mut consumer)?;
    audit::messages(&bulk, &arrived, Copies::One)?;
    audit::messages(&aside, &arrived, Copies::One)?;
    let accounts = audit::accounts(&arrived)?;
    for (stream, account) in &accounts {
        let given_up = account.in_gaps.len();
        ensure!(
            (given_up > 0) == (stream == "newest"),
            "{stream} gave up {given_up}"
        );
    }
    let account = accounts
        .get("newest")
        .context("nothing of the stream that drops")?;
    ensure!(
        account.len() >= newest.sent() as u64,
        "less went in than was acknowledged"
    );
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    Ok(())
}

/// The whole disk is full: nobody is acknowledged, the node stays and says so, and goes on by
/// itself once there is space. What was acknowledged is there.
pub(crate) fn full(world: &World) -> Result<()> {
    let mut kafka = world.kafka()?;
    kafka.stop()?;
    let disk = world.folder().join("disk");
    let (mut node, mut bulk) = on_a_full_disk(world, kafka.address(), &disk)?;
    ensure!(node.get("/readyz")?.status == 503, "ready on a full disk");
    ensure!(node.is_running()?, "the node ended: {}", node.output()?);

    throw_off_ballast(&mut node, &disk)?;
    acked_more(&mut bulk, 300)?;
    let has_space = |status: &Value| status["store"]["storage"]["state"] == "ok";
    node.wait_for_status("the disk has space", wait::DRAIN, has_space)?;
    ensure!(
        node.get("/readyz")?.status == 200,
        "not ready although there is space"
    );
    kafka.restart()?;
    let bulk = journal(BULK, bulk)?;
    let mut consumer = world.consumer(&kafka.address())?;
    let arrived = drained(&node, &mut consumer)?;
    audit::messages(&bulk, &arrived, Copies::One)?;
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    Ok(())
}

/// The disk is full when the cluster comes back: what is delivered makes room for what is new,
/// though the node can hardly note how far it is.
pub(crate) fn full_in_a_drain(world: &World) -> Result<()> {
    let (port, advertised) = (world.port()?, world.port()?);
    let kafka = Kafka::start_advertising(world.folder(), world.logs(), port, advertised)?;
    let proxy = Proxy::start_on(advertised, kafka.port())?;
    proxy.cut();
    let disk = world.folder().join("disk");
    let (mut node, mut bulk) = on_a_full_disk(world, proxy.address(), &disk)?;
    // Slow enough that it is full for a good part of the drain.
    proxy.set(Link::slow(Duration::from_millis(20), 8_000_000));
    acked_more(&mut bulk, 3_000)?;
    let bulk = journal(BULK, bulk)?;
    let mut consumer = world.consumer(&kafka.address())?;
    let arrived = drained(&node, &mut consumer)?;
    audit::messages(&bulk, &arrived, Copies::One)?;
    ensure!(
        node.get("/readyz")?.status == 200,
        "not ready although all is delivered"
    );
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    Ok(())
}

/// A node on a small file system of its own, most of it taken by a ballast that can be thrown off
/// and the rest by what the publisher sent.
fn on_a_full_disk(world: &World, kafka: String, disk: &Path) -> Result<(Node, Helper)> {
    fs::create_dir(disk)?;
    let mut settings = settings(world, kafka)?;
    settings.data = disk.join("data");
    settings.allow_volatile = true;
    let mut node = world.node(settings)?;
    let mount = format!(
        r#"mount -t tmpfs -o size=24m none "{0}" && head -c 16M /dev/zero >"{0}/ballast" && exec "$@""#,
        disk.display()
    );
    node.set_wrapper(&["unshare", "-rm", "sh", "-c", &mount, "sh"]);
    node.start()?;
    let bulk = world.publisher(node.mqtt_port(), BULK)?;
    let is_full = |status: &Value| status["store"]["storage"]["state"] == "storage_failed";
    node.wait_for_status("the disk is full", wait::DRAIN, is_full)?;
    Ok((node, bulk))
}

/// The file system lives in the node's own mount namespace.
fn throw_off_ballast(node: &mut Node, disk: &Path) -> Result<()> {
    let root = format!("/proc/{}/root", node.running()?.id());
    let ballast = disk.strip_prefix("/")?.join("ballast");
    Ok(fs::remove_file(Path::new(&root).join(ballast))?)
}
