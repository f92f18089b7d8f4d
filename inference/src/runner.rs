//! What runs a window, and one run of it with its panics caught.

use crate::error::RunFault;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Something that turns a window, row by row, into a score.
pub(crate) trait Runner {
    fn run(&mut self, window: &[f32]) -> Result<Score, String>;
}

/// What a model says of a window.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Score {
    pub(crate) value: f32,
    /// The label that a classifier gives beside it.
    pub(crate) class: Option<Arc<str>>,
}

impl From<f32> for Score {
    fn from(value: f32) -> Self {
        Self { value, class: None }
    }
}

/// A score and what it took.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) score: Score,
    pub(crate) took: Duration,
}

/// One score, whatever the model does short of never returning.
pub(crate) fn run_caught(runner: &mut dyn Runner, window: &[f32]) -> Result<Answer, RunFault> {
    let started = Instant::now();
    let score = catch_unwind(AssertUnwindSafe(|| runner.run(window)))
        .map_err(|panic| RunFault::Panicked(words(&*panic)))?
        .map_err(RunFault::Failed)?;
    if !score.value.is_finite() {
        return Err(RunFault::NotFinite(score.value));
    }
    Ok(Answer {
        score,
        took: started.elapsed(),
    })
}

pub(crate) fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scripted<F>(F);

    impl<F: FnMut(&[f32]) -> Result<f32, String>> Runner for Scripted<F> {
        fn run(&mut self, window: &[f32]) -> Result<Score, String> {
            (self.0)(window).map(Score::from)
        }
    }

    fn run(runner: impl FnMut(&[f32]) -> Result<f32, String>) -> Result<Score, RunFault> {
        run_caught(&mut Scripted(runner), &[0.25, 0.5]).map(|answer| answer.score)
    }

    #[test]
    fn a_score_comes_back() {
        assert_eq!(run(|window| Ok(window.iter().sum())), Ok(Score::from(0.75)));
    }

    #[test]
    fn panics_nonsense_and_refusals_are_faults() {
        assert_eq!(
            run(|_| panic!("index out of range")),
            Err(RunFault::Panicked("index out of range".to_owned()))
        );
        for nonsense in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(matches!(run(|_| Ok(nonsense)), Err(RunFault::NotFinite(_))));
        }
        assert_eq!(
            run(|_| Err("no".to_owned())),
            Err(RunFault::Failed("no".to_owned()))
        );
    }
}
