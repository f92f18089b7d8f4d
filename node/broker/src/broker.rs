//! Binding, accepting, and the tasks that all connections share.

use crate::accept::Listeners;
use crate::config::{Config, PACKET_BYTES_LIMIT};
use crate::connection;
use crate::error::Error;
use crate::fanout::{self, Drain};
use crate::ingest::Ingest;
use crate::listener::Address;
use crate::mailbox::MailboxLimits;
use crate::qos2;
use crate::registry::Registry;
use crate::republish;
use crate::retained::Retained;
use crate::status::Status;
use skerry_store::Log;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// How often sessions of absent clients are looked at.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(5);
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
    pub async fn run(
        mut self,
        log: Log,
        status: Arc<Status>,
        stop: CancellationToken,
    ) -> Result<(), Error> {
        // Ours to cancel as well: a log that failed ends everything.
        let stop = stop.child_token();
        let (ingest, drain) = prepare(self.config, log, &status, &stop).await?;
        *status
            .listening
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = self.listeners.plain();
        self.listeners.tell(&status);

        let mut background = JoinSet::new();
        background.spawn(dispatch(Arc::clone(&ingest), drain));
        background.spawn(expire(Arc::clone(&ingest)));
        self.listeners.watch(&mut background);
        let mut writers = JoinSet::new();
        writers.spawn(record_gaps(Arc::clone(&ingest), stop.clone()));
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

async fn prepare(
    config: Config,
    log: Log,
    status: &Arc<Status>,
    stop: &CancellationToken,
) -> Result<(Arc<Ingest>, Drain), Error> {
    let limits = MailboxLimits {
        messages_max: config.mailbox_messages_max,
        bytes_max: config.mailbox_bytes_max,
    };
    let registry = Arc::new(Registry::new(
        limits,
        config.sessions_max,
        Arc::clone(status),
    ));
    let (reader, topics_max) = (log.clone(), config.retained_max);
    let blocking = tokio::task::spawn_blocking(move || {
        let retained = Retained::load(&reader, topics_max)?;
        let (fanout, drain) = fanout::start()?;
        Ok::<_, Error>((retained, fanout, drain))
    });
    let started = blocking
        .await
        .map_err(|error| Error::Fanout(error.to_string()))?;
    let (retained, fanout, drain) = started?;
    let ingest = Ingest::new(
        log,
        config,
        Arc::clone(status),
        retained,
        registry,
        fanout,
        stop.clone(),
    );
    Ok((Arc::new(ingest), drain))
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
                Ok(_) if connections.len() >= ingest.config.connections_max => {
                    if ingest.status.connections_refused.up("connections_max") == 0 {
                        tracing::warn!("connections_max is reached; further clients are closed");
                    }
                }
                Ok(arrival) => {
                    let ingest = Arc::clone(ingest);
                    connections.spawn(connection::serve(arrival, ingest, stop.clone()));
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

/// Moves messages from the router into mailboxes.
async fn dispatch(ingest: Arc<Ingest>, mut drain: Drain) {
    loop {
        match drain.next().await {
            Ok(drained) => {
                if drained.lost > 0 {
                    ingest
                        .status
                        .fanout_losses
                        .add(usize::try_from(drained.lost).unwrap_or(0));
                    tracing::error!(
                        messages = drained.lost,
                        "the router dropped live messages to local subscribers; the log has them"
                    );
                }
                if let Some(message) = drained.message {
                    ingest.registry.deliver(message);
                }
            }
            Err(error) => return ingest.fail(error),
        }
    }
}

async fn expire(ingest: Arc<Ingest>) {
    loop {
        tokio::time::sleep(EXPIRY_INTERVAL).await;
        for seat in ingest.registry.expire(Instant::now()) {
            // A failure leaves the ids for the client's next clean start.
            let _ = qos2::load(&ingest.log, &seat.mailbox.client_id, true).await;
        }
    }
}

async fn record_gaps(ingest: Arc<Ingest>, stop: CancellationToken) {
    ingest.gaps.run(&ingest.log, &ingest.status, &stop).await;
}
