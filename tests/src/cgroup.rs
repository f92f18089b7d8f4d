//! A limit on the memory of a process and its children, as systemd's `MemoryMax=` sets it: a
//! control group of the kernel's, of version 2 or, where the memory controller is still there, 1.
//!
//! What counts is what the processes have for themselves and the page cache of the files they read
//! and write, which the kernel takes back before it kills anybody. Version 2 counts the buffers of
//! sockets in the same sum; version 1 has a sum of its own for them, which is limited alike here
//! and told beside it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

/// Names of the files that a version has for the same things.
struct Version {
    root: &'static str,
    /// A file that is there where the version has the memory controller.
    sign: &'static str,
    limit: &'static str,
    /// Further limits, where the kernel has them: what is swapped out would not be counted.
    more_limits: &'static [(&'static str, Option<u64>)],
    kills: &'static str,
    peak: &'static str,
    /// In `memory.stat`: what no file is behind.
    anonymous: &'static str,
}

const VERSIONS: [Version; 2] = [
    Version {
        root: "/sys/fs/cgroup",
        sign: "memory.max",
        limit: "memory.max",
        more_limits: &[("memory.swap.max", Some(0))],
        kills: "memory.events",
        peak: "memory.peak",
        anonymous: "anon",
    },
    Version {
        root: "/sys/fs/cgroup/memory",
        sign: "memory.limit_in_bytes",
        limit: "memory.limit_in_bytes",
        more_limits: &[
            ("memory.memsw.limit_in_bytes", None),
            ("memory.kmem.tcp.limit_in_bytes", None),
        ],
        kills: "memory.oom_control",
        peak: "memory.max_usage_in_bytes",
        anonymous: "total_rss",
    },
];

/// A group with a limit, empty until a command is started in it.
pub struct MemoryLimit {
    group: PathBuf,
    version: &'static Version,
}

impl MemoryLimit {
    /// A new group of this name.
    pub fn new(name: &str, bytes: u64) -> Result<Self> {
        let mut failed = Vec::new();
        for version in &VERSIONS {
            match Self::of(version, name, bytes) {
                Ok(limit) => return Ok(limit),
                Err(error) => failed.push(format!("{}: {error:#}", version.root)),
            }
        }
        bail!("no memory limit can be set: {}", failed.join("; "))
    }

    fn of(version: &'static Version, name: &str, bytes: u64) -> Result<Self> {
        let root = Path::new(version.root);
        let controllers = root.join("cgroup.subtree_control");
        if controllers.exists() {
            fs::write(&controllers, "+memory").context("the memory controller is not there")?;
        }
        let group = root.join(format!("skerry-tests-{}-{name}", std::process::id()));
        fs::create_dir(&group).with_context(|| format!("cannot make {}", group.display()))?;
        let limit = Self { group, version };
        ensure!(
            limit.group.join(version.sign).exists(),
            "the memory controller is not there"
        );
        limit.write(version.limit, bytes)?;
        for (file, value) in version.more_limits {
            if limit.group.join(file).exists() {
                limit.write(file, value.unwrap_or(bytes))?;
            }
        }
        Ok(limit)
    }

    fn write(&self, file: &str, value: u64) -> Result<()> {
        fs::write(self.group.join(file), value.to_string())
            .with_context(|| format!("cannot set {file}"))
    }

    /// The words before a command that has it run in the group.
    #[must_use]
    pub fn wrapper(&self) -> [String; 4] {
        let procs = self.group.join("cgroup.procs");
        let script = format!("echo $$ >'{}' && exec \"$@\"", procs.display());
        ["sh", "-c", &script, "sh"].map(str::to_owned)
    }

    /// How often the kernel has killed a process here for want of memory.
    pub fn kills(&self) -> Result<u64> {
        self.field(self.version.kills, "oom_kill")
    }

    /// The most that all of it came to, page cache included.
    pub fn peak_bytes(&self) -> Result<u64> {
        Ok(self.text(self.version.peak)?.trim().parse()?)
    }

    /// What the processes have for themselves now, which nobody can take back from them.
    pub fn anonymous_bytes(&self) -> Result<u64> {
        self.field("memory.stat", self.version.anonymous)
    }

    fn text(&self, file: &str) -> Result<String> {
        let path = self.group.join(file);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    fn field(&self, file: &str, name: &str) -> Result<u64> {
        let text = self.text(file)?;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value
            .with_context(|| format!("no {name} in {file}"))?
            .parse()?)
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        // Refused while a process is left, whose end is somebody else's business.
        let _removed = fs::remove_dir(&self.group);
    }
}

/// Whether limits can be set here, and hold: whoever wants more than its group may have is killed.
#[must_use]
pub fn can_be_had() -> bool {
    const LIMIT: u64 = 16 << 20;
    let had = || -> Result<bool> {
        let limit = MemoryLimit::new("tried", LIMIT)?;
        let [shell, words @ ..] = limit.wrapper();
        // A line without an end, which `tail` keeps whole.
        let greedy = ["sh", "-c", "head -c 67108864 /dev/zero | tail -n 1"];
        let mut command = Command::new(shell);
        command.args(words).args(greedy);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::null()).status()?;
        Ok(limit.kills()? > 0)
    };
    had().unwrap_or(false)
}
