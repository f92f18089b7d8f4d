//! Looking into a data directory from outside: of a stopped node, or beside a live one.
//!
//! Nothing here writes, takes the lock, or needs the catalog. Beside a live node the last bytes
//! of a stream's newest segment may be a commit under way; they show as `unfinished_bytes`.

use crate::cipher::Cipher;
use crate::digest::Digest;
use crate::directory;
use crate::frame::{Flaw, Header};
use crate::keys;
use crate::segment::{self, Check, HEADER_BYTES, Name, Preface, Segment, Step, Walk};
use crate::{Error, Keys, Offset, Record, StreamName};
use serde::Serialize;
use std::collections::VecDeque;
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
    let summary = |name: StreamName| {
        let segments = segments(data_directory, &name, epoch, None)?;
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
    };
    names.into_iter().map(summary).collect()
}

/// The records of a stream from `from` on, to the end there is now. What does not read is
/// passed over; [`verify`] names it. [`Error::Key`] where they are encrypted with no key of `keys`.
pub fn records(
    data_directory: &Path,
    stream: &StreamName,
    from: Offset,
    keys: Option<&Keys>,
) -> Result<Records, Error> {
    let cipher = cipher(keys)?;
    let epoch = epoch(data_directory)?;
    if !directory::list(data_directory)?.contains(stream) {
        return Err(Error::UnknownStream {
            name: stream.to_string(),
        });
    }
    let segments = segments(data_directory, stream, epoch, cipher.as_ref())?;
    let mut segments: VecDeque<_> = segments.into();
    while segments.get(1).is_some_and(|next| next.name.base <= from) {
        segments.pop_front();
    }
    let paths = segments.iter().map(|segment| segment.path.clone());
    keys::check_segments(paths, cipher.as_deref())?;
    Ok(Records {
        segments,
        walk: None,
        from,
        body: Vec::new(),
        ahead: VecDeque::new(),
    })
}

/// Records in order; holds one frame at a time.
#[derive(Debug)]
pub struct Records {
    segments: VecDeque<Segment>,
    walk: Option<Walk>,
    from: Offset,
    /// The body of the frame read last.
    body: Vec<u8>,
    ahead: VecDeque<(Offset, Record)>,
}

impl Iterator for Records {
    type Item = Result<(Offset, Record), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ahead.is_empty() {
            match self.load() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    self.walk = None;
                    return Some(Err(error));
                }
            }
        }
        self.ahead.pop_front().map(Ok)
    }
}

impl Records {
    fn load(&mut self) -> Result<bool, Error> {
        let Some(walk) = &mut self.walk else {
            let Some(segment) = self.segments.pop_front() else {
                return Ok(false);
            };
            self.walk = match segment.walk(HEADER_BYTES as u64) {
                Ok(walk) => Some(walk.beside_writer()),
                // Retired by the live node since we listed it.
                Err(_) if !segment.path.exists() => None,
                Err(error) => return Err(error),
            };
            return Ok(true);
        };
        let Some((at, header)) = next_frame(walk, Check::Header)? else {
            self.walk = None;
            return Ok(true);
        };
        if header.next() <= self.from {
            return Ok(true);
        }
        let seed = walk.seed();
        match header.open(walk.payload(at, &header)?, &seed, &mut self.body) {
            Ok(body) => {
                let wanted = body.records.filter(|(at, _)| *at >= self.from);
                self.ahead
                    .extend(wanted.map(|(at, record)| (at, record.to_record())));
            }
            // Begun since we looked, by a node that was given a key since.
            Err(Flaw::Locked) => return Err(walk.locked()),
            Err(_) => {}
        }
        Ok(true)
    }
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
        report.streams += 1;
        let segments = segments(data_directory, &name, epoch, cipher.as_ref())?;
        // What a segment is to follow: where its offsets begin, and what its header names.
        let mut before = (None, None);
        for (index, segment) in segments.iter().enumerate() {
            let mut check = Verification {
                stream: name.as_str(),
                segment,
                newest: index + 1 == segments.len(),
                locked: false,
                report: &mut report,
            };
            before = match check.run(epoch, before) {
                Ok(followed) => followed,
                // Retired by the live node since we listed it, and so were those before it.
                Err(_) if !segment.path.exists() => (None, None),
                Err(error) => return Err(error),
            };
        }
    }
    Ok(report)
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
        self.header(epoch, link)?;
        let found = self.frames(expected.unwrap_or(self.segment.name.base))?;
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

    /// Checks the header, and that it names the digest of the segment `before`.
    fn header(&mut self, epoch: u64, link: Option<Link>) -> Result<(), Error> {
        use FaultKind::{Chain, Damage};
        let Some(preface) = Preface::read(&self.segment.path)? else {
            self.fault(Damage, 0, "the segment's header is damaged", None);
            return Ok(());
        };
        let cipher = self.segment.seed.cipher.as_deref();
        self.locked = preface.key.is_some_and(|key| !keys::knows(cipher, key));
        if preface.name != self.segment.name || preface.epoch != epoch {
            let what = "the segment's header is not that of this file";
            self.fault(Chain, 0, what, None);
        }
        let breaks = |link| matches!(link, Link::Sound(digest) if digest != preface.previous);
        if link.is_some_and(breaks) {
            let what = "the hash chain breaks: the segment before was altered or replaced, or one \
                        between it and this was removed";
            self.fault(Chain, segment::PREVIOUS_AT, what, None);
        }
        Ok(())
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
                missing(expected, base),
            );
        }
        let mut found = Frames {
            frames: 0,
            end: HEADER_BYTES as u64,
            next: base,
        };
        let mut broken: Option<(u64, Flaw)> = None;
        let mut walk = self.segment.walk(HEADER_BYTES as u64)?.beside_writer();
        let mut body = Vec::new();
        loop {
            match walk.step(Check::Payload)? {
                Step::Frame { at, header } => {
                    let gone = missing(found.next, header.base);
                    if let Some((at, flaw)) = broken.take() {
                        self.fault(Damage, at, &flaw.to_string(), gone);
                    } else if header.base != found.next {
                        self.fault(Missing, at, "records are missing", gone);
                    }
                    let seed = walk.seed();
                    let gone = missing(header.base, header.next());
                    match header.open(walk.payload(at, &header)?, &seed, &mut body) {
                        Ok(_) => {}
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
        });
    }
}

fn missing(first: Offset, next: Offset) -> Option<(Offset, Offset)> {
    (first < next).then_some((first, next))
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

fn epoch(data_directory: &Path) -> Result<u64, Error> {
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
