//! `skerry uplink …`: the way to the cluster, beside a running node or without one.

mod doctor;
mod link;
mod release;

pub use link::Chosen;
pub use release::Released;

use crate::cli::UplinkCommand;
use crate::exit::Exit;

pub fn run(command: &UplinkCommand) -> Exit {
    match command {
        UplinkCommand::Doctor(args) => doctor::run(args),
        UplinkCommand::Link(args) => link::run(args),
        UplinkCommand::Release(args) => release::run(args),
    }
}
