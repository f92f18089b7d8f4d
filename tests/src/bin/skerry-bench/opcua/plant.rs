//! The server, and how much it has set its counters to.

use std::path::Path;
use std::process::Command;

use skerry_tests::python::{Helper, count};
use skerry_tests::{Context as _, Result, ports, wait, workspace};

use super::COUNTERS;

pub(crate) struct Plant {
    pub(crate) port: u16,
    helper: Helper,
}

impl Plant {
    /// `folder` is to be empty: what the server says is a file in it.
    pub(crate) fn start(folder: &Path, hertz: u32) -> Result<Self> {
        let program = workspace::opcua_c().join("opcua-server");
        let port = ports::free()?;
        let mut command = Command::new(program);
        command.arg(format!("--port={port}"));
        command.arg(format!("--counters={COUNTERS}"));
        command.arg(format!("--interval={}", 1.0 / f64::from(hertz)));
        command.args(["--terse", "--double"]);
        let mut helper = Helper::run(command, "plant", "--out", folder, folder)
            .context("tests/run builds the server")?;
        helper.wait_for("the plant serves", wait::START, |lines| {
            count(lines, "serving") > 0
        })?;
        Ok(Self { port, helper })
    }

    /// Values it has set so far, of all counters.
    pub(super) fn produced(&self) -> Result<u64> {
        let ticks = count(&self.helper.lines()?, "tick");
        Ok(ticks as u64 * u64::from(COUNTERS))
    }

    pub(crate) fn finish(self) -> Result<()> {
        self.helper.finish(wait::START).map(drop)
    }
}
