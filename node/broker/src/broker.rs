//! Binding, accepting, and the tasks that all connections share.

use crate::accept::Listeners;
use crate::access::Guard;
use crate::config::{Config, PACKET_BYTES_LIMIT};
use crate::connection;
use crate::dispatch;
use crate::error::Error;
use crate::ingest::Ingest;
use crate::listener::Address;
use crate::qos2;
use crate::registry::Registry;
use crate::republish;
use crate::retained::Retained;
use crate::saved;
use crate::status::Status;
use crate::streams::Streams;
use crate::sys;
use skerry_store::Log;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// How often sessions and wills of absent clients are looked at.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);
/// After `accept` failed, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A broker that has its addresses, and does not accept yet.
#[derive(Debug)]
pub struct Broker {
    config: Config,
    listeners: Listeners,
}

impl Broker {
    /// Takes the addresses. Port 0 takes any free one; see [`Broker::local_addr`]. A listener
    /// whose certificate cannot be used is bound as well, and serves once it can.
    ///
    /// # Errors
    /// [`Error::Bind`] with the address and the system's reason.
    pub async fn bind(mut config: Config) -> Result<Self, Error> {
        config.packet_bytes_max = config.packet_bytes_max.min(PACKET_BYTES_LIMIT);
        let listeners = Listeners::bind(&config).await?;
        Ok(Self { config, listeners })
    }

    /// Where clients connect without TLS and WebSocket: the first such TCP listener.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.listeners.plain()
    }

    /// All addresses, in the order of the configuration.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.listeners.addresses()
    }

    /// Serves until `stop`, then settles what was taken: every publish that was read is
    /// committed and answered before this returns. Close the log after it, not before.
    ///
    /// # Errors
    /// When the log has failed for good, or the fan-out stopped. Nothing else ends it.
    pub fn run(
        self,
        log: Log,
        status: Arc<Status>,
        stop: CancellationToken,
    ) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send>> {
        // Boxed, so that it is compiled once and not anew by each crate that polls it.
        Box::pin(self.serve(log, status, stop))
    }

    async fn serve(
        mut self,
        log: Log,
        status: Arc<Status>,
        stop: CancellationToken,
    ) -> Result<(), Error> {
        // Ours to cancel as well: a log that failed ends everything.
        let stop = stop.child_token();
        let ingest = prepare(self.config, log, &status, &stop).await?;
        *status
            .listening
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = self.listeners.plain();
        self.listeners.tell(&status);

        let mut background = JoinSet::new();
        for index in 0..ingest.streams.len() {
            background.spawn(dispatch::run(Arc::clone(&ingest), index, stop.clone()));
        }
        background.spawn(expire(Arc::clone(&ingest)));
        background.spawn(sys::run(Arc::clone(&ingest)));
        self.listeners.watch(&mut background);
        let mut writers = JoinSet::new();
        writers.spawn(record_gaps(Arc::clone(&ingest), stop.clone()));
        writers.spawn(Arc::clone(&ingest.guard).run(ingest.log.clone(), stop.clone()));
        for stream in ingest.config.republish.clone() {
            let (ingest, stop) = (Arc::clone(&ingest), stop.clone());
            writers.spawn(async move { republish::run(&ingest, stream, &stop).await });
        }

        let mut connections = JoinSet::new();
        accept(&mut self.listeners, &ingest, &mut connections, &stop).await;
        drop(self.listeners);
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
        while let Some(ended) = writers.join_next().await {
            report(ended);
        }
        // Wills and last publishes may have been refused just now.
        ingest.gaps.write(&ingest.log, &ingest.status).await;
        ingest.guard.finish(&ingest.log).await;
        background.shutdown().await;
        *status
            .listening
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
        ingest.take_fatal().map_or(Ok(()), Err)
    }
}

/// Binds and runs; for whoever need not know the address.
///
/// # Errors
/// Those of [`Broker::bind`] and [`Broker::run`].
pub async fn run(
    config: Config,
    log: Log,
    status: Arc<Status>,
    stop: CancellationToken,
) -> Result<(), Error> {
    Broker::bind(config).await?.run(log, status, stop).await
}

