//! Commands by MQTT message against a server in the same process: what is done, what is not, and
//! what the audit and the sender are told of it. The messages are put into the log as the broker
//! puts them there.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[expect(dead_code, reason = "it serves other tests too")]
mod plant;

use bytes::Bytes;
use plant::{Client, Proxy, World, counts, set, wait};
use serde_json::{Value as Json, json};
use skerry_bridge::opcua::{
    self, Action, BrowsePath, Command, Commands, Config, Limits, NodeAddress, State,
};
use skerry_simulation::opcua_server::OpcuaServer;
use skerry_store::{Append, Kind, Offset, Record, StreamName, WallNanos};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

const DOUBLE: u32 = 11;
const INT16: u32 = 4;
/// A subtype of Double (Part 6, annex A).
const DURATION: u32 = 290;
const BAD_OUT_OF_RANGE: u32 = 0x803C_0000;
const SETPOINT: &str = "cmd/setpoint";
const RESET: &str = "cmd/reset";

fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

fn address(name: &str) -> NodeAddress {
    OpcuaServer::node_id(name).parse().unwrap()
}

fn command(topic: &str, action: Action) -> Command {
    Command {
        topic: topic.to_owned(),
        stream: stream("commands"),
        results: stream("commands"),
        action,
        max_age: Duration::from_secs(20),
    }
}

fn writes(topic: &str, name: &str, limits: Limits) -> Command {
    let node = address(name);
    command(topic, Action::Write { node, limits })
}

fn resets() -> Command {
    let object = "ns=0;i=85".parse().unwrap();
    let method = address("reset");
    command(RESET, Action::Call { object, method })
}

/// A client that may do `list`, beside reading the counter.
fn config(world: &World, url: &str, list: Vec<Command>) -> Config {
    let mut config = world.config(url, &["count"]);
    let audit = stream("audit");
    config.commands = Some(Commands { audit, list });
    config
}

async fn start(world: &World, url: &str, list: Vec<Command>) -> Client {
    let client = Client::run(world, config(world, url, list));
    let connected = |s: &opcua::Snapshot| s.state == State::Connected;
    client.until("a connection", connected).await;
    client
}

/// A message as the broker writes it down; its offset.
async fn publish(world: &World, topic: &str, payload: &str) -> Offset {
    let message = Record::new(Kind::Mqtt, topic, payload.to_owned());
    append(world, message).await
}

async fn append(world: &World, message: Record) -> Offset {
    let append = Append {
        stream: stream("commands"),
        records: vec![message],
        changes: Vec::new(),
    };
    world.log.append(append).await.unwrap().first
}

fn records(world: &World, name: &str) -> Vec<Record> {
    let mut reader = world.log.reader(&stream(name), Offset::ZERO).unwrap();
    let mut records = Vec::new();
    loop {
        let batch = reader.next(1 << 20).unwrap();
        if batch.records.is_empty() {
            return records;
        }
        records.extend(batch.records.into_iter().map(|(_, record)| record));
    }
}

fn payloads(records: &[Record]) -> Vec<Json> {
    let json = |record: &Record| serde_json::from_slice(&record.payload).unwrap();
    records.iter().map(json).collect()
}

fn audit(world: &World) -> Vec<Json> {
    payloads(&records(world, "audit"))
}

/// What senders were told.
fn answers(world: &World) -> Vec<Json> {
    let mut records = records(world, "commands");
    records.retain(|record| record.source.ends_with("/result"));
    payloads(&records)
}

/// The same of one command, as soon as there are so many of it.
async fn result(world: &World, topic: &str, number: usize) -> Json {
    let told = || {
        let mut answers = answers(world);
        answers.retain(|answer| answer["topic"] == topic);
        answers
    };
    wait("a result", || told().len() >= number).await;
    told().swap_remove(number - 1)
}

