//! Who is here: one seat per client id, the subscriptions of all of them, and what is kept of
//! sessions whose client is away.

use crate::codec::SubscribeOptions;
use crate::mailbox::{Mailbox, MailboxLimits, Offered};
use crate::message::Message;
use crate::outbound::Outbound;
use crate::status::Status;
use crate::subscriptions::{Subscription, Tree};
use crate::topic::TopicFilter;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

pub(crate) struct Registry {
    entries: Mutex<HashMap<Arc<str>, Entry>>,
    /// Entries that are [`Entry::Absent`]; changes only under the lock of `entries`.
    absent: AtomicUsize,
    tree: RwLock<Tree>,
    subscriptions: AtomicUsize,
    last_number: AtomicU64,
    limits: MailboxLimits,
    sessions_max: usize,
    status: Arc<Status>,
}

enum Entry {
    /// `leave` asks the connection to go, `gone` says that it did, its last commit included.
    Present {
        leave: CancellationToken,
        gone: CancellationToken,
    },
    Absent {
        session: Box<Kept>,
        until: Instant,
    },
}

/// A session without its connection. In memory only: it does not survive a restart.
pub(crate) struct Kept {
    mailbox: Arc<Mailbox>,
    filters: HashSet<TopicFilter>,
    pub outbound: Outbound,
}

