//! From scores to alerts: levels with hysteresis, a hold against single outliers, and a limit to
//! how often somebody is told.
//!
//! Each level has a state of its own; an asset's level is the highest that stands. The limit holds
//! back what would make things worse, never what makes them better, so that what was told last is
//! at worst too mild for a while: as soon as the limit admits it, the next score tells how things
//! stand, and how many changes were held back.

use crate::config::Problem;
use crate::runner::Score;
use serde::{Deserialize, Serialize};
use skerry_store::WallNanos;
use std::time::Duration;

/// One for each [`Severity`].
pub const LEVELS_MAX: usize = 3;
/// Most alerts that a [`RateLimit`] may admit in its time; each is remembered.
pub const RATE_ALERTS_MAX: usize = 16;
const HOLD_SCORES_MAX: u32 = 1_000;

/// How urgent an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Info,
    Warning,
    Critical,
}

/// Which side of a threshold is the bad one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Direction {
    /// The threshold and what is above.
    #[default]
    Above,
    /// The threshold and what is below, as with a remaining life.
    Below,
}

/// When a score becomes an alert of this severity, and when that is over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    pub severity: Severity,
    pub raise: f32,
    /// On the good side of `raise`, or the same.
    pub clear: f32,
}

/// How long scores must stay beyond a threshold for it to count, either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    Scores(u32),
    /// By the times of the windows' ends.
    Time(Duration),
}

/// At most `alerts` that get worse in any stretch of `per`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    pub alerts: usize,
    pub per: Duration,
}

/// What becomes of scores.
#[derive(Debug, Clone, PartialEq)]
pub struct Alerting {
    pub direction: Direction,
    /// The mildest first.
    pub levels: Vec<Level>,
    pub hold: Hold,
    pub rate: Option<RateLimit>,
    /// The same for all assets of the model together.
    pub rate_all: Option<RateLimit>,
    /// If not empty, what is judged is not the score but the class beside it: 1 if it is one of
    /// these, else 0.
    pub classes: Vec<String>,
}

impl Alerting {
    /// One level, raised at or above `raise` by the first such score.
    #[must_use]
    pub fn at(severity: Severity, raise: f32, clear: f32) -> Self {
        Self {
            direction: Direction::Above,
            levels: vec![Level {
                severity,
                raise,
                clear,
            }],
            hold: Hold::Scores(1),
            rate: None,
            rate_all: None,
            classes: Vec::new(),
        }
    }

    /// What is held against the thresholds.
    pub(crate) fn judged(&self, score: f32, class: Option<&str>) -> f32 {
        if self.classes.is_empty() {
            return score;
        }
        let bad = class.is_some_and(|class| self.classes.iter().any(|bad| bad == class));
        if bad { 1.0 } else { 0.0 }
    }

    /// Whether a score by itself is at or beyond the mildest threshold.
    pub(crate) fn alarms(&self, score: &Score) -> bool {
        let judged = self.judged(score.value, score.class.as_deref());
        self.oriented(judged) >= self.oriented(self.levels[0].raise)
    }

    /// Larger is worse.
    fn oriented(&self, score: f32) -> f32 {
        match self.direction {
            Direction::Above => score,
            Direction::Below => -score,
        }
    }

