//! The node under demonstration: this very program, as a child process with an ordinary config,
//! so that a crash is a real `kill -9`.

use serde_json::Value;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

const READY_WITHIN: Duration = Duration::from_secs(20);
const STOP_WITHIN: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);

/// A running node and how to reach it.
pub struct NodeProcess {
    config: PathBuf,
    log_file: PathBuf,
    http: String,
    child: Child,
    pub starts: u32,
}

impl NodeProcess {
    /// Starts the node and waits until it says that it is ready.
    pub async fn start(config: &Path, log_file: &Path, http: &str) -> io::Result<Self> {
        let mut node = Self {
            config: config.to_owned(),
            log_file: log_file.to_owned(),
            http: http.to_owned(),
            child: spawn(config, log_file)?,
            starts: 1,
        };
        node.until_ready().await?;
        Ok(node)
    }

    /// Kills the process in the middle of whatever it is doing, and reaps it.
    pub async fn crash(&mut self) -> io::Result<()> {
        self.child.kill().await
    }

    pub async fn start_again(&mut self) -> io::Result<()> {
        self.child = spawn(&self.config, &self.log_file)?;
        self.starts += 1;
        self.until_ready().await
    }

    /// The node's own account of itself, or `None` while it does not answer.
    pub async fn status(&self) -> Option<Value> {
        let address = self.http.clone();
        let asked = tokio::task::spawn_blocking(move || crate::status::fetch(&address, "/status"));
        let body = asked.await.ok()?.ok()?;
        serde_json::from_str(&body).ok()
    }

    /// Asks the process to stop by closing its standard input, and waits for a clean end.
    pub async fn stop(&mut self) -> io::Result<()> {
        drop(self.child.stdin.take());
        match timeout(STOP_WITHIN, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(self.failure(&format!("ended with {status}"))),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                self.child.kill().await?;
                Err(self.failure("did not stop in time"))
            }
        }
    }

    async fn until_ready(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Err(self.failure(&format!("ended with {status} before it was ready")));
            }
            let address = self.http.clone();
            let asked =
                tokio::task::spawn_blocking(move || crate::status::fetch(&address, "/readyz"));
            if asked.await.is_ok_and(|answer| answer.is_ok()) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(self.failure("was not ready in time"));
            }
            sleep(POLL).await;
        }
    }

    fn failure(&self, what: &str) -> io::Error {
        let log = self.log_file.display();
        io::Error::other(format!("the node {what}; its log is {log}"))
    }
}

/// The node in a process group of its own, so that Ctrl-C reaches the demo alone; when the demo
/// goes, however it goes, the node's standard input closes and it stops.
fn spawn(config: &Path, log_file: &Path) -> io::Result<Child> {
    let log = File::options().create(true).append(true).open(log_file)?;
    Command::new(std::env::current_exe()?)
        .arg("run")
        .arg("--until-stdin-closes")
        .arg(config)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}
