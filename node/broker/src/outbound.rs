//! Outbound QoS of one session: packet ids, the window, and what has to be sent again. Pure.

use crate::codec::{PacketId, Qos};
use crate::delivery::{Delivery, Source};
use crate::shared::Group;
use std::collections::HashMap;
use std::sync::Arc;

/// Deliveries that the client has not acknowledged. They outlive a connection, and, saved in the
/// catalog, a restart.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    window: u16,
    in_flight: HashMap<PacketId, InFlight>,
    last_id: u16,
    sent: u64,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct InFlight {
    /// Order of first sending, which a resend keeps (4.6).
    order: u64,
    pub stage: Stage,
    pub named: Named,
}

#[derive(Debug)]
pub(crate) enum Stage {
    /// PUBLISH went out; PUBACK or PUBREC is awaited. The message is in memory while its client
    /// is there.
    Sent(Option<Box<Delivery>>),
    /// PUBREL went out; PUBCOMP is awaited.
    Released,
}

/// All there is to know of a delivery besides the message itself.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub source: Source,
    pub qos: Qos,
    pub retain: bool,
    pub subscriptions: Box<[u32]>,
    pub group: Option<Arc<Group>>,
}

impl Named {
    fn of(delivery: &Delivery) -> Self {
        Self {
            source: delivery.source.clone(),
            qos: delivery.qos,
            retain: delivery.retain,
            subscriptions: delivery.subscriptions.clone(),
            group: delivery.group.clone(),
        }
    }

    /// Nothing is owed for it any more.
    fn settle(&self) {
        if let (Some(group), Source::Log(place)) = (&self.group, &self.source) {
            group.settled(*place);
        }
    }
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

/// What a client that came back has to be sent again.
#[derive(Debug, Clone)]
pub(crate) enum Resend {
    Message(PacketId, Named),
    Release(PacketId),
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
        let named = Named::of(delivery);
        self.insert(id, Stage::Sent(Some(Box::new(delivery.clone()))), named);
        id
    }

    /// Takes up what was in flight before a restart, in order.
    pub(crate) fn restore(&mut self, id: PacketId, released: bool, named: Named) {
        let stage = if released {
            Stage::Released
        } else {
            Stage::Sent(None)
        };
        self.last_id = self.last_id.max(id.get());
        self.insert(id, stage, named);
    }

    fn insert(&mut self, id: PacketId, stage: Stage, named: Named) {
        self.sent += 1;
        let in_flight = InFlight {
            order: self.sent,
            stage,
            named,
        };
        self.in_flight.insert(id, in_flight);
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

    /// The delivery goes out again, from memory from now on.
    pub(crate) fn sent_again(&mut self, id: PacketId, delivery: Delivery) {
        if let Some(held) = self.in_flight.get_mut(&id)
            && matches!(held.stage, Stage::Sent(_))
        {
            held.stage = Stage::Sent(Some(Box::new(delivery)));
        }
    }

    /// The delivery never went out, or cannot any more; its id is free again.
    pub(crate) fn cancel(&mut self, id: PacketId) {
        self.remove(id);
    }

    fn remove(&mut self, id: PacketId) {
        if let Some(held) = self.in_flight.remove(&id) {
            held.named.settle();
        }
    }

    /// The packet that the client owes for a delivery, if there is one of this id.
    pub(crate) fn owed(&self, id: PacketId) -> Option<Owed> {
        let held = self.in_flight.get(&id)?;
        Some(match held.stage {
            Stage::Sent(_) if held.named.qos == Qos::AtLeastOnce => Owed::Acknowledgement,
            Stage::Sent(_) => Owed::Receipt,
            Stage::Released => Owed::Completion,
        })
    }

    /// PUBACK, in any order; false if nothing was waiting for it.
    pub(crate) fn acknowledged(&mut self, id: PacketId) -> bool {
        let waiting = self.in_flight.get(&id).is_some_and(|held| {
            matches!(held.stage, Stage::Sent(_)) && held.named.qos == Qos::AtLeastOnce
        });
        if waiting {
            self.remove(id);
        }
        waiting
    }

    /// PUBREC. Once more for a message already released is answered with PUBREL again.
    pub(crate) fn received(&mut self, id: PacketId, reason: u8) -> Received {
        match self.in_flight.get_mut(&id) {
            Some(held) if held.named.qos != Qos::ExactlyOnce => Received::Unknown,
            Some(held) if reason < 0x80 => {
                held.stage = Stage::Released;
                held.named.settle();
                Received::Release
            }
            Some(_) => {
                self.remove(id);
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
        if released {
            self.remove(id);
        }
        released
    }

    /// Everything in flight, in the order of first sending.
    pub(crate) fn in_order(&self) -> Vec<(PacketId, &InFlight)> {
        let mut waiting: Vec<_> = self.in_flight.iter().collect();
        waiting.sort_unstable_by_key(|(_, held)| held.order);
        waiting.into_iter().map(|(id, held)| (*id, held)).collect()
    }

    /// What a client that came back has to be sent again, in the original order.
    pub(crate) fn resend(&self) -> Vec<Resend> {
        let resend = |(id, held): (PacketId, &InFlight)| match held.stage {
            Stage::Sent(_) => Resend::Message(id, held.named.clone()),
            Stage::Released => Resend::Release(id),
        };
        self.in_order().into_iter().map(resend).collect()
    }

    /// The client is gone: messages are read again when it comes back. Those of a shared
    /// subscription stay, for whoever gets them if it does not.
    pub(crate) fn let_go(&mut self) {
        for held in self.in_flight.values_mut() {
            if let (Stage::Sent(delivery), None) = (&mut held.stage, &held.named.group) {
                *delivery = None;
            }
        }
    }

    /// The session is over: what it had from shared subscriptions goes back to them. Returned is
    /// what has to be read first.
    pub(crate) fn give_back(&mut self) -> Vec<Named> {
        let mut unread = Vec::new();
        for (_, held) in self.in_flight.drain() {
            match (held.stage, &held.named.group) {
                (Stage::Sent(Some(delivery)), Some(group)) => group.give_back(*delivery),
                (Stage::Sent(None), Some(_)) => unread.push(held.named),
                _ => {}
            }
        }
        unread
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(qos: Qos) -> Delivery {
        Delivery::empty(qos, Source::Memory)
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
        outbound.let_go();
        let resends = outbound.resend();
        assert!(matches!(
            resends[..],
            [Resend::Release(a), Resend::Message(b, _)] if a == first && b == second
        ));
        assert!(outbound.completed(first));
        assert_eq!(outbound.received(second, 0x97), Received::Refused);
        assert_eq!(outbound.received(second, 0), Received::Unknown);
        assert!(outbound.resend().is_empty());
    }
}
