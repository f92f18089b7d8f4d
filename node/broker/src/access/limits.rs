//! How much one client, and one address, may ask of the node. Pure: time is an argument.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tokio::time::Instant as TokioInstant;

/// Limits on clients. `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections open at once from one address.
    pub connections_per_address: Option<usize>,
    /// Connection attempts per second from one address; as many again may come in a burst.
    pub connects_per_second: Option<u32>,
    /// Failed logins of one address, and of one user, before further ones are delayed.
    pub login_failures: Option<u32>,
    /// What one client may publish per second. Beyond it the node reads it more slowly.
    pub publish_messages_per_second: Option<u32>,
    pub publish_bytes_per_second: Option<u32>,
}

impl Limits {
    pub(crate) const DEFAULT: Self = Self {
        connections_per_address: None,
        connects_per_second: None,
        login_failures: Some(5),
        publish_messages_per_second: None,
        publish_bytes_per_second: None,
    };
}

/// Addresses whose connection rate is remembered. Who was quiet for some seconds need not be.
const ADDRESSES_MAX: usize = 4096;

/// What counts as one address: in IPv6 a /64, the smallest block that a site is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct AddressGroup(IpAddr);

impl AddressGroup {
    pub(crate) fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) if !address.is_loopback() => {
                IpAddr::V6((address.to_bits() >> 64 << 64).into())
            }
            canonical => canonical,
        })
    }
}

/// Tokens that come back at a steady rate. May be overdrawn: then the debt is waited off.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    pub(super) const fn full(per_second: u32, now: Instant) -> Self {
        Self {
            tokens: per_second as f64,
            at: now,
        }
    }

    fn refill(&mut self, per_second: u32, now: Instant) {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        let (rate, full) = (f64::from(per_second), f64::from(per_second.max(1)));
        self.tokens = (self.tokens + since * rate).min(full);
        self.at = now;
    }

    /// Takes one token if there is one.
    pub(super) fn take(&mut self, per_second: u32, now: Instant) -> bool {
        self.refill(per_second, now);
        let fits = self.tokens >= 1.0;
        if fits {
            self.tokens -= 1.0;
        }
        fits
    }

    fn is_full(&self, per_second: u32, now: Instant) -> bool {
        let mut later = *self;
        later.refill(per_second, now);
        later.tokens >= f64::from(per_second)
    }
}

/// Why an address may not open one more connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crowded {
    TooMany,
    TooFast,
}

/// Who is connected from where, and how fast they came.
#[derive(Debug, Default)]
pub(crate) struct Doors {
    open: HashMap<AddressGroup, usize>,
    arrivals: HashMap<AddressGroup, Bucket>,
}

impl Doors {
    /// Counts an attempt. Whoever gets `Ok` calls [`Doors::left`] once.
    pub(crate) fn enter(
        &mut self,
        from: AddressGroup,
        limits: &Limits,
        now: Instant,
    ) -> Result<(), Crowded> {
        if let Some(per_second) = limits.connects_per_second
            && !self.arrive(from, per_second, now)
        {
            return Err(Crowded::TooFast);
        }
        let open = self.open.entry(from).or_default();
        if limits
            .connections_per_address
            .is_some_and(|most| *open >= most)
        {
            return Err(Crowded::TooMany);
        }
        *open += 1;
        Ok(())
    }

    pub(crate) fn left(&mut self, from: AddressGroup) {
        let Some(open) = self.open.get_mut(&from) else {
            return;
        };
        *open -= 1;
        if *open == 0 {
            self.open.remove(&from);
        }
    }

    fn arrive(&mut self, from: AddressGroup, per_second: u32, now: Instant) -> bool {
        if !self.arrivals.contains_key(&from) && self.arrivals.len() >= ADDRESSES_MAX {
            // Who has all tokens back is as good as unknown; if all are busy, the longest unseen.
            self.arrivals
                .retain(|_, bucket| !bucket.is_full(per_second, now));
            if self.arrivals.len() >= ADDRESSES_MAX {
                let oldest = self.arrivals.iter().min_by_key(|(_, bucket)| bucket.at);
                if let Some(oldest) = oldest.map(|(from, _)| *from) {
                    self.arrivals.remove(&oldest);
                }
            }
        }
        let bucket = self.arrivals.entry(from);
        let bucket = bucket.or_insert_with(|| Bucket::full(per_second, now));
        bucket.take(per_second, now)
    }
}

/// One client's publish rate. What is over it is not refused: reading rests until it is even again,
/// and the client's own TCP window tells it to slow down.
#[derive(Debug)]
pub(crate) struct Pace {
    messages: Option<(u32, Bucket)>,
    bytes: Option<(u32, Bucket)>,
    rests_until: Option<TokioInstant>,
}

impl Pace {
    pub(crate) fn new(limits: &Limits) -> Self {
        let now = Instant::now();
        let bucket = |per_second: u32| (per_second, Bucket::full(per_second, now));
        Self {
            messages: limits.publish_messages_per_second.map(bucket),
            bytes: limits.publish_bytes_per_second.map(bucket),
            rests_until: None,
        }
    }

