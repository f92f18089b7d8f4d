//! Starting, stopping, and what the node says of itself meanwhile.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use skerry_tests::audit::{self, Copies, Journal};
use skerry_tests::node::{self, Node, metric};
use skerry_tests::process::Signal;
use skerry_tests::world::{Publishing, World};
use skerry_tests::{Context as _, Result, ensure, wait};

use crate::common::{acked_more, logged_no_complaint};

/// Waits for a datagram to the supervisor that has `line` in it.
fn notified(socket: &UnixDatagram, line: &str) -> Result<()> {
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut buffer = [0; 4096];
    wait::until(
        &format!("the supervisor is told {line}"),
        wait::START,
        || {
            let count = socket.recv(&mut buffer)?;
            let text = String::from_utf8_lossy(&buffer[..count]);
            Ok(text.lines().any(|told| told == line).then_some(()))
        },
    )
}

fn recovery(node: &Node, field: &str) -> Result<serde_json::Value> {
    Ok(node.status()?["recovery"][field].clone())
}

/// SIGTERM and SIGINT in the middle of a stream, and kill -9 for comparison.
pub(crate) fn systemd(world: &World) -> Result<()> {
    let short = tempfile::tempdir()?;
    let path = short.path().join("notify");
    let socket = UnixDatagram::bind(&path)?;
    let mut node = world.node(world.settings()?)?;
    node.set_environment("NOTIFY_SOCKET", path.to_str().context("a path in UTF-8")?);
    node.launch()?;
    notified(&socket, "READY=1")?;
    let port = node.mqtt_port();
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).context("READY=1 before MQTT listens")?;

    let steady = Publishing {
        qos: 2,
        interval_ms: 1,
        ..Publishing::default()
    };
    let mut publisher = world.publisher(port, steady)?;
    for signal in [Signal::TERM, Signal::INT] {
        acked_more(&mut publisher, 200)?;
        node.running()?.signal(signal)?;
        notified(&socket, "STOPPING=1")?;
        let ended = node.running()?.wait(wait::START)?;
        ensure!(ended.code() == Some(0), "{signal:?} ended it with {ended}");
        node.start()?;
        notified(&socket, "READY=1")?;
        ensure!(
            recovery(&node, "clean_stop")? == true,
            "the stop was not a clean one"
        );
        ensure!(
            recovery(&node, "torn_bytes")? == 0,
            "a clean stop left a torn tail"
        );
    }
    acked_more(&mut publisher, 200)?;
    node.kill()?;
    node.start()?;
    ensure!(
        recovery(&node, "clean_stop")? == false,
        "kill -9 passed for a clean stop"
    );

    acked_more(&mut publisher, 200)?;
    let journal = Journal::read("publisher", &publisher.finish(wait::START)?)?;
    ensure!(
        journal.acked() == journal.sent(),
        "something was never acknowledged"
    );
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    let data = &node.settings().data;
    let logged = audit::logged("telemetry", &node::log_cat(data, "telemetry")?)?;
    audit::offsets(&logged)?;
    audit::messages(&journal, &logged, Copies::One)
}

/// SIGHUP takes up a config file that changed, in the same process, and refuses a wrong one.
pub(crate) fn reconfigured(world: &World) -> Result<()> {
    let short = tempfile::tempdir()?;
    let path = short.path().join("notify");
    let socket = UnixDatagram::bind(&path)?;
    let mut node = world.node(world.settings()?)?;
    node.set_environment("NOTIFY_SOCKET", path.to_str().context("a path in UTF-8")?);
    node.launch()?;
    notified(&socket, "READY=1")?;

    let config = fs::read_to_string(node.config())?;
    fs::write(
        node.config(),
        config.replace("name = \"vessel-7\"", "name = \"Not A Name\""),
    )?;
    node.running()?.signal(Signal::HUP)?;
    let refusal = "SIGHUP: the node goes on with the config it has";
    node.running()?.wait_for_output(refusal, wait::START)?;
    ensure!(
        node.status()?["node"] == "vessel-7",
        "a wrong config counts"
    );

    fs::write(node.config(), config.replace("vessel-7", "vessel-8"))?;
    node.running()?.signal(Signal::HUP)?;
    notified(&socket, "RELOADING=1")?;
    notified(&socket, "READY=1")?;
    ensure!(node.is_running()?, "the node is another process now");
    ensure!(
        node.status()?["node"] == "vessel-8",
        "a config is passed over"
    );
    ensure!(
        recovery(&node, "clean_stop")? == true,
        "it was not stopped cleanly"
    );
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    Ok(())
}

/// What a supervisor, Prometheus and an operator ask; and nothing to complain of in the log.
pub(crate) fn health(world: &World) -> Result<()> {
    const COUNT: u32 = 500;
    let mut node = world.started(world.settings()?)?;
    for path in ["/healthz", "/readyz"] {
        let answer = node.get(path)?;
        ensure!(
            answer.status == 200,
            "{path}: {} {}",
            answer.status,
            answer.body
        );
    }
    ensure!(node.get("/nowhere")?.status == 404, "/nowhere is somewhere");
    let publishing = Publishing {
        count: COUNT,
        ..Publishing::default()
    };
    world
        .publisher(node.mqtt_port(), publishing)?
        .join(wait::START)?;

    let text = node.metrics()?;
    for name in [
        "skerry_mqtt_acknowledged_total",
        "skerry_mqtt_publishes_qos1_total",
    ] {
        let value = metric(&text, name);
        ensure!(
            value == Some(f64::from(COUNT)),
            "{name} is {value:?}: {text}"
        );
    }
    let commits = metric(&text, "skerry_store_commits_total");
    ensure!(
        commits.is_some_and(|commits| commits > 0.0),
        "{commits:?} commits: {text}"
    );
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        ensure!(line.starts_with("skerry_"), "a sample of nobody's: {line}");
    }

    let address = format!("127.0.0.1:{}", node.settings().http_port);
    let status = node::skerry(&["status", &address])?;
    ensure!(status.code == Some(0), "skerry status: {}", status.text());
    ensure!(
        status.stdout.contains("vessel-7"),
        "skerry status says {}",
        status.stdout
    );
    let json = node::skerry(&["status", &address, "--json"])?;
    let json: serde_json::Value = serde_json::from_str(&json.stdout)?;
    ensure!(json["ready"] == true, "skerry status --json says {json}");

    // The log can be read while the node runs.
    let data = node.settings().data.display().to_string();
    let listed = node::skerry(&["log", "ls", "--data-dir", &data])?;
    ensure!(
        listed.stdout.contains("telemetry"),
        "log ls: {}",
        listed.text()
    );
    let tail = node::skerry(&["log", "tail", "telemetry", "-n", "3", "--data-dir", &data])?;
    ensure!(
        tail.stdout.lines().count() == 3,
        "log tail -n 3: {}",
        tail.text()
    );
    let verified = node::skerry(&["log", "verify", "--data-dir", &data])?;
    ensure!(verified.code == Some(0), "log verify: {}", verified.text());

    logged_no_complaint(&node)?;
    ensure!(node.terminate()?.success(), "the node did not stop cleanly");
    let nobody = node::skerry(&["status", &address])?;
    ensure!(
        nobody.code == Some(1),
        "a stopped node has a status: {:?}",
        nobody.code
    );
    ensure!(
        nobody.stderr.contains(&address),
        "does not say where: {}",
        nobody.stderr
    );
    Ok(())
}
