//! The models of a running node.

use crate::config::Models;
use crate::supervise::{Supervised, part};
use serde::Serialize;
use skerry_inference::{Command, Refused, Status};
use skerry_store::Log;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What is configured and how it fares. A clone tells of the same models.
#[derive(Clone, Default)]
pub struct Runner {
    models: Arc<Models>,
    status: Arc<Status>,
}

impl Runner {
    pub fn new(models: Models) -> Self {
        Self {
            models: Arc::new(models),
            status: Arc::default(),
        }
    }

    /// What `/status` and `/models` tell of them.
    pub fn snapshot(&self) -> impl Serialize {
        self.status.snapshot()
    }

    /// Has the running models do something, and tells what was done.
    pub async fn command(&self, model: &str, command: Command) -> Result<String, Refused> {
        self.status.command(model, command).await
    }

    /// Starts them, if there are any.
    pub fn start(&self, log: &Log, stop: &CancellationToken) -> Option<Supervised> {
        if self.models.models.is_empty() {
            return None;
        }
        let Self { models, status } = self.clone();
        Some(part("inference", log, stop, move |log, stop| {
            skerry_inference::run((*models).clone(), log, Arc::clone(&status), stop)
        }))
    }
}
