//! Servers that lie: the client neither ends nor swells, says what is wrong where it can, goes on
//! once it is told the truth, and other endpoints do not notice.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[expect(dead_code, reason = "the module serves more than one test binary")]
mod liar;
#[expect(dead_code, reason = "what only other tests need")]
mod plant;

use liar::{Answer, Liar, Published, change, changes, extension};
use plant::{Client, World, counts, gaps, set};
use skerry_bridge::opcua::{self, State, Visit};
use skerry_store::Record;
use std::time::Duration;

/// Variant types (Part 6, table 1); 0x80 is an array.
const INT64: u8 = 8;
const STRING: u8 = 12;
const BYTE_STRING: u8 = 15;
const VARIANT: u8 = 24;
const UNKNOWN: u8 = 63;
/// What a length field can say at most.
const MOST: [u8; 4] = i32::MAX.to_le_bytes();

/// The highest that this process's memory has been.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() / 1024
}

/// More than everything here needs, and far less than what is announced.
const PEAK_MIB: u64 = 400;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lengths_that_cannot_be_are_refused_and_asked_for_again() {
    unreadable(vec![
        ("notifications without end", MOST.to_vec()),
        ("changes without end", changes(i32::MAX, &[])),
        ("a text without end", changes(1, &change(1, STRING, &MOST))),
        (
            "bytes without end",
            changes(1, &change(1, BYTE_STRING, &MOST)),
        ),
        (
            "an array without end",
            changes(1, &change(1, INT64 | 0x80, &MOST)),
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_cannot_be_are_refused_and_asked_for_again() {
    unreadable(vec![
        ("fewer than no changes", changes(-7, &[])),
        (
            "a type that is none",
            changes(1, &change(1, UNKNOWN, &[0; 8])),
        ),
        (
            "variants in variants",
            changes(1, &change(1, VARIANT, &[VARIANT; 4096])),
        ),
        (
            "a body longer than the message",
            extension(811, i32::MAX, &[1, 0, 0, 0]),
        ),
    ])
    .await;
}

/// Has a client read these instead of notifications, one after the other, and then the truth.
async fn unreadable(lies: Vec<(&str, Vec<u8>)>) {
    let world = World::new();
    let plant = world.plant(0).await;
    let liar = Liar::between(plant.port()).await;
    let client = Client::start(&world, &liar.url(), &["count"]);
    let mut honest = world.config(&plant.url(), &["count"]);
    honest.name = "honest".to_owned();
    honest.nodes[0].name = "honest/count".to_owned();
    let honest = Client::run(&world, honest);
    let connected = |s: &opcua::Snapshot| s.state == State::Connected && s.values_total > 0;
    client.until("connected", connected).await;
    honest.until("connected", connected).await;

    let mut count = 0;
    for (lie, notifications) in lies {
        let twist = move |answer: &Answer| {
            let published = Published::of(answer)?;
            Some(vec![answer.with(&published.with(&notifications))])
        };
        liar.lie(1, liar::PUBLISH, twist);
        let counting = async {
            for next in count + 1..=count + 3 {
                set(&plant, next).await;
            }
        };
        let unreadable = |error: &String| error.contains("cannot be read");
        let said = client.until(lie, |s| s.error.as_ref().is_some_and(unreadable));
        tokio::join!(counting, said);
        count += 3;
        world
            .until(lie, |records| counts(records).last() == Some(&count))
            .await;
    }
    let of = |source: &str, records: &[Record]| {
        records
            .iter()
            .filter(|record| record.source == source)
            .count() as i64
    };
    world
        .until("the honest one's last", |records| {
            of("honest/count", records) > count
        })
        .await;
    let honest = honest.stop().await;
    assert_eq!((honest.reconnects_total, honest.gaps_total), (0, 0));
    let status = client.stop().await;
    let records = world.records();
    assert_eq!(counts(&records), (0..=count).collect::<Vec<_>>());
    assert_eq!(gaps(&records), []);
    assert!(status.reconnects_total + status.connect_failures_total > 0);
    assert!(peak_mib() < PEAK_MIB, "{} MiB", peak_mib());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_never_ends_is_cut_off() {
    const PART: usize = 8_000;
    /// Three times what a message may have.
    const PARTS: usize = 3 * 64 * 1024 * 1024 / PART;
    let world = World::new();
    let plant = world.plant(0).await;
    let liar = Liar::between(plant.port()).await;
    let client = Client::start(&world, &liar.url(), &["count"]);
    client.until("a value", |s| s.values_total > 0).await;
    liar.lie(1, liar::PUBLISH, |answer| {
        Published::of(answer)?;
        Some(std::iter::repeat_n(answer.part(PART), PARTS))
    });
    for count in 1..=3 {
        set(&plant, count).await;
    }
    let told = |s: &opcua::Snapshot| s.reconnects_total > 0;
    client.until("the end of the connection", told).await;
    world
        .until("every value", |records| counts(records).last() == Some(&3))
        .await;
    client.stop().await;
    assert_eq!(counts(&world.records()), [0, 1, 2, 3]);
    assert!(peak_mib() < PEAK_MIB, "{} MiB", peak_mib());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absurd_numbers_of_messages_are_told_and_hide_nothing() {
    let world = World::new();
    let plant = world.plant(0).await;
    let liar = Liar::between(plant.port()).await;
    let client = Client::start(&world, &liar.url(), &["count"]);
    client.until("a value", |s| s.values_total > 0).await;
    tokio::time::sleep(plant::TICK).await;
    let mut count = 0;
    for number in [u32::MAX, 0, 2_000_000_000, 3, 3_000_000_000] {
        liar.lie(1, liar::PUBLISH, move |answer| {
            let mut published = Published::of(answer)?;
            published.sequence = number;
            Some(vec![answer.with(&published.fields())])
        });
        for _ in 0..3 {
            count += 1;
            set(&plant, count).await;
        }
        plant::wait("the lie", || liar.has_lied()).await;
        count += 1;
        set(&plant, count).await;
        world
            .until("values after it", |records| {
                counts(records).last() == Some(&count)
            })
            .await;
    }
    client.stop().await;
    let records = world.records();
    let mut seen = counts(&records);
    seen.dedup();
    assert_eq!(seen, (0..=count).collect::<Vec<_>>());
    assert!(!gaps(&records).is_empty(), "that numbers jumped is told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absurd_grants_stop_no_clock() {
    let world = World::new();
    let plant = world.plant(0).await;
    let forever = f64::from(u32::MAX) * 1e9;
    let grants = [
        (f64::NAN, u32::MAX, u32::MAX),
        (0.0, 0, 0),
        (-1.0, 3, 30),
        (1e300, 3, 30),
        (forever, u32::MAX, u32::MAX),
        (1e20, 30, 30),
    ];
    for (interval, lifetime, keep_alive) in grants {
        let liar = Liar::between(plant.port()).await;
        liar.lie(1, liar::CREATE_SUBSCRIPTION, move |answer| {
            let id = &answer.fields()[..4];
            let granted = [
                id,
                &interval.to_le_bytes(),
                &lifetime.to_le_bytes(),
                &keep_alive.to_le_bytes(),
            ];
            Some(vec![answer.with(&granted.concat())])
        });
        let mut config = world.config(&liar.url(), &["count"]);
        config.name = format!("granted {interval}");
        let client = Client::run(&world, config);
        client.until("a value", |s| s.values_total > 0).await;
        assert!(liar.has_lied());
        set(&plant, 1).await;
        set(&plant, 2).await;
        // Longer than it takes a client that believes in 0 ms to find its server silent.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let status = client.status.snapshot();
        assert_eq!(status.reconnects_total, 0, "{interval}: {status:?}");
        // Whatever was granted, silence is found in a time that makes sense.
        let keep_alive_ms = status.granted.unwrap().keep_alive_ms;
        assert!(
            (1..=600_000).contains(&keep_alive_ms),
            "{interval}: {keep_alive_ms} ms"
        );
        client.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_asked_for_is_left_aside() {
    let world = World::new();
    let plant = world.plant(0).await;
    let liar = Liar::between(plant.port()).await;
    let client = Client::start(&world, &liar.url(), &["count"]);
    client.until("a value", |s| s.values_total > 0).await;
    tokio::time::sleep(plant::TICK).await;
    liar.lie(1, liar::PUBLISH, |answer| {
        let published = Published::of(answer)?;
        let mut foreign = Published::of(answer)?;
        foreign.subscription = 77_777;
        let strangers: Vec<u8> = (0..1_000)
            .flat_map(|n| change(1_000_000 + n, INT64, &[1; 8]))
            .collect();
        let mut stray = Published::of(answer)?;
        stray.sequence = published.sequence.wrapping_add(1);
        Some(vec![
            answer.to_request(4_000_000).with(&foreign.fields()),
            answer.of_type(liar::BROWSE).to_request(4_000_001),
            answer
                .to_request(4_000_002)
                .with(&stray.with(&changes(1_000, &strangers))),
            answer.clone(),
        ])
    });
    for count in 1..=6 {
        set(&plant, count).await;
    }
    plant::wait("the lie", || liar.has_lied()).await;
    world
        .until("every value", |records| counts(records).last() == Some(&6))
        .await;
    client.stop().await;
    assert_eq!(counts(&world.records()), (0..=6).collect::<Vec<_>>());
    assert_eq!(gaps(&world.records()), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_results_as_items_or_none_of_them_counts() {
    let world = World::new();
    let plant = world.plant(0).await;
    for results in [0_u32, 1_000_000] {
        let liar = Liar::between(plant.port()).await;
        liar.lie(1, liar::CREATE_MONITORED_ITEMS, move |answer| {
            // Good, an id, 100 ms, a queue of one, no filter.
            let mut result = vec![0; 4];
            result.extend(1_u32.to_le_bytes());
            result.extend(100_f64.to_le_bytes());
            result.extend(1_u32.to_le_bytes());
            result.extend([0, 0, 0]);
            let mut fields = results.to_le_bytes().to_vec();
            fields.extend(result.repeat(results as usize));
            fields.extend(u32::MAX.to_le_bytes());
            Some(vec![answer.with(&fields)])
        });
        let mut config = world.config(&liar.url(), &["count"]);
        config.name = format!("{results} results");
        let client = Client::run(&world, config);
        plant::wait("the lie", || liar.has_lied()).await;
        let words = |s: &opcua::Snapshot| s.error.clone().unwrap_or_default();
        client
            .until("an error", |s| {
                s.connect_failures_total + s.reconnects_total > 0
            })
            .await;
        client
            .until("values all the same", |s| s.values_total > 0)
            .await;
        let status = client.stop().await;
        assert_eq!(words(&status), "", "a connection stands");
    }
    assert!(peak_mib() < PEAK_MIB, "{} MiB", peak_mib());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn browsing_on_and_on_ends() {
    let world = World::new();
    let plant = world.plant(0).await;
    for about in [liar::BROWSE, liar::BROWSE_NEXT] {
        let liar = Liar::between(plant.port()).await;
        // One result: Good, a continuation point, and nothing found yet.
        let mut endless = 1_u32.to_le_bytes().to_vec();
        endless.extend(0_u32.to_le_bytes());
        endless.extend(1_u32.to_le_bytes());
        endless.push(7);
        endless.extend(0_u32.to_le_bytes());
        endless.extend(u32::MAX.to_le_bytes());
        let first = endless.clone();
        liar.lie(1, liar::BROWSE, move |answer| {
            Some(vec![answer.with(&first)])
        });
        let browse = async {
            let look = opcua::Browse::new(Visit::new(liar.url().parse().unwrap()));
            opcua::browse(&look).await
        };
        let keeps_on = async {
            plant::wait("the first lie", || liar.has_lied()).await;
            if about == liar::BROWSE_NEXT {
                liar.lie(u32::MAX, about, move |answer| {
                    Some(vec![answer.with(&endless)])
                });
            }
            std::future::pending::<()>().await;
        };
        let ended = tokio::time::timeout(Duration::from_secs(60), async {
            tokio::select! {
                found = browse => found,
                () = keeps_on => unreachable!("it never ends"),
            }
        });
        drop(ended.await.expect("browsing ends"));
        liar.is_honest_again();
    }
}
