//! A model on disk: the ONNX file, its fingerprint, and golden cases beside it.

use crate::config::Model;
use crate::error::{Error, RunFault};
use crate::graph::{self, Refusal};
use crate::isolation::{self, HostCommand, Loaded, Order};
use crate::runner::{Runner, run_caught};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A model for a box this size has kilobytes; the limit is against a wrong path.
const MODEL_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Long enough for a large model on a slow board; a file that takes longer is most likely one
/// that never finishes (one changed byte is enough for that).
const LOAD_TIME_MAX: Duration = Duration::from_secs(30);

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
    /// The slowest of the golden cases, but for the first.
    pub golden_time_max: Option<Duration>,
    /// Reading, optimising and the golden cases.
    pub load_time: Duration,
    /// What the process grew by that loaded it.
    pub held_bytes: u64,
    /// What the windows of all its assets take, see [`Model::memory_bytes`].
    pub memory_bytes: usize,
}

impl Model {
    /// Reads the model file as a running node would: loads it, holds it against the configured
    /// window, and runs its golden cases.
    ///
    /// Blocks until it is loaded. Works inside and outside of an async runtime.
    pub fn check(&self, host: &HostCommand) -> Result<ModelInfo, Error> {
        let failed = |source: std::io::Error| Error::Host {
            program: host.program.clone(),
            reason: source.to_string(),
        };
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().map_err(failed)?;
        let load = || runtime.block_on(isolation::probe(host, self.order()));
        let loaded = std::thread::scope(|scope| {
            // A runtime must not be entered from within another one's thread.
            let thread = std::thread::Builder::new().name("model-check".to_owned());
            let loading = thread.spawn_scoped(scope, load).map_err(failed)?;
            loading.join().expect("probing does not panic")
        })?;
        Ok(ModelInfo::of(self, loaded))
    }

    /// What a child needs to know to load it.
    pub(crate) fn order(&self) -> Order {
        Order {
            file: self.file.clone(),
            rows: self.rows,
            columns: self.inputs.len(),
            output: self.output.clone(),
            sha256: None,
            load_time_max: LOAD_TIME_MAX,
            time_max: self.budget.time_max,
            memory_max_bytes: self.budget.memory_max_bytes,
        }
    }
}

impl ModelInfo {
    pub(crate) fn of(model: &Model, loaded: Loaded) -> Self {
        Self {
            rows: model.rows,
            columns: model.inputs.len(),
            memory_bytes: model.memory_bytes(),
            sha256: loaded.sha256,
            file_bytes: loaded.file_bytes,
            golden_cases: loaded.golden_cases,
            golden_time_max: loaded.golden_time_max,
            load_time: loaded.load_time,
            held_bytes: loaded.held_bytes,
        }
    }
}

/// Reads the file, holds it against the window and runs its golden cases. Happens in a child.
pub(crate) fn load(order: &Order) -> Result<(Box<dyn Runner>, Loaded), Error> {
    let (path, rows, columns) = (&order.file, order.rows, order.columns);
    let bytes = read(path)?;
    let sha256 = hex(&Sha256::digest(&bytes));
    if let Some(expected) = order.sha256.as_ref().filter(|it| **it != sha256) {
        return Err(Error::Sha256 {
            path: path.clone(),
            expected: expected.clone(),
            sha256,
        });
    }
    let mut runner = graph::load(&bytes, rows, columns, &order.output).map_err(|refusal| {
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
    let golden = match golden_path(path) {
        Some(file) => Golden::read(&file, order, &sha256)?,
        None => None,
    };
    let golden_time_max = match &golden {
        Some(golden) => golden.run(path, &mut *runner)?,
        None => None,
    };
    let slow = golden_time_max.filter(|took| *took > order.time_max);
    if let Some(took) = slow {
        let (path, time_max) = (path.clone(), order.time_max);
        let fault = RunFault::Slow { took, time_max };
        return Err(Error::Run { path, fault });
    }
    let loaded = Loaded {
        sha256,
        file_bytes: bytes.len() as u64,
        golden_cases: golden.map(|golden| golden.cases.len()),
        golden_time_max,
        // Only its caller knows.
        load_time: Duration::ZERO,
        held_bytes: 0,
    };
    Ok((runner, loaded))
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |error: std::io::Error| Error::File {
        path: path.to_owned(),
        reason: error.to_string(),
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
    fn read(path: &Path, of: &Order, sha256: &str) -> Result<Option<Self>, Error> {
        let (rows, columns) = (of.rows, of.columns);
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

    /// The slowest case, but for the first: that one warms up what all others use.
    fn run(&self, path: &Path, runner: &mut dyn Runner) -> Result<Option<Duration>, Error> {
        let mut slowest = None;
        for (case, Case { input, output }) in self.cases.iter().enumerate() {
            let got = match run_caught(runner, &input.concat()) {
                Ok(answer) => {
                    slowest = slowest.max((case > 0).then_some(answer.took));
                    answer.score.value
                }
                Err(RunFault::NotFinite(got)) => got,
                Err(fault) => {
                    let path = path.to_owned();
                    return Err(Error::Run { path, fault });
                }
            };
            let agrees = (got - output).abs() <= self.tolerance;
            if !agrees {
                return Err(Error::GoldenAnswer {
                    path: path.to_owned(),
                    case,
                    got,
                    expected: *output,
                });
            }
        }
        Ok(slowest)
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
