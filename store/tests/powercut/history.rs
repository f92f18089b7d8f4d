//! What the log was asked for and what it answered, and whether it still keeps its word.

use crate::common::{advance, name, put, rng::Rng};
use serde::{Deserialize, Serialize};
use skerry_store::{
    Append, Change, Durability, Gap, Keys, Kind, Log, Offset, Options, Record, StreamName,
    StreamOptions, WallNanos, WhenFull,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

/// With room for all, refusing when full, giving up the oldest when full, and acknowledging before
/// the sync.
pub(crate) const STREAMS: [&str; 4] = ["plain", "blocking", "dropping", "interval"];
const DROPPING: usize = 2;
pub(crate) const INTERVAL: usize = 3;
/// Around what a few appends take, so that some of them are synced in time and some are not.
const SYNC_INTERVAL: Duration = Duration::from_millis(1);
const READER: &str = "uplink";
const DROPPED: &str = "the stream was full and its policy is drop_oldest";
const KEYS: usize = 5;

/// Since when a log has a key. One in four histories is that of one that has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encrypted {
    Never,
    Always,
    FromNextCut,
}

impl Encrypted {
    pub(crate) const fn of(seed: usize) -> Self {
        match seed % 8 {
            3 => Self::Always,
            7 => Self::FromNextCut,
            _ => Self::Never,
        }
    }

    pub(crate) fn after_cut(self) -> Self {
        match self {
            Self::Never => Self::Never,
            Self::Always | Self::FromNextCut => Self::Always,
        }
    }
}

/// Small enough that segments roll, the journal is trimmed and streams are full all the time.
pub(crate) fn options(directory: &Path, encrypted: Encrypted) -> Options {
    let mut options = Options::new(directory);
    options.keys = (encrypted == Encrypted::Always).then(|| Keys::new([7; 32], []));
    options.streams = STREAMS
        .map(|stream| StreamOptions {
            readers: vec![READER.to_owned()],
            ..StreamOptions::new(name(stream), 5_000)
        })
        .into();
    options.streams[0].bytes_max = 1 << 40;
    options.streams[0].readers.clear();
    options.streams[DROPPING].when_full = WhenFull::DropOldest;
    options.streams[INTERVAL].bytes_max = 1 << 40;
    options.streams[INTERVAL].readers.clear();
    options.streams[INTERVAL].durability = Durability::Interval(SYNC_INTERVAL);
    options.segment_bytes = 900;
    options.commit_delay_max = Duration::ZERO;
    options.allow_volatile = true;
    options
}

/// One for each stream.
pub(crate) type Each<T> = [T; STREAMS.len()];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Fate {
    /// Asked for and not answered: may be there, as a whole.
    Unknown,
    /// Acknowledged before its sync: there as a whole, or told of. The offset of its first record.
    Waiting(u64),
    /// Acknowledged, or read: has to be there. The offset of its first record.
    There(u64),
    /// Refused, or not there after a cut: must never turn up.
    Absent,
}

/// One append. Its number is its place in the history, and names its records and a key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Asked {
    stream: usize,
    records: usize,
    /// Keys it puts its number under, and where it moves the readers of the streams to.
    puts: Vec<usize>,
    deletes: Vec<usize>,
    advances: Vec<(usize, u64)>,
}

impl Asked {
    pub(crate) fn draw(rng: &mut Rng, heads: Each<u64>, cursors: &mut Each<u64>) -> Self {
        let stream = rng.below(STREAMS.len());
        let mut asked = Self {
            stream,
            records: rng.below(5),
            puts: Vec::new(),
            deletes: Vec::new(),
            advances: Vec::new(),
        };
        if asked.records == 0 || rng.one_in(2) {
            asked.puts.push(rng.below(KEYS));
            if rng.one_in(3) {
                asked.deletes.push(rng.below(KEYS));
            }
            for stream in [1, DROPPING] {
                if rng.one_in(4) {
                    let ahead = heads[stream] - cursors[stream];
                    cursors[stream] += rng.next() % (ahead + 1);
                    asked.advances.push((stream, cursors[stream]));
                }
            }
        }
        asked
    }

    pub(crate) fn probe(stream: usize) -> Self {
        Self {
            stream,
            records: 1,
            puts: vec![0],
            deletes: Vec::new(),
            advances: Vec::new(),
        }
    }

