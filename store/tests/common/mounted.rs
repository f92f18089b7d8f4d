//! A small file system, for disks that fill up.
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test uses its own part of this"
)]

use std::path::PathBuf;
use std::process::Command;

/// Says why a test cannot run here; where everything has to run, that is a failure.
pub(crate) fn skip(why: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
    eprintln!("skipped: {why}");
}

/// A small file system of its own, for as long as it lives.
pub(crate) struct Mounted {
    pub(crate) path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Mounted {
    pub(crate) fn tmpfs(options: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(&path)
            .output();
        mount
            .is_ok_and(|mount| mount.status.success())
            .then_some(Self {
                path,
                _directory: directory,
            })
    }

    pub(crate) fn free_bytes(&self) -> u64 {
        let found = rustix::fs::statvfs(&self.path).unwrap();
        found.f_bfree * found.f_frsize
    }

    pub(crate) fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let remount = Command::new("mount")
            .args(["-o", &options])
            .arg(&self.path)
            .status();
        assert!(remount.unwrap().success());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}
