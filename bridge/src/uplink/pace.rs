//! How much goes into one transaction, and how long to wait after a failure. Pure: time spent and
//! randomness are arguments.

use std::time::Duration;

/// Never less: below this a transaction is all overhead, also on a satellite link.
const SLICE_BYTES_MIN: usize = 8 * 1024;
/// A session that just began knows nothing of the link, so it begins small.
const SLICE_BYTES_FIRST: usize = 64 * 1024;
/// A transaction that takes longer than this makes the next one smaller: it keeps an abort cheap
/// and every request well within its timeout, also at 256 kbit/s.
const COMMIT_SLOW: Duration = Duration::from_secs(6);
/// A full transaction quicker than this makes the next one larger.
const COMMIT_QUICK: Duration = Duration::from_secs(2);
/// The same where our own gate shares the link out: what is urgent overtakes there in the middle
/// of a transaction, so that one may be long enough for the round trip after it not to count.
const PACED_COMMIT_SLOW: Duration = Duration::from_secs(16);
const PACED_COMMIT_QUICK: Duration = Duration::from_secs(8);

/// The size of the next transaction, learned from the last ones.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    bytes: usize,
    bytes_max: usize,
    /// While the cluster refuses something in a slice: how many records to try at most.
    records_max: u64,
}

impl Pace {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let bytes_max = bytes_max.max(SLICE_BYTES_MIN);
        Self {
            bytes: SLICE_BYTES_FIRST.min(bytes_max),
            bytes_max,
            records_max: u64::MAX,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn records_max(&self) -> u64 {
        self.records_max
    }

    /// A transaction of `bytes` took `took` until all of it was written, over a link that our gate
    /// shares out or over another.
    pub(crate) fn committed(&mut self, bytes: usize, took: Duration, paced: bool) {
        let (quick, slow) = match paced {
            true => (PACED_COMMIT_QUICK, PACED_COMMIT_SLOW),
            false => (COMMIT_QUICK, COMMIT_SLOW),
        };
        self.records_max = self.records_max.saturating_mul(2);
        if took > slow {
            self.halve();
        } else if took < quick && bytes * 2 > self.bytes {
            self.bytes = (self.bytes * 2).min(self.bytes_max);
        }
    }

    /// The link failed under it.
    pub(crate) fn failed(&mut self) {
        self.halve();
    }

    /// The cluster refused something among `records`. True when it was the only one, and so is
    /// known; else the next slice is half as long.
    pub(crate) fn refused(&mut self, records: usize) -> bool {
        self.records_max = (records as u64 / 2).max(1);
        records <= 1
    }

    fn halve(&mut self) {
        self.bytes = (self.bytes / 2).max(SLICE_BYTES_MIN);
    }
}

/// Exponential waits with full jitter, so that a fleet that lost the same link does not come
/// back in step.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(first: Duration, max: Duration) -> Self {
        Self {
            first,
            max,
            failures: 0,
        }
    }

    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The next wait; `random` is uniform over `u64`. At least half of the ceiling, so that a
    /// broker that refuses at once is not hammered.
    pub(crate) fn next(&mut self, random: u64) -> Duration {
        let doubled = self.first.saturating_mul(1 << self.failures.min(16));
        let ceiling = doubled.min(self.max);
        self.failures = self.failures.saturating_add(1);
        let share = f64::from((random >> 32) as u32) / f64::from(u32::MAX);
        ceiling.mul_f64(0.5 + share / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 512 * 1024;

    #[test]
    fn a_quick_link_reaches_the_full_slice_and_a_slow_one_the_smallest() {
        let mut pace = Pace::new(MAX);
        for _ in 0..10 {
            pace.committed(pace.bytes(), Duration::from_millis(5), false);
        }
        assert_eq!(pace.bytes(), MAX);
        for _ in 0..10 {
            pace.committed(pace.bytes(), Duration::from_secs(20), false);
        }
        assert_eq!(pace.bytes(), SLICE_BYTES_MIN);
    }

    #[test]
    fn a_paced_link_has_longer_transactions() {
        let mut paced = Pace::new(MAX);
        let mut other = paced.clone();
        // 256 kbit/s and a round trip of 600 ms.
        for _ in 0..10 {
            for (pace, is_paced) in [(&mut paced, true), (&mut other, false)] {
                let took = Duration::from_millis(600 + pace.bytes() as u64 / 32);
                pace.committed(pace.bytes(), took, is_paced);
            }
        }
        assert_eq!((paced.bytes(), other.bytes()), (256 * 1024, 64 * 1024));
    }

    #[test]
    fn a_short_slice_says_nothing_about_the_link() {
        let mut pace = Pace::new(MAX);
        pace.committed(10, Duration::from_millis(5), false);
        assert_eq!(pace.bytes(), SLICE_BYTES_FIRST);
    }

    #[test]
    fn a_refused_record_is_cornered_in_logarithmic_time() {
        let (mut pace, poison, mut start, mut rounds) = (Pace::new(MAX), 700_u64, 0_u64, 0);
        let found = loop {
            rounds += 1;
            let slice = start..start.saturating_add(pace.records_max()).min(1_000);
            if !slice.contains(&poison) {
                start = slice.end;
                pace.committed(1, Duration::from_millis(1), false);
            } else if pace.refused((slice.end - slice.start) as usize) {
                break start;
            }
        };
        assert_eq!(found, poison);
        assert!(rounds < 60, "{rounds}");
    }

    #[test]
    fn waits_grow_to_the_cap_and_never_to_nothing() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        assert_eq!(backoff.next(0), Duration::from_millis(50));
        assert_eq!(backoff.next(u64::MAX), Duration::from_millis(200));
        for _ in 0..100 {
            backoff.next(0);
        }
        assert_eq!(backoff.next(u64::MAX), Duration::from_secs(5));
        assert!(backoff.next(0) >= Duration::from_millis(2_500));
        backoff.reset();
        assert_eq!(backoff.next(0), Duration::from_millis(50));
    }
}
