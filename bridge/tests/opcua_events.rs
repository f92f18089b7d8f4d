//! What a server reports, in the records.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[expect(dead_code, reason = "the module serves more than one test binary")]
mod plant;

use plant::{Client, World, gaps};
use serde_json::{Value, json};
use skerry_bridge::opcua::{self, Config, EVENT, EventSource, State};
use skerry_simulation::opcua_server::machine::{Happening, HappeningKind};
use skerry_store::{Kind, Record};

fn happening(id: u8, message: &str, severity: u16) -> Happening {
    Happening {
        id: vec![id],
        message: message.to_owned(),
        severity,
        condition: None,
        kind: HappeningKind::Own,
    }
}

/// The events of a source, in the order of the log.
fn events(records: &[Record], source: &str) -> Vec<Value> {
    let of = records
        .iter()
        .filter(|record| record.kind == Kind::Opcua && record.source == source);
    of.map(|record| serde_json::from_slice(&record.payload).unwrap())
        .collect()
}

fn attribute(record: &Record, name: &str) -> Option<String> {
    let of = record.attributes.iter().find(|(key, _)| key == name);
    of.map(|(_, value)| String::from_utf8(value.to_vec()).unwrap())
}

fn with_events(world: &World, url: &str, sources: Vec<EventSource>) -> Config {
    let mut config = world.config(url, &["count"]);
    config.events = sources;
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_and_conditions_are_records_with_what_acknowledging_takes() {
    let world = World::new();
    let plant = world.plant(0).await;
    let mut severe = EventSource::new("plant/severe", None);
    severe.severity_min = 500;
    let sources = vec![EventSource::new("plant/events", None), severe];
    let client = Client::run(&world, with_events(&world, &plant.url(), sources));
    client
        .until("connected", |s| s.state == State::Connected)
        .await;
    let status = client.status.snapshot();
    assert_eq!((status.nodes_good, status.nodes_bad), (3, 0));
    plant.happen(&happening(1, "door opened", 100));
    plant.happen(&Happening {
        condition: Some(("Hot".to_owned(), true, false)),
        ..happening(2, "too hot", 700)
    });
    world
        .until("three events", |records| {
            events(records, "plant/events").len() >= 2
                && !events(records, "plant/severe").is_empty()
        })
        .await;
    client.stop().await;

    let records = world.records();
    let all = events(&records, "plant/events");
    assert_eq!(all.len(), 2, "{all:?}");
    let (door, hot) = (&all[0], &all[1]);
    assert_eq!(door["EventId"], "AQ==");
    assert_eq!(door["EventType"], "i=2041");
    assert_eq!(door["Message"], "door opened");
    assert_eq!(door["Severity"], 100);
    assert_eq!(door.get("ConditionName"), None, "it has no state");
    assert_eq!(hot["EventId"], "Ag==");
    let states = json!([
        hot["ConditionName"],
        hot["Retain"],
        hot["ActiveState"],
        hot["AckedState"]
    ]);
    assert_eq!(states, json!(["Hot", true, true, false]));
    assert_eq!(events(&records, "plant/severe"), std::slice::from_ref(hot));

    let of: Vec<&Record> = records
        .iter()
        .filter(|it| it.source == "plant/events")
        .collect();
    let kinds: Vec<_> = of.iter().map(|it| attribute(it, EVENT).unwrap()).collect();
    assert_eq!(kinds, ["event", "condition"]);
    assert!(of.iter().all(|record| record.source_time.is_some()));
    assert!(
        attribute(of[0], opcua::REFRESHED).is_none(),
        "it is no refresh"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_the_server_gave_up_are_a_gap() {
    let world = World::new();
    let plant = world.plant(0).await;
    let sources = vec![EventSource::new("plant/events", None)];
    let client = Client::run(&world, with_events(&world, &plant.url(), sources));
    client
        .until("connected", |s| s.state == State::Connected)
        .await;
    plant.happen(&Happening {
        kind: HappeningKind::QueueOverflow,
        ..happening(1, "overflow", 1)
    });
    plant.happen(&happening(2, "after it", 1));
    world
        .until("what came after", |records| {
            !events(records, "plant/events").is_empty()
        })
        .await;
    client.stop().await;
    let records = world.records();
    assert_eq!(events(&records, "plant/events").len(), 1);
    let gaps = gaps(&records);
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!(gaps[0].subject, "plant/events");
    assert!(gaps[0].reason.contains("overflowed"), "{:?}", gaps[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_conditions_stand_is_told_from_news() {
    let world = World::new();
    let plant = world.plant(0).await;
    let sources = vec![EventSource::new("plant/events", None)];
    let client = Client::run(&world, with_events(&world, &plant.url(), sources));
    client
        .until("connected", |s| s.state == State::Connected)
        .await;
    let kinds = [
        HappeningKind::Own,
        HappeningKind::RefreshStart,
        HappeningKind::Own,
        HappeningKind::RefreshEnd,
        HappeningKind::Own,
    ];
    for (id, kind) in (1..).zip(kinds) {
        plant.happen(&Happening {
            kind,
            ..happening(id, "hot", 1)
        });
    }
    world
        .until("the last one", |records| {
            events(records, "plant/events").len() >= 3
        })
        .await;
    client.stop().await;
    let records = world.records();
    let of = records.iter().filter(|it| it.source == "plant/events");
    let marks: Vec<_> = of.map(|it| attribute(it, opcua::REFRESHED)).collect();
    assert_eq!(marks, [None, Some("true".to_owned()), None]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_without_events_is_a_bad_node_and_stops_no_other() {
    let world = World::new();
    let plant = world.plant(0).await;
    let sources = ["i=1", "nsu=urn:elsewhere;s=x", "i=2253"];
    let sources = sources.map(|id| EventSource::new(id, Some(id.parse().unwrap())));
    let config = with_events(&world, &plant.url(), sources.to_vec());
    let client = Client::run(&world, config);
    client
        .until("connected", |s| s.state == State::Connected)
        .await;
    let status = client.status.snapshot();
    assert_eq!((status.nodes_good, status.nodes_bad), (2, 2));
    let bad: Vec<_> = status.bad_nodes.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(bad, ["i=1", "nsu=urn:elsewhere;s=x"]);
    plant.happen(&happening(1, "still here", 1));
    world
        .until("an event", |records| !events(records, "i=2253").is_empty())
        .await;
    client.stop().await;
}

/// The server keeps them meanwhile, as it does values.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_an_outage_come_after_it_once() {
    let world = World::new();
    let plant = world.plant(0).await;
    let proxy = plant::Proxy::to(plant.port()).await;
    let sources = vec![EventSource::new("plant/events", None)];
    let mut config = with_events(&world, &proxy.url(), sources);
    config.nodes.clear();
    let client = Client::run(&world, config);
    client
        .until("connected", |s| s.state == State::Connected)
        .await;
    let number = |event: &Value| event["Severity"].as_u64().unwrap();
    for severity in 1..=30 {
        match severity {
            10 => proxy.cut(),
            20 => proxy.open(),
            _ => {}
        }
        plant.happen(&happening(1, "again", severity));
        tokio::time::sleep(plant::TICK).await;
    }
    world
        .until("the last one", |records| {
            let last = events(records, "plant/events");
            last.last().is_some_and(|last| number(last) == 30)
        })
        .await;
    let status = client.stop().await;
    assert!(status.reconnects_total >= 1);
    let records = world.records();
    let numbers: Vec<u64> = events(&records, "plant/events")
        .iter()
        .map(number)
        .collect();
    assert_eq!(numbers, (1..=30).collect::<Vec<_>>());
    assert_eq!(gaps(&records), []);
}
