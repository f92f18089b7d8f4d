//! A board with little memory: the node may have 96 MiB, children and page cache included, and
//! everybody wants something of it at once.

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use skerry_tests::audit;
use skerry_tests::cgroup::MemoryLimit;
use skerry_tests::chance::{Chance, number_from_environment};
use skerry_tests::kafka::Kafka;
use skerry_tests::load::Fill;
use skerry_tests::mqtt::crowd::{Crowd, Place, Publisher, Subscriber};
use skerry_tests::mqtt::{Qos, Version};
use skerry_tests::node::Node;
use skerry_tests::proxy::Proxy;
use skerry_tests::world::World;
use skerry_tests::{Context as _, Result, bail, ensure, wait, workspace};

use crate::common::{drained, heads};
use crate::kills::streams_agree;

/// systemd's `MemoryMax=96M`; another number of mebibytes shows where the node's end is.
const LIMIT_MEBIBYTES: u64 = 96;
const PUBLISHERS: usize = 12;
const SUBSCRIBERS: usize = 2;
const PAYLOAD_BYTES: usize = 4_000;
/// Of these publishers: more bytes than the limit has, not compressed, so that the page cache has
/// to be taken back again and again. Half of them while the cluster is away.
const MESSAGES: u64 = 30_000;
/// Reports for the models, by fifty further connections.
const REPORTS: u64 = 10_000;
/// Names and what the reports of `press-NN` say, by the columns of the model's tensor.
const MODELS: [(&str, &str, u32); 2] = [
    ("bearing", "bearing/bearing.onnx", 32),
    ("press", "press/press.onnx", 48),
];
const COLUMNS: [&str; 4] = ["vibration", "temp", "current", "rpm"];

