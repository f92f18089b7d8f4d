//! A new version on trial against the one that ran before.
//!
//! ```text
//!   activated ──► both score the same windows ──► so many windows compared ──► passed
//!                        │           │
//!                        │           └─ the one before failed ──► void: the new one stays, unproven
//!                        └─ more windows differ than may ──► the one before runs again
//! ```
//! It is void too when its time is over before so many windows were compared: an input that has
//! ended must not keep two versions in memory for good.
//!
//! Going back is decided with the first window that is one too many, be that the eleventh or the
//! last: the windows that are still to come could not make up for it.
//!
//! Pure. Who runs both, and what follows from a verdict, is in `shadow` and `lifecycle`.

use crate::alert::Alerting;
use crate::config::Problem;
use crate::runner::Score;
use serde::{Deserialize, Serialize};
use skerry_store::WallNanos;
use std::time::Duration;

/// A million windows of a second each are twelve days.
pub const CANARY_WINDOWS_MAX: u32 = 1_000_000;

/// For how long, and how far apart, an activated version is held against the one before it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Canary {
    /// Windows that both score; the version has then passed.
    pub windows: u32,
    /// Without one, windows differ where one version alarms and the other does not.
    pub difference_max: Option<Difference>,
    /// Of the windows, in percent.
    pub differing_percent_max: f64,
    /// For the windows to be there; that of a node that is off does not count.
    pub time_max: Duration,
}

impl Default for Canary {
    fn default() -> Self {
        Self {
            windows: 1_000,
            difference_max: None,
            differing_percent_max: 1.0,
            time_max: Duration::from_secs(30 * 24 * 3_600),
        }
    }
}

/// How far apart two scores of a window may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Difference {
    Absolute(f64),
    /// Of the score of the version before.
    Percent(f64),
}

impl Difference {
    fn is_exceeded(self, apart: f64, before: f64) -> bool {
        match self {
            Self::Absolute(most) => apart > most,
            Self::Percent(most) => apart > before.abs() * most / 100.0,
        }
    }
}

impl Canary {
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let problem = |message: String| Problem {
            key: "canary",
            message,
        };
        let mut problems = Vec::new();
        if !(1..=CANARY_WINDOWS_MAX).contains(&self.windows) {
            let windows = self.windows;
            problems.push(problem(format!(
                "{windows} windows: use 1 to {CANARY_WINDOWS_MAX}"
            )));
        }
        let Some(Difference::Absolute(most) | Difference::Percent(most)) = self.difference_max
        else {
            return problems;
        };
        if !(most.is_finite() && most >= 0.0) {
            problems.push(problem(format!("{most} is no difference_max")));
        }
        problems
    }

    /// Windows that may differ.
    pub(crate) fn differing_max(&self) -> u32 {
        (f64::from(self.windows) * self.differing_percent_max / 100.0) as u32
    }

    fn told(&self, alerting: &Alerting) -> String {
        match self.difference_max {
            Some(Difference::Absolute(most)) => format!("{most} is allowed"),
            Some(Difference::Percent(most)) => format!("{most} % is allowed"),
            None if alerting.classes.is_empty() => "the side of the threshold counts".to_owned(),
            None => "being alerted on counts".to_owned(),
        }
    }
}

/// Whether both give a label, and not the same.
pub(crate) fn labels_differ(one: &Score, other: &Score) -> bool {
    matches!((&one.class, &other.class), (Some(one), Some(other)) if one != other)
}

/// How far a trial has come. Kept in the catalog, so that it goes on after a restart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// That both scored.
    pub(crate) windows: u32,
    pub(crate) differing: u32,
    /// Of the differing ones, those with another label.
    pub(crate) classes_differing: u32,
    pub(crate) difference_max: f64,
    /// Event time of the end of the window where they differed most.
    pub(crate) difference_max_time: WallNanos,
    /// Of the trial's time.
    pub(crate) spent: Duration,
}

/// What a trial came to, with the figures in words.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    Passed(String),
    Differs(String),
    /// Nothing can be compared any more.
    Void(String),
}