    fn has_changes(&self) -> bool {
        !self.puts.is_empty()
    }

    pub(crate) fn append(&self, number: usize) -> Append {
        let mut changes = Vec::new();
        if self.has_changes() {
            changes.push(put(&marker(number), []));
        }
        changes.extend(
            self.puts
                .iter()
                .map(|key| put(&key_name(*key), value(number))),
        );
        changes.extend(self.deletes.iter().map(|key| Change::Delete {
            bucket: "test".into(),
            key: key_name(*key).into(),
        }));
        let advances = self.advances.iter();
        changes.extend(advances.map(|(stream, next)| advance(READER, STREAMS[*stream], *next)));
        Append {
            stream: name(STREAMS[self.stream]),
            records: (0..self.records)
                .map(|index| record(number, index))
                .collect(),
            changes,
        }
    }
}

fn marker(number: usize) -> String {
    format!("append/{number:06}")
}

fn key_name(key: usize) -> String {
    format!("key/{key}")
}

/// Now and then so large that the catalog keeps it in parts.
fn value(number: usize) -> Vec<u8> {
    let mut rng = Rng::new(number as u64);
    let length = if rng.one_in(20) { 9_000 } else { rng.below(60) };
    [number.to_string().into_bytes(), vec![b'.'; length]].concat()
}

/// Noise, so that it does not compress, of lengths around that of a sector.
fn record(number: usize, index: usize) -> Record {
    let mut rng = Rng::new((number * 1_000 + index) as u64);
    let length = match rng.below(8) {
        0 => 600,
        1 => 0,
        _ => rng.below(200),
    };
    let mut payload = format!("{number}/{index}/").into_bytes();
    let end = payload.len() + length;
    while payload.len() < end {
        payload.extend_from_slice(&rng.next().to_le_bytes());
    }
    let mut record = Record::new(Kind::Mqtt, "topic", payload);
    record.ingest_time = WallNanos(number as i64);
    record
}

