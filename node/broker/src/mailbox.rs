//! What one session is owed: a cursor into each stream of the log, and the newest messages
//! behind it in memory.
//!
//! ```text
//!          behind ───────── read from the log ────────►│ in memory, offered by the dispatcher
//!   ───────┼────────────────────────────────────────────┼──────────────────────────► offsets
//! ```
//!
//! A session that keeps up is only ever offered messages. One that does not, or is away, gives up
//! what it has in memory and notes where that began: from then on it is *behind* in that stream,
//! offers are ignored, and the log has what it is owed. It reads from there ([`crate::catch_up`])
//! when its client takes messages again, until it meets the dispatcher.
//!
//! Messages of QoS 0, or granted as such, are owed only to clients that are there and keep up.

use crate::budget::Budget;
use crate::codec::Qos;
use crate::delivery::{Delivery, Source};
use crate::shared::Group;
use crate::streams::{StreamIndex, Streams};
use skerry_store::Offset;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use tokio::sync::Notify;

/// How much a mailbox may hold.
#[derive(Debug, Clone)]
pub(crate) struct MailboxLimits {
    pub messages_max: usize,
    pub bytes_max: usize,
    /// For all mailboxes together.
    pub budget: Arc<Budget>,
}

/// What became of an offered delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offered {
    Taken,
    /// The log keeps it for the session. `first` is true when the session fell behind just now.
    Kept {
        first: bool,
    },
    /// Nothing is owed.
    NotOwed,
    /// No room for a message that nothing keeps. `first` is true once per run of losses, so that
    /// a log line marks its start.
    Lost {
        first: bool,
    },
}

#[derive(Debug)]
pub(crate) struct Mailbox {
    /// Identifies the session on this node, never reused; 0 is nobody.
    pub number: u64,
    pub client_id: Arc<str>,
    /// The session outlives its connection, so all it gets comes from the log.
    lasting: AtomicBool,
    limits: MailboxLimits,
    streams: Arc<Streams>,
    queue: Mutex<Queue>,
    wake: Notify,
    /// Whose members take from it, where it is a group's.
    group: OnceLock<Weak<Group>>,
}

#[derive(Debug)]
struct Queue {
    deliveries: VecDeque<Delivery>,
    bytes: usize,
    online: bool,
    losing: bool,
    feeds: Box<[Feed]>,
}

/// How far the session is in one stream.
#[derive(Debug, Clone, Copy, Default)]
struct Feed {
    /// What it is owed begins here, and is to be read from the log.
    behind: Option<Offset>,
    /// Offers before this were read from the log already.
    offered_from: Offset,
    /// One past the last message that was taken out.
    taken: Offset,
    /// Messages of QoS 0 before this are not owed.
    present_since: Offset,
}

impl Mailbox {
    pub(crate) fn new(
        number: u64,
        client_id: Arc<str>,
        limits: MailboxLimits,
        streams: Arc<Streams>,
    ) -> Self {
        let queue = Queue {
            deliveries: VecDeque::new(),
            bytes: 0,
            online: true,
            losing: false,
            feeds: vec![Feed::default(); streams.len()].into(),
        };
        Self {
            number,
            client_id,
            lasting: AtomicBool::new(false),
            limits,
            streams,
            queue: Mutex::new(queue),
            wake: Notify::new(),
            group: OnceLock::new(),
        }
    }

