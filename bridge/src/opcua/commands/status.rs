//! How many commands came to what, for `skerry status` and the metrics.

use super::config::Command;
use super::report::Outcome;
use serde::Serialize;
use skerry_store::WallNanos;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

#[derive(Debug)]
pub(crate) struct Counters {
    topics: usize,
    done: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    unknown: AtomicU64,
    last_error: Mutex<Option<LastError>>,
}

/// Commands of one endpoint. Counters are of this run of the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CommandsSnapshot {
    /// Topics that may command something.
    pub topics: usize,
    pub done_total: u64,
    /// By this node, before anything was sent.
    pub refused_total: u64,
    /// By the server.
    pub failed_total: u64,
    /// Sent, and never answered.
    pub unknown_total: u64,
    pub last_error: Option<LastError>,
}

/// The last command that was not simply done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastError {
    pub topic: String,
    pub why: String,
    pub at: WallNanos,
}

impl Counters {
    pub(crate) const fn new(topics: usize) -> Self {
        Self {
            topics,
            done: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            last_error: Mutex::new(None),
        }
    }

    pub(crate) fn snapshot(&self) -> CommandsSnapshot {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let last_error = self.last_error.lock();
        CommandsSnapshot {
            topics: self.topics,
            done_total: count(&self.done),
            refused_total: count(&self.refused),
            failed_total: count(&self.failed),
            unknown_total: count(&self.unknown),
            last_error: last_error.unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    pub(crate) fn came_to(&self, command: &Command, outcome: &Outcome) {
        let counter = match outcome {
            Outcome::Sending => return,
            Outcome::Done { .. } => &self.done,
            Outcome::Refused(_) => &self.refused,
            Outcome::Failed { .. } => &self.failed,
            Outcome::Unknown(_) => &self.unknown,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if let Some(why) = outcome.reason() {
            let mut last_error = self
                .last_error
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *last_error = Some(LastError {
                topic: command.topic.clone(),
                why,
                at: WallNanos::now(),
            });
        }
    }
}