    pub(crate) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut expect = |holds: bool, key: &'static str, message: String| {
            if !holds {
                problems.push(Problem { key, message });
            }
        };
        let count = self.levels.len();
        expect(
            (1..=LEVELS_MAX).contains(&count),
            "levels",
            format!("{count} levels: use 1 to {LEVELS_MAX}"),
        );
        for Level { raise, clear, .. } in &self.levels {
            expect(
                raise.is_finite(),
                "threshold",
                format!("{raise} is no threshold"),
            );
            let (side, beyond) = match self.direction {
                Direction::Above => ("above", clear <= raise),
                Direction::Below => ("below", clear >= raise),
            };
            expect(
                clear.is_finite() && (beyond || !raise.is_finite()),
                "clear",
                format!("{clear} must not be {side} the threshold, {raise}"),
            );
        }
        for pair in self.levels.windows(2) {
            let [milder, worse] = pair else {
                unreachable!("windows of two have two");
            };
            expect(
                milder.severity < worse.severity
                    && self.oriented(milder.raise) < self.oriented(worse.raise)
                    && self.oriented(milder.clear) <= self.oriented(worse.clear),
                "levels",
                format!(
                    "the level at {} must follow one that is milder in its severity, its \
                     threshold and its clear",
                    worse.raise
                ),
            );
        }
        match self.hold {
            Hold::Scores(count) => expect(
                (1..=HOLD_SCORES_MAX).contains(&count),
                "hold",
                format!("{count} scores in a row: use 1 to {HOLD_SCORES_MAX}"),
            ),
            Hold::Time(time) => expect(!time.is_zero(), "hold", "0 holds nothing".to_owned()),
        }
        for (key, rate) in [("rate_limit", self.rate), ("rate_limit_all", self.rate_all)] {
            let Some(RateLimit { alerts, per }) = rate else {
                continue;
            };
            expect(
                (1..=RATE_ALERTS_MAX).contains(&alerts) && !per.is_zero(),
                key,
                format!("{alerts} alerts in {per:?}: use 1 to {RATE_ALERTS_MAX} in some time"),
            );
        }
        problems
    }
}

/// What an asset's alert went through. Persisted with the asset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AlertState {
    levels: [LevelState; LEVELS_MAX],
    /// What was told last: 0 for nothing, else one more than the index of the level.
    told: u8,
    /// Changes for the worse that nobody was told of.
    suppressed: u32,
    /// When the limit last admitted something; the newest first.
    admitted: [Option<WallNanos>; RATE_ALERTS_MAX],
}

/// Bytes of the state at most: runs and times of the levels, times of the limit, two counts.
pub(crate) const ALERT_BYTES_MAX: usize = LEVELS_MAX * 17 + RATE_ALERTS_MAX * 11 + 6;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct LevelState {
    raised: bool,
    /// Scores in a row on the far side of the threshold that counts now, and the first one's time.
    run: u32,
    since: Option<WallNanos>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Change {
    Raised,
    /// To a more severe level.
    Escalated,
    /// To a milder level.
    Eased,
    Cleared,
}

/// A change that somebody is told of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Transition {
    pub(crate) change: Change,
    /// Of the level that stands now, or of the one that is over.
    pub(crate) severity: Severity,
    /// What was passed.
    pub(crate) threshold: f32,
    /// Changes for the worse since the last one told, which were not.
    pub(crate) suppressed: u32,
}

impl AlertState {
    /// The severity that stands, told or not.
    pub(crate) fn severity(&self, alerting: &Alerting) -> Option<Severity> {
        let index = self.standing().checked_sub(1)?;
        alerting.levels.get(index).map(|level| level.severity)
    }

    /// 0 for none, else one more than the index of the highest raised level.
    fn standing(&self) -> usize {
        let raised = self.levels.iter().rposition(|level| level.raised);
        raised.map_or(0, |index| index + 1)
    }

    /// How many alerts of this asset somebody was told of less than `per` from `at`, either way:
    /// the windows of other assets may be ahead.
    pub(crate) fn told_near(&self, at: WallNanos, per: Duration) -> usize {
        let near = |time: &&WallNanos| u128::from(at.0.abs_diff(time.0)) < per.as_nanos();
        self.admitted.iter().flatten().filter(near).count()
    }

