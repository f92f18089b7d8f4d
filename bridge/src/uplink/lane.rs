//! One stream's way to the cluster: a session after the other, for as long as the node lives.
//!
//! ```text
//! connect ─► topics there? ─► fence older producers ─► read the position back ─► deliver
//!    ▲                                                                              │
//!    └──────────── back-off with jitter ◄──── any fault, whatever its outcome ◄─────┘
//! ```

use super::config::Config;
use super::fault::Fault;
use super::hint::{CURSOR, Hint, Saver};
use super::link::Link;
use super::mapping::{Origin, Outgoing};
use super::pace::{Backoff, Pace};
use super::position::{self, Local, Position, Start, fingerprint};
use super::source::{Poison, Slice, Source};
use super::status::{LaneState, StreamStatus};
use super::wire::{POSITIONS_PARTITION, Producer, Wire};
use bytes::Bytes;
use skerry_store::{Class, Error, Log, Offset, Record, StreamName, WallNanos};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// A transaction under way at a stop may still end for so long.
const STOP_GRACE: Duration = Duration::from_secs(3);

/// One stream, and what is kept of it from session to session.
pub(crate) struct Lane {
    config: Arc<Config>,
    log: Log,
    stream: StreamName,
    link: Arc<Link>,
    status: Arc<StreamStatus>,
    origin: Origin,
    positions: String,
    pace: Pace,
    backoff: Backoff,
    poison: Option<Poison>,
}

