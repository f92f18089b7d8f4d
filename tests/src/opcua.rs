//! OPC-UA servers that are not ours, each as a process with the same options and the same lines.

pub mod judge;

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::python::{self, Helper};
use crate::world::World;
use crate::{process, wait, workspace};

/// URI of the namespace that holds `Counter0`, `Counter1`, … on most of them.
pub const NAMESPACE: &str = "urn:skerry:tests";

/// Whose server it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Make {
    /// `tests/python/opcua_server.py`.
    Asyncua,
    /// `tests/opcua-js/server.mjs`.
    NodeOpcua,
    /// `tests/opcua-c/server.c`.
    Open62541,
    /// `tests/opcua-milo`, which is always secured.
    Milo,
    /// `bridge/examples/opcua_server.rs`, on the crate whose client side is under test.
    AsyncOpcua,
}

impl Make {
    pub const ALL: [Self; 3] = [Self::Asyncua, Self::NodeOpcua, Self::Open62541];
    /// Those that can be started with security.
    pub const SECURED: [Self; 4] = [Self::Asyncua, Self::NodeOpcua, Self::Milo, Self::AsyncOpcua];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Asyncua => "asyncua",
            Self::NodeOpcua => "node-opcua",
            Self::Open62541 => "open62541",
            Self::Milo => "milo",
            Self::AsyncOpcua => "async-opcua",
        }
    }

    /// URI of the namespace that holds its counters.
    #[must_use]
    pub const fn namespace(self) -> &'static str {
        match self {
            Self::Asyncua | Self::NodeOpcua | Self::Open62541 | Self::Milo => NAMESPACE,
            Self::AsyncOpcua => "urn:skerry:demo",
        }
    }

    /// What a server of this make calls itself, which must be in its certificate.
    #[must_use]
    pub fn application_uri(self) -> String {
        match self {
            Self::Asyncua | Self::NodeOpcua | Self::Open62541 | Self::Milo => {
                format!("{NAMESPACE}:{}", self.name())
            }
            Self::AsyncOpcua => format!("{}:server", self.namespace()),
        }
    }
}

/// The client that `certificates` makes a certificate for.
pub const CLIENT_URI: &str = "urn:skerry:tests:client";

/// Certificates for a server of this make and whom it may trust; `opcua_certificates.py` lists
/// the files.
pub fn certificates(folder: &Path, make: Make) -> Result<()> {
    let mut command = Command::new(workspace::python());
    command
        .arg(workspace::root().join("tests/python/opcua_certificates.py"))
        .arg(format!("--folder={}", folder.display()))
        .arg(format!("--server-uri={}", make.application_uri()))
        .arg(format!("--client-uri={CLIENT_URI}"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let output = process::run(&mut command, wait::START)?;
    ensure!(output.code == Some(0), "{}", output.text());
    Ok(())
}

/// A server to be started.
#[derive(Debug, Clone)]
pub struct OpcuaServer {
    make: Make,
    name: String,
    port: u16,
    options: Vec<String>,
}

impl OpcuaServer {
    /// Without security; what else it does is up to its options, which its source lists.
    #[must_use]
    pub fn new(make: Make, name: &str, port: u16) -> Self {
        Self {
            make,
            name: name.to_owned(),
            port,
            options: Vec::new(),
        }
    }

    /// An option such as `--counters=3` or `--history`.
    #[must_use]
    pub fn with(mut self, option: impl Into<String>) -> Self {
        self.options.push(option.into());
        self
    }

    #[must_use]
    pub fn url(&self) -> String {
        let path = match self.make {
            Make::Asyncua | Make::NodeOpcua | Make::Open62541 | Make::Milo => "tests",
            Make::AsyncOpcua => "",
        };
        format!("opc.tcp://127.0.0.1:{}/{path}", self.port)
    }

    /// Starts it, and returns once it serves. A line is written for whatever it sets.
    pub fn start(&self, world: &World) -> Result<Helper> {
        let (folder, logs) = (world.folder(), world.logs());
        let mut command = self.command(world);
        command.arg(format!("--port={}", self.port));
        command.args(&self.options);
        let mut helper = Helper::run(command, &self.name, "--out", folder, logs)?;
        let what = format!("{} serves", self.name);
        helper.wait_for(&what, wait::START, |lines| {
            python::count(lines, "serving") > 0
        })?;
        Ok(helper)
    }

    fn command(&self, world: &World) -> Command {
        let tests = workspace::root().join("tests");
        let pki = world.folder().join(format!("{}-pki", self.name));
        match self.make {
            Make::Asyncua => {
                let mut command = Command::new(workspace::python());
                command.arg(tests.join("python/opcua_server.py"));
                command.env("PYTHONDONTWRITEBYTECODE", "1");
                command
            }
            Make::Milo => {
                let jars = workspace::opcua_milo();
                let classes = format!("{0}/opcua-milo.jar:{0}/lib/*", jars.display());
                let mut command = Command::new("java");
                // Quick to start is what matters here.
                command.args(["-XX:TieredStopAtLevel=1", "-Xmx128m", "-cp", &classes]);
                command.arg("skerry.tests.Server");
                command.arg(format!("--pki={}", pki.display()));
                command
            }
            Make::AsyncOpcua => {
                let mut command = Command::new(workspace::example("opcua_server"));
                command.arg(format!("--pki={}", pki.display()));
                command
            }
            Make::NodeOpcua => {
                let mut command = Command::new("node");
                command.arg(tests.join("opcua-js/server.mjs"));
                command.arg(format!("--modules={}", workspace::opcua_js().display()));
                command.arg(format!("--pki={}", pki.display()));
                command
            }
            Make::Open62541 => Command::new(workspace::opcua_c().join("opcua-server")),
        }
    }
}
