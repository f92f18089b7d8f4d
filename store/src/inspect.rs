//! Looking into a data directory from outside: of a stopped node, or beside a live one.
//!
//! Nothing here writes, takes the lock, or needs the catalog. Beside a live node the last bytes
//! of a stream's newest segment may be a commit under way; they show as `unfinished_bytes`.

mod figures;
mod records;

pub use figures::{GapFigures, SourceFigures, StreamFigures, figures};
pub use records::{Account, Records, Times};

use crate::cipher::Cipher;
use crate::digest::Digest;
use crate::frame::{Body, Flaw, Header, flags};
use crate::ranges::{self, Range, between};
use crate::segment::{self, Check, HEADER_BYTES, Name, Preface, Segment, Step, Walk};
use crate::{
    Error, Gap, Keys, Kind, Offset, RecordView, StreamName, WallNanos, directory, event_time, keys,
};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One stream, as its files say.
#[derive(Debug, Clone, Serialize)]
pub struct StreamSummary {
    pub name: String,
    /// The first record held, and one past the last.
    pub tail: Offset,
    pub head: Offset,
    pub bytes: u64,
    pub segments: usize,
}

/// What [`verify`] found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    pub streams: usize,
    pub segments: u64,
    pub frames: u64,
    pub records: u64,
    pub bytes: u64,
    /// At the ends of newest segments: a commit under way, or one that never finished.
    pub unfinished_bytes: u64,
    /// Frames that no key was given for: of these, only the checksums were looked at.
    pub locked_frames: u64,
    pub faults: Vec<Fault>,
}

impl Report {
    /// Whether everything that was acknowledged and not retired is there and intact.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty()
    }

    /// The faults that [`Log::scrub`] would do something about.
    ///
    /// [`Log::scrub`]: crate::Log::scrub
    pub fn open_faults(&self) -> impl Iterator<Item = &Fault> {
        self.faults.iter().filter(|fault| fault.is_open())
    }
}

/// A place where the log is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    pub stream: String,
    pub file: PathBuf,
    /// Where in the file, in bytes.
    pub position: u64,
    pub kind: FaultKind,
    pub what: String,
    /// The offsets that do not read because of it: first, one past last.
    pub missing: Option<(Offset, Offset)>,
    /// Whether gap records in the stream tell of all of these.
    pub told: bool,
}

impl Fault {
    /// Whether something is to be done about it: a loss that no gap record tells of, or damage in
    /// the journal, which can be written anew. A damaged segment header costs nothing, and a
    /// broken chain is for people to look into.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let in_journal = self.stream == StreamName::catalog().as_str();
        use FaultKind::{Chain, Damage, Missing, Seal};
        match self.kind {
            Damage | Seal if in_journal => self.position >= HEADER_BYTES as u64,
            Damage | Seal | Missing => self.missing.is_some() && !self.told,
            Chain => false,
        }
    }
}

/// What a [`Fault`] suggests to have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// Bytes that do not pass their checksum, or end too early: a disk does that.
    Damage,
    /// Everything there reads, and something is not there.
    Missing,
    /// The hash chain breaks where all checksums pass, or a header is that of another file. No
    /// disk does that: a segment was altered, replaced or removed.
    Chain,
    /// Every checksum of a frame passes, and it is not what was encrypted. No disk does that either.
    Seal,
}

/// Every stream in the data directory, in name order.
pub fn streams(data_directory: &Path) -> Result<Vec<StreamSummary>, Error> {
    let epoch = epoch(data_directory)?;
    let names = directory::list(data_directory)?;
    let summary = |name: StreamName| summary(data_directory, &name, epoch);
    names.into_iter().map(summary).collect()
}

fn summary(data_directory: &Path, name: &StreamName, epoch: u64) -> Result<StreamSummary, Error> {
    let segments = segments(data_directory, name, epoch, None)?;
    let mut head = Offset::ZERO;
    // Only the newest tells where the stream ends, unless nothing is in it yet.
    if let Some(newest) = segments.last() {
        head = newest.name.base;
        let mut walk = newest.walk(HEADER_BYTES as u64)?.beside_writer();
        while let Some((_, header)) = next_frame(&mut walk, Check::Header)? {
            head = header.next();
        }
    }
    Ok(StreamSummary {
        tail: segments.first().map_or(head, |first| first.name.base),
        head,
        bytes: segments.iter().map(Segment::bytes).sum(),
        segments: segments.len(),
        name: name.to_string(),
    })
}

