//! QoS 0 publishes that the log refused: nobody can be told, so the log is, as soon as it takes
//! records again.

use crate::status::Status;
use skerry_store::{Append, Class, Gap, Log, StreamName, WallNanos};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How often an open gap is offered to the log.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct Gaps {
    open: Mutex<HashMap<StreamName, Open>>,
    wake: Notify,
}

/// What one stream lacks so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Open {
    count: u64,
    from: WallNanos,
    to: WallNanos,
    reason: &'static str,
}

impl Open {
    /// Both together; the earlier reason stands.
    fn join(self, later: Self) -> Self {
        Self {
            count: self.count + later.count,
            from: self.from.min(later.from),
            to: self.to.max(later.to),
            reason: self.reason,
        }
    }

    fn to_gap(self, stream: &StreamName) -> Gap {
        Gap {
            subject: stream.as_str().to_owned(),
            offsets: None,
            from: Some(self.from),
            to: Some(self.to),
            count: Some(self.count),
            reason: format!(
                "MQTT publishes without acknowledgement, refused: {}",
                self.reason
            ),
        }
    }
}

impl Gaps {
    pub(crate) fn note(&self, stream: &StreamName, reason: &'static str, at: WallNanos) {
        let one = Open {
            count: 1,
            from: at,
            to: at,
            reason,
        };
        let mut open = self.open();
        let entry = open.entry(stream.clone());
        entry
            .and_modify(|held| *held = held.join(one))
            .or_insert(one);
        drop(open);
        self.wake.notify_one();
    }

    fn open(&self) -> MutexGuard<'_, HashMap<StreamName, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes gaps until `stop`.
    pub(crate) async fn run(&self, log: &Log, status: &Status, stop: &CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.wake.notified() => {}
            }
            while !self.open().is_empty() {
                self.write(log, status).await;
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(RETRY) => {}
                }
            }
        }
    }

    /// Offers every open gap once. Called a last time at the end, so that a clean stop leaves
    /// none behind that the log would have taken.
    pub(crate) async fn write(&self, log: &Log, status: &Status) {
        let open = std::mem::take(&mut *self.open());
        for (stream, gap) in open {
            let append = Append {
                stream: stream.clone(),
                records: vec![gap.to_gap(&stream).into_record()],
                changes: Vec::new(),
            };
            match log.append(append).await {
                Ok(_) => {
                    status.gaps_recorded.up();
                    tracing::error!(
                        stream = stream.as_str(),
                        count = gap.count,
                        reason = gap.reason,
                        "QoS 0 publishes were lost; the log has a gap record"
                    );
                }
                // A stream that does not exist takes no gap record either.
                Err(error) if error.class() == Class::Reject => {
                    tracing::error!(stream = stream.as_str(), %error, "a gap cannot be recorded");
                }
                Err(_) => {
                    let mut held = self.open();
                    let entry = held.entry(stream);
                    entry
                        .and_modify(|later| *later = gap.join(*later))
                        .or_insert(gap);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_a_stream_become_one_gap() {
        let gaps = Gaps::default();
        let stream = StreamName::new("telemetry").expect("a name");
        for (at, reason) in [(5, "full"), (3, "full"), (9, "storage")] {
            gaps.note(&stream, reason, WallNanos(at));
        }
        let gap = gaps.open()[&stream].to_gap(&stream);
        assert_eq!(
            (gap.count, gap.from, gap.to),
            (Some(3), Some(WallNanos(3)), Some(WallNanos(9)))
        );
        assert!(gap.reason.ends_with("full"));
    }
}