impl Registry {
    pub(crate) fn new(limits: MailboxLimits, sessions_max: usize, status: Arc<Status>) -> Self {
        Self {
            entries: Mutex::default(),
            absent: AtomicUsize::new(0),
            tree: RwLock::default(),
            subscriptions: AtomicUsize::new(0),
            last_number: AtomicU64::new(0),
            limits,
            sessions_max,
            status,
        }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Arc<str>, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number no session of this process had, for mailboxes and for generated client ids.
    pub(crate) fn number(&self) -> u64 {
        self.last_number.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Takes the seat of `client_id`. A connection that holds it is asked to leave, and waited
    /// for: its uncommitted QoS 2 ids must be settled before the client sends them again.
    pub(crate) async fn join(
        self: &Arc<Self>,
        client_id: &str,
        clean: bool,
    ) -> (Seat, Option<Kept>) {
        let client_id: Arc<str> = client_id.into();
        loop {
            let gone = match self.try_join(&client_id) {
                Ok((seat, kept)) => return seat.begin(kept, clean),
                Err(gone) => gone,
            };
            gone.cancelled().await;
        }
    }

    fn try_join(
        self: &Arc<Self>,
        client_id: &Arc<str>,
    ) -> Result<(Seat, Option<Kept>), CancellationToken> {
        let mut entries = self.entries();
        if let Some(Entry::Present { leave, gone }) = entries.get(client_id) {
            leave.cancel();
            return Err(gone.clone());
        }
        Ok(self.seat(&mut entries, client_id))
    }

    /// Makes the entry of `client_id` present and hands out its seat.
    fn seat(
        self: &Arc<Self>,
        entries: &mut HashMap<Arc<str>, Entry>,
        client_id: &Arc<str>,
    ) -> (Seat, Option<Kept>) {
        let (leave, gone) = (CancellationToken::new(), CancellationToken::new());
        let entry = Entry::Present {
            leave: leave.clone(),
            gone: gone.clone(),
        };
        let kept = match entries.insert(Arc::clone(client_id), entry) {
            Some(Entry::Absent { session, .. }) => {
                self.count_absent(|absent| absent - 1);
                Some(*session)
            }
            _ => None,
        };
        let number = self.number();
        let seat = Seat {
            registry: Arc::clone(self),
            mailbox: Arc::new(Mailbox::new(number, Arc::clone(client_id), self.limits)),
            filters: HashSet::new(),
            leave,
            gone,
            settled: false,
        };
        (seat, kept)
    }

    fn count_absent(&self, change: impl FnOnce(usize) -> usize) {
        let absent = change(self.absent.load(Ordering::Relaxed));
        self.absent.store(absent, Ordering::Relaxed);
        self.status.sessions_absent.set(absent);
    }

    pub(crate) fn has_subscriptions(&self) -> bool {
        self.subscriptions.load(Ordering::Relaxed) > 0
    }

    /// Puts a message into the mailboxes of all that want it.
    pub(crate) fn deliver(&self, message: Message) {
        let message = Arc::new(message);
        let tree = self.tree.read().unwrap_or_else(PoisonError::into_inner);
        tree.deliveries(&message, |mailbox, delivery| {
            if let Offered::Lost { first } = mailbox.offer(delivery) {
                self.status.slow_reader_losses.up();
                if first {
                    tracing::warn!(
                        client = &*mailbox.client_id,
                        "a subscriber reads too slowly; live messages to it are dropped \
                         (the log has them)"
                    );
                }
            }
        });
    }

    fn change_tree<T>(&self, change: impl FnOnce(&mut Tree) -> T) -> T {
        let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut tree);
        self.subscriptions.store(tree.len(), Ordering::Relaxed);
        self.status.subscriptions.set(tree.len());
        result
    }

    fn forget(&self, kept: &Kept) {
        self.unsubscribe_all(&kept.filters, kept.mailbox.number);
    }

    fn unsubscribe_all(&self, filters: &HashSet<TopicFilter>, number: u64) {
        if !filters.is_empty() {
            self.change_tree(|tree| {
                for filter in filters {
                    tree.remove(filter, number);
                }
            });
        }
    }

    /// Takes the seats of sessions whose time is over, so that nobody sits down while what is
    /// left of them is cleared away.
    pub(crate) fn expire(self: &Arc<Self>, now: Instant) -> Vec<Seat> {
        let mut entries = self.entries();
        let is_over = |entry: &Entry| matches!(entry, Entry::Absent { until, .. } if *until <= now);
        let over = entries.iter().filter(|(_, entry)| is_over(entry));
        let over: Vec<Arc<str>> = over.map(|(client_id, _)| Arc::clone(client_id)).collect();
        let seats = over
            .iter()
            .map(|client_id| self.seat(&mut entries, client_id));
        seats.map(|(seat, kept)| seat.begin(kept, true).0).collect()
    }
}

/// A client id's place, held by one connection.
pub(crate) struct Seat {
    registry: Arc<Registry>,
    pub mailbox: Arc<Mailbox>,
    filters: HashSet<TopicFilter>,
    leave: CancellationToken,
    gone: CancellationToken,
    settled: bool,
}

impl Seat {
    /// Takes over what was kept, or ends it.
    fn begin(mut self, kept: Option<Kept>, clean: bool) -> (Self, Option<Kept>) {
        match kept {
            Some(kept) if clean => {
                self.registry.forget(&kept);
                (self, None)
            }
            Some(mut kept) => {
                self.mailbox = Arc::clone(&kept.mailbox);
                self.mailbox.set_online(true);
                self.filters = std::mem::take(&mut kept.filters);
                (self, Some(kept))
            }
            None => (self, None),
        }
    }

    /// Resolves when another connection wants this seat.
    pub(crate) async fn wanted(&self) {
        self.leave.cancelled().await;
    }

    /// True if the filter is new to this session.
    pub(crate) fn subscribe(
        &mut self,
        filter: &TopicFilter,
        options: SubscribeOptions,
        identifier: Option<u32>,
    ) -> bool {
        let mailbox = Arc::clone(&self.mailbox);
        let subscription = Subscription {
            mailbox,
            options,
            identifier,
        };
        self.filters.insert(filter.clone());
        self.registry
            .change_tree(|tree| tree.insert(filter, subscription))
    }

    pub(crate) fn unsubscribe(&mut self, filter: &TopicFilter) -> bool {
        let number = self.mailbox.number;
        self.filters.remove(filter)
            && self
                .registry
                .change_tree(|tree| tree.remove(filter, number))
    }

    pub(crate) fn subscriptions(&self) -> usize {
        self.filters.len()
    }

