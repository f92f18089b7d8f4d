//! Small file systems of the tests' own, that can be full or read-only without harm.
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test uses its own part of this"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

const INSIDE: &str = "SKERRY_TEST_INSIDE";

/// Whether the calling test, by its full name, may go on. Where this process may not mount, the
/// test is run in a user and mount namespace of its own, and the caller is done.
pub(crate) fn may_mount(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() || Mounted::tmpfs("size=64k").is_some() {
        return true;
    }
    let program = std::env::current_exe().unwrap();
    let inside = Command::new("unshare")
        .arg("-rm")
        .arg(program)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output();
    match inside {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains("1 passed"), "no test {test}: {text}");
        }
        Ok(output) if output.status.code() == Some(101) => {
            panic!("{}", String::from_utf8_lossy(&output.stderr))
        }
        _ => skip("no file system can be mounted here, not even in a namespace (unshare -rm)"),
    }
    false
}

/// Says why a test cannot run here; where everything has to run, that is a failure.
pub(crate) fn skip(why: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
    eprintln!("skipped: {why}");
}

/// A file system, for as long as this lives.
pub(crate) struct Mounted {
    pub(crate) path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Mounted {
    /// In memory.
    pub(crate) fn tmpfs(options: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mounted");
        std::fs::create_dir(&path).unwrap();
        let how = ["-t", "tmpfs", "-o", options, "tmpfs"];
        succeeds("mount", &how, &[&path]).then_some(Self {
            path,
            _directory: directory,
        })
    }

    /// In a file, of so many bytes, not all of which are for use. That takes a loop device.
    pub(crate) fn ext4(bytes: u64) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        let path = directory.path().join("mounted");
        std::fs::create_dir(&path).unwrap();
        std::fs::File::create(&image)
            .and_then(|file| file.set_len(bytes))
            .unwrap();
        let made = succeeds("mkfs.ext4", &["-q", "-F", "-m", "0"], &[&image])
            && succeeds("mount", &["-o", "loop"], &[&image, &path]);
        made.then_some(Self {
            path,
            _directory: directory,
        })
    }

    pub(crate) fn is_ext4(&self) -> bool {
        const EXT4: i64 = 0xEF53;
        rustix::fs::statfs(&self.path).unwrap().f_type as i64 == EXT4
    }

    pub(crate) fn free_bytes(&self) -> u64 {
        let found = rustix::fs::statvfs(&self.path).unwrap();
        found.f_bfree * found.f_frsize
    }

    /// Read-only for who opens a file in it from now on, as it is after an error of the disk; for
    /// as long as what is returned lives. What is open for writing stays so, and forbids to
    /// remount the file system itself.
    pub(crate) fn read_only(&self) -> ReadOnly {
        assert!(succeeds("mount", &["--bind"], &[&self.path, &self.path]));
        let made = ReadOnly(self.path.clone());
        self.remount("ro,bind");
        made
    }

    pub(crate) fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        assert!(succeeds("mount", &["-o", &options], &[&self.path]));
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        succeeds("umount", &["-l"], &[&self.path]);
    }
}

/// Lies over a file system.
pub(crate) struct ReadOnly(PathBuf);

impl Drop for ReadOnly {
    fn drop(&mut self) {
        assert!(succeeds("umount", &[], &[&self.0]), "no longer read-only");
    }
}

fn succeeds(program: &str, arguments: &[&str], paths: &[&Path]) -> bool {
    let output = Command::new(program).args(arguments).args(paths).output();
    output.is_ok_and(|output| output.status.success())
}
