//! Looks at the node once a second, for what only time tells: rates, and what they come to.

use crate::outlook::{Figures, Lane, Outlook, Sample, Sent, Stream};
use skerry_bridge::uplink::{self, LinkState, StreamSnapshot};
use skerry_store::{Append, Change, Error, Log, Offset, StreamName, WallNanos};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const EVERY: Duration = Duration::from_secs(1);
/// What was sent today is noted for the next start at most this often.
const NOTED_EVERY: Duration = Duration::from_secs(60);

const BUCKET: &str = "uplink-sent";
const TODAY: &[u8] = b"today";

pub struct Observer {
    log: Log,
    uplink: Arc<uplink::Status>,
    seen: Mutex<Seen>,
}

struct Seen {
    outlook: Outlook,
    /// When the record at a position came in, by stream: it is read once.
    oldest: BTreeMap<String, (Offset, WallNanos)>,
    noted: Sent,
    noted_at: Instant,
}

impl Observer {
    pub fn new(log: Log, uplink: Arc<uplink::Status>) -> Self {
        // An unreadable note is none.
        let stored = log.get(BUCKET, TODAY).ok().flatten();
        let sent: Sent = stored
            .and_then(|value| serde_json::from_slice(&value).ok())
            .unwrap_or_default();
        let seen = Seen {
            outlook: Outlook::new(sent),
            oldest: BTreeMap::new(),
            noted: sent,
            noted_at: Instant::now(),
        };
        Self {
            log,
            uplink,
            seen: Mutex::new(seen),
        }
    }

    pub fn figures(&self) -> Option<Figures> {
        self.seen().outlook.figures()
    }

    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = tick.tick() => {}
            }
            let observer = Arc::clone(&self);
            // Where a stream lags, its oldest record is on the disk.
            let observed = tokio::task::spawn_blocking(move || observer.observe()).await;
            if let Ok(Err(error)) = observed {
                tracing::debug!(%error, "the log cannot be looked at");
            }
            let due = self.seen().noted_at.elapsed() >= NOTED_EVERY;
            if due {
                self.note().await;
            }
        }
        self.note().await;
    }

    fn observe(&self) -> Result<(), Error> {
        let (stats, uplink) = (self.log.stats(), self.uplink.snapshot());
        let mut seen = self.seen();
        let quota = stats.quota_bytes_max.unwrap_or(u64::MAX);
        let mut streams = Vec::with_capacity(stats.streams.len());
        for stats in stats.streams {
            let name = StreamName::new(&stats.name)?;
            let grown_bytes = match seen.outlook.head_of(&stats.name) {
                Some(before) => self.log.bytes_from(&name, before)?,
                None => 0,
            };
            let lanes = &mut uplink.streams.iter();
            let lane = lanes.find(|lane| lane.stream == stats.name);
            let lane = lane.map(|lane| self.lane(&name, lane, &mut seen.oldest));
            streams.push(Stream {
                name: stats.name,
                head: stats.head,
                bytes: stats.bytes,
                bytes_max: stats.bytes_max,
                grown_bytes,
                lane: lane.transpose()?,
            });
        }
        seen.outlook.observe(Sample {
            at: Instant::now(),
            wall: WallNanos::now(),
            linked: uplink.link.state == LinkState::Up,
            room_bytes: stats
                .disk_free_bytes
                .min(quota.saturating_sub(stats.quota_bytes)),
            streams,
        });
        Ok(())
    }

    fn lane(
        &self,
        stream: &StreamName,
        lane: &StreamSnapshot,
        known: &mut BTreeMap<String, (Offset, WallNanos)>,
    ) -> Result<Lane, Error> {
        let position = lane.position;
        let oldest = match known.get(stream.as_str()) {
            Some((at, time)) if *at == position => Some(*time),
            _ if position >= lane.head => None,
            _ => self.ingest_time(stream, position)?,
        };
        if let Some(time) = oldest {
            known.insert(stream.as_str().to_owned(), (position, time));
        }
        Ok(Lane {
            position,
            bytes: self.log.bytes_from(stream, position)?,
            oldest,
            sent_bytes_total: lane.bytes_total,
        })
    }

    /// Of the first record held from there on.
    fn ingest_time(&self, stream: &StreamName, from: Offset) -> Result<Option<WallNanos>, Error> {
        let batch = self.log.reader(stream, from)?.next(1)?;
        let first = batch.records.first();
        Ok(first.map(|(_, record)| record.ingest_time))
    }

    /// Keeps what was sent today over a restart.
    async fn note(&self) {
        let sent = {
            let mut seen = self.seen();
            let sent = seen.outlook.sent();
            seen.noted_at = Instant::now();
            if sent == seen.noted {
                return;
            }
            seen.noted = sent;
            sent
        };
        let value = serde_json::to_vec(&sent).expect("it has string keys only");
        let append = Append {
            stream: StreamName::catalog(),
            records: Vec::new(),
            changes: vec![Change::Put {
                bucket: BUCKET.to_owned(),
                key: TODAY.into(),
                value: value.into(),
            }],
        };
        if let Err(error) = self.log.append(append).await {
            tracing::debug!(%error, "what was sent today is not noted");
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
