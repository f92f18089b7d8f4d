//! Where the broker listens, and what MQTT is wrapped in there.

use crate::tls::Tls;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// One way in. The layers are independent: any of them works on any address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    pub address: Address,
    /// TLS around all the rest.
    pub tls: Option<Tls>,
    /// MQTT inside of WebSocket frames.
    pub websocket: Option<WebSocket>,
}

/// Where a listener is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(UnixSocket),
}

/// A socket in the file system, for clients on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixSocket {
    pub path: PathBuf,
    /// Permissions of the socket: who may write to it may connect.
    pub mode: u32,
}

/// What a WebSocket listener asks of its clients, beyond the subprotocol `mqtt`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WebSocket {
    /// The only path that is answered; `None` answers any.
    pub path: Option<String>,
}

impl Listener {
    /// Plain MQTT over TCP.
    #[must_use]
    pub const fn tcp(address: SocketAddr) -> Self {
        Self::at(Address::Tcp(address))
    }

    /// Plain MQTT; layers are added by setting them.
    #[must_use]
    pub const fn at(address: Address) -> Self {
        Self {
            address,
            tls: None,
            websocket: None,
        }
    }

    /// The word for its transport, as in the configuration.
    #[must_use]
    pub const fn transport(&self) -> &'static str {
        match (&self.address, &self.tls, &self.websocket) {
            (_, Some(_), Some(_)) => "wss",
            (_, None, Some(_)) => "ws",
            (_, Some(_), None) => "tls",
            (Address::Tcp(_), None, None) => "tcp",
            (Address::Unix(_), None, None) => "unix",
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(socket) => socket.path.display().fmt(f),
        }
    }
}
