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
    /// Where one more plain listener is, and where its clients are told that it is: the port of
    /// a proxy. Who comes in at the other one stays there.
    pub detour: Option<[u16; 2]>,
    /// Further arguments for its JVM; the last of a kind counts.
    pub java: Vec<String>,
    /// Further lines of its configuration.
    pub properties: String,
    /// Further arguments for formatting its data folder.
    pub format: Vec<String>,
}

pub struct Kafka {
    port: u16,
    config: PathBuf,
    java: Vec<String>,
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
        let mut kafka = Self::prepare(folder, logs, [port, advertised, controller], extra)?;
        kafka.restart()?;
        Ok(kafka)
    }

    /// Brokers that are one cluster, each record on all of them; one may be away.
    pub fn cluster(folder: &Path, logs: &Path, count: usize) -> Result<Vec<Self>> {
        let ports = |_| Ok((ports::free()?, ports::free()?));
        let ports: Vec<(u16, u16)> = (0..count).map(ports).collect::<Result<_>>()?;
        let voters = ports.iter().enumerate();
        let voters =
            voters.map(|(at, (_, controller))| format!("{}@127.0.0.1:{controller}", at + 1));
        let voters = voters.collect::<Vec<_>>().join(",");
        let mut brokers = Vec::with_capacity(count);
        for (at, (port, controller)) in ports.iter().enumerate() {
            let id = at + 1;
            let in_sync = count.saturating_sub(1).max(1);
            let properties = format!(
                "node.id={id}
controller.quorum.voters={voters}
default.replication.factor={count}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={count}
transaction.state.log.replication.factor={count}
transaction.state.log.min.isr={in_sync}
"
            );
            let extra = Extra {
                properties,
                ..Extra::default()
            };
            let own = folder.join(format!("broker-{id}"));
            fs::create_dir_all(&own)?;
            let logs = logs.join(format!("broker-{id}"));
            fs::create_dir_all(&logs)?;
            brokers.push(Self::prepare(
                &own,
                &logs,
                [*port, *port, *controller],
                &extra,
            )?);
        }
        // None is ready before most of them are there.
        for broker in &mut brokers {
            broker.launch()?;
        }
        for broker in &mut brokers {
            broker.ready()?;
        }
        Ok(brokers)
    }

    /// `ports`: where it listens, where clients are told that it is, and its controller's.
    fn prepare(
        folder: &Path,
        logs: &Path,
        [port, advertised, controller]: [u16; 3],
        extra: &Extra,
    ) -> Result<Self> {
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
        Ok(Self {
            port,
            config,
            java: extra.java.clone(),
            log,
            process: None,
        })
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

    /// Runs one of Kafka's own tools against the broker to its end.
    pub fn tool(&self, class: &str, arguments: &[&str]) -> Result<()> {
        let mut command = java();
        command.args([class, "--bootstrap-server", &self.address()]);
        let done = process::run(command.args(arguments), wait::START)?;
        anyhow::ensure!(done.code == Some(0), "{class} failed: {}", done.text());
        Ok(())
    }

    /// Starts the broker again on the same ports and data, and waits until it is ready.
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        self.launch()?;
        self.ready()
    }

    fn launch(&mut self) -> Result<()> {
        let mut command = java();
        command.args(&self.java);
        command.arg("kafka.Kafka").arg(&self.config);
        self.process = Some(Process::start("kafka", &mut command, &self.log)?);
        Ok(())
    }

    fn ready(&mut self) -> Result<()> {
        let process = self.process.as_mut().context("Kafka is not running")?;
        process.wait_for_output(READY, wait::START)?;
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

    /// What it logged so far.
    pub fn output(&self) -> Result<String> {
        self.running()?.output()
    }

    /// Stops it in its tracks with its connections open: SIGSTOP.
    pub fn freeze(&self) -> Result<()> {
        self.running()?.signal(Signal::STOP)
    }

    pub fn thaw(&self) -> Result<()> {
        self.running()?.signal(Signal::CONT)
    }

    /// Kafka's own command for topics: `--create --topic NAME` and the like.
    pub fn topics(&self, arguments: &[&str]) -> Result<()> {
        self.tool("org.apache.kafka.tools.TopicCommand", arguments)
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
    let mut more_advertised = more.clone();
    if let Some([port, advertised]) = extra.detour {
        more.push_str(&format!(",DETOUR://127.0.0.1:{port}"));
        more_advertised.push_str(&format!(",DETOUR://127.0.0.1:{advertised}"));
        protocols.push_str(",DETOUR:PLAINTEXT");
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
advertised.listeners=PLAINTEXT://127.0.0.1:{advertised}{more_advertised}
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
