//! What a stream amounts to: how much, of what, from whom, and what is missing.

use super::{Fault, Report, StreamSummary, epoch, read_stream, readable, summary};
use crate::frame::{Body, Header};
use crate::{Error, Gap, Keys, Kind, Offset, RecordView, StreamName, WallNanos};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// The biggest sources that are named.
const SOURCES_NAMED: usize = 10;
/// Sources counted at a time: with fewer, all counts are exact.
const SOURCES_MAX: usize = 4_096;
/// Bytes of their names; a name may have 64 KiB.
const SOURCE_BYTES_MAX: usize = 1024 * 1024;
/// Reasons of gaps told apart; damage names its file, so there may be many.
const REASONS_MAX: usize = 64;
const OTHER_REASONS: &str = "other reasons";

/// A stream, as reading all of it shows.
#[derive(Debug, Clone, Serialize)]
pub struct StreamFigures {
    #[serde(flatten)]
    pub summary: StreamSummary,
    /// Those that read; less than from tail to head where some are damaged or lost.
    pub records: u64,
    pub frames: u64,
    /// Bytes of the frames' bodies as they are on disk, and before compression.
    pub payload_bytes: u64,
    pub body_bytes: u64,
    /// The earliest and the latest event time.
    pub first_time: Option<WallNanos>,
    pub last_time: Option<WallNanos>,
    /// Records by kind.
    pub kinds: BTreeMap<&'static str, u64>,
    /// What the gap records tell, by reason.
    pub gaps: Vec<GapFigures>,
    /// The sources with most records.
    pub top_sources: Vec<SourceFigures>,
    /// How many records each of these may have more than is said: 0 unless there are thousands of
    /// sources.
    pub top_sources_short_by: u64,
    /// At the end of the newest segment: a commit under way, or one that never finished.
    pub unfinished_bytes: u64,
    pub faults: Vec<Fault>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GapFigures {
    pub reason: String,
    /// Gap records that give it.
    pub records: u64,
    /// Values they say are missing, where they know how many.
    pub values: u64,
    /// Gap records that do not.
    pub uncounted: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceFigures {
    pub source: String,
    pub records: u64,
}

/// Reads all of a stream, checks it as [`verify`](super::verify) does, and adds it up. Holds one
/// frame and some thousand names. [`Error::Key`] where it is encrypted with no key of `keys`.
pub fn figures(
    data_directory: &Path,
    stream: &StreamName,
    keys: Option<&Keys>,
) -> Result<StreamFigures, Error> {
    let segments = readable(data_directory, stream, Offset::ZERO, keys)?;
    let epoch = epoch(data_directory)?;
    let summary = summary(data_directory, stream, epoch)?;
    let mut report = Report::default();
    let mut sums = Sums::default();
    let mut add = |header: &Header, body: &Body<'_>| sums.frame(header, body);
    read_stream(stream, &segments, epoch, &mut report, &mut add)?;
    let times = sums.times;
    let short_by = sums.sources.short_by;
    Ok(StreamFigures {
        summary,
        records: sums.kinds.values().sum(),
        frames: sums.frames,
        payload_bytes: sums.payload_bytes,
        body_bytes: sums.body_bytes,
        first_time: times.map(|(first, _)| first),
        last_time: times.map(|(_, last)| last),
        kinds: sums.kinds,
        gaps: sums.gaps.into_values().collect(),
        top_sources: sums.sources.into_largest(),
        top_sources_short_by: short_by,
        unfinished_bytes: report.unfinished_bytes,
        faults: report.faults,
    })
}

#[derive(Debug, Default)]
struct Sums {
    frames: u64,
    payload_bytes: u64,
    body_bytes: u64,
    times: Option<(WallNanos, WallNanos)>,
    kinds: BTreeMap<&'static str, u64>,
    gaps: BTreeMap<String, GapFigures>,
    sources: Sources,
}

impl Sums {
    fn frame(&mut self, header: &Header, body: &Body<'_>) {
        self.frames += 1;
        self.payload_bytes += u64::from(header.payload_bytes);
        self.body_bytes += u64::from(header.body_bytes);
        if header.count > 0 {
            let (first, last) = self.times.unwrap_or((header.first_time, header.last_time));
            self.times = Some((first.min(header.first_time), last.max(header.last_time)));
        }
        for (_, record) in body.records {
            *self.kinds.entry(record.kind.word()).or_default() += 1;
            self.sources.add(record.source);
            if record.kind == Kind::Gap {
                self.gap(&record);
            }
        }
    }

    fn gap(&mut self, record: &RecordView<'_>) {
        let gap: Option<Gap> = serde_json::from_slice(record.payload).ok();
        let count = gap.as_ref().and_then(|gap| gap.count);
        let mut reason = gap.map_or_else(|| "not told".to_owned(), |gap| gap.reason);
        if self.gaps.len() >= REASONS_MAX && !self.gaps.contains_key(&reason) {
            OTHER_REASONS.clone_into(&mut reason);
        }
        let sum = self.gaps.entry(reason.clone()).or_insert(GapFigures {
            reason,
            records: 0,
            values: 0,
            uncounted: 0,
        });
        sum.records += 1;
        sum.values += count.unwrap_or(0);
        sum.uncounted += u64::from(count.is_none());
    }
}

/// Counts records by source in bounded memory (Misra and Gries): when there are too many sources,
/// all counts are lowered by the median and those that come to nothing make room. So a count is
/// too low by what was taken off at most, and whoever has more than that is among them.
#[derive(Debug, Default)]
struct Sources {
    counts: HashMap<String, u64>,
    bytes: usize,
    short_by: u64,
}

impl Sources {
    fn add(&mut self, source: &str) {
        if let Some(count) = self.counts.get_mut(source) {
            *count += 1;
            return;
        }
        self.counts.insert(source.to_owned(), 1);
        self.bytes += source.len();
        while self.counts.len() > SOURCES_MAX || self.bytes > SOURCE_BYTES_MAX {
            self.thin_out();
        }
    }

    fn thin_out(&mut self) {
        let mut counts: Vec<u64> = self.counts.values().copied().collect();
        let middle = counts.len() / 2;
        let (_, &mut median, _) = counts.select_nth_unstable(middle);
        self.counts.retain(|_, count| {
            *count = count.saturating_sub(median);
            *count > 0
        });
        self.bytes = self.counts.keys().map(String::len).sum();
        self.short_by += median;
    }

    fn into_largest(self) -> Vec<SourceFigures> {
        let mut sources: Vec<_> = self.counts.into_iter().collect();
        sources.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        sources.truncate(SOURCES_NAMED);
        let named = sources.into_iter();
        named
            .map(|(source, records)| SourceFigures { source, records })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_biggest_sources_are_found_among_very_many() {
        let mut sources = Sources::default();
        let mut added = 0;
        for number in 0..200_000_u64 {
            sources.add(&format!("once/{number}"));
            added += 1;
            if number % 10 < 5 {
                sources.add(&format!("often/{}", number % 10));
                added += 1;
            }
            assert!(sources.counts.len() <= SOURCES_MAX && sources.bytes <= SOURCE_BYTES_MAX);
        }
        let short_by = sources.short_by;
        assert!(short_by > 0 && short_by < added / 1_000, "{short_by}");
        let largest = sources.into_largest();
        for (number, found) in largest[..5].iter().enumerate() {
            assert_eq!(found.source, format!("often/{number}"));
            let short = 20_000 - found.records;
            assert!(short <= short_by, "{short} of {short_by}");
        }
    }

    #[test]
    fn few_sources_are_counted_exactly_and_long_names_do_not_fill_the_memory() {
        let mut sources = Sources::default();
        for number in 0..1_000 {
            sources.add(["a", "b", "b"][number % 3]);
        }
        assert_eq!(sources.short_by, 0);
        for number in 0..100 {
            sources.add(&format!("{number}{}", "x".repeat(60_000)));
            assert!(sources.bytes <= SOURCE_BYTES_MAX);
        }
        let largest = sources.into_largest();
        assert_eq!(
            (largest[0].source.as_str(), largest[1].source.as_str()),
            ("b", "a")
        );
    }
}
