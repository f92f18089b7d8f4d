//! The one error type of this crate.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What is wrong with a model or with the log under it, and what to do about it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}: {source}; check the path and its permissions", path.display())]
    File {
        path: PathBuf,
        source: Arc<std::io::Error>,
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
    #[error("cannot start a thread for model {model}: {source}")]
    Thread {
        model: String,
        source: Arc<std::io::Error>,
    },
    #[error("{}: {}", path.display(), fault)]
    Run { path: PathBuf, fault: RunFault },
    #[error(transparent)]
    Log(#[from] skerry_store::Error),
}

/// Why a model gave no score.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RunFault {
    #[error("the model panicked: {0}")]
    Panicked(String),
    #[error("the model failed: {0}")]
    Failed(String),
    #[error("the model answered {0}, which is no score")]
    NotFinite(f32),
    #[error("the model gave no answer within {0:?}")]
    Stalled(Duration),
}
