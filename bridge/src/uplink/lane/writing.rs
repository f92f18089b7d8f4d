//! A slice on its way: written, and once that is confirmed, committed.

use super::Lane;
use super::refused::Refused;
use crate::uplink::fault::Fault;
use crate::uplink::hint::Hint;
use crate::uplink::mapping::Outgoing;
use crate::uplink::packing::Packed;
use crate::uplink::position::Position;
use crate::uplink::source::Slice;
use crate::uplink::status::LaneState;
use crate::uplink::wire::{POSITIONS_PARTITION, Producer};
use bytes::Bytes;
use skerry_store::WallNanos;
use std::sync::atomic::Ordering;
use tokio::time::{Duration, Instant};

/// A slice in the cluster that nobody who reads committed sees yet.
pub(super) struct Written {
    pub(super) position: Position,
    /// The position's own, in its topic.
    pub(super) at: Option<i64>,
    pub(super) bytes: usize,
    pub(super) took: Duration,
    pub(super) delivered: u64,
    pub(super) missing: u64,
    pub(super) quarantined: u64,
    pub(super) late: u64,
    pub(super) restamped: u64,
    pub(super) backfilled: u64,
}

/// Two, so that one may write while the other commits.
pub(super) struct Producers {
    pub(super) all: [Producer; 2],
    pub(super) turn: usize,
}

impl Producers {
    pub(super) fn next(&self) -> &Producer {
        &self.all[self.turn]
    }

    pub(super) fn last(&self) -> &Producer {
        &self.all[1 - self.turn]
    }

    pub(super) async fn close(self) {
        let [one, other] = self.all;
        tokio::join!(one.close(), other.close());
    }
}

/// Why a slice is not in the cluster.
pub(super) enum Unwritten {
    Refused(Refused),
    Fault(Fault),
}

impl Lane {
    /// Writes the slice and the position behind it; `None` when there is nothing in it.
    pub(super) async fn write(
        &self,
        producer: &Producer,
        slice: Slice,
    ) -> Result<Option<Written>, Unwritten> {
        if slice.is_empty() {
            return Ok(None);
        }
        {
            let mut rest = self.status.rest();
            rest.state = LaneState::Delivering;
            rest.oldest_unsent = slice.oldest;
        }
        let position = Position {
            epoch: self.lineage.epoch,
            next: slice.next,
            last: slice.last,
        };
        let started = Instant::now();
        let Packed {
            records,
            offsets,
            bytes,
        } = slice.content;
        // A block stands for many, of which the cluster refuses one perhaps.
        let packed = (records.len() as u64) < slice.records;
        let writing = producer.write(records, self.outgoing(position));
        match writing.await {
            Ok(at) => Ok(Some(Written {
                position,
                at,
                bytes,
                took: started.elapsed(),
                delivered: slice.delivered,
                missing: slice.missing,
                quarantined: slice.quarantined,
                late: slice.late,
                restamped: slice.restamped,
                backfilled: slice.backfilled,
            })),
            Err(Fault::Refused { index, reason }) => Err(Unwritten::Refused(Refused {
                offsets,
                packed_until: packed.then_some(slice.next),
                index,
                reason,
            })),
            Err(fault) => Err(Unwritten::Fault(fault)),
        }
    }

    /// The cluster has it, for good.
    pub(super) fn committed(&mut self, written: Written, hint: &mut Hint) {
        let paced = self.link.is_paced();
        self.pace.committed(written.bytes, written.took, paced);
        self.backoff.reset();
        self.link.up();
        if written.quarantined > 0 {
            self.poison = None;
        }
        hint.position = Some(written.position);
        hint.read_to = written.at.map_or(hint.read_to, |at| at + 1);
        let count =
            |counter: &std::sync::atomic::AtomicU64, by| counter.fetch_add(by, Ordering::Relaxed);
        count(&self.status.transactions, 1);
        count(&self.status.delivered, written.delivered);
        count(&self.status.gap_records, written.missing);
        count(&self.status.quarantined, written.quarantined);
        count(&self.status.late, written.late);
        count(&self.status.restamped, written.restamped);
        count(&self.status.backfilled, written.backfilled);
        count(&self.status.bytes, written.bytes as u64);
        let mut rest = self.status.rest();
        rest.position = written.position.next;
        rest.last_confirmed = Some(WallNanos::now());
        rest.oldest_unsent = None;
        rest.last_error = None;
    }

    fn outgoing(&self, position: Position) -> Outgoing {
        Outgoing {
            topic: self.positions.as_str().into(),
            partition: Some(POSITIONS_PARTITION),
            key: Bytes::from(self.position_key()),
            value: Bytes::from(position.to_json()),
            timestamp_ms: WallNanos::now().millis(),
            headers: Vec::new(),
        }
    }
}
