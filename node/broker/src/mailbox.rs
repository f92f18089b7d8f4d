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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::Place;
    use proptest::prelude::*;

    fn delivery(offset: u64, qos: Qos) -> Delivery {
        let place = Place {
            stream: 0,
            offset: Offset(offset),
        };
        Delivery::empty(qos, Source::Log(place))
    }

    /// What the session makes of each record of a log.
    #[derive(Debug, Clone, Copy)]
    enum Wanted {
        No,
        Loosely,
        Surely,
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        /// The dispatcher begins a chunk of so many records.
        Claim(u64),
        /// It goes on with the next record of the chunk.
        Offer,
        Take,
        Leave,
        Enter,
        /// The session reads so many records from the log, and takes them in.
        Read(u64),
        /// It reads, and takes them in after so many more steps.
        ReadSlowly(u64),
        TakeIn,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (1..6_u64).prop_map(Step::Claim),
            8 => Just(Step::Offer),
            5 => Just(Step::Take),
            1 => Just(Step::Leave),
            1 => Just(Step::Enter),
            2 => (1..9_u64).prop_map(Step::Read),
            2 => (1..9_u64).prop_map(Step::ReadSlowly),
            2 => Just(Step::TakeIn),
        ]
    }

    /// A log, the dispatcher, and one session.
    struct World {
        log: Vec<Wanted>,
        mailbox: Mailbox,
        streams: Arc<Streams>,
        /// The next record to offer.
        next: u64,
        read: Option<(Offset, Offset, Vec<Delivery>)>,
        taken: Vec<(u64, Qos)>,
    }

    impl World {
        fn new(log: Vec<Wanted>) -> Self {
            let streams = Arc::new(Streams::one());
            let limits = MailboxLimits {
                messages_max: 3,
                bytes_max: usize::MAX,
                budget: Budget::new(usize::MAX),
            };
            let mailbox = Mailbox::new(1, "c".into(), limits, Arc::clone(&streams));
            mailbox.set_lasting(true);
            mailbox.enter();
            Self {
                log,
                mailbox,
                streams,
                next: 0,
                read: None,
                taken: Vec::new(),
            }
        }

        fn made_of(&self, offset: u64) -> Option<Delivery> {
            match self.log.get(usize::try_from(offset).ok()?)? {
                Wanted::No => None,
                Wanted::Loosely => Some(delivery(offset, Qos::AtMostOnce)),
                Wanted::Surely => Some(delivery(offset, Qos::AtLeastOnce)),
            }
        }

        fn step(&mut self, step: Step) {
            let stream = self.streams.get(0);
            let end = self.log.len() as u64;
            match step {
                Step::Claim(count) => {
                    if self.next == stream.claimed().0 {
                        stream.claim(Offset(end.min(self.next + count)));
                    }
                }
                Step::Offer => {
                    if self.next < stream.claimed().0 {
                        if let Some(delivery) = self.made_of(self.next) {
                            self.mailbox.offer(delivery);
                        }
                        self.next += 1;
                        if self.next == stream.claimed().0 {
                            stream.set_offered(Offset(self.next));
                        }
                    }
                }
                Step::Take => {
                    if let Some(delivery) = self.mailbox.take_if(|_| true) {
                        let place = delivery.place().expect("from the log");
                        self.taken.push((place.offset.0, delivery.qos));
                    }
                }
                Step::Leave => self.mailbox.leave(),
                Step::Enter => self.mailbox.enter(),
                Step::Read(count) => {
                    self.step(Step::ReadSlowly(count));
                    self.step(Step::TakeIn);
                }
                Step::ReadSlowly(count) => {
                    let behind = self.mailbox.behind().filter(|_| self.mailbox.is_empty());
                    if let Some((_, from, present_since)) = behind {
                        let next = end.min(from.0 + count);
                        let found = (from.0..next).filter_map(|offset| self.made_of(offset));
                        let owed = found.filter(|delivery| {
                            let place = delivery.place().expect("from the log");
                            delivery.qos != Qos::AtMostOnce || place.offset >= present_since
                        });
                        self.read = Some((from, Offset(next), owed.collect()));
                    }
                }
                Step::TakeIn => {
                    if let Some((from, next, deliveries)) = self.read.take() {
                        self.mailbox.refill(0, from, next, deliveries);
                    }
                }
            }
            self.check();
        }

        /// What would be saved now loses nothing, and gives nothing twice.
        fn check(&self) {
            let cursor = self.mailbox.cursors()[0].0;
            let last = self.taken.last().map_or(0, |(offset, _)| offset + 1);
            let untaken = (last..self.next).find(|offset| {
                matches!(
                    self.log[usize::try_from(*offset).expect("small")],
                    Wanted::Surely
                )
            });
            assert!(
                cursor >= last,
                "{cursor} would repeat what was taken up to {last}"
            );
            if let Some(untaken) = untaken {
                assert!(cursor <= untaken, "{cursor} would lose {untaken}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        /// However dispatcher, client and catch-up interleave: everything of QoS 1 once and in
        /// order, of QoS 0 nothing twice.
        #[test]
        fn a_session_gets_what_it_is_owed_once_and_in_order(
            log in proptest::collection::vec(
                prop_oneof![Just(Wanted::No), Just(Wanted::Loosely), Just(Wanted::Surely)], 0..40),
            steps in proptest::collection::vec(step(), 0..120),
        ) {
            let mut world = World::new(log);
            for one in steps {
                world.step(one);
            }
            world.step(Step::Enter);
            for _ in 0..400 {
                for one in [Step::Offer, Step::Claim(5), Step::Take, Step::Read(4)] {
                    world.step(one);
                }
            }
            let offsets: Vec<u64> = world.taken.iter().map(|(offset, _)| *offset).collect();
            prop_assert!(offsets.is_sorted_by(|a, b| a < b), "{:?}", offsets);
            let sure = world.taken.iter().filter(|(_, qos)| *qos == Qos::AtLeastOnce);
            let sure: Vec<usize> = sure.map(|(offset, _)| *offset as usize).collect();
            let owed = world.log.iter().enumerate();
            let owed = owed.filter(|(_, wanted)| matches!(wanted, Wanted::Surely));
            let owed: Vec<usize> = owed.map(|(offset, _)| offset).collect();
            prop_assert_eq!(sure, owed);
        }
    }

    #[test]
    fn a_run_of_losses_is_told_once() {
        let mut world = World::new(vec![Wanted::Loosely; 6]);
        world.streams.get(0).claim(Offset(6));
        let offered: Vec<_> = (0..6)
            .map(|offset| world.mailbox.offer(world.made_of(offset).expect("wanted")))
            .collect();
        assert_eq!(offered[..3], [Offered::Taken; 3]);
        assert_eq!(offered[3], Offered::Lost { first: true });
        assert_eq!(offered[4..], [Offered::Lost { first: false }; 2]);
        world.next = 6;
        world.streams.get(0).set_offered(Offset(6));
        world.step(Step::Take);
        assert_eq!(world.taken, [(0, Qos::AtMostOnce)]);
    }

    #[test]
    fn what_all_hold_together_is_bounded() {
        let streams = Arc::new(Streams::one());
        let limits = MailboxLimits {
            messages_max: 100,
            bytes_max: usize::MAX,
            budget: Budget::new(10),
        };
        let mailbox = Mailbox::new(1, "c".into(), limits.clone(), streams);
        assert_eq!(mailbox.offer(delivery(0, Qos::AtLeastOnce)), Offered::Taken);
        let _elsewhere = limits.budget.charge(11);
        let over = mailbox.offer(delivery(1, Qos::AtLeastOnce));
        assert_eq!(over, Offered::Kept { first: true });
        assert!(mailbox.is_empty());
        assert_eq!(mailbox.behind(), Some((0, Offset(0), Offset(0))));
    }
}
