//! Where a model's numbers come from, and what becomes of them on the way to the tensor.

use crate::config::{ASSET, Problem};
use crate::feature::Feature;
use skerry_store::StreamName;
use std::time::Duration;

/// Most samples in one burst: a bound on what a record may have parsed and transformed.
pub const BURST_SAMPLES_MAX: usize = 65_536;
/// Most features of one input.
pub const FEATURES_MAX: usize = 64;

/// Where an input's values come from. Names and topics may contain [`ASSET`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The configured name of an OPC-UA node.
    Opcua { name: String },
    /// An MQTT topic, and where in its JSON payload the number is (RFC 6901; empty: the whole).
    Mqtt { topic: String, pointer: String },
    /// The scores of another model, for one of its assets.
    Model { model: String, asset: String },
}

impl Source {
    pub(crate) fn template(&self) -> &str {
        match self {
            Self::Opcua { name } => name,
            Self::Mqtt { topic, .. } => topic,
            Self::Model { asset, .. } => asset,
        }
    }

    /// The record source this is for one asset.
    pub(crate) fn of(&self, asset: &str) -> String {
        let name = self.template().replace(ASSET, asset);
        match self {
            Self::Model { model, .. } => format!("{model}/{name}"),
            Self::Opcua { .. } | Self::Mqtt { .. } => name,
        }
    }

    /// Where in the record's JSON the number is.
    pub(crate) fn pointer(&self) -> &str {
        match self {
            Self::Opcua { .. } => "/value",
            Self::Mqtt { pointer, .. } => pointer,
            Self::Model { .. } => "/score",
        }
    }
}

/// How a raw value becomes one of the units the model was trained in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scaling {
    /// `value × scale + offset`.
    Linear { scale: f64, offset: f64 },
    /// `(value − mean) ÷ std`, the z-score.
    Standard { mean: f64, std: f64 },
}

impl Scaling {
    pub const NONE: Self = Self::Linear {
        scale: 1.0,
        offset: 0.0,
    };

    pub(crate) fn apply(self, value: f64) -> f64 {
        match self {
            Self::Linear { scale, offset } => value * scale + offset,
            Self::Standard { mean, std } => (value - mean) / std,
        }
    }

    fn is_sound(self) -> bool {
        match self {
            Self::Linear { scale, offset } => {
                scale.is_finite() && offset.is_finite() && scale != 0.0
            }
            Self::Standard { mean, std } => mean.is_finite() && std.is_finite() && std > 0.0,
        }
    }
}

/// What a column has at a point of the grid at which nothing was measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fill {
    /// The value before it, while that is not older than `stale_after`.
    #[default]
    Hold,
    /// The line from the value before it to the value after it, which has to come within `late`.
    Linear,
    /// Nothing: without a value since the point before, there is no row.
    Drop,
}

/// A message that holds many samples at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Burst {
    /// A message with more is not read. At most [`BURST_SAMPLES_MAX`].
    pub samples_max: usize,
}

/// One source of numbers. It gives one column of each row; a burst one per feature.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    pub source: Source,
    /// The stream the source's records are logged in.
    pub stream: StreamName,
    pub scaling: Scaling,
    /// Of no meaning without a grid.
    pub fill: Fill,
    /// Of a burst: of its samples. Otherwise: of this column over the window's rows.
    pub features: Vec<Feature>,
    /// Samples a second, for features that speak of frequencies.
    pub rate_hz: Option<f64>,
    pub burst: Option<Burst>,
}

impl Input {
    /// Plain values, as they are.
    #[must_use]
    pub fn new(source: Source, stream: StreamName) -> Self {
        Self {
            source,
            stream,
            scaling: Scaling::NONE,
            fill: Fill::Hold,
            features: Vec::new(),
            rate_hz: None,
            burst: None,
        }
    }

    /// Columns that it gives to each row.
    pub(crate) fn columns(&self) -> usize {
        match self.burst {
            Some(_) => self.features.len(),
            None => 1,
        }
    }

    /// What is wrong with this input by itself. `grid` is the period of the grid, if there is one.
    pub(crate) fn problems(&self, grid: Option<Duration>) -> Vec<Problem> {
        let mut problems = Vec::new();
        let template = self.source.template();
        let mut expect = |holds: bool, message: String| {
            if !holds {
                problems.push(Problem {
                    key: "inputs",
                    message,
                });
            }
        };
        expect(!template.is_empty(), "an input needs a source".to_owned());
        expect(
            self.scaling.is_sound(),
            format!(
                "{template}: scale and offset must be finite and scale not 0, mean finite and std \
                 above 0"
            ),
        );
        if let Source::Mqtt { topic, pointer } = &self.source {
            expect(
                !topic.contains(['+', '#']),
                format!("{topic}: one topic per column, no wildcards"),
            );
            expect(
                pointer.is_empty() || pointer.starts_with('/'),
                format!("{topic}: pointer {pointer:?} must start with `/`, or be empty"),
            );
        }
        let count = self.features.len();
        expect(
            count <= FEATURES_MAX,
            format!("{template}: {count} features: at most {FEATURES_MAX}"),
        );
        if let Some(Burst { samples_max }) = self.burst {
            expect(
                (1..=BURST_SAMPLES_MAX).contains(&samples_max),
                format!(
                    "{template}: bursts of {samples_max} samples: use 1 to {BURST_SAMPLES_MAX}"
                ),
            );
            expect(
                count > 0,
                format!("{template}: a burst becomes `features`; name at least one"),
            );
        }
        if let Some(rate) = self.rate_hz {
            expect(
                rate.is_finite() && rate > 0.0,
                format!("{template}: {rate} samples a second is no rate"),
            );
        }
        let rate = self.sampling_rate_hz(grid);
        for feature in &self.features {
            if let Err(why) = feature.check(rate) {
                expect(false, format!("{template}: {why}"));
            }
        }
        problems
    }

    /// Samples a second of what the features are computed of: told, or the grid's.
    pub(crate) fn sampling_rate_hz(&self, grid: Option<Duration>) -> Option<f64> {
        let of_grid = grid.filter(|_| self.burst.is_none());
        let of_grid = of_grid.map(|period| 1.0 / period.as_secs_f64());
        of_grid.or(self.rate_hz)
    }
}
