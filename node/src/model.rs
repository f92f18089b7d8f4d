//! `skerry model …`: the models of a node.

use crate::exit::Exit;

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
