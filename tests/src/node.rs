//! The node under test: its config, its process, and what it says of itself.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::process::{self, Output, Process, Signal};
use crate::{http, ports, wait, workspace};

/// A config file in the making. What a scenario does not care about has a value that works.
#[derive(Clone)]
pub struct Settings {
    pub data: PathBuf,
    pub mqtt_port: u16,
    pub http_port: u16,
    pub allow_volatile: bool,
    /// `HOST:PORT`, or none for a node without a way north.
    pub kafka: Option<String>,
    /// Whether the node makes the topics that are missing.
    pub create_topics: bool,
    /// Where a stream's records go.
    pub kafka_topic: String,
    /// Further keys of `[kafka]`.
    pub kafka_more: String,
    /// `bytes_max` and `when_full` of the stream `telemetry`, which takes `plant/#`.
    pub telemetry_bytes_max: String,
    pub telemetry_when_full: String,
    /// Further keys of `[mqtt]`, and what follows it.
    pub mqtt_more: String,
    /// Whole sections more, as TOML.
    pub more: String,
}

impl Settings {
    pub fn new(folder: &Path) -> Result<Self> {
        Ok(Self {
            data: folder.join("data"),
            mqtt_port: ports::free()?,
            http_port: ports::free()?,
            allow_volatile: false,
            kafka: None,
            create_topics: true,
            kafka_topic: "skerry.{stream}".to_owned(),
            kafka_more: String::new(),
            telemetry_bytes_max: "1GiB".to_owned(),
            telemetry_when_full: "block".to_owned(),
            mqtt_more: String::new(),
            more: String::new(),
        })
    }

    #[must_use]
    pub fn toml(&self) -> String {
        let Self {
            mqtt_port,
            http_port,
            allow_volatile,
            mqtt_more,
            ..
        } = self;
        let mut text = format!(
            r#"[node]
name = "vessel-7"
data_dir = "{data}"
allow_volatile = {allow_volatile}

[http]
listen = "127.0.0.1:{http_port}"

[mqtt]
listen = "127.0.0.1:{mqtt_port}"
{mqtt_more}
[[stream]]
name = "telemetry"
topics = ["plant/#"]
bytes_max = "{bytes_max}"
when_full = "{when_full}"
"#,
            data = self.data.display(),
            bytes_max = self.telemetry_bytes_max,
            when_full = self.telemetry_when_full,
        );
        if let Some(kafka) = &self.kafka {
            write!(
                text,
                "\n[kafka]\nbrokers = [\"{kafka}\"]\ntopic = \"{}\"\ncreate_topics = {}\n{}",
                self.kafka_topic, self.create_topics, self.kafka_more
            )
            .expect("a String takes everything");
        }
        text.push_str(&self.more);
        text
    }

    /// Adds an OPC-UA server whose `counters` counters go to the stream `machines`.
    pub fn add_opcua(&mut self, port: u16, counters: u32) {
        let nodes: Vec<_> = (0..counters)
            .map(|n| {
                format!(r#"{{ name = "Counter{n}", id = "ns=2;s=Counter{n}", sampling = "50ms" }}"#)
            })
            .collect();
        let nodes = nodes.join(", ");
        write!(
            self.more,
            r#"
[[stream]]
name = "machines"
topics = []

[[opcua]]
name = "hall-1"
endpoint = "opc.tcp://127.0.0.1:{port}/tests"
stream = "machines"
publishing_interval = "100ms"
nodes = [ {nodes} ]
"#
        )
        .expect("a String takes everything");
    }
}

/// A config file of `configs/`, with the folder and the ports of these settings and nothing else
/// changed.
pub fn shipped(name: &str, settings: &Settings) -> Result<String> {
    let path = workspace::root().join("configs").join(name);
    let mut text = fs::read_to_string(&path)?;
    let Settings {
        data,
        http_port,
        mqtt_port,
        ..
    } = settings;
    for (theirs, ours) in [
        ("/var/lib/skerry", data.display().to_string()),
        ("127.0.0.1:9810", format!("127.0.0.1:{http_port}")),
        ("0.0.0.0:1883", format!("127.0.0.1:{mqtt_port}")),
    ] {
        let places = text.matches(theirs).count();
        ensure!(places == 1, "{name} has {theirs} in {places} places");
        text = text.replace(theirs, &ours);
    }
    Ok(text)
}

/// Of the running process, now and at its highest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    pub resident_kib: u64,
    pub peak_kib: u64,
}

/// A node of this config, running or not.
pub struct Node {
    settings: Settings,
    config: PathBuf,
    log: PathBuf,
    environment: Vec<(String, String)>,
    wrapper: Vec<String>,
    process: Option<Process>,
}

impl Node {
    /// Writes the config file into `folder`; starts nothing yet.
    pub fn new(settings: Settings, folder: &Path, logs: &Path) -> Result<Self> {
        let config = folder.join("skerry.toml");
        fs::write(&config, settings.toml())?;
        Ok(Self {
            settings,
            config,
            log: logs.join("node.log"),
            environment: Vec::new(),
            wrapper: Vec::new(),
            process: None,
        })
    }

    /// An environment variable for the runs to come.
    pub fn set_environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// A command that ends in executing the node, for the runs to come.
    pub fn set_wrapper(&mut self, words: &[&str]) {
        self.wrapper = words.iter().map(|&word| word.to_owned()).collect();
    }

    /// Another config file for the runs to come.
    pub fn configure(&mut self, settings: Settings) -> Result<()> {
        fs::write(&self.config, settings.toml())?;
        self.settings = settings;
        Ok(())
    }

    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    #[must_use]
    pub fn mqtt_port(&self) -> u16 {
        self.settings.mqtt_port
    }

