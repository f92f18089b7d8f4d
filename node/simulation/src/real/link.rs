//! The link: a listening port per broker, and frames both ways while it is up.

use super::rewrite::{Pending, rewrite};
use super::wire::{Endpoint, read_frame};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A demo's cluster has a handful of brokers; an answer that names more than this is no answer.
const DOORS_MAX: usize = 256;
const BACKLOG: u32 = 64;
/// Between attempts at what only fails when the machine is short of something.
const PATIENCE: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Link {
    state: watch::Sender<State>,
    doors: Mutex<Doors>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    up: bool,
    /// How often it was cut: a connection ends with the cut after its beginning, even when the
    /// link is up again before anybody looks.
    cuts: u64,
}

#[derive(Debug, Default)]
struct Doors {
    by_broker: HashMap<Endpoint, SocketAddr>,
    keepers: JoinSet<()>,
}

impl Link {
    pub(super) fn new() -> Arc<Self> {
        let (state, _) = watch::channel(State { up: true, cuts: 0 });
        Arc::new(Self {
            state,
            doors: Mutex::default(),
        })
    }

    pub(super) fn cut(&self) {
        self.state.send_modify(|state| {
            *state = State {
                up: false,
                cuts: state.cuts + 1,
            }
        });
    }

    pub(super) fn restore(&self) {
        self.state.send_modify(|state| state.up = true);
    }

    /// Where `broker` is reached through the link: a port of its own, made on first sight.
    pub(super) fn door(self: &Arc<Self>, broker: &Endpoint) -> io::Result<SocketAddr> {
        let mut doors = self.doors();
        if let Some(address) = doors.by_broker.get(broker) {
            return Ok(*address);
        }
        if doors.by_broker.len() == DOORS_MAX {
            return Err(io::Error::other(format!(
                "the cluster names over {DOORS_MAX} brokers"
            )));
        }
        let reserved = reserve((Ipv4Addr::LOCALHOST, 0).into())?;
        let address = reserved.local_addr()?;
        let listener = reserved.listen(BACKLOG)?;
        doors.by_broker.insert(broker.clone(), address);
        doors
            .keepers
            .spawn(keep(Arc::clone(self), listener, address, broker.clone()));
        Ok(address)
    }

    /// Ends every door and connection, without waiting.
    pub(super) fn abort(&self) {
        self.doors().keepers.abort_all();
    }

    pub(super) async fn stop(&self) {
        let mut keepers = std::mem::take(&mut self.doors().keepers);
        keepers.shutdown().await;
    }

    fn doors(&self) -> MutexGuard<'_, Doors> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bound and not listening: connections are refused, and nobody else gets the port.
fn reserve(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Keeps one broker's door: open while the link is up.
async fn keep(link: Arc<Link>, listener: TcpListener, address: SocketAddr, broker: Endpoint) {
    let mut state = link.state.subscribe();
    let mut connections = JoinSet::new();
    let mut open = Some(listener);
    loop {
        if let Some(listener) = open.take() {
            admit(&link, &listener, &broker, &mut connections).await;
        }
        // The port is held while the link is down, so that it is still there when it is up again.
        if let Ok(reserved) = reserve(address) {
            until(&mut state, |state| state.up).await;
            open = reserved.listen(BACKLOG).ok();
        }
        if open.is_none() {
            tokio::time::sleep(PATIENCE).await;
        }
    }
}

/// Accepts until the link is cut. The connections see the cut for themselves.
async fn admit(
    link: &Arc<Link>,
    listener: &TcpListener,
    broker: &Endpoint,
    connections: &mut JoinSet<()>,
) {
    let mut state = link.state.subscribe();
    loop {
        tokio::select! {
            () = until(&mut state, |state| !state.up) => return,
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    connections.spawn(connection(Arc::clone(link), client, broker.clone()));
                }
                Err(_) => tokio::time::sleep(PATIENCE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Returns when the state is as wished.
async fn until(state: &mut watch::Receiver<State>, wished: impl FnMut(&State) -> bool) {
    state
        .wait_for(wished)
        .await
        .expect("the link outlives what runs on it");
}

async fn connection(link: Arc<Link>, mut client: TcpStream, broker: Endpoint) {
    let mut state = link.state.subscribe();
    let State { up, cuts } = *state.borrow_and_update();
    let mut upstream = None;
    let carried = async {
        let connected = upstream.insert(broker.connect().await?);
        client.set_nodelay(true)?;
        carry(&link, &mut client, connected).await
    };
    let cut = tokio::select! {
        biased;
        () = until(&mut state, |state| !up || state.cuts != cuts) => true,
        ended = carried => {
            if let Err(error) = ended {
                tracing::debug!(%broker, %error, "a connection through the link ended");
            }
            false
        }
    };
    if cut {
        // A cut must look like one: no orderly goodbye with everything delivered.
        for stream in [Some(client), upstream].into_iter().flatten() {
            let _ = stream.set_zero_linger();
        }
    }
}

/// Carries frames both ways until either side is done.
async fn carry(link: &Arc<Link>, client: &mut TcpStream, broker: &mut TcpStream) -> io::Result<()> {
    let pending = Mutex::default();
    let (from_client, to_client) = client.split();
    let (from_broker, to_broker) = broker.split();
    tokio::select! {
        ended = requests(&pending, from_client, to_broker) => ended,
        ended = answers(link, &pending, from_broker, to_client) => ended,
    }
}

async fn requests(
    pending: &Mutex<Pending>,
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
) -> io::Result<()> {
    while let Some(frame) = read_frame(&mut from).await? {
        locked(pending).request(&frame);
        to.write_all(&frame).await?;
    }
    Ok(())
}

async fn answers(
    link: &Arc<Link>,
    pending: &Mutex<Pending>,
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
) -> io::Result<()> {
    while let Some(frame) = read_frame(&mut from).await? {
        let asked = locked(pending).answer(&frame);
        let rewritten = match asked {
            None => None,
            Some(asked) => rewrite(asked, &frame, |broker| link.door(broker)).inspect_err(
                // To let it pass could show the client a way around the link.
                |error| tracing::warn!(%error, "the link ends a connection"),
            )?,
        };
        to.write_all(&rewritten.unwrap_or(frame)).await?;
    }
    Ok(())
}

fn locked(pending: &Mutex<Pending>) -> MutexGuard<'_, Pending> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}
