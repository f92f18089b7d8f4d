//! What a model is bound to, checked once so that the rest of the crate need not doubt it.

use crate::asset::Asset;
use crate::isolation::HostCommand;
use crate::output::Output;
use skerry_store::StreamName;
use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

/// Replaced by each asset's name in a source.
pub const ASSET: &str = "{asset}";

/// Most assets one model watches. With the other limits it bounds an append, see `engine`.
pub const ASSETS_MAX: usize = 500;
/// Most tensor columns.
pub const COLUMNS_MAX: usize = 64;
/// Most rows of a window.
pub const ROWS_MAX: usize = 4_096;
/// Most values of a window: 64 KiB of `f32` per asset.
pub const WINDOW_VALUES_MAX: usize = 16_384;
const HOLD_MAX: u32 = 1_000;
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

/// Where a tensor column's values come from. Both may contain [`ASSET`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The configured name of an OPC-UA node.
    Opcua { name: String },
    /// An MQTT topic, and where in its JSON payload the number is (RFC 6901; empty: the whole).
    Mqtt { topic: String, pointer: String },
}

impl Source {
    fn template(&self) -> &str {
        match self {
            Self::Opcua { name } => name,
            Self::Mqtt { topic, .. } => topic,
        }
    }

    /// The record source this is for one asset.
    pub(crate) fn of(&self, asset: &str) -> String {
        self.template().replace(ASSET, asset)
    }
}

/// One tensor column: `value × scale + offset` of the source's latest value.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    pub source: Source,
    /// The stream the source's records are routed to.
    pub stream: StreamName,
    pub scale: f64,
    pub offset: f64,
}

/// How urgent this model's alerts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Info,
    Warning,
    Critical,
}

/// When a score becomes an alert, and when the alert is over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// Raised at or above.
    pub raise: f32,
    /// Cleared at or below; not above `raise`.
    pub clear: f32,
    /// Scores in a row that it takes, either way.
    pub hold: u32,
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
    /// Rows from one score to the next.
    pub step: usize,
    /// The first input is the clock: each of its values makes a row, the others are held.
    pub inputs: Vec<Input>,
    /// See [`STALE_AFTER_DEFAULT`].
    pub stale_after: Duration,
    /// Which number of the answer is the score.
    pub output: Output,
    pub thresholds: Thresholds,
    pub severity: Severity,
    pub budget: Budget,
    /// The streams that scores and alerts are written to.
    pub scores: StreamName,
    pub alerts: StreamName,
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
        let mut problems = Vec::new();
        let mut expect = |holds: bool, key: &'static str, message: String| {
            if !holds {
                problems.push(Problem { key, message });
            }
        };
        let ModelOptions {
            name,
            assets,
            rows,
            step,
            inputs,
            thresholds,
            ..
        } = &options;
        let columns = inputs.len();

        expect(is_name(name), "name", format!("{name:?}: {NAME_RULE}"));
        let count = assets.len();
        expect(
            (1..=ASSETS_MAX).contains(&count),
            "assets",
            format!("{count} assets: name 1 to {ASSETS_MAX}"),
        );
        let mut seen = HashSet::new();
        for asset in assets {
            expect(is_name(asset), "assets", format!("{asset:?}: {NAME_RULE}"));
            expect(
                seen.insert(asset),
                "assets",
                format!("{asset:?} is named twice"),
            );
        }
        expect(
            (1..=COLUMNS_MAX).contains(&columns),
            "inputs",
            format!("{columns} inputs: bind 1 to {COLUMNS_MAX}, one per tensor column"),
        );
        expect(
            (1..=ROWS_MAX).contains(rows),
            "window",
            format!("{rows} rows: a window has 1 to {ROWS_MAX}"),
        );
        expect(
            rows.saturating_mul(columns) <= WINDOW_VALUES_MAX,
            "window",
            format!("{rows} rows of {columns} inputs: at most {WINDOW_VALUES_MAX} values"),
        );
        expect(
            (1..=ROWS_MAX).contains(step),
            "step",
            format!("{step} rows between scores: use 1 to {ROWS_MAX}"),
        );
        expect(
            count < 2
                || inputs
                    .iter()
                    .any(|input| input.source.template().contains(ASSET)),
            "inputs",
            format!("no input contains {ASSET}, so all {count} assets would be the same"),
        );
        for Input {
            source,
            scale,
            offset,
            ..
        } in inputs
        {
            let template = source.template();
            expect(
                !template.is_empty(),
                "inputs",
                "an input needs a source".to_owned(),
            );
            expect(
                scale.is_finite() && offset.is_finite() && *scale != 0.0,
                "inputs",
                format!("{template}: scale and offset must be finite, scale not 0"),
            );
            if let Source::Mqtt { topic, pointer } = source {
                expect(
                    !topic.contains(['+', '#']),
                    "inputs",
                    format!("{topic}: one topic per column, no wildcards"),
                );
                expect(
                    pointer.is_empty() || pointer.starts_with('/'),
                    "inputs",
                    format!("{topic}: pointer {pointer:?} must start with `/`, or be empty"),
                );
            }
        }
        let Thresholds { raise, clear, hold } = *thresholds;
        expect(
            raise.is_finite(),
            "threshold",
            format!("{raise} is no threshold"),
        );
        expect(
            clear.is_finite() && clear <= raise,
            "clear",
            format!("{clear} must not be above the threshold, {raise}"),
        );
        expect(
            (1..=HOLD_MAX).contains(&hold),
            "hold",
            format!("{hold} scores in a row: use 1 to {HOLD_MAX}"),
        );
        expect(
            !options.stale_after.is_zero(),
            "stale_after",
            "0 would make every value stale".to_owned(),
        );
        if problems.is_empty() {
            Ok(Self(options))
        } else {
            Err(problems)
        }
    }

    /// Bytes that the windows and held values of all its assets take, used or not: known from the
    /// configuration alone. The graph itself and tract's code come on top.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.assets.len() * Asset::new(self).bytes()
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

const NAME_RULE: &str = "use 1 to 64 letters, digits, `-`, `_` and `.`";

fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

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
            options.thresholds = Thresholds {
                raise: 0.5,
                clear: 0.6,
                hold: 0,
            };
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
            keys(|options| options.inputs[0].scale = f64::NAN),
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
