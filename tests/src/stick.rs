//! A USB stick, of a loop device: a file system that a machine of [`crate::machine`] finds plugged in.
//!
//! The kernel tells of it as of every disk; that it is on USB, a udev rule there has to say.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::machine::Machine;
use crate::{process, wait};

pub struct Stick {
    image: PathBuf,
    /// While it is plugged in.
    device: Option<String>,
}

impl Stick {
    /// A file system called `label`, with what `content` holds.
    pub fn make(image: PathBuf, label: &str, content: &Path) -> Result<Self> {
        fs::File::create(&image)?.set_len(4 << 20)?;
        let mut command = Command::new("mkfs.ext4");
        command.args(["-q", "-L", label, "-d"]);
        run(command.args([content, &image]))?;
        Ok(Self {
            image,
            device: None,
        })
    }

    pub fn plug_in(&mut self, machine: &Machine) -> Result<()> {
        let device = run(Command::new("losetup").arg("--find"))?
            .trim()
            .to_owned();
        let number = device.strip_prefix("/dev/loop").context("no loop device")?;
        // The machine has no /dev of the kernel's, so this is not there by itself.
        machine.succeeds(&format!("test -e {device} || mknod {device} b 7 {number}"))?;
        run(Command::new("losetup").arg(&device).arg(&self.image))?;
        self.device = Some(device);
        Ok(())
    }

    pub fn unplug(&mut self) -> Result<()> {
        if let Some(device) = self.device.take() {
            run(Command::new("losetup").args(["--detach", &device]))?;
        }
        Ok(())
    }

    /// A file on it, as another computer reads it.
    pub fn read(&self, path: &str) -> Result<String> {
        let mut command = Command::new("debugfs");
        run(command
            .args(["-R", &format!("cat {path}")])
            .arg(&self.image))
    }
}

impl Drop for Stick {
    fn drop(&mut self) {
        // A scenario that already failed is not overshadowed.
        let _detached = self.unplug();
    }
}

fn run(command: &mut Command) -> Result<String> {
    let output = process::run(command, wait::START)?;
    ensure!(output.code == Some(0), "{command:?}: {}", output.text());
    Ok(output.stdout)
}

/// Whether all that it takes is here, beside a machine to plug it into.
#[must_use]
pub fn can_be_had() -> bool {
    let has_udev = Path::new("/lib/systemd/systemd-udevd").exists();
    let free = Command::new("losetup").arg("--find").output();
    let tools = ["mkfs.ext4", "debugfs"].map(|tool| Command::new(tool).arg("-V").output().is_ok());
    has_udev && free.is_ok_and(|output| output.status.success()) && tools == [true; 2]
}
