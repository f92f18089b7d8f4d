//! The listeners: bound together, accepted from in turn. A connection's handshakes are its own
//! task's business, so nobody waits for another's.

use crate::config::Config;
use crate::error::Error;
use crate::listener::{Address, Listener, WebSocket};
use crate::peer::Peer;
use crate::renewal::Renewal;
use crate::socket::{Boxed, Socket, Unopened};
use crate::status::{ListenerStatus, Status};
use crate::throttle::Throttle;
use crate::unix::BoundUnix;
use crate::websocket;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixStream};
use tokio::task::JoinSet;

/// What ALPN agrees on below MQTT, and below HTTP (RFC 7301's registry).
const ALPN_MQTT: &[u8] = b"mqtt";
const ALPN_HTTP: &[u8] = b"http/1.1";

/// Connections that the system may keep until they are accepted, where `net.core.somaxconn`
/// allows as many. After a power cut all devices of a site come at once, and of one too many the
/// client believes that it is connected while nobody knows it here.
pub(crate) const LISTEN_BACKLOG: u32 = 4096;

/// All listeners of a broker, in the order of the configuration.
#[derive(Debug)]
pub(crate) struct Listeners {
    entrances: Vec<(Bound, Arc<Entrance>)>,
    /// Who is asked first, so that a busy listener does not starve the others.
    turn: usize,
}

#[derive(Debug)]
enum Bound {
    Tcp(TcpListener),
    Unix(BoundUnix),
}

/// What a connection passes through on one listener.
#[derive(Debug)]
pub(crate) struct Entrance {
    address: Address,
    tls: Option<Arc<Renewal>>,
    websocket: Option<WebSocket>,
    status: Arc<ListenerStatus>,
    throttle: Throttle,
}

/// A connection from which nothing was read yet.
pub(crate) struct Arrival {
    stream: Raw,
    pub address: Option<SocketAddr>,
    pub entrance: Arc<Entrance>,
}

enum Raw {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listeners {
    pub(crate) async fn bind(config: &Config) -> Result<Self, Error> {
        let mut entrances = Vec::with_capacity(config.listeners.len());
        for listener in &config.listeners {
            let failed = |source| Error::Bind {
                address: listener.address.clone(),
                source,
            };
            let bound = Bound::new(&listener.address).await.map_err(failed)?;
            let address = bound.address(&listener.address).map_err(failed)?;
            let entrance = Arc::new(Entrance::new(listener, address));
            entrances.push((bound, entrance));
        }
        let this = Self { entrances, turn: 0 };
        let renewals: Vec<_> = this.renewals().collect();
        let read = move || renewals.iter().for_each(|renewal| renewal.load());
        // It has no result to lose, and a panic in it is reported by the panic hook.
        let _ = tokio::task::spawn_blocking(read).await;
        Ok(this)
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.entrances.iter().map(|(_, entrance)| &entrance.address)
    }

    /// The first TCP listener without layers.
    pub(crate) fn plain(&self) -> Option<SocketAddr> {
        let mut entrances = self.entrances.iter();
        entrances.find_map(|(_, entrance)| match entrance.address {
            Address::Tcp(address) if entrance.is_plain() => Some(address),
            _ => None,
        })
    }

    /// Lets `status` tell of these listeners.
    pub(crate) fn tell(&self, status: &Status) {
        let all = self.entrances.iter();
        let all = all.map(|(_, entrance)| Arc::clone(&entrance.status));
        *status
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = all.collect();
    }

    /// Looks after the certificates until `tasks` is shut down.
    pub(crate) fn watch(&self, tasks: &mut JoinSet<()>) {
        for renewal in self.renewals() {
            tasks.spawn(renewal.watch());
        }
    }

    fn renewals(&self) -> impl Iterator<Item = Arc<Renewal>> {
        let all = self.entrances.iter();
        all.filter_map(|(_, entrance)| entrance.tls.clone())
    }

