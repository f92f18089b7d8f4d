//! Publishing groups: several subscriptions in one session, and everything that holds for one of
//! them holds for each.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[expect(dead_code, reason = "the module serves more than one test binary")]
mod liar;
#[expect(dead_code, reason = "the module serves more than one test binary")]
mod plant;

use liar::{Answer, Liar, Published};
use plant::{Client, TICK, World, gaps, wait};
use skerry_bridge::opcua::{Config, Group, GroupId, Node, Snapshot, State};
use skerry_simulation::opcua_server::historian::{Archive, Historian};
use skerry_store::{Kind, Record};
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

/// What there is at the server, and is subscribed to at three paces.
const TAGS: [&str; 3] = ["plain", "fast", "slow"];

async fn server(world: &World) -> Historian {
    let archive = Archive::default();
    let server = Historian::start(0, world.directory.path(), &[], &TAGS, &archive);
    server.await.unwrap()
}

/// A tag in no group, and one in each of two.
fn config(world: &World, url: &str) -> Config {
    let mut config = world.config(url, &[]);
    config.publishing_interval = Duration::from_millis(200);
    for (name, interval_ms, priority) in [("fast", 100, 200), ("slow", 1_000, 10)] {
        config.groups.push(Group {
            name: name.to_owned(),
            publishing_interval: Duration::from_millis(interval_ms),
            priority,
        });
    }
    let groups = [None, GroupId::new(0), GroupId::new(1)];
    let nodes = TAGS.into_iter().zip(groups).map(|(tag, group)| {
        let id = Historian::node_id(tag).parse().unwrap();
        let mut node = Node::new(tag, id, Duration::from_millis(50));
        node.group = group;
        node
    });
    config.nodes = nodes.collect();
    config
}

async fn set(server: &Historian, count: i64) {
    for tag in TAGS {
        server.set(tag, count, SystemTime::now()).unwrap();
    }
    tokio::time::sleep(TICK).await;
}

/// A tag's good values in the order of the log.
fn counts(records: &[Record], tag: &str) -> Vec<i64> {
    let values = records
        .iter()
        .filter(|record| record.kind == Kind::Opcua && record.source == tag && record.status == 0);
    values
        .map(|record| {
            let payload: serde_json::Value = serde_json::from_slice(&record.payload).unwrap();
            payload["value"].as_i64().unwrap()
        })
        .collect()
}

async fn until_last(world: &World, count: i64) {
    let last = |records: &[Record], tag| counts(records, tag).last() == Some(&count);
    world
        .until("the last value of each", |records| {
            TAGS.iter().all(|tag| last(records, tag))
        })
        .await;
}

/// The subscription that a publish answer is of, whether it brings data or not.
fn subscription(answer: &Answer) -> Option<u32> {
    let id = answer.fields().get(..4)?;
    Some(u32::from_le_bytes(id.try_into().unwrap()))
}

fn whole(count: i64) -> Vec<i64> {
    (0..=count).collect()
}

