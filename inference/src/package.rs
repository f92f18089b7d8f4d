//! A model on disk: the ONNX file, its fingerprint, and golden cases beside it.

use crate::config::Model;
use crate::error::{Error, RunFault};
use crate::graph::{self, Refusal};
use crate::runner::{Runner, Worker, run_caught};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A model for a box this size has kilobytes; the limit is against a wrong path.
const MODEL_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Looked for beside the model, in this order: `bearing.golden.json`, `golden.json`.
const GOLDEN_NAMES: [&str; 2] = ["{stem}.golden.json", "golden.json"];

/// What loading a model tells, for `skerry check` and the status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// Of the ONNX file, in hex; in every record derived with it.
    pub sha256: String,
    pub file_bytes: u64,
    pub rows: usize,
    pub columns: usize,
    /// Golden cases that were run and agreed; `None` without a golden file.
    pub golden_cases: Option<usize>,
    /// What the windows of all its assets take, see [`Model::memory_bytes`].
    pub memory_bytes: usize,
}

impl Model {
    /// Reads the model file as a running node would: loads it, holds it against the configured
    /// window, and runs its golden cases.
    ///
    /// Blocks until it is loaded. Works inside and outside of an async runtime.
    pub fn check(&self) -> Result<ModelInfo, Error> {
        let failed = |source| Error::Thread {
            model: self.name.clone(),
            source: Arc::new(source),
        };
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().build().map_err(failed)?;
        let load = || runtime.block_on(start(self)).map(|(_worker, info)| info);
        std::thread::scope(|scope| {
            // A runtime must not be entered from within another one's thread.
            let thread = std::thread::Builder::new().name("model-check".to_owned());
            let loading = thread.spawn_scoped(scope, load).map_err(failed)?;
            loading.join().expect("loading catches its panics")
        })
    }
}

/// Loads the model on a thread of its own.
pub(crate) async fn start(model: &Model) -> Result<(Worker, ModelInfo), Error> {
    let loading = model.clone();
    Worker::start(&model.name, &model.file, move || load(&loading)).await
}

fn load(model: &Model) -> Result<(Box<dyn Runner>, ModelInfo), Error> {
    let path = &model.file;
    let (rows, columns) = (model.rows, model.inputs.len());
    let bytes = read(path)?;
    let sha256 = hex(&Sha256::digest(&bytes));
    let mut runner = graph::load(&bytes, rows, columns, &model.output).map_err(|refusal| {
        let path = path.clone();
        match refusal {
            Refusal::NotAModel(reason) => Error::NotAModel { path, reason },
            Refusal::Unsupported(reason) => Error::Unsupported { path, reason },
            Refusal::Shape { wants } => {
                let gives =
                    format!("window = {rows} and {columns} inputs, [1, {rows}, {columns}] of F32");
                Error::Shape { path, wants, gives }
            }
            Refusal::Output { got } => Error::Output { path, got },
        }
    })?;
    let golden = golden_path(path);
    let golden = match golden {
        Some(file) => Golden::read(&file, model, &sha256)?,
        None => None,
    };
    if let Some(golden) = &golden {
        golden.run(path, &mut *runner)?;
    }
    let info = ModelInfo {
        sha256,
        file_bytes: bytes.len() as u64,
        rows,
        columns,
        golden_cases: golden.map(|golden| golden.cases.len()),
        memory_bytes: model.memory_bytes(),
    };
    Ok((runner, info))
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::File {
        path: path.to_owned(),
        source: Arc::new(source),
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    // One byte more than allowed, so that a file which grows meanwhile is noticed too.
    file.take(MODEL_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MODEL_BYTES_MAX {
        return Err(Error::TooLarge {
            path: path.to_owned(),
            bytes: bytes.len() as u64,
            bytes_max: MODEL_BYTES_MAX,
        });
    }
    Ok(bytes)
}

fn golden_path(model: &Path) -> Option<PathBuf> {
    let stem = model.file_stem()?.to_str()?;
    let beside = |name: &str| model.with_file_name(name.replace("{stem}", stem));
    GOLDEN_NAMES
        .map(beside)
        .into_iter()
        .find(|path| path.is_file())
}

/// Windows with the answers of the runtime that the model was made with. The only thing that
/// notices a weight with a flipped bit, or an operator that this runtime reads differently.
#[derive(Deserialize)]
struct Golden {
    /// The model file's name: a `golden.json` may lie beside several.
    model: PathBuf,
    sha256: String,
    /// Largest difference that is no difference.
    tolerance: f32,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    input: Vec<Vec<f32>>,
    output: f32,
}

impl Golden {
    /// `None` if the file is about another model in the same directory.
    fn read(path: &Path, of: &Model, sha256: &str) -> Result<Option<Self>, Error> {
        let (rows, columns) = (of.rows, of.inputs.len());
        let broken = |reason: String| Error::GoldenFile {
            path: path.to_owned(),
            reason,
        };
        let golden: Self =
            serde_json::from_slice(&read(path)?).map_err(|error| broken(error.to_string()))?;
        if golden.model.file_name() != of.file.file_name() {
            return Ok(None);
        }
        if golden.sha256 != sha256 {
            return Err(broken(format!(
                "it is about a file with SHA-256 {}, this one has {sha256}",
                golden.sha256
            )));
        }
        let fits = |case: &Case| {
            case.input.len() == rows && case.input.iter().all(|row| row.len() == columns)
        };
        if golden.cases.is_empty() || !golden.cases.iter().all(fits) {
            return Err(broken(format!(
                "it needs cases of {rows} rows of {columns} values"
            )));
        }
        Ok(Some(golden))
    }

    fn run(&self, path: &Path, runner: &mut dyn Runner) -> Result<(), Error> {
        for (
            case,
            Case {
                input,
                output: expected,
            },
        ) in self.cases.iter().enumerate()
        {
            let answer = run_caught(runner, &input.concat());
            let got = match answer {
                Ok(answer) => answer.score.value,
                Err(RunFault::NotFinite(got)) => got,
                Err(fault) => {
                    return Err(Error::Run {
                        path: path.to_owned(),
                        fault,
                    });
                }
            };
            let agrees = (got - expected).abs() <= self.tolerance;
            if !agrees {
                let (path, expected) = (path.to_owned(), *expected);
                return Err(Error::GoldenAnswer {
                    path,
                    case,
                    got,
                    expected,
                });
            }
        }
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}

#[cfg(test)]
#[path = "package_tests.rs"]
mod tests;
