//! Peers that are absent, refuse or say nothing, and a model that is none.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};

use serde_json::Value;
use skerry_tests::audit::{self, Copies, Journal};
use skerry_tests::node;
use skerry_tests::world::{Publishing, World};
use skerry_tests::{Result, ensure, wait};

use crate::common::{drained, log_agrees};

const MODEL: &str = r#"
[[model]]
name = "nonsense"
file = "nonsense.onnx"
assets = ["pump1"]
window = 4
inputs = [ { mqtt = "plant/{asset}", pointer = "/value" } ]
threshold = 0.8
"#;

/// No Kafka, an OPC-UA server that refuses, one that never answers, and a text file for a model:
/// the node takes what comes, says what is wrong, and makes up for it once the peers are there.
pub(crate) fn absent(world: &World) -> Result<()> {
    let mut kafka = world.kafka()?;
    kafka.stop()?;
    let refusing = world.port()?;
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut settings = world.settings()?;
    settings.kafka = Some(kafka.address());
    settings.add_opcua(refusing, 1);
    settings.more.push_str(&format!(
        r#"
[[opcua]]
name = "silent"
endpoint = "opc.tcp://127.0.0.1:{}"
stream = "machines"
nodes = [ {{ name = "never", id = "ns=2;s=Never" }} ]
"#,
        silent.local_addr()?.port()
    ));
    settings.more.push_str(MODEL);
    fs::write(
        world.folder().join("nonsense.onnx"),
        "this is not a model\n",
    )?;
    let mut node = world.node(settings)?;

    let config = node.config().display().to_string();
    let checked = node::skerry(&["check", &config])?;
    ensure!(checked.code == Some(2), "check: {:?}", checked.code);
    ensure!(
        checked.text().contains("nonsense.onnx"),
        "check says {}",
        checked.text()
    );

    node.start()?;
    let publishing = Publishing {
        qos: 2,
        count: 300,
        ..Publishing::default()
    };
    let lines = world
        .publisher(node.mqtt_port(), publishing)?
        .join(wait::START)?;
    let journal = Journal::read("publisher", &lines)?;

    let says = |what: &str, path: &'static str, wanted: &'static str| {
        node.wait_for_status(what, wait::START, |status: &Value| {
            status.pointer(path).is_some_and(|value| value == wanted)
        })
    };
    says(
        "the model is disabled",
        "/inference/models/0/state",
        "disabled",
    )?;
    says("the uplink is down", "/uplink/link/state", "down")?;
    says(
        "the server that refuses is retried",
        "/opcua/0/state",
        "retrying",
    )?;
    let status = says("the silent server is retried", "/opcua/1/state", "retrying")?;
    for path in [
        "/inference/models/0/reason",
        "/uplink/link/because",
        "/opcua/0/error",
        "/opcua/1/error",
    ] {
        let reason = status.pointer(path).and_then(Value::as_str).unwrap_or("");
        ensure!(!reason.is_empty(), "{path} gives no reason: {status}");
    }
    ensure!(
        node.get("/readyz")?.status == 200,
        "absent peers made the node unready"
    );

    // Everything recorded meanwhile is delivered, and the refusing server is found, unasked.
    kafka.restart()?;
    let server = world.opcua_server("server", refusing, 1, 0, 0)?;
    says("the OPC-UA server is found", "/opcua/0/state", "connected")?;
    server.kill()?;
    let mut consumer = world.consumer(&kafka.address())?;
    let arrived = drained(&node, &mut consumer)?;
    audit::messages(&journal, &arrived, Copies::One)?;
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    log_agrees(&node, "telemetry", &arrived)
}
