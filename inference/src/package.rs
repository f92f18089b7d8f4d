//! A model on disk: the ONNX file, its fingerprint and golden cases, plain or as a package.

use crate::config::Model;
use crate::error::{Error, RunFault};
use crate::golden::Golden;
use crate::graph::{self, Refusal};
use crate::isolation::{HostCommand, Loaded, Order};
use crate::manifest::Manifest;
use crate::runner::Runner;
use crate::trial::Trial;
use serde::Serializer;
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

/// A model for a box this size has kilobytes; the limit is against a wrong path.
const MODEL_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What loading a model tells, for `skerry check` and the status.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ModelInfo {
    /// Of the ONNX file, in hex; in every record derived with it.
    pub sha256: String,
    /// Of the package; a plain file has none.
    pub version: Option<String>,
    pub file_bytes: u64,
    pub rows: usize,
    pub columns: usize,
    /// Golden cases that were run and agreed; `None` without a golden file.
    pub golden_cases: Option<usize>,
    /// The slowest of the golden cases, but for the first.
    #[serde(rename = "golden_us_max", serialize_with = "micros_or_none")]
    pub golden_time_max: Option<Duration>,
    /// Reading, optimising and the golden cases.
    #[serde(rename = "load_us", serialize_with = "micros")]
    pub load_time: Duration,
    /// What the process grew by that loaded it.
    pub held_bytes: u64,
}

fn micros<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64() * 1e6)
}

fn micros_or_none<S: Serializer>(
    time: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let micros = time.map(|time| time.as_secs_f64() * 1e6);
    serde::Serialize::serialize(&micros, serializer)
}

impl Model {
    /// Reads the model file as a running node would: loads it, holds it against the configured
    /// window, and runs its golden cases.
    ///
    /// Blocks until it is loaded. Works inside and outside of an async runtime.
    pub fn check(&self, host: &HostCommand) -> Result<ModelInfo, Error> {
        self.trial().check(host)
    }

    /// Its file and what the configuration says of it, without the binding.
    #[must_use]
    pub fn trial(&self) -> Trial {
        Trial {
            file: self.file.clone(),
            shape: Some(self.tensor()),
            output: self.output.clone(),
            budget: self.budget,
        }
    }

    /// What a child needs to know to load it.
    pub(crate) fn order(&self) -> Order {
        self.trial().order()
    }
}

impl From<Loaded> for ModelInfo {
    fn from(loaded: Loaded) -> Self {
        Self {
            sha256: loaded.sha256,
            version: loaded.version,
            rows: loaded.rows,
            columns: loaded.columns,
            file_bytes: loaded.file_bytes,
            golden_cases: loaded.golden_cases,
            golden_time_max: loaded.golden_time_max,
            load_time: loaded.load_time,
            held_bytes: loaded.held_bytes,
        }
    }
}

/// Reads a model or a package, holds it against the window and runs its golden cases. Happens in
/// a child.
pub(crate) fn load(order: &Order) -> Result<(Box<dyn Runner>, Loaded), Error> {
    if !order.file.is_dir() {
        return load_file(order, None);
    }
    let manifest = Manifest::read(&order.file, order)?;
    let mut order = manifest.complete(order);
    order.file = manifest.model_path(&order.file);
    load_file(&order, Some(manifest))
}

fn load_file(
    order: &Order,
    manifest: Option<Manifest>,
) -> Result<(Box<dyn Runner>, Loaded), Error> {
    let path = &order.file;
    let bytes = read(path)?;
    let sha256 = hex(&Sha256::digest(&bytes));
    let told = manifest.as_ref().map(|manifest| &manifest.sha256);
    for expected in [order.sha256.as_ref(), told].into_iter().flatten() {
        if *expected != sha256 {
            let (path, expected) = (path.clone(), expected.clone());
            return Err(Error::Sha256 {
                path,
                sha256,
                expected,
            });
        }
    }
    let (version, reference, golden) = match manifest {
        Some(it) => (Some(it.version), it.reference, Some(it.golden)),
        None => (None, None, Golden::beside(order, &sha256)?),
    };
    let shape = order.shape.or_else(|| golden.as_ref()?.shape());
    let (rows, columns) = shape.ok_or_else(|| Error::NoShape { path: path.clone() })?;
    let mut runner = graph::load(&bytes, rows, columns, &order.output)
        .map_err(|refusal| refused(refusal, path, rows, columns))?;
    let file_bytes = bytes.len() as u64;
    // Not needed any more, and on the model's account as long as it is there.
    drop(bytes);
    let golden_time_max = match &golden {
        Some(golden) => {
            golden.fits(rows, columns)?;
            golden.run(path, &mut *runner)?
        }
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
        version,
        rows,
        columns,
        reference: reference.map(|reference| reference.to_string()),
        time_max: order.time_max,
        memory_max_bytes: order.memory_max_bytes,
        file_bytes,
        golden_cases: golden.map(|golden| golden.cases.len()),
        golden_time_max,
        // Only its caller knows.
        load_time: Duration::ZERO,
        held_bytes: 0,
    };
    Ok((runner, loaded))
}

fn refused(refusal: Refusal, path: &Path, rows: usize, columns: usize) -> Error {
    let path = path.to_owned();
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
}

/// The whole of a file that is a model, or belongs to one.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Error> {
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
