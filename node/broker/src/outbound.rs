//! Outbound QoS of one session: packet ids, the window, and what has to be sent again. Pure.

use crate::codec::{PacketId, Qos};
use crate::mailbox::Delivery;
use std::collections::HashMap;

/// Deliveries that the client has not acknowledged. Survives a connection, not a restart.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    window: u16,
    in_flight: HashMap<PacketId, InFlight>,
    last_id: u16,
    sent: u64,
}

#[derive(Debug)]
struct InFlight {
    /// Order of first sending, which a resend keeps (4.6).
    order: u64,
    stage: Stage,
}

#[derive(Debug, Clone)]
pub(crate) enum Stage {
    /// PUBLISH went out; PUBACK or PUBREC is awaited.
    Sent(Delivery),
    /// PUBREL went out; PUBCOMP is awaited.
    Released,
}

/// What a client has to send next for a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owed {
    /// PUBACK.
    Acknowledgement,
    /// PUBREC.
    Receipt,
    /// PUBCOMP.
    Completion,
}

/// What PUBREC asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    Release,
    /// The client refused the message; its id is free again.
    Refused,
    Unknown,
}

impl Outbound {
    /// The client's Receive Maximum: at most so many unacknowledged deliveries.
    pub(crate) fn set_window(&mut self, window: u16) {
        self.window = window;
    }

    /// Whether a delivery of this QoS may go out now.
    pub(crate) fn has_room(&self, qos: Qos) -> bool {
        qos == Qos::AtMostOnce || self.in_flight.len() < usize::from(self.window)
    }

    /// Registers a delivery of QoS 1 or 2 that goes out now and names its packet id. Only after
    /// [`Outbound::has_room`], so an id is free.
    pub(crate) fn send(&mut self, delivery: &Delivery) -> PacketId {
        let id = self.free_id();
        self.sent += 1;
        let in_flight = InFlight {
            order: self.sent,
            stage: Stage::Sent(delivery.clone()),
        };
        self.in_flight.insert(id, in_flight);
        id
    }

    fn free_id(&mut self) -> PacketId {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            match PacketId::new(self.last_id) {
                Some(id) if !self.in_flight.contains_key(&id) => return id,
                _ => {}
            }
        }
    }

    /// The delivery never went out; its id is free again.
    pub(crate) fn cancel(&mut self, id: PacketId) {
        self.in_flight.remove(&id);
    }

    /// The packet that the client owes for a delivery, if there is one of this id.
    pub(crate) fn owed(&self, id: PacketId) -> Option<Owed> {
        Some(match &self.in_flight.get(&id)?.stage {
            Stage::Sent(delivery) if delivery.qos == Qos::AtLeastOnce => Owed::Acknowledgement,
            Stage::Sent(_) => Owed::Receipt,
            Stage::Released => Owed::Completion,
        })
    }

    /// PUBACK, in any order; false if nothing was waiting for it.
    pub(crate) fn acknowledged(&mut self, id: PacketId) -> bool {
        let waiting = self.in_flight.get(&id).is_some_and(
            |held| matches!(&held.stage, Stage::Sent(delivery) if delivery.qos == Qos::AtLeastOnce),
        );
        waiting && self.in_flight.remove(&id).is_some()
    }

    /// PUBREC. Once more for a message already released is answered with PUBREL again.
    pub(crate) fn received(&mut self, id: PacketId, reason: u8) -> Received {
        match self.in_flight.get_mut(&id) {
            Some(held) if reason < 0x80 => {
                held.stage = Stage::Released;
                Received::Release
            }
            Some(_) => {
                self.in_flight.remove(&id);
                Received::Refused
            }
            None => Received::Unknown,
        }
    }

    /// PUBCOMP.
    pub(crate) fn completed(&mut self, id: PacketId) -> bool {
        let released = self
            .in_flight
            .get(&id)
            .is_some_and(|held| matches!(held.stage, Stage::Released));
        released && self.in_flight.remove(&id).is_some()
    }

    /// What a client that came back has to be sent again, in the original order.
    pub(crate) fn resend(&self) -> Vec<(PacketId, Stage)> {
        let mut waiting: Vec<_> = self.in_flight.iter().collect();
        waiting.sort_unstable_by_key(|(_, held)| held.order);
        waiting
            .into_iter()
            .map(|(id, held)| (*id, held.stage.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::PublishProperties;
    use crate::message::Message;
    use skerry_store::WallNanos;
    use std::sync::Arc;

    fn delivery(qos: Qos) -> Delivery {
        let message = Message {
            topic: "t".into(),
            payload: bytes::Bytes::new(),
            qos,
            retain: false,
            properties: PublishProperties::default(),
            received: WallNanos(0),
            origin: 0,
        };
        Delivery {
            message: Arc::new(message),
            qos,
            retain: false,
            subscriptions: Box::default(),
        }
    }

    fn outbound(window: u16) -> Outbound {
        let mut outbound = Outbound::default();
        outbound.set_window(window);
        outbound
    }

    #[test]
    fn the_window_bounds_qos_1_and_2_only() {
        let mut outbound = outbound(1);
        assert!(outbound.has_room(Qos::AtLeastOnce));
        let id = outbound.send(&delivery(Qos::AtLeastOnce));
        assert!(!outbound.has_room(Qos::ExactlyOnce));
        assert!(outbound.has_room(Qos::AtMostOnce));
        assert!(outbound.acknowledged(id));
        assert!(!outbound.acknowledged(id), "once only");
        assert!(outbound.has_room(Qos::ExactlyOnce));
    }

    #[test]
    fn acknowledgements_come_in_any_order_and_ids_are_not_reused_while_in_flight() {
        let mut outbound = outbound(3);
        outbound.last_id = u16::MAX - 1;
        let ids: Vec<_> = (0..3)
            .map(|_| outbound.send(&delivery(Qos::AtLeastOnce)))
            .collect();
        assert_eq!(
            ids.iter().map(|id| id.get()).collect::<Vec<_>>(),
            [65535, 1, 2]
        );
        assert!(outbound.acknowledged(ids[2]));
        assert!(outbound.acknowledged(ids[0]));
        outbound.last_id = 0;
        assert_eq!(
            outbound.send(&delivery(Qos::AtLeastOnce)).get(),
            2,
            "1 is in flight"
        );
    }

    #[test]
    fn qos_2_takes_both_steps_and_is_resumed_where_it_stood() {
        let mut outbound = outbound(9);
        let first = outbound.send(&delivery(Qos::ExactlyOnce));
        let second = outbound.send(&delivery(Qos::ExactlyOnce));
        assert!(!outbound.acknowledged(first), "PUBACK does not end QoS 2");
        assert!(!outbound.completed(first), "not before PUBREC");
        assert_eq!(outbound.received(first, 0), Received::Release);
        let stages = outbound.resend();
        assert!(
            matches!(stages[..], [(a, Stage::Released), (b, Stage::Sent(_))] if a == first && b == second)
        );
        assert!(outbound.completed(first));
        assert_eq!(outbound.received(second, 0x97), Received::Refused);
        assert_eq!(outbound.received(second, 0), Received::Unknown);
        assert!(outbound.resend().is_empty());
    }
}
