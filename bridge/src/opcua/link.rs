//! One endpoint, kept connected: the desired state is in the configuration, and this brings the
//! server to it again and again.
//!
//! ```text
//!  connect ─► earlier session taken up, or a new one
//!     ▲            └─► earlier subscription carried on, or a new one after a gap record
//!     │                       └─► publish ─► log ─► acknowledge ─► publish … (flow.rs)
//!     └──── back-off ◄─────────────────── any fault
//! ```

use super::backfill::Reading;
use super::backoff::Backoff;
use super::commands;
use super::config::Config;
use super::error::{Error, status};
use super::events::Going;
use super::flow::{Acknowledgements, Ended};
use super::history::{History, Marks};
use super::ingest::{Ingest, Taken};
use super::nodes::Refused;
use super::progress::Progress;
use super::roster::Roster;
use super::status::Status;
use super::wire::{Calls, Granted, Session, status_name};
use crate::Boxed;
use skerry_store::{Change, Log, Record, WallNanos};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// An outage shorter than this is not worth a record per node: what the server queued meanwhile
/// comes after all, or a gap record tells.
const SILENCE_ANNOUNCED_AFTER: Duration = Duration::from_secs(5);

/// Reads an endpoint into the log until `stop`.
///
/// # Errors
/// Only when the log has ended; every other fault is shown in `status` and retried.
pub fn run(
    config: impl Into<Arc<Config>>,
    log: Log,
    status: Arc<Status>,
    stop: CancellationToken,
) -> Boxed<'static, Result<(), Error>> {
    Box::pin(read(config.into(), log, status, stop))
}

async fn read(
    config: Arc<Config>,
    log: Log,
    status: Arc<Status>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let loading = log.clone();
    let loaded = tokio::task::spawn_blocking(move || Roster::load(&loading, config));
    let (roster, config) = loaded.await.expect("reading the catalog does not panic")?;
    status.roster(&config, roster.gone());
    let (current, session) = watch::channel(None);
    // The link outlives a command under way, whose answer comes over the link's session.
    let stop_link = CancellationToken::new();
    let ingest = Ingest {
        config: Arc::clone(&config),
        log: log.clone(),
        status: Arc::clone(&status),
        stop: stop_link.clone(),
    };
    let keeping = async { Link::new(ingest, roster, current).await?.keep().await };
    let commanding = async {
        let ended = commands::run(&config, log, status, session, stop).await;
        stop_link.cancel();
        ended
    };
    let (status, ()) = tokio::try_join!(keeping, commanding)?;
    status.stopped();
    Ok(())
}

pub(super) struct Link {
    pub(super) ingest: Ingest,
    /// The subscription to carry on, if there is one.
    pub(super) progress: Option<Progress>,
    /// What handle is whose.
    pub(super) roster: Roster,
    /// Nodes the server will not monitor, by handle, with its StatusCode.
    pub(super) bad: Refused,
    /// Last sign of life of the server, in this run or an earlier one.
    pub(super) news: Option<WallNanos>,
    /// Token of the last session, where it may be taken up again.
    pub(super) session: Option<String>,
    /// Number of the endpoint that is in use, and how many were tried in a row without success.
    pub(super) at: usize,
    pub(super) tried: usize,
    /// Where the server connects to us.
    pub(super) calls: Option<Arc<Calls>>,
    /// Whether this connection came to a subscription.
    served: bool,
    /// Attempts to carry on `progress` that brought nothing; 0 once a message came.
    pub(super) unproven: u32,
    /// A message whose fetching was under way when the connection broke.
    pub(super) suspect: Option<u32>,
    /// Messages that are acknowledged once the progress behind them is on disk.
    pub(super) untold: Acknowledgements,
    /// Nodes with history at the server.
    pub(super) marks: Marks,
    /// What of it is to be read beside the subscription; none where that is not known yet.
    pub(super) late: Option<VecDeque<Reading>>,
    /// Connections that broke while history was read, one after another.
    pub(super) breaks: u32,
    silence: Silence,
    pub(super) going: Going,
    /// For commands, which share the session.
    current: watch::Sender<Option<Arc<Session>>>,
}

/// Whether the nodes were said to be out of reach.
struct Silence {
    since: Instant,
    announced: bool,
}

