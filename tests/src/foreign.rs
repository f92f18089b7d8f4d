//! Clients that are not ours, and how each is told where the broker is.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail, ensure};

use crate::process::{self, Process};
use crate::{wait, workspace};

/// Where a broker listens, and what a client needs to know to get there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    Tcp { port: u16 },
    Tls { port: u16, authority: PathBuf },
    WebSocket { port: u16 },
    SecureWebSocket { port: u16, authority: PathBuf },
    Unix { path: PathBuf },
}

impl Endpoint {
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Tcp { .. } => "tcp",
            Self::Tls { .. } => "tls",
            Self::WebSocket { .. } => "ws",
            Self::SecureWebSocket { .. } => "wss",
            Self::Unix { .. } => "unix",
        }
    }

    /// Options of `tests/python/story.py` and of `tests/mqtt-js/story.mjs`.
    fn for_stories(&self) -> Vec<String> {
        let mut words = vec![format!("--transport={}", self.name())];
        match self {
            Self::Tcp { port } | Self::WebSocket { port } => words.push(format!("--port={port}")),
            Self::Tls { port, authority } | Self::SecureWebSocket { port, authority } => {
                words.push(format!("--port={port}"));
                words.push(format!("--ca={}", authority.display()));
            }
            Self::Unix { path } => words.push(format!("--socket={}", path.display())),
        }
        words
    }

    /// Options of mosquitto's clients, which speak no WebSocket.
    fn for_mosquitto(&self) -> Result<Vec<String>> {
        let host = ["-h", "localhost", "-p"].map(str::to_owned);
        Ok(match self {
            Self::Tcp { port } => [&host[..], &[port.to_string()]].concat(),
            Self::Tls { port, authority } => {
                let trust = ["--cafile".to_owned(), authority.display().to_string()];
                [&host[..], &[port.to_string()], &trust].concat()
            }
            Self::Unix { path } => vec!["--unix".to_owned(), path.display().to_string()],
            Self::WebSocket { .. } | Self::SecureWebSocket { .. } => {
                bail!("mosquitto_pub and mosquitto_sub speak no WebSocket")
            }
        })
    }
}

/// Whose client tells the story of `tests/python/story.py`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Teller {
    Paho,
    MqttJs,
}

/// Has a client of this kind do everything a client does; `protocol` 4 is MQTT 3.1.1.
pub fn tell(teller: Teller, name: &str, protocol: u8, endpoint: &Endpoint) -> Result<()> {
    let tests = workspace::root().join("tests");
    let mut command = match teller {
        Teller::Paho => {
            let mut command = Command::new(workspace::python());
            command.arg(tests.join("python/story.py"));
            command.env("PYTHONDONTWRITEBYTECODE", "1");
            command
        }
        Teller::MqttJs => {
            let mut command = Command::new("node");
            command.arg(tests.join("mqtt-js/story.mjs"));
            command.arg(format!("--modules={}", workspace::mqtt_js().display()));
            command
        }
    };
    command.arg(format!("--name={name}"));
    command.arg(format!("--protocol={protocol}"));
    command.args(endpoint.for_stories());
    let output = process::run(&mut command, wait::START)?;
    let text = output.text();
    ensure!(output.code == Some(0), "{teller:?}: {text}");
    Ok(())
}

/// mosquitto_pub and mosquitto_sub, pointed at a broker.
#[derive(Debug, Clone)]
pub struct Mosquitto {
    options: Vec<String>,
}

impl Mosquitto {
    pub fn new(protocol: u8, endpoint: &Endpoint) -> Result<Self> {
        let version = match protocol {
            5 => "mqttv5",
            _ => "mqttv311",
        };
        let mut options = endpoint.for_mosquitto()?;
        options.extend(["-V", version].map(str::to_owned));
        Ok(Self { options })
    }

    pub fn publish(&self, topic: &str, payload: &str, qos: u8, more: &[&str]) -> Result<()> {
        let qos = qos.to_string();
        let mut command = Command::new("mosquitto_pub");
        command
            .args(&self.options)
            .args(["-t", topic, "-m", payload, "-q", &qos])
            .args(more);
        let output = process::run(&mut command, wait::START)?;
        let text = output.text();
        ensure!(output.code == Some(0), "mosquitto_pub: {text}");
        Ok(())
    }

    /// A subscriber, once it is subscribed. It prints what it gets as `QOS RETAIN PAYLOAD`.
    pub fn subscriber(
        &self,
        name: &str,
        filter: &str,
        more: &[&str],
        logs: &Path,
    ) -> Result<Process> {
        // Into a file it would print nothing until it ends.
        let mut command = Command::new("stdbuf");
        command
            .args(["-oL", "mosquitto_sub"])
            .args(&self.options)
            .args(["-d", "-i", name, "-t", filter, "-q", "2"])
            .args(["-F", "got %q %r %p"])
            .args(more);
        let log = logs.join(format!("{name}.log"));
        let mut process = Process::start("mosquitto_sub", &mut command, &log)?;
        process.wait_for_output("Subscribed (mid", wait::START)?;
        Ok(process)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_the_broker_has_its_options() {
        let secure = Endpoint::SecureWebSocket {
            port: 7,
            authority: "ca.pem".into(),
        };
        assert_eq!(
            secure.for_stories(),
            ["--transport=wss", "--port=7", "--ca=ca.pem"]
        );
        assert!(secure.for_mosquitto().is_err());
        let local = Endpoint::Unix {
            path: "/run/x".into(),
        };
        assert_eq!(local.for_stories(), ["--transport=unix", "--socket=/run/x"]);
        assert_eq!(local.for_mosquitto().unwrap(), ["--unix", "/run/x"]);
    }
}
