//! The uplink against the stand-in for the cluster: whatever is cut, killed or copied, every
//! offset arrives once, in order per source, or as a gap that says why.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod common;

use bytes::Bytes;
use common::{
    Node, SOURCES, STREAM, append, append_large, audit, audit_offsets, config, copy, delivered,
    noise, open, stream,
};
use skerry_bridge::uplink::gate::Pack;
use skerry_bridge::uplink::{
    self, CURSOR, Delivery, Key, LaneState, LinkState, NewTopics, Snapshot, TopicTemplate,
    quarantine,
};
use skerry_simulation::central::{Central, Delivered};
use skerry_store::{Append, Kind, Offset, Record, StreamName};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn records_arrive_with_their_names_and_positions() {
    let central = Central::start(0).await.unwrap();
    let disk = tempfile::tempdir_in(".").unwrap();
    let log = open(disk.path());
    append(&log, 100).await;
    let node = Node::start(&log, config(&central));
    node.until_delivered(&log).await;
    append(&log, 50).await;
    node.until_delivered(&log).await;
    let status = node.stop().await;

    audit(&central, &log, 150);
    let first = &delivered(&central)[0];
    assert_eq!(first.header("skerry-node"), Some("vessel-7"));
    assert_eq!(
        first.header("skerry-epoch"),
        Some(&*format!("{:016x}", log.epoch()))
    );
    assert_eq!(first.header("skerry-kind"), Some("mqtt"));
    assert_eq!(status.link.state, LinkState::Up);
    assert_eq!(status.streams[0].delivered_total, 150);
    assert_eq!(status.streams[0].lag_records, 0);
    assert_eq!(log.cursor(CURSOR, &stream()).unwrap(), Some(Offset(150)));
}