impl Link {
    async fn new(
        ingest: Ingest,
        roster: Roster,
        current: watch::Sender<Option<Arc<Session>>>,
    ) -> Result<Self, Error> {
        let (log, name) = (ingest.log.clone(), ingest.config.name.clone());
        let config = Arc::clone(&ingest.config);
        let loaded = tokio::task::spawn_blocking(move || {
            let marks = match config.history {
                History::Auto => Marks::load(&log, &config)?,
                History::Off => Marks::new(&config),
            };
            Ok::<_, skerry_store::Error>((Progress::load(&log, &name)?, marks))
        });
        let (progress, marks) = loaded.await.expect("reading the log does not panic")?;
        Ok(Self {
            news: progress.as_ref().and_then(Progress::news),
            session: progress
                .as_ref()
                .and_then(|progress| progress.session.clone()),
            bad: progress
                .as_ref()
                .map(|progress| progress.bad.clone())
                .unwrap_or_default(),
            at: Self::endpoint_of(&ingest.config, progress.as_ref()),
            tried: 0,
            calls: None,
            served: false,
            progress,
            roster,
            ingest,
            marks,
            late: None,
            breaks: 0,
            unproven: 0,
            suspect: None,
            untold: Acknowledgements::new(),
            silence: Silence {
                since: Instant::now(),
                announced: false,
            },
            going: Going::default(),
            current,
        })
    }

    async fn keep(mut self) -> Result<Arc<Status>, Error> {
        let stop = self.ingest.stop.clone();
        let mut backoff = Backoff::new();
        loop {
            self.served = false;
            let connected = tokio::select! {
                () = stop.cancelled() => return Ok(self.ingest.status),
                connected = self.connect() => connected.map(Arc::new),
            };
            let failed = connected.is_err();
            let error = match connected {
                Ok(session) => match self.serve_shared(&session).await {
                    Ok(()) => {
                        // The token of a session without security is in the log with the progress:
                        // kept, it lets the next start go on where this one stops.
                        session.leave(self.session.is_some()).await;
                        return Ok(self.ingest.status);
                    }
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if error.is_fatal() {
                return Err(error);
            }
            if self.unproven > 0 && matches!(error, Error::NoData { .. }) {
                // Carried on, and silent although the server lives (asyncua does this).
                self.abandon_subscription();
            }
            if !failed && self.unproven == 0 {
                backoff.reset();
            }
            let url = self.endpoint().to_string();
            let wait = match !self.served && !self.next_endpoint() {
                true => Duration::ZERO,
                false => backoff.wait(),
            };
            tracing::warn!(
                endpoint = self.ingest.config.name, url, %error,
                retry_ms = wait.as_millis() as u64,
                "no connection to the OPC-UA server"
            );
            self.ingest.status.retrying(error.to_string(), failed);
            if self.wait(Instant::now() + wait).await? == Taken::Stopped {
                return Ok(self.ingest.status);
            }
        }
    }

    /// Waits, and says in time that the nodes are out of reach.
    async fn wait(&mut self, until: Instant) -> Result<Taken, Error> {
        let stop = self.ingest.stop.clone();
        let changes = self.mark_changes()?;
        // Others may write to the stream for days meanwhile.
        if !changes.is_empty()
            && self.ingest.append(Vec::new(), changes, None).await? == Taken::Stopped
        {
            return Ok(Taken::Stopped);
        }
        let due = self.silence.since + SILENCE_ANNOUNCED_AFTER;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(Taken::Stopped),
                () = tokio::time::sleep_until(due), if !self.silence.announced => {
                    if self.announce_silence().await? == Taken::Stopped {
                        return Ok(Taken::Stopped);
                    }
                }
                () = tokio::time::sleep_until(until) => return Ok(Taken::Durable),
            }
        }
    }

    /// As [`Link::serve`], while commands may use the session too.
    async fn serve_shared(&mut self, session: &Arc<Session>) -> Result<(), Error> {
        self.current.send_replace(Some(Arc::clone(session)));
        let served = self.serve(session).await;
        self.current.send_replace(None);
        served
    }

    /// One connection's life. Returns when the node stops.
    async fn serve(&mut self, session: &Session) -> Result<(), Error> {
        self.delete_unused(session).await?;
        let mut carried_on = self.carry_on(session).await?;
        loop {
            let granted = match carried_on.take() {
                Some(granted) => granted,
                None => match self.subscribe(session).await? {
                    Some(granted) => granted,
                    None => return Ok(()),
                },
            };
            self.silence.announced = false;
            self.tried = 0;
            self.served = true;
            self.ingest.status.connected(granted, &self.bad);
            let ended = self.flow(session, granted).await;
            self.silence.since = Instant::now();
            match ended? {
                Ended::Stopped => return Ok(()),
                Ended::Lost(code) => {
                    tracing::warn!(
                        endpoint = self.ingest.config.name,
                        reason = status_name(code),
                        "the server ended the subscription; making a new one"
                    );
                    self.forget_subscription();
                }
                Ended::Mute => {
                    tracing::warn!(
                        endpoint = self.ingest.config.name,
                        "the server's clock runs, but the subscription brings nothing any more; \
                         making a new one"
                    );
                    self.abandon_subscription();
                }
            }
        }
    }

