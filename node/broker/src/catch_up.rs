//! Reading the log for one session that is behind, a little at a time.

use crate::codec::Qos;
use crate::delivery::{Delivery, Published};
use crate::interest::Interest;
use crate::record;
use crate::streams::{Place, StreamIndex, Streams};
use skerry_store::{Error, Log, Offset};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What one session is given at once.
const DELIVERIES_MAX: usize = 256;
const BYTES_MAX: usize = 128 * 1024;
/// Longest time one session keeps the others waiting, where nothing is found for it.
const SLICE: Duration = Duration::from_millis(20);

/// What to read, and for whom.
pub(crate) struct Errand {
    pub log: Log,
    pub streams: Arc<Streams>,
    pub stream: StreamIndex,
    pub from: Offset,
    /// Messages of QoS 0 before this are not owed.
    pub present_since: Offset,
    pub interest: Arc<Interest>,
    pub client_id: Arc<str>,
}

/// What was found from `from` up to `next`.
#[derive(Debug)]
pub(crate) struct Found {
    pub stream: StreamIndex,
    pub from: Offset,
    pub next: Offset,
    pub deliveries: Vec<Delivery>,
    /// How many records of the range are gone, whoever they were for.
    pub missing: u64,
}

/// Blocks on the disk.
pub(crate) fn run(errand: &Errand) -> Result<Found, Error> {
    let stream = errand.streams.get(errand.stream);
    let mut found = Found {
        stream: errand.stream,
        from: errand.from,
        next: errand.from,
        deliveries: Vec::new(),
        missing: 0,
    };
    let mut reader = errand.log.reader(&stream.name, errand.from)?;
    let until = Instant::now() + SLICE;
    let mut bytes = 0;
    while Instant::now() < until {
        let views = reader.next_views()?;
        if views.is_empty() {
            break;
        }
        if let Some((first, next)) = views.missing {
            found.missing += next.0 - first.0;
            found.next = next;
        }
        for (offset, view) in views.records {
            let place = Place {
                stream: errand.stream,
                offset,
            };
            found.next = offset.plus(1);
            let Some(topic) = record::topic(&view, &stream.name, stream.derived) else {
                continue;
            };
            if !errand.interest.wants(&topic, place) {
                continue;
            }
            let message = Published::new(record::message(&view, topic.into_owned()), None);
            let own = message.publisher.as_deref() == Some(&errand.client_id);
            let Some(delivery) = errand.interest.delivery(&message, place, own) else {
                continue;
            };
            if delivery.qos == Qos::AtMostOnce && offset < errand.present_since {
                continue;
            }
            bytes += delivery.bytes();
            found.deliveries.push(delivery);
            if found.deliveries.len() >= DELIVERIES_MAX || bytes >= BYTES_MAX {
                return Ok(found);
            }
        }
    }
    Ok(found)
}