    /// Leaves the session behind for `stay`. False if there are too many already, in which case
    /// it ended.
    pub(crate) fn keep(&mut self, outbound: Outbound, stay: Duration) -> bool {
        let mut entries = self.registry.entries();
        if self.registry.absent.load(Ordering::Relaxed) >= self.registry.sessions_max {
            return false;
        }
        self.mailbox.set_online(false);
        let session = Box::new(Kept {
            mailbox: Arc::clone(&self.mailbox),
            filters: std::mem::take(&mut self.filters),
            outbound,
        });
        let until = Instant::now() + stay;
        entries.insert(
            Arc::clone(&self.mailbox.client_id),
            Entry::Absent { session, until },
        );
        self.registry.count_absent(|absent| absent + 1);
        drop(entries);
        self.settled = true;
        self.gone.cancel();
        true
    }

    /// Ends the session and frees the seat.
    pub(crate) fn give_up(&mut self) {
        if !self.settled {
            self.settled = true;
            self.registry
                .unsubscribe_all(&self.filters, self.mailbox.number);
            self.registry.entries().remove(&self.mailbox.client_id);
        }
        self.gone.cancel();
    }
}

impl Drop for Seat {
    /// Also runs when a connection's task is dropped in the middle: a seat is never left locked.
    fn drop(&mut self) {
        self.give_up();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{PublishProperties, Qos};

    fn registry(sessions_max: usize) -> Arc<Registry> {
        let limits = MailboxLimits {
            messages_max: 10,
            bytes_max: 9999,
        };
        Arc::new(Registry::new(limits, sessions_max, Arc::default()))
    }

    fn options() -> SubscribeOptions {
        SubscribeOptions {
            qos: Qos::AtLeastOnce,
            ..SubscribeOptions::default()
        }
    }

    fn message() -> Message {
        Message {
            topic: "t".into(),
            payload: bytes::Bytes::new(),
            qos: Qos::AtLeastOnce,
            retain: false,
            properties: PublishProperties::default(),
            received: skerry_store::WallNanos(0),
            origin: 0,
        }
    }

    const DAY: Duration = Duration::from_secs(86_400);

    #[tokio::test]
    async fn the_second_connection_waits_until_the_first_has_left() {
        let registry = registry(10);
        let (first, _) = registry.join("a+b/#", true).await;
        let second = tokio::spawn({
            let registry = Arc::clone(&registry);
            async move { registry.join("a+b/#", true).await.0 }
        });
        first.wanted().await;
        assert!(!second.is_finished());
        drop(first);
        let second = second.await.expect("seated");
        drop(second);
        assert!(registry.entries().is_empty());
    }

    #[tokio::test]
    async fn an_absent_session_collects_messages_and_expires() {
        let registry = registry(1);
        let filter = TopicFilter::new("t").expect("well formed");
        let (mut seat, _) = registry.join("a", false).await;
        assert!(seat.subscribe(&filter, options(), None));
        assert!(seat.keep(Outbound::default(), DAY));
        registry.deliver(message());
        let (mut seat, kept) = registry.join("a", false).await;
        assert!(kept.is_some());
        assert!(seat.mailbox.take_if(|_| true).is_some());
        assert!(seat.keep(Outbound::default(), DAY));

        let (mut other, _) = registry.join("b", false).await;
        assert!(!other.keep(Outbound::default(), DAY), "one session at most");
        drop(other);
        assert!(registry.expire(Instant::now()).is_empty());
        let over = registry.expire(Instant::now() + DAY);
        assert_eq!(over.len(), 1);
        assert_eq!(&*over[0].mailbox.client_id, "a");
        drop(over);
        assert!(registry.entries().is_empty());
        assert!(!registry.has_subscriptions());
    }

    #[tokio::test]
    async fn a_clean_start_ends_what_was_kept() {
        let registry = registry(1);
        let filter = TopicFilter::new("t").expect("well formed");
        let (mut seat, _) = registry.join("a", false).await;
        seat.subscribe(&filter, options(), None);
        assert!(seat.keep(Outbound::default(), DAY));
        let (_seat, kept) = registry.join("a", true).await;
        assert!(kept.is_none());
        assert!(!registry.has_subscriptions());
    }
}
