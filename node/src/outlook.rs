//! How far behind the cluster is, and what that comes to: the figures an operator plans by.
//!
//! Pure: the node is looked at once a second ([`Sample`]), time is in what was seen. Every rate is
//! a mean in which what was seen a half-life ago counts half. What was not watched for long enough
//! is unknown, and what follows from it is, too: no number is made up.

use crate::rate::Rate;
use serde::Serialize;
use skerry_store::{Offset, WallNanos};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Of what comes in and what leaves: as quick as a person who watches a link.
const RECORDS_HALF_LIFE: Duration = Duration::from_secs(60);
const RECORDS_KNOWN_AFTER: Duration = Duration::from_secs(5);
/// Of what the disk gets: a burst is no trend.
const BYTES_HALF_LIFE: Duration = Duration::from_secs(3_600);
const BYTES_KNOWN_AFTER: Duration = Duration::from_secs(60);

/// A record that is not in the cluster after so long is part of a backlog; what is younger is on
/// its way. Many times a transaction over a satellite.
const BEHIND_AFTER: Duration = Duration::from_secs(10);

/// With less than a byte a second nothing is filled in a lifetime.
const GROWTH_LEAST: f64 = 1.0;

/// The node at one moment.
#[derive(Debug, Clone)]
pub struct Sample {
    pub at: Instant,
    pub wall: WallNanos,
    /// The cluster answers.
    pub linked: bool,
    /// What the disk and the quota have left together, whichever is less.
    pub room_bytes: u64,
    pub streams: Vec<Stream>,
}

/// One stream of it.
#[derive(Debug, Clone)]
pub struct Stream {
    pub name: String,
    pub head: Offset,
    pub bytes: u64,
    pub bytes_max: u64,
    /// Bytes that came since the sample before.
    pub grown_bytes: u64,
    /// None where it is not delivered.
    pub lane: Option<Lane>,
}

#[derive(Debug, Clone)]
pub struct Lane {
    pub position: Offset,
    /// Bytes on the disk that the cluster has not confirmed, and so nothing can take back.
    pub bytes: u64,
    /// When the oldest record that it does not have came in.
    pub oldest: Option<WallNanos>,
    pub sent_bytes_total: u64,
}

/// What is known of one stream's way north.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Lag {
    pub stream: String,
    /// As they are on the disk.
    pub lag_bytes: u64,
    /// Since when the oldest record waits; 0 where none does.
    pub lag_seconds: Option<f64>,
}

/// What an operator plans by. None is unknown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    pub lag_records: u64,
    pub lag_bytes: u64,
    /// The age of the oldest record that is not in the cluster: what would be lost with the box.
    pub rpo_seconds: Option<f64>,
    /// How long until the cluster is current; none also while there is no link.
    pub rto_seconds: Option<f64>,
    /// The same from the moment there is a link, at the rate last measured on one.
    pub drain_eta_seconds: Option<f64>,
    /// How long until the first stream refuses data, or gives some up, if the cluster stays away.
    pub autonomy_seconds: Option<f64>,
    /// What that stream is, or `disk`.
    pub autonomy_limit: Option<String>,
    pub ingest_records_per_second: Option<f64>,
    pub ingest_bytes_per_second: Option<f64>,
    pub drain_records_per_second: Option<f64>,
    /// What the cluster got since midnight UTC, as records were before compression.
    pub sent_today_bytes: u64,
    #[serde(skip)]
    pub lags: Vec<Lag>,
}

/// What was sent on a day, counted from the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Sent {
    pub day: i64,
    pub bytes: u64,
}

/// What was seen so far.
#[derive(Debug)]
pub struct Outlook {
    last: Option<Sample>,
    arriving: Rate,
    draining: Rate,
    /// Time on a link with a backlog since something was confirmed last: it counts with what is
    /// confirmed next, and not at all if the link turns out to be gone.
    waited: Duration,
    /// What was confirmed last, and the wait for it. It counts once the link proves to be there
    /// after it: a confirmation from before a cut is often heard of only when the cut is.
    unproven: Option<(u64, Duration)>,
    growing: Rate,
    growing_each: BTreeMap<String, Rate>,
    sent: Sent,
}

