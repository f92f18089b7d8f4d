//! `skerry model …`: the models of a running node, and model files by themselves.

mod ask;
mod replay;
mod serve;
mod trial;

pub use serve::routes;

use crate::cli::ModelCommand;
use crate::exit::Exit;
use crate::logs::told;

pub fn run(command: &ModelCommand) -> Exit {
    match command {
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
