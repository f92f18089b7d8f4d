//! What one scenario owns: a folder, its logs, and the parts it starts.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::kafka::Kafka;
use crate::node::{Node, Settings};
use crate::ports;
use crate::python::Helper;
use crate::workspace;

pub struct World {
    folder: PathBuf,
    logs: PathBuf,
}

/// What a publisher is to do; the rest is in `tests/python/publisher.py`.
#[derive(Clone, Copy)]
pub struct Publishing<'a> {
    pub name: &'a str,
    pub topics: &'a [&'a str],
    pub qos: u8,
    /// 4 is MQTT 3.1.1.
    pub protocol: u8,
    /// 0: until it is told to finish.
    pub count: u32,
    pub interval_ms: u32,
    /// Characters of noise in every message.
    pub pad: u32,
}

impl Default for Publishing<'_> {
    fn default() -> Self {
        let topics = &["plant/a", "plant/b", "plant/c"];
        Self {
            name: "publisher",
            topics,
            qos: 1,
            protocol: 4,
            count: 0,
            interval_ms: 0,
            pad: 0,
        }
    }
}

impl World {
    /// A fresh folder for the scenario of this name, on the disk the target folder is on.
    pub fn new(name: &str) -> Result<Self> {
        let folder = workspace::target().join("test-data").join(name);
        let logs = workspace::target().join("test-logs").join(name);
        for path in [&folder, &logs] {
            if path.exists() {
                fs::remove_dir_all(path)?;
            }
            fs::create_dir_all(path)?;
        }
        Ok(Self { folder, logs })
    }

    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    #[must_use]
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// Deletes what it stored; the logs stay.
    pub fn remove(self) -> Result<()> {
        Ok(fs::remove_dir_all(self.folder)?)
    }

    pub fn kafka(&self) -> Result<Kafka> {
        Kafka::start(&self.folder, &self.logs)
    }

    /// Settings for a node in this world; nothing runs yet.
    pub fn settings(&self) -> Result<Settings> {
        Settings::new(&self.folder)
    }

    /// A node of these settings, not yet started.
    pub fn node(&self, settings: Settings) -> Result<Node> {
        Node::new(settings, &self.folder, &self.logs)
    }

    /// One more of them, with a folder for its config and log.
    pub fn node_named(&self, name: &str, settings: Settings) -> Result<Node> {
        let (folder, logs) = (self.folder.join(name), self.logs.join(name));
        for path in [&folder, &logs] {
            fs::create_dir_all(path)?;
        }
        Node::new(settings, &folder, &logs)
    }

    pub fn started(&self, settings: Settings) -> Result<Node> {
        let mut node = self.node(settings)?;
        node.start()?;
        Ok(node)
    }

    pub fn publisher(&self, port: u16, publishing: Publishing<'_>) -> Result<Helper> {
        let Publishing {
            name,
            topics,
            qos,
            protocol,
            count,
            interval_ms,
            pad,
        } = publishing;
        let interval = f64::from(interval_ms) / 1000.0;
        let mut arguments = vec![
            format!("--port={port}"),
            format!("--name={name}"),
            format!("--qos={qos}"),
            format!("--protocol={protocol}"),
            format!("--count={count}"),
            format!("--interval={interval}"),
            format!("--pad={pad}"),
        ];
        arguments.extend(topics.iter().map(|topic| format!("--topic={topic}")));
        self.helper("publisher.py", name, "--journal", &arguments)
    }

    /// Publishes the messages of a file, each `{"topic": …, "payload": …}`, and ends.
    pub fn replay(&self, port: u16, name: &str, script: &Path) -> Result<Helper> {
        let script = format!("--script={}", script.display());
        let arguments = [format!("--port={port}"), format!("--name={name}"), script];
        self.helper("publisher.py", name, "--journal", &arguments)
    }

    pub fn subscriber(&self, port: u16, name: &str, filters: &[&str]) -> Result<Helper> {
        let mut arguments = vec![format!("--port={port}"), format!("--name={name}")];
        arguments.extend(filters.iter().map(|filter| format!("--filter={filter}")));
        self.helper("subscriber.py", name, "--out", &arguments)
    }

    /// Follows every topic of the cluster that starts with `skerry.`.
    pub fn consumer(&self, brokers: &str) -> Result<Helper> {
        let arguments = [
            format!("--brokers={brokers}"),
            "--prefix=skerry.".to_owned(),
        ];
        self.helper("consumer.py", "consumer", "--out", &arguments)
    }

    /// The same for many records: of messages from MQTT it has the first characters only.
    pub fn consumer_of_many(&self, brokers: &str) -> Result<Helper> {
        let arguments = [
            format!("--brokers={brokers}"),
            "--prefix=skerry.".to_owned(),
            "--short".to_owned(),
        ];
        self.helper("consumer.py", "consumer", "--out", &arguments)
    }

    /// An asyncua server whose counters go on from `first`.
    pub fn opcua_server(
        &self,
        name: &str,
        port: u16,
        counters: u32,
        first: u64,
        bad_every: u64,
    ) -> Result<Helper> {
        let arguments = [
            format!("--port={port}"),
            format!("--counters={counters}"),
            format!("--first={first}"),
            format!("--bad-every={bad_every}"),
        ];
        self.helper("opcua_server.py", name, "--out", &arguments)
    }

    /// An HTTPS server that gives tokens to whoever knows the secret.
    pub fn token_endpoint(&self, arguments: &[String]) -> Result<Helper> {
        self.helper("token_endpoint.py", "token-endpoint", "--out", arguments)
    }

    pub fn port(&self) -> Result<u16> {
        ports::free()
    }

    /// `tests/python/SCRIPT`, whose output file `flag` takes.
    pub fn helper(
        &self,
        script: &str,
        name: &str,
        flag: &str,
        arguments: &[String],
    ) -> Result<Helper> {
        Helper::start(script, name, flag, arguments, &self.folder, &self.logs)
    }
}