impl Outlook {
    /// `sent` is what an earlier run had sent.
    pub fn new(sent: Sent) -> Self {
        let records = || Rate::new(RECORDS_HALF_LIFE, RECORDS_KNOWN_AFTER);
        Self {
            last: None,
            arriving: records(),
            draining: records(),
            waited: Duration::ZERO,
            unproven: None,
            growing: Rate::new(BYTES_HALF_LIFE, BYTES_KNOWN_AFTER),
            growing_each: BTreeMap::new(),
            sent,
        }
    }

    pub fn sent(&self) -> Sent {
        self.sent
    }

    /// The head of a stream in the last sample.
    pub fn head_of(&self, stream: &str) -> Option<Offset> {
        let streams = &self.last.as_ref()?.streams;
        let found = streams.iter().find(|known| known.name == stream);
        found.map(|stream| stream.head)
    }

    pub fn observe(&mut self, now: Sample) {
        if let Some(before) = self.last.take() {
            self.compare(&before, &now);
        } else {
            // What was sent before anybody looked was sent today, as far as anybody knows.
            self.count(
                now.wall,
                lanes(&now).map(|(_, lane)| lane.sent_bytes_total).sum(),
            );
        }
        self.last = Some(now);
    }

    fn compare(&mut self, before: &Sample, now: &Sample) {
        let took = now.at.saturating_duration_since(before.at);
        let (mut arrived, mut drained, mut sent, mut grown) = (0, 0, 0, 0);
        for stream in &now.streams {
            grown += stream.grown_bytes;
            let rate = self.growing_each.entry(stream.name.clone());
            let rate = rate.or_insert_with(|| Rate::new(BYTES_HALF_LIFE, BYTES_KNOWN_AFTER));
            rate.add(stream.grown_bytes, took);
            let known = before
                .streams
                .iter()
                .find(|known| known.name == stream.name);
            let Some((known, lane)) = known.zip(stream.lane.as_ref()) else {
                continue;
            };
            let Some(lane_before) = &known.lane else {
                continue;
            };
            arrived += stream.head.0.saturating_sub(known.head.0);
            drained += lane.position.0.saturating_sub(lane_before.position.0);
            sent += lane
                .sent_bytes_total
                .saturating_sub(lane_before.sent_bytes_total);
        }
        self.growing.add(grown, took);
        self.arriving.add(arrived, took);
        self.measure_link(before, now, drained, took);
        self.count(now.wall, sent);
    }

    /// Only a link that has more to do than it can is measured.
    fn measure_link(&mut self, before: &Sample, now: &Sample, drained: u64, took: Duration) {
        if !(before.linked && now.linked) {
            (self.unproven, self.waited) = (None, Duration::ZERO);
        } else if !(is_behind(before) && is_behind(now)) {
            self.waited = Duration::ZERO;
            self.prove();
        } else {
            self.waited += took;
            if drained > 0 {
                self.prove();
                self.unproven = Some((drained, std::mem::take(&mut self.waited)));
            }
        }
    }

    fn prove(&mut self) {
        if let Some((drained, waited)) = self.unproven.take() {
            self.draining.add(drained, waited);
        }
    }

    fn count(&mut self, wall: WallNanos, bytes: u64) {
        const DAY_NANOS: i64 = 86_400_000_000_000;
        let day = wall.0.div_euclid(DAY_NANOS);
        if self.sent.day != day {
            self.sent = Sent { day, bytes: 0 };
        }
        self.sent.bytes += bytes;
    }

