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
use super::flow::Ended;
use super::history::{History, Marks};
use super::ingest::{Ingest, Taken};
use super::nodes::Refused;
use super::progress::Progress;
use super::roster::Roster;
use super::status::Status;
use super::strand::{Strand, Strands};
use super::wire::{Calls, Session, status_name};
use crate::Boxed;
use bytes::Bytes;
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
    /// The subscriptions, one for each group that something is in.
    pub(super) strands: Vec<Strand>,
    /// What an earlier configuration's groups left in the catalog, under these keys.
    retired: Vec<Bytes>,
    /// The last sign of life in one of those.
    retired_news: Option<WallNanos>,
    /// What handle is whose.
    pub(super) roster: Roster,
    /// Nodes the server will not monitor, by handle, with its StatusCode.
    pub(super) bad: Refused,
    /// Token of the last session, where it may be taken up again.
    pub(super) session: Option<String>,
    /// Number of the endpoint that is in use, and how many were tried in a row without success.
    pub(super) at: usize,
    pub(super) tried: usize,
    /// Where the server connects to us.
    pub(super) calls: Option<Arc<Calls>>,
    /// Whether this connection came to a subscription.
    served: bool,
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
        let log = ingest.log.clone();
        let config = Arc::clone(&ingest.config);
        let loaded = tokio::task::spawn_blocking(move || {
            let marks = match config.history {
                History::Auto => Marks::load(&log, &config)?,
                History::Off => Marks::new(&config),
            };
            Ok::<_, skerry_store::Error>((Strands::load(&log, &config)?, marks))
        });
        let (strands, marks) = loaded.await.expect("reading the log does not panic")?;
        let Strands {
            list: strands,
            retired,
            retired_news,
        } = strands;
        let first = strands.first().and_then(|first| first.progress.as_ref());
        Ok(Self {
            session: first.and_then(|progress| progress.session.clone()),
            bad: first
                .map(|progress| progress.bad.clone())
                .unwrap_or_default(),
            at: Self::endpoint_of(&ingest.config, first),
            tried: 0,
            calls: None,
            served: false,
            strands,
            retired,
            retired_news,
            roster,
            ingest,
            marks,
            late: None,
            breaks: 0,
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
            if self.is_unproven() && matches!(error, Error::NoData { .. }) {
                // Carried on, and silent although the server lives (asyncua does this).
                self.abandon_subscriptions();
            }
            if !failed && !self.is_unproven() {
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
            if !std::mem::take(&mut carried_on) && self.subscribe(session).await? == Taken::Stopped
            {
                return Ok(());
            }
            self.silence.announced = false;
            self.tried = 0;
            self.served = true;
            let granted = self.strands.iter().map(|strand| {
                let name = self.group_name(strand.group);
                (name.map(str::to_owned), strand.granted)
            });
            let granted = granted.collect();
            self.ingest.status.connected(granted, &self.bad);
            let ended = self.flow(session).await;
            self.silence.since = Instant::now();
            match ended? {
                Ended::Stopped => return Ok(()),
                Ended::Lost(code) => {
                    tracing::warn!(
                        endpoint = self.ingest.config.name,
                        reason = status_name(code),
                        "the server ended the subscription; making a new one"
                    );
                    // The other groups' are deleted; to delete one that is gone costs nothing.
                    self.abandon_subscriptions();
                }
                Ended::Mute => {
                    tracing::warn!(
                        endpoint = self.ingest.config.name,
                        "the server's clock runs, but the subscription brings nothing any more; \
                         making a new one"
                    );
                    self.abandon_subscriptions();
                }
            }
        }
    }

    /// New subscriptions to every node. What lies between the last sign of life and now is a
    /// gap; the values that come first are the nodes' current ones.
    async fn subscribe(&mut self, session: &Session) -> Result<Taken, Error> {
        self.delete_unused(session).await?;
        let gone = self.survey(session).await?;
        let config = Arc::clone(&self.ingest.config);
        let server_start = session.server_start().await?;
        for strand in 0..self.strands.len() {
            let made = self.create(session, strand, server_start.clone());
            if made.await? == Taken::Stopped {
                return Ok(Taken::Stopped);
            }
        }
        self.ingest.status.subscribing();
        let all: Vec<u32> = config.handles().collect();
        let (items, mut refused) = self.items(session, &all).await?;
        self.monitor(session, items.clone(), &mut refused).await?;
        self.monitor_events(session, &all, &mut refused).await?;
        self.ask_history(session, &items).await?;
        let before = std::mem::replace(&mut self.bad, refused);

        let mut records = Vec::new();
        let news = self.strands.iter().filter_map(|strand| strand.news);
        if let Some(last) = news.chain(self.retired_news).min() {
            records.extend(self.outage_gaps(last, &before));
        }
        records.extend(gone);
        records.extend(self.newly_bad(&before));
        let in_use: Vec<u32> = self.strands.iter().map(|it| it.granted.id).collect();
        for strand in 0..self.strands.len() {
            let progress = self.begun(session, strand, &server_start, &in_use);
            self.strands[strand].progress = Some(progress.await?);
        }
        self.marks.save_next();
        let mut changes = self.mark_changes()?;
        changes.extend(self.progress_changes());
        changes.extend(self.retired.drain(..).map(Progress::delete));
        changes.extend(self.roster.change(&config.nodes));
        self.retired_news = None;
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
        self.ingest
            .append_many(records, changes, Some(session))
            .await
    }

    /// Has the server make one group's subscription, and notes that it is there.
    async fn create(
        &mut self,
        session: &Session,
        strand: usize,
        server_start: Option<String>,
    ) -> Result<Taken, Error> {
        let group = self.strands[strand].group;
        let made = session.subscribe(self.ingest.config.pace(group)).await;
        let granted = made.map_err(|error| match (error, self.group_name(group)) {
            (
                Error::Service {
                    step,
                    status,
                    detail,
                },
                Some(name),
            ) => Error::Service {
                step,
                status,
                detail: format!("{detail}, for group `{name}`"),
            },
            (error, _) => error,
        })?;
        self.strands[strand].granted = granted;
        self.note_subscription(session, granted.id, server_start)
            .await
    }

    /// The progress of a subscription that was just made, and nothing taken of it yet.
    async fn begun(
        &mut self,
        session: &Session,
        strand: usize,
        server_start: &Option<String>,
        in_use: &[u32],
    ) -> Result<Progress, Error> {
        let config = Arc::clone(&self.ingest.config);
        let (group, subscription) = self.strands[strand].at_server();
        let clock_sampling = self.sample_clock(session, subscription).await?;
        let none = Refused::new();
        let bad = if strand == 0 { &self.bad } else { &none };
        let granted = self.strands[strand].granted;
        let mut progress = Progress::new(config.fingerprint(), granted, bad);
        progress.session.clone_from(&self.session);
        progress.server_start.clone_from(server_start);
        let here = self.endpoint().to_string();
        let redundant = !config.standby.is_empty();
        progress.endpoint = redundant.then(|| here.clone());
        progress.inherit(self.strands[strand].progress.take(), &here, in_use);
        let nodes = (0..).take(config.nodes.len());
        let mine = |handle: &u32| config.group_of(*handle) == group;
        let monitored = nodes.filter(|it| mine(it) && !self.bad.contains_key(it));
        progress.initial = monitored.collect();
        progress.clock_sampling_ms = clock_sampling.map(|time| time.as_millis() as u64);
        progress.seams = self.marks.with_values().filter(mine).collect();
        tracing::info!(
            endpoint = config.name,
            server = session.address(),
            subscription,
            group = self.group_name(group),
            nodes = config.handles().filter(mine).count(),
            bad = self.bad.keys().filter(|it| mine(it)).count(),
            publishing_ms = granted.publishing_interval.as_millis() as u64,
            "subscribed"
        );
        Ok(progress)
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