/// Takes up what the log has: sessions, their subscriptions, retained messages.
async fn prepare(
    config: Config,
    log: Log,
    status: &Arc<Status>,
    stop: &CancellationToken,
) -> Result<Arc<Ingest>, Error> {
    let (status, stop) = (Arc::clone(status), stop.clone());
    let blocking = tokio::task::spawn_blocking(move || {
        let retained = Retained::load(&log, config.retained_max)?;
        let streams = Arc::new(streams(&config, &log)?);
        let registry = Arc::new(Registry::new(
            Arc::clone(&streams),
            config.mailbox_messages_max,
            config.mailbox_bytes_max,
            config.sessions_max,
            Arc::clone(&status),
        ));
        registry.load(saved::load(&log, &streams)?);
        let guard = Guard::new(&config, status)?;
        let ingest = Ingest::new(log, config, retained, registry, guard, stop);
        Ok::<_, Error>(Arc::new(ingest))
    });
    blocking.await.expect("reading the catalog does not panic")
}

/// Where messages are published to, and where saved sessions have something left.
fn streams(config: &Config, log: &Log) -> Result<Streams, skerry_store::Error> {
    let routed = config.routes.iter().map(|(_, stream)| stream.clone());
    let mut names: Vec<_> = routed.collect();
    names.push(config.default_stream.clone());
    names.extend(config.republish.iter().cloned());
    let there = log.streams();
    let saved = saved::streams(log)?;
    let left = there
        .into_iter()
        .filter(|name| saved.iter().any(|saved| saved == name.as_str()));
    names.extend(left);
    Streams::new(log, names, &config.republish, &config.immediate)
}

async fn accept(
    listeners: &mut Listeners,
    ingest: &Arc<Ingest>,
    connections: &mut JoinSet<()>,
    stop: &CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(ended) = connections.join_next(), if !connections.is_empty() => report(ended),
            accepted = listeners.accept() => match accepted {
                Ok(arrival) if connections.len() >= ingest.config.connections_max => {
                    if let Some(address) = arrival.address {
                        ingest.guard.refused_connection(address.ip(), "connections_max");
                    }
                    if ingest.status.connections_refused.up("connections_max") == 0 {
                        tracing::warn!("connections_max is reached; further clients are closed");
                    }
                }
                Ok(arrival) => {
                    let Some(admission) = ingest.guard.admit(arrival.address) else {
                        continue;
                    };
                    let (ingest, stop) = (Arc::clone(ingest), stop.clone());
                    connections.spawn(connection::serve(arrival, admission, ingest, stop));
                }
                Err(error) => {
                    if ingest.status.connections_refused.up("accept") == 0 {
                        tracing::error!(%error, "cannot accept MQTT connections; trying on");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// One connection's bug is that connection's end, and worth an operator's attention.
fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a broker task panicked; please report this");
    }
}

/// Ends sessions whose time is over, and publishes wills whose time has come.
async fn expire(ingest: Arc<Ingest>) {
    loop {
        tokio::time::sleep(EXPIRY_INTERVAL).await;
        let now = Instant::now();
        for will in ingest.registry.wills_due(now) {
            ingest.will(will).await;
        }
        for expired in ingest.registry.expire(now) {
            let (mut seat, mut outbound) = (expired.seat, expired.outbound);
            ingest.hand_back(outbound.give_back()).await;
            if let Some(will) = expired.will {
                ingest.will(will.message).await;
            }
            // A failure leaves the session for the client's next clean start.
            let _ = qos2::load(&ingest.log, &seat.mailbox.client_id, true).await;
            let _ = ingest.note(seat.forget()).await;
            seat.give_up();
            ingest.status.sessions_expired.up();
        }
    }
}

async fn record_gaps(ingest: Arc<Ingest>, stop: CancellationToken) {
    ingest.gaps.run(&ingest.log, &ingest.status, &stop).await;
}
