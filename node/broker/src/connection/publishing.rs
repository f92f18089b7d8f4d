//! PUBLISH and PUBREL of the client, up to their acknowledgements.

use super::Connection;
use crate::codec::{PacketId, Publish, Qos};
use crate::end::End;
use crate::ingest::{Refusal, is_untold};
use crate::message::Message;
use crate::qos2;
use crate::record;
use crate::uncommitted::{Batch, Owed, OwedPublish};
use skerry_store::{StreamName, WallNanos};

impl Connection {
    pub(super) fn publish(&mut self, publish: Publish) {
        let (qos, id) = (publish.qos, publish.id);
        self.ingest.status.published(qos);
        self.ingest
            .status
            .payload_bytes_in
            .add(publish.payload.len());
        let checked = if self.access.may_publish(&publish.topic) {
            self.ingest.check(&publish.topic)
        } else {
            Err(Refusal::NotAllowed)
        };
        if let Err(refusal) = checked {
            let stream = self.ingest.config.stream_of(&publish.topic).clone();
            return self.refuse(&stream, qos, id, refusal);
        }
        let lasting_id = id.filter(|_| qos == Qos::ExactlyOnce && self.agreed.is_lasting());
        let qos2 = lasting_id.map(|id| (self.agreed.client_id.as_str(), id));
        let is_signed = self.ingest.config.signed.contains(&publish.topic);
        let publisher = self.no_local || is_signed;
        let publisher = publisher.then(|| self.agreed.client_id.clone());
        let message = Message::new(publish, WallNanos::now(), publisher);
        let Some(mut prepared) = self.ingest.prepare(message, qos2) else {
            return;
        };
        if let Some(user) = self.access.user().filter(|_| is_signed) {
            record::sign(&mut prepared.record, user);
        }
        if let Some(full) = self.batch.take_if(|batch| !batch.takes(&prepared.stream)) {
            self.uncommitted.submit_batch(&self.ingest.log, full);
        }
        let batch = self
            .batch
            .get_or_insert_with(|| Batch::new(prepared.stream));
        let retained = prepared.retained;
        let owed = OwedPublish { qos, id, retained };
        batch.push(prepared.record, prepared.changes, owed);
    }

    /// PUBREL: only a lasting session has its ids in the catalog.
    pub(super) fn forget(&mut self, id: PacketId) {
        if self.agreed.is_lasting() {
            self.released.push(id);
        } else {
            let packet = self.session.forgotten(id);
            self.send(&packet);
        }
    }

    /// Hands what was read just now to the log. Released ids go by themselves: they need the
    /// journal only, which has room where a stream has none.
    pub(super) fn submit(&mut self) {
        if let Some(batch) = self.batch.take() {
            self.uncommitted.submit_batch(&self.ingest.log, batch);
        }
        if !self.released.is_empty() {
            let ids = std::mem::take(&mut self.released);
            let keys = ids.iter().map(|id| qos2::key(&self.agreed.client_id, *id));
            let append = qos2::forget(keys);
            self.uncommitted
                .submit(&self.ingest.log, append, Owed::Forget(ids));
        }
    }

    pub(super) fn settle_publishes(
        &mut self,
        stream: &StreamName,
        publishes: &[OwedPublish],
        result: Result<(), skerry_store::Error>,
    ) {
        let refusal = result.err().map(|error| {
            tracing::debug!(%error, "publishes were refused");
            self.ingest.refusal(&error)
        });
        for OwedPublish { qos, id, retained } in publishes {
            if let Some(refusal) = refusal {
                if let Some(topic) = retained {
                    self.ingest.retained.refused(topic);
                }
                self.refuse(stream, *qos, *id, refusal);
            } else if let Some(packet) = self.session.committed(*qos, *id) {
                self.send(&packet);
                self.ingest.status.acknowledged.up();
            }
        }
    }

    pub(super) fn settle_released(
        &mut self,
        ids: Vec<PacketId>,
        result: Result<(), skerry_store::Error>,
    ) {
        match result {
            Ok(()) => {
                for id in ids {
                    let packet = self.session.forgotten(id);
                    self.send(&packet);
                }
            }
            Err(error) => {
                // No version has a refusal for PUBREL; the client sends it again later.
                let refusal = self.ingest.refusal(&error);
                self.ingest.status.refused.up(refusal.word());
                self.hold_then(End::LogRefuses);
            }
        }
    }

    pub(super) fn refuse(
        &mut self,
        stream: &StreamName,
        qos: Qos,
        id: Option<PacketId>,
        refusal: Refusal,
    ) {
        self.ingest.refused(stream, refusal, is_untold(qos));
        match self.session.refused(qos, id, refusal.reason()) {
            Some(packet) => self.send(&packet),
            None if is_untold(qos) => {}
            None => self.hold_then(End::LogRefuses),
        }
    }
}
