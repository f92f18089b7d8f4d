//! The gate: every byte of the uplink passes through here, so that caps, budgets, windows,
//! priorities, proxies and the search for dead links hold for all of them.
//!
//! Our Kafka client opens its own sockets and has no hook for others, but it dials through a
//! SOCKS5 proxy if told to. So the gate is one, inside this process, on a loopback port of the
//! system's choosing. TLS is the client's and the broker's: the gate sees what the link would.
//!
//! ```text
//!   lane ─▶ Kafka client ── SOCKS5, loopback ──▶ gate ── paced, counted ──▶ [proxy] ──▶ broker
//!                            user = ticket        │
//!                                                 └─ settings of the link class in force
//! ```
//!
//! - A **ticket** is a login of random letters with a priority and a weight. Whoever has none,
//!   and be it a process of this machine, does not get through.
//! - What waits for the link waits in the client: its socket is read a chunk at a time, when the
//!   chunk may go. A chunk is a segment on a slow link, so an alert waits for one at most.
//! - A closed window, a budget used up and another link class end the connections they concern;
//!   until the gate opens again, dials are refused and [`Ledger::admission`] says so.
//!
//! What it does not do: count what the system does by itself (see [`cost`]), resolve names over
//! the link's own name server, or protect against whoever can read this process's memory.

mod bucket;
mod budget;
mod calendar;
mod class;
mod cost;
mod http_connect;
mod ledger;
mod links;
mod pacer;
mod queue;
mod relay;
mod route;
mod socket;
mod socks;
#[cfg(test)]
mod tests;
mod ticket;
mod upstream;
mod window;

pub use bucket::BitRate;
pub use budget::{Budget, Period, Usage, Usages, Verdict};
pub use calendar::{Day, UnixSeconds, UnknownZone, Zone};
pub use class::{AUTO, Cidr, DEFAULT, InvalidCidr, LinkClass, LinkSettings, Pack, Why};
pub use ledger::{Admission, Ledger, Snapshot};
pub use links::{Links, UnknownClass};
pub use queue::Priority;
pub use ticket::Ticket;
pub use upstream::{InvalidProxy, Login, Proxy, ProxyKind};
pub use window::{InvalidWindow, Windows};

use cost::Cost;
use pacer::Pacer;
use queue::Lane;
use relay::{Broken, Relay};
use socks::Reply;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use ticket::Tickets;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Our client says what it wants at once.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
/// A node has some lanes and a cluster some brokers.
const CONNECTIONS_MAX: usize = 512;
/// What the client may have handed over before its turn has come: little, because it counts that
/// as sent, and it is what is lost with a connection.
const LOOPBACK_BUFFER_BYTES: u32 = 64 * 1024;
const BACKLOG: u32 = 128;
const TICK: Duration = Duration::from_secs(1);

/// Ends its tasks and connections when dropped.
#[derive(Debug)]
pub struct Gate {
    address: SocketAddr,
    tickets: Arc<Tickets>,
    resets: watch::Sender<u64>,
    _ends: DropGuard,
}

/// What the gate's tasks share.
struct Shared {
    settings: watch::Receiver<Arc<LinkSettings>>,
    ledger: Arc<Ledger>,
    tickets: Arc<Tickets>,
    resets: watch::Sender<u64>,
    sending: Pacer,
    receiving: Pacer,
}

impl Gate {
    /// Opens it, inside a tokio runtime. What the settings become holds at once.
    ///
    /// # Errors
    /// When loopback has no port to listen on.
    pub fn open(
        settings: watch::Receiver<Arc<LinkSettings>>,
        ledger: Arc<Ledger>,
    ) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(LOOPBACK_BUFFER_BYTES)?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let listener = socket.listen(BACKLOG)?;
        let first = Arc::clone(&settings.borrow());
        let shared = Arc::new(Shared {
            sending: Pacer::new(first.class.bandwidth),
            receiving: Pacer::new(first.class.bandwidth_receive),
            tickets: Arc::default(),
            resets: watch::Sender::new(0),
            settings,
            ledger,
        });
        shared.ledger.tick(&first, UnixSeconds::now());
        let ends = CancellationToken::new();
        let gate = Self {
            address: listener.local_addr()?,
            tickets: Arc::clone(&shared.tickets),
            resets: shared.resets.clone(),
            _ends: ends.clone().drop_guard(),
        };
        tokio::spawn(async move {
            let work = async {
                tokio::join!(
                    shared.sending.drive(),
                    shared.receiving.drive(),
                    shared.keep_time(),
                    accept(&listener, &shared),
                )
            };
            ends.run_until_cancelled(work).await;
        });
        Ok(gate)
    }

    /// A login for connections of `priority`, which share what is left for it by `weight`.
    /// It is good until it is dropped, or the gate is.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn ticket(&self, priority: Priority, weight: NonZeroU32) -> io::Result<Ticket> {
        Tickets::issue(&self.tickets, self.address, priority, weight)
    }

    /// Closes every connection; new ones may follow at once.
    pub fn reset(&self) {
        self.resets.send_modify(|resets| *resets += 1);
    }
}

