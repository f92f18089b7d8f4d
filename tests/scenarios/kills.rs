//! kill -9 of the node at any moment, with a crowd of clients that hold it to every word.

use std::time::{Duration, Instant};

use skerry_tests::chance::{Chance, number_from_environment};
use skerry_tests::mqtt::crowd::{Crowd, Place, Publisher, Subscriber};
use skerry_tests::mqtt::ledger::Ledger;
use skerry_tests::mqtt::{Qos, Version};
use skerry_tests::node::{self, Node};
use skerry_tests::world::World;
use skerry_tests::{Result, ensure, wait};

/// What fits in half a minute; the long run is `SKERRY_ROUNDS=500`.
const ROUNDS_DEFAULT: u64 = 16;
const PUBLISHERS: usize = 50;
const SUBSCRIBERS: usize = 20;
/// Of each publisher: a thousand messages a second for all of them, so that the machine has time
/// for the deliveries, ten for each message, whatever else it does.
const INTERVAL: Duration = Duration::from_millis(50);
/// Small enough that a kill finds most exchanges under way.
const WINDOW: usize = 10;

fn version(number: usize) -> Version {
    [Version::V311, Version::V5][number % 2]
}

/// Half of them QoS 1, half QoS 2; two topics in one stream and one in another.
fn publisher(number: usize) -> Publisher {
    let line = number % 5;
    let topics = [
        format!("plant/line{line}/{number}/speed"),
        format!("plant/line{line}/{number}/load"),
        format!("office/{number}"),
    ];
    Publisher {
        version: version(number),
        qos: [Qos::AtLeastOnce, Qos::ExactlyOnce][number / 2 % 2],
        topics: topics.into(),
        window: WINDOW,
        interval: INTERVAL,
        padding: 40,
    }
}

/// Filters that overlap within a subscriber and between them; a third asks for more on the way.
fn subscriber(number: usize, chance: &mut Chance) -> Subscriber {
    let (at_least, exactly) = (Qos::AtLeastOnce, Qos::ExactlyOnce);
    let line = number % 5;
    let filters = match number / 2 % 4 {
        0 => vec![
            ("plant/#".to_owned(), exactly),
            (format!("plant/line{line}/+/speed"), at_least),
        ],
        1 => vec![
            ("plant/+/+/speed".to_owned(), at_least),
            ("office/#".to_owned(), at_least),
        ],
        2 => vec![("#".to_owned(), exactly)],
        _ => vec![(format!("plant/line{line}/#"), exactly)],
    };
    let later = number.is_multiple_of(3).then(|| {
        let more = vec![("office/+".to_owned(), exactly)];
        (chance.millis(2_000..10_000), more)
    });
    Subscriber {
        version: version(number),
        filters,
        later,
    }
}

/// Every acknowledged message is in the log, and with every subscriber that was owed it: QoS 2
/// once, in order per publisher and topic, whatever the moment of the kill.
pub(crate) fn rounds(world: &World) -> Result<()> {
    let rounds = number_from_environment("SKERRY_ROUNDS", ROUNDS_DEFAULT)?;
    let mut chance = Chance::from_environment()?;
    let mut settings = world.settings()?;
    settings.telemetry_bytes_max = "16GiB".to_owned();
    settings.more = "\n[[stream]]\nname = \"default\"\nbytes_max = \"16GiB\"\n".to_owned();
    let mut node = world.started(settings)?;
    let place = Place {
        port: node.mqtt_port(),
        connection_lasts: Some(Duration::from_secs(10)),
    };
    let publishers = (0..PUBLISHERS).map(publisher).collect();
    let subscribers = (0..SUBSCRIBERS).map(|number| subscriber(number, &mut chance));
    let subscribers = subscribers.collect();
    let mut crowd = Crowd::start(place, publishers, subscribers, &mut chance)?;

    let mut starts = Duration::ZERO;
    for round in 0..=rounds {
        // Chance is the point: some kills hit the reconnecting crowd, some the steady one.
        std::thread::sleep(chance.millis(50..3_000));
        crowd.check()?;
        if round == rounds {
            break;
        }
        node.kill()?;
        let begin = Instant::now();
        node.start()?;
        starts += begin.elapsed();
    }
    crowd.stop_publishing()?;
    crowd.satisfied(wait::DRAIN)?;
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    let logged = log_agrees(&node, crowd.ledger())?;
    let mean_ms = starts.as_millis() / u128::from(rounds.max(1));
    let totals = crowd.ledger().totals();
    println!("  {rounds} kills, {mean_ms} ms to be up again, {logged} records, {totals:?}");
    ensure!(
        totals.sent == totals.acked,
        "something was never acknowledged"
    );
    Ok(())
}

/// The log of a node that has stopped, held against what the publishers know.
pub(crate) fn log_agrees(node: &Node, ledger: &Ledger) -> Result<u64> {
    streams_agree(node, &["telemetry", "default"], ledger)
}

/// The same where only these streams are the publishers'.
pub(crate) fn streams_agree(node: &Node, streams: &[&str], ledger: &Ledger) -> Result<u64> {
    let mut records = Vec::new();
    for stream in streams {
        node::each_logged(&node.settings().data, stream, |record| {
            if record["kind"] == "mqtt" {
                let text = |field: &str| record[field].as_str().unwrap_or_default().to_owned();
                records.push((text("source"), text("payload")));
            }
            Ok(())
        })?;
    }
    ledger.audit_log(records.into_iter())
}
