//! The data watchdog: whether the server behind a subscription still lives, by its own clock.
//!
//! Keep-alives prove that somebody answers, not that anything is sampled. The subscription
//! therefore has one more item, the server's clock, which changes for ever: while it arrives all
//! is well, and it costs one value every ten seconds. If it stays away the clock is read, and
//!
//! - it runs: the subscription is mute, and a new one is made;
//! - it stands still: the server hangs, and is connected to anew;
//! - other values still come: nothing is done, a PLC may have no good clock; status tells.
//!
//! Either is done only after the clock was seen to arrive and to run, so that a server without
//! one is not connected to again and again.

use super::error::Error;
use super::ingest::Ingest;
use super::link::Link;
use super::status::Clock;
use super::wire::{Session, clock_item};
use skerry_store::WallNanos;
use std::time::Duration;
use tokio::time::Instant;

/// How often the server is asked to tell its time.
pub(crate) const CLOCK_SAMPLING: Duration = Duration::from_secs(10);
/// Samples that may be missed; until a doubt is settled the clock is read this often.
const SAMPLES_MISSED: u32 = 3;
/// Without a doubt it is read this often, for how far it is off.
const MEASURE_INTERVAL: Duration = Duration::from_secs(600);
/// A step beyond this is a jump: a reading is off by the way there and back, and a sample by the
/// publishing interval, too.
const JUMP: Duration = Duration::from_secs(2);
/// Beyond this the clock is wrong enough that people should hear of it.
pub(crate) const OFF: Duration = Duration::from_secs(5);

/// `ServiceLevel` of a server that can serve in full, at least (Part 4, 6.6.2.4.2).
pub(crate) const SERVICE_HEALTHY: u8 = 200;

/// One connection's view of the server's clock. Time is an argument.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Whether the subscription has the clock as an item.
    sampled: bool,
    /// Whether it was seen to arrive by itself, more than once.
    pub(crate) proven: bool,
    /// Longest time between two samples that is no reason to doubt.
    patience: Duration,
    /// When the subscription last brought the clock, and any other value.
    clock_at: Instant,
    data_at: Instant,
    first: bool,
    last: Option<Reading>,
    asked_at: Option<Instant>,
    /// Whether the last reading found nothing sampled. It takes a second one to be sure: it may
    /// be us who were stopped for a while.
    doubted: bool,
    /// When to read the clock although nothing is in doubt.
    measure_at: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    clock: WallNanos,
    at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Well,
    /// The subscription brings nothing although the server lives.
    Mute,
    /// The server answers, and does nothing else.
    Hung,
}

/// What a reading tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) clock: Clock,
    /// By how much it was set, in milliseconds, where it was.
    pub(crate) jumped_ms: Option<i64>,
    pub(crate) verdict: Verdict,
}

impl Watch {
    /// `sampling` as the server grants it, where it takes the clock as an item.
    pub(crate) fn new(
        sampling: Option<Duration>,
        proven: bool,
        keep_alive: Duration,
        now: Instant,
    ) -> Self {
        let patience = sampling.unwrap_or(CLOCK_SAMPLING).max(CLOCK_SAMPLING);
        Self {
            sampled: sampling.is_some(),
            proven: proven && sampling.is_some(),
            patience: patience.saturating_mul(SAMPLES_MISSED) + keep_alive,
            clock_at: now,
            data_at: now,
            first: true,
            last: None,
            asked_at: None,
            doubted: false,
            measure_at: now,
        }
    }

    /// When to read the clock next.
    pub(crate) fn due(&self) -> Instant {
        if !self.sampled {
            return self.measure_at;
        }
        let overdue = self.clock_at + self.patience;
        let doubt = match self.asked_at {
            Some(asked) => overdue.max(asked + CLOCK_SAMPLING),
            None => overdue,
        };
        doubt.min(self.measure_at)
    }

    /// The subscription brought a message.
    pub(crate) fn message(&mut self, clock: Option<WallNanos>, data: bool, now: Instant) {
        if data {
            self.data_at = now;
        }
        if let Some(clock) = clock {
            self.sample(clock, now);
        }
    }

