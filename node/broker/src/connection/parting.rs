//! The end of a connection: everything that was taken is settled, then the seat is given up.

use super::{Connection, FAREWELL};
use crate::codec::Outgoing;
use crate::end::End;
use crate::message::Message;
use crate::qos2;
use crate::registry::Will;
use skerry_store::WallNanos;
use std::sync::Arc;
use std::time::Instant;
use tokio::time::timeout;

impl Connection {
    /// Settles everything that was taken, then lets go: will and seat do not depend on whether
    /// the client is still there.
    pub(super) async fn part(mut self, end: End) {
        let status = Arc::clone(&self.ingest.status);
        status.closed.up(end.word());
        let client = self.agreed.client_id.as_str();
        if let End::Malformed(malformed) = end {
            status.malformed.up(malformed.word());
            tracing::info!(client, reason = %malformed, "a connection was closed");
        } else {
            tracing::debug!(client, reason = end.word(), "a connection ended");
        }
        while !self.uncommitted.is_empty() {
            let settled = self.uncommitted.settled().await;
            self.settle(settled);
        }
        let will = self.will(end).await;
        self.count_unreleased(0);
        self.give_up_seat(will).await;
        let Self {
            agreed,
            mut inlet,
            mut outlet,
            ..
        } = self;
        if !end.peer_listens() {
            return;
        }
        if let Some(reason) = end.reason() {
            let why = end.why();
            outlet.send(&Outgoing::Disconnect { reason, why }, agreed.version);
        }
        outlet.finish(FAREWELL).await;
        // Closing with unread bytes would reset the connection under our last words.
        let _ = timeout(FAREWELL, inlet.discard()).await;
    }

    /// Publishes the will, or returns it where it is to wait for the client.
    async fn will(&mut self, end: End) -> Option<Will> {
        let will = self.agreed.will.take().filter(|_| end.publishes_will())?;
        if !self.access.may_publish(&will.topic) {
            return None;
        }
        let is_signed = self.ingest.config.signed.contains(&will.topic);
        let publisher = is_signed.then(|| self.agreed.client_id.clone());
        let will = Message::new(will, WallNanos::now(), publisher);
        // The session's end is the latest (3.1.3.2.2).
        let delay = self.agreed.will_delay.min(self.agreed.session_expiry);
        if delay.is_zero() {
            self.ingest.will(will).await;
            return None;
        }
        Some(Will {
            due: Instant::now() + delay,
            message: will,
        })
    }

    /// Lets the next connection of this client in, before the last words to this one: those may
    /// take their time.
    async fn give_up_seat(&mut self, mut will: Option<Will>) {
        if self.agreed.is_lasting() {
            let changes = self.changes(Some((WallNanos::now(), will.as_ref())));
            // Queued before the next connection can queue anything; nobody waits for the disk.
            self.ingest.queue(changes).await;
            let owed = std::mem::take(&mut self.backlog).into_owed();
            let (outbound, stay) = (&mut self.session.outbound, self.agreed.session_expiry);
            if self.seat.keep(outbound, owed, stay, &mut will) {
                return;
            }
        }
        self.seat.leave_groups();
        let unread = self.session.outbound.give_back();
        self.ingest.hand_back(unread).await;
        if self.saved {
            // The session is over; a failure leaves what the catalog has for a clean start.
            let _ = qos2::load(&self.ingest.log, &self.agreed.client_id, true).await;
            let _ = self.ingest.note(self.seat.forget()).await;
        }
        self.seat.give_up();
        if let Some(will) = will {
            self.ingest.will(will.message).await;
        }
    }
}
