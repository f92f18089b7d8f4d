//! Who reads the plant: the node, and bare clients to compare it with.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use skerry_tests::node::{Memory, Node, Settings};
use skerry_tests::python::Helper;
use skerry_tests::{Context as _, Result, ensure, wait, workspace};

use super::COUNTERS;

/// The stream that the counters go to.
pub(super) const STREAM: &str = "machines";

/// Whose client it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Make {
    Skerry,
    Open62541,
    NodeOpcua,
}

/// A client that monitors every counter.
pub(super) enum Client {
    Node(Box<Node>),
    Bare(Helper),
}

/// What has come so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Received {
    /// In the log where the client has one.
    pub(super) values: u64,
    /// Signs that some were lost.
    pub(super) losses: u64,
}

impl Make {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Skerry => "skerry",
            Self::Open62541 => "open62541's client, values counted and forgotten",
            Self::NodeOpcua => "node-opcua's client, values counted and forgotten",
        }
    }

    /// Why it cannot be had here, if so.
    pub(super) fn lacks(self) -> Option<&'static str> {
        let (there, why) = match self {
            Self::Skerry => (true, ""),
            Self::Open62541 => (
                workspace::opcua_c().join("opcua-client").exists(),
                "open62541 is not built; `tests/run` does it",
            ),
            Self::NodeOpcua => (
                workspace::opcua_js()
                    .join("node_modules/node-opcua")
                    .exists(),
                "node-opcua is not installed; `tests/run` does it where Node.js is",
            ),
        };
        (!there).then_some(why)
    }

    /// Starts it and waits until it monitors every counter.
    pub(super) fn start(self, folder: &Path, port: u16) -> Result<Client> {
        let mut command = match self {
            Self::Skerry => return node(folder, port).map(Client::Node),
            Self::Open62541 => Command::new(workspace::opcua_c().join("opcua-client")),
            Self::NodeOpcua => {
                let mut command = Command::new("node");
                command.arg(workspace::root().join("tests/opcua-js/client.mjs"));
                command.arg(format!("--modules={}", workspace::opcua_js().display()));
                command.arg(format!("--pki={}", folder.join("pki").display()));
                command
            }
        };
        command.arg(format!("--port={port}"));
        command.arg(format!("--counters={COUNTERS}"));
        let mut helper = Helper::run(command, "client", "--out", folder, folder)?;
        helper.wait_for("the client gets values", wait::START, |lines| {
            lines
                .last()
                .is_some_and(|line| line["values"].as_u64() > Some(u64::from(COUNTERS)))
        })?;
        Ok(Client::Bare(helper))
    }
}

/// A node that has no other work. Its stream gives up its oldest data when it is full, so that no
/// bench ends because its disk does.
fn node(folder: &Path, port: u16) -> Result<Box<Node>> {
    let mut settings = Settings::new(folder)?;
    settings.more = endpoint(port);
    let mut node = Node::new(settings, folder, folder)?;
    node.start()?;
    let flows =
        |status: &Value| status["opcua"][0]["values_total"].as_u64() > Some(u64::from(COUNTERS));
    node.wait_for_status("the node gets values", wait::START, flows)?;
    Ok(Box::new(node))
}

/// The sections of a config that reads every counter of the plant at `port`.
pub(crate) fn endpoint(port: u16) -> String {
    let mut more = format!(
        "\n[[stream]]\nname = \"{STREAM}\"\ntopics = []\nbytes_max = \"4GiB\"\n\
         when_full = \"drop_oldest\"\n\n[[opcua]]\nname = \"plant\"\n\
         endpoint = \"opc.tcp://127.0.0.1:{port}\"\nstream = \"{STREAM}\"\n\
         publishing_interval = \"100ms\"\nnodes = [\n"
    );
    for counter in 0..COUNTERS {
        // Sampling zero: whatever is written is a sample.
        writeln!(
            more,
            "  {{ name = \"Counter{counter}\", id = \"nsu=urn:skerry:tests;s=Counter{counter}\", \
             sampling = \"0ms\" }},"
        )
        .expect("a String takes everything");
    }
    more + "]\n"
}

impl Client {
    pub(super) fn id(&mut self) -> Result<u32> {
        match self {
            Self::Node(node) => Ok(node.running()?.id()),
            Self::Bare(helper) => Ok(helper.process().id()),
        }
    }

    pub(super) fn received(&self) -> Result<Received> {
        let (told, values, losses) = match self {
            Self::Node(node) => {
                let status = node.status()?["opcua"][0].take();
                (status, "values_total", "gaps_total")
            }
            Self::Bare(helper) => {
                let last = helper.lines()?.pop().context("the client says nothing")?;
                (last, "values", "overflows")
            }
        };
        let number = |name: &str| told[name].as_u64().with_context(|| format!("no {name}"));
        Ok(Received {
            values: number(values)?,
            losses: number(losses)?,
        })
    }

    /// Of the node, and of nobody else: the peers keep nothing.
    pub(super) fn memory(&mut self) -> Result<Option<Memory>> {
        match self {
            Self::Node(node) => node.memory().map(Some),
            Self::Bare(_) => Ok(None),
        }
    }

    /// Ends it well; what a bare client said last.
    pub(super) fn finish(self) -> Result<Option<Value>> {
        match self {
            Self::Node(mut node) => {
                ensure!(node.terminate()?.success(), "the node did not end well");
                Ok(None)
            }
            Self::Bare(helper) => Ok(helper.finish(wait::START)?.pop()),
        }
    }
}
