//! Opening a data directory in whatever state it is.
//!
//! Only the newest segment of a stream may be torn: everything before it was synced before the
//! next was begun. So it alone is read in full; the others are found by name. What the catalog
//! lacks is replayed from frames it has not seen, found by name as well.

use crate::append::OWN_BUCKET;
use crate::catalog::{Catalog, Mark};
use crate::disk::Disk;
use crate::frame::{Encoded, Flaw, flags};
use crate::segment::{Check, HEADER_BYTES, Name, Preface, Segment, Step, Walk};
use crate::stream::Stream;
use crate::{Change, Error, Gap, Offset, WallNanos};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// Changes applied to the catalog in one batch while it is rebuilt.
const BATCH_CHANGES: usize = 1_000;

/// What opening found and mended.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Recovery {
    /// Bytes cut off the ends of segments: writes that no append was acknowledged for.
    pub torn_bytes: u64,
    /// Damaged places inside segments, copied to `quarantine/` and noted as gap records.
    pub quarantined_frames: u64,
    /// Records that were acknowledged once and are not there: noted as gap records.
    pub records_missing: u64,
    /// The catalog was made anew from the log.
    pub catalog_rebuilt: bool,
    /// The log was closed in order last time.
    pub clean_stop: bool,
}

/// A stream as found on disk.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) head: Offset,
    pub(crate) last_sequence: u64,
    pub(crate) torn_bytes: u64,
    pub(crate) damage: Vec<Damage>,
}

/// A place in a segment that does not read.
#[derive(Debug, Clone)]
pub(crate) struct Damage {
    pub(crate) segment: Arc<Segment>,
    pub(crate) at: u64,
    pub(crate) until: u64,
    pub(crate) first: Offset,
    pub(crate) next: Offset,
    pub(crate) flaw: Flaw,
}

/// Reads what a stream's directory holds, and mends the end of its newest segment.
pub(crate) fn recover(disk: &Disk, directory: &Path, epoch: u64) -> Result<Found, Error> {
    let names = Name::list(directory).map_err(Error::storage("list", directory))?;
    let mut found = Found::default();
    for (index, &name) in names.iter().enumerate() {
        let path = directory.join(name.file());
        let bytes = std::fs::metadata(&path)
            .map_err(Error::storage("look at", &path))?
            .len();
        // Corrected below where there is no next segment to tell.
        let next = names.get(index + 1).map_or(name.base, |next| next.base);
        let segment = Segment::new(directory, epoch, name, bytes, next);
        found.segments.push(Arc::new(segment));
    }
    if let Some(newest) = found.segments.last() {
        found.head = newest.name.base;
        found.last_sequence = newest.name.sequence.saturating_sub(1);
    }
    // Segments without a frame say nothing about the ends of those before them.
    for segment in found.segments.clone().into_iter().rev() {
        if mend(disk, &segment, &mut found)? {
            break;
        }
    }
    Ok(found)
}

/// Cuts off what is torn at the end of one segment. False if it holds no frame.
fn mend(disk: &Disk, segment: &Arc<Segment>, found: &mut Found) -> Result<bool, Error> {
    Preface::read(&segment.path)?;
    let survey = Survey::of(segment)?;
    if segment.bytes() > survey.end {
        let path = &segment.path;
        let file = File::options()
            .write(true)
            .open(path)
            .map_err(Error::storage("open", path))?;
        disk.truncate(&file, path, survey.end)
            .and_then(|()| disk.sync(&file, path))
            .map_err(Error::storage("truncate", path))?;
    }
    if let Some(flaw) = survey.torn {
        let torn_bytes = segment.bytes() - survey.end;
        let path = segment.path.display();
        tracing::info!(%path, at = survey.end, torn_bytes, %flaw, "cut off a torn end");
        found.torn_bytes += torn_bytes;
    }
    found.last_sequence = found.last_sequence.max(survey.last_sequence);
    found.head = found.head.max(survey.next);
    segment.extend(survey.end, survey.next.max(segment.next()));
    found.damage.extend(survey.damage);
    Ok(survey.frames > 0)
}

/// One segment, read in full.
struct Survey {
    damage: Vec<Damage>,
    frames: u64,
    last_sequence: u64,
    /// Where the last intact frame ends, and one past its last record.
    end: u64,
    next: Offset,
    /// What is wrong with the bytes after that, if any are there.
    torn: Option<Flaw>,
}

