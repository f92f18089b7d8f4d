//! What predicting costs: a model by itself against onnxruntime, and the whole path of a node.
//!
//! ```text
//! latency  per model and family, batch 1 and 32: p50, p99 and throughput, one thread each
//! loading  the memory of a process with a model, and how long loading takes
//! node     1,000 sources at 10 Hz through ten models: processor time, losses, delays
//! failing  messages at full rate while models fail
//! ```
//!
//! The first two are those of `tests/inference-peers`, which runs both in one process.

mod failing;
mod node;
mod plant;
mod probe;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use skerry_tests::{Context as _, Result, ensure, workspace};

use crate::figures;

/// How long the node is looked at.
#[derive(Debug, Clone, Copy)]
struct Scale {
    quick: bool,
    rounds: usize,
    /// Until each window is full and the node has settled.
    warm_up: Duration,
    measured: Duration,
}

const FULL: Scale = Scale {
    quick: false,
    rounds: 5,
    warm_up: Duration::from_secs(10),
    measured: Duration::from_secs(30),
};
const QUICK: Scale = Scale {
    quick: true,
    rounds: 1,
    warm_up: Duration::from_secs(6),
    measured: Duration::from_secs(10),
};

type Measure = figures::Measure<Scale>;

const FIGURES: [(&str, Measure); 4] = [
    ("latency", |_, scale| peers("latency", scale)),
    ("loading", |_, scale| peers("loading", scale)),
    ("node", node::run),
    ("failing", failing::run),
];

pub(crate) fn names() -> Vec<&'static str> {
    FIGURES.map(|(name, _)| name).to_vec()
}

pub(crate) fn is_figure(name: &str) -> bool {
    names().contains(&name)
}

pub(crate) fn run(quick: bool, only: Option<&str>) -> Result<()> {
    let scale = if quick { QUICK } else { FULL };
    figures::measure("inference", &FIGURES, scale, only)
}

fn print(figure: &Value) {
    figures::print("inference", figure);
}

fn fresh(folder: &Path) -> Result<PathBuf> {
    let folder = folder.join("turn");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// How many models of a node are.
fn in_state(status: &Value, state: &str) -> usize {
    let models = status["inference"]["models"].as_array();
    let models = models.into_iter().flatten();
    models.filter(|model| model["state"] == state).count()
}

/// Its program prints the lines itself.
fn peers(figure: &str, scale: Scale) -> Result<()> {
    let program = workspace::skerry().with_file_name("inference-peers");
    ensure!(
        program.exists(),
        "inference-peers is not built; `tests/bench inference` builds it"
    );
    let mut command = Command::new(program);
    command.arg(figure).arg(onnxruntime()?);
    command.args(scale.quick.then_some("--quick"));
    let status = command.status()?;
    ensure!(status.success(), "inference-peers ended with {status}");
    Ok(())
}

/// The library in the Python package.
fn onnxruntime() -> Result<PathBuf> {
    let missing = "no onnxruntime; `tests/run` makes the Python environment that has it";
    let named = |path: &Path, start: &str| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(start))
    };
    let inside = |folder: PathBuf, start: &str| -> Result<PathBuf> {
        let entries = std::fs::read_dir(folder).context(missing)?;
        let mut paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        paths.find(|path| named(path, start)).context(missing)
    };
    let python = inside(workspace::target().join("venv/lib"), "python3")?;
    let package = python.join("site-packages/onnxruntime/capi");
    inside(package, "libonnxruntime.so")
}