    /// Counts a publish; true if reading has to rest now. Without limits, nobody looks at the clock.
    pub(crate) fn spend(&mut self, bytes: usize, clock: impl FnOnce() -> TokioInstant) -> bool {
        if self.messages.is_none() && self.bytes.is_none() {
            return false;
        }
        let now = clock();
        #[expect(
            clippy::cast_precision_loss,
            reason = "a packet has less than 2^28 bytes"
        )]
        let costs = [(&mut self.messages, 1.0), (&mut self.bytes, bytes as f64)];
        let mut rest = Duration::ZERO;
        for (bucket, cost) in costs {
            if let Some((per_second, bucket)) = bucket {
                bucket.refill(*per_second, now.into_std());
                bucket.tokens -= cost;
                let debt = -bucket.tokens / f64::from(*per_second);
                rest = rest.max(Duration::try_from_secs_f64(debt).unwrap_or_default());
            }
        }
        self.rests_until = (!rest.is_zero()).then(|| now + rest);
        self.rests()
    }

    pub(crate) const fn rests(&self) -> bool {
        self.rests_until.is_some()
    }

    pub(crate) const fn rests_until(&self) -> Option<TokioInstant> {
        self.rests_until
    }

    /// Ends a rest that is over.
    pub(crate) fn wake(&mut self, now: TokioInstant) {
        self.rests_until = self.rests_until.filter(|until| *until > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(address: &str) -> AddressGroup {
        AddressGroup::of(address.parse().expect("an address"))
    }

    #[test]
    fn addresses_are_grouped_as_they_are_given_out() {
        assert_eq!(group("2001:db8::1"), group("2001:db8::ffff:1:2:3"));
        assert_ne!(group("2001:db8::1"), group("2001:db8:0:1::1"));
        assert_eq!(group("::ffff:10.0.0.7"), group("10.0.0.7"));
        assert_ne!(group("10.0.0.7"), group("10.0.0.8"));
        assert_ne!(group("::1"), group("::2"));
    }

    #[test]
    fn connections_are_counted_per_address() {
        let limits = Limits {
            connections_per_address: Some(2),
            ..Limits::DEFAULT
        };
        let (mut doors, now) = (Doors::default(), Instant::now());
        let (one, other) = (group("10.0.0.1"), group("10.0.0.2"));
        assert_eq!(doors.enter(one, &limits, now), Ok(()));
        assert_eq!(doors.enter(one, &limits, now), Ok(()));
        assert_eq!(doors.enter(one, &limits, now), Err(Crowded::TooMany));
        assert_eq!(doors.enter(other, &limits, now), Ok(()));
        doors.left(one);
        assert_eq!(doors.enter(one, &limits, now), Ok(()));
        doors.left(one);
        doors.left(one);
        doors.left(other);
        assert!(doors.open.is_empty(), "nobody is remembered");
    }

    #[test]
    fn attempts_are_limited_per_second_and_the_table_is_bounded() {
        let limits = Limits {
            connects_per_second: Some(3),
            ..Limits::DEFAULT
        };
        let (mut doors, start) = (Doors::default(), Instant::now());
        let one = group("10.0.0.1");
        let at = |millis| start + Duration::from_millis(millis);
        let mut tries = |millis| doors.enter(one, &limits, at(millis)).is_ok();
        assert_eq!([0, 0, 0, 0].map(&mut tries), [true, true, true, false]);
        assert!(!tries(300) && tries(400) && !tries(400));
        assert_eq!([9000; 4].map(&mut tries), [true, true, true, false]);
        for number in 0..3 * ADDRESSES_MAX as u32 {
            let from = AddressGroup(IpAddr::V4(number.into()));
            doors
                .enter(from, &limits, at(9001))
                .expect("the first time");
        }
        assert_eq!(doors.arrivals.len(), ADDRESSES_MAX);
    }

    #[test]
    fn a_publisher_over_its_rate_rests_until_it_is_even() {
        let limits = Limits {
            publish_messages_per_second: Some(10),
            publish_bytes_per_second: Some(1000),
            ..Limits::DEFAULT
        };
        let start = TokioInstant::now();
        let mut pace = Pace::new(&limits);
        for _ in 0..10 {
            assert!(!pace.spend(10, || start), "a second's worth at once");
        }
        assert!(pace.spend(10, || start));
        let even = pace.rests_until().expect("resting");
        assert!((0.09..0.11).contains(&(even - start).as_secs_f64()));
        pace.wake(start);
        assert!(pace.rests());
        pace.wake(even);
        assert!(!pace.rests());
        let later = start + Duration::from_secs(10);
        assert!(
            pace.spend(4000, || later),
            "a large one passes, and is waited off"
        );
        let even = pace.rests_until().expect("resting");
        assert!((2.99..3.01).contains(&(even - later).as_secs_f64()));
        let mut free = Pace::new(&Limits::DEFAULT);
        assert!(!free.spend(usize::MAX, || unreachable!("no limits")));
    }
}
