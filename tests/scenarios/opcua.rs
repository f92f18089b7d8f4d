//! OPC-UA from servers that are not ours, and not all well behaved.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use skerry_tests::audit::{self, Arrived};
use skerry_tests::node;
use skerry_tests::opcua::{Make, NAMESPACE, OpcuaServer, judge};
use skerry_tests::process::Signal;
use skerry_tests::python::Helper;
use skerry_tests::world::World;
use skerry_tests::{Context as _, Result, ensure, wait};

use crate::common::{drained, log_agrees};

/// Three samples of the clock that do not come, and two looks at it.
const CLOCK_TOLD: Duration = Duration::from_secs(90);
const COUNTERS: u32 = 3;
/// Every fifth value is a bad one.
const BAD_EVERY: u64 = 5;
/// BadSensorFailure (OPC 10000-4, 7.39).
const BAD_SENSOR_FAILURE: &str = "808c0000";
/// The second server starts here, far from where the first can have got to.
const SECOND_FROM: u64 = 100_000;

/// The counter, or none where the value is null, as it is with a Bad status (7.11).
fn value(record: &Arrived) -> Result<Option<u64>> {
    let payload = record.json()?;
    let value = payload.get("value");
    let value = value.with_context(|| format!("no value in {record:?}"))?;
    Ok(value.as_u64())
}

/// Waits until the cluster has `count` values at or above `from`.
fn values_arrived(consumer: &mut Helper, from: u64, count: usize) -> Result<()> {
    let what = format!("{count} values from {from} on");
    wait::until_true(&what, wait::DRAIN, || {
        let mut there = 0;
        for record in audit::arrived(&consumer.lines()?)? {
            if record.kind() == "opcua" && value(&record)? >= Some(from) {
                there += 1;
            }
        }
        ensure!(there >= count, "{there} so far");
        Ok(true)
    })
}

/// The server is killed and another one takes its place: values flow again, and the stream says
/// that something is missing in between.
pub(crate) fn restarted(world: &World) -> Result<()> {
    let kafka = world.kafka()?;
    let port = world.port()?;
    let mut settings = world.settings()?;
    settings.kafka = Some(kafka.address());
    settings.add_opcua(port, COUNTERS);
    let mut consumer = world.consumer(&kafka.address())?;
    let first = world.opcua_server("first", port, COUNTERS, 0, BAD_EVERY)?;
    // One that takes its time to start would have the node tell, rightly, of a server that is away.
    let serves = || Ok(!first.lines()?.is_empty());
    wait::until_true("the server sets its counters", wait::START, serves)?;
    let mut node = world.started(settings)?;
    values_arrived(&mut consumer, 0, 150)?;

    let what = "the node sees that the server is gone";
    let first_lines = first.lines()?;
    first.kill()?;
    let is_away = |status: &Value| status["opcua"][0]["state"] == "retrying";
    node.wait_for_status(what, wait::DRAIN, is_away)?;
    let second = world.opcua_server("second", port, COUNTERS, SECOND_FROM, BAD_EVERY)?;
    values_arrived(&mut consumer, SECOND_FROM, 150)?;
    let second_lines = second.lines()?;
    drop(second);

    let arrived = drained(&node, &mut consumer)?;
    let machines: Vec<Arrived> = arrived
        .into_iter()
        .filter(|record| record.topic == "skerry.machines")
        .collect();
    for counter in 0..COUNTERS {
        let name = format!("Counter{counter}");
        check_counter(
            &name,
            &machines,
            &set_to(&first_lines, &second_lines, &name),
        )?;
    }
    let gaps = machines
        .iter()
        .filter(|record| record.kind() == "gap")
        .count();
    ensure!(gaps > 0, "nothing in the stream tells of the outage");
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    log_agrees(&node, "machines", &machines)
}

/// What the two servers set one counter to, with the StatusCode.
fn set_to(first: &[Value], second: &[Value], name: &str) -> BTreeMap<u64, u64> {
    let sets = first
        .iter()
        .chain(second)
        .filter(|line| line["name"] == name);
    sets.filter_map(|line| Some((line["value"].as_u64()?, line["status"].as_u64()?)))
        .collect()
}

