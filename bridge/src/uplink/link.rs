//! The one connection all lanes share, and its state.

use super::config::Config;
use super::fault::Fault;
use super::status::Status;
use super::wire::Wire;
use std::sync::Arc;
use tokio::sync::Mutex;

pub(crate) struct Link {
    config: Arc<Config>,
    status: Arc<Status>,
    wire: Mutex<Option<Arc<Wire>>>,
}

impl Link {
    pub(crate) fn new(config: Arc<Config>, status: Arc<Status>) -> Self {
        Self {
            config,
            status,
            wire: Mutex::new(None),
        }
    }

    /// The connection, made if there is none. While one lane makes it the others wait.
    pub(crate) async fn wire(&self) -> Result<Arc<Wire>, Fault> {
        let mut wire = self.wire.lock().await;
        if let Some(wire) = &*wire {
            return Ok(Arc::clone(wire));
        }
        let made = Wire::connect(&self.config)
            .await
            .inspect_err(|fault| self.down(fault))?;
        self.up();
        Ok(Arc::clone(wire.insert(Arc::new(made))))
    }

    /// A lane had `fault` on `broken`: others go on with it as long as it works for them, but a
    /// new session gets a new connection.
    pub(crate) async fn broke(&self, broken: &Arc<Wire>, fault: &Fault) {
        self.down(fault);
        let mut wire = self.wire.lock().await;
        wire.take_if(|wire| Arc::ptr_eq(wire, broken));
    }

    /// The cluster just answered.
    pub(crate) fn up(&self) {
        if self.status.link_up() {
            tracing::info!(brokers = %self.config.brokers.join(","), "link up");
        }
    }

    fn down(&self, fault: &Fault) {
        if self.status.link_down(&fault.to_string()) {
            tracing::warn!(because = %fault, "link down; the log keeps the records");
        }
    }
}
