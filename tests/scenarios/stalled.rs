//! A disk that stands still while everybody publishes as fast as they can.

use std::time::{Duration, Instant};

use skerry_tests::chance::{Chance, number_from_environment};
use skerry_tests::disk::Disk;
use skerry_tests::mqtt::crowd::{Crowd, Place, Publisher, Subscriber};
use skerry_tests::mqtt::ledger::Totals;
use skerry_tests::mqtt::{Qos, Version};
use skerry_tests::world::World;
use skerry_tests::{Result, ensure, wait};

use crate::kills::log_agrees;

/// Long enough to fill every buffer on the way; the long run is `SKERRY_STALL_SECS=60`.
const STALL_SECS_DEFAULT: u64 = 12;
/// By then a frozen disk has stopped the last acknowledgement and the last read.
const SETTLED: Duration = Duration::from_secs(4);
const STEADY: Duration = Duration::from_secs(3);
const PUBLISHERS: usize = 20;
const PAYLOAD_BYTES: usize = 1000;
const DISK_MEBIBYTES: u64 = 2048;
/// What all that may be under way takes at most: each publisher's 1,024 uncommitted messages,
/// as read and as packed for the disk, and the subscribers' mailboxes.
const GROWTH_KIB_MAX: u64 = 64 * 1024;

/// As fast as the network takes it: no window of its own but what MQTT has ids for.
fn publisher(number: usize) -> Publisher {
    Publisher {
        version: [Version::V311, Version::V5][number % 2],
        qos: [Qos::AtLeastOnce, Qos::ExactlyOnce][number / 2 % 2],
        topics: vec![format!("plant/{number}")],
        window: 60_000,
        interval: Duration::ZERO,
        padding: PAYLOAD_BYTES,
    }
}

fn subscriber(number: usize) -> Subscriber {
    Subscriber {
        version: [Version::V311, Version::V5][number % 2],
        filters: vec![(format!("plant/{number}"), Qos::ExactlyOnce)],
        later: None,
    }
}

/// Acknowledgements stop, so does reading, memory stays where it is; then all goes on, and what
/// was acknowledged is there.
pub(crate) fn disk(world: &World) -> Result<()> {
    let stall = Duration::from_secs(number_from_environment(
        "SKERRY_STALL_SECS",
        STALL_SECS_DEFAULT,
    )?);
    let mut chance = Chance::from_environment()?;
    let disk = Disk::new(world.folder(), DISK_MEBIBYTES)?;
    let mut settings = world.settings()?;
    settings.data = disk.path().join("data");
    let mut node = world.started(settings)?;
    let place = Place {
        port: node.mqtt_port(),
        connection_lasts: None,
    };
    let publishers = (0..PUBLISHERS).map(publisher).collect();
    let subscribers = (0..2).map(subscriber).collect();
    let mut crowd = Crowd::start(place, publishers, subscribers, &mut chance)?;

    // What the disk sustains is what is acknowledged while everybody pushes: no client waits for
    // anything but the network, which takes as much as the node reads.
    std::thread::sleep(STEADY);
    crowd.check()?;
    let sustained = crowd.ledger().totals().acked / STEADY.as_secs();
    let before_kib = node.memory()?.resident_kib;

    let frozen = disk.freeze()?;
    let begin = Instant::now();
    std::thread::sleep(SETTLED);
    let settled = crowd.ledger().totals();
    std::thread::sleep(stall.saturating_sub(begin.elapsed()));
    let at_the_end = crowd.ledger().totals();
    let peak_kib = node.memory()?.peak_kib;
    ensure!(node.is_running()?, "the node ended: {}", node.output()?);
    drop(frozen);
    crowd.check()?;
    stands_still(settled, at_the_end)?;
    let growth_kib = peak_kib.saturating_sub(before_kib);
    println!(
        "  {sustained} msg/s before; stalled {stall:?} with {} under way; memory {before_kib} KiB, at most {peak_kib} KiB",
        at_the_end.sent - at_the_end.acked
    );
    ensure!(
        growth_kib < GROWTH_KIB_MAX,
        "memory grew by {growth_kib} KiB, {GROWTH_KIB_MAX} allowed"
    );

    wait::until_true("the node goes on", wait::DRAIN, || {
        crowd.check()?;
        Ok(crowd.ledger().totals().acked > at_the_end.acked + sustained)
    })?;
    crowd.stop_publishing()?;
    crowd.satisfied(wait::DRAIN)?;
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    log_agrees(&node, crowd.ledger())?;
    let totals = crowd.ledger().totals();
    println!("  {totals:?}");
    ensure!(
        totals.sent == totals.acked,
        "something was never acknowledged"
    );
    Ok(())
}

fn stands_still(settled: Totals, at_the_end: Totals) -> Result<()> {
    ensure!(
        settled.acked == at_the_end.acked,
        "{} messages were acknowledged on a disk that stands still",
        at_the_end.acked - settled.acked
    );
    ensure!(
        settled.sent == at_the_end.sent,
        "publishers were not held back: {} more messages were taken",
        at_the_end.sent - settled.sent
    );
    Ok(())
}
