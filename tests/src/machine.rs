//! A machine like this one with a systemd of its own, for what has to be installed to be tried:
//! see `tests/machine/boot`.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::process::{self, Output, Process};
use crate::{wait, workspace};

/// What a shell there is given: nothing of this process's surroundings.
const ENVIRONMENT: [&str; 3] = [
    "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL=C.UTF-8",
    "DEBIAN_FRONTEND=noninteractive",
];

pub struct Machine {
    process: Process,
    init: String,
}

impl Machine {
    /// Boots it; `shared` is its `/mnt`, and `folder` holds what is changed there.
    pub fn boot(folder: &Path, shared: &Path, log: &Path) -> Result<Self> {
        let boot = workspace::root().join("tests/machine/boot");
        let mut command = Command::new(boot);
        command.args([folder, shared]);
        let mut process = Process::start("the machine", &mut command, log)?;
        process.wait_for_output("booted ", wait::START)?;
        let output = process.output()?;
        let init = output.lines().find_map(|line| line.strip_prefix("booted "));
        let init = init.context("no id of its first process")?.to_owned();
        Ok(Self { process, init })
    }

    /// Runs a script as root there, to its end.
    pub fn run(&self, script: &str) -> Result<Output> {
        let mut command = Command::new("nsenter");
        command
            .args(["--all", "--root", "--wd", "--target", &self.init])
            .args(["env", "-i"])
            .args(ENVIRONMENT)
            .args(["sh", "-euc", script]);
        process::run(&mut command, wait::START)
    }

    /// The same, and what it printed; it must succeed.
    pub fn succeeds(&self, script: &str) -> Result<String> {
        let output = self.run(script)?;
        let (code, text) = (output.code, output.text());
        ensure!(code == Some(0), "`{script}` ended with {code:?}: {text}");
        Ok(output.stdout.trim().to_owned())
    }

    /// Waits until a script succeeds.
    pub fn wait_until(&self, what: &str, script: &str) -> Result<()> {
        let done = wait::until(what, wait::START, || self.succeeds(script).map(Some));
        done.map(drop).map_err(|error| {
            let journal = self.run("journalctl --no-pager --lines 30");
            error.context(journal.map_or_else(|why| why.to_string(), |told| told.text()))
        })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It tidies up behind itself when it is let go of; whatever remains is killed.
        self.process.close_input();
        let _ended = self.process.wait(Duration::from_secs(10));
    }
}

/// Whether all that it takes is here.
#[must_use]
pub fn can_be_had() -> bool {
    let script = r#"
        test "$(id -u)" = 0
        for tool in systemd-run systemctl dpkg-deb unshare nsenter setpriv ip strip readelf; do
            command -v "$tool"
        done
        test -x /lib/systemd/systemd
        grep -qw overlay /proc/filesystems || modprobe overlay
    "#;
    let mut command = Command::new("sh");
    let quiet = command
        .args(["-euc", script])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}
