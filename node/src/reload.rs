//! SIGHUP: the node begins anew with its config as it is now.
//!
//! It stops as at SIGTERM, then executes itself: the process stays, with its id, for a supervisor
//! to see, and no part needs to know how it would change while it runs.

use crate::config::Config;
use crate::exit::Exit;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Whether the config file can be run with. A wrong one changes nothing.
pub fn is_sound(path: &Path) -> bool {
    match Config::load(path) {
        Ok(_) => true,
        Err(error) => {
            tracing::error!("SIGHUP: the node goes on with the config it has: {error}");
            false
        }
    }
}

/// Executes this program with the arguments it was started with; returns only if that fails. A
/// program that was replaced on the disk meanwhile has no path: a supervisor starts the new one.
pub fn begin_anew() -> Exit {
    let why = match std::env::current_exe() {
        Ok(program) => Command::new(program)
            .args(std::env::args_os().skip(1))
            .exec(),
        Err(error) => error,
    };
    tracing::error!("the node has stopped and cannot start itself again: {why}");
    Exit::Failed
}
