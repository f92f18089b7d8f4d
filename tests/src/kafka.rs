//! A real Apache Kafka broker: one JVM in KRaft mode on loopback, its data on the real disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{self, Process, Signal};
use crate::{ports, wait, workspace};

/// Partitions of a topic that comes into being on first use: more than one, so that order per
/// key is not got for free.
pub const PARTITIONS: u32 = 4;

/// Enough for these loads, and small enough to stand beside a build.
const JVM: [&str; 3] = ["-Xmx320m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];
const READY: &str = "Kafka Server started";

/// What a broker has beside its plain listener, which stays for its own use and for the readers.
#[derive(Debug, Default)]
pub struct Extra {
    /// Name, security protocol and port of further listeners on loopback.
    pub listeners: Vec<(String, &'static str, u16)>,
    /// Further lines of its configuration.
    pub properties: String,
    /// Further arguments for formatting its data folder.
    pub format: Vec<String>,
}

pub struct Kafka {
    port: u16,
    config: PathBuf,
    log: PathBuf,
    process: Option<Process>,
}

impl Kafka {
    /// Formats a fresh data folder below `folder` and starts the broker on it.
    pub fn start(folder: &Path, logs: &Path) -> Result<Self> {
        let port = ports::free()?;
        Self::start_with(folder, logs, port, port, &Extra::default())
    }

    /// The same with more to it.
    pub fn start_extended(folder: &Path, logs: &Path, extra: &Extra) -> Result<Self> {
        let port = ports::free()?;
        Self::start_with(folder, logs, port, port, extra)
    }

    /// The same, telling clients that the broker is at `advertised`: the port of a proxy.
    pub fn start_advertising(
        folder: &Path,
        logs: &Path,
        port: u16,
        advertised: u16,
    ) -> Result<Self> {
        Self::start_with(folder, logs, port, advertised, &Extra::default())
    }

    fn start_with(
        folder: &Path,
        logs: &Path,
        port: u16,
        advertised: u16,
        extra: &Extra,
    ) -> Result<Self> {
        let controller = ports::free()?;
        let data = folder.join("kafka");
        let config = folder.join("kafka.properties");
        let text = properties(port, advertised, controller, &data, extra);
        fs::write(&config, text)?;
        let log = logs.join("kafka.log");
        let mut format = java();
        format.args([
            "kafka.tools.StorageTool",
            "format",
            "-t",
            "c2tlcnJ5LXRlc3RzLTAwMQ",
            "-c",
        ]);
        format.arg(&config).args(&extra.format);
        let formatted = process::run(&mut format, wait::START)?;
        anyhow::ensure!(
            formatted.code == Some(0),
            "Kafka's data folder could not be formatted: {}",
            formatted.text()
        );
        let mut kafka = Self {
            port,
            config,
            log,
            process: None,
        };
        kafka.restart()?;
        Ok(kafka)
    }

    /// Where the broker itself listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts the broker again on the same ports and data, and waits until it is ready.
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        let mut command = java();
        command.arg("kafka.Kafka").arg(&self.config);
        let mut process = Process::start("kafka", &mut command, &self.log)?;
        process.wait_for_output(READY, wait::START)?;
        self.process = Some(process);
        Ok(())
    }

    /// An orderly stop.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::TERM)?;
            process.wait(wait::START)?;
        }
        Ok(())
    }

    /// kill -9.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
        }
        Ok(())
    }

    /// Stops it in its tracks with its connections open: SIGSTOP.
    pub fn freeze(&self) -> Result<()> {
        self.running()?.signal(Signal::STOP)
    }

    pub fn thaw(&self) -> Result<()> {
        self.running()?.signal(Signal::CONT)
    }

    fn running(&self) -> Result<&Process> {
        self.process.as_ref().context("Kafka is not running")
    }
}

fn java() -> Command {
    let mut command = Command::new("java");
    let jars = workspace::kafka_jars().join("*");
    command.args(JVM).arg("-cp").arg(jars);
    command
}

fn properties(port: u16, advertised: u16, controller: u16, data: &Path, extra: &Extra) -> String {
    let data = data.display();
    let (mut more, mut protocols) = (String::new(), String::new());
    for (name, protocol, port) in &extra.listeners {
        more.push_str(&format!(",{name}://127.0.0.1:{port}"));
        protocols.push_str(&format!(",{name}:{protocol}"));
    }
    let further = &extra.properties;
    // One broker cannot replicate; few internal partitions start fast; short sessions let a
    // killed broker register again soon.
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{more}
advertised.listeners=PLAINTEXT://127.0.0.1:{advertised}{more}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}
log.dirs={data}
num.partitions={PARTITIONS}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=2
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=2
share.coordinator.state.topic.replication.factor=1
group.initial.rebalance.delay.ms=0
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
{further}"
    )
}
