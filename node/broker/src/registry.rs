//! Who is here: one seat per client id, the subscriptions of all of them, and what is kept of
//! sessions whose client is away.

mod seat;

pub(crate) use seat::Seat;

use crate::backlog::OwedRetained;
use crate::budget::Budget;
use crate::delivery::{Delivery, Published, Source};
use crate::dispatch::LIVE_BYTES_MAX;
use crate::interest::Wanted;
use crate::mailbox::{Mailbox, MailboxLimits, Offered};
use crate::message::Message;
use crate::outbound::Outbound;
use crate::saved::{Everything, Loaded};
use crate::shared::{self, Group};
use crate::status::Status;
use crate::streams::{Place, Positions, Streams};
use crate::subscriptions::{FilterTree, Subscription, deliveries};
use crate::topic::TopicFilter;
use skerry_store::WallNanos;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

pub(crate) struct Registry {
    entries: Mutex<HashMap<Arc<str>, Entry>>,
    /// Entries that are [`Entry::Absent`]; changes only under the lock of `entries`.
    absent: AtomicUsize,
    pub tree: RwLock<FilterTree<Subscription>>,
    subscriptions: AtomicUsize,
    groups: Mutex<HashMap<Arc<str>, Membership>>,
    last_number: AtomicU64,
    pub streams: Arc<Streams>,
    pub budget: Arc<Budget>,
    limits: MailboxLimits,
    sessions_max: usize,
    status: Arc<Status>,
}

/// How many sessions share the group.
struct Membership {
    group: Arc<Group>,
    members: usize,
}

enum Entry {
    /// `leave` asks the connection to go, `gone` says that it did, its last commit included.
    Present {
        leave: CancellationToken,
        gone: CancellationToken,
    },
    Absent(Box<Absent>),
}

struct Absent {
    session: Kept,
    until: Instant,
    will: Option<Will>,
}

/// A will that is published unless its client comes back before.
#[derive(Debug, Clone)]
pub(crate) struct Will {
    pub due: Instant,
    pub message: Message,
}

/// A session without its connection.
pub(crate) struct Kept {
    mailbox: Arc<Mailbox>,
    held: HashMap<Arc<str>, Held>,
    pub outbound: Outbound,
    pub owed: Vec<OwedRetained>,
}

/// A session whose time is over, to be cleared away.
pub(crate) struct Expired {
    pub seat: Seat,
    pub outbound: Outbound,
    pub will: Option<Will>,
}

/// A subscription of one session, by its filter as the client wrote it.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub filter: TopicFilter,
    pub wanted: Wanted,
    /// Where it is a shared one.
    pub group: Option<Arc<Group>>,
}