/// The records of a stream from `from` on, to the end there is now. What does not read is
/// passed over, and told by [`Records::take_faults`]. [`Error::Key`] where they are encrypted with
/// no key of `keys`.
pub fn records(
    data_directory: &Path,
    stream: &StreamName,
    from: Offset,
    keys: Option<&Keys>,
) -> Result<Records, Error> {
    let segments = readable(data_directory, stream, from, keys)?;
    Ok(Records::new(stream, segments, from))
}

/// The segments of a stream that hold `from` or anything after it, which the keys open.
fn readable(
    data_directory: &Path,
    stream: &StreamName,
    from: Offset,
    keys: Option<&Keys>,
) -> Result<Vec<Segment>, Error> {
    let cipher = cipher(keys)?;
    let epoch = epoch(data_directory)?;
    exists(data_directory, stream)?;
    let mut segments = segments(data_directory, stream, epoch, cipher.as_ref())?;
    let after = segments.partition_point(|segment| segment.name.base <= from);
    segments.drain(..after.saturating_sub(1));
    let paths = segments.iter().map(|segment| segment.path.clone());
    keys::check_segments(paths, cipher.as_deref())?;
    Ok(segments)
}

/// The first record held whose event time is `time` or later, the head if there is none: as
/// [`Log::offset_at`], which see. Reads the headers of all frames up to there.
///
/// [`Log::offset_at`]: crate::Log::offset_at
pub fn offset_at(
    data_directory: &Path,
    stream: &StreamName,
    time: WallNanos,
    keys: Option<&Keys>,
) -> Result<Offset, Error> {
    let segments = readable(data_directory, stream, Offset::ZERO, keys)?;
    let head = summary(data_directory, stream, epoch(data_directory)?)?.head;
    let found = event_time::first_since(segments, time, Offset::ZERO)?;
    Ok(found.unwrap_or(head))
}

fn exists(data_directory: &Path, stream: &StreamName) -> Result<(), Error> {
    if directory::list(data_directory)?.contains(stream) {
        return Ok(());
    }
    Err(Error::UnknownStream {
        name: stream.to_string(),
    })
}

/// Reads every byte of every segment: headers, checksums, whether records decode, whether
/// offsets follow one another, and whether the digest in each header is that of the segment
/// before. Damage is reported, not an error. What is encrypted and has no key among `keys` is
/// counted, and all but what is inside is checked.
pub fn verify(data_directory: &Path, keys: Option<&Keys>) -> Result<Report, Error> {
    let cipher = cipher(keys)?;
    let epoch = epoch(data_directory)?;
    let mut report = Report::default();
    for name in directory::list(data_directory)? {
        let segments = segments(data_directory, &name, epoch, cipher.as_ref())?;
        read_stream(&name, &segments, epoch, &mut report, &mut |_, _| {})?;
    }
    Ok(report)
}

