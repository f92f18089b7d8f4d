//! How long to wait before the next attempt: doubling, capped, and never in step with others.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(250);
/// Long enough to spare a PLC that is down, short enough to be back soon after it is up.
const CAP: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(crate) const fn new() -> Self {
        Self { next: FIRST }
    }

    /// The wait for this attempt, of which a random quarter is taken off: fifty nodes that lost
    /// the same switch do not come back at the same moment.
    pub(crate) fn wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(CAP);
        // Every RandomState has keys of its own: randomness enough for a jitter.
        let random = RandomState::new().hash_one(0_u8) % 1000;
        wait.mul_f64(1.0 - random as f64 / 4000.0)
    }

    pub(crate) const fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_start_over() {
        let mut backoff = Backoff::new();
        let waits: Vec<Duration> = (0..12).map(|_| backoff.wait()).collect();
        assert!(waits[0] <= FIRST && waits[0] >= FIRST.mul_f64(0.75));
        assert!(waits[11] <= CAP && waits[11] >= CAP.mul_f64(0.75));
        backoff.reset();
        assert!(backoff.wait() <= FIRST);
    }
}