fn connected(status: &Snapshot) -> bool {
    status.state == State::Connected && status.values_total >= 3
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_has_its_own_pace_and_a_crash_leaves_neither_hole_nor_double() {
    let world = World::new();
    let server = server(&world).await;
    let first = Client::run(&world, config(&world, &server.url()));
    first.until("a value of each", connected).await;
    let status = first.status.snapshot();
    assert_eq!(server.subscriptions(), 3);
    let granted: Vec<_> = status
        .groups
        .iter()
        .map(|group| (group.name.as_str(), group.granted.publishing_interval_ms))
        .collect();
    assert_eq!(granted, [("fast", 100), ("slow", 1_000)]);
    assert_eq!(status.granted.unwrap().publishing_interval_ms, 200);
    for group in &status.groups {
        assert_eq!(group.granted.lifetime_ms, 600_000, "{group:?}");
    }
    let mut lead = 0;
    for count in 1..=8 {
        set(&server, count).await;
        let so_far = world.records();
        let (fast, slow) = (counts(&so_far, "fast"), counts(&so_far, "slow"));
        lead = lead.max(fast.len().saturating_sub(slow.len()));
    }
    assert!(
        lead >= 3,
        "the fast ones come while the slow ones wait: {lead}"
    );
    first.crash().await;
    for count in 9..=20 {
        set(&server, count).await;
    }
    let second = Client::run(&world, config(&world, &server.url()));
    for count in 21..=26 {
        set(&server, count).await;
    }
    until_last(&world, 26).await;
    assert_eq!(server.subscriptions(), 3, "the ones from before");
    second.stop().await;
    let records = world.records();
    for tag in TAGS {
        assert_eq!(counts(&records, tag), whole(26), "{tag}");
    }
    assert_eq!(gaps(&records), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_message_is_fetched_again_in_each_and_told_where_it_cannot() {
    let world = World::new();
    let server = server(&world).await;
    let liar = Liar::between(server.port()).await;
    let client = Client::run(&world, config(&world, &liar.url()));
    client.until("a value of each", connected).await;
    tokio::time::sleep(TICK).await;
    // One message of each never arrives; that the client misses it shows with the next.
    let mut lost = BTreeSet::new();
    liar.lie(3, liar::PUBLISH, move |answer| {
        let published = Published::of(answer)?;
        lost.insert(published.subscription).then(Vec::<Answer>::new)
    });
    let mut count = 0;
    while !liar.has_lied() || client.status.snapshot().republished_total < 3 {
        count += 1;
        set(&server, count).await;
        assert!(count < 100, "{:?}", client.status.snapshot());
    }
    until_last(&world, count).await;
    let records = world.records();
    for tag in TAGS {
        assert_eq!(counts(&records, tag), whole(count), "{tag}");
    }
    assert_eq!(gaps(&records), []);

    // And now the server does not have it any more, in one group only.
    let slow = server_side(&liar, &server, &mut count).await;
    let mut lost = false;
    liar.lie(2, liar::PUBLISH, move |answer| {
        let published = Published::of(answer)?;
        if published.subscription != slow {
            return None;
        }
        match std::mem::replace(&mut lost, true) {
            false => Some(Vec::new()),
            true => Some(vec![answer.with(&published.nothing_kept())]),
        }
    });
    while !liar.has_lied() {
        count += 1;
        set(&server, count).await;
    }
    count += 1;
    set(&server, count).await;
    until_last(&world, count).await;
    client.stop().await;
    let records = world.records();
    for tag in ["plain", "fast"] {
        assert_eq!(counts(&records, tag), whole(count), "{tag}");
    }
    let gaps = gaps(&records);
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert!(
        gaps[0]
            .reason
            .contains("gone from the server, in group `slow`"),
        "{gaps:?}"
    );
}

/// The server's number of the slow group's subscription: the last that was made.
async fn server_side(liar: &Liar, server: &Historian, count: &mut i64) -> u32 {
    let (tell, told) = std::sync::mpsc::channel();
    liar.lie(u32::MAX, liar::PUBLISH, move |answer| {
        let _ = tell.send(subscription(answer)?);
        None::<Vec<Answer>>
    });
    let mut seen = BTreeSet::new();
    while seen.len() < 3 {
        *count += 1;
        set(server, *count).await;
        seen.extend(told.try_iter());
    }
    liar.is_honest_again();
    *seen.last().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_falls_silent_is_noticed_though_the_others_talk() {
    let world = World::new();
    let server = server(&world).await;
    let liar = Liar::between(server.port()).await;
    let client = Client::run(&world, config(&world, &liar.url()));
    client.until("a value of each", connected).await;
    let mut count = 0;
    let slow = server_side(&liar, &server, &mut count).await;
    liar.lie(u32::MAX, liar::PUBLISH, move |answer| {
        (subscription(answer)? == slow).then(Vec::<Answer>::new)
    });
    let noticed = |status: &Snapshot| status.reconnects_total > 0;
    // Values of the others come all the while.
    while !noticed(&client.status.snapshot()) {
        count += 1;
        set(&server, count).await;
        assert!(count < 300, "{:?}", client.status.snapshot());
    }
    liar.is_honest_again();
    client
        .until("connected", |s| s.state == State::Connected)
        .await;
    count += 1;
    set(&server, count).await;
    until_last(&world, count).await;
    client.stop().await;
    let records = world.records();
    for tag in TAGS {
        assert_eq!(counts(&records, tag), whole(count), "{tag}");
    }
    assert_eq!(gaps(&records), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_is_configured_no_more_leaves_nothing_at_the_server() {
    let world = World::new();
    let server = server(&world).await;
    let grouped = config(&world, &server.url());
    let client = Client::run(&world, grouped.clone());
    client.until("a value of each", connected).await;
    client.crash().await;
    // The last one of the first group, and everything out of the second.
    let mut fewer = grouped.clone();
    fewer.groups.truncate(1);
    fewer
        .nodes
        .iter_mut()
        .for_each(|node| node.group = GroupId::new(0));
    let client = Client::run(&world, fewer);
    client.until("a value of each", connected).await;
    wait("one subscription", || server.subscriptions() == 1).await;
    assert_eq!(client.status.snapshot().granted, None, "all are in a group");
    set(&server, 1).await;
    until_last(&world, 1).await;
    client.crash().await;
    let mut none = grouped;
    none.groups.clear();
    none.nodes.iter_mut().for_each(|node| node.group = None);
    let client = Client::run(&world, none);
    client.until("a value of each", connected).await;
    wait("one subscription", || server.subscriptions() == 1).await;
    set(&server, 2).await;
    until_last(&world, 2).await;
    client.stop().await;
    let told = gaps(&world.records());
    assert_eq!(told.len(), 2, "one for each change: {told:?}");
}