    /// None before anything was seen.
    pub fn figures(&self) -> Option<Figures> {
        let now = self.last.as_ref()?;
        let lags: Vec<_> = lanes(now)
            .map(|(stream, lane)| lag(now, stream, lane))
            .collect();
        let lag_records = lanes(now)
            .map(|(stream, lane)| behind_by(stream, lane))
            .sum();
        let eta = self.drain_eta(now, lag_records);
        let autonomy = self.autonomy(now);
        let oldest = lags.iter().map(|lag| lag.lag_seconds);
        let rpo = oldest.reduce(|one, other| Some(one?.max(other?)));
        Some(Figures {
            lag_records,
            lag_bytes: lags.iter().map(|lag| lag.lag_bytes).sum(),
            rpo_seconds: rpo.flatten(),
            rto_seconds: eta.filter(|_| now.linked || lag_records == 0),
            drain_eta_seconds: eta,
            autonomy_seconds: autonomy.as_ref().map(|(seconds, _)| *seconds),
            autonomy_limit: autonomy.map(|(_, limit)| limit),
            ingest_records_per_second: self.arriving.per_second(),
            ingest_bytes_per_second: self.growing.per_second(),
            drain_records_per_second: self.draining.per_second(),
            sent_today_bytes: self.sent.bytes,
            lags,
        })
    }

    fn drain_eta(&self, now: &Sample, lag_records: u64) -> Option<f64> {
        if lag_records == 0 || now.linked && !is_behind(now) {
            return Some(0.0);
        }
        let gained = self.draining.per_second()? - self.arriving.per_second()?;
        (gained > 0.0).then(|| lossy(lag_records) / gained)
    }

    /// The first limit that is reached, and when. Each stream has its own; all have the disk's.
    fn autonomy(&self, now: &Sample) -> Option<(f64, String)> {
        let growing = self.growing.per_second()?;
        let reclaimable: u64 = lanes(now)
            .map(|(stream, lane)| stream.bytes.saturating_sub(lane.bytes))
            .sum();
        let disk = (now.room_bytes.saturating_add(reclaimable), growing, "disk");
        let streams = lanes(now).filter_map(|(stream, lane)| {
            let growing = self.growing_each.get(&stream.name)?.per_second()?;
            let room = stream.bytes_max.saturating_sub(lane.bytes);
            Some((room, growing, stream.name.as_str()))
        });
        let limits = streams.chain([disk]);
        let reached = limits.filter(|(_, growing, _)| *growing >= GROWTH_LEAST);
        reached
            .map(|(room, growing, limit)| (lossy(room) / growing, limit.to_owned()))
            .min_by(|(one, _), (other, _)| one.total_cmp(other))
    }
}

fn lanes(sample: &Sample) -> impl Iterator<Item = (&Stream, &Lane)> {
    let streams = sample.streams.iter();
    streams.filter_map(|stream| Some((stream, stream.lane.as_ref()?)))
}

fn behind_by(stream: &Stream, lane: &Lane) -> u64 {
    stream.head.0.saturating_sub(lane.position.0)
}

fn lag(now: &Sample, stream: &Stream, lane: &Lane) -> Lag {
    Lag {
        stream: stream.name.clone(),
        lag_bytes: match behind_by(stream, lane) {
            0 => 0,
            _ => lane.bytes,
        },
        lag_seconds: match behind_by(stream, lane) {
            0 => Some(0.0),
            _ => lane.oldest.map(|oldest| age(now.wall, oldest)),
        },
    }
}

/// Of a record by its own time; a clock that was set back makes none negative.
fn age(now: WallNanos, then: WallNanos) -> f64 {
    let nanos = now.0.saturating_sub(then.0).max(0);
    Duration::from_nanos(nanos.unsigned_abs()).as_secs_f64()
}

fn is_behind(sample: &Sample) -> bool {
    let limit = BEHIND_AFTER.as_secs_f64();
    let mut late = lanes(sample).map(|(stream, lane)| lag(sample, stream, lane).lag_seconds);
    late.any(|seconds| seconds.is_some_and(|seconds| seconds > limit))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "nobody plans by the sixteenth digit"
)]
fn lossy(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
