//! The helpers in `tests/python`: clients and servers that are not ours, and what they wrote.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::process::Process;
use crate::{wait, workspace};

/// A running helper and the file it writes its JSON lines to.
pub struct Helper {
    process: Process,
    lines: PathBuf,
}

impl Helper {
    /// Starts `tests/python/SCRIPT`; `file_flag` is the option that takes its output file.
    pub fn start(
        script: &str,
        name: &str,
        file_flag: &str,
        arguments: &[String],
        folder: &Path,
        logs: &Path,
    ) -> Result<Self> {
        let mut command = Command::new(workspace::python());
        command
            .arg(workspace::root().join("tests/python").join(script))
            .args(arguments)
            .env("PYTHONDONTWRITEBYTECODE", "1");
        Self::run(command, name, file_flag, folder, logs)
    }

    /// Starts a helper of any kind that writes and ends as those in `tests/python` do.
    pub fn run(
        mut command: Command,
        name: &str,
        file_flag: &str,
        folder: &Path,
        logs: &Path,
    ) -> Result<Self> {
        let lines = folder.join(format!("{name}.jsonl"));
        command.arg(file_flag).arg(&lines);
        let log = logs.join(format!("{name}.log"));
        let process = Process::start(name, &mut command, &log)?;
        Ok(Self { process, lines })
    }

    /// Every whole line written so far; none before the first.
    pub fn lines(&self) -> Result<Vec<Value>> {
        read_lines(&self.lines)
    }

    /// Waits until `done` holds for what it has written.
    pub fn wait_for(
        &mut self,
        what: &str,
        deadline: std::time::Duration,
        mut done: impl FnMut(&[Value]) -> bool,
    ) -> Result<Vec<Value>> {
        wait::until(what, deadline, || {
            let lines = self.lines()?;
            if done(&lines) {
                return Ok(Some(lines));
            }
            let count = lines.len();
            ensure!(
                self.process.is_running()?,
                "the helper ended after {count} lines"
            );
            anyhow::bail!("{count} lines so far")
        })
    }

    /// Lets it finish what it is at and end by itself.
    pub fn finish(mut self, deadline: std::time::Duration) -> Result<Vec<Value>> {
        self.process.close_input();
        let status = self.process.wait(deadline)?;
        ensure!(
            status.success(),
            "the helper failed: {}",
            self.process.output()?
        );
        self.lines()
    }

    /// Waits for it to end on its own account.
    pub fn join(mut self, deadline: std::time::Duration) -> Result<Vec<Value>> {
        let status = self.process.wait(deadline)?;
        ensure!(
            status.success(),
            "the helper failed: {}",
            self.process.output()?
        );
        self.lines()
    }

    pub fn kill(mut self) -> Result<()> {
        self.process.kill()
    }

    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }
}

fn read_lines(path: &Path) -> Result<Vec<Value>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    // The last line may still be in the writing.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}")))
        .collect()
}

/// How many lines are this event.
#[must_use]
pub fn count(lines: &[Value], event: &str) -> usize {
    lines.iter().filter(|line| line["event"] == event).count()
}