/// Only what a server said, in its order, with its status and times; without holes while the
/// server lived.
fn check_counter(name: &str, machines: &[Arrived], set: &BTreeMap<u64, u64>) -> Result<()> {
    let mut newest: Option<u64> = None;
    let mut bad = 0;
    for record in machines
        .iter()
        .filter(|record| record.kind() == "opcua" && record.key == name)
    {
        record.header("skerry-source-time")?.parse::<i64>()?;
        record.header("skerry-server-time")?.parse::<i64>()?;
        let status = record.headers.get("skerry-status").map(String::as_str);
        let Some(value) = value(record)? else {
            ensure!(status == Some(BAD_SENSOR_FAILURE), "null, {status:?}");
            bad += 1;
            newest = newest.map(|before| before + 1);
            continue;
        };
        if let Some(before) = newest {
            // A server tells its value once more when it is asked anew.
            let repeated_or_next = value == before || value == before + 1;
            let from_the_second = before < SECOND_FROM && value >= SECOND_FROM;
            ensure!(
                repeated_or_next || from_the_second,
                "{name}: {value} came after {before}"
            );
        }
        newest = Some(value);
        ensure!(status.is_none(), "{name} {value}: Good came as {status:?}");
        let is_start = value == 0 || value == SECOND_FROM;
        let set = set.get(&value) == Some(&0);
        ensure!(set || is_start, "{name} was never set to {value} and Good");
    }
    ensure!(bad > 0, "{name}: no bad value came through");
    Ok(())
}

/// A server that nobody can reach connects to the node, also after it was killed.
pub(crate) fn calls(world: &World) -> Result<()> {
    const NAME: &str = "open62541";
    const URI: &str = "urn:open62541.server.application";
    let (port, listen) = (world.port()?, world.port()?);
    // Where it says it is, there is nobody: the node cannot have dialled.
    let nobody = world.port()?;
    let nodes = (0..COUNTERS).map(|n| {
        format!(
            "  {{ name = \"{NAME}/Counter{n}\", id = \"nsu={NAMESPACE};s=Counter{n}\", \
             sampling = \"0ms\" }},\n"
        )
    });
    let nodes: String = nodes.collect();
    let mut settings = world.settings()?;
    settings.more = format!(
        "\n[[stream]]\nname = \"machines\"\ntopics = []\n\n[[opcua]]\nname = \"{NAME}\"\n\
         endpoint = \"opc.tcp://127.0.0.1:{nobody}\"\nlisten = \"127.0.0.1:{listen}\"\n\
         server_uri = \"{URI}\"\nstream = \"machines\"\npublishing_interval = \"100ms\"\n\
         nodes = [\n{nodes}]\n"
    );
    let mut node = world.started(settings)?;
    let is = |state: &'static str| move |status: &Value| status["opcua"][0]["state"] == state;
    let mut produced = Vec::new();
    for (name, first) in [("first", 0), ("second", SECOND_FROM)] {
        let server = OpcuaServer::new(Make::Open62541, name, port)
            .with(format!("--first={first}"))
            .with(format!("--call={listen}"))
            .start(world)?;
        node.wait_for_status("it has called", wait::START, is("connected"))?;
        wait::until_true("its values", wait::START, || {
            let logged = node::log_cat(&node.settings().data, "machines")?;
            let from = |record: &&Value| record["payload"]["value"].as_u64() >= Some(first);
            let count = logged.iter().filter(from).count();
            ensure!(count >= 60, "{count} so far");
            Ok(true)
        })?;
        produced.extend(server.lines()?);
        server.kill()?;
        node.wait_for_status("it is gone", wait::START, is("retrying"))?;
    }
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    let logged = node::log_cat(&node.settings().data, "machines")?;
    let sets = produced.iter().filter_map(|line| line["time"].as_i64());
    // What was set last may not have been collected when the second was killed.
    let until = sets.max().context("nothing was set")? - 1_000_000_000;
    judge::judge(NAME, &produced, &logged, until).map(drop)
}

