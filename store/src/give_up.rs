//! What `drop_oldest` has to say about the segments it gives up: which offsets go, and again what
//! the gap records among them had told, since those go as well and nobody has read them.

use crate::append::OWN_BUCKET;
use crate::catalog::Catalog;
use crate::frame::{Encoded, Header, flags};
use crate::segment::{Check, HEADER_BYTES, Segment, Step, Walk};
use crate::{Change, Error, Gap, Kind, Offset, Record, WallNanos};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why segments are given up, in the words of the gap record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    StreamFull,
    TooOld,
    QuotaFull,
    DiskFull,
}

impl Reason {
    const fn words(self) -> &'static str {
        match self {
            Self::StreamFull => "the stream was full and its policy is drop_oldest",
            Self::QuotaFull => "bytes_max_total was reached and the policy is drop_oldest",
            Self::DiskFull => "the disk was full and the policy is drop_oldest",
            Self::TooOld => "the records were older than age_max and the policy is drop_oldest",
        }
    }
}

/// More kinds of gaps than this are told as one: the record that tells them has to stay small.
const GAPS_MAX: usize = 256;

/// The gap records for `offsets`, which end with `segments`, and the stream's new tail, so that
/// the removal is completed should the process die in between.
pub(crate) fn journal(
    stream: &str,
    segments: &[Arc<Segment>],
    offsets: (Offset, Offset),
    reason: Reason,
) -> Encoded {
    let (first, next) = offsets;
    tracing::error!(
        stream, %first, %next, reason = reason.words(),
        "the oldest records of a stream were given up"
    );
    let mut found = Found::default();
    for segment in segments {
        // What does not read can tell nothing; its damage has a gap record of its own.
        let _ = found.look_through(segment, first);
    }
    let own = Gap {
        subject: stream.to_owned(),
        offsets: Some(offsets),
        from: found.times.map(|(from, _)| from),
        to: found.times.map(|(_, to)| to),
        count: Some(next.0 - first.0),
        reason: reason.words().to_owned(),
    };
    found.gaps.push(own);
    let records: Vec<_> = fold(stream, found.gaps)
        .into_iter()
        .map(Gap::into_record)
        .collect();
    Encoded::new(&records, vec![new_tail(stream, next)])
}

/// The stream's new tail, where all before it is confirmed. Should the power go while segments
/// are removed, any of them may still be there: without this, the others would look lost.
pub(crate) fn reclaim(stream: &str, next: Offset) -> Encoded {
    Encoded::new(&[], vec![new_tail(stream, next)])
}

fn new_tail(stream: &str, next: Offset) -> Change {
    Change::Put {
        bucket: OWN_BUCKET.to_owned(),
        key: tail_key(stream).into(),
        value: next.0.to_le_bytes().to_vec().into(),
    }
}

/// Where a stream's records had been given up or reclaimed to.
pub(crate) fn tail(catalog: &Catalog, stream: &str) -> Offset {
    let noted = catalog.get(OWN_BUCKET, &tail_key(stream)).ok().flatten();
    let bytes = noted.and_then(|value| value[..].try_into().ok());
    Offset(bytes.map_or(0, u64::from_le_bytes))
}

fn tail_key(stream: &str) -> Vec<u8> {
    ["tail/", stream].concat().into_bytes()
}

/// What the records that go had to say.
#[derive(Debug, Default)]
struct Found {
    /// First and last event time, from the frames' headers.
    times: Option<(WallNanos, WallNanos)>,
    gaps: Vec<Gap>,
}

impl Found {
    fn look_through(&mut self, segment: &Segment, first: Offset) -> Result<(), Error> {
        let mut walk = segment.walk(HEADER_BYTES as u64)?;
        loop {
            match walk.step(Check::Header)? {
                Step::Frame { at, header } if header.count > 0 && header.next() > first => {
                    self.frame(&mut walk, at, &header, first)?;
                }
                Step::Frame { .. } | Step::Damage { .. } => {}
                Step::Torn { .. } | Step::End { .. } => return Ok(()),
            }
        }
    }

