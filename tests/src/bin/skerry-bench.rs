//! `tests/bench`: figures against peers, interleaved on the same machine, one JSON object a line.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use serde_json::{Value, json};
use skerry_tests::load::{self, Load};
use skerry_tests::node::{Node, Settings};
use skerry_tests::process::Process;
use skerry_tests::{Context as _, Result, ensure, ports, wait, workspace};

const USAGE: &str = "usage: tests/bench mqtt|footprint|store|uplink|opcua|inference [--quick]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let name = arguments.iter().find(|argument| !argument.starts_with('-'));
    let outcome = match name.map(String::as_str) {
        Some("mqtt") => mqtt(quick),
        Some("footprint") => footprint(),
        Some(name @ ("uplink" | "opcua" | "inference")) => {
            let why = "no bench of this part yet";
            print(&json!({"bench": name, "figure": null, "ours": null, "why": why}));
            Ok(())
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints a figure; what it does not say is null.
fn print(figure: &Value) {
    let mut line = json!({
        "bench": null, "figure": null, "unit": null, "ours": null, "peer": null, "theirs": null,
        "ratio": null, "aim": null, "aim_met": null, "runs": 1,
        "commit": std::env::var("SKERRY_COMMIT").unwrap_or_else(|_| "unknown".to_owned()),
    });
    for (name, value) in figure.as_object().into_iter().flatten() {
        line[name.as_str()] = value.clone();
    }
    println!("{line}");
}

/// A folder of this bench's own below the target folder.
fn folder(name: &str) -> Result<std::path::PathBuf> {
    let folder = workspace::target().join("bench").join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

const SHAPES: [(&str, u16, u16, u8); 3] = [
    ("qos1, 50 connections, window 20", 50, 20, 1),
    ("qos1, 50 connections, window 1", 50, 1, 1),
    ("qos2, 50 connections, window 20", 50, 20, 2),
];

/// Acknowledged messages of 256 bytes per second, and what they cost the broker's processor.
/// mosquitto acknowledges from memory; skerry after the sync.
fn mqtt(quick: bool) -> Result<()> {
    let (pairs, seconds) = if quick { (3, 5) } else { (9, 10) };
    let folder = folder("mqtt")?;
    let mut node = Node::new(Settings::new(&folder)?, &folder, &folder)?;
    node.start()?;
    let mosquitto = mosquitto(&folder)?;
    for (shape, connections, window, qos) in SHAPES {
        let measured = Duration::from_secs(seconds);
        let load = Load {
            connections,
            window,
            qos,
            warm_up: Duration::from_secs(1),
            measured,
        };
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..pairs {
            let id = node.running()?.id();
            ours.push(measure(node.mqtt_port(), id, load)?);
            if let Some((peer, port)) = &mosquitto {
                theirs.push(measure(*port, peer.id(), load)?);
            }
        }
        for (figure, unit, index) in [("rate", "msg/s", 0), ("cpu", "us/msg", 1)] {
            let ours = median(ours.iter().map(|run| run[index]));
            let theirs = median(theirs.iter().map(|run| run[index]));
            print(&json!({
                "bench": "mqtt", "figure": format!("{figure}, {shape}"), "unit": unit,
                "ours": ours, "peer": mosquitto.as_ref().map(|_| "mosquitto, not durable"),
                "theirs": theirs, "ratio": ours.zip(theirs).map(|(ours, theirs)| ours / theirs),
                "runs": pairs,
            }));
        }
    }
    node.terminate()?;
    Ok(())
}

fn mosquitto(folder: &Path) -> Result<Option<(Process, u16)>> {
    let program = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"];
    let Some(program) = program.into_iter().find(|path| Path::new(path).exists()) else {
        eprintln!("mosquitto is not installed: no figures of a peer");
        return Ok(None);
    };
    let port = ports::free()?;
    let config = folder.join("mosquitto.conf");
    fs::write(
        &config,
        format!("listener {port} 127.0.0.1\nallow_anonymous true\n"),
    )?;
    let mut command = Command::new(program);
    let log = folder.join("mosquitto.log");
    let process = Process::start("mosquitto", command.arg("-c").arg(&config), &log)?;
    wait::until("mosquitto listens", wait::START, || {
        Ok(std::net::TcpStream::connect(("127.0.0.1", port)).ok())
    })?;
    Ok(Some((process, port)))
}

/// Messages per second, and microseconds of the broker's processor time per message.
fn measure(port: u16, broker: u32, load: Load) -> Result<[f64; 2]> {
    let mut spent = Vec::new();
    let outcome = load::run(port, load, || {
        spent.push(cpu_seconds(broker)?);
        Ok(())
    })?;
    ensure!(outcome.messages > 0, "nothing was acknowledged");
    let rate = outcome.per_second();
    let micros = (spent[1] - spent[0]) * 1e6 / (rate * outcome.elapsed.as_secs_f64());
    Ok([rate, micros])
}

/// User and system time of a process so far, in the kernel's ticks of a hundredth of a second.
fn cpu_seconds(id: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
    let field = |n: usize| -> Result<f64> {
        Ok(fields
            .split_whitespace()
            .nth(n)
            .context("a short stat")?
            .parse()?)
    };
    Ok((field(11)? + field(12)?) / 100.0)
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Size of the binary, and memory of a node that has just started and has nothing to do.
fn footprint() -> Result<()> {
    let binary = fs::metadata(workspace::skerry())?.len();
    print(&json!({"bench": "footprint", "figure": "binary", "unit": "bytes", "ours": binary}));
    let folder = folder("footprint")?;
    let mut node = Node::new(Settings::new(&folder)?, &folder, &folder)?;
    node.start()?;
    let status = fs::read_to_string(format!("/proc/{}/status", node.running()?.id()))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = resident
        .and_then(|text| text.trim().split(' ').next())
        .context("no resident size")?
        .parse()?;
    let bytes = kib * 1024;
    print(&json!({"bench": "footprint", "figure": "idle memory", "unit": "bytes", "ours": bytes}));
    node.terminate()?;
    Ok(())
}
