//! A Kafka broker of our own (KRaft, loopback) that can be killed, stopped in its tracks and
//! brought back on the same data.

use crate::Failure;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

pub(crate) const PARTITIONS: i32 = 4;

/// Small enough to stand beside other work.
const JVM: [&str; 3] = ["-Xmx320m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];
const READY: &str = "Kafka Server started";
const START_MAX: Duration = Duration::from_secs(60);

pub(crate) struct Broker {
    address: String,
    jars: PathBuf,
    folder: PathBuf,
    process: Option<Child>,
}

impl Broker {
    /// Starts on an empty data folder below `folder`.
    pub(crate) fn start(jars: &Path, folder: &Path) -> Result<Self, Failure> {
        let (port, controller) = (free_port()?, free_port()?);
        fs::create_dir_all(folder)?;
        let mut broker = Self {
            address: format!("127.0.0.1:{port}"),
            jars: jars.join("*"),
            folder: folder.to_owned(),
            process: None,
        };
        fs::write(broker.config(), broker.properties(controller))?;
        let tool = "kafka.tools.StorageTool";
        let mut format = broker.java(tool)?;
        format.args(["format", "-t", "a2Fma2EtY2xpZW50cy0wMQ", "-c"]);
        if !format.arg(broker.config()).status()?.success() {
            return Err(format!("{tool} failed, see {}", broker.log().display()).into());
        }
        broker.restart()?;
        Ok(broker)
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Starts it on the data it has and waits until it serves.
    pub(crate) fn restart(&mut self) -> Result<(), Failure> {
        let mut command = self.java("kafka.Kafka")?;
        self.process = Some(command.arg(self.config()).spawn()?);
        let asked = Instant::now();
        while !fs::read_to_string(self.log())?.contains(READY) {
            if asked.elapsed() > START_MAX {
                return Err(format!("no broker, see {}", self.log().display()).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) -> Result<(), Failure> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// Stops it with its connections open.
    pub(crate) fn freeze(&self) -> Result<(), Failure> {
        self.signal("-STOP")
    }

    pub(crate) fn thaw(&self) -> Result<(), Failure> {
        self.signal("-CONT")
    }

    fn signal(&self, signal: &str) -> Result<(), Failure> {
        let process = self.process.as_ref().ok_or("the broker is not running")?;
        let sent = Command::new("kill")
            .args([signal, &process.id().to_string()])
            .status()?;
        if sent.success() {
            Ok(())
        } else {
            Err(format!("kill {signal} failed").into())
        }
    }

    fn config(&self) -> PathBuf {
        self.folder.join("kafka.properties")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("kafka.log")
    }

    /// A JVM with a log that begins anew.
    fn java(&self, class: &str) -> Result<Command, Failure> {
        let log = File::create(self.log())?;
        let mut command = Command::new("java");
        command.args(JVM).arg("-cp").arg(&self.jars).arg(class);
        command.stdout(log.try_clone()?).stderr(log);
        Ok(command)
    }

    fn properties(&self, controller: u16) -> String {
        let (address, data) = (&self.address, self.folder.join("data"));
        let data = data.display();
        format!(
            "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{address},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://{address}
log.dirs={data}
num.partitions={PARTITIONS}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=2
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=2
share.coordinator.state.topic.replication.factor=1
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
"
        )
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("kafka-clients: the broker may still run: {error}");
        }
    }
}

fn free_port() -> Result<u16, Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}
