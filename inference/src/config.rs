//! What a model is bound to, checked once so that the rest of the crate need not doubt it.

use crate::alert::{Alerting, Severity};
use crate::asset::Asset;
use crate::canary::Canary;
use crate::drift::{DriftOptions, drift_memory_bytes};
use crate::feature::Features;
use crate::input::{Fill, Input};
use crate::isolation::HostCommand;
use crate::manifest::{FOLDER_RULE, is_folder_name};
use crate::output::Output;
use crate::state;
use skerry_store::StreamName;
use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

/// Replaced by each asset's name in a source.
pub const ASSET: &str = "{asset}";

/// Most assets one model watches. With the other limits it bounds an append, see `engine`.
pub const ASSETS_MAX: usize = 500;
/// Most columns of a row.
pub const COLUMNS_MAX: usize = 64;
/// Most rows of a window.
pub const ROWS_MAX: usize = 4_096;
/// Most values of a window: 64 KiB of `f32` per asset.
pub const WINDOW_VALUES_MAX: usize = 16_384;
/// Most features of a window, all columns together.
pub(crate) const WINDOW_FEATURES_MAX: usize = 1_024;
/// Most grid points between a value and the end of the wait for older ones: what each column keeps
/// values for.
pub(crate) const LATE_POINTS_MAX: u128 = 32;
/// Most grid points that a value is carried over: what one silence may be filled with.
const HELD_POINTS_MAX: u128 = 100_000;
const NAME_BYTES_MAX: usize = 64;

/// A value older than this is not carried into a row, and a window never spans a longer hole.
pub const STALE_AFTER_DEFAULT: Duration = Duration::from_secs(60);

/// All models of a node.
#[derive(Debug, Clone, Default)]
pub struct Config {
    pub models: Vec<Model>,
    /// What the processes are started with that models are loaded and run in.
    pub host: HostCommand,
    /// Where versions of models lie that can be activated: `<folder>/<model>/<version>/`.
    pub versions: Option<PathBuf>,
    /// The stream in which changes of versions are recorded.
    pub events: Option<StreamName>,
}

/// When a row is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// With each value of the first input; the other columns hold what they last had.
    Clock,
    /// At each multiple of the grid's period, by the times of the values themselves.
    Grid(Grid),
}

/// Rows at even distances, whenever the values came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    pub period: Duration,
    /// A row is made once a value this much younger has come; what comes for it later is late.
    pub late: Duration,
    /// Whether late values are reported in the stream of alerts. They are always counted.
    pub report_late: bool,
}

/// A window by time over rows that come when they come: what is computed of it must not depend
/// on their number, so each input has features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub window: Duration,
    /// From one score to the next.
    pub every: Duration,
}

/// What a score is, told in each record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputKind {
    #[default]
    Score,
    /// Of one class; the label is beside it.
    Class,
    /// Remaining useful life.
    Rul,
    /// How unusual the window is.
    Anomaly,
}

/// What a model may take; beyond that it is disabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// For one window.
    pub time_max: Duration,
    /// For the loaded model and the window it works on.
    pub memory_max_bytes: u64,
}

impl Default for Budget {
    /// A thousand times what a model for a box this size takes.
    fn default() -> Self {
        Self {
            time_max: Duration::from_secs(5),
            memory_max_bytes: 256 * 1024 * 1024,
        }
    }
}

/// A model as configured. [`Model::new`] turns it into one that can be run.
#[derive(Debug, Clone)]
pub struct ModelOptions {
    /// Part of every derived record's source: `<name>/<asset>`.
    pub name: String,
    pub file: PathBuf,
    pub assets: Vec<String>,
    /// Rows of a window.
    pub rows: usize,
    /// Rows from one score to the next; on a grid also the multiple of its period that scores are
    /// made at.
    pub step: usize,
    pub pace: Pace,
    /// If the window is a time and not a number of rows; `rows` is then the most it may have, and
    /// `step` of no meaning.
    pub span: Option<Span>,
    /// In the order of the columns.
    pub inputs: Vec<Input>,
    /// See [`STALE_AFTER_DEFAULT`].
    pub stale_after: Duration,
    /// Which number of the answer is the score.
    pub output: Output,
    pub kind: OutputKind,
    pub alerting: Alerting,
    /// Watches the inputs, where the model's package says what they looked like in training.
    pub drift: Option<DriftOptions>,
    pub budget: Budget,
    /// The version that runs beside the live one to be compared, unless a command chose another.
    pub shadow: Option<String>,
    /// Holds each version that is activated against the one before.
    pub canary: Option<Canary>,
    /// The streams that scores are written to, and alerts with all other events.
    pub scores: StreamName,
    pub alerts: StreamName,
}