#[tokio::test(flavor = "multi_thread")]
async fn once_through_cuts_and_kills() {
    let central = Central::start(0).await.unwrap();
    let disk = tempfile::tempdir_in(".").unwrap();
    let log = open(disk.path());
    for round in 0..12_u64 {
        append(&log, 400).await;
        let node = Node::start(&log, config(&central));
        // Somewhere in the middle of connecting, fencing, reading back, sending, committing.
        tokio::time::sleep(Duration::from_millis(3 + round * round)).await;
        central.cut();
        append(&log, 100).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        central.restore();
        tokio::time::sleep(Duration::from_millis(40 + round * 17 % 60)).await;
        node.kill().await;
    }
    let node = Node::start(&log, config(&central));
    node.until_delivered(&log).await;
    node.stop().await;
    audit(&central, &log, 12 * 500);
    assert!(central.counts().transactions_committed > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_is_believed_when_the_disk_forgot_that_it_delivered() {
    let central = Central::start(0).await.unwrap();
    let disk = tempfile::tempdir_in(".").unwrap();
    let log = open(disk.path());
    append(&log, 300).await;
    log.close().await.unwrap();
    // The same disk, before it ever delivered.
    let before = tempfile::tempdir_in(".").unwrap();
    copy(disk.path(), before.path());

    let log = open(disk.path());
    let node = Node::start(&log, config(&central));
    node.until_delivered(&log).await;
    node.stop().await;
    drop(log);

    let log = open(before.path());
    assert_eq!(log.cursor(CURSOR, &stream()).unwrap(), None);
    let node = Node::start(&log, config(&central));
    node.until_delivered(&log).await;
    node.stop().await;
    audit(&central, &log, 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_went_on_from_an_old_image_is_held() {
    let central = Central::start(0).await.unwrap();
    let disk = tempfile::tempdir_in(".").unwrap();
    let log = open(disk.path());
    append(&log, 100).await;
    log.close().await.unwrap();
    let image = tempfile::tempdir_in(".").unwrap();
    copy(disk.path(), image.path());

    let log = open(disk.path());
    append(&log, 50).await;
    let node = Node::start(&log, config(&central));
    node.until_delivered(&log).await;
    node.stop().await;
    drop(log);

    // Behind the cluster at first; then ahead of it, with other records at the same offsets.
    let log = open(image.path());
    for more in [0, 100] {
        append(&log, more).await;
        let node = Node::start(&log, config(&central));
        let held = |status: &Snapshot| status.streams.iter().any(|s| s.state == LaneState::Held);
        node.until(held).await;
        let status = node.stop().await;
        let error = status.streams[0].last_error.clone().unwrap();
        assert!(error.contains("restored from an image"), "{error}");
    }
    assert_eq!(delivered(&central).len(), 150);

    // Released, it goes on by itself; what is new has a name of its own.
    let node = Node::start(&log, config(&central));
    let from = uplink::release(&log, &stream(), Some(Offset(100))).await;
    assert_eq!(from.unwrap(), Offset(100));
    node.until_delivered(&log).await;
    node.stop().await;
    let node = Node::start(&log, config(&central));
    append(&log, 10).await;
    node.until_delivered(&log).await;
    node.stop().await;
    let old = format!("{:016x}", log.epoch());
    let mut added = delivered(&central);
    added.retain(|record| record.header("skerry-epoch") != Some(&*old));
    let offsets = added.iter().map(|record| record.header("skerry-offset"));
    let offsets: Vec<u64> = offsets
        .map(|offset| offset.unwrap().parse().unwrap())
        .collect();
    let mut sorted = offsets.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (100..210).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_the_cluster_refuses_becomes_a_gap_and_blocks_nothing() {
    let central = Central::start(0).await.unwrap();
    let disk = tempfile::tempdir_in(".").unwrap();
    let log = open(disk.path());
    append(&log, 40).await;
    append_large(&log).await;
    append(&log, 40).await;

    let node = Node::start(&log, config(&central));
    node.until_delivered(&log).await;
    let status = node.stop().await;
    assert_eq!(status.streams[0].quarantined_total, 1);
    assert_eq!(status.streams[0].delivered_total, 80);
    let all = delivered(&central);
    audit_offsets(&all, 81);
    let gap = all
        .iter()
        .find(|record| record.header("skerry-offset") == Some("40"))
        .unwrap();
    assert_eq!(gap.header("skerry-kind"), Some("gap"));
    let text = std::str::from_utf8(gap.value.as_ref().unwrap()).unwrap();
    assert!(text.contains("quarantined"), "{text}");

    // The record itself is kept, with numbers that say what to change.
    let kept = quarantine::list(&log, true).unwrap();
    assert_eq!((kept.len(), quarantine::waiting(&log).unwrap()), (1, 1));
    assert_eq!((kept[0].stream.as_str(), kept[0].offset.0), (STREAM, 40));
    assert_eq!(kept[0].topic, "skerry.telemetry");
    for part in ["MessageTooLarge", "max.message.bytes=1048588", "about 1500"] {
        assert!(kept[0].reason.contains(part), "{}", kept[0].reason);
    }
    let (_, copy) = quarantine::find(&log, kept[0].id).unwrap().unwrap();
    assert_eq!(copy.payload, noise(1_500_000));
    let elsewhere = central.records();
    assert!(elsewhere.iter().all(|r| !r.topic.contains("quarantine")));

    // Once the topic takes it, it is delivered as a record of its own.
    central.set_message_bytes_max(2_000_000);
    quarantine::retry(&log, kept[0].id, "ada").await.unwrap();
    let node = Node::start(&log, config(&central));
    node.until_delivered(&log).await;
    node.stop().await;
    let all = delivered(&central);
    audit_offsets(&all, 82);
    let again = |r: &&Delivered| r.header("skerry-retry-of") == Some("telemetry/40");
    let again = all.iter().find(again).unwrap();
    assert_eq!(again.header("skerry-offset"), Some("81"));
    assert_eq!(again.value.as_deref(), Some(&noise(1_500_000)[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_record_is_copied_once_through_kills() {
    let central = Central::start(0).await.unwrap();
    let disk = tempfile::tempdir_in(".").unwrap();
    let log = open(disk.path());
    append(&log, 10).await;
    append_large(&log).await;
    append(&log, 10).await;
    let quarantine = StreamName::new(quarantine::QUARANTINE).unwrap();
    let copies = log.head(&quarantine).unwrap();
    // The first run ends as soon as the copy is there, the gap not yet; later ones anywhere.
    for round in 0..8 {
        let node = Node::start(&log, config(&central));
        let deadline = Instant::now() + Duration::from_secs(60);
        while copies.borrow().0 == 0 {
            assert!(Instant::now() < deadline, "{:#?}", node.status.snapshot());
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        tokio::time::sleep(Duration::from_millis(5 * round)).await;
        node.kill().await;
    }
    let node = Node::start(&log, config(&central));
    node.until_delivered(&log).await;
    node.stop().await;
    audit_offsets(&delivered(&central), 21);
    assert_eq!(copies.borrow().0, 1);
    assert_eq!(quarantine::list(&log, true).unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_with_one_name_fence_each_other_and_repeat_nothing() {
    let central = Central::start(0).await.unwrap();
    let disk = tempfile::tempdir_in(".").unwrap();
    let log = open(disk.path());
    let (one, two) = (
        Node::start(&log, config(&central)),
        Node::start(&log, config(&central)),
    );
    for _ in 0..20 {
        append(&log, 50).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    one.until_delivered(&log).await;
    one.stop().await;
    two.until_delivered(&log).await;
    two.stop().await;
    audit(&central, &log, 1_000);
    assert!(central.counts().producers_fenced > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn packed_records_are_there_once_through_cuts_and_kills() {
    let central = Central::start(0).await.unwrap();
    let disk = tempfile::tempdir_in(".").unwrap();
    let log = open(disk.path());
    let mut config = config(&central);
    config.route.pack = Some(Pack::Auto);
    for round in 0..6_u64 {
        append(&log, 2_000).await;
        let node = Node::start(&log, config.clone());
        tokio::time::sleep(Duration::from_millis(10 + round * 11)).await;
        central.cut();
        tokio::time::sleep(Duration::from_millis(20)).await;
        central.restore();
        tokio::time::sleep(Duration::from_millis(60)).await;
        node.kill().await;
    }
    let node = Node::start(&log, config);
    node.until_delivered(&log).await;
    let status = node.stop().await;
    let all = delivered(&central);
    let blocks = all
        .iter()
        .filter(|record| record.header("skerry-pack").is_some());
    assert!(blocks.count() > 0);
    assert!(all.len() < 1_000, "{} records", all.len());
    audit_offsets(&unpacked(&all), 12_000);
    assert!(status.wire.is_some_and(|wire| wire.sent_bytes_total > 0));
}

/// What a consumer makes of blocks: the records as they would have been.
fn unpacked(records: &[Delivered]) -> Vec<Delivered> {
    let mut all = Vec::new();
    for record in records {
        if record.header("skerry-pack").is_none() {
            all.push(record.clone());
            continue;
        }
        let block = skerry_pack::unpack(record.value.as_ref().unwrap()).unwrap();
        for row in block.rows() {
            let headers = row.headers.map(|header| {
                let name = String::from_utf8(header.name.to_vec()).unwrap();
                (name, header.value.map(Bytes::copy_from_slice))
            });
            all.push(Delivered {
                key: Some(Bytes::copy_from_slice(row.key)),
                value: Some(Bytes::copy_from_slice(row.value)),
                headers: headers.collect(),
                ..record.clone()
            });
        }
    }
    all
}

/// Both go on from one image. Which of them comes first is theirs to find out; after that the
/// other must leave it alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_clone_is_held_and_stays_out_of_the_way() {
    let central = Central::start(0).await.unwrap();
    let disk = tempfile::tempdir_in(".").unwrap();
    let log = open(disk.path());
    append(&log, 100).await;
    let node = Node::start(&log, config(&central));
    node.until_delivered(&log).await;
    node.stop().await;
    log.close().await.unwrap();
    let copied = tempfile::tempdir_in(".").unwrap();
    copy(disk.path(), copied.path());

    let (log, clone) = (open(disk.path()), open(copied.path()));
    let node = Node::start(&log, config(&central));
    append(&log, 50).await;
    node.until_delivered(&log).await;
    append(&clone, 50).await;
    let cloned = Node::start(&clone, config(&central));
    let held = |status: &Snapshot| status.streams.iter().any(|s| s.state == LaneState::Held);
    cloned.until(held).await;
    append(&log, 50).await;
    node.until_delivered(&log).await;
    let fenced = central.counts().producers_fenced;
    let attempts = cloned.status.snapshot().streams[0].retries_total;
    for _ in 0..10 {
        append(&log, 10).await;
        node.until_delivered(&log).await;
    }
    cloned
        .until(|status| status.streams[0].retries_total > attempts + 2)
        .await;
    assert_eq!(central.counts().producers_fenced, fenced);
    node.stop().await;
    assert_eq!(cloned.stop().await.streams[0].delivered_total, 0);
    audit(&central, &log, 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_transactions_nothing_is_lost_and_repeats_can_be_told() {
    let central = Central::start(0).await.unwrap();
    let disk = tempfile::tempdir_in(".").unwrap();
    let log = open(disk.path());
    let mut config = config(&central);
    config.delivery = Delivery::AtLeastOnce;
    for round in 0..6_u64 {
        append(&log, 400).await;
        let node = Node::start(&log, config.clone());
        tokio::time::sleep(Duration::from_millis(5 + round * 13)).await;
        central.cut();
        tokio::time::sleep(Duration::from_millis(20)).await;
        central.restore();
        tokio::time::sleep(Duration::from_millis(60)).await;
        node.kill().await;
    }
    let node = Node::start(&log, config);
    node.until_delivered(&log).await;
    let status = node.stop().await;
    assert_eq!(central.counts().transactions_committed, 0);
    assert!(
        status.streams[0].delivered_total < 6 * 400,
        "from where it was"
    );
    let mut named = BTreeSet::new();
    let mut all = delivered(&central);
    all.retain(|record| named.insert(record.header("skerry-offset").map(str::to_owned)));
    audit_offsets(&all, 6 * 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_away_is_a_state_and_a_missing_topic_is_named() {
    let central = Central::start(0).await.unwrap();
    central.cut();
    let disk = tempfile::tempdir_in(".").unwrap();
    let log = open(disk.path());
    append(&log, 10).await;
    let mut config = config(&central);
    config.create_topics = None;
    let node = Node::start(&log, config);
    node.until(|status| status.link.state == LinkState::Down)
        .await;
    assert!(node.status.snapshot().link.because.is_some());
    central.restore();
    let missing = |status: &Snapshot| {
        let error = status
            .streams
            .first()
            .and_then(|stream| stream.last_error.as_deref());
        let error = error.unwrap_or_default();
        error.contains("`skerry.telemetry`") && error.contains("`create_topics = true`")
    };
    node.until(missing).await;
    let status = node.stop().await;
    assert_eq!(status.streams[0].delivered_total, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_have_topics_of_their_own_and_all_arrive_once() {
    let central = Central::start(0).await.unwrap();
    let disk = tempfile::tempdir_in(".").unwrap();
    let log = open(disk.path());
    append(&log, 300).await;
    let mut config = config(&central);
    config.route.topic = TopicTemplate::new("by.{stream}.{2}").unwrap();
    config.route.key = Key::Node;
    let node = Node::start(&log, config.clone());
    node.until_delivered(&log).await;
    let status = node.stop().await;
    assert_eq!(status.streams[0].topic, "by.{stream}.{2}");
    let mut all = central.records();
    all.retain(|record| record.topic.starts_with("by."));
    let topics: BTreeSet<&str> = all.iter().map(|record| record.topic.as_str()).collect();
    assert_eq!(topics.len() as u64, SOURCES);
    for record in &all {
        let source = record.header("skerry-source").unwrap();
        let number = source.strip_prefix("source/").unwrap();
        assert_eq!(record.topic, format!("by.telemetry.{number}"));
    }
    let offset = |record: &Delivered| record.header("skerry-offset").unwrap().parse().unwrap();
    let offsets: BTreeSet<u64> = all.iter().map(offset).collect();
    assert_eq!((offsets.len(), all.len()), (300, 300));

    // One that is missing stops the stream there, and only until somebody creates it.
    config.create_topics = None;
    let stray = Record::new(Kind::Mqtt, "source/stray", "1");
    let append_stray = Append {
        stream: stream(),
        records: vec![stray],
        changes: Vec::new(),
    };
    log.append(append_stray).await.unwrap();
    let node = Node::start(&log, config.clone());
    let waits = |status: &Snapshot| {
        let error = status.streams.first().and_then(|s| s.last_error.clone());
        error.is_some_and(|error| error.contains("`by.telemetry.stray`"))
    };
    node.until(waits).await;
    node.stop().await;
    config.create_topics = Some(NewTopics::default());
    let node = Node::start(&log, config);
    node.until_delivered(&log).await;
    node.stop().await;
}
