//! What the process tells its supervisor by the way it ends.

use std::process::ExitCode;

/// Exit codes, documented in README.md; a test keeps the two equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Asked to stop, and everything accepted is on disk.
    Clean = 0,
    /// The command failed; its message says why.
    Failed = 1,
    /// The config file or the command line is wrong; a restart cannot help.
    Usage = 2,
    /// The log cannot be opened: read-only, in use by another process, volatile.
    Unavailable = 3,
    /// A sync failed: nobody knows what the disk holds, so the log is read afresh at restart.
    SyncFailed = 4,
    /// A thread that the node cannot live without panicked.
    Panicked = 70,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