    fn frame(
        &mut self,
        walk: &mut Walk,
        at: u64,
        header: &Header,
        first: Offset,
    ) -> Result<(), Error> {
        let (from, to) = self.times.unwrap_or((header.first_time, header.last_time));
        self.times = Some((from.min(header.first_time), to.max(header.last_time)));
        if !header.has(flags::GAPS) {
            return Ok(());
        }
        let seed = walk.seed();
        let mut bytes = Vec::new();
        if let Ok(body) = header.open(walk.payload(at, header)?, &seed, &mut bytes) {
            let gaps = body
                .records
                .filter(|(offset, record)| *offset >= first && record.kind == Kind::Gap);
            self.gaps
                .extend(gaps.filter_map(|(_, gap)| read_gap(gap.to_record())));
        }
        Ok(())
    }
}

/// The gap that a record tells of; what is inside a gap record of somebody else's making is kept
/// as its reason.
pub(crate) fn read_gap(record: Record) -> Option<Gap> {
    if record.kind != Kind::Gap {
        return None;
    }
    Some(
        serde_json::from_slice(&record.payload).unwrap_or_else(|_| Gap {
            subject: record.source.clone(),
            offsets: None,
            from: Some(record.event_time()),
            to: Some(record.event_time()),
            count: None,
            reason: String::from_utf8_lossy(&record.payload).into_owned(),
        }),
    )
}

/// One gap for all with the same subject and reason. A gap whose offsets span more than its count
/// lacks only some of them.
pub(crate) fn fold(stream: &str, gaps: Vec<Gap>) -> Vec<Gap> {
    let mut folded: BTreeMap<(String, String), Gap> = BTreeMap::new();
    for gap in gaps {
        let mut key = (gap.subject.clone(), gap.reason.clone());
        if folded.len() >= GAPS_MAX && !folded.contains_key(&key) {
            key = (stream.to_owned(), "many gaps, told as one".to_owned());
        }
        match folded.get_mut(&key) {
            Some(sum) => sum.add(&gap),
            None => {
                let (subject, reason) = key.clone();
                let gap = Gap {
                    offsets: gap.offsets.filter(|_| gap.subject == subject),
                    subject,
                    reason,
                    ..gap
                };
                folded.insert(key, gap);
            }
        }
    }
    folded.into_values().collect()
}

impl Gap {
    /// Widens this gap by `other`.
    fn add(&mut self, other: &Self) {
        let offsets = self.offsets.zip(other.offsets);
        self.offsets = offsets.map(|(a, b)| (a.0.min(b.0), a.1.max(b.1)));
        self.from = [self.from, other.from].into_iter().flatten().min();
        self.to = [self.to, other.to].into_iter().flatten().max();
        let counts = self.count.zip(other.count);
        self.count = counts.map(|(a, b)| a.saturating_add(b));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(subject: &str, offsets: Option<(u64, u64)>, count: Option<u64>) -> Gap {
        Gap {
            subject: subject.to_owned(),
            offsets: offsets.map(|(first, next)| (Offset(first), Offset(next))),
            from: None,
            to: None,
            count,
            reason: Reason::StreamFull.words().to_owned(),
        }
    }

    #[test]
    fn gaps_of_one_subject_and_reason_are_one_and_none_is_counted_twice() {
        let gaps = vec![
            gap("a", Some((0, 10)), Some(10)),
            gap("b", None, None),
            gap("a", Some((40, 50)), Some(10)),
        ];
        let folded = fold("a", gaps);
        assert_eq!(
            folded,
            [gap("a", Some((0, 50)), Some(20)), gap("b", None, None)]
        );
    }

    #[test]
    fn what_is_told_stays_small_and_keeps_the_count() {
        let gaps = (0..10_000).map(|tag| gap(&tag.to_string(), None, Some(3)));
        let folded = fold("a", gaps.collect());
        assert_eq!(folded.len(), GAPS_MAX + 1);
        assert_eq!(
            folded.iter().filter_map(|gap| gap.count).sum::<u64>(),
            30_000
        );
    }

    #[test]
    fn a_gap_record_that_is_not_ours_is_told_in_its_own_words() {
        let record = Record::new(Kind::Gap, "plc", "bearing data lost");
        let gap = read_gap(record).expect("a gap");
        assert_eq!(
            (gap.subject.as_str(), gap.reason.as_str(), gap.count),
            ("plc", "bearing data lost", None)
        );
        assert_eq!(read_gap(Record::new(Kind::Mqtt, "plc", "{}")), None);
    }
}
