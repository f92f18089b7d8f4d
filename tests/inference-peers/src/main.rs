//! What a model costs in our inference, against onnxruntime, one thread each.
//!
//! Both run in this process and take turns of some milliseconds, so that a noisy machine slows
//! both and cancels out of the ratio. Each figure is a line of JSON. Before a model is measured,
//! both have to answer the same: a wrong answer has no speed.
//!
//! The models are those that are shipped, and one or more of each family as today's exporters
//! write them (`inference/tests/families`).

mod figures;
mod latency;
mod loading;
mod models;
mod theirs;

use std::process::ExitCode;
use std::time::Duration;

/// How often, and how long at a time.
#[derive(Clone, Copy)]
struct Scale {
    turns: usize,
    /// Of one turn, unless a few windows take longer.
    turn: Duration,
    /// Processes that load a model, of each kind.
    loads: usize,
}

const FULL: Scale = Scale {
    turns: 100,
    turn: Duration::from_millis(10),
    loads: 11,
};
const QUICK: Scale = Scale {
    turns: 15,
    turn: Duration::from_millis(5),
    loads: 3,
};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        ["latency", library] => latency::run(library, FULL),
        ["latency", library, "--quick"] => latency::run(library, QUICK),
        ["loading", library] => loading::run(library, FULL),
        ["loading", library, "--quick"] => loading::run(library, QUICK),
        ["child", whose, model, library] => loading::child(whose, model, library),
        _ => {
            eprintln!("usage: inference-peers latency|loading LIBONNXRUNTIME [--quick]");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("inference-peers: {error:#}");
            ExitCode::FAILURE
        }
    }
}
