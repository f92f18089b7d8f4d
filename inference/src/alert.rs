//! From scores to alerts: a threshold with hysteresis, and a hold against single outliers.

use crate::config::Thresholds;
use serde::{Deserialize, Serialize};

/// What an asset's alert went through. Persisted with the asset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AlertState {
    raised: bool,
    /// Scores in a row on the far side of the threshold that counts now.
    run: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Transition {
    Raised,
    Cleared,
}

impl AlertState {
    pub(crate) fn is_raised(self) -> bool {
        self.raised
    }

    /// Takes the next score; says whether the alert changed with it.
    pub(crate) fn observe(&mut self, score: f32, thresholds: &Thresholds) -> Option<Transition> {
        let beyond = if self.raised {
            score <= thresholds.clear
        } else {
            score >= thresholds.raise
        };
        self.run = if beyond { self.run + 1 } else { 0 };
        if self.run < thresholds.hold {
            return None;
        }
        *self = Self {
            raised: !self.raised,
            run: 0,
        };
        Some(if self.raised {
            Transition::Raised
        } else {
            Transition::Cleared
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Transition::{Cleared, Raised};

    const THRESHOLDS: Thresholds = Thresholds {
        raise: 0.8,
        clear: 0.6,
        hold: 2,
    };

    fn transitions(thresholds: &Thresholds, scores: &[f32]) -> Vec<(usize, Transition)> {
        let mut state = AlertState::default();
        let seen = scores.iter().map(|score| state.observe(*score, thresholds));
        seen.enumerate()
            .filter_map(|(at, change)| Some((at, change?)))
            .collect()
    }

    #[test]
    fn raised_and_cleared_after_the_hold() {
        let scores = [0.1, 0.8, 0.9, 0.95, 0.6, 0.5, 0.1];
        assert_eq!(
            transitions(&THRESHOLDS, &scores),
            [(2, Raised), (5, Cleared)]
        );
    }

    #[test]
    fn an_outlier_raises_nothing_and_clears_nothing() {
        let scores = [0.9, 0.1, 0.9, 0.1, 0.9, 0.9, 0.2, 0.9, 0.2];
        assert_eq!(transitions(&THRESHOLDS, &scores), [(5, Raised)]);
    }

    #[test]
    fn between_the_thresholds_nothing_changes() {
        let scores = [0.9, 0.9, 0.7, 0.61, 0.79, 0.7, 0.7];
        assert_eq!(transitions(&THRESHOLDS, &scores), [(1, Raised)]);
    }

    #[test]
    fn a_hold_of_one_acts_at_once_even_where_both_thresholds_meet() {
        let thresholds = Thresholds {
            raise: 0.5,
            clear: 0.5,
            hold: 1,
        };
        let scores = [0.5, 0.5, 0.6, 0.4];
        let expected = [(0, Raised), (1, Cleared), (2, Raised), (3, Cleared)];
        assert_eq!(transitions(&thresholds, &scores), expected);
    }
}