/// A trial under way.
#[derive(Debug, Clone)]
pub(crate) struct Phase {
    /// What ran before, in words.
    pub(crate) before: String,
    pub(crate) canary: Canary,
    pub(crate) progress: Progress,
}

/// What is told of a trial under way.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CanaryReport {
    /// Windows that both scored, since the activation.
    pub windows_total: u32,
    /// When that many are, it has passed.
    pub windows_max: u32,
    pub differing_total: u32,
    /// When more than that do, the version before runs again.
    pub differing_max: u32,
    pub classes_differing_total: u32,
    pub difference_max: f64,
    /// Event time of the end of the window where they differed most.
    pub difference_max_time_ms: Option<i64>,
}

impl Phase {
    /// Takes what both said of a window that ended at `time`.
    pub(crate) fn take(
        &mut self,
        live: &Score,
        before: &Score,
        alerting: &Alerting,
        time: WallNanos,
    ) {
        let apart = (f64::from(live.value) - f64::from(before.value)).abs();
        let progress = &mut self.progress;
        if progress.windows == 0 || apart > progress.difference_max {
            progress.difference_max = apart;
            progress.difference_max_time = time;
        }
        progress.windows += 1;
        let classes_differ = labels_differ(live, before);
        let differs = classes_differ
            || match self.canary.difference_max {
                Some(most) => most.is_exceeded(apart, f64::from(before.value)),
                None => alerting.alarms(live) != alerting.alarms(before),
            };
        progress.differing += u32::from(differs);
        progress.classes_differing += u32::from(classes_differ);
    }

    /// As soon as there is one.
    pub(crate) fn verdict(&self, alerting: &Alerting) -> Option<Verdict> {
        let Self {
            before,
            canary,
            progress,
        } = self;
        let (windows, differing) = (progress.windows, progress.differing);
        let differing_max = canary.differing_max();
        if differing <= differing_max && windows < canary.windows {
            return None;
        }
        let classes = match progress.classes_differing {
            0 => String::new(),
            count => format!(", in {count} the class is another one"),
        };
        let figures = format!(
            "{differing} of {windows} windows differ from {before}, of {} at most {differing_max} may; \
             scores were up to {} apart, {}{classes}",
            canary.windows,
            (progress.difference_max * 1e6).round() / 1e6,
            canary.told(alerting),
        );
        Some(match differing > differing_max {
            true => Verdict::Differs(figures),
            false => Verdict::Passed(figures),
        })
    }

    /// What it comes to when that is over.
    pub(crate) fn expired(&self) -> Verdict {
        let Canary {
            windows, time_max, ..
        } = self.canary;
        Verdict::Void(format!(
            "only {} of {windows} windows were compared with {} within {time_max:?}",
            self.progress.windows, self.before
        ))
    }

