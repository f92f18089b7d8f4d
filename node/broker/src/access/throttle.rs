//! Guessing passwords gets slower with each failure, for an address and for a user. Pure: time is
//! an argument.

use super::limits::AddressGroup;
use super::users::NAME_BYTES_MAX;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// The first delay; each failure after it doubles it.
const DELAY: Duration = Duration::from_secs(1);
const DELAY_MAX: Duration = Duration::from_secs(300);
/// Without a failure for this long, all is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(900);
/// Addresses, users, and pairs of both that are remembered.
const ENTRIES_MAX: usize = 4096;

/// Failures of late.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    addresses: Table<AddressGroup>,
    users: Table<Box<str>>,
    /// Who logged in from where. There a user is judged by the address alone: a stranger who guesses
    /// at a device's password from elsewhere must not be able to lock that device out.
    known: HashMap<(Box<str>, AddressGroup), Instant>,
}

impl Throttle {
    /// How long this login has to wait; `None` if it may be tried.
    pub(crate) fn wait(
        &self,
        from: Option<AddressGroup>,
        user: &str,
        now: Instant,
    ) -> Option<Duration> {
        let by_address = from.and_then(|from| self.addresses.wait(&from, now));
        let is_known = from.is_some_and(|from| self.known.contains_key(&(user.into(), from)));
        let by_user = match is_known {
            true => None,
            false => self.users.wait(user, now),
        };
        by_address.max(by_user)
    }

    pub(crate) fn failed(
        &mut self,
        from: Option<AddressGroup>,
        user: &str,
        free: u32,
        now: Instant,
    ) {
        if let Some(from) = from {
            self.addresses.failed(from, free, now);
        }
        // A longer name is nobody's.
        if user.len() <= NAME_BYTES_MAX {
            self.users.failed(user.into(), free, now);
        }
    }

    /// Failures stay on the account: whoever has one password must not be able to clear the way for
    /// guessing others.
    pub(crate) fn succeeded(&mut self, from: Option<AddressGroup>, user: &str, now: Instant) {
        let Some(from) = from else {
            return;
        };
        let pair = (Box::from(user), from);
        if self.known.len() >= ENTRIES_MAX && !self.known.contains_key(&pair) {
            let oldest = self.known.iter().min_by_key(|(_, at)| **at);
            if let Some(oldest) = oldest.map(|(pair, _)| pair.clone()) {
                self.known.remove(&oldest);
            }
        }
        self.known.insert(pair, now);
    }
}

#[derive(Debug)]
struct Table<K>(HashMap<K, Failures>);

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
    until: Instant,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq + Clone> Table<K> {
    fn wait<Q>(&self, key: &Q, now: Instant) -> Option<Duration>
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let failures = self.0.get(key)?;
        (failures.until > now).then(|| failures.until - now)
    }

    fn failed(&mut self, key: K, free: u32, now: Instant) {
        if !self.0.contains_key(&key) {
            self.make_room(now);
        }
        let failures = self.0.entry(key).or_insert(Failures {
            count: 0,
            last: now,
            until: now,
        });
        if now.saturating_duration_since(failures.last) > FORGOTTEN_AFTER {
            failures.count = 0;
        }
        failures.count += 1;
        failures.last = now;
        if let Some(doublings) = failures.count.checked_sub(free.max(1)) {
            let delay = DELAY.saturating_mul(1 << doublings.min(16));
            failures.until = now + delay.min(DELAY_MAX);
        }
    }

    /// Gives up what is forgotten anyway, else who failed least and longest ago.
    fn make_room(&mut self, now: Instant) {
        if self.0.len() < ENTRIES_MAX {
            return;
        }
        self.0
            .retain(|_, failures| now.saturating_duration_since(failures.last) <= FORGOTTEN_AFTER);
        if self.0.len() >= ENTRIES_MAX {
            let least = self.0.iter().min_by_key(|(_, f)| (f.count, f.last));
            if let Some(least) = least.map(|(key, _)| key.clone()) {
                self.0.remove(&least);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    const FREE: u32 = 3;

    fn group(number: u32) -> AddressGroup {
        AddressGroup::of(IpAddr::V4(number.into()))
    }

    #[test]
    fn delays_double_up_to_five_minutes_and_are_forgotten() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        let from = Some(group(1));
        let mut now = start;
        let mut waits = Vec::new();
        for _ in 0..14 {
            throttle.failed(from, "ada", FREE, now);
            let wait = throttle.wait(from, "ada", now).unwrap_or_default();
            waits.push(wait.as_secs());
            now += wait;
        }
        assert_eq!(
            waits,
            [0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
        );
        assert_eq!(throttle.wait(from, "ada", now), None);
        now += FORGOTTEN_AFTER + DELAY;
        throttle.failed(from, "ada", FREE, now);
        assert_eq!(throttle.wait(from, "ada", now), None);
    }

    #[test]
    fn an_address_is_slowed_down_for_all_users_and_a_user_for_all_strange_addresses() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        throttle.succeeded(Some(group(7)), "ada", now);
        for _ in 0..FREE {
            throttle.failed(Some(group(1)), "ada", FREE, now);
        }
        assert!(throttle.wait(Some(group(1)), "bob", now).is_some());
        assert!(throttle.wait(Some(group(2)), "ada", now).is_some());
        assert!(throttle.wait(None, "ada", now).is_some());
        assert_eq!(throttle.wait(Some(group(2)), "bob", now), None);
        assert_eq!(
            throttle.wait(Some(group(7)), "ada", now),
            None,
            "not locked out"
        );
        for _ in 0..FREE {
            throttle.failed(Some(group(7)), "ada", FREE, now);
        }
        assert!(
            throttle.wait(Some(group(7)), "ada", now).is_some(),
            "nor exempt"
        );
    }

    #[test]
    fn the_tables_are_bounded_and_keep_the_worst() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for _ in 0..FREE {
            throttle.failed(Some(group(1)), "ada", FREE, now);
        }
        for number in 2..2 * ENTRIES_MAX as u32 {
            let user = number.to_string();
            throttle.failed(Some(group(number)), &user, FREE, now);
            throttle.succeeded(Some(group(number)), &user, now);
        }
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        throttle.failed(None, &long, FREE, now);
        assert!(!throttle.users.0.contains_key(long.as_str()));
        assert_eq!(throttle.addresses.0.len(), ENTRIES_MAX);
        assert_eq!(throttle.users.0.len(), ENTRIES_MAX);
        assert_eq!(throttle.known.len(), ENTRIES_MAX);
        assert!(throttle.wait(Some(group(1)), "", now).is_some());
        assert!(throttle.wait(None, "ada", now).is_some());
    }
}