/// Checks one stream, and shows each intact frame to `visit`.
fn read_stream(
    name: &StreamName,
    segments: &[Segment],
    epoch: u64,
    report: &mut Report,
    visit: &mut dyn FnMut(&Header, &Body<'_>),
) -> Result<(), Error> {
    report.streams += 1;
    let faults_before = report.faults.len();
    let mut told = Vec::new();
    // What a segment is to follow: where its offsets begin, and what its header names.
    let mut before = (None, None);
    for (index, segment) in segments.iter().enumerate() {
        let mut check = Verification {
            stream: name.as_str(),
            segment,
            newest: index + 1 == segments.len(),
            locked: false,
            report,
            told: &mut told,
            visit,
        };
        before = match check.run(epoch, before) {
            Ok(followed) => followed,
            // Retired by the live node since we listed it, and so were those before it.
            Err(_) if !segment.path.exists() => (None, None),
            Err(error) => return Err(error),
        };
    }
    for fault in &mut report.faults[faults_before..] {
        let all_told = |lost| ranges::without(lost, &told).is_empty();
        fault.told = fault.missing.is_some_and(all_told);
    }
    Ok(())
}

/// What a segment's header is compared with: the newest one before it that has a frame. Those
/// without are no links of the chain.
#[derive(Debug, Clone, Copy)]
enum Link {
    Sound(Digest),
    /// Reported already, and reason enough for the digest to differ.
    Damaged,
}

/// What was read of a segment.
struct Frames {
    frames: u64,
    /// Where the last intact frame ends, and one past its last record.
    end: u64,
    next: Offset,
}

struct Verification<'a> {
    stream: &'a str,
    segment: &'a Segment,
    newest: bool,
    /// Its header names a key that was not given.
    locked: bool,
    report: &'a mut Report,
    /// Offsets of this stream that gap records in it tell of.
    told: &'a mut Vec<Range>,
    visit: &'a mut dyn FnMut(&Header, &Body<'_>),
}

impl Verification<'_> {
    /// Returns what the next segment is to follow. The first there is goes on from one that
    /// retention took, or from none.
    fn run(
        &mut self,
        epoch: u64,
        (expected, link): (Option<Offset>, Option<Link>),
    ) -> Result<(Option<Offset>, Option<Link>), Error> {
        let faults = self.report.faults.len();
        let previous = self.header(epoch)?;
        let found = self.frames(expected.unwrap_or(self.segment.name.base))?;
        if found.frames > 0 {
            self.follows(link, previous);
        }
        let mut faults = self.report.faults[faults..].iter();
        let link = if faults.any(|fault| fault.kind == FaultKind::Damage) {
            Some(Link::Damaged)
        } else if found.frames > 0 && !self.newest {
            let digest = Digest::of_file(&self.segment.path, found.end)?;
            Some(Link::Sound(digest))
        } else {
            link
        };
        Ok((Some(found.next), link))
    }

    /// Checks the header; the digest that it names of the segment before.
    fn header(&mut self, epoch: u64) -> Result<Option<Digest>, Error> {
        use FaultKind::{Chain, Damage};
        let Some(preface) = Preface::read(&self.segment.path)? else {
            self.fault(Damage, 0, "the segment's header is damaged", None);
            return Ok(None);
        };
        let cipher = self.segment.seed.cipher.as_deref();
        self.locked = preface.key.is_some_and(|key| !keys::knows(cipher, key));
        if preface.name != self.segment.name || preface.epoch != epoch {
            let what = "the segment's header is not that of this file";
            self.fault(Chain, 0, what, None);
        }
        Ok(Some(preface.previous))
    }

    /// Checks that the digest `previous` is that of the segment before. Not asked of a segment
    /// without a frame: what it was to follow may have been torn, and cut, after its header was
    /// written.
    fn follows(&mut self, link: Option<Link>, previous: Option<Digest>) {
        if let (Some(Link::Sound(digest)), Some(previous)) = (link, previous)
            && digest != previous
        {
            let what = "the hash chain breaks: the segment before was altered or replaced, or one \
                        between it and this was removed";
            self.fault(FaultKind::Chain, segment::PREVIOUS_AT, what, None);
        }
    }

    fn frames(&mut self, expected: Offset) -> Result<Frames, Error> {
        use FaultKind::{Damage, Missing, Seal};
        self.report.segments += 1;
        self.report.bytes += self.segment.bytes();
        let base = self.segment.name.base;
        if base != expected {
            self.fault(
                Missing,
                0,
                "the segment does not follow the one before",
                between(expected, base),
            );
        }
        let mut found = Frames {
            frames: 0,
            end: HEADER_BYTES as u64,
            next: base,
        };
        let (mut broken, mut bytes): (Option<(u64, Flaw)>, _) = (None, Vec::new());
        let mut walk = self.segment.walk(HEADER_BYTES as u64)?.beside_writer();
        loop {
            match walk.step(Check::Payload)? {
                Step::Frame { at, header } => {
                    let gone = between(found.next, header.base);
                    if let Some((at, flaw)) = broken.take() {
                        self.fault(Damage, at, &flaw.to_string(), gone);
                    } else if header.base != found.next {
                        self.fault(Missing, at, "records are missing", gone);
                    }
                    let seed = walk.seed();
                    let gone = between(header.base, header.next());
                    match header.open(walk.payload(at, &header)?, &seed, &mut bytes) {
                        Ok(body) => self.intact(&header, &body),
                        Err(Flaw::Locked) => self.report.locked_frames += 1,
                        Err(Flaw::Seal) if self.locked => self.report.locked_frames += 1,
                        Err(Flaw::Seal) => self.fault(Seal, at, &Flaw::Seal.to_string(), gone),
                        Err(flaw) => self.fault(Damage, at, &flaw.to_string(), gone),
                    }
                    self.report.frames += 1;
                    self.report.records += u64::from(header.count);
                    found.frames += 1;
                    found.end = at + header.frame_bytes();
                    found.next = header.next();
                }
                Step::Damage { at, flaw, .. } => broken = Some((at, flaw)),
                Step::Torn { at, until, .. } if self.newest => {
                    self.report.unfinished_bytes += until - at;
                    return Ok(found);
                }
                Step::Torn { at, flaw, .. } => {
                    self.fault(Damage, at, &flaw.to_string(), None);
                    return Ok(found);
                }
                Step::End { .. } => return Ok(found),
            }
        }
    }

    fn intact(&mut self, header: &Header, body: &Body<'_>) {
        if header.has(flags::GAPS) {
            let told = body.records;
            let told = told.filter_map(|(_, record)| told_offsets(&record, self.stream));
            self.told.extend(told);
        }
        (self.visit)(header, body);
    }

    fn fault(
        &mut self,
        kind: FaultKind,
        position: u64,
        what: &str,
        missing: Option<(Offset, Offset)>,
    ) {
        self.report.faults.push(Fault {
            stream: self.stream.to_owned(),
            file: self.segment.path.clone(),
            position,
            kind,
            what: what.to_owned(),
            missing,
            told: false,
        });
    }
}