/// What `browse` prints is config that `check` accepts, and has the counters in it.
pub(crate) fn browse(world: &World) -> Result<()> {
    for (make, name) in [(Make::Asyncua, "asyncua"), (Make::NodeOpcua, "node-opcua")] {
        let server = OpcuaServer::new(make, name, world.port()?);
        let counters = format!("--counters={COUNTERS}");
        let _running = server.clone().with(counters).start(world)?;
        browsed(world, name, &server.url()).context(name)?;
    }
    let nobody = format!("opc.tcp://127.0.0.1:{}", world.port()?);
    let refused = node::skerry(&["opcua", "browse", "--timeout", "5s", &nobody])?;
    ensure!(
        refused.code == Some(1),
        "nobody was browsed: {:?}",
        refused.code
    );
    ensure!(
        refused.stderr.contains(&nobody),
        "does not say where: {}",
        refused.stderr
    );
    Ok(())
}

fn browsed(world: &World, name: &str, url: &str) -> Result<()> {
    let output = node::skerry(&["opcua", "browse", url])?;
    ensure!(output.code == Some(0), "browse failed: {}", output.text());
    for counter in 0..COUNTERS {
        let id = format!(";s=Counter{counter}\"");
        ensure!(
            output.stdout.contains(&id),
            "{id} is not in {}",
            output.stdout
        );
    }
    let mut settings = world.settings()?;
    settings.more = format!("\n[[stream]]\nname = \"machines\"\n\n{}", output.stdout);
    let node = world.node_named(name, settings)?;
    let config = node.config().display().to_string();
    let checked = node::skerry(&["check", &config])?;
    ensure!(
        checked.code == Some(0),
        "what browse printed is refused: {}",
        checked.text()
    );
    Ok(())
}

/// The server's clock is set an hour ahead, and later stands still, while its values go on: both are
/// told, and nothing is torn down for them.
pub(crate) fn clock_odd(world: &World) -> Result<()> {
    let port = world.port()?;
    let server = OpcuaServer::new(Make::Asyncua, "plant", port)
        .with("--counters=1")
        .with("--clock")
        .start(world)?;
    let mut settings = world.settings()?;
    settings.add_opcua(port, 1);
    let mut node = world.started(settings)?;
    let clock = |status: &Value, key: &str| status["opcua"][0]["server_clock"][key].clone();
    node.wait_for_status("a clock that is right", wait::START, |status| {
        clock(status, "wrong") == false && clock(status, "stands_still") == false
    })?;
    server.process().signal(Signal::USR1)?;
    let hour_ms = 3_600_000;
    let set = node.wait_for_status("the jump is told", CLOCK_TOLD, |status| {
        clock(status, "wrong") == true
    })?;
    let offset_ms = clock(&set, "offset_ms").as_i64().context("an offset")?;
    ensure!((offset_ms - hour_ms).abs() < 10_000, "{offset_ms}");
    server.process().signal(Signal::HUP)?;
    let stopped = node.wait_for_status("the standstill is told", CLOCK_TOLD, |status| {
        clock(status, "stands_still") == true
    })?;
    let values = |status: &Value| status["opcua"][0]["values_total"].as_u64();
    let so_far = values(&stopped);
    let later = node.wait_for_status("values all the same", wait::START, |status| {
        values(status) > so_far.map(|count| count + 50)
    })?;
    let endpoint = &later["opcua"][0];
    let reconnects = &endpoint["reconnects_total"];
    ensure!(
        endpoint["state"] == "connected" && *reconnects == 0,
        "{endpoint}"
    );
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    let logged = node::log_cat(&node.settings().data, "machines")?;
    let lines = server.lines()?;
    let set = lines.iter().filter(|line| line["event"] == "set");
    let set: Vec<u64> = set.filter_map(|line| line["value"].as_u64()).collect();
    let read = |record: &Value| record["payload"]["value"].as_u64();
    let read: Vec<u64> = logged.iter().filter_map(read).collect();
    let missing = read.windows(2).find(|two| two[1] != two[0] + 1);
    ensure!(
        missing.is_none() && read.len() > 100,
        "{missing:?} in {}",
        read.len()
    );
    ensure!(read.last() <= set.last(), "only what was set");
    let told = logged.iter().filter(|record| record["kind"] == "gap");
    ensure!(told.count() == 0, "nothing is missing");
    Ok(())
}
