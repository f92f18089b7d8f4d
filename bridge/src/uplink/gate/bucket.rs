//! A token bucket in bits per second. Pure: time is an argument, counted from any fixed moment.
//!
//! Kept as the moment at which the link is free again, so that what was sent without asking (an
//! acknowledgement, a SYN) can be charged too: the next one then waits a little longer.

use std::fmt;
use std::time::Duration;

/// A link that was idle may catch up for so long. Longer than a timer is late on a busy machine,
/// shorter than anything that a full queue at the modem would let an alert feel.
pub(super) const BURST: Duration = Duration::from_millis(20);
/// What is sent at once on a slow link: the payload of one segment with timestamps on Ethernet.
pub(super) const CHUNK_BYTES_MIN: usize = 1448;
/// What is sent at once on the quickest link.
pub(super) const CHUNK_BYTES_MAX: usize = 32 * 1024;

/// Bits per second on the wire, never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BitRate(u64);

impl BitRate {
    /// Nothing is sent on purpose any slower: one segment would take more than a minute.
    pub const LEAST: Self = Self(200);

    /// `None` below [`BitRate::LEAST`].
    #[must_use]
    pub fn new(bits_per_second: u64) -> Option<Self> {
        (bits_per_second >= Self::LEAST.0).then_some(Self(bits_per_second))
    }

    #[must_use]
    pub fn bits_per_second(self) -> u64 {
        self.0
    }

    /// How long `bytes` occupy the link.
    fn time(self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 8 * 1_000_000_000 / u128::from(self.0);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// What is sent at once: as much as the link takes in [`BURST`], and at least a segment, so
    /// that an urgent write never waits for more of a bulky one.
    pub(super) fn chunk_bytes(self) -> usize {
        let bytes = u128::from(self.0) / 8 * BURST.as_millis() / 1_000;
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        bytes.clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX)
    }
}

impl fmt::Display for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            rate if rate % 1_000_000 == 0 => write!(f, "{} Mbit/s", rate / 1_000_000),
            rate if rate % 1_000 == 0 => write!(f, "{} kbit/s", rate / 1_000),
            rate => write!(f, "{rate} bit/s"),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Bucket {
    rate: Option<BitRate>,
    free_at: Duration,
}

impl Bucket {
    /// Without a rate everything passes at once.
    pub(super) fn new(rate: Option<BitRate>) -> Self {
        Self {
            rate,
            free_at: Duration::ZERO,
        }
    }

    pub(super) fn rate(&self) -> Option<BitRate> {
        self.rate
    }

    /// What is owed at the old rate is forgiven: it was for another link.
    pub(super) fn set_rate(&mut self, rate: Option<BitRate>, now: Duration) {
        (self.rate, self.free_at) = (rate, now);
    }

    /// When the next chunk may go; not in the future means now.
    pub(super) fn ready_at(&self) -> Duration {
        self.free_at
    }

    /// `bytes` go now, asked for or not.
    pub(super) fn charge(&mut self, bytes: u64, now: Duration) {
        if let Some(rate) = self.rate {
            let earliest = now.saturating_sub(BURST);
            self.free_at = self.free_at.max(earliest) + rate.time(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// Sends chunks of `chunk` whenever the bucket lets one go, looking every millisecond.
    fn sent_within(rate: BitRate, chunk: u64, time: Duration) -> u64 {
        let (mut bucket, mut now, mut sent) = (Bucket::new(Some(rate)), Duration::ZERO, 0);
        while now < time {
            while bucket.ready_at() <= now {
                bucket.charge(chunk, now);
                sent += chunk;
            }
            now += MILLISECOND;
        }
        sent
    }

    #[test]
    fn the_rate_is_held_and_used_to_the_full() {
        for (kbit, chunk) in [(256, 1500), (8_000, 1500), (8_000, 20_000), (64, 200)] {
            let rate = BitRate::new(kbit * 1_000).unwrap();
            let sent = sent_within(rate, chunk, Duration::from_secs(30));
            let (least, most) = (kbit * 125 * 30, kbit * 125 * 30 + kbit * 125 / 50 + chunk);
            assert!((least..=most).contains(&sent), "{rate}: {sent} of {least}");
        }
    }

    #[test]
    fn idling_saves_up_no_more_than_a_burst() {
        let mut bucket = Bucket::new(BitRate::new(8_000_000));
        let now = Duration::from_secs(3_600);
        let mut burst = 0;
        while bucket.ready_at() <= now {
            bucket.charge(1_000, now);
            burst += 1_000;
        }
        // 20 ms at 1 MB/s, and the chunk that goes when nothing is owed.
        assert_eq!(burst, 21_000);
    }

    #[test]
    fn what_went_unasked_is_paid_by_what_comes_next() {
        let mut bucket = Bucket::new(BitRate::new(8_000));
        let now = Duration::from_secs(1);
        bucket.charge(20, now);
        assert_eq!(bucket.ready_at(), now);
        bucket.charge(1_000, now);
        bucket.charge(52, now);
        assert_eq!(bucket.ready_at(), now + Duration::from_millis(1_052));
        bucket.set_rate(BitRate::new(256_000), now);
        assert_eq!(bucket.ready_at(), now);
        bucket.set_rate(None, now);
        bucket.charge(1 << 40, now);
        assert!(bucket.ready_at() <= now);
    }

    #[test]
    fn a_chunk_is_a_segment_on_a_slow_link_and_twenty_milliseconds_on_a_quick_one() {
        let chunk = |bits| BitRate::new(bits).unwrap().chunk_bytes();
        assert_eq!(chunk(256_000), CHUNK_BYTES_MIN);
        assert_eq!(chunk(8_000_000), 20_000);
        assert_eq!(chunk(1_000_000_000), CHUNK_BYTES_MAX);
        assert!(BitRate::new(0).is_none());
    }
}