impl Survey {
    fn of(segment: &Arc<Segment>) -> Result<Self, Error> {
        let mut walk = segment.walk(HEADER_BYTES as u64)?;
        let mut survey = Self {
            damage: Vec::new(),
            frames: 0,
            last_sequence: 0,
            end: segment.bytes().min(HEADER_BYTES as u64),
            next: segment.name.base,
            torn: None,
        };
        let mut broken = None;
        loop {
            match walk.step(Check::Payload)? {
                Step::Frame { at, header } => {
                    if let Some(flaw) = broken.take() {
                        survey.damaged(segment, at, header.base, flaw);
                    }
                    segment.mark(header.base, at);
                    survey.frames += 1;
                    survey.last_sequence = header.sequence;
                    survey.end = at + header.frame_bytes();
                    survey.next = header.next();
                }
                Step::Damage { flaw, .. } => broken = Some(flaw),
                Step::Torn { flaw, .. } => {
                    survey.torn = Some(flaw);
                    return Ok(survey);
                }
                Step::End { .. } => return Ok(survey),
            }
        }
    }

    /// From the last intact frame to `until`, where the record `next` is, nothing reads.
    fn damaged(&mut self, segment: &Arc<Segment>, until: u64, next: Offset, flaw: Flaw) {
        self.damage.push(Damage {
            segment: Arc::clone(segment),
            at: self.end,
            until,
            first: self.next,
            next,
            flaw,
        });
    }
}

/// The damage in a segment that a reader came upon, and that is known to end at `end`.
pub(crate) fn survey(segment: &Arc<Segment>, end: Offset) -> Result<Vec<Damage>, Error> {
    let mut survey = Survey::of(segment)?;
    if let Some(flaw) = survey.torn {
        survey.damaged(segment, segment.bytes(), end, flaw);
    }
    Ok(survey.damage)
}

impl Damage {
    /// Makes the damage known: the bytes to quarantine, and a gap record to be appended if
    /// records went with them. `None` if that was done before.
    pub(crate) fn note(
        &self,
        catalog: &Catalog,
        data_directory: &Path,
        stream: &str,
    ) -> Option<Encoded> {
        let path = self.segment.path.display();
        let reason = format!("damaged in {path}: {}", self.flaw);
        let note = loss(catalog, stream, (self.first, self.next), reason)?;
        tracing::error!(
            stream, %path, at = self.at, first = %self.first, next = %self.next,
            flaw = %self.flaw, "a damaged place was put into quarantine"
        );
        if let Err(error) = self.quarantine(&data_directory.join("quarantine"), stream) {
            tracing::warn!(%error, "cannot copy damaged bytes to quarantine");
        }
        Some(note)
    }

    pub(crate) const fn records(&self) -> u64 {
        self.next.0.saturating_sub(self.first.0)
    }

    /// Copies the damaged bytes to where a person can look at them.
    fn quarantine(&self, directory: &Path, stream: &str) -> Result<(), Error> {
        std::fs::create_dir_all(directory).map_err(Error::storage("create", directory))?;
        let file = format!("{stream}-{}-{}.bin", self.segment.name.file(), self.at);
        let target = directory.join(file);
        let source =
            File::open(&self.segment.path).map_err(Error::storage("open", &self.segment.path))?;
        let mut bytes = vec![0; usize::try_from(self.until - self.at).unwrap_or(usize::MAX)];
        source
            .read_exact_at(&mut bytes, self.at)
            .map_err(Error::storage("read", &self.segment.path))?;
        std::fs::write(&target, bytes).map_err(Error::storage("write", &target))
    }
}

/// A gap record for offsets that do not read, with a note in the catalog that it was written.
/// `None` if it was noted before.
pub(crate) fn loss(
    catalog: &Catalog,
    stream: &str,
    (first, next): (Offset, Offset),
    reason: String,
) -> Option<Encoded> {
    let key = format!("damage/{stream}/{first}");
    if matches!(catalog.get(OWN_BUCKET, key.as_bytes()), Ok(Some(_))) {
        return None;
    }
    let gap = Gap {
        subject: stream.to_owned(),
        offsets: Some((first, next)),
        from: None,
        to: None,
        count: Some(next.0 - first.0),
        reason,
    };
    let note = Change::Put {
        bucket: OWN_BUCKET.to_owned(),
        key: key.into_bytes().into(),
        value: next.0.to_le_bytes().to_vec().into(),
    };
    Some(Encoded::new(&[gap.into_record()], vec![note]))
}

/// Where retention had given up a stream's records to.
pub(crate) fn dropped_below(catalog: &Catalog, stream: &str) -> Offset {
    let key = format!("tail/{stream}");
    let noted = catalog.get(OWN_BUCKET, key.as_bytes()).ok().flatten();
    let bytes = noted.and_then(|value| value[..].try_into().ok());
    Offset(bytes.map_or(0, u64::from_le_bytes))
}

