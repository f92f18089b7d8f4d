//! The node's side of one child: starts it, asks it, and knows how it ended.

use super::protocol::{self, GREETING, LENGTH_BYTES, Reply, Request};
use crate::encoding;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// For a program to be read from a slow disk and to start.
const START_TIME_MAX: Duration = Duration::from_secs(30);
/// For a killed process to be gone, and for what it said last.
const END_TIME_MAX: Duration = Duration::from_secs(5);
/// Lines of standard error that are kept to explain an end.
const LAST_LINES: usize = 16;
const LINE_BYTES_MAX: u64 = 1024;

/// What a child is started with: a program that calls [`serve`](super::serve).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostCommand {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
}

impl HostCommand {
    /// The running program itself, also where its file was replaced meanwhile.
    #[must_use]
    pub fn this_program<const N: usize>(arguments: [&str; N]) -> Self {
        Self {
            program: "/proc/self/exe".into(),
            arguments: arguments.map(OsString::from).to_vec(),
        }
    }
}

impl Default for HostCommand {
    fn default() -> Self {
        Self::this_program(["model-host"])
    }
}

/// A child that runs. Killed when dropped.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    requests: ChildStdin,
    replies: BufReader<ChildStdout>,
    last_lines: JoinHandle<VecDeque<String>>,
}

/// Why a child gave no reply.
#[derive(Debug)]
pub(super) enum Trouble {
    Late,
    /// It has ended, or says what nobody understands.
    Lost,
}

/// How a child ended.
#[derive(Debug)]
pub(super) struct End {
    pub(super) how: String,
    /// By a signal that no model can send itself: an operator's, or the kernel's when the box is
    /// short of memory.
    pub(super) from_outside: bool,
}

impl Process {
    pub(super) async fn start(command: &HostCommand) -> io::Result<Self> {
        let mut child = Command::new(&command.program)
            .args(&command.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // To name its functions a panic reads more than a model may take; its words do.
            .env("RUST_BACKTRACE", "0")
            // Ctrl-C in a terminal is for the node, which ends its children when it has drained.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let piped = "all three were asked for";
        let errors = child.stderr.take().expect(piped);
        let mut process = Self {
            requests: child.stdin.take().expect(piped),
            replies: BufReader::new(child.stdout.take().expect(piped)),
            last_lines: tokio::spawn(last_lines(errors)),
            child,
        };
        match timeout(START_TIME_MAX, process.greeting()).await {
            Ok(Ok(())) => Ok(process),
            Ok(Err(error)) => {
                let how = process.end().await.how;
                Err(io::Error::other(format!("{error}: {how}")))
            }
            Err(_) => Err(io::Error::other("it does not greet")),
        }
    }

    /// Passes over whatever else the program says before it.
    async fn greeting(&mut self) -> io::Result<()> {
        let mut line = Vec::new();
        while !line.ends_with(GREETING) {
            line.clear();
            let mut said = (&mut self.replies).take(LINE_BYTES_MAX);
            if said.read_until(b'\n', &mut line).await? == 0 {
                return Err(io::Error::other("it ended before it greeted"));
            }
        }
        Ok(())
    }

    /// After trouble only [`Process::end`] makes sense.
    pub(super) async fn ask(
        &mut self,
        request: &Request,
        within: Duration,
    ) -> Result<Reply, Trouble> {
        let asked = async {
            self.requests.write_all(&protocol::frame(request)).await?;
            let mut head = [0; LENGTH_BYTES];
            self.replies.read_exact(&mut head).await?;
            let mut body = vec![0; protocol::length(head)?];
            self.replies.read_exact(&mut body).await?;
            encoding::read(&body).ok_or_else(|| io::Error::other("a reply is not understood"))
        };
        match timeout(within, asked).await {
            Ok(reply) => reply.map_err(|error| {
                tracing::debug!("a model host is lost: {error}");
                Trouble::Lost
            }),
            Err(_) => Err(Trouble::Late),
        }
    }

    /// Resolves when the child has ended by itself.
    pub(super) async fn ended(&mut self) {
        let _ = self.child.wait().await;
    }

    /// Kills it, if it still runs, and tells how it ended.
    pub(super) async fn end(mut self) -> End {
        // A child that aborts closes its pipes before it can be waited for.
        const GRACE: Duration = Duration::from_millis(500);
        let mut status = timeout(GRACE, self.child.wait()).await.ok();
        if status.is_none() {
            let _ = self.child.start_kill();
            status = timeout(END_TIME_MAX, self.child.wait()).await.ok();
        }
        let lines = timeout(END_TIME_MAX, self.last_lines).await;
        let lines = lines.ok().and_then(Result::ok).unwrap_or_default();
        let status = status.and_then(Result::ok);
        End {
            how: words(status, &lines),
            from_outside: status.and_then(|status| status.signal()).is_some_and(|it| {
                const HUP_INT_KILL_TERM: [i32; 4] = [1, 2, 9, 15];
                HUP_INT_KILL_TERM.contains(&it)
            }),
        }
    }

    /// Kills it and does not ask why.
    pub(super) fn kill(mut self) {
        let _ = self.child.start_kill();
    }
}

/// Reads all of standard error, so that a child never waits for it, and keeps its end.
async fn last_lines(errors: ChildStderr) -> VecDeque<String> {
    let mut errors = BufReader::new(errors);
    let mut kept = VecDeque::new();
    loop {
        let mut line = Vec::new();
        let mut piece = (&mut errors).take(LINE_BYTES_MAX);
        let read = piece.read_until(b'\n', &mut line).await;
        if !matches!(read, Ok(1..)) {
            return kept;
        }
        if kept.len() == LAST_LINES {
            kept.pop_front();
        }
        kept.push_back(String::from_utf8_lossy(&line).trim().to_owned());
    }
}

/// The status, and what the standard library said of it.
fn words(status: Option<ExitStatus>, lines: &VecDeque<String>) -> String {
    const TELLING: [&str; 2] = ["memory allocation of", "has overflowed its stack"];
    let telling = |line: &&String| TELLING.iter().any(|words| line.contains(words));
    let said = lines.iter().rev().find(telling).or(lines.back());
    let status = status.map_or_else(|| "it does not end".to_owned(), |status| status.to_string());
    match said {
        Some(said) if !said.is_empty() => format!("{said} ({status})"),
        _ => status,
    }
}
