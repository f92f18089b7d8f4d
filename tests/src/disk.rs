//! A disk that can be stopped: a file system in a file, which the kernel freezes when asked.
//!
//! While it is frozen, writes to it wait, in the kernel, for as long as it takes: to a program
//! this is a disk that hangs. It takes root, a loop device and `fsfreeze` (util-linux).

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};

pub struct Disk {
    path: PathBuf,
}

/// The disk stands still for as long as this lives.
pub struct Frozen(Child);

impl Disk {
    /// An ext4 of so many mebibytes, below `folder`.
    pub fn new(folder: &Path, mebibytes: u64) -> Result<Self> {
        let (image, path) = (folder.join("disk.image"), folder.join("disk"));
        fs::create_dir_all(&path)?;
        fs::File::create(&image)?.set_len(mebibytes << 20)?;
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-m", "0"])
            .arg(&image))?;
        run(Command::new("mount")
            .args(["-o", "loop"])
            .args([&image, &path]))?;
        Ok(Self { path })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the kernel has written to it so far, its journal included, once nothing waits.
    pub fn written_bytes(&self) -> Result<u64> {
        const SECTOR_BYTES: u64 = 512;
        run(Command::new("sync").arg("-f").arg(&self.path))?;
        let output = Command::new("mountpoint")
            .arg("-d")
            .arg(&self.path)
            .output()?;
        let device = String::from_utf8(output.stdout)?;
        let path = format!("/sys/dev/block/{}/stat", device.trim());
        let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let sectors = stat.split_whitespace().nth(6).context("a short stat")?;
        Ok(sectors.parse::<u64>()? * SECTOR_BYTES)
    }

    /// A shell holds it: when this process ends in whatever way, the shell's input does too, and
    /// the disk moves again.
    pub fn freeze(&self) -> Result<Frozen> {
        let script = r#"fsfreeze --freeze "$1" && echo frozen && cat; fsfreeze --unfreeze "$1""#;
        let mut shell = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(&self.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut answer = [0; 6];
        let stdout = shell.stdout.as_mut().expect("it was asked for");
        let read = stdout.read_exact(&mut answer);
        let frozen = Frozen(shell);
        read.context("fsfreeze failed")?;
        Ok(frozen)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // It ends by itself, and a scenario that already failed is not overshadowed.
        let _ended = self.0.wait();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a node that still runs may hold it open.
        let _unmounted = run(Command::new("umount").arg("-l").arg(&self.path));
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {text}");
    Ok(())
}

/// Whether disks of this kind can be had here.
#[must_use]
pub fn can_be_had() -> bool {
    let had = || -> Result<()> {
        let folder = tempfile::tempdir()?;
        let disk = Disk::new(folder.path(), 8)?;
        drop(disk.freeze()?);
        Ok(())
    };
    had().is_ok()
}
