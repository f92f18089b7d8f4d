//! A folder of a server that is not ours, whose variables come and go while the node is there, while
//! it is dead, and while the server is.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use skerry_tests::node::{self, Node};
use skerry_tests::process::Signal;
use skerry_tests::python::{Helper, count};
use skerry_tests::world::World;
use skerry_tests::{Context as _, Result, ensure, wait};

const STREAM: &str = "machines";
const TAGS: u64 = 1_000;
/// What a value is made of: the tick, and the tag's number, which no other tag may have.
const TICK: u64 = 100_000;
/// Ticks at ten a second.
const TICKS: usize = 15;
/// The second server's ticks, far from where the first can have got to.
const SECOND_FROM: u64 = 10_000;
/// What the server has set is in the log by then.
const ON_THE_WAY: Duration = Duration::from_secs(2);
/// `Bad_NodeIdUnknown` (OPC 10000-4, 7.39).
const GONE: u64 = 0x8034_0000;

pub(crate) fn follows(world: &World) -> Result<()> {
    let port = world.port()?;
    let mut server = serve(world, "first", port, &[])?;
    let mut settings = world.settings()?;
    settings.more = format!(
        r#"
[[stream]]
name = "{STREAM}"
topics = []

[[opcua]]
name = "hall"
endpoint = "opc.tcp://127.0.0.1:{port}/tests"
stream = "{STREAM}"
publishing_interval = "100ms"
browse_interval = "5s"
nodes = [ {{ name = "alone", path = "Plant/nsu=urn:skerry:folder;Hall/Tag7", sampling = "50ms" }} ]

[[opcua.folder]]
path = "Plant/Hall"
name = "hall"
sampling = "50ms"
"#
    );
    let mut node = world.started(settings)?;
    nodes_are(&node, TAGS + 1)?;
    ticks(&mut server, TICKS)?;

    // One of a thousand goes, and one comes.
    server.process().signal(Signal::USR1)?;
    recorded(&node, "hall/Tag500", GONE)?;
    recorded(&node, "hall/Tag1000", 0)?;
    nodes_are(&node, TAGS + 1)?;
    ticks(&mut server, TICKS)?;

    // While the node is dead, what was gone is back, and another one comes.
    node.kill()?;
    server.process().signal(Signal::USR2)?;
    ticks(&mut server, TICKS)?;
    node.start()?;
    recorded(&node, "hall/Tag1001", 0)?;
    nodes_are(&node, TAGS + 3)?;
    ticks(&mut server, TICKS)?;
    let lines = server.lines()?;
    thread::sleep(ON_THE_WAY);
    server.kill()?;
    node.wait_for_status(
        "the node sees that the server is gone",
        wait::START,
        |status| status["opcua"][0]["state"] == "retrying",
    )?;

    // The next server gives the same names to other ids, in another namespace.
    let first = format!("--first={SECOND_FROM}");
    let mut second = serve(
        world,
        "second",
        port,
        &["--backwards", "--namespaces=2", &first],
    )?;
    nodes_are(&node, TAGS + 1)?;
    ticks(&mut second, TICKS)?;
    let second_lines = second.lines()?;
    thread::sleep(ON_THE_WAY);
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");

    let logged = node::log_cat(&node.settings().data, STREAM)?;
    let gaps = logged.iter().filter(|record| record["kind"] == "gap");
    ensure!(gaps.count() == 1, "the one that the second server made");
    names_are_true(&logged)?;
    // From the first tag's going on, it is another story.
    for number in (0..TAGS).step_by(50).filter(|number| *number != 500) {
        nothing_is_missing(&logged, &lines, number)?;
    }
    nothing_is_missing(&logged, &lines, 1_000)?;
    for number in (0..TAGS).step_by(50) {
        nothing_is_missing(&logged, &second_lines, number)?;
    }
    let gone = |name: &str| {
        let of = logged.iter().filter(|record| record["source"] == name);
        of.filter(|record| record["status"] == GONE).count()
    };
    // By the server's word or by the look, and at the second server's start it was there.
    ensure!(
        gone("hall/Tag500") == 1,
        "{} times gone",
        gone("hall/Tag500")
    );
    ensure!(gone("hall/Tag1000") == 1, "the second server has none such");
    ensure!(gone("hall/Tag550") == 0, "it was never gone");
    Ok(())
}

