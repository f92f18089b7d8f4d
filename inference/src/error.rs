//! The one error type of this crate.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// What is wrong with a model or with the log under it, and what to do about it.
#[derive(Debug, Clone, thiserror::Error, Serialize, Deserialize)]
pub enum Error {
    #[error("cannot read {}: {reason}; check the path and its permissions", path.display())]
    File { path: PathBuf, reason: String },
    #[error("{} has SHA-256 {sha256}, expected {expected}: the file was changed", path.display())]
    Sha256 {
        path: PathBuf,
        sha256: String,
        expected: String,
    },
    #[error("{} has {bytes} bytes, a model may have {bytes_max}: export a smaller one", path.display())]
    TooLarge {
        path: PathBuf,
        bytes: u64,
        bytes_max: u64,
    },
    #[error("{} is not a model that can run here: {reason}; export it to ONNX again", path.display())]
    NotAModel { path: PathBuf, reason: String },
    #[error("{} cannot run here: {reason}", path.display())]
    Unsupported { path: PathBuf, reason: String },
    #[error(
        "{} takes {wants}, the configuration gives {gives}: change `window` or `inputs`, or \
         export the model for that shape", path.display()
    )]
    Shape {
        path: PathBuf,
        wants: String,
        gives: String,
    },
    #[error("{} answers with {got}: say with `output` which number is the score, or export it with one alone", path.display())]
    Output { path: PathBuf, got: String },
    #[error("{} did not load within {limit:?}: export a smaller or simpler model", path.display())]
    LoadStalled { path: PathBuf, limit: Duration },
    #[error("{} does not tell its windows' shape, and no golden file beside it: say it with --window and --columns", path.display())]
    NoShape { path: PathBuf },
    #[error("{}: {reason}; see inference/models/README.md for what a manifest has", path.display())]
    Manifest { path: PathBuf, reason: String },
    #[error("{} is no golden file: {reason}; write it anew with the model, or remove it", path.display())]
    GoldenFile { path: PathBuf, reason: String },
    #[error(
        "{} answers {got} to golden case {case} where {expected} is right: the file is damaged \
         or this program runs it wrongly; do not use it", path.display()
    )]
    GoldenAnswer {
        path: PathBuf,
        case: usize,
        got: f32,
        expected: f32,
    },
    #[error(
        "{} answers class {got:?} to golden case {case} where {expected:?} is right: do not use it",
        path.display()
    )]
    GoldenClass {
        path: PathBuf,
        case: usize,
        got: Option<String>,
        expected: Option<String>,
    },
    #[error("{} ended the process that read it: {how}; do not use it", path.display())]
    LoadDied { path: PathBuf, how: String },
    #[error("no process for models can be started from {}: {reason}", program.display())]
    Host { program: PathBuf, reason: String },
    #[error("{}: {}", path.display(), fault)]
    Run { path: PathBuf, fault: RunFault },
    #[error(transparent)]
    #[serde(skip)]
    Log(#[from] skerry_store::Error),
}

/// Why a model gave no score.
#[derive(Debug, Clone, PartialEq, thiserror::Error, Serialize, Deserialize)]
pub enum RunFault {
    #[error("the model panicked: {0}")]
    Panicked(String),
    #[error("the model failed: {0}")]
    Failed(String),
    #[error("the model answered {0}, which is no score")]
    NotFinite(f32),
    #[error("the model gave no answer within {0:?}")]
    Stalled(Duration),
    #[error("the model takes {took:?} a window again and again, its time_max is {time_max:?}")]
    Slow { took: Duration, time_max: Duration },
    #[error("the model holds {held_bytes} bytes of memory, its memory_max is {memory_max_bytes}")]
    Memory {
        held_bytes: u64,
        memory_max_bytes: u64,
    },
    #[error("the model ended its process: {0}")]
    Died(String),
}