    /// For so long nobody looked: a log that makes us wait is no fault of the server.
    pub(crate) fn stalled(&mut self, time: Duration) {
        self.clock_at += time;
        self.data_at += time;
    }

    fn sample(&mut self, clock: WallNanos, now: Instant) {
        self.clock_at = now;
        let running = self.last.is_none_or(|last| clock > last.clock);
        if !std::mem::take(&mut self.first) && running {
            self.proven = true;
        }
        let step = self.last.map_or(0, |last| last.step(clock, now));
        if step.unsigned_abs() > JUMP.as_millis() as u64 {
            // It may be an old one that waited for us; a reading tells.
            self.measure_at = now;
        }
    }

    /// The clock was read: `None` where the server tells no time.
    pub(crate) fn reading(
        &mut self,
        clock: Option<WallNanos>,
        wall: WallNanos,
        now: Instant,
    ) -> Option<Finding> {
        self.asked_at = Some(now);
        self.measure_at = now + MEASURE_INTERVAL;
        let clock = clock?;
        let silent = now.duration_since(self.clock_at) > self.patience;
        let idle = now.duration_since(self.data_at) > self.patience;
        let before = self.last;
        let elapsed = before.map_or(Duration::ZERO, |last| now.duration_since(last.at));
        // Two readings at the same moment tell nothing.
        let stands = elapsed > JUMP && before.is_some_and(|last| clock == last.clock);
        let step = before.map_or(0, |last| last.step(clock, now));
        let jumped = !stands && step.unsigned_abs() > JUMP.as_millis() as u64;
        if !stands {
            self.last = Some(Reading { clock, at: now });
        }
        let doubted = silent && idle && self.proven;
        let sure = std::mem::replace(&mut self.doubted, doubted) && doubted;
        let verdict = match stands {
            true if sure => Verdict::Hung,
            false if sure && self.sampled => Verdict::Mute,
            _ => Verdict::Well,
        };
        if !self.sampled {
            // Readings are all there is to go by.
            self.proven |= before.is_some() && !stands;
            self.measure_at = now + CLOCK_SAMPLING;
            self.clock_at = if stands { self.clock_at } else { now };
        }
        let offset_ms = milliseconds(clock.0 - wall.0);
        Some(Finding {
            clock: Clock {
                offset_ms,
                wrong: offset_ms.unsigned_abs() > OFF.as_millis() as u64,
                stands_still: stands,
            },
            jumped_ms: jumped.then_some(step),
            verdict,
        })
    }
}

impl Reading {
    /// How much further the clock went since than the time that passed, in milliseconds.
    fn step(&self, clock: WallNanos, now: Instant) -> i64 {
        let passed = i64::try_from(now.duration_since(self.at).as_millis()).unwrap_or(i64::MAX);
        milliseconds(clock.0.saturating_sub(self.clock.0)).saturating_sub(passed)
    }
}

impl Link {
    /// Has the server sample its clock in this subscription too, after everything else it is asked
    /// for; how often it does. One that cannot is read instead.
    pub(super) async fn sample_clock(
        &self,
        session: &Session,
        subscription: u32,
    ) -> Result<Option<Duration>, Error> {
        let item = clock_item(CLOCK_SAMPLING);
        match session.monitor(subscription, &[item]).await {
            Ok(results) => {
                let kept = results.into_iter().next().and_then(Result::ok);
                Ok(kept.map(|kept| kept.sampling))
            }
            Err(error) if error.is_broken_connection() => Err(error),
            Err(error) => {
                tracing::debug!(endpoint = self.ingest.config.name, %error, "clock");
                Ok(None)
            }
        }
    }

    pub(super) fn watch(&self, strand: usize, keep_alive: Duration) -> Watch {
        let progress = self.strands[strand].progress.as_ref();
        let sampling = progress.and_then(|progress| progress.clock_sampling_ms);
        let proven = progress.is_some_and(|progress| progress.clock_proven);
        let sampling = sampling.map(Duration::from_millis);
        Watch::new(sampling, proven, keep_alive, Instant::now())
    }