fn serve(world: &World, name: &str, port: u16, more: &[&str]) -> Result<Helper> {
    let mut arguments = vec![format!("--port={port}"), format!("--tags={TAGS}")];
    arguments.extend(more.iter().map(|&option| option.to_owned()));
    let (folder, logs) = (world.folder(), world.logs());
    let mut server = Helper::start("opcua_folder.py", name, "--out", &arguments, folder, logs)?;
    server.wait_for("the server serves", wait::START, |lines| {
        count(lines, "serving") > 0
    })?;
    Ok(server)
}

fn nodes_are(node: &Node, wanted: u64) -> Result<()> {
    let what = format!("{wanted} nodes are monitored");
    node.wait_for_status(&what, wait::DRAIN, |status| {
        let endpoint = &status["opcua"][0];
        endpoint["nodes_good"] == wanted && endpoint["nodes_bad"] == 0
    })?;
    Ok(())
}

/// Waits until the server has set so many values more of its first tag.
fn ticks(server: &mut Helper, wanted: usize) -> Result<()> {
    let ticked = |lines: &[Value]| lines.iter().filter(|line| line["name"] == "Tag0").count();
    let before = ticked(&server.lines()?);
    server.wait_for("ticks of the server", wait::START, |lines| {
        ticked(lines) >= before + wanted
    })?;
    Ok(())
}

fn recorded(node: &Node, source: &str, status: u64) -> Result<()> {
    let what = format!("a record of {source} with status {status:#x}");
    wait::until_true(&what, wait::DRAIN, || {
        let logged = node::log_cat(&node.settings().data, STREAM)?;
        let of = |record: &&Value| record["source"] == source && record["status"] == status;
        Ok(logged.iter().any(|record| of(&record)))
    })
}

/// A good value's number in its record.
fn value(record: &Value) -> Option<u64> {
    let payload: Value = match &record["payload"] {
        Value::String(text) => serde_json::from_str(text).ok()?,
        payload => payload.clone(),
    };
    payload["value"].as_u64()
}

fn names_are_true(logged: &[Value]) -> Result<()> {
    let mut seen = BTreeSet::new();
    for record in logged.iter().filter(|record| record["kind"] == "opcua") {
        let source = record["source"].as_str().context("a source")?;
        let number = match source.strip_prefix("hall/Tag") {
            Some(number) => number.parse::<u64>()?,
            None if source == "alone" => 7,
            None => continue,
        };
        seen.insert(number);
        let value = value(record);
        let true_to_it = value.is_none_or(|value| value % TICK == number);
        ensure!(
            true_to_it,
            "{source} has the value {value:?} of another tag"
        );
    }
    ensure!(seen.len() as u64 == TAGS + 2, "{} tags", seen.len());
    Ok(())
}

/// Every value from the first that was had to the last, once each.
fn nothing_is_missing(logged: &[Value], lines: &[Value], number: u64) -> Result<()> {
    let name = format!("Tag{number}");
    let of = lines
        .iter()
        .filter(|line| line["event"] == "set" && line["name"] == name.as_str());
    let set: Vec<u64> = of.filter_map(|line| line["value"].as_u64()).collect();
    let (from, to) = (set.first().context("set")?, set.last().context("set")?);
    let source = format!("hall/{name}");
    let mut had: BTreeMap<u64, usize> = BTreeMap::new();
    let of = logged
        .iter()
        .filter(|record| record["source"] == source.as_str());
    for value in of
        .filter_map(value)
        .filter(|value| (from..=to).contains(&value))
    {
        *had.entry(value).or_default() += 1;
    }
    let first = had.keys().next().context("something was had")?;
    let owed: Vec<u64> = set.iter().copied().filter(|value| value >= first).collect();
    ensure!(owed.len() > TICKS, "{name}: only {} are owed", owed.len());
    let missing: Vec<&u64> = owed
        .iter()
        .filter(|value| !had.contains_key(value))
        .collect();
    ensure!(
        missing.is_empty(),
        "{name}: {missing:?} are missing of {}",
        owed.len()
    );
    let twice: Vec<&u64> = had
        .iter()
        .filter(|(_, times)| **times > 1)
        .map(|it| it.0)
        .collect();
    ensure!(twice.is_empty(), "{name}: {twice:?} came twice");
    Ok(())
}
