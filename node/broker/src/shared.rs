//! Shared subscriptions (5.0, 4.8.2): `$share/NAME/FILTER`, of which each message goes to one.
//!
//! The group has one mailbox, hence one cursor into the log, and its members take from it when
//! they have room: whoever is quicker takes more, and one that is stuck holds nobody up. What a
//! member took stays with its session until that ends; then it goes back to the group.

use crate::codec::{Qos, SubscribeOptions};
use crate::delivery::Delivery;
use crate::interest::{Interest, Wanted};
use crate::mailbox::Mailbox;
use crate::streams::{Place, Positions};
use crate::topic::{self, FilterError, TopicFilter};
use skerry_store::Offset;
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The filter of a subscription, and whether it is a shared one.
pub(crate) fn filter_of(text: &str) -> Result<(TopicFilter, bool), FilterError> {
    match topic::shared(text) {
        Some((_, filter)) => Ok((TopicFilter::new(filter)?, true)),
        None => Ok((TopicFilter::new(text)?, false)),
    }
}

#[derive(Debug)]
pub(crate) struct Group {
    /// As it was subscribed to: `$share/NAME/FILTER`.
    pub name: Arc<str>,
    pub filter: TopicFilter,
    pub mailbox: Arc<Mailbox>,
    pub interest: Arc<Interest>,
    members: Mutex<Members>,
}

#[derive(Debug, Default)]
struct Members {
    present: VecDeque<Arc<Mailbox>>,
    /// Members that may still be asked about what is there now.
    unasked: usize,
    /// What a session that ended had not acknowledged.
    returned: VecDeque<Delivery>,
    /// What members have and did not acknowledge.
    taken: BTreeSet<Place>,
    /// What members had before a restart and have again: not for anybody else.
    held: BTreeSet<Place>,
}

impl Group {
    pub(crate) fn new(
        name: Arc<str>,
        filter: TopicFilter,
        mailbox: Arc<Mailbox>,
        since: Positions,
    ) -> Self {
        let mut interest = Interest::default();
        let wanted = Wanted {
            options: Self::options(),
            identifier: None,
            since,
        };
        interest.insert(&filter, wanted);
        mailbox.set_lasting(true);
        mailbox.leave();
        Self {
            name,
            filter,
            mailbox,
            interest: Arc::new(interest),
            members: Mutex::default(),
        }
    }

    /// What the group itself subscribes with; each member has options of its own.
    pub(crate) fn options() -> SubscribeOptions {
        SubscribeOptions {
            qos: Qos::ExactlyOnce,
            retain_as_published: true,
            ..SubscribeOptions::default()
        }
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A member's client is there.
    pub(crate) fn enter(&self, member: &Arc<Mailbox>) {
        let mut members = self.members();
        if !members
            .present
            .iter()
            .any(|held| held.number == member.number)
        {
            members.present.push_back(Arc::clone(member));
        }
        let first = members.present.len() == 1;
        drop(members);
        if first {
            self.mailbox.enter();
        }
        member.wake();
    }

    /// A member's client is gone.
    pub(crate) fn leave(&self, number: u64) {
        let mut members = self.members();
        let before = members.present.len();
        members.present.retain(|held| held.number != number);
        let last = before > 0 && members.present.is_empty();
        drop(members);
        if last {
            self.mailbox.leave();
        } else {
            // It may have been the one that was asked.
            self.wake();
        }
    }

    /// Something may be there to take: the next member is asked.
    pub(crate) fn wake(&self) {
        let mut members = self.members();
        members.unasked = members.present.len();
        members.ask();
    }

    /// The member that was asked has no room.
    pub(crate) fn pass_on(&self) {
        self.members().ask();
    }

    /// The next message for a member that is subscribed with `options`, if `fits` agrees to it.
    pub(crate) fn take_if(
        self: &Arc<Self>,
        options: SubscribeOptions,
        identifier: Option<u32>,
        fits: impl Fn(&Delivery) -> bool,
    ) -> Option<Delivery> {
        let for_member = |mut delivery: Delivery| {
            delivery.qos = delivery.message.qos.min(options.qos);
            delivery.retain = delivery.message.retain && options.retain_as_published;
            delivery.subscriptions = identifier.into_iter().collect();
            delivery.group = Some(Arc::clone(self));
            delivery
        };
        let mut members = self.members();
        let fits_member = |delivery: &Delivery| fits(&for_member(delivery.clone()));
        let taken = loop {
            let taken = match members.returned.front() {
                Some(returned) if fits_member(returned) => members.returned.pop_front(),
                Some(_) => None,
                None => self.mailbox.take_if(fits_member),
            };
            let taken = for_member(taken?);
            if !taken
                .place()
                .is_some_and(|place| members.held.remove(&place))
            {
                break taken;
            }
        };
        if let (Some(place), true) = (taken.place(), taken.qos != Qos::AtMostOnce) {
            members.taken.insert(place);
        }
        drop(members);
        if !self.is_empty() {
            self.wake();
        }
        Some(taken)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members().returned.is_empty() && self.mailbox.is_empty()
    }

    /// A member's session has it from before a restart.
    pub(crate) fn hold(&self, place: Place) {
        self.members().held.insert(place);
    }

    /// A member has acknowledged it, or will get it from its own session.
    pub(crate) fn settled(&self, place: Place) {
        self.members().taken.remove(&place);
    }

    /// A member's session ended without acknowledging it.
    pub(crate) fn give_back(&self, delivery: Delivery) {
        let mut members = self.members();
        if let Some(place) = delivery.place() {
            members.taken.remove(&place);
        }
        members.returned.push_back(delivery);
        drop(members);
        self.wake();
    }

    /// Where the group goes on after a restart. Messages that a member has, and whose session
    /// was not saved with them, are given out again.
    pub(crate) fn cursors(&self) -> Vec<Offset> {
        let mut cursors = self.mailbox.cursors();
        let members = self.members();
        let returned = members.returned.iter().filter_map(Delivery::place);
        for place in returned.chain(members.taken.iter().copied()) {
            cursors[place.stream] = cursors[place.stream].min(place.offset);
        }
        cursors
    }
}

impl Members {
    fn ask(&mut self) {
        if self.unasked == 0 {
            return;
        }
        self.unasked -= 1;
        if let Some(next) = self.present.pop_front() {
            next.wake();
            self.present.push_back(next);
        }
    }
}