    /// Reads the server's clock and says what is to be said of it.
    pub(super) async fn look(
        &mut self,
        session: &Session,
        strand: usize,
        watch: &mut Watch,
    ) -> Result<Verdict, Error> {
        let (asked, asked_wall) = (Instant::now(), WallNanos::now());
        let (shown, level) = session.clock().await?;
        self.ingest.told_service_level(level);
        // It was read about half-way.
        let half = asked.elapsed() / 2;
        let half_nanos = i64::try_from(half.as_nanos()).unwrap_or(i64::MAX);
        let wall = WallNanos(asked_wall.0.saturating_add(half_nanos));
        let Some(finding) = watch.reading(shown, wall, asked + half) else {
            return Ok(Verdict::Well);
        };
        let endpoint = self.ingest.config.name.as_str();
        let before = self.ingest.status.clock(finding.clock);
        let (clock, offset_ms) = (finding.clock, finding.clock.offset_ms);
        // Another group may have been told by the same jump.
        let new = before
            .is_none_or(|before| before.offset_ms.abs_diff(offset_ms) > JUMP.as_millis() as u64);
        if let Some(jumped_ms) = finding.jumped_ms.filter(|_| new) {
            tracing::warn!(endpoint, jumped_ms, offset_ms, "the server's clock was set");
        }
        let was = |of: fn(&Clock) -> bool| before.as_ref().is_some_and(of);
        if clock.wrong && !was(|clock| clock.wrong) {
            tracing::warn!(
                endpoint,
                offset_ms,
                "the server's clock and ours differ; its timestamps are taken as they are"
            );
        } else if !clock.wrong && was(|clock| clock.wrong) {
            tracing::info!(
                endpoint,
                offset_ms,
                "the server's clock and ours agree again"
            );
        }
        if clock.stands_still && !was(|clock| clock.stands_still) {
            tracing::warn!(endpoint, "the server's clock stands still");
        }
        if let Some(progress) = &mut self.strands[strand].progress {
            // After a verdict the next connection or subscription has to prove itself anew.
            progress.clock_proven = watch.proven && finding.verdict == Verdict::Well;
        }
        Ok(finding.verdict)
    }
}

impl Ingest {
    /// How well the server can serve, by its own word.
    fn told_service_level(&self, level: Option<u8>) {
        let endpoint = self.config.name.as_str();
        let degraded = |level: Option<u8>| level.is_some_and(|level| level < SERVICE_HEALTHY);
        let before = self.status.service_level(level);
        match (degraded(before), degraded(level)) {
            (false, true) => tracing::warn!(
                endpoint,
                level,
                "the server says that it can serve only in part: its values may be missing or old"
            ),
            (true, false) => tracing::info!(endpoint, level, "the server can serve in full again"),
            _ => {}
        }
    }
}