fn parse(record: &Record) -> Option<(usize, usize)> {
    let mut parts = record.payload.splitn(3, |byte| *byte == b'/');
    let mut number = || std::str::from_utf8(parts.next()?).ok()?.parse().ok();
    Some((number()?, number()?))
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct History {
    asked: Vec<Asked>,
    fates: Vec<Fate>,
    /// How many cuts took something that was acknowledged before its sync.
    losses: usize,
}

/// One stream as it reads.
struct Found {
    tail: u64,
    head: u64,
    /// Offsets of the records of each append.
    appends: BTreeMap<usize, Vec<u64>>,
    gaps: Vec<Gap>,
    /// Gap records for what a power cut may have taken.
    cuts: usize,
}

impl History {
    /// Its number.
    pub(crate) fn ask(&mut self, asked: Asked) -> usize {
        self.asked.push(asked);
        self.fates.push(Fate::Unknown);
        self.asked.len() - 1
    }

    pub(crate) fn answer(&mut self, number: usize, fate: Fate) {
        self.fates[number] = fate;
    }

    /// Whether an append is acknowledged before its sync. Changes alone are journalled, and synced
    /// in any case.
    pub(crate) fn is_unsynced(&self, number: usize) -> bool {
        let asked = &self.asked[number];
        asked.stream == INTERVAL && asked.records > 0
    }

    pub(crate) fn cursors(&self) -> Each<u64> {
        let mut cursors = [0; STREAMS.len()];
        for (asked, fate) in self.asked.iter().zip(&self.fates) {
            for &(stream, next) in &asked.advances {
                if *fate != Fate::Absent {
                    cursors[stream] = next;
                }
            }
        }
        cursors
    }

    /// Whether the log holds what this says, no less and no more. What was unknown is known now.
    pub(crate) fn check(&mut self, log: &Log) -> Result<(), String> {
        let markers: BTreeSet<_> = log
            .scan("test", b"append/")
            .map_err(|error| error.to_string())?
            .into_iter()
            .map(|(key, _)| String::from_utf8_lossy(&key).into_owned())
            .collect();
        let found: Result<Vec<_>, _> = (0..STREAMS.len())
            .map(|stream| Found::read(log, stream))
            .collect();
        let found: Each<Found> = found?.try_into().ok().expect("one for each");
        let expected = self.settle(&found, &markers)?;
        expected.check(log, &found)?;
        self.check_streams(&found, &expected)?;
        if let Some(marker) = markers.iter().next_back()
            && *marker >= self::marker(self.asked.len())
        {
            return Err(format!("{marker} was never asked for"));
        }
        Ok(())
    }

    /// Decides of each append whether it is there; fails where part of it is.
    fn settle(
        &mut self,
        found: &Each<Found>,
        markers: &BTreeSet<String>,
    ) -> Result<Expected, String> {
        let mut expected = Expected::default();
        let mut lost = false;
        for (number, asked) in self.asked.iter().enumerate() {
            let fate = self.fates[number];
            let marked = markers.contains(&marker(number));
            let first = match found[asked.stream].appends.get(&number) {
                Some(offsets) => Some(asked.whole(number, offsets)?),
                None => None,
            };
            let there = if asked.has_changes() {
                marked
            } else {
                first.is_some() || matches!(fate, Fate::There(_))
            };
            let wrong = match fate {
                Fate::Absent => there || first.is_some(),
                Fate::There(at) => !there || first.is_some_and(|first| first != at),
                Fate::Waiting(at) => there != first.is_some_and(|first| first == at),
                // What nobody acknowledged can be given up in the commit that brought it.
                Fate::Unknown => {
                    first.is_some() && !there || asked.records > 0 && first.is_none() && there
                }
            };
            if wrong {
                return Err(format!(
                    "append {number} ({asked:?}) was {fate:?}: its changes are {}there, its records at {first:?}",
                    if marked { "" } else { "not " }
                ));
            }
            lost |= matches!(fate, Fate::Waiting(_)) && !there;
            if matches!(fate, Fate::Unknown | Fate::Waiting(_)) {
                self.fates[number] = if there {
                    Fate::There(first.unwrap_or(0))
                } else {
                    Fate::Absent
                };
            }
            if there {
                expected.apply(number, asked);
            }
        }
        self.losses += usize::from(lost);
        Ok(expected)
    }

    fn check_streams(&self, found: &Each<Found>, expected: &Expected) -> Result<(), String> {
        for (stream, found) in found.iter().enumerate() {
            let cuts = if stream == INTERVAL { self.losses } else { 0 };
            if found.cuts < cuts || stream != INTERVAL && found.cuts > 0 {
                return Err(format!(
                    "{} tells of {} power cuts, and {cuts} took something from it",
                    STREAMS[stream], found.cuts
                ));
            }
            let confirmed = expected.cursors.get(&stream).copied().unwrap_or(0);
            let offsets = found.appends.values().flatten();
            if !offsets.is_sorted() {
                return Err(format!("stream {} is out of order", STREAMS[stream]));
            }
            let mut there = BTreeSet::new();
            for (number, asked) in self.asked.iter().enumerate() {
                if asked.stream != stream || asked.records == 0 {
                    continue;
                }
                if let Fate::There(first) = self.fates[number] {
                    there.extend(first..first + asked.records as u64);
                    found
                        .accounts_for(first, asked.records, stream, confirmed)
                        .map_err(|why| {
                            format!("append {number} at {first} in {}: {why}", STREAMS[stream])
                        })?;
                }
            }
            for gap in &found.gaps {
                let (first, next) = gap.offsets.ok_or("a gap without offsets")?;
                let dropped = gap.reason == DROPPED;
                if dropped && next.0 > found.tail {
                    return Err(format!("{gap:?}, and the tail is {}", found.tail));
                }
                if !dropped && there.range(first.0..next.0).next().is_some() {
                    return Err(format!("{gap:?}, of what is not lost"));
                }
            }
        }
        Ok(())
    }
}

impl Asked {
    /// The offset of the first record, if all are there side by side.
    fn whole(&self, number: usize, offsets: &[u64]) -> Result<u64, String> {
        let first = offsets[0];
        let all = first..first + self.records as u64;
        if all.clone().eq(offsets.iter().copied()) {
            return Ok(first);
        }
        Err(format!("append {number} is at {offsets:?}, not at {all:?}"))
    }
}

impl Found {
    fn read(log: &Log, stream: usize) -> Result<Self, String> {
        let stream = name(STREAMS[stream]);
        let mut found = Self {
            tail: log.tail(&stream).map_err(|error| error.to_string())?.0,
            head: head(log, &stream),
            appends: BTreeMap::new(),
            gaps: Vec::new(),
            cuts: 0,
        };
        let mut reader = log
            .reader(&stream, Offset::ZERO)
            .map_err(|error| error.to_string())?;
        loop {
            let batch = reader.next(1 << 20).map_err(|error| error.to_string())?;
            if batch.is_empty() {
                return Ok(found);
            }
            for (offset, record) in batch.records {
                found.take(offset.0, &record)?;
            }
        }
    }

    fn take(&mut self, offset: u64, record: &Record) -> Result<(), String> {
        if record.kind == Kind::Gap {
            let gap: Gap =
                serde_json::from_slice(&record.payload).map_err(|why| why.to_string())?;
            if gap.offsets.is_none() && gap.reason.contains("the power failed") {
                self.cuts += 1;
            } else {
                self.gaps.push(gap);
            }
            return Ok(());
        }
        let (number, index) = parse(record).ok_or_else(|| format!("{record:?} was never asked"))?;
        let offsets = self.appends.entry(number).or_default();
        if *record != self::record(number, index) || offsets.len() != index {
            return Err(format!(
                "record {number}/{index} is changed or out of order"
            ));
        }
        offsets.push(offset);
        Ok(())
    }

    /// Whether records that have to be there are, or have gone as they may.
    fn accounts_for(
        &self,
        first: u64,
        records: usize,
        stream: usize,
        confirmed: u64,
    ) -> Result<(), String> {
        let next = first + records as u64;
        let reads = self.appends.values().flatten().any(|at| *at == first);
        if reads {
            return Ok(());
        }
        if stream == 0 || stream == INTERVAL || first >= self.tail {
            return Err(format!("lost; the stream is {}..{}", self.tail, self.head));
        }
        let dropped = self.gaps.iter().filter(|gap| gap.reason == DROPPED);
        let told: Vec<_> = dropped.filter_map(|gap| gap.offsets).collect();
        let told = |at| {
            told.iter()
                .any(|(first, next)| first.0 <= at && at < next.0)
        };
        match (first..next).find(|&at| at >= confirmed && !(stream == DROPPING && told(at))) {
            Some(at) => Err(format!(
                "{at} is gone and no gap record tells; confirmed to {confirmed}, tail {}",
                self.tail
            )),
            None => Ok(()),
        }
    }
}

fn head(log: &Log, stream: &StreamName) -> u64 {
    log.head(stream).map_or(0, |head| head.borrow().0)
}

/// What the changes of all appends that are there amount to, in the order they were asked for.
#[derive(Debug, Default)]
struct Expected {
    values: BTreeMap<usize, usize>,
    cursors: BTreeMap<usize, u64>,
}

impl Expected {
    fn apply(&mut self, number: usize, asked: &Asked) {
        self.values
            .extend(asked.puts.iter().map(|key| (*key, number)));
        self.values.retain(|key, _| !asked.deletes.contains(key));
        self.cursors.extend(asked.advances.iter().copied());
    }

    fn check(&self, log: &Log, found: &Each<Found>) -> Result<(), String> {
        for key in 0..KEYS {
            let stored = log.get("test", key_name(key).as_bytes());
            let stored = stored.map_err(|error| error.to_string())?;
            let expected = self.values.get(&key);
            if stored.as_deref() != expected.map(|number| value(*number)).as_deref() {
                return Err(format!(
                    "key {key} is not what append {expected:?} put there"
                ));
            }
        }
        for (stream, found) in found.iter().enumerate() {
            let cursor = log.cursor(READER, &name(STREAMS[stream]));
            let cursor = cursor
                .map_err(|error| error.to_string())?
                .map(|next| next.0);
            let expected = self.cursors.get(&stream).copied();
            if cursor != expected || cursor > Some(found.head) {
                return Err(format!(
                    "the cursor in {} is {cursor:?}, not {expected:?}; the head is {}",
                    STREAMS[stream], found.head
                ));
            }
        }
        Ok(())
    }
}