/// First and last event time in these segments, as far as their frames' headers read.
pub(crate) fn times(segments: &[Arc<Segment>]) -> Option<(WallNanos, WallNanos)> {
    let mut times = None;
    for segment in segments {
        let Ok(mut walk) = segment.walk(HEADER_BYTES as u64) else {
            continue;
        };
        loop {
            match walk.step(Check::Header) {
                Ok(Step::Frame { header, .. }) if header.count > 0 => {
                    let (first, last) = times.unwrap_or((header.first_time, header.last_time));
                    times = Some((first.min(header.first_time), last.max(header.last_time)));
                }
                Ok(Step::Frame { .. } | Step::Damage { .. }) => {}
                Ok(Step::Torn { .. } | Step::End { .. }) | Err(_) => break,
            }
        }
    }
    times
}

/// How the catalog and the log were brought together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Synchronised {
    pub(crate) rebuilt: bool,
    /// Last sequence number of the newest complete snapshot, and its size.
    pub(crate) snapshot: u64,
    pub(crate) snapshot_bytes: u64,
    /// Newest frame that is known to carry changes.
    pub(crate) last_change: u64,
}

/// Brings the catalog up to `mark`. It is rebuilt unless it is of this log, not ahead of it, and
/// not from before a power cut (sled is never synced, so only then is it what was written).
pub(crate) fn synchronise(
    catalog: &Catalog,
    streams: &[Arc<Stream>],
    journal: usize,
    mark: Mark,
    clean_stop: bool,
) -> Result<Synchronised, Error> {
    let snapshot = Snapshot::newest(&streams[journal])?;
    let usable = catalog.mark().ok().flatten().filter(|found| {
        found.epoch == mark.epoch
            && found.applied <= mark.applied
            && found.applied >= snapshot.last
            && (clean_stop || found.boot == mark.boot)
    });
    let replayed = usable.map(|found| replay(catalog, streams, found.applied, mark));
    match replayed {
        Some(Ok(last_change)) => Ok(Synchronised {
            rebuilt: false,
            snapshot: snapshot.last,
            snapshot_bytes: snapshot.bytes,
            last_change,
        }),
        _ => {
            catalog.forget_cursors();
            rebuild(catalog, streams, journal, mark)
        }
    }
}

/// Makes the catalog anew: the newest snapshot, then all changes after it.
pub(crate) fn rebuild(
    catalog: &Catalog,
    streams: &[Arc<Stream>],
    journal: usize,
    mark: Mark,
) -> Result<Synchronised, Error> {
    let snapshot = Snapshot::newest(&streams[journal])?;
    catalog.wipe()?;
    let unfinished = Mark {
        applied: 0,
        epoch: !mark.epoch,
        ..mark
    };
    let parts = Changes::new(&streams[journal], snapshot.first, true);
    for part in parts {
        let (sequence, changes) = part?;
        if sequence > snapshot.last {
            break;
        }
        catalog.apply(&changes, unfinished, &[])?;
    }
    let last_change = replay(catalog, streams, snapshot.last, mark)?;
    Ok(Synchronised {
        rebuilt: true,
        snapshot: snapshot.last,
        snapshot_bytes: snapshot.bytes,
        last_change,
    })
}

/// Applies the changes of all frames after `applied`, in the order of their sequence numbers.
fn replay(
    catalog: &Catalog,
    streams: &[Arc<Stream>],
    applied: u64,
    mark: Mark,
) -> Result<u64, Error> {
    let mut sources: Vec<_> = streams
        .iter()
        .map(|stream| Changes::new(stream, applied + 1, false).peekable())
        .collect();
    let mut pending: Vec<Change> = Vec::new();
    let mut last_change = applied;
    loop {
        let mut earliest: Option<(u64, usize)> = None;
        for (index, source) in sources.iter_mut().enumerate() {
            let sequence = match source.peek() {
                Some(Ok((sequence, _))) => *sequence,
                Some(Err(error)) => return Err(error.clone()),
                None => continue,
            };
            if earliest.is_none_or(|(least, _)| sequence < least) {
                earliest = Some((sequence, index));
            }
        }
        let next = earliest.and_then(|(_, index)| sources[index].next());
        let Some(frame) = next else {
            catalog.apply(&pending, mark, &[])?;
            return Ok(last_change);
        };
        let (sequence, changes) = frame?;
        pending.extend(changes);
        last_change = sequence;
        if pending.len() >= BATCH_CHANGES {
            let so_far = Mark {
                applied: sequence,
                ..mark
            };
            catalog.apply(&pending, so_far, &[])?;
            pending.clear();
        }
    }
}