    /// The next connection of any listener. Safe to cancel.
    pub(crate) async fn accept(&mut self) -> io::Result<Arrival> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Arrival>> {
        let count = self.entrances.len();
        for index in (self.turn..count).chain(0..self.turn) {
            let (bound, entrance) = &self.entrances[index];
            if let Poll::Ready(accepted) = bound.poll_accept(cx) {
                self.turn = (index + 1) % count;
                let (stream, address) = accepted?;
                entrance.status.connections_total.up();
                let entrance = Arc::clone(entrance);
                return Poll::Ready(Ok(Arrival {
                    stream,
                    address,
                    entrance,
                }));
            }
        }
        Poll::Pending
    }
}

impl Bound {
    async fn new(address: &Address) -> io::Result<Self> {
        Ok(match address {
            Address::Tcp(address) => Self::Tcp(bind_tcp(*address)?),
            Address::Unix(socket) => Self::Unix(BoundUnix::bind(socket).await?),
        })
    }

    /// The address with the port that the system chose.
    fn address(&self, asked: &Address) -> io::Result<Address> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            Self::Unix(_) => Ok(asked.clone()),
        }
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Raw, Option<SocketAddr>)>> {
        match self {
            Self::Tcp(listener) => listener.poll_accept(cx).map(|accepted| {
                let (stream, address) = accepted?;
                Ok((Raw::Tcp(stream), Some(address)))
            }),
            Self::Unix(listener) => listener
                .poll_accept(cx)
                .map(|accepted| Ok((Raw::Unix(accepted?), None))),
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Connections of the process before this one may still be fading away.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(LISTEN_BACKLOG)
}

impl Entrance {
    fn new(listener: &Listener, address: Address) -> Self {
        let name = address.to_string();
        let mut status = ListenerStatus::new(name.clone(), listener.transport());
        let tls = listener.tls.clone().map(|tls| {
            let protocol = match listener.websocket {
                Some(_) => ALPN_HTTP,
                None => ALPN_MQTT,
            };
            let certificate = status.with_certificate();
            Arc::new(Renewal::new(name, tls, protocol, certificate))
        });
        Self {
            address,
            tls,
            websocket: listener.websocket.clone(),
            status: Arc::new(status),
            throttle: Throttle::default(),
        }
    }

    const fn is_plain(&self) -> bool {
        self.tls.is_none() && self.websocket.is_none()
    }

    /// Tells of a connection that did not come to a session because of how it speaks.
    pub(crate) fn turned_away(
        &self,
        address: Option<SocketAddr>,
        reason: &'static str,
        detail: &dyn std::fmt::Display,
    ) {
        self.status.refused.up(reason);
        if let Some(kept_back) = self.throttle.line(reason, Instant::now()) {
            let listener = &self.address;
            let address = address.map_or_else(|| "this machine".to_owned(), |it| it.to_string());
            tracing::info!(
                %listener, client = address, reason, kept_back,
                "a connection was turned away: {detail}"
            );
        }
    }
}

impl Arrival {
    /// Takes the connection through the handshakes of its listener.
    pub(crate) async fn open(self, packet_bytes_max: usize) -> Result<(Socket, Peer), Unopened> {
        let Self {
            stream,
            address,
            entrance,
        } = self;
        let mut peer = Peer {
            address,
            certificate: None,
        };
        if let Raw::Tcp(stream) = &stream {
            // Acknowledgements are small and somebody waits for each; a failure costs latency only.
            let _ = stream.set_nodelay(true);
        }
        let mut socket: Boxed = match stream {
            Raw::Tcp(stream) if entrance.is_plain() => return Ok((Socket::Tcp(stream), peer)),
            Raw::Tcp(stream) => Box::new(stream),
            Raw::Unix(stream) => Box::new(stream),
        };
        if let Some(tls) = &entrance.tls {
            let server = tls.current().ok_or_else(|| Unopened {
                reason: "tls_files",
                detail: "the listener has no good certificate; /status says why".to_owned(),
            })?;
            (socket, peer.certificate) = server.accept(socket).await?;
        }
        if let Some(settings) = &entrance.websocket {
            socket = websocket::accept(socket, settings, packet_bytes_max).await?;
        }
        Ok((Socket::Layered(socket), peer))
    }
}
