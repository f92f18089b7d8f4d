//! What a server says of its types and variables, in the records.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[expect(dead_code, reason = "the module serves more than one test binary")]
mod plant;

use plant::{Client, TICK, World};
use skerry_bridge::opcua::{self, NodeAddress, State, UNIT, Visit};
use skerry_simulation::opcua_server::OpcuaServer;
use skerry_simulation::opcua_server::machine::report;
use skerry_store::Record;

const TAGS: [&str; 5] = [
    "machine/state",
    "machine/mode",
    "machine/report",
    "machine/opaque",
    "machine/temperature",
];

/// The payloads of a variable's records, in their order.
fn payloads(records: &[Record], tag: &str) -> Vec<String> {
    let source = format!("plant/{tag}");
    let of = records.iter().filter(|record| record.source == source);
    of.map(|record| String::from_utf8(record.payload.to_vec()).unwrap())
        .collect()
}

fn units(records: &[Record], tag: &str) -> Vec<Option<String>> {
    let source = format!("plant/{tag}");
    let of = records.iter().filter(|record| record.source == source);
    of.map(|record| {
        let unit = record.attributes.iter().find(|(name, _)| name == UNIT)?;
        Some(String::from_utf8(unit.1.to_vec()).unwrap())
    })
    .collect()
}

async fn machine(world: &World, port: u16) -> OpcuaServer {
    let plant = world.plant(port).await;
    plant.add_machine();
    plant
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn structures_enumerations_and_units_are_in_the_records_from_the_first_value_on() {
    let world = World::new();
    let plant = machine(&world, 0).await;
    let client = Client::start(&world, &plant.url(), &TAGS);
    client.until("first values", |s| s.values_total >= 5).await;
    tokio::time::sleep(TICK).await;
    plant.set_int32("machine/state", 2);
    plant.set_int32("machine/mode", 7);
    plant.set_structure("machine/report", "Report.Binary", report(1, Some("a")));
    client.until("changes", |s| s.values_total >= 8).await;
    tokio::time::sleep(TICK).await;
    // A body that is not what its type says is kept, and stops nothing.
    plant.set_structure("machine/report", "Report.Binary", vec![1, 2, 3]);
    client.until("a misfit", |s| s.values_total >= 9).await;
    client.stop().await;

    let records = world.records();
    assert_eq!(
        payloads(&records, "machine/state"),
        [
            r#"{"value":0,"name":"Idle"}"#,
            r#"{"value":2,"name":"Blocked"}"#
        ]
    );
    assert_eq!(
        payloads(&records, "machine/mode"),
        [r#"{"value":0,"name":"Auto"}"#, r#"{"value":7}"#]
    );
    let position = r#""position":{"x":1.5,"y":"NaN"}"#;
    assert_eq!(
        payloads(&records, "machine/report"),
        [
            format!(
                r#"{{"value":{{"state":{{"value":0,"name":"Idle"}},"samples":[0,0],{position}}},"type":"Report"}}"#
            ),
            format!(
                r#"{{"value":{{"state":{{"value":1,"name":"Running"}},"label":"a","samples":[1,-1],{position}}},"type":"Report"}}"#
            ),
            r#"{"value":{"encoding":"ns=2;s=Report.Binary","body":"AQID"},"type":"ExtensionObject"}"#
                .to_owned(),
        ]
    );
    let opaque =
        r#"{"value":{"encoding":"ns=2;s=Opaque.Binary","body":"AQI="},"type":"ExtensionObject"}"#;
    assert_eq!(payloads(&records, "machine/opaque"), [opaque]);
    assert_eq!(
        units(&records, "machine/temperature"),
        [Some("°C".to_owned())]
    );
    assert_eq!(units(&records, "machine/state"), [None, None]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_unit_is_read_anew_and_never_the_old_one() {
    let world = World::new();
    let plant = machine(&world, 0).await;
    let client = Client::start(&world, &plant.url(), &["machine/temperature"]);
    client.until("a value", |s| s.values_total >= 1).await;
    tokio::time::sleep(TICK).await;
    plant.set_in_unit("machine/temperature", 68.0, "°F");
    let unit = || units(&world.records(), "machine/temperature");
    for celsius in 0..200 {
        tokio::time::sleep(TICK).await;
        if unit().last().unwrap().as_deref() == Some("°F") {
            break;
        }
        let value = f64::from(celsius);
        let now = std::time::SystemTime::now();
        let value = skerry_simulation::opcua_server::TagValue::Number(value);
        plant.set("machine/temperature", value, now).unwrap();
    }
    client.stop().await;
    let units = unit();
    assert_eq!(units.first().unwrap().as_deref(), Some("°C"));
    assert_eq!(units.last().unwrap().as_deref(), Some("°F"));
    assert!(
        !units[1..].contains(&Some("°C".to_owned())),
        "a value that is not in °C says it is: {units:?}"
    );
}

/// The subscription goes on in another session, which has to learn the types as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn types_are_known_again_after_a_restart_of_the_node() {
    let world = World::new();
    let plant = machine(&world, 0).await;
    let tags = ["machine/state", "machine/temperature"];
    let first = Client::start(&world, &plant.url(), &tags);
    first.until("first values", |s| s.values_total >= 2).await;
    first.stop().await;
    let second = Client::start(&world, &plant.url(), &tags);
    second
        .until("connected", |s| s.state == State::Connected)
        .await;
    tokio::time::sleep(TICK).await;
    plant.set_int32("machine/state", 1);
    world
        .until("the change", |records| {
            payloads(records, "machine/state").len() >= 2
        })
        .await;
    let status = second.stop().await;
    assert_eq!(status.gaps_total, 0, "it was not the same subscription");
    let states = payloads(&world.records(), "machine/state");
    assert_eq!(states.last().unwrap(), r#"{"value":1,"name":"Running"}"#);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_visitor_sees_names_units_and_ranges() {
    let world = World::new();
    let plant = machine(&world, 0).await;
    let visit = Visit::new(plant.url().parse().unwrap());
    let nodes = TAGS.map(|tag| OpcuaServer::node_id(tag).parse::<NodeAddress>().unwrap());
    let readings = opcua::read(&visit, &nodes).await.unwrap();
    let [state, _, report, _, temperature] = &readings[..] else {
        panic!("{readings:?}");
    };
    assert_eq!(state.value, 0);
    assert_eq!(state.name, Some("Idle".into()));
    assert_eq!(report.data_type.as_deref(), Some("Report"));
    assert_eq!(report.value["position"]["x"], 1.5);
    assert_eq!(temperature.unit.as_deref(), Some("°C"));
    assert_eq!(temperature.range, Some((-20.0, 120.0)));

    let look = opcua::Browse::new(visit);
    let listing = opcua::browse(&look).await.unwrap();
    let text = opcua::config_text(&look, "plant", &listing);
    let line = text.lines().find(|line| line.contains("temperature"));
    let line = line.unwrap();
    assert!(line.ends_with("# Double 20.0 °C (-20 to 120)"), "{line}");
}