    pub(crate) fn report(&self) -> CanaryReport {
        let Self {
            canary, progress, ..
        } = self;
        let time = progress.difference_max_time.millis();
        CanaryReport {
            windows_total: progress.windows,
            windows_max: canary.windows,
            differing_total: progress.differing,
            differing_max: canary.differing_max(),
            classes_differing_total: progress.classes_differing,
            difference_max: progress.difference_max,
            difference_max_time_ms: (progress.windows > 0).then_some(time),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::{Direction, Severity};

    const TIME: WallNanos = WallNanos(7_000_000_000);

    fn phase(difference_max: Option<Difference>) -> Phase {
        let canary = Canary {
            windows: 10,
            difference_max,
            differing_percent_max: 20.0,
            ..Canary::default()
        };
        Phase {
            before: "version 1".to_owned(),
            canary,
            progress: Progress::default(),
        }
    }

    fn labelled(value: f32, class: &str) -> Score {
        Score {
            value,
            class: Some(class.into()),
        }
    }

    /// How many of these windows differ.
    fn differing(
        difference_max: Option<Difference>,
        alerting: &Alerting,
        pairs: &[(Score, Score)],
    ) -> u32 {
        let mut phase = phase(difference_max);
        for (live, before) in pairs {
            phase.take(live, before, alerting, TIME);
        }
        phase.progress.differing
    }

    fn pairs<const N: usize>(values: [(f32, f32); N]) -> [(Score, Score); N] {
        values.map(|(live, before)| (Score::from(live), Score::from(before)))
    }

    #[test]
    fn the_window_that_is_one_too_many_is_the_last() {
        let alerting = Alerting::at(Severity::Warning, 0.8, 0.8);
        let mut phase = phase(Some(Difference::Absolute(0.25)));
        for live in [0.5, 1.0, 0.5, 1.0] {
            phase.take(&live.into(), &0.5.into(), &alerting, TIME);
            assert_eq!(phase.verdict(&alerting), None);
        }
        phase.take(&1.5.into(), &0.5.into(), &alerting, TIME);
        let told = "3 of 5 windows differ from version 1, of 10 at most 2 may; scores were up to 1 \
                    apart, 0.25 is allowed";
        let verdict = phase.verdict(&alerting);
        assert_eq!(verdict, Some(Verdict::Differs(told.to_owned())));
        assert_eq!(phase.report().difference_max_time_ms, Some(7_000));
    }

    #[test]
    fn it_has_passed_when_all_windows_are_compared_and_few_differ() {
        let alerting = Alerting::at(Severity::Warning, 0.8, 0.8);
        let mut phase = phase(None);
        for live in [0.9, 0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1] {
            phase.take(&live.into(), &0.1.into(), &alerting, TIME);
            assert_eq!(phase.verdict(&alerting), None);
        }
        phase.take(&0.7.into(), &0.1.into(), &alerting, TIME);
        let verdict = phase.verdict(&alerting);
        assert!(matches!(verdict, Some(Verdict::Passed(_))), "{verdict:?}");
    }

    #[test]
    fn what_its_time_was_too_short_for_is_told() {
        let alerting = Alerting::at(Severity::Warning, 0.8, 0.8);
        let mut phase = phase(None);
        phase.canary.time_max = Duration::from_secs(90);
        phase.take(&0.9.into(), &0.1.into(), &alerting, TIME);
        let told = "only 1 of 10 windows were compared with version 1 within 90s";
        assert_eq!(phase.expired(), Verdict::Void(told.to_owned()));
    }

    #[test]
    fn differences_are_absolute_or_of_the_score_before() {
        let alerting = Alerting::at(Severity::Warning, 0.8, 0.8);
        let scores = pairs([(1.0, 1.25), (1.0, 1.5), (104.0, 100.0), (106.0, 100.0)]);
        let of = |most| differing(Some(most), &alerting, &scores);
        assert_eq!(of(Difference::Absolute(0.25)), 3);
        assert_eq!(of(Difference::Percent(5.0)), 3);
        assert_eq!(of(Difference::Percent(30.0)), 1);
    }

    #[test]
    fn without_a_difference_what_is_alerted_on_decides() {
        let mut alerting = Alerting::at(Severity::Warning, 0.8, 0.8);
        let scores = pairs([(0.9, 0.7), (0.1, 0.7), (0.9, 0.8)]);
        assert_eq!(differing(None, &alerting, &scores), 1);
        alerting.direction = Direction::Below;
        assert_eq!(differing(None, &alerting, &scores), 2, "0.8 is at it");
    }

    #[test]
    fn another_label_is_a_difference_however_near_the_scores() {
        let mut alerting = Alerting::at(Severity::Warning, 0.5, 0.5);
        alerting.classes = vec!["worn".to_owned()];
        let near = Some(Difference::Absolute(1.0));
        let worn = |value| labelled(value, "worn");
        let labels = [
            (worn(0.5), worn(0.6)),
            (labelled(0.5, "good"), worn(0.5)),
            (Score::from(0.5), worn(0.5)),
        ];
        assert_eq!(differing(near, &alerting, &labels), 1);
        assert_eq!(differing(None, &alerting, &labels), 2, "none is not worn");
    }
}
