//! Types, units, events and alarms of OPC-UA servers that are not ours: what a record says is what
//! the server said it has set.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use skerry_tests::node::{self, Node};
use skerry_tests::opcua::{Make, NAMESPACE, OpcuaServer};
use skerry_tests::python::{Helper, count};
use skerry_tests::world::World;
use skerry_tests::{Context as _, Result, ensure, wait};

const STREAM: &str = "machines";
const STATES: [&str; 3] = ["Stopped", "Running", "Faulted"];
/// Both set these at every tick.
const VARIABLES: [&str; 3] = ["State", "Report", "Temperature"];
const TICKS: usize = 30;
const SEVERE: u64 = 500;

/// An enumeration, a structure that holds one, and a measured value with its unit.
pub(crate) fn types_and_units(world: &World) -> Result<()> {
    let mut sections = format!("\n[[stream]]\nname = \"{STREAM}\"\n");
    let mut servers = Vec::new();
    for make in [Make::Asyncua, Make::NodeOpcua] {
        let server = OpcuaServer::new(make, make.name(), world.port()?).with("--types");
        let nodes = VARIABLES.map(|name| {
            let source = format!("{}/{name}", make.name());
            format!(
                r#"{{ name = "{source}", id = "nsu={NAMESPACE};s={name}", sampling = "20ms" }}"#
            )
        });
        sections += &endpoint(&server, make, &format!("nodes = [{}]", nodes.join(", ")));
        servers.push((make, server.start(world)?));
    }
    let mut settings = world.settings()?;
    settings.more = sections;
    let mut node = world.started(settings)?;
    for (make, server) in &mut servers {
        let last = format!("{}/Temperature", make.name());
        logged_until(&node, "temperatures", |records| {
            records
                .iter()
                .filter(|it| it["source"] == last.as_str())
                .count()
                >= TICKS
        })?;
        let lines = server.lines()?;
        ensure!(count(&lines, "set") > TICKS, "{} sets nothing", make.name());
    }
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    let records = node::log_cat(&node.settings().data, STREAM)?;
    for (make, server) in servers {
        let lines = server.lines()?;
        for name in VARIABLES {
            let set = lines.iter().filter(|line| line["name"] == name);
            let mut set: Vec<Value> = set.map(|line| expected(name, &line["value"])).collect();
            // What it holds before the first tick.
            set.push(expected(name, &first(name)));
            let source = format!("{}/{name}", make.name());
            let of = records.iter().filter(|it| it["source"] == source.as_str());
            for record in of {
                let payload = &record["payload"];
                ensure!(set.contains(payload), "{source}: {payload} was never set");
                let unit = attribute(record, "unit");
                let due = (name == "Temperature").then_some("°C");
                ensure!(unit == due, "{source}: the unit is {unit:?}");
            }
        }
    }
    Ok(())
}

/// The first tick's predecessor.
fn first(name: &str) -> Value {
    match name {
        "State" => json!(0),
        "Temperature" => json!(20.0),
        _ => json!({"temperature": 20.0, "state": 0, "label": "tick 0", "samples": [0, 1, 2]}),
    }
}

/// The payload of a value that a server says it has set.
fn expected(name: &str, set: &Value) -> Value {
    let state = |number: &Value| {
        let name = STATES[number.as_u64().unwrap_or_default() as usize % STATES.len()];
        json!({"value": number, "name": name})
    };
    match name {
        "State" => state(set),
        "Temperature" => json!({"value": set.as_f64()}),
        _ => json!({
            "value": {
                "Temperature": set["temperature"].as_f64(),
                "State": state(&set["state"]),
                "Label": set["label"],
                "Samples": set["samples"],
            },
            "type": "MachineReport",
        }),
    }
}

