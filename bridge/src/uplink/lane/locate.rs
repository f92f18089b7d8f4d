//! Where a session begins: what the cluster says, held against what the disk has.

use super::{Ended, Lane};
use crate::uplink::hint::{CURSOR, Hint};
use crate::uplink::position::{self, Local, Mark, Position, Start, fingerprint};
use crate::uplink::wire::Wire;
use skerry_store::{Error, Offset, Record};

impl Lane {
    /// Reads the position back from the cluster. With producers of ours initialised, nothing that
    /// earlier ones began can still become true; before, it may.
    pub(super) async fn locate(&mut self, wire: &Wire) -> Result<Hint, Ended> {
        let stored = Hint::load(&self.log, &self.stream)?;
        let stored = stored.filter(|hint| hint.matches(wire.cluster(), &self.positions));
        let ours = |hint: &Hint| {
            hint.position
                .is_none_or(|it| it.epoch == self.lineage.epoch)
        };
        let stored = stored.filter(ours);
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
                     copy of it ran elsewhere; `skerry uplink release {}` sends what is here \
                     under an epoch of its own",
                    self.stream.as_str()
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
        let last = last.as_ref().map(|record| fingerprint(&Mark::of(record)));
        let cursor = match self.lineage.from {
            Some(from) => Some(from),
            None => self.log.cursor(CURSOR, &self.stream)?,
        };
        Ok(Local {
            epoch: self.lineage.epoch,
            head,
            cursor,
            last,
        })
    }

    /// Looks up since when the operator waits, once per outage.
    pub(super) async fn note_oldest(&self) {
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
    pub(super) async fn record_at(&self, offset: Offset) -> Result<Option<Record>, Error> {
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

    pub(super) fn position_key(&self) -> String {
        let (node, stream) = (self.config.node.as_str(), self.stream.as_str());
        Position::key(node, stream, self.lineage.epoch)
    }
}
