//! 1,000 sources, a tenth of them for each of ten models: those that are shipped, and one twice.
//!
//! A model of so many columns watches as many assets as its hundred sources are enough for; what is
//! left over goes into the log alone. The values are those of the model's golden windows, one after
//! the other, so that what a model is asked is what it was made for.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::Value;
use skerry_tests::{Context as _, Result, workspace};

const SOURCES_PER_MODEL: usize = 100;
/// Rows between two scores: at 10 Hz each asset has a score a second.
const STEP: u64 = 10;

/// Name in the config, file below `inference/models`, golden cases beside it.
const MODELS: [(&str, &str, &str); 10] = [
    ("bearing", "bearing/bearing", "bearing/golden"),
    ("press", "press/press", "press/press.golden"),
    ("cnn", "turbofan/cnn", "turbofan/cnn.golden"),
    ("lstm", "turbofan/lstm", "turbofan/lstm.golden"),
    ("trees", "turbofan/trees", "turbofan/trees.golden"),
    ("boosted", "milling/boosted", "milling/boosted.golden"),
    ("forest", "milling/forest", "milling/forest.golden"),
    ("isolation", "milling/isolation", "milling/isolation.golden"),
    ("logistic", "milling/logistic", "milling/logistic.golden"),
    ("bearing-2", "bearing/bearing", "bearing/golden"),
];

pub(super) struct Plant {
    pub(super) models: Vec<Bound>,
}

/// A model and its sources.
pub(super) struct Bound {
    pub(super) name: &'static str,
    file: PathBuf,
    rows: usize,
    columns: usize,
    /// Rows of all golden windows, one after the other.
    values: Vec<Vec<f64>>,
}

impl Plant {
    pub(super) fn new() -> Result<Self> {
        let folder = workspace::root().join("inference/models");
        let bound = |(name, file, golden): (&'static str, &str, &str)| -> Result<Bound> {
            let path = folder.join(format!("{golden}.json"));
            let golden: Value = serde_json::from_slice(&std::fs::read(path)?)?;
            let cases = golden["cases"].as_array().context("no golden cases")?;
            let windows = cases.iter().map(|case| case["input"].as_array());
            let windows: Option<Vec<_>> = windows.collect();
            let windows = windows.context("a golden case without input")?;
            let rows = windows.first().context("no golden case")?.len();
            let values = windows.into_iter().flatten().map(|row| {
                let numbers = row.as_array()?.iter().map(Value::as_f64);
                numbers.collect::<Option<Vec<f64>>>()
            });
            let values: Option<Vec<_>> = values.collect();
            let values = values.context("a golden row that is not of numbers")?;
            Ok(Bound {
                name,
                file: folder.join(format!("{file}.onnx")),
                rows,
                columns: values[0].len(),
                values,
            })
        };
        let models = MODELS.into_iter().map(bound).collect::<Result<_>>()?;
        Ok(Self { models })
    }

    /// Topics of each model's sources, in the order in which they are published.
    pub(super) fn topics(&self) -> Vec<Vec<String>> {
        let models = self.models.iter();
        models
            .map(|model| (0..SOURCES_PER_MODEL).map(|n| model.topic(n)).collect())
            .collect()
    }

    /// Of a model's source at a tick.
    pub(super) fn payload(&self, model: usize, source: usize, tick: u64) -> Vec<u8> {
        let value = self.models[model].value(source, tick);
        format!("{{\"value\":{value}}}").into_bytes()
    }

    pub(super) fn config(&self) -> String {
        self.models.iter().map(Bound::config).collect()
    }

    /// Scores that so many ticks make, of all assets together.
    pub(super) fn scores(&self, ticks: u64) -> u64 {
        let models = self.models.iter();
        models
            .map(|model| model.scores(ticks) * model.assets() as u64)
            .sum()
    }
}

impl Bound {
    pub(super) fn assets(&self) -> usize {
        SOURCES_PER_MODEL / self.columns
    }

    /// Of one asset.
    pub(super) fn scores(&self, ticks: u64) -> u64 {
        let beyond_the_first = ticks.checked_sub(self.rows as u64);
        beyond_the_first.map_or(0, |ticks| ticks / STEP + 1)
    }

    /// The first column comes last: it makes the row, in which the others are of the same tick.
    fn topic(&self, source: usize) -> String {
        let (asset, place) = (source / self.columns, source % self.columns);
        format!("plant/{}-{asset}/{}", self.name, self.columns - 1 - place)
    }

    fn value(&self, source: usize, tick: u64) -> f64 {
        let (asset, place) = (source / self.columns, source % self.columns);
        // Each asset is somewhere else in the windows.
        let row = tick as usize + asset * self.rows;
        self.values[row % self.values.len()][self.columns - 1 - place]
    }

    fn config(&self) -> String {
        let assets = (0..self.assets()).map(|asset| format!("\"{}-{asset}\"", self.name));
        let inputs = (0..self.columns).map(|column| {
            format!("{{ mqtt = \"plant/{{asset}}/{column}\", pointer = \"/value\" }}")
        });
        let list = |items: Vec<String>| items.join(", ");
        let mut text = String::new();
        // Scores are what is counted: a threshold that none of them reaches.
        write!(
            text,
            "\n[[model]]\nname = \"{}\"\nfile = \"{}\"\nassets = [ {} ]\nwindow = {}\n\
             step = {STEP}\nthreshold = 1e9\ninputs = [ {} ]\n",
            self.name,
            self.file.display(),
            list(assets.collect()),
            self.rows,
            list(inputs.collect()),
        )
        .expect("a String takes everything");
        text
    }
}
