//! The place of one client, for as long as its connection has it: the subscriptions of its session,
//! and how it is left.

use super::{Absent, Entry, Held, Kept, Registry, Will, subscription};
use crate::backlog::OwedRetained;
use crate::codec::SubscribeOptions;
use crate::interest::{Interest, Wanted};
use crate::mailbox::Mailbox;
use crate::outbound::{Named, Outbound};
use crate::retained::Retained;
use crate::saved;
use crate::shared::Group;
use crate::streams::Positions;
use crate::topic::TopicFilter;
use skerry_store::Change;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// What became of a SUBSCRIBE.
pub(crate) struct Subscribed {
    /// This session did not have the filter before.
    pub new: bool,
    /// Retained topics as of the place in the log where live messages begin.
    pub retained: Vec<Arc<str>>,
    pub wanted: Wanted,
}

/// A client id's place, held by one connection.
pub(crate) struct Seat {
    pub(super) registry: Arc<Registry>,
    pub mailbox: Arc<Mailbox>,
    /// By filter as the client wrote it.
    pub(super) held: HashMap<Arc<str>, Held>,
    /// Made of `held` when the log has to be read.
    pub(super) interest: Option<Arc<Interest>>,
    pub(super) leave: CancellationToken,
    pub(super) gone: CancellationToken,
    pub(super) settled: bool,
}

impl Seat {
    /// Goes on with what was kept; what is left is the connection's.
    pub(crate) fn resume(&mut self, kept: Kept) -> (Outbound, Vec<OwedRetained>) {
        self.mailbox = kept.mailbox;
        self.held = kept.held;
        (kept.outbound, kept.owed)
    }

    /// Ends what was kept: what the catalog has to forget, and what goes back to shared
    /// subscriptions once it is read.
    pub(crate) fn end(&self, mut kept: Kept) -> (Vec<Change>, Vec<Named>) {
        let changes = self.forgotten(&kept.held);
        let unread = kept.outbound.give_back();
        self.unsubscribe_all(&kept.held, kept.mailbox.number);
        (changes, unread)
    }

    /// The client is there and gets messages.
    pub(crate) fn enter(&self, lasting: bool) {
        self.mailbox.set_lasting(lasting);
        self.mailbox.enter();
        for group in self.groups() {
            group.enter(&self.mailbox);
        }
    }

    /// Resolves when another connection wants this seat.
    pub(crate) async fn wanted(&self) {
        self.leave.cancelled().await;
    }

    pub(crate) fn subscribe(
        &mut self,
        text: &str,
        filter: TopicFilter,
        group: bool,
        options: SubscribeOptions,
        identifier: Option<u32>,
        retained: &Retained,
    ) -> Subscribed {
        let registry = Arc::clone(&self.registry);
        let before = self
            .held
            .get(text)
            .map(|held| Arc::clone(&held.wanted.since));
        let new = before.is_none();
        let name: Arc<str> = text.into();
        let wanted = |since: Positions| Wanted {
            options,
            identifier,
            since: before.clone().unwrap_or(since),
        };
        let (wanted, topics, group) = if group {
            let group = match self.held.get(text).and_then(|held| held.group.clone()) {
                Some(group) => group,
                None => registry.join_group(&name, &filter, &registry.streams.positions()),
            };
            group.enter(&self.mailbox);
            (
                wanted(registry.streams.positions()),
                Vec::new(),
                Some(group),
            )
        } else {
            registry.change_tree(|tree| {
                let wanted = wanted(registry.streams.positions());
                tree.subscribe(&filter, subscription(&self.mailbox, &wanted));
                (wanted, retained.matching(&filter), None)
            })
        };
        let held = Held {
            filter,
            wanted: wanted.clone(),
            group,
        };
        self.held.insert(name, held);
        self.interest = None;
        Subscribed {
            new,
            retained: topics,
            wanted,
        }
    }