    fn command(&self) -> Command {
        let mut words = self.wrapper.clone();
        words.push(workspace::skerry().display().to_string());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .args(["run", "--config"])
            .arg(&self.config);
        command.envs(self.environment.iter().cloned());
        command
    }

    /// Starts it without waiting for anything.
    pub fn launch(&mut self) -> Result<()> {
        self.process = Some(Process::start("node", &mut self.command(), &self.log)?);
        Ok(())
    }

    /// Starts it and waits until it answers on its HTTP port that it is alive.
    pub fn start(&mut self) -> Result<()> {
        self.launch()?;
        self.wait_until_alive()
    }

    pub fn wait_until_alive(&mut self) -> Result<()> {
        let port = self.settings.http_port;
        let process = self.process.as_mut().context("the node was not started")?;
        let mut ended = false;
        let alive = wait::until("the node is alive", wait::START, || {
            if !process.is_running()? {
                ended = true;
                return Ok(Some(false));
            }
            Ok((http::get(port, "/healthz")?.status == 200).then_some(true))
        })?;
        ensure!(
            alive && !ended,
            "the node ended while starting: {}",
            self.output()?
        );
        Ok(())
    }

    /// Runs it to its end, for configs and disks it must refuse.
    pub fn run_to_end(&self) -> Result<Output> {
        process::run(&mut self.command(), wait::START)
    }

    pub fn kill(&mut self) -> Result<()> {
        self.running()?.kill()
    }

    /// SIGTERM, and how it ended.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        let process = self.running()?;
        process.signal(Signal::TERM)?;
        process.wait(wait::START)
    }

    pub fn is_running(&mut self) -> Result<bool> {
        self.running()?.is_running()
    }

    pub fn running(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the node was not started")
    }

    /// What this run has logged.
    pub fn output(&self) -> Result<String> {
        self.process
            .as_ref()
            .context("the node was not started")?
            .output()
    }

    /// What the kernel counts as the process's own memory.
    pub fn memory(&mut self) -> Result<Memory> {
        let path = format!("/proc/{}/status", self.running()?.id());
        let text = fs::read_to_string(&path)?;
        let field = |name: &str| -> Result<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|rest| rest.split_whitespace().next());
            Ok(number
                .with_context(|| format!("no {name} in {path}"))?
                .parse()?)
        };
        Ok(Memory {
            resident_kib: field("VmRSS:")?,
            peak_kib: field("VmHWM:")?,
        })
    }

    pub fn status(&self) -> Result<Value> {
        let response = http::get(self.settings.http_port, "/status")?;
        ensure!(
            response.status == 200,
            "/status answers {}",
            response.status
        );
        Ok(serde_json::from_str(&response.body)?)
    }

    pub fn metrics(&self) -> Result<String> {
        let response = http::get(self.settings.http_port, "/metrics")?;
        ensure!(
            response.status == 200,
            "/metrics answers {}",
            response.status
        );
        Ok(response.body)
    }

    pub fn get(&self, path: &str) -> Result<http::Response> {
        http::get(self.settings.http_port, path)
    }

    /// Waits until `/status` satisfies `probe`.
    pub fn wait_for_status(
        &self,
        what: &str,
        deadline: Duration,
        probe: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        wait::until(what, deadline, || {
            let status = self.status()?;
            if probe(&status) {
                return Ok(Some(status));
            }
            anyhow::bail!("status is {status}")
        })
    }
}

/// `skerry ARGUMENTS…` run to its end.
pub fn skerry<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Result<Output> {
    process::run(
        Command::new(workspace::skerry()).args(arguments),
        wait::DRAIN,
    )
}

/// `skerry log cat`: the records of a stream in the node's log, one JSON object each.
pub fn log_cat(data: &Path, stream: &str) -> Result<Vec<Value>> {
    let data = data.display().to_string();
    let output = skerry(&["log", "cat", stream, "--data-dir", &data, "--json"])?;
    ensure!(
        output.code == Some(0),
        "skerry log cat failed: {}",
        output.text()
    );
    let parse =
        |line: &str| serde_json::from_str(line).with_context(|| format!("not JSON: {line}"));
    output.stdout.lines().map(parse).collect()
}

/// The same for a log of any length: each record is handed over and forgotten.
pub fn each_logged(
    data: &Path,
    stream: &str,
    mut each: impl FnMut(&Value) -> Result<()>,
) -> Result<()> {
    let mut child = Command::new(workspace::skerry())
        .args(["log", "cat", stream, "--json", "--data-dir"])
        .arg(data)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().expect("it was asked for");
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        let record = serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))?;
        each(&record)?;
    }
    let status = child.wait()?;
    ensure!(
        status.success(),
        "skerry log cat {stream} ended with {status}"
    );
    Ok(())
}

/// Sums the samples of a metric over its labels; `None` where it is not exported.
#[must_use]
pub fn metric(text: &str, name: &str) -> Option<f64> {
    let mut sum = None;
    for line in text.lines() {
        let Some(rest) = line.strip_prefix(name) else {
            continue;
        };
        if !rest.starts_with(['{', ' ']) {
            continue;
        }
        let value: f64 = rest.rsplit(' ').next()?.parse().ok()?;
        sum = Some(sum.unwrap_or(0.0) + value);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_a_metric_over_its_labels_and_leaves_longer_names_out() {
        let text = "# HELP a_total x\na_total{s=\"1\"} 2\na_total{s=\"2\"} 3\na_total_bytes 9\n";
        assert_eq!(metric(text, "a_total"), Some(5.0));
        assert_eq!(metric(text, "b_total"), None);
    }
}
