//! Reading what the client's session, or a shared subscription it is in, is behind with.

use super::Connection;
use crate::catch_up::{self, Errand, Found};
use crate::codec::Qos;
use crate::mailbox::Mailbox;
use skerry_store::Error;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

const RETRY_AFTER: Duration = Duration::from_secs(1);

type Reading = JoinHandle<Result<Found, Error>>;

/// One errand at a time.
#[derive(Debug, Default)]
pub(super) struct CatchingUp {
    reading: Option<(Arc<Mailbox>, Reading)>,
    /// After a failure: when to try again.
    after: Option<Instant>,
}

pub(super) type Caught = (Arc<Mailbox>, Option<Result<Found, Error>>);

impl CatchingUp {
    pub(super) const fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    pub(super) const fn due(&self) -> Option<Instant> {
        self.after
    }

    /// Resolves when the errand is done. Only while [`CatchingUp::is_reading`]. Safe to cancel.
    pub(super) async fn found(&mut self) -> Caught {
        let Some((_, reading)) = &mut self.reading else {
            return std::future::pending().await;
        };
        // A panic was reported already, and counts as a failure.
        let found = reading.await.ok();
        let (mailbox, _) = self.reading.take().expect("it was just awaited");
        (mailbox, found)
    }
}

impl Connection {
    /// Starts an errand where the client would take what it brings.
    pub(super) fn catch_up(&mut self) {
        let now = Instant::now();
        self.catching_up.after.take_if(|after| *after <= now);
        let waits = self.catching_up.after.is_some();
        let takes = self.session.outbound.has_room(Qos::AtLeastOnce);
        if self.catching_up.is_reading() || waits || !takes {
            return;
        }
        let own = Arc::clone(&self.seat.mailbox);
        if own.is_empty() && own.behind().is_some() {
            let interest = self.seat.interest();
            return self.read(own, interest);
        }
        let behind = |group: &&Arc<crate::shared::Group>| {
            group.is_empty() && group.mailbox.behind().is_some()
        };
        let group = self.seat.groups().find(behind).cloned();
        if let Some(group) = group {
            self.read(Arc::clone(&group.mailbox), Arc::clone(&group.interest));
        }
    }

    fn read(&mut self, mailbox: Arc<Mailbox>, interest: Arc<crate::interest::Interest>) {
        let Some((stream, from, present_since)) = mailbox.behind() else {
            return;
        };
        let errand = Errand {
            log: self.ingest.log.clone(),
            streams: Arc::clone(&self.ingest.streams),
            stream,
            from,
            present_since,
            interest,
            client_id: Arc::clone(&mailbox.client_id),
        };
        let readers = Arc::clone(&self.ingest.readers);
        let reading = tokio::spawn(async move {
            let _permit = readers.acquire_owned().await;
            let read = tokio::task::spawn_blocking(move || catch_up::run(&errand));
            read.await.expect("reading the log does not panic")
        });
        self.catching_up.reading = Some((mailbox, reading));
    }

    pub(super) fn caught_up(&mut self, (mailbox, found): Caught) {
        let found = match found {
            Some(Ok(found)) => found,
            Some(Err(error)) => {
                self.ingest.refusal(&error);
                tracing::warn!(client = self.agreed.client_id, %error, "a session cannot read what it missed, trying again");
                self.catching_up.after = Some(Instant::now() + RETRY_AFTER);
                return;
            }
            None => {
                self.catching_up.after = Some(Instant::now() + RETRY_AFTER);
                return;
            }
        };
        if found.missing > 0 {
            let missing = usize::try_from(found.missing).unwrap_or(usize::MAX);
            self.ingest.status.records_missed.add(missing);
            tracing::warn!(
                client = self.agreed.client_id,
                stream = self.ingest.streams.get(found.stream).name.as_str(),
                records = found.missing,
                "the log no longer had everything since this session was last here"
            );
        }
        mailbox.refill(found.stream, found.from, found.next, found.deliveries);
    }
}
