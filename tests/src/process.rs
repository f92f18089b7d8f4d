//! A child process with its output in a file, ended by its id when dropped.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

use crate::wait;

pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// Where this run's output starts in the log; earlier runs wrote before it.
    log_start: u64,
}

impl Process {
    /// Starts `command` with stdout and stderr appended to `log`. Its standard input is a pipe:
    /// helpers end when it closes, so none outlives a test that was killed.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let file = append(log)?;
        let log_start = file.metadata()?.len();
        let child = command
            .stdin(Stdio::piped())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {name}: {command:?}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_path_buf(),
            log_start,
        })
    }

    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What this run has printed so far.
    pub fn output(&self) -> Result<String> {
        let bytes = fs::read(&self.log)?;
        let start = usize::try_from(self.log_start)?.min(bytes.len());
        Ok(String::from_utf8_lossy(&bytes[start..]).into_owned())
    }

    /// Waits until this run has printed `needle`; fails at once if it ends before.
    pub fn wait_for_output(&mut self, needle: &str, deadline: Duration) -> Result<()> {
        let what = format!("{} prints {needle:?}", self.name);
        let mut ended = None;
        let found = wait::until(&what, deadline, || {
            let running = self.is_running()?;
            if self.output()?.contains(needle) {
                return Ok(Some(true));
            }
            if !running {
                ended = self.child.try_wait()?;
                return Ok(Some(false));
            }
            Ok(None)
        })?;
        if !found {
            bail!(
                "{} ended ({ended:?}) before it printed {needle:?}",
                self.name
            );
        }
        Ok(())
    }

    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        let raw = i32::try_from(self.child.id())?;
        let pid = Pid::from_raw(raw).ok_or_else(|| anyhow!("{} has no id", self.name))?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Closes the helper's standard input: "finish and leave".
    pub fn close_input(&mut self) {
        drop(self.child.stdin.take());
    }

    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let what = format!("{} ends", self.name);
        wait::until(&what, deadline, || Ok(self.child.try_wait()?))
    }

    /// kill -9, and gone when this returns.
    pub fn kill(&mut self) -> Result<()> {
        if self.is_running()? {
            self.child.kill()?;
        }
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A test that already failed must not be overshadowed by its tidying up.
        let _ended = self.kill();
    }
}

fn append(log: &Path) -> Result<File> {
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder)?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("cannot write {}", log.display()))
}

/// What a command that ended by itself left behind.
pub struct Output {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Runs `command` to its end, killing it at the deadline.
pub fn run(command: &mut Command, deadline: Duration) -> Result<Output> {
    let stdout = tempfile::NamedTempFile::new()?;
    let stderr = tempfile::NamedTempFile::new()?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(stdout.reopen()?)
        .stderr(stderr.reopen()?)
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    let ended = wait::until(&format!("{command:?} ends"), deadline, || {
        Ok(child.try_wait()?)
    });
    if ended.is_err() {
        child.kill()?;
        child.wait()?;
    }
    let output = Output {
        code: None,
        stdout: String::from_utf8_lossy(&fs::read(stdout.path())?).into_owned(),
        stderr: String::from_utf8_lossy(&fs::read(stderr.path())?).into_owned(),
    };
    match ended {
        Ok(status) => Ok(Output {
            code: status.code(),
            ..output
        }),
        Err(error) => Err(error.context(output.text())),
    }
}
