//! Windows with the answers of the runtime that a model was made with. The only thing that
//! notices a weight with a flipped bit, or an operator that this runtime reads differently.

use crate::error::{Error, RunFault};
use crate::isolation::Order;
use crate::package::read;
use crate::runner::{Runner, run_caught};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Looked for beside a plain model, in this order: `bearing.golden.json`, `golden.json`.
const NAMES: [&str; 2] = ["{stem}.golden.json", "golden.json"];

#[derive(Debug, Deserialize)]
pub(crate) struct Golden {
    /// Where it was read; nowhere of its own in a package.
    #[serde(skip)]
    path: PathBuf,
    /// Largest difference that is no difference, times the answer where that is above one.
    pub(crate) tolerance: f32,
    pub(crate) cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Case {
    pub(crate) input: Vec<Vec<f32>>,
    pub(crate) output: f32,
    /// The label beside it, if that is to be held too.
    #[serde(default)]
    pub(crate) class: Option<String>,
}

/// A golden file of its own, beside a plain model.
#[derive(Deserialize)]
struct File {
    /// The model file's name: a `golden.json` may lie beside several.
    model: PathBuf,
    sha256: String,
    #[serde(flatten)]
    golden: Golden,
}

impl Golden {
    /// What lies beside a plain model; `None` if there is nothing, or about another model.
    pub(crate) fn beside(order: &Order, sha256: &str) -> Result<Option<Self>, Error> {
        let Some(path) = path_beside(&order.file) else {
            return Ok(None);
        };
        Self::parse(&read(&path)?, path, order, sha256)
    }

    /// The same of the bytes of the file at `path`.
    pub(crate) fn parse(
        text: &[u8],
        path: PathBuf,
        order: &Order,
        sha256: &str,
    ) -> Result<Option<Self>, Error> {
        let broken = |reason: String| Error::GoldenFile {
            path: path.clone(),
            reason,
        };
        let mut file: File =
            serde_json::from_slice(text).map_err(|error| broken(error.to_string()))?;
        if file.model.file_name() != order.file.file_name() {
            return Ok(None);
        }
        if file.sha256 != sha256 {
            return Err(broken(format!(
                "it is about a file with SHA-256 {}, this one has {sha256}",
                file.sha256
            )));
        }
        file.golden.path = path;
        Ok(Some(file.golden))
    }

    /// Whether it fits what the model was loaded for.
    pub(crate) fn fits(&self, rows: usize, columns: usize) -> Result<(), Error> {
        self.check(Some((rows, columns)))
            .map_err(|reason| Error::GoldenFile {
                path: self.path.clone(),
                reason,
            })
    }

    /// Of the first case's window.
    pub(crate) fn shape(&self) -> Option<(usize, usize)> {
        let rows = &self.cases.first()?.input;
        Some((rows.len(), rows.first()?.len()))
    }

    /// Whether its windows are of this shape, or at least of one, and can tell anything.
    pub(crate) fn check(&self, shape: Option<(usize, usize)>) -> Result<(), String> {
        let (rows, columns) = shape
            .or_else(|| self.shape())
            .ok_or("it needs cases that are windows")?;
        let fits = |case: &Case| {
            case.input.len() == rows && case.input.iter().all(|row| row.len() == columns)
        };
        if self.cases.is_empty() || !self.cases.iter().all(fits) {
            return Err(format!("it needs cases of {rows} rows of {columns} values"));
        }
        if !(self.tolerance >= 0.0 && self.tolerance.is_finite()) {
            return Err(format!("a tolerance of {} tells nothing", self.tolerance));
        }
        Ok(())
    }

    /// The slowest case, but for the first: that one warms up what all others use.
    pub(crate) fn run(
        &self,
        path: &Path,
        runner: &mut dyn Runner,
    ) -> Result<Option<Duration>, Error> {
        let mut slowest = None;
        for (number, case) in self.cases.iter().enumerate() {
            let Case {
                input,
                output,
                class,
            } = case;
            let mut label = None;
            let got = match run_caught(runner, &input.concat()) {
                Ok(answer) => {
                    slowest = slowest.max((number > 0).then_some(answer.took));
                    label = answer.score.class;
                    answer.score.value
                }
                Err(RunFault::NotFinite(got)) => got,
                Err(fault) => {
                    let path = path.to_owned();
                    return Err(Error::Run { path, fault });
                }
            };
            let agrees = (got - output).abs() <= self.tolerance * output.abs().max(1.0);
            if !agrees {
                return Err(Error::GoldenAnswer {
                    path: path.to_owned(),
                    case: number,
                    got,
                    expected: *output,
                });
            }
            if class.is_some() && class.as_deref() != label.as_deref() {
                return Err(Error::GoldenClass {
                    path: path.to_owned(),
                    case: number,
                    got: label.map(|label| (*label).to_owned()),
                    expected: class.clone(),
                });
            }
        }
        Ok(slowest)
    }
}

fn path_beside(model: &Path) -> Option<PathBuf> {
    let stem = model.file_stem()?.to_str()?;
    let beside = |name: &str| model.with_file_name(name.replace("{stem}", stem));
    NAMES.map(beside).into_iter().find(|path| path.is_file())
}
