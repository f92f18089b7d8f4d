//! The cluster in the hands of those who run it and of other producers, by a client that is not
//! ours.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{process, wait, workspace};

pub struct Operator {
    brokers: String,
}

/// How much of a topic was ever written, and how much of that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub written: u64,
    pub readable: u64,
}

impl Operator {
    #[must_use]
    pub fn new(brokers: String) -> Self {
        Self { brokers }
    }

    /// Creates a topic with these settings.
    pub fn create(&self, topic: &str, settings: &[&str]) -> Result<()> {
        self.configure("create", topic, settings)
    }

    /// Changes settings of a topic.
    pub fn alter(&self, topic: &str, settings: &[&str]) -> Result<()> {
        self.configure("alter", topic, settings)
    }

    /// Lets `principal` do something: the words are those of Kafka's own tools.
    pub fn allow(
        &self,
        principal: &str,
        resource: &str,
        name: &str,
        operation: &str,
    ) -> Result<()> {
        self.run(&["allow", principal, resource, name, operation])
            .map(drop)
    }

    /// Produces records of this age as a peer of ours does; how many were confirmed.
    pub fn produce(&self, topic: &str, count: u64, age_seconds: u64) -> Result<u64> {
        let (count, age) = (count.to_string(), age_seconds.to_string());
        let told = self.run(&["produce", topic, "--count", &count, "--age", &age])?;
        told["confirmed"].as_u64().context("no count")
    }

    pub fn held(&self, topic: &str) -> Result<Held> {
        let told = self.run(&["offsets", topic])?;
        let number = |name: &str| {
            told[name]
                .as_u64()
                .with_context(|| format!("no {name} in {told}"))
        };
        Ok(Held {
            written: number("written")?,
            readable: number("readable")?,
        })
    }

    fn configure(&self, action: &str, topic: &str, settings: &[&str]) -> Result<()> {
        let mut arguments = vec![action, topic];
        arguments.extend(settings.iter().flat_map(|setting| ["--config", setting]));
        self.run(&arguments).map(drop)
    }

    fn run(&self, arguments: &[&str]) -> Result<Value> {
        let script = workspace::root().join("tests/python/cluster.py");
        let mut command = Command::new(workspace::python());
        command
            .arg(script)
            .args(["--brokers", &self.brokers])
            .args(arguments);
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        let output = process::run(&mut command, wait::START)?;
        ensure!(
            output.code == Some(0),
            "{arguments:?} failed: {}",
            output.text()
        );
        serde_json::from_str(&output.stdout).with_context(|| format!("not JSON: {}", output.stdout))
    }
}