    /// Takes the next score, of a window that ended at `at`; says whether somebody is to be told.
    /// `others` is what [`AlertState::told_near`] says of the model's other assets.
    pub(crate) fn observe(
        &mut self,
        score: f32,
        at: WallNanos,
        alerting: &Alerting,
        others: usize,
    ) -> Option<Transition> {
        let before = self.standing();
        for (state, level) in self.levels.iter_mut().zip(&alerting.levels) {
            let score = alerting.oriented(score);
            let beyond = if state.raised {
                score <= alerting.oriented(level.clear)
            } else {
                score >= alerting.oriented(level.raise)
            };
            state.observe(beyond, at, alerting.hold);
        }
        // A level that is configured no more stands no more.
        for state in &mut self.levels[alerting.levels.len()..] {
            *state = LevelState::default();
        }
        let (told, standing) = (usize::from(self.told), self.standing());
        if standing > told && !self.admits(at, alerting, others) {
            self.suppressed += u32::from(standing > before);
            return None;
        }
        if standing == told {
            return None;
        }
        self.told = u8::try_from(standing).expect("LEVELS_MAX is small");
        let level = |index: usize| {
            let last = alerting.levels.len() - 1;
            alerting.levels[index.saturating_sub(1).min(last)]
        };
        let (change, severity, threshold) = match (told, standing) {
            (0, _) => (
                Change::Raised,
                level(standing).severity,
                level(standing).raise,
            ),
            (_, 0) => (Change::Cleared, level(told).severity, level(1).clear),
            _ if standing > told => (
                Change::Escalated,
                level(standing).severity,
                level(standing).raise,
            ),
            _ => (
                Change::Eased,
                level(standing).severity,
                level(standing + 1).clear,
            ),
        };
        Some(Transition {
            change,
            severity,
            threshold,
            suppressed: std::mem::take(&mut self.suppressed),
        })
    }

    /// Whether the limits let one more through, which is then remembered.
    fn admits(&mut self, at: WallNanos, alerting: &Alerting, others: usize) -> bool {
        let limits = [(alerting.rate, 0), (alerting.rate_all, others)];
        if limits.iter().all(|(limit, _)| limit.is_none()) {
            return true;
        }
        // What lies ahead was told by a clock that has been set back since: forgotten, so that
        // it cannot silence anybody until then.
        let known = self.admitted.into_iter().flatten();
        let mut known: heapless::Vec<_, RATE_ALERTS_MAX> =
            known.filter(|time| *time <= at).collect();
        let recent = |per: Duration| {
            let is_recent = |time: &&WallNanos| u128::from(at.0.abs_diff(time.0)) < per.as_nanos();
            known.iter().filter(is_recent).count()
        };
        let admits = |(limit, others): (Option<RateLimit>, usize)| {
            limit.is_none_or(|limit| recent(limit.per) + others < limit.alerts)
        };
        if !limits.into_iter().all(admits) {
            return false;
        }
        known.truncate(RATE_ALERTS_MAX - 1);
        self.admitted = [None; RATE_ALERTS_MAX];
        let newest_first = std::iter::once(at).chain(known);
        for (place, time) in self.admitted.iter_mut().zip(newest_first) {
            *place = Some(time);
        }
        true
    }
}

impl LevelState {
    fn observe(&mut self, beyond: bool, at: WallNanos, hold: Hold) {
        if !beyond {
            (self.run, self.since) = (0, None);
            return;
        }
        self.run = self.run.saturating_add(1);
        // A clock that was set back begins anew: the time that has passed is not known.
        let since = self.since.filter(|since| *since <= at).unwrap_or(at);
        self.since = Some(since);
        let held = match hold {
            Hold::Scores(count) => self.run >= count,
            Hold::Time(time) => (at.0.saturating_sub(since.0) as u128) >= time.as_nanos(),
        };
        if held {
            *self = Self {
                raised: !self.raised,
                run: 0,
                since: None,
            };
        }
    }
}

impl Change {
    /// For the worse.
    pub(crate) const fn is_alarm(self) -> bool {
        matches!(self, Self::Raised | Self::Escalated)
    }
}

#[cfg(test)]
#[path = "alert_tests.rs"]
mod tests;
