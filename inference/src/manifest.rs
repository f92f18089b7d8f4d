//! A model package: a folder with `model.json`, which tells what the ONNX file beside it is.
//!
//! ```json
//! {
//!   "format": 1,
//!   "name": "bearing", "version": "1.2",
//!   "model": "bearing.onnx", "sha256": "…",
//!   "input": {"rows": 32, "columns": [{"name": "vibration", "unit": "mm/s", "range": [0, 50]}, …]},
//!   "output": {"name": "probabilities", "index": 1},
//!   "golden": {"tolerance": 1e-4, "cases": [{"input": [[…], …], "output": 0.93}]},
//!   "budget": {"time_max_ms": 50, "memory_max_bytes": 33554432},
//!   "reference": {"columns": [{"mean": 1.2, "std": 0.4, "edges": […], "shares": […]}, …]},
//!   "provenance": {"trained": "2026-11-02", "script": "train.py", "seed": "7"}
//! }
//! ```
//! An auto-encoder's `output` is `{"reconstruction": "mse"}`, or `"mae"`.
//!
//! `output`, `budget`, `reference` and `provenance` may be missing. A budget can only be tighter
//! than the configured one. A key that is not in this list is a mistake, and refused.

use crate::error::Error;
use crate::golden::Golden;
use crate::isolation::Order;
use crate::output::{Output, Pick, Reconstruction};
use crate::package::read;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) const FILE_NAME: &str = "model.json";
const FORMAT: u32 = 1;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    format: u32,
    pub(crate) name: String,
    pub(crate) version: String,
    model: String,
    pub(crate) sha256: String,
    input: Input,
    output: Option<Score>,
    pub(crate) golden: Golden,
    #[serde(default)]
    budget: Tighter,
    /// See [`Loaded::reference`](crate::isolation::Loaded::reference).
    pub(crate) reference: Option<serde_json::Value>,
    #[serde(default, rename = "provenance")]
    _provenance: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    rows: usize,
    columns: Vec<Column>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Column {
    name: String,
    unit: Option<String>,
    /// What is to be expected, for whoever binds it.
    range: Option<[f64; 2]>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Score {
    name: Option<String>,
    index: Option<usize>,
    class: Option<String>,
    reconstruction: Option<Measure>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Measure {
    Mse,
    Mae,
}

impl Score {
    /// `None` if it says more than one thing.
    fn pick(&self) -> Option<Pick> {
        let class = self.class.clone().map(Pick::Class);
        let error = self.reconstruction.map(|measure| match measure {
            Measure::Mse => Pick::Error(Reconstruction::MeanSquared),
            Measure::Mae => Pick::Error(Reconstruction::MeanAbsolute),
        });
        let said = [self.index.map(Pick::Index), class, error];
        let mut said = said.into_iter().flatten();
        let pick = said.next().unwrap_or_default();
        said.next().is_none().then_some(pick)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tighter {
    time_max_ms: Option<u64>,
    memory_max_bytes: Option<u64>,
}

impl Manifest {
    /// Reads the manifest of a package and holds it against the binding.
    pub(crate) fn read(folder: &Path, order: &Order) -> Result<Self, Error> {
        let path = folder.join(FILE_NAME);
        Self::parse(&read(&path)?, &path, order)
    }

    /// The same of the bytes of the file at `path`.
    pub(crate) fn parse(text: &[u8], path: &Path, order: &Order) -> Result<Self, Error> {
        let broken = |reason: String| Error::Manifest {
            path: path.to_owned(),
            reason,
        };
        let manifest: Self =
            serde_json::from_slice(text).map_err(|error| broken(error.to_string()))?;
        manifest.check().map_err(broken)?;
        let Input { rows, columns } = &manifest.input;
        let own = (*rows, columns.len());
        if let Some((rows, columns)) = order.shape.filter(|shape| *shape != own) {
            return Err(Error::Shape {
                wants: format!("{} rows of {}", own.0, manifest.columns()),
                gives: format!("{rows} rows of {columns} columns"),
                path: path.to_owned(),
            });
        }
        manifest.golden.check(Some(own)).map_err(broken)?;
        Ok(manifest)
    }

    fn columns(&self) -> String {
        let columns = self.input.columns.iter();
        let columns = columns.map(|Column { name, unit, .. }| match unit {
            Some(unit) => format!("{name} in {unit}"),
            None => name.clone(),
        });
        columns.collect::<Vec<_>>().join(", ")
    }

    fn check(&self) -> Result<(), String> {
        if self.format != FORMAT {
            return Err(format!("format {} is not {FORMAT}", self.format));
        }
        for name in [&self.name, &self.version] {
            if !is_folder_name(name) {
                return Err(format!("{name:?} as a name or version: {FOLDER_RULE}"));
            }
        }
        if Path::new(&self.model).file_name() != Some(self.model.as_ref()) {
            return Err(format!(
                "{:?} is not the name of a file beside it",
                self.model
            ));
        }
        for Column { name, range, .. } in &self.input.columns {
            if range.is_some_and(|[low, high]| low >= high) {
                return Err(format!("the range of column {name} does not rise"));
            }
        }
        match &self.output {
            Some(score) if score.pick().is_none() => {
                Err("output has an index, a class or a reconstruction, not several".to_owned())
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn model_path(&self, folder: &Path) -> PathBuf {
        folder.join(&self.model)
    }

    /// The order as the package has it, where the configuration leaves it open.
    pub(crate) fn complete(&self, order: &Order) -> Order {
        let mut order = order.clone();
        order.shape = Some((self.input.rows, self.input.columns.len()));
        if let Some(score) = &self.output
            && order.output == Output::default()
        {
            order.output = Output {
                name: score.name.clone(),
                pick: score.pick().unwrap_or_default(),
            };
        }
        if let Some(time_max) = self.budget.time_max_ms.map(Duration::from_millis) {
            order.time_max = order.time_max.min(time_max);
        }
        if let Some(bytes) = self.budget.memory_max_bytes {
            order.memory_max_bytes = order.memory_max_bytes.min(bytes);
        }
        order
    }
}

pub(crate) const FOLDER_RULE: &str =
    "use 1 to 64 letters, digits, `-`, `_` and `.`, and no `.` in front";

/// Whether a name or version can be a folder's, and not one somewhere else.
pub(crate) fn is_folder_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=64).contains(&name.len()) && !name.starts_with('.') && name.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Budget;

    /// What a package with this output picks, or why it is refused.
    fn pick(output: &str) -> Result<Pick, String> {
        let text = format!(
            r#"{{"format": 1, "name": "m", "version": "1", "model": "m.onnx", "sha256": "00",
                "input": {{"rows": 1, "columns": [{{"name": "x"}}]}}, "output": {output},
                "golden": {{"tolerance": 1e-4, "cases": [{{"input": [[1]], "output": 0}}]}}}}"#
        );
        let order = Order::of(Budget::default());
        let manifest = Manifest::parse(text.as_bytes(), Path::new("model.json"), &order);
        let manifest = manifest.map_err(|error| error.to_string())?;
        Ok(manifest.complete(&order).output.pick)
    }

    #[test]
    fn an_output_is_one_thing() {
        assert_eq!(pick("null"), Ok(Pick::Default));
        assert_eq!(pick(r#"{"index": 3}"#), Ok(Pick::Index(3)));
        for (word, error) in [
            ("mse", Reconstruction::MeanSquared),
            ("mae", Reconstruction::MeanAbsolute),
        ] {
            let picked = pick(&format!(r#"{{"reconstruction": "{word}"}}"#));
            assert_eq!(picked, Ok(Pick::Error(error)));
        }
        for (output, told) in [
            (r#"{"index": 1, "reconstruction": "mse"}"#, "not several"),
            (r#"{"index": 1, "class": "worn"}"#, "not several"),
            (r#"{"reconstruction": "rmse"}"#, "unknown variant `rmse`"),
        ] {
            let refused = pick(output).unwrap_err();
            assert!(refused.contains(told), "{refused}");
        }
    }
}
