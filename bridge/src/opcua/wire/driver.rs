//! Drives a channel's I/O, and knows why it ended: whoever waits for an answer is only told that
//! none will come.

use super::vendor::StatusCode;
use std::future::Future;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The requests in flight fail a moment before the channel has ended.
const PATIENCE: Duration = Duration::from_millis(200);

/// The connection ends with it.
pub(super) struct Driver {
    task: JoinHandle<()>,
    end: watch::Receiver<Option<StatusCode>>,
}

impl Driver {
    /// Drives `io`, which ends with the reason.
    pub(super) fn start(io: impl Future<Output = StatusCode> + Send + 'static) -> Self {
        let (ended, end) = watch::channel(None);
        let task = tokio::spawn(async move {
            ended.send_replace(Some(io.await));
        });
        Self { task, end }
    }

    pub(super) fn ended(&self) -> bool {
        self.task.is_finished()
    }

    /// What was wrong with the bytes that came, where they are what ended it.
    pub(super) async fn complaint(&self) -> Option<StatusCode> {
        let mut end = self.end.clone();
        let ended = tokio::time::timeout(PATIENCE, end.wait_for(Option::is_some));
        let code = (*ended.await.ok()?.ok()?)?;
        let plain = matches!(
            code,
            StatusCode::Good
                | StatusCode::BadConnectionClosed
                | StatusCode::BadCommunicationError
                | StatusCode::BadServerHalted
                | StatusCode::BadTimeout
        );
        (!plain).then_some(code)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.task.abort();
    }
}
