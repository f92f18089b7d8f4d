//! Clients that are not ours do everything a client does, in both versions.

mod rumqttc_clients;

use skerry_tests::foreign::{Endpoint, Mosquitto, Teller, tell};
use skerry_tests::node::Node;
use skerry_tests::process::Process;
use skerry_tests::world::World;
use skerry_tests::{Context as _, Result, ensure, wait};
use tokio::runtime::Runtime;

use crate::common::logged_no_complaint;

const PROTOCOLS: [u8; 2] = [4, 5];

/// Where the node listens: what is added here, every client below is sent to that can get there.
fn endpoints(node: &Node) -> Vec<Endpoint> {
    let port = node.mqtt_port();
    vec![Endpoint::Tcp { port }]
}

fn each(world: &World, story: impl Fn(&str, u8, &Endpoint) -> Result<()>) -> Result<()> {
    let mut node = world.started(world.settings()?)?;
    for endpoint in endpoints(&node) {
        for protocol in PROTOCOLS {
            let name = format!("story-{}-{protocol}", endpoint.name());
            story(&name, protocol, &endpoint).with_context(|| name.clone())?;
        }
    }
    logged_no_complaint(&node)?;
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    Ok(())
}

pub(crate) fn paho(world: &World) -> Result<()> {
    each(world, |name, protocol, endpoint| {
        tell(Teller::Paho, name, protocol, endpoint)
    })
}

pub(crate) fn mqtt_js(world: &World) -> Result<()> {
    each(world, |name, protocol, endpoint| {
        tell(Teller::MqttJs, name, protocol, endpoint)
    })
}

pub(crate) fn rumqttc(world: &World) -> Result<()> {
    let runtime = Runtime::new()?;
    each(world, |name, protocol, endpoint| match endpoint {
        Endpoint::Tcp { port } => runtime.block_on(rumqttc_clients::story(*port, name, protocol)),
        // Its TLS and WebSocket are features that this workspace does not build.
        _ => Ok(()),
    })
}

pub(crate) fn mosquitto(world: &World) -> Result<()> {
    each(world, |name, protocol, endpoint| {
        if matches!(
            endpoint,
            Endpoint::WebSocket { .. } | Endpoint::SecureWebSocket { .. }
        ) {
            return Ok(());
        }
        let clients = Mosquitto::new(protocol, endpoint)?;
        mosquitto_story(&clients, name, protocol, world)
    })
}

/// What a subscriber has printed of the messages it got, once there are `count`.
fn got(subscriber: &Process, count: usize) -> Result<Vec<String>> {
    wait::until("the messages come", wait::START, || {
        let output = subscriber.output()?;
        let lines = output.lines().filter_map(|line| line.strip_prefix("got "));
        let lines: Vec<String> = lines.map(str::to_owned).collect();
        ensure!(
            lines.len() >= count,
            "{} of {count}: {lines:?}",
            lines.len()
        );
        Ok(Some(lines))
    })
}

fn expect(subscriber: &Process, expected: &[&str]) -> Result<()> {
    let lines = got(subscriber, expected.len())?;
    ensure!(lines == expected, "got {lines:?}, expected {expected:?}");
    Ok(())
}

fn mosquitto_story(clients: &Mosquitto, root: &str, protocol: u8, world: &World) -> Result<()> {
    let logs = world.logs();
    let at = |rest: &str| format!("{root}/{rest}");
    let named = |name: &str| format!("{root}-{name}");
    let lasting: &[&str] = match protocol {
        5 => &["-c", "-x", "3600"],
        _ => &["-c"],
    };

    let mut wild = clients.subscriber(&named("lasting"), &at("+/state/#"), lasting, logs)?;
    clients.publish(&at("a/other"), "unwanted", 1, &[])?;
    for qos in 0..=2 {
        clients.publish(&at("a/state/deep"), &qos.to_string(), qos, &[])?;
    }
    expect(&wild, &["0 0 0", "1 0 1", "2 0 2"])?;

    clients.publish(&at("kept"), "kept", 1, &["-r"])?;
    let late = clients.subscriber(&named("late"), &at("kept"), &[], logs)?;
    expect(&late, &["1 1 kept"])?;
    clients.publish(&at("kept"), "", 1, &["-r"])?;
    let later = clients.subscriber(&named("later"), &at("kept"), &[], logs)?;
    clients.publish(&at("kept"), "first", 1, &[])?;
    expect(&later, &["1 0 first"])?;

    let heir = clients.subscriber(&named("heir"), &at("will"), &[], logs)?;
    let topic = at("will");
    let will = [
        "--will-topic",
        &topic,
        "--will-payload",
        "gone",
        "--will-qos",
        "1",
    ];
    let mut mortal = clients.subscriber(&named("mortal"), &at("nothing"), &will, logs)?;
    mortal.kill()?;
    expect(&heir, &["1 0 gone"])?;

    // As a cable is pulled: the session stays.
    wild.kill()?;
    let mut missed = Vec::new();
    for number in 0..10_u8 {
        let qos = 1 + number / 5;
        clients.publish(&at("b/state"), &number.to_string(), qos, &[])?;
        missed.push(format!("{qos} 0 {number}"));
    }
    // It may print the first before it says that it is subscribed again.
    let back = clients.subscriber(&named("lasting"), &at("+/state/#"), lasting, logs)?;
    expect(
        &back,
        &missed.iter().map(String::as_str).collect::<Vec<_>>(),
    )
}