/// Why a session ended.
enum Ended {
    Stopped,
    Fault(Fault),
    Log(Error),
    /// Going on would lose or repeat; see [`Start::Diverged`].
    Held(String),
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
        let topic = config.topic.fill(&config.node, stream.as_str());
        Self {
            origin: Origin::new(config.node.as_str(), log.epoch(), stream.as_str(), topic),
            positions: config.positions.fill(&config.node, stream.as_str()),
            pace: Pace::new(config.limits.transaction_bytes_max),
            backoff: Backoff::new(
                config.limits.retry_delay_first,
                config.limits.retry_delay_max,
            ),
            poison: None,
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
            let wait = match ended {
                Ended::Stopped => return Ok(()),
                Ended::Log(error) if error.class() == Class::Fatal => return Err(error),
                Ended::Log(error) => self.failed(&error, LaneState::Retrying, false),
                Ended::Fault(fault) => {
                    self.failed(&fault, LaneState::Retrying, fault.needs_operator())
                }
                Ended::Held(why) => self.failed(&why, LaneState::Held, true),
            };
            self.note_oldest().await;
            tokio::select! {
                () = sleep(wait) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// Looks up since when the operator waits, once per outage.
    async fn note_oldest(&self) {
        let (position, known) = {
            let rest = self.status.rest();
            (rest.position, rest.oldest_unsent)
        };
        if known.is_none()
            && let Ok(Some(record)) = self.record_at(position).await
        {
            self.status.rest().oldest_unsent = Some(record.ingest_time);
        }
    }

    /// The record at `offset`, where the log holds it.
    async fn record_at(&self, offset: Offset) -> Result<Option<Record>, Error> {
        let held = self.log.tail(&self.stream)?..*self.log.head(&self.stream)?.borrow();
        if !held.contains(&offset) {
            return Ok(None);
        }
        let mut reader = self.log.reader(&self.stream, offset)?;
        let read = tokio::task::spawn_blocking(move || reader.next(1));
        let batch = read.await.map_err(|_| Error::Closed)??;
        let mut records = batch.records.into_iter();
        Ok(records
            .find(|(at, _)| *at == offset)
            .map(|(_, record)| record))
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
        let wire = match self.link.wire().await {
            Ok(wire) => wire,
            Err(fault) => return fault.into(),
        };
        let ended = match self.deliver(&wire, stop).await {
            Ok(never) => match never {},
            Err(ended) => ended,
        };
        if let Ended::Fault(fault) = &ended
            && fault.breaks_link()
        {
            self.link.broke(&wire, fault).await;
        }
        ended
    }

    async fn deliver(
        &mut self,
        wire: &Wire,
        stop: &CancellationToken,
    ) -> Result<std::convert::Infallible, Ended> {
        wire.require_topic(&self.origin.topic).await?;
        if let Some(warning) = wire.require_positions(&self.positions).await? {
            tracing::error!(stream = self.stream.as_str(), "{warning}");
        }
        let id = format!(
            "skerry-{}-{}",
            self.config.node.as_str(),
            self.stream.as_str()
        );
        let producer = wire.producer(&id).await?;
        let mut hint = self.locate(wire).await?;
        self.link.up();
        let ended = self.transact_on(&producer, &mut hint, stop).await;
        producer.close().await;
        ended
    }

    /// Reads the position back from the cluster. Only now, with a producer of ours initialised,
    /// nothing that an earlier one began can still become true.
    async fn locate(&mut self, wire: &Wire) -> Result<Hint, Ended> {
        let stored = Hint::load(&self.log, &self.stream)?;
        let stored = stored.filter(|hint| hint.matches(wire.cluster(), &self.positions));
        let key = self.position_key();
        let from = stored.as_ref().map(|hint| hint.read_to);
        let (newest, read_to) = wire.newest(&self.positions, key.as_bytes(), from).await?;
        let found = match newest {
            Some(value) => Some(Position::from_json(&value).map_err(|error| {
                Ended::Held(format!(
                    "position `{key}` in `{}` is unreadable: {error}",
                    self.positions
                ))
            })?),
            None => stored.and_then(|hint| hint.position),
        };
        let local = self.local(found).await?;
        let (next, last) = match position::resolve(found, local) {
            Start::Resume(next) => (next, local.last),
            Start::First(next) => {
                tracing::info!(stream = self.stream.as_str(), %next, "first delivery of this log");
                (next, None)
            }
            Start::Diverged { confirmed, head } => {
                return Err(Ended::Held(format!(
                    "the cluster has this log up to offset {confirmed} with other content than \
                     this disk, which ends at {head}: the disk was restored from an image, or a \
                     copy of it ran elsewhere"
                )));
            }
        };
        self.status.rest().position = next;
        let position = Position {
            epoch: local.epoch,
            next,
            last,
        };
        Ok(Hint {
            cluster: wire.cluster().to_owned(),
            topic: self.positions.clone(),
            read_to,
            position: Some(position),
        })
    }

    /// What the disk says, with the record that `found` ends with.
    async fn local(&self, found: Option<Position>) -> Result<Local, Error> {
        let head = *self.log.head(&self.stream)?.borrow();
        let before = found.and_then(|position| position.next.0.checked_sub(1));
        let last = match before {
            None => None,
            Some(last) => self.record_at(Offset(last)).await?,
        };
        let last = last.as_ref().map(fingerprint);
        let cursor = self.log.cursor(CURSOR, &self.stream)?;
        Ok(Local {
            epoch: self.log.epoch(),
            head,
            cursor,
            last,
        })
    }

    /// Transaction after transaction, from the hint's position on.
    async fn transact_on(
        &mut self,
        producer: &Producer,
        hint: &mut Hint,
        stop: &CancellationToken,
    ) -> Result<std::convert::Infallible, Ended> {
        let mut next = hint.position.map_or(Offset::ZERO, |position| position.next);
        let mut source = self.source(next)?;
        let mut head = self.log.head(&self.stream)?;
        let mut saver = Saver::new();
        loop {
            if stop.is_cancelled() {
                hint.save(&self.log, &self.stream)
                    .await?
                    .committed()
                    .await?;
                return Err(Ended::Stopped);
            }
            head.mark_unchanged();
            let bytes = self.pace.bytes();
            let slice = source.slice(bytes, self.pace.records_max()).await?;
            if slice.is_empty() {
                self.status.rest().state = LaneState::Idle;
                self.wait(&mut head, hint, &mut saver, stop).await?;
                continue;
            }
            let full = slice.bytes >= bytes;
            let started = Instant::now();
            match self.transact(producer, slice).await? {
                Some((position, offset)) => {
                    next = position.next;
                    hint.position = Some(position);
                    hint.read_to = offset.map_or(hint.read_to, |offset| offset + 1);
                    saver.due(&self.log, &self.stream, hint).await?;
                }
                // Nothing was written; the same records again, fewer or without the poison.
                None => source = self.source(next)?,
            }
            if !full {
                // A transaction costs round trips whatever is in it: let company gather.
                tokio::select! {
                    () = sleep_until(started + self.config.limits.transaction_interval) => {}
                    () = stop.cancelled() => {}
                }
            }
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

    /// Delivers the slice; `None` when the cluster refused part of it and it was aborted.
    async fn transact(
        &mut self,
        producer: &Producer,
        slice: Slice,
    ) -> Result<Option<(Position, Option<i64>)>, Ended> {
        {
            let mut rest = self.status.rest();
            rest.state = LaneState::Delivering;
            rest.oldest_unsent = slice.oldest;
        }
        let Slice {
            records,
            offsets,
            next,
            last,
            bytes,
            delivered,
            missing,
            quarantined,
            ..
        } = slice;
        let position = Position {
            epoch: self.log.epoch(),
            next,
            last,
        };
        let started = Instant::now();
        let offset = match producer.transact(records, self.outgoing(position)).await {
            Ok(offset) => offset,
            Err(Fault::Refused { index, reason }) => {
                producer.abort().await?;
                self.refused(&offsets, index, reason)?;
                return Ok(None);
            }
            Err(fault) => return Err(fault.into()),
        };
        self.pace.committed(bytes, started.elapsed());
        self.backoff.reset();
        self.link.up();
        if quarantined > 0 {
            self.poison = None;
        }
        let count =
            |counter: &std::sync::atomic::AtomicU64, by| counter.fetch_add(by, Ordering::Relaxed);
        count(&self.status.transactions, 1);
        count(&self.status.delivered, delivered);
        count(&self.status.gap_records, missing);
        count(&self.status.quarantined, quarantined);
        count(&self.status.bytes, bytes as u64);
        let mut rest = self.status.rest();
        rest.position = next;
        rest.last_confirmed = Some(WallNanos::now());
        rest.oldest_unsent = None;
        rest.last_error = None;
        Ok(Some((position, offset)))
    }

    /// Corners the record that the cluster will not have, and sets it aside once it is found.
    fn refused(
        &mut self,
        offsets: &[Offset],
        index: Option<usize>,
        reason: String,
    ) -> Result<(), Ended> {
        let cornered = self.pace.refused(offsets.len());
        let index = index.or(cornered.then_some(0));
        let Some(offset) = index.and_then(|index| offsets.get(index)).copied() else {
            return match index {
                None => Ok(()),
                // The one record after the slice's is the position.
                Some(_) => Err(Fault::Failed(format!("the position is refused: {reason}")).into()),
            };
        };
        if self
            .poison
            .as_ref()
            .is_some_and(|poison| poison.offset == offset)
        {
            let text = format!("the gap that stands for offset {offset} is refused too: {reason}");
            return Err(Fault::Failed(text).into());
        }
        tracing::error!(
            stream = self.stream.as_str(),
            %offset,
            reason,
            "the cluster refuses this record; a gap takes its place, the log keeps it until \
             retention takes it"
        );
        self.poison = Some(Poison { offset, reason });
        Ok(())
    }

    fn position_key(&self) -> String {
        let (node, stream) = (self.config.node.as_str(), self.stream.as_str());
        Position::key(node, stream, self.log.epoch())
    }

    fn outgoing(&self, position: Position) -> Outgoing {
        Outgoing {
            topic: self.positions.clone(),
            partition: Some(POSITIONS_PARTITION),
            key: Bytes::from(self.position_key()),
            value: Bytes::from(position.to_json()),
            timestamp_ms: WallNanos::now().millis(),
            headers: Vec::new(),
        }
    }
}
