//! `skerry opcua write` and `call` against a server in the same process.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[expect(dead_code, reason = "it serves other tests too")]
mod plant;

use plant::World;
use serde_json::json;
use skerry_bridge::opcua::{self, BrowsePath, NodeAddress, Visit};
use skerry_simulation::opcua_server::OpcuaServer;
use std::sync::mpsc;
use std::time::Duration;

const DOUBLE: u32 = 11;
const INT16: u32 = 4;

fn address(name: &str) -> NodeAddress {
    OpcuaServer::node_id(name).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_tells_what_was_and_what_is() {
    let world = World::new();
    let plant = world.plant(0).await;
    plant.add_setpoint("setpoint", DOUBLE, 20.0);
    plant.add_setpoint("short", INT16, 1.0);
    plant.add_method("reset", |level| Ok(level + 1.0));
    let visit = Visit::new(plant.url().parse().unwrap());
    let write = async |name: &str, text: &str, data_type| {
        opcua::write(&visit, &address(name), text, data_type).await
    };
    let written = write("setpoint", "55.5", None).await.unwrap();
    assert_eq!((written.before, written.after), (json!(20.0), json!(55.5)));
    write("short", "-3", Some("Int16")).await.unwrap();
    assert_eq!(plant.number("short"), Some(-3.0));
    for (name, text, data_type, why) in [
        ("short", "70000", None, "does not fit Int16"),
        (
            "short",
            "1",
            Some("Int99"),
            "none of OPC-UA's built-in types",
        ),
        ("setpoint", "warm", None, "is no Double"),
        (
            "count",
            "1",
            None,
            "another login may (BadUserAccessDenied)",
        ),
        ("gone", "1", None, "no such node (BadNodeIdUnknown)"),
    ] {
        let error = write(name, text, data_type).await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    let objects: NodeAddress = "i=85".parse().unwrap();
    let call = async |arguments: &[&str]| {
        let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        opcua::call(&visit, &objects, &address("reset"), &arguments).await
    };
    assert_eq!(call(&["2"]).await.unwrap().outputs, [json!(3.0)]);
    let by_path = |path: &str| NodeAddress::from(path.parse::<BrowsePath>().unwrap());
    let called = opcua::call(&visit, &objects, &by_path("reset"), &["3".to_owned()]).await;
    assert_eq!(called.unwrap().outputs, [json!(4.0)]);
    let written = opcua::write(&visit, &by_path("setpoint"), "56", None).await;
    assert_eq!(written.unwrap().after, json!(56.0));
    let error = opcua::write(&visit, &by_path("gone"), "1", None).await;
    assert!(error.unwrap_err().to_string().contains("BadNoMatch"));
    let error = call(&[]).await.unwrap_err().to_string();
    assert!(error.contains("takes 1 arguments (level)"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn silence_is_not_taken_for_a_no() {
    let world = World::new();
    let plant = world.plant(0).await;
    plant.add_setpoint("setpoint", DOUBLE, 20.0);
    let (go_on, held_up) = mpsc::channel::<()>();
    let held_up = std::sync::Mutex::new(held_up);
    plant.on_write("setpoint", move |_| {
        let held_up = held_up.lock().unwrap();
        let waited = tokio::task::block_in_place(|| held_up.recv_timeout(Duration::from_secs(60)));
        assert!(waited.is_err(), "whoever wrote has gone");
        0
    });
    let visit = Visit::new(plant.url().parse().unwrap());
    let written = opcua::write(&visit, &address("setpoint"), "1", None).await;
    let error = written.unwrap_err().to_string();
    assert!(
        error.contains("nobody knows whether it was done"),
        "{error}"
    );
    drop(go_on);
}
