//! Writes and calls that MQTT clients ask for, at a server that is not ours: what is listed is
//! done, what is not exactly allowed is refused, and the audit has all of it.

use std::fmt::Write as _;
use std::fs;

use serde_json::{Value, json};
use skerry_tests::node::{self, Node};
use skerry_tests::opcua::{Make, OpcuaServer};
use skerry_tests::world::World;
use skerry_tests::{Context as _, Result, ensure, wait};

/// MQTT 5's reason code for what a client may not do.
const NOT_AUTHORIZED: u64 = 0x87;

const ACL: &str = "
client panel
topic readwrite cmd/#
client guest
topic read cmd/#
";

const COMMANDS: &str = r#"
[[opcua.command]]
topic = "cmd/setpoint"
write = "ns=2;s=Setpoint"
min = 0
max = 100

[[opcua.command]]
topic = "cmd/counter"
write = "ns=2;s=Counter0"

[[opcua.command]]
topic = "cmd/start"
object = "ns=0;i=85"
method = "ns=2;s=Start"
"#;

pub(crate) fn carried_out(world: &World) -> Result<()> {
    let port = world.port()?;
    let plant = OpcuaServer::new(Make::Asyncua, "plant", port)
        .with("--counters=1")
        .with("--commands");
    let mut server = plant.start(world)?;
    let mut settings = world.settings()?;
    fs::write(world.folder().join("acl"), ACL)?;
    settings.mqtt_more = "acl_file = \"acl\"\n".to_owned();
    settings.add_opcua(port, 1);
    settings.more.push_str(COMMANDS);
    let mut node = world.started(settings)?;
    connected(&node)?;

    let answers = command(
        world,
        &node,
        "panel",
        &[
            json!({"topic": "cmd/setpoint", "payload": r#"{"value": 42.5, "id": "o-1"}"#}),
            json!({"topic": "cmd/setpoint", "payload": "250"}),
            json!({"topic": "cmd/setpoint", "payload": "\"warm\""}),
            json!({"topic": "cmd/counter", "payload": "1"}),
            json!({"topic": "cmd/start", "payload": "[3]"}),
            json!({"topic": "cmd/unlisted", "payload": "1", "silent": true}),
        ],
    )?;
    for (number, (topic, outcome, part)) in [
        ("cmd/setpoint", "done", r#""id":"o-1""#),
        (
            "cmd/setpoint",
            "refused",
            "not within what is allowed here, 0 to 100",
        ),
        ("cmd/setpoint", "refused", "is no Float"),
        ("cmd/counter", "failed", "Bad"),
        ("cmd/start", "done", r#""outputs":[6]"#),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = &answers[number];
        let payload = answer["payload"].to_string();
        let fits = answer["topic"] == format!("{topic}/result/panel")
            && answer["correlation"] == json!(number.to_string())
            && answer["payload"]["outcome"] == outcome
            && payload.contains(part);
        ensure!(fits, "{number}: {answer}");
    }
    let guest = json!({"topic": "cmd/setpoint", "payload": "1"});
    let answers = command(world, &node, "guest", &[guest])?;
    ensure!(answers[0]["reason"] == NOT_AUTHORIZED, "{answers:?}");

    let commands = &node.status()?["opcua"][0]["commands"];
    let counts = ["done_total", "refused_total", "failed_total"].map(|key| &commands[key]);
    ensure!(counts == [2, 2, 1], "{commands}");
    let metrics = node.metrics()?;
    let name = "skerry_opcua_commands_refused_total";
    ensure!(metrics.contains(name), "{metrics}");

    // What was done is not done again.
    node.kill()?;
    node.start()?;
    connected(&node)?;
    let last = json!({"topic": "cmd/setpoint", "payload": "43"});
    let answers = command(world, &node, "panel", &[last])?;
    let payload = &answers.last().context("an answer")?["payload"];
    ensure!(
        payload["outcome"] == "done" && payload["before"] == 42.5,
        "{payload}"
    );
    let lines = server.wait_for("the last write", wait::START, |lines| {
        lines.iter().any(|line| line["value"] == 43.0)
    })?;
    let of = |event: &str, key: &str| -> Vec<Value> {
        let lines = lines.iter().filter(|line| line["event"] == event);
        let good = lines.filter(|line| line["status"].as_u64().unwrap_or(0) == 0);
        good.map(|line| line[key].clone()).collect()
    };
    ensure!(
        of("written", "value") == [42.5, 43.0],
        "{:?}",
        of("written", "value")
    );
    ensure!(of("called", "level") == [3], "{:?}", of("called", "level"));
    by_hand(&plant.url())?;
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    audited(&node)
}

const EVENTS: &str = "events = [{ name = \"events\" }]\n";

const ALARM: &str = r#"
[[opcua.command]]
topic = "cmd/level"
write = "nsu=urn:skerry:tests;s=Level"

[[opcua.command]]
topic = "cmd/add"
object_path = "Machine"
method_path = "Machine/Add"

[[opcua.command]]
topic = "cmd/acknowledge"
acknowledge = true

[[opcua.command]]
topic = "cmd/confirm"
confirm = true
"#;

/// An alarm of node-opcua's, which is raised and acknowledged by messages.
pub(crate) fn acknowledged(world: &World) -> Result<()> {
    let port = world.port()?;
    let plant = OpcuaServer::new(Make::NodeOpcua, "plant", port)
        .with("--counters=1")
        .with("--commands")
        .with("--alarm");
    let mut server = plant.start(world)?;
    let mut settings = world.settings()?;
    settings.add_opcua(port, 1);
    settings.more.push_str(EVENTS);
    settings.more.push_str(ALARM);
    let mut node = world.started(settings)?;
    connected(&node)?;
    let raise = json!({"topic": "cmd/level", "payload": "150"});
    let add = json!({"topic": "cmd/add", "payload": "[2, 3]"});
    let answers = command(world, &node, "panel", &[raise, add])?;
    let outcomes = answers.iter().map(|answer| &answer["payload"]["outcome"]);
    ensure!(outcomes.eq(["done", "done"]), "{answers:?}");
    ensure!(
        answers[1]["payload"]["outputs"] == json!([5]),
        "{answers:?}"
    );

    // The event as the log has it, with a comment, is what acknowledges it.
    let mut alarm = wait::until("the alarm in the log", wait::START, || {
        let records = node::log_cat(&node.settings().data, "machines")?;
        let mut events = records
            .into_iter()
            .map(|mut record| record["payload"].take());
        Ok(events.find(|event| event["ConditionName"] == "LevelAlarm"))
    })?;
    let event = alarm["EventId"].clone();
    alarm["Comment"] = json!("seen");
    alarm["id"] = json!(7);
    let acknowledge = json!({"topic": "cmd/acknowledge", "payload": alarm.to_string()});
    let again = acknowledge.clone();
    let answers = command(world, &node, "operator", &[acknowledge, again])?;
    let [first, second] = [0, 1].map(|number| &answers[number]["payload"]);
    ensure!(first["outcome"] == "done" && first["id"] == 7, "{first}");
    ensure!(second["outcome"] == "failed", "{second}");
    let lines = server.wait_for("the acknowledgement", wait::START, |lines| {
        lines.iter().any(|line| line["event"] == "acknowledged")
    })?;
    let seen: Vec<_> = lines
        .iter()
        .filter(|line| line["event"] == "acknowledged")
        .collect();
    ensure!(
        seen.len() == 1 && seen[0]["id"] == event && seen[0]["comment"] == "seen",
        "{seen:?}"
    );
    confirmed(world, &node)?;
    server.wait_for("the confirmation", wait::START, |lines| {
        lines.iter().any(|line| line["event"] == "confirmed")
    })?;
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    Ok(())
}

/// Confirms it too, by the event that says that it was acknowledged.
fn confirmed(world: &World, node: &Node) -> Result<()> {
    let alarm = wait::until("the acknowledged alarm in the log", wait::START, || {
        let records = node::log_cat(&node.settings().data, "machines")?;
        let mut events = records
            .into_iter()
            .map(|mut record| record["payload"].take());
        Ok(events
            .rfind(|event| event["ConditionName"] == "LevelAlarm" && event["AckedState"] == true))
    })?;
    let confirm = json!({"topic": "cmd/confirm", "payload": alarm.to_string()});
    let answers = command(world, node, "confirmer", &[confirm.clone(), confirm])?;
    let [first, second] = [0, 1].map(|number| &answers[number]["payload"]);
    ensure!(first["outcome"] == "done", "{first}");
    ensure!(second["outcome"] == "failed", "{second}");
    Ok(())
}

fn connected(node: &Node) -> Result<()> {
    let connected = |status: &Value| status["opcua"][0]["state"] == "connected";
    node.wait_for_status("the node reads the plant", wait::DRAIN, connected)?;
    Ok(())
}

/// Has a client send these, and says what came of each.
fn command(world: &World, node: &Node, name: &str, messages: &[Value]) -> Result<Vec<Value>> {
    let mut text = String::new();
    for message in messages {
        writeln!(text, "{message}")?;
    }
    let script = world.folder().join(format!("{name}.script"));
    fs::write(&script, text)?;
    let arguments = [
        format!("--port={}", node.mqtt_port()),
        format!("--name={name}"),
        format!("--script={}", script.display()),
    ];
    let commander = world.helper("commander.py", name, "--out", &arguments)?;
    commander.join(wait::DRAIN)
}

/// Before and after each that was sent, once each that was not, and who was not let in.
fn audited(node: &Node) -> Result<()> {
    let audit = node::log_cat(&node.settings().data, "audit")?;
    let payloads: Vec<&Value> = audit.iter().map(|record| &record["payload"]).collect();
    let commands: Vec<_> = payloads
        .iter()
        .filter(|payload| payload["event"] == "opcua_command")
        .collect();
    let outcomes: Vec<_> = commands.iter().map(|it| it["outcome"].clone()).collect();
    let expected = [
        "sending", "done", "refused", "refused", "sending", "failed", "sending", "done", "sending",
        "done",
    ];
    ensure!(outcomes == expected, "{outcomes:?}");
    ensure!(
        commands.iter().all(|it| it["client"] == "panel"),
        "{commands:?}"
    );
    let refused = |it: &&&Value| it["event"] == "publish_refused" && it["client"] == "guest";
    let refused = payloads.iter().filter(refused).count();
    ensure!(refused == 1, "{payloads:?}");
    Ok(())
}

/// `skerry opcua write` and `call` on the same server.
fn by_hand(url: &str) -> Result<()> {
    for (words, code, part) in [
        (
            vec!["write", url, "ns=2;s=Setpoint", "-1.5"],
            0,
            "ns=2;s=Setpoint: 43.0 -> -1.5",
        ),
        (
            vec!["write", url, "ns=2;s=Setpoint", "warm"],
            1,
            "nothing was sent: \"warm\" is no Float",
        ),
        (
            vec!["write", url, "ns=2;s=Gone", "1"],
            1,
            "the server has no such node",
        ),
        (vec!["call", url, "i=85", "ns=2;s=Start", "-7"], 0, "-14"),
        (
            vec!["call", url, "i=85", "ns=2;s=Start"],
            1,
            "the method takes 1 arguments",
        ),
    ] {
        let words = [vec!["opcua"], words].concat();
        let output = node::skerry(&words)?;
        let fits = output.code == Some(code) && output.text().contains(part);
        ensure!(fits, "{words:?}: {:?} {}", output.code, output.text());
    }
    Ok(())
}