fn sections() -> String {
    let root = workspace::root().join("inference/models");
    let inputs = COLUMNS
        .map(|column| format!(r#"{{ mqtt = "plant/hall-1/{{asset}}", pointer = "/{column}" }}"#));
    let inputs = inputs.join(", ");
    let mut text =
        "\n[[stream]]\nname = \"default\"\nbytes_max = \"1GiB\"\ncodec = \"none\"\n".to_owned();
    for (name, file, window) in MODELS {
        let file = root.join(file);
        write!(
            text,
            "\n[[model]]\nname = \"{name}\"\nfile = \"{}\"\nassets = [ \"press-00\", \"press-01\" ]\n\
             window = {window}\nstep = 1\nthreshold = 1e9\ninputs = [ {inputs} ]\n",
            file.display(),
        )
        .expect("a String takes everything");
    }
    text
}

/// As fast as the network takes it, and at another topic than what the models look at.
fn publisher(number: usize) -> Publisher {
    Publisher {
        version: [Version::V311, Version::V5][number % 2],
        qos: [Qos::AtLeastOnce, Qos::ExactlyOnce][number / 2 % 2],
        topics: vec![format!("site/{number}")],
        window: 60_000,
        interval: Duration::ZERO,
        padding: PAYLOAD_BYTES,
    }
}

fn subscriber(number: usize) -> Subscriber {
    Subscriber {
        version: Version::V5,
        filters: vec![(
            "site/#".to_owned(),
            [Qos::AtLeastOnce, Qos::ExactlyOnce][number % 2],
        )],
        later: None,
    }
}

/// Publishers at full speed, subscribers, a backlog that the cluster gets while more comes in, and
/// two models: nobody is killed for want of memory, and nothing is lost.
pub(crate) fn full_load(world: &World) -> Result<()> {
    let mebibytes = number_from_environment("SKERRY_MEMORY_MIB", LIMIT_MEBIBYTES)?;
    let limit = MemoryLimit::new("board", mebibytes << 20)?;
    let mut chance = Chance::from_environment()?;
    let (port, advertised) = (world.port()?, world.port()?);
    let kafka = Kafka::start_advertising(world.folder(), world.logs(), port, advertised)?;
    let proxy = Proxy::start_on(advertised, kafka.port())?;
    proxy.cut();
    let mut settings = world.settings()?;
    settings.kafka = Some(proxy.address());
    settings.more = sections();
    let mut node = world.node(settings)?;
    node.set_wrapper(&limit.wrapper().each_ref().map(String::as_str));
    node.start()?;
    let first = node.running()?.id();
    let begin = Instant::now();

    let place = Place {
        port: node.mqtt_port(),
        connection_lasts: None,
    };
    let publishers = (0..PUBLISHERS).map(publisher).collect();
    let subscribers = (0..SUBSCRIBERS).map(subscriber).collect();
    let mut crowd = Crowd::start(place, publishers, subscribers, &mut chance)?;
    let reports = thread::spawn(move || {
        let fill = Fill {
            records: REPORTS,
            seed: 7,
        };
        fill.run(place.port)
    });
    let mut watch = Watch::new(&limit);
    watch.until("half is acknowledged, the cluster away", || {
        crowd.check()?;
        alive(&mut node, &limit)?;
        Ok(crowd.ledger().totals().acked > MESSAGES / 2)
    })?;
    proxy.restore();
    watch.until("all is acknowledged, the backlog draining", || {
        crowd.check()?;
        alive(&mut node, &limit)?;
        Ok(crowd.ledger().totals().acked > MESSAGES)
    })?;
    crowd.stop_publishing()?;
    let Ok(reported) = reports.join() else {
        bail!("the reporters panicked");
    };
    let reported = reported.context("the reports for the models")?;
    crowd.satisfied(wait::DRAIN)?;
    watch.until("the cluster has everything", || {
        alive(&mut node, &limit)?;
        confirmed(&node)
    })?;
    let took = begin.elapsed();

    alive(&mut node, &limit)?;
    ensure!(node.running()?.id() == first, "another node than at first");
    let scored = scored(&node)?;
    let own = node.memory()?.peak_kib / 1024;
    println!(
        "  {:.1?}; of {mebibytes} MiB: at its most {} MiB with page cache, {} MiB without; the node's own {own} MiB",
        took,
        limit.peak_bytes()? >> 20,
        watch.anonymous_bytes >> 20,
    );
    println!(
        "  {:?}, {reported} reports, {scored} scores",
        crowd.ledger().totals()
    );

    let mut consumer = world.consumer_of_many(&kafka.address())?;
    let arrived = drained(&node, &mut consumer)?;
    let accounts = audit::accounts(&arrived)?;
    let count = |stream: &str| accounts.get(stream).map_or(0, audit::Account::len);
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    let in_log = streams_agree(&node, &["default"], crowd.ledger())?;
    ensure!(
        count("default") == in_log && count("telemetry") == reported,
        "{in_log} messages and {reported} reports, in the cluster {} and {}",
        count("default"),
        count("telemetry")
    );
    Ok(())
}

/// It is there, and so is whoever runs its models.
fn alive(node: &mut Node, limit: &MemoryLimit) -> Result<()> {
    let kills = limit.kills()?;
    ensure!(kills == 0, "killed for want of memory: {kills} processes");
    ensure!(node.is_running()?, "the node ended: {}", node.output()?);
    Ok(())
}

/// Whether each stream is confirmed to its head.
fn confirmed(node: &Node) -> Result<bool> {
    let status = node.status()?;
    let streams = status["uplink"]["streams"].as_array();
    let streams = streams.context("no streams of the uplink in /status")?;
    let behind = streams
        .iter()
        .any(|stream| stream["position"] != stream["head"]);
    Ok(!behind && streams.len() >= heads(&status)?.len())
}

/// Scores so far; both models are at work and were never disabled.
fn scored(node: &Node) -> Result<u64> {
    let status = node.status()?;
    let mut total = 0;
    for (name, ..) in MODELS {
        let models = status["inference"]["models"]
            .as_array()
            .into_iter()
            .flatten();
        let model = models.into_iter().find(|model| model["name"] == name);
        let model = model.with_context(|| format!("no model {name}"))?;
        ensure!(model["state"] == "running", "{name}: {model}");
        let scores = model["scores_total"].as_u64().context("no scores_total")?;
        ensure!(scores > 0, "{name} has scored nothing: {model}");
        total += scores;
    }
    Ok(total)
}

/// Looks at the memory while it waits.
struct Watch<'a> {
    limit: &'a MemoryLimit,
    /// The most that was seen at once.
    anonymous_bytes: u64,
}

impl<'a> Watch<'a> {
    fn new(limit: &'a MemoryLimit) -> Self {
        Self {
            limit,
            anonymous_bytes: 0,
        }
    }

    /// Fails at once where `done` does: whoever was killed does not come back.
    fn until(&mut self, what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
        let begin = Instant::now();
        while !done().with_context(|| what.to_owned())? {
            ensure!(
                begin.elapsed() < wait::DRAIN,
                "{what}: not within {:?}",
                wait::DRAIN
            );
            self.anonymous_bytes = self.anonymous_bytes.max(self.limit.anonymous_bytes()?);
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}
