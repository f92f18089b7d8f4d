//! How much comes a second, as a mean that forgets.

use std::time::Duration;

/// An exponentially weighted mean: what came a half-life ago counts half of what comes now. It
/// stands still while nothing is added, and is unknown until it was watched for long enough.
#[derive(Debug, Clone)]
pub struct Rate {
    half_life: Duration,
    known_after: Duration,
    watched: Duration,
    /// The mean, too small by the weight of the time before anybody watched.
    sum: f64,
    weight: f64,
}

impl Rate {
    pub fn new(half_life: Duration, known_after: Duration) -> Self {
        Self {
            half_life,
            known_after,
            watched: Duration::ZERO,
            sum: 0.0,
            weight: 0.0,
        }
    }

    /// So many came in that time.
    pub fn add(&mut self, count: u64, took: Duration) {
        if took.is_zero() {
            return;
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "a mean is not exact to the digit"
        )]
        let rate = count as f64 / took.as_secs_f64();
        let forgotten = 1.0 - 0.5_f64.powf(took.as_secs_f64() / self.half_life.as_secs_f64());
        self.sum += forgotten * (rate - self.sum);
        self.weight += forgotten * (1.0 - self.weight);
        self.watched = self.watched.saturating_add(took);
    }

    pub fn per_second(&self) -> Option<f64> {
        (self.watched >= self.known_after && self.weight > 0.0).then(|| self.sum / self.weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rate() -> Rate {
        Rate::new(60 * SECOND, 5 * SECOND)
    }

    fn close(rate: &Rate, expected: f64) -> bool {
        let found = rate.per_second();
        found.is_some_and(|found| (found - expected).abs() <= expected * 0.01 + 1e-9)
    }

    #[test]
    fn it_is_unknown_at_first_and_right_from_then_on() {
        let mut rate = rate();
        for _ in 0..4 {
            rate.add(100, SECOND);
            assert_eq!(rate.per_second(), None);
        }
        rate.add(100, SECOND);
        assert!(close(&rate, 100.0), "{rate:?}");
    }

    #[test]
    fn after_a_half_life_it_is_half_way_there() {
        let mut rate = rate();
        for _ in 0..3_600 {
            rate.add(100, SECOND);
        }
        for _ in 0..60 {
            rate.add(0, SECOND);
        }
        assert!(close(&rate, 50.0), "{rate:?}");
        // However often it is looked at.
        rate.add(0, 60 * SECOND);
        assert!(close(&rate, 25.0), "{rate:?}");
    }

    #[test]
    fn no_time_is_no_sample() {
        let mut rate = rate();
        rate.add(100, 10 * SECOND);
        rate.add(1_000_000, Duration::ZERO);
        assert!(close(&rate, 10.0), "{rate:?}");
    }
}
