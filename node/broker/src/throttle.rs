//! One log line a minute for each reason, however often it happens: a port scan is no flood.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(crate) struct Throttle(Mutex<BTreeMap<&'static str, Quiet>>);

#[derive(Debug)]
struct Quiet {
    since: Instant,
    kept: u64,
}

impl Throttle {
    /// Whether it is time for a line, and how many were kept back since the last one.
    pub(crate) fn line(&self, reason: &'static str, now: Instant) -> Option<u64> {
        let mut reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(quiet) = reasons.get_mut(reason) else {
            reasons.insert(
                reason,
                Quiet {
                    since: now,
                    kept: 0,
                },
            );
            return Some(0);
        };
        if now < quiet.since + INTERVAL {
            quiet.kept += 1;
            return None;
        }
        quiet.since = now;
        Some(std::mem::take(&mut quiet.kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_minute_tells_of_all_that_were_kept_back() {
        let throttle = Throttle::default();
        let start = Instant::now();
        assert_eq!(throttle.line("a", start), Some(0));
        assert_eq!(throttle.line("b", start), Some(0));
        for second in 1..60 {
            assert_eq!(
                throttle.line("a", start + Duration::from_secs(second)),
                None
            );
        }
        assert_eq!(throttle.line("a", start + INTERVAL), Some(59));
        assert_eq!(throttle.line("a", start + INTERVAL), None);
        assert_eq!(throttle.line("a", start + 2 * INTERVAL), Some(1));
    }
}
