//! Several streams as one sequence of records, by the time the node took them in.
//!
//! A model that lags behind (after a crash, or while it was disabled) reads each stream from
//! where it left off. Read one after the other, a window would pair the vibration of the morning
//! with the temperature of the evening; merged by intake time the streams stay together as they
//! came. A stream that has nothing left does not hold up the others.

use skerry_store::{Error, Log, Offset, Reader, Record, StreamName};
use std::collections::VecDeque;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::watch;

/// Payload bytes read from a stream at a time.
const READ_BYTES_MAX: usize = 64 * 1024;
const CLOSED_DELAY: Duration = Duration::from_secs(1);

pub(crate) struct Merge {
    lanes: Vec<Lane>,
    /// Records that retention or damage took before this model read them.
    missing: u64,
}

struct Lane {
    name: StreamName,
    reader: Reader,
    read: VecDeque<(Offset, Record)>,
    /// The last read found nothing.
    at_head: bool,
}

impl Merge {
    pub(crate) fn open(log: &Log, streams: &[StreamName], from: &[Offset]) -> Result<Self, Error> {
        let lanes = streams.iter().zip(from).map(|(name, from)| {
            let reader = log.reader(name, *from)?;
            Ok(Lane {
                name: name.clone(),
                reader,
                read: VecDeque::new(),
                at_head: false,
            })
        });
        Ok(Self {
            lanes: lanes.collect::<Result<_, Error>>()?,
            missing: 0,
        })
    }

    /// Reads on where nothing is left. Blocks on the disk.
    pub(crate) fn fill(&mut self) -> Result<(), Error> {
        for lane in &mut self.lanes {
            if !lane.read.is_empty() {
                continue;
            }
            let batch = lane.reader.next(READ_BYTES_MAX)?;
            if let Some((first, next)) = batch.missing {
                let stream = lane.name.as_str();
                tracing::warn!(stream, %first, %next, "these records are gone, the model goes on after them");
                self.missing += next.0.saturating_sub(first.0);
            }
            lane.at_head = batch.records.is_empty();
            lane.read.extend(batch.records);
        }
        Ok(())
    }

    /// The next record and the index of its stream; `None` when drained.
    pub(crate) fn pop(&mut self) -> Option<(usize, Offset, Record)> {
        let index = self.earliest()?;
        let (offset, record) = self.lanes[index].read.pop_front()?;
        Some((index, offset, record))
    }

    /// Whether [`Merge::fill`] must be called before there can be another record.
    pub(crate) fn is_drained(&self) -> bool {
        self.earliest().is_none()
    }

    /// The stream whose next record was taken in first. Unknown while a stream has more to read.
    fn earliest(&self) -> Option<usize> {
        if self
            .lanes
            .iter()
            .any(|lane| lane.read.is_empty() && !lane.at_head)
        {
            return None;
        }
        let fronts = self.lanes.iter().enumerate().filter_map(|(index, lane)| {
            let (_, record) = lane.read.front()?;
            Some((record.ingest_time, index))
        });
        fronts.min().map(|(_, index)| index)
    }

    /// Whether the last fill left nothing to take.
    pub(crate) fn is_at_head(&self) -> bool {
        self.lanes
            .iter()
            .all(|lane| lane.at_head && lane.read.is_empty())
    }

    pub(crate) fn take_missing(&mut self) -> u64 {
        std::mem::take(&mut self.missing)
    }
}

/// The heads of the input streams, to wait on.
pub(crate) struct Heads(Vec<watch::Receiver<Offset>>);

impl Heads {
    pub(crate) fn open(log: &Log, streams: &[StreamName]) -> Result<Self, Error> {
        let heads = streams.iter().map(|name| log.head(name));
        Ok(Self(heads.collect::<Result<_, Error>>()?))
    }

    pub(crate) fn offsets(&self) -> Vec<Offset> {
        self.0.iter().map(|head| *head.borrow()).collect()
    }

    /// From here on, [`Heads::moved`] waits for what is not there yet.
    pub(crate) fn mark(&mut self) {
        for head in &mut self.0 {
            head.mark_unchanged();
        }
    }

    /// Waits until one of the heads has moved since [`Heads::mark`]. If the log is closed they
    /// never will; then it returns now and then, for the reader to find out.
    pub(crate) async fn moved(&mut self) {
        let wait = |head| Box::pin(moved(head));
        let mut waits: Vec<_> = self.0.iter_mut().map(wait).collect();
        std::future::poll_fn(|context| {
            if waits
                .iter_mut()
                .any(|wait| wait.as_mut().poll(context).is_ready())
            {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

async fn moved(head: &mut watch::Receiver<Offset>) {
    if head.changed().await.is_err() {
        tokio::time::sleep(CLOSED_DELAY).await;
    }
}