impl ModelOptions {
    /// A model with the defaults of the configuration: a score for each row, and a warning at or
    /// above `raise`.
    #[must_use]
    pub fn new(name: &str, file: PathBuf, inputs: Vec<Input>, raise: f32) -> Self {
        let stream = |name| StreamName::new(name).expect("the names in this file are valid");
        Self {
            name: name.to_owned(),
            file,
            assets: Vec::new(),
            rows: 1,
            step: 1,
            pace: Pace::Clock,
            span: None,
            inputs,
            stale_after: STALE_AFTER_DEFAULT,
            output: Output::default(),
            kind: OutputKind::default(),
            alerting: Alerting::at(Severity::Warning, raise, raise),
            drift: None,
            budget: Budget::default(),
            shadow: None,
            canary: None,
            scores: stream("scores"),
            alerts: stream("alerts"),
        }
    }
}

/// What is wrong with a model's configuration, and under which key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub key: &'static str,
    pub message: String,
}

/// [`ModelOptions`] that passed their checks.
#[derive(Debug, Clone)]
pub struct Model(ModelOptions);

impl std::ops::Deref for Model {
    type Target = ModelOptions;

    fn deref(&self) -> &ModelOptions {
        &self.0
    }
}

impl Model {
    /// Reports every problem at once. What only the model file can tell is [`Model::check`]'s.
    pub fn new(options: ModelOptions) -> Result<Self, Vec<Problem>> {
        let model = Self(options);
        let mut problems = model.naming_problems();
        problems.extend(model.window_problems());
        let grid = model.grid().map(|grid| grid.period);
        for input in &model.inputs {
            problems.extend(input.problems(grid));
        }
        problems.extend(model.alerting.problems());
        if let Some(drift) = &model.drift {
            problems.extend(drift.problems());
        }
        problems.extend(model.canary.iter().flat_map(Canary::problems));
        if problems.is_empty() {
            problems.extend(model.append_problem());
        }
        if problems.is_empty() {
            Ok(model)
        } else {
            Err(problems)
        }
    }

    fn naming_problems(&self) -> Vec<Problem> {
        let mut checks = Checks::default();
        let (name, assets) = (&self.name, &self.assets);
        checks.expect(is_name(name), "name", || format!("{name:?}: {NAME_RULE}"));
        let count = assets.len();
        checks.expect((1..=ASSETS_MAX).contains(&count), "assets", || {
            format!("{count} assets: name 1 to {ASSETS_MAX}")
        });
        if let Some(version) = &self.shadow {
            checks.expect(is_folder_name(version), "shadow", || {
                format!("{version:?} is no version: {FOLDER_RULE}")
            });
        }
        let mut seen = HashSet::new();
        for asset in assets {
            checks.expect(is_name(asset), "assets", || {
                format!("{asset:?}: {NAME_RULE}")
            });
            checks.expect(seen.insert(asset), "assets", || {
                format!("{asset:?} is named twice")
            });
        }
        let differs = |input: &Input| input.source.template().contains(ASSET);
        checks.expect(
            count < 2 || self.inputs.iter().any(differs),
            "inputs",
            || format!("no input contains {ASSET}, so all {count} assets would be the same"),
        );
        checks.0
    }

    fn window_problems(&self) -> Vec<Problem> {
        let mut checks = Checks::default();
        let (rows, step, columns) = (self.rows, self.step, self.columns());
        checks.expect((1..=COLUMNS_MAX).contains(&columns), "inputs", || {
            format!("{columns} columns: bind 1 to {COLUMNS_MAX}")
        });
        checks.expect((1..=ROWS_MAX).contains(&rows), "window", || {
            format!("{rows} rows: a window has 1 to {ROWS_MAX}")
        });
        checks.expect(
            rows.saturating_mul(columns) <= WINDOW_VALUES_MAX,
            "window",
            || format!("{rows} rows of {columns} columns: at most {WINDOW_VALUES_MAX} values"),
        );
        checks.expect((1..=ROWS_MAX).contains(&step), "step", || {
            format!("{step} rows between scores: use 1 to {ROWS_MAX}")
        });
        if self.sums_up() {
            let (_, features) = self.tensor();
            checks.expect(features <= WINDOW_FEATURES_MAX, "inputs", || {
                format!("{features} features: at most {WINDOW_FEATURES_MAX}")
            });
        }
        let stale_after = self.stale_after;
        checks.expect(!stale_after.is_zero(), "stale_after", || {
            "0 would make every value stale".to_owned()
        });
        if let Some(span) = self.span {
            checks.expect(self.grid().is_none() && self.sums_up(), "window", || {
                "a window by time has as many rows as come: give it a `grid`, or its inputs \
                 `features`"
                    .to_owned()
            });
            checks.expect(!span.every.is_zero(), "every", || {
                "0 would never end".to_owned()
            });
        }
        if let Some(Grid { period, late, .. }) = self.grid() {
            let points = |time: Duration| time.as_nanos() / period.as_nanos().max(1);
            checks.expect(!period.is_zero(), "grid", || "0 is no distance".to_owned());
            checks.expect(points(late) <= LATE_POINTS_MAX, "late", || {
                format!("{late:?} is more than {LATE_POINTS_MAX} points of the grid, {period:?}")
            });
            checks.expect(
                points(stale_after) <= HELD_POINTS_MAX,
                "stale_after",
                || format!("{stale_after:?} is more than {HELD_POINTS_MAX} points of the grid"),
            );
            let linear = |input: &Input| input.fill == Fill::Linear;
            checks.expect(
                !late.is_zero() || !self.inputs.iter().any(linear),
                "late",
                || {
                    "`linear` needs the value after, too: wait at least as long as it takes from \
                     one value to the next"
                        .to_owned()
                },
            );
        }
        checks.0
    }

