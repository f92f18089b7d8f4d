//! One stream's way to the cluster: a session after the other, for as long as the node lives.
//!
//! ```text
//! connect ─► topics there? ─► fence older producers ─► read the position back ─► deliver
//!    ▲                                                                              │
//!    └──────────── back-off with jitter ◄──── any fault, whatever its outcome ◄─────┘
//! ```

mod locate;
mod refused;
mod writing;

use super::config::Config;
use super::fault::Fault;
use super::gate::Pack;
use super::hint::{Hint, Saver};
use super::lineage::Lineage;
use super::link::{Link, Rank};
use super::mapping::{Obstacle, Origin};
use super::pace::{Backoff, Pace};
use super::quarantine::Quarantine;
use super::source::{Poison, Slice, Source, Want};
use super::status::{LaneState, StreamStatus};
use super::wire::Wire;
use skerry_store::{Class, Error, Log, Offset, StreamName};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use writing::{Producers, Unwritten, Written};

/// A transaction under way at a stop may still end for so long.
const STOP_GRACE: Duration = Duration::from_secs(3);

/// One stream, and what is kept of it from session to session.
pub(crate) struct Lane {
    config: Arc<Config>,
    log: Log,
    stream: StreamName,
    link: Arc<Link>,
    status: Arc<StreamStatus>,
    rank: Rank,
    lineage: Lineage,
    origin: Origin,
    positions: String,
    pace: Pace,
    backoff: Backoff,
    poison: Option<Poison>,
    /// The cluster refuses something before this offset: there records go by themselves.
    plain_until: Offset,
    /// The last session found somebody else at work on this stream, or may have.
    wary: bool,
    quarantine: Quarantine,
}

/// Why a session ended.
enum Ended {
    Stopped,
    Fault(Fault),
    Log(Error),
    /// Going on would lose or repeat; see [`Start::Diverged`](super::position::Start::Diverged).
    Held(String),
    /// The link is not for this lane any more; see [`Link::barred`].
    Barred,
    /// There is a newer certificate than the one that the connection was made with.
    Outdated,
}

impl From<Fault> for Ended {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self::Log(error)
    }
}

impl Lane {
    pub(crate) fn new(
        config: Arc<Config>,
        log: Log,
        stream: StreamName,
        link: Arc<Link>,
        status: Arc<StreamStatus>,
    ) -> Self {
        Self {
            rank: rank(&config, &stream),
            origin: Origin::of(&config, &stream, log.epoch()),
            lineage: Lineage {
                epoch: log.epoch(),
                from: None,
            },
            positions: config.positions.fill(&config.node, stream.as_str()),
            pace: Pace::new(config.limits.transaction_bytes_max),
            backoff: Backoff::new(
                config.limits.retry_delay_first,
                config.limits.retry_delay_max,
            ),
            poison: None,
            plain_until: Offset::ZERO,
            wary: false,
            quarantine: Quarantine::new(&log),
            config,
            log,
            stream,
            link,
            status,
        }
    }