/// The newest complete snapshot in the journal; sequence numbers of its first and last frame.
#[derive(Debug, Clone, Copy, Default)]
struct Snapshot {
    first: u64,
    last: u64,
    bytes: u64,
}

impl Snapshot {
    fn newest(journal: &Stream) -> Result<Self, Error> {
        let mut newest = Self::default();
        let mut begun: Option<Self> = None;
        for segment in journal.segments() {
            let mut walk = segment.walk(HEADER_BYTES as u64)?;
            loop {
                let header = match walk.step(Check::Payload)? {
                    Step::Frame { header, .. } => header,
                    Step::Damage { .. } => {
                        begun = None;
                        continue;
                    }
                    Step::Torn { .. } | Step::End { .. } => break,
                };
                if header.has(flags::SNAPSHOT_FIRST) {
                    begun = Some(Self {
                        first: header.sequence,
                        ..Self::default()
                    });
                }
                if !header.has(flags::SNAPSHOT) {
                    begun = None;
                }
                if let Some(part) = &mut begun {
                    part.bytes += header.frame_bytes();
                    part.last = header.sequence;
                    if header.has(flags::SNAPSHOT_LAST) {
                        newest = *part;
                        begun = None;
                    }
                }
            }
        }
        Ok(newest)
    }
}

/// The changes in a stream's frames from one sequence number on.
struct Changes {
    segments: std::vec::IntoIter<Arc<Segment>>,
    walk: Option<Walk>,
    from: u64,
    /// Whether to look at frames of snapshots, or at all others.
    snapshots: bool,
}

impl Changes {
    fn new(stream: &Stream, from: u64, snapshots: bool) -> Self {
        let mut segments = stream.segments();
        let newer = |segment: &Arc<Segment>| segment.name.sequence > from;
        let skip = segments.iter().position(newer).unwrap_or(segments.len());
        segments.drain(..skip.saturating_sub(1));
        Self {
            segments: segments.into_iter(),
            walk: None,
            from,
            snapshots,
        }
    }

    fn advance(&mut self) -> Result<Option<(u64, Vec<Change>)>, Error> {
        loop {
            let Some(walk) = &mut self.walk else {
                let Some(segment) = self.segments.next() else {
                    return Ok(None);
                };
                self.walk = Some(segment.walk(HEADER_BYTES as u64)?);
                continue;
            };
            match walk.step(Check::Header)? {
                Step::Frame { at, header } => {
                    let wanted = header.sequence >= self.from
                        && header.has(flags::CHANGES)
                        && header.has(flags::SNAPSHOT) == self.snapshots;
                    if !wanted {
                        continue;
                    }
                    let seed = walk.seed();
                    match header.open(walk.payload(at, &header)?, seed) {
                        Ok(body) => return Ok(Some((header.sequence, body.changes))),
                        Err(flaw) => tracing::error!(
                            sequence = header.sequence, %flaw,
                            "a damaged frame held catalog changes"
                        ),
                    }
                }
                Step::Damage { .. } => {}
                Step::Torn { .. } | Step::End { .. } => self.walk = None,
            }
        }
    }
}

impl Iterator for Changes {
    type Item = Result<(u64, Vec<Change>), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}

/// The clean-stop marker: there from an orderly stop to the next opening, and never else.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Marker {
    pub(crate) last_sequence: u64,
    pub(crate) heads: BTreeMap<String, Offset>,
}

impl Marker {
    const FILE: &str = "clean-stop.json";

    pub(crate) fn write(&self, disk: &Disk, directory: &Path) -> Result<(), Error> {
        let path = directory.join(Self::FILE);
        let bytes = serde_json::to_vec(self).expect("string keys only");
        let file = disk
            .create(&path)
            .map_err(Error::storage("create", &path))?;
        disk.write(&file, &path, &bytes, 0)
            .and_then(|()| disk.sync(&file, &path))
            .and_then(|()| disk.sync_directory(directory))
            .map_err(Error::storage("write", &path))
    }

    /// Reads the marker and removes it, durably.
    pub(crate) fn take(disk: &Disk, directory: &Path) -> Result<Option<Self>, Error> {
        let path = directory.join(Self::FILE);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = std::fs::read(&path).map_err(Error::storage("read", &path))?;
        disk.remove(&path)
            .and_then(|()| disk.sync_directory(directory))
            .map_err(Error::storage("remove", &path))?;
        Ok(serde_json::from_slice(&bytes).ok())
    }
}
