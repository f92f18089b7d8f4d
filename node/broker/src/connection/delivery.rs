//! From what a client is owed to its outbox.

use super::Connection;
use crate::codec::{Ack, Outgoing, PacketId, PublishView, Qos};
use crate::config::OUTBOX_BYTES_MAX;
use crate::mailbox::Delivery;
use crate::message::Life;
use crate::outbound::Stage;
use skerry_store::WallNanos;

impl Connection {
    /// Moves deliveries into the outbox while it and the client's window have room.
    pub(super) fn pump(&mut self) {
        let now = WallNanos::now();
        while self.outlet.waiting() < OUTBOX_BYTES_MAX {
            if let Some((id, stage)) = self.backlog.take_resend() {
                self.resend(id, &stage, now);
                continue;
            }
            self.backlog.fetch(&self.ingest.log);
            let outbound = &self.session.outbound;
            let fits = |delivery: &Delivery| outbound.has_room(delivery.qos);
            let next = match self.backlog.take_if(fits) {
                None if self.backlog.is_done() => self.seat.mailbox.take_if(fits),
                retained => retained,
            };
            let Some(delivery) = next else {
                return;
            };
            self.deliver(&delivery, now);
        }
    }

    fn deliver(&mut self, delivery: &Delivery, now: WallNanos) {
        if !self.access.may_receive(&delivery.message.topic) {
            return;
        }
        let lasting = delivery.qos != Qos::AtMostOnce;
        let id = lasting.then(|| self.session.outbound.send(delivery));
        let sent = self.write(delivery, id, false, now);
        if let (false, Some(id)) = (sent, id) {
            self.session.outbound.cancel(id);
        }
    }

    fn resend(&mut self, id: PacketId, stage: &Stage, now: WallNanos) {
        match stage {
            Stage::Released => self.send(&Outgoing::PubRel(Ack::ok(id))),
            Stage::Sent(delivery) => {
                if !self.write(delivery, Some(id), true, now) {
                    self.session.outbound.cancel(id);
                }
            }
        }
    }

    /// False if the client is not to get it: its life is over, or it is too large for the client.
    fn write(
        &mut self,
        delivery: &Delivery,
        id: Option<PacketId>,
        dup: bool,
        now: WallNanos,
    ) -> bool {
        let status = &self.ingest.status;
        let message = &delivery.message;
        let expiry_secs = match message.life(now) {
            Life::Unlimited => None,
            Life::Seconds(left) => Some(left),
            Life::Over => {
                status.deliveries_expired.up();
                return false;
            }
        };
        let publish = PublishView {
            dup,
            qos: delivery.qos,
            retain: delivery.retain,
            topic: &message.topic,
            alias: None,
            id,
            payload: &message.payload,
            properties: &message.properties,
            expiry_secs,
            subscriptions: &delivery.subscriptions,
        };
        let bytes_max = self.agreed.packet_bytes_max;
        let fits = self
            .outlet
            .publish(&publish, self.agreed.version, bytes_max);
        if fits {
            status.deliveries.up()
        } else {
            status.deliveries_too_large.up()
        }
        fits
    }
}
