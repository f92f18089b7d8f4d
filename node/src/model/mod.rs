//! The models of a node, and `skerry model …`: those of a running one, and model files by themselves.

mod arguments;
mod ask;
mod replay;
mod runner;
mod serve;
mod trial;

pub use arguments::Arguments;
pub use runner::Runner;
pub use serve::routes;
pub use trial::{problems, shadow_problems};

use crate::exit::Exit;
use crate::logs::told;
use arguments::ModelCommand;

pub fn run(args: &Arguments) -> Exit {
    match &args.command {
        ModelCommand::List(args) => ask::list(args),
        ModelCommand::Activate(args) => ask::activate(args),
        ModelCommand::Rollback(args) => ask::rollback(args),
        ModelCommand::Shadow(args) => ask::shadow(args),
        ModelCommand::Report(args) => ask::report(args),
        ModelCommand::Check(args) => trial::check(args).unwrap_or_else(told),
        ModelCommand::Bench(args) => trial::bench(args).unwrap_or_else(told),
        ModelCommand::Replay(args) => replay::run(args).unwrap_or_else(told),
    }
}

/// The process that models run in. Speaks with the node that started it and with nobody else.
pub fn host() -> Exit {
    match skerry_inference::serve_host() {
        Ok(()) => Exit::Clean,
        Err(error) => {
            eprintln!("skerry: the models' process: {error}");
            Exit::Failed
        }
    }
}
