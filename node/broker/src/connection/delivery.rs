//! From what a client is owed to its outbox.

use super::Connection;
use crate::backlog::Ready;
use crate::codec::{Ack, Outgoing, PacketId, PublishView, Qos};
use crate::config::OUTBOX_BYTES_MAX;
use crate::delivery::Delivery;
use crate::message::Life;
use skerry_store::WallNanos;

impl Connection {
    /// Moves deliveries into the outbox while it and the client's window have room.
    pub(super) fn pump(&mut self) {
        let now = WallNanos::now();
        while self.outlet.waiting() < OUTBOX_BYTES_MAX && self.saving.has_room() {
            self.backlog.fetch(&self.shelf);
            if !self.backlog.is_done() {
                let outbound = &self.session.outbound;
                let fits = |ready: &Ready| match ready {
                    Ready::Again(..) | Ready::Release(_) => true,
                    Ready::Retained(delivery) => outbound.has_room(delivery.qos),
                };
                match self.backlog.take_if(fits) {
                    Some(ready) => self.send_ready(ready, now),
                    None => return,
                }
                continue;
            }
            match self.next_delivery() {
                Some(delivery) => self.deliver(delivery, now),
                None => break,
            }
        }
        self.catch_up();
    }

    fn next_delivery(&mut self) -> Option<Delivery> {
        let outbound = &self.session.outbound;
        let fits = |delivery: &Delivery| outbound.has_room(delivery.qos);
        let own = self.seat.mailbox.take_if(fits);
        if own.is_some() || self.shared.is_empty() {
            return own;
        }
        for _ in 0..self.shared.len() {
            self.shared.rotate_left(1);
            let (group, options, identifier) = &self.shared[0];
            let taken = group.take_if(*options, *identifier, fits);
            if taken.is_some() {
                return taken;
            }
            if !group.is_empty() {
                group.pass_on();
            }
        }
        None
    }

    fn send_ready(&mut self, ready: Ready, now: WallNanos) {
        match ready {
            Ready::Release(id) => self.send(&Outgoing::PubRel(Ack::ok(id))),
            Ready::Retained(delivery) => self.deliver(*delivery, now),
            // The rules may have changed while it was away.
            Ready::Again(id, Some(delivery))
                if !self.access.may_receive(&delivery.message.topic) =>
            {
                self.session.outbound.cancel(id);
            }
            Ready::Again(id, Some(delivery)) => {
                if self.write_or_cancel(&delivery, Some(id), true, now) {
                    self.session.outbound.sent_again(id, *delivery);
                }
            }
            Ready::Again(id, None) => {
                self.ingest.status.records_missed.up();
                self.session.outbound.cancel(id);
            }
        }
    }

    fn deliver(&mut self, delivery: Delivery, now: WallNanos) {
        if !self.access.may_receive(&delivery.message.topic) {
            if let (Some(group), Some(place)) = (&delivery.group, delivery.place()) {
                group.settled(place);
            }
            return;
        }
        let tracked = delivery.qos != Qos::AtMostOnce;
        let id = tracked.then(|| self.session.outbound.send(&delivery));
        let lasting = self.agreed.is_lasting();
        if tracked && lasting {
            self.saving.changed();
        }
        let needs_saving = lasting && delivery.qos == Qos::ExactlyOnce;
        if needs_saving || self.saving.is_waiting() {
            self.deliver_once_saved(id, delivery);
        } else {
            self.write_or_cancel(&delivery, id, false, now);
        }
    }

    /// False if the client is not to get it, and its packet id is free again.
    pub(super) fn write_or_cancel(
        &mut self,
        delivery: &Delivery,
        id: Option<PacketId>,
        dup: bool,
        now: WallNanos,
    ) -> bool {
        let written = self.write(delivery, id, dup, now);
        if let (false, Some(id)) = (written, id) {
            self.session.outbound.cancel(id);
        }
        written
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
            status.deliveries.up();
            status.packets_out.up();
            status.payload_bytes_out.add(message.payload.len());
        } else {
            status.deliveries_too_large.up()
        }
        fits
    }
}