    /// A new subscription to every node. What lies between the last sign of life and now is a
    /// gap; the values that come first are the nodes' current ones. `None` if the node stops.
    async fn subscribe(&mut self, session: &Session) -> Result<Option<Granted>, Error> {
        self.delete_unused(session).await?;
        let gone = self.survey(session).await?;
        let config = Arc::clone(&self.ingest.config);
        let server_start = session.server_start().await?;
        let granted = session
            .subscribe(
                config.publishing_interval,
                config.keep_alive_count(),
                config.lifetime_count(),
            )
            .await?;
        let noted = self.note_subscription(session, granted.id, server_start.clone());
        if noted.await? == Taken::Stopped {
            return Ok(None);
        }
        self.ingest.status.subscribing();
        let all: Vec<u32> = config.handles().collect();
        let (items, mut refused) = self.items(session, &all).await?;
        self.monitor(session, granted.id, &items, &mut refused)
            .await?;
        self.monitor_events(session, granted.id, &all, &mut refused)
            .await?;
        self.ask_history(session, &items).await?;
        let clock_sampling = self.sample_clock(session, granted.id).await?;
        let before = std::mem::replace(&mut self.bad, refused);

        let mut records = Vec::new();
        if let Some(last) = self.news {
            records.extend(self.outage_gaps(last, &before));
        }
        records.extend(gone);
        records.extend(self.newly_bad(&before));
        let mut progress = Progress::new(config.fingerprint(), granted, &self.bad);
        progress.session.clone_from(&self.session);
        progress.server_start = server_start;
        let redundant = !config.standby.is_empty();
        progress.endpoint = redundant.then(|| self.endpoint().to_string());
        progress.inherit(self.progress.take(), self.endpoint().as_str());
        let nodes = all.iter().take(config.nodes.len());
        let monitored = nodes.filter(|handle| !self.bad.contains_key(handle));
        progress.initial = monitored.copied().collect();
        progress.clock_sampling_ms = clock_sampling.map(|time| time.as_millis() as u64);
        progress.seams = self.marks.with_values().collect();
        self.marks.save_next();
        let mut changes = self.mark_changes()?;
        changes.push(progress.change(&config.name));
        changes.extend(self.roster.change(&config.nodes));
        self.progress = Some(progress);
        tracing::info!(
            endpoint = config.name,
            server = session.address(),
            subscription = granted.id,
            nodes = all.len() - self.bad.len(),
            bad = self.bad.len(),
            publishing_ms = granted.publishing_interval.as_millis() as u64,
            "subscribed"
        );
        if let Some(queue) = self.ingest.status.shortest().filter(|queue| queue.short) {
            tracing::info!(
                endpoint = config.name,
                node = queue.node,
                covers_ms = queue.covers_ms,
                outage_budget_ms = config.outage_budget.as_millis() as u64,
                "the server keeps fewer values than the outage budget asks for: a longer outage \
                 loses some, and a gap record says so"
            );
        }
        match self
            .ingest
            .append_many(records, changes, Some(session))
            .await?
        {
            Taken::Durable => Ok(Some(granted)),
            Taken::Stopped => Ok(None),
        }
    }

    /// What the next append is to note of the nodes with history, if it is time to.
    pub(super) fn mark_changes(&mut self) -> Result<Vec<Change>, Error> {
        let now = Instant::now();
        match self.marks.is_due(now) {
            true => Ok(self.marks.changes(self.ingest.head()?, now)),
            false => Ok(Vec::new()),
        }
    }

    /// After some seconds without connection, one record per node with `Bad_NoCommunication`,
    /// once per outage: who reads a node's values sees that they have ended.
    async fn announce_silence(&mut self) -> Result<Taken, Error> {
        let handles = (0..).take(self.ingest.config.nodes.len());
        let records: Vec<Record> = handles
            .filter(|handle| !self.roster.is_gone(*handle))
            .filter_map(|handle| {
                self.ingest
                    .without_value(handle, status::BAD_NO_COMMUNICATION)
            })
            .collect();
        self.silence.announced = true;
        self.ingest.append_all(records).await
    }
}
