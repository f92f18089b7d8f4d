//! What a server grants for a subscription, as far as it can be believed: our clocks run by it.

use super::Granted;
use std::time::Duration;

/// No server publishes faster.
const INTERVAL_MIN: Duration = Duration::from_millis(1);
/// As long as a configuration can ask for.
const INTERVAL_MAX: Duration = Duration::from_secs(3_600);
/// A server that shows a sign of life less often than this, and so often was not asked for, has
/// miscounted: who believed it would not notice a dead line for hours.
const KEEP_ALIVE_MAX: Duration = Duration::from_secs(600);

/// The server's answer to a request for a subscription (Part 4, 5.13.2).
#[derive(Debug, Clone, Copy)]
pub(super) struct Revised {
    pub(super) id: u32,
    pub(super) interval_ms: f64,
    pub(super) keep_alive_count: u32,
    pub(super) lifetime_count: u32,
}

impl Revised {
    /// Where the answer makes no sense, what was asked for stands.
    pub(super) fn granted(self, interval: Duration, keep_alive_count: u32) -> Granted {
        let revised = Duration::try_from_secs_f64(self.interval_ms / 1000.0).ok();
        let sensible = INTERVAL_MIN..=INTERVAL_MAX.max(interval);
        let publishing_interval = revised
            .filter(|revised| sensible.contains(revised))
            .unwrap_or(interval);
        let keep_alive = publishing_interval.saturating_mul(self.keep_alive_count);
        let asked = publishing_interval.saturating_mul(keep_alive_count);
        let sensible = INTERVAL_MIN..=KEEP_ALIVE_MAX.max(asked);
        Granted {
            id: self.id,
            publishing_interval,
            keep_alive_count: match sensible.contains(&keep_alive) {
                true => self.keep_alive_count,
                false => keep_alive_count,
            },
            lifetime_count: self.lifetime_count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Duration = Duration::from_millis(500);
    const ASKED_COUNT: u32 = 6;

    fn granted(interval_ms: f64, keep_alive_count: u32) -> (Duration, u32) {
        let revised = Revised {
            id: 1,
            interval_ms,
            keep_alive_count,
            lifetime_count: 1,
        };
        let granted = revised.granted(ASKED, ASKED_COUNT);
        (granted.publishing_interval, granted.keep_alive_count)
    }

    #[test]
    fn sense_is_believed_and_nonsense_is_not() {
        let second = Duration::from_secs(1);
        assert_eq!(granted(1000.0, 10), (second, 10));
        assert_eq!(granted(1000.0, 0), (second, ASKED_COUNT));
        for nonsense in [f64::NAN, f64::INFINITY, -1.0, 0.0, 1e-9, 1e300, 1e20] {
            assert_eq!(granted(nonsense, 10), (ASKED, 10), "{nonsense}");
        }
        assert_eq!(granted(1000.0, u32::MAX), (second, ASKED_COUNT));
    }
}