    /// What one round may have to write must fit an append, see `engine`.
    fn append_problem(&self) -> Option<Problem> {
        let fits = state::touches_max(self).is_some();
        (!fits).then(|| Problem {
            key: "assets",
            message: format!(
                "one record feeds so many of {} assets and {} columns that what follows from it \
                 cannot be written at once; split the assets among several models",
                self.assets.len(),
                self.columns()
            ),
        })
    }

    pub(crate) fn grid(&self) -> Option<Grid> {
        match self.pace {
            Pace::Clock => None,
            Pace::Grid(grid) => Some(grid),
        }
    }

    /// Columns of a row.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.inputs.iter().map(Input::columns).sum()
    }

    /// The input that a column belongs to.
    pub(crate) fn input_of(&self, column: usize) -> &Input {
        let mut end = 0;
        let found = self.inputs.iter().find(|input| {
            end += input.columns();
            column < end
        });
        found.expect("a column belongs to an input")
    }

    /// Whether the tensor is not the window's rows but features of its columns.
    pub(crate) fn sums_up(&self) -> bool {
        let of_window = |input: &Input| input.burst.is_none() && !input.features.is_empty();
        self.inputs.iter().any(of_window)
    }

    /// Rows and columns of what the graph is given. Where inputs have features over the window,
    /// that is one row of them, in their order; of an input without, the last value.
    #[must_use]
    pub fn tensor(&self) -> (usize, usize) {
        if !self.sums_up() {
            return (self.rows, self.columns());
        }
        let features = |input: &Input| match input.burst {
            Some(_) => input.columns(),
            None => input.features.len().max(1),
        };
        (1, self.inputs.iter().map(features).sum())
    }

    /// The longest stretch of samples that a feature of frequencies is computed of.
    fn transforms_bytes(&self) -> usize {
        let of = |input: &Input| {
            let samples = input.burst.map_or(self.rows, |burst| burst.samples_max);
            Features::bytes(&input.features, samples)
        };
        self.inputs.iter().map(of).max().unwrap_or(0)
    }

    /// Bytes that the windows and held values of all its assets take, used or not: known from the
    /// configuration alone. The graph itself and tract's code come on top.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let drift = self.drift.map_or(0, |_| drift_memory_bytes(self.columns()));
        self.assets.len() * (Asset::new(self).bytes() + drift) + self.transforms_bytes()
    }

    /// The streams its inputs live in, each once, in the order of the inputs.
    #[must_use]
    pub fn streams(&self) -> Vec<StreamName> {
        let mut streams: Vec<StreamName> = Vec::new();
        for input in &self.inputs {
            if !streams.contains(&input.stream) {
                streams.push(input.stream.clone());
            }
        }
        streams
    }
}

/// Problems found so far.
#[derive(Default)]
struct Checks(Vec<Problem>);

impl Checks {
    fn expect(&mut self, holds: bool, key: &'static str, message: impl FnOnce() -> String) {
        if !holds {
            let message = message();
            self.0.push(Problem { key, message });
        }
    }
}

const NAME_RULE: &str = "use 1 to 64 letters, digits, `-`, `_` and `.`";

fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Hold;
    use crate::fixture;
    use crate::input::{Scaling, Source};

    fn keys(change: impl FnOnce(&mut ModelOptions)) -> Vec<&'static str> {
        let mut options = fixture::options();
        change(&mut options);
        let problems = Model::new(options).err().unwrap_or_default();
        problems.iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn good_options_make_a_model() {
        assert_eq!(keys(|_| ()), Vec::<&str>::new());
    }

    #[test]
    fn every_problem_is_reported_at_once_with_its_key() {
        let found = keys(|options| {
            options.name = "two words".to_owned();
            options.assets = vec!["a".to_owned(), "a".to_owned()];
            options.rows = 0;
            options.step = 0;
            options.alerting = Alerting::at(Severity::Warning, 0.5, 0.6);
            options.alerting.hold = Hold::Scores(0);
        });
        assert_eq!(found, ["name", "assets", "window", "step", "clear", "hold"]);
    }

    #[test]
    fn sizes_and_sources_have_limits() {
        assert_eq!(keys(|options| options.rows = ROWS_MAX + 1), ["window"]);
        assert_eq!(
            keys(|options| options.rows = WINDOW_VALUES_MAX),
            ["window", "window"]
        );
        assert_eq!(keys(|options| options.inputs.clear()), ["inputs"]);
        assert_eq!(
            keys(|options| options.inputs[0].scaling = Scaling::Standard {
                mean: 0.0,
                std: 0.0
            }),
            ["inputs"]
        );
        let wildcard = Source::Mqtt {
            topic: "plant/+".to_owned(),
            pointer: "value".to_owned(),
        };
        assert_eq!(
            keys(|options| options.inputs[1].source = wildcard),
            ["inputs", "inputs"]
        );
    }
}