/// Serves each connection in a task of its own; they end with this future.
async fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if connections.len() < CONNECTIONS_MAX => {
                    let shared = Arc::clone(shared);
                    connections.spawn(async move { shared.serve(stream).await });
                }
                Ok(_) => tracing::warn!("{CONNECTIONS_MAX} connections through the gate: no more"),
                // No file descriptor is left, say: some will be, later.
                Err(error) => {
                    tracing::warn!(%error, "the gate cannot take a connection");
                    sleep(TICK).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

impl Shared {
    /// Applies the settings whenever they change, and looks at the clock.
    async fn keep_time(&self) {
        let mut settings = self.settings.clone();
        let mut ticks = interval(TICK);
        let mut current = Arc::clone(&settings.borrow_and_update());
        let mut follows = true;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                changed = settings.changed(), if follows => follows = changed.is_ok(),
            }
            let next = Arc::clone(&settings.borrow_and_update());
            self.ledger.tick(&next, UnixSeconds::now());
            self.sending.set_rate(next.class.bandwidth);
            self.receiving.set_rate(next.class.bandwidth_receive);
            if !next.is_same_way(&current) {
                tracing::info!(class = %next.class.name, because = %next.why, "another link");
                self.resets.send_modify(|resets| *resets += 1);
            }
            current = next;
        }
    }

    /// One connection, from its login to its end.
    async fn serve(&self, mut near: TcpStream) {
        let known = |user: &[u8], password: &[u8]| self.tickets.lane(user, password);
        let asked = timeout(HANDSHAKE_WITHIN, socks::accept(&mut near, known)).await;
        let (lane, target) = match asked {
            Ok(Ok(asked)) => asked,
            Ok(Err(error)) => return tracing::debug!(%error, "somebody without a ticket"),
            Err(_) => return tracing::debug!("somebody who connects and says nothing"),
        };
        let mut resets = self.resets.subscribe();
        let mut admission = self.ledger.admission();
        let pass = self.pass(lane, &target, &mut near);
        let ended: Result<(), String> = tokio::select! {
            // First, so that whoever may not pass is told, and not just cut off.
            biased;
            ended = pass => ended,
            _ = resets.changed() => Err("the link is another one now".to_owned()),
            Ok(now) = admission.wait_for(|it| !it.allows(lane.priority)) => {
                let class = self.settings.borrow().class.name.clone();
                Err(now.because(&class, UnixSeconds::now()).unwrap_or_default())
            }
        };
        if let Err(because) = ended {
            tracing::debug!(%target, %because, "a connection through the gate ended");
            socket::reset_on_close(&near);
        }
    }

    /// Dials, and relays until one side is done.
    async fn pass(
        &self,
        lane: Lane,
        target: &socks::Target,
        near: &mut TcpStream,
    ) -> Result<(), String> {
        let settings = Arc::clone(&self.settings.borrow());
        let refusal = {
            let admission = self.ledger.admission();
            let admission = admission.borrow();
            let allowed = admission.allows(lane.priority);
            let because = || admission.because(&settings.class.name, UnixSeconds::now());
            (!allowed).then(because).flatten()
        };
        if let Some(because) = refusal {
            tracing::debug!(%target, %because, "a connection through the gate was refused");
            let told = socks::reply(near, Reply::NotAllowed).await;
            return told.map_err(|error| error.to_string());
        }
        let (sent, received) = Cost::opening();
        self.sending.charge(sent);
        let mut far = match upstream::dial(target, &settings.class).await {
            Ok(far) => far,
            Err(error) => {
                self.ledger.spend(sent, 0);
                self.ledger.failed(error.to_string());
                let told = socks::reply(near, error.reply()).await;
                return told.map_err(|error| error.to_string());
            }
        };
        self.ledger.spend(sent, received);
        self.ledger.succeeded();
        let told = socks::reply(near, Reply::Succeeded).await;
        told.and_then(|()| near.set_nodelay(true))
            .map_err(|error| error.to_string())?;
        let relay = Relay {
            lane,
            cost: Cost::of(&far),
            sending: &self.sending,
            receiving: &self.receiving,
            ledger: &self.ledger,
            probe_after: socket::probe_after(settings.class.dead_after),
        };
        let ended = relay.run(near, &mut far).await;
        if let Err(Broken::Far(error)) = &ended
            && swallowed(error)
        {
            let seconds = settings.class.dead_after.as_secs();
            let why = format!("{target} has acknowledged nothing for {seconds} s: {error}");
            self.ledger.failed(why);
        }
        ended.map_err(|broken| broken.to_string())
    }
}

/// What the kernel says of a connection on which nothing was acknowledged: with "unreachable" it
/// adds what some router, or its own search for a neighbour, had to say meanwhile.
fn swallowed(error: &io::Error) -> bool {
    use io::ErrorKind::{HostUnreachable, NetworkUnreachable, TimedOut};
    matches!(
        error.kind(),
        TimedOut | HostUnreachable | NetworkUnreachable
    )
}
