//! Clients that are not ours do everything a client does, in both versions.

mod rumqttc_clients;

use skerry_tests::certificates::Authority;
use skerry_tests::foreign::{Endpoint, Mosquitto, Teller, tell};
use skerry_tests::node::Settings;
use skerry_tests::ports;
use skerry_tests::process::Process;
use skerry_tests::world::World;
use skerry_tests::{Context as _, Result, ensure, wait};
use tokio::runtime::Runtime;

use crate::common::logged_no_complaint;

const PROTOCOLS: [u8; 2] = [4, 5];

/// A way in for each transport, which every client below that knows it takes.
struct Doors {
    endpoints: Vec<Endpoint>,
    settings: Settings,
}

fn doors(world: &World) -> Result<Doors> {
    let mut settings = world.settings()?;
    let folder = world.folder();
    let authority = Authority::new(folder, "authority")?;
    let issued = authority.issue("vessel-7", &["localhost", "127.0.0.1"])?;
    let (cert, key) = (issued.cert_file.display(), issued.key_file.display());
    let [tls, ws, wss] = [ports::free()?, ports::free()?, ports::free()?];
    let socket = folder.join("mqtt.sock");
    settings.mqtt_more = format!(
        r#"
[[mqtt.listener]]
listen = "127.0.0.1:{tls}"
transport = "tls"
cert_file = "{cert}"
key_file = "{key}"

[[mqtt.listener]]
listen = "127.0.0.1:{ws}"
transport = "ws"

[[mqtt.listener]]
listen = "127.0.0.1:{wss}"
transport = "wss"
cert_file = "{cert}"
key_file = "{key}"

[[mqtt.listener]]
path = "{}"
transport = "unix"
"#,
        socket.display()
    );
    let authority = authority.file;
    let endpoints = vec![
        Endpoint::Tcp {
            port: settings.mqtt_port,
        },
        Endpoint::Tls {
            port: tls,
            authority: authority.clone(),
        },
        Endpoint::WebSocket { port: ws },
        Endpoint::SecureWebSocket {
            port: wss,
            authority,
        },
        Endpoint::Unix { path: socket },
    ];
    Ok(Doors {
        endpoints,
        settings,
    })
}

fn each(world: &World, story: impl Fn(&str, u8, &Endpoint) -> Result<()>) -> Result<()> {
    let doors = doors(world)?;
    let mut node = world.started(doors.settings)?;
    for endpoint in &doors.endpoints {
        for protocol in PROTOCOLS {
            let name = format!("story-{}-{protocol}", endpoint.name());
            story(&name, protocol, endpoint).with_context(|| name.clone())?;
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
