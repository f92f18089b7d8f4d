//! The brokers that are compared, each a process of its own on a port of its own.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use skerry_tests::node::{Node, Settings};
use skerry_tests::process::Process;
use skerry_tests::{Result, ensure, ports, wait, workspace};

/// More than any figure opens.
const CONNECTIONS_MAX: usize = 12_000;

/// A running broker, which ends when it is dropped.
pub(crate) struct Broker {
    pub(crate) name: &'static str,
    pub(crate) port: u16,
    pub(crate) id: u32,
    /// Just before its process was.
    pub(crate) launched_at: Instant,
    _running: Running,
}

#[expect(dead_code, reason = "held for their end")]
enum Running {
    Node(Box<Node>),
    Process(Process),
}

/// skerry with its defaults, on a disk. The stream that is published to gives up its oldest data
/// when it is full, as a site's would: no bench ends because its disk does.
pub(crate) fn skerry(folder: &Path) -> Result<Broker> {
    let mut settings = Settings::new(folder)?;
    settings.telemetry_bytes_max = "512MiB".to_owned();
    settings.telemetry_when_full = "drop_oldest".to_owned();
    settings.mqtt_more = format!("connections_max = {CONNECTIONS_MAX}\n");
    let mut node = Node::new(settings, folder, folder)?;
    let launched_at = Instant::now();
    node.launch()?;
    listening("skerry", node.mqtt_port())?;
    Ok(Broker {
        name: "skerry",
        port: node.mqtt_port(),
        id: node.running()?.id(),
        launched_at,
        _running: Running::Node(Box::new(node)),
    })
}

/// A broker to compare with, or why there is none.
pub(crate) type Peer = std::result::Result<Broker, &'static str>;

/// mosquitto as Debian has it, with nothing on disk. `set_tcp_nodelay` is left at its default:
/// tried, it made no figure better and the rates a little worse.
pub(crate) fn mosquitto(folder: &Path) -> Result<Peer> {
    let more = "persistence false\n";
    mosquitto_with(folder, "mosquitto, nothing durable", more)
}

/// The same with its state on disk, as often as it writes it by default.
pub(crate) fn mosquitto_persistent(folder: &Path) -> Result<Peer> {
    mosquitto_with(folder, "mosquitto, persistence on", &on_disk(folder))
}

/// The same for an agent that acknowledges what it has written, a second later: by default a
/// subscriber has 20 messages under way, and what comes while a thousand wait is dropped.
pub(crate) fn mosquitto_patient(folder: &Path) -> Result<Peer> {
    let more = on_disk(folder) + "max_inflight_messages 0\nmax_queued_messages 0\n";
    mosquitto_with(folder, "mosquitto, persistence on", &more)
}

fn on_disk(folder: &Path) -> String {
    let folder = folder.display();
    // It would leave root for a user of its own, who may not write here.
    format!("persistence true\npersistence_location {folder}/\nuser root\n")
}

pub(crate) fn mosquitto_program() -> Option<&'static Path> {
    let program = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"];
    program
        .into_iter()
        .map(Path::new)
        .find(|path| path.exists())
}

fn mosquitto_with(folder: &Path, name: &'static str, more: &str) -> Result<Peer> {
    let Some(program) = mosquitto_program() else {
        return Ok(Err("mosquitto is not installed"));
    };
    let port = ports::free()?;
    let config = folder.join("mosquitto.conf");
    fs::write(
        &config,
        format!("listener {port} 127.0.0.1\nallow_anonymous true\nlog_type error\n{more}"),
    )?;
    let mut command = Command::new(program);
    command.arg("-c").arg(config);
    start(name, command, port, folder).map(Ok)
}

/// rumqttd with its own server, which `tests/bench` builds next to this program.
pub(crate) fn rumqttd(folder: &Path) -> Result<Peer> {
    let program: PathBuf = workspace::built("mqtt-peers");
    if !program.exists() {
        return Ok(Err("mqtt-peers is not built; `tests/bench mqtt` builds it"));
    }
    let port = ports::free()?;
    let mut command = Command::new(program);
    command.arg(port.to_string());
    start("rumqttd, nothing durable", command, port, folder).map(Ok)
}

fn start(name: &'static str, mut command: Command, port: u16, folder: &Path) -> Result<Broker> {
    let launched_at = Instant::now();
    let process = Process::start(name, &mut command, &folder.join("peers.log"))?;
    listening(name, port)?;
    Ok(Broker {
        name,
        port,
        id: process.id(),
        launched_at,
        _running: Running::Process(process),
    })
}

/// Asked more often than anything else is waited for: a start may be what is measured.
fn listening(name: &str, port: u16) -> Result<()> {
    const LOOK: Duration = Duration::from_millis(2);
    let begin = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        ensure!(begin.elapsed() < wait::START, "{name} does not listen");
        thread::sleep(LOOK);
    }
    Ok(())
}