    /// The changes that make the catalog forget the subscription; `None` if there was none.
    pub(crate) fn unsubscribe(&mut self, text: &str) -> Option<Vec<Change>> {
        let held = self.held.remove(text)?;
        self.interest = None;
        let number = self.mailbox.number;
        let mut changes = vec![saved::forget_subscription(&self.mailbox.client_id, text)];
        match held.group {
            Some(group) => {
                group.leave(number);
                if self.registry.leave_group(&group) {
                    changes.push(saved::forget_group(&group.name));
                }
            }
            None => {
                self.registry
                    .change_tree(|tree| tree.remove(&held.filter, number));
            }
        }
        Some(changes)
    }

    pub(crate) fn subscriptions(&self) -> usize {
        self.held.len()
    }

    /// Whether the client does not want its own messages back.
    pub(crate) fn has_no_local(&self) -> bool {
        self.held.values().any(|held| held.wanted.options.no_local)
    }

    pub(crate) fn interest(&mut self) -> Arc<Interest> {
        let interest = self.interest.get_or_insert_with(|| {
            let mut interest = Interest::default();
            let own = self.held.values().filter(|held| held.group.is_none());
            for held in own {
                interest.insert(&held.filter, held.wanted.clone());
            }
            Arc::new(interest)
        });
        Arc::clone(interest)
    }

    /// The shared subscriptions it is in, with its own options.
    pub(crate) fn shared(&self) -> Vec<(Arc<Group>, SubscribeOptions, Option<u32>)> {
        let shared = self.held.values().filter_map(|held| {
            let group = Arc::clone(held.group.as_ref()?);
            Some((group, held.wanted.options, held.wanted.identifier))
        });
        shared.collect()
    }

    pub(crate) fn groups(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.held.values().filter_map(|held| held.group.as_ref())
    }

    /// The client takes nothing more of the shared subscriptions it is in.
    pub(crate) fn leave_groups(&self) {
        for group in self.groups() {
            group.leave(self.mailbox.number);
        }
    }

    /// Leaves the session behind for `stay`. False if there are too many sessions already, and
    /// nothing was taken over.
    pub(crate) fn keep(
        &mut self,
        outbound: &mut Outbound,
        owed: Vec<OwedRetained>,
        stay: Duration,
        will: &mut Option<Will>,
    ) -> bool {
        let mut entries = self.registry.entries();
        if self.registry.absent.load(Ordering::Relaxed) >= self.registry.sessions_max {
            return false;
        }
        self.mailbox.leave();
        self.leave_groups();
        outbound.let_go();
        let session = Kept {
            mailbox: Arc::clone(&self.mailbox),
            held: std::mem::take(&mut self.held),
            outbound: std::mem::take(outbound),
            owed,
        };
        let absent = Absent {
            session,
            until: Instant::now() + stay,
            will: will.take(),
        };
        let entry = Entry::Absent(Box::new(absent));
        entries.insert(Arc::clone(&self.mailbox.client_id), entry);
        self.registry.count_absent(|absent| absent + 1);
        drop(entries);
        self.settled = true;
        self.gone.cancel();
        true
    }

    /// What the catalog has to forget when this session ends.
    pub(crate) fn forget(&self) -> Vec<Change> {
        self.forgotten(&self.held)
    }

    fn forgotten(&self, held: &HashMap<Arc<str>, Held>) -> Vec<Change> {
        let client_id = &self.mailbox.client_id;
        let mut changes = vec![saved::forget_session(client_id)];
        changes.extend(
            held.keys()
                .map(|filter| saved::forget_subscription(client_id, filter)),
        );
        changes
    }

    fn unsubscribe_all(&self, held: &HashMap<Arc<str>, Held>, number: u64) {
        for held in held.values() {
            match &held.group {
                Some(group) => {
                    group.leave(number);
                    self.registry.leave_group(group);
                }
                None => {
                    self.registry
                        .change_tree(|tree| tree.remove(&held.filter, number));
                }
            }
        }
    }

    /// Ends the session and frees the seat.
    pub(crate) fn give_up(&mut self) {
        if !self.settled {
            self.settled = true;
            self.unsubscribe_all(&self.held, self.mailbox.number);
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
