//! The bounded queue between fan-out and one session.

use crate::codec::{Qos, SubscribeOptions};
use crate::message::Message;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// A message owed to one session, with what its subscriptions make of it.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub message: Arc<Message>,
    /// The lower of what was published and what was granted.
    pub qos: Qos,
    pub retain: bool,
    /// Subscription identifiers; empty for most.
    pub subscriptions: Box<[u32]>,
}

impl Delivery {
    /// A live message under `options`: the retain flag stays only where it was asked for.
    pub(crate) fn live(
        message: Arc<Message>,
        options: SubscribeOptions,
        subscriptions: Box<[u32]>,
    ) -> Self {
        Self {
            qos: message.qos.min(options.qos),
            retain: message.retain && options.retain_as_published,
            subscriptions,
            message,
        }
    }

    /// What it counts for in a bound by bytes: the payload and a flat share for the rest.
    pub(crate) fn cost(&self) -> usize {
        128 + self.message.topic.len() + self.message.payload.len()
    }
}

/// How much a mailbox may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MailboxLimits {
    pub messages_max: usize,
    pub bytes_max: usize,
}

/// What became of an offered delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offered {
    Taken,
    /// QoS 0 for a session that is away: nothing is owed.
    NotOwed,
    /// No room. `first` is true once per run of losses, so that a log line marks its start.
    Lost {
        first: bool,
    },
}

#[derive(Debug)]
pub(crate) struct Mailbox {
    /// Identifies the session on this node, never reused; 0 is nobody.
    pub number: u64,
    pub client_id: Arc<str>,
    limits: MailboxLimits,
    online: AtomicBool,
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    deliveries: VecDeque<Delivery>,
    bytes: usize,
    losing: bool,
}

impl Mailbox {
    pub(crate) fn new(number: u64, client_id: Arc<str>, limits: MailboxLimits) -> Self {
        Self {
            number,
            client_id,
            limits,
            online: AtomicBool::new(true),
            queue: Mutex::default(),
            wake: Notify::new(),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while holding it; a queue is whole between any two statements anyway.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never waits: one slow reader must not hold up the others.
    pub(crate) fn offer(&self, delivery: Delivery) -> Offered {
        if delivery.qos == Qos::AtMostOnce && !self.online.load(Ordering::Relaxed) {
            return Offered::NotOwed;
        }
        let mut queue = self.queue();
        let bytes = queue.bytes + delivery.cost();
        let no_room = queue.deliveries.len() >= self.limits.messages_max
            || (bytes > self.limits.bytes_max && !queue.deliveries.is_empty());
        if no_room {
            let first = !std::mem::replace(&mut queue.losing, true);
            return Offered::Lost { first };
        }
        queue.losing = false;
        queue.bytes = bytes;
        queue.deliveries.push_back(delivery);
        drop(queue);
        self.wake.notify_one();
        Offered::Taken
    }

    /// The next delivery if `fits` agrees to it; the order is never changed.
    pub(crate) fn take_if(&self, fits: impl FnOnce(&Delivery) -> bool) -> Option<Delivery> {
        let mut queue = self.queue();
        if !fits(queue.deliveries.front()?) {
            return None;
        }
        let delivery = queue.deliveries.pop_front()?;
        queue.bytes -= delivery.cost();
        Some(delivery)
    }

    /// Resolves after something was put in since the last call.
    pub(crate) async fn filled(&self) {
        self.wake.notified().await;
    }

    pub(crate) fn set_online(&self, online: bool) {
        self.online.store(online, Ordering::Relaxed);
        if online {
            self.wake.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::PublishProperties;
    use bytes::Bytes;
    use skerry_store::WallNanos;

    fn delivery(qos: Qos, bytes: usize) -> Delivery {
        let message = Message {
            topic: "t".into(),
            payload: Bytes::from(vec![0; bytes]),
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

    #[test]
    fn it_is_bounded_by_count_and_by_bytes_and_says_so_once() {
        let limits = MailboxLimits {
            messages_max: 2,
            bytes_max: 1000,
        };
        let mailbox = Mailbox::new(1, "c".into(), limits);
        assert_eq!(
            mailbox.offer(delivery(Qos::AtMostOnce, 5000)),
            Offered::Taken,
            "never stuck"
        );
        assert_eq!(
            mailbox.offer(delivery(Qos::AtMostOnce, 10)),
            Offered::Lost { first: true }
        );
        assert_eq!(
            mailbox.offer(delivery(Qos::AtMostOnce, 10)),
            Offered::Lost { first: false }
        );
        assert!(mailbox.take_if(|_| true).is_some());
        for _ in 0..2 {
            assert_eq!(
                mailbox.offer(delivery(Qos::AtLeastOnce, 10)),
                Offered::Taken
            );
        }
        assert_eq!(
            mailbox.offer(delivery(Qos::AtLeastOnce, 10)),
            Offered::Lost { first: true }
        );
        assert!(mailbox.take_if(|_| false).is_none());
    }

    #[test]
    fn an_absent_session_is_owed_no_qos_0() {
        let limits = MailboxLimits {
            messages_max: 2,
            bytes_max: 1000,
        };
        let mailbox = Mailbox::new(1, "c".into(), limits);
        mailbox.set_online(false);
        assert_eq!(
            mailbox.offer(delivery(Qos::AtMostOnce, 1)),
            Offered::NotOwed
        );
        assert_eq!(mailbox.offer(delivery(Qos::AtLeastOnce, 1)), Offered::Taken);
    }
}