/// The offsets of `stream` that a gap record in it says are missing, where it is all of them.
fn told_offsets(record: &RecordView<'_>, stream: &str) -> Option<Range> {
    if record.kind != Kind::Gap || record.source != stream {
        return None;
    }
    let gap: Gap = serde_json::from_slice(record.payload).ok()?;
    let all = |lost: &Range| gap.count == Some(ranges::count(*lost));
    gap.offsets.filter(all)
}

fn next_frame(walk: &mut Walk, check: Check) -> Result<Option<(u64, Header)>, Error> {
    loop {
        match walk.step(check)? {
            Step::Frame { at, header } => return Ok(Some((at, header))),
            Step::Damage { .. } => {}
            Step::Torn { .. } | Step::End { .. } => return Ok(None),
        }
    }
}

/// The random id of a data directory, which tells it from all others.
pub fn epoch(data_directory: &Path) -> Result<u64, Error> {
    let epoch = directory::epoch(data_directory)?;
    epoch.ok_or_else(|| {
        let shown = data_directory.display();
        Error::invalid(format!(
            "{shown} is not a data directory of skerry: no epoch in it"
        ))
    })
}

fn cipher(keys: Option<&Keys>) -> Result<Option<Arc<Cipher>>, Error> {
    let cipher = keys.map(Cipher::new).transpose()?;
    Ok(cipher.map(Arc::new))
}

fn segments(
    data_directory: &Path,
    stream: &StreamName,
    epoch: u64,
    cipher: Option<&Arc<Cipher>>,
) -> Result<Vec<Segment>, Error> {
    let directory = directory::streams(data_directory).join(stream.as_str());
    let names = Name::list(&directory).map_err(Error::storage("list", &directory))?;
    let segment = |name: Name| {
        let path = directory.join(name.file());
        // A live node may have retired it since we listed it.
        let bytes = std::fs::metadata(path).map_or(0, |found| found.len());
        Segment::new(&directory, epoch, name, bytes, name.base).with_cipher(cipher)
    };
    Ok(names
        .into_iter()
        .map(segment)
        .filter(|segment| segment.bytes() > 0)
        .collect())
}