const fn milliseconds(nanos: i64) -> i64 {
    nanos / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP_ALIVE: Duration = Duration::from_secs(3);
    const SECOND: i64 = 1_000_000_000;

    /// A server whose clock shows what it is told to.
    struct Bench {
        watch: Watch,
        start: Instant,
    }

    impl Bench {
        fn new(sampled: bool) -> Self {
            let start = Instant::now();
            let sampling = sampled.then_some(CLOCK_SAMPLING);
            let watch = Watch::new(sampling, false, KEEP_ALIVE, start);
            Self { watch, start }
        }

        fn at(&self, second: u64) -> Instant {
            self.start + Duration::from_secs(second)
        }

        fn sample(&mut self, second: u64, clock: i64) {
            let now = self.at(second);
            self.watch.sample(WallNanos(clock * SECOND), now);
        }

        fn read(&mut self, second: u64, clock: i64) -> Finding {
            let now = self.at(second);
            let wall = WallNanos(i64::try_from(second).unwrap() * SECOND);
            let clock = Some(WallNanos(clock * SECOND));
            self.watch.reading(clock, wall, now).unwrap()
        }

        fn is_due(&self, second: u64) -> bool {
            self.watch.due() <= self.at(second)
        }
    }

    #[test]
    fn a_clock_that_arrives_is_not_read() {
        let mut bench = Bench::new(true);
        assert!(bench.is_due(0));
        assert_eq!(bench.read(0, 0).verdict, Verdict::Well);
        for second in (1..300).step_by(10) {
            bench.sample(second, i64::try_from(second).unwrap());
            assert!(!bench.is_due(second + 30), "{second}");
        }
        assert!(bench.watch.proven);
        assert!(bench.is_due(291 + 34), "a doubt is settled");
    }

    #[test]
    fn a_subscription_that_brings_nothing_is_mute_once() {
        let mut bench = Bench::new(true);
        bench.read(0, 0);
        bench.sample(1, 1);
        bench.sample(11, 11);
        assert_eq!(bench.read(46, 46).verdict, Verdict::Well, "not sure yet");
        assert_eq!(bench.read(56, 56).verdict, Verdict::Mute);
        // The next subscription has to prove itself first.
        let mut bench = Bench::new(true);
        bench.read(0, 0);
        bench.sample(1, 1);
        for second in [46, 56, 66] {
            let clock = i64::try_from(second).unwrap();
            assert_eq!(bench.read(second, clock).verdict, Verdict::Well);
        }
    }

    #[test]
    fn time_in_which_nobody_looked_is_no_silence() {
        let mut bench = Bench::new(true);
        bench.read(0, 0);
        bench.sample(1, 1);
        bench.sample(11, 11);
        bench.watch.stalled(Duration::from_secs(300));
        assert!(!bench.is_due(330));
        assert!(bench.is_due(311 + 34));
    }

    #[test]
    fn a_clock_that_stands_still_is_a_server_that_hangs_unless_values_come() {
        let mut bench = Bench::new(true);
        bench.read(0, 0);
        bench.sample(1, 1);
        bench.sample(11, 11);
        bench.read(12, 12);
        bench.watch.message(None, true, bench.at(44));
        for second in [46, 56] {
            let finding = bench.read(second, 12);
            assert_eq!(finding.verdict, Verdict::Well);
            assert!(finding.clock.stands_still);
        }
        assert_eq!(bench.read(90, 12).verdict, Verdict::Well);
        assert_eq!(bench.read(100, 12).verdict, Verdict::Hung);
    }

    #[test]
    fn a_server_without_a_clock_that_runs_is_left_alone() {
        let mut bench = Bench::new(false);
        for second in (0..300).step_by(10) {
            assert!(bench.is_due(second));
            assert_eq!(bench.read(second, 7).verdict, Verdict::Well, "{second}");
        }
        let now = bench.at(300);
        assert_eq!(bench.watch.reading(None, WallNanos(0), now), None);
    }

    #[test]
    fn without_an_item_readings_tell_that_a_server_hangs() {
        let mut bench = Bench::new(false);
        bench.read(0, 0);
        bench.read(10, 10);
        assert_eq!(bench.read(50, 10).verdict, Verdict::Well);
        assert_eq!(bench.read(60, 10).verdict, Verdict::Hung);
    }

    #[test]
    fn a_jump_is_told_with_its_size_and_being_off_for_as_long_as_it_is() {
        let mut bench = Bench::new(true);
        assert!(!bench.read(0, 4).clock.wrong);
        bench.sample(1, 5);
        bench.sample(11, 3_600 + 15);
        assert!(bench.is_due(11), "a jump is looked at");
        let finding = bench.read(11, 3_600 + 15);
        assert_eq!(finding.jumped_ms, Some(3_600_000));
        assert_eq!(
            (finding.clock.offset_ms, finding.clock.wrong),
            (3_604_000, true)
        );
        assert_eq!(bench.read(21, 3_600 + 25).jumped_ms, None);
        let back = bench.read(31, 31);
        assert_eq!(
            (back.jumped_ms, back.clock.wrong),
            (Some(-3_604_000), false)
        );
    }
}
