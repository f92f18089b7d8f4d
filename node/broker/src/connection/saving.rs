//! What of a lasting session goes into the catalog, and when.
//!
//! - A PUBLISH of QoS 2 goes out only after its packet id is on disk, and a PUBREL only after
//!   PUBREC is: else a restart would make a second message of the first.
//! - Everything else may be behind by [`SAVE_WITHIN`]: after a crash some messages of QoS 1 come
//!   again, as the protocol allows, and none is missing.

use super::Connection;
use crate::codec::{Ack, Outgoing, PacketId};
use crate::delivery::Delivery;
use crate::saved;
use crate::uncommitted::Owed;
use skerry_store::{Change, WallNanos};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// How far behind the catalog may be.
const SAVE_WITHIN: Duration = Duration::from_secs(5);
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Packets that wait for the session to be saved; beyond it deliveries wait in the mailbox.
const WAITING_MAX: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Saving {
    waiting: VecDeque<Waiting>,
    under_way: bool,
    due: Option<Instant>,
    /// After a failure: nothing is tried before.
    after: Option<Instant>,
}

/// What goes out once the session is saved.
#[derive(Debug)]
enum Waiting {
    Deliver(Option<PacketId>, Box<Delivery>),
    Release(PacketId),
}

impl Saving {
    /// Something happened that a restart should know of, sooner or later.
    pub(super) fn changed(&mut self) {
        self.due.get_or_insert_with(|| Instant::now() + SAVE_WITHIN);
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.after.or(self.due).filter(|_| !self.under_way)
    }

    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < WAITING_MAX
    }

    /// Packets are waiting, and those that follow have to wait behind them.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl Connection {
    pub(super) fn deliver_once_saved(&mut self, id: Option<PacketId>, delivery: Delivery) {
        let waiting = Waiting::Deliver(id, Box::new(delivery));
        self.saving.waiting.push_back(waiting);
    }

    pub(super) fn release_once_saved(&mut self, id: PacketId) {
        self.saving.waiting.push_back(Waiting::Release(id));
    }

    pub(super) fn save_if_due(&mut self) {
        if self.saving.under_way || !self.agreed.is_lasting() {
            return;
        }
        let now = Instant::now();
        self.saving.after.take_if(|after| *after <= now);
        let due = self.saving.due.is_some_and(|due| due <= now);
        if self.saving.after.is_none() && (due || self.saving.is_waiting()) {
            self.save();
        }
    }

    /// Saves the session as it is now.
    pub(super) fn save(&mut self) {
        self.saving.under_way = true;
        self.saving.due = None;
        let changes = self.changes(None);
        let packets = self.saving.waiting.len();
        self.note(changes, Owed::Saved(packets));
    }

    /// The session as changes of the catalog, with the shared subscriptions it is in: what it
    /// took from them and how far they are belong together.
    pub(super) fn changes(
        &self,
        absent: Option<(WallNanos, Option<&crate::registry::Will>)>,
    ) -> Vec<Change> {
        let now = WallNanos::now();
        let will = absent.and_then(|(_, will)| will).map(|will| {
            let left = will
                .due
                .saturating_duration_since(std::time::Instant::now());
            let left = i64::try_from(left.as_nanos()).unwrap_or(i64::MAX);
            (WallNanos(now.0.saturating_add(left)), &will.message)
        });
        let kept = saved::Kept {
            expiry: self.agreed.session_expiry,
            absent_since: absent.map(|(since, _)| since),
            will,
            cursors: &self.seat.mailbox.cursors(),
            outbound: &self.session.outbound,
        };
        let streams = &self.ingest.streams;
        let session = saved::session(&self.agreed.client_id, &kept, streams);
        let groups = self.seat.groups().map(|group| saved::group(group, streams));
        std::iter::once(session).chain(groups).collect()
    }

    pub(super) fn settle_saved(&mut self, packets: usize, result: Result<(), skerry_store::Error>) {
        self.saving.under_way = false;
        if let Err(error) = result {
            self.ingest.refusal(&error);
            tracing::debug!(%error, "a session could not be saved; its deliveries wait");
            self.saving.changed();
            self.saving.after = Some(Instant::now() + RETRY_AFTER);
            return;
        }
        let now = WallNanos::now();
        for waiting in self.saving.waiting.drain(..packets).collect::<Vec<_>>() {
            match waiting {
                Waiting::Deliver(id, delivery) => {
                    self.write_or_cancel(&delivery, id, false, now);
                }
                Waiting::Release(id) => self.send(&Outgoing::PubRel(Ack::ok(id))),
            }
        }
    }
}