impl Registry {
    pub(crate) fn new(
        streams: Arc<Streams>,
        messages_max: usize,
        bytes_max: usize,
        sessions_max: usize,
        status: Arc<Status>,
    ) -> Self {
        let budget = Budget::new(LIVE_BYTES_MAX);
        Self {
            entries: Mutex::default(),
            absent: AtomicUsize::new(0),
            tree: RwLock::default(),
            subscriptions: AtomicUsize::new(0),
            groups: Mutex::default(),
            last_number: AtomicU64::new(0),
            streams,
            limits: MailboxLimits {
                messages_max,
                bytes_max,
                budget: Arc::clone(&budget),
            },
            budget,
            sessions_max,
            status,
        }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Arc<str>, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn groups(&self) -> MutexGuard<'_, HashMap<Arc<str>, Membership>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number no session of this process had, for mailboxes and for generated client ids.
    pub(crate) fn number(&self) -> u64 {
        self.last_number.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn mailbox(&self, client_id: &Arc<str>) -> Arc<Mailbox> {
        let (limits, streams) = (self.limits.clone(), Arc::clone(&self.streams));
        Arc::new(Mailbox::new(
            self.number(),
            Arc::clone(client_id),
            limits,
            streams,
        ))
    }

    /// Takes up the sessions of before a restart: all of them are absent.
    pub(crate) fn load(&self, saved: Everything) {
        for session in saved.sessions {
            self.take_up(session);
        }
        for membership in self.groups().values() {
            let group = &membership.group;
            for place in saved.groups.get(&*group.name).into_iter().flatten() {
                self.set_behind(&group.mailbox, *place);
            }
        }
    }

    fn set_behind(&self, mailbox: &Mailbox, place: Place) {
        if place.offset < self.streams.get(place.stream).claimed() {
            mailbox.set_behind(place.stream, place.offset);
        }
    }

    fn take_up(&self, session: Loaded) {
        let client_id: Arc<str> = session.client_id.into();
        let mailbox = self.mailbox(&client_id);
        mailbox.set_lasting(true);
        mailbox.leave();
        let mut held = HashMap::new();
        for (text, wanted) in session.subscriptions {
            let Ok((filter, is_shared)) = shared::filter_of(&text) else {
                continue;
            };
            let name: Arc<str> = text.into();
            let group = is_shared.then(|| self.join_group(&name, &filter, &wanted.since));
            if group.is_none() {
                self.change_tree(|tree| tree.subscribe(&filter, subscription(&mailbox, &wanted)));
            }
            held.insert(
                name,
                Held {
                    filter,
                    wanted,
                    group,
                },
            );
        }
        // With nothing but shared subscriptions there is nothing of its own to read.
        if held.values().any(|held| held.group.is_none()) {
            for place in session.cursors {
                self.set_behind(&mailbox, place);
            }
        }
        let mut outbound = Outbound::default();
        for mut flight in session.in_flight {
            let group = flight
                .group
                .and_then(|name| held.get(&*name)?.group.clone());
            if let (Some(group), Source::Log(place)) = (&group, &flight.named.source) {
                group.hold(*place);
            }
            flight.named.group = group;
            outbound.restore(flight.id, flight.released, flight.named);
        }
        let now = WallNanos::now();
        let since = |moment: WallNanos| now.since(moment);
        let away = session.absent_since.map_or(Duration::ZERO, since);
        let will = session.will.map(|(due, message)| Will {
            due: Instant::now() + nanos(due.0.saturating_sub(now.0)),
            message,
        });
        let absent = Absent {
            session: Kept {
                mailbox,
                held,
                outbound,
                owed: Vec::new(),
            },
            until: Instant::now() + session.expiry.saturating_sub(away),
            will,
        };
        let entry = Entry::Absent(Box::new(absent));
        self.entries().insert(client_id, entry);
        self.count_absent(|absent| absent + 1);
    }

    /// Takes the seat of `client_id`. A connection that holds it is asked to leave, and waited
    /// for: its uncommitted QoS 2 ids must be settled before the client sends them again.
    pub(crate) async fn join(
        self: &Arc<Self>,
        client_id: &str,
    ) -> (Seat, Option<Kept>, Option<Will>) {
        let client_id: Arc<str> = client_id.into();
        loop {
            let gone = match self.try_join(&client_id) {
                Ok(joined) => return joined,
                Err(gone) => gone,
            };
            gone.cancelled().await;
        }
    }

    fn try_join(
        self: &Arc<Self>,
        client_id: &Arc<str>,
    ) -> Result<(Seat, Option<Kept>, Option<Will>), CancellationToken> {
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
    ) -> (Seat, Option<Kept>, Option<Will>) {
        let (leave, gone) = (CancellationToken::new(), CancellationToken::new());
        let entry = Entry::Present {
            leave: leave.clone(),
            gone: gone.clone(),
        };
        let (kept, will) = match entries.insert(Arc::clone(client_id), entry) {
            Some(Entry::Absent(absent)) => {
                self.count_absent(|absent| absent - 1);
                (Some(absent.session), absent.will)
            }
            _ => (None, None),
        };
        let seat = Seat {
            registry: Arc::clone(self),
            mailbox: self.mailbox(client_id),
            held: HashMap::new(),
            interest: None,
            leave,
            gone,
            settled: false,
        };
        (seat, kept, will)
    }

    fn count_absent(&self, change: impl FnOnce(usize) -> usize) {
        let absent = change(self.absent.load(Ordering::Relaxed));
        self.absent.store(absent, Ordering::Relaxed);
        self.status.sessions_absent.set(absent);
    }

    pub(crate) fn has_subscriptions(&self) -> bool {
        self.subscriptions.load(Ordering::Relaxed) > 0
    }

    /// Hands a message that is not read from the log to those who are there.
    pub(crate) fn publish_now(&self, message: &Message, logged: bool) {
        if !self.has_subscriptions() {
            return;
        }
        let tree = self.tree.read().unwrap_or_else(PoisonError::into_inner);
        let subscribers = tree.subscribers(&message.topic);
        if subscribers.is_empty() {
            return;
        }
        let charge = self.budget.charge(message.bytes());
        let message = Published::new(message.clone(), Some(charge));
        let offer = |mailbox: &Mailbox, delivery: Delivery| {
            self.count(mailbox, mailbox.offer_now(delivery, logged));
        };
        deliveries(&subscribers, &message, &Source::Memory, offer);
    }

    pub(crate) fn count(&self, mailbox: &Mailbox, offered: Offered) {
        match offered {
            Offered::Taken | Offered::NotOwed | Offered::Kept { first: false } => {}
            Offered::Kept { first: true } => self.status.fell_behind.up(),
            Offered::Lost { first } => {
                self.status.slow_reader_losses.up();
                if first {
                    tracing::warn!(
                        client = &*mailbox.client_id,
                        "a subscriber reads too slowly; messages of QoS 0 to it are dropped \
                         (the log has them)"
                    );
                }
            }
        }
    }

    fn change_tree<T>(&self, change: impl FnOnce(&mut FilterTree<Subscription>) -> T) -> T {
        let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut tree);
        self.subscriptions.store(tree.len(), Ordering::Relaxed);
        self.status.subscriptions.set(tree.len());
        result
    }

    fn join_group(&self, name: &Arc<str>, filter: &TopicFilter, since: &Positions) -> Arc<Group> {
        let mut groups = self.groups();
        if let Some(membership) = groups.get_mut(name) {
            membership.members += 1;
            return Arc::clone(&membership.group);
        }
        let mailbox = self.mailbox(name);
        let group = Group::new(
            Arc::clone(name),
            filter.clone(),
            Arc::clone(&mailbox),
            Arc::clone(since),
        );
        let group = Arc::new(group);
        mailbox.set_group(&group);
        let subscription = Subscription {
            mailbox,
            options: Group::options(),
            identifier: None,
        };
        self.change_tree(|tree| tree.subscribe(filter, subscription));
        let membership = Membership {
            group: Arc::clone(&group),
            members: 1,
        };
        groups.insert(Arc::clone(name), membership);
        self.status.shared_subscriptions.set(groups.len());
        group
    }

    /// True if that was its last member.
    fn leave_group(&self, group: &Group) -> bool {
        let mut groups = self.groups();
        let Some(membership) = groups.get_mut(&group.name) else {
            return false;
        };
        membership.members -= 1;
        let last = membership.members == 0;
        if last {
            groups.remove(&group.name);
            self.status.shared_subscriptions.set(groups.len());
            self.change_tree(|tree| tree.remove(&group.filter, group.mailbox.number));
        }
        last
    }

    /// Takes the seats of sessions whose time is over, so that nobody sits down while what is
    /// left of them is cleared away.
    pub(crate) fn expire(self: &Arc<Self>, now: Instant) -> Vec<Expired> {
        let mut entries = self.entries();
        let is_over = |entry: &Entry| matches!(entry, Entry::Absent(absent) if absent.until <= now);
        let over = entries.iter().filter(|(_, entry)| is_over(entry));
        let over: Vec<Arc<str>> = over.map(|(client_id, _)| Arc::clone(client_id)).collect();
        let seats = over.iter().map(|client_id| {
            let (mut seat, kept, will) = self.seat(&mut entries, client_id);
            let outbound = kept.map(|kept| seat.resume(kept).0).unwrap_or_default();
            Expired {
                seat,
                outbound,
                will,
            }
        });
        seats.collect()
    }

    /// Wills whose time has come, of clients that are still away.
    pub(crate) fn wills_due(&self, now: Instant) -> Vec<Message> {
        let mut due = Vec::new();
        for entry in self.entries().values_mut() {
            if let Entry::Absent(absent) = entry {
                due.extend(absent.will.take_if(|will| will.due <= now));
            }
        }
        due.into_iter().map(|will| will.message).collect()
    }
}

fn nanos(nanos: i64) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

fn subscription(mailbox: &Arc<Mailbox>, wanted: &Wanted) -> Subscription {
    Subscription {
        mailbox: Arc::clone(mailbox),
        options: wanted.options,
        identifier: wanted.identifier,
    }
}
