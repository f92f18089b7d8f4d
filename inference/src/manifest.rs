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
//! `output`, `budget`, `reference` and `provenance` may be missing. A budget can only be tighter
//! than the configured one. A key that is not in this list is a mistake, and refused.

use crate::error::Error;
use crate::golden::Golden;
use crate::isolation::Order;
use crate::output::{Output, Pick};
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
        let broken = |reason: String| Error::Manifest {
            path: path.clone(),
            reason,
        };
        let manifest: Self =
            serde_json::from_slice(&read(&path)?).map_err(|error| broken(error.to_string()))?;
        manifest.check().map_err(broken)?;
        let Input { rows, columns } = &manifest.input;
        let own = (*rows, columns.len());
        if let Some((rows, columns)) = order.shape.filter(|shape| *shape != own) {
            return Err(Error::Shape {
                wants: format!("{} rows of {}", own.0, manifest.columns()),
                gives: format!("{rows} rows of {columns} columns"),
                path,
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
            Some(Score {
                index: Some(_),
                class: Some(_),
                ..
            }) => Err("output has an index or a class, not both".to_owned()),
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
        if let Some(Score { name, index, class }) = &self.output
            && order.output == Output::default()
        {
            let class = class.clone().map(Pick::Class);
            order.output = Output {
                name: name.clone(),
                pick: index.map(Pick::Index).or(class).unwrap_or_default(),
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
