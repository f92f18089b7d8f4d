//! What a binary without the OPC-UA client has in its place.

pub use crate::component::Unheard as Arguments;

use crate::component::OPCUA;
use crate::config::Servers;
use crate::exit::Exit;
use crate::supervise::Supervised;
use serde::Serialize;
use skerry_store::Log;
use tokio_util::sync::CancellationToken;

pub fn run(_args: &Arguments) -> Exit {
    OPCUA.refuse_command()
}

#[derive(Clone, Default)]
pub struct Clients;

impl Clients {
    pub fn new(_servers: Servers) -> Self {
        Self
    }

    pub fn snapshot(&self) -> impl Serialize {
        [(); 0]
    }

    pub fn start(&self, _log: &Log, _stop: &CancellationToken) -> Vec<Supervised> {
        Vec::new()
    }
}