/// Events with their severity from one, an alarm that stands already and then changes from the
/// other; and each once, although the node is killed in between.
pub(crate) fn events(world: &World) -> Result<()> {
    let happens = OpcuaServer::new(Make::Asyncua, "asyncua", world.port()?).with("--events");
    let alarms = OpcuaServer::new(Make::NodeOpcua, "node-opcua", world.port()?)
        .with("--alarm")
        .with("--swings");
    let (server, id) = ("", format!(r#", id = "nsu={NAMESPACE};s=Tank""#));
    let source = |name: &str, more: &str| format!(r#"{{ name = "{name}"{more} }}"#);
    let severe = format!(", min_severity = {SEVERE}");
    let of_asyncua = [source("all", server), source("severe", &severe)].join(", ");
    let of_node_opcua = [source("alarms", server), source("tank", &id)].join(", ");
    let mut settings = world.settings()?;
    settings.more = format!(
        "\n[[stream]]\nname = \"{STREAM}\"\n{}{}",
        endpoint(&happens, Make::Asyncua, &format!("events = [{of_asyncua}]")),
        endpoint(
            &alarms,
            Make::NodeOpcua,
            &format!("events = [{of_node_opcua}]")
        ),
    );
    let happens = happens.start(world)?;
    let mut alarms = alarms.start(world)?;
    alarms.wait_for("the alarm stands", wait::DRAIN, |lines| {
        lines
            .iter()
            .any(|line| line["name"] == "Level" && line["value"] == 150)
    })?;
    let mut node = world.started(settings)?;
    let of = |records: &[Value], source: &str| -> Vec<Value> {
        let of = records.iter().filter(|it| it["kind"] == "opcua");
        of.filter(|it| it["source"] == source && it["status"] == 0)
            .cloned()
            .collect()
    };
    logged_until(&node, "alarms and severe events", |records| {
        of(records, "tank").len() >= 2 && of(records, "severe").len() >= 2
    })?;
    node.kill()?;
    node.start()?;
    let before = of(&logged(&node)?, "tank").len();
    logged_until(&node, "alarms after the kill", |records| {
        of(records, "tank").len() >= before + 2
    })?;
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    let records = node::log_cat(&node.settings().data, STREAM)?;
    check_happenings(&happens, &of(&records, "all"), &of(&records, "severe"))?;
    for source in ["alarms", "tank"] {
        check_alarms(source, &of(&records, source))?;
    }
    Ok(())
}

/// What asyncua reported: nothing else, and from `SEVERE` on in the second source.
fn check_happenings(server: &Helper, all: &[Value], severe: &[Value]) -> Result<()> {
    let lines = server.lines()?;
    let happened: BTreeSet<(&str, u64)> = lines
        .iter()
        .filter_map(|line| Some((line["message"].as_str()?, line["severity"].as_u64()?)))
        .collect();
    let said = |record: &Value| -> Result<u64> {
        let payload = &record["payload"];
        let message = payload["Message"].as_str().context("no message")?;
        let severity = payload["Severity"].as_u64().context("no severity")?;
        ensure!(
            happened.contains(&(message, severity)),
            "{payload} was never reported"
        );
        ensure!(
            attribute(record, "opcua-event") == Some("event"),
            "{record} is not marked"
        );
        Ok(severity)
    };
    let mut mild = 0;
    for record in all {
        mild += usize::from(said(record)? < SEVERE);
    }
    ensure!(mild > 0, "mild events are missing");
    for record in severe {
        ensure!(said(record)? >= SEVERE, "{record} is not severe");
    }
    Ok(())
}

/// The alarm that stood comes first and marked; what changes afterwards is news, each once.
fn check_alarms(source: &str, records: &[Value]) -> Result<()> {
    let mut ids = BTreeSet::new();
    for (number, record) in records.iter().enumerate() {
        let payload = &record["payload"];
        let shown = || format!("{source}: {record}");
        ensure!(
            attribute(record, "opcua-event") == Some("condition"),
            "{}",
            shown()
        );
        let refreshed = attribute(record, "opcua-refreshed").is_some();
        ensure!(refreshed == (number == 0), "refreshed or not: {}", shown());
        let id = payload["EventId"].as_str().with_context(shown)?;
        ensure!(ids.insert(id), "twice: {}", shown());
        let condition = payload["ConditionId"].as_str().with_context(shown)?;
        ensure!(condition.ends_with(";s=LevelAlarm"), "{}", shown());
        ensure!(payload["AckedState"] == false, "{}", shown());
        ensure!(payload["ActiveState"].is_boolean(), "{}", shown());
    }
    Ok(())
}

fn endpoint(server: &OpcuaServer, make: Make, more: &str) -> String {
    format!(
        "\n[[opcua]]\nname = \"{}\"\nendpoint = \"{}\"\nstream = \"{STREAM}\"\n\
         publishing_interval = \"100ms\"\n{more}\n",
        make.name(),
        server.url(),
    )
}

fn attribute<'a>(record: &'a Value, name: &str) -> Option<&'a str> {
    let attributes = record["attributes"].as_array()?;
    let found = attributes.iter().find(|pair| pair[0] == name)?;
    found[1].as_str()
}

fn logged(node: &Node) -> Result<Vec<Value>> {
    node::log_cat(&node.settings().data, STREAM)
}

fn logged_until(node: &Node, what: &str, done: impl Fn(&[Value]) -> bool) -> Result<()> {
    wait::until_true(what, wait::DRAIN, || Ok(done(&logged(node)?)))
}