    /// Follows the stream until `stop`. Only a log that is of no use any more ends it earlier.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), Error> {
        loop {
            let session = self.session(&stop);
            let ended = tokio::select! {
                ended = session => ended,
                () = async { stop.cancelled().await; sleep(STOP_GRACE).await } => Ended::Stopped,
            };
            // That a write was fenced is in a failure's words only.
            self.wary = matches!(
                ended,
                Ended::Held(_) | Ended::Fault(Fault::Fenced { .. } | Fault::Failed(_))
            );
            let wait = match ended {
                Ended::Stopped => return Ok(()),
                Ended::Barred | Ended::Outdated => continue,
                Ended::Log(error) if error.class() == Class::Fatal => return Err(error),
                Ended::Log(error) => self.failed(&error, LaneState::Retrying, false),
                Ended::Fault(fault) => {
                    self.failed(&fault, LaneState::Retrying, fault.needs_operator())
                }
                Ended::Held(why) => {
                    let wait = self.failed(&why, LaneState::Held, true);
                    wait.max(self.config.limits.held_delay)
                }
            };
            self.note_oldest().await;
            tokio::select! {
                () = sleep(wait) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// Notes the failure; how long to wait before the next attempt.
    fn failed(
        &mut self,
        error: &(dyn std::fmt::Display + Sync),
        state: LaneState,
        needs_operator: bool,
    ) -> Duration {
        self.pace.failed();
        self.status.retries.fetch_add(1, Ordering::Relaxed);
        let text = error.to_string();
        let mut rest = self.status.rest();
        rest.state = state;
        if rest.last_error.as_ref() != Some(&text) {
            let stream = self.stream.as_str();
            if needs_operator {
                tracing::error!(stream, error = %text, "delivery waits for an operator");
            } else {
                tracing::warn!(stream, error = %text, "delivery interrupted; trying again");
            }
        }
        rest.last_error = Some(text);
        drop(rest);
        self.backoff.next(RandomState::new().hash_one(0_u8))
    }

    /// One connection's worth of deliveries.
    async fn session(&mut self, stop: &CancellationToken) -> Ended {
        if self.until_admitted(stop).await.is_none() {
            return Ended::Stopped;
        }
        let wire = match self.link.wire(self.rank).await {
            Ok(wire) => wire,
            Err(fault) => return fault.into(),
        };
        let ended = match self.deliver(&wire, stop).await {
            Ok(never) => match never {},
            Err(ended) => ended,
        };
        match &ended {
            Ended::Fault(fault) if fault.breaks_link() => {
                self.link.broke(self.rank, &wire, fault).await;
            }
            Ended::Outdated => self.link.leave(self.rank, &wire).await,
            _ => {}
        }
        ended
    }

    /// Waits while the link is not for this lane, telling why; none when it is to stop.
    async fn until_admitted(&self, stop: &CancellationToken) -> Option<()> {
        while let Some(why) = self.link.barred(self.rank, &self.stream) {
            {
                let mut rest = self.status.rest();
                rest.state = LaneState::Waiting;
                rest.waits_because = Some(why);
            }
            tokio::select! {
                () = self.link.changed() => {}
                () = stop.cancelled() => return None,
            }
        }
        self.status.rest().waits_because = None;
        Some(())
    }

    async fn deliver(
        &mut self,
        wire: &Wire,
        stop: &CancellationToken,
    ) -> Result<std::convert::Infallible, Ended> {
        self.lineage = Lineage::of(&self.log, &self.stream)?;
        self.origin.set_epoch(self.lineage.epoch);
        self.origin.topics.forget();
        let first = self.origin.first_topics();
        let (looked, positions) = tokio::join!(
            self.look(wire, &first),
            wire.require_positions(&self.positions)
        );
        looked?;
        if let Some(warning) = positions? {
            tracing::error!(stream = self.stream.as_str(), "{warning}");
        }
        if self.wary {
            // Whoever cannot go on must not fence whoever can.
            self.locate(wire).await?;
        }
        let id = format!(
            "skerry-{}-{}",
            self.config.node.as_str(),
            self.stream.as_str()
        );
        let other = format!("{id}.2");
        let (one, other) = tokio::try_join!(wire.producer(&id), wire.producer(&other))?;
        let mut producers = Producers {
            all: [one, other],
            turn: 0,
        };
        let ended = match self.locate(wire).await {
            Ok(mut hint) => {
                self.link.up();
                self.follow(wire, &mut producers, &mut hint, stop).await
            }
            Err(ended) => Err(ended),
        };
        producers.close().await;
        ended
    }

    /// Slice after slice, from the hint's position on. One is written while the one before it is
    /// committed, so that a commit's round trips cost a long link nothing; a commit is only asked
    /// for once the one before it is confirmed, so that positions never run ahead of records.
    async fn follow(
        &mut self,
        wire: &Wire,
        producers: &mut Producers,
        hint: &mut Hint,
        stop: &CancellationToken,
    ) -> Result<std::convert::Infallible, Ended> {
        let mut next = hint.position.map_or(Offset::ZERO, |position| position.next);
        let mut source = self.source(next)?;
        let mut head = self.log.head(&self.stream)?;
        let mut saver = Saver::new();
        let mut open: Option<Written> = None;
        loop {
            head.mark_unchanged();
            let want = self.want(next);
            let leaves = self.leaves(producers).await;
            let mut slice = match stop.is_cancelled() || leaves.is_some() {
                true => Slice::default(),
                false => source.slice(want).await?,
            };
            let obstacle = slice.obstacle.take();
            let full = slice.content.bytes >= want.bytes;
            let started = Instant::now();
            let commit = async {
                match open {
                    Some(_) => producers.last().commit().await.map_err(Ended::from),
                    None => Ok(()),
                }
            };
            let write = async { Ok(self.write(producers.next(), slice).await) };
            let ((), written) = tokio::try_join!(commit, write)?;
            if let Some(committed) = open.take() {
                next = committed.position.next;
                self.committed(committed, hint);
                saver.due(&self.log, &self.stream, hint).await?;
            }
            match written {
                Ok(Some(written)) => {
                    open = Some(written);
                    producers.turn = 1 - producers.turn;
                    if full {
                        continue;
                    }
                }
                Ok(None) if stop.is_cancelled() => {
                    let saved = hint.save(&self.log, &self.stream).await?;
                    saved.committed().await?;
                    return Err(Ended::Stopped);
                }
                Ok(None) => {
                    if let Some(ended) = leaves {
                        return Err(ended);
                    }
                    match obstacle {
                        Some(Obstacle::Unseen(topics)) => self.look(wire, &topics).await?,
                        Some(Obstacle::Held(why)) => return Err(Ended::Held(why)),
                        None => {
                            self.status.rest().state = LaneState::Idle;
                            self.wait(&mut head, hint, &mut saver, stop).await?;
                        }
                    }
                    continue;
                }
                Err(Unwritten::Refused(refused)) => {
                    producers.next().abort().await?;
                    self.refused(producers.next(), refused).await?;
                    // The same records again, fewer or without the poison.
                    source = self.source(next)?;
                    continue;
                }
                Err(Unwritten::Fault(fault)) => return Err(fault.into()),
            }
            if let Some(last) = open.take() {
                producers.last().commit().await?;
                next = last.position.next;
                self.committed(last, hint);
                saver.due(&self.log, &self.stream, hint).await?;
            }
            // A transaction costs round trips whatever is in it: let company gather.
            tokio::select! {
                () = sleep_until(started + self.config.limits.transaction_interval) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    async fn look(&self, wire: &Wire, topics: &[String]) -> Result<(), Fault> {
        let late = self.origin.late();
        self.origin
            .topics
            .look(wire, topics, late, &self.status)
            .await
    }

    /// Why this session ends once what is under way is committed, if it does.
    async fn leaves(&self, producers: &Producers) -> Option<Ended> {
        if self.link.barred(self.rank, &self.stream).is_some() {
            return Some(Ended::Barred);
        }
        let outdated = producers.next().is_outdated().await;
        outdated.then_some(Ended::Outdated)
    }

    /// How much goes next, and how. `from` is confirmed; what is under way is a little ahead.
    fn want(&self, from: Offset) -> Want {
        let own = self.config.routes.get(&self.stream);
        let own = own.and_then(|route| route.pack);
        let pack = own.or(self.link.pack()).or(self.config.route.pack);
        Want {
            bytes: self.pace.bytes(),
            records: self.pace.records_max(),
            pack: pack == Some(Pack::Auto) && from >= self.plain_until,
        }
    }

    fn source(&self, from: Offset) -> Result<Source, Error> {
        Source::open(
            &self.log,
            &self.stream,
            from,
            self.origin.clone(),
            self.poison.clone(),
        )
    }

    /// Until there is something to read, saving meanwhile what is not yet saved.
    async fn wait(
        &self,
        head: &mut watch::Receiver<Offset>,
        hint: &Hint,
        saver: &mut Saver,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        loop {
            tokio::select! {
                changed = head.changed() => return changed.map_err(|_| Error::Closed),
                () = stop.cancelled() => return Ok(()),
                () = sleep_until(saver.when()), if saver.is_behind() => {
                    saver.due(&self.log, &self.stream, hint).await?;
                }
            }
        }
    }
}

/// What the stream shares the link by.
pub(crate) fn rank(config: &Config, stream: &StreamName) -> Rank {
    let route = config.route_of(stream);
    Rank {
        priority: route.priority,
        weight: route.weight,
    }
}