fn outcomes(world: &World) -> Vec<String> {
    let word = |record: &Json| record["outcome"].as_str().unwrap().to_owned();
    audit(world).iter().map(word).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listed_write_is_done_once_and_told() {
    let world = World::new();
    let plant = world.plant(0).await;
    plant.add_setpoint("setpoint", DOUBLE, 20.0);
    let limits = Limits {
        min: Some(0.0),
        max: Some(100.0),
    };
    let list = vec![writes(SETPOINT, "setpoint", limits)];
    let client = start(&world, &plant.url(), list).await;
    let mut message = Record::new(Kind::Mqtt, SETPOINT, r#"{"value": 42.5, "id": "o-17"}"#);
    for (name, value) in [
        ("mqtt-user", "ada"),
        ("mqtt-client", "panel-7"),
        ("mqtt-correlation-data", "c1"),
    ] {
        let value = Bytes::from(value);
        message.attributes.push((name.to_owned(), value));
    }
    let offset = append(&world, message).await;
    let told = result(&world, SETPOINT, 1).await;
    assert_eq!(plant.number("setpoint"), Some(42.5));
    assert_eq!(
        (&told["outcome"], &told["id"], &told["status"]),
        (&json!("done"), &json!("o-17"), &json!("Good"))
    );
    assert_eq!(
        (&told["value"], &told["before"]),
        (&json!(42.5), &json!(20.0))
    );
    assert_eq!(told["offset"], json!(offset));
    assert_eq!(told["user"], json!(null), "who else listens need not know");
    let replies = records(&world, "commands");
    let correlation = ("mqtt-correlation-data".to_owned(), Bytes::from("c1"));
    assert!(replies[1].attributes.contains(&correlation));

    let audit = audit(&world);
    assert_eq!(outcomes(&world), ["sending", "done"]);
    for record in &audit {
        assert_eq!(record["event"], json!("opcua_command"));
        assert_eq!(
            (&record["user"], &record["client"]),
            (&json!("ada"), &json!("panel-7"))
        );
        assert_eq!(record["node"], json!(OpcuaServer::node_id("setpoint")));
        assert_eq!(record["value"], json!(42.5));
    }
    let status = client.stop().await.commands.unwrap();
    assert_eq!((status.topics, status.done_total), (1, 1));
    assert_eq!(status.last_error, None);

    // Nothing is done again by the next run.
    plant.on_write("setpoint", |_| panic!("written again"));
    let client = start(
        &world,
        &plant.url(),
        vec![writes(SETPOINT, "setpoint", limits)],
    )
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(client.stop().await.commands.unwrap().done_total, 0);
    assert_eq!(outcomes(&world).len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_exactly_allowed_is_refused_and_told() {
    let world = World::new();
    let plant = world.plant(0).await;
    plant.add_setpoint("setpoint", DOUBLE, 20.0);
    plant.add_setpoint("short", INT16, 1.0);
    plant.add_setpoint("delay", DURATION, 1.0);
    let limits = Limits {
        min: Some(0.0),
        max: Some(100.0),
    };
    let list = vec![
        writes(SETPOINT, "setpoint", limits),
        writes("cmd/short", "short", Limits::default()),
        writes("cmd/delay", "delay", Limits::default()),
        writes("cmd/count", "count", Limits::default()),
        writes("cmd/gone", "gone", Limits::default()),
    ];
    let client = start(&world, &plant.url(), list).await;
    publish(&world, "cmd/other", "1").await;
    for (topic, payload, outcome, why) in [
        (
            SETPOINT,
            "100.1",
            "refused",
            "not within what is allowed here, 0 to 100",
        ),
        (SETPOINT, r#""NaN""#, "refused", "not within"),
        (SETPOINT, "on", "refused", "the payload is not JSON"),
        (
            SETPOINT,
            r#"{"value": 1, "when": 2}"#,
            "refused",
            "`when` is none of",
        ),
        ("cmd/short", "40000", "refused", "does not fit Int16"),
        ("cmd/short", "1.5", "refused", "a whole number"),
        ("cmd/short", "[1]", "refused", "takes one value"),
        (
            "cmd/count",
            "1",
            "failed",
            "another login may (BadUserAccessDenied)",
        ),
        ("cmd/gone", "1", "failed", "no such node (BadNodeIdUnknown)"),
    ] {
        let number = answers(&world).len() + 1;
        publish(&world, topic, payload).await;
        wait("an answer", || answers(&world).len() == number).await;
        let told = answers(&world).swap_remove(number - 1);
        assert_eq!(told["topic"], json!(topic));
        assert_eq!(told["outcome"], json!(outcome), "{told}");
        let reason = told["reason"].as_str().unwrap();
        assert!(reason.contains(why), "{reason}");
    }
    // Neither a type of the plant's own nor another command is in their way.
    publish(&world, "cmd/delay", "250").await;
    publish(&world, "cmd/short", "-7").await;
    result(&world, "cmd/short", 4).await;
    assert_eq!(
        (plant.number("delay"), plant.number("short")),
        (Some(250.0), Some(-7.0))
    );
    assert_eq!(plant.number("setpoint"), Some(20.0));
    let status = client.stop().await.commands.unwrap();
    assert_eq!((status.refused_total, status.failed_total), (7, 2));
    assert_eq!(status.last_error.unwrap().topic, "cmd/gone");
    let nowhere = audit(&world);
    let nowhere = nowhere
        .iter()
        .filter(|it| it["topic"] == json!("cmd/other"));
    assert_eq!(nowhere.count(), 0, "an unlisted topic is no command");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_method_is_called_with_what_it_takes() {
    let world = World::new();
    let plant = world.plant(0).await;
    plant.add_method("reset", |level| match level {
        0.0..=10.0 => Ok(2.0 * level),
        _ => Err(BAD_OUT_OF_RANGE),
    });
    let client = start(&world, &plant.url(), vec![resets()]).await;
    for (number, payload, outcome, key, says) in [
        (1, "[2.5]", "done", "outputs", "[5.0]"),
        (2, r#"{"value": 4, "id": 7}"#, "done", "outputs", "[8.0]"),
        (
            3,
            "",
            "refused",
            "reason",
            "the method takes 1 arguments (level), and these are 0",
        ),
        (4, r#"["high"]"#, "refused", "reason", "argument level: "),
        (5, "[11]", "failed", "reason", "BadOutOfRange"),
    ] {
        publish(&world, RESET, payload).await;
        let told = result(&world, RESET, number).await;
        assert_eq!(told["outcome"], json!(outcome), "{told}");
        let said = told[key].to_string();
        assert!(said.contains(says), "{told}");
    }
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_before_the_topic_was_listed_is_no_command() {
    let world = World::new();
    let plant = world.plant(0).await;
    plant.add_setpoint("setpoint", DOUBLE, 20.0);
    let list = || vec![writes(SETPOINT, "setpoint", Limits::default())];
    publish(&world, SETPOINT, "1").await;
    let client = start(&world, &plant.url(), list()).await;
    publish(&world, SETPOINT, "2").await;
    result(&world, SETPOINT, 1).await;
    client.stop().await;
    assert_eq!(plant.number("setpoint"), Some(2.0));

    // What a topic meant once it does not mean for another node.
    publish(&world, SETPOINT, "3").await;
    plant.add_setpoint("other", DOUBLE, 0.0);
    let other = vec![writes(SETPOINT, "other", Limits::default())];
    let client = start(&world, &plant.url(), other).await;
    publish(&world, SETPOINT, "4").await;
    result(&world, SETPOINT, 2).await;
    client.stop().await;
    assert_eq!(
        (plant.number("setpoint"), plant.number("other")),
        (Some(2.0), Some(4.0))
    );
    assert_eq!(outcomes(&world), ["sending", "done", "sending", "done"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_waits_for_the_server_and_not_too_long() {
    let world = World::new();
    let plant = world.plant(0).await;
    plant.add_setpoint("setpoint", DOUBLE, 20.0);
    let proxy = Proxy::to(plant.port()).await;
    let mut hasty = writes("cmd/hasty", "setpoint", Limits::default());
    hasty.max_age = Duration::from_millis(700);
    let patient = writes(SETPOINT, "setpoint", Limits::default());
    let client = start(&world, &proxy.url(), vec![hasty, patient]).await;
    proxy.cut();
    client
        .until("the cut", |s| s.state == State::Retrying)
        .await;
    publish(&world, "cmd/hasty", "1").await;
    publish(&world, SETPOINT, "2").await;
    let told = result(&world, "cmd/hasty", 1).await;
    assert_eq!(told["outcome"], json!("refused"));
    let reason = told["reason"].as_str().unwrap();
    assert!(reason.contains("older than the 0.7 s"), "{reason}");
    assert!(reason.contains("no connection"), "{reason}");
    assert_eq!(plant.number("setpoint"), Some(20.0));
    proxy.open();
    let told = result(&world, SETPOINT, 1).await;
    assert_eq!(told["outcome"], json!("done"), "{told}");
    assert_eq!(plant.number("setpoint"), Some(2.0));

    // Its sender's own expiry counts as well, and so does the time before a restart.
    client.stop().await;
    let mut message = Record::new(Kind::Mqtt, SETPOINT, "3");
    message.ingest_time = WallNanos(WallNanos::now().0 - 5_000_000_000);
    let expiry = ("mqtt-message-expiry-seconds".to_owned(), Bytes::from("4"));
    message.attributes.push(expiry);
    append(&world, message).await;
    let patient = writes(SETPOINT, "setpoint", Limits::default());
    let client = start(&world, &proxy.url(), vec![patient]).await;
    let told = result(&world, SETPOINT, 2).await;
    let reason = told["reason"].as_str().unwrap();
    assert!(reason.contains("older than the 4 s"), "{reason}");
    client.stop().await;
    assert_eq!(plant.number("setpoint"), Some(2.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_before_it_is_sent_leaves_it_to_the_next_run() {
    let world = World::new();
    let plant = world.plant(0).await;
    plant.add_setpoint("setpoint", DOUBLE, 20.0);
    let proxy = Proxy::to(plant.port()).await;
    let list = || vec![writes(SETPOINT, "setpoint", Limits::default())];
    let client = start(&world, &proxy.url(), list()).await;
    proxy.cut();
    client
        .until("the cut", |s| s.state == State::Retrying)
        .await;
    publish(&world, SETPOINT, "5").await;
    client.crash().await;
    assert_eq!(audit(&world), Vec::<Json>::new());
    proxy.open();
    let client = start(&world, &proxy.url(), list()).await;
    result(&world, SETPOINT, 1).await;
    client.stop().await;
    assert_eq!(plant.number("setpoint"), Some(5.0));
    assert_eq!(outcomes(&world), ["sending", "done"]);
}

/// Something that holds up the server until it is opened.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn pass(&self) {
        let shut = |open: &mut bool| !*open;
        let patience = Duration::from_secs(60);
        let waited = self
            .opened
            .wait_timeout_while(self.open.lock().unwrap(), patience, shut);
        assert!(!waited.unwrap().1.timed_out(), "held up for too long");
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

/// A setpoint whose server is held up at each write, and how many of them it saw.
fn slow_setpoint(plant: &OpcuaServer) -> (Arc<Gate>, Arc<AtomicU32>) {
    plant.add_setpoint("setpoint", DOUBLE, 20.0);
    let (gate, writes_seen) = (Arc::new(Gate::default()), Arc::new(AtomicU32::new(0)));
    let (at_gate, seen) = (Arc::clone(&gate), Arc::clone(&writes_seen));
    plant.on_write("setpoint", move |_| {
        seen.fetch_add(1, Ordering::SeqCst);
        tokio::task::block_in_place(|| at_gate.pass());
        0
    });
    (gate, writes_seen)
}

fn setpoint_only() -> Vec<Command> {
    vec![writes(SETPOINT, "setpoint", Limits::default())]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_crash_while_the_server_is_at_it_has_it_sent_once_and_called_unknown() {
    let world = World::new();
    let plant = world.plant(0).await;
    let (gate, writes_seen) = slow_setpoint(&plant);
    let client = start(&world, &plant.url(), setpoint_only()).await;
    let offset = publish(&world, SETPOINT, r#"{"value": 7, "id": "x"}"#).await;
    let at_it = || writes_seen.load(Ordering::SeqCst) == 1;
    wait("the server is at it", at_it).await;
    client.crash().await;
    gate.open();
    assert_eq!(outcomes(&world), ["sending"]);

    let client = start(&world, &plant.url(), setpoint_only()).await;
    let told = result(&world, SETPOINT, 1).await;
    assert_eq!(
        (&told["outcome"], &told["id"], &told["offset"]),
        (&json!("unknown"), &json!("x"), &json!(offset))
    );
    // The next one is done as ever.
    publish(&world, SETPOINT, "8").await;
    let told = result(&world, SETPOINT, 2).await;
    assert_eq!(told["outcome"], json!("done"), "{told}");
    let status = client.stop().await.commands.unwrap();
    assert_eq!((status.unknown_total, status.done_total), (1, 1));
    assert_eq!(writes_seen.load(Ordering::SeqCst), 2);
    assert_eq!(outcomes(&world), ["sending", "unknown", "sending", "done"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_connection_that_breaks_under_a_command_has_it_called_unknown_and_not_sent_again() {
    let world = World::new();
    let plant = world.plant(0).await;
    let (gate, writes_seen) = slow_setpoint(&plant);
    let proxy = Proxy::to(plant.port()).await;
    let client = start(&world, &proxy.url(), setpoint_only()).await;
    publish(&world, SETPOINT, "7").await;
    let at_it = || writes_seen.load(Ordering::SeqCst) == 1;
    wait("the server is at it", at_it).await;
    proxy.cut();
    let told = result(&world, SETPOINT, 1).await;
    assert_eq!(told["outcome"], json!("unknown"), "{told}");
    gate.open();
    proxy.open();
    publish(&world, SETPOINT, "8").await;
    let told = result(&world, SETPOINT, 2).await;
    assert_eq!(told["outcome"], json!("done"), "{told}");
    client.stop().await;
    assert_eq!(writes_seen.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stop_waits_for_the_command_under_way() {
    let world = World::new();
    let plant = world.plant(0).await;
    let (gate, writes_seen) = slow_setpoint(&plant);
    let client = start(&world, &plant.url(), setpoint_only()).await;
    publish(&world, SETPOINT, "7").await;
    let at_it = || writes_seen.load(Ordering::SeqCst) == 1;
    wait("the server is at it", at_it).await;
    let opening = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        gate.open();
    };
    let (status, ()) = tokio::join!(client.stop(), opening);
    assert_eq!(status.commands.unwrap().done_total, 1);
    assert_eq!(outcomes(&world), ["sending", "done"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_audited_is_not_done() {
    let world = World::new();
    let plant = world.plant(0).await;
    plant.add_setpoint("setpoint", DOUBLE, 20.0);
    world.fill_stream(&stream("audit")).await;
    let client = start(&world, &plant.url(), setpoint_only()).await;
    publish(&world, SETPOINT, "7").await;
    for count in 1..=5 {
        set(&plant, count).await;
    }
    let all = |records: &[Record]| counts(records).len() == 6;
    world.until("values beside it", all).await;
    assert_eq!(plant.number("setpoint"), Some(20.0));
    world.free_stream(&stream("audit")).await;
    let told = result(&world, SETPOINT, 1).await;
    assert_eq!(told["outcome"], json!("done"), "{told}");
    assert_eq!(plant.number("setpoint"), Some(7.0));
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn values_flow_on_beside_a_command_under_way() {
    let world = World::new();
    let plant = world.plant(0).await;
    let gate = Arc::new(Gate::default());
    let at_gate = Arc::clone(&gate);
    plant.add_method("reset", move |level| {
        tokio::task::block_in_place(|| at_gate.pass());
        Ok(level)
    });
    let client = start(&world, &plant.url(), vec![resets()]).await;
    publish(&world, RESET, "[1]").await;
    wait("it is sent", || outcomes(&world) == ["sending"]).await;
    for count in 1..=3 {
        set(&plant, count).await;
    }
    let all = |records: &[Record]| counts(records) == [0, 1, 2, 3];
    world.until("values", all).await;
    assert_eq!(outcomes(&world), ["sending"], "the method is not done yet");
    gate.open();
    let told = result(&world, RESET, 1).await;
    assert_eq!(told["outcome"], json!("done"), "{told}");
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_written_by_its_path_and_nothing_where_that_leads_nowhere() {
    let world = World::new();
    let plant = world.plant(0).await;
    plant.add_setpoint("setpoint", DOUBLE, 20.0);
    let by_path = |topic: &str, path: &str| {
        let node = path.parse::<BrowsePath>().unwrap().into();
        let limits = Limits::default();
        command(topic, Action::Write { node, limits })
    };
    let list = vec![
        by_path(SETPOINT, "setpoint"),
        by_path("cmd/lost", "pump1/nothing"),
    ];
    let client = start(&world, &plant.url(), list).await;
    publish(&world, SETPOINT, "42.5").await;
    let told = result(&world, SETPOINT, 1).await;
    assert_eq!(
        (&told["outcome"], &told["node"]),
        (&json!("done"), &json!("setpoint")),
        "{told}"
    );
    assert_eq!(plant.number("setpoint"), Some(42.5));
    publish(&world, "cmd/lost", "1").await;
    let told = result(&world, "cmd/lost", 1).await;
    assert_eq!(told["outcome"], "failed", "{told}");
    let reason = told["reason"].as_str().unwrap();
    assert!(reason.contains("no node has this path"), "{told}");
    client.stop().await;
}