    pub(crate) fn set_group(&self, group: &Arc<Group>) {
        let _ = self.group.set(Arc::downgrade(group));
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_lasting(&self, lasting: bool) {
        self.lasting.store(lasting, Ordering::Relaxed);
    }

    fn is_lasting(&self) -> bool {
        self.lasting.load(Ordering::Relaxed)
    }

    /// From the dispatcher: the message at a place in the log, which is durable.
    pub(crate) fn offer(&self, delivery: Delivery) -> Offered {
        let place = delivery.place().expect("the dispatcher reads the log");
        if self.streams.get(place.stream).immediate && !self.is_lasting() {
            return Offered::NotOwed;
        }
        let mut queue = self.queue();
        let feed = queue.feeds[place.stream];
        if feed.behind.is_some() || place.offset < feed.offered_from {
            return Offered::NotOwed;
        }
        let unowed = delivery.qos == Qos::AtMostOnce;
        if !queue.online {
            if unowed {
                return Offered::NotOwed;
            }
            queue.feeds[place.stream].behind = Some(place.offset);
            return Offered::Kept { first: false };
        }
        if queue.has_room(&delivery, &self.limits) {
            queue.push(delivery);
            drop(queue);
            self.wake();
            return Offered::Taken;
        }
        if unowed {
            return queue.lose();
        }
        queue.fall_behind();
        queue.feeds[place.stream].behind.get_or_insert(place.offset);
        drop(queue);
        self.wake();
        Offered::Kept { first: true }
    }

    /// A message that is not read from the log: for clients that are there. One of a stream with
    /// immediate delivery is for sessions that end with their connection only; the others get it
    /// from the log, once it is there.
    pub(crate) fn offer_now(&self, delivery: Delivery, logged: bool) -> Offered {
        let mut queue = self.queue();
        if !queue.online || (logged && self.is_lasting()) {
            return Offered::NotOwed;
        }
        if !queue.has_room(&delivery, &self.limits) {
            return queue.lose();
        }
        queue.push(delivery);
        drop(queue);
        self.wake();
        Offered::Taken
    }

    /// The next delivery if `fits` agrees to it; the order is never changed.
    pub(crate) fn take_if(&self, fits: impl FnOnce(&Delivery) -> bool) -> Option<Delivery> {
        let mut queue = self.queue();
        if !fits(queue.deliveries.front()?) {
            return None;
        }
        let delivery = queue.deliveries.pop_front()?;
        queue.bytes -= delivery.bytes();
        if let Some(place) = delivery.place() {
            queue.feeds[place.stream].taken = place.offset.plus(1);
        }
        Some(delivery)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue().deliveries.is_empty()
    }

    /// A stream that has to be read from the log, from where on, and from where on messages of
    /// QoS 0 are owed in it.
    pub(crate) fn behind(&self) -> Option<(StreamIndex, Offset, Offset)> {
        let queue = self.queue();
        let feeds = queue.feeds.iter().enumerate();
        feeds
            .filter_map(|(stream, feed)| Some((stream, feed.behind?, feed.present_since)))
            .min_by_key(|(_, behind, _)| *behind)
    }

    /// Takes in what was read of `stream`, from `from` up to `next`. The session stays behind
    /// unless it has met the dispatcher. False if it was elsewhere meanwhile, and nothing is
    /// taken.
    pub(crate) fn refill(
        &self,
        stream: StreamIndex,
        from: Offset,
        next: Offset,
        deliveries: Vec<Delivery>,
    ) -> bool {
        let mut queue = self.queue();
        if queue.feeds[stream].behind != Some(from) || !queue.online {
            return false;
        }
        for delivery in deliveries {
            queue.push(delivery);
        }
        // Offers wait for this lock. If the dispatcher has begun with nothing from `next` on, it
        // will offer all of it; else some may have been ignored already.
        let met = self.streams.get(stream).claimed() <= next;
        let feed = &mut queue.feeds[stream];
        feed.behind = (!met).then_some(next);
        feed.offered_from = next;
        drop(queue);
        self.wake();
        true
    }

    /// What it is owed in `stream` begins at `from`, at the latest.
    pub(crate) fn set_behind(&self, stream: StreamIndex, from: Offset) {
        let mut queue = self.queue();
        let feed = &mut queue.feeds[stream];
        feed.behind = Some(feed.behind.map_or(from, |behind| behind.min(from)));
    }

    /// Resolves after something was put in since the last call.
    pub(crate) async fn filled(&self) {
        self.wake.notified().await;
    }

    /// Has whoever takes from it look again.
    pub(crate) fn wake(&self) {
        match self.group.get().map(Weak::upgrade) {
            Some(group) => group.iter().for_each(|group| group.wake()),
            None => self.wake.notify_one(),
        }
    }

    /// The client is there.
    pub(crate) fn enter(&self) {
        let mut queue = self.queue();
        queue.online = true;
        for (stream, feed) in queue.feeds.iter_mut().enumerate() {
            feed.present_since = self.streams.get(stream).offered();
        }
        drop(queue);
        self.wake();
    }

    /// The client is gone. What is kept for it is kept by the log.
    pub(crate) fn leave(&self) {
        let mut queue = self.queue();
        queue
            .deliveries
            .retain(|delivery| delivery.qos != Qos::AtMostOnce);
        queue.fall_behind();
        queue.deliveries = VecDeque::new();
        queue.online = false;
    }

    /// For each stream the place from which on the session is owed everything, what was taken
    /// out apart.
    pub(crate) fn cursors(&self) -> Vec<Offset> {
        // Read before the queue: what was offered by then is in the queue, or was taken.
        let offered: Vec<_> = (0..self.streams.len())
            .map(|stream| self.streams.get(stream).offered())
            .collect();
        let queue = self.queue();
        let mut cursors: Vec<_> = queue
            .feeds
            .iter()
            .zip(offered)
            .map(|(feed, offered)| {
                feed.behind
                    .unwrap_or(offered.max(feed.taken).max(feed.offered_from))
            })
            .collect();
        for place in queue.deliveries.iter().filter_map(Delivery::place) {
            cursors[place.stream] = cursors[place.stream].min(place.offset);
        }
        cursors
    }
}

impl Queue {
    fn has_room(&self, delivery: &Delivery, limits: &MailboxLimits) -> bool {
        let full = self.deliveries.len() >= limits.messages_max
            || self.bytes + delivery.bytes() > limits.bytes_max;
        self.deliveries.is_empty() || !(full || limits.budget.is_exceeded())
    }

    fn push(&mut self, delivery: Delivery) {
        self.losing = false;
        self.bytes += delivery.bytes();
        self.deliveries.push_back(delivery);
    }

    fn lose(&mut self) -> Offered {
        let first = !std::mem::replace(&mut self.losing, true);
        Offered::Lost { first }
    }

    /// Leaves what is in memory to the log. What the log does not have stays.
    fn fall_behind(&mut self) {
        let feeds = &mut self.feeds;
        self.deliveries.retain(|delivery| match delivery.source {
            Source::Log(place) => {
                let behind = &mut feeds[place.stream].behind;
                *behind = Some(behind.map_or(place.offset, |behind| behind.min(place.offset)));
                false
            }
            Source::Retained(_) | Source::Memory => true,
        });
        self.bytes = self.deliveries.iter().map(Delivery::bytes).sum();
    }
}
