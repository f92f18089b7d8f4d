//! The clients of a running node, one for each `[[opcua]]`.

use crate::config::Servers;
use crate::supervise::{Supervised, part};
use serde::Serialize;
use skerry_bridge::opcua::{self, Config, Status};
use skerry_store::Log;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Each server with how its client fares. A clone tells of the same ones.
#[derive(Clone, Default)]
pub struct Clients(Vec<(Arc<Config>, Arc<Status>)>);

impl Clients {
    pub fn new(servers: Servers) -> Self {
        let client = |server| (Arc::new(Status::new(&server)), Arc::new(server));
        let clients = servers.into_iter().map(client);
        Self(clients.map(|(status, server)| (server, status)).collect())
    }

    /// What `/status` tells of them, in the order of the config.
    pub fn snapshot(&self) -> impl Serialize {
        let statuses = self.0.iter().map(|(_, status)| status.snapshot());
        statuses.collect::<Vec<_>>()
    }

    /// Starts all of them.
    pub fn start(&self, log: &Log, stop: &CancellationToken) -> Vec<Supervised> {
        let clients = self.0.iter();
        clients
            .map(|(server, status)| {
                let name = format!("opcua:{}", server.name);
                let (server, status) = (Arc::clone(server), Arc::clone(status));
                part(name, log, stop, move |log, stop| {
                    opcua::run(Arc::clone(&server), log, Arc::clone(&status), stop)
                })
            })
            .collect()
    }
}
